//! Time for instruments. Clients take theirs from their [`Env`](crate::Env).

use std::sync::OnceLock;
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
