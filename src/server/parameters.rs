//! Parameters of our own reading routes (`/api/query`, `/api/events`), wherever they come from: the URL, a form, or the
//! members of a JSON object. Each reader names the parameter that is wrong.

use std::time::Duration;

use axum::http::Uri;
use serde_json::Value;

use super::pushgateway::percent_decode;
use crate::error::{Error, Result};
use crate::model::{TimeRange, Timestamp};

/// Units of durations, in nanoseconds.
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

/// Names and values, in the order given.
#[derive(Debug)]
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
    /// Whether lists came as lists; otherwise they are joined by commas.
    has_lists: bool,
}

impl Parameters {
    /// Those of the URL, and those of `body`: a JSON object, or a form.
    ///
    /// # Errors
    /// `InvalidInput` for a body that is neither.
    pub(super) fn of(uri: &Uri, body: &[u8]) -> Result<Self> {
        let body = std::str::from_utf8(body).map_err(|_| Error::invalid_input("the body is not UTF-8"))?;
        let mut pairs = Vec::new();
        let has_lists = body.trim_start().starts_with(['{', '[']);
        if has_lists {
            read_json(body, &mut pairs)?;
        } else {
            read_form(body, &mut pairs)?;
        }
        read_form(uri.query().unwrap_or_default(), &mut pairs)?;
        Ok(Parameters { pairs, has_lists })
    }

    /// Refuses parameters that are not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<()> {
        match self.pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(Error::invalid_input(format!(
                "{key}: there is no such parameter; there are {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// All values of `key`.
    fn all(&self, key: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(own, _)| own == key).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of `key`; an empty one counts as none.
    pub(super) fn one(&self, key: &str) -> Result<Option<&str>> {
        match self.all(key).as_slice() {
            [] | [""] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Error::invalid_input(format!("{key}: given twice"))),
        }
    }

    /// The items of the list `key`; `None` when it is not given. Items of a URL or form are joined by commas, and commas
    /// within brackets belong to an item.
    pub(super) fn list(&self, key: &str) -> Option<Vec<String>> {
        let all = self.all(key);
        if all.is_empty() {
            return None;
        }
        let items = all.into_iter().flat_map(|value| if self.has_lists { vec![value] } else { split(value) });
        Some(items.map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    /// A word that is read by `read`.
    pub(super) fn parsed<T>(&self, key: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        self.one(key)?.map(|text| read(text).map_err(|error| error.context(key))).transpose()
    }

    /// A whole number from 1 to `max`.
    pub(super) fn count(&self, key: &str, max: usize) -> Result<Option<usize>> {
        self.parsed(key, |text| {
            let count = text.parse().ok().filter(|count| (1..=max).contains(count));
            count.ok_or_else(|| Error::invalid_input(format!("{text:?} is no whole number from 1 to {max}")))
        })
    }

    /// `true` or `false`; not given is `false`.
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        let read = |text: &str| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Error::invalid_input(format!("{text:?} is neither true nor false"))),
        };
        Ok(self.parsed(key, read)?.unwrap_or_default())
    }

    /// A time; see [`parse_time`].
    pub(super) fn time(&self, key: &str, now: Timestamp) -> Result<Option<Timestamp>> {
        self.parsed(key, |text| parse_time(text, now))
    }

    /// The half-open range from `from` to `to`; what is not given is open.
    pub(super) fn range(&self, now: Timestamp) -> Result<TimeRange> {
        let range = TimeRange {
            start: self.time("from", now)?.unwrap_or(Timestamp::MIN),
            end: self.time("to", now)?.unwrap_or(Timestamp::MAX),
        };
        if range.is_empty() {
            return Err(Error::invalid_input("to: it is not after from"));
        }
        Ok(range)
    }

    /// A duration; see [`parse_duration`].
    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>> {
        self.parsed(key, parse_duration)
    }
}

fn read_form(form: &str, pairs: &mut Vec<(String, String)>) -> Result<()> {
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    for field in form.trim().split('&').filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(())
}

fn read_json(body: &str, pairs: &mut Vec<(String, String)>) -> Result<()> {
    let wrong = |reason: String| Error::invalid_input(format!("body: {reason}"));
    let body: Value = serde_json::from_str(body).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(members) = body else { return Err(wrong("it is no JSON object".to_owned())) };
    for (key, value) in members {
        match value {
            Value::Null => {}
            Value::Array(items) if items.is_empty() => pairs.push((key, String::new())),
            Value::Array(items) => {
                for item in &items {
                    pairs.push((key.clone(), scalar(&key, item)?));
                }
            }
            value => {
                let text = scalar(&key, &value)?;
                pairs.push((key, text));
            }
        }
    }
    Ok(())
}

fn scalar(key: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => Err(Error::invalid_input(format!("{key}: neither text nor a number, nor a list of them"))),
    }
}

/// The parts of `list` between commas outside of brackets.
fn split(list: &str) -> Vec<&str> {
    let mut depth = 0i32;
    list.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    })
    .collect()
}

/// Reads a time: a whole number of nanoseconds since 1970, RFC 3339, `now`, or one so far from now, as in `-1h`,
/// `now-1h` or `+5m`.
pub(super) fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(nanos) = text.parse() {
        return Ok(Timestamp::from_nanos(nanos));
    }
    if text == "now" {
        return Ok(now);
    }
    let distance = text.strip_prefix("now").unwrap_or(text);
    let nanos = |text| parse_duration(text).map(|d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)).ok();
    if let Some(nanos) = distance.strip_prefix('-').and_then(nanos) {
        return Ok(now.saturating_sub(nanos));
    }
    if let Some(nanos) = distance.strip_prefix('+').and_then(nanos) {
        return Ok(now.saturating_add(nanos));
    }
    let time: Option<jiff::Timestamp> = text.parse().ok();
    let nanos = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    nanos.map(Timestamp::from_nanos).ok_or_else(|| {
        Error::invalid_input(format!(
            "{text:?} is no time; give nanoseconds since 1970, RFC 3339 with a zone, now, or -1h"
        ))
    })
}

/// Reads a duration of whole numbers with units, such as `90s`, `1h30m`, `250ms` or `1d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::invalid_input(format!(
            "{text:?} is no duration; give numbers with ns, us, ms, s, m, h, d or w, such as 1h30m"
        ))
    };
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let word = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(word);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    if total == 0 { Err(wrong()) } else { Ok(Duration::from_nanos(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, body: &str) -> Parameters {
        Parameters::of(&format!("/api/query?{query}").parse().unwrap(), body.as_bytes()).unwrap()
    }

    #[test]
    fn urls_forms_and_objects_say_the_same() {
        let url = read("selector=a%7Bb%3D%22c+d%22%7D&by=x,y&limit=5&agg=quantile(0.5),max", "");
        let form = read("", "selector=a%7Bb%3D%22c+d%22%7D&by=x&by=y&limit=5&agg=quantile(0.5)&agg=max");
        let json =
            r#"{"selector":"a{b=\"c d\"}","by":["x","y"],"limit":5,"agg":["quantile(0.5)","max"],"to":null}"#;
        for given in [url, form, read("", json)] {
            assert_eq!(given.one("selector").unwrap(), Some(r#"a{b="c d"}"#));
            assert_eq!(given.list("by").unwrap(), ["x", "y"]);
            assert_eq!(given.list("agg").unwrap(), ["quantile(0.5)", "max"]);
            assert_eq!(given.count("limit", 10).unwrap(), Some(5));
            assert_eq!((given.list("without"), given.one("to").unwrap()), (None, None));
        }
        assert_eq!(read("", r#"{"by":["a,b"]}"#).list("by").unwrap(), ["a,b"]);
        for none in [read("by=", ""), read("", r#"{"by":[]}"#)] {
            assert_eq!(none.list("by").unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn the_parameter_that_is_wrong_is_named() {
        #[track_caller]
        fn check<T: std::fmt::Debug>(read: Result<T>, part: &str) {
            let error = read.unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
        let now = Timestamp::from_secs(0);
        check(read("limit=0", "").count("limit", 10), "limit: ");
        check(read("limit=x", "").count("limit", 10), "limit: ");
        check(read("a=1&a=2", "").one("a"), "a: given twice");
        check(read("partial=yes", "").flag("partial"), "partial: ");
        check(read("from=soon", "").time("from", now), "from: ");
        check(read("from=5&to=5", "").range(now), "to: ");
        check(read("window=1y", "").duration("window"), "window: ");
        check(read("window=0s", "").duration("window"), "window: ");
        check(read("odd=1", "").only(&["a", "b"]), "odd: there is no such parameter; there are a, b");
        let of = |body: &str| Parameters::of(&"/".parse().unwrap(), body.as_bytes());
        check(of("[1]"), "body: ");
        check(of("{"), "body: ");
        check(of(r#"{"a":{}}"#), "a: ");
        check(of("a=%zz"), "");
    }

    #[test]
    fn times_are_exact() {
        let now = Timestamp::from_secs(10_000);
        let check = |text, nanos| {
            assert_eq!(parse_time(text, now).ok().map(Timestamp::nanos), nanos, "{text}");
        };
        check("1700000000123456789", Some(1_700_000_000_123_456_789));
        check("-5", Some(-5));
        check("2026-11-20T23:59:20.043653833Z", Some(1_795_219_160_043_653_833));
        check("1970-01-01T01:00:00+01:00", Some(0));
        check("now", Some(10_000_000_000_000));
        check("-1h", Some(6_400_000_000_000));
        check("now-1h30m", Some(4_600_000_000_000));
        check("+1s", Some(10_001_000_000_000));
        for wrong in ["", "soon", "-", "1h", "1.5", "9223372036854775808"] {
            check(wrong, None);
        }
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        for wrong in ["", "1", "m", "1x", "1m-1s", "99999999999w"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
