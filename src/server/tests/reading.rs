//! `/api/query` and `/api/events` over a real socket: every form, exact values, streams, and questions that are wrong.

use serde_json::{Value as Json, json};

use super::*;
use crate::db::Batch;
use crate::ingest::{SessionEvent, SessionFilter};
use crate::model::{STALE_NAN_BITS, Timestamp};

/// The body of an answer that came whole, its chunks put together.
fn body(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut whole = String::new();
    let mut rest = body;
    loop {
        let (size, after) =
            rest.split_once("\r\n").unwrap_or_else(|| panic!("broken off after {}", whole.len()));
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
}

async fn json(server: &Running, query: &str) -> Json {
    let answer = server.get(&format!("/api/query?{query}"), "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(&body(&answer)).unwrap()
}

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn store(db: &Db, series: &crate::Series<f64>, times: &[Timestamp], values: &[f64]) {
    let mut batch = Batch::new();
    batch.push_columns(series, times, values).unwrap();
    db.write(&mut batch).unwrap();
}

/// Two hosts with ten samples a second apart, an integer, a text, and all that is no number.
async fn filled() -> Running {
    let server = start(|_| {}).await;
    let db = &server.frame.db;
    for (host, scale) in [("a", 1.0), ("b", 10.0)] {
        let cpu = db.series::<f64>("cpu", &[("host", host)]).unwrap();
        let times: Vec<Timestamp> = (0..10).map(|n| Timestamp::from_secs(1_000 + n)).collect();
        store(db, &cpu, &times, &(0..10).map(|n| scale * f64::from(n)).collect::<Vec<_>>());
    }
    let mut batch = Batch::new();
    let odd = db.series::<f64>("odd", &[("k", "a;b")]).unwrap();
    let values = [
        f64::from_bits(STALE_NAN_BITS),
        f64::NAN,
        f64::from_bits(0x7ff8_0000_0000_00aa),
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        5e-324,
        0.1 + 0.2,
    ];
    for (n, value) in values.into_iter().enumerate() {
        batch.push(&odd, at(1_700_000_000_123_456_789 + n as i64), value).unwrap();
    }
    let big = db.series::<i64>("big", &[]).unwrap();
    batch.push(&big, at(1), i64::MAX).unwrap();
    batch.push(&big, at(2), i64::MIN).unwrap();
    let text = db.series::<Vec<u8>>("text", &[]).unwrap();
    batch.push(&text, at(1), "ü,\"\n".as_bytes().to_vec()).unwrap();
    batch.push(&text, at(2), b"\xff".to_vec()).unwrap();
    db.write(&mut batch).unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_samples_come_exactly() {
    let server = filled().await;
    let odd = json(&server, "selector=odd").await;
    assert_eq!(odd["time_unit"], "ns");
    let series = &odd["series"][0];
    assert_eq!(
        (&series["name"], &series["tags"], &series["type"]),
        (&json!("odd"), &json!({"k": "a;b"}), &json!("f64"))
    );
    assert_eq!(series["columns"]["time"][7], 1_700_000_000_123_456_796i64);
    assert_eq!(
        series["columns"]["value"].to_string(),
        r#"["stale","NaN","NaN:7ff80000000000aa","+Inf","-Inf",-0.0,5e-324,0.30000000000000004]"#
    );
    let big = json(&server, "selector=big").await;
    assert_eq!(big["series"][0]["columns"]["value"], json!([i64::MAX, i64::MIN]));
    let text = json(&server, "selector=text&times=rfc3339").await;
    let expected = json!({"time": ["1970-01-01T00:00:00.000000001Z", "1970-01-01T00:00:00.000000002Z"],
        "value": ["ü,\"\n", {"hex": "ff"}]});
    assert_eq!((&text["series"][0]["columns"], &text["time_unit"]), (&expected, &json!("rfc3339")));
    assert_eq!(json(&server, "selector=nothing").await["series"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_lines_are_asked_for_by_accept() {
    let server = filled().await;
    let csv = server.get("/api/query?selector=text", "Accept: text/html, text/csv;q=0.9\r\n").await;
    check(&csv, 200, "content-type: text/csv; charset=utf-8");
    assert_eq!(body(&csv), "series,tags,timestamp_ns,value\ntext,,1,\"ü,\"\"\n\"\ntext,,2,hex:ff\n");
    let csv = server.get("/api/query?selector=odd&limit=1&format=csv&times=rfc3339", "").await;
    assert_eq!(body(&csv), "series,tags,timestamp,value\nodd,k=a\\;b,2023-11-14T22:13:20.123456789Z,stale\n");
    let csv = server.get("/api/query?selector=cpu&agg=max,count&format=csv", "").await;
    assert!(
        body(&csv).ends_with("cpu,host=a,0,9.0,10.0\ncpu,host=b,0,90.0,10.0\n")
            || body(&csv).contains("host=b")
    );
    let lines = server.get("/api/query?selector=cpu&agg=latest", "Accept: application/x-ndjson\r\n").await;
    let lines: Vec<Json> = body(&lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["columns"], json!({"time": [1_009_000_000_000i64], "value": [90.0]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_stand_side_by_side() {
    let server = filled().await;
    let answer =
        json(&server, "selector=cpu&window=4s&agg=sum,increase&from=1000000000000&to=1009000000000").await;
    let columns = &answer["series"][0]["columns"];
    // Windows are whole fours of seconds; the last holds one sample, which has no increase.
    assert_eq!(columns["time"], json!([1_000_000_000_000i64, 1_004_000_000_000i64, 1_008_000_000_000i64]));
    assert_eq!(columns["sum"], json!([6.0, 22.0, 8.0]));
    assert_eq!(columns["increase"], json!([3.0, 3.0, null]));
    let all = json(&server, "selector=cpu&agg=sum&by=").await;
    assert_eq!(
        (&all["series"][0]["tags"], &all["series"][0]["columns"]["sum"]),
        (&json!({}), &json!([495.0]))
    );
    let by = json(&server, "selector=cpu&agg=quantile(0.5)&by=host&window=1h").await;
    assert_eq!(by["series"][1]["columns"]["quantile(0.5)"], json!([45.0]));
    let top = json(&server, "selector=cpu&agg=max&window=1h&top=1").await;
    assert_eq!(top["series"].as_array().unwrap().len(), 1);
    let over = json(&server, "selector=cpu&where=%3E%3D80").await;
    assert_eq!(over["series"][0]["columns"]["value"], json!([80.0, 90.0]));
    let posted = r#"{"selector":"cpu{host=\"b\"}","agg":["max","min"],"window":"1h","times":"ns"}"#;
    let posted = server.post("/api/query", "Content-Type: application/json\r\n", posted.as_bytes()).await;
    let posted: Json = serde_json::from_str(&body(&posted)).unwrap();
    assert_eq!(posted["series"][0]["columns"]["min"], json!([0.0]));
    let form = server.post("/api/query", "", b"selector=cpu&limit=12").await;
    let form: Json = serde_json::from_str(&body(&form)).unwrap();
    assert_eq!(
        (&form["truncated"], &form["series"][1]["columns"]["value"]),
        (&json!(true), &json!([0.0, 10.0]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_name_the_parameter() {
    let server = filled().await;
    for (query, part) in [
        ("", "selector: it is missing"),
        ("selector=%7B", "selector: "),
        ("selector=a&selector=b", "selector: given twice"),
        ("selector=cpu&window=1m", "window: it needs an aggregate"),
        ("selector=cpu&agg=most", "agg: "),
        ("selector=cpu&agg=max,max", "agg: max is given twice"),
        ("selector=cpu&agg=max,raw", "agg: raw stands alone"),
        ("selector=cpu&agg=quantile(2)", "agg: "),
        ("selector=cpu&agg=histogram_quantile(x)", "agg: "),
        ("selector=cpu&agg=max&window=x", "window: "),
        ("selector=cpu&agg=max&by=a&without=b", "without: "),
        ("selector=cpu&agg=max&top=1&bottom=1", "bottom: "),
        ("selector=cpu&agg=max&top=0", "top: "),
        ("selector=cpu&where=x", "where: "),
        ("selector=cpu&limit=-1", "limit: "),
        ("selector=cpu&from=yesterday", "from: "),
        ("selector=cpu&from=2&to=1", "to: "),
        ("selector=cpu&format=xml", "format: "),
        ("selector=cpu&times=s", "times: "),
        ("selector=cpu&partial=maybe", "partial: "),
        ("selector=cpu&timeout=0s", "timeout: "),
        ("selector=cpu&metric=cpu", "metric: there is no such parameter"),
    ] {
        check(&server.get(&format!("/api/query?{query}"), "").await, 400, &format!("\"details\":\"{part}"));
    }
    check(&server.post("/api/query", "", b"{\"selector\":{}}").await, 400, "selector: ");
    check(&server.get("/api/query?selector=cpu&agg=rate", "").await, 400, "a rate needs a window");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_streamed_whole() {
    let server = start(|_| {}).await;
    let db = &server.frame.db;
    let walk = db.series::<f64>("walk", &[]).unwrap();
    let count = 200_000i64;
    let times: Vec<Timestamp> = (0..count).map(|n| at(n * 1_000_000)).collect();
    let values: Vec<f64> = (0..count).map(|n| (n as f64).sin()).collect();
    store(db, &walk, &times, &values);
    let answer = server.get("/api/query?selector=walk", "").await;
    check(&answer, 200, "transfer-encoding: chunked");
    let answer: Json = serde_json::from_str(&body(&answer)).unwrap();
    let pieces = answer["series"].as_array().unwrap();
    assert!(pieces.len() > 1);
    let column = |name: &str| -> Vec<Json> {
        pieces.iter().flat_map(|piece| piece["columns"][name].as_array().unwrap().clone()).collect()
    };
    let read: Vec<u64> = column("value").iter().map(|value| value.as_f64().unwrap().to_bits()).collect();
    assert_eq!(read, values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    let read: Vec<i64> = column("time").iter().map(|time| time.as_i64().unwrap()).collect();
    assert_eq!(read, times.iter().map(|time| time.nanos()).collect::<Vec<_>>());
    assert_eq!(answer["truncated"], false);
    let permits = server.frame.options.limits.request_count_max;
    while server.frame.requests.available_permits() < permits {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_the_work() {
    let server = start(|_| {}).await;
    let db = &server.frame.db;
    let walk = db.series::<f64>("walk", &[]).unwrap();
    for part in 0..10i64 {
        let times: Vec<Timestamp> = (0..200_000).map(|n| at((part * 200_000 + n) * 1_000)).collect();
        let values: Vec<f64> = (0..200_000).map(|n| (n as f64).sin()).collect();
        store(db, &walk, &times, &values);
    }
    let holders = Arc::strong_count(&server.frame);
    let mut client = server.connect().await;
    client.write_all(b"GET /api/query?selector=walk HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut client, "time_unit").await;
    // The answer is far larger than what sockets hold, so the work waits for the client here.
    drop(client);
    let permits = server.frame.options.limits.request_count_max;
    let ended = async {
        while server.frame.requests.available_permits() < permits
            || Arc::strong_count(&server.frame) > holders
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the work goes on without its client");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_queries_are_answered() {
    let server = start(|options| options.limits.query_memory_max = 1_000).await;
    let walk = server.frame.db.series::<f64>("walk", &[]).unwrap();
    let times: Vec<Timestamp> = (0..10_000).map(at).collect();
    store(&server.frame.db, &walk, &times, &vec![1.0; 10_000]);
    let answer = server.get("/api/query?selector=walk&agg=max&window=1ns", "").await;
    check(&answer, 422, "Unprocessable Entity");
    // Raw samples are not held.
    check(&server.get("/api/query?selector=walk", "").await, 200, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_and_paged() {
    let server = start(|_| {}).await;
    let session = server.frame.db.create_session("MyApp", "1.0").unwrap();
    for n in 0..5 {
        let level = if n == 3 { "error" } else { "info" };
        let event =
            SessionEvent::new("step").with_level(level).data(json!({ "n": n, "x": [0.1, null, u64::MAX] }));
        session.record_event(&event.at(Timestamp::from_secs(100 + n))).unwrap();
    }
    let ask = async |query: &str| -> Json {
        let answer = server.get(&format!("/api/events?{query}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        serde_json::from_str(&body(&answer)).unwrap()
    };
    let errors = ask("product=MyApp&level=error").await;
    let found = &errors["events"][0];
    assert_eq!(
        (&found["name"], &found["data"]),
        (&json!("step"), &json!({"n": 3, "x": [0.1, null, u64::MAX]}))
    );
    assert_eq!(
        (&found["session_id"], &found["timestamp"]),
        (&json!(session.id().to_string()), &json!("1970-01-01T00:01:43Z"))
    );
    assert_eq!((&errors["events"].as_array().unwrap().len(), &errors["next"]), (&1, &Json::Null));
    let first = ask(&format!("session={}&limit=3", session.id())).await;
    let rest = ask(&format!("limit=3&before={}", first["next"].as_str().unwrap())).await;
    let numbers = |page: &Json| -> Vec<i64> {
        page["events"].as_array().unwrap().iter().map(|event| event["data"]["n"].as_i64().unwrap()).collect()
    };
    assert_eq!((numbers(&first), numbers(&rest)), (vec![4, 3, 2], vec![1, 0]));
    assert_eq!(numbers(&ask("from=101000000000&to=1970-01-01T00:01:43Z").await), [2, 1]);
    check(&server.get("/api/events?session=7", "").await, 400, "session: ");
    check(&server.get("/api/events?limit=0", "").await, 400, "limit: ");
    check(&server.get("/api/events?sesion=1", "").await, 400, "sesion: there is no such parameter");
    let listed = server.frame.db.sessions(&SessionFilter::default()).unwrap();
    assert_eq!(listed.len(), 1);
}
