//! Where the samples of a series are cut into pages: at round clock times, so that series that are
//! written together stay aligned and windows of hours and days meet page borders.
//!
//! Called by flush and compaction. Times are nanoseconds.

use std::ops::Range;

use crate::chunk::merge::ColumnSlice;
use crate::chunk::page::PAGE_SAMPLE_COUNT_MAX;

/// A stretch of the clock is long enough for a page when it holds this many samples at the usual step;
/// why so many is in `docs/decisions/0011-page-length.md`.
const PAGE_SAMPLE_COUNT_WANTED: i64 = 1_024;
/// A page goes on into the next stretch while it has fewer samples than this.
const PAGE_SAMPLE_COUNT_MIN: usize = 128;
/// Most bytes of strings in a page, unless a single string is longer.
pub(crate) const PAGE_BYTES_SIZE_MAX: usize = 64 << 10;
/// From how many distances the usual step is taken.
const STEP_PROBE_COUNT: usize = 63;

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Lengths of stretches, each of which divides the day or is whole days. Steps that divide the minute,
/// the hour or the day find one that holds 1,024 to 2,048 of them.
const LADDER: [i64; 30] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    20 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    5 * DAY,
    10 * DAY,
    20 * DAY,
    30 * DAY,
    50 * DAY,
    100 * DAY,
    200 * DAY,
    500 * DAY,
    1_000 * DAY,
    2_000 * DAY,
    5_000 * DAY,
    10_000 * DAY,
];

/// The pages of one series, in order: ranges of positions that follow each other and hold 1 to 2,048
/// samples each. `times` strictly rise; `values` are as many, and only the sizes of byte strings matter.
pub(crate) fn cut_pages<'a>(
    times: &'a [i64],
    values: ColumnSlice<'a>,
) -> impl Iterator<Item = Range<usize>> + use<'a> {
    // So few are one page, whatever their step.
    let few = times.len() <= PAGE_SAMPLE_COUNT_MIN;
    let stretch = if few { LADDER[LADDER.len() - 1] } else { stretch_for(usual_step(times)) };
    let mut start = 0;
    std::iter::from_fn(move || {
        let end = page_end(times, start, stretch);
        let end = start + fitting_bytes(values, start, end);
        let range = start..end;
        start = end;
        (!range.is_empty()).then_some(range)
    })
}

/// The median of some distances between neighbours, taken evenly over the column.
fn usual_step(times: &[i64]) -> i64 {
    let count = times.len().saturating_sub(1);
    let stride = count.div_ceil(STEP_PROBE_COUNT).max(1);
    let mut steps: Vec<i64> =
        times.windows(2).step_by(stride).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    let middle = steps.len() / 2;
    if steps.is_empty() { SECOND } else { *steps.select_nth_unstable(middle).1 }
}

fn stretch_for(step: i64) -> i64 {
    let wanted = step.saturating_mul(PAGE_SAMPLE_COUNT_WANTED);
    LADDER.into_iter().find(|stretch| *stretch >= wanted).unwrap_or(LADDER[LADDER.len() - 1])
}

/// Where the page that starts at `start` ends: at the first border of the clock behind enough samples,
/// or, when too many lie before it, after an even share of them.
fn page_end(times: &[i64], start: usize, stretch: i64) -> usize {
    let Some(first) = times.get(start) else { return start };
    let mut border = next_border(*first, stretch);
    let mut end = first_at(times, start, border);
    while end < times.len() && end - start < PAGE_SAMPLE_COUNT_MIN {
        border = next_border(times[end], stretch);
        end = first_at(times, end, border);
    }
    let count = end - start;
    start + count.div_ceil(count.div_ceil(PAGE_SAMPLE_COUNT_MAX))
}

fn next_border(time: i64, stretch: i64) -> i64 {
    time.div_euclid(stretch).saturating_add(1).saturating_mul(stretch)
}

/// The position of the first time at or after `border`, which lies behind `from`.
fn first_at(times: &[i64], from: usize, border: i64) -> usize {
    from + times[from..].partition_point(|time| *time < border).max(1)
}

/// How many values of `start..end` stay within the size of a page: at least one, if there is any.
fn fitting_bytes(values: ColumnSlice<'_>, start: usize, end: usize) -> usize {
    let ColumnSlice::Bytes(column, offset, _) = values else { return end - start };
    let mut size = 0;
    let fitting = (start..end).take_while(|index| {
        size += column.get(offset + index).unwrap_or_default().len();
        size <= PAGE_BYTES_SIZE_MAX
    });
    fitting.count().max(1).min(end - start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BytesColumn;

    fn cut(times: &[i64]) -> Vec<Range<usize>> {
        cut_pages(times, ColumnSlice::I64(times)).collect()
    }

    #[track_caller]
    fn check_counts(times: &[i64], expected: &[usize]) {
        let pages = cut(times);
        assert_eq!(pages.iter().map(Range::len).collect::<Vec<_>>(), expected);
        assert_eq!(pages.first().map_or(0, |page| page.start), 0);
        assert!(pages.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    fn line(start: i64, step: i64, count: i64) -> Vec<i64> {
        (0..count).map(|index| start + step * index).collect()
    }

    #[test]
    fn pages_end_at_round_times() {
        check_counts(&line(0, 10 * SECOND, 8640), &[1080; 8]);
        check_counts(&line(0, SECOND, 7200), &[1800; 4]);
        check_counts(&line(-600 * SECOND, SECOND, 2400), &[600, 1800]);
        check_counts(&line(0, HOUR, 2400), &[1200; 2]);
        check_counts(&line(0, SECOND / 1000, 4000), &[2000; 2]);
        check_counts(&[], &[]);
        check_counts(&[42], &[1]);
    }

    #[test]
    fn usual_steps_find_a_stretch_without_cuts_by_count() {
        for seconds in [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 86_400] {
            let count = stretch_for(seconds * SECOND) / (seconds * SECOND);
            assert!((1024..=2048).contains(&count), "{count} samples at a step of {seconds} s");
        }
    }

    #[test]
    fn a_missing_sample_moves_no_border() {
        let mut times = line(0, 10 * SECOND, 8640);
        times.remove(1500);
        check_counts(&times, &[1080, 1079, 1080, 1080, 1080, 1080, 1080, 1080]);
    }

    #[test]
    fn what_is_too_much_for_a_stretch_is_cut_evenly() {
        check_counts(&line(0, SECOND / 5_000, 5_000), &[1667, 1667, 1666]);
        check_counts(&line(0, 1, 4096), &[2048, 2048]);
    }

    #[test]
    fn stretches_with_few_samples_are_joined() {
        let mut times = line(0, 10 * SECOND, 1080);
        times.extend((0..200).map(|index| (index + 2) * 3 * HOUR));
        check_counts(&times, &[1080, 128, 72]);
        check_counts(&[i64::MIN + 1, 0, i64::MAX - 1], &[3]);
    }

    #[test]
    fn byte_strings_are_cut_by_size_too() {
        let mut column = BytesColumn::default();
        for size in [10, PAGE_BYTES_SIZE_MAX - 10, 1, PAGE_BYTES_SIZE_MAX * 2, 5, 5] {
            column.push(&vec![0; size]);
        }
        let times = line(0, 1, 5);
        let pages: Vec<_> = cut_pages(&times, ColumnSlice::Bytes(&column, 1, 6)).collect();
        assert_eq!(pages, [0..2, 2..3, 3..5].map(|range: Range<usize>| range));
    }
}
