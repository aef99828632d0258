//! What the columns of a CSV file mean.

use csv::ByteRecord;
use jiff::civil::DateTime;

use crate::error::{Error, Result};
use crate::model::{Timestamp, ValueRef};
use crate::protocol::csv::packed::{split_tags, tag_parts};
use crate::protocol::number::{parse_float, parse_int, parse_seconds};

/// Which columns hold what, by their names in the header. The default is our own form,
/// `series,tags,timestamp_ms,value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The column with the time.
    pub time: String,
    /// How the time is written.
    pub time_unit: TimeUnit,
    /// The column with the name of the metric; without one, the value columns are the names.
    pub name: Option<String>,
    /// A column with all tags, `key=value` joined by `;` (see [`pack_tags`](super::pack_tags)).
    pub packed_tags: Option<String>,
    /// Columns that are tags; their names are the keys.
    pub tags: Vec<String>,
    /// Columns with values, at least one.
    pub values: Vec<String>,
    /// Those of them that hold integers; the others hold doubles.
    pub integers: Vec<String>,
    /// What is put before every name.
    pub prefix: String,
    /// The byte between fields.
    pub delimiter: u8,
}

impl Default for Mapping {
    fn default() -> Self {
        Mapping {
            time: "timestamp_ms".to_owned(),
            time_unit: TimeUnit::Milliseconds,
            name: Some("series".to_owned()),
            packed_tags: Some("tags".to_owned()),
            tags: Vec::new(),
            values: vec!["value".to_owned()],
            integers: Vec::new(),
            prefix: String::new(),
            delimiter: b',',
        }
    }
}

/// How the times of a CSV file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since the epoch, with a fraction or without.
    Seconds,
    /// Whole milliseconds since the epoch.
    Milliseconds,
    /// Whole microseconds since the epoch.
    Microseconds,
    /// Whole nanoseconds since the epoch.
    Nanoseconds,
    /// RFC 3339, `2026-11-20T23:52:16.476+01:00`; a space may stand for the `T`, and a time without a zone is
    /// read as UTC.
    Rfc3339,
}

impl TimeUnit {
    /// The unit called `s`, `ms`, `us`, `ns` or `rfc3339`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "s" => TimeUnit::Seconds,
            "ms" => TimeUnit::Milliseconds,
            "us" => TimeUnit::Microseconds,
            "ns" => TimeUnit::Nanoseconds,
            "rfc3339" => TimeUnit::Rfc3339,
            _ => return None,
        })
    }

    /// The time that `text` says, unless it is out of range.
    pub(super) fn parse(self, text: &[u8]) -> Option<Timestamp> {
        let whole = |unit_nanos: i64| parse_int(text)?.checked_mul(unit_nanos).map(Timestamp::from_nanos);
        let time = match self {
            TimeUnit::Seconds => parse_seconds(text)?,
            TimeUnit::Milliseconds => whole(1_000_000)?,
            TimeUnit::Microseconds => whole(1_000)?,
            TimeUnit::Nanoseconds => whole(1)?,
            TimeUnit::Rfc3339 => parse_rfc3339(std::str::from_utf8(text).ok()?)?,
        };
        time.is_sample_time().then_some(time)
    }
}

fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let time = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time,
        Err(_) => text.parse::<DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp(),
    };
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp::from_nanos)
}

/// A column with values.
#[derive(Debug)]
pub(super) struct ValueColumn {
    pub(super) name: String,
    pub(super) index: usize,
    pub(super) is_integer: bool,
}

impl ValueColumn {
    /// The value that `text` says; `None` for an empty cell.
    pub(super) fn parse(&self, text: &[u8]) -> std::result::Result<Option<ValueRef<'static>>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let (value, what) = match self.is_integer {
            true => (parse_int(text).map(ValueRef::I64), "an integer of 64 bits"),
            false => (parse_float(text).map(ValueRef::F64), "a number"),
        };
        value.map(Some).ok_or_else(|| format!("{} is not {what}: {:?}", self.name, super::show(text)))
    }
}

/// A mapping with the columns found: where each is in a row.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) time: usize,
    pub(super) name: Option<usize>,
    pub(super) packed_tags: Option<usize>,
    pub(super) tags: Vec<(String, usize)>,
    pub(super) values: Vec<ValueColumn>,
    /// The columns that tell series apart.
    pub(super) identity: Vec<usize>,
}

impl Mapping {
    /// Finds the columns in a header.
    pub(super) fn resolve(&self, header: &ByteRecord) -> Result<Columns> {
        if self.values.is_empty() {
            return Err(Error::invalid_input("the mapping of a CSV file names no column with values"));
        }
        // A byte order mark belongs to the file, not to the first name.
        let names: Vec<&[u8]> = header.iter().map(|n| n.strip_prefix(b"\xef\xbb\xbf").unwrap_or(n)).collect();
        let find = |name: &String| {
            names.iter().position(|own| *own == name.as_bytes()).ok_or_else(|| no_column(name, &names))
        };
        let find_all = |wanted: &[String]| -> Result<Vec<(String, usize)>> {
            wanted.iter().map(|name| Ok((name.clone(), find(name)?))).collect()
        };
        let name = self.name.as_ref().map(find).transpose()?;
        let packed_tags = self.packed_tags.as_ref().map(find).transpose()?;
        let tags = find_all(&self.tags)?;
        let identity =
            name.into_iter().chain(packed_tags).chain(tags.iter().map(|(_, index)| *index)).collect();
        let value = |(name, index): (String, usize)| {
            let is_integer = self.integers.contains(&name);
            ValueColumn { name, index, is_integer }
        };
        let values = find_all(&self.values)?.into_iter().map(value).collect();
        if let Some(name) = self.integers.iter().find(|name| !self.values.contains(name)) {
            return Err(Error::invalid_input(format!(
                "{name:?} is said to hold integers, but is no column with values"
            )));
        }
        Ok(Columns { time: find(&self.time)?, name, packed_tags, tags, values, identity })
    }
}

#[cold]
fn no_column(name: &str, names: &[&[u8]]) -> Error {
    let names: Vec<String> =
        names.iter().map(|name| format!("{:?}", String::from_utf8_lossy(name))).collect();
    Error::invalid_input(format!("the CSV file has no column {name:?}; it has {}", names.join(", ")))
}

impl Columns {
    /// Checks name and tags of a row: all there, all UTF-8, a name, and `=` in each packed tag.
    pub(super) fn check_series(&self, record: &ByteRecord) -> std::result::Result<(), String> {
        let text = |index: usize| {
            let field = record.get(index).ok_or("the row is too short")?;
            std::str::from_utf8(field).map_err(|_| "name or tags are not UTF-8")
        };
        if let Some(index) = self.name
            && text(index)?.is_empty()
        {
            return Err("the name is empty".to_owned());
        }
        if let Some(index) = self.packed_tags
            && let Some(tag) =
                split_tags(text(index)?).find(|tag| !tag.is_empty() && tag_parts(tag).is_none())
        {
            return Err(format!("a tag without '=': {tag:?}"));
        }
        for (_, index) in &self.tags {
            text(*index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unit: &str, text: &str, nanos: Option<i64>) {
        let unit = TimeUnit::from_name(unit).unwrap();
        assert_eq!(unit.parse(text.as_bytes()).map(Timestamp::nanos), nanos, "{text}");
    }

    #[test]
    fn times_are_read_in_every_unit() {
        check("s", "1700000000", Some(1_700_000_000_000_000_000));
        check("s", "1.000000001", Some(1_000_000_001));
        check("ms", "-5", Some(-5_000_000));
        check("us", "7", Some(7_000));
        check("ns", "7", Some(7));
        check("rfc3339", "1970-01-01T01:00:00.25+01:00", Some(250_000_000));
        check("rfc3339", "1970-01-01 00:00:01", Some(1_000_000_000));
        check("rfc3339", "1970-01-02", Some(86_400_000_000_000));
    }

    #[test]
    fn times_out_of_range_or_of_another_form_are_refused() {
        check("ms", "1.5", None);
        check("ms", "", None);
        check("ms", "9223372036854775807", None);
        check("ns", "9223372036854775807", None);
        check("s", "1e30", None);
        check("rfc3339", "1700000000", None);
        check("rfc3339", "0001-01-01T00:00:00Z", None);
        check("rfc3339", "9999-12-31T00:00:00Z", None);
        assert_eq!(TimeUnit::from_name("min"), None);
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_name() {
        let header = ByteRecord::from(vec![&b"\xef\xbb\xbfseries"[..], b"tags", b"timestamp_ms", b"value"]);
        assert_eq!(Mapping::default().resolve(&header).unwrap().identity, [0, 1]);
    }
}
