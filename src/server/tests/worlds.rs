//! Each client world over a real socket, read back from the database.

use super::*;
use crate::model::{STALE_NAN_BITS, Selector, Timestamp, is_stale};
use crate::protocol::protobuf::{put_bytes, put_double, put_int};

/// Every sample of `selector` as `name{tags} value value`, integers and doubles alike, sorted.
pub(super) fn stored(server: &Running, selector: impl Into<Selector>) -> Vec<String> {
    let result = server.frame.db.query(selector).stream().unwrap();
    let mut lines = Vec::new();
    for piece in result {
        let piece = piece.unwrap();
        let values: Vec<String> = match &piece.values {
            crate::Column::F64(values) => values
                .iter()
                .map(|value| if is_stale(*value) { "stale".to_owned() } else { format!("{value:?}") })
                .collect(),
            crate::Column::I64(values) => values.iter().map(|value| format!("{value}i")).collect(),
            crate::Column::Bytes(values) => {
                values.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect()
            }
        };
        lines.push(format!("{} {}", piece.key, values.join(" ")));
    }
    lines.sort();
    lines
}

fn labels(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        let mut label = Vec::new();
        put_bytes(&mut label, 1, key.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut out, 1, &label);
    }
    out
}

fn sample(value: f64, millis: i64) -> Vec<u8> {
    let mut out = Vec::new();
    put_double(&mut out, 1, value);
    put_int(&mut out, 2, millis);
    out
}

/// A remote write 1.0 request with one series for each item.
/// Labels and samples of one series.
pub(super) type TestSeries<'a> = (&'a [(&'a str, &'a str)], &'a [(f64, i64)]);

pub(super) fn write_request(series: &[TestSeries<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (pairs, samples) in series {
        let mut message = labels(pairs);
        for (value, millis) in *samples {
            put_bytes(&mut message, 2, &sample(*value, *millis));
        }
        put_bytes(&mut out, 1, &message);
    }
    out
}

pub(super) fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

pub(super) const SNAPPY: &str = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n";
pub(super) const MILLIS: i64 = 1_704_067_200_000;

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_stores_every_bit() {
    let server = start(|_| {}).await;
    let up = [("__name__", "up"), ("host", "a")];
    let stale = f64::from_bits(STALE_NAN_BITS);
    let body = write_request(&[(&up, &[(1.5, MILLIS), (-0.0, MILLIS + 1), (stale, MILLIS + 2)])]);
    check(&server.post("/api/v1/write", SNAPPY, &snappy(&body)).await, 204, "");
    // The second time the series is found by its bytes.
    let body = write_request(&[(&up, &[(2.5, MILLIS + 3)]), (&[("__name__", "other")], &[(9.0, MILLIS)])]);
    check(&server.post("/api/v1/write", SNAPPY, &snappy(&body)).await, 204, "");
    assert_eq!(stored(&server, "up"), [r#"up{host="a"} 1.5 -0.0 stale 2.5"#]);
    assert_eq!(stored(&server, "other"), ["other 9.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_keeps_the_good_series() {
    let server = start(|_| {}).await;
    let body = write_request(&[
        (&[("host", "a")], &[(1.0, MILLIS)]),
        (&[("__name__", "ahead")], &[(1.0, MILLIS + 25 * 3_600_000)]),
        (&[("__name__", "good")], &[(1.0, MILLIS)]),
    ]);
    let answer = server.post("/api/v1/write", SNAPPY, &snappy(&body)).await;
    check(&answer, 400, "2 series refused: ");
    assert!(answer.contains("24 hours ahead") && answer.contains("no __name__"), "{answer}");
    assert_eq!(stored(&server, Selector::all()), ["good 1.0"]);
    check(&server.post("/api/v1/write", SNAPPY, b"\xff\xff\xff").await, 400, "snappy");
    check(
        &server.post("/api/v1/write", "Content-Type: text/plain\r\n", b"").await,
        415,
        "application/x-protobuf",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_2_counts_what_it_wrote() {
    let server = start(|_| {}).await;
    let mut body = Vec::new();
    for symbol in ["", "__name__", "rw2_total", "Help."] {
        put_bytes(&mut body, 4, symbol.as_bytes());
    }
    let mut metadata = Vec::new();
    put_int(&mut metadata, 1, 1);
    put_int(&mut metadata, 3, 3);
    let mut series = Vec::new();
    put_bytes(&mut series, 1, &[1, 2]);
    put_bytes(&mut series, 2, &sample(7.0, MILLIS));
    put_bytes(&mut series, 5, &metadata);
    put_bytes(&mut body, 5, &series);
    let header = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\nContent-Encoding: snappy\r\n";
    check(&server.post("/api/v1/write", header, &snappy(&body)).await, 204, "samples-written: 1");
    assert_eq!(stored(&server, "rw2_total"), ["rw2_total 7.0"]);
    assert_eq!(server.frame.db.metadata("rw2_total").unwrap().help, "Help.");
    let mut histogram = Vec::new();
    put_bytes(&mut histogram, 1, &[1, 2]);
    put_bytes(&mut histogram, 3, &[]);
    put_bytes(&mut body, 5, &histogram);
    let answer = server.post("/api/v1/write", header, &snappy(&body)).await;
    check(&answer, 400, "native histograms are not stored yet");
    assert!(answer.contains("samples-written: 1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn line_protocol_is_stored_line_by_line() {
    let server = start(|_| {}).await;
    let body = b"cpu,host=a load=0.5,n=3i,up=t,note=\"hi\" 1704067200000000000\nbroken\ncpu,host=b value=1 1704067200000000001\n";
    let answer = server.post("/write?db=mine", "", body).await;
    check(&answer, 400, "partial write: 1 lines refused");
    assert!(answer.contains(r#""code":"invalid""#), "{answer}");
    assert_eq!(
        stored(&server, Selector::all()),
        [
            r#"cpu_load{db="mine",host="a"} 0.5"#,
            r#"cpu_note{db="mine",host="a"} hi"#,
            r#"cpu_n{db="mine",host="a"} 3i"#,
            r#"cpu_up{db="mine",host="a"} 1i"#,
            r#"cpu{db="mine",host="b"} 1.0"#,
        ]
    );
    check(&server.post("/api/v2/write?bucket=b&precision=s", "", b"m v=1 1704067200").await, 204, "");
    check(&server.post("/api/v3/write_lp?db=b", "", b"m v=1 1704067201").await, 204, "");
    check(&server.post("/write?precision=x", "", b"m v=1").await, 400, "precision");
    check(&server.get("/ping", "").await, 204, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_imported_with_its_metadata() {
    let server = start(|_| {}).await;
    let page = b"# HELP up Is it.\n# TYPE up gauge\nup{job=\"a\"} 1 1704067200000\nup{job=\"b\"} 2\nbad{ 1\n";
    check(&server.post("/api/v1/import/prometheus", "", page).await, 400, "line 5");
    assert_eq!(stored(&server, "up"), [r#"up{job="a"} 1.0"#, r#"up{job="b"} 2.0"#]);
    let metadata = server.frame.db.metadata("up").unwrap();
    assert_eq!((metadata.help.as_str(), metadata.kind), ("Is it.", crate::MetricKind::Gauge));
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_deltas_add_up_over_requests() {
    let server = start(|_| {}).await;
    let body = |time: i64| {
        format!(
            r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"s"}}}}]}},
            "scopeMetrics":[{{"metrics":[{{"name":"my.counter","unit":"1","sum":{{"aggregationTemporality":1,"isMonotonic":true,
            "dataPoints":[{{"asInt":"5","timeUnixNano":"{time}"}}]}}}},
            {{"name":"e","exponentialHistogram":{{"dataPoints":[{{}}]}}}}]}}]}}]}}"#
        )
    };
    let json = "Content-Type: application/json\r\n";
    let answer = server.post("/v1/metrics", json, body(MILLIS * 1_000_000).as_bytes()).await;
    check(&answer, 200, r#""rejectedDataPoints":"1""#);
    check(
        &server.post("/api/v1/otlp/v1/metrics", json, body(MILLIS * 1_000_000 + 1).as_bytes()).await,
        200,
        "",
    );
    assert_eq!(stored(&server, "my.counter"), [r#"my.counter{service.name="s"} 5i 10i"#]);
    assert_eq!(server.frame.db.metadata("my.counter").unwrap().unit, "1");
    check(&server.post("/v1/metrics", json, b"{").await, 400, r#""code":3"#);
    check(&server.post("/v1/metrics", "", b"{").await, 415, "application/json");
}

const GROUP: &str = "/metrics/job/acceptance/ProjectA/SomeLabel";

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_stored_shown_and_ended() {
    let server = start(|_| {}).await;
    let page = b"# HELP Gauge \n# TYPE Gauge gauge\nGauge 42.0\nloss{ProjectA=\"x\"} 0.2\n";
    let send = async |method: &str, path: &str, body: &[u8]| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        server.ask([head.as_bytes(), body].concat()).await
    };
    check(&send("PUT", GROUP, page).await, 200, "content-length: 0");
    assert_eq!(stored(&server, "loss"), [r#"loss{ProjectA="SomeLabel",job="acceptance"} 0.2"#]);
    let shown = server.get("/metrics", "").await;
    check(&shown, 200, r#"Gauge{ProjectA="SomeLabel",job="acceptance"} 42"#);
    assert!(shown.contains("icecore_up 1") && shown.contains("version=0.0.4"), "{shown}");
    check(&server.get("/api/v1/metrics", "").await, 200, r#""last_push_successful":true"#);
    check(&send("POST", GROUP, b"loss 0.1\n").await, 200, "");
    check(&send("PUT", GROUP, b"Gauge 43\n").await, 200, "");
    assert_eq!(stored(&server, "loss"), [r#"loss{ProjectA="SomeLabel",job="acceptance"} 0.2 0.1 stale"#]);
    check(&send("DELETE", GROUP, b"").await, 202, "");
    check(&send("DELETE", GROUP, b"").await, 202, "");
    assert_eq!(stored(&server, "Gauge"), [r#"Gauge{ProjectA="SomeLabel",job="acceptance"} 42.0 43.0 stale"#]);
    check(&send("PUT", "/metrics/job@base64/=/a/b", b"").await, 400, "job name is required");
    check(&send("PUT", GROUP, b"x 1 5\n").await, 400, "has a timestamp");
    check(&send("PUT", GROUP, b"x 1").await, 400, "text format parsing error in line 1");
    check(&send("POST", "/metrics", b"").await, 405, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_groups_are_repeated_and_outlive_a_restart() {
    let server = start(|_| {}).await;
    check(&server.post(GROUP, "", b"# TYPE g gauge\n# HELP g Help.\ng{k=\"1\"} 5\n").await, 200, "");
    check(&server.post(GROUP, "", b"g{k=\"1\"} 6\n# TYPE g gauge\n").await, 400, "line 2");
    check(&server.post(GROUP, "", b"# HELP g Help.\n# TYPE g gauge\ng{k=\"1\"} 6\n").await, 200, "");
    pushgateway::repeat(&server.frame).unwrap();
    let series = r#"g{ProjectA="SomeLabel",job="acceptance",k="1"} 5.0 6.0 6.0"#;
    assert_eq!(stored(&server, "g"), [series]);
    // The shape of the group is stored once, however often it is pushed.
    let shapes = stored(&server, "icecore_pushgateway_group");
    assert_eq!(
        shapes.iter().map(|line| line.matches("\"families\"").count()).sum::<usize>(),
        1,
        "{shapes:?}"
    );

    let again = Frame::new(Options { statsd: None, ..Options::default() }, server.frame.db.clone());
    pushgateway::restore(&again).unwrap();
    let shown = |frame: &Frame| {
        let mut groups: Vec<_> =
            frame.groups.lock().iter().map(|(key, group)| (key.clone(), group.clone())).collect();
        // A time in seconds is a double, and loses some nanoseconds.
        for (_, group) in &mut groups {
            group.pushed = group.pushed.map(|time| Timestamp::from_millis(time.millis()));
            group.failed = group.failed.map(|time| Timestamp::from_millis(time.millis()));
        }
        groups
    };
    assert_eq!(shown(&again), shown(&server.frame));
}

const PROJECT: &str = "/v2.1/projects/proj%20%C3%A9%2Fx";

#[tokio::test(flavor = "multi_thread")]
async fn ubiops_points_are_stored_and_read_back() {
    let server = start(|_| {}).await;
    let body = br#"[{"metric": "custom.metric", "labels": {"test": "test"}, "data": [
        {"date": "2023-12-31T23:59:16.476709+00:00", "value": 1.0}, {"date": "2023-12-31T23:59:17+00:00", "value": 3.0}]}]"#;
    check(&server.post(&format!("{PROJECT}/time-series/aggregate"), "", body).await, 200, "{}");
    assert_eq!(
        stored(&server, "custom.metric"),
        [r#"custom.metric{project="proj é/x",test="test"} 1.0 3.0"#]
    );
    let ask =
        "metric=custom.metric&start_date=2023-12-31T23:59:00Z&end_date=2024-01-01T00:00:00Z&labels=test:test";
    let data = server.get(&format!("{PROJECT}/time-series/data?{ask}"), "").await;
    check(
        &data,
        200,
        r#""data_points":[{"end_date":"2024-01-01T00:00:00Z","start_date":"2023-12-31T23:59:00Z","value":2.0}]"#,
    );
    let found =
        server.get(&format!("{PROJECT}/time-series/search?metric=custom.metric&custom=True"), "").await;
    check(&found, 200, r#""labels":{"test":"test"}"#);
    let id = found.split("\"id\":").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    let delete =
        |path: String| format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    check(&server.ask(delete(format!("{PROJECT}/time-series/{id}"))).await, 204, "");
    assert!(stored(&server, "custom.metric").is_empty());
    check(&server.ask(delete(format!("{PROJECT}/time-series/{id}"))).await, 404, r#"{"error":"there is no"#);
    check(
        &server.post(&format!("{PROJECT}/time-series/aggregate"), "", b"[{}]").await,
        400,
        "metric is missing",
    );
    check(&server.post("/v2x/projects/p/time-series/aggregate", "", b"[]").await, 404, "no API version");
}

#[tokio::test(flavor = "multi_thread")]
async fn ubiops_metrics_are_created_listed_changed_and_deleted() {
    let server = start(|_| {}).await;
    let body = br#"{"name":"custom.m","metric_type":"delta","unit":"s","description":"d","labels":["a"]}"#;
    check(&server.post(&format!("{PROJECT}/metrics"), "", body).await, 201, r#""metric_type":"delta""#);
    let logged =
        br#"{"metric":"custom.n","labels":{"b":"1"},"data":[{"date":"2023-12-31T23:59:17Z","value":3}]}"#;
    check(&server.post(&format!("{PROJECT}/time-series/data"), "", logged).await, 200, "");
    let list = server.get(&format!("{PROJECT}/metrics?custom=True"), "").await;
    check(&list, 200, r#""labels":["b"],"#);
    assert!(list.contains(r#""name":"custom.m""#) && list.contains(r#""name":"custom.n""#), "{list}");
    let patch = |body: &str| {
        let size = body.len();
        format!(
            "PATCH {PROJECT}/metrics/custom.m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}"
        )
    };
    check(&server.ask(patch(r#"{"unit":"ms"}"#)).await, 200, r#""unit":"ms""#);
    check(&server.get(&format!("{PROJECT}/metrics/custom.m"), "").await, 200, r#""unit":"ms""#);
    let delete =
        format!("DELETE {PROJECT}/metrics/custom.m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    check(&server.ask(delete).await, 204, "");
    check(
        &server.get(&format!("{PROJECT}/metrics/custom.m"), "").await,
        404,
        r#"{"error":"there is no metric"#,
    );
    check(&server.get("/v2/projects/other/metrics", "").await, 200, "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_answered_as_prometheus_does() {
    let server = start(|_| {}).await;
    let page = b"# TYPE up gauge\nup{job=\"a\"} 1 1704067200000\nup{job=\"b\"} 2.5 1704067200000\n";
    check(&server.post("/api/v1/import/prometheus", "", page).await, 204, "");
    let vector = server.get("/api/v1/query?query=up%7Bjob%3D%22b%22%7D&time=1704067201.5", "").await;
    let expected = r#""data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"b"},"value":[1704067201.500,"2.5"]}]}"#;
    check(&vector, 200, expected);
    check(
        &server.post("/api/v1/query", "", b"query=sum(up{job=~\"a|b\"})&time=1704067200").await,
        200,
        r#""3.5""#,
    );
    let range = "/api/v1/query_range?query=up&start=1704067200&end=2024-01-01T00:01:00Z&step=1m";
    check(&server.get(range, "").await, 200, r#""values":[[1704067200,"1"],[1704067260,"1"]]"#);
    check(&server.get("/api/v1/query?query=up%7B", "").await, 400, r#""errorType":"bad_data""#);
    check(&server.get("/api/v1/query", "").await, 400, "query");
    check(&server.get("/api/v1/labels", "").await, 200, r#"["__name__","job"]"#);
    check(&server.get("/api/v1/label/job/values", "").await, 200, r#"["a","b"]"#);
    check(&server.get("/api/v1/label/__name__/values", "").await, 200, r#"["up"]"#);
    check(&server.get("/api/v1/series?match[]=up", "").await, 200, r#"{"__name__":"up","job":"a"}"#);
    check(&server.get("/api/v1/series", "").await, 400, "match[]");
    check(&server.get("/api/v1/metadata", "").await, 200, r#""type":"gauge""#);
    check(&server.get("/api/v1/series?match[]=%7B%7D", "").await, 400, "non-empty matcher");
    let range = "/api/v1/query_range?query=up&start=1704067200&end=1704078201&step=1";
    check(&server.get(range, "").await, 400, "11,000 points");
    check(&server.get("/api/v1/rules", "").await, 200, r#"{"groups":[]}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_logged_and_read_back() {
    let server = start(|_| {}).await;
    let created = server.post("/api/sessions", "", br#"{"product":"MyApp","version":"1.0.0"}"#).await;
    check(&created, 200, r#""session_id":""#);
    let id = created.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let path = format!("/api/sessions/{id}");
    let done = r#"{"status":"ok","success":true}"#;
    let metric = br#"{"name":"memory_mb","tags":["backend","k:v"],"type":"gauge","value":512.5}"#;
    check(&server.post(&format!("{path}/metrics"), "", metric).await, 200, done);
    let gzipped = gzip(br#"{"name":"memory_mb","tags":null,"value":513}"#);
    check(&server.post(&format!("{path}/metrics"), "Content-Encoding: gzip\r\n", &gzipped).await, 200, done);
    let event = br#"{"timestamp":"0001-01-01T00:00:00Z","name":"startup","category":"info","data":{"config":"prod"}}"#;
    check(&server.post(&format!("{path}/events"), "", event).await, 200, done);
    check(&server.post(&format!("{path}/state"), "", br#"{"a":{"b":1,"c":2}}"#).await, 200, done);
    check(&server.post(&format!("{path}/state"), "", br#"{"a":{"b":null}}"#).await, 200, done);
    check(&server.post(&format!("{path}/heartbeat"), "", b"{}").await, 200, done);
    check(&server.post(&format!("{path}/end"), "", b"").await, 200, done);
    let view = server.get(&path, "").await;
    check(&view, 200, r#""a":{"c":2}"#);
    assert!(
        view.contains(r#""config":"prod""#)
            && view.contains("512.5")
            && view.contains(r#""tags":["backend","k:v"]"#)
    );
    check(&server.get("/api/sessions?product=MyApp&status=ended", "").await, 200, &id);
    check(&server.get("/api/data/sessions", "").await, 200, "512.5");
    check(&server.get("/api/sessions?product=other", "").await, 200, "[]");
    check(&server.get("/api/sessions?from=x", "").await, 400, "from: ");
    check(
        &server.post(&format!("{path}/metrics"), "", br#"{"value":1}"#).await,
        400,
        r#""details":"name: required""#,
    );
    check(
        &server.post(&format!("{path}/metrics"), "", br#"{"name":"a","value":1e400}"#).await,
        400,
        "Invalid request body",
    );
    check(&server.post("/api/sessions/550e8400/metrics", "", metric).await, 404, "POST /api/sessions");
    check(&server.get("/health", "").await, 200, r#""status":"healthy""#);
    let delete = format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    check(&server.ask(delete).await, 200, done);
    check(&server.get(&path, "").await, 404, "there is no session");
}

#[tokio::test(flavor = "multi_thread")]
async fn statsd_datagrams_are_aggregated_counted_and_written() {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = start(|options| options.statsd = Some(address)).await;
    let port = server.frame.statsd.port();
    let client = std::net::UdpSocket::bind(address).unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    let lines = [
        "my_counter:1|c|#model:v1\n",
        "my_counter:2:3|c|@0.5|#model:v1",
        "my_gauge:42|g|#model:v1\nmy_gauge:-5|g|#model:v1",
        "my_histogram:100|h|#model:v1|c:ci-1|e:x",
        "garbage\nmy_gauge:True|g",
        "timed:7|g|T1704067000",
        "_e{5,4}:Title|text|d:1704067000|#a:b",
        "_sc|svc|2|m:bad",
    ];
    for line in lines {
        client.send(line.as_bytes()).unwrap();
    }
    server.stop.send(()).unwrap();
    server.task.await.unwrap();
    let db = &server.frame.db;
    let value = |name: &str| {
        db.query(name)
            .latest()
            .run()
            .unwrap()
            .series
            .iter()
            .flat_map(|s| s.doubles().to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(value("my_counter"), [11.0]);
    assert_eq!(value("my_gauge"), [-5.0]);
    assert_eq!(value("my_histogram_sum"), [100.0]);
    assert_eq!(value("my_histogram_bucket").iter().sum::<f64>(), 1.0);
    assert_eq!(value("timed"), [7.0]);
    assert_eq!(db.query("dogstatsd_event").with("a", "b").series().unwrap().len(), 1);
    assert_eq!(db.query("dogstatsd_service_check").series().unwrap().len(), 1);
    assert_eq!(db.metadata("my_counter").unwrap().kind, crate::MetricKind::Counter);
    let counts = &server.frame.statsd;
    assert_eq!((counts.datagrams(), counts.lines()), (8, 8));
    let refused: Vec<_> = counts.refusals().into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(refused, [("missing_value", 1), ("bad_value", 1)]);
}
