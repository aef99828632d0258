//! `icecore query --url`: asks a server that speaks the Prometheus HTTP API.

use icecore::promql::Output as Answer;

use crate::failure::Outcome;
use crate::promql::Times;

#[cfg(feature = "client")]
pub(crate) use client::ask;

/// Without the feature there is nothing to ask with.
#[cfg(not(feature = "client"))]
pub(crate) fn ask(_: &str, _: Option<&str>, _: &str, _: Times) -> Outcome<Answer> {
    Err(crate::query::feature_is_off("--url"))
}

#[cfg(feature = "client")]
mod client {
    use std::time::Duration;

    use icecore::Timestamp;
    use icecore::promql::{Labels, Point, RangeSeries, Sample, Stats, Value};
    use serde_json::Value as Json;

    use super::{Answer, Outcome, Times};
    use crate::failure::{Failure, usage};
    use crate::promql::told;

    /// Longest that a server may take.
    const TIMEOUT: Duration = Duration::from_secs(300);
    /// Longest answer that is read, in bytes.
    const ANSWER_SIZE_MAX: u64 = 1 << 30;
    /// Most characters of an answer that is none of the API which are shown.
    const SHOWN_COUNT_MAX: usize = 300;

    /// Sends the question and reads the answer.
    pub(crate) fn ask(url: &str, token: Option<&str>, text: &str, times: Times) -> Outcome<Answer> {
        let base = url.trim_end_matches('/');
        if !base.starts_with("http://") {
            return Err(usage(format!("--url {url:?}: give http://HOST:PORT; TLS is not in this build")));
        }
        let (path, mut form) = match times {
            Times::At(time) => ("query", vec![("time", seconds(time.nanos()))]),
            Times::Range(times) => (
                "query_range",
                vec![
                    ("start", seconds(times.start.nanos())),
                    ("end", seconds(times.end.nanos())),
                    ("step", seconds(times.step)),
                ],
            ),
        };
        form.push(("query", text.to_owned()));
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        let agent: ureq::Agent =
            config.user_agent(concat!("icecore/", env!("CARGO_PKG_VERSION"))).build().into();
        let uri = format!("{base}/api/v1/{path}");
        let failed = |error: ureq::Error| Failure::Failed(format!("{uri}: {error}"));
        let mut request = agent.post(&uri);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.send_form(form).map_err(failed)?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_SIZE_MAX).read_to_vec().map_err(failed)?;
        let json: Json = serde_json::from_slice(&body).map_err(|_| {
            let shown: String = String::from_utf8_lossy(&body).chars().take(SHOWN_COUNT_MAX).collect();
            Failure::Failed(format!("{uri} answers {status} and no JSON: {shown}"))
        })?;
        read(&json).unwrap_or_else(|| {
            Err(Failure::Failed(format!("{uri}: the answer is none of the Prometheus API")))
        })
    }

    /// Nanoseconds as seconds with all their digits.
    fn seconds(nanos: i64) -> String {
        let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
        format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
    }

    /// The answer, or `None` where it does not have the form of one.
    fn read(json: &Json) -> Option<Outcome<Answer>> {
        if json["status"] == "error" {
            return Some(Err(told(json["errorType"].as_str()?, json["error"].as_str()?)));
        }
        let data = &json["data"];
        let result = &data["result"];
        let value = match data["resultType"].as_str()? {
            "scalar" => Value::Scalar(point(result)?),
            "string" => Value::String(time(&result[0])?, result[1].as_str()?.to_owned()),
            "vector" => {
                let sample = |entry: &Json| {
                    let Point { time, value } = point(&entry["value"])?;
                    Some(Sample { labels: labels(&entry["metric"])?, time, value })
                };
                // Native histograms are no numbers.
                let floats = result.as_array()?.iter().filter(|entry| entry.get("value").is_some());
                Value::Vector(floats.map(sample).collect::<Option<_>>()?)
            }
            "matrix" => {
                let series = |entry: &Json| {
                    let points = entry["values"].as_array()?.iter().map(point).collect::<Option<_>>()?;
                    Some(RangeSeries { labels: labels(&entry["metric"])?, points })
                };
                let floats = result.as_array()?.iter().filter(|entry| entry.get("values").is_some());
                Value::Matrix(floats.map(series).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        let texts = |key: &str| {
            let list = json[key].as_array().into_iter().flatten();
            list.filter_map(Json::as_str).map(str::to_owned).collect()
        };
        Some(Ok(Answer {
            value,
            warnings: texts("warnings"),
            infos: texts("infos"),
            stats: Stats::default(),
        }))
    }

    fn labels(metric: &Json) -> Option<Labels> {
        let pairs =
            metric.as_object()?.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
        Some(Labels::new("", pairs))
    }

    fn point(pair: &Json) -> Option<Point> {
        let value = match pair[1].as_str()? {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            text => text.parse().ok()?,
        };
        Some(Point { time: time(&pair[0])?, value })
    }

    /// Seconds, of which the API gives three digits behind the point.
    fn time(json: &Json) -> Option<Timestamp> {
        Some(Timestamp::from_millis((json.as_f64()? * 1000.0).round() as i64))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use serde_json::json;

        #[test]
        fn answers_are_read() {
            let answer = |data: Json| read(&json!({ "status": "success", "data": data, "infos": ["i"] }));
            let vector = answer(json!({ "resultType": "vector", "result": [
                { "metric": { "__name__": "up", "job": "a" }, "value": [1.5, "NaN"] },
                { "metric": {}, "histogram": [1, {}] },
            ] }));
            let found = vector.unwrap().unwrap();
            let Value::Vector(samples) = &found.value else { panic!("{found:?}") };
            assert_eq!((samples.len(), samples[0].labels.name(), samples[0].time.millis()), (1, "up", 1_500));
            assert_eq!(found.infos, ["i"]);
            let scalar = answer(json!({ "resultType": "scalar", "result": [1, "+Inf"] })).unwrap().unwrap();
            assert!(matches!(scalar.value, Value::Scalar(point) if point.value == f64::INFINITY));
            assert!(
                answer(json!({ "resultType": "vector", "result": [{ "metric": {}, "value": [1] }] }))
                    .is_none()
            );
            assert!(read(&json!({})).is_none());
            let error = json!({ "status": "error", "errorType": "execution", "error": "no" });
            assert!(
                matches!(read(&error), Some(Err(Failure::Failed(text))) if text.contains("execution: no"))
            );
            assert_eq!((seconds(1_500_000_000), seconds(-1)), ("1.500000000".into(), "-0.000000001".into()));
        }
    }
}
