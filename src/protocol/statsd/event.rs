//! Events and service checks of DogStatsD.

use std::borrow::Cow;

use super::Refusal;
use super::tags::Tags;
use crate::model::Timestamp;
use crate::protocol::number::parse_int;

/// An event: `_e{title size,text size}:title|text|d:time|h:host|k:key|p:priority|s:source|t:type|#tags`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event<'a> {
    /// The title.
    pub title: Cow<'a, str>,
    /// The text; `\n` in it was written as two characters.
    pub text: Cow<'a, str>,
    /// When it happened; without it, the time of arrival.
    pub timestamp: Option<Timestamp>,
    /// The host.
    pub hostname: Option<&'a str>,
    /// Events with one key belong together.
    pub aggregation_key: Option<&'a str>,
    /// `normal` or `low`, unless the client says something of its own.
    pub priority: Option<&'a str>,
    /// The kind of program that sent it.
    pub source: Option<&'a str>,
    /// `error`, `warning`, `info` or `success`, unless the client says something of its own.
    pub alert_type: Option<&'a str>,
    /// Its tags.
    pub tags: Tags<'a>,
    /// The container that sent it.
    pub container_id: Option<&'a str>,
}

/// How a service fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ServiceStatus {
    /// Well.
    Ok = 0,
    /// Not well.
    Warning = 1,
    /// Not at all.
    Critical = 2,
    /// Nobody knows.
    Unknown = 3,
}

impl ServiceStatus {
    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            ServiceStatus::Ok => "ok",
            ServiceStatus::Warning => "warning",
            ServiceStatus::Critical => "critical",
            ServiceStatus::Unknown => "unknown",
        }
    }
}

/// A service check: `_sc|name|status|d:time|h:host|#tags|m:message`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceCheck<'a> {
    /// The name of the check.
    pub name: &'a str,
    /// What it found.
    pub status: ServiceStatus,
    /// When; without it, the time of arrival.
    pub timestamp: Option<Timestamp>,
    /// The host.
    pub hostname: Option<&'a str>,
    /// Its tags.
    pub tags: Tags<'a>,
    /// What it says; `\n` and `m\:` in it were escaped.
    pub message: Option<Cow<'a, str>>,
    /// The container that sent it.
    pub container_id: Option<&'a str>,
}

/// Parses an event from behind its `_e{`.
pub(super) fn parse_event(line: &str) -> Result<Event<'_>, Refusal> {
    let (sizes, rest) = line.split_once("}:").ok_or(Refusal::BadEvent)?;
    let (title_size, text_size) = sizes.split_once(',').ok_or(Refusal::BadEvent)?;
    let title_size = title_size.parse().map_err(|_| Refusal::BadEvent)?;
    let text_size = text_size.parse().map_err(|_| Refusal::BadEvent)?;
    // Sizes are bytes; datadogpy 0.39.0 counts characters.
    let (title, text, fields) = split_event(rest, title_size, text_size, byte_end)
        .or_else(|| split_event(rest, title_size, text_size, char_end))
        .ok_or(Refusal::BadEvent)?;
    if title.is_empty() {
        return Err(Refusal::BadEvent);
    }
    let mut event = Event { title: unescape(title), text: unescape(text), ..Event::default() };
    for field in fields.split('|') {
        read_event_field(&mut event, field)?;
    }
    Ok(event)
}

/// Title, text and the fields behind them, where the sizes fit the separators.
fn split_event(
    rest: &str,
    title_size: usize,
    text_size: usize,
    end_of: fn(&str, usize) -> Option<usize>,
) -> Option<(&str, &str, &str)> {
    let (title, rest) = rest.split_at_checked(end_of(rest, title_size)?)?;
    let rest = rest.strip_prefix('|')?;
    let (text, rest) = rest.split_at_checked(end_of(rest, text_size)?)?;
    match rest.strip_prefix('|') {
        Some(fields) => Some((title, text, fields)),
        None => rest.is_empty().then_some((title, text, "")),
    }
}

fn byte_end(_: &str, size: usize) -> Option<usize> {
    Some(size)
}

fn char_end(text: &str, count: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(count)
}

fn read_event_field<'a>(event: &mut Event<'a>, field: &'a str) -> Result<(), Refusal> {
    if let Some(tags) = field.strip_prefix('#') {
        event.tags = Tags::dogstatsd(tags, false);
        return Ok(());
    }
    let Some((key, value)) = field.split_once(':') else { return Ok(()) };
    match key {
        "d" => event.timestamp = Some(parse_time(value)?),
        "h" => event.hostname = Some(value),
        "k" => event.aggregation_key = Some(value),
        "p" => event.priority = Some(value),
        "s" => event.source = Some(value),
        "t" => event.alert_type = Some(value),
        "c" => event.container_id = Some(value),
        _ => {}
    }
    Ok(())
}

/// Parses a service check from behind its `_sc|`.
pub(super) fn parse_service_check(line: &str) -> Result<ServiceCheck<'_>, Refusal> {
    let (name, rest) = line.split_once('|').ok_or(Refusal::BadServiceCheck)?;
    let (status, mut rest) = rest.split_once('|').unwrap_or((rest, ""));
    let status = match status {
        "0" => ServiceStatus::Ok,
        "1" => ServiceStatus::Warning,
        "2" => ServiceStatus::Critical,
        "3" => ServiceStatus::Unknown,
        _ => return Err(Refusal::BadServiceCheck),
    };
    if name.is_empty() {
        return Err(Refusal::BadServiceCheck);
    }
    let mut check = ServiceCheck {
        name,
        status,
        timestamp: None,
        hostname: None,
        tags: Tags::default(),
        message: None,
        container_id: None,
    };
    while !rest.is_empty() {
        // The message is the last field, and whatever it holds is its own.
        if let Some(message) = rest.strip_prefix("m:") {
            check.message = Some(unescape_message(message));
            break;
        }
        let (field, behind) = rest.split_once('|').unwrap_or((rest, ""));
        read_check_field(&mut check, field)?;
        rest = behind;
    }
    Ok(check)
}

fn read_check_field<'a>(check: &mut ServiceCheck<'a>, field: &'a str) -> Result<(), Refusal> {
    if let Some(tags) = field.strip_prefix('#') {
        check.tags = Tags::dogstatsd(tags, false);
        return Ok(());
    }
    match field.split_once(':') {
        Some(("d", time)) => check.timestamp = Some(parse_time(time)?),
        Some(("h", host)) => check.hostname = Some(host),
        Some(("c", id)) => check.container_id = Some(id),
        _ => {}
    }
    Ok(())
}

fn parse_time(text: &str) -> Result<Timestamp, Refusal> {
    let seconds = parse_int(text.as_bytes()).filter(|seconds| *seconds > 0);
    seconds.map(Timestamp::from_secs).ok_or(Refusal::BadTimestamp)
}

/// A line feed for each `\n` written as two characters.
fn unescape(text: &str) -> Cow<'_, str> {
    if text.contains("\\n") { Cow::Owned(text.replace("\\n", "\n")) } else { Cow::Borrowed(text) }
}

fn unescape_message(text: &str) -> Cow<'_, str> {
    if text.contains("m\\:") { Cow::Owned(unescape(text).replace("m\\:", "m:")) } else { unescape(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_sizes_in_bytes_or_in_characters() {
        for sizes in ["8,20", "7,19"] {
            let line = format!(
                "{sizes}}}:Title é|Text line1\\nline2 é|d:1700000000|h:hh|k:k|p:low|s:st|t:error|#a:b,const:1"
            );
            let event = parse_event(&line).unwrap();
            assert_eq!(event.title, "Title é");
            assert_eq!(event.text, "Text line1\nline2 é");
            assert_eq!(event.timestamp, Some(Timestamp::from_secs(1_700_000_000)));
            assert_eq!(event.hostname, Some("hh"));
            assert_eq!(event.aggregation_key, Some("k"));
            assert_eq!(
                (event.priority, event.source, event.alert_type),
                (Some("low"), Some("st"), Some("error"))
            );
            assert_eq!(event.tags.pairs().collect::<Vec<_>>(), [("a", "b"), ("const", "1")]);
        }
    }

    #[test]
    fn text_of_an_event_may_hold_bars() {
        let event = parse_event("1,5}:t|a|b|c|z:skipped|c:ci-1").unwrap();
        assert_eq!((event.text.as_ref(), event.container_id), ("a|b|c", Some("ci-1")));
        assert_eq!(parse_event("1,0}:t|").unwrap().text, "");
    }

    #[test]
    fn events_whose_sizes_do_not_fit_are_refused() {
        for line in
            ["", "1,1", "1}:a|b", "x,1}:a|b", "-1,1}:a|b", "2,1}:a|b", "1,2}:a|b", "1,1}:a|bc", "0,1}:|b"]
        {
            assert_eq!(parse_event(line), Err(Refusal::BadEvent), "{line}");
        }
        let line = format!("{0},{0}}}:a|b", usize::MAX);
        assert_eq!(parse_event(&line), Err(Refusal::BadEvent));
        assert_eq!(parse_event("1,1}:a|b|d:x"), Err(Refusal::BadTimestamp));
    }

    #[test]
    fn a_service_check_ends_with_its_message() {
        let check =
            parse_service_check("svc.check|2|d:1700000000|h:hh|#a:b,const:1|m:m\\: bad\\nline|#not:a tag")
                .unwrap();
        assert_eq!((check.name, check.status), ("svc.check", ServiceStatus::Critical));
        assert_eq!(check.hostname, Some("hh"));
        assert_eq!(check.tags.pairs().count(), 2);
        assert_eq!(check.message.as_deref(), Some("m: bad\nline|#not:a tag"));
        assert_eq!(parse_service_check("a|0").unwrap().status, ServiceStatus::Ok);
    }

    #[test]
    fn service_checks_without_name_or_status_are_refused() {
        for line in ["", "a", "a|", "a|4", "|0", "a|ok"] {
            assert_eq!(parse_service_check(line), Err(Refusal::BadServiceCheck), "{line}");
        }
        assert_eq!(parse_service_check("a|0|d:"), Err(Refusal::BadTimestamp));
    }
}
