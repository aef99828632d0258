//! Single events become running values: what a StatsD server keeps between two writes.
//!
//! Counters add up for as long as they live, gauges keep the last value, observations are counted in the buckets of a
//! histogram, sets count distinct members from one write to the next. Used by the tagged client that writes into a
//! sink and by the UDP listener; it has no clock, thread or lock of its own.

use std::collections::HashSet;
use std::time::Duration;

use hashbrown::HashMap;

use crate::ingest::DEFAULT_BUCKETS;
use crate::ingest::sink::Point;
use crate::model::{Metadata, MetricKind, STALE_NAN_BITS, SeriesKey, Timestamp};
use crate::protocol::label::BUCKET_KEY;
use crate::protocol::number::push_float_dotted;

/// An aggregate is written for this long after it last changed, so that a query finds it.
const WRITTEN_FOR: Duration = Duration::from_secs(5 * 60);
/// An aggregate is ended and forgotten when it has not changed for this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// Most aggregates unless told otherwise.
const AGGREGATE_COUNT_MAX: usize = 100_000;
/// Most members of one set between two writes.
const SET_MEMBER_COUNT_MAX: usize = 100_000;

/// What one event does to its aggregate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update<'a> {
    /// Adds to a counter; a negative amount subtracts.
    Count(f64),
    /// Sets a gauge.
    Set(f64),
    /// Adds to a gauge.
    Add(f64),
    /// Observes a value that stands for `weight` observations, as one of a sample of them does.
    Observe {
        /// The value.
        value: f64,
        /// One, or the inverse of the sample rate.
        weight: f64,
    },
    /// Puts a member into a set.
    Member(&'a str),
}

/// Why an [`Aggregator`] did not take an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotTaken {
    /// The series was seen with another type.
    TypeConflict,
    /// There are as many aggregates, or members of the set, as may be.
    LimitExceeded,
    /// NaN as the amount of a counter or the addition to a gauge, from which neither would recover.
    NotANumber,
    /// Name and tags with the suffixes of a histogram are too long for a series.
    InvalidSeries,
}

/// Aggregates by series.
#[derive(Debug)]
pub struct Aggregator {
    aggregates: HashMap<SeriesKey, Aggregate>,
    count_max: usize,
    /// Upper bounds of histograms with their text, the last one infinity.
    buckets: Vec<(f64, String)>,
    /// Metrics seen since the last write for the first time.
    new_metrics: Vec<(String, MetricKind)>,
}

#[derive(Debug)]
struct Aggregate {
    state: State,
    /// On the monotonic clock.
    changed_at: Duration,
}

#[derive(Debug)]
enum State {
    Counter(f64),
    Gauge(f64),
    /// Weighted counts of each bucket alone, and the weighted sum.
    Histogram {
        counts: Vec<f64>,
        sum: f64,
    },
    Set(HashSet<String>),
}

impl Default for Aggregator {
    fn default() -> Self {
        Aggregator::new(AGGREGATE_COUNT_MAX, &DEFAULT_BUCKETS)
    }
}

impl Aggregator {
    /// Nothing yet; at most `count_max` series, and histograms with these upper bounds, which rise and are finite.
    pub fn new(count_max: usize, bounds: &[f64]) -> Self {
        let with_text = |bound: &f64| {
            let mut text = String::new();
            push_float_dotted(&mut text, *bound);
            (*bound, text)
        };
        let buckets = bounds.iter().chain([&f64::INFINITY]).map(with_text).collect();
        Aggregator { aggregates: HashMap::new(), count_max, buckets, new_metrics: Vec::new() }
    }

    /// How many series are kept.
    pub fn len(&self) -> usize {
        self.aggregates.len()
    }

    /// Whether no series is kept.
    pub fn is_empty(&self) -> bool {
        self.aggregates.is_empty()
    }

    /// Does `update` to the aggregate of `key`, at `now` on the monotonic clock.
    ///
    /// # Errors
    /// Why it was not done. Nothing has changed then.
    pub fn record(&mut self, key: &SeriesKey, update: Update<'_>, now: Duration) -> Result<(), NotTaken> {
        if let Update::Count(amount) | Update::Add(amount) = update
            && amount.is_nan()
        {
            return Err(NotTaken::NotANumber);
        }
        if !self.aggregates.contains_key(key) {
            self.insert(key, update, now)?;
        }
        let Some(aggregate) = self.aggregates.get_mut(key) else { return Err(NotTaken::LimitExceeded) };
        aggregate.state.apply(update, &self.buckets)?;
        aggregate.changed_at = now;
        Ok(())
    }

    #[cold]
    fn insert(&mut self, key: &SeriesKey, update: Update<'_>, now: Duration) -> Result<(), NotTaken> {
        if self.aggregates.len() >= self.count_max {
            return Err(NotTaken::LimitExceeded);
        }
        let state = State::new(update, self.buckets.len());
        if matches!(state, State::Histogram { .. }) {
            // The longest of its series can be written, so all can.
            let longest = self.buckets.iter().map(|(_, text)| text.as_str()).max_by_key(|text| text.len());
            suffixed(key, "_bucket", longest).ok_or(NotTaken::InvalidSeries)?;
        }
        self.new_metrics.push((key.name().to_owned(), state.kind()));
        self.aggregates.insert(key.clone(), Aggregate { state, changed_at: now });
        Ok(())
    }

    /// The metrics first seen since this was last asked for.
    pub fn take_new_metrics(&mut self) -> Vec<(String, Metadata)> {
        let described = |(name, kind)| (name, Metadata { kind, ..Metadata::default() });
        std::mem::take(&mut self.new_metrics).into_iter().map(described).collect()
    }

    /// The samples to write at `time`, which is `now` on the monotonic clock: of every aggregate that changed within
    /// five minutes. One that has not changed for an hour is ended with a staleness marker and forgotten; its counter
    /// starts again at 0.
    pub fn write(&mut self, time: Timestamp, now: Duration) -> Vec<Point> {
        let mut points = Vec::new();
        let buckets = &self.buckets;
        self.aggregates.retain(|key, aggregate| {
            let silence = now.saturating_sub(aggregate.changed_at);
            if silence >= FORGOTTEN_AFTER {
                let first = points.len();
                aggregate.state.write(key, buckets, time, &mut points);
                let ended = points.iter_mut().skip(first);
                ended.for_each(|point| point.value = f64::from_bits(STALE_NAN_BITS));
                return false;
            }
            if silence < WRITTEN_FOR {
                aggregate.state.write(key, buckets, time, &mut points);
            }
            true
        });
        points
    }
}

impl State {
    fn new(update: Update<'_>, bucket_count: usize) -> Self {
        match update {
            Update::Count(_) => State::Counter(0.0),
            Update::Set(_) | Update::Add(_) => State::Gauge(0.0),
            Update::Observe { .. } => State::Histogram { counts: vec![0.0; bucket_count], sum: 0.0 },
            Update::Member(_) => State::Set(HashSet::new()),
        }
    }

    fn kind(&self) -> MetricKind {
        match self {
            State::Counter(_) => MetricKind::Counter,
            State::Gauge(_) | State::Set(_) => MetricKind::Gauge,
            State::Histogram { .. } => MetricKind::Histogram,
        }
    }

    fn apply(&mut self, update: Update<'_>, buckets: &[(f64, String)]) -> Result<(), NotTaken> {
        match (self, update) {
            (State::Counter(total), Update::Count(amount)) => *total += amount,
            (State::Gauge(last), Update::Set(value)) => *last = value,
            (State::Gauge(last), Update::Add(amount)) => *last += amount,
            (State::Histogram { counts, sum }, Update::Observe { value, weight }) => {
                // NaN is at or below no bound; it counts in the last bucket.
                let at_or_below = buckets.iter().position(|(bound, _)| value <= *bound);
                let index = at_or_below.unwrap_or(buckets.len() - 1);
                if let Some(count) = counts.get_mut(index) {
                    *count += weight;
                }
                *sum += value * weight;
            }
            (State::Set(members), Update::Member(member)) => {
                if members.len() >= SET_MEMBER_COUNT_MAX && !members.contains(member) {
                    return Err(NotTaken::LimitExceeded);
                }
                members.insert(member.to_owned());
            }
            _ => return Err(NotTaken::TypeConflict),
        }
        Ok(())
    }

    #[allow(clippy::cast_precision_loss)] // A set has at most a hundred thousand members.
    fn write(&mut self, key: &SeriesKey, buckets: &[(f64, String)], time: Timestamp, out: &mut Vec<Point>) {
        let mut push = |key: Option<SeriesKey>, value| out.extend(key.map(|key| Point { key, time, value }));
        match self {
            State::Counter(value) | State::Gauge(value) => push(Some(key.clone()), *value),
            State::Set(members) => {
                push(Some(key.clone()), members.len() as f64);
                members.clear();
            }
            State::Histogram { counts, sum } => {
                let mut count = 0.0;
                for ((_, text), own) in buckets.iter().zip(counts.iter()) {
                    count += own;
                    push(suffixed(key, "_bucket", Some(text)), count);
                }
                push(suffixed(key, "_count", None), count);
                push(suffixed(key, "_sum", None), *sum);
            }
        }
    }
}

/// `key` with a suffix to its name and, for a bucket, its bound; a tag of that key that was there goes.
fn suffixed(key: &SeriesKey, suffix: &str, bound: Option<&str>) -> Option<SeriesKey> {
    let own = key.tags().filter(|(k, _)| bound.is_none() || *k != BUCKET_KEY);
    let tags = own.chain(bound.map(|bound| (BUCKET_KEY, bound)));
    SeriesKey::new(&format!("{}{suffix}", key.name()), tags).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Duration = Duration::ZERO;

    fn key(name: &str) -> SeriesKey {
        SeriesKey::new(name, [("model", "v1")]).unwrap()
    }

    fn written(aggregator: &mut Aggregator, now: Duration) -> Vec<(String, f64)> {
        let points = aggregator.write(Timestamp::from_nanos(1), now);
        let mut shown: Vec<_> = points.iter().map(|p| (p.key.to_string(), p.value)).collect();
        shown.sort_by(|a, b| a.0.cmp(&b.0));
        shown
    }

    #[test]
    fn counters_add_up_over_writes_and_gauges_keep_the_last() {
        let mut a = Aggregator::default();
        let (c, g) = (key("c"), key("g"));
        a.record(&c, Update::Count(2.0), ZERO).unwrap();
        a.record(&c, Update::Count(-0.5), ZERO).unwrap();
        a.record(&g, Update::Set(-5.0), ZERO).unwrap();
        a.record(&g, Update::Add(2.0), ZERO).unwrap();
        let expected = [(r#"c{model="v1"}"#.to_owned(), 1.5), (r#"g{model="v1"}"#.to_owned(), -3.0)];
        assert_eq!(written(&mut a, ZERO), expected);
        a.record(&c, Update::Count(1.0), ZERO).unwrap();
        assert_eq!(written(&mut a, ZERO)[0].1, 2.5);
        let metrics = a.take_new_metrics();
        assert_eq!(metrics[0].1.kind, MetricKind::Counter);
        assert_eq!((metrics.len(), a.take_new_metrics().len()), (2, 0));
    }

    #[test]
    fn observations_fill_buckets_by_weight() {
        let mut a = Aggregator::new(10, &[1.0, 2.0]);
        let h = key("h");
        a.record(&h, Update::Observe { value: 1.0, weight: 2.0 }, ZERO).unwrap();
        a.record(&h, Update::Observe { value: 100.0, weight: 1.0 }, ZERO).unwrap();
        let expected = [
            (r#"h_bucket{le="+Inf",model="v1"}"#, 3.0),
            (r#"h_bucket{le="1.0",model="v1"}"#, 2.0),
            (r#"h_bucket{le="2.0",model="v1"}"#, 2.0),
            (r#"h_count{model="v1"}"#, 3.0),
            (r#"h_sum{model="v1"}"#, 102.0),
        ];
        assert_eq!(written(&mut a, ZERO), expected.map(|(key, value)| (key.to_owned(), value)));
    }

    #[test]
    fn a_set_counts_distinct_members_between_writes() {
        let mut a = Aggregator::default();
        for member in ["one", "two", "one"] {
            a.record(&key("s"), Update::Member(member), ZERO).unwrap();
        }
        assert_eq!(written(&mut a, ZERO)[0].1, 2.0);
        assert_eq!(written(&mut a, ZERO)[0].1, 0.0);
    }

    #[test]
    fn silence_stops_writing_and_later_ends_the_series() {
        let mut a = Aggregator::default();
        let c = key("c");
        a.record(&c, Update::Count(7.0), ZERO).unwrap();
        assert_eq!(written(&mut a, WRITTEN_FOR - Duration::from_nanos(1)).len(), 1);
        assert!(written(&mut a, WRITTEN_FOR).is_empty());
        assert!(written(&mut a, FORGOTTEN_AFTER - Duration::from_nanos(1)).is_empty());
        let ended = a.write(Timestamp::from_nanos(1), FORGOTTEN_AFTER);
        assert!(crate::model::is_stale(ended[0].value) && a.is_empty());
        a.record(&c, Update::Count(1.0), FORGOTTEN_AFTER).unwrap();
        assert_eq!(written(&mut a, FORGOTTEN_AFTER)[0].1, 1.0);
    }

    #[test]
    fn what_cannot_be_taken_says_why() {
        let mut a = Aggregator::new(1, &[1.0]);
        let c = key("c");
        a.record(&c, Update::Count(1.0), ZERO).unwrap();
        assert_eq!(a.record(&c, Update::Set(1.0), ZERO), Err(NotTaken::TypeConflict));
        assert_eq!(a.record(&c, Update::Count(f64::NAN), ZERO), Err(NotTaken::NotANumber));
        assert_eq!(a.record(&key("d"), Update::Count(1.0), ZERO), Err(NotTaken::LimitExceeded));
        assert_eq!(written(&mut a, ZERO)[0].1, 1.0);
        let long = SeriesKey::new(&"n".repeat(crate::model::NAME_SIZE_MAX), [("a", "b")]).unwrap();
        let observed = Update::Observe { value: 1.0, weight: 1.0 };
        assert_eq!(Aggregator::default().record(&long, observed, ZERO), Err(NotTaken::InvalidSeries));
        let mut sets = Aggregator::default();
        for n in 0..SET_MEMBER_COUNT_MAX {
            sets.record(&c, Update::Member(&n.to_string()), ZERO).unwrap();
        }
        assert_eq!(sets.record(&c, Update::Member("more"), ZERO), Err(NotTaken::LimitExceeded));
        assert_eq!(sets.record(&c, Update::Member("7"), ZERO), Ok(()));
    }
}
