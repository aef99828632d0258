//! Every kind of call made to fail at its nth occurrence, for n raised until it no longer fires.
//!
//! Whatever fails, a call says so or succeeds; nothing acknowledged is lost, nothing is there by half, and
//! the database opens again when the disk works.

use std::collections::BTreeSet;
use std::sync::Arc;

use icecore::fs::{Call, Crash, Fault, FaultFs, FaultKind, MemoryFs};
use icecore::{Background, Batch, Db, Durability, Env, ManualClock, Options, Selector, Timestamp, ValueRef};

const ROOT: &str = "/db";
const BATCH: i64 = 5;

fn options(fs: Arc<dyn icecore::fs::Fs>, clock: &ManualClock) -> Options {
    Options {
        env: Env::new(fs, Arc::new(clock.clone()), 7),
        background: Background::Host,
        sync_interval: None,
        flush_size: 2 << 10,
        segment_size_max: 1 << 10,
        ..Options::default()
    }
}

/// Writes batches, flushes and merges; notes which batches were acknowledged as durable and which refused.
fn work(options: Options, clock: &ManualClock, durable: &mut BTreeSet<i64>, refused: &mut BTreeSet<i64>) {
    let Ok(db) = Db::open_with(ROOT, options) else { return };
    for number in 0..30 {
        let mut batch = Batch::new();
        for point in 0..BATCH {
            let time = Timestamp::from_secs(number * BATCH + point);
            batch.push_named("m", &[("s", "a")], time, ValueRef::I64(number)).unwrap();
        }
        match db.write_with(&mut batch, Durability::Sync) {
            Ok(_) => drop(durable.insert(number)),
            // The batch is as it was: it can be tried again.
            Err(_) if batch.len() as i64 == BATCH => drop(refused.insert(number)),
            Err(_) => {}
        }
        // A full disk is tried again after a second.
        clock.advance(std::time::Duration::from_secs(2));
        match number % 10 {
            3 | 7 => drop(db.flush()),
            9 => drop(db.compact()),
            _ => drop(db.maintain()),
        }
    }
    let _ = db.close();
}

/// What the database holds, by batch: how many samples of each.
fn found(disk: &MemoryFs, clock: &ManualClock) -> Vec<(i64, i64)> {
    let db = Db::open_with(ROOT, options(Arc::new(disk.clone()), clock)).unwrap();
    assert!(db.recovery().quarantined.is_empty(), "{:?}", db.recovery());
    let mut counts = std::collections::BTreeMap::new();
    for series in db.query(Selector::all()).run().unwrap().series {
        for time in &series.times {
            *counts.entry(time.nanos() / 1_000_000_000 / BATCH).or_insert(0) += 1;
        }
    }
    counts.into_iter().collect()
}

#[track_caller]
fn check(call: Call, kind: FaultKind, sticky: bool, crash: Crash) {
    for nth in 1.. {
        let disk = MemoryFs::new(nth);
        let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
        let faults = FaultFs::new(Arc::new(disk.clone()));
        faults.inject(Fault { call, nth, kind, sticky });
        let (mut durable, mut refused) = (BTreeSet::new(), BTreeSet::new());
        work(options(Arc::new(faults.clone()), &clock), &clock, &mut durable, &mut refused);
        let after = disk.crash(crash);
        let found = found(&after, &clock);
        let case = format!("{call:?} {kind:?} nth {nth} sticky {sticky}");
        for (batch, count) in &found {
            assert_eq!(*count, BATCH, "{case}: batch {batch} is there by half");
        }
        let held: BTreeSet<i64> = found.iter().map(|(batch, _)| *batch).collect();
        assert!(durable.is_subset(&held), "{case}: lost {:?}", durable.difference(&held));
        if faults.fired() == 0 {
            assert_eq!((durable.len(), refused.len()), (30, 0), "{case}");
            return;
        }
    }
}

#[test]
fn failed_writes_lose_nothing_acknowledged() {
    check(Call::Write, FaultKind::Io, false, Crash::PowerCut);
    check(Call::Write, FaultKind::NoSpace, false, Crash::PowerCut);
    check(Call::Write, FaultKind::Short, false, Crash::PowerCut);
}

#[test]
fn failed_syncs_poison_and_lose_nothing_acknowledged() {
    check(Call::Sync, FaultKind::Io, false, Crash::PowerCut);
    check(Call::SyncDir, FaultKind::Io, false, Crash::PowerCut);
}

#[test]
fn a_disk_that_stays_full_refuses_and_keeps() {
    check(Call::Change, FaultKind::NoSpace, true, Crash::ProcessRestart);
}

#[test]
fn a_stop_at_any_call_leaves_a_database_that_opens() {
    check(Call::Any, FaultKind::Stop, true, Crash::PowerCut);
}

#[test]
fn failed_names_lose_nothing_acknowledged() {
    check(Call::Create, FaultKind::Io, false, Crash::PowerCut);
    check(Call::Rename, FaultKind::Io, false, Crash::PowerCut);
    check(Call::Remove, FaultKind::Io, false, Crash::PowerCut);
}
