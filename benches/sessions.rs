//! Short sessions, the normal case: create, 10 metrics of 20 samples each, 3 events, end, call by call; then
//! flushed, compacted, read back and listed. `SESSIONS` says how many are stored first (2,000; 100,000 for numbers
//! worth keeping). Targets are in `docs/benchmarks/`.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use icecore::Db;
use icecore::ingest::{Counter, Histogram, NO_TAGS, Session, SessionFilter, SessionId, SessionStatus};
use serde_json::json;

const METRICS: [&str; 10] = [
    "cpu_percent",
    "memory_mb",
    "latency_ms",
    "queue_size",
    "fps",
    "loss",
    "rows",
    "bytes",
    "retries",
    "speed",
];
const SAMPLE_COUNT: i32 = 20;
const THREAD_COUNT: usize = 2;

fn short_session(db: &Db) -> SessionId {
    let session: Session = db.create_session("MyApp", "1.0.0").unwrap();
    for step in 0..SAMPLE_COUNT {
        for (n, metric) in (0..).zip(METRICS) {
            session.log_metric(metric, f64::from(step * (n + 1)), NO_TAGS).unwrap();
        }
    }
    for event in ["startup", "import", "done"] {
        session.log_event(event, json!({"step": 7, "config": "prod"})).unwrap();
    }
    session.end().unwrap();
    session.id()
}

/// Logs `count` sessions from two threads; returns some of their ids.
fn fill(db: &Db, count: usize) -> Vec<SessionId> {
    std::thread::scope(|scope| {
        let part = || (0..count / THREAD_COUNT).map(|_| short_session(db)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..THREAD_COUNT).map(|_| scope.spawn(part)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn size_of_directory(path: &Path) -> u64 {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of_directory(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Resident memory of this process, where the system says it.
fn resident_size() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0) * 1024
}

#[allow(clippy::cast_precision_loss)]
fn sessions(c: &mut Criterion) {
    let count: usize = std::env::var("SESSIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(directory.path().join("data")).unwrap();
    fill(&db, 100);
    db.flush().unwrap();
    let before = resident_size();
    let start = Instant::now();
    let ids = fill(&db, count);
    let logged = start.elapsed();
    db.flush().unwrap();
    let flushed = start.elapsed();
    let after = resident_size();
    db.compact().unwrap();
    let size = size_of_directory(&directory.path().join("data"));
    println!(
        "{count} sessions: {:.0}/s, {:.0}/s with the last flush; {} B of disk each; resident {:+.1} MiB",
        count as f64 / logged.as_secs_f64(),
        count as f64 / flushed.as_secs_f64(),
        size / (count as u64 + 100),
        (after as f64 - before as f64) / 1048576.0,
    );

    let view = db.session(ids[count / 3]).unwrap();
    assert_eq!((view.metrics.len(), view.events.len(), view.summary.status), (200, 3, SessionStatus::Ended));
    let filter = SessionFilter::default();
    let listed = db.sessions(&filter).unwrap();
    assert_eq!(listed.len(), 100.min(count));
    assert!(listed.iter().all(|summary| summary.status == SessionStatus::Ended));

    let mut group = c.benchmark_group("ingest/session");
    let mut next = ids.iter().cycle().step_by(17);
    group.bench_function("read_back", |b| b.iter(|| db.session(black_box(*next.next().unwrap())).unwrap()));
    group.bench_function("list_newest_100", |b| b.iter(|| db.sessions(black_box(&filter)).unwrap()));
    group.bench_function("log_short_session", |b| b.iter(|| short_session(&db)));
    group.finish();
}

fn instruments(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest/instrument");
    let counter = Counter::new("c", "").unwrap();
    group.bench_function("counter_inc", |b| b.iter(|| counter.inc()));
    group.bench_function("counter_inc_by_fraction", |b| b.iter(|| counter.inc_by(black_box(0.5))));
    let histogram = Histogram::new("h", "").unwrap();
    group.bench_function("histogram_observe", |b| b.iter(|| histogram.observe(black_box(0.3))));
    group.bench_function("counter_inc_4_threads", |b| {
        b.iter_custom(|count| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..count.div_ceil(4)).for_each(|_| counter.inc()));
                }
            });
            start.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, instruments, sessions);
criterion_main!(benches);
