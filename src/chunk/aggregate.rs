//! What is known of a page without decoding it: count, ends, smallest and largest, exact sum, resets.
//!
//! Called by [`super::page`] when a page is made, by compaction and by tests that compare. A query adds
//! aggregates of pages exactly and rounds once ([`crate::codec::exact`]), so that no answer depends on
//! where pages end.

use crate::chunk::merge::ColumnSlice;
use crate::chunk::page::PAGE_SAMPLE_COUNT_MAX;
use crate::codec::exact::{ExactSum, Scale};
use crate::model::is_stale;

/// A page with fewer samples has no [`Detail`]: decoding it costs as much as reading that.
const DETAIL_COUNT_MIN: usize = 128;

/// Below this, doubles hold every integer.
const INTEGER_MAX: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;

/// So many of these as a page has samples still add to less.
const SMALL_INTEGER_MAX: i64 = (1 << f64::MANTISSA_DIGITS) / PAGE_SAMPLE_COUNT_MAX as i64;

/// What is known of a page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PageAggregate {
    /// How many samples, staleness markers among them.
    pub(crate) count: u32,
    /// How many of them are staleness markers.
    pub(crate) stale_count: u32,
    /// What depends on the type of values.
    pub(crate) ends: Ends,
}

/// The aggregate in the type of the series. Sums of doubles are exact, as the rounded sum and a rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ends {
    /// Of doubles.
    F64(Summary<f64, (f64, f64)>),
    /// Of integers.
    I64(Summary<i64, i128>),
    /// Of byte strings, of which only the count is known.
    Bytes,
}

/// First and last value, bit for bit (of doubles: any NaN, staleness markers too), and the rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary<T, S> {
    /// The value of the first sample.
    pub(crate) first: T,
    /// The value of the last sample.
    pub(crate) last: T,
    /// Absent for a page with NaN or an infinity, one whose sums two doubles cannot hold, and one of
    /// fewer than 128 samples that are not all the same.
    pub(crate) detail: Option<Detail<T, S>>,
}

/// What is known of a page whose values are all finite.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Detail<T, S> {
    /// The smallest value; -0.0 is below 0.0.
    pub(crate) min: T,
    /// The largest value.
    pub(crate) max: T,
    /// The exact sum.
    pub(crate) sum: S,
    /// How many values are below the value before them, inside the page.
    pub(crate) reset_count: u32,
    /// The exact sum of the values before each of those, so that the increase of a counter over the page
    /// is `last - first + reset_sum`.
    pub(crate) reset_sum: S,
}

/// The aggregate of decoded values, at least one and at most a page of them.
pub(crate) fn aggregate_of(values: ColumnSlice<'_>) -> PageAggregate {
    let count = values.len() as u32;
    match values {
        ColumnSlice::F64(values) => {
            let stale_count = values.iter().filter(|value| is_stale(**value)).count() as u32;
            let (first, last) = (values[0], values[values.len() - 1]);
            PageAggregate {
                count,
                stale_count,
                ends: Ends::F64(Summary { first, last, detail: detail_f64(values) }),
            }
        }
        ColumnSlice::I64(values) => {
            let (first, last) = (values[0], values[values.len() - 1]);
            let ends = Ends::I64(Summary { first, last, detail: detail_i64(values) });
            PageAggregate { count, stale_count: 0, ends }
        }
        ColumnSlice::Bytes(..) => PageAggregate { count, stale_count: 0, ends: Ends::Bytes },
    }
}

impl PageAggregate {
    /// The aggregate of `count` doubles that all have the bits of `value`: what a constant page has,
    /// without storing it.
    pub(crate) fn of_constant_f64(value: f64, count: u32) -> Self {
        let stale_count = if is_stale(value) { count } else { 0 };
        let detail = if value.is_finite() { constant_detail(value, count) } else { None };
        PageAggregate { count, stale_count, ends: Ends::F64(Summary { first: value, last: value, detail }) }
    }

    /// The aggregate of `count` times the same integer.
    pub(crate) fn of_constant_i64(value: i64, count: u32) -> Self {
        let sum = i128::from(value) * i128::from(count);
        let detail = Some(Detail { min: value, max: value, sum, reset_count: 0, reset_sum: 0 });
        PageAggregate {
            count,
            stale_count: 0,
            ends: Ends::I64(Summary { first: value, last: value, detail }),
        }
    }
}

fn constant_detail(value: f64, count: u32) -> Option<Detail<f64, (f64, f64)>> {
    let product = value * f64::from(count);
    let sum = if value.trunc() == value && product.abs() < INTEGER_MAX {
        // Adding nothing turns -0.0 into the exact sum's zero.
        (product + 0.0, 0.0)
    } else {
        let mut sum = ExactSum::new();
        sum.add_repeated(value, count);
        sum.to_pair()?
    };
    Some(Detail { min: value, max: value, sum, reset_count: 0, reset_sum: (0.0, 0.0) })
}

fn detail_f64(values: &[f64]) -> Option<Detail<f64, (f64, f64)>> {
    let first = values[0];
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        return if first.is_finite() { constant_detail(first, values.len() as u32) } else { None };
    }
    if values.len() < DETAIL_COUNT_MIN {
        return None;
    }
    if let Some(detail) = detail_of_integers(values) {
        return Some(detail);
    }
    let (scale, min, max) = Scale::of(values)?;
    let mut before = first;
    let mut reset_count = 0;
    if let Some(scale) = scale {
        let (mut sum, mut reset_sum, mut term_before) = (0i128, 0i128, 0i128);
        for value in values {
            let term = scale.units(*value);
            let reset = *value < before;
            sum += term;
            // Both without a branch: half the steps of a gauge go down, at random.
            reset_count += u32::from(reset);
            reset_sum += term_before & -i128::from(reset);
            (before, term_before) = (*value, term);
        }
        let (sum, reset_sum) = (scale.sum(sum).to_pair()?, scale.sum(reset_sum).to_pair()?);
        return Some(Detail { min, max, sum, reset_count, reset_sum });
    }
    let (mut sum, mut reset_sum) = (ExactSum::new(), ExactSum::new());
    for value in values {
        sum.add(*value);
        if *value < before {
            reset_count += 1;
            reset_sum.add(before);
        }
        before = *value;
    }
    Some(Detail { min, max, sum: sum.to_pair()?, reset_count, reset_sum: reset_sum.to_pair()? })
}

/// The same for doubles that are small integers, the usual case, where 64 bits hold the sums. Gives up at
/// the first block with another value.
fn detail_of_integers(values: &[f64]) -> Option<Detail<f64, (f64, f64)>> {
    const BLOCK: usize = 64;
    let (mut min, mut max, mut before) = (i64::MAX, i64::MIN, i64::MIN);
    let (mut sum, mut reset_count, mut reset_sum) = (0i64, 0u32, 0i64);
    for block in values.chunks(BLOCK) {
        let mut all_whole = true;
        for value in block {
            let integer = *value as i64;
            all_whole &= (integer as f64).to_bits() == value.to_bits();
            let reset = integer < before;
            min = min.min(integer);
            max = max.max(integer);
            sum = sum.wrapping_add(integer);
            reset_count += u32::from(reset);
            reset_sum = reset_sum.wrapping_add(if reset { before } else { 0 });
            before = integer;
        }
        if !all_whole || min < -SMALL_INTEGER_MAX || max > SMALL_INTEGER_MAX {
            return None;
        }
    }
    Some(Detail {
        min: min as f64,
        max: max as f64,
        sum: (sum as f64, 0.0),
        reset_count,
        reset_sum: (reset_sum as f64, 0.0),
    })
}

fn detail_i64(values: &[i64]) -> Option<Detail<i64, i128>> {
    let first = values[0];
    if values.len() < DETAIL_COUNT_MIN && values.iter().any(|value| *value != first) {
        return None;
    }
    let mut detail = Detail { min: first, max: first, sum: 0, reset_count: 0, reset_sum: 0 };
    let mut before = first;
    for value in values {
        let reset = *value < before;
        detail.min = detail.min.min(*value);
        detail.max = detail.max.max(*value);
        detail.sum += i128::from(*value);
        detail.reset_count += u32::from(reset);
        detail.reset_sum += i128::from(if reset { before } else { 0 });
        before = *value;
    }
    Some(detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::STALE_NAN_BITS;

    /// The aggregate of the samples of `earlier` followed by those of `later`, of one type: the step between
    /// the two is tested for a reset. Detail is known where both have it and two doubles hold the sums.
    fn combine(earlier: &PageAggregate, later: &PageAggregate) -> PageAggregate {
        let ends = match (&earlier.ends, &later.ends) {
            (Ends::F64(a), Ends::F64(b)) => {
                Ends::F64(Summary { first: a.first, last: b.last, detail: combine_f64(a, b) })
            }
            (Ends::I64(a), Ends::I64(b)) => {
                Ends::I64(Summary { first: a.first, last: b.last, detail: combine_i64(a, b) })
            }
            _ => Ends::Bytes,
        };
        PageAggregate {
            count: earlier.count + later.count,
            stale_count: earlier.stale_count + later.stale_count,
            ends,
        }
    }

    type SummaryF64 = Summary<f64, (f64, f64)>;
    type SummaryI64 = Summary<i64, i128>;

    fn combine_f64(earlier: &SummaryF64, later: &SummaryF64) -> Option<Detail<f64, (f64, f64)>> {
        let (a, b) = (earlier.detail.as_ref()?, later.detail.as_ref()?);
        let reset = later.first < earlier.last;
        let between = if reset { earlier.last } else { 0.0 };
        let add = |pairs: [(f64, f64); 3]| {
            let mut sum = ExactSum::new();
            pairs.into_iter().for_each(|pair| sum.add_pair(pair));
            sum.to_pair()
        };
        Some(Detail {
            min: if b.min.total_cmp(&a.min).is_lt() { b.min } else { a.min },
            max: if b.max.total_cmp(&a.max).is_gt() { b.max } else { a.max },
            sum: add([a.sum, b.sum, (0.0, 0.0)])?,
            reset_count: a.reset_count + b.reset_count + u32::from(reset),
            reset_sum: add([a.reset_sum, b.reset_sum, (between, 0.0)])?,
        })
    }

    fn combine_i64(earlier: &SummaryI64, later: &SummaryI64) -> Option<Detail<i64, i128>> {
        let (a, b) = (earlier.detail.as_ref()?, later.detail.as_ref()?);
        let reset = later.first < earlier.last;
        let between = if reset { i128::from(earlier.last) } else { 0 };
        Some(Detail {
            min: a.min.min(b.min),
            max: a.max.max(b.max),
            sum: a.sum + b.sum,
            reset_count: a.reset_count + b.reset_count + u32::from(reset),
            reset_sum: a.reset_sum + b.reset_sum + between,
        })
    }

    fn detail(values: &[f64]) -> Option<Detail<f64, (f64, f64)>> {
        match aggregate_of(ColumnSlice::F64(values)).ends {
            Ends::F64(summary) => summary.detail,
            _ => unreachable!(),
        }
    }

    fn sawtooth() -> Vec<f64> {
        (0..200).map(|i| f64::from(i % 50) / 10.0).collect()
    }

    #[test]
    fn resets_give_the_increase() {
        let detail = detail(&sawtooth()).unwrap();
        assert_eq!((detail.min, detail.max, detail.reset_count), (0.0, 4.9, 3));
        assert_eq!(detail.reset_sum.0, 4.9 * 3.0);
    }

    #[test]
    fn sums_are_exact() {
        let mut values = vec![0.1; 130];
        values[5] = 1e15;
        let mut expected = ExactSum::new();
        values.iter().for_each(|value| expected.add(*value));
        assert_eq!(detail(&values).unwrap().sum, expected.to_pair().unwrap());
        values[6] = 1e300;
        assert_eq!(detail(&values), None);
    }

    #[test]
    fn small_integers_have_the_aggregate_of_doubles() {
        let values: Vec<f64> = (0..2048).map(|i| f64::from(i * i * 31 % 1009 - 500) * 8e9).collect();
        let fast = detail_of_integers(&values).unwrap();
        let mut slow = values.clone();
        slow.push(0.5);
        let slow = combine_f64(
            &Summary { first: 0.0, last: 0.0, detail: Some(fast.clone()) },
            &Summary { first: 0.5, last: 0.5, detail: constant_detail(0.5, 1) },
        )
        .map(|combined| (combined.sum, detail(&slow).unwrap().sum));
        assert!(slow.is_some_and(|(combined, whole)| combined == whole));
        let mut resets = ExactSum::new();
        let pairs = values.windows(2).filter(|pair| pair[1] < pair[0]);
        pairs.clone().for_each(|pair| resets.add(pair[0]));
        assert_eq!((fast.reset_count as usize, fast.reset_sum), (pairs.count(), resets.to_pair().unwrap()));
        assert_eq!(fast.min, values.iter().copied().fold(f64::INFINITY, f64::min));
        assert_eq!(fast.max, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    }

    #[test]
    fn detail_is_for_finite_and_many_or_equal_values() {
        assert!(detail(&sawtooth()[..127]).is_none());
        assert!(detail(&sawtooth()[..128]).is_some());
        assert!(detail(&[3.5; 2]).is_some());
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(STALE_NAN_BITS)] {
            let mut values = sawtooth();
            values[100] = odd;
            assert!(detail(&values).is_none());
            assert!(detail(&[odd; 200]).is_none());
        }
    }

    #[test]
    fn negative_zero_is_below_zero() {
        let mut values = vec![0.0; 200];
        values[7] = -0.0;
        let detail = detail(&values).unwrap();
        assert_eq!((detail.min.to_bits(), detail.max.to_bits()), ((-0.0f64).to_bits(), 0));
        assert_eq!(detail.reset_count, 0);
    }

    #[test]
    fn staleness_markers_are_counted_apart() {
        let mut values = sawtooth();
        values[199] = f64::from_bits(STALE_NAN_BITS);
        values[3] = f64::NAN;
        let aggregate = aggregate_of(ColumnSlice::F64(&values));
        assert_eq!((aggregate.count, aggregate.stale_count), (200, 1));
    }

    #[test]
    fn integers_add_without_overflow() {
        let values: Vec<i64> = (0..200).map(|i| if i % 2 == 0 { i64::MAX } else { i64::MIN }).collect();
        let Ends::I64(summary) = aggregate_of(ColumnSlice::I64(&values)).ends else { unreachable!() };
        let detail = summary.detail.unwrap();
        assert_eq!((detail.sum, detail.reset_count), (-100, 100));
        assert_eq!(detail.reset_sum, i128::from(i64::MAX) * 100);
    }

    proptest! {
        #[test]
        fn a_constant_page_has_the_aggregate_of_its_values(bits: u64, count in 1u32..300) {
            let values = vec![f64::from_bits(bits); count as usize];
            let constant = PageAggregate::of_constant_f64(values[0], count);
            prop_assert_eq!(format!("{constant:?}"), format!("{:?}", aggregate_of(ColumnSlice::F64(&values))));
            let values = vec![bits as i64; count as usize];
            let constant = PageAggregate::of_constant_i64(values[0], count);
            prop_assert_eq!(constant, aggregate_of(ColumnSlice::I64(&values)));
        }

        #[test]
        fn parts_combine_to_the_whole(
            values in prop::collection::vec(prop_oneof![-1e9..1e9f64, (-50i32..50).prop_map(f64::from)], 256..400),
            at in 128usize..=128,
        ) {
            let part = |range: std::ops::Range<usize>| aggregate_of(ColumnSlice::F64(&values[range]));
            let whole = part(0..values.len());
            prop_assert_eq!(combine(&part(0..at), &part(at..values.len())), whole);
            let integers: Vec<i64> = values.iter().map(|value| *value as i64).collect();
            let part = |range: std::ops::Range<usize>| aggregate_of(ColumnSlice::I64(&integers[range]));
            prop_assert_eq!(combine(&part(0..at), &part(at..values.len())), part(0..values.len()));
        }
    }
}
