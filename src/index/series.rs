//! The keys of a group of series: ranks of name and tags, packed in columns by their place in the key.
//!
//! What all series of the group share costs nothing. Layout in `docs/format.md`, "Key groups".

use crate::codec::packed::{put_packed, read_packed};
use crate::codec::varint::Reader;
use crate::error::{Error, Result};
use crate::index::symbol::{Symbols, TAG_MARK, VALUE_MARK};
use crate::model::{NAME_KEY, SERIES_KEY_SIZE_MAX, SeriesKey, TAG_COUNT_MAX};

/// Appends the keys of a group; each is the rank of its name, then those of its tags in order.
pub(crate) fn put_keys(out: &mut Vec<u8>, keys: &[&[u32]]) {
    let counts: Vec<u64> = keys.iter().map(|key| key.len() as u64).collect();
    put_packed(out, &counts);
    let longest = keys.iter().map(|key| key.len()).max().unwrap_or_default();
    for place in 0..longest {
        let column: Vec<u64> = keys.iter().filter_map(|key| key.get(place)).map(|r| u64::from(*r)).collect();
        put_packed(out, &column);
    }
}

/// Reads the keys of a group of `count` series.
///
/// # Errors
/// `Corruption` when they name symbols that do not exist, or not in the order of a series key.
pub(crate) fn read_keys(bytes: &[u8], count: usize, symbols: &Symbols) -> Result<Vec<SeriesKey>> {
    let ranks = read_ranks(bytes, count)?;
    let texts = Texts::load(&ranks, symbols)?;
    ranks.iter().map(|ranks| texts.key(ranks)).collect()
}

/// Reads the keys at the positions `wanted` of a group of `count` series: all of them cost a look-up of each symbol.
///
/// # Errors
/// As [`read_keys`].
pub(crate) fn read_some_keys(
    bytes: &[u8],
    count: usize,
    wanted: &[usize],
    symbols: &Symbols,
) -> Result<Vec<SeriesKey>> {
    let mut reader = Reader::new(bytes);
    let mut column = Vec::new();
    let counts = read_counts(&mut reader, count, &mut column)?;
    let mut ranks: Vec<Vec<u32>> = vec![Vec::new(); wanted.len()];
    for place in 0..counts.iter().copied().max().unwrap_or_default() {
        let holds = |n: &&usize| **n > place;
        read_packed(&mut reader, counts.iter().filter(holds).count(), &mut column)?;
        for (ranks, position) in ranks.iter_mut().zip(wanted) {
            if counts.get(*position).as_ref().is_some_and(holds) {
                let before = counts.iter().take(*position).filter(holds).count();
                ranks.push(to_rank(column.get(before).copied().unwrap_or(u64::MAX))?);
            }
        }
    }
    reader.finish()?;
    let texts = Texts::load(&ranks, symbols)?;
    ranks.iter().map(|ranks| texts.key(ranks)).collect()
}

/// How many ranks each key of a group has.
fn read_counts(reader: &mut Reader<'_>, count: usize, column: &mut Vec<u64>) -> Result<Vec<usize>> {
    read_packed(reader, count, column)?;
    let counts: Vec<usize> = column.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect();
    if counts.iter().any(|n| *n == 0 || *n > TAG_COUNT_MAX + 1) {
        return Err(Error::corrupt("a series key has an impossible number of tags"));
    }
    Ok(counts)
}

fn to_rank(number: u64) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::corrupt("a rank exceeds 32 bits"))
}

/// The ranks of each key of a group.
fn read_ranks(bytes: &[u8], count: usize) -> Result<Vec<Vec<u32>>> {
    let mut reader = Reader::new(bytes);
    let mut column = Vec::new();
    let counts = read_counts(&mut reader, count, &mut column)?;
    let mut ranks: Vec<Vec<u32>> = counts.iter().map(|n| Vec::with_capacity(*n)).collect();
    for place in 0..counts.iter().copied().max().unwrap_or_default() {
        let present = counts.iter().filter(|n| **n > place).count();
        read_packed(&mut reader, present, &mut column)?;
        let holders = ranks.iter_mut().zip(&counts).filter(|(_, n)| **n > place);
        for ((ranks, _), rank) in holders.zip(&column) {
            ranks.push(to_rank(*rank)?);
        }
    }
    reader.finish()?;
    Ok(ranks)
}

/// The texts of the symbols of one group, each looked up once.
struct Texts {
    /// Rank, and where its text ends in `bytes`; sorted by rank.
    ends: Vec<(u32, usize)>,
    bytes: Vec<u8>,
}

impl Texts {
    fn load(keys: &[Vec<u32>], symbols: &Symbols) -> Result<Self> {
        let mut distinct: Vec<u32> = keys.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let mut texts = Texts { ends: Vec::with_capacity(distinct.len()), bytes: Vec::new() };
        symbols.texts(&distinct, |rank, text| {
            check_tag(text)?;
            texts.bytes.extend_from_slice(text);
            texts.ends.push((rank, texts.bytes.len()));
            Ok(())
        })?;
        Ok(texts)
    }

    fn text(&self, rank: u32) -> &[u8] {
        let at = self.ends.partition_point(|(other, _)| *other < rank);
        let end = self.ends.get(at).map_or(0, |(_, end)| *end);
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(_, end)| *end);
        self.bytes.get(start..end).unwrap_or_default()
    }

    fn key(&self, ranks: &[u32]) -> Result<SeriesKey> {
        let (name, tags) = ranks.split_first().ok_or_else(not_a_key)?;
        let name = self
            .text(*name)
            .strip_prefix(NAME_KEY.as_bytes())
            .and_then(|rest| rest.strip_prefix(&[VALUE_MARK]));
        let name = name.ok_or_else(not_a_key)?;
        let size = tags.iter().fold(name.len(), |size, tag| size + 1 + self.text(*tag).len());
        if size > SERIES_KEY_SIZE_MAX || name.is_empty() {
            return Err(not_a_key());
        }
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(name);
        let mut last: &[u8] = &[];
        for tag in tags {
            let text = self.text(*tag);
            let key = text.split(|b| *b == VALUE_MARK).next().unwrap_or_default();
            if key <= last || key == NAME_KEY.as_bytes() {
                return Err(not_a_key());
            }
            last = key;
            bytes.push(TAG_MARK);
            bytes.extend_from_slice(text);
        }
        Ok(SeriesKey::from_checked_bytes(&bytes))
    }
}

/// Checks that `text` is a key and a value, both of UTF-8, neither empty.
fn check_tag(text: &[u8]) -> Result<()> {
    let at = text.iter().position(|b| *b == VALUE_MARK).ok_or_else(not_a_key)?;
    let (key, value) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
    let good = |part: &[u8]| !part.is_empty() && std::str::from_utf8(part).is_ok();
    if good(key) && good(value) { Ok(()) } else { Err(not_a_key()) }
}

#[cold]
fn not_a_key() -> Error {
    Error::corrupt("the symbols of a series do not make a series key")
}
