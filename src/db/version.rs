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
