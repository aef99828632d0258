//! The text formats of Prometheus, 0.0.4 and OpenMetrics 1.0: families of samples, read and written.
//! Reading serves the push and import endpoints and `icecore import`; writing serves `GET /metrics` and
//! the registry of instruments.
//!
//! | function | takes | a bad line |
//! |---|---|---|
//! | `parse_text` | a page in 0.0.4, as strictly as a Pushgateway | refuses the page |
//! | `parse_openmetrics` | a page in OpenMetrics, with every rule of its specification | refuses the page |
//! | `Lines` | either, line by line | is an error item; the others stand |
//! | [`write_page`] | families | |
//!
//! The bounds of buckets and quantiles come out of every reader in one form (see
//! [`normalize_tag`](super::label::normalize_tag)); all else is verbatim.

#[cfg(any(feature = "server", feature = "cli"))]
mod check;
#[cfg(any(feature = "server", feature = "cli"))]
mod lex;
#[cfg(any(feature = "server", feature = "cli"))]
mod lines;
#[cfg(any(feature = "server", feature = "cli"))]
mod openmetrics;
#[cfg(any(feature = "server", feature = "cli"))]
mod text;
mod write;

#[cfg(any(feature = "server", feature = "cli"))]
pub use lines::{Entry, Lines};
#[cfg(any(feature = "server", feature = "cli"))]
pub use openmetrics::parse_openmetrics;
#[cfg(any(feature = "server", feature = "cli"))]
pub use text::parse_text;
pub use write::{Names, merge_families, write_page};

use std::borrow::Cow;

use crate::model::{Metadata, MetricKind, Timestamp};

/// A tag as a page has it: key and value, escapes resolved.
pub type Tag<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The samples that belong to one metric, and what is said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family<'a> {
    /// Its name. In OpenMetrics the samples of some kinds add a suffix to it.
    pub name: Cow<'a, str>,
    /// What its values mean.
    pub kind: MetricKind,
    /// The unit, or nothing.
    pub unit: Cow<'a, str>,
    /// The help, or nothing.
    pub help: Cow<'a, str>,
    /// The samples in the order of the page.
    pub samples: Vec<Sample<'a>>,
}

impl Family<'_> {
    /// Kind, unit and help, owned.
    pub fn metadata(&self) -> Metadata {
        Metadata { kind: self.kind, unit: self.unit.to_string(), help: self.help.to_string() }
    }
}

/// One sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample<'a> {
    /// The name of its series, suffix included.
    pub name: Cow<'a, str>,
    /// Tags in the order written, no key twice. An empty value is the same as no tag.
    pub tags: Vec<Tag<'a>>,
    /// The value.
    pub value: f64,
    /// The time, where the page gives one.
    pub timestamp: Option<Timestamp>,
    /// An exemplar, where the page gives one.
    pub exemplar: Option<Box<Exemplar<'a>>>,
}

impl Sample<'_> {
    /// The value of one tag, if it is there.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_ref())
    }
}

/// An observation that is an example of what a sample counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exemplar<'a> {
    /// Its tags, such as `trace_id`.
    pub tags: Vec<Tag<'a>>,
    /// The value observed.
    pub value: f64,
    /// When it was observed.
    pub timestamp: Option<Timestamp>,
}

/// Which of the two formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text format, version 0.0.4: times in milliseconds.
    #[default]
    Text,
    /// OpenMetrics 1.0: times in seconds, ends with `# EOF`.
    OpenMetrics,
}

impl Format {
    /// The format that a `Content-Type` names: OpenMetrics where it says so, text for everything else.
    pub fn from_content_type(content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    /// The format and names that an `Accept` header likes best.
    ///
    /// ```
    /// use icecore::protocol::exposition::{Format, Names};
    /// let accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.5";
    /// assert_eq!(Format::from_accept(accept), (Format::OpenMetrics, Names::Utf8));
    /// assert_eq!(Format::from_accept("*/*"), (Format::Text, Names::Underscores));
    /// ```
    pub fn from_accept(accept: &str) -> (Self, Names) {
        let mut best = (0.0, Format::Text, Names::Underscores);
        for wish in accept.split(',') {
            let mut parameters = wish.split(';').map(str::trim);
            let format = match parameters.next() {
                Some("application/openmetrics-text") => Format::OpenMetrics,
                Some("text/plain" | "text/*" | "*/*") => Format::Text,
                _ => continue,
            };
            let (mut weight, mut names) = (1.0, Names::Underscores);
            for parameter in parameters {
                match parameter.split_once('=') {
                    Some(("q", q)) => weight = q.parse().unwrap_or(0.0),
                    Some(("escaping", "allow-utf-8")) => names = Names::Utf8,
                    _ => {}
                }
            }
            if weight > best.0 {
                best = (weight, format, names);
            }
        }
        (best.1, best.2)
    }

    /// The `Content-Type` of a page in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What samples of a kind add to the name of their family in OpenMetrics.
fn suffixes(kind: MetricKind) -> &'static [&'static str] {
    match kind {
        MetricKind::Counter => &["_total", "_created"],
        MetricKind::Summary => &["", "_count", "_sum", "_created"],
        MetricKind::Histogram => &["_bucket", "_count", "_sum", "_created"],
        MetricKind::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricKind::Info => &["_info"],
        _ => &[""],
    }
}

/// Why a page or a line was refused, and in which line of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for ParseError {
    /// In the words of a Pushgateway.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "text format parsing error in line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_choose_the_format() {
        assert_eq!(Format::from_content_type(Format::OpenMetrics.content_type()), Format::OpenMetrics);
        assert_eq!(Format::from_content_type(Format::Text.content_type()), Format::Text);
        assert_eq!(Format::from_content_type(""), Format::Text);
        assert_eq!(Format::from_content_type("application/x-www-form-urlencoded"), Format::Text);
    }

    #[test]
    fn the_heaviest_wish_wins() {
        let check =
            |accept, format, names| assert_eq!(Format::from_accept(accept), (format, names), "{accept}");
        check("", Format::Text, Names::Underscores);
        check("text/plain;q=0.3, application/openmetrics-text;q=0.2", Format::Text, Names::Underscores);
        check(
            "application/vnd.google.protobuf;q=1,text/plain;escaping=allow-utf-8;q=0.5",
            Format::Text,
            Names::Utf8,
        );
        check("application/openmetrics-text; version=1.0.0", Format::OpenMetrics, Names::Underscores);
        check("application/openmetrics-text;q=nonsense", Format::Text, Names::Underscores);
    }
}
