//! One column of values to bytes: estimates each encoding and takes the smallest that pays; and back.
//!
//! Called by `chunk` for every page. The numbers in [`Encoding`] are on disk (`docs/format.md`, "Encodings").

use crate::codec::varint::Reader;
use crate::codec::{decimal, frame_of_reference, pco, prefix, raw, text};
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
    /// The same integers in a prefix code of the page's own.
    Prefix = 4,
    /// The same integers by pco.
    Pco = 5,
    /// Doubles by pco, directly.
    PcoDoubles = 6,
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
            4 => Some(Encoding::Prefix),
            5 => Some(Encoding::Pco),
            6 => Some(Encoding::PcoDoubles),
            7 => Some(Encoding::Plain),
            8 => Some(Encoding::Lz4),
            _ => None,
        }
    }
}

/// pco is tried for columns of at least this many values; its tables cost more than it saves below.
const PCO_VALUE_COUNT_MIN: usize = 256;
/// Nor is it tried where this many bits a value or fewer are reached without it.
const PCO_BITS_MIN: usize = 3;
/// In percent: a frame of reference is taken whenever it is smaller than what is there.
const EVEN_SHARE: usize = 100;
/// In percent: a prefix code decodes somewhat slower, so it must save something.
const PREFIX_SHARE_MAX: usize = 97;
/// In percent: times are read with every page that shares them, and cost little.
const PREFIX_TIMES_SHARE_MAX: usize = 90;
/// In percent: pco decodes at a third of the speed, so it must save more.
const PCO_SHARE_MAX: usize = 93;

/// How much time encoding may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Flush: some nanoseconds a value.
    Flush,
    /// Compaction: some tens of nanoseconds a value, for what is read many times.
    Compact,
}

/// The bytes of a column of doubles, 1 to [`COLUMN_VALUE_COUNT_MAX`] of them. It cannot fail.
pub(crate) fn encode_f64(values: &[f64], effort: Effort) -> (Encoding, Vec<u8>) {
    assert_count(values.len());
    let first = values[0].to_bits();
    if values.iter().all(|value| value.to_bits() == first) {
        return (Encoding::Constant, Vec::new());
    }
    let mut best = raw_unless_smaller(values.len());
    if let Some(decimals) = decimal::Decimals::of(values) {
        let mut header = Vec::new();
        decimals.put_header(&mut header);
        encode_integers(&decimals.integers, &header, effort, &mut best);
    }
    if effort == Effort::Compact && best.may_gain_by_pco(values.len()) {
        best.offer(Encoding::PcoDoubles, PCO_SHARE_MAX, || pco::encode(values));
    }
    best.take(values.iter().map(|value| value.to_bits()))
}

/// The bytes of a column of integers, 1 to [`COLUMN_VALUE_COUNT_MAX`] of them. It cannot fail.
pub(crate) fn encode_i64(values: &[i64], effort: Effort) -> (Encoding, Vec<u8>) {
    assert_count(values.len());
    if values.iter().all(|value| *value == values[0]) {
        return (Encoding::Constant, Vec::new());
    }
    let mut best = raw_unless_smaller(values.len());
    encode_integers(values, &[], effort, &mut best);
    best.take(values.iter().map(|value| *value as u64))
}

/// Offers the encodings of integers, each behind `header`.
fn encode_integers(values: &[i64], header: &[u8], effort: Effort, best: &mut Best) {
    best.offer(Encoding::FrameOfReference, EVEN_SHARE, || {
        let mut out = header.to_vec();
        frame_of_reference::encode(values, &mut out);
        Some(out)
    });
    if effort == Effort::Flush {
        return;
    }
    best.offer(Encoding::Prefix, PREFIX_SHARE_MAX, || {
        let mut out = header.to_vec();
        prefix::encode(values, &mut out).then_some(out)
    });
    if best.may_gain_by_pco(values.len()) {
        best.offer(Encoding::Pco, PCO_SHARE_MAX, || {
            let mut out = header.to_vec();
            out.extend_from_slice(&pco::encode(values)?);
            Some(out)
        });
    }
}

/// The best encoding so far.
struct Best {
    encoding: Encoding,
    size: usize,
    bytes: Vec<u8>,
}

fn raw_unless_smaller(count: usize) -> Best {
    Best { encoding: Encoding::Raw, size: 8 * count, bytes: Vec::new() }
}

impl Best {
    /// Takes another encoding when it needs at most this share (in percent) of the bytes so far, and less.
    fn offer(&mut self, encoding: Encoding, share_max: usize, encode: impl FnOnce() -> Option<Vec<u8>>) {
        if let Some(bytes) = encode()
            && bytes.len() < self.size
            && 100 * bytes.len() <= share_max * self.size
        {
            *self = Best { encoding, size: bytes.len(), bytes };
        }
    }

    /// Whether pco is worth the time of trying it: it takes ten times as long as all else.
    fn may_gain_by_pco(&self, count: usize) -> bool {
        count >= PCO_VALUE_COUNT_MIN && 8 * self.size > PCO_BITS_MIN * count
    }

    fn take(self, bits: impl Iterator<Item = u64>) -> (Encoding, Vec<u8>) {
        if self.encoding != Encoding::Raw {
            return (self.encoding, self.bytes);
        }
        let mut out = Vec::with_capacity(self.size);
        raw::encode(bits, &mut out);
        (Encoding::Raw, out)
    }
}

fn assert_count(count: usize) {
    assert!((1..=COLUMN_VALUE_COUNT_MAX).contains(&count), "a column of {count} values is encoded");
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
pub(crate) fn encode_times(times: &[i64], effort: Effort) -> Vec<u8> {
    assert_count(times.len());
    let mut out = vec![Encoding::FrameOfReference as u8];
    frame_of_reference::encode(times, &mut out);
    if effort == Effort::Compact {
        let mut coded = vec![Encoding::Prefix as u8];
        if prefix::encode(times, &mut coded) && 100 * coded.len() <= PREFIX_TIMES_SHARE_MAX * out.len() {
            return coded;
        }
    }
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
        Some(encoding @ (Encoding::FrameOfReference | Encoding::Prefix)) => {
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
        Encoding::FrameOfReference | Encoding::Prefix | Encoding::Pco => {
            return decode_decimals(encoding, bytes, count, out);
        }
        Encoding::PcoDoubles => return pco::decode(bytes, count, out),
        other => return Err(wrong_encoding(other)),
    }
    Ok(())
}

/// Appends doubles that are written as integers.
fn decode_decimals(encoding: Encoding, bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let header = decimal::Header::read(&mut reader, count)?;
    let start = out.len();
    let exponent = header.exponent;
    if header.narrow {
        decode_integers(encoding, &mut reader, count, |block| {
            out.extend(block.iter().map(|integer| decimal::from_narrow_integer(*integer, exponent)));
        })?;
    } else if exponent == 0 {
        decode_integers(encoding, &mut reader, count, |block| {
            out.extend(block.iter().map(|integer| *integer as f64));
        })?;
    } else {
        decode_integers(encoding, &mut reader, count, |block| {
            out.extend(block.iter().map(|integer| decimal::from_integer(*integer, exponent)));
        })?;
    }
    header.apply(&mut out[start..])
}

/// Hands the integers of an encoding to `emit`, in order.
fn decode_integers(
    encoding: Encoding,
    reader: &mut Reader<'_>,
    count: usize,
    mut emit: impl FnMut(&[i64]),
) -> Result<()> {
    match encoding {
        Encoding::FrameOfReference => frame_of_reference::decode(reader, count, emit)?,
        Encoding::Prefix => prefix::decode(reader, count, emit)?,
        Encoding::Pco => {
            let mut integers = Vec::new();
            pco::decode(reader.bytes(reader.remaining())?, count, &mut integers)?;
            emit(&integers);
        }
        other => return Err(wrong_encoding(other)),
    }
    reader.finish()
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
        Encoding::FrameOfReference | Encoding::Prefix | Encoding::Pco => {
            let emit = |block: &[i64]| out.extend_from_slice(block);
            return decode_integers(encoding, &mut Reader::new(bytes), count, emit);
        }
        other => return Err(wrong_encoding(other)),
    }
    Ok(())
}

#[cold]
fn wrong_encoding(encoding: Encoding) -> Error {
    Error::corrupt(format!("encoding {} does not occur with this type of value", encoding as u8))
}
