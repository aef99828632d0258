//! `icecore serve` under load, over loopback: samples, datagrams, requests and pushes a second, and what they cost the
//! server in CPU time.
//!
//! The server is the crate's own binary in a process of its own, so that its CPU time can be read apart from that of
//! the clients here. Every scenario first makes its requests, then sends them, then stops the server, opens the
//! database and counts what was kept. Targets are in `docs/benchmarks/server.md`. Without `--bench` each scenario runs
//! once, small. Arguments choose scenarios by name.

#[path = "../../tests/serve/served.rs"]
#[allow(dead_code, reason = "the tests start servers in more ways")]
mod served;

mod http;
mod push;
mod remote_write;
mod sessions;
mod statsd;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use icecore::{Aggregate, Db, Selector};
use served::Served;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let small = !arguments.iter().any(|argument| argument == "--bench");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let scenarios: [Scenario; 4] = [
        ("remote_write", remote_write::run),
        ("statsd", statsd::run),
        ("sessions", sessions::run),
        ("push", push::run),
    ];
    for (name, run) in scenarios {
        if names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str())) {
            run(small);
        }
    }
}

/// A name, and what runs, small or whole.
type Scenario = (&'static str, fn(bool));

/// A server on a new database.
struct Bench {
    directory: tempfile::TempDir,
    served: Served,
}

/// What a run cost.
struct Cost {
    elapsed: Duration,
    /// CPU time of the server.
    cpu: Duration,
    /// Of it, that of the system on its behalf.
    system: Duration,
}

impl Bench {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let served = Served::start(&directory.path().join("data"), arguments);
        Bench { directory, served }
    }

    /// Runs `work`; how long it took, and what it cost the server.
    fn measure(&self, work: impl FnOnce()) -> Cost {
        let (start, [user_before, system_before]) = (Instant::now(), self.cpu());
        work();
        let (elapsed, [user, system]) = (start.elapsed(), self.cpu());
        let system = system - system_before;
        Cost { elapsed, cpu: user - user_before + system, system }
    }

    /// CPU time of all threads of the server, those that have ended included: its own and that of the system.
    fn cpu(&self) -> [Duration; 2] {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.served.id())).unwrap_or_default();
        // The second field is the name in brackets; user and system time, in ticks of 10 ms, are the 14th and 15th.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        [11, 12].map(|index| Duration::from_millis(ticks(index) * 10))
    }

    /// The most memory that the server had, in MiB.
    fn memory_peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.served.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
    }

    /// Stops the server and opens the database.
    fn stop(mut self) -> (Db, tempfile::TempDir) {
        self.served.terminate();
        let (status, log) = self.served.wait();
        assert!(status.success(), "{log}");
        (Db::open(self.directory.path().join("data")).unwrap(), self.directory)
    }
}

impl Cost {
    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU seconds a million, and how many of them were the system's.
    fn cpu_per_million(&self, count: u64) -> String {
        let of = |time: Duration| time.as_secs_f64() / count as f64 * 1e6;
        format!("{:.3} s of CPU a million, {:.3} of them the system's", of(self.cpu), of(self.system))
    }
}

/// How many samples `selector` has.
fn count(db: &Db, selector: impl Into<Selector>) -> u64 {
    let counted = db.query(selector).aggregate(Aggregate::Count).run().unwrap();
    counted.series.iter().flat_map(|series| series.doubles()).map(|count| *count as u64).sum()
}

fn directory_size(path: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    fs::read_dir(path).unwrap().map(Result::unwrap).map(size).sum()
}
