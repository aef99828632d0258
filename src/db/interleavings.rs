//! Models of what threads do to each other: the real commit queue, publication and hand-over at flush under shuttle,
//! which runs them on one thread and picks at every lock, condition and atomic who goes on.
//!
//! Built only with `--cfg icecore_shuttle` (`docs/testing.md`). Every model is also run with the engine
//! making a mistake ([`Mistake`]) that it must find, so that a model that checks nothing is noticed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::db::{Background, Batch, Db, Durability, Options};
use crate::env::Env;
use crate::error::ErrorKind;
use crate::fs::{Crash, MemoryFs};
use crate::model::{Selector, Timestamp, ValueRef};
use crate::sync::thread::JoinHandle;
use crate::sync::{Mistake, Mutex, with_mistake};

/// Schedules tried by each of two schedulers, unless `INTERLEAVINGS` says otherwise.
const COUNT: usize = 150;
/// A mistake must show within so many times as many.
const MISTAKE_FACTOR: usize = 20;

fn explore(factor: usize, body: fn()) {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let count = setting("INTERLEAVINGS").unwrap_or(COUNT) * factor;
    let seed = setting("INTERLEAVINGS_SEED").unwrap_or(1) as u64;
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    Runner::new(RandomScheduler::new_from_seed(seed, count), config.clone()).run(body);
    // Probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010) finds what needs few, ill-timed switches.
    Runner::new(PctScheduler::new_from_seed(seed, 3, count), config).run(body);
}

fn holds(body: fn()) {
    explore(1, body);
}

/// The model finds the mistake; otherwise it would find nothing like it either.
fn finds(mistake: Mistake, body: fn()) {
    let found = with_mistake(mistake, || catch_unwind(AssertUnwindSafe(|| explore(MISTAKE_FACTOR, body))));
    assert!(found.is_err(), "no schedule showed {mistake:?}");
}

fn options(disk: &MemoryFs) -> Options {
    Options {
        env: Env::new(Arc::new(disk.clone()), Env::simulated(1).clock, 1),
        background: Background::Host,
        sync_interval: None,
        ..Options::default()
    }
}

fn open(disk: &MemoryFs) -> Db {
    Db::open_with("/db", options(disk)).unwrap()
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Env::simulated(0).spawn("model", work).unwrap()
}

fn at(time: i64) -> Timestamp {
    Timestamp::from_nanos(time)
}

fn batch(samples: &[(&str, i64, f64)]) -> Batch<'static> {
    let mut batch = Batch::new();
    for (name, time, value) in samples {
        batch.push_named(name, &[], at(*time), ValueRef::F64(*value)).unwrap();
    }
    batch
}

/// Times and values of one series.
fn read(db: &Db, name: &str, pinned: bool) -> Vec<(i64, f64)> {
    let query = db.query(Selector::name(name));
    of(&if pinned { query.at_one_commit() } else { query }.run().unwrap(), name)
}

fn of(result: &crate::query::QueryResult, name: &str) -> Vec<(i64, f64)> {
    let found = result.series.iter().find(|series| series.key.name() == name);
    let samples = found.map(|series| {
        let times = series.times.iter().map(|time| time.nanos());
        times.zip(series.doubles().iter().copied()).collect()
    });
    samples.unwrap_or_default()
}

/// The order of LSNs is the order in the head and in the log, and an acknowledged write is visible.
fn one_order() {
    let disk = MemoryFs::new(1);
    let db = open(&disk);
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let db = db.clone();
            spawn(move || {
                let mut written = BTreeMap::new();
                for n in 0..2 {
                    let value = f64::from(writer * 10 + n);
                    let own = format!("own{writer}");
                    let mut batch = batch(&[("m", 1, value), (own.as_str(), i64::from(n), value)]);
                    let lsn = db.write_with(&mut batch, Durability::Os).unwrap().lsn();
                    assert!(db.inner.commits.visible_lsn() >= lsn);
                    assert_eq!(
                        read(&db, &own, false).len() as i32,
                        n + 1,
                        "an acknowledged write is visible"
                    );
                    written.insert(lsn, value);
                }
                written
            })
        })
        .collect();
    let handle = db.series::<f64>("appended", &[]).unwrap();
    for time in 0..3 {
        handle.append(at(time), 1.0).unwrap();
    }
    let mut written = BTreeMap::new();
    for writer in writers {
        written.extend(writer.join().unwrap());
    }
    assert_eq!(written.len(), 4, "no LSN is given twice");
    let (last_lsn, last) = written.pop_last().unwrap();
    assert_eq!(read(&db, "m", false), [(1, last)]);
    db.sync().unwrap();
    assert!(db.inner.commits.visible_lsn() >= last_lsn);
    let again = open(&disk.crash(Crash::PowerCut));
    assert_eq!(read(&again, "m", false), [(1, last)], "the log holds them in the same order");
    assert_eq!(read(&again, "appended", false).len(), 3);
}

#[test]
fn commits_have_one_order() {
    holds(one_order);
}

/// What was acknowledged as durable survives a power cut at any moment.
fn durable_survives() {
    // What a power cut drops depends on the seed.
    let disk = MemoryFs::new(shuttle::rand::thread_rng().gen_range(0..1_000));
    let db = open(&disk);
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let write = |db: Db, first: i64| {
        let acknowledged = acknowledged.clone();
        move || {
            for time in first..first + 2 {
                if db.write_with(&mut batch(&[("m", time, 0.0)]), Durability::Sync).is_ok() {
                    acknowledged.lock().push(time);
                }
            }
        }
    };
    let writer = spawn(write(db.clone(), 10));
    // A flush syncs with commits held off, beside the one that syncs for all.
    let other = db.clone();
    let flush = spawn(move || drop(other.flush()));
    write(db.clone(), 20)();
    let promised = acknowledged.lock().clone();
    let disk = disk.crash(Crash::PowerCut);
    writer.join().unwrap();
    flush.join().unwrap();
    drop(db);
    let found: Vec<i64> = read(&open(&disk), "m", false).iter().map(|(time, _)| *time).collect();
    for time in promised {
        assert!(found.contains(&time), "{time} was acknowledged, {found:?} survived");
    }
}

#[test]
fn acknowledged_as_durable_survives_a_power_cut() {
    holds(durable_survives);
}

#[test]
fn a_missing_sync_is_found() {
    finds(Mistake::AnswerUnsynced, durable_survives);
}

/// A reader sees each series after some whole commit, no earlier than the last visible one, and all series after the
/// same when it pins.
fn whole_prefixes() {
    const FRAMES: i64 = 3;
    let db = open(&MemoryFs::new(1));
    let base = db.write(&mut batch(&[("first", 0, 0.0)])).unwrap().lsn();
    let writer = {
        let db = db.clone();
        spawn(move || {
            for n in 0..FRAMES {
                db.write(&mut batch(&[("a", 2 * n, 0.0), ("b", n, 0.0), ("a", 2 * n + 1, 0.0)])).unwrap();
            }
        })
    };
    let flush = {
        let db = db.clone();
        spawn(move || db.flush().unwrap())
    };
    let mut before = 0;
    for round in 0..4 {
        let visible = db.inner.commits.visible_lsn() - base;
        let pinned = round % 2 == 1;
        let query = db.query(Selector::all());
        let result = if pinned { query.at_one_commit() } else { query }.run().unwrap();
        let (a, b) = (of(&result, "a"), of(&result, "b"));
        let times: Vec<i64> = a.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, (0..times.len() as i64).collect::<Vec<_>>(), "a prefix");
        assert!(times.len().is_multiple_of(2), "whole frames: {times:?}");
        assert!(times.len() as u64 / 2 >= visible, "{times:?} while {visible} frames were visible");
        assert!(times.len() >= before, "nothing that was seen goes");
        assert!(!pinned || times.len() == 2 * b.len(), "one commit for all: {times:?} and {b:?}");
        before = times.len();
    }
    writer.join().unwrap();
    flush.join().unwrap();
    assert_eq!(read(&db, "a", false).len() as i64, 2 * FRAMES);
}

#[test]
fn readers_see_whole_prefixes() {
    holds(whole_prefixes);
}

#[test]
fn publishing_early_is_found() {
    finds(Mistake::PublishEarly, whole_prefixes);
}

/// The hand-over from head to blocks loses nothing and doubles nothing.
fn hand_over() {
    let disk = MemoryFs::new(1);
    let db = open(&disk);
    let handle = db.series::<f64>("appended", &[]).unwrap();
    drop(handle);
    let threads: Vec<JoinHandle<()>> = vec![
        {
            let db = db.clone();
            spawn(move || {
                for n in 0..3 {
                    db.write(&mut batch(&[("written", n, 1.0)])).unwrap();
                }
            })
        },
        {
            let db = db.clone();
            spawn(move || {
                let handle = db.series::<f64>("appended", &[]).unwrap();
                for n in 0..3 {
                    handle.append(at(n), 1.0).unwrap();
                }
            })
        },
        {
            let db = db.clone();
            spawn(move || {
                db.flush().unwrap();
                db.compact().unwrap();
                db.flush().unwrap();
            })
        },
    ];
    let count = |db: &Db| {
        let result = db.query(Selector::all()).count().by([""; 0]).run().unwrap();
        result.series.first().map_or(0.0, |series| series.doubles().iter().sum())
    };
    let mut before = 0.0;
    for _ in 0..3 {
        let now = count(&db);
        assert!(now >= before && now <= 6.0, "{now} samples after {before}");
        before = now;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(count(&db), 6.0);
    db.close().unwrap();
    let db = open(&disk);
    assert!(db.recovery().clean);
    assert_eq!(count(&db), 6.0);
    assert_eq!(read(&db, "written", false).len() + read(&db, "appended", false).len(), 6);
}

#[test]
fn a_flush_hands_over_everything_once() {
    holds(hand_over);
}

/// A delete shows in the head's and the blocks' part of a series together.
fn delete_shows() {
    let db = open(&MemoryFs::new(1));
    db.write(&mut batch(&[("m", 1, 0.0)])).unwrap();
    db.flush().unwrap();
    db.write(&mut batch(&[("m", 2, 0.0)])).unwrap();
    let deleter = {
        let db = db.clone();
        spawn(move || {
            db.delete(&Selector::name("m"), at(0)..at(10)).unwrap();
            db.write(&mut batch(&[("m", 1, 5.0)])).unwrap();
        })
    };
    let flush = {
        let db = db.clone();
        spawn(move || db.flush().unwrap())
    };
    for round in 0..3 {
        let found = read(&db, "m", round == 2);
        let states: [&[(i64, f64)]; 3] = [&[(1, 0.0), (2, 0.0)], &[], &[(1, 5.0)]];
        assert!(states.contains(&found.as_slice()), "{found:?} is the result of no prefix");
    }
    deleter.join().unwrap();
    flush.join().unwrap();
    assert_eq!(read(&db, "m", false), [(1, 5.0)]);
}

#[test]
fn a_delete_shows_everywhere_at_once() {
    holds(delete_shows);
}

#[test]
fn a_delete_in_halves_is_found() {
    finds(Mistake::ForgetDelete, delete_shows);
}

/// Who writes while the database closes is told so, or the write is kept.
fn close_while_writing() {
    let disk = MemoryFs::new(1);
    let db = open(&disk);
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let db = db.clone();
            spawn(move || {
                let mut kept = Vec::new();
                for n in 0..3 {
                    let time = writer * 10 + n;
                    match db.write(&mut batch(&[("m", time, 0.0)])) {
                        Ok(_) => kept.push(time),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
                    }
                }
                kept
            })
        })
        .collect();
    db.close().unwrap();
    let mut kept: Vec<i64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    kept.sort_unstable();
    let db = open(&disk.crash(Crash::PowerCut));
    assert!(db.recovery().clean);
    assert_eq!(read(&db, "m", false).iter().map(|(time, _)| *time).collect::<Vec<_>>(), kept);
}

#[test]
fn closing_refuses_or_keeps() {
    holds(close_while_writing);
}

/// Writers that wait for room are woken by the flush that makes it. Timeouts do not count here.
fn room(writer_count: i64) {
    let options = Options {
        background: Background::Threads,
        flush_size: 1,
        // Less than one sample of a new series takes.
        memory_size_max: 250,
        cache_size: 0,
        compaction: false,
        ..options(&MemoryFs::new(1))
    };
    let db = Db::open_with("/db", options).unwrap();
    let writers: Vec<_> = (0..writer_count)
        .map(|writer| {
            let db = db.clone();
            spawn(move || {
                for n in 0..2 {
                    db.write(&mut batch(&[("m", writer * 10 + n, 0.0)])).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(read(&db, "m", false).len() as i64, 2 * writer_count);
    db.close().unwrap();
}

#[test]
fn writers_that_wait_for_room_are_woken() {
    holds(|| room(2));
}

#[test]
fn a_lost_wakeup_is_found() {
    finds(Mistake::TellUnlocked, || room(1));
}
