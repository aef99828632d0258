//! Answers as JSON, in the form of the HTTP API of Prometheus. Used by the server and the tool.
//!
//! Written straight into a string: an answer has up to millions of points, and a tree of values for each would cost many
//! times their size.

use std::fmt::Write as _;

use super::format::value_text;
use super::query::{Point, Value};
use crate::model::Timestamp;
use crate::promql::Labels;

/// Appends `"resultType":...,"result":...`, the members of an object that stand for `value`.
pub fn push_value(out: &mut String, value: &Value) {
    let kind = match value {
        Value::Scalar(_) => "scalar",
        Value::String(..) => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    };
    let _ = write!(out, "\"resultType\":\"{kind}\",\"result\":");
    match value {
        Value::Scalar(point) => push_point(out, *point),
        Value::String(time, text) => {
            out.push('[');
            push_time(out, *time);
            out.push(',');
            push_text(out, text);
            out.push(']');
        }
        Value::Vector(samples) => push_list(out, '[', ']', samples, |out, sample| {
            out.push_str("{\"metric\":");
            push_labels(out, &sample.labels);
            out.push_str(",\"value\":");
            push_point(out, Point { time: sample.time, value: sample.value });
            out.push('}');
        }),
        Value::Matrix(matrix) => push_list(out, '[', ']', matrix, |out, series| {
            out.push_str("{\"metric\":");
            push_labels(out, &series.labels);
            out.push_str(",\"values\":");
            push_list(out, '[', ']', &series.points, |out, point| push_point(out, *point));
            out.push('}');
        }),
    }
}

/// Appends labels as an object, the name as `__name__`.
pub fn push_labels(out: &mut String, labels: &Labels) {
    push_list(out, '{', '}', labels.pairs(), |out, (key, value)| {
        push_text(out, key);
        out.push(':');
        push_text(out, value);
    });
}

/// Appends `[seconds,"value"]`.
pub fn push_point(out: &mut String, point: Point) {
    out.push('[');
    push_time(out, point.time);
    out.push_str(",\"");
    // Integers, which most samples are, need not go through the search for the shortest fraction.
    let whole = point.value as i64;
    if whole.unsigned_abs() < 1 << 53
        && whole as f64 == point.value
        && (whole != 0 || point.value.is_sign_positive())
    {
        if whole < 0 {
            out.push('-');
        }
        push_whole(out, whole.unsigned_abs());
    } else if (1e-6..1e21).contains(&point.value.abs()) {
        let _ = write!(out, "{}", point.value);
    } else {
        out.push_str(&value_text(point.value));
    }
    out.push_str("\"]");
}

/// The digits of a number. Half of an answer's bytes are times, and the formatter of the library takes long for them.
fn push_whole(out: &mut String, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// Seconds, with three digits behind the point where they are not whole ones.
fn push_time(out: &mut String, time: Timestamp) {
    let millis = time.millis();
    if millis < 0 {
        out.push('-');
    }
    let millis = millis.unsigned_abs();
    push_whole(out, millis / 1000);
    if !millis.is_multiple_of(1000) {
        let _ = write!(out, ".{:03}", millis % 1000);
    }
}

fn push_text(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        let _ = write!(out, "{}", serde_json::Value::from(text));
    }
}

fn push_list<T>(
    out: &mut String,
    open: char,
    close: char,
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut String, T),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::{RangeSeries, Sample};

    #[track_caller]
    fn check(value: &Value, expected: &str) {
        let mut out = String::new();
        push_value(&mut out, value);
        assert_eq!(out, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&format!("{{{out}}}")).is_ok());
    }

    fn point(millis: i64, value: f64) -> Point {
        Point { time: Timestamp::from_millis(millis), value }
    }

    #[test]
    fn every_kind_has_its_form() {
        let time = Timestamp::from_millis(1_500);
        check(&Value::Scalar(point(4_000, 2.0)), r#""resultType":"scalar","result":[4,"2"]"#);
        check(&Value::String(time, "a\"\n".into()), r#""resultType":"string","result":[1.500,"a\"\n"]"#);
        let labels = Labels::new("up", [("a", "\u{1}"), ("é", "ü")]);
        let sample = Sample { labels: labels.clone(), time, value: 0.5 };
        check(
            &Value::Vector(vec![sample]),
            r#""resultType":"vector","result":[{"metric":{"__name__":"up","a":"\u0001","é":"ü"},"value":[1.500,"0.5"]}]"#,
        );
        let points = vec![point(-1_001, -0.0), point(-1, f64::NAN), point(0, 1e21), point(7, -3.0)];
        check(
            &Value::Matrix(vec![RangeSeries { labels: Labels::empty(), points }]),
            r#""resultType":"matrix","result":[{"metric":{},"values":[[-1.001,"-0"],[-0.001,"NaN"],[0,"1e+21"],[0.007,"-3"]]}]"#,
        );
        check(&Value::Vector(Vec::new()), r#""resultType":"vector","result":[]"#);
    }

    #[test]
    fn values_are_those_of_value_text() {
        for value in
            [9007199254740991.0, -9007199254740993.0, 9.3e18, -9.3e18, 1e300, f64::INFINITY, 0.1, 5e-324]
        {
            let mut out = String::new();
            push_point(&mut out, point(0, value));
            assert_eq!(out, format!("[0,\"{}\"]", value_text(value)));
        }
    }
}
