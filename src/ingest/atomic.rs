//! An `f64` that many threads add to, kept as its bits in an `AtomicU64`.

use std::sync::atomic::{AtomicU64, Ordering};

/// A double with atomic load, store and add. All orderings are relaxed: a value guards nothing else.
#[derive(Debug, Default)]
pub(super) struct AtomicF64(AtomicU64);

impl AtomicF64 {
    pub(super) fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn store(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds `amount`; no addition of another thread is lost. Integers stay exact up to 2^53.
    #[inline]
    pub(super) fn add(&self, amount: f64) {
        let mut bits = self.0.load(Ordering::Relaxed);
        loop {
            let sum = (f64::from_bits(bits) + amount).to_bits();
            match self.0.compare_exchange_weak(bits, sum, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => bits = found,
            }
        }
    }
}
