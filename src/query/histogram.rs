//! Quantiles of classic histograms: series of cumulative counters, one for each upper bound, which the tag
//! `le` names (Prometheus documentation, "Histograms and summaries").

use std::collections::BTreeMap;

use crate::model::{Column, SeriesKey, Timestamp};
use crate::query::group::Grouping;
use crate::query::result::SeriesColumns;

/// The tag that holds a bucket's upper bound.
pub(crate) const BOUND_KEY: &str = "le";

/// The grouping under which buckets are added up, so that bounds stay apart.
pub(crate) fn bucket_grouping(grouping: Grouping) -> Grouping {
    match grouping {
        Grouping::Each => Grouping::Without(Vec::new()),
        Grouping::By(mut tags) => {
            tags.push(BOUND_KEY.to_owned());
            Grouping::By(tags)
        }
        Grouping::Without(mut tags) => {
            tags.retain(|tag| tag != BOUND_KEY);
            Grouping::Without(tags)
        }
    }
}

/// From the increase of each bucket to the quantile of each histogram. Series whose `le` is not a number
/// belong to no histogram.
pub(crate) fn quantiles(buckets: Vec<SeriesColumns>, rank: f64) -> Vec<SeriesColumns> {
    let mut histograms: BTreeMap<SeriesKey, BTreeMap<Timestamp, Vec<Bucket>>> = BTreeMap::new();
    for columns in buckets {
        let bound = columns.key.tag(BOUND_KEY).parse::<f64>().unwrap_or(f64::NAN);
        if bound.is_nan() {
            continue;
        }
        let mut group = Vec::new();
        columns.key.write_subset(columns.key.name(), |tag| tag != BOUND_KEY, &mut group);
        let windows = histograms.entry(SeriesKey::of_group(group)).or_default();
        for (time, count) in columns.times.iter().zip(columns.doubles()) {
            windows.entry(*time).or_default().push(Bucket { bound, count: *count });
        }
    }
    let columns = |(key, windows): (SeriesKey, BTreeMap<Timestamp, Vec<Bucket>>)| {
        let (times, values) =
            windows.into_iter().map(|(time, mut buckets)| (time, quantile(&mut buckets, rank))).unzip();
        SeriesColumns { key, times, values: Column::F64(values) }
    };
    histograms.into_iter().map(columns).collect()
}

/// How many observations were at most `bound`.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// The quantile, taken as spread evenly inside its bucket; the lowest bucket starts at 0 if its bound is
/// positive, and a quantile in the bucket without an upper bound is the bound below. NaN without a bucket
/// for `+Inf`, with fewer than two buckets, or without observations.
fn quantile(buckets: &mut Vec<Bucket>, rank: f64) -> f64 {
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    // Counters of one histogram are not read at one moment, so a count may lag behind a smaller one.
    let mut most = 0.0_f64;
    for bucket in &mut *buckets {
        most = most.max(bucket.count);
        bucket.count = most;
    }
    let [bounded @ .., last] = buckets.as_slice() else { return f64::NAN };
    let Some(highest) = bounded.last().filter(|_| last.bound == f64::INFINITY && last.count > 0.0) else {
        return f64::NAN;
    };
    let wanted = rank * last.count;
    let Some(position) = bounded.iter().position(|bucket| bucket.count >= wanted) else {
        return highest.bound;
    };
    let bucket = bounded.get(position).unwrap_or(highest);
    let below = position.checked_sub(1).and_then(|below| bounded.get(below));
    let (start, before) = match below {
        Some(below) => (below.bound, below.count),
        None if bucket.bound <= 0.0 => return bucket.bound,
        None => (0.0, 0.0),
    };
    start + (bucket.bound - start) * ((wanted - before) / (bucket.count - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(buckets: &[(f64, f64)], rank: f64, expected: f64) {
        let mut buckets: Vec<Bucket> =
            buckets.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect();
        let found = quantile(&mut buckets, rank);
        assert!(found == expected || found.is_nan() && expected.is_nan(), "{found}, not {expected}");
    }

    #[test]
    fn quantiles_lie_inside_their_bucket() {
        const INF: f64 = f64::INFINITY;
        let buckets = [(1.0, 10.0), (2.0, 30.0), (4.0, 40.0), (INF, 40.0)];
        check(&buckets, 0.0, 0.0);
        check(&buckets, 0.25, 1.0);
        check(&buckets, 0.5, 1.5);
        check(&buckets, 1.0, 4.0);
        check(&[(INF, 8.0), (1.0, 2.0)], 0.9, 1.0);
        check(&[(-1.0, 5.0), (INF, 5.0)], 0.5, -1.0);
        check(&[(1.0, 5.0), (2.0, 4.0), (INF, 10.0)], 0.5, 1.0);
        check(&[(1.0, 2.0), (1.0, 2.0), (INF, 8.0)], 0.25, 0.5);
        check(&[(1.0, 5.0), (2.0, 5.0)], 0.5, f64::NAN);
        check(&[(INF, 5.0)], 0.5, f64::NAN);
        check(&[(1.0, 0.0), (INF, 0.0)], 0.5, f64::NAN);
        check(&[], 0.5, f64::NAN);
    }
}
