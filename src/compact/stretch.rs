//! Into which stretches of time a flush cuts a head. Pure: spans of samples in, stretches out.
//!
//! A block lies inside one window of the ladder, so that compaction can go up the ladder window by
//! window. A flush writes few blocks: what is recent lies in fine windows, backfill and stragglers
//! share coarse ones.

use std::collections::BTreeSet;

use crate::model::{TimeRange, Timestamp};

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;

/// Lengths of windows, in nanoseconds; the last one is all of time.
pub(crate) const LADDER: [i64; 6] = [2 * HOUR, DAY, 10 * DAY, 100 * DAY, 1000 * DAY, i64::MAX];
/// Most blocks that one flush writes.
pub(crate) const FLUSH_BLOCK_COUNT_MAX: usize = 8;
/// How many of the newest fine windows are cut apart from older data.
const RECENT_COUNT: i64 = 4;

/// Samples that lie between two times, both inclusive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) count: u64,
}

/// The window of `level` that holds `time`. The first and last windows of a level end where time does.
pub(crate) fn window(level: usize, time: i64) -> TimeRange {
    let size = LADDER.get(level).copied().unwrap_or(i64::MAX);
    if size == i64::MAX {
        return TimeRange::ALL;
    }
    let start = time.div_euclid(size).checked_mul(size);
    let end = start.and_then(|start| start.checked_add(size));
    TimeRange {
        start: start.map_or(Timestamp::MIN, Timestamp::from_nanos),
        end: end.map_or(Timestamp::MAX, Timestamp::from_nanos),
    }
}

/// Disjoint stretches, in order of time, that hold all samples of `spans`.
pub(crate) fn stretches(spans: &[Span]) -> Vec<TimeRange> {
    let Some(newest) = spans.iter().map(|span| span.max_time).max() else { return Vec::new() };
    let recent = window(0, newest).start.nanos().saturating_sub((RECENT_COUNT - 1) * LADDER[0]);
    let total: u64 = spans.iter().map(|span| span.count).sum();
    let recent_count: u64 = spans.iter().filter(|span| span.min_time >= recent).map(|span| span.count).sum();
    if recent_count * 2 < total {
        return cut(spans, i64::MIN, i64::MAX, FLUSH_BLOCK_COUNT_MAX);
    }
    let half = FLUSH_BLOCK_COUNT_MAX - RECENT_COUNT as usize;
    let mut out = if recent > i64::MIN { cut(spans, i64::MIN, recent - 1, half) } else { Vec::new() };
    out.extend(cut(spans, recent, i64::MAX, RECENT_COUNT as usize));
    out
}

/// The stretches of what lies in `from..=to`, at the finest level at which they are at most `count_max`.
fn cut(spans: &[Span], from: i64, to: i64, count_max: usize) -> Vec<TimeRange> {
    let inside = TimeRange {
        start: Timestamp::from_nanos(from),
        end: if to == i64::MAX { Timestamp::MAX } else { Timestamp::from_nanos(to + 1) },
    };
    for level in 0..LADDER.len() {
        if let Some(starts) = touched(spans, from, to, level, count_max) {
            return starts.into_iter().map(|start| window(level, start).intersect(inside)).collect();
        }
    }
    Vec::new()
}

/// The starts of the windows that samples may lie in; `None` when they are more than `count_max`.
fn touched(spans: &[Span], from: i64, to: i64, level: usize, count_max: usize) -> Option<BTreeSet<i64>> {
    let mut starts = BTreeSet::new();
    for span in spans.iter().filter(|span| span.min_time <= to && span.max_time >= from) {
        let (mut time, last) = (span.min_time.max(from), span.max_time.min(to));
        loop {
            let window = window(level, time);
            starts.insert(window.start.nanos().max(from));
            if starts.len() > count_max {
                return None;
            }
            if window.end == Timestamp::MAX || window.end.nanos() > last {
                break;
            }
            time = window.end.nanos();
        }
    }
    Some(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(min_hour: i64, max_hour: i64, count: u64) -> Span {
        Span { min_time: min_hour * HOUR, max_time: max_hour * HOUR + HOUR - 1, count }
    }

    #[track_caller]
    fn check(spans: &[Span], expected_hours: &[(i64, i64)]) {
        let found = stretches(spans);
        let hours: Vec<_> =
            found.iter().map(|range| (range.start.nanos() / HOUR, range.end.nanos() / HOUR)).collect();
        assert_eq!(hours, expected_hours);
        assert!(found.is_sorted_by(|a, b| a.end <= b.start));
        for span in spans {
            for time in [span.min_time, span.max_time] {
                assert!(found.iter().any(|range| range.contains(Timestamp::from_nanos(time))), "{time}");
            }
        }
    }

    #[test]
    fn live_data_lies_in_fine_windows() {
        check(&[span(10, 11, 100)], &[(10, 12)]);
        check(&[span(10, 12, 100)], &[(10, 12), (12, 14)]);
        check(&[], &[]);
    }

    #[test]
    fn years_of_backfill_are_a_handful() {
        let years: Vec<Span> = (0..5 * 365).map(|day| span(day * 24, day * 24 + 23, 24)).collect();
        assert!(stretches(&years).len() <= FLUSH_BLOCK_COUNT_MAX);
    }

    #[test]
    fn stragglers_share_an_old_stretch() {
        let mut spans: Vec<Span> = (0..50).map(|n| span(n * 100, n * 100, 1)).collect();
        spans.push(span(500_000, 500_001, 1_000));
        let found = stretches(&spans);
        assert!(found.len() <= 5, "{found:?}");
        assert_eq!(found.last().map(|range| range.start.nanos() / HOUR), Some(500_000));
    }

    #[test]
    fn the_ends_of_time_have_windows() {
        let all = Span { min_time: i64::MIN + 1, max_time: i64::MAX - 1, count: 2 };
        check(&[all], &[(i64::MIN / HOUR, i64::MAX / HOUR)]);
        for level in 0..LADDER.len() {
            for time in [i64::MIN + 1, -1, 0, i64::MAX - 1] {
                assert!(window(level, time).contains(Timestamp::from_nanos(time)));
            }
        }
    }
}
