//! Reads blocks: series by selector, directories by group, pages by entry.
//!
//! Called by queries, compaction and tools, from any number of threads. Opening reads header, bounds and
//! footer; all else is read when it is first asked for, its CRC checked before anything looks at it, and
//! kept in the [`Cache`] that all blocks share. Pages are read and checked every time: a checksum takes a
//! tenth of a microsecond.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use crate::block::bounds::Bounds;
use crate::block::cache::{CacheKey, ClockCache};
use crate::block::directory::{Group, PageEntry, ValuesEntry};
use crate::block::format::{
    FOOTER_SIZE, Footer, GroupTable, HEADER_SIZE, Header, Section, VERSION, check_crc, decode_header,
};
use crate::block::{BlockMeta, BlockPart, ReadMode};
use crate::chunk::times::{TimeColumnRef, decode_times, remove_positions};
use crate::chunk::{TimesMeta, decode_values};
use crate::error::{Error, Result};
use crate::fs::{Map, ReadFile};
use crate::index::{Index, IndexSections};
use crate::model::{Column, Selector, SeriesKey, ValueType};

/// What blocks keep in memory, under one cap.
pub(crate) type Cache = ClockCache<Cached>;

/// One thing that a block keeps.
#[derive(Clone, Debug)]
pub(crate) enum Cached {
    /// The table of groups.
    Table(Arc<GroupTable>),
    /// Symbols and postings.
    Index(Arc<Index>),
    /// The directory of a group.
    Group(Arc<Group>),
    /// The keys of a group.
    Keys(Arc<GroupKeys>),
    /// A shared time column, by its offset.
    Times(Arc<[i64]>),
    /// The key of one series, by its ordinal.
    Key(SeriesKey),
}

const KIND_TABLE: u8 = 0;
const KIND_INDEX: u8 = 1;
const KIND_GROUP: u8 = 2;
const KIND_KEYS: u8 = 3;
const KIND_TIMES: u8 = 4;
const KIND_KEY: u8 = 5;

/// So many bytes of the end of the file are read at once when opening: footer and, mostly, bounds.
const TAIL_SIZE: u64 = 4096;

/// Of so many series of a group the keys are read without those of all others.
const FEW_KEYS_COUNT_MAX: usize = 8;

/// The keys of a group's series.
#[derive(Debug)]
pub(crate) struct GroupKeys {
    first: u32,
    keys: Vec<SeriesKey>,
}

impl GroupKeys {
    pub(super) fn new(first: u32, keys: Vec<SeriesKey>) -> Self {
        GroupKeys { first, keys }
    }

    /// The key of a series of the group.
    pub(crate) fn get(&self, ordinal: u32) -> Option<&SeriesKey> {
        self.keys.get(ordinal.checked_sub(self.first)? as usize)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.keys.iter().map(key_size).sum::<usize>()
    }
}

fn key_size(key: &SeriesKey) -> usize {
    key.as_bytes().len() + 2 * size_of::<usize>() + size_of::<SeriesKey>()
}

/// The pages of one series in one block.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    group: Arc<Group>,
    ordinal: u32,
}

impl Chunk {
    /// Type of the values.
    pub(crate) fn value_type(&self) -> ValueType {
        self.series().0
    }

    /// The pages, rising in time; they do not meet.
    pub(crate) fn pages(&self) -> &[PageEntry] {
        self.series().1
    }

    /// The group that holds it, for reading its pages.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    fn series(&self) -> (ValueType, &[PageEntry]) {
        // The group was looked up by the ordinal.
        self.group.series(self.ordinal).unwrap_or((ValueType::F64, &[]))
    }
}

/// An open block.
#[derive(Debug)]
pub(crate) struct BlockReader {
    file: Arc<dyn ReadFile>,
    map: Option<Map>,
    file_size: u64,
    footer: Footer,
    meta: BlockMeta,
    bounds: Bounds,
    cache: Arc<Cache>,
    owner: u64,
}

impl Drop for BlockReader {
    fn drop(&mut self) {
        self.cache.forget(self.owner);
    }
}

impl BlockReader {
    /// Opens a block: reads header, footer and bounds.
    ///
    /// # Errors
    /// `Corruption` when they are damaged, `UnsupportedVersion`, `Io`.
    pub(crate) fn open(file: Arc<dyn ReadFile>, mode: ReadMode, cache: Arc<Cache>) -> Result<Self> {
        let file_size = file.size()?;
        let database_id = read_header(&*file, file_size)?;
        let tail_start = file_size.saturating_sub(TAIL_SIZE);
        let mut tail = vec![0; (file_size - tail_start) as usize];
        file.read_exact_at(&mut tail, tail_start)?;
        let footer_start = file_size - FOOTER_SIZE as u64;
        let in_footer = |error: Error| error.at(file.path(), footer_start);
        let footer = tail.last_chunk().ok_or_else(|| in_footer(Error::corrupt("the file has no footer")))?;
        let footer = Footer::decode(footer, file_size).map_err(in_footer)?;
        if footer.database_id != database_id {
            return Err(in_footer(Error::corrupt("header and footer are of different databases")));
        }
        let map = match mode {
            ReadMode::Pread => None,
            ReadMode::Map => file.map()?.filter(|map| map.len() as u64 == file_size),
        };
        let owner = cache.new_owner();
        let meta = BlockMeta::new(&footer, file_size);
        let bounds = Bounds::default();
        let mut reader = BlockReader { file, map, file_size, footer, meta, bounds, cache, owner };
        reader.bounds = reader.read_bounds(&tail, tail_start)?;
        Ok(reader)
    }

    /// What the footer says.
    pub(crate) fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// The path the file was opened by.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether a series of the block can satisfy `selector`, without reading: false is certain.
    pub(crate) fn may_match(&self, selector: &Selector) -> bool {
        self.bounds.may_match(selector)
    }

    /// The ordinals of the series that satisfy `selector`, sorted.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn select(&self, selector: &Selector) -> Result<Vec<u32>> {
        if !self.may_match(selector) {
            return Ok(Vec::new());
        }
        self.index()?.select(selector).map_err(|error| self.damaged(self.footer.sections.postings, error))
    }

    /// All tag keys, sorted, each with its number of series; the metric name is `__name__`.
    pub(crate) fn tag_keys(&self) -> Result<Vec<(String, usize)>> {
        self.index()?.tag_keys().map_err(|error| self.damaged(self.footer.sections.postings, error))
    }

    /// The values of a tag key, sorted, each with its number of series.
    pub(crate) fn tag_values(&self, key: &str) -> Result<Vec<(String, usize)>> {
        self.index()?.tag_values(key).map_err(|error| self.damaged(self.footer.sections.postings, error))
    }

    /// How many groups there are.
    pub(crate) fn group_count(&self) -> usize {
        self.footer.group_count as usize
    }

    /// The directory of a group.
    ///
    /// # Errors
    /// `Corruption`, `Io`; `InvalidInput` for a group that does not exist.
    pub(crate) fn group(&self, group: usize) -> Result<Arc<Group>> {
        let kept = self.cached(KIND_GROUP, group as u64);
        if let Some(Cached::Group(group)) = kept {
            return Ok(group);
        }
        let decoded = Arc::new(self.read_group(&*self.table()?, group)?);
        self.keep(KIND_GROUP, group as u64, Cached::Group(decoded.clone()), decoded.size());
        Ok(decoded)
    }

    /// The keys of a group.
    ///
    /// # Errors
    /// As [`BlockReader::group`].
    pub(crate) fn keys(&self, group: usize) -> Result<Arc<GroupKeys>> {
        if let Some(Cached::Keys(keys)) = self.cached(KIND_KEYS, group as u64) {
            return Ok(keys);
        }
        let keys = Arc::new(self.read_keys(&*self.table()?, &*self.index()?, group)?);
        self.keep(KIND_KEYS, group as u64, Cached::Keys(keys.clone()), keys.size());
        Ok(keys)
    }

    /// The keys of some series of a group, whose ordinals rise: of few, only their own symbols are looked up, and they
    /// are kept by themselves.
    ///
    /// # Errors
    /// As [`BlockReader::group`].
    pub(crate) fn some_keys(&self, group: usize, ordinals: &[u32]) -> Result<Vec<SeriesKey>> {
        let pick = |keys: &GroupKeys| {
            let key = |ordinal: &u32| keys.get(*ordinal).cloned().ok_or_else(|| no_series(*ordinal));
            ordinals.iter().map(key).collect()
        };
        if let Some(Cached::Keys(keys)) = self.cached(KIND_KEYS, group as u64) {
            return pick(&keys);
        }
        if ordinals.len() > FEW_KEYS_COUNT_MAX {
            return pick(&*self.keys(group)?);
        }
        let kept = ordinals.iter().map(|ordinal| match self.cached(KIND_KEY, u64::from(*ordinal)) {
            Some(Cached::Key(key)) => Some(key),
            _ => None,
        });
        if let Some(keys) = kept.collect() {
            return Ok(keys);
        }
        let (table, index) = (self.table()?, self.index()?);
        let section = table.entry(group).ok_or_else(|| no_group(group))?.keys;
        let bytes = self.read("keys", section)?;
        let all = table.series_of(group);
        let wanted: Vec<usize> =
            ordinals.iter().map(|ordinal| ordinal.wrapping_sub(all.start) as usize).collect();
        if let Some(other) = ordinals.iter().find(|ordinal| !all.contains(ordinal)) {
            return Err(no_series(*other));
        }
        let read = index.some_keys(&bytes, all.len(), &wanted);
        let keys = read.map_err(|error| self.damaged(section, error))?;
        for (ordinal, key) in ordinals.iter().zip(&keys) {
            self.keep(KIND_KEY, u64::from(*ordinal), Cached::Key(key.clone()), key_size(key));
        }
        Ok(keys)
    }

    /// The key of a series.
    ///
    /// # Errors
    /// As [`BlockReader::group`].
    pub(crate) fn key(&self, ordinal: u32) -> Result<SeriesKey> {
        let keys = self.keys(self.table()?.group_of(ordinal))?;
        keys.get(ordinal).cloned().ok_or_else(|| no_series(ordinal))
    }

    /// The pages of a series.
    ///
    /// # Errors
    /// As [`BlockReader::group`].
    pub(crate) fn chunk(&self, ordinal: u32) -> Result<Chunk> {
        let group = self.group(self.table()?.group_of(ordinal))?;
        if !group.ordinals().contains(&ordinal) {
            return Err(no_series(ordinal));
        }
        Ok(Chunk { group, ordinal })
    }

    /// The group that holds a series, for those who walk many.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn group_of(&self, ordinal: u32) -> Result<usize> {
        Ok(self.table()?.group_of(ordinal))
    }

    /// The ordinal behind the last series of a group.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn group_end(&self, group: usize) -> Result<u32> {
        Ok(self.table()?.series_of(group).end)
    }

    /// Appends the times of a page of `group`.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn read_times(&self, group: &Group, page: &PageEntry, out: &mut Vec<i64>) -> Result<()> {
        let count = page.meta.aggregate.count;
        match &page.meta.times {
            TimesMeta::Affine { step } => {
                let column = TimeColumnRef::Affine { start: page.meta.min_time, step: *step };
                decode_times(count, column, out).map_err(|error| error.at(self.path(), 0))
            }
            TimesMeta::Shared { index, absent } => {
                let (section, times) = self.shared_times(group, *index)?;
                let from = out.len();
                out.extend_from_slice(&times);
                if !absent.is_empty() {
                    remove_positions(out, from, absent);
                }
                if out.len() - from == count as usize {
                    return Ok(());
                }
                Err(self.damaged(section, Error::corrupt("a shared time column has another number of times")))
            }
        }
    }

    /// Appends the values of a page of `group` to `out`, which is of the series' type.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn read_values(&self, group: &Group, page: &PageEntry, out: &mut Column) -> Result<()> {
        let bytes = self.value_bytes(group, page)?;
        decode_values(page.meta.encoding, &page.meta.aggregate, &bytes, out)
            .map_err(|error| self.damaged(values_section(page), error))
    }

    /// Where the parts of the file lie, in order, for `inspect`.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub(crate) fn parts(&self) -> Result<Vec<BlockPart>> {
        let part =
            |name, section: Section| BlockPart { name, bytes: section.offset..section.offset + section.size };
        let mut parts = vec![BlockPart { name: "header", bytes: 0..HEADER_SIZE as u64 }];
        let table = self.table()?;
        for entry in (0..table.len()).filter_map(|group| table.entry(group)) {
            parts.push(part("directory", entry.directory));
            parts.push(part("keys", entry.keys));
        }
        parts.extend(self.footer.sections.all().map(|(name, section)| part(name, section)));
        parts.push(BlockPart { name: "footer", bytes: self.file_size - FOOTER_SIZE as u64..self.file_size });
        parts.sort_by_key(|part| part.bytes.start);
        Ok(parts)
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Reads a section whole and checks it.
    pub(super) fn read(&self, what: &str, section: Section) -> Result<Cow<'_, [u8]>> {
        if !section.is_inside(self.file_size) {
            return Err(self.damaged(section, Error::corrupt(format!("{what} lies outside the file"))));
        }
        let bytes = match &self.map {
            Some(map) => {
                let (start, end) = (section.offset as usize, (section.offset + section.size) as usize);
                Cow::Borrowed(map.get(start..end).unwrap_or_default())
            }
            None => {
                let mut bytes = vec![0; section.size as usize];
                self.file.read_exact_at(&mut bytes, section.offset)?;
                Cow::Owned(bytes)
            }
        };
        check_crc(what, &bytes, section.crc).map_err(|error| self.damaged(section, error))?;
        Ok(bytes)
    }

    /// Whether sections are borrowed from a map.
    pub(super) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// Reads `size` bytes from `start`, or as many as there are; `wanted` is among them.
    pub(super) fn read_raw(&self, out: &mut Vec<u8>, start: u64, size: usize, wanted: Section) -> Result<()> {
        if !wanted.is_inside(self.file_size) {
            return Err(self.damaged(wanted, Error::corrupt("a section lies outside the file")));
        }
        let size = (self.file_size - start).min(size as u64) as usize;
        out.resize(size, 0);
        self.file.read_exact_at(out, start)
    }

    pub(super) fn read_table(&self) -> Result<GroupTable> {
        let section = self.footer.sections.groups;
        let bytes = self.read("group table", section)?;
        GroupTable::decode(&bytes, self.footer.series_count).map_err(|error| self.damaged(section, error))
    }

    pub(super) fn read_index(&self) -> Result<Index> {
        let sections = self.footer.sections;
        let read = |what, section| Ok::<Arc<[u8]>, Error>(self.read(what, section)?.into());
        let parts = IndexSections {
            symbols: read("symbols", sections.symbols)?,
            offsets: read("postings offsets", sections.offsets)?,
            postings: read("postings", sections.postings)?,
        };
        let index = Index::open(parts, self.footer.series_count);
        let index = index.map_err(|error| self.damaged(sections.symbols, error))?;
        if index.symbol_count() != self.footer.symbol_count as usize {
            return Err(self.damaged(sections.symbols, Error::corrupt("the number of symbols is another")));
        }
        Ok(index)
    }

    pub(super) fn read_group(&self, table: &GroupTable, group: usize) -> Result<Group> {
        let section = table.entry(group).ok_or_else(|| no_group(group))?.directory;
        let bytes = self.read("directory", section)?;
        Group::decode(&bytes, table.series_of(group)).map_err(|error| self.damaged(section, error))
    }

    pub(super) fn read_keys(&self, table: &GroupTable, index: &Index, group: usize) -> Result<GroupKeys> {
        let section = table.entry(group).ok_or_else(|| no_group(group))?.keys;
        let bytes = self.read("keys", section)?;
        let ordinals = table.series_of(group);
        let keys = index.keys(&bytes, ordinals.len()).map_err(|error| self.damaged(section, error))?;
        Ok(GroupKeys { first: ordinals.start, keys })
    }

    fn read_bounds(&self, tail: &[u8], tail_start: u64) -> Result<Bounds> {
        let section = self.footer.sections.bounds;
        let start = section.offset.checked_sub(tail_start).map(|start| start as usize);
        let bytes = match start.and_then(|start| tail.get(start..start + section.size as usize)) {
            Some(bytes) => {
                check_crc("bounds", bytes, section.crc).map_err(|error| self.damaged(section, error))?;
                Cow::Borrowed(bytes)
            }
            None => self.read("bounds", section)?,
        };
        Bounds::decode(&bytes).map_err(|error| self.damaged(section, error))
    }

    fn table(&self) -> Result<Arc<GroupTable>> {
        if let Some(Cached::Table(table)) = self.cached(KIND_TABLE, 0) {
            return Ok(table);
        }
        let table = Arc::new(self.read_table()?);
        self.keep(KIND_TABLE, 0, Cached::Table(table.clone()), table.size());
        Ok(table)
    }

    fn index(&self) -> Result<Arc<Index>> {
        if let Some(Cached::Index(index)) = self.cached(KIND_INDEX, 0) {
            return Ok(index);
        }
        let index = Arc::new(self.read_index()?);
        self.keep(KIND_INDEX, 0, Cached::Index(index.clone()), index.size());
        Ok(index)
    }

    fn shared_times(&self, group: &Group, index: u32) -> Result<(Section, Arc<[i64]>)> {
        let (column, section) = group.shared(index)?;
        if let Some(Cached::Times(times)) = self.cached(KIND_TIMES, column.offset) {
            return Ok((section, times));
        }
        let bytes = self.read("time column", section)?;
        let mut times = Vec::new();
        decode_times(column.count, TimeColumnRef::Packed(&bytes), &mut times)
            .map_err(|error| self.damaged(section, error))?;
        let times: Arc<[i64]> = times.into();
        self.keep(KIND_TIMES, column.offset, Cached::Times(times.clone()), size_of_val(&*times));
        Ok((section, times))
    }

    fn value_bytes<'a>(&'a self, group: &'a Group, page: &PageEntry) -> Result<Cow<'a, [u8]>> {
        match page.values {
            ValuesEntry::Inline(at) => Ok(Cow::Borrowed(group.inline_values(at, page.meta.values_size)?)),
            ValuesEntry::Stored { .. } => self.read("values of a page", values_section(page)),
        }
    }

    fn cached(&self, kind: u8, index: u64) -> Option<Cached> {
        self.cache.get(CacheKey { owner: self.owner, kind, index })
    }

    fn keep(&self, kind: u8, index: u64, value: Cached, size: usize) {
        self.cache.insert(CacheKey { owner: self.owner, kind, index }, value, size);
    }

    /// Says where the damage is.
    fn damaged(&self, section: Section, error: Error) -> Error {
        error.at(self.path(), section.offset)
    }
}

/// Where the values of a page lie in the file; nowhere when they lie in the directory.
pub(super) fn values_section(page: &PageEntry) -> Section {
    match page.values {
        ValuesEntry::Inline(_) => Section::default(),
        ValuesEntry::Stored { offset, crc } => {
            Section { offset, size: u64::from(page.meta.values_size), crc }
        }
    }
}

/// Checks the header; returns the id of the database.
fn read_header(file: &dyn ReadFile, file_size: u64) -> Result<[u8; 16]> {
    if file_size < (HEADER_SIZE + FOOTER_SIZE) as u64 {
        return Err(Error::corruption(file.path(), 0, format!("{file_size} bytes are no block")));
    }
    let mut header = [0; HEADER_SIZE];
    file.read_exact_at(&mut header, 0)?;
    match decode_header(&header).map_err(|error| error.at(file.path(), 0))? {
        Header::Known(database_id) => Ok(database_id),
        Header::Newer(version) => {
            Err(Error::unsupported_version(file.path(), u32::from(version), u32::from(VERSION)))
        }
    }
}

#[cold]
fn no_group(group: usize) -> Error {
    Error::invalid_input(format!("the block has no group {group}"))
}

#[cold]
fn no_series(ordinal: u32) -> Error {
    Error::invalid_input(format!("the block has no series {ordinal}"))
}
