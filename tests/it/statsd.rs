//! The StatsD vectors of other programs: see `tests/statsd/README.md`.

use std::collections::BTreeMap;

use icecore::protocol::label::plain_label_name;
use icecore::protocol::statsd::{Grammar, Message, Metric, MetricType, Options, TagStyles, parse_line};
use serde_json::Value;

fn cases(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).expect("the vectors are JSON");
    file["cases"].as_array().expect("cases are a list").clone()
}

/// The bytes of a case's line.
fn line(case: &Value) -> Vec<u8> {
    match case["line"].as_str() {
        Some(line) => line.as_bytes().to_vec(),
        None => case["line_bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8).collect(),
    }
}

#[test]
fn dogstatsd_vectors_hold() {
    let cases = cases(include_str!("../statsd/dogstatsd_metrics.json"));
    assert_eq!(cases.len(), 33);
    for case in cases {
        let line = line(&case);
        let parsed = parse_line(&line, &Options::default());
        if case["error"] == true {
            assert!(parsed.is_err(), "{case}: {parsed:?}");
            continue;
        }
        let Ok(Message::Metric(metric)) = parsed else { panic!("{case}: {parsed:?}") };
        assert_eq!(describe(&metric), expected(&case), "{case}");
    }
}

/// A metric in the words of the DogStatsD vectors.
fn describe(metric: &Metric<'_>) -> Value {
    let metric_type = match metric.metric_type {
        MetricType::Counter => "c",
        MetricType::Gauge => "g",
        MetricType::Timer => "ms",
        MetricType::Histogram => "h",
        MetricType::Distribution => "d",
        MetricType::Set => "s",
    };
    let values: Vec<f64> = metric.readings().map(|r| r.value).collect();
    serde_json::json!({
        "name": metric.name, "type": metric_type, "values": values, "set_value": metric.set_member(),
        "tags": metric.tags.strings().collect::<Vec<_>>(), "sample_rate": metric.sample_rate,
        "timestamp_s": metric.timestamp.map(|t| t.nanos() / 1_000_000_000),
    })
}

/// The expectation of a DogStatsD vector, its values as floats.
fn expected(case: &Value) -> Value {
    let values: Vec<f64> =
        case["values"].as_array().map(|v| v.iter().filter_map(Value::as_f64).collect()).unwrap_or_default();
    serde_json::json!({
        "name": case["name"], "type": case["type"], "values": values, "set_value": case["set_value"],
        "tags": case["tags"], "sample_rate": case["sample_rate"], "timestamp_s": case["timestamp_s"],
    })
}

#[test]
fn statsd_exporter_line_table_holds() {
    let cases = cases(include_str!("../statsd/statsd_exporter_line.json"));
    assert_eq!(cases.len(), 275);
    let mut event_count = 0;
    for case in cases {
        let on = |style: &str| case["tag_dialects"].as_array().unwrap().iter().any(|s| s == style);
        let styles = TagStyles {
            dogstatsd: on("Dogstatsd"),
            influxdb: on("Influxdb"),
            librato: on("Librato"),
            signalfx: on("SignalFX"),
        };
        let line = line(&case);
        let events = match parse_line(&line, &Options { grammar: Grammar::StatsdExporter, styles }) {
            Ok(Message::Metric(metric)) => exporter_events(&metric),
            _ => Vec::new(),
        };
        event_count += events.len();
        assert_eq!(Value::from(events), case["events"], "{case}");
    }
    assert_eq!(event_count, 449);
}

/// The events that statsd_exporter makes of a metric: a sampled counter divided, a sampled observation
/// repeated, names of labels rewritten, the container as a label, tags without a value left out.
fn exporter_events(metric: &Metric<'_>) -> Vec<Value> {
    let bare = |key: &str| metric.tags.strings().any(|tag| tag == key);
    let mut labels: BTreeMap<String, &str> =
        metric.tags.pairs().filter(|(key, _)| !bare(key)).map(|(key, value)| (rewrite(key), value)).collect();
    if let Some(id) = metric.container_id {
        labels.insert("container_id".to_owned(), id);
    }
    let (kind, repeat, divisor) = match metric.metric_type {
        MetricType::Counter => ("counter", 1, metric.sample_rate),
        MetricType::Gauge => ("gauge", 1, 1.0),
        _ => ("observer", (1.0 / metric.sample_rate) as usize, 1.0),
    };
    let readings = metric.readings().zip(metric.base_values());
    readings
        .flat_map(|(reading, value)| {
            let relative = kind == "gauge" && reading.signed;
            let event = serde_json::json!({
                "kind": kind, "name": metric.name, "value": value / divisor, "relative": relative, "labels": labels,
            });
            std::iter::repeat_n(event, repeat)
        })
        .collect()
}

/// statsd_exporter puts `_` before a leading digit, where the Prometheus clients replace it.
fn rewrite(key: &str) -> String {
    if key.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{}", plain_label_name(&format!("_{key}")).trim_start_matches('_'))
    } else {
        plain_label_name(key).into_owned()
    }
}
