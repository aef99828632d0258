//! One column of values to bytes: estimates each encoding and takes the smallest that pays; and back.
//!
//! Called by `chunk` for every page. The numbers in [`Encoding`] are on disk (`docs/format.md`, "Encodings").

use crate::codec::varint::Reader;
use crate::codec::{decimal, frame_of_reference, raw, text};
use crate::error::{Error, Result};
use crate::model::{Column, ValueRef};

/// Most values of one column that is encoded or decoded at once.
pub(crate) const COLUMN_VALUE_COUNT_MAX: usize = 2_048;

/// How the values of a page are written. Numbers are on disk and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Encoding {
    /// All values have the same bits; the page record holds them.
    Constant = 1,
    /// Eight bytes a value.
    Raw = 2,
    /// Integers, or doubles as decimals, in patched frame of reference.
    FrameOfReference = 3,
    /// Byte strings as they are.
    Plain = 7,
    /// Byte strings compressed by LZ4.
    Lz4 = 8,
}

impl Encoding {
    /// The encoding with this number on disk.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Encoding::Constant),
            2 => Some(Encoding::Raw),
            3 => Some(Encoding::FrameOfReference),
            7 => Some(Encoding::Plain),
            8 => Some(Encoding::Lz4),
            _ => None,
        }
    }
}

/// How much time encoding may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Flush: some nanoseconds a value.
    Flush,
    /// Compaction: some tens of nanoseconds a value, for what is read many times.
    Compact,
}

/// The bytes of a column of doubles, 1 to [`COLUMN_VALUE_COUNT_MAX`] of them. It cannot fail.
pub(crate) fn encode_f64(values: &[f64], _effort: Effort) -> (Encoding, Vec<u8>) {
    assert_count(values.len());
    let first = values[0].to_bits();
    if values.iter().all(|value| value.to_bits() == first) {
        return (Encoding::Constant, Vec::new());
    }
    let mut best = None;
    if let Some(decimals) = decimal::Decimals::of(values) {
        let mut out = Vec::new();
        decimals.put_header(&mut out);
        frame_of_reference::encode(&decimals.integers, &mut out);
        best = Some((Encoding::FrameOfReference, out));
    }
    smaller_or_raw(best, values.iter().map(|value| value.to_bits()))
}

/// The bytes of a column of integers, 1 to [`COLUMN_VALUE_COUNT_MAX`] of them. It cannot fail.
pub(crate) fn encode_i64(values: &[i64], _effort: Effort) -> (Encoding, Vec<u8>) {
    assert_count(values.len());
    if values.iter().all(|value| *value == values[0]) {
        return (Encoding::Constant, Vec::new());
    }
    let mut out = Vec::new();
    frame_of_reference::encode(values, &mut out);
    smaller_or_raw(Some((Encoding::FrameOfReference, out)), values.iter().map(|value| *value as u64))
}

fn assert_count(count: usize) {
    assert!((1..=COLUMN_VALUE_COUNT_MAX).contains(&count), "a column of {count} values is encoded");
}

fn smaller_or_raw(
    best: Option<(Encoding, Vec<u8>)>,
    bits: impl ExactSizeIterator<Item = u64>,
) -> (Encoding, Vec<u8>) {
    match best {
        Some(best) if best.1.len() < 8 * bits.len() => best,
        _ => {
            let mut out = Vec::with_capacity(8 * bits.len());
            raw::encode(bits, &mut out);
            (Encoding::Raw, out)
        }
    }
}

/// The bytes of a column of 1 to [`COLUMN_VALUE_COUNT_MAX`] byte strings. It cannot fail.
pub(crate) fn encode_bytes<'a>(
    strings: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> (Encoding, Vec<u8>) {
    assert_count(strings.len());
    let mut plain = Vec::new();
    text::encode_plain(strings.clone(), &mut plain);
    let mut compressed = Vec::new();
    text::encode_compressed(strings, &mut compressed);
    if compressed.len() < plain.len() { (Encoding::Lz4, compressed) } else { (Encoding::Plain, plain) }
}

/// The bytes of times that strictly rise. They begin with the number of their encoding.
pub(crate) fn encode_times(times: &[i64], _effort: Effort) -> Vec<u8> {
    assert_count(times.len());
    let mut out = vec![Encoding::FrameOfReference as u8];
    frame_of_reference::encode(times, &mut out);
    out
}

/// Appends the `count` times in `bytes` to `out`. Whether they rise is for the caller to see.
///
/// # Errors
/// `Corruption` when the bytes are no such column; `out` may then hold some times more.
pub(crate) fn decode_times(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<()> {
    let Some((number, bytes)) = bytes.split_first() else {
        return Err(Error::corrupt("a time column of no bytes"));
    };
    match Encoding::from_number(*number) {
        Some(encoding @ Encoding::FrameOfReference) => {
            check_count(count)?;
            decode_i64(encoding, count, bytes, 0, out)
        }
        _ => Err(Error::corrupt(format!("encoding {number} does not occur with times"))),
    }
}

/// Appends the `count` values in `bytes` to `out`. `constant` is the value of a constant column; other
/// encodings do not look at it.
///
/// The caller has checked the checksum of `bytes`; all the same no bytes make this panic, or allocate
/// more than the count or the length of `bytes` justifies.
///
/// # Errors
/// `Corruption` when the bytes are no such column; `out` may then hold some values more.
pub(crate) fn decode(
    encoding: Encoding,
    count: usize,
    bytes: &[u8],
    constant: ValueRef<'_>,
    out: &mut Column,
) -> Result<()> {
    check_count(count)?;
    match (out, constant) {
        (Column::F64(out), ValueRef::F64(constant)) => decode_f64(encoding, count, bytes, constant, out),
        (Column::I64(out), ValueRef::I64(constant)) => decode_i64(encoding, count, bytes, constant, out),
        (Column::Bytes(out), ValueRef::Bytes(_)) => match encoding {
            Encoding::Plain => text::decode_plain(bytes, count, out),
            Encoding::Lz4 => text::decode_compressed(bytes, count, out),
            other => Err(wrong_encoding(other)),
        },
        _ => Err(Error::corrupt("a column of another type")),
    }
}

fn check_count(count: usize) -> Result<()> {
    match count {
        1..=COLUMN_VALUE_COUNT_MAX => Ok(()),
        _ => Err(Error::corrupt(format!("a column of {count} values"))),
    }
}

fn decode_f64(
    encoding: Encoding,
    count: usize,
    bytes: &[u8],
    constant: f64,
    out: &mut Vec<f64>,
) -> Result<()> {
    out.reserve(count);
    match encoding {
        Encoding::Constant => out.extend(std::iter::repeat_n(constant, count)),
        Encoding::Raw => out.extend(raw::decode(bytes, count)?.map(f64::from_bits)),
        Encoding::FrameOfReference => {
            return decode_decimals(bytes, count, out, |reader, emit| {
                frame_of_reference::decode(reader, count, emit)
            });
        }
        other => return Err(wrong_encoding(other)),
    }
    Ok(())
}

/// Appends doubles whose integers `decode` reads.
fn decode_decimals(
    bytes: &[u8],
    count: usize,
    out: &mut Vec<f64>,
    decode: impl FnOnce(&mut Reader<'_>, &mut dyn FnMut(&[i64])) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let header = decimal::Header::read(&mut reader, count)?;
    let start = out.len();
    let exponent = header.exponent;
    if exponent == 0 {
        decode(&mut reader, &mut |block| out.extend(block.iter().map(|integer| *integer as f64)))?;
    } else {
        decode(&mut reader, &mut |block| {
            out.extend(block.iter().map(|integer| decimal::from_integer(*integer, exponent)));
        })?;
    }
    reader.finish()?;
    header.apply(&mut out[start..])
}

fn decode_i64(
    encoding: Encoding,
    count: usize,
    bytes: &[u8],
    constant: i64,
    out: &mut Vec<i64>,
) -> Result<()> {
    out.reserve(count);
    match encoding {
        Encoding::Constant => out.extend(std::iter::repeat_n(constant, count)),
        Encoding::Raw => out.extend(raw::decode(bytes, count)?.map(|bits| bits as i64)),
        Encoding::FrameOfReference => {
            let mut reader = Reader::new(bytes);
            frame_of_reference::decode(&mut reader, count, |block| out.extend_from_slice(block))?;
            return reader.finish();
        }
        other => return Err(wrong_encoding(other)),
    }
    Ok(())
}

#[cold]
fn wrong_encoding(encoding: Encoding) -> Error {
    Error::corrupt(format!("encoding {} does not occur with this type of value", encoding as u8))
}
