//! The directory of a group: for each series its type and pages, each with where its times and values lie
//! and its aggregate. Short values lie in it.
//!
//! [`GroupWriter`] is filled by the block writer; [`Group`] is what the block reader hands out. Layout in
//! `docs/format.md`, "Directories".

use std::ops::Range;

use hashbrown::HashMap;

use crate::block::columns::Found;
use crate::block::format::{GROUP_PAGE_COUNT, GROUP_SERIES_COUNT_MAX, INLINE_SIZE_MAX, Section};
use crate::chunk::{
    Context, EncodedPage, Encoding, PageMeta, SharedColumn, TimesMeta, put_page_meta, read_page_meta,
};
use crate::codec::packed::{put_packed, read_packed};
use crate::codec::varint::{Reader, put_u32, put_uvarint};
use crate::error::{Error, Result};
use crate::model::ValueType;

/// Fewest bytes of a page record.
const RECORD_SIZE_MIN: usize = 2;

/// Collects the directory of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupWriter {
    types: Vec<u64>,
    page_counts: Vec<u64>,
    page_total: usize,
    shared: Vec<SharedColumn>,
    shared_crcs: Vec<u64>,
    shared_by_offset: HashMap<u64, u32>,
    records: Vec<u8>,
    values_end: u64,
    first_page: Option<PageMeta>,
    last_page: Option<PageMeta>,
}

/// Where the values of a page go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValuesPlace<'a> {
    /// Into the directory, or nowhere when constant.
    Inline(&'a [u8]),
    /// They were written to this place of the file.
    Stored(Section),
}

/// Whether values of this size lie in the directory.
pub(crate) fn is_inline(size: usize) -> bool {
    size <= INLINE_SIZE_MAX
}

impl GroupWriter {
    /// How many series there are.
    pub(crate) fn series_count(&self) -> usize {
        self.types.len()
    }

    /// Whether another series should go to the next group.
    pub(crate) fn is_full(&self) -> bool {
        self.series_count() == GROUP_SERIES_COUNT_MAX || self.page_total >= GROUP_PAGE_COUNT
    }

    /// Starts the next series.
    pub(crate) fn start_series(&mut self, value_type: ValueType) {
        self.types.push(value_type as u64);
        self.page_counts.push(0);
        self.last_page = None;
    }

    /// Adds a page to the series started last. `times` is where packed times were written, none for a line.
    pub(crate) fn put_page(
        &mut self,
        page: &EncodedPage,
        step: i64,
        times: Option<Found>,
        values: ValuesPlace<'_>,
    ) {
        let times = match times {
            None => TimesMeta::Affine { step },
            Some(found) => {
                let index = self.shared_index(&found);
                TimesMeta::Shared { index, absent: found.absent }
            }
        };
        let meta = PageMeta {
            min_time: page.min_time,
            max_time: page.max_time,
            times,
            encoding: page.encoding,
            values_size: page.values.len() as u32,
            aggregate: page.aggregate.clone(),
        };
        let context = context(self.first_page.as_ref(), self.last_page.as_ref());
        put_page_meta(&mut self.records, context, &meta, &self.shared);
        match values {
            ValuesPlace::Inline(bytes) => self.records.extend_from_slice(bytes),
            ValuesPlace::Stored(section) => {
                put_uvarint(&mut self.records, section.offset - self.values_end);
                put_u32(&mut self.records, section.crc);
                self.values_end = section.offset + section.size;
            }
        }
        if self.last_page.is_none() {
            self.first_page = Some(meta.clone());
        }
        self.last_page = Some(meta);
        self.page_total += 1;
        if let Some(count) = self.page_counts.last_mut() {
            *count += 1;
        }
    }

    fn shared_index(&mut self, found: &Found) -> u32 {
        let next = self.shared.len() as u32;
        let index = *self.shared_by_offset.entry(found.column.offset).or_insert(next);
        if index == next {
            self.shared.push(found.column);
            self.shared_crcs.push(u64::from(found.crc));
        }
        index
    }

    /// The bytes of the directory; begins the next group.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.records.len() + 64);
        put_packed(&mut out, &self.types);
        put_packed(&mut out, &self.page_counts);
        put_uvarint(&mut out, self.shared.len() as u64);
        let mut put_column = |number: fn(&SharedColumn) -> u64| {
            put_packed(&mut out, &self.shared.iter().map(number).collect::<Vec<_>>());
        };
        put_column(|column| column.offset);
        put_column(|column| u64::from(column.size));
        put_column(|column| u64::from(column.count));
        put_column(|column| column.min_time as u64);
        put_column(|column| column.max_time.wrapping_sub(column.min_time) as u64);
        put_packed(&mut out, &self.shared_crcs);
        out.extend_from_slice(&self.records);
        *self = GroupWriter::default();
        out
    }
}

/// What a record is written against: the page before it, else the first page of the series before.
fn context<'a>(first_page: Option<&'a PageMeta>, last_page: Option<&'a PageMeta>) -> Context<'a> {
    match (last_page, first_page) {
        (Some(last), _) => Context::After(last),
        (None, Some(first)) => Context::Beside(first),
        (None, None) => Context::Start,
    }
}

/// One page of a series in a block.
#[derive(Clone, Debug)]
pub(crate) struct PageEntry {
    /// Times, count, encoding and aggregate.
    pub(crate) meta: PageMeta,
    pub(super) values: ValuesEntry,
}

/// Where the values of a page lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum ValuesEntry {
    /// In the group, from this byte on.
    Inline(u32),
    /// In the file.
    Stored { offset: u64, crc: u32 },
}

/// The directory of 64 series or fewer, decoded.
#[derive(Debug)]
pub(crate) struct Group {
    first: u32,
    types: Vec<ValueType>,
    /// Where the pages of each series end in `pages`.
    ends: Vec<u32>,
    pages: Vec<PageEntry>,
    shared: Vec<SharedColumn>,
    shared_crcs: Vec<u32>,
    inline: Vec<u8>,
}

impl Group {
    /// Reads the checked bytes of a directory of the series `ordinals`.
    ///
    /// # Errors
    /// `Corruption` when it says what no writer writes: pages that meet, no page, unknown types.
    pub(crate) fn decode(bytes: &[u8], ordinals: Range<u32>) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut column = Vec::new();
        read_packed(&mut reader, ordinals.len(), &mut column)?;
        let types = column.iter().map(|number| value_type(*number)).collect::<Result<Vec<_>>>()?;
        read_packed(&mut reader, ordinals.len(), &mut column)?;
        let page_counts = std::mem::take(&mut column);
        let page_total = total(&page_counts, reader.remaining() / RECORD_SIZE_MIN)?;
        let (shared, shared_crcs) = read_shared(&mut reader, page_total)?;
        let mut group = Group {
            first: ordinals.start,
            ends: Vec::with_capacity(types.len()),
            types,
            pages: Vec::with_capacity(page_total),
            shared,
            shared_crcs,
            inline: Vec::new(),
        };
        let mut values_end = 0;
        for (value_type, count) in group.types.clone().into_iter().zip(page_counts) {
            group.read_series(&mut reader, value_type, count, &mut values_end)?;
        }
        reader.finish()?;
        Ok(group)
    }

    fn read_series(
        &mut self,
        reader: &mut Reader<'_>,
        value_type: ValueType,
        count: u64,
        values_end: &mut u64,
    ) -> Result<()> {
        let start = self.pages.len();
        let series_before = self.ends.len().checked_sub(1).map(|index| self.range(index).start);
        for index in 0..count {
            let first = series_before.and_then(|first| self.pages.get(first)).map(|page| &page.meta);
            let last = if index == 0 { None } else { self.pages.last().map(|page| &page.meta) };
            let meta = read_page_meta(reader, context(first, last), value_type, &self.shared)?;
            if last.is_some_and(|last| last.max_time >= meta.min_time) {
                return Err(Error::corrupt("the pages of a series meet in time"));
            }
            let values = self.read_values_entry(reader, &meta, values_end)?;
            self.pages.push(PageEntry { meta, values });
        }
        debug_assert_eq!(self.pages.len() - start, count as usize);
        self.ends.push(self.pages.len() as u32);
        Ok(())
    }

    fn read_values_entry(
        &mut self,
        reader: &mut Reader<'_>,
        meta: &PageMeta,
        end: &mut u64,
    ) -> Result<ValuesEntry> {
        let size = meta.values_size as usize;
        if meta.encoding == Encoding::Constant || is_inline(size) {
            let at = self.inline.len() as u32;
            self.inline.extend_from_slice(reader.bytes(size)?);
            return Ok(ValuesEntry::Inline(at));
        }
        let offset = end.checked_add(reader.uvarint()?).ok_or_else(outside)?;
        *end = offset.checked_add(u64::from(meta.values_size)).ok_or_else(outside)?;
        Ok(ValuesEntry::Stored { offset, crc: reader.u32()? })
    }

    /// Ordinals of the series it holds.
    pub(crate) fn ordinals(&self) -> Range<u32> {
        self.first..self.first + self.types.len() as u32
    }

    /// Type and pages of a series of the group; none for another series. Pages rise in time.
    pub(crate) fn series(&self, ordinal: u32) -> Option<(ValueType, &[PageEntry])> {
        let index = ordinal.checked_sub(self.first)? as usize;
        let value_type = *self.types.get(index)?;
        Some((value_type, self.pages.get(self.range(index))?))
    }

    fn range(&self, index: usize) -> Range<usize> {
        let end = |index: usize| self.ends.get(index).map_or(0, |end| *end as usize);
        index.checked_sub(1).map_or(0, end)..end(index)
    }

    /// Where a shared time column lies, and how many times it has.
    pub(super) fn shared(&self, index: u32) -> Result<(SharedColumn, Section)> {
        let column = self.shared.get(index as usize);
        let crc = self.shared_crcs.get(index as usize);
        let (column, crc) = column.zip(crc).ok_or_else(outside)?;
        Ok((*column, Section { offset: column.offset, size: u64::from(column.size), crc: *crc }))
    }

    /// The values of a page that lie in the group.
    pub(super) fn inline_values(&self, at: u32, size: u32) -> Result<&[u8]> {
        let at = at as usize;
        self.inline.get(at..at + size as usize).ok_or_else(outside)
    }

    /// How many bytes of memory it takes.
    pub(crate) fn size(&self) -> usize {
        let absent = |page: &PageEntry| match &page.meta.times {
            TimesMeta::Shared { absent, .. } => absent.capacity() * 2,
            TimesMeta::Affine { .. } => 0,
        };
        size_of::<Self>()
            + self.types.capacity() * 5
            + self.pages.capacity() * size_of::<PageEntry>()
            + self.pages.iter().map(absent).sum::<usize>()
            + self.shared.capacity() * (size_of::<SharedColumn>() + 4)
            + self.inline.capacity()
    }
}

fn value_type(number: u64) -> Result<ValueType> {
    let found = u8::try_from(number).ok().and_then(ValueType::from_number);
    found.ok_or_else(|| Error::corrupt(format!("a series has values of the unknown type {number}")))
}

/// How many pages there are together: at least one for each series, at most `max`.
fn total(page_counts: &[u64], max: usize) -> Result<usize> {
    let sum = page_counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count).filter(|_| *count > 0));
    let sum = sum.and_then(|sum| usize::try_from(sum).ok()).filter(|sum| *sum <= max);
    sum.ok_or_else(|| Error::corrupt("the numbers of pages do not fit the directory"))
}

fn read_shared(reader: &mut Reader<'_>, count_max: usize) -> Result<(Vec<SharedColumn>, Vec<u32>)> {
    let count = reader.uvarint_max(count_max, "number of shared time columns")?;
    let mut column = || -> Result<Vec<u64>> {
        let mut values = Vec::new();
        read_packed(reader, count, &mut values)?;
        Ok(values)
    };
    let (offsets, sizes, counts) = (column()?, column()?, column()?);
    let (min_times, spans, crcs) = (column()?, column()?, column()?);
    let small = |number: u64| u32::try_from(number).map_err(|_| outside());
    let mut shared = Vec::with_capacity(count);
    for (((offset, size), count), (min, span)) in
        offsets.into_iter().zip(sizes).zip(counts).zip(min_times.into_iter().zip(spans))
    {
        let (min_time, max_time) = (min as i64, (min as i64).wrapping_add(span as i64));
        shared.push(SharedColumn { offset, size: small(size)?, count: small(count)?, min_time, max_time });
    }
    Ok((shared, crcs.into_iter().map(small).collect::<Result<_>>()?))
}

#[cold]
fn outside() -> Error {
    Error::corrupt("the directory points outside the block")
}
