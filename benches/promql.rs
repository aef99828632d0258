//! `promql/range`: queries over columns in memory, what the evaluator itself costs, without a store below it.
//! `promql/engine`: queries over a database, those that `promql_servers` puts to other servers as well.
//!
//! Shapes after the query tables of the benchmarks of time-series databases: one series by minute, 80
//! series by hour, thousands of counters summed, classic histograms. `cargo bench --features promql
//! --bench promql`.

#[path = "workload/promql.rs"]
mod cases;
mod workload;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use criterion::{Criterion, criterion_group, criterion_main};
use icecore::promql::{self, Hints, Labels, Options, RangeTimes, SeriesStream, Source, Value};
use icecore::{Db, Result, Selector, TimeRange, Timestamp};

const SECOND: i64 = 1_000_000_000;

/// Sorted series that share one time column.
struct Columns {
    times: Vec<i64>,
    series: Vec<(Labels, Vec<f64>)>,
    found: Mutex<HashMap<String, Vec<usize>>>,
}

impl Source for Columns {
    fn select<'a>(
        &'a self,
        selector: &Selector,
        range: TimeRange,
        _: &Hints,
    ) -> Result<Box<dyn SeriesStream + 'a>> {
        // Looked up once, as an index would: the evaluator is what is measured.
        let key = format!("{selector:?}");
        let mut found = self.found.lock().unwrap();
        let matches =
            |labels: &Labels| selector.matchers.iter().all(|m| m.condition.matches(labels.get(&m.key)));
        let all = 0..self.series.len();
        let found = found
            .entry(key)
            .or_insert_with(|| all.filter(|index| matches(&self.series[*index].0)).collect::<Vec<_>>());
        let rows: Vec<_> = found.iter().map(|index| &self.series[*index]).collect();
        let from = self.times.partition_point(|t| *t < range.start.nanos());
        let to = self.times.partition_point(|t| *t < range.end.nanos());
        Ok(Box::new(Rows { times: &self.times[from..to], from, rows: rows.into_iter() }))
    }
}

struct Rows<'a> {
    times: &'a [i64],
    from: usize,
    rows: std::vec::IntoIter<&'a (Labels, Vec<f64>)>,
}

impl SeriesStream for Rows<'_> {
    fn next(&mut self, times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<Option<Labels>> {
        times.clear();
        values.clear();
        let Some((labels, column)) = self.rows.next() else { return Ok(None) };
        times.extend_from_slice(self.times);
        values.extend_from_slice(&column[self.from..self.from + self.times.len()]);
        Ok(Some(labels.clone()))
    }
}

/// `hosts` hosts of each of `names`, a sample every 10 s for `hours`.
fn columns(names: &[String], hosts: usize, hours: i64, value: impl Fn(usize, i64) -> f64) -> Columns {
    let times: Vec<i64> = (0..hours * 360).map(|n| n * 10 * SECOND).collect();
    let mut series = Vec::new();
    for name in names {
        for host in 0..hosts {
            let region = format!("r{}", host % 7);
            let tags = [("host", format!("host_{host}")), ("metric", name.clone()), ("region", region)];
            let labels = Labels::new(name, tags);
            let index = series.len();
            series.push((labels, (0..times.len()).map(|n| value(index, n as i64)).collect()));
        }
    }
    series.sort_by(|a: &(Labels, Vec<f64>), b| a.0.cmp(&b.0));
    Columns { times, series, found: Mutex::default() }
}

fn gauge(series: usize, n: i64) -> f64 {
    ((series as i64 * 31 + n * 7919) % 1009) as f64 / 10.0
}

fn counter(series: usize, n: i64) -> f64 {
    (n % 5_000) as f64 * (series % 13 + 1) as f64
}

fn histograms(count: usize) -> Columns {
    let times: Vec<i64> = (0..24 * 60).map(|n| n * 60 * SECOND).collect();
    let bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
    let mut series = Vec::new();
    for index in 0..count {
        for (place, bound) in bounds.iter().enumerate() {
            let labels =
                Labels::new("latency_bucket", [("path", format!("/{index}")), ("le", (*bound).to_owned())]);
            let value = |n: usize| (n * (place + 1) * (index % 5 + 1)) as f64;
            series.push((labels, (0..times.len()).map(value).collect()));
        }
    }
    series.sort_by(|a: &(Labels, Vec<f64>), b| a.0.cmp(&b.0));
    Columns { times, series, found: Mutex::default() }
}

struct Case {
    name: &'static str,
    query: &'static str,
    hours: i64,
    step: i64,
    series: usize,
}

fn run(source: &Columns, case: &Case) -> usize {
    let expr = promql::parse(case.query).unwrap();
    let end = *source.times.last().unwrap();
    let times = RangeTimes {
        start: Timestamp::from_nanos(end - case.hours * 3_600 * SECOND),
        end: Timestamp::from_nanos(end),
        step: case.step * SECOND,
    };
    let output = promql::range(source, &expr, case.query, times, &Options::default()).unwrap();
    match output.value {
        Value::Matrix(matrix) => matrix.len(),
        _ => 0,
    }
}

fn queries(c: &mut Criterion) {
    let names: Vec<String> = (0..10).map(|n| format!("cpu_{n}")).collect();
    let gauges = columns(&names, 100, 13, gauge);
    let counters = columns(&["requests_total".to_owned()], 1_000, 13, counter);
    let buckets = histograms(1_000);
    let mut group = c.benchmark_group("promql/range");
    group.sample_size(10);
    let cases = [
        (
            &gauges,
            Case {
                name: "max_by_minute_1_series_1h",
                query: "max_over_time(cpu_0{host=\"host_1\"}[1m])",
                hours: 1,
                step: 60,
                series: 1,
            },
        ),
        (
            &gauges,
            Case {
                name: "max_by_minute_1_series_12h",
                query: "max_over_time(cpu_0{host=\"host_1\"}[1m])",
                hours: 11,
                step: 60,
                series: 1,
            },
        ),
        (
            &gauges,
            Case {
                name: "max_1h_80_series_8h",
                query: "max_over_time({__name__=~\"cpu_[0-7]\",host=~\"host_\\\\d\"}[1h])",
                hours: 8,
                step: 3_600,
                series: 80,
            },
        ),
        (
            &gauges,
            Case {
                name: "max_1h_sliding_80_series_8h",
                query: "max_over_time({__name__=~\"cpu_[0-7]\",host=~\"host_\\\\d\"}[1h])",
                hours: 8,
                step: 60,
                series: 80,
            },
        ),
        (
            &gauges,
            Case {
                name: "mean_by_host_hour_1000_series_12h",
                query: "avg by (host) (avg_over_time({__name__=~\"cpu_.*\"}[1h]))",
                hours: 11,
                step: 3_600,
                series: 100,
            },
        ),
        (
            &counters,
            Case {
                name: "topk_rate_1000_series_12h",
                query: "topk(5, rate(requests_total[5m]))",
                hours: 12,
                step: 60,
                series: 0,
            },
        ),
        (
            &counters,
            Case {
                name: "sum_rate_1000_series_12h",
                query: "sum by (region) (rate(requests_total[5m]))",
                hours: 12,
                step: 60,
                series: 7,
            },
        ),
        (
            &buckets,
            Case {
                name: "quantile_1000_histograms_23h",
                query: "histogram_quantile(0.9, rate(latency_bucket[5m]))",
                hours: 23,
                step: 60,
                series: 1_000,
            },
        ),
    ];
    for (source, case) in &cases {
        let found = run(source, case);
        assert!(
            if case.series == 0 { found > 0 } else { found == case.series },
            "{}: {found} series",
            case.name
        );
        group.bench_function(case.name, |b| b.iter(|| black_box(run(source, case))));
    }
    group.finish();
}

fn engine(c: &mut Criterion) {
    let (hosts, ticks, count) = if workload::is_test() { (10, 360, 10) } else { (100, 8640, 1000) };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let cpu = workload::Workload::new(hosts, ticks);
    cases::fill(&path, &cpu, &cases::Histograms::new(count, ticks / 6));
    let reader = Db::open_reader(&path).unwrap();
    let mut group = c.benchmark_group("promql/engine");
    group.sample_size(10);
    for case in cases::cases(ticks as i64 / 360) {
        group.bench_function(case.name, |b| b.iter(|| black_box(cases::in_process(&reader, &case))));
    }
    group.finish();
}

criterion_group!(benches, queries, engine);
criterion_main!(benches);
