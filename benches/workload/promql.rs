//! What the benches of PromQL ask, and of what data: workload S, and 1,000 classic histograms of 12 buckets over 24 h
//! at 1 m, in settled blocks.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::path::Path;

use icecore::promql::{self, EngineSource, RangeTimes, Value};
use icecore::{Batch, Db, Durability, Options, Reader, Selector, Timestamp};

use super::workload::{METRICS, Random, START, Workload};

const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
pub(crate) const BUCKET_NAME: &str = "latency_bucket";

/// Classic histograms: cumulative counters by path and bound, a column for each.
pub(crate) struct Histograms {
    pub(crate) tags: Vec<Vec<(String, String)>>,
    pub(crate) columns: Vec<Vec<f64>>,
}

impl Histograms {
    /// `count` histograms of `minutes` samples a bucket.
    pub(crate) fn new(count: usize, minutes: usize) -> Histograms {
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

    pub(crate) fn minutes(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }
}

/// Writes both workloads into a database and settles it.
pub(crate) fn fill(path: &Path, cpu: &Workload, histograms: &Histograms) {
    let db = Db::open_with(path, Options::default()).unwrap();
    cpu.ingest(&db, 10_000, Durability::Os);
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

/// A question: as one query, or as several for a server that cannot say it in one.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) query: String,
    /// For Prometheus 2.42, which refuses series that differ by dropped names only.
    pub(crate) by_metric: Option<fn(&str) -> String>,
    /// Seconds from the start of the data; a step of zero asks for one time.
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) step: i64,
    pub(crate) target: Option<f64>,
}

impl Case {
    pub(crate) fn queries(&self, server: &str) -> Vec<String> {
        match self.by_metric {
            Some(by_metric) if server == "Prometheus" => METRICS.iter().map(|m| by_metric(m)).collect(),
            _ => vec![self.query.clone()],
        }
    }
}

/// The cases, those over all of the data over `hours`.
pub(crate) fn cases(hours: i64) -> Vec<Case> {
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
                // A second before the day is over: a window has its end and not its begin, where the first sample is.
                r#"sum(sum_over_time({__name__=~"usage_.*"}[24h]))"#,
                (0, 24 * hour - 1, 0),
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

/// Evaluates the query of a case in this process; how many series answer.
pub(crate) fn in_process(reader: &Reader, case: &Case) -> usize {
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
