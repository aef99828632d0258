//! The clients of `icecore::ingest` against the real server: what they log is read back equal, also when the server is
//! killed amid their work and comes back; without a server each says so, and loses nothing that it promises to keep.

use std::time::{Duration, Instant};

use icecore::ErrorKind;
use icecore::ingest::{
    ClientOptions, MetricClient, MetricsLogger, NO_TAGS, RemoteSessions, SessionEvent, SessionFilter,
    SessionInfo, SessionMetric, SessionStatus, StatsdClient,
};
use serde_json::{Value, json};

use crate::served::Served;

/// The columns of the one series that `selector` has; `None` when there is none.
fn columns(server: &Served, selector: &str) -> Option<(Vec<i64>, Vec<f64>)> {
    let escaped: String = selector.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = server.get(&format!("/api/query?format=jsonl&selector={escaped}"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let series: Value = serde_json::from_str(body.lines().next()?).unwrap();
    let list = |name: &str| series["columns"][name].as_array().unwrap().clone();
    let times = list("time").iter().map(|time| time.as_i64().unwrap()).collect();
    let numbers = list("value").iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect();
    Some((times, numbers))
}

/// The value of the last sample that is there within some seconds and satisfies `wanted`.
#[track_caller]
fn eventually(server: &Served, selector: &str, wanted: impl Fn(f64) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let last = columns(server, selector).and_then(|(_, values)| values.last().copied());
        if last.is_some_and(&wanted) {
            return;
        }
        assert!(Instant::now() < end, "{selector}: {last:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn client(server: &Served, interval_ms: u64) -> MetricClient {
    let options = ClientOptions { interval: Duration::from_millis(interval_ms), ..ClientOptions::default() };
    let address = format!("http://{}/v2.1", server.address);
    MetricClient::connect_with("project é/x", &address, "Token any", options).unwrap()
}

#[test]
fn points_are_all_there_after_the_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Served::start(dir.path(), &[]);
    let client = client(&server, 5);
    client.start().unwrap();
    let log = |range: std::ops::Range<u32>| {
        for n in range {
            client.log_metric("custom.metric", [("größe", "a b")], f64::from(n) / 3.0).unwrap();
            client.log_metric("custom.other", NO_LABELS, n).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    log(0..500);
    server.kill();
    log(500..700);
    let server = Served::start_at(server.address, dir.path(), &[]);
    log(700..1000);
    let left = client.stop();
    assert!(left.undelivered.is_empty() && left.dropped_count == 0, "{left:?}");
    let (times, values) = columns(&server, r#"{__name__="custom.metric",project="project é/x"}"#).unwrap();
    assert_eq!(values, (0..1000).map(|n| f64::from(n) / 3.0).collect::<Vec<_>>());
    assert!(times.is_sorted_by(|a, b| a < b));
    let (_, values) = columns(&server, r#"{"custom.other"}"#).unwrap();
    assert_eq!(values, (0..1000).map(f64::from).collect::<Vec<_>>());
}

const NO_LABELS: [(&str, &str); 0] = [];

#[test]
fn points_come_back_when_there_is_no_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Served::start(dir.path(), &[]);
    let client = client(&server, 10);
    client.start().unwrap();
    server.kill();
    for n in 0..100 {
        client.log_metric("custom.metric", [("test", "test")], n).unwrap();
    }
    let left = client.stop();
    let values: Vec<f64> = left.undelivered.iter().map(|point| point.value).collect();
    assert_eq!(values, (0..100).map(f64::from).collect::<Vec<_>>());
    assert_eq!(left.error.unwrap().kind(), ErrorKind::Io);
    assert_eq!(client.log_metric("m", NO_LABELS, 1).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_logger_pushes_on_after_the_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Served::start(dir.path(), &[]);
    let mut logger = MetricsLogger::new("train", [("ProjectA", "Some Label/1")]).unwrap();
    logger = logger.to_gateway(&server.address.to_string()).unwrap();
    logger.add_gauge("Gauge", "a gauge").unwrap();
    logger.add_counter("Counter", "").unwrap();
    let latency = logger.add_histogram_with_buckets("latency_seconds", "", [0.1, 1.0]).unwrap();
    for value in [0.1 + 0.2, -0.0, 5e-324] {
        logger.set("Gauge", 5).unwrap();
        logger["Gauge"].set(value);
        logger["Counter"].inc();
        latency.observe(0.5);
        logger.push_metrics().unwrap();
    }
    server.kill();
    logger["Counter"].inc();
    assert_eq!(logger.push_metrics().unwrap_err().kind(), ErrorKind::Io);
    let server = Served::start_at(server.address, dir.path(), &[]);
    logger["Gauge"].set(f64::INFINITY);
    logger.push_metrics().unwrap();
    let read = |name: &str| {
        columns(&server, &format!(r#"{name}{{job="train",ProjectA="Some Label/1"}}"#)).unwrap().1
    };
    let gauge = read("Gauge");
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&gauge[..3]), bits(&[0.1 + 0.2, -0.0, 5e-324]));
    // What JSON has no number for is a string, and no number here.
    assert!(gauge.len() == 4 && gauge[3].is_nan(), "{gauge:?}");
    // What was counted while the server was away is in the next push.
    assert_eq!(read("Counter_total"), [1.0, 2.0, 3.0, 4.0]);
    let (_, buckets) = columns(&server, r#"latency_seconds_bucket{le="1.0"}"#).unwrap();
    assert_eq!(buckets, [1.0, 2.0, 3.0, 3.0]);
    let (_, sums) = columns(&server, "latency_seconds_sum").unwrap();
    assert_eq!(sums, [0.5, 1.0, 1.5, 1.5]);
}

#[test]
fn sessions_are_logged_and_read_back_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Served::start(dir.path(), &["--write-token", "w", "--read-token", "r"]);
    let address = server.address.to_string();
    let sessions = RemoteSessions::connect(&address, Some("w")).unwrap();
    let info = SessionInfo::new("MyApp", "1.0.0").hostname("web-1").machine_id("c0ffee");
    let session = sessions.create_session_with(&info).unwrap();
    session.log_metric("memory_mb", 512.5, ["backend", "endpoint:users"]).unwrap();
    session
        .record(&SessionMetric::timer("items", 5.2).count(3).unit("seconds").metadata(json!({"k": "v"})))
        .unwrap();
    session.record(&SessionMetric::counter("requests", 2)).unwrap();
    session.record(&SessionMetric::histogram("fps", 0.1 + 0.2)).unwrap();
    session.log_event("startup", json!({"config": "prod", "big": u64::MAX})).unwrap();
    let failed =
        SessionEvent::new("import_failed").exception("KeyError", "'id'").stacktrace(["main", "load"]);
    session.record_event(&failed.labels(["import"]).source("load.py", 7, "load")).unwrap();
    session.update_state(json!({"a": {"x": 1}, "b": 2})).unwrap();
    session.update_state(json!({"a": {"y": 2}, "b": null})).unwrap();
    session.heartbeat().unwrap();
    let before = session.read().unwrap();
    assert_eq!(before.summary.info, info);
    assert_eq!(before.state, json!({"product": "MyApp", "version": "1.0.0", "a": {"x": 1, "y": 2}}));
    let metrics: Vec<_> =
        before.metrics.iter().map(|m| (m.name.as_str(), m.value, m.kind.name(), m.count)).collect();
    let expected = [
        ("memory_mb", 512.5, "gauge", None),
        ("items", 5.2, "timer", Some(3)),
        ("requests", 2.0, "counter", None),
        ("fps", 0.1 + 0.2, "histogram", None),
    ];
    assert_eq!(metrics, expected);
    assert_eq!(before.metrics[0].tags, ["backend", "endpoint:users"]);
    let events: Vec<_> = before.events.iter().map(|event| (event.name.as_str(), event.level())).collect();
    assert_eq!(events, [("startup", "info"), ("import_failed", "error")]);
    assert_eq!(before.events[0].data, json!({"config": "prod", "big": u64::MAX}));

    server.kill();
    assert_eq!(session.log_metric("memory_mb", 1, NO_TAGS).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(session.end().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(sessions.create_session("a", "1").unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(sessions.sessions(&SessionFilter::default()).unwrap_err().kind(), ErrorKind::Io);

    let server = Served::start_at(server.address, dir.path(), &["--write-token", "w", "--read-token", "r"]);
    assert_eq!(session.read().unwrap(), before);
    session.log_metric("memory_mb", 513, NO_TAGS).unwrap();
    session.end().unwrap();
    let ended = session.read().unwrap();
    assert_eq!((ended.summary.status, ended.metrics.len()), (SessionStatus::Ended, 5));
    let resumed = sessions.resume_session(session.id()).unwrap();
    resumed.crash("out of memory").unwrap();
    let crashed = SessionFilter::default().product("MyApp").status(SessionStatus::Crashed);
    assert_eq!(sessions.sessions(&crashed).unwrap()[0].id, session.id());

    let reader = RemoteSessions::connect(&server.address.to_string(), Some("r")).unwrap();
    assert_eq!(reader.session(session.id()).unwrap().metrics.len(), 5);
    assert!(reader.create_session("a", "1").unwrap_err().to_string().contains("401"));
    sessions.delete_session(session.id()).unwrap();
    assert_eq!(sessions.session(session.id()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn datagrams_of_a_fire_and_forget_client_are_counted_whatever_happens() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Served::start(dir.path(), &["--statsd-interval", "50ms"]);
    let client = StatsdClient::udp(&server.statsd.to_string());
    client.increment("my_counter", 1, [("model", "v1")]);
    client.increment("my_counter", 2, [("model", "v1")]);
    client.gauge("my_gauge", 42, [("model", "v1")]);
    client.histogram("my_histogram", 100, [("model", "v1")]);
    eventually(&server, r#"my_counter{model="v1"}"#, |value| value == 3.0);
    eventually(&server, r#"my_gauge{model="v1"}"#, |value| value == 42.0);
    eventually(&server, r#"my_histogram_sum{model="v1"}"#, |value| value == 100.0);
    assert_eq!(server.metric("icecore_statsd_lines_total"), 4.0);
    server.kill();
    for _ in 0..10 {
        client.increment("my_counter", 1, [("model", "v1")]);
    }
    let counts = client.counts();
    assert!(counts.sent == 14 && counts.refused > 0, "{counts:?}");
}
