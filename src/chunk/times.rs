//! The times of a page: a line, or packed bytes that pages of several series may share.
//!
//! Called by [`super::page`] and by the block writer and reader, which keep equal columns once. Layout in
//! `docs/format.md`, "Time columns".

use crate::chunk::merge::strictly_rises;
use crate::chunk::page::PAGE_SAMPLE_COUNT_MAX;
use crate::codec::choose::{self, Effort};
use crate::error::{Error, Result};

/// The times of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimeColumn {
    /// `start`, `start + step`, ...
    Affine {
        /// The first time.
        start: i64,
        /// The distance of neighbours, above zero; 0 for a single time.
        step: i64,
    },
    /// Integers as `codec` packs them. Equal columns have equal bytes.
    Packed(Vec<u8>),
}

/// A borrowed time column, as it is found in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TimeColumnRef<'a> {
    /// `start`, `start + step`, ...
    Affine {
        /// The first time.
        start: i64,
        /// The distance of neighbours; not looked at for a single time.
        step: i64,
    },
    /// Packed times.
    Packed(&'a [u8]),
}

impl TimeColumn {
    /// A borrowed view.
    pub(crate) fn as_ref(&self) -> TimeColumnRef<'_> {
        match self {
            TimeColumn::Affine { start, step } => TimeColumnRef::Affine { start: *start, step: *step },
            TimeColumn::Packed(bytes) => TimeColumnRef::Packed(bytes),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            TimeColumn::Affine { .. } => 0,
            TimeColumn::Packed(bytes) => bytes.capacity(),
        }
    }
}

/// Encodes times, at least one, that strictly rise.
pub(crate) fn encode_times(times: &[i64], effort: Effort) -> TimeColumn {
    match affine_step(times) {
        Some(step) => TimeColumn::Affine { start: times[0], step },
        None => TimeColumn::Packed(choose::encode_times(times, effort)),
    }
}

fn affine_step(times: &[i64]) -> Option<i64> {
    let [first, second, ..] = times else { return Some(0) };
    let step = second.checked_sub(*first)?;
    times.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step).then_some(step)
}

/// Appends the `count` times of a column to `out`.
///
/// # Errors
/// `Corruption` when the count is out of range, the bytes are no such column, or its times do not rise;
/// `out` may then hold some times more.
pub(crate) fn decode_times(count: u32, column: TimeColumnRef<'_>, out: &mut Vec<i64>) -> Result<()> {
    let count = check_count(count)?;
    let from = out.len();
    match column {
        TimeColumnRef::Affine { start, step } => return push_affine(start, step, count, out),
        TimeColumnRef::Packed(bytes) => choose::decode_times(bytes, count, out)?,
    }
    if strictly_rises(&out[from..]) { Ok(()) } else { Err(Error::corrupt("the times of a page do not rise")) }
}

fn check_count(count: u32) -> Result<usize> {
    match count as usize {
        count @ 1..=PAGE_SAMPLE_COUNT_MAX => Ok(count),
        count => Err(Error::corrupt(format!("a page of {count} samples"))),
    }
}

fn push_affine(start: i64, step: i64, count: usize, out: &mut Vec<i64>) -> Result<()> {
    affine_end(start, step, count as u32)?;
    // Adding runs on vector units; multiplying 64 bits does not. One step before the first time may wrap.
    let mut time = start.wrapping_sub(step);
    out.extend((0..count).map(|_| {
        time = time.wrapping_add(step);
        time
    }));
    Ok(())
}

/// The last of `count` times from `start` on.
///
/// # Errors
/// `Corruption` when the times do not rise, or leave the range of times.
pub(crate) fn affine_end(start: i64, step: i64, count: u32) -> Result<i64> {
    let rises = step > 0 || count == 1;
    // The length of a line may exceed 63 bits where both of its ends are times.
    let end = i128::from(start) + i128::from(step) * i128::from(count.saturating_sub(1));
    i64::try_from(end)
        .ok()
        .filter(|_| rises)
        .ok_or_else(|| Error::corrupt(format!("{count} times from {start} by {step} do not rise")))
}

/// The positions in `whole` of what `part` lacks, when it lacks at most `count_max` and has nothing else.
/// Both strictly rise.
pub(crate) fn absent_positions(whole: &[i64], part: &[i64], count_max: usize) -> Option<Vec<u16>> {
    if part.len() > whole.len() || whole.len() - part.len() > count_max || whole.len() > PAGE_SAMPLE_COUNT_MAX
    {
        return None;
    }
    let mut absent = Vec::new();
    let mut left = part.iter().peekable();
    for (position, time) in whole.iter().enumerate() {
        if left.next_if_eq(&time).is_none() {
            absent.push(position as u16);
            if absent.len() > whole.len() - part.len() {
                return None;
            }
        }
    }
    Some(absent)
}

/// Removes the times at `positions`, which rise and count from `from`.
pub(crate) fn remove_positions(times: &mut Vec<i64>, from: usize, positions: &[u16]) {
    let mut positions = positions.iter().peekable();
    let mut kept = from;
    for index in from..times.len() {
        if positions.next_if(|position| usize::from(**position) + from == index).is_none() {
            times[kept] = times[index];
            kept += 1;
        }
    }
    times.truncate(kept);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(times: &[i64]) -> TimeColumn {
        let column = encode_times(times, Effort::Flush);
        let mut out = vec![7];
        decode_times(times.len() as u32, column.as_ref(), &mut out).unwrap();
        assert_eq!(out[1..], *times);
        column
    }

    #[test]
    fn regular_times_are_a_line() {
        assert_eq!(check(&[5]), TimeColumn::Affine { start: 5, step: 0 });
        assert_eq!(check(&[5, 15, 25]), TimeColumn::Affine { start: 5, step: 10 });
        assert!(matches!(check(&[5, 15, 26]), TimeColumn::Packed(_)));
        assert!(matches!(check(&[i64::MIN + 1, i64::MAX - 1]), TimeColumn::Packed(_)));
    }

    #[test]
    fn a_line_that_leaves_time_is_corrupt() {
        let decode = |count, start, step| {
            decode_times(count, TimeColumnRef::Affine { start, step }, &mut Vec::new()).is_ok()
        };
        assert!(decode(1, i64::MAX, 0));
        assert!(decode(2, i64::MAX - 1, 1));
        assert!(!decode(2, i64::MAX, 1));
        assert!(!decode(3, 0, i64::MAX));
        assert!(!decode(2, 0, 0));
        assert!(!decode(2, 0, -1));
        assert!(!decode(0, 0, 1));
        assert!(!decode(2049, 0, 1));
    }

    #[test]
    fn a_column_less_some_positions_is_the_part() {
        let whole = [10, 21, 30, 44, 50];
        let part = [10, 30, 44];
        let absent = absent_positions(&whole, &part, 2).unwrap();
        assert_eq!(absent, [1, 4]);
        let TimeColumn::Packed(bytes) = check(&whole) else { panic!("not a line") };
        let mut out = vec![1, 2];
        decode_times(5, TimeColumnRef::Packed(&bytes), &mut out).unwrap();
        remove_positions(&mut out, 2, &absent);
        assert_eq!(out, [1, 2, 10, 30, 44]);
    }

    #[test]
    fn what_is_no_part_has_no_positions() {
        assert_eq!(absent_positions(&[1, 2, 3], &[1, 3], 0), None);
        assert_eq!(absent_positions(&[1, 2, 3], &[1, 4], 3), None);
        assert_eq!(absent_positions(&[1, 2], &[1, 2, 3], 3), None);
        assert_eq!(absent_positions(&[1, 2, 3], &[0, 1], 3), None);
        assert_eq!(absent_positions(&[1, 2, 3], &[1, 2, 3], 0), Some(vec![]));
    }

    proptest! {
        #[test]
        fn rising_times_round_trip(
            start in -1_000_000_000_000i64..2_000_000_000_000,
            steps in prop::collection::vec(prop_oneof![Just(1000i64), 1i64..2000], 0..400),
        ) {
            let mut times = vec![start];
            times.extend(steps.iter().scan(start, |time, step| { *time += step; Some(*time) }));
            check(&times);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>, count in 0u32..3000) {
            let mut out = Vec::new();
            if decode_times(count, TimeColumnRef::Packed(&bytes), &mut out).is_ok() {
                prop_assert!(strictly_rises(&out));
            }
        }
    }
}
