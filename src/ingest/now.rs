//! Time for instruments and clients: the wall clock, and elapsed time.
//!
//! The one place in `ingest` that asks what time it is.

use std::time::{Duration, Instant, SystemTime};

use crate::model::Timestamp;

/// The wall clock's time.
pub(super) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Measures elapsed time on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    pub(super) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// What has passed since the start.
    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
