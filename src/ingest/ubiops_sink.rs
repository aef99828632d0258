//! Points over HTTP in the JSON form of the UbiOps API: what `MetricClient` speaks to a server.

use serde_json::{Value, json};
use ureq::http::Method;

use crate::error::{Error, Result};
use crate::ingest::client::{ClientOptions, MetricClient};
use crate::ingest::http::{HttpClient, percent_encode};
use crate::ingest::session::format_time;
use crate::ingest::sink::{Point, Refused, Sink};
use crate::model::SeriesKey;

/// The version in the path when the address names none.
const DEFAULT_VERSION: &str = "/v2";

/// Sends points to `POST {address}/projects/{project}/time-series/aggregate`.
#[derive(Debug)]
pub(super) struct UbiopsSink {
    client: HttpClient,
    path: String,
}

impl UbiopsSink {
    /// A sink for `project` at `address`.
    ///
    /// Without a scheme the address gets `https://`, without `/v<number>` in it `/v2` at its end; a token without a
    /// space gets `Token ` before it.
    ///
    /// # Errors
    /// `InvalidInput` for an empty project or a wrong address.
    pub(super) fn new(project: &str, address: &str, token: &str) -> Result<Self> {
        if project.is_empty() {
            return Err(Error::invalid_input("a project name is empty"));
        }
        let authorization = match token {
            "" => None,
            token if token.contains(' ') => Some(token.to_owned()),
            token => Some(format!("Token {token}")),
        };
        let mut client = HttpClient::new("https", address, authorization)?;
        if !has_version(client.base()) {
            client.extend_base(DEFAULT_VERSION);
        }
        let path = format!("/projects/{}/time-series/aggregate", percent_encode(project));
        Ok(UbiopsSink { client, path })
    }
}

/// Whether there is a `/v` and a digit in `address`.
fn has_version(address: &str) -> bool {
    address.split("/v").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl Sink for UbiopsSink {
    fn write(&self, points: &[Point]) -> std::result::Result<(), Refused> {
        if points.is_empty() {
            return Ok(());
        }
        let answer =
            self.client.send(Method::POST, &self.path, "application/json", body(points).as_bytes())?;
        answer.accepted("sending metrics").map(drop)
    }

    /// JSON has no NaN and no infinity.
    fn takes(&self, value: f64) -> bool {
        value.is_finite()
    }
}

/// One element for each series, with its points in order.
fn body(points: &[Point]) -> String {
    let mut series: Vec<(&SeriesKey, Vec<Value>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for point in points {
        let place = *places.entry(&point.key).or_insert_with(|| {
            series.push((&point.key, Vec::new()));
            series.len() - 1
        });
        if let Some((_, data)) = series.get_mut(place) {
            data.push(json!({"date": format_time(point.time), "value": point.value}));
        }
    }
    let element = |(key, data): (&SeriesKey, Vec<Value>)| {
        let labels: serde_json::Map<String, Value> =
            key.tags().map(|(key, value)| (key.to_owned(), value.into())).collect();
        json!({"metric": key.name(), "labels": labels, "data": data})
    };
    Value::Array(series.into_iter().map(element).collect()).to_string()
}

impl MetricClient {
    /// A client that sends to a server that speaks the UbiOps API, ours among them.
    ///
    /// `address` is that of the API with its version, `https://api.ubiops.com/v2.1` or `http://127.0.0.1:9090/v2.1`. An
    /// `https` address needs a TLS feature of `ureq`, which this crate does not turn on.
    ///
    /// ```
    /// use icecore::ingest::MetricClient;
    ///
    /// let metric_client =
    ///     MetricClient::connect("project_name_example", "http://127.0.0.1:9090/v2.1", "Token <YOUR_API_TOKEN>")?;
    /// metric_client.log_metric("custom.metric", [("test", "test")], 1.0)?;
    /// # drop(metric_client.stop()); // nobody may be listening where this example is tested
    /// # Ok::<(), icecore::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` for an empty project or a wrong address.
    pub fn connect(project: &str, address: &str, token: &str) -> Result<Self> {
        Self::connect_with(project, address, token, ClientOptions::default())
    }

    /// [`MetricClient::connect`] with options.
    ///
    /// # Errors
    /// As [`MetricClient::connect`].
    pub fn connect_with(project: &str, address: &str, token: &str, options: ClientOptions) -> Result<Self> {
        Ok(Self::with_options(UbiopsSink::new(project, address, token)?, options))
    }

    /// A client that takes address and token from the environment: `INT_API_URL` and `INT_API_TOKEN`.
    ///
    /// ```
    /// use icecore::ingest::MetricClient;
    ///
    /// # // SAFETY: nothing else runs in this program.
    /// # unsafe {
    /// std::env::set_var("INT_API_URL", "http://127.0.0.1:9090/v2.1");
    /// std::env::set_var("INT_API_TOKEN", "Token <YOUR_API_TOKEN>");
    /// # }
    /// let metric_client = MetricClient::from_env("project_name_example")?;
    /// metric_client.log_metric("custom.metric", [("test", "test")], 1.0)?;
    /// # drop(metric_client.stop()); // nobody may be listening where this example is tested
    /// # Ok::<(), icecore::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` naming the variable that is missing; otherwise as [`MetricClient::connect`].
    pub fn from_env(project: &str) -> Result<Self> {
        Self::from_variables(project, |name| std::env::var(name).ok())
    }

    fn from_variables(project: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let wanted = |name: &str| {
            let missing = || Error::invalid_input(format!("the environment variable {name} is not set"));
            variable(name).filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        Self::connect(project, &wanted("INT_API_URL")?, &wanted("INT_API_TOKEN")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::http::tests::FakeServer;
    use crate::model::Timestamp;
    use std::time::Duration;

    fn point(name: &str, tag: &str, nanos: i64, value: f64) -> Point {
        let key = SeriesKey::new(name, [("test", tag)]).unwrap();
        Point { key, time: Timestamp::from_nanos(nanos), value }
    }

    #[test]
    fn the_request_is_that_of_the_recorded_client() {
        let server = FakeServer::start();
        let address = format!("{}/v2.1/", server.address());
        let sink = UbiopsSink::new("proj é/x", &address, "abc").unwrap();
        let time = 1_795_218_736_476_709_000;
        sink.write(&[point("custom.metric", "test", time, 1.0)]).unwrap();
        let received = &server.received()[0];
        assert_eq!(received.line, "POST /v2.1/projects/proj%20%C3%A9%2Fx/time-series/aggregate HTTP/1.1");
        assert_eq!(received.header("authorization"), Some("Token abc"));
        assert_eq!(received.header("content-type"), Some("application/json"));
        let sent: Value = serde_json::from_str(&received.body).unwrap();
        let expected = json!([{"metric": "custom.metric", "labels": {"test": "test"},
            "data": [{"date": "2026-11-20T23:52:16.476709Z", "value": 1.0}]}]);
        assert_eq!(sent, expected);
        assert!(received.body.contains("\"value\":1.0"), "{}", received.body);
    }

    #[test]
    fn points_of_a_series_are_sent_together_in_order() {
        let points = [point("a", "x", 1, 1.0), point("b", "x", 2, 2.0), point("a", "x", 3_000_000_000, -0.0)];
        let sent: Value = serde_json::from_str(&body(&points)).unwrap();
        assert_eq!(sent[0]["metric"], "a");
        assert_eq!(sent[0]["data"][0]["date"], "1970-01-01T00:00:00.000000001Z");
        assert_eq!(sent[0]["data"][1]["date"], "1970-01-01T00:00:03Z");
        assert!(sent[0]["data"][1]["value"].as_f64().unwrap().is_sign_negative());
        assert_eq!((sent[1]["metric"].as_str(), sent.as_array().unwrap().len()), (Some("b"), 2));
    }

    #[test]
    fn addresses_without_scheme_or_version_get_them() {
        let base = |address: &str| UbiopsSink::new("p", address, "t").unwrap().client.base().to_owned();
        assert_eq!(base("api.ubiops.com"), "https://api.ubiops.com/v2");
        assert_eq!(base("http://127.0.0.1:9090"), "http://127.0.0.1:9090/v2");
        assert_eq!(base("http://127.0.0.1:9090/v2.1/"), "http://127.0.0.1:9090/v2.1");
        assert_eq!(base("http://vault"), "http://vault/v2");
    }

    #[test]
    fn the_variable_that_is_missing_is_named() {
        let only = |present: &'static str| {
            MetricClient::from_variables("p", move |name| (name == present).then(|| "http://x".to_owned()))
        };
        assert!(only("INT_API_URL").unwrap_err().to_string().contains("INT_API_TOKEN"));
        assert!(only("INT_API_TOKEN").unwrap_err().to_string().contains("INT_API_URL"));
        assert!(MetricClient::from_variables("p", |_| Some("http://x".to_owned())).is_ok());
    }

    #[test]
    fn too_many_requests_are_repeated_when_the_server_says() {
        let server = FakeServer::start();
        server.say("429 Too Many Requests", "x-ratelimit-reset: 0\r\n", "");
        server.say("201 Created", "", "{}");
        let client = MetricClient::connect("p", &server.address(), "Bearer a b").unwrap();
        client.log_metric("m", [("k", "v")], 1).unwrap();
        assert!(client.log_metric("m", [("k", "v")], f64::NAN).is_err());
        assert!(client.stop().undelivered.is_empty());
        let received = server.received();
        assert_eq!(received.len(), 2);
        assert_eq!(received[0].body, received[1].body);
        assert_eq!(received[0].header("authorization"), Some("Bearer a b"));
    }

    #[test]
    fn what_the_server_refuses_is_returned() {
        let server = FakeServer::start();
        server.say("400 Bad Request", "", r#"{"error":"metric is missing"}"#);
        let sink = UbiopsSink::new("p", &server.address(), "").unwrap();
        let refused = sink.write(&[point("m", "x", 1, 1.0)]).unwrap_err();
        assert!(refused.to_string().contains("400: metric is missing"), "{refused}");
        assert!(server.received()[0].header("authorization").is_none());
        server.say("429 Too Many Requests", "x-ratelimit-reset: 7\r\n", "");
        let refused = sink.write(&[point("m", "x", 1, 1.0)]).unwrap_err();
        assert_eq!(refused.retry_after, Some(Duration::from_secs(8)));
    }
}
