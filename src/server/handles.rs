//! Series that senders have sent before, found by the bytes in which they send their labels.
//!
//! A sender repeats the same labels every few seconds. What was looked up for them is kept here, so that a request of
//! known series reads no label, builds no key and asks no registry. Two generations: what is used stays in the young
//! one, what was not used for a whole turn goes with the old one, so that finished series are let go.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::db::Series;

/// How long a generation is young.
const TURN: Duration = Duration::from_secs(600);
/// Most series of a generation; at some 300 bytes each the cache stays below 60 MiB.
const SERIES_COUNT_MAX: usize = 100_000;

/// A series as the cache holds it.
pub(super) type Handle = Arc<Series<f64>>;

/// The cache. Locked for reading as long as everything asked for is young.
#[derive(Debug, Default)]
pub(super) struct Handles {
    generations: RwLock<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Box<[u8]>, Handle>,
    old: HashMap<Box<[u8]>, Handle>,
    /// When the young one began, on the monotonic clock.
    began: Duration,
}

impl Handles {
    /// The handles of `keys`, where they are known, in order.
    pub(super) fn find<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<Option<Handle>> {
        let generations = self.generations.read();
        keys.map(|key| generations.young.get(key).cloned()).collect()
    }

    /// The handle of `key` if the old generation has it, which makes it young again.
    pub(super) fn find_old(&self, key: &[u8]) -> Option<Handle> {
        let mut generations = self.generations.write();
        let (key, handle) = generations.old.remove_entry(key)?;
        generations.young.insert(key, Arc::clone(&handle));
        Some(handle)
    }

    /// Keeps `handle` for `key`.
    pub(super) fn insert(&self, key: &[u8], handle: Handle) {
        let mut generations = self.generations.write();
        if generations.young.len() >= SERIES_COUNT_MAX {
            generations.turn();
        }
        generations.young.insert(key.into(), handle);
    }

    /// Begins a new generation when it is time; `now` is on the monotonic clock.
    pub(super) fn age(&self, now: Duration) {
        if now.saturating_sub(self.generations.read().began) < TURN {
            return;
        }
        let mut generations = self.generations.write();
        generations.turn();
        generations.began = now;
    }
}

impl Generations {
    fn turn(&mut self) {
        self.old = mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::memory_db;
    use super::*;

    #[test]
    fn what_is_not_used_for_a_turn_goes() {
        let db = memory_db();
        let handles = Handles::default();
        for name in ["used", "idle"] {
            handles.insert(name.as_bytes(), Arc::new(db.series(name, &[]).unwrap()));
        }
        let young = |name: &str| handles.find([name.as_bytes()].into_iter()).remove(0).is_some();
        assert!(young("used") && young("idle") && !young("other"));
        handles.age(TURN);
        assert!(!young("used"));
        assert_eq!(handles.find_old(b"used").unwrap().key().name(), "used");
        assert!(young("used"));
        handles.age(TURN);
        assert!(young("used"), "the turn has just begun");
        handles.age(TURN * 2);
        assert!(handles.find_old(b"used").is_some() && handles.find_old(b"idle").is_none());
    }
}
