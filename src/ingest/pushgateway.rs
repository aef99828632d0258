//! Pages over HTTP to a Pushgateway: what `MetricsLogger` speaks to a server.

use ureq::http::Method;

use crate::error::{Error, Result};
use crate::ingest::MetricFamily;
use crate::ingest::http::{HttpClient, base64_encode, percent_encode};
use crate::protocol::exposition::{Format, Names, write_page};

/// Sends the families of one group to `PUT /metrics/job/<job>{/<label>/<value>}`.
#[derive(Debug)]
pub(super) struct Pushgateway {
    client: HttpClient,
    path: String,
}

impl Pushgateway {
    /// A gateway at `address`, which gets `http://` where it has no scheme. `group` is the job and the grouping key.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong address, or a grouping key that a path cannot have.
    pub(super) fn new(address: &str, group: &[(String, String)]) -> Result<Self> {
        let mut group: Vec<_> = group.iter().collect();
        // The job stands first, the others by name, as the Python client has them.
        group.get_mut(1..).unwrap_or_default().sort();
        let mut path = "/metrics".to_owned();
        for (key, value) in group {
            push_pair(&mut path, key, value)?;
        }
        Ok(Pushgateway { client: HttpClient::new("http", address, None)?, path })
    }

    /// Replaces the group by `families`.
    ///
    /// # Errors
    /// `Io` when the gateway cannot be reached, otherwise what it answered.
    pub(super) fn put(&self, families: &[MetricFamily]) -> Result<()> {
        let mut page = String::new();
        write_page(families, Format::Text, Names::Underscores, &mut page);
        let answer =
            self.client.send(Method::PUT, &self.path, Format::Text.content_type(), page.as_bytes())?;
        answer.accepted("pushing metrics").map(drop).map_err(|refused| refused.error)
    }
}

/// Appends `/key/value`, with the value in base64 where a path could not carry it otherwise.
fn push_pair(path: &mut String, key: &str, value: &str) -> Result<()> {
    if !crate::protocol::label::is_label_name(key) {
        return Err(Error::invalid_input(format!("a Pushgateway has no place for grouping key {key:?}")));
    }
    path.push('/');
    path.push_str(key);
    if value.is_empty() {
        path.push_str("@base64/=");
    } else if value.contains(['/', ' ']) || value == "." || value == ".." {
        path.push_str("@base64/");
        path.push_str(&base64_encode(value.as_bytes()));
    } else {
        path.push('/');
        path.push_str(&percent_encode(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ingest::MetricsLogger;
    use crate::ingest::http::tests::FakeServer;

    #[test]
    fn the_push_is_that_of_the_recorded_client() {
        let server = FakeServer::start();
        let logger = MetricsLogger::new("acceptance", [("ProjectA", "SomeLabel")]).unwrap();
        let mut logger = logger.to_gateway(&server.address()).unwrap();
        logger.add_gauge("Gauge", "").unwrap();
        logger.add_counter("Counter", "Counts").unwrap();
        logger["Gauge"].set(42);
        logger["Counter"].inc();
        logger.push_metrics().unwrap();
        let received = &server.received()[0];
        assert_eq!(received.line, "PUT /metrics/job/acceptance/ProjectA/SomeLabel HTTP/1.1");
        assert_eq!(received.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let expected = "# HELP Counter_total Counts\n# TYPE Counter_total counter\nCounter_total 1\n\
            # TYPE Gauge gauge\nGauge 42\n";
        assert_eq!(received.body, expected);
    }

    #[track_caller]
    fn check_path(group: &[(&str, &str)], expected: &str) {
        let server = FakeServer::start();
        let logger = MetricsLogger::new("j", group.iter().copied()).unwrap();
        let mut logger = logger.to_gateway(server.address().trim_start_matches("http://")).unwrap();
        logger.add_gauge("g", "").unwrap();
        logger.push_metrics().unwrap();
        assert_eq!(server.received()[0].line, format!("PUT /metrics/job/j{expected} HTTP/1.1"));
    }

    #[test]
    fn paths_carry_every_value() {
        check_path(&[("path", "/var/tmp")], "/path@base64/L3Zhci90bXA=");
        check_path(&[("x", "y z")], "/x@base64/eSB6");
        check_path(&[("empty", "")], "/empty@base64/=");
        check_path(&[("pct", "50%+1"), ("a", "ü")], "/a/%C3%BC/pct/50%25%2B1");
        check_path(&[("dd", "..")], "/dd@base64/Li4=");
    }

    #[test]
    fn what_the_gateway_refuses_is_an_error() {
        let server = FakeServer::start();
        server.say("400 Bad Request", "", "pushed metrics are invalid or inconsistent");
        let logger = MetricsLogger::new("j", [("a", "b")]).unwrap().to_gateway(&server.address()).unwrap();
        logger.registry().gauge("g", "").unwrap();
        let error = logger.push_metrics().unwrap_err();
        assert!(error.to_string().contains("400: pushed metrics are invalid"), "{error}");
        let logger = MetricsLogger::new("j", [("a b", "c")]).unwrap();
        assert!(logger.to_gateway("localhost").unwrap_err().to_string().contains("no place"));
    }
}
