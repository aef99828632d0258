//! The index of a block: any selector over any series answers like a filter; damaged sections are refused, or answer
//! something, and never break anything.

use std::collections::{BTreeMap, BTreeSet};

use super::{Input, only_corruption};
use crate::index::{Index, IndexSections, IndexWriter, SortedIndex};
use crate::model::{Match, NAME_KEY, Selector, SeriesKey};

const NAMES: [&str; 5] = ["a", "ab", "abc", "ü", "a b"];
const KEYS: [&str; 6] = ["k", "kk", "l", "m", "ö", "n"];
const VALUES: [&str; 9] = ["1", "12", "123", "2", "x", "é", "€uro", "a=b;c", "\u{10ffff}"];
const PATTERNS: [&str; 12] =
    ["1.*", ".*2", "1|2", "", ".*", ".+", "[12x]+", "é|€.*", "x?", "(?i)X", "[^1]*", "1{1,3}2?3?"];

/// Every selector finds what filtering the keys finds; keys, tag keys and tag values come back.
pub fn select(input: &[u8]) {
    let mut input = Input(input);
    let mut keys = BTreeSet::new();
    for _ in 0..input.byte() {
        keys.insert(key(&mut input));
    }
    if keys.is_empty() {
        return;
    }
    let keys: Vec<SeriesKey> = keys.into_iter().collect();
    let sorted = sorted(&keys);
    let index = Index::open(sections(&sorted), keys.len() as u32).unwrap();
    for start in (0..keys.len()).step_by(64) {
        let group = &keys[start..keys.len().min(start + 64)];
        let bytes = sorted.encode_keys(start as u32..(start + group.len()) as u32);
        assert_eq!(index.keys(&bytes, group.len()).unwrap(), group);
    }
    check_tags(&index, &keys);
    while !input.is_empty() {
        let selector = selector(&mut input);
        let wanted: Vec<u32> =
            (0..).zip(&keys).filter(|(_, key)| selector.matches(key)).map(|(ordinal, _)| ordinal).collect();
        assert_eq!(index.select(&selector).unwrap(), wanted, "{selector:?}");
    }
}

fn key(input: &mut Input<'_>) -> SeriesKey {
    let name = NAMES[input.below(NAMES.len())];
    let (mask, shift) = (input.byte(), input.byte());
    let present = KEYS.iter().enumerate().filter(|(place, _)| mask & 1 << place != 0);
    let tags = present.map(|(place, key)| (*key, VALUES[(place * 3 + usize::from(shift)) % VALUES.len()]));
    SeriesKey::new(name, tags).unwrap()
}

fn selector(input: &mut Input<'_>) -> Selector {
    let mut selector = Selector::all();
    for _ in 0..input.below(4) {
        let place = input.below(KEYS.len() + 3);
        let key = KEYS.get(place).copied().unwrap_or(if place == KEYS.len() { "none" } else { NAME_KEY });
        let value = |input: &mut Input<'_>| {
            let pick = input.below(VALUES.len() + NAMES.len() + 1);
            VALUES.iter().chain(&NAMES).nth(pick).copied().unwrap_or_default()
        };
        let condition = match input.below(7) {
            0 => Match::equal(value(input)),
            1 => Match::not_equal(value(input)),
            2 => Match::any_of((0..input.below(4)).map(|_| value(input)).collect::<Vec<_>>()),
            3 => Match::regex(PATTERNS[input.below(PATTERNS.len())]).unwrap(),
            4 => Match::not_regex(PATTERNS[input.below(PATTERNS.len())]).unwrap(),
            5 => Match::Present,
            _ => Match::Absent,
        };
        selector = selector.with(key, condition);
    }
    selector
}

fn sorted(keys: &[SeriesKey]) -> SortedIndex {
    let mut writer = IndexWriter::default();
    keys.iter().for_each(|key| writer.add(key).unwrap());
    writer.sort().unwrap()
}

fn sections(sorted: &SortedIndex) -> IndexSections {
    let (postings, offsets) = sorted.encode_postings();
    IndexSections {
        symbols: sorted.encode_symbols().unwrap().into(),
        offsets: offsets.into(),
        postings: postings.into(),
    }
}

fn check_tags(index: &Index, keys: &[SeriesKey]) {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for key in keys {
        for (tag, value) in key.tags().chain([(NAME_KEY, key.name())]) {
            *counts.entry((tag, value)).or_default() += 1;
            *counts.entry((tag, "")).or_default() += 1;
        }
    }
    let count_of = |tag: &str, value: &str| counts.get(&(tag, value)).copied().unwrap_or_default();
    let found = index.tag_keys().unwrap();
    assert_eq!(found.len(), counts.keys().filter(|(_, value)| value.is_empty()).count());
    for (tag, count) in found {
        assert_eq!(count, count_of(&tag, ""), "{tag}");
        let values = index.tag_values(&tag).unwrap();
        assert_eq!(values.iter().map(|(_, count)| count).sum::<usize>(), count);
        for (value, count) in values {
            assert_eq!(count, count_of(&tag, &value), "{tag}={value}");
        }
    }
}

/// Sound symbols (an `fst` is opened only behind its checksum), and any bytes for what stands beside them: postings,
/// their offsets, key groups.
pub fn decode(input: &[u8]) {
    let mut input = Input(input);
    let keys: BTreeSet<SeriesKey> = (0..=input.below(20)).map(|_| key(&mut input)).collect();
    let keys: Vec<SeriesKey> = keys.into_iter().collect();
    let mut sections = sections(&sorted(&keys));
    let replaced = input.byte();
    let size = input.number().min(1000) as usize;
    let bytes = input.bytes(size);
    if replaced & 1 != 0 {
        sections.postings = bytes.into();
    }
    if replaced & 2 != 0 {
        let entries = sections.offsets.len().saturating_sub(1);
        let mut offsets = vec![1];
        offsets.extend(bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { entries }));
        sections.offsets = offsets.into();
    }
    if replaced & 4 != 0 {
        sections.offsets = bytes.into();
    }
    let series_count = if replaced & 8 != 0 { input.number() as u32 } else { keys.len() as u32 };
    let index = match Index::open(sections, series_count.min(1 << 20)) {
        Ok(index) => index,
        Err(error) => return only_corruption(&error),
    };
    if let Err(error) = index.keys(bytes, input.below(65)) {
        only_corruption(&error);
    }
    for (tag, _) in index.tag_keys().unwrap_or_default() {
        if let Err(error) = index.tag_values(&tag) {
            only_corruption(&error);
        }
    }
    for rank in 0..index.symbol_count() as u32 + 2 {
        if let Err(error) = index.symbol(rank) {
            only_corruption(&error);
        }
    }
    for _ in 0..4 {
        match index.select(&selector(&mut input)) {
            Ok(found) => {
                assert!(
                    found.is_sorted_by(|a, b| a < b) && found.last().is_none_or(|last| *last < series_count)
                );
            }
            Err(error) => only_corruption(&error),
        }
    }
}
