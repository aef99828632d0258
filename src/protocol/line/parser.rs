//! The parser: a cursor over the bytes that yields a point or an error for each line.

use std::borrow::Cow;

use super::{FieldValue, Point, Precision};
use crate::model::Timestamp;
use crate::protocol::number::{parse_float, parse_int};

/// Why a line was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line on which it starts, from 1.
    pub line: usize,
    /// The byte in that line at which the parser gave up, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: &'static str,
}

impl std::fmt::Display for LineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.reason)
    }
}

impl std::error::Error for LineError {}

/// Iterates over the points of a text. After an error it goes on with the next line.
///
/// ```
/// use icecore::Timestamp;
/// use icecore::protocol::line::{Parser, Precision};
/// let text = b"cpu,host=a load=0.5,cores=4i 1700000000\nbroken\n";
/// let mut points = Parser::new(text, Precision::Seconds, Timestamp::from_secs(0));
/// let point = points.next().unwrap().unwrap();
/// assert_eq!(point.measurement, "cpu");
/// assert_eq!(point.time, Timestamp::from_secs(1_700_000_000));
/// assert_eq!(points.next().unwrap().unwrap_err().line, 2);
/// ```
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    precision: Precision,
    default_time: Timestamp,
    /// The line at `counted_to`, from 1, and where it begins.
    line: usize,
    line_start: usize,
    counted_to: usize,
}

/// Which bytes end a token, and which a backslash makes part of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Measurement,
    Key,
    TagValue,
}

impl Token {
    fn is_escapable(self, byte: u8) -> bool {
        matches!(byte, b',' | b' ') || (byte == b'=' && self != Token::Measurement)
    }

    fn ends_at(self, byte: u8) -> bool {
        match self {
            // A value takes control characters, except for those that end lines.
            Token::TagValue => self.is_escapable(byte) || matches!(byte, b'\n' | b'\r'),
            Token::Measurement | Token::Key => self.is_escapable(byte) || byte.is_ascii_control(),
        }
    }
}

type Parsed<T> = Result<T, &'static str>;

impl<'a> Parser<'a> {
    /// A parser of `text`, whose times are in `precision`. Lines without a time get `default_time`, cut
    /// down to the precision.
    pub fn new(text: &'a [u8], precision: Precision, default_time: Timestamp) -> Self {
        let default_time = precision.truncate(default_time);
        Parser { text, at: 0, precision, default_time, line: 1, line_start: 0, counted_to: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Takes bytes as long as `wanted` holds.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let size = rest.iter().position(|b| !wanted(*b)).unwrap_or(rest.len());
        self.at += size;
        rest.get(..size).unwrap_or_default()
    }

    fn take_spaces(&mut self) -> usize {
        self.take_while(|b| b == b' ').len()
    }

    /// Takes a line end: `\n`, `\r\n`, a `\r` that ends the text, or the end itself.
    fn take_line_end(&mut self) -> bool {
        let size = match self.rest() {
            [] | [b'\r'] => self.rest().len(),
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return false,
        };
        self.at += size;
        true
    }

    /// Skips blank lines and comments; false at the end of the text.
    fn skip_to_point(&mut self) -> Parsed<bool> {
        loop {
            self.take_spaces();
            match self.peek() {
                None => return Ok(false),
                Some(b'#') => {
                    self.take_while(|b| !b.is_ascii_control());
                    if !self.take_line_end() {
                        return Err("a comment holds a control character");
                    }
                }
                Some(b'\n' | b'\r') if self.take_line_end() => {}
                Some(_) => return Ok(true),
            }
        }
    }

    /// A name, key or tag value, its escapes resolved.
    fn token(&mut self, token: Token) -> Parsed<Cow<'a, str>> {
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let run = self.take_while(|b| b != b'\\' && !token.ends_at(b));
            let escaped = match self.rest() {
                [b'\\', next, ..] if token.is_escapable(*next) => Some(*next),
                [b'\\', ..] => None,
                _ => return finish(unescaped, run),
            };
            let bytes = unescaped.get_or_insert_default();
            bytes.extend_from_slice(run);
            bytes.push(escaped.unwrap_or(b'\\'));
            self.at += if escaped.is_some() { 2 } else { 1 };
        }
    }

    fn point(&mut self) -> Parsed<Point<'a>> {
        let measurement = self.token(Token::Measurement)?;
        if measurement.is_empty() {
            return Err("the name of the measurement is missing");
        }
        let tags = self.tags()?;
        if self.take_spaces() == 0 {
            return Err("a space and the fields are expected behind name and tags");
        }
        let fields = self.fields()?;
        let time = self.time()?;
        Ok(Point { measurement, tags, fields, time })
    }

    fn tags(&mut self) -> Parsed<Vec<(Cow<'a, str>, Cow<'a, str>)>> {
        let mut tags: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        while self.peek() == Some(b',') {
            self.at += 1;
            let key = self.token(Token::Key)?;
            if key.is_empty() {
                return Err("the key of a tag is missing");
            }
            if self.peek() != Some(b'=') {
                return Err("'=' is expected behind the key of a tag");
            }
            self.at += 1;
            let value = self.token(Token::TagValue)?;
            if value.is_empty() {
                return Err("the value of a tag is missing");
            }
            tags.push((key, value));
        }
        if has_duplicate(&tags) {
            return Err("a tag key is given twice");
        }
        Ok(tags)
    }

    fn fields(&mut self) -> Parsed<Vec<(Cow<'a, str>, FieldValue<'a>)>> {
        let mut fields = Vec::with_capacity(1);
        loop {
            let key = self.token(Token::Key)?;
            if key.is_empty() {
                return Err("the key of a field is missing");
            }
            if self.peek() != Some(b'=') {
                return Err("'=' is expected behind the key of a field");
            }
            self.at += 1;
            fields.push((key, self.field_value()?));
            if self.peek() != Some(b',') {
                return Ok(fields);
            }
            self.at += 1;
        }
    }

    fn field_value(&mut self) -> Parsed<FieldValue<'a>> {
        match self.peek() {
            Some(b'"') => self.string().map(FieldValue::String),
            Some(b't' | b'T' | b'f' | b'F') => self.boolean().map(FieldValue::Bool),
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => self.number(),
            Some(_) => Err("the value of a field is of no known type"),
            None => Err("the value of a field is missing"),
        }
    }

    /// A quoted string, which may span lines; `\"` and `\\` are escapes.
    fn string(&mut self) -> Parsed<Cow<'a, str>> {
        self.at += 1;
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let run = self.take_while(|b| b != b'"' && b != b'\\');
            let (byte, size) = match self.rest() {
                [] => return Err("a string is not closed"),
                [b'"', ..] => {
                    self.at += 1;
                    return finish(unescaped, run);
                }
                [_, escaped @ (b'"' | b'\\'), ..] => (*escaped, 2),
                _ => (b'\\', 1),
            };
            let bytes = unescaped.get_or_insert_default();
            bytes.extend_from_slice(run);
            bytes.push(byte);
            self.at += size;
        }
    }

    fn word(&mut self) -> &'a [u8] {
        self.take_while(|b| !matches!(b, b',' | b' ' | b'\n' | b'\r'))
    }

    fn boolean(&mut self) -> Parsed<bool> {
        match self.word() {
            b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok(true),
            b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(false),
            _ => Err("the value of a field is neither true nor false"),
        }
    }

    fn number(&mut self) -> Parsed<FieldValue<'a>> {
        let word = self.word();
        match word.split_last() {
            Some((b'i', digits)) => parse_int(digits).map(FieldValue::Int).ok_or("not a 64-bit integer"),
            Some((b'u', digits)) => std::str::from_utf8(digits)
                .ok()
                .filter(|digits| !digits.starts_with('+'))
                .and_then(|digits| digits.parse().ok())
                .map(FieldValue::UInt)
                .ok_or("not an unsigned 64-bit integer"),
            // Words such as `-inf` and numbers beyond the range of f64 are refused alike.
            _ => parse_float(word).filter(|v| v.is_finite()).map(FieldValue::Float).ok_or("not a float"),
        }
    }

    /// The time and the line end behind it.
    fn time(&mut self) -> Parsed<Timestamp> {
        let spaces = self.take_spaces();
        if self.take_line_end() {
            return Ok(self.default_time);
        }
        if spaces == 0 {
            return Err("a comma, a space or the line end is expected behind a field");
        }
        let word = self.word();
        let count = parse_int(word).filter(|_| !word.starts_with(b"+")).ok_or("not a time")?;
        self.take_spaces();
        if !self.take_line_end() {
            return Err("the line goes on behind its time");
        }
        self.precision.time(count).ok_or("the time is out of range")
    }

    /// Counts lines up to `offset`, which never goes back.
    fn count_lines(&mut self, offset: usize) {
        let passed = self.text.get(self.counted_to..offset).unwrap_or_default();
        for (index, _) in passed.iter().enumerate().filter(|(_, b)| **b == b'\n') {
            self.line += 1;
            self.line_start = self.counted_to + index + 1;
        }
        self.counted_to = self.counted_to.max(offset);
    }

    #[cold]
    fn fail(&mut self, start: usize, reason: &'static str) -> LineError {
        self.count_lines(start);
        let line = self.line;
        let error_at = self.at;
        self.count_lines(error_at);
        let column = error_at - self.line_start + 1;
        self.take_while(|b| b != b'\n');
        LineError { line, column, reason }
    }
}

const NOT_UTF8: &str = "not UTF-8";

/// The text of a token: its last run of bytes behind what was unescaped before it, if anything was.
fn finish(unescaped: Option<Vec<u8>>, run: &[u8]) -> Parsed<Cow<'_, str>> {
    match unescaped {
        Some(mut bytes) => {
            bytes.extend_from_slice(run);
            String::from_utf8(bytes).map(Cow::Owned).map_err(|_| NOT_UTF8)
        }
        None => std::str::from_utf8(run).map(Cow::Borrowed).map_err(|_| NOT_UTF8),
    }
}

/// Whether a key comes twice. Few tags are compared in pairs, many by sorting.
fn has_duplicate(tags: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
    if tags.len() <= 8 {
        return tags
            .iter()
            .enumerate()
            .any(|(i, (key, _))| tags.iter().take(i).any(|(earlier, _)| earlier == key));
    }
    let mut keys: Vec<&str> = tags.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair.first() == pair.last())
}

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Point<'a>, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let to_point = self.skip_to_point();
        // A comment that is refused ends in the line that it is on, so that its end is as good as its start.
        let start = self.at;
        let result = match to_point {
            Ok(false) => return None,
            Ok(true) => self.point(),
            Err(reason) => Err(reason),
        };
        Some(result.map_err(|reason| self.fail(start, reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Result<Point<'_>, LineError>> {
        Parser::new(text.as_bytes(), Precision::Nanoseconds, Timestamp::from_nanos(7)).collect()
    }

    #[track_caller]
    fn check(
        text: &str,
        measurement: &str,
        tags: &[(&str, &str)],
        fields: &[(&str, FieldValue<'_>)],
        nanos: i64,
    ) {
        let points = parse(text);
        assert_eq!(points.len(), 1, "{points:?}");
        let point = points[0].as_ref().unwrap();
        assert_eq!(point.measurement, measurement);
        let found: Vec<_> = point.tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        assert_eq!(found, tags);
        let found: Vec<_> = point.fields.iter().map(|(k, v)| (k.as_ref(), v.clone())).collect();
        assert_eq!(found, fields);
        assert_eq!(point.time.nanos(), nanos);
    }

    #[track_caller]
    fn check_refused(text: &str, reason: &str) {
        let points = parse(text);
        assert!(
            points.iter().any(|p| p.as_ref().is_err_and(|e| e.reason.contains(reason))),
            "{text:?}: {points:?}"
        );
    }

    use FieldValue::{Bool, Float, Int, String, UInt};

    #[test]
    fn every_type_of_field_is_read() {
        check(
            "m,t=x f=-1.5e3,i=-9223372036854775808i,u=18446744073709551615u,b=T,s=\"a,b c\" 12",
            "m",
            &[("t", "x")],
            &[
                ("f", Float(-1500.0)),
                ("i", Int(i64::MIN)),
                ("u", UInt(u64::MAX)),
                ("b", Bool(true)),
                ("s", String("a,b c".into())),
            ],
            12,
        );
    }

    #[test]
    fn escapes_depend_on_the_place() {
        check(
            r"a\,b\ c\=d,k\=\,\ x=v\\\ y f\ g=1",
            r"a,b c\=d",
            &[("k=, x", r"v\\ y")],
            &[("f g", Float(1.0))],
            7,
        );
        check(r#"m s="q\"\\z\n""#, "m", &[], &[("s", String(r#"q"\z\n"#.into()))], 7);
        check("cpu=load,k=x\u{1}y \"=f", "cpu=load", &[("k", "x\u{1}y")], &[("\"", Bool(false))], 7);
    }

    #[test]
    fn blank_lines_comments_and_spaces_are_skipped() {
        check("\r\n# c\n\n  m   v=1   5   \r\n#", "m", &[], &[("v", Float(1.0))], 5);
        assert!(parse("").is_empty());
        assert!(parse("\n\r\n# only\r").is_empty());
    }

    #[test]
    fn strings_may_span_lines_and_lines_are_still_counted() {
        let points = parse("m s=\"a\nb\"\nbad\nm v=1\nm v=\"x\ny\n");
        assert_eq!(points.len(), 4);
        let errors: Vec<_> =
            points.iter().filter_map(|p| p.as_ref().err()).map(|e| (e.line, e.column)).collect();
        assert_eq!(errors, [(3, 4), (5, 1)]);
    }

    #[test]
    fn a_bad_line_names_its_place_and_loses_no_other() {
        let points = parse("a v=1\nb v=\nc v=1 x\nd v=2\n");
        let good: Vec<_> = points.iter().flatten().map(|p| p.measurement.as_ref()).collect();
        assert_eq!(good, ["a", "d"]);
        let shown = points[1].as_ref().unwrap_err().to_string();
        assert_eq!(shown, "line 2, column 5: the value of a field is of no known type");
    }

    #[test]
    fn a_bad_comment_is_named_by_its_own_line() {
        let points = parse("bad\n###\n#ok\n#\u{8}x\n#\u{8}\nm v=1");
        let lines: Vec<_> =
            points.iter().filter_map(|p| p.as_ref().err()).map(|e| (e.line, e.column)).collect();
        assert_eq!(lines, [(1, 4), (4, 2), (5, 2)]);
        assert!(points[3].is_ok());
    }

    #[test]
    fn bad_lines_name_their_reason() {
        check_refused("m", "a space and the fields");
        check_refused(",a=b v=1", "name of the measurement");
        check_refused("m,=b v=1", "key of a tag");
        check_refused("m,a v=1", "'=' is expected behind the key of a tag");
        check_refused("m,a= v=1", "value of a tag");
        check_refused("m,a=1,a=2 v=1", "twice");
        check_refused("m,a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1,a=2 v=1", "twice");
        check_refused("m =1", "key of a field");
        check_refused("m v", "'=' is expected behind the key of a field");
        check_refused("m v=1.1.1", "not a float");
        check_refused("m v=1e999", "not a float");
        check_refused("m v=NaN", "no known type");
        check_refused("m v=-inf", "not a float");
        check_refused("m v=1.0i", "not a 64-bit integer");
        check_refused("m v=-1u", "not an unsigned");
        check_refused("m v=tru", "neither true nor false");
        check_refused("m v=\"x", "not closed");
        check_refused("m v=\"x\"y", "behind a field");
        check_refused("m v=1 1-", "not a time");
        check_refused("m v=1 9223372036854775808", "not a time");
        check_refused("m v=1 1 2", "behind its time");
        check_refused("#\u{1}\n", "control character");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        for text in [&b"\xff v=1"[..], b"m,a=\xff v=1", b"m v=\"\xff\"", b"m v=\"\\\"\xff\"", b"m\\ \xff v=1"]
        {
            let mut points = Parser::new(text, Precision::Nanoseconds, Timestamp::from_nanos(0));
            assert_eq!(points.next().unwrap().unwrap_err().reason, NOT_UTF8);
        }
    }
}
