//! Payloads of the rare frames: deletes and metadata (`docs/format.md`, "Delete and metadata payloads").

use crate::codec::varint::{Reader, put_bytes, put_ivarint, put_u8, put_uvarint};
use crate::error::{Error, Result};
use crate::model::{Match, Matcher, Metadata, MetricKind, Regex, Selector, TimeRange, Timestamp};

/// Series and a stretch of time whose samples go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeleteRecord {
    pub(crate) selector: Selector,
    pub(crate) range: TimeRange,
}

/// What a metric name means from now on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetadataRecord {
    pub(crate) name: String,
    pub(crate) metadata: Metadata,
}

pub(crate) fn encode_metadata(record: &MetadataRecord, out: &mut Vec<u8>) {
    put_bytes(out, record.name.as_bytes());
    put_u8(out, record.metadata.kind as u8);
    put_bytes(out, record.metadata.unit.as_bytes());
    put_bytes(out, record.metadata.help.as_bytes());
}

pub(crate) fn decode_metadata(payload: &[u8]) -> Result<MetadataRecord> {
    let mut reader = Reader::new(payload);
    let name = get_text(&mut reader)?;
    let number = reader.u8()?;
    let kind = MetricKind::from_number(number)
        .ok_or_else(|| Error::corrupt(format!("unknown metric kind {number} in the log")))?;
    let metadata = Metadata { kind, unit: get_text(&mut reader)?, help: get_text(&mut reader)? };
    reader.finish()?;
    Ok(MetadataRecord { name, metadata })
}

pub(crate) fn encode_delete(record: &DeleteRecord, out: &mut Vec<u8>) {
    put_ivarint(out, record.range.start.nanos());
    put_ivarint(out, record.range.end.nanos());
    put_uvarint(out, record.selector.matchers.len() as u64);
    for matcher in &record.selector.matchers {
        put_bytes(out, matcher.key.as_bytes());
        let (operator, values): (u8, Vec<&str>) = match &matcher.condition {
            Match::Equal(value) => (1, vec![value]),
            Match::NotEqual(value) => (2, vec![value]),
            Match::In(values) => (3, values.iter().map(String::as_str).collect()),
            Match::Regex(regex) => (4, vec![regex.pattern()]),
            Match::NotRegex(regex) => (5, vec![regex.pattern()]),
            Match::Present => (6, vec![]),
            Match::Absent => (7, vec![]),
        };
        put_u8(out, operator);
        put_uvarint(out, values.len() as u64);
        for value in values {
            put_bytes(out, value.as_bytes());
        }
    }
}

pub(crate) fn decode_delete(payload: &[u8]) -> Result<DeleteRecord> {
    let mut reader = Reader::new(payload);
    let range = TimeRange {
        start: Timestamp::from_nanos(reader.ivarint()?),
        end: Timestamp::from_nanos(reader.ivarint()?),
    };
    let mut matchers = Vec::new();
    for _ in 0..reader.uvarint()? {
        let key = get_text(&mut reader)?;
        let operator = reader.u8()?;
        let mut values = Vec::new();
        for _ in 0..reader.uvarint()? {
            values.push(get_text(&mut reader)?);
        }
        matchers.push(Matcher { key, condition: get_condition(operator, values)? });
    }
    reader.finish()?;
    Ok(DeleteRecord { selector: Selector { matchers }, range })
}

fn get_condition(operator: u8, mut values: Vec<String>) -> Result<Match> {
    let wrong =
        || Error::corrupt(format!("a matcher in the log has operator {operator}, which does not fit"));
    let single = matches!(operator, 1 | 2 | 4 | 5);
    if single != (values.len() == 1) && operator != 3 {
        return Err(wrong());
    }
    let regex =
        |values: Vec<String>| Regex::new(values.first().map_or("", String::as_str)).map_err(|_| wrong());
    Ok(match operator {
        1 => Match::Equal(values.pop().unwrap_or_default()),
        2 => Match::NotEqual(values.pop().unwrap_or_default()),
        3 => Match::In(values),
        4 => Match::Regex(regex(values)?),
        5 => Match::NotRegex(regex(values)?),
        6 => Match::Present,
        7 => Match::Absent,
        _ => return Err(wrong()),
    })
}

fn get_text(reader: &mut Reader<'_>) -> Result<String> {
    let size = usize::try_from(reader.uvarint()?).unwrap_or(usize::MAX);
    let text = std::str::from_utf8(reader.bytes(size)?);
    text.map(str::to_owned).map_err(|_| Error::corrupt("a text in the log is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_matcher_round_trips() {
        let selector = Selector::name(Match::regex("cpu.*").unwrap())
            .with("a", "1")
            .with("b", Match::not_equal("2"))
            .with("c", Match::any_of(["3", "4"]))
            .with("d", Match::not_regex("5|6").unwrap())
            .with("e", Match::Present)
            .with("f", Match::Absent)
            .with("g", Match::In(vec![]));
        let record = DeleteRecord { selector, range: TimeRange::ALL };
        let mut payload = Vec::new();
        encode_delete(&record, &mut payload);
        assert_eq!(decode_delete(&payload).unwrap(), record);
        for cut in 0..payload.len() {
            assert!(decode_delete(&payload[..cut]).is_err());
        }
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = decode_delete(&flipped);
        }
    }

    #[test]
    fn metadata_round_trips() {
        let metadata = Metadata { kind: MetricKind::Counter, unit: "s".into(), help: "Zeit".into() };
        let record = MetadataRecord { name: "a".into(), metadata };
        let mut payload = Vec::new();
        encode_metadata(&record, &mut payload);
        assert_eq!(decode_metadata(&payload).unwrap(), record);
    }
}
