//! Builds the index of a block: series go in one by one, sections come out when all are known.
//!
//! Called by the block writer. Ranks are known only at the end, so that symbols have provisional numbers
//! until then; memory is four bytes a tag of a series, and the text of every symbol once.

use crate::codec::varint::put_u8;
use crate::error::{Error, Result};
use crate::index::postings::{put_all_postings, put_postings};
use crate::index::series::put_keys;
use crate::index::symbol::{Interner, TAG_MARK, VALUE_MARK, encode_symbols, name_symbol};
use crate::model::SeriesKey;

/// Postings are built for so many ordinals at a time, which bounds the memory beside the index itself.
const POSTINGS_PASS_COUNT: usize = 8 << 20;

/// Collects the series of a block, in ascending order of their keys.
#[derive(Debug, Default)]
pub(crate) struct IndexWriter {
    interner: Interner,
    /// Numbers of the symbols of all series, one series behind the other.
    ids: Vec<u32>,
    /// Where the symbols of each series end in `ids`.
    ends: Vec<u64>,
    last_key: Option<SeriesKey>,
}

impl IndexWriter {
    /// Adds the next series; its ordinal is the number of those before it. The same key may come again, for
    /// another type.
    ///
    /// # Errors
    /// `LimitExceeded` at 2^32 - 1 series or symbols.
    pub(crate) fn add(&mut self, key: &SeriesKey) -> Result<()> {
        debug_assert!(self.last_key.as_ref().is_none_or(|last| last <= key), "series come in order");
        if self.ends.len() >= u32::MAX as usize {
            return Err(Error::limit_exceeded("a block takes at most 2^32 - 1 series"));
        }
        let last = self.last_key.replace(key.clone());
        let before = self.ids.len();
        let last_start = self.start_of(self.ends.len().saturating_sub(1));
        let mut last_parts =
            last.as_ref().map(|last| last.as_bytes().split(is_tag_mark)).into_iter().flatten();
        for (place, part) in key.as_bytes().split(is_tag_mark).enumerate() {
            // Neighbours share most of their tags, at the same place in the key.
            let id = if last_parts.next() == Some(part) {
                self.ids.get(last_start + place).copied().unwrap_or_default()
            } else if place == 0 {
                self.interner.intern(&name_symbol(part))?
            } else {
                self.interner.intern(part)?
            };
            self.ids.push(id);
        }
        debug_assert!(self.ids.len() > before);
        self.ends.push(self.ids.len() as u64);
        Ok(())
    }

    /// How many series were added.
    pub(crate) fn series_count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Ends the adding and gives every symbol its rank.
    ///
    /// # Errors
    /// `LimitExceeded` when tags and keys together are more than 2^32 - 1 symbols.
    pub(crate) fn sort(mut self) -> Result<SortedIndex> {
        let interner = std::mem::take(&mut self.interner);
        let tags = interner.into_sorted();
        let mut symbols: Vec<Box<[u8]>> = Vec::with_capacity(tags.len() + 64);
        let mut rank_of_id = vec![0; tags.len()];
        // The same key comes many times in a row, before the few keys are sorted.
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        for (text, _) in &tags {
            let key = key_of(text);
            if keys.last().is_none_or(|last| **last != *key) {
                keys.push(key.into());
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let mut keys = keys.into_iter().peekable();
        for (text, id) in tags {
            while keys.peek().is_some_and(|key| **key < *text) {
                symbols.extend(keys.next());
            }
            if let Some(rank) = rank_of_id.get_mut(id as usize) {
                *rank = symbols.len() as u32;
            }
            symbols.push(text);
        }
        if u32::try_from(symbols.len()).is_err() {
            return Err(Error::limit_exceeded("a block takes at most 2^32 - 1 different tags and keys"));
        }
        let rank_of = |id: &mut u32| *id = rank_of_id.get(*id as usize).copied().unwrap_or_default();
        self.ids.iter_mut().for_each(rank_of);
        let key_ranks = key_ranks(&symbols);
        Ok(SortedIndex { symbols, key_ranks, ranks: self.ids, ends: self.ends })
    }

    fn start_of(&self, ordinal: usize) -> usize {
        start_of(&self.ends, ordinal)
    }
}

fn is_tag_mark(byte: &u8) -> bool {
    *byte == TAG_MARK
}

fn start_of(ends: &[u64], ordinal: usize) -> usize {
    ordinal.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| *end as usize)
}

/// The key in the text of a symbol.
fn key_of(text: &[u8]) -> &[u8] {
    text.split(|b| *b == VALUE_MARK).next().unwrap_or_default()
}

/// For each symbol, the rank of its key's own symbol (its own rank, when it is a key).
fn key_ranks(symbols: &[Box<[u8]>]) -> Vec<u32> {
    let mut ranks: Vec<u32> = Vec::with_capacity(symbols.len());
    for (rank, text) in symbols.iter().enumerate() {
        let key = key_of(text);
        let same = rank.checked_sub(1).filter(|before| {
            symbols.get(*before).is_some_and(|before| key_of(before) == key) && key.len() < text.len()
        });
        let found = match same.and_then(|before| ranks.get(before)) {
            Some(found) => *found,
            None => symbols.partition_point(|other| **other < *key) as u32,
        };
        ranks.push(found);
    }
    ranks
}

/// What is known of the values of one tag key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyStatistics {
    /// The key; `__name__` for the metric name.
    pub key: String,
    /// How many different values.
    pub value_count: u32,
    /// The smallest of them.
    pub smallest: String,
    /// The largest.
    pub largest: String,
}

/// The series and symbols of a block, all known; gives the sections one by one.
#[derive(Debug)]
pub(crate) struct SortedIndex {
    symbols: Vec<Box<[u8]>>,
    key_ranks: Vec<u32>,
    ranks: Vec<u32>,
    ends: Vec<u64>,
}

impl SortedIndex {
    /// How many symbols there are.
    pub(crate) fn symbol_count(&self) -> u32 {
        self.symbols.len() as u32
    }

    /// The section of symbols.
    pub(crate) fn encode_symbols(&self) -> Result<Vec<u8>> {
        encode_symbols(self.symbols.iter().map(|text| &text[..]))
    }

    /// The key group of the series `ordinals`.
    pub(crate) fn encode_keys(&self, ordinals: std::ops::Range<u32>) -> Vec<u8> {
        let keys: Vec<&[u32]> = ordinals.map(|ordinal| self.ranks_of(ordinal as usize)).collect();
        let mut out = Vec::new();
        put_keys(&mut out, &keys);
        out
    }

    /// The sections of postings and of their offsets.
    pub(crate) fn encode_postings(&self) -> (Vec<u8>, Vec<u8>) {
        let counts = self.posting_counts();
        let (mut postings, mut offsets) = (Vec::new(), vec![0]);
        let mut start = 0;
        while start < counts.len() {
            let end = pass_end(&counts, start);
            self.put_pass(start, counts.get(start..end).unwrap_or_default(), &mut postings, &mut offsets);
            start = end;
        }
        (postings, pack_offsets(&offsets))
    }

    /// What the bounds section says of each key, sorted by key.
    pub(crate) fn key_statistics(&self) -> Vec<KeyStatistics> {
        let mut keys: Vec<KeyStatistics> = Vec::new();
        for text in &self.symbols {
            let mut parts =
                text.split(|b| *b == VALUE_MARK).map(|part| String::from_utf8_lossy(part).into_owned());
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            match keys.last_mut().filter(|last| last.key == key) {
                Some(last) => {
                    last.value_count += 1;
                    last.largest = value;
                }
                None => {
                    keys.push(KeyStatistics { key, value_count: 1, smallest: value.clone(), largest: value })
                }
            }
        }
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        keys
    }

    fn ranks_of(&self, ordinal: usize) -> &[u32] {
        let end = self.ends.get(ordinal).map_or(0, |end| *end as usize);
        self.ranks.get(start_of(&self.ends, ordinal)..end).unwrap_or_default()
    }

    fn key_rank(&self, rank: u32) -> usize {
        self.key_ranks.get(rank as usize).copied().unwrap_or_default() as usize
    }

    /// How many series carry each symbol.
    fn posting_counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.symbols.len()];
        for rank in &self.ranks {
            counts[*rank as usize] += 1;
            counts[self.key_rank(*rank)] += 1;
        }
        counts
    }

    /// Appends the postings of the symbols from `first`, whose numbers of series are `counts`.
    fn put_pass(&self, first: usize, counts: &[u32], postings: &mut Vec<u8>, offsets: &mut Vec<u64>) {
        let series_count = self.ends.len() as u32;
        let everywhere = |count: u32| count == series_count;
        // Symbols that every series carries need no list; where the lists of the others begin:
        let mut cursors = Vec::with_capacity(counts.len());
        let mut total = 0usize;
        for count in counts {
            cursors.push(total);
            total += if everywhere(*count) { 0 } else { *count as usize };
        }
        let mut ordinals = vec![0u32; total];
        for ordinal in 0..series_count {
            for rank in self.ranks_of(ordinal as usize) {
                for rank in [*rank as usize, self.key_rank(*rank)] {
                    let index = rank.wrapping_sub(first);
                    if counts.get(index).is_some_and(|count| !everywhere(*count)) {
                        ordinals[cursors[index]] = ordinal;
                        cursors[index] += 1;
                    }
                }
            }
        }
        let mut start = 0;
        for (count, end) in counts.iter().zip(cursors) {
            if everywhere(*count) {
                put_all_postings(postings, series_count);
            } else {
                put_postings(postings, ordinals.get(start..end).unwrap_or_default());
                start = end;
            }
            offsets.push(postings.len() as u64);
        }
    }
}

/// How far a pass that begins at `start` goes: at least one symbol, else as many as fit.
fn pass_end(counts: &[u32], start: usize) -> usize {
    let mut total = 0;
    for (index, count) in counts.iter().enumerate().skip(start) {
        total += *count as usize;
        if total > POSTINGS_PASS_COUNT && index > start {
            return index;
        }
    }
    counts.len()
}

/// The width of an offset in bytes, then each offset in so many bytes.
fn pack_offsets(offsets: &[u64]) -> Vec<u8> {
    let last = offsets.last().copied().unwrap_or_default();
    let width = (64 - last.leading_zeros()).div_ceil(8).max(1) as usize;
    let mut out = Vec::with_capacity(1 + offsets.len() * width);
    put_u8(&mut out, width as u8);
    for offset in offsets {
        out.extend(offset.to_le_bytes().iter().take(width));
    }
    out
}
