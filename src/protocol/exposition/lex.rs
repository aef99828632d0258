//! One line of either text format: metadata or a sample. The two formats differ in their blanks (any or
//! exactly one space), their times (milliseconds or seconds), trailing commas and unknown escapes.

use std::borrow::Cow;

use super::{Exemplar, Format, Sample, Tag};
use crate::model::{NAME_KEY, Timestamp};
use crate::protocol::label::{is_label_name, is_metric_name, normalize_tag};
use crate::protocol::number::{parse_float, parse_int, parse_seconds};

/// Most characters in the tags of an exemplar, keys and values together (OpenMetrics 1.0, "Exemplars").
const EXEMPLAR_CHARS_MAX: usize = 128;

/// What a line holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// Nothing, or a comment.
    Blank,
    /// `# EOF` of OpenMetrics.
    Eof,
    /// `# HELP name text`
    Help(Cow<'a, str>, Cow<'a, str>),
    /// `# TYPE name kind`
    Type(Cow<'a, str>, &'a str),
    /// `# UNIT name unit`
    Unit(Cow<'a, str>, &'a str),
    /// A sample.
    Sample(Sample<'a>),
}

/// How lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) format: Format,
    /// Takes what is wrong by the letter but has one meaning: blanks at the end, unknown escapes, and in
    /// text the exemplars and units of OpenMetrics.
    pub(super) lenient: bool,
}

pub(super) type Parsed<T> = Result<T, String>;

/// Reads one line, without its line feed.
pub(super) fn read_line(line: &[u8], rules: Rules) -> Parsed<Line<'_>> {
    let text = std::str::from_utf8(line).map_err(|_| "invalid UTF-8".to_owned())?;
    let mut cursor = Cursor { text, at: 0, rules };
    if rules.is_strict_openmetrics() {
        match cursor.peek() {
            None => return Ok(Line::Blank),
            Some(b'#') => return cursor.strict_metadata(),
            Some(_) => {}
        }
    } else {
        cursor.skip_blanks();
        match cursor.peek() {
            None => return Ok(Line::Blank),
            Some(b'#') => return cursor.metadata(),
            Some(_) => {}
        }
    }
    cursor.sample().map(Line::Sample)
}

impl Rules {
    fn is_strict_openmetrics(self) -> bool {
        self.format == Format::OpenMetrics && !self.lenient
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
    rules: Rules,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes bytes as long as `wanted` holds. It must stop at ASCII bytes only.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let size = rest.bytes().position(|b| !wanted(b)).unwrap_or(rest.len());
        self.at += size;
        rest.get(..size).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        self.take_while(is_blank);
    }

    /// Skips blanks where the format allows any: not in strict OpenMetrics.
    fn skip_optional_blanks(&mut self) {
        if !self.rules.is_strict_openmetrics() {
            self.skip_blanks();
        }
    }

    /// Whatever separates two parts of a sample: exactly one space in strict OpenMetrics, else any blanks.
    fn separator(&mut self) -> Parsed<()> {
        if !self.rules.is_strict_openmetrics() {
            self.skip_blanks();
        } else if !self.take(b' ') {
            return Err(format!("expected a space at {:?}", self.rest()));
        }
        Ok(())
    }

    /// A word up to the next blank.
    fn word(&mut self) -> &'a str {
        self.take_while(|b| !is_blank(b))
    }

    /// A `#` line of OpenMetrics by the letter: `# HELP|TYPE|UNIT name rest` or `# EOF`.
    fn strict_metadata(&mut self) -> Parsed<Line<'a>> {
        if self.text == "# EOF" {
            return Ok(Line::Eof);
        }
        let rest = self.text.strip_prefix("# ").ok_or("expected a space behind '#'")?;
        let (keyword, _) = rest.split_once(' ').ok_or("expected a keyword, a name and a text behind '#'")?;
        self.at = "# ".len() + keyword.len() + 1;
        if !matches!(keyword, "HELP" | "TYPE" | "UNIT") {
            return Err(format!("unknown keyword {keyword:?} behind '#'"));
        }
        let name = self.metadata_name()?;
        if !self.take(b' ') {
            return Err(format!("expected a space behind the name in {keyword}"));
        }
        self.described(keyword, name)
    }

    /// A `#` line of the text format, where everything that is not understood is a comment.
    fn metadata(&mut self) -> Parsed<Line<'a>> {
        self.at += 1;
        self.skip_blanks();
        let keyword = self.word();
        let openmetrics = self.rules.format == Format::OpenMetrics;
        match keyword {
            "HELP" | "TYPE" => {}
            "UNIT" if self.rules.lenient => {}
            "EOF" if openmetrics && self.rest().is_empty() => return Ok(Line::Eof),
            _ => return Ok(Line::Blank),
        }
        self.skip_blanks();
        if self.rest().is_empty() {
            return Ok(Line::Blank);
        }
        let name = self.metadata_name()?;
        if !self.rest().is_empty() && !self.peek().is_some_and(is_blank) {
            return Err("invalid metric name in comment".to_owned());
        }
        self.skip_blanks();
        if self.rest().is_empty() {
            return Ok(Line::Blank);
        }
        self.described(keyword, name)
    }

    fn metadata_name(&mut self) -> Parsed<Cow<'a, str>> {
        if self.take(b'"') {
            let name = self.quoted()?;
            return if name.is_empty() { Err("an empty metric name".to_owned()) } else { Ok(name) };
        }
        self.metric_name().map(Cow::Borrowed)
    }

    /// The rest of a line of metadata.
    fn described(&mut self, keyword: &str, name: Cow<'a, str>) -> Parsed<Line<'a>> {
        let rest = self.rest();
        let word = if self.rules.lenient { rest.trim_end_matches([' ', '\t']) } else { rest };
        match keyword {
            "HELP" => unescape(rest, self.keeps_unknown_escapes()).map(|help| Line::Help(name, help)),
            "TYPE" => Ok(Line::Type(name, word)),
            _ => Ok(Line::Unit(name, word)),
        }
    }

    fn keeps_unknown_escapes(&self) -> bool {
        self.rules.lenient || self.rules.format == Format::OpenMetrics
    }

    fn metric_name(&mut self) -> Parsed<&'a str> {
        let name = self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
        if is_metric_name(name) {
            Ok(name)
        } else {
            Err(format!("invalid metric name at {:?}", excerpt(self.text)))
        }
    }

    fn sample(&mut self) -> Parsed<Sample<'a>> {
        let mut name = None;
        if self.peek() != Some(b'{') {
            name = Some(Cow::Borrowed(self.metric_name()?));
            self.skip_optional_blanks();
        }
        let tags = if self.take(b'{') { self.tags(&mut name)? } else { Vec::new() };
        let name = name.ok_or("a sample without a metric name")?;
        if tags.iter().any(|(key, _)| key == NAME_KEY) {
            return Err(format!("label name {NAME_KEY:?} is reserved"));
        }
        let mut sample = Sample { name, tags, ..Sample::default() };
        self.separator()?;
        sample.value = self.value()?;
        self.rest_of_sample(&mut sample)?;
        Ok(sample)
    }

    fn value(&mut self) -> Parsed<f64> {
        let word = self.word();
        parse_float(word.as_bytes())
            .ok_or_else(|| format!("expected float as value, got {:?}", excerpt(word)))
    }

    /// What may follow the value: a time and an exemplar.
    fn rest_of_sample(&mut self, sample: &mut Sample<'a>) -> Parsed<()> {
        if self.rest().is_empty() {
            return Ok(());
        }
        self.separator()?;
        let exemplars = self.rules.format == Format::OpenMetrics || self.rules.lenient;
        if !(exemplars && self.peek() == Some(b'#')) {
            if self.rules.lenient && self.rest().is_empty() {
                return Ok(());
            }
            sample.timestamp = Some(self.timestamp()?);
            if self.rest().is_empty() {
                return Ok(());
            }
            self.separator()?;
        }
        if exemplars && self.take(b'#') {
            sample.exemplar = Some(Box::new(self.exemplar()?));
        }
        if self.rules.lenient {
            self.skip_blanks();
        }
        if self.rest().is_empty() && (self.rules.lenient || sample.exemplar.is_some()) {
            return Ok(());
        }
        Err(format!("spurious string after timestamp: {:?}", excerpt(self.rest())))
    }

    fn timestamp(&mut self) -> Parsed<Timestamp> {
        let word = self.word();
        match self.rules.format {
            Format::Text => parse_int(word.as_bytes())
                .and_then(|millis| millis.checked_mul(1_000_000))
                .map(Timestamp::from_nanos)
                .ok_or_else(|| format!("expected integer as timestamp, got {:?}", excerpt(word))),
            Format::OpenMetrics => parse_seconds(word.as_bytes())
                .ok_or_else(|| format!("expected seconds as timestamp, got {:?}", excerpt(word))),
        }
    }

    /// An exemplar, from behind its `#`. Its time is in seconds in both formats.
    fn exemplar(&mut self) -> Parsed<Exemplar<'a>> {
        self.separator()?;
        if !self.take(b'{') {
            return Err("expected '{' in an exemplar".to_owned());
        }
        let tags = self.tags(&mut Some(Cow::Borrowed("")))?;
        let char_count: usize =
            tags.iter().map(|(key, value)| key.chars().count() + value.chars().count()).sum();
        if char_count > EXEMPLAR_CHARS_MAX {
            return Err(format!(
                "the labels of an exemplar have {char_count} characters, more than {EXEMPLAR_CHARS_MAX}"
            ));
        }
        self.separator()?;
        let mut exemplar = Exemplar { tags, value: self.value()?, timestamp: None };
        if !self.rest().is_empty() {
            self.separator()?;
            let word = self.word();
            if !(self.rules.lenient && word.is_empty()) {
                let time = parse_seconds(word.as_bytes());
                exemplar.timestamp = Some(time.ok_or("expected seconds as the timestamp of an exemplar")?);
            }
        }
        Ok(exemplar)
    }

    /// Tags from behind the brace that opens them. A quoted string without a value is the metric's name,
    /// which must not have been given before.
    fn tags(&mut self, name: &mut Option<Cow<'a, str>>) -> Parsed<Vec<Tag<'a>>> {
        let mut tags: Vec<Tag<'a>> = Vec::new();
        self.skip_optional_blanks();
        if self.take(b'}') {
            return Ok(tags);
        }
        loop {
            let (key, quoted) = self.tag_key()?;
            self.skip_optional_blanks();
            if self.take(b'=') {
                self.skip_optional_blanks();
                if !self.take(b'"') {
                    return Err(format!(
                        "expected '\"' at start of label value, found {:?}",
                        excerpt(self.rest())
                    ));
                }
                let value = self.quoted()?;
                tags.push((key, value));
            } else if quoted && name.is_none() && tags.is_empty() {
                *name = Some(key);
            } else {
                return Err(format!("expected '=' after label name, found {:?}", excerpt(self.rest())));
            }
            self.skip_optional_blanks();
            let comma = self.take(b',');
            self.skip_optional_blanks();
            let trailing_comma_allowed = !self.rules.is_strict_openmetrics();
            if (!comma || trailing_comma_allowed) && self.take(b'}') {
                break;
            }
            if !comma {
                return Err(format!("unexpected end of label value, found {:?}", excerpt(self.rest())));
            }
        }
        check_unique(&tags)?;
        Ok(tags)
    }

    /// The key of a tag, and whether it was quoted.
    fn tag_key(&mut self) -> Parsed<(Cow<'a, str>, bool)> {
        if self.take(b'"') {
            let key = self.quoted()?;
            return if key.is_empty() { Err("an empty name in quotes".to_owned()) } else { Ok((key, true)) };
        }
        let key = self.take_while(|b| b.is_ascii_alphanumeric() || b == b'_');
        if is_label_name(key) {
            return Ok((Cow::Borrowed(key), false));
        }
        Err(format!("invalid label name at {:?}", excerpt(self.text)))
    }

    /// A quoted string from behind its first quote to behind its last.
    fn quoted(&mut self) -> Parsed<Cow<'a, str>> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut size = 0;
        loop {
            match bytes.get(size) {
                None => return Err("a quoted string is not closed".to_owned()),
                Some(b'"') => break,
                Some(b'\\') => size += 2,
                Some(_) => size += 1,
            }
        }
        self.at += size + 1;
        unescape(rest.get(..size).unwrap_or_default(), self.keeps_unknown_escapes())
    }
}

/// Gives the bounds of buckets and quantiles their one form.
pub(super) fn normalize_bounds(sample: &mut Sample<'_>) {
    let Sample { name, tags, .. } = sample;
    for (key, value) in tags {
        let form = match normalize_tag(name, key, value) {
            Cow::Owned(form) => form,
            Cow::Borrowed(_) => continue,
        };
        *value = Cow::Owned(form);
    }
}

/// Resolves `\\`, `\"` and `\n`. Other escapes are kept as they are, or refused.
fn unescape(text: &str, keep_unknown: bool) -> Parsed<Cow<'_, str>> {
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => plain.push('\\'),
            Some('"') => plain.push('"'),
            Some('n') => plain.push('\n'),
            other if keep_unknown => {
                plain.push('\\');
                plain.extend(other);
            }
            other => return Err(format!("invalid escape sequence '\\{}'", other.unwrap_or(' '))),
        }
    }
    Ok(Cow::Owned(plain))
}

/// Refuses a key given twice. Few tags are compared in pairs, many by sorting.
fn check_unique(tags: &[Tag<'_>]) -> Parsed<()> {
    let duplicate = if tags.len() <= 8 {
        let earlier = |i: usize| tags.get(..i).unwrap_or_default();
        tags.iter()
            .enumerate()
            .find(|(i, (key, _))| earlier(*i).iter().any(|(k, _)| k == key))
            .map(|(_, tag)| &tag.0)
    } else {
        let mut keys: Vec<_> = tags.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first().copied())
    };
    match duplicate {
        Some(key) => Err(format!("duplicate label name {key:?}")),
        None => Ok(()),
    }
}

/// The start of a text, for messages.
pub(super) fn excerpt(text: &str) -> &str {
    match text.char_indices().nth(60) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Rules = Rules { format: Format::Text, lenient: false };
    const LENIENT: Rules = Rules { format: Format::Text, lenient: true };
    const OPENMETRICS: Rules = Rules { format: Format::OpenMetrics, lenient: false };

    #[track_caller]
    fn sample(line: &str, rules: Rules) -> Sample<'_> {
        match read_line(line.as_bytes(), rules) {
            Ok(Line::Sample(sample)) => sample,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[track_caller]
    fn check_refused(line: &str, rules: Rules, reason: &str) {
        let error = read_line(line.as_bytes(), rules).unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }

    #[test]
    fn blanks_are_free_in_text_only() {
        let found = sample("\t a { b = \"c\" , d=\"e\", }\t 1.5 \t-7", TEXT);
        assert_eq!(found.name, "a");
        assert_eq!(found.tags, [("b".into(), "c".into()), ("d".into(), "e".into())]);
        assert_eq!((found.value, found.timestamp), (1.5, Some(Timestamp::from_millis(-7))));
        assert_eq!(sample("a{}1", TEXT).value, 1.0);
        for line in [" a 1", "a  1", "a{ } 1", "a{b=\"c\",} 1", "a{b=\"c\"}1", "a 1 "] {
            assert!(read_line(line.as_bytes(), OPENMETRICS).is_err(), "{line}");
        }
    }

    #[test]
    fn any_utf8_name_can_be_quoted() {
        for rules in [TEXT, LENIENT, OPENMETRICS] {
            let found = sample("{\"my.metric é\",\"a.b\"=\"x\",c=\"y\"} 2", rules);
            assert_eq!(found.name, "my.metric é");
            assert_eq!(found.tags, [("a.b".into(), "x".into()), ("c".into(), "y".into())]);
            let line = read_line(b"# TYPE \"my.metric\" counter", rules).unwrap();
            assert_eq!(line, Line::Type("my.metric".into(), "counter"));
            check_refused("a{\"b\"} 1", rules, "expected '=' after label name");
            check_refused("{a=\"b\"} 1", rules, "without a metric name");
            check_refused("{a=\"b\",\"m\"} 1", rules, "expected '=' after label name");
            check_refused("{\"\"} 1", rules, "an empty name");
            check_refused("a{\"\"=\"x\"} 1", rules, "an empty name");
            check_refused("# TYPE \"\" gauge", rules, "an empty metric name");
        }
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(sample(r#"a{b="\\x\"y\nz"} 1"#, TEXT).tag("b"), Some("\\x\"y\nz"));
        check_refused(r#"a{b="\z"} 1"#, TEXT, "invalid escape sequence '\\z'");
        assert_eq!(sample(r#"a{b="\z"} 1"#, LENIENT).tag("b"), Some("\\z"));
        assert_eq!(sample(r#"a{b="\z"} 1"#, OPENMETRICS).tag("b"), Some("\\z"));
        check_refused(r#"a{b="\"} 1"#, OPENMETRICS, "not closed");
        let help = read_line(b"# HELP a  x\\n\\\\ ", TEXT).unwrap();
        assert_eq!(help, Line::Help("a".into(), "x\n\\ ".into()));
    }

    #[test]
    fn bounds_of_buckets_get_one_form() {
        let normalized = |line| {
            let mut sample = sample(line, TEXT);
            normalize_bounds(&mut sample);
            sample.tags.pop().unwrap().1.into_owned()
        };
        assert_eq!(normalized("a_bucket{le=\"1\"} 1"), "1.0");
        assert_eq!(normalized("a{quantile=\"0.50\"} 1"), "0.5");
        assert_eq!(normalized("a{le=\"1\"} 1"), "1");
    }

    #[test]
    fn lenient_text_takes_what_has_one_meaning() {
        assert_eq!(sample("a 1 ", LENIENT).value, 1.0);
        assert_eq!(sample("a 1 5 ", LENIENT).timestamp, Some(Timestamp::from_millis(5)));
        let found = sample("a_total 1 5 # {id=\"x\"} 0.5 1.5 ", LENIENT);
        let exemplar = found.exemplar.unwrap();
        assert_eq!((exemplar.value, exemplar.timestamp), (0.5, Some(Timestamp::from_millis(1500))));
        assert_eq!(read_line(b"# UNIT a_s s ", LENIENT).unwrap(), Line::Unit("a_s".into(), "s"));
        check_refused("a 1 # {} 1", TEXT, "expected integer as timestamp, got \"#\"");
        check_refused("a 1 ", TEXT, "expected integer as timestamp, got \"\"");
    }

    #[test]
    fn comments_of_text_are_skipped() {
        for line in
            ["", "  ", "#", "# comment", "#comment", "# EOF", "# HELP", "# HELP a", "# HELP a ", "# UNIT a b"]
        {
            assert_eq!(read_line(line.as_bytes(), TEXT), Ok(Line::Blank), "{line:?}");
        }
        check_refused("# TYPE 0a gauge", TEXT, "invalid metric name");
        check_refused("# TYPE a-b gauge", TEXT, "invalid metric name in comment");
    }

    #[test]
    fn bad_samples_name_their_reason() {
        check_refused("a", TEXT, "expected float as value, got \"\"");
        check_refused("a 0x1F", TEXT, "expected float as value, got \"0x1F\"");
        check_refused("a 1\r", TEXT, "expected float as value");
        check_refused("a 1 1.5", TEXT, "expected integer as timestamp");
        check_refused("a 1 9223372036854775807", TEXT, "expected integer as timestamp");
        check_refused("a 1 1 1", TEXT, "spurious string after timestamp");
        check_refused("1a 1", TEXT, "invalid metric name");
        check_refused("a{1=\"b\"} 1", TEXT, "invalid label name");
        check_refused("a{b=c} 1", TEXT, "expected '\"'");
        check_refused("a{b=\"c\" d=\"e\"} 1", TEXT, "unexpected end of label value");
        check_refused("a{b=\"c\"", TEXT, "unexpected end of label value");
        check_refused("a{,} 1", TEXT, "invalid label name");
        check_refused("a{b=\"1\",b=\"2\"} 1", TEXT, "duplicate label name \"b\"");
        check_refused(
            "a{b=\"1\",c=\"\",d=\"\",e=\"\",f=\"\",g=\"\",h=\"\",i=\"\",b=\"2\"} 1",
            TEXT,
            "duplicate label name \"b\"",
        );
        check_refused("a{__name__=\"b\"} 1", TEXT, "reserved");
        let error = read_line(b"a{b=\"\xff\"} 1", TEXT).unwrap_err();
        assert_eq!(error, "invalid UTF-8");
    }
}
