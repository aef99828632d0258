//! Windows that slide over sorted columns: two pointers, and aggregates that are not recomputed.

use super::eval::{Looks, Samples};
use super::kahan::Kahan;
use crate::error::Result;

/// The samples `first..last` of a series, which are those later than `end - range` and not later than `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) step: usize,
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) end: i64,
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.last - self.first
    }
}

/// Calls `each` for every window that holds a sample.
pub(super) fn windows(
    samples: Samples<'_>,
    looks: Looks,
    range: i64,
    mut each: impl FnMut(Window) -> Result<()>,
) -> Result<()> {
    let times = samples.times;
    let (mut first, mut last) = (0, 0);
    for step in 0..looks.count() {
        let end = looks.time(step);
        let begin = end.saturating_sub(range);
        last = advance(times, last, end);
        first = advance(times, first, begin);
        if first < last {
            each(Window { step, first, last, end })?;
        }
    }
    Ok(())
}

/// The first place from `from` on whose time is later than `time`: a step at a time where it is near,
/// by doubling and halving where it is far.
pub(super) fn advance(times: &[i64], from: usize, time: i64) -> usize {
    let rest = times.get(from..).unwrap_or_default();
    let mut reach = 1;
    while rest.get(reach - 1).is_some_and(|t| *t <= time) {
        reach *= 2;
    }
    // All before `reach / 2` are not later; the place is not behind `reach - 1`.
    let low = reach / 2;
    let high = (reach - 1).min(rest.len());
    from + low + rest[low..high].partition_point(|t| *t <= time)
}

/// An aggregate that can be put together from those of adjoining stretches.
pub(super) trait Joined: Copy {
    fn of(value: f64) -> Self;
    /// Both stretches, `self` before `later`.
    fn join(self, later: Self) -> Self;

    /// That of a stretch which is not empty.
    fn of_all(values: &[f64]) -> Self {
        let Some((first, rest)) = values.split_first() else { return Self::of(f64::NAN) };
        rest.iter().fold(Self::of(*first), |all, value| all.join(Self::of(*value)))
    }
}

/// Reduces in lanes, which the compiler makes vector instructions of.
fn in_lanes(values: &[f64], start: f64, better: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [start; 8];
    let mut chunks = values.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = better(*lane, *value);
        }
    }
    let rest = chunks.remainder().iter().fold(start, |all, value| better(all, *value));
    lanes.into_iter().fold(rest, better)
}

/// The largest value; NaN only where there is nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Max(pub(super) f64);

impl Joined for Max {
    fn of(value: f64) -> Self {
        Max(value)
    }

    fn of_all(values: &[f64]) -> Self {
        // A comparison with NaN is false, so NaN never gets in; where nothing does, it may be all there is.
        let max = in_lanes(values, f64::NEG_INFINITY, |max, value| if value > max { value } else { max });
        let nothing = max == f64::NEG_INFINITY && values.iter().all(|v| v.is_nan());
        Max(if nothing { f64::NAN } else { max })
    }

    fn join(self, later: Self) -> Self {
        if later.0 > self.0 || self.0.is_nan() { later } else { self }
    }
}

/// The smallest value; NaN only where there is nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Min(pub(super) f64);

impl Joined for Min {
    fn of(value: f64) -> Self {
        Min(value)
    }

    fn of_all(values: &[f64]) -> Self {
        let min = in_lanes(values, f64::INFINITY, |min, value| if value < min { value } else { min });
        let nothing = min == f64::INFINITY && values.iter().all(|v| v.is_nan());
        Min(if nothing { f64::NAN } else { min })
    }

    fn join(self, later: Self) -> Self {
        if later.0 < self.0 || self.0.is_nan() { later } else { self }
    }
}

impl Joined for Kahan {
    fn of(value: f64) -> Self {
        Kahan::new(value)
    }

    fn join(self, later: Self) -> Self {
        Kahan::join(self, later)
    }
}

/// The aggregate of a window that only moves forward, each value touched twice at most.
///
/// The window is cut in two at `middle`: for the front part the aggregate of every suffix is kept,
/// for the back part one running aggregate. When the window leaves the front, the back becomes the
/// front. No value is ever subtracted, so infinities and large values leave no trace. (The queue
/// made of two stacks; Tangwongsan, Hirzel, Schneider, "Low-latency sliding-window aggregation in
/// worst-case constant time", DEBS 2017.)
#[derive(Debug)]
pub(super) struct Sliding<A> {
    /// Aggregates of `start + i .. middle`.
    suffixes: Vec<A>,
    start: usize,
    middle: usize,
    /// Aggregate of `middle..end`.
    back: Option<A>,
    end: usize,
}

impl<A: Joined> Sliding<A> {
    pub(super) fn new() -> Self {
        Sliding { suffixes: Vec::new(), start: 0, middle: 0, back: None, end: 0 }
    }

    /// The aggregate of `values[first..last]`, which is not empty and never behind an earlier window.
    pub(super) fn aggregate(&mut self, values: &[f64], first: usize, last: usize) -> A {
        if first >= self.end {
            // Nothing of the earlier windows is left: most windows are such where steps are long.
            let all = A::of_all(&values[first..last]);
            (self.middle, self.end, self.back) = (first, last, Some(all));
            return all;
        }
        if self.end < last {
            let new = A::of_all(&values[self.end..last]);
            self.back = Some(self.back.map_or(new, |back| back.join(new)));
            self.end = last;
        }
        match self.back {
            Some(back) if first == self.middle => return back,
            _ if first >= self.middle => self.turn(values, first, last),
            _ => {}
        }
        let front = self.suffixes[first - self.start];
        self.back.map_or(front, |back| front.join(back))
    }

    /// Makes all of `first..last` the front.
    fn turn(&mut self, values: &[f64], first: usize, last: usize) {
        self.suffixes.clear();
        let mut suffix: Option<A> = None;
        for value in values[first..last].iter().rev() {
            let value = A::of(*value);
            let joined = suffix.map_or(value, |later| value.join(later));
            suffix = Some(joined);
            self.suffixes.push(joined);
        }
        self.suffixes.reverse();
        self.start = first;
        self.middle = last;
        self.back = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], width: usize, stride: usize) {
        let (mut max, mut min, mut sum) =
            (Sliding::<Max>::new(), Sliding::<Min>::new(), Sliding::<Kahan>::new());
        let mut first = 0;
        while first + width <= values.len() {
            let window = &values[first..first + width];
            let top = max.aggregate(values, first, first + width).0;
            let bottom = min.aggregate(values, first, first + width).0;
            let total = sum.aggregate(values, first, first + width).value();
            assert_eq!(top, window.iter().copied().fold(f64::NAN, f64::max), "{window:?}");
            assert_eq!(bottom, window.iter().copied().fold(f64::NAN, f64::min), "{window:?}");
            assert_eq!(total, window.iter().sum::<f64>(), "{window:?}");
            first += stride;
        }
    }

    #[test]
    fn sliding_gives_what_recomputing_gives() {
        let values: Vec<f64> = (0..200).map(|n| f64::from((n * 7919) % 101) - 50.0).collect();
        for width in [1, 2, 3, 10, 64] {
            for stride in [1, 2, 5, 70] {
                check(&values, width, stride);
            }
        }
    }

    #[test]
    fn advancing_finds_the_first_later_time() {
        let times: Vec<i64> = (0..100).map(|n| n * 10).collect();
        for from in [0, 1, 50, 99, 100] {
            for time in [-1, 0, 5, 500, 501, 989, 990, 2_000] {
                let expected = times.iter().position(|t| *t > time).unwrap_or(100).max(from);
                assert_eq!(advance(&times, from, time), expected, "from {from} to {time}");
            }
        }
    }

    #[test]
    fn lanes_agree_with_one_after_the_other() {
        let values: Vec<f64> =
            (0..37).map(|n| if n % 5 == 0 { f64::NAN } else { f64::from(n * 7919 % 37) }).collect();
        for size in 1..values.len() {
            let (max, min) = (Max::of_all(&values[..size]).0, Min::of_all(&values[..size]).0);
            assert_eq!(
                max.to_bits(),
                values[..size].iter().fold(Max(f64::NAN), |a, v| a.join(Max(*v))).0.to_bits()
            );
            assert_eq!(
                min.to_bits(),
                values[..size].iter().fold(Min(f64::NAN), |a, v| a.join(Min(*v))).0.to_bits()
            );
        }
        assert_eq!(Max::of_all(&[f64::NEG_INFINITY, f64::NAN]).0, f64::NEG_INFINITY);
        assert!(Min::of_all(&[f64::NAN; 9]).0.is_nan());
    }

    #[test]
    fn infinities_leave_no_trace() {
        let values = [1.0, f64::INFINITY, 1.0, 1.0, 1.0];
        let mut sum = Sliding::<Kahan>::new();
        assert_eq!(sum.aggregate(&values, 0, 2).value(), f64::INFINITY);
        assert_eq!(sum.aggregate(&values, 2, 5).value(), 3.0);
    }

    #[test]
    fn nan_loses_against_numbers() {
        assert_eq!(Max::of(f64::NAN).join(Max(1.0)).0, 1.0);
        assert_eq!(Max(1.0).join(Max(f64::NAN)).0, 1.0);
        assert!(Min(f64::NAN).join(Min(f64::NAN)).0.is_nan());
    }
}
