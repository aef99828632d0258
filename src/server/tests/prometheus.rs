//! The Prometheus API over a real socket: forms of answers, limits, and that work stops when its client goes.

use serde_json::{Value as Json, json};

use super::*;
use crate::clock::SystemClock;
use crate::db::Batch;
use crate::model::{SeriesKey, ValueRef};
use crate::protocol::protobuf::{put_bytes, put_int, put_varint};

const SECONDS: i64 = 1_704_067_200;

/// Sixty samples, a minute apart, of three series and an integer one, up to the time at which the clock stands.
fn fill(db: &Db) {
    let mut batch = Batch::new();
    for minute in 0..60 {
        let time = Timestamp::from_secs(SECONDS - 60 * minute);
        for (host, factor) in [("a", 1.0), ("b", 2.0), ("bb", 3.0)] {
            let value = ValueRef::F64((60 - minute) as f64 * factor);
            batch.push_named("load_total", &[("host", host), ("job", "j")], time, value).unwrap();
        }
        batch.push_named("whole", &[("http.code", "200")], time, ValueRef::I64(minute)).unwrap();
    }
    batch
        .push_named("note", &[("event", "x")], Timestamp::from_secs(SECONDS), ValueRef::Bytes(b"text"))
        .unwrap();
    db.write(&mut batch).unwrap();
}

async fn filled(change: impl FnOnce(&mut Options)) -> Running {
    let server = start(change).await;
    fill(&server.frame.db);
    server
}

/// A database on a simulated disk with a clock that runs.
fn running_db() -> Db {
    let env = Env::new(Env::simulated(1).fs, Arc::new(SystemClock::new()), 1);
    Db::open_with("db", db::Options { env, background: db::Background::Host, ..db::Options::default() })
        .unwrap()
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Running {
    /// The status and the JSON of `path` with `parameters`.
    async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> (u16, Json) {
        let pairs: Vec<String> =
            parameters.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let answer = self.get(&format!("/api/v1/{path}?{}", pairs.join("&")), "").await;
        split(&answer)
    }

    #[track_caller]
    fn good(&self, answer: (u16, Json)) -> Json {
        assert_eq!(answer.0, 200, "{}", answer.1);
        assert_eq!(answer.1["status"], "success");
        answer.1
    }
}

fn split(answer: &str) -> (u16, Json) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Json::Null))
}

#[track_caller]
fn refused(answer: (u16, Json), status: u16, kind: &str, part: &str) {
    assert_eq!((answer.0, &answer.1["errorType"]), (status, &json!(kind)), "{}", answer.1);
    assert!(answer.1["error"].as_str().unwrap().contains(part), "{}", answer.1);
}

/// Takes hours: windows of 300,000 samples, each looked at as a whole, 300,000 times over.
const QUERY_OF_DEATH: &str =
    "quantile_over_time(0.5, quantile_over_time(0.5, vector(1)[300s:1ms])[300s:1ms])";

#[tokio::test(flavor = "multi_thread")]
async fn queries_answer_in_prometheus_words() {
    let server = filled(|_| {}).await;
    let ask = async |parameters: &[(&str, &str)]| server.good(server.api("query", parameters).await);
    let answer = ask(&[("query", "load_total{host='b'}")]).await;
    assert_eq!(answer["data"]["result"][0]["value"], json!([SECONDS, "120"]));
    let answer = ask(&[("query", "load_total"), ("limit", "2")]).await;
    assert_eq!(answer["data"]["result"].as_array().unwrap().len(), 2);
    assert_eq!(answer["warnings"], json!(["results truncated due to limit"]));
    let answer = ask(&[("query", "rate(whole[5m])")]).await;
    assert!(answer["infos"][0].as_str().unwrap().contains("might not be a counter"));
    let late = (SECONDS + 30).to_string();
    let answer = ask(&[("query", "load_total"), ("time", &late), ("lookback_delta", "20s")]).await;
    assert_eq!(answer["data"]["result"], json!([]));
    let answer = ask(&[("query", "load_total"), ("stats", "all")]).await;
    assert_eq!(answer["data"]["stats"]["samples"]["totalQueryableSamples"], 15);
    assert!(answer["data"]["stats"]["timings"]["evalTotalTime"].is_number());

    let (start, end) = ((SECONDS - 600).to_string(), SECONDS.to_string());
    let times: [(&str, &str); 3] = [("start", &start), ("end", &end), ("step", "1m")];
    let answer =
        server.api("query_range", &[&[("query", "load_total"), ("limit", "1")], &times[..]].concat()).await;
    let answer = server.good(answer);
    assert_eq!(answer["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(answer["data"]["result"][0]["values"].as_array().unwrap().len(), 11);
    refused(
        server.api("query_range", &[&[("query", "x[5m]")], &times[..]].concat()).await,
        400,
        "bad_data",
        "range vector",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_type_and_code() {
    let server = filled(|_| {}).await;
    let ask = |parameters| server.api("query", parameters);
    refused(
        ask(&[("query", "sum((")]).await,
        400,
        "bad_data",
        "invalid parameter \"query\": 1:6: parse error",
    );
    refused(ask(&[]).await, 400, "bad_data", "no expression found in input");
    refused(
        ask(&[("query", "1"), ("time", "soon")]).await,
        400,
        "bad_data",
        "cannot parse \"soon\" to a valid timestamp",
    );
    refused(ask(&[("query", "1"), ("timeout", "0s")]).await, 400, "bad_data", "timeout");
    refused(ask(&[("query", "1"), ("limit", "-1")]).await, 400, "bad_data", "non-negative");
    refused(ask(&[("query", "load_total * on (job) load_total")]).await, 422, "execution", "");
    refused(server.api("query_range", &[("query", "1")]).await, 400, "bad_data", "\"start\"");
    refused(server.api("series", &[]).await, 400, "bad_data", "no match[] parameter provided");
    refused(
        server.api("series", &[("match[]", "{}")]).await,
        400,
        "bad_data",
        "at least one non-empty matcher",
    );
    refused(server.api("labels", &[("match[]", "rate(x[5m])")]).await, 400, "bad_data", "match[]");
    refused(server.api("labels", &[("start", "2"), ("end", "1")]).await, 400, "bad_data", "end");
    refused(server.api("metadata", &[("limit", "x")]).await, 400, "bad_data", "limit must be a number");
    let form = server
        .post("/api/v1/query", "Content-Type: application/x-www-form-urlencoded\r\n", b"query=%FF")
        .await;
    refused(split(&form), 400, "bad_data", "UTF-8");
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_cut_and_leave_events_out() {
    let server = filled(|_| {}).await;
    let list =
        async |path: &str, parameters: &[(&str, &str)]| server.good(server.api(path, parameters).await);
    assert_eq!(list("labels", &[]).await["data"], json!(["__name__", "host", "http.code", "job"]));
    assert_eq!(list("label/__name__/values", &[]).await["data"], json!(["load_total", "whole"]));
    assert_eq!(list("label/U__http_2e_code/values", &[]).await["data"], json!(["200"]));
    let cut = list("label/host/values", &[("limit", "2")]).await;
    assert_eq!(
        (&cut["data"], &cut["warnings"][0]),
        (&json!(["a", "b"]), &json!("results truncated due to limit"))
    );
    let found = list("series", &[("match[]", "{\"load_total\", host=~\"b.*\",}")]).await;
    assert_eq!(found["data"][1], json!({ "__name__": "load_total", "host": "bb", "job": "j" }));
    let earlier = (SECONDS - 7200).to_string();
    assert_eq!(list("labels", &[("end", &earlier)]).await["data"], json!([]));
    let all = [("start", "-292273086-05-16T16:47:06Z"), ("end", "292277025-08-18T07:12:54.999999999Z")];
    assert_eq!(list("labels", &all).await["data"].as_array().unwrap().len(), 4);
    let counted = list("status/tsdb", &[("limit", "1")]).await["data"].clone();
    assert_eq!(counted["seriesCountByMetricName"], json!([{ "name": "load_total", "value": 3 }]));
    assert_eq!(counted["headStats"]["minTime"], (SECONDS - 59 * 60) * 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_may_read_where_they_are_let() {
    let origin = "Origin: http://grafana.test\r\n";
    let server = start(|_| {}).await;
    check(&server.get("/api/v1/query?query=1", origin).await, 200, "access-control-allow-origin: *");
    let head = "OPTIONS /api/v1/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let ask = format!("{head}{origin}Access-Control-Request-Method: POST\r\n\r\n");
    check(&server.ask(&ask).await, 204, "access-control-allow-methods: GET, POST, OPTIONS");
    assert!(!server.get("/api/sessions", origin).await.contains("access-control"));
    let server = start(|options| options.cors_origins = CorsOrigins::Off).await;
    assert!(!server.get("/api/v1/query?query=1", origin).await.contains("access-control"));
    check(&server.ask(&ask).await, 405, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_compressed() {
    let server = filled(|_| {}).await;
    let range = format!("start={}&end={SECONDS}&step=60", SECONDS - 3600);
    let path = format!("/api/v1/query_range?query=load_total&{range}");
    let plain = server.get(&path, "").await;
    let packed = server.get(&path, "Accept-Encoding: gzip\r\n").await;
    check(&packed, 200, "content-encoding: gzip");
    let size = |answer: &str| -> usize {
        let (_, rest) = answer.split_once("content-length: ").unwrap();
        rest.split_once('\r').unwrap().0.parse().unwrap()
    };
    assert!(size(&packed) * 2 < size(&plain));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_pages_tell_of_this_server() {
    let server = filled(|options| options.limits.query_count_max = 7).await;
    let get = async |path: &str| server.good(server.api(path, &[]).await)["data"].clone();
    assert_eq!(get("status/flags").await["query.max-concurrency"], "7");
    assert_eq!(get("status/runtimeinfo").await["startTime"], "2024-01-01T00:00:00Z");
    assert_eq!(get("status/walreplay").await["current"], 0);
    assert_eq!(get("status/tsdb/blocks").await["blocks"], json!([]));
    server.frame.db.flush().unwrap();
    let blocks = get("status/tsdb/blocks").await["blocks"].clone();
    let samples =
        blocks.as_array().unwrap().iter().map(|block| block["stats"]["numSamples"].as_u64().unwrap());
    assert_eq!(samples.sum::<u64>(), 241);
    assert_eq!(get("features").await["promql_functions"]["rate"], true);
    assert_eq!(get("targets").await["activeTargets"], json!([]));
    assert!(get("status/config").await["yaml"].is_string());
    let page = server.get("/metrics", "").await;
    check(&page, 200, "icecore_queries_total{outcome=\"success\"} 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn administration_is_behind_a_switch() {
    let server = filled(|_| {}).await;
    let closed = server.post("/api/v1/admin/tsdb/delete_series?match[]=load_total", "", b"").await;
    refused(split(&closed), 503, "unavailable", "--enable-admin-api");

    let server = filled(|options| options.admin_api = true).await;
    let post = async |path: &str| server.post(&format!("/api/v1/admin/tsdb/{path}"), "", b"").await;
    let (status, made) = split(&post("snapshot").await);
    assert_eq!(status, 200);
    let name = made["data"]["name"].as_str().unwrap();
    refused(split(&post("delete_series").await), 400, "bad_data", "no match[]");
    let range = format!("start={}&end={SECONDS}", SECONDS - 600);
    check(&post(&format!("delete_series?match[]=load_total&{range}")).await, 204, "");
    check(&post("clean_tombstones").await, 204, "");
    let count = |db: &Db| db.query("load_total").count().by::<&str>([]).run().unwrap().series[0].doubles()[0];
    assert_eq!(count(&server.frame.db), 3.0 * 49.0);
    assert_eq!(server.frame.db.stats().tombstones, 0);
    let options = db::Options { env: server.frame.env.clone(), ..db::Options::default() };
    let copy = Db::open_with(format!("db/snapshots/{name}"), options).unwrap();
    assert_eq!(count(&copy), 180.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_stops_when_its_client_goes_and_never_blocks_others() {
    let server = start(|_| {}).await;
    let mut clients = Vec::new();
    let request =
        format!("GET /api/v1/query?query={} HTTP/1.1\r\nHost: localhost\r\n\r\n", encode(QUERY_OF_DEATH));
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    let readings = &server.frame.readings;
    while readings.under_way() < 4 {
        tokio::task::yield_now().await;
    }
    check(&server.get("/api/v1/query?query=1", "").await, 200, "success");
    assert_eq!(readings.under_way(), 4);
    drop(clients);
    let stopped = async {
        while readings.under_way() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), stopped)
        .await
        .expect("the queries went on without their clients");
    let canceled = readings.outcomes().find(|(kind, _)| *kind == "canceled").unwrap().1;
    assert_eq!(canceled, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_queries_fail_and_the_server_lives() {
    let server =
        start_on(running_db(), |options| options.limits.query_timeout = Duration::from_millis(200)).await;
    refused(
        server.api("query", &[("query", QUERY_OF_DEATH)]).await,
        503,
        "timeout",
        "timed out in expression evaluation",
    );
    let sooner = [("query", QUERY_OF_DEATH), ("timeout", "10ms")];
    refused(server.api("query", &sooner).await, 503, "timeout", "timed out");
    server.good(server.api("query", &[("query", "1")]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_death_are_422_and_the_server_lives() {
    let server = filled(|options| {
        options.limits.query_memory_max = 2000;
        options.limits.query_sample_count_max = 100;
    })
    .await;
    let ask = async |parameters: &[(&str, &str)]| server.api("query", parameters).await;
    refused(ask(&[("query", "sum_over_time(vector(1)[100y:1ms])")]).await, 422, "execution", "steps_max");
    refused(ask(&[("query", "rate(load_total[1h])")]).await, 422, "execution", "");
    let long = format!("sort(label_replace(vector(1), 'x', '{}', '', ''))", "a".repeat(3000));
    refused(ask(&[("query", &long)]).await, 422, "execution", "memory_max");
    server.good(ask(&[("query", "load_total{host='a'}")]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn further_queries_wait_for_their_turn() {
    let server = start(|options| options.limits.query_count_max = 1).await;
    let mut first = server.connect().await;
    let request =
        format!("GET /api/v1/query?query={} HTTP/1.1\r\nHost: localhost\r\n\r\n", encode(QUERY_OF_DEATH));
    first.write_all(request.as_bytes()).await.unwrap();
    while server.frame.readings.under_way() < 1 {
        tokio::task::yield_now().await;
    }
    let late = [("query", "1"), ("timeout", "50ms")];
    refused(server.api("query", &late).await, 503, "timeout", "query timed out in query queue");
    drop(first);
    server.good(server.api("query", &[("query", "1")]).await);
}

fn matcher(kind: i64, name: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_int(&mut out, 1, kind);
    put_bytes(&mut out, 2, name.as_bytes());
    put_bytes(&mut out, 3, value.as_bytes());
    out
}

fn read_request(matchers: &[Vec<u8>], streamed: bool) -> Vec<u8> {
    let mut query = Vec::new();
    put_int(&mut query, 1, (SECONDS - 120) * 1000);
    put_int(&mut query, 2, SECONDS * 1000);
    matchers.iter().for_each(|matcher| put_bytes(&mut query, 3, matcher));
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &query);
    if streamed {
        let mut kinds = Vec::new();
        put_varint(&mut kinds, 1);
        put_bytes(&mut out, 2, &kinds);
    }
    snap::raw::Encoder::new().compress_vec(&out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_read_gives_series_in_order_both_ways() {
    let server = filled(|_| {}).await;
    // A name that another one starts with, which the engine sorts behind it.
    let mut batch = Batch::new();
    for name in ["load_total_more", "load"] {
        let time = Timestamp::from_secs(SECONDS);
        batch.push_named(name, &[("host", "z")], time, ValueRef::F64(1.0)).unwrap();
    }
    server.frame.db.write(&mut batch).unwrap();
    let post = async |body: Vec<u8>| {
        let mut stream = server.connect().await;
        let head = format!(
            "POST /api/v1/read HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Encoding: snappy\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&bytes[..at]).into_owned(), bytes[at + 4..].to_vec())
    };
    let all = [matcher(2, "__name__", "load.*")];
    let (head, body) = post(read_request(&all, false)).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-encoding: snappy"), "{head}");
    let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    assert_in_order(&message, &["\x04load", "\x12\x01a", "\x12\x01b", "\x12\x02bb", "load_total_more"]);
    assert!(!message.windows(5).any(|part| part == b"whole"));

    let (head, body) = post(read_request(&all, true)).await;
    assert!(head.contains("application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"), "{head}");
    assert_in_order(&body, &["\x04load", "\x12\x01a", "\x12\x01b", "\x12\x02bb", "load_total_more"]);

    let (head, _) = post(read_request(&[matcher(2, "__name__", "(")], false)).await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let (head, _) = post(b"\xff\xff".to_vec()).await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
}

/// Each part comes behind the one before it.
#[track_caller]
fn assert_in_order(bytes: &[u8], parts: &[&str]) {
    let mut from = 0;
    for part in parts {
        let found = bytes[from..].windows(part.len()).position(|own| own == part.as_bytes());
        from += found.unwrap_or_else(|| panic!("{part:?} is not behind byte {from}")) + part.len();
    }
}

#[test]
fn keys_of_answers_are_shown_without_a_name() {
    let labels = crate::promql::Labels::new("", [("a", "1")]);
    assert_eq!(SeriesKey::from(&labels).to_string(), "{a=\"1\"}");
}
