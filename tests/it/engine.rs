//! The engine as a host uses it, on the simulated disk: write, read, flush, merge, crash, open again.

use std::path::Path;
use std::time::Duration;

use icecore::{
    Background, Batch, Column, Db, Durability, Env, ErrorKind, Match, Options, QueryResult, Selector,
    TimeRange, Timestamp, ValueRef,
};

const ROOT: &str = "/data/db";

fn options(env: &Env) -> Options {
    Options { env: env.clone(), background: Background::Host, sync_interval: None, ..Options::default() }
}

fn open(env: &Env) -> Db {
    Db::open_with(ROOT, options(env)).unwrap()
}

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn raw(db: &Db, selector: Selector) -> QueryResult {
    db.query(selector).run().unwrap()
}

/// Times and values of the only series of an answer.
fn single(result: QueryResult) -> (Vec<i64>, Column) {
    assert_eq!(result.series.len(), 1, "{result:?}");
    let series = result.series.into_iter().next().unwrap();
    (series.times.iter().map(|time| time.nanos()).collect(), series.values)
}

#[test]
fn what_goes_in_comes_out_from_head_and_blocks_and_after_reopening() {
    let env = Env::simulated(1);
    let db = open(&env);
    let cpu = db.series::<f64>("cpu", &[("host", "a")]).unwrap();
    let count = db.series::<i64>("count", &[]).unwrap();
    let log = db.series::<Vec<u8>>("log", &[("host", "a")]).unwrap();
    let mut batch = Batch::new();
    for n in 0..5000 {
        batch.push(&cpu, at(n * 10), f64::from_bits((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))).unwrap();
        batch.push(&count, at(n * 10), n - 2500).unwrap();
        if n % 10 == 0 {
            batch.push(&log, at(n * 10), format!("event {n}").into_bytes()).unwrap();
        }
    }
    db.write(&mut batch).unwrap();
    assert!(batch.is_empty());
    drop(batch);

    let ask = |db: &Db| {
        ["cpu", "count", "log"].map(|name| {
            let (times, values) = single(raw(db, Selector::name(name)));
            // NaNs are compared by their bits.
            let values = match values {
                Column::F64(values) => {
                    format!("{:?}", values.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
                }
                other => format!("{other:?}"),
            };
            (times, values)
        })
    };
    let head = ask(&db);
    assert_eq!(head[0].0, (0..5000).map(|n| n * 10).collect::<Vec<_>>());
    db.flush().unwrap();
    assert_eq!(db.stats().head_samples, 0);
    assert_eq!(ask(&db), head, "after flush");
    db.compact().unwrap();
    assert_eq!(ask(&db), head, "after compaction");
    db.close().unwrap();
    let db = open(&env);
    assert!(db.recovery().clean);
    assert_eq!(ask(&db), head, "after reopening");
}

#[test]
fn the_later_commit_wins_wherever_it_lies() {
    let env = Env::simulated(2);
    let db = open(&env);
    for round in 0..4 {
        let mut batch = Batch::new();
        for n in 0..300 {
            if n % (round + 1) == 0 {
                batch.push_named("m", &[], at(n), ValueRef::I64(round)).unwrap();
                batch.push_named("m", &[], at(n), ValueRef::I64(round * 10)).unwrap();
            }
        }
        db.write(&mut batch).unwrap();
        match round {
            0 | 1 => db.flush().unwrap(),
            _ => {}
        }
    }
    let expected: Vec<i64> =
        (0..300).map(|n| (0..4).filter(|r| n % (r + 1) == 0).max().unwrap() * 10).collect();
    let check = |db: &Db| assert_eq!(single(raw(db, Selector::name("m"))).1, Column::I64(expected.clone()));
    check(&db);
    db.flush().unwrap();
    check(&db);
    db.compact().unwrap();
    assert_eq!(db.stats().blocks, 1);
    check(&db);
}

#[test]
fn deletes_take_what_was_before_and_leave_what_comes_after() {
    let env = Env::simulated(3);
    let db = open(&env);
    let write = |times: std::ops::Range<i64>, value: f64| {
        let mut batch = Batch::new();
        for time in times {
            batch.push_named("m", &[("k", "v")], at(time), ValueRef::F64(value)).unwrap();
        }
        db.write(&mut batch).unwrap();
    };
    write(0..100, 1.0);
    db.flush().unwrap();
    write(100..200, 2.0);
    let range = TimeRange { start: at(50), end: at(150) };
    db.delete(&Selector::name("m").with("k", Match::regex("v.*").unwrap()), range).unwrap();
    write(60..65, 3.0);
    let expected: Vec<i64> = (0..50).chain(60..65).chain(150..200).collect();
    let check = |db: &Db| assert_eq!(single(raw(db, Selector::name("m"))).0, expected);
    check(&db);
    db.flush().unwrap();
    check(&db);
    drop(db);
    let db = open(&env);
    check(&db);
    db.compact().unwrap();
    check(&db);
    assert_eq!(db.stats().tombstones, 0);
    db.close().unwrap();
    check(&open(&env));
}

#[test]
fn a_buffered_append_is_visible_at_once_and_kept_by_sync() {
    let env = Env::simulated(4);
    let db = open(&env);
    let series = db.series::<f64>("m", &[]).unwrap();
    for n in 0..1000 {
        series.append(at(n), n as f64).unwrap();
    }
    assert_eq!(single(raw(&db, Selector::name("m"))).0.len(), 1000);
    db.sync().unwrap();
    assert_eq!(db.stats().durable_lsn, db.stats().visible_lsn);
}

#[test]
fn a_second_writer_is_told_who_holds_the_database() {
    let env = Env::simulated(5);
    let db = open(&env);
    let error = Db::open_with(ROOT, options(&env)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("process"), "{error}");
    let series = db.series::<f64>("m", &[]).unwrap();
    db.close().unwrap();
    assert_eq!(series.append(at(1), 1.0).unwrap_err().kind(), ErrorKind::Closed);
    open(&env);
}

#[test]
fn a_directory_that_is_no_database_is_left_alone() {
    let env = Env::simulated(6);
    env.fs.create_dir_all(Path::new(ROOT)).unwrap();
    env.fs.create(&Path::new(ROOT).join("letter.txt")).unwrap();
    let error = Db::open_with(ROOT, options(&env)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("letter.txt"), "{error}");
    assert_eq!(env.fs.list(Path::new(ROOT)).unwrap().len(), 1);
    let absent = Options { create: false, ..options(&env) };
    assert_eq!(Db::open_with("/none", absent).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn wrong_input_is_refused_and_changes_nothing() {
    let env = Env::simulated(7);
    let db = Db::open_with(ROOT, Options { series_count_max: 2, ..options(&env) }).unwrap();
    let kind = |result: icecore::Result<_>| result.unwrap_err().kind();
    let series = db.series::<f64>("a", &[]).unwrap();
    assert_eq!(kind(db.series::<i64>("a", &[]).map(drop)), ErrorKind::InvalidInput);
    assert_eq!(kind(series.append(Timestamp::MAX, 1.0)), ErrorKind::InvalidInput);
    let mut batch = Batch::new();
    assert_eq!(kind(batch.push_named("", &[], at(1), ValueRef::F64(1.0))), ErrorKind::InvalidInput);
    assert_eq!(
        kind(batch.push_named("m", &[("k", "1"), ("k", "2")], at(1), ValueRef::F64(1.0))),
        ErrorKind::InvalidInput
    );
    assert!(batch.is_empty());
    batch.push_named("a", &[], at(1), ValueRef::F64(1.0)).unwrap();
    batch.push_named("b", &[], at(1), ValueRef::F64(1.0)).unwrap();
    batch.push_named("c", &[], at(1), ValueRef::F64(1.0)).unwrap();
    assert_eq!(kind(db.write(&mut batch).map(drop)), ErrorKind::LimitExceeded);
    assert_eq!(raw(&db, Selector::all()).series.len(), 0);
}

#[test]
fn a_snapshot_is_a_database_of_its_own() {
    let env = Env::simulated(8);
    let db = open(&env);
    let write = |db: &Db, from: i64| {
        let mut batch = Batch::new();
        for n in from..from + 100 {
            batch.push_named("m", &[], at(n), ValueRef::F64(n as f64)).unwrap();
        }
        db.write(&mut batch).unwrap();
    };
    write(&db, 0);
    db.flush().unwrap();
    write(&db, 100);
    db.snapshot("/data/copy").unwrap();
    write(&db, 200);
    db.flush().unwrap();
    db.compact().unwrap();
    let copy = Db::open_with("/data/copy", options(&env)).unwrap();
    assert_eq!(single(raw(&copy, Selector::name("m"))).0, (0..200).collect::<Vec<_>>());
    write(&copy, 500);
    assert_eq!(single(raw(&db, Selector::name("m"))).0, (0..300).collect::<Vec<_>>());
    assert_eq!(db.snapshot("/data/copy").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn threads_write_and_the_interval_syncs_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        sync_interval: Some(Duration::from_millis(20)),
        flush_size: 64 << 10,
        ..Options::default()
    };
    let db = Db::open_with(dir.path().join("db"), options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                let name = format!("m{thread}");
                let series = db.series::<f64>(&name, &[]).unwrap();
                let mut batch = Batch::new();
                for n in 0..20_000 {
                    batch.push(&series, at(n), (n % 17) as f64).unwrap();
                    if n % 100 == 0 {
                        let durability = if n % 1000 == 0 { Durability::Sync } else { Durability::Os };
                        db.write_with(&mut batch, durability).unwrap();
                    }
                }
                db.write(&mut batch).unwrap();
            });
        }
    });
    for thread in 0..4 {
        let (times, _) = single(raw(&db, Selector::name(format!("m{thread}"))));
        assert_eq!(times.len(), 20_000);
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while db.stats().durable_lsn < db.stats().visible_lsn {
        assert!(std::time::Instant::now() < deadline, "the interval never synced");
        std::thread::yield_now();
    }
    assert_eq!(db.stats().background_failures, 0, "{:?}", db.stats().last_background_failure);
    db.close().unwrap();
}

#[test]
fn a_reader_sees_what_the_writer_does_and_writes_nothing() {
    let env = Env::simulated(9);
    let db = open(&env);
    let write = |from: i64| {
        let mut batch = Batch::new();
        for n in from..from + 100 {
            batch.push_named("m", &[], at(n), ValueRef::F64(n as f64)).unwrap();
        }
        db.write(&mut batch).unwrap();
    };
    let files = || ["", "wal", "blocks"].map(|dir| env.fs.list(&Path::new(ROOT).join(dir)).unwrap());
    write(0);
    let before = files();
    let reader = Db::open_reader_with(ROOT, options(&env)).unwrap();
    assert_eq!(files(), before);
    let times = |reader: &icecore::Reader| single(reader.query(Selector::name("m")).run().unwrap()).0;
    assert_eq!(times(&reader), (0..100).collect::<Vec<_>>());
    write(100);
    reader.refresh().unwrap();
    assert_eq!(times(&reader), (0..200).collect::<Vec<_>>());
    db.flush().unwrap();
    write(200);
    db.delete(&Selector::name("m"), TimeRange { start: at(50), end: at(210) }).unwrap();
    reader.refresh().unwrap();
    let expected: Vec<i64> = (0..50).chain(210..300).collect();
    assert_eq!(times(&reader), expected);
    db.flush().unwrap();
    db.compact().unwrap();
    reader.refresh().unwrap();
    assert_eq!(times(&reader), expected);
    assert_eq!(reader.last_lsn(), db.stats().visible_lsn);
    assert_eq!(Db::open_reader_with("/none", options(&env)).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_merge_does_not_carry_out_a_delete_that_a_power_cut_can_undo() {
    let disk = icecore::fs::MemoryFs::new(10);
    let clock = std::sync::Arc::new(icecore::ManualClock::new(at(0)));
    let env = |disk: &icecore::fs::MemoryFs| Env::new(std::sync::Arc::new(disk.clone()), clock.clone(), 1);
    let db = open(&env(&disk));
    let mut batch = Batch::new();
    for n in 0..100 {
        batch.push_named("m", &[], at(n), ValueRef::I64(n)).unwrap();
    }
    db.write(&mut batch).unwrap();
    db.flush().unwrap();
    db.delete(&Selector::name("m"), TimeRange { start: at(10), end: at(20) }).unwrap();
    db.compact().unwrap();
    let after = disk.crash(icecore::fs::Crash::PowerCut);
    drop(db);
    let count = single(raw(&open(&env(&after)), Selector::name("m"))).0.len();
    let deleted = Db::open_reader_with(ROOT, options(&env(&after))).unwrap().last_lsn();
    assert!(count == 100 || count == 90 && deleted > 0, "{count} samples");
}

/// The finalizer of splitmix64: noise that no codec makes smaller.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes batches of 200 samples, each at a later time, until the database refuses or `count` are written; checks the
/// size of the directory against `cap` after each.
fn fill(db: &Db, env: &Env, cap: u64, count: i64) -> Result<i64, icecore::Error> {
    for number in 0..count {
        let mut batch = Batch::new();
        for n in 0..200i64 {
            let noise = mix((number * 200 + n) as u64) as i64;
            let time = Timestamp::from_secs(number * 200 + n);
            batch.push_named("m", &[("s", &(n % 5).to_string())], time, ValueRef::I64(noise)).unwrap();
        }
        db.write(&mut batch).inspect_err(|_| assert_eq!(batch.len(), 200, "a refused batch stays"))?;
        let sizes = ["", "wal", "blocks"].map(|dir| {
            env.fs.list(&Path::new(ROOT).join(dir)).unwrap().iter().map(|entry| entry.size).sum::<u64>()
        });
        let size: u64 = sizes.iter().sum();
        assert!(size <= cap, "{size} bytes of {cap} after batch {number}: {sizes:?}");
    }
    Ok(count)
}

#[test]
fn the_disk_cap_refuses_or_drops_what_is_oldest() {
    let cap = 2 << 20;
    for at_disk_cap in [icecore::AtDiskCap::Refuse, icecore::AtDiskCap::DropOldest] {
        let env = Env::simulated(11);
        let options = Options { disk_size_max: Some(cap), at_disk_cap, ..options(&env) };
        let db = Db::open_with(ROOT, options).unwrap();
        let result = fill(&db, &env, cap, 3000);
        let (times, _) = single(raw(&db, Selector::name("m").with("s", "0")));
        match at_disk_cap {
            icecore::AtDiskCap::Refuse => {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::LimitExceeded);
                assert!(error.to_string().contains("disk_size_max"), "{error}");
                assert_eq!(times[0], 0);
            }
            _ => {
                assert_eq!(result.unwrap(), 3000);
                assert!(times[0] > 0, "nothing was dropped");
                assert_eq!(*times.last().unwrap(), (3000 * 200 - 5) * 1_000_000_000);
            }
        }
    }
}

#[test]
fn the_memory_cap_refuses_when_nobody_flushes() {
    let env = Env::simulated(12);
    let options = Options { memory_size_max: 1 << 20, flush_size: 256 << 10, ..options(&env) };
    let db = Db::open_with(ROOT, options).unwrap();
    let error = fill(&db, &env, u64::MAX, 3000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("memory_size_max"), "{error}");
    db.flush().unwrap();
    fill(&db, &env, u64::MAX, 10).unwrap();
}

#[test]
fn retention_drops_what_is_old_and_refuses_to_take_it_again() {
    let env = Env::simulated(13);
    let now = env.clock.now();
    let hour = 3_600_000_000_000;
    let options = Options { retention: Some(Duration::from_secs(48 * 3600)), ..options(&env) };
    let db = Db::open_with(ROOT, options.clone()).unwrap();
    let mut batch = Batch::new();
    for n in 0..100 {
        batch.push_named("m", &[], now.saturating_sub(n * hour), ValueRef::I64(n)).unwrap();
    }
    db.write(&mut batch).unwrap();
    db.flush().unwrap();
    while db.maintain().unwrap() {}
    let kept = |db: &Db| single(raw(db, Selector::name("m"))).0.len();
    assert_eq!(kept(&db), 49);
    batch.push_named("m", &[], now.saturating_sub(90 * hour), ValueRef::I64(0)).unwrap();
    db.write(&mut batch).unwrap();
    assert_eq!((kept(&db), db.stats().dropped_below_floor), (49, 1));
    db.close().unwrap();
    assert_eq!(kept(&Db::open_with(ROOT, options).unwrap()), 49);
}

#[test]
fn many_new_series_with_long_names_survive_a_restart() {
    let disk = icecore::fs::MemoryFs::new(14);
    let clock = std::sync::Arc::new(icecore::ManualClock::new(at(0)));
    let env = |disk: &icecore::fs::MemoryFs| Env::new(std::sync::Arc::new(disk.clone()), clock.clone(), 1);
    let db = open(&env(&disk));
    let long = "x".repeat(15_000);
    let mut batch = Batch::new();
    for n in 0..1500 {
        batch.push_named("m", &[("long", &long), ("n", &n.to_string())], at(1), ValueRef::I64(n)).unwrap();
    }
    // The definitions alone take more than a record's 16 MiB.
    db.write(&mut batch).unwrap();
    let log = db.series::<Vec<u8>>("log", &[]).unwrap();
    assert_eq!(log.append(at(1), vec![0; 17 << 20]).unwrap_err().kind(), ErrorKind::InvalidInput);
    let after = disk.crash(icecore::fs::Crash::ProcessRestart);
    drop(log);
    drop(db);
    assert_eq!(raw(&open(&env(&after)), Selector::name("m")).series.len(), 1500);
}

#[test]
fn a_regular_series_may_span_all_of_time() {
    let env = Env::simulated(15);
    let db = open(&env);
    let times = [-9_000_000_000_000_000_000, 0, 9_000_000_000_000_000_000];
    let mut batch = Batch::new();
    for time in times {
        batch.push_named("m", &[], at(time), ValueRef::I64(1)).unwrap();
    }
    db.write(&mut batch).unwrap();
    let check = |db: &Db| assert_eq!(single(raw(db, Selector::name("m"))).0, times);
    check(&db);
    db.flush().unwrap();
    check(&db);
    db.compact().unwrap();
    db.close().unwrap();
    check(&open(&env));
}

#[test]
fn listings_of_everything_say_what_a_look_at_each_series_says() {
    let env = Env::simulated(5);
    let db = Db::open_with("/db", options(&env)).unwrap();
    for n in 0..40i64 {
        let mut batch = Batch::new();
        for time in [n * 10, n * 10 + 5] {
            let (name, host) = (format!("metric_{}", n % 7), format!("h{n}"));
            let tags = [("host", host.as_str()), (["rack", "zone"][n as usize % 2], "a")];
            batch.push_named(&name, &tags, Timestamp::from_nanos(time), ValueRef::F64(1.0)).unwrap();
        }
        db.write(&mut batch).unwrap();
        match n % 10 {
            3 => db.flush().unwrap(),
            // Deletes a series whole, and a part of others.
            6 => {
                db.delete(&Selector::all().with("host", "h0"), TimeRange::ALL).unwrap();
            }
            8 => {
                let range = Timestamp::from_nanos(n * 9)..Timestamp::from_nanos(n * 10 + 1);
                db.delete(&Selector::name("metric_1"), range).unwrap();
            }
            _ => {}
        }
        for (start, end) in [(i64::MIN, i64::MAX), (0, n * 5), (n * 5, i64::MAX), (100, 200), (7, 7)] {
            let range = TimeRange { start: Timestamp::from_nanos(start), end: Timestamp::from_nanos(end) };
            let all = db.query(Selector::all()).range(range);
            // Says the same, and cannot be answered from symbols.
            let each = all.clone().with(icecore::NAME_KEY, Match::Present);
            assert_eq!(all.names().unwrap(), each.names().unwrap(), "{n} {range:?}");
            assert_eq!(all.tag_keys().unwrap(), each.tag_keys().unwrap(), "{n} {range:?}");
            for key in ["host", "rack", "zone", "none"] {
                assert_eq!(
                    all.tag_values(key).unwrap(),
                    each.tag_values(key).unwrap(),
                    "{n} {range:?} {key}"
                );
            }
        }
    }
}

#[test]
fn queries_stay_under_the_cap_on_memory() {
    let env = Env::simulated(6);
    let options = Options { memory_size_max: 4 << 20, flush_size: 256 << 10, cache_size: 0, ..options(&env) };
    let db = Db::open_with("/db", options).unwrap();
    let mut batch = Batch::new();
    for chunk in 0..40i64 {
        for n in chunk * 10_000..(chunk + 1) * 10_000 {
            let value = ValueRef::F64((n % 1000) as f64);
            batch.push_named("m", &[], Timestamp::from_nanos(n * 1_000), value).unwrap();
        }
        db.write(&mut batch).unwrap();
        db.flush().unwrap();
    }
    let error = db.query("m").run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("memory_size_max"), "{error}");
    assert_eq!(db.stats().reserved_size, 0, "what was reserved is given back");
    let streamed: usize = db.query("m").stream().unwrap().map(|piece| piece.unwrap().times.len()).sum();
    assert_eq!(streamed, 400_000);
    assert_eq!(db.query("m").count().run().unwrap().series[0].doubles(), [400_000.0]);
}
