//! Limits of what requests hold, over real sockets: each at its edge, answered with its name, and nothing kept beyond it.

use super::worlds::{MILLIS, SNAPPY, TestSeries, snappy, stored, write_request};
use super::*;
use crate::model::{NAME_SIZE_MAX, Selector, TAG_COUNT_MAX, TAG_KEY_SIZE_MAX, TAG_VALUE_SIZE_MAX};

/// A server whose database has room for `count` series.
async fn start_small(count: u64) -> Running {
    let options = db::Options {
        env: Env::simulated(1),
        background: db::Background::Host,
        series_count_max: count,
        ..db::Options::default()
    };
    start_on(Db::open_with("db", options).unwrap(), |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_labels_at_their_limit_are_taken_and_beyond_refused_alone() {
    let (name, key) = ("n".repeat(NAME_SIZE_MAX), "k".repeat(TAG_KEY_SIZE_MAX));
    let value = "v".repeat(TAG_VALUE_SIZE_MAX);
    let keys: Vec<String> = (0..=TAG_COUNT_MAX).map(|n| format!("k{n}")).collect();
    let many = |count: usize| keys[..count].iter().map(|k| (k.as_str(), "v")).collect::<Vec<_>>();
    let (long_name, long_key, long_value) = (format!("{name}n"), format!("{key}k"), format!("{value}v"));
    type Case<'c> = (&'c str, Vec<(&'c str, &'c str)>, Option<&'c str>);
    let cases: [Case<'_>; 8] = [
        (&name, vec![], None),
        ("key", vec![(&key, "v")], None),
        ("value", vec![("k", &value)], None),
        ("count", many(TAG_COUNT_MAX), None),
        (&long_name, vec![], Some("1025 bytes")),
        ("key_refused", vec![(&long_key, "v")], Some("1025 bytes")),
        ("value_refused", vec![("k", &long_value)], Some("16385 bytes")),
        ("count_refused", many(TAG_COUNT_MAX + 1), Some("128")),
    ];
    for (name, tags, refused) in &cases {
        let mut pairs = vec![("__name__", *name)];
        pairs.extend(tags.iter().copied());
        pairs.sort_unstable();
        let by_remote_write =
            write_request(&[(&pairs, &[(1.0, MILLIS)]), (&[("__name__", "good")], &[(1.0, MILLIS)])]);
        let labels: Vec<String> = tags.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let by_text = format!("{name}{{{}}} 1\ngood 1\n", labels.join(","));
        let fields: String = tags.iter().map(|(key, value)| format!(",{key}={value}")).collect();
        let by_line = format!("{name}{fields} value=1\ngood value=1\n");
        let attributes: Vec<_> = tags
            .iter()
            .map(|(key, value)| serde_json::json!({ "key": key, "value": { "stringValue": value } }))
            .collect();
        let point = |attributes: &[serde_json::Value]| serde_json::json!({ "dataPoints": [{ "asDouble": 1.0, "attributes": attributes }] });
        let metrics = [
            serde_json::json!({ "name": name, "gauge": point(&attributes) }),
            serde_json::json!({ "name": "good", "gauge": point(&[]) }),
        ];
        let by_otlp =
            serde_json::json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": metrics }] }] })
                .to_string();
        for (path, headers, body, partial) in [
            ("/api/v1/write", SNAPPY, snappy(&by_remote_write), 400),
            ("/api/v1/import/prometheus", "", by_text.clone().into_bytes(), 400),
            ("/write", "", by_line.clone().into_bytes(), 400),
            ("/v1/metrics", "Content-Type: application/json\r\n", by_otlp.clone().into_bytes(), 200),
        ] {
            let server = start(|_| {}).await;
            let answer = server.post(path, headers, &body).await;
            let kept = server.frame.db.query(Selector::all()).series().unwrap().len();
            match refused {
                None => {
                    assert!(answer.starts_with("HTTP/1.1 20"), "{path} {name:.20}: {answer}");
                    assert_eq!(kept, 2, "{path} {name:.20}");
                }
                Some(reason) => {
                    check(&answer, partial, reason);
                    assert_eq!(kept, 1, "{path} {name:.20}: the good one is kept");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_a_request_are_counted_in_every_world() {
    let json = "Content-Type: application/json\r\n";
    for count in [3, 4] {
        let samples: Vec<(f64, i64)> = (0..count).map(|n| (1.0, MILLIS + n)).collect();
        let lines: String = (0..count).map(|n| format!("up value=1 {n}\n")).collect();
        let text: String = (0..count).map(|n| format!("up{{n=\"{n}\"}} 1\n")).collect();
        let points: Vec<_> = (0..count)
            .map(|n| format!(r#"{{"asDouble":1,"timeUnixNano":"{}"}}"#, MILLIS * 1_000_000 + n))
            .collect();
        let otlp = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"up","gauge":{{"dataPoints":[{}]}}}}]}}]}}]}}"#,
            points.join(",")
        );
        let dates: Vec<_> =
            (0..count).map(|n| format!(r#"{{"date":"2023-12-31T23:59:1{n}+00:00","value":1}}"#)).collect();
        let ubiops = format!(r#"[{{"metric":"up","labels":{{}},"data":[{}]}}]"#, dates.join(","));
        for (path, headers, body) in [
            ("/api/v1/write", SNAPPY, snappy(&write_request(&[(&[("__name__", "up")], &samples)]))),
            ("/write", "", lines.into_bytes()),
            ("/api/v1/import/prometheus", "", text.into_bytes()),
            ("/v1/metrics", json, otlp.into_bytes()),
            ("/v2.1/projects/p/time-series/aggregate", json, ubiops.into_bytes()),
        ] {
            let server = start(|options| options.limits.sample_count_max = 3).await;
            let answer = server.post(path, headers, &body).await;
            let kept = !stored(&server, "up").is_empty();
            if count == 3 {
                assert!(answer.starts_with("HTTP/1.1 20") && kept, "{path}: {answer}");
            } else {
                check(&answer, 400, "--request-sample-count-max");
                assert!(!kept, "{path}: a request over the limit stores nothing");
            }
            assert_eq!(server.frame.budget.used(), 0, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn series_of_a_request_are_counted() {
    let server = start(|options| options.limits.series_count_max = 2).await;
    let series = |count: usize| {
        let one: TestSeries<'_> = (&[("__name__", "up")], &[(1.0, MILLIS)]);
        snappy(&write_request(&vec![one; count]))
    };
    check(&server.post("/api/v1/write", SNAPPY, &series(2)).await, 204, "");
    check(&server.post("/api/v1/write", SNAPPY, &series(3)).await, 400, "--request-series-count-max");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_series_beyond_the_cap_of_all_are_answered_with_429() {
    let json = "Content-Type: application/json\r\n";
    let otlp = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"two","gauge":{"dataPoints":[{"asDouble":1}]}}]}]}]}"#;
    let ubiops = r#"[{"metric":"two","labels":{},"data":[{"date":"2023-12-31T23:59:17+00:00","value":1}]}]"#;
    let mixed = write_request(&[
        (&[("__name__", "one")], &[(2.0, MILLIS)]),
        (&[("__name__", "two")], &[(1.0, MILLIS)]),
    ]);
    for (path, headers, body) in [
        ("/api/v1/write", SNAPPY, snappy(&mixed)),
        ("/write", "", b"two value=1\n".to_vec()),
        ("/api/v1/import/prometheus", "", b"two 1\n".to_vec()),
        ("/v1/metrics", json, otlp.into()),
        ("/v2.1/projects/p/time-series/aggregate", json, ubiops.into()),
        ("/metrics/job/two", "", b"two 1\n".to_vec()),
        ("/api/sessions", json, br#"{"product":"two"}"#.to_vec()),
    ] {
        let server = start_small(1).await;
        check(&server.post("/write", "", b"one value=1 1\n").await, 204, "");
        let answer = server.post(path, headers, &body).await;
        check(&answer, 429, "series_count_max");
        assert!(answer.contains("retry-after: 1"), "{path}: {answer}");
        // Known series are still written, beside refused ones too.
        let expected = if path == "/api/v1/write" { "one 1.0 2.0" } else { "one 1.0" };
        assert_eq!(stored(&server, "one"), [expected], "{path}");
        check(&server.post("/write", "", b"one value=3 9999999999\n").await, 204, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_requests_hold_while_they_are_read_counts_against_the_cap_of_bodies() {
    let server = start(|options| options.limits.bodies_size_max = 2 << 20).await;
    let lines: String = (0..30_000).map(|n| format!("a v=1 {n}\n")).collect();
    assert!(lines.len() < 1 << 20, "the body alone would fit");
    let answer = server.post("/write", "", lines.as_bytes()).await;
    check(&answer, 503, "--bodies-size-max");
    assert!(stored(&server, "a_v").is_empty());
    let samples: Vec<(f64, i64)> = (0..60_000).map(|n| (0.0, n)).collect();
    let body = snappy(&write_request(&[(&[("__name__", "up")], &samples)]));
    check(&server.post("/api/v1/write", SNAPPY, &body).await, 503, "--bodies-size-max");
    assert_eq!(server.frame.budget.used(), 0);
    check(&server.post("/write", "", b"a v=1 1\n").await, 204, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_take_turns() {
    let server = start(|_| {}).await;
    let all: Vec<_> = (0..64).map_while(|_| server.frame.large.try_acquire().ok()).collect();
    assert!(!all.is_empty() && all.len() < 64);
    let line = format!("a note=\"{}\" 1\n", "x".repeat(100));
    let mut waiting = server.connect().await;
    let body = line.repeat(1000);
    let head = format!(
        "POST /write HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    waiting.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await.unwrap();
    // Small ones go by.
    check(&server.post("/write", "", line.as_bytes()).await, 204, "");
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting.read(&mut byte)).await.is_err());
    drop(all);
    check(&read_all(&mut waiting).await, 204, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_too_far_ahead_are_refused_as_the_option_says() {
    let server = start(|options| options.limits.time_ahead_max = Duration::from_secs(3600)).await;
    let now = server.frame.env.clock.now();
    let at = |seconds: i64| now.saturating_add(seconds * 1_000_000_000).nanos();
    check(&server.post("/write", "", format!("a v=1 {}\n", at(3600)).as_bytes()).await, 204, "");
    let answer = server.post("/write", "", format!("a v=1 {}\n", at(3601)).as_bytes()).await;
    check(&answer, 400, "more than 1 hours ahead");
    assert!(answer.contains("--time-ahead-max"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_get_changes_anything() {
    let server = start(|_| {}).await;
    check(&server.post("/metrics/job/a", "", b"a 1\n").await, 200, "");
    check(
        &server.post("/v2.1/projects/p/metrics", "", br#"{"name":"m","metric_type":"gauge"}"#).await,
        201,
        "",
    );
    let session = server.frame.db.create_session("p", "1").unwrap().id().to_string();
    let before = server.frame.db.sync().unwrap().lsn();
    for route in routes::table() {
        let path =
            route.path.replace("{*group}", "job/a").replace("{version}", "v2.1").replace("{project}", "p");
        let id = if path.contains("sessions") { session.as_str() } else { "7" };
        let path = path.replace("{id}", id).replace("{metric}", "m").replace("{name}", "job");
        for query in ["", "?query=a&match[]=a&start=0&end=9&step=1&metric=m&method=delete&body=x"] {
            server.get(&format!("{path}{query}"), "X-HTTP-Method-Override: DELETE\r\n").await;
            let after = server.frame.db.sync().unwrap().lsn();
            assert_eq!(after, before, "GET {path}{query} wrote");
        }
    }
    assert_eq!(stored(&server, "a"), [r#"a{job="a"} 1.0"#]);
    check(&server.get(&format!("/api/sessions/{session}"), "").await, 200, &session);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_ids_are_never_markup() {
    let server = start(|_| {}).await;
    let evil = "<script>alert(1)</script>";
    let coded = "%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let line = format!("a,k={evil} v=1\n");
    check(&server.post("/write", "", line.as_bytes()).await, 204, "");
    check(
        &server.post(&format!("/metrics/job/x/k/{}", coded.replace("%2F", "/")), "", b"b 1\n").await,
        400,
        "",
    );
    check(&server.post("/metrics/job/x/k@base64/PHNjcmlwdD4", "", b"b 1\n").await, 200, "");
    for path in [
        "/metrics".to_owned(),
        "/api/v1/series?match[]=a_v".to_owned(),
        "/api/v1/metrics".to_owned(),
        format!("/api/sessions/{coded}"),
        format!("/{coded}"),
        format!("/v2/projects/{coded}/metrics/{coded}"),
        format!("/api/v1/query?query={coded}"),
    ] {
        let answer = server.get(&path, "").await.to_ascii_lowercase();
        let head = answer.split("\r\n\r\n").next().unwrap();
        assert!(!head.contains("html"), "{path}: {head}");
        assert!(head.contains("content-type: "), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_nothing_are_let_go() {
    let server = start(|options| options.limits.write_timeout = Duration::from_millis(300)).await;
    let value = "v".repeat(10_000);
    let lines: String = (0..3000).map(|n| format!("a,n={n},pad={value} v=1 1\n")).collect();
    check(&server.post("/write", "", lines.as_bytes()).await, 204, "");
    let mut stream = server.connect().await;
    // Thirty megabytes are asked for, more than the buffers of the system hold, and none are read.
    stream.write_all(b"GET /api/v1/series?match[]=a_v HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if stream.write_all(b"\r\n").await.is_err() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the connection is still open");
    }
}
