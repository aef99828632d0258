//! Series that senders have sent before, found by the bytes in which they send their labels.
//!
//! A sender repeats the same labels every few seconds, mostly in the same order. What was looked up for them is kept here,
//! and with each series which one came after it the last time, so that a request of known series reads no label, hashes
//! nothing and takes no lock: it compares bytes. Two generations: what is used goes to the young one, what was not used
//! for a whole turn goes with the old one, so that finished series are let go. A request holds on to the generations
//! that it began with; what is in one stays where it is as long as it lives.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{Mutex, RwLock};

use crate::db::Series;

/// How long a generation is young.
const TURN: Duration = Duration::from_secs(600);
/// Most series of a generation; at some 600 bytes each the cache stays below 120 MiB.
const SERIES_COUNT_MAX: usize = 100_000;
/// Series of one piece of memory.
const CHUNK_LEN: usize = 1024;

/// A series as the cache holds it.
pub(super) type Handle = Arc<Series<f64>>;

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    both: Generations,
    /// When the young one began, on the monotonic clock.
    began: Duration,
}

/// The two generations as one request sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct Generations {
    young: Arc<Generation>,
    old: Arc<Generation>,
}

/// Which series of the young generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Series in the order in which they came; grows, and moves nothing.
struct Generation {
    chunks: Box<[OnceLock<Chunk>]>,
    index: RwLock<HashTable<(u64, u32)>>,
    hasher: DefaultHashBuilder,
}

type Chunk = Box<[OnceLock<Known>]>;

struct Known {
    labels: Box<[u8]>,
    handle: Handle,
    /// The series that came after this one.
    next: AtomicU32,
}

impl Handles {
    /// The generations to use at `now`, on the monotonic clock. A new one begins when it is time or the young one is full.
    pub(super) fn at(&self, now: Duration) -> Generations {
        let mut turns = self.0.lock();
        if now.saturating_sub(turns.began) >= TURN || turns.both.young.len() >= SERIES_COUNT_MAX {
            turns.both = Generations { old: Arc::clone(&turns.both.young), young: Arc::default() };
            turns.began = now;
        }
        turns.both.clone()
    }

    /// How many series are kept, those that are in both generations twice.
    pub(super) fn len(&self) -> usize {
        let both = self.0.lock().both.clone();
        both.young.len() + both.old.len()
    }
}

impl Generations {
    /// The series that came after `last` the last time, and its label bytes.
    #[inline]
    pub(super) fn after(&self, last: Option<Place>) -> Option<(Place, &[u8])> {
        let next = Place(self.young.get(last?)?.next.load(Ordering::Relaxed));
        Some((next, &self.young.get(next)?.labels))
    }

    /// The series with these label bytes, which come after `last`.
    pub(super) fn find(&self, labels: &[u8], last: Option<Place>) -> Option<Place> {
        if let Some(place) = self.young.find(labels) {
            self.young.follow(last, place);
            return Some(place);
        }
        let old = self.old.find(labels)?;
        self.insert(labels, Arc::clone(&self.old.get(old)?.handle), last)
    }

    /// Keeps `handle` for `labels`, which came after `last`; `None` when the generation is full.
    pub(super) fn insert(&self, labels: &[u8], handle: Handle, last: Option<Place>) -> Option<Place> {
        let place = self.young.insert(labels, handle)?;
        self.young.follow(last, place);
        Some(place)
    }

    /// The series at `place`.
    #[inline]
    pub(super) fn series(&self, place: Place) -> Option<&Series<f64>> {
        self.young.get(place).map(|known| &*known.handle)
    }
}

impl Default for Generation {
    fn default() -> Self {
        Generation {
            chunks: (0..SERIES_COUNT_MAX.div_ceil(CHUNK_LEN)).map(|_| OnceLock::new()).collect(),
            index: RwLock::default(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl Generation {
    fn len(&self) -> usize {
        self.index.read().len()
    }

    #[inline]
    fn get(&self, place: Place) -> Option<&Known> {
        self.slot(place)?.get()
    }

    #[inline]
    fn slot(&self, Place(place): Place) -> Option<&OnceLock<Known>> {
        let place = place as usize;
        self.chunks.get(place / CHUNK_LEN)?.get()?.get(place % CHUNK_LEN)
    }

    fn find(&self, labels: &[u8]) -> Option<Place> {
        let hash = self.hasher.hash_one(labels);
        self.find_hashed(&self.index.read(), hash, labels)
    }

    fn find_hashed(&self, index: &HashTable<(u64, u32)>, hash: u64, labels: &[u8]) -> Option<Place> {
        let is_same = |entry: &(u64, u32)| {
            entry.0 == hash && self.get(Place(entry.1)).is_some_and(|known| *known.labels == *labels)
        };
        index.find(hash, is_same).map(|entry| Place(entry.1))
    }

    fn insert(&self, labels: &[u8], handle: Handle) -> Option<Place> {
        let hash = self.hasher.hash_one(labels);
        let mut index = self.index.write();
        if let Some(place) = self.find_hashed(&index, hash, labels) {
            return Some(place);
        }
        let place = u32::try_from(index.len()).ok().filter(|place| (*place as usize) < SERIES_COUNT_MAX)?;
        let chunk = self.chunks.get(place as usize / CHUNK_LEN)?;
        chunk.get_or_init(|| (0..CHUNK_LEN).map(|_| OnceLock::new()).collect());
        let known = Known { labels: labels.into(), handle, next: AtomicU32::new(u32::MAX) };
        self.slot(Place(place))?.set(known).ok()?;
        index.insert_unique(hash, (hash, place), |entry| entry.0);
        Some(Place(place))
    }

    fn follow(&self, last: Option<Place>, place: Place) {
        if let Some(last) = last.and_then(|last| self.get(last)) {
            last.next.store(place.0, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::memory_db;
    use super::*;
    use crate::Db;

    fn handle(db: &Db, name: &str) -> Handle {
        Arc::new(db.series(name, &[]).unwrap())
    }

    #[test]
    fn what_is_not_used_for_a_turn_goes() {
        let db = memory_db();
        let handles = Handles::default();
        for name in ["used", "idle"] {
            handles.at(Duration::ZERO).insert(name.as_bytes(), handle(&db, name), None).unwrap();
        }
        let name_of = |now: Duration, labels: &str| {
            let both = handles.at(now);
            let place = both.find(labels.as_bytes(), None)?;
            both.series(place).map(|series| series.key().name().to_owned())
        };
        assert_eq!(name_of(Duration::ZERO, "other"), None);
        assert_eq!(name_of(TURN, "used").as_deref(), Some("used"), "it is old, and young again");
        assert_eq!(handles.len(), 3);
        assert_eq!(name_of(TURN * 2 - Duration::from_nanos(1), "idle").as_deref(), Some("idle"));
        assert_eq!(name_of(TURN * 2, "used").as_deref(), Some("used"));
        assert_eq!(name_of(TURN * 3, "idle"), None);
        assert_eq!(name_of(TURN * 3, "used").as_deref(), Some("used"));
    }

    #[test]
    fn series_are_expected_in_the_order_in_which_they_came() {
        let db = memory_db();
        let both = Handles::default().at(Duration::ZERO);
        let a = both.insert(b"a", handle(&db, "a"), None);
        let b = both.insert(b"b", handle(&db, "b"), a);
        let after = |last| both.after(last).map(|(_, labels)| labels);
        assert_eq!((after(a), after(b), after(None)), (Some(&b"b"[..]), None, None));
        assert_eq!((both.find(b"b", a), both.find(b"b", None)), (b, b));
        // Another order is learned.
        assert_eq!(both.find(b"a", a), a);
        assert_eq!(after(a), Some(&b"a"[..]));
        assert_eq!(both.insert(b"a", handle(&db, "a"), None), a, "kept once");
    }

    #[test]
    fn a_full_generation_takes_no_more_and_is_followed_by_a_new_one() {
        let db = memory_db();
        let handles = Handles::default();
        let both = handles.at(Duration::ZERO);
        let one = handle(&db, "one");
        for number in 0..SERIES_COUNT_MAX {
            assert!(both.insert(&number.to_le_bytes(), Arc::clone(&one), None).is_some());
        }
        assert_eq!(both.insert(b"more", Arc::clone(&one), None), None);
        assert_eq!(both.find(b"more", None), None);
        let next = handles.at(Duration::ZERO);
        assert!(next.insert(b"more", one, None).is_some());
        assert!(next.find(&7usize.to_le_bytes(), None).is_some(), "the full one is still there");
    }
}
