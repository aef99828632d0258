//! Blocks: immutable files, each a stretch of time and an LSN range, written once, front to back.
//!
//! Flush and compaction write them, queries and compaction read them. A block holds the chunks of its
//! series, a directory of their pages with aggregates, and the index of their tags; the bytes are in
//! `docs/format.md`, "Blocks". 64 series that follow each other are a *group*: what is read, checked and
//! cached together.

mod bounds;
mod cache;
mod columns;
mod directory;
mod format;
mod reader;
mod stream;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub(crate) use directory::{Group, PageEntry};
pub(crate) use reader::{BlockReader, Cache, GroupKeys};
pub(crate) use stream::BlockStream;
pub(crate) use verify::verify;
pub(crate) use writer::{BlockOptions, BlockWriter};

/// How blocks are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// By `pread`: an error of the device is an error of the call.
    #[default]
    Pread,
    /// Through memory maps: no copy and no call, but an error of the device is a signal that ends the process.
    Map,
}

/// The LSNs of the commits that a block holds samples of, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LsnRange {
    /// The first.
    pub(crate) first: u64,
    /// The last.
    pub(crate) last: u64,
}

/// What is known of a block without reading more than its footer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockMeta {
    /// The database that wrote it.
    pub(crate) database_id: [u8; 16],
    /// Its file number, never given twice.
    pub(crate) number: u64,
    /// How often its samples were merged.
    pub(crate) level: u8,
    /// Time of the earliest sample, in nanoseconds.
    pub(crate) min_time: i64,
    /// Time of the latest sample, in nanoseconds.
    pub(crate) max_time: i64,
    /// The first LSN of its range.
    pub(crate) first_lsn: u64,
    /// The last LSN of its range.
    pub(crate) last_lsn: u64,
    /// How many series.
    pub(crate) series_count: u32,
    /// How many pages.
    pub(crate) page_count: u64,
    /// How many samples.
    pub(crate) sample_count: u64,
    /// Size of the file, in bytes.
    pub(crate) size: u64,
}

impl BlockMeta {
    fn new(footer: &format::Footer, size: u64) -> Self {
        BlockMeta {
            database_id: footer.database_id,
            number: footer.number,
            level: footer.level,
            min_time: footer.min_time,
            max_time: footer.max_time,
            first_lsn: footer.first_lsn,
            last_lsn: footer.last_lsn,
            series_count: footer.series_count,
            page_count: footer.page_count,
            sample_count: footer.sample_count,
            size,
        }
    }
}

/// Where one part of a block lies, for `inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockPart {
    /// What it is.
    pub(crate) name: &'static str,
    /// Bytes of the file.
    pub(crate) bytes: Range<u64>,
}

/// Gives bytes to the smaller decoders, for fuzzing; each takes or refuses them.
pub(crate) fn decode_parts(bytes: &[u8], series_count: u32) {
    let _ = format::GroupTable::decode(bytes, series_count);
    let _ = bounds::Bounds::decode(bytes);
    let _ = crate::index::read_postings(bytes, series_count);
}
