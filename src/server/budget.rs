//! One memory cap for all request bodies in flight.
//!
//! Bodies ask for what they are about to hold, as it arrives and as it is decompressed, and give it back when the
//! request is done. Who asks for more than is left is answered with 503 and may come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// The cap and what of it is in use. Cheap to clone; clones share.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    used: AtomicUsize,
    size_max: usize,
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    shared: Arc<Shared>,
    size: usize,
}

impl Budget {
    /// A budget of `size_max` bytes.
    pub(super) fn new(size_max: usize) -> Self {
        Budget { shared: Arc::new(Shared { used: AtomicUsize::new(0), size_max }) }
    }

    /// A reservation of nothing, to be grown.
    pub(super) fn reservation(&self) -> Reservation {
        Reservation { shared: Arc::clone(&self.shared), size: 0 }
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Takes `size` bytes more.
    ///
    /// # Errors
    /// `Busy` when fewer are left; nothing is taken then.
    pub(super) fn grow(&mut self, size: usize) -> Result<()> {
        let size_max = self.shared.size_max;
        let fits = |used: usize| used.checked_add(size).filter(|sum| *sum <= size_max);
        match self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.size += size;
                Ok(())
            }
            Err(used) => Err(Error::busy(format!(
                "request bodies in flight hold {used} of {size_max} bytes (--bodies-size-max), {size} more do not fit; \
                 try again"
            ))),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_cap_holds_over_all_and_is_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.reservation();
        let mut second = budget.clone().reservation();
        first.grow(60).unwrap();
        second.grow(40).unwrap();
        assert_eq!(second.grow(1).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(second.grow(usize::MAX).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(budget.used(), 100);
        drop(first);
        second.grow(60).unwrap();
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
