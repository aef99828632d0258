//! A counter: goes up only. Hosts hold it, clones count together.

use std::any::Any;
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::ingest::atomic::AtomicF64;
use crate::ingest::family::{Family, Instrument, Labels};
use crate::ingest::stripe::Striped;
use crate::ingest::{Description, FamilySample};
use crate::model::MetricKind;

/// Counts what happens: requests, errors, bytes. Starts at 0 with the process and never goes down.
///
/// A clone is the same counter. An increment takes a few nanoseconds, from many threads at once too; the
/// value is exact as long as it is an integer below 2^53.
///
/// ```
/// use icecore::ingest::Counter;
///
/// let failures = Counter::new("my_failures", "Description of counter")?;
/// failures.inc();
/// failures.inc_by(1.6);
/// assert_eq!(failures.value(), 2.6);
/// # Ok::<(), icecore::Error>(())
/// ```
///
/// A suffix `_total` of the name is removed, and added when the counter is exposed or stored:
///
/// ```
/// use icecore::ingest::{Collect, Counter};
///
/// let requests = Counter::new("my_requests_total", "HTTP requests")?;
/// assert_eq!(requests.description().name, "my_requests");
/// assert_eq!(requests.collect().samples[0].name, "my_requests_total");
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Counter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    description: Arc<Description>,
    stripes: Striped<Total>,
    ignored: AtomicU64,
}

/// A sum in two parts: adding to an integer costs a third of adding to a double, and counting is what counters do.
#[derive(Debug, Default)]
struct Total {
    whole: AtomicU64,
    rest: AtomicF64,
}

/// Integers below this are added to [`Total::whole`].
const WHOLE_AMOUNT_MAX: f64 = 4_294_967_296.0;
/// When [`Total::whole`] reaches this, it is moved to [`Total::rest`], long before it could overflow.
const WHOLE_TOTAL_MAX: u64 = 1 << 63;

impl Total {
    #[inline]
    fn add_whole(&self, amount: u64) {
        if self.whole.fetch_add(amount, Ordering::Relaxed) >= WHOLE_TOTAL_MAX {
            self.carry();
        }
    }

    #[cold]
    #[allow(clippy::cast_precision_loss)] // It is a power of two.
    fn carry(&self) {
        let order = Ordering::Relaxed;
        let less = |whole: u64| whole.checked_sub(WHOLE_TOTAL_MAX);
        if self.whole.fetch_update(order, order, less).is_ok() {
            self.rest.add(WHOLE_TOTAL_MAX as f64);
        }
    }
}

impl Counter {
    /// A counter at 0 that belongs to no registry yet.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or too long name.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        Self::from_description(Description::new(name, help))
    }

    /// [`Counter::new`] with a unit.
    ///
    /// # Errors
    /// As [`Counter::new`].
    pub fn from_description(description: Description) -> Result<Self> {
        Ok(Self::with(&Arc::new(description.for_kind(MetricKind::Counter)?)))
    }

    /// A family of counters, one for each set of values of `labels`.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name, or no, an empty, reserved or repeated label name.
    pub fn family<L: AsRef<str>>(
        name: &str,
        help: &str,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Family<Counter>> {
        Family::new(Description::new(name, help), labels, Self::with)
    }

    fn with(description: &Arc<Description>) -> Self {
        let stripes = Striped::new(Total::default);
        Counter(Arc::new(Inner { description: description.clone(), stripes, ignored: AtomicU64::new(0) }))
    }

    /// Adds 1.
    #[inline]
    pub fn inc(&self) {
        self.0.stripes.mine().add_whole(1);
    }

    /// Adds `amount`. A negative or NaN amount is ignored and counted in [`Counter::ignored`].
    #[inline]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It is an integer in range.
    pub fn inc_by(&self, amount: impl Into<f64>) {
        let amount = amount.into();
        if (0.0..WHOLE_AMOUNT_MAX).contains(&amount) && amount.fract() == 0.0 {
            self.0.stripes.mine().add_whole(amount as u64);
        } else if amount >= 0.0 {
            self.0.stripes.mine().rest.add(amount);
        } else {
            self.0.ignored.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sum of all increments so far. Never falls from one call to the next.
    #[allow(clippy::cast_precision_loss)] // Exact below 2^53.
    pub fn value(&self) -> f64 {
        let whole: u128 =
            self.0.stripes.iter().map(|total| u128::from(total.whole.load(Ordering::Relaxed))).sum();
        let rest: f64 = self.0.stripes.iter().map(|total| total.rest.load()).sum();
        whole as f64 + rest
    }

    /// How many increments were ignored because they were negative or NaN.
    pub fn ignored(&self) -> u64 {
        self.0.ignored.load(Ordering::Relaxed)
    }

    /// Name, help and unit.
    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// Runs `work` and adds 1 if it returns an error.
    ///
    /// ```
    /// # use icecore::ingest::Counter;
    /// let failures = Counter::new("my_failures", "Description of counter")?;
    /// let parsed = failures.count_errors(|| "five".parse::<u32>());
    /// assert!(parsed.is_err());
    /// assert_eq!(failures.value(), 1.0);
    /// # Ok::<(), icecore::Error>(())
    /// ```
    pub fn count_errors<T, E>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.count_errors_if(|_| true, work)
    }

    /// Runs `work` and adds 1 if it returns an error that `counts` says yes to.
    pub fn count_errors_if<T, E>(
        &self,
        counts: impl FnOnce(&E) -> bool,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let result = work();
        if result.as_ref().is_err_and(counts) {
            self.inc();
        }
        result
    }

    /// Runs `work` and adds 1 if it returns an error of type `Only`, or a boxed error that is one or was caused by
    /// one. For the variants of an enum use [`Counter::count_errors_if`].
    ///
    /// ```
    /// # use icecore::ingest::Counter;
    /// # use std::num::ParseIntError;
    /// let failures = Counter::new("my_failures", "Description of counter")?;
    /// let read = |text: &str| -> Result<u32, Box<dyn std::error::Error>> {
    ///     if text.is_empty() { Err("nothing there".into()) } else { Ok(text.parse()?) }
    /// };
    /// let _ = failures.count_errors_of::<ParseIntError, _, _>(|| read("five"));
    /// let _ = failures.count_errors_of::<ParseIntError, _, _>(|| read(""));
    /// assert_eq!(failures.value(), 1.0);
    /// # Ok::<(), icecore::Error>(())
    /// ```
    pub fn count_errors_of<Only, T, E>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        Only: StdError + 'static,
        E: 'static,
    {
        self.count_errors_if(is_or_holds::<Only, E>, work)
    }

    /// Runs `work` and adds 1 if it panics; the panic goes on.
    ///
    /// ```
    /// # use icecore::ingest::Counter;
    /// let failures = Counter::new("my_failures", "Description of counter")?;
    /// let caught = std::panic::catch_unwind(|| failures.count_panics(|| panic!("as it happens")));
    /// assert!(caught.is_err());
    /// assert_eq!(failures.value(), 1.0);
    /// # Ok::<(), icecore::Error>(())
    /// ```
    pub fn count_panics<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.panic_guard();
        work()
    }

    /// Adds 1 if a panic starts while the guard lives.
    pub fn panic_guard(&self) -> PanicGuard<'_> {
        PanicGuard { counter: self, was_panicking: std::thread::panicking() }
    }
}

/// Counts a panic that starts while it lives; made by [`Counter::panic_guard`].
#[derive(Debug)]
#[must_use = "it counts the panics that happen until it is dropped"]
pub struct PanicGuard<'a> {
    counter: &'a Counter,
    /// A guard made by a destructor during a panic does not count that panic.
    was_panicking: bool,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            self.counter.inc();
        }
    }
}

/// Whether `error` is an `Only`, or a box of an error that is one or was caused by one.
fn is_or_holds<Only: StdError + 'static, E: 'static>(error: &E) -> bool {
    let error: &dyn Any = error;
    let plain = error.downcast_ref::<Box<dyn StdError>>().map(|boxed| &**boxed);
    let sendable =
        error.downcast_ref::<Box<dyn StdError + Send + Sync>>().map(|boxed| &**boxed as &dyn StdError);
    error.is::<Only>() || plain.or(sendable).is_some_and(has_cause::<Only>)
}

fn has_cause<Only: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    error.is::<Only>() || error.source().is_some_and(has_cause::<Only>)
}

impl Instrument for Counter {
    const KIND: MetricKind = MetricKind::Counter;

    fn own_description(&self) -> &Description {
        &self.0.description
    }

    fn samples(&self, labels: &Labels<'_>, out: &mut Vec<FamilySample>) {
        out.push(labels.sample("_total", self.value()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> Counter {
        Counter::new("c", "").unwrap()
    }

    #[test]
    fn wrong_increments_are_ignored_and_counted() {
        let c = counter();
        for amount in [-1.0, f64::NAN, f64::NEG_INFINITY, -f64::MIN_POSITIVE] {
            c.inc_by(amount);
        }
        c.inc_by(-0.0);
        c.inc_by(7_u32);
        assert_eq!((c.value(), c.ignored()), (7.0, 4));
    }

    #[test]
    fn no_increment_of_many_threads_is_lost() {
        let c = counter();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| c.inc()));
            }
        });
        assert_eq!(c.value(), 80_000.0);
    }

    #[test]
    fn integers_stay_exact_beside_large_ones() {
        let c = counter();
        c.inc_by(9_007_199_254_740_990.0);
        c.inc();
        assert_eq!(c.value(), 9_007_199_254_740_991.0);
    }

    #[test]
    fn a_total_beyond_64_bits_is_carried() {
        let c = counter();
        let total = c.0.stripes.mine();
        total.whole.store(WHOLE_TOTAL_MAX - 1, Ordering::Relaxed);
        c.inc_by(4_294_967_295.0);
        c.inc_by(1);
        assert_eq!(total.whole.load(Ordering::Relaxed), 4_294_967_295);
        assert_eq!(total.rest.load(), 9_223_372_036_854_775_808.0);
        assert_eq!(c.value(), 9_223_372_036_854_775_808.0 + 4_294_967_295.0);
        c.inc_by(f64::INFINITY);
        assert_eq!(c.value(), f64::INFINITY);
    }

    #[test]
    fn a_clone_is_the_same_counter() {
        let c = counter();
        c.clone().inc();
        assert_eq!(c.value(), 1.0);
    }

    #[test]
    fn a_guard_made_while_panicking_counts_nothing() {
        struct Late(Counter);
        impl Drop for Late {
            fn drop(&mut self) {
                let _guard = self.0.panic_guard();
            }
        }
        let c = counter();
        let late = Late(c.clone());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _late = late;
            panic!("on purpose");
        }));
        assert!(caught.is_err());
        assert_eq!(c.value(), 0.0);
    }

    #[test]
    fn only_the_wanted_errors_are_counted() {
        let c = counter();
        let _: std::result::Result<(), i32> = c.count_errors_if(|code| *code > 5, || Err(3));
        let _: std::result::Result<(), i32> = c.count_errors_if(|code| *code > 5, || Err(6));
        let _: std::result::Result<(), i32> = c.count_errors_if(|_| true, || Ok(()));
        assert_eq!(c.value(), 1.0);
    }

    #[test]
    fn errors_of_one_type_are_counted_in_boxes_and_as_causes() {
        type Boxed = Box<dyn StdError + Send + Sync>;
        let c = counter();
        let disk = || std::io::Error::other("disk");
        let caused = || crate::Error::io("read", "x", disk());
        let _ = c.count_errors_of::<std::io::Error, (), _>(|| Err(disk()));
        let _ = c.count_errors_of::<std::io::Error, (), Boxed>(|| Err(disk().into()));
        let _ = c.count_errors_of::<std::io::Error, (), Boxed>(|| Err(caused().into()));
        let _ = c.count_errors_of::<std::io::Error, (), Box<dyn StdError>>(|| Err(caused().into()));
        assert_eq!(c.value(), 4.0);
        let _ = c.count_errors_of::<std::io::Error, (), Boxed>(|| Err("something else".into()));
        let _ = c.count_errors_of::<crate::Error, (), _>(|| Err(disk()));
        assert_eq!(c.value(), 4.0);
    }
}
