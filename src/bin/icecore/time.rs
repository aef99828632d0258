//! Times and durations as arguments and in answers.

use std::time::{Duration, SystemTime};

use icecore::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// Largest numbers that are read as seconds, as milliseconds and as microseconds: the year 5138 in each.
const SECONDS_MAX: f64 = 1e11;
const MILLIS_MAX: f64 = 1e14;
const MICROS_MAX: f64 = 1e17;

/// A time of the system's clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Reads a point in time: RFC 3339 (without a zone: UTC), a date, `now`, `-1h` or `+5m` from now, or a number since
/// the epoch whose size says whether it counts seconds, milliseconds, microseconds or nanoseconds.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    parse_time_at(text, now())
}

fn parse_time_at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(time) = parse_number(text) {
        return Ok(time);
    }
    let nanos = |text| parse_duration(text).map(|d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    if let Some(before) = text.strip_prefix('-').or_else(|| text.strip_prefix("now-")) {
        return nanos(before).map(|nanos| now.saturating_sub(nanos));
    }
    if let Some(after) = text.strip_prefix('+').or_else(|| text.strip_prefix("now+")) {
        return nanos(after).map(|nanos| now.saturating_add(nanos));
    }
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.parse::<DateTime>().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).map(Timestamp::from_nanos).ok_or_else(
        || format!("{text:?} is no time; give RFC 3339, a date, Unix seconds or milliseconds, now, or -1h"),
    )
}

fn parse_number(text: &str) -> Option<Timestamp> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    let unit = match number.abs() {
        size if size < SECONDS_MAX => 1e9,
        size if size < MILLIS_MAX => 1e6,
        size if size < MICROS_MAX => 1e3,
        _ => 1.0,
    };
    // Whole numbers keep every digit.
    match text.parse::<i64>() {
        Ok(whole) => whole.checked_mul(unit as i64).map(Timestamp::from_nanos),
        Err(_) => Some(Timestamp::from_nanos((number * unit).round() as i64)),
    }
}

/// Reads a duration such as `90s`, `1h30m`, `1.5m`, `250ms` or `1d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no duration; give numbers with ns, us, ms, s, m, h, d or w, such as 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let word = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(word);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = add(total, number, *unit).ok_or_else(wrong)?;
        rest = tail;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

fn add(total: Duration, number: &str, unit_nanos: u64) -> Option<Duration> {
    let part = match number.parse::<u64>() {
        Ok(whole) => Duration::from_nanos(whole.checked_mul(unit_nanos)?),
        Err(_) => Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit_nanos as f64 / 1e9).ok()?,
    };
    total.checked_add(part)
}

/// The time in RFC 3339, UTC, with as many digits as it has.
pub(crate) fn format_time(time: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.nanos())) {
        Ok(time) => time.to_string(),
        Err(_) => time.to_string(),
    }
}

/// A measured time, short: `3.2 µs`, `12.4 ms`, `1.8 s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, nanos: Option<i64>) {
        let now = Timestamp::from_secs(10_000);
        assert_eq!(parse_time_at(text, now).ok().map(Timestamp::nanos), nanos, "{text}");
    }

    #[test]
    fn times_are_read_in_every_form() {
        check("now", Some(10_000_000_000_000));
        check("-1h", Some(6_400_000_000_000));
        check("now-1h30m", Some(4_600_000_000_000));
        check("+1s", Some(10_001_000_000_000));
        check("1700000000", Some(1_700_000_000_000_000_000));
        check("1700000000.5", Some(1_700_000_000_500_000_000));
        check("1700000000123", Some(1_700_000_000_123_000_000));
        check("1700000000123456", Some(1_700_000_000_123_456_000));
        check("1700000000123456789", Some(1_700_000_000_123_456_789));
        check("1970-01-01T01:00:00+01:00", Some(0));
        check("1970-01-02", Some(86_400_000_000_000));
        check("-5", Some(-5_000_000_000));
        for wrong in ["", "soon", "-", "-1y", "1h", "NaN"] {
            check(wrong, None);
        }
    }

    #[test]
    fn durations_add_up() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "1", "m", "0s", "1x", "1m-1s", "99999999999999w", "..5s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_shown_with_the_digits_they_have() {
        assert_eq!(format_time(Timestamp::from_millis(1_500)), "1970-01-01T00:00:01.5Z");
        assert_eq!(format_time(Timestamp::from_secs(0)), "1970-01-01T00:00:00Z");
    }
}
