//! Sessions over REST with connections that are kept: create, metrics, events, state, heartbeat, end, one after the
//! other, each waiting for its answer.

use std::time::{Duration, Instant};

use icecore::ingest::{SessionFilter, SessionStatus};

use crate::Bench;
use crate::http::{Connection, request};

const CONNECTION_COUNT: usize = 8;
const METRIC_COUNT: usize = 20;
const EVENT_COUNT: usize = 3;
const JSON: &str = "Content-Type: application/json\r\n";

pub(crate) fn run(small: bool) {
    let sessions = if small { 4 } else { 1500 };
    let bench = Bench::start(&[]);
    let mut times: Vec<Duration> = Vec::new();
    let cost = bench.measure(|| {
        let client = || {
            let mut connection = Connection::open(bench.served.address);
            let mut times = Vec::new();
            (0..sessions).for_each(|_| session(&mut connection, &mut times));
            times
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CONNECTION_COUNT).map(|_| scope.spawn(client)).collect();
            times = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        });
    });
    let count = times.len() as u64;
    times.sort_unstable();
    let quantile = |share: f64| times[(share * (times.len() - 1) as f64) as usize].as_secs_f64() * 1e3;
    let (db, _directory) = bench.stop();
    let expected = sessions * CONNECTION_COUNT;
    let filter = SessionFilter { limit: expected + 1, ..SessionFilter::default() };
    let stored = db.sessions(&filter).unwrap();
    assert_eq!(stored.len(), expected);
    assert!(stored.iter().all(|session| session.status == SessionStatus::Ended));
    let view = db.session(stored[expected / 2].id).unwrap();
    assert_eq!((view.metrics.len(), view.events.len()), (METRIC_COUNT, EVENT_COUNT));
    println!(
        "sessions: {:.0} requests/s (target 15,000), p50 {:.2} ms, p99 {:.2} ms (target 10), at most {:.1} ms; {}; {count} requests on {CONNECTION_COUNT} connections",
        cost.rate(count),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        cost.cpu_per_million(count),
    );
}

/// One session from its creation to its end; the time of each request goes to `times`.
fn session(connection: &mut Connection, times: &mut Vec<Duration>) {
    let mut ask = |path: &str, body: &str| {
        let request = request("POST", path, JSON, body.as_bytes());
        let start = Instant::now();
        let answer = connection.ask(&request).to_owned();
        times.push(start.elapsed());
        answer
    };
    let create =
        r#"{"product":"bench","version":"1.0","machine_id":"m-1","hostname":"h","data":{"gpu":"none"}}"#;
    let answer = ask("/api/sessions", create);
    let path = format!("/api/sessions/{}", field(&answer, "session_id"));
    for step in 0..METRIC_COUNT {
        let metric = format!(r#"{{"name":"loss","value":{},"tags":["epoch:1"]}}"#, 1.0 / (step + 1) as f64);
        ask(&format!("{path}/metrics"), &metric);
    }
    for step in 0..EVENT_COUNT {
        let event = format!(r#"{{"name":"step","data":{{"level":"info","number":{step}}}}}"#);
        ask(&format!("{path}/events"), &event);
    }
    ask(&format!("{path}/state"), r#"{"phase":"training","progress":{"done":3}}"#);
    ask(&format!("{path}/heartbeat"), "{}");
    ask(&format!("{path}/end"), "{}");
}

fn field<'a>(answer: &'a str, key: &str) -> &'a str {
    let start = answer.find(&format!("\"{key}\":\"")).unwrap() + key.len() + 4;
    answer[start..].split('"').next().unwrap()
}
