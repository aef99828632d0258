//! Short sessions, the normal case: create, 10 metrics of 20 samples each, 3 events, end, call by call; then
//! flushed, compacted, read back and listed. `SESSIONS` says how many are stored first (2,000; 100,000 for numbers
//! worth keeping). Targets are in `docs/benchmarks/`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicIsize, Ordering};
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

/// Resident memory of this process, where the system says it.
fn resident_size() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0) * 1024
}

/// CPU time of this process, in seconds, where the system says it (in hundredths).
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Counts what is allocated and not freed.
struct Counting;

static LIVE_SIZE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is handed to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_SIZE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE_SIZE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as for this function.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE_SIZE.fetch_add(size as isize - layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as for this function.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Prints what a phase took for each of `count` sessions, and what is in memory after it.
struct Phases {
    count: usize,
    start: (Instant, f64),
    resident: u64,
    live: isize,
}

impl Phases {
    fn new(count: usize) -> Self {
        let live = LIVE_SIZE.load(Ordering::Relaxed);
        Phases { count, start: (Instant::now(), cpu_seconds()), resident: resident_size(), live }
    }

    #[allow(clippy::cast_precision_loss)]
    fn end(&mut self, what: &str) {
        let (elapsed, cpu) = (self.start.0.elapsed().as_secs_f64(), cpu_seconds() - self.start.1);
        let count = self.count as f64;
        println!(
            "{what:8} {:8.0} sessions/s, {:6.1} \u{b5}s CPU each; resident {:+6.1} MiB, live {:+6.1} MiB",
            count / elapsed,
            cpu / count * 1e6,
            (resident_size() as f64 - self.resident as f64) / 1048576.0,
            (LIVE_SIZE.load(Ordering::Relaxed) - self.live) as f64 / 1048576.0,
        );
        self.start = (Instant::now(), cpu_seconds());
    }
}

#[allow(clippy::cast_precision_loss)]
fn sessions(c: &mut Criterion) {
    let count: usize = std::env::var("SESSIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(directory.path().join("data")).unwrap();
    fill(&db, 100);
    db.flush().unwrap();
    let mut phases = Phases::new(count);
    let ids = fill(&db, count);
    phases.end("log");
    db.flush().unwrap();
    phases.end("flush");
    db.compact().unwrap();
    phases.end("compact");
    println!("{count} sessions: {} B of blocks each", db.stats().block_size / (count as u64 + 100));

    let view = db.session(ids[count / 3]).unwrap();
    assert_eq!((view.metrics.len(), view.events.len(), view.summary.status), (200, 3, SessionStatus::Ended));
    let filter = SessionFilter::default();
    let listed = db.sessions(&filter).unwrap();
    assert_eq!(listed.len(), 100.min(count));
    assert!(listed.iter().all(|summary| summary.status == SessionStatus::Ended));

    let calls = |what: &str, call_count: usize, call: &mut dyn FnMut(usize)| {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        (0..call_count).for_each(call);
        let micros = |seconds: f64| seconds / call_count as f64 * 1e6;
        let (elapsed, cpu) = (micros(start.elapsed().as_secs_f64()), micros(cpu_seconds() - cpu));
        println!("{what:12} {elapsed:8.0} \u{b5}s, {cpu:8.0} \u{b5}s CPU a call");
    };
    let any = |n: usize| ids[n.wrapping_mul(7_919) % ids.len()];
    calls("read any", 2_000, &mut |n| drop(black_box(db.session(any(n)).unwrap())));
    calls("list 100", 300, &mut |_| drop(black_box(db.sessions(&filter).unwrap())));

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
