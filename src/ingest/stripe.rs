//! A value kept several times, so that threads that change it at once rarely meet.
//!
//! Counters, summaries and histograms are stripes that are added up when read. Each thread is given one
//! stripe for its life; two threads on one stripe are correct, only slower.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most stripes of one instrument: what a family of a hundred thousand children can still afford.
const STRIPE_COUNT_MAX: usize = 8;

/// One stripe alone on its cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded<T>(T);

/// A power of two of `T`s, at most [`STRIPE_COUNT_MAX`].
#[derive(Debug)]
pub(super) struct Striped<T>(Box<[Padded<T>]>);

impl<T> Striped<T> {
    /// As many stripes as the machine has use for, each made by `make`.
    pub(super) fn new(make: impl Fn() -> T) -> Self {
        Striped((0..stripe_count()).map(|_| Padded(make())).collect())
    }

    /// The stripe of the calling thread.
    #[inline]
    pub(super) fn mine(&self) -> &T {
        // The length is a power of two, so the mask keeps the index inside.
        &self.0[thread_number() & (self.0.len() - 1)].0
    }

    /// All stripes, in an order that never changes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

/// Cores, rounded up to a power of two: threads in excess of the cores do not run at the same time.
fn stripe_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.next_power_of_two().min(STRIPE_COUNT_MAX)
    })
}

/// A number of the calling thread, given in turn at its first use.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_stripe() {
        let striped = Striped::new(|| AtomicUsize::new(0));
        assert!(std::ptr::eq(striped.mine(), striped.mine()));
        assert!(striped.iter().any(|stripe| std::ptr::eq(stripe, striped.mine())));
        assert!(striped.iter().count().is_power_of_two());
        assert!(striped.iter().count() <= STRIPE_COUNT_MAX);
    }

    #[test]
    fn stripes_lie_on_lines_of_their_own() {
        assert_eq!(align_of::<Padded<u64>>(), 64);
        assert_eq!(size_of::<Padded<u64>>(), 64);
    }
}
