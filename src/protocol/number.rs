//! Numbers as the text formats write them: floats in the forms of Go and OpenMetrics, and decimal
//! seconds that become nanoseconds without passing through a float. Called by every text format here.

use std::fmt::Write;

use crate::model::Timestamp;

const NANOS_DIGITS: i64 = 9;

/// The float that `text` spells: decimal with an optional exponent, or `inf`, `infinity`, `nan` in any
/// case, with an optional sign. Hexadecimal, underscores and surrounding blanks are refused.
pub fn parse_float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Appends `value` as OpenMetrics and Prometheus 3 print the bound of a bucket: as [`push_float`], but
/// always with a point or an exponent in it (`1.0`, `1e+06`).
pub fn push_float_dotted(out: &mut String, value: f64) {
    let start = out.len();
    push_float(out, value);
    let integer = out.get(start..).is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
    if integer {
        out.push_str(".0");
    }
}

/// Appends the shortest decimal that reads back as `value`, as Go and Prometheus print it: `0.005`,
/// `42`, `1e+06`, `+Inf`, `NaN`. An exponent is used below 1e-4 and from 1e6 on.
pub fn push_float(out: &mut String, value: f64) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    // Writing to a String cannot fail.
    let start = out.len();
    let _ = write!(out, "{value:e}");
    let Some(mark) = out.get(start..).and_then(|text| text.find('e')) else { return };
    let exponent: i32 = out.get(start + mark + 1..).and_then(|text| text.parse().ok()).unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        out.truncate(start + mark);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    } else {
        out.truncate(start);
        let _ = write!(out, "{value}");
    }
}

/// Appends `time` as decimal seconds since the epoch, exactly and without zeros at the end.
pub fn push_seconds(out: &mut String, time: Timestamp) {
    let (seconds, nanos) = (time.nanos() / 1_000_000_000, time.nanos() % 1_000_000_000);
    if time.nanos() < 0 && seconds == 0 {
        out.push('-');
    }
    // Writing to a String cannot fail.
    let _ = write!(out, "{seconds}");
    if nanos != 0 {
        let _ = write!(out, ".{:09}", nanos.unsigned_abs());
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// The time that decimal seconds since the epoch spell: a sign, digits, a point, an exponent. It is exact to
/// the nanosecond, what lies below is cut off, and what is out of range becomes [`Timestamp::MIN`] or
/// [`Timestamp::MAX`], which no sample can have. Infinity, NaN and hexadecimal are refused.
pub fn parse_seconds(text: &[u8]) -> Option<Timestamp> {
    let (negative, unsigned) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let mark = unsigned.iter().position(|b| matches!(b, b'e' | b'E'));
    let (mantissa, exponent) = match mark {
        Some(at) => (unsigned.get(..at)?, parse_exponent(unsigned.get(at + 1..)?)?),
        None => (unsigned, 0),
    };
    let point = mantissa.iter().position(|b| *b == b'.');
    let whole_count = point.unwrap_or(mantissa.len());
    let digit_count = mantissa.len() - usize::from(point.is_some());
    if digit_count == 0 || !mantissa.iter().enumerate().all(|(i, b)| b.is_ascii_digit() || Some(i) == point) {
        return None;
    }
    let digits = mantissa.iter().filter(|b| **b != b'.').map(|b| i64::from(*b - b'0'));
    // How many of the digits, zeros added behind them where they do not suffice, make up the nanoseconds.
    let kept = i64::try_from(whole_count).ok()?.saturating_add(exponent).saturating_add(NANOS_DIGITS);
    Some(Timestamp::from_nanos(scaled(negative, digits, kept)))
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Far beyond any time, yet far from overflow when it is added to a length.
    let limit = 1 << 40;
    let size = digits.iter().fold(0i64, |n, d| (n * 10 + i64::from(d - b'0')).min(limit));
    Some(if negative { -size } else { size })
}

/// The first `kept` of `digits` as a number, saturating; digits that are not there are zeros.
fn scaled(negative: bool, digits: impl Iterator<Item = i64>, kept: i64) -> i64 {
    let out_of_range = if negative { i64::MIN } else { i64::MAX };
    let mut nanos = 0i64;
    let mut missing = kept;
    for (digit, left) in digits.zip((0..kept).rev()) {
        let next = nanos.checked_mul(10).and_then(|n| n.checked_add(if negative { -digit } else { digit }));
        let Some(next) = next else { return out_of_range };
        nanos = next;
        missing = left;
    }
    while nanos != 0 && missing > 0 {
        let Some(next) = nanos.checked_mul(10) else { return out_of_range };
        nanos = next;
        missing -= 1;
    }
    nanos
}

#[cfg(any(feature = "server", feature = "cli"))]
/// The digits of `text` as an integer, with an optional sign. Nothing else, and nothing out of range.
pub(crate) fn parse_int(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_float(value: f64, go: &str, dotted: &str) {
        let mut text = String::new();
        push_float(&mut text, value);
        assert_eq!(text, go);
        text.clear();
        push_float_dotted(&mut text, value);
        assert_eq!(text, dotted);
        let back = parse_float(text.as_bytes()).unwrap();
        assert!(back.to_bits() == value.to_bits() || value.is_nan() && back.is_nan());
    }

    #[test]
    fn floats_are_written_as_go_and_openmetrics_do() {
        check_float(1.0, "1", "1.0");
        check_float(0.0, "0", "0.0");
        check_float(-0.0, "-0", "-0.0");
        check_float(0.005, "0.005", "0.005");
        check_float(0.0001, "0.0001", "0.0001");
        check_float(0.00001, "1e-05", "1e-05");
        check_float(100_000.0, "100000", "100000.0");
        check_float(1_000_000.0, "1e+06", "1e+06");
        check_float(1.555_555_555_555_52e6, "1.55555555555552e+06", "1.55555555555552e+06");
        check_float(1e20, "1e+20", "1e+20");
        check_float(1e21, "1e+21", "1e+21");
        check_float(5e-324, "5e-324", "5e-324");
        check_float(f64::MAX, "1.7976931348623157e+308", "1.7976931348623157e+308");
        check_float(f64::INFINITY, "+Inf", "+Inf");
        check_float(f64::NEG_INFINITY, "-Inf", "-Inf");
        check_float(f64::NAN, "NaN", "NaN");
    }

    #[test]
    fn only_plain_floats_are_read() {
        assert_eq!(parse_float(b"9.007199254740992e+015"), Some(9_007_199_254_740_992.0));
        assert_eq!(parse_float(b"+inf"), Some(f64::INFINITY));
        for text in ["", " 1", "1 ", "0x1F", "1_000", "1p3", "True", "12abc", "e5", "-"] {
            assert_eq!(parse_float(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn seconds_are_written_exactly() {
        for nanos in [0, 1, -1, 1_500_000_000, -1_000_000_001, 1_795_218_828_287_074_801, i64::MAX, i64::MIN]
        {
            let mut text = String::new();
            push_seconds(&mut text, Timestamp::from_nanos(nanos));
            assert_eq!(parse_seconds(text.as_bytes()), Some(Timestamp::from_nanos(nanos)), "{text}");
        }
        let mut text = String::new();
        push_seconds(&mut text, Timestamp::from_millis(20_500));
        assert_eq!(text, "20.5");
    }

    #[track_caller]
    fn check_seconds(text: &str, nanos: Option<i64>) {
        assert_eq!(parse_seconds(text.as_bytes()).map(Timestamp::nanos), nanos, "{text}");
    }

    #[test]
    fn decimal_seconds_are_exact() {
        check_seconds("0", Some(0));
        check_seconds("000", Some(0));
        check_seconds("1795218828.287074801", Some(1_795_218_828_287_074_801));
        check_seconds("-1.1", Some(-1_100_000_000));
        check_seconds("1.5e3", Some(1_500_000_000_000));
        check_seconds("15e-1", Some(1_500_000_000));
        check_seconds("0.0000000019", Some(1));
        check_seconds("1e-99999999999999999999", Some(0));
        check_seconds("0e99999999999999999999", Some(0));
        check_seconds("1e99999999999999999999", Some(i64::MAX));
        check_seconds("-12345678901234567890.1234567890", Some(i64::MIN));
        for text in ["", "-", ".", "1.1.1", "NaN", "Inf", "0x1p-3", "1_2", "1e", "1e+", "1z", "+-1", " 1"] {
            check_seconds(text, None);
        }
    }
}
