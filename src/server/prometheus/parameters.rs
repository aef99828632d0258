//! Parameters of a request: pairs of the form and of the URL, read as times, durations, numbers and selectors.

use std::time::Duration;

use super::Refusal;
use crate::error::{Error, Result};
use crate::model::{Selector, TimeRange, Timestamp};
use crate::promql;
use crate::protocol::number::parse_seconds;
use crate::server::pushgateway::percent_decode;

/// What clients of Prometheus send for "from the first time there is" and "to the last".
const TIMES: [(&str, Timestamp); 2] =
    [("-292273086-05-16T16:47:06Z", Timestamp::MIN), ("292277025-08-18T07:12:54.999999999Z", Timestamp::MAX)];

/// Decoded pairs, those of the form first.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query string of a URL and a form.
    pub(super) fn new(query: &str, form: &[u8]) -> std::result::Result<Self, Refusal> {
        pairs(query, form).map(Parameters).map_err(|error| Refusal::bad_data(error.to_string()))
    }

    /// The first value of `key`; empty when it is absent.
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(own, _)| own == key).map_or("", |(_, value)| value)
    }

    /// All values of `key`.
    pub(super) fn all<'p>(&'p self, key: &'p str) -> impl Iterator<Item = &'p str> {
        self.0.iter().filter(move |(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// The time `key`, if it is given.
    pub(super) fn time(&self, key: &str) -> std::result::Result<Option<Timestamp>, Refusal> {
        let text = self.get(key);
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = || Refusal::parameter(key, format!("cannot parse {text:?} to a valid timestamp"));
        time(text).map(Some).ok_or_else(wrong)
    }

    /// The time `key`, without which there is no answer.
    pub(super) fn needed_time(&self, key: &str) -> std::result::Result<Timestamp, Refusal> {
        let wrong = || Refusal::parameter(key, "cannot parse \"\" to a valid timestamp");
        self.time(key)?.ok_or_else(wrong)
    }

    /// The duration `key` in nanoseconds, as it stands: zero or below as well.
    pub(super) fn nanos(&self, key: &str) -> std::result::Result<i64, Refusal> {
        let text = self.get(key);
        duration(text)
            .ok_or_else(|| Refusal::parameter(key, format!("cannot parse {text:?} to a valid duration")))
    }

    /// The duration `key` above zero, if it is given.
    pub(super) fn duration(&self, key: &str) -> std::result::Result<Option<Duration>, Refusal> {
        if self.get(key).is_empty() {
            return Ok(None);
        }
        let nanos = u64::try_from(self.nanos(key)?).ok().filter(|nanos| *nanos > 0);
        nanos
            .map(|nanos| Some(Duration::from_nanos(nanos)))
            .ok_or_else(|| Refusal::parameter(key, "must be above zero"))
    }

    /// Most entries of an answer; no end without the parameter, or with 0.
    pub(super) fn limit(&self) -> std::result::Result<usize, Refusal> {
        let text = self.get("limit");
        match text.parse::<i64>() {
            _ if text.is_empty() => Ok(usize::MAX),
            Ok(0) => Ok(usize::MAX),
            Ok(number) => {
                usize::try_from(number).map_err(|_| Refusal::parameter("limit", "limit must be non-negative"))
            }
            Err(_) => Err(Refusal::parameter("limit", format!("cannot parse {text:?} to a number"))),
        }
    }

    /// The times from `start=` to `end=`, which is inclusive; open where they are absent.
    pub(super) fn range(&self) -> std::result::Result<TimeRange, Refusal> {
        let start = self.time("start")?.unwrap_or(Timestamp::MIN);
        let end = self.time("end")?.unwrap_or(Timestamp::MAX);
        if end < start {
            return Err(Refusal::parameter("end", "end timestamp must not be before start time"));
        }
        Ok(TimeRange { start, end: end.saturating_add(1) })
    }

    /// The selectors of `match[]`.
    pub(super) fn selectors(&self) -> std::result::Result<Vec<Selector>, Refusal> {
        let parse = |text| {
            let selector =
                promql::parse_selector(text).map_err(|error| Refusal::parameter("match[]", error))?;
            if selector.matchers.iter().all(|matcher| matcher.condition.matches_absent()) {
                return Err(Refusal::parameter(
                    "match[]",
                    "match[] must contain at least one non-empty matcher",
                ));
            }
            Ok(selector)
        };
        self.all("match[]").map(parse).collect()
    }
}

fn pairs(query: &str, form: &[u8]) -> Result<Vec<(String, String)>> {
    let form = std::str::from_utf8(form).map_err(|_| Error::invalid_input("the form is not UTF-8"))?;
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    let fields = form.split('&').chain(query.split('&')).map(str::trim).filter(|field| !field.is_empty());
    fields
        .map(|field| {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect()
}

/// A time as seconds since the epoch, with a fraction or without, or as RFC 3339 has it.
fn time(text: &str) -> Option<Timestamp> {
    if let Some((_, time)) = TIMES.iter().find(|(end, _)| *end == text) {
        return Some(*time);
    }
    if let Some(time) = parse_seconds(text.as_bytes()) {
        return Some(time.clamp(Timestamp::MIN, Timestamp::MAX));
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp::from_nanos)
}

/// Seconds, or a duration of PromQL such as `1h30m`, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    if let Some(seconds) = parse_seconds(text.as_bytes()) {
        return Some(seconds.nanos());
    }
    if text.is_empty() {
        return None;
    }
    let mut nanos = 0i64;
    let mut rest = text;
    let mut last = i64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let millis: i64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        // Units come in order, each once.
        if millis >= last {
            return None;
        }
        last = millis;
        nanos = nanos.checked_add(number.parse::<i64>().ok()?.checked_mul(millis * 1_000_000)?)?;
        rest = after;
    }
    Some(nanos)
}

/// The label that a path names: one with characters that no path carries comes as `U__`, with `_` doubled and others as
/// `_hex_` (Prometheus, "UTF-8 in label names of the API"). What is no such form is taken as it stands.
pub(super) fn unescape_label(name: &str) -> String {
    name.strip_prefix("U__").and_then(unescape).unwrap_or_else(|| name.to_owned())
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find('_')?;
        if end == 0 {
            out.push('_');
        } else {
            let digits = rest.get(..end).filter(|digits| digits.len() <= 6 && !digits.starts_with('+'))?;
            out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_come_before_the_url() {
        let parameters =
            Parameters::new("query=b&time=1&x=a%20b+c", b"query=a%2B1&match[]=x&match%5B%5D=y").unwrap();
        assert_eq!(parameters.get("query"), "a+1");
        assert_eq!(parameters.get("x"), "a b c");
        assert_eq!(parameters.all("match[]").collect::<Vec<_>>(), ["x", "y"]);
        assert!(Parameters::new("a=%zz", b"").is_err() && Parameters::new("", b"\xff").is_err());
    }

    #[test]
    fn times_are_read_as_prometheus_does() {
        let check = |text, nanos: Option<i64>| assert_eq!(time(text).map(Timestamp::nanos), nanos, "{text}");
        check("4", Some(4_000_000_000));
        check("1436946303.484", Some(1_436_946_303_484_000_000));
        check("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781_000_000));
        check("2015-07-01T20:10:51+02:00", Some(1_435_774_251_000_000_000));
        check("-292273086-05-16T16:47:06Z", Some(Timestamp::MIN.nanos()));
        check("292277025-08-18T07:12:54.999999999Z", Some(Timestamp::MAX.nanos()));
        check("yesterday", None);
        check("", None);
    }

    #[test]
    fn durations_are_read_as_prometheus_does() {
        let check = |text, nanos: Option<i64>| assert_eq!(duration(text), nanos, "{text}");
        check("1h30m", Some(5_400_000_000_000));
        check("0.5", Some(500_000_000));
        check("-1", Some(-1_000_000_000));
        check("1500ms", Some(1_500_000_000));
        for wrong in ["", "m", "1x", "30m1h", "1m1m", "1h ", "99999999999y"] {
            check(wrong, None);
        }
    }

    #[test]
    fn labels_are_unescaped() {
        let check = |text, expected| assert_eq!(unescape_label(text), expected);
        check("job", "job");
        check("U__http_2e_code", "http.code");
        check("U__a__b", "a_b");
        check("U__a_2e", "U__a_2e");
        check("U__a_zz_", "U__a_zz_");
    }
}
