//! Peak memory against `memory_size_max`, by an allocator that counts. A binary of its own, with one test, so that
//! nothing else allocates meanwhile.
//!
//! Many series of few samples are the worst case: their keys, slots and index entries outweigh their samples.
//! `SLOW_TESTS=1` takes the full workload C: a million series with eleven tags, five samples each.

#![allow(unsafe_code)] // An allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use icecore::{Background, Batch, Db, Options, Selector, Timestamp, ValueRef};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: everything is handed to the system's allocator as it came; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise for `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise for `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;
/// What is not counted: buffers of the log and of writers, the stacks of allocations in flight, this test's own batch.
const UNCOUNTED: usize = 8 * MIB;
/// Metrics of one host.
const METRICS: usize = 10;

struct Workload {
    hosts: usize,
    memory_size_max: usize,
    flush_size: usize,
}

impl Workload {
    fn options(&self) -> Options {
        Options {
            background: Background::Threads,
            memory_size_max: self.memory_size_max,
            flush_size: self.flush_size,
            cache_size: self.memory_size_max / 16,
            // Merges are measured alone.
            compaction: false,
            ..Options::default()
        }
    }

    fn ingest(&self, db: &Db) {
        let metrics: Vec<String> = (0..METRICS).map(|metric| format!("usage_{metric}")).collect();
        let mut batch = Batch::new();
        for round in 0..5 {
            for host in 0..self.hosts {
                let (name, rack) = (format!("host_{host}"), (host % 100).to_string());
                let tags = [
                    ("arch", ["x64", "x86"][host % 2]),
                    ("datacenter", ["eu-west-1a", "us-east-1b", "ap-south-1c"][host % 3]),
                    ("hostname", name.as_str()),
                    ("os", ["Ubuntu16.10", "Ubuntu15.10"][host / 2 % 2]),
                    ("rack", rack.as_str()),
                    ("region", ["eu-west-1", "us-east-1", "ap-south-1"][host % 3]),
                    ("service", ["6", "11", "18"][host / 7 % 3]),
                    ("service_environment", ["production", "staging", "test"][host / 3 % 3]),
                    ("service_version", ["0", "1"][host / 5 % 2]),
                    ("team", ["SF", "NYC", "LON", "CHI"][host % 4]),
                ];
                let time = Timestamp::from_secs(1_700_000_000 + round * 60);
                for metric in &metrics {
                    let value = ((host * 31 + round as usize * 7) % 100) as f64;
                    batch.push_named(metric, &tags, time, ValueRef::F64(value)).unwrap();
                }
                if batch.len() >= 10_000 {
                    db.write(&mut batch).unwrap();
                }
            }
        }
        db.write(&mut batch).unwrap();
    }
}

/// Runs `work` and holds its peak, above what was live before, to the cap.
fn measure<T>(name: &str, cap: usize, work: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let result = work();
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    println!("{name}: peak {:.1} MiB of {} MiB, {:?}", peak as f64 / MIB as f64, cap / MIB, start.elapsed());
    assert!(peak <= cap + UNCOUNTED, "{name}: {peak} bytes live, memory_size_max is {cap}");
    result
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn peak_memory_stays_under_the_cap() {
    let slow = std::env::var_os("SLOW_TESTS").is_some();
    let workload = if slow {
        Workload { hosts: 100_000, memory_size_max: 600 * MIB, flush_size: 24 * MIB }
    } else {
        Workload { hosts: 4_000, memory_size_max: 32 * MIB, flush_size: 6 * MIB }
    };
    let cap = workload.memory_size_max;
    let series = (workload.hosts * METRICS) as u64;
    let dir = tempfile::tempdir().unwrap();
    let (root, crashed) = (dir.path().join("db"), dir.path().join("crashed"));

    measure("ingest", cap, || {
        let db = Db::open_with(&root, workload.options()).unwrap();
        workload.ingest(&db);
        db.sync().unwrap();
        // As a death of the process leaves it: with samples in the log alone.
        copy(&root, &crashed);
        db.close().unwrap();
    });
    let db = measure("replay", cap, || Db::open_with(&crashed, workload.options()).unwrap());
    measure("compaction", cap, || {
        db.flush().unwrap();
        db.compact().unwrap();
    });
    measure("query of everything", cap, || {
        let mut samples = 0;
        for piece in db.query(Selector::all()).stream().unwrap() {
            samples += piece.unwrap().times.len() as u64;
        }
        assert_eq!(samples, series * 5);
    });
    let stats = db.stats();
    println!("{:.1} bytes a series settled", stats.disk_size as f64 / series as f64);
}
