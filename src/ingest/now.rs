//! Time for instruments and clients: the wall clock, and elapsed time.
//!
//! The one place in `ingest` that asks what time it is.

use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::model::Timestamp;

/// The wall clock's time.
pub(super) fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Measures elapsed time on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(SystemClock);

impl Stopwatch {
    /// Starts measuring.
    pub(super) fn start() -> Self {
        Stopwatch(SystemClock::new())
    }

    /// What has passed since the start.
    pub(super) fn elapsed(self) -> Duration {
        self.0.monotonic()
    }
}
