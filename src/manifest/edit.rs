//! What changes in the set of live files, and what is known of each: the words of the manifest.
//!
//! The types are also the records: their fields, in this order, in bincode (`docs/format.md`, "Manifest"). A
//! change here is a change of the format.

use serde::{Deserialize, Serialize};

use crate::manifest::record;
use crate::model::{Metadata, Selector, TimeRange, Timestamp};

/// One block file, as flush and merge made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockMeta {
    /// The number in its file name.
    pub number: u64,
    /// Size of the file, in bytes.
    pub size: u64,
    /// Time of its earliest sample.
    #[serde(with = "record::time")]
    pub min_time: Timestamp,
    /// Time of its latest sample.
    #[serde(with = "record::time")]
    pub max_time: Timestamp,
    /// It holds what these LSNs wrote within its window, first and last included.
    pub first_lsn: u64,
    /// See `first_lsn`.
    pub last_lsn: u64,
    /// The step of the window ladder that it lies inside one window of.
    pub level: u8,
    /// How many series it holds.
    pub series_count: u64,
    /// How many samples it holds.
    pub sample_count: u64,
}

impl BlockMeta {
    /// Whether the times of both meet.
    pub(crate) fn meets(&self, other: &BlockMeta) -> bool {
        self.min_time <= other.max_time && other.min_time <= self.max_time
    }
}

/// A delete that is no longer in the log: what `selector` matches in `range` and was committed before `lsn`
/// is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    /// The LSN of the delete.
    pub lsn: u64,
    /// Which series.
    #[serde(with = "record::selector")]
    pub selector: Selector,
    /// Which times.
    #[serde(with = "record::range")]
    pub range: TimeRange,
}

/// A block that cannot be read, and is kept in `quarantine/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quarantined {
    /// What is known of it; where nothing is, it may hold everything: all of time, all LSNs.
    pub block: BlockMeta,
    /// What is wrong with it, for people.
    pub reason: String,
}

/// What the next open need not look for, when the last one ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CleanShutdown {
    /// The last LSN that was given. When it is the cut, the log holds nothing that is needed.
    pub last_lsn: u64,
    /// The number of the next log segment.
    pub next_segment: u64,
}

/// The metadata of one metric name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetricMetadata {
    /// The metric's name.
    pub name: String,
    /// Its kind, unit and help.
    #[serde(with = "record::metadata")]
    pub metadata: Metadata,
}

/// Changes that happen together or not at all. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edit {
    /// Blocks that are live from now on; their files and names are on the device.
    pub blocks_added: Vec<BlockMeta>,
    /// Numbers of blocks that are no longer live. Each must be.
    pub blocks_removed: Vec<u64>,
    /// Deletes that the cut passes. One that is there already may come again.
    pub tombstones_added: Vec<Tombstone>,
    /// LSNs of deletes that no older block meets any more. Each must be there.
    pub tombstones_removed: Vec<u64>,
    /// Blocks that are set aside; those that were live no longer are.
    pub quarantined: Vec<Quarantined>,
    /// Numbers of blocks whose files have left `quarantine/`.
    pub released: Vec<u64>,
    /// Metadata that replaces what its names had.
    pub metadata: Vec<MetricMetadata>,
    /// The log up to this LSN is no longer needed: blocks hold it. Only rises.
    pub cut: Option<u64>,
    /// Nothing before this time is in any answer. Only rises.
    #[serde(with = "record::optional_time")]
    pub floor: Option<Timestamp>,
    /// Which open of the database this is. Only rises.
    pub incarnation: Option<u64>,
    /// No file has this number or a greater one yet. Only rises, also by itself when a block is added.
    pub next_file: Option<u64>,
    /// The database was closed in order. Holds until the next edit.
    pub clean_shutdown: Option<CleanShutdown>,
}
