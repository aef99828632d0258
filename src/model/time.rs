//! Points and half-open ranges of time, in nanoseconds since the Unix epoch.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, negative before it.
///
/// [`Timestamp::MIN`] and [`Timestamp::MAX`] bound ranges and are not times of samples: writing a
/// sample at either is refused. So the range `MIN..MAX` always holds everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every sample.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// After every sample.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// From milliseconds since the epoch, saturating at [`Timestamp::MIN`] and [`Timestamp::MAX`].
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis.saturating_mul(1_000_000))
    }

    /// From seconds since the epoch, saturating at [`Timestamp::MIN`] and [`Timestamp::MAX`].
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whether a sample can lie here: every time but the two extremes.
    pub const fn is_sample_time(self) -> bool {
        self.0 != i64::MIN && self.0 != i64::MAX
    }

    /// This time plus `nanos`, saturating at the extremes.
    #[must_use]
    pub const fn saturating_add(self, nanos: i64) -> Self {
        Timestamp(self.0.saturating_add(nanos))
    }

    /// This time less `nanos`, saturating at the extremes.
    #[must_use]
    pub const fn saturating_sub(self, nanos: i64) -> Self {
        Timestamp(self.0.saturating_sub(nanos))
    }
}

impl From<SystemTime> for Timestamp {
    /// Saturates at the extremes (the years 1677 and 2262).
    fn from(time: SystemTime) -> Self {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(nanos(after)),
            Err(before) => Timestamp(nanos(before.duration()).saturating_neg()),
        }
    }
}

impl fmt::Display for Timestamp {
    /// Nanoseconds since the epoch, in decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A half-open stretch of time, `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// The first time inside.
    pub start: Timestamp,
    /// The first time after.
    pub end: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: TimeRange = TimeRange { start: Timestamp::MIN, end: Timestamp::MAX };

    /// Whether nothing lies inside.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether `time` lies inside.
    pub fn contains(self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    /// Whether any time of `min..=max` lies inside.
    pub fn meets(self, min: Timestamp, max: Timestamp) -> bool {
        self.start <= max && min < self.end
    }

    /// Whether every time of `min..=max` lies inside.
    pub fn covers(self, min: Timestamp, max: Timestamp) -> bool {
        self.start <= min && max < self.end
    }

    /// What both ranges hold.
    #[must_use]
    pub fn intersect(self, other: TimeRange) -> TimeRange {
        TimeRange { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

impl From<Range<Timestamp>> for TimeRange {
    fn from(range: Range<Timestamp>) -> Self {
        TimeRange { start: range.start, end: range.end }
    }
}
