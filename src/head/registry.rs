//! Which series are alive: key and type to a small number and back, and postings by tag.
//!
//! Shared by the active and the frozen head, and outlives a flush, so that handles stay valid. An entry
//! goes when no handle holds it and no head has samples of it. Owned by a lock in `head::mod`.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use roaring::RoaringBitmap;

use crate::model::{Match, NAME_KEY, Selector, SeriesKey, ValueType};

/// Counted for an entry besides its key and postings: its place in the vectors and the table, and the
/// allocator's overhead for the key.
const ENTRY_SIZE: usize = size_of::<Entry>() + 16 + 32;

/// One hasher for the process, so that a key is hashed where it is made, before any lock.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// The hash by which [`Registry::find`] looks up the series of a key.
#[inline]
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}

/// All series that are alive.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    postings: HashMap<Box<str>, Values>,
    all: RoaringBitmap,
    size: usize,
}

#[derive(Debug)]
struct Entry {
    key: Option<SeriesKey>,
    hash: u64,
    value_type: ValueType,
    handles: u32,
}

#[derive(Debug, Default)]
struct Values {
    by_value: HashMap<Box<str>, Postings>,
    /// Every series that has the key.
    present: RoaringBitmap,
}

/// Series of one tag value. Most values have few, so a bitmap comes only with the fifth.
#[derive(Debug)]
enum Postings {
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

const FEW: usize = 16;

impl Postings {
    fn insert(&mut self, id: u32) {
        match self {
            Postings::Few(ids) if ids.len() < FEW => ids.push(id),
            Postings::Few(ids) => {
                let mut bitmap: RoaringBitmap = ids.iter().copied().collect();
                bitmap.insert(id);
                *self = Postings::Many(Box::new(bitmap));
            }
            Postings::Many(bitmap) => {
                bitmap.insert(id);
            }
        }
    }

    fn remove(&mut self, id: u32) -> bool {
        match self {
            Postings::Few(ids) => {
                ids.retain(|other| *other != id);
                ids.is_empty()
            }
            Postings::Many(bitmap) => {
                bitmap.remove(id);
                bitmap.is_empty()
            }
        }
    }

    fn add_to(&self, out: &mut RoaringBitmap) {
        match self {
            Postings::Few(ids) => out.extend(ids.iter().copied()),
            Postings::Many(bitmap) => *out |= bitmap.as_ref(),
        }
    }
}

impl Registry {
    /// The number of a series, if it is alive.
    pub(crate) fn find(&self, key: &[u8], value_type: ValueType, hash: u64) -> Option<u32> {
        let is_it = |id: &u32| {
            self.entries.get(*id as usize).is_some_and(|entry| {
                entry.hash == hash
                    && entry.value_type == value_type
                    && entry.key.as_ref().is_some_and(|k| k.as_bytes() == key)
            })
        };
        self.table.find(hash, is_it).copied()
    }

    /// The type under which a series of this key is alive, if another than `value_type`.
    pub(crate) fn other_type(&self, key: &[u8], value_type: ValueType, hash: u64) -> Option<ValueType> {
        let other = |id: &u32| {
            self.entries.get(*id as usize).is_some_and(|entry| {
                entry.hash == hash
                    && entry.value_type != value_type
                    && entry.key.as_ref().is_some_and(|k| k.as_bytes() == key)
            })
        };
        let id = self.table.find(hash, other)?;
        self.entries.get(*id as usize).map(|entry| entry.value_type)
    }

    /// Adds a series that [`Registry::find`] did not find; returns its number.
    pub(crate) fn insert(&mut self, key: SeriesKey, value_type: ValueType, hash: u64) -> u32 {
        let id = self.free.pop().unwrap_or(self.entries.len() as u32);
        self.size += key.as_bytes().len() + ENTRY_SIZE;
        self.add_postings(NAME_KEY, key.name(), id);
        for (tag, value) in key.tags() {
            self.add_postings(tag, value, id);
        }
        self.all.insert(id);
        let entry = Entry { key: Some(key), hash, value_type, handles: 0 };
        match self.entries.get_mut(id as usize) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        let entries = &self.entries;
        self.table.insert_unique(hash, id, |id| entries.get(*id as usize).map_or(0, |entry| entry.hash));
        id
    }

    fn add_postings(&mut self, tag: &str, value: &str, id: u32) {
        let values = self.postings.entry_ref(tag).or_default();
        values.present.insert(id);
        match values.by_value.entry_ref(value) {
            hashbrown::hash_map::EntryRef::Occupied(mut entry) => {
                entry.get_mut().insert(id);
                self.size += 4;
            }
            hashbrown::hash_map::EntryRef::Vacant(entry) => {
                entry.insert(Postings::Few(vec![id]));
                self.size += value.len() + 80;
            }
        }
    }

    /// Key and type of a series.
    pub(crate) fn get(&self, id: u32) -> Option<(&SeriesKey, ValueType)> {
        let entry = self.entries.get(id as usize)?;
        Some((entry.key.as_ref()?, entry.value_type))
    }

    /// Counts one more handle on a series.
    pub(crate) fn hold(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.handles += 1;
        }
    }

    /// Counts one handle less.
    pub(crate) fn release(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.handles = entry.handles.saturating_sub(1);
        }
    }

    /// Removes the series without a handle that `is_used` denies.
    pub(crate) fn reclaim(&mut self, is_used: impl Fn(u32) -> bool) {
        for id in 0..self.entries.len() as u32 {
            let idle =
                self.entries.get(id as usize).is_some_and(|entry| entry.key.is_some() && entry.handles == 0);
            if idle && !is_used(id) {
                self.remove(id);
            }
        }
        if self.all.is_empty() {
            // Nothing is alive: give the memory back as well.
            *self = Registry::default();
        }
    }

    fn remove(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        let Some(key) = entry.key.take() else { return };
        if let Ok(found) = self.table.find_entry(entry.hash, |other| *other == id) {
            found.remove();
        }
        self.size = self.size.saturating_sub(key.as_bytes().len() + ENTRY_SIZE);
        self.remove_postings(NAME_KEY, key.name(), id);
        for (tag, value) in key.tags() {
            self.remove_postings(tag, value, id);
        }
        self.all.remove(id);
        self.free.push(id);
    }

    fn remove_postings(&mut self, tag: &str, value: &str, id: u32) {
        let Some(values) = self.postings.get_mut(tag) else { return };
        values.present.remove(id);
        let Some(postings) = values.by_value.get_mut(value) else { return };
        if postings.remove(id) {
            values.by_value.remove(value);
            self.size = self.size.saturating_sub(value.len() + 80);
            if values.by_value.is_empty() {
                self.postings.remove(tag);
            }
        } else {
            self.size = self.size.saturating_sub(4);
        }
    }

    /// How many series are alive.
    pub(crate) fn count(&self) -> u64 {
        self.all.len()
    }

    /// Bytes of memory counted for the registry.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The series that match, as numbers.
    pub(crate) fn select(&self, selector: &Selector) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        for matcher in &selector.matchers {
            let matching = self.select_one(&matcher.key, &matcher.condition);
            found = Some(match found {
                Some(so_far) => so_far & matching,
                None => matching,
            });
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
        }
        found.unwrap_or_else(|| self.all.clone())
    }

    fn select_one(&self, tag: &str, condition: &Match) -> RoaringBitmap {
        let Some(values) = self.postings.get(tag) else {
            return if condition.matches_absent() { self.all.clone() } else { RoaringBitmap::new() };
        };
        let mut out = RoaringBitmap::new();
        let mut add = |value: &str| {
            if let Some(postings) = values.by_value.get(value) {
                postings.add_to(&mut out);
            }
        };
        match condition {
            Match::Equal(value) => add(value),
            Match::In(wanted) => wanted.iter().for_each(|value| add(value)),
            Match::Present => out = values.present.clone(),
            Match::Absent => {}
            other => {
                let matching = values.by_value.iter().filter(|(value, _)| other.matches(value));
                matching.for_each(|(_, postings)| postings.add_to(&mut out));
            }
        }
        if condition.matches_absent() {
            out |= &self.all - &values.present;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        for host in 0..40 {
            for name in ["cpu", "mem"] {
                let mut tags = vec![("host".to_owned(), format!("h{host}"))];
                if host % 2 == 0 {
                    tags.push(("rack".to_owned(), format!("r{}", host % 4)));
                }
                let key = SeriesKey::new(name, tags).unwrap();
                let hash = key_hash(key.as_bytes());
                assert_eq!(registry.find(key.as_bytes(), ValueType::F64, hash), None);
                let id = registry.insert(key.clone(), ValueType::F64, hash);
                assert_eq!(registry.find(key.as_bytes(), ValueType::F64, hash), Some(id));
            }
        }
        registry
    }

    #[test]
    fn selects_what_a_scan_selects() {
        let registry = registry();
        let conditions = [
            Match::equal("h3"),
            Match::equal(""),
            Match::not_equal("h3"),
            Match::not_equal(""),
            Match::any_of(["h1", "h2", "none"]),
            Match::any_of(["", "r0"]),
            Match::regex("h1.*").unwrap(),
            Match::regex("r2|").unwrap(),
            Match::not_regex("h1.*").unwrap(),
            Match::not_regex(".+").unwrap(),
            Match::Present,
            Match::Absent,
        ];
        for key in ["host", "rack", NAME_KEY, "none"] {
            for condition in &conditions {
                let selector = Selector::name("cpu").with(key, condition.clone());
                let expected: Vec<u32> = (0..80)
                    .filter(|id| registry.get(*id).is_some_and(|(key, _)| selector.matches(key)))
                    .collect();
                let found: Vec<u32> = registry.select(&selector).iter().collect();
                assert_eq!(found, expected, "{key} {condition:?}");
            }
        }
    }

    #[test]
    fn unused_and_unheld_series_go() {
        let mut registry = registry();
        let size = registry.size();
        registry.hold(5);
        registry.reclaim(|id| id == 7);
        assert_eq!(registry.count(), 2);
        assert!(registry.size() < size / 20);
        assert_eq!(registry.select(&Selector::all()).iter().collect::<Vec<_>>(), [5, 7]);
        registry.release(5);
        registry.reclaim(|_| false);
        assert_eq!((registry.count(), registry.size()), (0, 0));
    }

    #[test]
    fn types_are_told_apart() {
        let mut registry = Registry::default();
        let key = SeriesKey::new("a", [("b", "c")]).unwrap();
        let hash = key_hash(key.as_bytes());
        registry.insert(key.clone(), ValueType::I64, hash);
        assert_eq!(registry.other_type(key.as_bytes(), ValueType::F64, hash), Some(ValueType::I64));
        assert_eq!(registry.other_type(key.as_bytes(), ValueType::I64, hash), None);
    }
}
