//! A histogram: observations counted in buckets, with their count and sum.

use std::cmp::Ordering;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ingest::family::{Family, Instrument, Labels};
use crate::ingest::stripe::Striped;
use crate::ingest::timer::{Observe, Timer};
use crate::ingest::{Description, FamilySample};
use crate::model::MetricKind;
use crate::protocol::label::BUCKET_KEY;
use crate::protocol::number::push_float_dotted;

/// Upper bounds of the buckets of a histogram when none are given, those of the Python client: they cover
/// a web or RPC request from milliseconds to seconds.
pub const DEFAULT_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Most buckets of one histogram, the one to infinity included.
pub const BUCKET_COUNT_MAX: usize = 1024;

/// Counts observations in buckets, from which quantiles can be had over many series and any time.
///
/// ```
/// use icecore::ingest::Histogram;
///
/// let h = Histogram::new("request_latency_seconds", "Description of histogram")?;
/// h.observe(4.7);
/// h.time(|| "work");
/// {
///     let _timer = h.start_timer();
/// }
/// assert_eq!(h.value().count, 3);
///
/// let sizes = Histogram::with_buckets("size_bytes", "Sizes of replies", [1e3, 1e4, 1e5])?;
/// sizes.observe(20_000);
/// assert_eq!(sizes.value().cumulative(), [0, 0, 1, 1]);
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    description: Arc<Description>,
    buckets: Arc<Buckets>,
    /// A lock for each stripe, held for a few instructions: what a reader sees of a stripe fits together.
    stripes: Striped<Mutex<Cells>>,
}

/// Upper bounds, rising, the last one infinity; and how they are written.
#[derive(Debug)]
struct Buckets {
    bounds: Vec<f64>,
    texts: Vec<String>,
}

#[derive(Debug)]
struct Cells {
    /// On lines of their own, so that the stripes of two threads do not share one.
    counts: Box<[Line]>,
    sum: f64,
}

#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Line([u64; LINE_LEN]);

const LINE_LEN: usize = 8;

/// What a histogram has seen. Buckets, count and sum are of the very same observations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramValue {
    /// Upper bounds, inclusive and rising; the last one is infinity.
    pub bounds: Vec<f64>,
    /// How many observations fell into each bucket alone.
    pub counts: Vec<u64>,
    /// How many observations in all.
    pub count: u64,
    /// Their sum. NaN once a NaN was observed.
    pub sum: f64,
}

impl HistogramValue {
    /// How many observations were at or below each bound, as histograms are exposed.
    pub fn cumulative(&self) -> Vec<u64> {
        let running = |sum: &mut u64, count: &u64| {
            *sum += count;
            Some(*sum)
        };
        self.counts.iter().scan(0, running).collect()
    }
}

impl Histogram {
    /// A histogram with the [`DEFAULT_BUCKETS`] that belongs to no registry yet.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long name.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        Self::with_buckets(name, help, DEFAULT_BUCKETS)
    }

    /// A histogram with these upper bounds; the bucket to infinity is added where it is missing.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name, or when the bounds do not rise strictly, one is NaN, or there are
    /// none or more than [`BUCKET_COUNT_MAX`].
    pub fn with_buckets(name: &str, help: &str, bounds: impl IntoIterator<Item = f64>) -> Result<Self> {
        Self::from_description(Description::new(name, help), bounds)
    }

    /// [`Histogram::with_buckets`] with a unit.
    ///
    /// # Errors
    /// As [`Histogram::with_buckets`].
    pub fn from_description(description: Description, bounds: impl IntoIterator<Item = f64>) -> Result<Self> {
        let description = Arc::new(description.for_kind(MetricKind::Histogram)?);
        let buckets = Buckets::new(&description.name, bounds)?;
        Ok(Self::with(&description, &Arc::new(buckets)))
    }

    /// A family of histograms with the [`DEFAULT_BUCKETS`], one for each set of values of `labels`.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name, or no, an empty, reserved (`le`) or repeated label name.
    pub fn family<L: AsRef<str>>(
        name: &str,
        help: &str,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Family<Histogram>> {
        Self::family_with_buckets(name, help, labels, DEFAULT_BUCKETS)
    }

    /// A family of histograms with these upper bounds.
    ///
    /// # Errors
    /// As [`Histogram::family`] and [`Histogram::with_buckets`].
    pub fn family_with_buckets<L: AsRef<str>>(
        name: &str,
        help: &str,
        labels: impl IntoIterator<Item = L>,
        bounds: impl IntoIterator<Item = f64>,
    ) -> Result<Family<Histogram>> {
        let buckets = Arc::new(Buckets::new(name, bounds)?);
        Family::new(Description::new(name, help), labels, move |description| {
            Self::with(description, &buckets)
        })
    }

    fn with(description: &Arc<Description>, buckets: &Arc<Buckets>) -> Self {
        let line_count = buckets.bounds.len().div_ceil(LINE_LEN);
        let cells = || Mutex::new(Cells { counts: vec![Line::default(); line_count].into(), sum: 0.0 });
        Histogram(Arc::new(Inner {
            description: description.clone(),
            buckets: buckets.clone(),
            stripes: Striped::new(cells),
        }))
    }

    /// Adds an observation: to the first bucket whose bound is not below it, NaN to the last.
    pub fn observe(&self, value: impl Into<f64>) {
        let value = value.into();
        let bounds = &self.0.buckets.bounds;
        let last = bounds.len() - 1;
        let index = if value.is_nan() { last } else { bounds.partition_point(|bound| *bound < value) };
        let mut mine = self.0.stripes.mine().lock();
        mine.counts[index / LINE_LEN].0[index % LINE_LEN] += 1;
        mine.sum += value;
    }

    /// Observes the seconds until the timer is dropped or stopped.
    pub fn start_timer(&self) -> Timer<'_, Histogram> {
        Timer::start(self)
    }

    /// Runs `work` and observes the seconds it took, in a panic too.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let _timer = self.start_timer();
        work()
    }

    /// What it has seen so far.
    pub fn value(&self) -> HistogramValue {
        let bounds = self.0.buckets.bounds.clone();
        let mut read = HistogramValue { counts: vec![0; bounds.len()], bounds, count: 0, sum: 0.0 };
        for stripe in self.0.stripes.iter() {
            let stripe = stripe.lock();
            let cells = stripe.counts.iter().flat_map(|line| &line.0);
            read.counts.iter_mut().zip(cells).for_each(|(total, count)| *total += count);
            read.sum += stripe.sum;
        }
        read.count = read.counts.iter().sum();
        read
    }

    /// Name, help and unit.
    pub fn description(&self) -> &Description {
        &self.0.description
    }
}

impl Buckets {
    fn new(name: &str, bounds: impl IntoIterator<Item = f64>) -> Result<Self> {
        // One more than allowed is enough to see that there are too many.
        let mut bounds: Vec<f64> = bounds.into_iter().take(BUCKET_COUNT_MAX + 1).collect();
        let refused = |why: String| Err(Error::invalid_input(format!("histogram {name}: {why}")));
        if bounds.is_empty() {
            return refused("no buckets".to_owned());
        }
        if let Some(pair) =
            bounds.windows(2).find(|pair| pair[0].partial_cmp(&pair[1]) != Some(Ordering::Less))
        {
            return refused(format!("bucket {} does not lie above {}", pair[1], pair[0]));
        }
        if bounds[0].is_nan() {
            return refused("a bucket is NaN".to_owned());
        }
        if bounds.last() != Some(&f64::INFINITY) {
            bounds.push(f64::INFINITY);
        }
        if bounds.len() > BUCKET_COUNT_MAX {
            return refused(format!("more than {BUCKET_COUNT_MAX} buckets"));
        }
        let text = |bound: &f64| {
            let mut text = String::new();
            push_float_dotted(&mut text, *bound);
            text
        };
        let texts = bounds.iter().map(text).collect();
        Ok(Buckets { bounds, texts })
    }
}

impl Observe for Histogram {
    fn observe_seconds(&self, seconds: f64) {
        self.observe(seconds);
    }
}

impl Instrument for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;

    fn own_description(&self) -> &Description {
        &self.0.description
    }

    #[allow(clippy::cast_precision_loss)] // Exact below 2^53 observations.
    fn samples(&self, labels: &Labels<'_>, out: &mut Vec<FamilySample>) {
        let read = self.value();
        for (bound, count) in self.0.buckets.texts.iter().zip(read.cumulative()) {
            let mut sample = labels.sample("_bucket", count as f64);
            sample.tags.push((BUCKET_KEY.into(), bound.clone().into()));
            out.push(sample);
        }
        out.push(labels.sample("_count", read.count as f64));
        out.push(labels.sample("_sum", read.sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Collect;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let h = Histogram::with_buckets("h", "", [-1.0, 0.0, 2.5]).unwrap();
        for value in [-2.0, -1.0, -0.5, 0.0, -0.0, 2.5, 2.6, f64::INFINITY, f64::NEG_INFINITY] {
            h.observe(value);
        }
        assert_eq!(h.value().counts, [3, 3, 1, 2]);
        assert_eq!(h.value().cumulative(), [3, 6, 7, 9]);
    }

    #[test]
    fn nan_is_counted_in_the_last_bucket() {
        let h = Histogram::with_buckets("h", "", [1.0]).unwrap();
        h.observe(f64::NAN);
        let read = h.value();
        assert_eq!((read.count, read.counts), (1, vec![0, 1]));
        assert!(read.sum.is_nan());
    }

    #[test]
    fn buckets_count_and_sum_are_of_the_same_observations() {
        let h = Histogram::with_buckets("h", "", [1.0, 2.0]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5_000).for_each(|_| h.observe(2)));
            }
            for _ in 0..200 {
                let read = h.value();
                #[allow(clippy::cast_precision_loss)]
                let expected = read.counts[1] as f64 * 2.0;
                assert_eq!((read.count, read.sum), (read.counts[1], expected));
            }
        });
        assert_eq!(h.value().count, 20_000);
    }

    #[track_caller]
    fn refused(bounds: &[f64], part: &str) {
        let error = Histogram::with_buckets("h", "", bounds.iter().copied()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn wrong_buckets_are_refused() {
        refused(&[], "no buckets");
        refused(&[1.0, 1.0], "does not lie above");
        refused(&[2.0, 1.0], "does not lie above");
        refused(&[f64::NAN], "NaN");
        refused(&[1.0, f64::NAN], "does not lie above");
        let bounds: Vec<f64> = (0..1024).map(f64::from).collect();
        refused(&bounds, "more than 1024");
        assert!(Histogram::with_buckets("h", "", bounds[1..].iter().copied()).is_ok());
    }

    #[test]
    fn bounds_are_written_as_prometheus_3_does() {
        let h = Histogram::with_buckets("h", "", [0.005, 1.0, 1e6, f64::INFINITY]).unwrap();
        let bounds: Vec<String> =
            h.collect().samples.iter().filter_map(|s| Some(s.tags.last()?.1.to_string())).collect();
        assert_eq!(bounds, ["0.005", "1.0", "1e+06", "+Inf"]);
    }
}
