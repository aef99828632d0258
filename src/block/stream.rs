//! Reads a block from front to back, for a merge: in large pieces, and past the cache.
//!
//! What a merge reads it reads once. In the cache it would push out what queries need, and a block of short series
//! has more directories than the cache has room for.

use std::borrow::Cow;
use std::sync::Arc;

use crate::block::directory::{Group, PageEntry, ValuesEntry};
use crate::block::format::{GroupTable, Section, check_crc};
use crate::block::reader::{BlockReader, GroupKeys, values_section};
use crate::chunk::times::{TimeColumnRef, decode_times, encode_times, remove_positions};
use crate::chunk::{Effort, EncodedPage, TimeColumn, TimesMeta, decode_values};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::model::Column;

/// So many bytes are read at once.
const WINDOW_SIZE: usize = 256 << 10;

/// A piece of the file.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn get(&self, section: Section) -> Option<&[u8]> {
        let at = usize::try_from(section.offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(usize::try_from(section.size).ok()?)?)
    }
}

/// A block being read in order of its series.
#[derive(Debug)]
pub(crate) struct BlockStream<'b> {
    block: &'b BlockReader,
    table: GroupTable,
    index: Index,
    pages: Window,
    keys: Window,
}

impl<'b> BlockStream<'b> {
    /// Reads what is needed of the whole block: table and symbols.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn new(block: &'b BlockReader) -> Result<Self> {
        let (table, index) = (block.read_table()?, block.read_index()?);
        Ok(BlockStream { block, table, index, pages: Window::default(), keys: Window::default() })
    }

    /// The block.
    pub(crate) fn block(&self) -> &'b BlockReader {
        self.block
    }

    /// Directory and keys of a group.
    ///
    /// # Errors
    /// `Corruption`, `Io`; `InvalidInput` for a group that does not exist.
    pub(crate) fn group(&mut self, group: usize) -> Result<(Arc<Group>, GroupKeys)> {
        let entry = self.table.entry(group).ok_or_else(|| Error::invalid_input("there is no such group"))?;
        let (directory, keys, ordinals) = (entry.directory, entry.keys, self.table.series_of(group));
        // Pages lie before their directory, behind the one before.
        let before = group.checked_sub(1).and_then(|before| self.table.entry(before));
        let first_page = before.map_or(0, |before| before.directory.offset + before.directory.size);
        let near = directory.offset + directory.size <= first_page + WINDOW_SIZE as u64;
        if near && self.pages.get(directory).is_none() {
            fill(self.block, &mut self.pages, first_page, directory)?;
        }
        let damaged = |section: Section, error: Error| error.at(self.block.path(), section.offset);
        let bytes = read(self.block, &mut self.pages, "directory", directory)?;
        let decoded = Group::decode(&bytes, ordinals.clone()).map_err(|error| damaged(directory, error))?;
        let bytes = read(self.block, &mut self.keys, "keys", keys)?;
        let read = self.index.keys(&bytes, ordinals.len()).map_err(|error| damaged(keys, error))?;
        Ok((Arc::new(decoded), GroupKeys::new(ordinals.start, read)))
    }

    /// Appends times and values of a page of `group`.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn read_page(
        &mut self,
        group: &Group,
        page: &PageEntry,
        times: &mut Vec<i64>,
        values: &mut Column,
    ) -> Result<()> {
        self.read_times(group, page, times)?;
        let bytes = self.values(group, page)?;
        decode_values(page.meta.encoding, &page.meta.aggregate, &bytes, values)
            .map_err(|error| error.at(self.block.path(), values_section(page).offset))
    }

    /// A page as it was given to the writer: values are not decoded.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn raw_page(&mut self, group: &Group, page: &PageEntry) -> Result<EncodedPage> {
        let meta = &page.meta;
        let times = match &meta.times {
            TimesMeta::Affine { step } => TimeColumn::Affine { start: meta.min_time, step: *step },
            TimesMeta::Shared { index, absent } if absent.is_empty() => {
                let (_, section) = group.shared(*index)?;
                TimeColumn::Packed(read(self.block, &mut self.pages, "time column", section)?.into_owned())
            }
            TimesMeta::Shared { .. } => {
                let mut times = Vec::new();
                self.read_times(group, page, &mut times)?;
                encode_times(&times, Effort::Flush)
            }
        };
        Ok(EncodedPage {
            count: meta.aggregate.count,
            min_time: meta.min_time,
            max_time: meta.max_time,
            times,
            encoding: meta.encoding,
            values: self.values(group, page)?.into_owned(),
            aggregate: meta.aggregate.clone(),
        })
    }

    fn read_times(&mut self, group: &Group, page: &PageEntry, out: &mut Vec<i64>) -> Result<()> {
        let count = page.meta.aggregate.count;
        let from = out.len();
        match &page.meta.times {
            TimesMeta::Affine { step } => {
                let column = TimeColumnRef::Affine { start: page.meta.min_time, step: *step };
                decode_times(count, column, out).map_err(|error| error.at(self.block.path(), 0))
            }
            TimesMeta::Shared { index, absent } => {
                let (column, section) = group.shared(*index)?;
                let bytes = read(self.block, &mut self.pages, "time column", section)?;
                decode_times(column.count, TimeColumnRef::Packed(&bytes), out)
                    .map_err(|error| error.at(self.block.path(), section.offset))?;
                if !absent.is_empty() {
                    remove_positions(out, from, absent);
                }
                if out.len() - from == count as usize {
                    return Ok(());
                }
                let error = Error::corrupt("a shared time column has another number of times");
                Err(error.at(self.block.path(), section.offset))
            }
        }
    }

    fn values<'a>(&'a mut self, group: &'a Group, page: &PageEntry) -> Result<Cow<'a, [u8]>> {
        match page.values {
            ValuesEntry::Inline(at) => Ok(Cow::Borrowed(group.inline_values(at, page.meta.values_size)?)),
            ValuesEntry::Stored { .. } => {
                read(self.block, &mut self.pages, "values of a page", values_section(page))
            }
        }
    }
}

/// A section whose CRC is checked: of the window, which is moved there when need be.
fn read<'a>(
    block: &'a BlockReader,
    window: &'a mut Window,
    what: &str,
    section: Section,
) -> Result<Cow<'a, [u8]>> {
    if block.is_mapped() || section.size > WINDOW_SIZE as u64 {
        return block.read(what, section);
    }
    if window.get(section).is_none() {
        fill(block, window, section.offset, section)?;
    }
    let bytes = window.get(section).unwrap_or_default();
    check_crc(what, bytes, section.crc).map_err(|error| error.at(block.path(), section.offset))?;
    Ok(Cow::Borrowed(bytes))
}

/// Moves the window to `start`, so that it holds `wanted`.
fn fill(block: &BlockReader, window: &mut Window, start: u64, wanted: Section) -> Result<()> {
    window.start = start;
    block.read_raw(&mut window.bytes, start, WINDOW_SIZE, wanted)
}
