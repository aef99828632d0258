//! StatsD and DogStatsD (Datadog's protocol, versions 1.0 to 1.6): datagrams to messages. It parses and
//! does not aggregate. Called by the UDP listener of the server; what it returns borrows the datagram.
//!
//! A datagram is lines; each line is parsed alone, so that a bad one costs only itself. Its reason is a
//! [`Refusal`], which the caller counts.

mod event;
mod metric;
mod tags;

pub use event::{Event, ServiceCheck, ServiceStatus};
pub use metric::{Metric, MetricType, Reading};
pub use tags::{TagStyles, Tags};

/// Which programs' reading of a line is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grammar {
    /// Datadog's: values may be packed for every type but sets, fields of a kind that is not known are
    /// skipped, a sample rate that is no number in (0, 1] refuses the line.
    #[default]
    DogStatsd,
    /// That of statsd_exporter, to the letter of the line table in its tests: see
    /// `docs/decisions/0030-statsd-grammars.md`.
    StatsdExporter,
}

/// How lines are read. The default is DogStatsD with its own tags only, so that a name is kept verbatim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose grammar.
    pub grammar: Grammar,
    /// Where tags are looked for.
    pub styles: TagStyles,
}

impl Options {
    /// What a statsd_exporter with its default flags reads.
    pub fn statsd_exporter() -> Self {
        Options { grammar: Grammar::StatsdExporter, styles: TagStyles::ALL }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// `name:value|type...`
    Metric(Metric<'a>),
    /// `_e{title size,text size}:title|text...`
    Event(Event<'a>),
    /// `_sc|name|status...`
    ServiceCheck(ServiceCheck<'a>),
}

/// Why a line was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Its bytes are not UTF-8.
    InvalidUtf8,
    /// Nothing stands before the first colon.
    MissingName,
    /// There is no colon, so no value.
    MissingValue,
    /// There is no type behind the value.
    MissingType,
    /// The type is none of `c g ms h d s`.
    UnknownType,
    /// The value, or one of several, is not a number.
    BadValue,
    /// Several values where the grammar or the type takes one.
    PackedValue,
    /// The sample rate is not a number above 0 and up to 1.
    BadSampleRate,
    /// The timestamp is not a positive whole number of seconds.
    BadTimestamp,
    /// Tags in the name and behind the value at once.
    MixedTagStyles,
    /// A field without content, or of a kind that the grammar does not take.
    BadField,
    /// An event whose sizes do not fit its text, or without a title.
    BadEvent,
    /// A service check without a name or with a status other than 0 to 3.
    BadServiceCheck,
}

impl Refusal {
    /// Every reason, in the order of their numbers (`reason as usize`).
    pub const ALL: [Refusal; 13] = [
        Refusal::InvalidUtf8,
        Refusal::MissingName,
        Refusal::MissingValue,
        Refusal::MissingType,
        Refusal::UnknownType,
        Refusal::BadValue,
        Refusal::PackedValue,
        Refusal::BadSampleRate,
        Refusal::BadTimestamp,
        Refusal::MixedTagStyles,
        Refusal::BadField,
        Refusal::BadEvent,
        Refusal::BadServiceCheck,
    ];

    /// Its name in counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::InvalidUtf8 => "invalid_utf8",
            Refusal::MissingName => "missing_name",
            Refusal::MissingValue => "missing_value",
            Refusal::MissingType => "missing_type",
            Refusal::UnknownType => "unknown_type",
            Refusal::BadValue => "bad_value",
            Refusal::PackedValue => "packed_value",
            Refusal::BadSampleRate => "bad_sample_rate",
            Refusal::BadTimestamp => "bad_timestamp",
            Refusal::MixedTagStyles => "mixed_tag_styles",
            Refusal::BadField => "bad_field",
            Refusal::BadEvent => "bad_event",
            Refusal::BadServiceCheck => "bad_service_check",
        }
    }
}

/// The messages of a datagram, line by line. Empty lines are skipped, and a carriage return before the
/// end of a line is not part of it.
///
/// ```
/// use icecore::protocol::statsd::{Message, Options, parse_datagram};
/// let options = Options::default();
/// let messages: Vec<_> = parse_datagram(b"hits:1|c|#host:a\nbroken\ntemp:-4.5|g\n", &options).collect();
/// assert_eq!(messages.len(), 3);
/// assert!(matches!(&messages[0], Ok(Message::Metric(m)) if m.name == "hits"));
/// assert!(messages[1].is_err());
/// ```
pub fn parse_datagram<'a>(
    datagram: &'a [u8],
    options: &Options,
) -> impl Iterator<Item = Result<Message<'a>, Refusal>> {
    let options = *options;
    lines(datagram).map(move |line| parse_line(line, &options))
}

/// The lines of a datagram that are not empty, without their line ends.
fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    datagram
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|l| !l.is_empty())
}

/// One line, without its line end.
///
/// # Errors
/// The [`Refusal`] that applies first.
pub fn parse_line<'a>(line: &'a [u8], options: &Options) -> Result<Message<'a>, Refusal> {
    let line = std::str::from_utf8(line).map_err(|_| Refusal::InvalidUtf8)?;
    if options.grammar == Grammar::DogStatsd {
        if let Some(event) = line.strip_prefix("_e{") {
            return event::parse_event(event).map(Message::Event);
        }
        if let Some(check) = line.strip_prefix("_sc|") {
            return event::parse_service_check(check).map(Message::ServiceCheck);
        }
    }
    metric::parse_metric(line, options).map(Message::Metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_line_costs_only_itself() {
        let datagram = b"a:1|c\r\n\n\xff:1|c\nb:True|g\nb:nan|g\n:1|c\nx\nc:1|z\nd:1\r\ne:2|d";
        let seen: Vec<_> = parse_datagram(datagram, &Options::default())
            .map(|m| match m {
                Ok(Message::Metric(metric)) => metric.name.into_owned(),
                Ok(other) => panic!("{other:?}"),
                Err(refusal) => refusal.name().to_owned(),
            })
            .collect();
        let expected =
            ["a", "invalid_utf8", "bad_value", "b", "missing_name", "missing_value", "unknown_type"];
        assert_eq!(seen[..7], expected);
        assert_eq!(seen[7..], ["missing_type", "e"]);
    }

    #[test]
    fn reasons_are_numbered_in_order() {
        for (number, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }

    #[test]
    fn an_event_is_an_ordinary_name_to_statsd_exporter() {
        assert!(parse_line(b"_sc|a|0", &Options::statsd_exporter()).is_err());
        assert!(matches!(parse_line(b"_sc|a|0", &Options::default()), Ok(Message::ServiceCheck(_))));
    }
}
