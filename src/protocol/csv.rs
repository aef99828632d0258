//! CSV files of samples, row by row, for `icecore import`: our own form `series,tags,timestamp_ms,value`, and
//! others by a [`Mapping`] that says which columns hold the time, the tags and the values.
//!
//! The `csv` crate finds the fields. A row that cannot be understood is an error item with its line, and
//! the rows behind it are still read.

mod mapping;
mod packed;

pub use mapping::{Mapping, TimeUnit};
pub use packed::pack_tags;

use std::borrow::Cow;
use std::io::Read;

use csv::ByteRecord;

use crate::error::{Error, Result};
use crate::model::{Timestamp, ValueRef};
use mapping::Columns;
use packed::{split_tags, tag_parts};

const READ_BUFFER_SIZE: usize = 256 * 1024;

/// Reads the rows of a CSV file.
///
/// ```
/// use icecore::ValueRef;
/// use icecore::protocol::csv::{Mapping, Rows};
/// let file = b"series,tags,timestamp_ms,value\ncpu,host=a;core=0,1700000000000,0.5\ncpu,host=a,soon,1\n";
/// let mut rows = Rows::new(&file[..], Mapping::default())?;
/// let row = rows.next_row()?.unwrap().unwrap();
/// let tags: Vec<String> = row.tags().map(|(key, value)| format!("{key} is {value}")).collect();
/// assert_eq!(tags, ["host is a", "core is 0"]);
/// assert_eq!(row.samples().next(), Some((0, ValueRef::F64(0.5))));
/// assert_eq!(row.metric_name(0), "cpu");
/// assert_eq!(rows.next_row()?.unwrap().unwrap_err().line, 3);
/// assert!(rows.next_row()?.is_none());
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Debug)]
pub struct Rows<R> {
    reader: csv::Reader<R>,
    mapping: Mapping,
    columns: Columns,
    record: ByteRecord,
    /// The last row that was accepted, once there is one.
    accepted: ByteRecord,
    has_accepted: bool,
    /// Whether `record` holds an accepted row.
    is_current_accepted: bool,
    values: Vec<Option<ValueRef<'static>>>,
}

/// A row that was understood. It borrows its reader, so it goes before the next one is read.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    /// Its time.
    pub time: Timestamp,
    /// The line of the file on which it begins, from 1.
    pub line: u64,
    /// Whether its name or tags differ from those of the row returned before it. While they do not, what was
    /// looked up for that row holds.
    pub series_changed: bool,
    mapping: &'r Mapping,
    columns: &'r Columns,
    record: &'r ByteRecord,
    values: &'r [Option<ValueRef<'static>>],
}

/// A row, or why it was refused.
pub type ParsedRow<'r> = std::result::Result<Row<'r>, RowError>;

/// Why a row was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The line of the file on which it begins, from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for RowError {}

impl<R: Read> Rows<R> {
    /// Reads the header of `input` and finds the columns that `mapping` names.
    ///
    /// # Errors
    /// `InvalidInput` when there is no header, when a column is not in it (the message lists those that are)
    /// or when the mapping names no value; `Io` when reading fails.
    pub fn new(input: R, mapping: Mapping) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(mapping.delimiter)
            .flexible(true)
            .buffer_capacity(READ_BUFFER_SIZE)
            .from_reader(input);
        let header = reader.byte_headers().map_err(read_error)?;
        let columns = mapping.resolve(header)?;
        Ok(Rows {
            reader,
            mapping,
            columns,
            record: ByteRecord::new(),
            accepted: ByteRecord::new(),
            has_accepted: false,
            is_current_accepted: false,
            values: Vec::new(),
        })
    }

    /// The next row or the reason why it was refused; `None` at the end of the file.
    ///
    /// # Errors
    /// `Io` when reading fails, after which there is nothing more to be had.
    pub fn next_row(&mut self) -> Result<Option<ParsedRow<'_>>> {
        if self.is_current_accepted {
            std::mem::swap(&mut self.record, &mut self.accepted);
            self.has_accepted = true;
            self.is_current_accepted = false;
        }
        if !self.reader.read_byte_record(&mut self.record).map_err(read_error)? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, |position| position.line());
        match self.check() {
            Ok((time, series_changed)) => {
                self.is_current_accepted = true;
                let (mapping, columns) = (&self.mapping, &self.columns);
                let (record, values) = (&self.record, self.values.as_slice());
                Ok(Some(Ok(Row { time, line, series_changed, mapping, columns, record, values })))
            }
            Err(reason) => Ok(Some(Err(RowError { line, reason }))),
        }
    }

    /// Reads time and values of the current record, and its series where it changed.
    fn check(&mut self) -> std::result::Result<(Timestamp, bool), String> {
        let field = |index: usize| self.record.get(index).ok_or("the row is too short");
        let time = field(self.columns.time)?;
        let time =
            self.mapping.time_unit.parse(time).ok_or_else(|| format!("not a time: {:?}", show(time)))?;
        self.values.clear();
        for column in &self.columns.values {
            self.values.push(column.parse(field(column.index)?)?);
        }
        let same = self.has_accepted
            && self.columns.identity.iter().all(|index| self.record.get(*index) == self.accepted.get(*index));
        if !same {
            self.columns.check_series(&self.record)?;
        }
        Ok((time, !same))
    }
}

impl<'r> Row<'r> {
    /// The tags of the row in the order of the file; cells that are empty give none.
    pub fn tags(&self) -> impl Iterator<Item = (Cow<'r, str>, Cow<'r, str>)> + use<'r> {
        let record = self.record;
        let packed = self.columns.packed_tags.map_or("", |index| text(record, index));
        let packed = split_tags(packed).filter_map(tag_parts);
        let tag = move |(key, index): &'r (String, usize)| (key.as_str().into(), text(record, *index).into());
        let columns = self.columns.tags.iter().map(tag);
        packed.chain(columns).filter(|(_, value)| !value.is_empty())
    }

    /// The values of the row as (number of the value column, value), from 0; cells that are empty give none.
    pub fn samples(&self) -> impl Iterator<Item = (usize, ValueRef<'static>)> + use<'r> {
        self.values.iter().enumerate().filter_map(|(index, value)| Some((index, (*value)?)))
    }

    /// The metric of a value column: the name in the row, or the name of the column where rows have none; both,
    /// joined by `_`, where rows have a name and several values. The prefix stands before it.
    pub fn metric_name(&self, value_index: usize) -> Cow<'r, str> {
        let column = self.columns.values.get(value_index).map_or("", |column| column.name.as_str());
        let own = self.columns.name.map(|index| text(self.record, index));
        let prefix = self.mapping.prefix.as_str();
        match own {
            Some(own) if self.columns.values.len() > 1 => Cow::Owned(format!("{prefix}{own}_{column}")),
            Some(own) if prefix.is_empty() => Cow::Borrowed(own),
            None if prefix.is_empty() => Cow::Borrowed(column),
            other => Cow::Owned(format!("{prefix}{}", other.unwrap_or(column))),
        }
    }
}

/// A field of a row whose series was checked.
fn text(record: &ByteRecord, index: usize) -> &str {
    record.get(index).and_then(|field| std::str::from_utf8(field).ok()).unwrap_or_default()
}

/// The start of a field, for messages.
fn show(field: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(field.get(..60).unwrap_or(field))
}

#[cold]
fn read_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::io("read the CSV file", "", error),
        kind => Error::invalid_input(format!("the CSV file: {kind:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row as `time name{tags} value`, or its error.
    fn read(file: &str, mapping: Mapping) -> Vec<String> {
        let mut rows = Rows::new(file.as_bytes(), mapping).unwrap();
        let mut found = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            match row {
                Ok(row) => found.extend(row.samples().map(|(index, value)| {
                    let tags: Vec<String> = row.tags().map(|(k, v)| format!("{k}={v}")).collect();
                    let mark = if row.series_changed { "+" } else { "" };
                    let name = row.metric_name(index);
                    let value = match value {
                        ValueRef::F64(value) => value.to_string(),
                        other => format!("{other:?}"),
                    };
                    format!("{mark}{} {name}{{{}}} {value}", row.time.nanos() / 1_000_000, tags.join(","))
                })),
                Err(error) => found.push(error.to_string()),
            }
        }
        found
    }

    #[test]
    fn our_own_form_is_read() {
        let file = "series,tags,timestamp_ms,value\n\
                    cpu,host=a;core=0,1000,NaN\ncpu,host=a;core=0,2000,4.41e+06\n\"m,x\",,-1,-0\ncpu,k=a=b;e=,3,1\n";
        assert_eq!(
            read(file, Mapping::default()),
            [
                "+1000 cpu{host=a,core=0} NaN",
                "2000 cpu{host=a,core=0} 4410000",
                "+-1 m,x{} -0",
                "+3 cpu{k=a=b} 1"
            ]
        );
    }

    #[test]
    fn bad_rows_name_line_and_reason() {
        let file = "series,tags,timestamp_ms,value\na,,x,1\na,,1,12abc\na,,1\n,,1,1\na,novalue,1,1\n\"a\nb\",,2,3\na,,1,z\n\
                    \"a\nb\",,3,4\n";
        assert_eq!(
            read(file, Mapping::default()),
            [
                "line 2: not a time: \"x\"",
                "line 3: value is not a number: \"12abc\"",
                "line 4: the row is too short",
                "line 5: the name is empty",
                "line 6: a tag without '=': \"novalue\"",
                "+2 a\nb{} 3",
                "line 9: value is not a number: \"z\"",
                "3 a\nb{} 4",
            ]
        );
    }

    #[test]
    fn integers_are_exact_or_refused() {
        let mapping = Mapping { integers: vec!["value".to_owned()], ..Mapping::default() };
        let file = "series,tags,timestamp_ms,value\na,,1,9007199254740993\na,,2,1.0\na,,3,9223372036854775808\na,,4,\n\
                    a,,5,-9223372036854775808\n";
        assert_eq!(
            read(file, mapping),
            [
                "+1 a{} I64(9007199254740993)",
                "line 3: value is not an integer of 64 bits: \"1.0\"",
                "line 4: value is not an integer of 64 bits: \"9223372036854775808\"",
                "5 a{} I64(-9223372036854775808)",
            ]
        );
        let no_value = Mapping { integers: vec!["tags".to_owned()], ..Mapping::default() };
        assert!(Rows::new(file.as_bytes(), no_value).is_err());
    }

    #[test]
    fn tags_hold_any_character_behind_a_backslash() {
        let file = "series,tags,timestamp_ms,value\na,k=x\\;y;l=z,1,1\na,k=x\\\\;l=z,1,1\na,k\\=l,1,1\n";
        assert_eq!(
            read(file, Mapping::default()),
            ["+1 a{k=x;y,l=z} 1", "+1 a{k=x\\,l=z} 1", "line 4: a tag without '=': \"k\\\\=l\""]
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        let file = b"series,tags,timestamp_ms,value\n\xff,,1,1\na,k=\xff,1,1\na,,\xff,1\n";
        let mut rows = Rows::new(&file[..], Mapping::default()).unwrap();
        for line in 2..5 {
            assert_eq!(rows.next_row().unwrap().unwrap().unwrap_err().line, line);
        }
        assert!(rows.next_row().unwrap().is_none());
    }

    fn wide() -> Mapping {
        Mapping {
            time: "when".to_owned(),
            time_unit: TimeUnit::Rfc3339,
            name: None,
            packed_tags: None,
            tags: vec!["city".to_owned()],
            values: vec!["temp".to_owned(), "wind".to_owned()],
            prefix: "weather_".to_owned(),
            delimiter: b';',
            ..Mapping::default()
        }
    }

    #[test]
    fn columns_are_mapped_by_name() {
        let file =
            "city;temp;when;unused;wind\nOslo;-3.5;1970-01-01T00:00:01Z;x;4\n;;1970-01-01 00:00:02;;5\n";
        assert_eq!(
            read(file, wide()),
            [
                "+1000 weather_temp{city=Oslo} -3.5",
                "+1000 weather_wind{city=Oslo} 4",
                "+2000 weather_wind{} 5"
            ]
        );
        let mapping = Mapping { name: Some("city".to_owned()), tags: Vec::new(), ..wide() };
        assert_eq!(read(file, mapping)[0], "+1000 weather_Oslo_temp{} -3.5");
    }

    #[test]
    fn a_column_that_is_missing_is_named_with_those_that_are_there() {
        let error = Rows::new(&b"city;temp;when\n"[..], wide()).unwrap_err().to_string();
        assert_eq!(error, "the CSV file has no column \"wind\"; it has \"city\", \"temp\", \"when\"");
        assert!(Rows::new(&b""[..], Mapping::default()).is_err());
        let no_value = Mapping { values: Vec::new(), ..wide() };
        assert!(Rows::new(&b"city;temp;when\n"[..], no_value).is_err());
    }
}
