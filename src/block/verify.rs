//! Checks a block whole: every checksum, every page against its aggregate, the index against the series.
//!
//! Called by `icecore verify` and before quarantine. Nothing comes from the cache, nothing is written, and
//! damage stops only what hangs on it.

use std::ops::Range;

use crate::block::directory::{Group, PageEntry};
use crate::block::format::GroupTable;
use crate::block::reader::{BlockReader, GroupKeys, values_section};
use crate::chunk::merge::{ColumnSlice, strictly_rises};
use crate::chunk::{Context, PageAggregate, PageMeta, TimesMeta, aggregate_of, put_page_meta};
use crate::error::{Error, ErrorKind, Result};
use crate::index::Index;
use crate::model::{Column, NAME_KEY, SeriesKey, ValueType};

/// Something that is damaged, and what it held.
#[derive(Debug)]
pub(crate) struct Damage {
    /// What is wrong, in which file, at which offset.
    pub(crate) error: Error,
    /// Ordinals of the series concerned.
    pub(crate) ordinals: Range<u32>,
    /// The series, where it is one and its key could be read.
    pub(crate) series: Option<SeriesKey>,
    /// The earliest and latest time concerned, in nanoseconds.
    pub(crate) times: (i64, i64),
}

/// How much was found whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Series with a readable directory.
    pub(crate) series_count: u64,
    /// Pages that hold what the directory says.
    pub(crate) page_count: u64,
    /// Samples in those pages.
    pub(crate) sample_count: u64,
}

/// Reads all of a block and reports what is damaged.
///
/// # Errors
/// Only those of the environment (`Io`): they say nothing about the block.
pub(crate) fn verify(block: &BlockReader, report: &mut dyn FnMut(Damage)) -> Result<Verified> {
    let mut verifier = Verifier { block, report, found: Verified::default(), last_series: None };
    verifier.run()?;
    Ok(verifier.found)
}

struct Verifier<'a> {
    block: &'a BlockReader,
    report: &'a mut dyn FnMut(Damage),
    found: Verified,
    last_series: Option<(SeriesKey, ValueType)>,
}

impl Verifier<'_> {
    fn run(&mut self) -> Result<()> {
        let index = self.block.read_index();
        let index = self.or_report(index, self.everything())?;
        let table = self.block.read_table();
        let Some(table) = self.or_report(table, self.everything())? else { return Ok(()) };
        let mut seen = index.as_ref().map(|index| Seen::new(index.symbol_count()));
        let mut whole = true;
        for group in 0..table.len() {
            let directory = self.block.read_group(&table, group);
            let directory = self.or_report(directory, self.series(table.series_of(group), None))?;
            let keys = match &index {
                Some(index) => {
                    let keys = self.block.read_keys(&table, index, group);
                    self.or_report(keys, self.series(table.series_of(group), None))?
                }
                None => None,
            };
            whole &= directory.is_some() && keys.is_some();
            if let (Some(index), Some(seen), Some(keys)) = (&index, &mut seen, &keys) {
                table
                    .series_of(group)
                    .filter_map(|ordinal| Some((ordinal, keys.get(ordinal)?)))
                    .for_each(|(ordinal, key)| seen.add(index, key, ordinal));
            }
            if let Some(directory) = &directory {
                self.check_group(&table, group, directory, keys.as_ref())?;
            }
        }
        if let (Some(index), Some(seen), true) = (&index, &seen, whole) {
            self.check_index(index, seen)?;
            self.check_counts();
        }
        Ok(())
    }

    fn check_group(
        &mut self,
        table: &GroupTable,
        group: usize,
        directory: &Group,
        keys: Option<&GroupKeys>,
    ) -> Result<()> {
        for ordinal in table.series_of(group) {
            let key = keys.and_then(|keys| keys.get(ordinal));
            let Some((value_type, pages)) = directory.series(ordinal) else { continue };
            if let Some(key) = key {
                let this = (key.clone(), value_type);
                if self.last_series.as_ref().is_some_and(|last| *last >= this) {
                    let error = Error::corrupt("series are not in order").at(self.block.path(), 0);
                    self.damage(error, self.series(ordinal..ordinal + 1, Some(key)));
                }
                self.last_series = Some(this);
            }
            self.found.series_count += 1;
            for page in pages {
                let checked = check_page(self.block, directory, page, value_type);
                let place = Place {
                    times: (page.meta.min_time, page.meta.max_time),
                    ..self.series(ordinal..ordinal + 1, key)
                };
                if self.or_report(checked, place)?.is_some() {
                    self.found.page_count += 1;
                    self.found.sample_count += u64::from(page.meta.aggregate.count);
                }
            }
        }
        Ok(())
    }

    /// The postings must name, for each symbol, the very series whose keys carry it.
    fn check_index(&mut self, index: &Index, seen: &Seen) -> Result<()> {
        let at = self.block.footer().sections.postings.offset;
        for rank in 0..index.symbol_count() as u32 {
            let symbol = index.symbol(rank).map_err(|error| error.at(self.block.path(), at));
            let Some((text, ordinals)) = self.or_report(symbol, self.everything())? else { continue };
            if seen.of(rank) != ordinals.iter().copied().fold(Fingerprint::default(), Fingerprint::with) {
                let text = String::from_utf8_lossy(&text).into_owned();
                let error =
                    Error::corrupt(format!("the postings of {text:?} are not the series that carry it"));
                self.damage(error.at(self.block.path(), at), self.everything());
            }
        }
        Ok(())
    }

    fn check_counts(&mut self) {
        let meta = self.block.meta();
        let stated = (u64::from(meta.series_count), meta.page_count, meta.sample_count);
        let Verified { series_count, page_count, sample_count } = self.found;
        if stated.0 != series_count || stated.1 < page_count || stated.2 < sample_count {
            let error = Error::corrupt("the footer states other numbers of series, pages and samples");
            self.damage(error.at(self.block.path(), meta.size), self.everything());
        }
    }

    /// The value; or none, after reporting the damage of `place`.
    fn or_report<T>(&mut self, result: Result<T>, place: Place) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                self.damage(error, place);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn damage(&mut self, error: Error, place: Place) {
        let Place { ordinals, series, times } = place;
        (self.report)(Damage { error, ordinals, series, times });
    }

    fn everything(&self) -> Place {
        let meta = self.block.meta();
        Place { ordinals: 0..meta.series_count, series: None, times: (meta.min_time, meta.max_time) }
    }

    fn series(&self, ordinals: Range<u32>, key: Option<&SeriesKey>) -> Place {
        Place { ordinals, series: key.cloned(), ..self.everything() }
    }
}

/// What a piece of the block holds.
struct Place {
    ordinals: Range<u32>,
    series: Option<SeriesKey>,
    times: (i64, i64),
}

/// Decodes a page and compares it with its entry.
fn check_page(block: &BlockReader, group: &Group, page: &PageEntry, value_type: ValueType) -> Result<()> {
    let meta = &page.meta;
    let differs = |what: &str| {
        let error = Error::corrupt(format!("{what} of a page is not what the directory says"));
        Err(error.at(block.path(), values_section(page).offset))
    };
    if let TimesMeta::Shared { index, .. } = &meta.times {
        let (_, section) = group.shared(*index)?;
        block.read("time column", section)?;
    }
    let mut times = Vec::new();
    block.read_times(group, page, &mut times)?;
    let ends = (times.first().copied(), times.last().copied());
    if ends != (Some(meta.min_time), Some(meta.max_time)) || !strictly_rises(&times) {
        return differs("the time");
    }
    let meta_of_block = block.meta();
    if meta.min_time < meta_of_block.min_time || meta.max_time > meta_of_block.max_time {
        return differs("the time range of the block or");
    }
    let mut values = Column::new(value_type);
    block.read_values(group, page, &mut values)?;
    if values.len() != times.len() {
        return differs("the number of values");
    }
    let found = aggregate_of(ColumnSlice::new(&values, 0, values.len()));
    if record(meta, &found) == record(meta, &meta.aggregate) { Ok(()) } else { differs("the aggregate") }
}

/// What a directory keeps of an aggregate: unlike `==`, it tells every bit of a double, and NaN are alike.
fn record(meta: &PageMeta, aggregate: &PageAggregate) -> Vec<u8> {
    let times = TimesMeta::Affine { step: 0 };
    let meta = PageMeta { times, aggregate: aggregate.clone(), ..meta.clone() };
    let mut out = Vec::new();
    put_page_meta(&mut out, Context::Start, &meta, &[]);
    out
}

/// For each symbol, the series seen to carry it.
struct Seen(Vec<Fingerprint>);

/// A set of ordinals, as good as told apart from every other set (sum of splitmix64 hashes, and their number).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    count: u32,
    sum: u64,
}

impl Fingerprint {
    fn with(self, ordinal: u32) -> Self {
        let mut hash = u64::from(ordinal).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Fingerprint { count: self.count + 1, sum: self.sum.wrapping_add(hash ^ (hash >> 31)) }
    }
}

impl Seen {
    fn new(symbol_count: usize) -> Self {
        Seen(vec![Fingerprint::default(); symbol_count])
    }

    fn add(&mut self, index: &Index, key: &SeriesKey, ordinal: u32) {
        let name = std::iter::once((NAME_KEY, key.name()));
        for (key, value) in name.chain(key.tags()) {
            for rank in [index.rank(key, None), index.rank(key, Some(value))].into_iter().flatten() {
                if let Some(seen) = self.0.get_mut(rank as usize) {
                    *seen = seen.with(ordinal);
                }
            }
        }
    }

    fn of(&self, rank: u32) -> Fingerprint {
        self.0.get(rank as usize).copied().unwrap_or_default()
    }
}
