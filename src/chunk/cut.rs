//! Where the samples of a series are cut into pages: at round clock times, so that series that are
//! written together stay aligned and windows of hours and days meet page borders.
//!
//! Called by flush and compaction. Times are nanoseconds.

use std::ops::Range;

use crate::chunk::merge::ColumnSlice;
use crate::chunk::page::PAGE_SAMPLE_COUNT_MAX;

/// A stretch of the clock is long enough for a page when it holds this many samples at the usual step.
const PAGE_SAMPLE_COUNT_WANTED: i64 = 512;
/// A page goes on into the next stretch while it has fewer samples than this.
const PAGE_SAMPLE_COUNT_MIN: usize = 128;
/// Most bytes of strings in a page, unless a single string is longer.
pub(crate) const PAGE_BYTES_SIZE_MAX: usize = 64 << 10;
/// From how many distances the usual step is taken.
const STEP_PROBE_COUNT: usize = 63;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Lengths of stretches, each of which divides the days or is whole days.
const LADDER: [i64; 24] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    2 * 60 * SECOND,
    5 * 60 * SECOND,
    10 * 60 * SECOND,
    30 * 60 * SECOND,
    3_600 * SECOND,
    2 * 3_600 * SECOND,
    6 * 3_600 * SECOND,
    12 * 3_600 * SECOND,
    DAY,
    2 * DAY,
    5 * DAY,
    10 * DAY,
    30 * DAY,
    100 * DAY,
    300 * DAY,
    1_000 * DAY,
    3_000 * DAY,
    10_000 * DAY,
];

/// The pages of one series, in order: ranges of positions that follow each other and hold 1 to 2,048
/// samples each. `times` strictly rise; `values` are as many, and only the sizes of byte strings matter.
pub(crate) fn cut_pages<'a>(
    times: &'a [i64],
    values: ColumnSlice<'a>,
) -> impl Iterator<Item = Range<usize>> + use<'a> {
    let stretch = stretch_for(usual_step(times));
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
        check_counts(&line(0, 10 * SECOND, 8640), &[720; 12]);
        check_counts(&line(0, SECOND, 7200), &[600; 12]);
        check_counts(&line(-1800 * SECOND, SECOND, 1200), &[600; 2]);
        check_counts(&line(0, 3600 * SECOND, 1440), &[720; 2]);
        check_counts(&line(0, SECOND / 1000, 4000), &[1000; 4]);
        check_counts(&[], &[]);
        check_counts(&[42], &[1]);
    }

    #[test]
    fn a_missing_sample_moves_no_border() {
        let mut times = line(0, 10 * SECOND, 8640);
        times.remove(1000);
        check_counts(&times, &[720, 719, 720, 720, 720, 720, 720, 720, 720, 720, 720, 720]);
    }

    #[test]
    fn what_is_too_much_for_a_stretch_is_cut_evenly() {
        check_counts(&line(0, SECOND / 5_000, 5_000), &[1667, 1667, 1666]);
        check_counts(&line(0, 1, 4096), &[2048, 2048]);
    }

    #[test]
    fn stretches_with_few_samples_are_joined() {
        let mut times = line(0, 10 * SECOND, 720);
        times.extend((0..200).map(|hour| (hour + 3) * 3600 * SECOND));
        check_counts(&times, &[720, 129, 71]);
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
