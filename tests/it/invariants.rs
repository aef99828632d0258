//! What must hold after every step of the engine, looked at from outside: the files, and what `inspect` says of them.
//! The operations are those of the model test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use icecore::inspect::{self, BlockInfo, Event, Inspection};

use crate::model::subject::{Op, ROOT, Subject};
use crate::model::{operations, setting};

/// What was seen at the steps before.
#[derive(Default)]
struct Seen {
    /// Every file that was ever published, with its bytes.
    files: BTreeMap<PathBuf, Vec<u8>>,
    cut: u64,
    floor: i64,
    incarnation: u64,
}

impl Seen {
    fn check(&mut self, subject: &Subject, crashed: bool) {
        let found = inspect::read(&subject.options.env, Path::new(ROOT)).unwrap();
        self.check_what_only_rises(&found);
        check_order_of_blocks(&found.blocks);
        check_tombstones(&found);
        self.check_files(subject, &found, crashed);
        if !crashed {
            check_ledger(subject);
        }
    }

    /// Cut, floor and incarnation, also across crashes (invariants 2, 4, 16).
    fn check_what_only_rises(&mut self, found: &Inspection) {
        assert!(found.cut >= self.cut && found.cut <= found.log.last_lsn, "{:#x} of {found:#x?}", self.cut);
        assert!(found.floor.nanos() >= self.floor && found.incarnation >= self.incarnation);
        (self.cut, self.floor, self.incarnation) = (found.cut, found.floor.nanos(), found.incarnation);
    }

    /// A block or a closed segment has the same bytes for as long as it has its name, and no other file ever gets
    /// that name (invariant 12). The last segment is still being written.
    fn check_files(&mut self, subject: &Subject, found: &Inspection, crashed: bool) {
        let fs = &subject.options.env.fs;
        if crashed {
            // A power cut may take what was written and not synced.
            self.files.retain(|path, _| path.extension().is_some_and(|extension| extension == "blk"));
        }
        let mut segments: Vec<_> = found.log.segments.iter().map(|(path, ..)| path).collect();
        segments.pop();
        for path in found.blocks.iter().map(|block| &block.path).chain(segments) {
            let bytes = fs.open(path).unwrap().read_all().unwrap();
            let before = self.files.entry(path.clone()).or_insert_with(|| bytes.clone());
            // Closing a segment cuts off the zeros that were taken ahead.
            let same = bytes == *before
                || path.extension().is_some_and(|e| e == "wal") && begins_alike(&bytes, before);
            assert!(same, "{} has changed", path.display());
        }
    }
}

fn begins_alike(a: &[u8], b: &[u8]) -> bool {
    let common = a.len().min(b.len());
    a[..common] == b[..common] && a[common..].iter().chain(&b[common..]).all(|byte| *byte == 0)
}

/// Two blocks whose times meet have LSNs in order (invariant 5).
fn check_order_of_blocks(blocks: &[BlockInfo]) {
    for (index, a) in blocks.iter().enumerate() {
        for b in &blocks[index + 1..] {
            let apart = a.max_time < b.min_time || b.max_time < a.min_time;
            let ordered = a.last_lsn < b.first_lsn || b.last_lsn < a.first_lsn;
            assert!(apart || ordered, "blocks {:#x} and {:#x} meet", a.number, b.number);
        }
    }
}

/// A tombstone in the manifest meets a block that is older (invariant 7).
fn check_tombstones(found: &Inspection) {
    for (lsn, _, range) in &found.tombstones {
        let met = found
            .blocks
            .iter()
            .any(|block| block.last_lsn < *lsn && range.meets(block.min_time, block.max_time));
        // An edit that drops the last such block can come after the one that made the tombstone superfluous.
        assert!(met || *lsn <= found.cut, "the tombstone of LSN {lsn:#x} is above the cut");
    }
}

/// The engine knows the size of every file that it made (invariant 17).
fn check_ledger(subject: &Subject) {
    let fs = &subject.options.env.fs;
    let mut size = 0;
    for dir in ["", "wal", "blocks"] {
        let entries = fs.list(&Path::new(ROOT).join(dir)).unwrap();
        size += entries.iter().filter(|entry| entry.name != "LOCK").map(|entry| entry.size).sum::<u64>();
    }
    assert_eq!(subject.db().stats().disk_size, size, "the ledger and the directory");
}

/// Pages agree with their aggregates and the index with the series (invariants 9, 10), all checksums hold.
fn check_contents(subject: &Subject) {
    let mut listen = |event| {
        if let Event::Damage(damage) = event {
            panic!("{damage:?}");
        }
    };
    inspect::verify(&subject.options.env, Path::new(ROOT), &mut listen).unwrap();
}

#[test]
fn what_must_hold_holds_after_every_step() {
    let slow = std::env::var_os("SLOW_TESTS").is_some();
    let first = setting("MODEL_SEED").unwrap_or(0);
    for seed in first..first + setting("MODEL_COUNT").unwrap_or(if slow { 500 } else { 20 }) {
        let mut subject = Subject::new(seed);
        let mut seen = Seen { floor: i64::MIN, ..Seen::default() };
        for (number, op) in (1..).zip(operations(seed, 60)) {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                subject.run(&op, seed.wrapping_mul(1000) + number);
                seen.check(&subject, matches!(op, Op::Crash { .. }));
                if number % 15 == 0 {
                    check_contents(&subject);
                }
            }));
            if let Err(panic) = done {
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                panic!("seed {seed}, step {number}, {op:?}: {why}");
            }
        }
    }
}
