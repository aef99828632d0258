//! Guards that observe how long they lived.

use std::fmt;
use std::time::Duration;

use crate::ingest::now::Stopwatch;

/// What a [`Timer`] reports to: summaries and histograms.
pub trait Observe {
    /// Takes a duration in seconds.
    fn observe_seconds(&self, seconds: f64);
}

/// Observes the seconds from its start to its end in a summary or histogram.
///
/// ```
/// use icecore::ingest::Histogram;
///
/// let h = Histogram::new("request_latency_seconds", "Description of histogram")?;
/// let timer = h.start_timer();
/// let took = timer.stop();
/// assert_eq!(h.value().count, 1);
/// assert_eq!(h.value().sum, took.as_secs_f64());
///
/// h.start_timer().discard();
/// assert_eq!(h.value().count, 1);
/// # Ok::<(), icecore::Error>(())
/// ```
#[must_use = "it measures until it is dropped or stopped"]
pub struct Timer<'a, T: Observe> {
    /// None once the time is observed or not wanted.
    target: Option<&'a T>,
    stopwatch: Stopwatch,
}

impl<'a, T: Observe> Timer<'a, T> {
    pub(super) fn start(target: &'a T) -> Self {
        Timer { target: Some(target), stopwatch: Stopwatch::start() }
    }

    /// Observes the time now and returns it.
    pub fn stop(mut self) -> Duration {
        self.finish()
    }

    /// Ends without an observation.
    pub fn discard(mut self) {
        self.target = None;
    }

    fn finish(&mut self) -> Duration {
        let elapsed = self.stopwatch.elapsed();
        if let Some(target) = self.target.take() {
            target.observe_seconds(elapsed.as_secs_f64());
        }
        elapsed
    }
}

impl<T: Observe> Drop for Timer<'_, T> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl<T: Observe> fmt::Debug for Timer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("stopwatch", &self.stopwatch).finish_non_exhaustive()
    }
}
