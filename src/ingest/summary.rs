//! A summary: how many observations, and their sum.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::ingest::family::{Family, Instrument, Labels};
use crate::ingest::stripe::Striped;
use crate::ingest::timer::{Observe, Timer};
use crate::ingest::{Description, FamilySample};
use crate::model::MetricKind;

/// Counts and adds up observations: sizes, durations. For quantiles use a [`Histogram`](super::Histogram).
///
/// ```
/// use icecore::ingest::Summary;
///
/// let s = Summary::new("request_latency_seconds", "Description of summary")?;
/// s.observe(4.7);
/// s.time(|| "work");
/// {
///     let _timer = s.start_timer();
/// }
/// let read = s.value();
/// assert_eq!(read.count, 3);
/// assert!(read.sum >= 4.7);
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Summary(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    description: Arc<Description>,
    stripes: Striped<Mutex<SummaryValue>>,
}

/// What a summary has seen. Count and sum are of the very same observations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SummaryValue {
    /// How many observations.
    pub count: u64,
    /// Their sum. NaN once a NaN was observed.
    pub sum: f64,
}

impl Summary {
    /// A summary of nothing that belongs to no registry yet.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long name.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        Self::from_description(Description::new(name, help))
    }

    /// [`Summary::new`] with a unit.
    ///
    /// # Errors
    /// As [`Summary::new`].
    pub fn from_description(description: Description) -> Result<Self> {
        Ok(Self::with(&Arc::new(description.for_kind(MetricKind::Summary)?)))
    }

    /// A family of summaries, one for each set of values of `labels`.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name, or no, an empty, reserved or repeated label name.
    pub fn family<L: AsRef<str>>(
        name: &str,
        help: &str,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Family<Summary>> {
        Family::new(Description::new(name, help), labels, Self::with)
    }

    fn with(description: &Arc<Description>) -> Self {
        Summary(Arc::new(Inner { description: description.clone(), stripes: Striped::new(Mutex::default) }))
    }

    /// Adds an observation.
    pub fn observe(&self, value: impl Into<f64>) {
        let mut mine = self.0.stripes.mine().lock();
        mine.count += 1;
        mine.sum += value.into();
    }

    /// Observes the seconds until the timer is dropped or stopped.
    pub fn start_timer(&self) -> Timer<'_, Summary> {
        Timer::start(self)
    }

    /// Runs `work` and observes the seconds it took, in a panic too.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let _timer = self.start_timer();
        work()
    }

    /// What it has seen so far.
    pub fn value(&self) -> SummaryValue {
        let mut total = SummaryValue::default();
        for stripe in self.0.stripes.iter() {
            let stripe = *stripe.lock();
            total.count += stripe.count;
            total.sum += stripe.sum;
        }
        total
    }

    /// Name, help and unit.
    pub fn description(&self) -> &Description {
        &self.0.description
    }
}

impl Observe for Summary {
    fn observe_seconds(&self, seconds: f64) {
        self.observe(seconds);
    }
}

impl Instrument for Summary {
    const KIND: MetricKind = MetricKind::Summary;

    fn own_description(&self) -> &Description {
        &self.0.description
    }

    #[allow(clippy::cast_precision_loss)] // Exact below 2^53 observations.
    fn samples(&self, labels: &Labels<'_>, out: &mut Vec<FamilySample>) {
        let read = self.value();
        out.push(labels.sample("_count", read.count as f64));
        out.push(labels.sample("_sum", read.sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_and_sum_are_of_the_same_observations() {
        let s = Summary::new("s", "").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5_000).for_each(|_| s.observe(2)));
            }
            for _ in 0..200 {
                let read = s.value();
                #[allow(clippy::cast_precision_loss)]
                let expected = read.count as f64 * 2.0;
                assert_eq!(read.sum, expected);
            }
        });
        assert_eq!(s.value(), SummaryValue { count: 20_000, sum: 40_000.0 });
    }
}
