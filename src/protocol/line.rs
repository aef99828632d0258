//! InfluxDB line protocol, `measurement,tag=value field=value time`: text to points, and points to
//! samples ([`Point::samples`]). Called by the server's write endpoints and by imports.
//!
//! The grammar is that of InfluxData's own decoder as its published corpus shows it, not the looser one
//! of InfluxDB 1: duplicate tags, empty keys and control characters in names are refused.

mod parser;
mod series;

pub use parser::{LineError, Parser};
pub use series::series_name;

use std::borrow::Cow;

use crate::model::Timestamp;

/// One line: a measurement, its tags and its fields at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point<'a> {
    /// The measurement.
    pub measurement: Cow<'a, str>,
    /// Tags in the order written; no key twice, no key or value empty.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Fields in the order written, at least one. A key may come twice; the later counts.
    pub fields: Vec<(Cow<'a, str>, FieldValue<'a>)>,
    /// The time of the line, or the default.
    pub time: Timestamp,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// `1`, `1.5`, `-2e3`; always finite.
    Float(f64),
    /// `1i`
    Int(i64),
    /// `1u`
    UInt(u64),
    /// `t`, `T`, `true`, `True`, `TRUE` and the same for false.
    Bool(bool),
    /// `"text"`
    String(Cow<'a, str>),
}

/// The unit of the times in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nanoseconds, the default of InfluxDB 1 and 2.
    #[default]
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
    /// Told by the size of each time, the default of InfluxDB 3: below 5e9 seconds, below 5e12
    /// milliseconds, below 5e15 microseconds, else nanoseconds.
    Auto,
}

impl Precision {
    /// The precision that a `precision` parameter of any version of InfluxDB names.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "ns" | "n" | "1ns" | "nanosecond" => Precision::Nanoseconds,
            "us" | "u" | "µ" | "µs" | "1us" | "microsecond" => Precision::Microseconds,
            "ms" | "1ms" | "millisecond" => Precision::Milliseconds,
            "s" | "1s" | "second" => Precision::Seconds,
            "m" => Precision::Minutes,
            "h" => Precision::Hours,
            "auto" => Precision::Auto,
            _ => return None,
        })
    }

    /// The nanoseconds of one unit, for a time of `count` units.
    fn unit_nanos(self, count: i64) -> i64 {
        match self {
            Precision::Nanoseconds => 1,
            Precision::Microseconds => 1_000,
            Precision::Milliseconds => 1_000_000,
            Precision::Seconds => 1_000_000_000,
            Precision::Minutes => 60_000_000_000,
            Precision::Hours => 3_600_000_000_000,
            Precision::Auto => match count.unsigned_abs() {
                0..5_000_000_000 => 1_000_000_000,
                5_000_000_000..5_000_000_000_000 => 1_000_000,
                5_000_000_000_000..5_000_000_000_000_000 => 1_000,
                _ => 1,
            },
        }
    }

    /// `count` units since the epoch, or `None` when that does not fit nanoseconds.
    pub fn time(self, count: i64) -> Option<Timestamp> {
        count.checked_mul(self.unit_nanos(count)).map(Timestamp::from_nanos)
    }

    /// `time` cut down to a whole unit, as InfluxDB stamps lines without a time.
    pub fn truncate(self, time: Timestamp) -> Timestamp {
        let unit = if self == Precision::Auto { 1 } else { self.unit_nanos(0) };
        Timestamp::from_nanos(
            time.nanos() - time.nanos().rem_euclid(unit).min(time.nanos().saturating_sub(i64::MIN)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_scales_and_truncates() {
        let time = Timestamp::from_nanos(1_234_567_890_123_456_789);
        assert_eq!(Precision::Milliseconds.truncate(time).nanos(), 1_234_567_890_123_000_000);
        assert_eq!(Precision::Auto.truncate(time), time);
        assert_eq!(Precision::Seconds.truncate(Timestamp::from_nanos(-1)).nanos(), -1_000_000_000);
        assert_eq!(Precision::Hours.truncate(Timestamp::from_nanos(i64::MIN)).nanos(), i64::MIN);
        assert_eq!(Precision::Hours.time(1), Some(Timestamp::from_secs(3600)));
        assert_eq!(Precision::Seconds.time(i64::MAX), None);
        assert_eq!(Precision::Auto.time(1_700_000_000), Some(Timestamp::from_secs(1_700_000_000)));
        assert_eq!(Precision::Auto.time(1_700_000_000_000), Some(Timestamp::from_secs(1_700_000_000)));
        assert_eq!(Precision::Auto.time(1_700_000_000_000_000), Some(Timestamp::from_secs(1_700_000_000)));
        assert_eq!(Precision::Auto.time(i64::MIN), Some(Timestamp::from_nanos(i64::MIN)));
    }
}
