//! What a query sees: one consistent set of blocks and heads.

use std::sync::Arc;

use crate::block::{BlockMeta, BlockReader};
use crate::env::Env;
use crate::head::Head;
use crate::ledger::Ledger;
use crate::manifest::Tombstone;
use crate::model::{Selector, Timestamp};
use crate::query::Damaged;
use crate::query::head::HeadSource;
use crate::query::source::{Snapshot, Source};
use crate::sync::RwLock;
use crate::wal::DeleteRecord;

/// The live set between two edits. Replaced whole, never changed.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// In order of LSN ranges.
    pub(super) blocks: Vec<Arc<BlockReader>>,
    /// The head that is being flushed.
    pub(super) frozen: Option<Arc<Head>>,
    /// The head that takes writes.
    pub(super) active: Arc<Head>,
    /// Deletes that apply to blocks or the frozen head.
    pub(super) tombstones: Vec<Tombstone>,
    /// Nothing before it is in any answer.
    pub(super) floor: Timestamp,
    /// What is set aside in quarantine.
    pub(super) damaged: Vec<Damaged>,
}

/// The version of now, for all who read or replace it. A leaf among locks: held for the length of a copy.
#[derive(Debug)]
pub(super) struct Versions(RwLock<Arc<Version>>);

impl Versions {
    pub(super) fn new(first: Version) -> Self {
        Versions(RwLock::new(Arc::new(first)))
    }

    /// The version of now.
    pub(super) fn current(&self) -> Arc<Version> {
        self.0.read().clone()
    }

    /// Replaces the version by what `change` makes of it.
    pub(super) fn edit(&self, change: impl FnOnce(&mut Version)) {
        let mut current = self.0.write();
        let mut next = Version::clone(&current);
        change(&mut next);
        debug_assert!(next.is_ordered(), "blocks whose times meet interleave: {:?}", next.blocks);
        *current = Arc::new(next);
    }

    /// Enters a delete that the active head has carried out.
    pub(super) fn delete(&self, lsn: u64, record: &DeleteRecord) {
        self.edit(|version| {
            version.add_tombstone(to_tombstone(lsn, record));
            version.prune_tombstones();
        });
    }
}

/// A delete of the log as what applies to older sources.
pub(super) fn to_tombstone(lsn: u64, record: &DeleteRecord) -> Tombstone {
    Tombstone { lsn, selector: record.selector.clone(), range: record.range }
}

impl Version {
    /// All places to read, oldest first.
    pub(super) fn sources(&self) -> Vec<Arc<dyn Source>> {
        let blocks = self.blocks.iter().map(|block| block.clone() as Arc<dyn Source>);
        let heads = self.frozen.iter().chain([&self.active]).filter(|head| !head.is_empty());
        let heads = heads.map(|head| Arc::new(HeadSource::new(head.clone())) as Arc<dyn Source>);
        blocks.chain(heads).collect()
    }

    /// What a query that begins now sees.
    pub(super) fn pin(&self, env: &Env, ledger: &Arc<Ledger>) -> Snapshot {
        Snapshot {
            sources: self.sources(),
            tombstones: self.tombstones.clone(),
            floor: self.floor,
            damaged: self.damaged.clone(),
            env: env.clone(),
            ledger: ledger.clone(),
        }
    }

    /// As [`Version::pin`], with the series of the active head that match as they are now. Nothing may be applied to
    /// it meanwhile.
    pub(super) fn pin_whole(&self, env: &Env, ledger: &Arc<Ledger>, selector: &Selector) -> Snapshot {
        let still =
            Version { active: Arc::new(Head::new(self.active.registry().clone(), 0)), ..self.clone() };
        let mut snapshot = still.pin(env, ledger);
        let known = snapshot.tombstones.iter().map(|tombstone| tombstone.lsn).max().unwrap_or(0);
        let carried_out = self.active.deletes(0..usize::MAX).into_iter().filter(|(lsn, _)| *lsn > known);
        snapshot.tombstones.extend(carried_out.map(|(lsn, record)| to_tombstone(lsn, &record)));
        if !self.active.is_empty() {
            snapshot.sources.push(Arc::new(HeadSource::copied(self.active.clone(), selector)));
        }
        snapshot
    }

    /// Bytes of memory that heads and registry take.
    pub(super) fn memory_size(&self) -> usize {
        let heads: usize = self.frozen.iter().chain([&self.active]).map(|head| head.size()).sum();
        heads + self.active.registry().read().size()
    }

    /// Whether of any two blocks whose times meet one was written wholly before the other.
    fn is_ordered(&self) -> bool {
        let metas: Vec<&BlockMeta> = self.blocks.iter().map(|block| block.meta()).collect();
        let apart = |a: &BlockMeta, b: &BlockMeta| {
            let times_meet = a.min_time <= b.max_time && b.min_time <= a.max_time;
            !times_meet || a.last_lsn < b.first_lsn || b.last_lsn < a.first_lsn
        };
        let rest = |index: usize| metas.get(index + 1..).unwrap_or_default();
        metas.iter().enumerate().all(|(index, a)| rest(index).iter().all(|b| apart(a, b)))
    }

    /// Enters a delete, if it is not there yet.
    pub(super) fn add_tombstone(&mut self, tombstone: Tombstone) {
        if self.tombstones.iter().all(|known| known.lsn != tombstone.lsn) {
            self.tombstones.push(tombstone);
        }
    }

    /// Drops the tombstones that no source is old enough for.
    pub(super) fn prune_tombstones(&mut self) {
        let meets = |tombstone: &Tombstone, meta: &BlockMeta| {
            let (min, max) = (Timestamp::from_nanos(meta.min_time), Timestamp::from_nanos(meta.max_time));
            meta.last_lsn < tombstone.lsn && tombstone.range.meets(min, max)
        };
        let frozen = self.frozen.as_ref().map(|head| head.last_lsn());
        let blocks = &self.blocks;
        self.tombstones.retain(|tombstone| {
            frozen.is_some_and(|lsn| lsn < tombstone.lsn)
                || blocks.iter().any(|block| meets(tombstone, block.meta()))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::db::{Background, Batch, Db, Options};
    use crate::env::Env;
    use crate::model::{Selector, Timestamp, ValueRef};
    use crate::query::Query;
    use crate::query::source::Pin;

    /// A database on a simulated disk where nothing happens by itself.
    fn open() -> Db {
        let options = Options {
            env: Env::simulated(1),
            background: Background::Host,
            sync_interval: None,
            ..Options::default()
        };
        Db::open_with("/db", options).unwrap()
    }

    fn samples(pinned: &crate::query::source::Snapshot, name: &str) -> Vec<(i64, f64)> {
        let found = Query::new(Arc::new(pinned.clone()), Selector::name(name)).run().unwrap().series;
        let samples = |series: &crate::query::SeriesColumns| -> Vec<(i64, f64)> {
            let times = series.times.iter().map(|time| time.nanos());
            times.zip(series.doubles().iter().copied()).collect()
        };
        found.iter().flat_map(samples).collect()
    }

    #[test]
    fn a_delete_shows_in_all_parts_of_a_series_or_in_none() {
        let db = open();
        let write = |name: &str, time: i64, value: f64| {
            let mut batch = Batch::new();
            batch.push_named(name, &[], Timestamp::from_nanos(time), ValueRef::F64(value)).unwrap();
            db.write(&mut batch).unwrap();
        };
        write("both", 1, 1.0);
        write("old", 1, 1.0);
        db.flush().unwrap();
        write("both", 2, 2.0);
        let pinned = db.inner.pin().unwrap();
        let whole = db.inner.pin_whole(&Selector::all()).unwrap();
        db.delete(&Selector::name("both"), Timestamp::from_nanos(0)..Timestamp::from_nanos(10)).unwrap();
        assert_eq!(samples(&pinned, "both"), []);
        // What was written after the delete lives, in blocks and heads.
        write("both", 1, 3.0);
        assert_eq!(samples(&pinned, "both"), [(1, 3.0)]);
        db.flush().unwrap();
        write("both", 2, 4.0);
        db.delete(&Selector::all(), Timestamp::from_nanos(0)..Timestamp::from_nanos(10)).unwrap();
        assert_eq!(
            samples(&pinned, "both"),
            [(1, 3.0)],
            "the head that was active is as it was at the flush"
        );
        assert_eq!(samples(&pinned, "old"), [(1, 1.0)]);
        assert_eq!(samples(&whole, "both"), [(1, 1.0), (2, 2.0)]);
        assert_eq!(samples(&whole, "old"), [(1, 1.0)]);
        assert_eq!(samples(&db.inner.pin().unwrap(), "both"), []);
        assert_eq!(samples(&db.inner.pin_whole(&Selector::all()).unwrap(), "old"), []);
    }

    #[test]
    fn a_query_that_began_before_a_flush_finds_its_series_after_it() {
        let db = open();
        let write = |name: &str| {
            let mut batch = Batch::new();
            batch.push_named(name, &[], Timestamp::from_nanos(1), ValueRef::F64(1.0)).unwrap();
            db.write(&mut batch).unwrap();
        };
        let names = |pinned: &crate::query::source::Snapshot| {
            Query::new(Arc::new(pinned.clone()), Selector::all()).names().unwrap()
        };
        write("before");
        let pinned = db.inner.pin().unwrap();
        db.flush().unwrap();
        write("after");
        assert_eq!(names(&pinned), ["before"]);
        db.flush().unwrap();
        assert_eq!(names(&pinned), ["before"]);
        drop(pinned);
        write("last");
        db.flush().unwrap();
        let registry = db.inner.version().active.registry().clone();
        assert_eq!(registry.read().count(), 0, "nobody holds a head that was flushed");
        assert_eq!(names(&db.inner.pin().unwrap()), ["after", "before", "last"]);
    }
}
