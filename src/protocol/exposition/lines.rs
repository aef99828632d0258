//! A page line by line, where each bad line costs only itself: for imports.

use std::borrow::Cow;

use super::lex::{Line, Rules, normalize_bounds, read_line};
use super::{Format, ParseError, Sample};
use crate::model::MetricKind;

/// What a line of a page says.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A sample.
    Sample(Sample<'a>),
    /// The help of the metric of that name.
    Help(Cow<'a, str>, Cow<'a, str>),
    /// The kind of the metric of that name; a word that is not known is [`MetricKind::Unknown`].
    Kind(Cow<'a, str>, MetricKind),
    /// The unit of the metric of that name.
    Unit(Cow<'a, str>, Cow<'a, str>),
}

/// Iterates over a page of either format. It needs no memory for what it passed, so the page may be a part
/// of a longer one, cut behind a line feed.
///
/// Beyond the letter it takes carriage returns, blanks at the end of a line, unknown escapes, a last line
/// without a line feed, and pages without `# EOF`; it does not compare lines with each other.
///
/// ```
/// use icecore::protocol::exposition::{Entry, Format, Lines};
/// let page = b"up{job=\"a\"} 1 1700000000000\nup{job=b} 1\nup{job=\"c\"} 0\n";
/// let entries: Vec<_> = Lines::new(page, Format::Text).collect();
/// assert!(matches!(&entries[0], Ok(Entry::Sample(sample)) if sample.value == 1.0));
/// assert_eq!(entries[1].as_ref().unwrap_err().line, 2);
/// assert_eq!(entries.len(), 3);
/// ```
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    rules: Rules,
    line: usize,
}

impl<'a> Lines<'a> {
    /// The lines of `page`.
    pub fn new(page: &'a [u8], format: Format) -> Self {
        Lines::from_line(page, format, 1)
    }

    /// The lines of a part of a page that begins with line `first`, from 1.
    pub fn from_line(part: &'a [u8], format: Format, first: usize) -> Self {
        Lines { rest: part, rules: Rules { format, lenient: true }, line: first - 1 }
    }

    /// The number of the last line that was read, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Entry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (line, rest) = split_line(self.rest);
            self.rest = rest;
            self.line += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let entry = match read_line(line, self.rules) {
                Ok(Line::Blank | Line::Eof) => continue,
                Ok(Line::Sample(mut sample)) => {
                    normalize_bounds(&mut sample);
                    Ok(Entry::Sample(sample))
                }
                Ok(Line::Help(name, help)) => Ok(Entry::Help(name, help)),
                Ok(Line::Type(name, kind)) => Ok(Entry::Kind(
                    name,
                    MetricKind::from_name(&kind.to_ascii_lowercase()).unwrap_or_default(),
                )),
                Ok(Line::Unit(name, unit)) => Ok(Entry::Unit(name, Cow::Borrowed(unit))),
                Err(reason) => Err(ParseError { line: self.line, reason }),
            };
            return Some(entry);
        }
        None
    }
}

/// The first line without its line feed, and what follows it.
pub(super) fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|b| *b == b'\n') {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn bad_lines_are_named_and_good_ones_kept() {
        let page = b"# TYPE a counter\r\na 1\r\nb{ 2\n\n# HELP a text\na{x=\"\xff\"} 1\n# UNIT a s\n# TYPE b Meh\nc 3 4";
        let mut lines = Lines::new(page, Format::Text);
        let entries: Vec<_> = lines.by_ref().collect();
        assert_eq!(entries[0], Ok(Entry::Kind("a".into(), MetricKind::Counter)));
        assert!(matches!(&entries[1], Ok(Entry::Sample(sample)) if sample.name == "a"));
        assert_eq!(entries[2].as_ref().unwrap_err().line, 3);
        assert_eq!(entries[3], Ok(Entry::Help("a".into(), "text".into())));
        let shown = entries[4].as_ref().unwrap_err().to_string();
        assert_eq!(shown, "text format parsing error in line 6: invalid UTF-8");
        assert_eq!(entries[5], Ok(Entry::Unit("a".into(), "s".into())));
        assert_eq!(entries[6], Ok(Entry::Kind("b".into(), MetricKind::Unknown)));
        assert!(
            matches!(&entries[7], Ok(Entry::Sample(s)) if s.timestamp == Some(Timestamp::from_millis(4)))
        );
        assert_eq!((entries.len(), lines.line()), (8, 9));
    }

    #[test]
    fn openmetrics_has_its_own_times() {
        let entries: Vec<_> = Lines::from_line(b"a 1 1.5\n# EOF\n\nb x\n", Format::OpenMetrics, 10).collect();
        assert!(
            matches!(&entries[0], Ok(Entry::Sample(s)) if s.timestamp == Some(Timestamp::from_millis(1500)))
        );
        assert_eq!(entries[1].as_ref().unwrap_err().line, 13);
    }
}
