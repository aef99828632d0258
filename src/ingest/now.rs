//! Time for instruments, and the stamps of clients.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::model::Timestamp;

/// The system's clocks, by which instruments measure: they belong to a process, not to a database.
fn system() -> &'static SystemClock {
    static CLOCK: OnceLock<SystemClock> = OnceLock::new();
    CLOCK.get_or_init(SystemClock::new)
}

/// The wall clock's time.
pub(super) fn now() -> Timestamp {
    system().now()
}

/// Measures elapsed time on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Duration);

impl Stopwatch {
    /// Starts measuring.
    pub(super) fn start() -> Self {
        Stopwatch(system().monotonic())
    }

    /// What has passed since the start.
    pub(super) fn elapsed(self) -> Duration {
        system().monotonic().saturating_sub(self.0)
    }
}

/// Gives times that strictly rise, so that no two samples stamped by it meet.
///
/// When the wall clock stands still or is set back, stamps go on by a nanosecond each from the last one.
#[derive(Debug)]
pub(super) struct Stamper {
    clock: Arc<dyn Clock>,
    last: AtomicI64,
}

impl Stamper {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Stamper { clock, last: AtomicI64::new(i64::MIN) }
    }

    /// Now, or just after the last stamp.
    pub(super) fn stamp(&self) -> Timestamp {
        let now = self.clock.now().nanos();
        let next = |last: i64| now.max(last.saturating_add(1));
        let order = Ordering::Relaxed;
        let last = self.last.fetch_update(order, order, |last| Some(next(last))).unwrap_or_else(|last| last);
        Timestamp::from_nanos(next(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn stamps_rise_when_the_clock_does_not() {
        let clock = ManualClock::new(Timestamp::from_nanos(100));
        let stamper = Stamper::new(Arc::new(clock.clone()));
        let stamp = || stamper.stamp().nanos();
        assert_eq!([stamp(), stamp(), stamp()], [100, 101, 102]);
        clock.set_now(Timestamp::from_nanos(50));
        assert_eq!(stamp(), 103);
        clock.set_now(Timestamp::from_nanos(1_000));
        assert_eq!([stamp(), stamp()], [1_000, 1_001]);
    }
}
