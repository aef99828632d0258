//! Numbers, values and keys as text.

use std::io::{BufWriter, StdoutLock, Write};

use icecore::protocol::csv::pack_tags;
use icecore::{SeriesColumns, SeriesKey, Timestamp, ValueRef, is_stale};
use serde_json::{Value as Json, json};

use crate::failure::Outcome;

/// Standard output, buffered; flush it before the verb ends.
pub(crate) type Output = BufWriter<StdoutLock<'static>>;

/// Standard output.
pub(crate) fn stdout() -> Output {
    BufWriter::with_capacity(64 << 10, std::io::stdout().lock())
}

/// A double in the fewest digits that read back as the same one.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = value.abs();
    if value == 0.0 || (1e-5..1e17).contains(&size) { format!("{value}") } else { format!("{value:e}") }
}

/// A value for people and CSV files; bytes that are no text as hexadecimal digits.
pub(crate) fn value(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::F64(value) => number(value),
        ValueRef::I64(value) => value.to_string(),
        ValueRef::Bytes(bytes) => std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), str::to_owned),
    }
}

/// A value in JSON. What JSON has no number for is a string (`"NaN"`, `"stale"`, `"+Inf"`), a NaN of other bits than the
/// usual ones `"NaN:<16 hexadecimal digits>"`; bytes that are no text are `{"hex": "..."}`.
pub(crate) fn json_value(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::F64(v) if is_stale(v) => json!("stale"),
        ValueRef::F64(v) if v.is_nan() && v.to_bits() != f64::NAN.to_bits() => {
            json!(format!("NaN:{:016x}", v.to_bits()))
        }
        ValueRef::F64(v) if !v.is_finite() => json!(number(v)),
        ValueRef::F64(v) => json!(v),
        ValueRef::I64(v) => json!(v),
        ValueRef::Bytes(bytes) => {
            std::str::from_utf8(bytes).map_or_else(|_| json!({ "hex": hex(bytes) }), |text| json!(text))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tags as a JSON object.
pub(crate) fn json_tags(key: &SeriesKey) -> Json {
    Json::Object(key.tags().map(|(key, value)| (key.to_owned(), json!(value))).collect())
}

/// Times and values as text.
pub(crate) fn rows(piece: &SeriesColumns) -> impl Iterator<Item = (Timestamp, String)> + '_ {
    let text = |index| piece.values.get(index).map(value).unwrap_or_default();
    piece.times.iter().enumerate().map(move |(index, time)| (*time, text(index)))
}

/// Writes rows in the form that `icecore import` reads.
pub(crate) fn write_csv(out: &mut dyn Write, piece: &SeriesColumns) -> Outcome {
    let tags = pack_tags(piece.key.tags());
    let mut writer = csv::Writer::from_writer(out);
    for (time, text) in rows(piece) {
        writer.write_record([piece.key.name(), &tags, &time.to_string(), &text])?;
    }
    Ok(writer.flush()?)
}

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in bytes, short: `812 B`, `3.4 KiB`, `1.2 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_as_the_same() {
        for value in [0.0, -0.0, 0.1, 1e300, 5e-324, 4.41e6, f64::MAX, 1e-5, 123_456_789.25] {
            assert_eq!(number(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
        assert_eq!((number(4.41e6), number(1e300)), ("4410000".to_owned(), "1e300".to_owned()));
        assert_eq!(number(f64::NEG_INFINITY), "-Inf");
    }

    #[test]
    fn counts_and_sizes_are_short() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!((size(812), size(3_482)), ("812 B".to_owned(), "3.4 KiB".to_owned()));
    }
}
