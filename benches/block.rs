//! One block in the page cache: opening, selecting, reading. `BLOCK_HOSTS=100000` makes it workload C (1 M
//! series of 11 tags, 5 samples each); by default 1,000 series of a day at 10 s, in test mode 100.
//! Bytes a series and a sample are printed.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use icecore::bench::block::{Block, write_block};
use icecore::{Column, Match, ReadMode, Selector, SeriesKey, ValueType};

const METRICS: [&str; 10] =
    ["guest", "guest_nice", "idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"];
const REGIONS: [&str; 9] = [
    "ap-northeast-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "eu-central-1",
    "eu-west-1",
    "sa-east-1",
    "us-east-1",
    "us-west-1",
    "us-west-2",
];
const OS: [&str; 3] = ["Ubuntu15.10", "Ubuntu16.04LTS", "Ubuntu16.10"];

/// splitmix64.
fn mix(seed: usize) -> u64 {
    let z = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// TSBS devops cpu-only: ten tags a host, drawn at random, and the metric name.
fn keys(host_count: usize) -> Vec<SeriesKey> {
    let mut keys = Vec::new();
    for host in 0..host_count {
        let below = |nth: usize, bound: u64| (mix(host * 16 + nth) % bound) as usize;
        let region = REGIONS[below(0, 9)];
        let tags = [
            ("hostname", format!("host_{host}")),
            ("region", region.to_owned()),
            ("datacenter", format!("{region}{}", ["a", "b", "c"][below(1, 3)])),
            ("rack", below(2, 100).to_string()),
            ("os", OS[below(3, 3)].to_owned()),
            ("arch", ["x64", "x86"][below(4, 2)].to_owned()),
            ("team", ["CHI", "LON", "NYC", "SF"][below(5, 4)].to_owned()),
            ("service", below(6, 20).to_string()),
            ("service_version", below(7, 2).to_string()),
            ("service_environment", ["production", "staging", "test"][below(8, 3)].to_owned()),
        ];
        for metric in METRICS {
            keys.push(SeriesKey::new(&format!("cpu_usage_{metric}"), tags.clone()).unwrap());
        }
    }
    keys.sort_unstable();
    keys
}

/// A random walk of whole numbers in 0..=100.
fn walk(seed: usize, count: usize) -> Column {
    let mut value = mix(seed) % 101;
    let step = |index: usize, value: u64| match mix(seed * 9973 + index) % 4 {
        0 => value.saturating_sub(1),
        1 => (value + 1).min(100),
        _ => value,
    };
    let mut next = |index: usize| {
        value = step(index, value);
        value as f64
    };
    Column::F64((0..count).map(&mut next).collect())
}

struct Workload {
    _dir: tempfile::TempDir,
    path: PathBuf,
    host_count: usize,
    series_count: usize,
    sample_count: usize,
    times: Vec<i64>,
}

fn workload() -> Workload {
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let hosts = std::env::var("BLOCK_HOSTS").ok().and_then(|hosts| hosts.parse().ok());
    let host_count = hosts.unwrap_or(if is_test { 10 } else { 100 });
    // Workload C has 5 samples a series, 60 s apart; workload S a day at 10 s.
    let (sample_count, step) = if host_count >= 10_000 { (5, 60) } else { (8_640, 10) };
    let times: Vec<i64> = (0..sample_count as i64).map(|n| n * step * 1_000_000_000).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("block");
    let keys = keys(host_count);
    let series_count = keys.len();
    let series = keys.into_iter().enumerate().map(|(n, key)| (key, times.clone(), walk(n, sample_count)));
    let size = write_block(&path, series, true).unwrap() as f64;
    let samples = (series_count * sample_count) as f64;
    println!(
        "{series_count} series: {:.1} bytes a series, {:.4} a sample",
        size / series_count as f64,
        size / samples
    );
    Workload { _dir: dir, path, host_count, series_count, sample_count, times }
}

fn bench_open(criterion: &mut Criterion, workload: &Workload) {
    let mut group = criterion.benchmark_group("block/open");
    group.bench_function("pread", |bencher| {
        bencher.iter(|| Block::open(&workload.path, ReadMode::Pread).unwrap());
    });
    group.bench_function("open_and_first_select", |bencher| {
        let selector = Selector::all().with("hostname", "host_7");
        bencher.iter(|| Block::open(&workload.path, ReadMode::Pread).unwrap().select(&selector).unwrap());
    });
    group.finish();
}

fn bench_select(criterion: &mut Criterion, workload: &Workload, block: &Block) {
    let regex = |pattern: &str| Match::regex(pattern).unwrap();
    let with = |key: &str, condition: Match| Selector::name("cpu_usage_user").with(key, condition);
    let is_like = |host: &usize, what: fn(&str) -> bool| what(&host.to_string());
    let hosts_like =
        |what: fn(&str) -> bool| (0..workload.host_count).filter(|host| is_like(host, what)).count();
    let cases = [
        ("equal", with("hostname", "host_7".into()), Some(1)),
        ("in_3", with("hostname", Match::any_of(["host_1", "host_2", "host_8"])), Some(3)),
        ("regex_prefix", with("hostname", regex("host_1.*")), Some(hosts_like(|host| host.starts_with('1')))),
        ("regex_suffix", with("hostname", regex("host_.*7")), Some(hosts_like(|host| host.ends_with('7')))),
        ("regex_alternatives", with("hostname", regex("host_1|host_3|host_9")), Some(3)),
        ("regex_few_values", with("region", regex("us-.*")), None),
        ("not_equal", with("hostname", Match::not_equal("host_7")), Some(workload.host_count - 1)),
        ("three_tags", with("os", OS[0].into()).with("team", "SF").with("arch", "x64"), None),
        ("name", Selector::name("cpu_usage_user"), Some(workload.host_count)),
    ];
    let mut group = criterion.benchmark_group("block/select");
    for (name, selector, expected) in cases {
        let found = block.select(&selector).unwrap().len();
        assert!(expected.is_none_or(|expected| expected == found), "{name}: {found} series");
        group.bench_function(name, |bencher| bencher.iter(|| block.select(black_box(&selector)).unwrap()));
    }
    group.finish();
}

fn bench_read(criterion: &mut Criterion, workload: &Workload) {
    let mut group = criterion.benchmark_group("block/point_read");
    let selector = Selector::name("cpu_usage_user").with("hostname", "host_7");
    let hour = (workload.times[workload.sample_count / 2], 3_600_000_000_000);
    for (name, mode) in [("pread", ReadMode::Pread), ("map", ReadMode::Map)] {
        let block = Block::open(&workload.path, mode).unwrap();
        let (mut times, mut values) = (Vec::new(), Column::new(ValueType::F64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                times.clear();
                values.clear();
                for ordinal in block.select(&selector).unwrap() {
                    black_box(block.key(ordinal).unwrap());
                    block.read(ordinal, (hour.0, hour.0 + hour.1), &mut times, &mut values).unwrap();
                }
                assert!(times.len() >= 360.min(workload.sample_count) && times.len() == values.len());
            });
        });
    }
    group.finish();
}

fn bench_directory(criterion: &mut Criterion, workload: &Workload, block: &Block) {
    let mut group = criterion.benchmark_group("block/directory");
    group.throughput(Throughput::Elements(workload.series_count as u64));
    let all = (workload.series_count * workload.sample_count) as u64;
    group.bench_function("sum_of_everything", |bencher| {
        bencher.iter(|| assert_eq!(block.sum().unwrap().0, all));
    });
    group.bench_function("last_values", |bencher| bencher.iter(|| block.last_values().unwrap()));
    group.finish();
}

fn block(criterion: &mut Criterion) {
    let workload = workload();
    let block = Block::open(&workload.path, ReadMode::Pread).unwrap();
    bench_open(criterion, &workload);
    bench_select(criterion, &workload, &block);
    bench_read(criterion, &workload);
    bench_directory(criterion, &workload, &block);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = block
}
criterion_main!(benches);
