//! Memory against one cap: what stands (heads, registry, caches) and what work has reserved (queries, merges).
//!
//! Open to every layer. `db` says what stands and asks before writes; queries and merges reserve, and give back when they
//! are done. Counted by their owners' own reckoning, not by an allocator; `tests/memory.rs` compares the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// So much may be reserved however full memory is, so that small queries always have an answer.
const ROOM_MIN: usize = 1 << 20;

/// The accounts of one database.
#[derive(Debug)]
pub(crate) struct Ledger {
    size_max: usize,
    /// Not to be reserved even while nothing stands: heads and caches will need it.
    kept: usize,
    standing: AtomicUsize,
    reserved: AtomicUsize,
}

impl Ledger {
    /// Accounts over `size_max` bytes, of which `kept`, but at most half, are for what stands.
    pub(crate) fn new(size_max: usize, kept: usize) -> Arc<Self> {
        let kept = kept.min(size_max / 2);
        Arc::new(Ledger { size_max, kept, standing: AtomicUsize::new(0), reserved: AtomicUsize::new(0) })
    }

    /// Says what heads, registry and caches take now.
    pub(crate) fn stands(&self, size: usize) {
        self.standing.store(size, Ordering::Relaxed);
    }

    /// What is reserved now.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Bytes that all reservations together may take now.
    fn room(&self) -> usize {
        let standing = self.standing.load(Ordering::Relaxed).max(self.kept);
        self.size_max.saturating_sub(standing).max(ROOM_MIN)
    }

    fn take(&self, size: usize) -> Result<()> {
        let before = self.reserved.fetch_add(size, Ordering::Relaxed);
        if before.saturating_add(size) <= self.room() {
            return Ok(());
        }
        self.reserved.fetch_sub(size, Ordering::Relaxed);
        Err(Error::limit_exceeded(format!(
            "{size} bytes more would pass memory_size_max ({} bytes): heads, registry and caches take {}, queries and merges {before}",
            self.size_max,
            self.standing.load(Ordering::Relaxed)
        )))
    }
}

/// Memory that one piece of work has reserved; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    ledger: Arc<Ledger>,
    size: AtomicUsize,
}

impl Reservation {
    /// Nothing yet.
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Reservation { ledger, size: AtomicUsize::new(0) }
    }

    /// Reserves `size` bytes more.
    ///
    /// # Errors
    /// `LimitExceeded` when there is no room for them.
    pub(crate) fn grow(&self, size: usize) -> Result<()> {
        self.ledger.take(size)?;
        self.size.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.reserved.fetch_sub(*self.size.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const MIB: usize = 1 << 20;

    #[test]
    fn reservations_stay_under_the_cap_and_come_back() {
        let ledger = Ledger::new(10 * MIB, 4 * MIB);
        let first = Reservation::new(ledger.clone());
        let second = Reservation::new(ledger.clone());
        first.grow(4 * MIB).unwrap();
        second.grow(2 * MIB).unwrap();
        let error = second.grow(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert_eq!(ledger.reserved(), 6 * MIB);
        drop(first);
        second.grow(4 * MIB).unwrap();
        drop(second);
        assert_eq!(ledger.reserved(), 0);
    }

    #[test]
    fn what_stands_leaves_less() {
        let ledger = Ledger::new(10 * MIB, 0);
        ledger.stands(8 * MIB);
        let query = Reservation::new(ledger.clone());
        query.grow(2 * MIB).unwrap();
        assert!(query.grow(1).is_err());
        ledger.stands(20 * MIB);
        assert!(Reservation::new(ledger.clone()).grow(1).is_err());
        drop(query);
        Reservation::new(ledger).grow(ROOM_MIN).unwrap();
    }
}
