//! Queries over one block in the page cache: workload S of TSBS devops cpu-only (100 hosts, 10 metrics,
//! 24 h at 10 s), or a tenth of its hosts in test mode. Targets are in `docs/benchmarks/`.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use icecore::{Column, Compare, Match, Query, SeriesKey, Timestamp};

const HOUR: i64 = 3_600;
const METRICS: [&str; 10] =
    ["guest", "guest_nice", "idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];

/// splitmix64, of which four make something close enough to a normal step.
struct Steps(u64);

impl Steps {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum()
    }
}

/// A random walk with N(0, 1) steps, clamped to 0..100, cut to whole numbers.
fn walk(seed: u64, count: usize) -> Column {
    let mut steps = Steps(seed);
    let mut value = 50.0_f64;
    let mut next = || {
        value = (value + steps.normal()).clamp(0.0, 100.0);
        value.floor()
    };
    Column::F64((0..count).map(|_| next()).collect())
}

fn workload(hosts: usize) -> Vec<(SeriesKey, Vec<i64>, Column)> {
    let times: Vec<i64> = (0..8_640).map(|n| n * 10_000_000_000).collect();
    let mut all = Vec::new();
    for host in 0..hosts {
        for (n, metric) in METRICS.iter().enumerate() {
            let tags = [
                ("hostname", format!("host_{host}")),
                ("region", format!("region-{}", host % 9)),
                ("datacenter", format!("region-{}-{}", host % 9, host % 3)),
                ("rack", format!("{}", host * 7 % 100)),
                ("os", "Ubuntu16.04LTS".to_owned()),
                ("arch", ["x64", "x86"][host % 2].to_owned()),
                ("team", ["SF", "NYC", "LON", "CHI"][host % 4].to_owned()),
                ("service", format!("{}", host % 20)),
                ("service_version", format!("{}", host % 2)),
                ("service_environment", ["test", "staging", "production"][host % 3].to_owned()),
            ];
            let key = SeriesKey::new(&format!("cpu_usage_{metric}"), tags).unwrap();
            all.push((key, times.clone(), walk((host * 10 + n) as u64, times.len())));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn hours(range: Range<i64>) -> Range<Timestamp> {
    Timestamp::from_secs(range.start * HOUR)..Timestamp::from_secs(range.end * HOUR)
}

/// The minute and the hour.
const MINUTE: Duration = Duration::from_secs(60);
const ONE_HOUR: Duration = Duration::from_secs(3_600);

fn query(c: &mut Criterion) {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let hosts = if is_test { 10 } else { 100 };
    let all = workload(hosts);
    for (state, compact) in [("fresh", false), ("settled", true)] {
        let dir = tempfile::tempdir().unwrap();
        let everything = icecore::bench::block_query(dir.path(), all.clone(), compact).unwrap();
        questions(c, state, hosts as i64, &everything);
    }
}

fn questions(c: &mut Criterion, state: &str, hosts: i64, everything: &Query) {
    let name = |name: &str| everything.clone().with("__name__", name);
    let host = |query: Query, name: &str| query.with("hostname", name);
    let some_hosts = || Match::any_of((0..8).map(|n| format!("host_{n}")));
    let some_metrics = || Match::any_of(METRICS[..5].iter().map(|metric| format!("cpu_usage_{metric}")));
    let one = host(name("cpu_usage_user"), "host_3");
    let cases: Vec<(&str, Query, i64)> = vec![
        ("1_series_1h_max_by_minute", one.clone().range(hours(9..10)).max().window(MINUTE), 60),
        ("1_series_12h_max_by_minute", one.clone().range(hours(9..21)).max().window(MINUTE), 720),
        (
            "8_hosts_5_metrics_1h_max_by_minute",
            everything
                .clone()
                .with("hostname", some_hosts())
                .with("__name__", some_metrics())
                .range(hours(9..10))
                .max()
                .window(MINUTE),
            40 * 60,
        ),
        (
            "8_hosts_10_metrics_8h_max_by_hour",
            everything.clone().with("hostname", some_hosts()).range(hours(9..17)).max().window(ONE_HOUR),
            80 * 8,
        ),
        (
            "mean_by_host_and_hour_12h",
            everything.clone().range(hours(9..21)).mean().window(ONE_HOUR).by(["__name__", "hostname"]),
            hosts * 10 * 12,
        ),
        ("last_value_of_each_series", everything.clone().latest(), hosts * 10),
        ("1_series_1h_raw", one.clone().range(hours(9..10)), 360),
        ("1_series_24h_raw", one, 8_640),
        ("sum_of_everything", everything.clone().sum().by([""; 0]), 1),
    ];
    let mut group = c.benchmark_group(format!("query/{state}"));
    for (name, query, expected) in cases {
        let count = || query.run().unwrap().series.iter().map(|series| series.times.len()).sum::<usize>();
        assert_eq!(count(), expected as usize, "{name}");
        group.bench_function(name, |b| b.iter(|| black_box(count())));
    }
    let over = name("cpu_usage_user").range(hours(9..21)).where_value(Compare::Greater, 90.0);
    group.bench_function("readings_over_90_12h", |b| b.iter(|| black_box(over.run().unwrap().series.len())));
    // A window that no page lies in: every sample is decoded.
    let scan = everything.clone().count().where_value(Compare::GreaterOrEqual, 50.0).by([""; 0]).threads(1);
    group.throughput(Throughput::Elements(hosts as u64 * 10 * 8_640));
    group.bench_function("scan_all_one_thread", |b| b.iter(|| black_box(scan.run().unwrap().series.len())));
}

criterion_group!(benches, query);
criterion_main!(benches);
