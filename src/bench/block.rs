//! Blocks, for `benches/block.rs` and the fuzz target of the same name.

use std::path::Path;
use std::sync::Arc;

use super::{Page, page_ends};
use crate::block::{
    BlockOptions, BlockReader, BlockWriter, Cache, Group, LsnRange, ReadMode, decode_parts, verify,
};
use crate::chunk::Ends;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Fs, MemoryFs};
use crate::model::{Column, Selector, SeriesKey};

/// Memory for what blocks keep, in bytes: all of a block of a million series.
const CACHE_SIZE_MAX: usize = 1 << 30;

/// Writes a block of these series, which ascend, to `path`; says how large it is.
///
/// # Errors
/// `Io` when it cannot be written there, `InvalidInput` when keys do not ascend.
pub fn write_block(
    path: &Path,
    series: impl IntoIterator<Item = (SeriesKey, Vec<i64>, Column)>,
    compact: bool,
) -> Result<u64> {
    let options = BlockOptions { database_id: [0; 16], number: 1, level: 0 };
    let mut writer = BlockWriter::create(Env::system().fs, path, options)?;
    for (key, times, values) in series {
        writer.series(&key, values.value_type())?;
        let mut start = 0;
        for end in page_ends(&times, &values) {
            writer.page(&Page::encode(&times, &values, start, end, compact).0)?;
            start = end;
        }
    }
    Ok(writer.finish(LsnRange { first: 1, last: 1 })?.size)
}

/// An open block.
#[derive(Debug)]
pub struct Block(BlockReader);

impl Block {
    /// Opens the block at `path`.
    ///
    /// # Errors
    /// Those of opening a block.
    pub fn open(path: &Path, mode: ReadMode) -> Result<Block> {
        let cache = Arc::new(Cache::new(CACHE_SIZE_MAX));
        Ok(Block(BlockReader::open(Env::system().fs.open(path)?, mode, cache)?))
    }

    /// The ordinals of the series that satisfy `selector`.
    ///
    /// # Errors
    /// Those of reading a block.
    pub fn select(&self, selector: &Selector) -> Result<Vec<u32>> {
        self.0.select(selector)
    }

    /// The key of a series.
    ///
    /// # Errors
    /// Those of reading a block.
    pub fn key(&self, ordinal: u32) -> Result<SeriesKey> {
        self.0.key(ordinal)
    }

    /// Appends the samples of a series, from the pages that meet `min..=max`.
    ///
    /// # Errors
    /// Those of reading a block.
    pub fn read(
        &self,
        ordinal: u32,
        (min, max): (i64, i64),
        times: &mut Vec<i64>,
        values: &mut Column,
    ) -> Result<()> {
        let chunk = self.0.chunk(ordinal)?;
        for page in chunk.pages().iter().filter(|page| page.meta.min_time <= max && page.meta.max_time >= min)
        {
            self.0.read_times(chunk.group(), page, times)?;
            self.0.read_values(chunk.group(), page, values)?;
        }
        Ok(())
    }

    /// Number and sum of all doubles, from aggregates where there are any.
    ///
    /// # Errors
    /// Those of reading a block.
    pub fn sum(&self) -> Result<(u64, f64)> {
        let (mut count, mut sum) = (0, 0.0);
        self.each_series(|pages| {
            for page in pages {
                count += u64::from(page.meta.aggregate.count);
                if let Ends::F64(summary) = &page.meta.aggregate.ends {
                    sum += summary.detail.as_ref().map_or(0.0, |detail| detail.sum.0);
                }
            }
        })?;
        Ok((count, sum))
    }

    /// The sum of the last value of every series of doubles.
    ///
    /// # Errors
    /// Those of reading a block.
    pub fn last_values(&self) -> Result<f64> {
        let mut sum = 0.0;
        self.each_series(|pages| {
            if let Some(Ends::F64(summary)) = pages.last().map(|page| &page.meta.aggregate.ends) {
                sum += summary.last;
            }
        })?;
        Ok(sum)
    }

    fn each_series(&self, mut visit: impl FnMut(&[crate::block::PageEntry])) -> Result<()> {
        for group in 0..self.0.group_count() {
            let group = self.0.group(group)?;
            group.ordinals().filter_map(|ordinal| group.series(ordinal)).for_each(|(_, pages)| visit(pages));
        }
        Ok(())
    }
}

/// Opens a file of these bytes on a simulated disk and reads all of it; says how much damage was found.
///
/// # Errors
/// `Corruption` or `UnsupportedVersion` when it does not even open.
pub fn damage_of(bytes: &[u8]) -> Result<usize> {
    let (disk, path) = (MemoryFs::new(0), Path::new("/block"));
    disk.create(path)?.write_at(bytes, 0)?;
    let block = BlockReader::open(disk.open(path)?, ReadMode::Pread, Arc::new(Cache::new(1 << 20)))?;
    block.select(&Selector::all()).map_or_else(only_corruption, |_| ());
    for (key, _) in block.tag_keys().unwrap_or_default() {
        block.tag_values(&key).map_or_else(only_corruption, |_| ());
    }
    let mut count = 0;
    verify(&block, &mut |damage| {
        only_corruption(damage.error);
        count += 1;
    })?;
    Ok(count)
}

fn only_corruption(error: Error) {
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
}

/// Gives bytes to the decoders that stand behind the checksums of a block; each takes or refuses them.
pub fn decode_anything(bytes: &[u8]) {
    let (Some(series_count), bytes) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return };
    let series_count = u32::from(*series_count);
    let _ = Group::decode(bytes, 0..series_count);
    decode_parts(bytes, series_count);
}
