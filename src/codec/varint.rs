//! Little-endian numbers, LEB128 and zig-zag: the `put_*` functions write, the bounded [`Reader`] reads.
//!
//! Called by every writer and reader of our own layouts (`docs/format.md`, "Numbers").
//! Reading never goes past the slice, never panics, and never allocates.

use crate::error::{Error, Result};

/// Longest LEB128 form of a `u64`, in bytes.
pub(crate) const UVARINT_SIZE_MAX: usize = 10;

/// Appends one byte.
pub(crate) fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends two bytes, little-endian.
pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends four bytes, little-endian.
pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends eight bytes, little-endian.
pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends 1 to 10 bytes: LEB128, seven bits a byte, lowest first.
#[inline]
pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number as the LEB128 of its zig-zag form.
#[inline]
pub(crate) fn put_ivarint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, zigzag(value));
}

/// Appends the length as LEB128, then the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A cursor over borrowed bytes. Every method takes from the front, or fails with `Corruption` and
/// leaves the cursor anywhere inside the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// At the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, position: 0 }
    }

    /// How many bytes were taken.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// What is left, without taking it.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// Fails when something is left: a layout was read whole and must end here.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(trailing(self.position, self.remaining())) }
    }

    /// The next `count` bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.rest().get(..count) {
            Some(taken) => {
                self.position += count;
                Ok(taken)
            }
            None => Err(short(self.position, count, self.remaining())),
        }
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest().first_chunk::<N>() {
            Some(taken) => {
                self.position += N;
                Ok(*taken)
            }
            None => Err(short(self.position, N, self.remaining())),
        }
    }

    /// One byte.
    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An LEB128 number; corrupt when it does not fit 64 bits.
    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u64> {
        match self.bytes.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(byte))
            }
            _ => self.uvarint_long(),
        }
    }

    fn uvarint_long(&mut self) -> Result<u64> {
        let start = self.position;
        let mut value = 0u64;
        for index in 0..UVARINT_SIZE_MAX {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if index == UVARINT_SIZE_MAX - 1 && byte > 1 {
                break;
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(too_long(start))
    }

    /// A zig-zag LEB128 number.
    #[inline]
    pub(crate) fn ivarint(&mut self) -> Result<i64> {
        self.uvarint().map(unzigzag)
    }

    /// An LEB128 number that must be at most `max`: a count or a length that `what` names.
    #[inline]
    pub(crate) fn uvarint_max(&mut self, max: usize, what: &str) -> Result<usize> {
        let start = self.position;
        let value = self.uvarint()?;
        match usize::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(over(start, what, value, max)),
        }
    }

    /// Bytes behind their LEB128 length, as [`put_bytes`] writes them.
    pub(crate) fn prefixed_bytes(&mut self) -> Result<&'a [u8]> {
        let size = self.uvarint_max(self.remaining(), "length")?;
        self.bytes(size)
    }
}

#[cold]
fn short(position: usize, wanted: usize, left: usize) -> Error {
    Error::corrupt(format!("{wanted} bytes expected at byte {position}, {left} are left"))
}

#[cold]
fn trailing(position: usize, left: usize) -> Error {
    Error::corrupt(format!("{left} bytes follow the end at byte {position}"))
}

#[cold]
fn too_long(position: usize) -> Error {
    Error::corrupt(format!("number at byte {position} does not fit 64 bits"))
}

#[cold]
fn over(position: usize, what: &str, found: u64, max: usize) -> Error {
    Error::corrupt(format!("{what} at byte {position} is {found}, at most {max} is possible"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_uvarint(value: u64, expected: &[u8]) {
        let mut out = Vec::new();
        put_uvarint(&mut out, value);
        assert_eq!(out, expected);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.uvarint().unwrap(), value);
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn uvarint_has_known_bytes() {
        check_uvarint(0, &[0]);
        check_uvarint(127, &[0x7f]);
        check_uvarint(128, &[0x80, 1]);
        check_uvarint(300, &[0xac, 2]);
        check_uvarint(u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }

    #[test]
    fn zigzag_alternates_and_keeps_extremes() {
        assert_eq!([0, -1, 1, -2, 2].map(zigzag), [0, 1, 2, 3, 4]);
        assert_eq!(zigzag(i64::MIN), u64::MAX);
        assert_eq!(unzigzag(zigzag(i64::MAX)), i64::MAX);
    }

    #[test]
    fn numbers_that_do_not_fit_are_corrupt() {
        let over = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(Reader::new(&over).uvarint().is_err());
        let endless = [0x80; 11];
        assert!(Reader::new(&endless).uvarint().is_err());
        assert!(Reader::new(&[0x80]).uvarint().is_err());
        assert!(Reader::new(&[]).uvarint().is_err());
    }

    #[test]
    fn a_length_beyond_the_end_is_corrupt_and_takes_no_memory() {
        let mut out = Vec::new();
        put_uvarint(&mut out, u64::MAX);
        assert!(Reader::new(&out).prefixed_bytes().is_err());
        assert!(Reader::new(&[1, 2, 3]).bytes(usize::MAX).is_err());
        assert!(Reader::new(&[1, 2, 3]).u32().is_err());
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(a: u8, b: u16, c: u32, d: u64, e: u64, f: i64, g: Vec<u8>) {
            let mut out = Vec::new();
            put_u8(&mut out, a);
            put_u16(&mut out, b);
            put_u32(&mut out, c);
            put_u64(&mut out, d);
            put_uvarint(&mut out, e);
            put_ivarint(&mut out, f);
            put_bytes(&mut out, &g);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.u8().unwrap(), a);
            prop_assert_eq!(reader.u16().unwrap(), b);
            prop_assert_eq!(reader.u32().unwrap(), c);
            prop_assert_eq!(reader.u64().unwrap(), d);
            prop_assert_eq!(reader.uvarint().unwrap(), e);
            prop_assert_eq!(reader.ivarint().unwrap(), f);
            prop_assert_eq!(reader.prefixed_bytes().unwrap(), &g[..]);
            prop_assert_eq!(reader.position(), out.len());
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                let before = reader.position();
                if reader.uvarint().is_err() {
                    break;
                }
                prop_assert!(reader.position() > before);
            }
        }
    }
}
