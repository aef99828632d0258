//! PromQL over HTTP on loopback beside Prometheus and VictoriaMetrics, and in process: one run, medians.
//!
//! Data: workload S, and 1,000 classic histograms of 12 buckets over 24 h at 1 m. Ours are settled blocks, theirs
//! came by remote write. The programs are those that `PROMETHEUS` and `VICTORIA_METRICS` name, or on the path;
//! which is not there is left out. In test mode ours alone answers, once, on a hundredth of the data. Criterion
//! cannot take turns between servers, which a shared machine needs, so this is a program of its own.

#[path = "../tests/servers/mod.rs"]
mod servers;
mod workload;

use std::path::Path;
use std::time::{Duration, Instant};

use icecore::promql::{self, EngineSource, RangeTimes, Value};
use icecore::{Batch, Db, Durability, Options, Reader, Selector, Timestamp};
use servers::{Client, Server, WriteRequest, WriteSample, WriteSeries, program, url};
use workload::{METRICS, Random, START, STEP, Workload, is_test};

const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
const BUCKET_NAME: &str = "latency_bucket";
/// Samples of a remote write request.
const REQUEST_SAMPLE_COUNT: usize = 10_000;
/// Most rounds of a case, and the time after which there are no more.
const ROUND_COUNT_MAX: usize = 200;
const CASE_TIME_MAX: Duration = Duration::from_secs(12);

/// Classic histograms: cumulative counters by path and bound, a column for each.
struct Histograms {
    tags: Vec<Vec<(String, String)>>,
    columns: Vec<Vec<f64>>,
}

impl Histograms {
    fn new(count: usize, minutes: usize) -> Histograms {
        let mut random = Random(2);
        let (mut tags, mut columns) = (Vec::new(), Vec::new());
        for path in 0..count {
            let mut below: Vec<f64> = vec![0.0; minutes];
            for bound in BOUNDS {
                let mut total = 0.0;
                for slot in &mut below {
                    total += (random.next() % 20) as f64;
                    *slot += total;
                }
                let tag = |key: &str, value: String| (key.to_owned(), value);
                tags.push(vec![
                    tag("instance", format!("10.0.0.{}:8080", path % 50)),
                    tag("job", "api".into()),
                    tag("le", bound.into()),
                    tag("path", format!("/v1/things/{path}")),
                ]);
                columns.push(below.clone());
            }
        }
        Histograms { tags, columns }
    }

    fn minutes(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }
}

/// Writes both workloads into a database and settles it.
fn fill(path: &Path, cpu: &Workload, histograms: &Histograms) {
    let db = Db::open_with(path, Options::default()).unwrap();
    cpu.ingest(&db, REQUEST_SAMPLE_COUNT, Durability::Os);
    let mut handles = Vec::new();
    for tags in &histograms.tags {
        let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        handles.push(db.series::<f64>(BUCKET_NAME, &tags).unwrap());
    }
    let mut batch = Batch::new();
    for minute in 0..histograms.minutes() {
        let time = Timestamp::from_secs(START + minute as i64 * 60);
        for (handle, column) in handles.iter().zip(&histograms.columns) {
            batch.push(handle, time, column[minute]).unwrap();
        }
        db.write(&mut batch).unwrap();
    }
    db.flush().unwrap();
    db.compact().unwrap();
    db.close().unwrap();
}

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

/// A question: as one query, or as several for a server that cannot say it in one.
struct Case {
    name: &'static str,
    query: String,
    /// For Prometheus 2.42, which refuses series that differ by dropped names only.
    by_metric: Option<fn(&str) -> String>,
    /// Seconds from the start of the data; a step of zero asks for one time.
    start: i64,
    end: i64,
    step: i64,
    target: Option<f64>,
}

impl Case {
    fn queries(&self, server: &str) -> Vec<String> {
        match self.by_metric {
            Some(by_metric) if server == "Prometheus" => METRICS.iter().map(|m| by_metric(m)).collect(),
            _ => vec![self.query.clone()],
        }
    }

    fn paths(&self, server: &str) -> Vec<String> {
        let path = |query: &String| {
            let query = url(query);
            let (start, end) = (START + self.start, START + self.end);
            match self.step {
                0 => format!("/api/v1/query?query={query}&time={end}&nocache=1"),
                step => {
                    format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}&nocache=1")
                }
            }
        };
        self.queries(server).iter().map(path).collect()
    }
}

fn cases(hours: i64) -> Vec<Case> {
    let hour = 3600;
    let of_80 = r#"max_over_time(usage_user{hostname=~"host_([0-9]|[1-7][0-9])"}[1h])"#;
    let case = |name, query: &str, times: (i64, i64, i64), target| Case {
        name,
        query: query.to_owned(),
        by_metric: None,
        start: times.0,
        end: times.1,
        step: times.2,
        target,
    };
    vec![
        case(
            "max by minute, 1 series, 1 h",
            r#"max_over_time(usage_user{hostname="host_3"}[1m])"#,
            (60, hour.min(hours * hour), 60),
            Some(0.1),
        ),
        case(
            "max by minute, 1 series, 12 h",
            r#"max_over_time(usage_user{hostname="host_3"}[1m])"#,
            (60, (12 * hour).min(hours * hour), 60),
            Some(0.2),
        ),
        case("max_over_time[1h], 80 series, 8 h", of_80, (hour, 8 * hour, hour), Some(1.5)),
        Case {
            by_metric: Some(|metric| format!("avg by (hostname) (avg_over_time({metric}[1h]))")),
            ..case(
                "mean of 10 metrics by host and hour, 12 h, all hosts",
                r#"avg by (hostname) (avg_over_time({__name__=~"usage_.*"}[1h]))"#,
                (hour, 12 * hour, hour),
                Some(15.0),
            )
        },
        Case {
            by_metric: Some(|metric| format!("sum(sum_over_time({metric}[24h]))")),
            ..case(
                "sum of everything over the range",
                r#"sum(sum_over_time({__name__=~"usage_.*"}[24h]))"#,
                (0, 24 * hour, 0),
                Some(2.0),
            )
        },
        case(
            "topk(5, rate[5m]), 1,000 series, 24 h / 1 m",
            r#"topk(5, rate(latency_bucket{le="+Inf"}[5m]))"#,
            (0, hours * hour, 60),
            None,
        ),
        case(
            "histogram_quantile(rate[5m]), 1,000 histograms, 24 h / 1 m",
            "histogram_quantile(0.9, rate(latency_bucket[5m]))",
            (0, hours * hour, 60),
            None,
        ),
        case(
            "histogram_quantile(sum by (le) (rate[5m])), 12,000 series, 24 h / 1 m",
            "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))",
            (0, hours * hour, 60),
            None,
        ),
    ]
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

fn in_process(reader: &Reader, case: &Case) -> usize {
    let source = EngineSource::new(|selector: Selector| reader.query(selector));
    let expr = promql::parse(&case.query).unwrap();
    let time = |seconds: i64| Timestamp::from_secs(START + seconds);
    let options = promql::Options::default();
    let output = if case.step == 0 {
        promql::instant(&source, &expr, &case.query, time(case.end), &options)
    } else {
        let times =
            RangeTimes { start: time(case.start), end: time(case.end), step: case.step * 1_000_000_000 };
        promql::range(&source, &expr, &case.query, times, &options)
    };
    match output.unwrap().value {
        Value::Vector(samples) => samples.len(),
        Value::Matrix(series) => series.len(),
        _ => 0,
    }
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
        servers.iter().map(|server| (server.connect(), case.paths(server.name), Vec::new())).collect();
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
