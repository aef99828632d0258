//! Columns of unsigned numbers: one reference, one width, bits packed lowest first.
//!
//! Called for the directories and series keys of blocks, whose columns are short (hundreds of numbers)
//! and mostly constant or rising. Layout in `docs/format.md`, "Packed columns".

use crate::codec::varint::{Reader, put_u8, put_uvarint, unzigzag, zigzag};
use crate::error::{Error, Result};

/// In the head byte: the numbers are the zig-zag differences from the one before (the first: from 0).
pub(crate) const DELTA_FLAG: u8 = 0x80;
/// Widest packed number, in bits.
pub(crate) const WIDTH_MAX: u8 = 64;

/// Appends `values`; their count is for the caller to keep. Takes the smaller of plain and delta form.
pub(crate) fn put_packed(out: &mut Vec<u8>, values: &[u64]) {
    if values.is_empty() {
        return;
    }
    let mut last = 0;
    let deltas: Vec<u64> = values
        .iter()
        .map(|value| {
            let delta = zigzag(value.wrapping_sub(last) as i64);
            last = *value;
            delta
        })
        .collect();
    // The first difference is the first value itself; it would spoil the width of the rest.
    let (first, rest) = (deltas.first().copied().unwrap_or_default(), deltas.get(1..).unwrap_or_default());
    let (_, plain) = frame(values);
    let (_, delta) = frame(rest);
    if usize::from(delta) * rest.len() + 8 < usize::from(plain) * values.len() {
        put_u8(out, delta | DELTA_FLAG);
        put_uvarint(out, first);
        put_bits(out, rest, delta);
    } else {
        put_u8(out, plain);
        put_bits(out, values, plain);
    }
}

/// The smallest of `values`, and the bits that the others take above it.
fn frame(values: &[u64]) -> (u64, u8) {
    let min = values.iter().copied().min().unwrap_or_default();
    let max = values.iter().copied().max().unwrap_or_default();
    (min, (64 - (max - min).leading_zeros()) as u8)
}

fn put_bits(out: &mut Vec<u8>, values: &[u64], width: u8) {
    let (min, _) = frame(values);
    put_uvarint(out, min);
    let (mut pending, mut used) = (0u128, 0u32);
    for value in values {
        pending |= u128::from(value - min) << used;
        used += u32::from(width);
        while used >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            used -= 8;
        }
    }
    if used > 0 {
        out.push(pending as u8);
    }
}

/// Reads `count` numbers into `values`, which is cleared first.
///
/// A constant column takes no bytes, so the caller bounds `count` by what it means before calling.
///
/// # Errors
/// `Corruption` when the bytes end before, the width is impossible or the reference overflows.
pub(crate) fn read_packed(reader: &mut Reader<'_>, count: usize, values: &mut Vec<u64>) -> Result<()> {
    values.clear();
    if count == 0 {
        return Ok(());
    }
    let head = reader.u8()?;
    let width = head & !DELTA_FLAG;
    if width > WIDTH_MAX {
        return Err(Error::corrupt(format!("a packed column has numbers of {width} bits")));
    }
    if head & DELTA_FLAG == 0 {
        return read_bits(reader, count, width, values);
    }
    let first = reader.uvarint()?;
    values.push(first);
    read_bits(reader, count - 1, width, values)?;
    let mut last = 0u64;
    for value in values.iter_mut() {
        last = last.wrapping_add(unzigzag(*value) as u64);
        *value = last;
    }
    Ok(())
}

fn read_bits(reader: &mut Reader<'_>, count: usize, width: u8, values: &mut Vec<u64>) -> Result<()> {
    let min = reader.uvarint()?;
    if width == 0 {
        values.resize(values.len() + count, min);
        return Ok(());
    }
    let width = usize::from(width);
    let size = count.checked_mul(width).map(|bits| bits.div_ceil(8));
    let bytes = reader.bytes(size.unwrap_or(usize::MAX))?;
    values.reserve(count);
    let mask = u64::MAX >> (64 - width);
    for index in 0..count {
        let bit = index * width;
        let value = (window(bytes, bit / 8) >> (bit % 8)) as u64 & mask;
        values.push(min.checked_add(value).ok_or_else(overflow)?);
    }
    Ok(())
}

/// The 16 bytes from `at`, zeros behind the end: a number of 64 bits may begin at any bit of the first.
#[inline]
fn window(bytes: &[u8], at: usize) -> u128 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<16>() {
        Some(chunk) => u128::from_le_bytes(*chunk),
        None => {
            let mut chunk = [0; 16];
            chunk.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u128::from_le_bytes(chunk)
        }
    }
}

#[cold]
fn overflow() -> Error {
    Error::corrupt("a number of a packed column exceeds 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(values: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        put_packed(&mut out, values);
        out
    }

    #[track_caller]
    fn check(values: &[u64], size_max: usize) {
        let out = packed(values);
        assert!(out.len() <= size_max, "{} bytes, at most {size_max} expected", out.len());
        let mut reader = Reader::new(&out);
        let mut read = vec![7];
        read_packed(&mut reader, values.len(), &mut read).unwrap();
        assert!(reader.finish().is_ok());
        assert_eq!(read, values);
    }

    #[test]
    fn sizes_are_as_expected() {
        check(&[], 0);
        check(&[5], 2);
        check(&[720; 1000], 3);
        check(&(0..1000).map(|i| 4096 + i * 700).collect::<Vec<_>>(), 8);
        check(&(0..1000).map(|i| i % 4).collect::<Vec<_>>(), 252);
        check(&[0, u64::MAX, 1, u64::MAX - 1], 34);
    }

    #[test]
    fn known_bytes() {
        assert_eq!(packed(&[9, 9, 9]), [0, 9]);
        assert_eq!(packed(&[1, 2, 3, 4]), [2, 1, 0b1110_0100]);
    }

    #[track_caller]
    fn refused(bytes: &[u8], count: usize) {
        assert!(read_packed(&mut Reader::new(bytes), count, &mut Vec::new()).is_err());
    }

    #[test]
    fn damaged_columns_are_refused() {
        refused(&[], 1);
        refused(&[65, 0, 0], 1);
        refused(&[8, 0], 1);
        refused(&[DELTA_FLAG], 1);
        refused(&[64, 0], usize::MAX / 32);
        refused(&[1], 1);
        // One above the largest number.
        refused(&[&[64, 1][..], &[255; 8]].concat(), 1);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read(values in prop::collection::vec(any::<u64>(), 0..200), shift in 0u32..64) {
            let values: Vec<u64> = values.iter().map(|v| v >> shift).collect();
            check(&values, values.len() * 9 + 24);
        }
    }
}
