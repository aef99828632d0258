//! The engine on the workloads of `docs/benchmarks/`: ingest, size, queries, opening.
//!
//! Workload S is TSBS devops cpu-only: 100 hosts x 10 metrics x 24 h at 10 s, integer random walks in
//! 0..=100 with N(0, 1) steps, 10 tags a host, all hosts of a tick before the next. In test mode a
//! thousandth of it runs once.

mod workload;

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use icecore::{
    Aggregate, Background, Compare, Db, Durability, Match, Options, Selector, TimeRange, Timestamp,
};
use workload::{METRICS, START, Workload};

fn directory_size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                directory_size(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}

fn open(path: &Path) -> Db {
    Db::open_with(path, Options::default()).unwrap()
}

fn ingest(c: &mut Criterion) {
    let workload = Workload::small();
    let mut group = c.benchmark_group("engine/ingest");
    group.throughput(Throughput::Elements(workload.samples())).sample_size(10);
    group.measurement_time(Duration::from_secs(15));
    let mut run = |name: &str, work: &dyn Fn(&Db)| {
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let dir = tempfile::tempdir().unwrap();
                    (open(&dir.path().join("db")), dir)
                },
                |(db, dir)| {
                    work(&db);
                    (db, dir)
                },
                BatchSize::PerIteration,
            );
        });
    };
    run("handle_os_10000", &|db| workload.ingest(db, 10_000, Durability::Os));
    run("named_os_10000", &|db| workload.ingest_named(db, 10_000));
    run("handle_sync_1000", &|db| workload.ingest(db, 1_000, Durability::Sync));
    run("handle_os_10000_flush_close", &|db| {
        workload.ingest(db, 10_000, Durability::Os);
        db.flush().unwrap();
    });
}

fn range(from_hour: i64, hours: i64) -> TimeRange {
    let start = START + from_hour * 3600;
    (Timestamp::from_secs(start)..Timestamp::from_secs(start + hours * 3600)).into()
}

fn query(c: &mut Criterion) {
    let workload = Workload::small();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Db::open_with(&path, Options { background: Background::Host, ..Options::default() }).unwrap();
    workload.ingest(&db, 10_000, Durability::Os);
    db.flush().unwrap();
    let fresh = directory_size(&path.join("blocks"));
    let started = Instant::now();
    db.compact().unwrap();
    let merged = started.elapsed();
    db.close().unwrap();
    let settled = directory_size(&path);
    let per_sample = |size: u64| size as f64 / workload.samples() as f64;
    println!(
        "workload S: {} samples; fresh blocks {:.3} B/sample; settled directory {:.3} B/sample; merge {merged:?}",
        workload.samples(),
        per_sample(fresh),
        per_sample(settled)
    );
    let db = open(&path);
    let minute = Duration::from_secs(60);
    let hour = Duration::from_secs(3600);
    let hosts = |count: usize| Match::any_of((0..count).map(|host| format!("host_{host}")));
    let any = |count: usize| Match::any_of(METRICS[..count].iter().copied());
    let mut group = c.benchmark_group("engine/query");
    let mut run = |name: &str, work: &dyn Fn() -> usize| {
        let expected = work();
        assert!(expected > 0, "{name} answers nothing");
        group.bench_function(name, |b| b.iter(|| assert_eq!(black_box(work()), expected)));
    };
    let one = || db.query("usage_user").with("hostname", "host_3");
    let points = |query: icecore::Query| -> usize {
        query.run().unwrap().series.iter().map(|series| series.times.len()).sum()
    };
    run("max_by_minute_1x1x1h", &|| points(one().range(range(0, 1)).window(minute).max()));
    run("max_by_minute_1x1x12h", &|| points(one().range(range(0, 12)).window(minute).max()));
    run("max_by_minute_8x5x1h", &|| {
        points(
            db.query(Selector::name(any(5)))
                .with("hostname", hosts(8))
                .range(range(0, 1))
                .window(minute)
                .max(),
        )
    });
    run("max_by_hour_8x10x8h", &|| {
        points(
            db.query(Selector::name(any(10)))
                .with("hostname", hosts(8))
                .range(range(0, 8))
                .window(hour)
                .max(),
        )
    });
    run("mean_by_host_hour_all_12h", &|| {
        points(
            db.query(Selector::name(any(10)))
                .range(range(0, 12))
                .window(hour)
                .mean()
                .by(["hostname", "__name__"]),
        )
    });
    run("readings_over_90_12h", &|| {
        points(db.query("usage_user").range(range(0, 12)).where_value(Compare::Greater, 90.0)).max(1)
    });
    run("last_of_every_series", &|| points(db.query(Selector::all()).latest()));
    run("raw_1h", &|| points(one().range(range(0, 1))));
    run("raw_24h", &|| points(one().range(range(0, 24))));
    run("sum_of_everything", &|| {
        points(db.query(Selector::all()).aggregate(Aggregate::Sum).by(Vec::<String>::new()))
    });
    group.throughput(Throughput::Elements(workload.samples()));
    let mut group2 = group;
    group2.sample_size(10);
    group2.bench_function("scan_everything", |b| {
        b.iter(|| {
            let mut count = 0;
            let stream = db.query(Selector::all()).stream().unwrap();
            for part in stream {
                count += part.unwrap().times.len() as u64;
            }
            assert_eq!(count, workload.samples());
        });
    });
}

criterion_group!(benches, ingest, query);
criterion_main!(benches);
