//! A gauge: goes up and down, or asks a function.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::Result;
use crate::ingest::atomic::AtomicF64;
use crate::ingest::family::{Family, Instrument, Labels};
use crate::ingest::now::now;
use crate::ingest::{Description, FamilySample};
use crate::model::MetricKind;

/// Holds a present state: memory in use, a temperature, a queue's length.
///
/// ```
/// use icecore::ingest::Gauge;
///
/// let g = Gauge::new("my_inprogress_requests", "Description of gauge")?;
/// g.inc();
/// g.dec_by(10);
/// g.set(4.2);
/// assert_eq!(g.value(), 4.2);
/// g.set_to_current_time();
/// assert!(g.value() > 1.7e9);
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Inner>);

struct Inner {
    description: Arc<Description>,
    value: AtomicF64,
    function: RwLock<Option<Function>>,
}

type Function = Arc<dyn Fn() -> f64 + Send + Sync>;

impl Gauge {
    /// A gauge at 0 that belongs to no registry yet.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long name.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        Self::from_description(Description::new(name, help))
    }

    /// [`Gauge::new`] with a unit.
    ///
    /// # Errors
    /// As [`Gauge::new`].
    pub fn from_description(description: Description) -> Result<Self> {
        Ok(Self::with(&Arc::new(description.for_kind(MetricKind::Gauge)?)))
    }

    /// A family of gauges, one for each set of values of `labels`.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name, or no, an empty, reserved or repeated label name.
    pub fn family<L: AsRef<str>>(
        name: &str,
        help: &str,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Family<Gauge>> {
        Family::new(Description::new(name, help), labels, Self::with)
    }

    fn with(description: &Arc<Description>) -> Self {
        let (value, function) = (AtomicF64::default(), RwLock::new(None));
        Gauge(Arc::new(Inner { description: description.clone(), value, function }))
    }

    /// Adds 1.
    pub fn inc(&self) {
        self.0.value.add(1.0);
    }

    /// Adds `amount`.
    pub fn inc_by(&self, amount: impl Into<f64>) {
        self.0.value.add(amount.into());
    }

    /// Takes 1 away.
    pub fn dec(&self) {
        self.0.value.add(-1.0);
    }

    /// Takes `amount` away.
    pub fn dec_by(&self, amount: impl Into<f64>) {
        self.0.value.add(-amount.into());
    }

    /// Makes it `value`.
    pub fn set(&self, value: impl Into<f64>) {
        self.0.value.store(value.into());
    }

    /// Makes it the present time, in seconds since the Unix epoch.
    #[allow(clippy::cast_precision_loss)] // A double holds present times to a quarter of a microsecond.
    pub fn set_to_current_time(&self) {
        self.set(now().nanos() as f64 / 1e9);
    }

    /// From now on the value is what `function` returns whenever the gauge is read; `set` and `inc` have no
    /// effect on it. A function that panics gives NaN.
    ///
    /// ```
    /// # use icecore::ingest::Gauge;
    /// # use std::collections::HashMap;
    /// # use std::sync::{Arc, Mutex};
    /// let d = Gauge::new("data_objects", "Number of objects")?;
    /// let my_dict = Arc::new(Mutex::new(HashMap::new()));
    /// let counted = my_dict.clone();
    /// d.set_function(move || counted.lock().unwrap().len() as f64);
    /// my_dict.lock().unwrap().insert("a", 1);
    /// assert_eq!(d.value(), 1.0);
    /// # Ok::<(), icecore::Error>(())
    /// ```
    pub fn set_function(&self, function: impl Fn() -> f64 + Send + Sync + 'static) {
        *self.0.function.write() = Some(Arc::new(function));
    }

    /// The present value.
    pub fn value(&self) -> f64 {
        // Cloned out, so that no lock is held while the host's code runs.
        let function = self.0.function.read().clone();
        match function {
            Some(function) => catch_unwind(AssertUnwindSafe(|| function())).unwrap_or(f64::NAN),
            None => self.0.value.load(),
        }
    }

    /// Name, help and unit.
    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// Adds 1 now and takes it away when the guard is dropped, in a panic too.
    ///
    /// ```
    /// # use icecore::ingest::Gauge;
    /// let g = Gauge::new("my_inprogress_requests", "Description of gauge")?;
    /// {
    ///     let _guard = g.track_in_progress();
    ///     assert_eq!(g.value(), 1.0);
    /// }
    /// assert_eq!(g.value(), 0.0);
    /// # Ok::<(), icecore::Error>(())
    /// ```
    pub fn track_in_progress(&self) -> InProgress<'_> {
        self.inc();
        InProgress(self)
    }

    /// Runs `work` with 1 added to the gauge meanwhile.
    pub fn in_progress<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.track_in_progress();
        work()
    }
}

/// Work in progress, as [`Gauge::track_in_progress`] counts it.
#[derive(Debug)]
#[must_use = "the work is in progress until this is dropped"]
pub struct InProgress<'a>(&'a Gauge);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_function = self.function.read().is_some();
        f.debug_struct("Gauge")
            .field("description", &self.description)
            .field("value", &self.value)
            .field("has_function", &has_function)
            .finish()
    }
}

impl Instrument for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;

    fn own_description(&self) -> &Description {
        &self.0.description
    }

    fn samples(&self, labels: &Labels<'_>, out: &mut Vec<FamilySample>) {
        out.push(labels.sample("", self.value()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_holds_any_value() {
        let g = Gauge::new("g", "").unwrap();
        for value in [f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, 1e308] {
            g.set(value);
            assert_eq!(g.value().to_bits(), value.to_bits());
        }
        g.set(f64::NAN);
        assert!(g.value().is_nan());
    }

    #[test]
    fn work_that_panics_is_no_longer_in_progress() {
        let g = Gauge::new("g", "").unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| g.in_progress(|| panic!("on purpose"))));
        assert!(caught.is_err());
        assert_eq!(g.value(), 0.0);
    }

    #[test]
    fn a_function_that_panics_gives_nan() {
        let g = Gauge::new("g", "").unwrap();
        g.set_function(|| panic!("on purpose"));
        g.set(1);
        assert!(g.value().is_nan());
    }

    #[test]
    fn a_function_may_use_its_own_gauge() {
        let g = Gauge::new("g", "").unwrap();
        let same = g.clone();
        g.set_function(move || {
            same.set_function(|| 2.0);
            1.0
        });
        assert_eq!((g.value(), g.value()), (1.0, 2.0));
    }

    #[test]
    fn no_addition_of_many_threads_is_lost() {
        let g = Gauge::new("g", "").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..10_000).for_each(|_| g.inc_by(2)));
            scope.spawn(|| (0..10_000).for_each(|_| g.dec()));
        });
        assert_eq!(g.value(), 10_000.0);
    }
}
