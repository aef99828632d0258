//! What time alone does not tell, each in a process of its own: memory, processor time, opening after a crash, many
//! threads, and workloads M and C from end to end. Prints a table; `cargo bench --bench engine_costs [NAME...]`.
//!
//! Processor time and memory are those of the process (Linux, proc(5)); what making the data costs is measured by
//! itself and taken away. Workloads M and C take a minute and are left out unless they are named or `HEAVY` is set.
//! In test mode everything runs once, a hundredth as large.

mod workload;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use icecore::{Batch, Db, Durability, Match, Options, Selector, Timestamp, ValueRef};
use workload::{METRICS, Random, START, STEP, Workload, is_test};

/// A measurement in a process of its own: name, whether it is left out unless asked for, what it does.
type Case = (&'static str, bool, fn(&Path));

const CASES: [Case; 8] = [
    ("ingest_and_flush", false, ingest_and_flush),
    ("open_after_close", false, open_after_close),
    ("open_after_kill", false, open_after_kill),
    ("sync_by_threads", false, sync_by_threads),
    ("one_sample_each", false, one_sample_each),
    ("scan", false, scan),
    ("workload_m", true, workload_m),
    ("workload_c", true, workload_c),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let Ok(case) = std::env::var("ENGINE_COSTS_CASE") {
        let path = std::env::var("ENGINE_COSTS_PATH").expect("the path beside the case");
        match CASES.iter().find(|(name, ..)| *name == case) {
            Some((_, _, run)) => run(Path::new(&path)),
            None => fill_and_wait(Path::new(&path)),
        }
        return;
    }
    let heavy = is_test() || std::env::var_os("HEAVY").is_some();
    for (name, is_heavy, _) in CASES {
        let named = arguments.iter().any(|argument| *argument == name);
        if named || (arguments.is_empty() && (heavy || !is_heavy)) {
            let dir = tempfile::tempdir().unwrap();
            let status = child(name, &dir.path().join("db")).status().unwrap();
            assert!(status.success(), "{name}: {status}");
        }
    }
}

/// This program again, for one case.
fn child(case: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("ENGINE_COSTS_CASE", case).env("ENGINE_COSTS_PATH", path);
    if !is_test() {
        command.arg("--bench");
    }
    command
}

fn report(what: &str, measured: f64, unit: &str, target: &str) {
    println!("| {what} | {measured:.3} {unit} | {target} |");
}

fn size(count: usize) -> usize {
    if is_test() { (count / 100).max(1) } else { count }
}

/// Processor time of this process, all threads, user and system, in seconds.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2).collect();
    // In ticks of a hundredth of a second, whatever the kernel's own are.
    fields.iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Memory of this process in MiB: now (`VmRSS`) or at most (`VmHWM`).
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

/// Workload S without its values in memory: `each` gets the time and the values of a tick.
fn each_tick(width: usize, ticks: usize, mut each: impl FnMut(Timestamp, &[f64])) {
    let mut random = Random(1);
    let mut state: Vec<f64> = (0..width).map(|_| (random.next() % 101) as f64).collect();
    let mut values = vec![0.0; width];
    for tick in 0..ticks {
        for (value, slot) in state.iter_mut().zip(&mut values) {
            *value = (*value + random.normal()).clamp(0.0, 100.0);
            *slot = value.trunc();
        }
        each(Timestamp::from_secs(START + tick as i64 * STEP), &values);
    }
}

/// Writes ticks by handle in batches of 10,000.
fn ingest(db: &Db, hosts: usize, ticks: usize) {
    let workload = Workload::new(hosts, 0);
    let handles = workload.handles(db);
    let mut batch = Batch::new();
    each_tick(handles.len(), ticks, |time, values| {
        for (series, value) in handles.iter().zip(values) {
            batch.push(series, time, *value).unwrap();
            if batch.len() == 10_000 {
                db.write(&mut batch).unwrap();
            }
        }
    });
    db.write(&mut batch).unwrap();
}

fn ingest_and_flush(path: &Path) {
    let ticks = size(8640);
    let before = processor_seconds();
    let mut sum = 0.0;
    each_tick(1000, ticks, |_, values| sum += values.iter().sum::<f64>());
    assert!(sum > 0.0);
    let making = processor_seconds() - before;
    let before = processor_seconds();
    let db = Db::open(path).unwrap();
    ingest(&db, 100, ticks);
    db.flush().unwrap();
    db.close().unwrap();
    let millions = (1000 * ticks) as f64 / 1e6;
    let seconds = (processor_seconds() - before - making).max(0.0) / millions;
    report("ingest and flush, peak memory of the process", memory("VmHWM:"), "MiB", "70");
    report("ingest and flush, processor seconds a million samples", seconds, "s", "0.08");
}

/// The median of opening `count` times.
fn opening(path: &Path, count: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        let db = Db::open(path).unwrap();
        times.push(started.elapsed());
        db.close().unwrap();
    }
    times.sort_unstable();
    times[count / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn open_after_close(path: &Path) {
    let db = Db::open(path).unwrap();
    ingest(&db, 100, size(8640));
    db.close().unwrap();
    report("open after a clean close, S", milliseconds(opening(path, 11)), "ms", "5");
}

/// The child that is killed: S lies in its log and nowhere else.
fn fill_and_wait(path: &Path) {
    let options = Options { flush_size: 1 << 30, wal_size_max: 128 << 20, ..Options::default() };
    let db = Db::open_with(path, options).unwrap();
    ingest(&db, 100, size(8640));
    println!("full");
    std::thread::sleep(Duration::from_secs(60));
    db.close().unwrap();
}

fn open_after_kill(path: &Path) {
    let mut writer = child("fill_and_wait", path).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(writer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert_eq!(line.trim(), "full");
    let started = Instant::now();
    let db = Db::open(path).unwrap();
    let took = started.elapsed();
    let counted = db.query(Selector::all()).count().by::<&str>([]).run().unwrap();
    assert_eq!(counted.series[0].doubles()[0] as usize, 1000 * size(8640));
    db.close().unwrap();
    report("open after kill -9, all of S in the log", milliseconds(took), "ms", "300");
}

fn sync_by_threads(path: &Path) {
    let db = Db::open(path).unwrap();
    let rate = |threads: usize| {
        let time = Duration::from_millis(if is_test() { 50 } else { 3000 });
        let started = Instant::now();
        let writes: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn({
                        let db = &db;
                        move || write_synced(db, thread, time)
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        writes as f64 / started.elapsed().as_secs_f64()
    };
    let (one, many) = (rate(1), rate(64));
    report("Sync writes of 10 samples, one thread", one, "/s", "");
    report("Sync writes of 10 samples, 64 threads against one", many / one, "times", "25");
    db.close().unwrap();
}

fn write_synced(db: &Db, thread: usize, time: Duration) -> usize {
    let series = db.series::<f64>("synced", &[("thread", &thread.to_string())]).unwrap();
    let (mut batch, started, mut writes) = (Batch::new(), Instant::now(), 0);
    while started.elapsed() < time {
        for sample in 0..10 {
            let millis = START * 1000 + (writes * 10 + sample) as i64;
            batch.push(&series, Timestamp::from_millis(millis), sample as f64).unwrap();
        }
        db.write_with(&mut batch, Durability::Sync).unwrap();
        writes += 1;
    }
    writes
}

fn one_sample_each(path: &Path) {
    let db = Db::open_with(path, Options { flush_size: 1 << 30, ..Options::default() }).unwrap();
    let count = size(200_000);
    let before = memory("VmRSS:");
    for number in 0..count {
        let host = format!("host_{}", number / 10);
        let tags = [("hostname", host.as_str()), ("region", "eu-west-1"), ("os", "Ubuntu16.04")];
        let series = db.series::<f64>(METRICS[number % 10], &tags).unwrap();
        series.append(Timestamp::from_secs(START), number as f64).unwrap();
    }
    db.sync().unwrap();
    let bytes = (memory("VmRSS:") - before) * f64::from(1 << 20) / count as f64;
    report("memory of an active series with one sample", bytes, "bytes", "400");
    db.close().unwrap();
}

/// Every sample decoded by one thread, freshly flushed and settled.
fn scan(path: &Path) {
    let db = Db::open_with(path, Options { compaction: false, ..Options::default() }).unwrap();
    ingest(&db, 100, size(8640));
    db.flush().unwrap();
    for (state, target) in [("freshly flushed", "450"), ("settled", "280")] {
        let mut best = f64::INFINITY;
        for _ in 0..if is_test() { 1 } else { 15 } {
            let started = Instant::now();
            let count: usize =
                db.query(Selector::all()).stream().unwrap().map(|piece| piece.unwrap().times.len()).sum();
            best = best.min(started.elapsed().as_secs_f64() / count as f64);
        }
        report(&format!("every sample streamed by one thread, {state}"), 1e-6 / best, "M/s", target);
        db.compact().unwrap();
    }
    db.close().unwrap();
}

fn workload_m(path: &Path) {
    let (hosts, ticks) = (size(1000), 4320);
    let before = processor_seconds();
    let mut sum = 0.0;
    let started = Instant::now();
    each_tick(hosts * 10, ticks, |_, values| sum += values.iter().sum::<f64>());
    assert!(sum > 0.0);
    let making = (started.elapsed().as_secs_f64(), processor_seconds() - before);
    let db = Db::open(path).unwrap();
    let started = Instant::now();
    ingest(&db, hosts, ticks);
    let seconds = started.elapsed().as_secs_f64() - making.0;
    report("workload M, ingest by handle", (hosts * 10 * ticks) as f64 / seconds / 1e6, "M samples/s", "8");
    db.close().unwrap();
    report("workload M, peak memory of the process", memory("VmHWM:"), "MiB", "");
}

fn workload_c(path: &Path) {
    let hosts = size(100_000);
    let workload = Workload::new(hosts, 0);
    let before = memory("VmRSS:");
    let db = Db::open(path).unwrap();
    let mut batch = Batch::new();
    let mut first = Duration::ZERO;
    for tick in 0..5 {
        let started = Instant::now();
        let time = Timestamp::from_secs(START + tick * 60);
        for (host, tags) in workload.tags.iter().enumerate() {
            let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            for (index, metric) in METRICS.iter().enumerate() {
                let value = ((host * 31 + index * 7 + tick as usize) % 101) as f64;
                batch.push_named(metric, &tags, time, ValueRef::F64(value)).unwrap();
                if batch.len() >= 10_000 {
                    db.write(&mut batch).unwrap();
                }
            }
        }
        db.write(&mut batch).unwrap();
        if tick == 0 {
            first = started.elapsed();
        }
    }
    let peak = memory("VmHWM:") - before;
    report("workload C, its 1 M new series", first.as_secs_f64(), "s", "3");
    db.flush().unwrap();
    db.compact().unwrap();
    db.close().unwrap();
    report("workload C, memory while it is written", peak, "MiB", "600");
    report("workload C, memory with flush and merge", memory("VmHWM:") - before, "MiB", "600");
    let settled = directory_size(path) as f64 / (hosts * 10) as f64;
    report("workload C, settled, a series", settled, "bytes", "60");
    report("workload C, open again", milliseconds(opening(path, 3)) / 1e3, "s", "1");
    let db = Db::open(path).unwrap();
    let look_up = |condition: fn() -> Match| {
        let mut times = Vec::new();
        for _ in 0..21 {
            let started = Instant::now();
            let found = db.query("usage_user").with("hostname", condition()).series().unwrap();
            times.push(started.elapsed());
            assert!(!found.is_empty());
        }
        times.sort_unstable();
        milliseconds(times[10])
    };
    report("workload C, tag look-up, equality", look_up(|| "host_77".into()) * 1e3, "µs", "100");
    report(
        "workload C, tag look-up, regular expression",
        look_up(|| Match::regex("host_.*77").unwrap()),
        "ms",
        "3",
    );
    db.close().unwrap();
}

fn directory_size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let size = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => directory_size(&entry.path()),
        metadata => metadata.len(),
    };
    entries.map(size).sum()
}
