//! What was read and checked once: a map with a cap on its bytes, shared by all blocks of a database.
//!
//! Called by block readers for index sections, groups, keys and time columns. Which entry goes is decided by
//! the clock algorithm (Corbato, "A Paging Experiment with the Multics System", 1968): one bit says that
//! an entry was used since the hand last passed. One mutex, held for a look-up or an insertion only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Whose entry, and which of the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    /// From [`ClockCache::new_owner`].
    pub(crate) owner: u64,
    /// What sort of thing; the owner's choice.
    pub(crate) kind: u8,
    /// Which one of that sort.
    pub(crate) index: u64,
}

/// Values by key, at most so many bytes of them.
#[derive(Debug)]
pub(crate) struct ClockCache<V> {
    slots: Mutex<Slots<V>>,
    owners: AtomicU64,
}

/// What a cache holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheStatistics {
    /// Bytes held now.
    pub(crate) size: usize,
    /// Look-ups that found their entry.
    pub(crate) hit_count: u64,
    /// Look-ups that did not.
    pub(crate) miss_count: u64,
}

#[derive(Debug)]
struct Slots<V> {
    by_key: HashMap<CacheKey, usize>,
    slots: Vec<Option<Slot<V>>>,
    free: Vec<usize>,
    hand: usize,
    size_max: usize,
    statistics: CacheStatistics,
}

#[derive(Debug)]
struct Slot<V> {
    key: CacheKey,
    value: V,
    size: usize,
    used: bool,
}

/// What an entry costs beside its value, in bytes: its slot and its place in the map.
const ENTRY_OVERHEAD_SIZE: usize = 128;

impl<V: Clone> ClockCache<V> {
    /// An empty cache of at most `size_max` bytes.
    pub(crate) fn new(size_max: usize) -> Self {
        let slots = Slots {
            by_key: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            size_max,
            statistics: CacheStatistics::default(),
        };
        ClockCache { slots: Mutex::new(slots), owners: AtomicU64::new(0) }
    }

    /// A number that no other owner has.
    pub(crate) fn new_owner(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: CacheKey) -> Option<V> {
        let mut slots = self.slots.lock();
        let Some(index) = slots.by_key.get(&key).copied() else {
            slots.statistics.miss_count += 1;
            return None;
        };
        slots.statistics.hit_count += 1;
        let slot = slots.slots.get_mut(index)?.as_mut()?;
        slot.used = true;
        Some(slot.value.clone())
    }

    /// Keeps `value`, which takes `size` bytes, unless it is larger than the whole cache. What was kept
    /// under the key before stays: two threads that missed have read the same bytes.
    pub(crate) fn insert(&self, key: CacheKey, value: V, size: usize) {
        let size = size + ENTRY_OVERHEAD_SIZE;
        let mut slots = self.slots.lock();
        if size > slots.size_max || slots.by_key.contains_key(&key) {
            return;
        }
        let room = slots.size_max - size;
        let evicted = slots.evict_to(room);
        slots.put(Slot { key, value, size, used: false });
        drop(slots);
        // Freeing may take long and needs no lock.
        drop(evicted);
    }

    /// Drops all entries of an owner.
    pub(crate) fn forget(&self, owner: u64) {
        let mut slots = self.slots.lock();
        let indexes = 0..slots.slots.len();
        let of_owner = |slot: &Slot<V>| slot.key.owner == owner;
        let dropped: Vec<_> = indexes.filter_map(|index| slots.take_if(index, of_owner)).collect();
        drop(slots);
        drop(dropped);
    }

    /// Changes the cap, and drops what is over it.
    #[cfg(test)]
    pub(crate) fn set_size_max(&self, size_max: usize) {
        let mut slots = self.slots.lock();
        slots.size_max = size_max;
        let evicted = slots.evict_to(size_max);
        drop(slots);
        drop(evicted);
    }

    /// What it holds and has done.
    pub(crate) fn statistics(&self) -> CacheStatistics {
        self.slots.lock().statistics
    }
}

impl<V> Slots<V> {
    fn put(&mut self, slot: Slot<V>) {
        let index = self.free.pop().unwrap_or(self.slots.len());
        self.statistics.size += slot.size;
        self.by_key.insert(slot.key, index);
        match self.slots.get_mut(index) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
    }

    /// Takes out the entry at `index`, if there is one and `wanted` says so.
    fn take_if(&mut self, index: usize, wanted: impl Fn(&Slot<V>) -> bool) -> Option<Slot<V>> {
        let place = self.slots.get_mut(index)?;
        place.as_ref().filter(|slot| wanted(slot))?;
        let slot = place.take()?;
        self.by_key.remove(&slot.key);
        self.statistics.size -= slot.size;
        self.free.push(index);
        Some(slot)
    }

    /// Turns the hand until at most `room` bytes are held: used entries lose their bit, others go.
    fn evict_to(&mut self, room: usize) -> Vec<Slot<V>> {
        let mut evicted = Vec::new();
        while self.statistics.size > room {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let hand = self.hand;
            evicted.extend(self.take_if(hand, |slot| !slot.used));
            if let Some(Some(slot)) = self.slots.get_mut(hand) {
                slot.used = false;
            }
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: u64, index: u64) -> CacheKey {
        CacheKey { owner, kind: 0, index }
    }

    #[test]
    fn the_cap_holds_and_what_is_used_stays() {
        let size_max = 10 * (100 + ENTRY_OVERHEAD_SIZE);
        let cache = ClockCache::new(size_max);
        for index in 0..100 {
            cache.insert(key(0, index), index, 100);
            assert!(cache.statistics().size <= size_max);
            assert_eq!(cache.get(key(0, 0)), Some(0), "used after each insertion");
        }
        let held = (0..100).filter(|index| cache.get(key(0, *index)).is_some()).count();
        assert_eq!(held, 10);
    }

    #[test]
    fn what_exceeds_the_cap_is_not_kept() {
        let cache = ClockCache::new(1000);
        cache.insert(key(0, 1), 1, 500);
        cache.insert(key(0, 2), 2, 1001);
        assert_eq!((cache.get(key(0, 1)), cache.get(key(0, 2))), (Some(1), None));
        cache.set_size_max(0);
        assert_eq!(cache.get(key(0, 1)), None);
        assert_eq!(cache.statistics(), CacheStatistics { size: 0, hit_count: 1, miss_count: 2 });
    }

    #[test]
    fn an_owner_is_forgotten_whole() {
        let cache = ClockCache::new(1 << 20);
        let (a, b) = (cache.new_owner(), cache.new_owner());
        for index in 0..50 {
            cache.insert(key(a, index), 'a', 10);
            cache.insert(key(b, index), 'b', 10);
        }
        cache.forget(a);
        assert_eq!((cache.get(key(a, 7)), cache.get(key(b, 7))), (None, Some('b')));
        assert_eq!(cache.statistics().size, 50 * (10 + ENTRY_OVERHEAD_SIZE));
        cache.insert(key(a, 7), 'c', 10);
        assert_eq!(cache.get(key(a, 7)), Some('c'));
    }
}
