//! PromQL over HTTP on loopback beside Prometheus and VictoriaMetrics, and in process: one run, medians.
//!
//! Data: workload S, and 1,000 classic histograms of 12 buckets over 24 h at 1 m. Ours are settled blocks, theirs
//! came by remote write. The programs are those that `PROMETHEUS` and `VICTORIA_METRICS` name, or on the path;
//! which is not there is left out. In test mode ours alone answers, once, on a hundredth of the data. Criterion
//! cannot take turns between servers, which a shared machine needs, so this is a program of its own.

#[path = "workload/promql.rs"]
mod cases;
#[path = "../tests/servers/mod.rs"]
mod servers;
mod workload;

use std::path::Path;
use std::time::{Duration, Instant};

use cases::{BUCKET_NAME, Case, Histograms, cases, fill, in_process};
use icecore::{Db, Reader};
use servers::{Client, Server, WriteRequest, WriteSample, WriteSeries, program, url};
use workload::{METRICS, START, STEP, Workload, is_test};

/// Samples of a remote write request.
const REQUEST_SAMPLE_COUNT: usize = 10_000;
/// Most rounds of a case, and the time after which there are no more.
const ROUND_COUNT_MAX: usize = 200;
const CASE_TIME_MAX: Duration = Duration::from_secs(12);

/// Sends both workloads by remote write, in order of time.
fn send(client: &mut Client, cpu: &Workload, histograms: &Histograms) {
    let mut cpu_series: Vec<WriteSeries> = Vec::new();
    for tags in &cpu.tags {
        cpu_series.extend(METRICS.map(|metric| WriteSeries::new(metric, tags)));
    }
    let buckets: Vec<WriteSeries> =
        histograms.tags.iter().map(|tags| WriteSeries::new(BUCKET_NAME, tags)).collect();
    let mut send = |series: &[WriteSeries], samples: &dyn Fn(usize) -> Vec<WriteSample>| {
        let per_series = samples(0).len().max(1);
        for (n, part) in series.chunks(REQUEST_SAMPLE_COUNT.div_ceil(per_series)).enumerate() {
            let first = n * REQUEST_SAMPLE_COUNT.div_ceil(per_series);
            let mut request = WriteRequest { series: part.to_vec() };
            for (index, series) in request.series.iter_mut().enumerate() {
                series.samples = samples(first + index);
            }
            client.write(&request);
        }
    };
    let minutes = histograms.minutes().max(cpu.ticks.div_ceil(6));
    // Ten minutes of all series at a time: each series is in order, and nothing is out of the head's window.
    for from in (0..minutes).step_by(10) {
        let ticks = (from * 6).min(cpu.ticks)..((from + 10) * 6).min(cpu.ticks);
        let sample = |series: usize, tick: usize| WriteSample {
            value: cpu.tick_values(tick)[series],
            time: (START + tick as i64 * STEP) * 1000,
        };
        send(&cpu_series, &|series| ticks.clone().map(|tick| sample(series, tick)).collect());
        let minutes = from.min(histograms.minutes())..(from + 10).min(histograms.minutes());
        let sample = |series: usize, minute: usize| WriteSample {
            value: histograms.columns[series][minute],
            time: (START + minute as i64 * 60) * 1000,
        };
        send(&buckets, &|series| minutes.clone().map(|minute| sample(series, minute)).collect());
    }
}

/// The requests by which a server is asked.
fn paths(case: &Case, server: &str) -> Vec<String> {
    let path = |query: String| {
        let query = url(&query);
        let (start, end) = (START + case.start, START + case.end);
        match case.step {
            0 => format!("/api/v1/query?query={query}&time={end}&nocache=1"),
            step => {
                format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}&nocache=1")
            }
        }
    };
    case.queries(server).into_iter().map(path).collect()
}

/// Asks a server all queries of a case.
fn ask(client: &mut Client, paths: &[String]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for path in paths {
        let (status, body) = client.get(path);
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body[..body.len().min(500)]));
        bodies.push(body);
    }
    bodies
}

fn series_count(bodies: &[Vec<u8>]) -> usize {
    bodies.iter().map(|body| String::from_utf8_lossy(body).matches("\"metric\":").count()).sum()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn main() {
    let (hosts, ticks, histograms) = if is_test() { (10, 360, 10) } else { (100, 8640, 1000) };
    let cpu = Workload::new(hosts, ticks);
    let histograms = Histograms::new(histograms, ticks / 6);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    fill(&path, &cpu, &histograms);
    let mut servers = vec![Server::icecore(Path::new(env!("CARGO_BIN_EXE_icecore")), &path)];
    if !is_test() {
        let prometheus = program("PROMETHEUS", "prometheus").map(|path| Server::prometheus(&path));
        let others = prometheus.into_iter().chain(
            program("VICTORIA_METRICS", "victoria-metrics").map(|path| Server::victoria_metrics(&path)),
        );
        for server in others {
            let took = timed(|| send(&mut server.connect(), &cpu, &histograms));
            println!("{} took the data in {took:.1?}", server.name);
            servers.push(server);
        }
        // Prometheus cuts blocks from its head once a minute.
        std::thread::sleep(Duration::from_secs(if servers.len() > 1 { 100 } else { 0 }));
    }
    let reader = Db::open_reader(&path).unwrap();
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let names: Vec<&str> = servers.iter().map(|server| server.name).collect();
    println!("| p50 in ms | target | in process | {} | memory, MiB |", names.join(" | "));
    println!("|---|---:|---:|{}---:|", "---:|".repeat(names.len()));
    for case in cases(ticks as i64 / 360).iter().filter(|case| case.name.contains(&only)) {
        run(case, &servers, &reader);
    }
}

/// Asks all in turns and prints a row.
fn run(case: &Case, servers: &[Server], reader: &Reader) {
    let mut clients: Vec<_> =
        servers.iter().map(|server| (server.connect(), paths(case, server.name), Vec::new())).collect();
    let ours = &servers[0];
    let expected = in_process(reader, case);
    assert!(expected > 0, "{} answers nothing", case.name);
    let (before, _) = ours.memory();
    ours.forget_memory_peak();
    for (server, (client, paths, _)) in servers.iter().zip(&mut clients) {
        let series = series_count(&ask(client, paths));
        if series != expected && case.by_metric.is_none() {
            println!("{}: {series} series of {expected} for {}", server.name, case.name);
        }
    }
    let memory = ours.memory().1.saturating_sub(before) as f64 / f64::from(1 << 20);
    let mut own = Vec::new();
    let started = Instant::now();
    let round_count = if is_test() { 1 } else { ROUND_COUNT_MAX };
    while own.len() < round_count && (own.len() < 3 || started.elapsed() < CASE_TIME_MAX) {
        own.push(timed(|| assert_eq!(in_process(reader, case), expected)));
        for (client, paths, times) in &mut clients {
            times.push(timed(|| drop(ask(client, paths))));
        }
        if is_test() {
            break;
        }
    }
    let target = case.target.map_or("4x".to_owned(), |target| target.to_string());
    let over_http: Vec<String> =
        clients.into_iter().map(|(_, _, times)| format!("{:.3}", median(times))).collect();
    println!("| {} | {target} | {:.3} | {} | {memory:.1} |", case.name, median(own), over_http.join(" | "));
}
