//! The process is killed while senders of every protocol are being answered: each value that was answered with success
//! is there afterwards.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use icecore::Db;
use icecore::ingest::SessionId;

use crate::served::Served;

/// What one sender sends again and again, and where its values are found.
struct Sender {
    /// The metric that it writes.
    metric: &'static str,
    /// Path, headers and body of the request with the value `n`, which belongs to the time `millis`.
    request: fn(n: u64, millis: u64) -> (String, &'static str, Vec<u8>),
}

const JSON: &str = "Content-Type: application/json\r\n";
const SNAPPY: &str = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n";
const SNAPPY_2: &str = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
                        Content-Encoding: snappy\r\n";

const SENDERS: [Sender; 9] = [
    Sender {
        metric: "by_remote_write",
        request: |n, millis| {
            let mut label = field(1, b"__name__");
            label.extend(field(2, b"by_remote_write"));
            let series = [field(1, &label), field(2, &sample(n, millis))].concat();
            ("/api/v1/write".into(), SNAPPY, snappy(&field(1, &series)))
        },
    },
    Sender {
        metric: "by_remote_write_2",
        request: |n, millis| {
            let symbols =
                [&b""[..], b"__name__", b"by_remote_write_2"].map(|symbol| field(4, symbol)).concat();
            let series = [field(1, &[1, 2]), field(2, &sample(n, millis))].concat();
            ("/api/v1/write".into(), SNAPPY_2, snappy(&[symbols, field(5, &series)].concat()))
        },
    },
    Sender {
        metric: "by_text",
        request: |n, millis| {
            ("/api/v1/import/prometheus".into(), "", format!("by_text {n} {millis}\n").into())
        },
    },
    Sender {
        metric: "by_line",
        request: |n, millis| {
            ("/write?precision=ms".into(), "", format!("by_line value={n} {millis}\n").into())
        },
    },
    Sender {
        metric: "by_otlp_json",
        request: |n, millis| {
            let body = format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"by_otlp_json","gauge":{{"dataPoints":[
                {{"asDouble":{n},"timeUnixNano":"{millis}000000"}}]}}}}]}}]}}]}}"#
            );
            ("/v1/metrics".into(), JSON, body.into())
        },
    },
    Sender {
        metric: "by_otlp",
        request: |n, millis| {
            let mut point = vec![0x19];
            point.extend((millis * 1_000_000).to_le_bytes());
            point.push(0x21);
            point.extend((n as f64).to_le_bytes());
            let gauge = field(5, &field(1, &point));
            let metric = [field(1, b"by_otlp"), gauge].concat();
            let body = field(1, &field(2, &field(2, &metric)));
            ("/api/v1/otlp/v1/metrics".into(), "Content-Type: application/x-protobuf\r\n", body)
        },
    },
    Sender {
        metric: "by_push",
        request: |n, _| ("/metrics/job/kill".into(), "", format!("by_push {n}\n").into()),
    },
    Sender {
        metric: "by_ubiops",
        request: |n, millis| {
            let time = rfc3339(millis);
            let body = format!(
                r#"[{{"metric":"by_ubiops","labels":{{}},"data":[{{"date":"{time}","value":{n}}}]}}]"#
            );
            ("/v2.1/projects/p/time-series/aggregate".into(), JSON, body.into())
        },
    },
    Sender {
        metric: "by_session",
        request: |n, _| {
            // The id is put in by the sender.
            (
                "/api/sessions/ID/metrics".into(),
                JSON,
                format!(r#"{{"name":"by_session","value":{n}}}"#).into(),
            )
        },
    },
];

#[test]
fn what_was_answered_with_success_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // What a sender was told is stored, over all runs.
    let mut stored = [0; SENDERS.len()];
    let mut sessions: Vec<(SessionId, u64)> = Vec::new();
    let base = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    for run in 0..3 {
        let mut served = Served::start(&data, &[]);
        let (address, id) = (served.address, create_session(&served));
        let acknowledged = std::thread::scope(|scope| {
            let start = |(index, sender)| {
                let first = stored[index];
                scope.spawn(move || send(address, sender, id, first, base))
            };
            let threads: Vec<_> = SENDERS.iter().enumerate().map(start).collect();
            std::thread::sleep(Duration::from_millis(300 + 150 * run));
            served.kill();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<u64>>()
        });
        sessions.push((id, acknowledged[SENDERS.len() - 1] - stored[SENDERS.len() - 1]));
        stored.copy_from_slice(&acknowledged);
        let db = Db::open(&data).unwrap();
        assert!(!db.recovery().clean);
        for (sender, stored) in SENDERS.iter().zip(stored) {
            assert!(stored > 0, "nothing was stored {}", sender.metric);
            check_values(&db, sender.metric, stored);
        }
        for (id, count) in &sessions {
            let metrics = db.session(*id).unwrap().metrics.len() as u64;
            assert!((*count..=*count + 1).contains(&metrics), "{metrics} of {count}");
        }
        db.close().unwrap();
    }
    // And they are served again, live groups among them.
    let served = Served::start(&data, &[]);
    assert!(served.get("/metrics").contains("by_push{job=\"kill\"}"), "the group is gone");
    assert!(served.get(&format!("/api/sessions/{}", sessions[0].0)).contains("by_session"));
}

/// Checks that the metric has every value from 1 to `stored`.
#[track_caller]
fn check_values(db: &Db, metric: &str, stored: u64) {
    let found = db.query(metric).run().unwrap();
    let mut values: Vec<u64> =
        found.series.iter().flat_map(|s| s.doubles()).map(|value| *value as u64).collect();
    values.sort_unstable();
    let missing: Vec<u64> = (1..=stored).filter(|value| values.binary_search(value).is_err()).collect();
    assert!(missing.is_empty(), "{metric} has not {missing:?} of {stored}");
}

fn create_session(served: &Served) -> SessionId {
    let answer = served.ask("POST", "/api/sessions", JSON, br#"{"product":"kill","version":"1"}"#);
    let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    id.unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
}

/// Sends values from `first` + 1 until the connection breaks; the last that was answered with success.
fn send(address: SocketAddr, sender: &Sender, id: SessionId, first: u64, base: u64) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut last = first;
    loop {
        let n = last + 1;
        let (path, headers, body) = (sender.request)(n, base + n);
        let path = path.replace("ID", &id.to_string());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        let mut answer = vec![0; 4096];
        let size = match stream
            .write_all(&[head.as_bytes(), &body].concat())
            .and_then(|()| stream.read(&mut answer))
        {
            Ok(size) if size > 0 => size,
            _ => return last,
        };
        let answer = String::from_utf8_lossy(&answer[..size]);
        assert!(answer.starts_with("HTTP/1.1 2"), "{}: {answer}", sender.metric);
        last = n;
    }
}

/// A protobuf field with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    put_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn sample(n: u64, millis: u64) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend((n as f64).to_le_bytes());
    out.push(0x10);
    put_varint(&mut out, millis);
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

fn rfc3339(millis: u64) -> String {
    jiff::Timestamp::from_millisecond(millis as i64).unwrap().to_string()
}
