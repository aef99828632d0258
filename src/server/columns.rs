//! Columns of an answer as JSON, JSON lines or CSV, piece by piece; `docs/rest.md`, "Values", has the forms.
//!
//! Every value can be told from every other: what JSON has no number for is a string.

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::ingest::format_time;
use crate::model::{SeriesKey, Timestamp, ValueRef, ValueType, is_stale};
use crate::protocol::csv::pack_tags;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One object.
    Json,
    /// An object for each piece.
    JsonLines,
    /// A row for each time of each series.
    Csv,
}

impl Form {
    /// The media type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::JsonLines => "application/x-ndjson",
            Form::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// A stretch of one series or group.
pub(super) struct Piece<'a> {
    /// The series or group.
    pub(super) key: &'a SeriesKey,
    /// The type of its values.
    pub(super) value_type: ValueType,
    /// The times.
    pub(super) times: &'a [Timestamp],
    /// The value in a column at a time, if there is one.
    pub(super) cell: &'a dyn Fn(usize, usize) -> Option<ValueRef<'a>>,
}

/// Writes an answer.
#[derive(Debug)]
pub(super) struct Writer {
    form: Form,
    /// Times as RFC 3339 instead of nanoseconds.
    dates: bool,
    /// Names of the columns beside that of time.
    columns: Vec<String>,
    is_first: bool,
}

impl Writer {
    /// A writer of answers with these columns.
    pub(super) fn new(form: Form, dates: bool, columns: Vec<String>) -> Self {
        Writer { form, dates, columns, is_first: true }
    }

    /// What comes before the first piece.
    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Json => {
                let unit = if self.dates { "rfc3339" } else { "ns" };
                put(out, format_args!("{{\"time_unit\":\"{unit}\",\"series\":["));
            }
            Form::JsonLines => {}
            Form::Csv => {
                let time = if self.dates { "timestamp" } else { "timestamp_ns" };
                put(out, format_args!("series,tags,{time}"));
                for column in &self.columns {
                    out.push(b',');
                    put_cell(out, column);
                }
                out.push(b'\n');
            }
        }
    }

    /// Writes a piece.
    pub(super) fn piece(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        match self.form {
            Form::Json => {
                out.extend_from_slice(if self.is_first { b"\n" } else { b",\n" });
                self.object(out, piece);
            }
            Form::JsonLines => {
                self.object(out, piece);
                out.push(b'\n');
            }
            Form::Csv => self.rows(out, piece),
        }
        self.is_first = false;
    }

    /// What comes behind the last piece; `report` is shown where the form has a place for it.
    pub(super) fn end(&self, out: &mut Vec<u8>, truncated: bool, report: &Json) {
        if self.form == Form::Json {
            put(out, format_args!("\n],\"truncated\":{truncated},\"report\":{report}}}\n"));
        }
    }

    fn object(&self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        let (name, tags) = (Json::from(piece.key.name()), json_tags(piece.key));
        let value_type = piece.value_type.name();
        put(out, format_args!("{{\"name\":{name},\"tags\":{tags},\"type\":\"{value_type}\",\"columns\":{{"));
        out.extend_from_slice(b"\"time\":[");
        for (row, time) in piece.times.iter().enumerate() {
            comma(out, row);
            if self.dates {
                put(out, format_args!("\"{}\"", format_time(*time)));
            } else {
                put(out, format_args!("{}", time.nanos()));
            }
        }
        for (column, name) in self.columns.iter().enumerate() {
            put(out, format_args!("],{}:[", Json::from(name.as_str())));
            for row in 0..piece.times.len() {
                comma(out, row);
                match (piece.cell)(column, row) {
                    Some(value) => put_json(out, value),
                    None => out.extend_from_slice(b"null"),
                }
            }
        }
        out.extend_from_slice(b"]}}");
    }

    fn rows(&self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        let mut head = Vec::new();
        put_cell(&mut head, piece.key.name());
        head.push(b',');
        put_cell(&mut head, &pack_tags(piece.key.tags()));
        head.push(b',');
        for (row, time) in piece.times.iter().enumerate() {
            out.extend_from_slice(&head);
            if self.dates {
                out.extend_from_slice(format_time(*time).as_bytes());
            } else {
                put(out, format_args!("{}", time.nanos()));
            }
            for column in 0..self.columns.len() {
                out.push(b',');
                if let Some(value) = (piece.cell)(column, row) {
                    put_text(out, value);
                }
            }
            out.push(b'\n');
        }
    }
}

/// Appends text. Writing to memory does not fail.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(out, text);
}

fn comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// The tags as an object.
pub(super) fn json_tags(key: &SeriesKey) -> Json {
    Json::Object(key.tags().map(|(key, value)| (key.to_owned(), value.into())).collect())
}

fn put_json(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::F64(value) if value.is_finite() => put(out, format_args!("{value:?}")),
        ValueRef::F64(value) => put(out, format_args!("\"{}\"", word(value))),
        ValueRef::I64(value) => put(out, format_args!("{value}")),
        ValueRef::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => put(out, format_args!("{}", Json::from(text))),
            Err(_) => put(out, format_args!("{{\"hex\":\"{}\"}}", hex(bytes))),
        },
    }
}

fn put_text(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::F64(value) if value.is_finite() => put(out, format_args!("{value:?}")),
        ValueRef::F64(value) => out.extend_from_slice(word(value).as_bytes()),
        ValueRef::I64(value) => put(out, format_args!("{value}")),
        ValueRef::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => put_cell(out, text),
            Err(_) => put(out, format_args!("hex:{}", hex(bytes))),
        },
    }
}

/// A double that is no number, by all of its bits.
fn word(value: f64) -> String {
    if is_stale(value) {
        "stale".to_owned()
    } else if value.is_nan() && value.to_bits() != f64::NAN.to_bits() {
        format!("NaN:{:016x}", value.to_bits())
    } else if value.is_nan() {
        "NaN".to_owned()
    } else if value > 0.0 {
        "+Inf".to_owned()
    } else {
        "-Inf".to_owned()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A cell of CSV (RFC 4180), in quotes where it has to be.
fn put_cell(out: &mut Vec<u8>, text: &str) {
    if !text.contains(['"', ',', '\n', '\r']) {
        return out.extend_from_slice(text.as_bytes());
    }
    put(out, format_args!("\"{}\"", text.replace('"', "\"\"")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::STALE_NAN_BITS;

    #[track_caller]
    fn check(value: ValueRef<'_>, json: &str, csv: &str) {
        let (mut as_json, mut as_csv) = (Vec::new(), Vec::new());
        put_json(&mut as_json, value);
        put_text(&mut as_csv, value);
        assert_eq!((as_json.as_slice(), as_csv.as_slice()), (json.as_bytes(), csv.as_bytes()));
        serde_json::from_slice::<Json>(&as_json).unwrap();
    }

    #[test]
    fn every_value_has_its_own_text() {
        let double = |bits| ValueRef::F64(f64::from_bits(bits));
        check(ValueRef::F64(0.1 + 0.2), "0.30000000000000004", "0.30000000000000004");
        check(ValueRef::F64(-0.0), "-0.0", "-0.0");
        check(ValueRef::F64(5e-324), "5e-324", "5e-324");
        check(ValueRef::F64(f64::MAX), "1.7976931348623157e308", "1.7976931348623157e308");
        check(double(STALE_NAN_BITS), "\"stale\"", "stale");
        check(ValueRef::F64(f64::NAN), "\"NaN\"", "NaN");
        check(double(0xfff8_0000_0000_0001), "\"NaN:fff8000000000001\"", "NaN:fff8000000000001");
        check(ValueRef::F64(f64::INFINITY), "\"+Inf\"", "+Inf");
        check(ValueRef::F64(f64::NEG_INFINITY), "\"-Inf\"", "-Inf");
        check(ValueRef::I64(i64::MIN), "-9223372036854775808", "-9223372036854775808");
        check(ValueRef::I64((1 << 53) + 1), "9007199254740993", "9007199254740993");
        check(ValueRef::Bytes("a,\"ü\"\n".as_bytes()), r#""a,\"ü\"\n""#, "\"a,\"\"ü\"\"\n\"");
        check(ValueRef::Bytes(b"\xff\x00"), r#"{"hex":"ff00"}"#, "hex:ff00");
    }
}
