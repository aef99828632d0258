//! What a query sees: one consistent set of blocks and heads.

use std::sync::Arc;

use crate::block::{BlockMeta, BlockReader};
use crate::env::Env;
use crate::head::Head;
use crate::manifest::Tombstone;
use crate::model::Timestamp;
use crate::query::Damaged;
use crate::query::head::HeadSource;
use crate::query::source::{Snapshot, Source};

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

impl Version {
    /// All places to read, oldest first.
    pub(super) fn sources(&self) -> Vec<Arc<dyn Source>> {
        let blocks = self.blocks.iter().map(|block| block.clone() as Arc<dyn Source>);
        let heads = self.frozen.iter().chain([&self.active]).filter(|head| !head.is_empty());
        let heads = heads.map(|head| Arc::new(HeadSource::new(head.clone())) as Arc<dyn Source>);
        blocks.chain(heads).collect()
    }

    /// What a query that begins now sees.
    pub(super) fn pin(&self, env: &Env) -> Snapshot {
        Snapshot {
            sources: self.sources(),
            tombstones: self.tombstones.clone(),
            floor: self.floor,
            damaged: self.damaged.clone(),
            env: env.clone(),
        }
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

    #[test]
    fn a_query_that_began_before_a_flush_finds_its_series_after_it() {
        let options = Options {
            env: Env::simulated(1),
            background: Background::Host,
            sync_interval: None,
            ..Options::default()
        };
        let db = Db::open_with("/db", options).unwrap();
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
