//! Writes a block, front to back: pages and directories as they come, then keys, index and footer.
//!
//! Called by flush and compaction. Memory is bounded but for the index: some bytes for each tag of a series, and
//! every tag's text once. The file is a temporary one until the caller renames it; dropping the writer removes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::bounds::Bounds;
use crate::block::columns::{Found, PackedTimes, RecentColumns};
use crate::block::directory::{GroupWriter, ValuesPlace, is_inline};
use crate::block::format::{Footer, GroupEntry, Section, Sections, encode_header};
use crate::block::{BlockMeta, LsnRange};
use crate::chunk::{EncodedPage, TimeColumn};
use crate::error::{Error, Result};
use crate::fs::{Fs, WriteFile};
use crate::index::{IndexWriter, SortedIndex};
use crate::model::{SeriesKey, ValueType};

/// Bytes are handed to the operating system in pieces of about this size.
const WRITE_SIZE: usize = 256 << 10;

/// What a block says of itself, and the writer cannot know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockOptions {
    /// The database.
    pub(crate) database_id: [u8; 16],
    /// The block's file number.
    pub(crate) number: u64,
    /// How often its samples were merged.
    pub(crate) level: u8,
}

/// A block being written.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    out: Output,
    footer: Footer,
    index: IndexWriter,
    columns: RecentColumns,
    group: GroupWriter,
    /// Groups that are complete, their keys excepted.
    groups: Vec<GroupEntry>,
    series: Option<Series>,
}

/// The series whose pages come now.
#[derive(Debug)]
struct Series {
    key: SeriesKey,
    value_type: ValueType,
    /// Time of its last sample; none before the first page.
    max_time: Option<i64>,
}

impl BlockWriter {
    /// Creates the file `path`, which must not exist.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn create(fs: Arc<dyn Fs>, path: &Path, options: BlockOptions) -> Result<Self> {
        let BlockOptions { database_id, number, level } = options;
        let mut out = Output::create(fs, path)?;
        out.put(&encode_header(database_id))?;
        let footer = Footer {
            database_id,
            number,
            level,
            min_time: i64::MAX,
            max_time: i64::MIN,
            ..Footer::default()
        };
        Ok(BlockWriter {
            out,
            footer,
            index: IndexWriter::default(),
            columns: RecentColumns::default(),
            group: GroupWriter::default(),
            groups: Vec::new(),
            series: None,
        })
    }

    /// Starts the next series, in ascending order of (key, type). One that gets no page is not in the block.
    ///
    /// # Errors
    /// `InvalidInput` when it is not above the last one.
    pub(crate) fn series(&mut self, key: &SeriesKey, value_type: ValueType) -> Result<()> {
        if self.series.as_ref().is_some_and(|last| (&last.key, last.value_type) >= (key, value_type)) {
            return Err(Error::invalid_input(format!(
                "series {key} is not above the one before it in the block"
            )));
        }
        self.series = Some(Series { key: key.clone(), value_type, max_time: None });
        Ok(())
    }

    /// Adds a page to the series started last; pages rise in time and do not meet.
    ///
    /// # Errors
    /// `InvalidInput` when they do, or before the first series; `Io`; `LimitExceeded` for too many series.
    /// After an error the block cannot be finished.
    pub(crate) fn page(&mut self, page: &EncodedPage) -> Result<()> {
        let series =
            self.series.as_mut().ok_or_else(|| Error::invalid_input("a page comes before its series"))?;
        if series.max_time.is_some_and(|last| last >= page.min_time) || page.min_time > page.max_time {
            return Err(Error::invalid_input(format!("pages of series {} meet in time", series.key)));
        }
        if series.max_time.replace(page.max_time).is_none() {
            self.start_series()?;
        }
        let (step, times) = match &page.times {
            TimeColumn::Affine { step, .. } => (*step, None),
            TimeColumn::Packed(bytes) => (0, Some(self.write_times(page, bytes)?)),
        };
        let values = match &page.values {
            bytes if is_inline(bytes.len()) => ValuesPlace::Inline(bytes),
            bytes => ValuesPlace::Stored(self.out.put(bytes)?),
        };
        self.group.put_page(page, step, times, values);
        let footer = &mut self.footer;
        footer.min_time = footer.min_time.min(page.min_time);
        footer.max_time = footer.max_time.max(page.max_time);
        footer.page_count += 1;
        footer.sample_count += u64::from(page.count);
        Ok(())
    }

    /// Writes what is left and syncs the file; its directory is for the caller to sync, after renaming.
    ///
    /// # Errors
    /// `InvalidInput` for a block without samples, `Io`, `LimitExceeded`; then the file is removed.
    pub(crate) fn finish(mut self, lsns: LsnRange) -> Result<BlockMeta> {
        if self.footer.sample_count == 0 {
            return Err(Error::invalid_input("a block holds at least one sample"));
        }
        self.finish_group()?;
        let index = std::mem::take(&mut self.index);
        let footer = &mut self.footer;
        footer.first_lsn = lsns.first;
        footer.last_lsn = lsns.last;
        footer.series_count = index.series_count();
        footer.group_count = self.groups.len() as u32;
        let index = index.sort()?;
        footer.symbol_count = index.symbol_count();
        let sections = self.write_index(&index)?;
        self.footer.sections = sections;
        self.out.put(&self.footer.encode())?;
        let size = self.out.finish()?;
        Ok(BlockMeta::new(&self.footer, size))
    }

    /// Enters the current series into group and index.
    fn start_series(&mut self) -> Result<()> {
        if self.group.is_full() {
            self.finish_group()?;
        }
        if let Some(series) = &self.series {
            self.index.add(&series.key)?;
            self.group.start_series(series.value_type);
        }
        Ok(())
    }

    fn write_times(&mut self, page: &EncodedPage, bytes: &[u8]) -> Result<Found> {
        let EncodedPage { count, min_time, max_time, .. } = *page;
        let times = PackedTimes { bytes, count, min_time, max_time };
        if let Some(found) = self.columns.find(times)? {
            return Ok(found);
        }
        let section = self.out.put(bytes)?;
        Ok(self.columns.add(times, section))
    }

    fn finish_group(&mut self) -> Result<()> {
        let added = self.index.series_count() - self.group.series_count() as u32;
        let directory = self.out.put(&self.group.finish())?;
        self.groups.push(GroupEntry { first: added, directory, keys: Section::default() });
        Ok(())
    }

    fn write_index(&mut self, index: &SortedIndex) -> Result<Sections> {
        let ends = self.groups.iter().skip(1).map(|group| group.first).chain([self.footer.series_count]);
        let ends: Vec<u32> = ends.collect();
        let mut table = Vec::new();
        for (group, end) in self.groups.iter_mut().zip(ends) {
            group.keys = self.out.put(&index.encode_keys(group.first..end))?;
            group.put(&mut table)?;
        }
        let groups = self.out.put(&table)?;
        let symbols = self.out.put(&index.encode_symbols()?)?;
        let (postings, offsets) = index.encode_postings();
        let offsets = self.out.put(&offsets)?;
        let postings = self.out.put(&postings)?;
        // Behind all others, so that one read of the end of the file brings bounds and footer.
        let bounds = self.out.put(&Bounds::new(index.key_statistics()).encode())?;
        Ok(Sections { groups, symbols, offsets, postings, bounds })
    }
}

/// The file, written from front to back through a buffer; removed when it is dropped unfinished.
#[derive(Debug)]
struct Output {
    fs: Arc<dyn Fs>,
    file: Arc<dyn WriteFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes put so far, those in the buffer included.
    offset: u64,
    finished: bool,
}

impl Output {
    fn create(fs: Arc<dyn Fs>, path: &Path) -> Result<Self> {
        let file = fs.create(path)?;
        let buffer = Vec::with_capacity(WRITE_SIZE);
        Ok(Output { fs, file, path: path.to_owned(), buffer, offset: 0, finished: false })
    }

    /// Appends bytes and says where they lie.
    fn put(&mut self, bytes: &[u8]) -> Result<Section> {
        let section = Section { offset: self.offset, size: bytes.len() as u64, crc: crc32fast::hash(bytes) };
        if self.buffer.len() + bytes.len() > WRITE_SIZE {
            self.write_out()?;
        }
        if bytes.len() > WRITE_SIZE {
            self.file.write_at(bytes, self.offset)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.offset += bytes.len() as u64;
        Ok(section)
    }

    fn write_out(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_at(&self.buffer, self.offset - self.buffer.len() as u64)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Brings all to the device; says how large the file is.
    fn finish(&mut self) -> Result<u64> {
        self.write_out()?;
        self.file.sync()?;
        self.finished = true;
        Ok(self.offset)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed is found by its name, which is a temporary one, at the next open.
            let _ = self.fs.remove(&self.path);
        }
    }
}
