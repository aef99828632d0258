//! The state behind each aggregate: fed with samples and page aggregates of one series in order of
//! time, combined across series, finished into one number.
//!
//! Every state is a function of the multiset of samples and their order in time alone. Sums are exact
//! until [`Fold::finish`] rounds them, so that neither the borders of pages, blocks and threads nor the
//! use of a stored aggregate can change a bit of an answer. Staleness markers never get here.

use crate::chunk::{Detail, Ends, PageAggregate, Summary};
use crate::codec::exact::ExactSum;
use crate::query::source::PageInfo;
use crate::query::total::Total;

/// The state of one aggregate over one window.
pub(crate) trait Fold: Clone + Send + 'static {
    /// Whether the values are not looked at, only that there are some.
    const COUNTS_ONLY: bool = false;

    /// Whether the answer depends on the length of the window.
    const NEEDS_SECONDS: bool = false;

    /// Nothing yet.
    fn empty() -> Self;

    /// Adds samples of one series, all of them after those added before.
    fn add_f64(&mut self, times: &[i64], values: &[f64]);

    /// Adds samples of one series, all of them after those added before.
    fn add_i64(&mut self, times: &[i64], values: &[i64]);

    /// Adds samples whose values were not read; only where `COUNTS_ONLY`.
    fn add_times(&mut self, times: &[i64]) {
        let _ = times;
    }

    /// Adds a page by its aggregate. False, having changed nothing, when that does not say enough.
    fn add_page(&mut self, page: &PageInfo, aggregate: &PageAggregate) -> bool {
        let _ = (page, aggregate);
        false
    }

    /// Adds the samples of another series in the same window; that series comes later in the order of keys.
    fn combine(&mut self, other: Self);

    /// The answer; `None` when there is none. `seconds` is the length of the window, where
    /// `NEEDS_SECONDS`.
    fn finish(self, rank: f64, seconds: f64) -> Option<f64>;

    /// How much memory it holds beyond its own size, in bytes.
    fn memory_size(&self) -> usize {
        0
    }
}

/// A value type that states can be fed with.
pub(crate) trait Number: Copy {
    /// Feeds a slice to a state.
    fn feed<F: Fold>(fold: &mut F, times: &[i64], values: &[Self]);
}

impl Number for f64 {
    #[inline]
    fn feed<F: Fold>(fold: &mut F, times: &[i64], values: &[f64]) {
        fold.add_f64(times, values);
    }
}

impl Number for i64 {
    #[inline]
    fn feed<F: Fold>(fold: &mut F, times: &[i64], values: &[i64]) {
        fold.add_i64(times, values);
    }
}

/// How many samples.
#[derive(Clone, Debug)]
pub(crate) struct CountFold(u64);

impl Fold for CountFold {
    const COUNTS_ONLY: bool = true;

    fn empty() -> Self {
        CountFold(0)
    }

    fn add_f64(&mut self, times: &[i64], _: &[f64]) {
        self.add_times(times);
    }

    fn add_i64(&mut self, times: &[i64], _: &[i64]) {
        self.add_times(times);
    }

    fn add_times(&mut self, times: &[i64]) {
        self.0 += times.len() as u64;
    }

    fn add_page(&mut self, page: &PageInfo, aggregate: &PageAggregate) -> bool {
        self.0 += u64::from(page.count.saturating_sub(aggregate.stale_count));
        true
    }

    fn combine(&mut self, other: Self) {
        self.0 += other.0;
    }

    fn finish(self, _: f64, _: f64) -> Option<f64> {
        (self.0 > 0).then_some(self.0 as f64)
    }
}

/// The exact sum and the count: for `Sum` and `Avg`.
#[derive(Clone, Debug)]
pub(crate) struct SumFold<const AVERAGE: bool> {
    total: Total,
    count: u64,
}

impl<const AVERAGE: bool> Fold for SumFold<AVERAGE> {
    fn empty() -> Self {
        SumFold { total: Total::default(), count: 0 }
    }

    fn add_f64(&mut self, _: &[i64], values: &[f64]) {
        self.total.add_f64(values);
        self.count += values.len() as u64;
    }

    fn add_i64(&mut self, _: &[i64], values: &[i64]) {
        self.total.add_i64(values);
        self.count += values.len() as u64;
    }

    fn add_page(&mut self, page: &PageInfo, aggregate: &PageAggregate) -> bool {
        match &aggregate.ends {
            Ends::F64(Summary { detail: Some(detail), .. }) => self.total.doubles.add_pair(detail.sum),
            Ends::I64(Summary { detail: Some(detail), .. }) => self.total.integers += detail.sum,
            _ => return false,
        }
        self.count += u64::from(page.count);
        true
    }

    fn combine(&mut self, other: Self) {
        self.total.merge(&other.total);
        self.count += other.count;
    }

    fn finish(self, _: f64, _: f64) -> Option<f64> {
        let divisor = if AVERAGE { self.count as f64 } else { 1.0 };
        (self.count > 0).then(|| self.total.round() / divisor)
    }
}

/// The largest (or smallest) number; NaN is passed over, -0.0 lies below 0.0.
#[derive(Clone, Debug)]
pub(crate) struct ExtremeFold<const LARGEST: bool> {
    best: Option<f64>,
    any: bool,
}

impl<const LARGEST: bool> ExtremeFold<LARGEST> {
    fn offer(&mut self, candidate: Option<f64>) {
        self.any = true;
        self.best = match (self.best, candidate) {
            (Some(a), Some(b)) => extreme::<LARGEST>(&[a, b]),
            (best, candidate) => best.or(candidate),
        };
    }
}

impl<const LARGEST: bool> Fold for ExtremeFold<LARGEST> {
    fn empty() -> Self {
        ExtremeFold { best: None, any: false }
    }

    fn add_f64(&mut self, _: &[i64], values: &[f64]) {
        self.offer(extreme::<LARGEST>(values));
    }

    fn add_i64(&mut self, _: &[i64], values: &[i64]) {
        // Rounding to a double keeps the order, so the extreme may be rounded alone.
        let best = if LARGEST { values.iter().max() } else { values.iter().min() };
        self.offer(best.map(|best| *best as f64));
    }

    fn add_page(&mut self, _: &PageInfo, aggregate: &PageAggregate) -> bool {
        let best = match &aggregate.ends {
            Ends::F64(Summary { detail: Some(Detail { min, max, .. }), .. }) => {
                if LARGEST {
                    *max
                } else {
                    *min
                }
            }
            Ends::I64(Summary { detail: Some(Detail { min, max, .. }), .. }) => {
                (if LARGEST { *max } else { *min }) as f64
            }
            _ => return false,
        };
        self.offer(Some(best));
        true
    }

    fn combine(&mut self, other: Self) {
        if other.any {
            self.offer(other.best);
        }
    }

    fn finish(self, _: f64, _: f64) -> Option<f64> {
        self.any.then(|| self.best.unwrap_or(f64::NAN))
    }
}

/// The largest (or smallest) of `values`; `None` when all are NaN.
fn extreme<const LARGEST: bool>(values: &[f64]) -> Option<f64> {
    // Comparing alone cannot tell the zeros apart nor the start from an infinity; both are looked at after.
    let better = |a: f64, b: f64| if LARGEST { a > b } else { a < b };
    let start = if LARGEST { f64::NEG_INFINITY } else { f64::INFINITY };
    let pick = |a: f64, b: f64| if better(b, a) { b } else { a };
    let (eights, rest) = values.as_chunks::<8>();
    let mut best = rest.iter().copied().fold(start, pick);
    if !eights.is_empty() {
        let mut lanes = [start; 8];
        for eight in eights {
            (0..8).for_each(|lane| lanes[lane] = pick(lanes[lane], eight[lane]));
        }
        best = lanes.into_iter().fold(best, pick);
    }
    if best == 0.0 {
        let winner = if LARGEST { 0.0_f64 } else { -0.0 };
        let found = values.iter().any(|value| value.to_bits() == winner.to_bits());
        return Some(if found { winner } else { -winner });
    }
    (best != start || values.contains(&start)).then_some(best)
}

/// The value at the smallest (or largest) time. Of two series with a sample at that time: the first (or
/// last) in the order of keys.
#[derive(Clone, Debug)]
pub(crate) struct EndFold<const LAST: bool>(Option<(i64, f64)>);

impl<const LAST: bool> EndFold<LAST> {
    fn offer(&mut self, end: Option<(i64, f64)>) {
        if LAST || self.0.is_none() {
            self.0 = end.or(self.0);
        }
    }
}

impl<const LAST: bool> Fold for EndFold<LAST> {
    fn empty() -> Self {
        EndFold(None)
    }

    fn add_f64(&mut self, times: &[i64], values: &[f64]) {
        let end = if LAST { times.last().zip(values.last()) } else { times.first().zip(values.first()) };
        self.offer(end.map(|(time, value)| (*time, *value)));
    }

    fn add_i64(&mut self, times: &[i64], values: &[i64]) {
        let end = if LAST { times.last().zip(values.last()) } else { times.first().zip(values.first()) };
        self.offer(end.map(|(time, value)| (*time, *value as f64)));
    }

    fn add_page(&mut self, page: &PageInfo, aggregate: &PageAggregate) -> bool {
        // With markers in the page it is not known at which time the first and last of the others lie.
        if aggregate.stale_count != 0 {
            return false;
        }
        let time = if LAST { page.max_time } else { page.min_time };
        let value = match &aggregate.ends {
            Ends::F64(ends) => {
                if LAST {
                    ends.last
                } else {
                    ends.first
                }
            }
            Ends::I64(ends) => (if LAST { ends.last } else { ends.first }) as f64,
            Ends::Bytes => return false,
        };
        self.offer(Some((time, value)));
        true
    }

    fn combine(&mut self, other: Self) {
        let wins = match (self.0, other.0) {
            (Some((own, _)), Some((others, _))) => {
                if LAST {
                    others >= own
                } else {
                    others < own
                }
            }
            (own, _) => own.is_none(),
        };
        if wins {
            self.0 = other.0;
        }
    }

    fn finish(self, _: f64, _: f64) -> Option<f64> {
        self.0.map(|(_, value)| value)
    }
}

/// Standard deviation of the population: from the exact sums of the values and of their squares, so that
/// nothing cancels before the one rounding at the end. Integers are rounded to doubles one by one first.
#[derive(Clone, Debug)]
pub(crate) struct StddevFold {
    sum: ExactSum,
    squares: ExactSum,
    count: u64,
}

impl StddevFold {
    fn add(&mut self, value: f64) {
        self.sum.add(value);
        add_product(&mut self.squares, value, value);
        self.count += 1;
    }
}

/// Adds `a * b` without rounding it: as the rounded product and the error, which a fused multiply-add gives
/// (Ogita, Rump, Oishi: Accurate Sum and Dot Product, 2005, TwoProductFMA).
fn add_product(sum: &mut ExactSum, a: f64, b: f64) {
    let product = a * b;
    sum.add(product);
    if product.is_finite() {
        sum.add(a.mul_add(b, -product));
    }
}

impl Fold for StddevFold {
    fn empty() -> Self {
        StddevFold { sum: ExactSum::new(), squares: ExactSum::new(), count: 0 }
    }

    fn add_f64(&mut self, _: &[i64], values: &[f64]) {
        values.iter().for_each(|value| self.add(*value));
    }

    fn add_i64(&mut self, _: &[i64], values: &[i64]) {
        values.iter().for_each(|value| self.add(*value as f64));
    }

    fn combine(&mut self, other: Self) {
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
        self.count += other.count;
    }

    fn finish(self, _: f64, _: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let count = self.count as f64;
        let ((sum_high, sum_low), (square_high, square_low)) = (split(&self.sum), split(&self.squares));
        if !(sum_high.is_finite() && square_high.is_finite()) {
            return Some(f64::NAN);
        }
        // n * sum of squares - square of the sum, all of it exact but for what lies below 106 bits.
        let mut spread = ExactSum::new();
        add_product(&mut spread, count, square_high);
        add_product(&mut spread, count, square_low);
        add_product(&mut spread, -sum_high, sum_high);
        add_product(&mut spread, -2.0 * sum_high, sum_low);
        add_product(&mut spread, -sum_low, sum_low);
        Some((spread.round().max(0.0) / count / count).sqrt())
    }
}

/// The rounded sum and, rounded too, what that leaves.
fn split(sum: &ExactSum) -> (f64, f64) {
    let high = sum.round();
    if !high.is_finite() {
        return (high, 0.0);
    }
    let mut rest = sum.clone();
    rest.add(-high);
    (high, rest.round())
}

/// The quantile: keeps every number.
#[derive(Clone, Debug)]
pub(crate) struct QuantileFold {
    values: Vec<f64>,
    any: bool,
}

impl Fold for QuantileFold {
    fn empty() -> Self {
        QuantileFold { values: Vec::new(), any: false }
    }

    fn add_f64(&mut self, _: &[i64], values: &[f64]) {
        self.any |= !values.is_empty();
        self.values.extend(values.iter().filter(|value| !value.is_nan()));
    }

    fn add_i64(&mut self, _: &[i64], values: &[i64]) {
        self.any |= !values.is_empty();
        self.values.extend(values.iter().map(|value| *value as f64));
    }

    fn combine(&mut self, other: Self) {
        self.any |= other.any;
        self.values.extend(other.values);
    }

    fn finish(mut self, rank: f64, _: f64) -> Option<f64> {
        self.values.sort_unstable_by(f64::total_cmp);
        self.any.then(|| quantile_of_sorted(&self.values, rank))
    }

    fn memory_size(&self) -> usize {
        self.values.capacity() * size_of::<f64>()
    }
}

/// Linear between the two nearest ranks (method 7 of Hyndman and Fan, 1996; as PromQL has it).
fn quantile_of_sorted(values: &[f64], rank: f64) -> f64 {
    let Some(most) = values.len().checked_sub(1) else { return f64::NAN };
    let place = rank * most as f64;
    let lower = (place.floor() as usize).min(most);
    let weight = place - lower as f64;
    let value = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if weight == 0.0 {
        return value(lower);
    }
    value(lower) * (1.0 - weight) + value((lower + 1).min(most)) * weight
}

/// Last less first, with resets corrected where `RESETS`, and by the second where `PER_SECOND`. Of several
/// series: the exact sum of theirs.
#[derive(Clone, Debug)]
pub(crate) struct ChangeFold<const RESETS: bool, const PER_SECOND: bool> {
    ends: Option<Change>,
    /// Samples of the series at hand; a change needs two.
    count: u64,
    /// The values before resets of the series at hand.
    before_resets: Total,
    /// The change of all series before, if any had one.
    closed: Option<Box<Total>>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    F64 { first: f64, last: f64 },
    I64 { first: i64, last: i64 },
}

impl<const RESETS: bool, const PER_SECOND: bool> ChangeFold<RESETS, PER_SECOND> {
    fn extend_f64(&mut self, first: f64, last: f64) {
        match &mut self.ends {
            Some(Change::F64 { last: previous, .. }) => {
                if RESETS && first < *previous {
                    self.before_resets.doubles.add(*previous);
                }
                *previous = last;
            }
            ends => *ends = Some(Change::F64 { first, last }),
        }
    }

    fn extend_i64(&mut self, first: i64, last: i64) {
        match &mut self.ends {
            Some(Change::I64 { last: previous, .. }) => {
                if RESETS && first < *previous {
                    self.before_resets.integers += i128::from(*previous);
                }
                *previous = last;
            }
            ends => *ends = Some(Change::I64 { first, last }),
        }
    }

    /// Adds what the series at hand changed by to the sum of all.
    fn close(&mut self) {
        let before_resets = std::mem::take(&mut self.before_resets);
        let (ends, count) = (self.ends.take(), std::mem::take(&mut self.count));
        if count < 2 {
            return;
        }
        let closed = self.closed.get_or_insert_default();
        closed.merge(&before_resets);
        match ends {
            Some(Change::F64 { first, last }) => closed.add_f64(&[last, -first]),
            Some(Change::I64 { first, last }) => closed.integers += i128::from(last) - i128::from(first),
            None => {}
        }
    }
}

/// The sum of the values before the resets inside a page; nothing where resets do not matter.
fn reset_sum<const RESETS: bool, T, S: Copy>(detail: Option<&Detail<T, S>>, nothing: S) -> Option<S> {
    if RESETS { detail.map(|detail| detail.reset_sum) } else { Some(nothing) }
}

impl<const RESETS: bool, const PER_SECOND: bool> Fold for ChangeFold<RESETS, PER_SECOND> {
    const NEEDS_SECONDS: bool = PER_SECOND;

    fn empty() -> Self {
        ChangeFold { ends: None, count: 0, before_resets: Total::default(), closed: None }
    }

    fn add_f64(&mut self, _: &[i64], values: &[f64]) {
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return };
        self.extend_f64(*first, *last);
        if RESETS {
            let steps = values.iter().zip(values.iter().skip(1));
            let resets = steps.filter(|(before, after)| after < before);
            resets.for_each(|(before, _)| self.before_resets.doubles.add(*before));
        }
        self.count += values.len() as u64;
    }

    fn add_i64(&mut self, _: &[i64], values: &[i64]) {
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return };
        self.extend_i64(*first, *last);
        if RESETS {
            let steps = values.iter().zip(values.iter().skip(1));
            let resets = steps.filter(|(before, after)| after < before);
            resets.for_each(|(before, _)| self.before_resets.integers += i128::from(*before));
        }
        self.count += values.len() as u64;
    }

    fn add_page(&mut self, page: &PageInfo, aggregate: &PageAggregate) -> bool {
        // First and last may be markers, which are not among the samples here.
        if aggregate.stale_count != 0 {
            return false;
        }
        match &aggregate.ends {
            Ends::F64(Summary { first, last, detail }) => {
                let Some(sum) = reset_sum::<RESETS, _, _>(detail.as_ref(), (0.0, 0.0)) else { return false };
                self.extend_f64(*first, *last);
                self.before_resets.doubles.add_pair(sum);
            }
            Ends::I64(Summary { first, last, detail }) => {
                let Some(sum) = reset_sum::<RESETS, _, _>(detail.as_ref(), 0) else { return false };
                self.extend_i64(*first, *last);
                self.before_resets.integers += sum;
            }
            Ends::Bytes => return false,
        }
        self.count += u64::from(page.count);
        true
    }

    fn combine(&mut self, mut other: Self) {
        self.close();
        other.close();
        match (&mut self.closed, other.closed) {
            (Some(own), Some(others)) => own.merge(&others),
            (own @ None, others) => *own = others,
            _ => {}
        }
    }

    fn finish(mut self, _: f64, seconds: f64) -> Option<f64> {
        self.close();
        let change = self.closed?.round();
        Some(if PER_SECOND { change / seconds } else { change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_see_every_lane() {
        for place in 0..37 {
            let mut values = vec![f64::NAN; 37];
            assert_eq!(extreme::<true>(&values), None);
            values[place] = -0.0;
            assert_eq!(extreme::<false>(&values).map(f64::to_bits), Some((-0.0_f64).to_bits()));
            assert_eq!(extreme::<true>(&values).map(f64::to_bits), Some((-0.0_f64).to_bits()));
            values[(place + 9) % 37] = 0.0;
            assert_eq!(extreme::<true>(&values).map(f64::to_bits), Some(0));
            values[(place + 5) % 37] = f64::NEG_INFINITY;
            assert_eq!(extreme::<false>(&values), Some(f64::NEG_INFINITY));
        }
        assert_eq!(extreme::<true>(&[f64::NEG_INFINITY; 3]), Some(f64::NEG_INFINITY));
    }
}
