//! Records: an edit with its number, framed; and how words of the model look inside one.
//!
//! `docs/format.md`, "Manifest".

use serde::{Deserialize, Serialize};

use crate::codec::meta::{put_meta, read_meta};
use crate::codec::varint::Reader;
use crate::error::{Error, Result};
use crate::manifest::edit::Edit;
use crate::manifest::format::EDIT_MAGIC;

/// One record. Those written together have the same number, one more than those before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) edit: Edit,
}

/// Appends `record`.
///
/// # Errors
/// `LimitExceeded` when it is larger than a frame may be; nothing is appended then.
pub(crate) fn put_record(out: &mut Vec<u8>, record: &Record) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(&EDIT_MAGIC);
    put_meta(out, record).inspect_err(|_| out.truncate(start))
}

/// The record at the cursor.
///
/// # Errors
/// `Corruption` when there is no whole one.
pub(crate) fn read_record(reader: &mut Reader<'_>) -> Result<Record> {
    if reader.bytes(EDIT_MAGIC.len())? != EDIT_MAGIC {
        return Err(Error::corrupt("a record does not start with its magic"));
    }
    read_meta(reader)
}

/// A time is its nanoseconds.
pub(super) mod time {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::Timestamp;

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        time.nanos().serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Ok(Timestamp::from_nanos(i64::deserialize(from)?))
    }
}

/// A time that may be absent.
pub(super) mod optional_time {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::Timestamp;

    pub(crate) fn serialize<S: Serializer>(time: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        time.map(Timestamp::nanos).serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(from)?.map(Timestamp::from_nanos))
    }
}

/// A range is its start and its end.
pub(super) mod range {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::{TimeRange, Timestamp};

    pub(crate) fn serialize<S: Serializer>(range: &TimeRange, out: S) -> Result<S::Ok, S::Error> {
        (range.start.nanos(), range.end.nanos()).serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TimeRange, D::Error> {
        let (start, end) = <(i64, i64)>::deserialize(from)?;
        Ok(TimeRange { start: Timestamp::from_nanos(start), end: Timestamp::from_nanos(end) })
    }
}

/// Metadata is the number of the kind, the unit and the help.
pub(super) mod metadata {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::{Metadata, MetricKind};

    pub(crate) fn serialize<S: Serializer>(metadata: &Metadata, out: S) -> Result<S::Ok, S::Error> {
        (metadata.kind as u8, &metadata.unit, &metadata.help).serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Metadata, D::Error> {
        let (number, unit, help) = <(u8, String, String)>::deserialize(from)?;
        let kind = MetricKind::from_number(number);
        let kind = kind.ok_or_else(|| D::Error::custom(format_args!("unknown metric kind {number}")))?;
        Ok(Metadata { kind, unit, help })
    }
}

/// A selector is a list of keys with a numbered condition and its texts.
pub(super) mod selector {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::{Match, Matcher, Regex, Selector};

    type Texts = Vec<String>;

    fn condition_parts(condition: &Match) -> (u8, Texts) {
        match condition {
            Match::Equal(value) => (1, vec![value.clone()]),
            Match::NotEqual(value) => (2, vec![value.clone()]),
            Match::In(values) => (3, values.clone()),
            Match::Regex(regex) => (4, vec![regex.pattern().to_owned()]),
            Match::NotRegex(regex) => (5, vec![regex.pattern().to_owned()]),
            Match::Present => (6, Vec::new()),
            Match::Absent => (7, Vec::new()),
        }
    }

    fn condition(number: u8, mut texts: Texts) -> Option<Match> {
        if number == 3 {
            return Some(Match::In(texts));
        }
        let text = texts.pop();
        match (number, text, texts.is_empty()) {
            (1, Some(value), true) => Some(Match::Equal(value)),
            (2, Some(value), true) => Some(Match::NotEqual(value)),
            (4, Some(pattern), true) => Regex::new(&pattern).ok().map(Match::Regex),
            (5, Some(pattern), true) => Regex::new(&pattern).ok().map(Match::NotRegex),
            (6, None, true) => Some(Match::Present),
            (7, None, true) => Some(Match::Absent),
            _ => None,
        }
    }

    pub(crate) fn serialize<S: Serializer>(selector: &Selector, out: S) -> Result<S::Ok, S::Error> {
        let parts = |matcher: &Matcher| {
            let (number, texts) = condition_parts(&matcher.condition);
            (matcher.key.clone(), number, texts)
        };
        selector.matchers.iter().map(parts).collect::<Vec<_>>().serialize(out)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Selector, D::Error> {
        let mut selector = Selector::all();
        for (key, number, texts) in Vec::<(String, u8, Texts)>::deserialize(from)? {
            let condition = condition(number, texts);
            let condition =
                condition.ok_or_else(|| D::Error::custom(format_args!("no condition {number}")))?;
            selector.matchers.push(Matcher { key, condition });
        }
        Ok(selector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::edit_of_everything;

    #[test]
    fn a_record_of_everything_round_trips() {
        let record = Record { sequence: 300, edit: edit_of_everything() };
        let mut out = Vec::new();
        put_record(&mut out, &record).unwrap();
        let mut reader = Reader::new(&out);
        assert_eq!(read_record(&mut reader).unwrap(), record);
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn a_record_has_known_bytes() {
        let mut out = Vec::new();
        put_record(&mut out, &Record { sequence: 5, edit: Edit { cut: Some(9), ..Edit::default() } })
            .unwrap();
        let payload = [5, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0, 0, 0];
        assert_eq!(out[..4], EDIT_MAGIC);
        assert_eq!(out[4..8], [payload.len() as u8, 0, 0, 0]);
        assert_eq!(out[8..out.len() - 4], payload);
    }
}
