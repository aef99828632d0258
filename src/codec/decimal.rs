//! Doubles as integers: where values are decimals of few digits, `value = integer / 10^exponent`, bit for
//! bit; where they are floats of 32 bits made longer, `value = (integer / 10^exponent) as f32`. Values for
//! which that does not hold are kept apart whole.
//!
//! Called by [`super::choose`] before the integer encodings, and by page records for the values in them.
//! Dividing by a power of ten is rounded correctly, so a value printed with up to 15 digits always comes
//! back; the encoder tries each value all the same. Layout in `docs/format.md`, "Decimals".

use crate::codec::varint::{Reader, put_u8, put_u64, put_uvarint};
use crate::error::{Error, Result};

/// Largest exponent: 10^22 is the largest power of ten that a double holds exactly.
pub(crate) const EXPONENT_MAX: u8 = 22;

const POWERS: [f64; EXPONENT_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// How many values are looked at to find the exponent.
const PROBE_COUNT: usize = 32;
/// One value in this many may be an exception; beyond that the step does not pay.
const EXCEPTION_SHARE: usize = 8;

/// Beyond this exponent it is tried whether the values are 32-bit floats of fewer digits.
const NARROW_ABOVE: u8 = 7;

const FLAG_EXCEPTIONS: u8 = 0x80;
const FLAG_NARROW: u8 = 0x40;

/// The integer that stands for `value` at `exponent`, if there is one.
#[inline]
pub(crate) fn to_integer(value: f64, exponent: u8) -> Option<i64> {
    let integer = nearest(value, POWERS[usize::from(exponent)]);
    (from_integer(integer, exponent).to_bits() == value.to_bits()).then_some(integer)
}

/// [`to_integer`] at exponent 0.
#[inline]
fn to_whole(value: f64) -> Option<i64> {
    let integer = value as i64;
    ((integer as f64).to_bits() == value.to_bits()).then_some(integer)
}

/// The integer that stands for `value`, a 32-bit float made longer.
#[inline]
fn to_narrow_integer(value: f64, exponent: u8) -> Option<i64> {
    let integer = nearest(value, POWERS[usize::from(exponent)]);
    (from_narrow_integer(integer, exponent).to_bits() == value.to_bits()).then_some(integer)
}

/// The 32-bit float, made longer, that `integer` stands for.
#[inline]
pub(crate) fn from_narrow_integer(integer: i64, exponent: u8) -> f64 {
    f64::from(from_integer(integer, exponent) as f32)
}

/// The value that `integer` stands for at `exponent`, which is at most [`EXPONENT_MAX`].
#[inline]
pub(crate) fn from_integer(integer: i64, exponent: u8) -> f64 {
    integer as f64 / POWERS[usize::from(exponent)]
}

/// The integer that comes closest to `value` at `exponent`.
pub(crate) fn nearest_integer(value: f64, exponent: u8) -> i64 {
    nearest(value, POWERS[usize::from(exponent)])
}

/// Rounded half away from zero; saturates. What it gives for NaN and the like is found out by comparing.
#[inline]
fn nearest(value: f64, power: f64) -> i64 {
    let scaled = value * power;
    (scaled + 0.5f64.copysign(scaled)) as i64
}

/// The smallest exponent at which `value` has an integer.
pub(crate) fn smallest_exponent(value: f64) -> Option<u8> {
    if !value.is_finite() {
        return None;
    }
    (0..=EXPONENT_MAX).find(|exponent| to_integer(value, *exponent).is_some())
}

fn smallest_narrow_exponent(value: f64) -> Option<u8> {
    if f64::from(value as f32).to_bits() != value.to_bits() || !value.is_finite() {
        return None;
    }
    (0..=EXPONENT_MAX).find(|exponent| to_narrow_integer(value, *exponent).is_some())
}

/// A column of doubles as integers.
#[derive(Debug)]
pub(crate) struct Decimals {
    exponent: u8,
    narrow: bool,
    /// One for each value. An exception has the integer before it, which costs an encoder least.
    pub(crate) integers: Vec<i64>,
    exceptions: Vec<(usize, u64)>,
}

impl Decimals {
    /// The column, if an exponent suits most of its values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        match probe(values, smallest_exponent) {
            Some(0) => Self::at(values, 0, false, to_whole),
            Some(exponent @ ..=NARROW_ABOVE) => {
                Self::at(values, exponent, false, |value| to_integer(value, exponent))
            }
            long => match (probe(values, smallest_narrow_exponent), long) {
                (Some(exponent), _) => {
                    Self::at(values, exponent, true, |value| to_narrow_integer(value, exponent))
                }
                (None, Some(exponent)) => {
                    Self::at(values, exponent, false, |value| to_integer(value, exponent))
                }
                (None, None) => None,
            },
        }
    }

    fn at(
        values: &[f64],
        exponent: u8,
        narrow: bool,
        to_integer: impl Fn(f64) -> Option<i64>,
    ) -> Option<Self> {
        let exception_count_max = values.len() / EXCEPTION_SHARE;
        let mut integers = Vec::with_capacity(values.len());
        let mut exceptions = Vec::new();
        let mut before = values.iter().find_map(|value| to_integer(*value))?;
        for (position, value) in values.iter().enumerate() {
            match to_integer(*value) {
                Some(integer) => before = integer,
                None => exceptions.push((position, value.to_bits())),
            }
            integers.push(before);
        }
        if exceptions.len() > exception_count_max {
            return None;
        }
        Some(Decimals { exponent, narrow, integers, exceptions })
    }

    /// Appends exponent and exceptions; the integers follow in an encoding of the caller's choice.
    pub(crate) fn put_header(&self, out: &mut Vec<u8>) {
        let unit = self.exponent | if self.narrow { FLAG_NARROW } else { 0 };
        if self.exceptions.is_empty() {
            put_u8(out, unit);
            return;
        }
        put_u8(out, unit | FLAG_EXCEPTIONS);
        let first = self.exceptions[0].1;
        let all_same = self.exceptions.iter().all(|(_, bits)| *bits == first);
        put_uvarint(out, (self.exceptions.len() as u64) << 1 | u64::from(all_same));
        let mut next = 0;
        for (position, _) in &self.exceptions {
            put_uvarint(out, (position - next) as u64);
            next = position + 1;
        }
        let kept = if all_same { 1 } else { self.exceptions.len() };
        self.exceptions[..kept].iter().for_each(|(_, bits)| put_u64(out, *bits));
    }
}

/// The smallest exponent that suits seven of eight values looked at.
fn probe(values: &[f64], smallest_exponent: impl Fn(f64) -> Option<u8>) -> Option<u8> {
    let step = values.len().div_ceil(PROBE_COUNT);
    let mut looked_at = 0;
    let mut exponents = [0u8; PROBE_COUNT];
    let mut suited = 0;
    for value in values.iter().step_by(step.max(1)) {
        looked_at += 1;
        if let Some(exponent) = smallest_exponent(*value) {
            exponents[suited] = exponent;
            suited += 1;
        }
        if looked_at - suited > PROBE_COUNT / EXCEPTION_SHARE {
            return None;
        }
    }
    let exponents = &mut exponents[..suited];
    exponents.sort_unstable();
    let allowed = looked_at / EXCEPTION_SHARE;
    let index = (looked_at - allowed).checked_sub(1)?;
    exponents.get(index.min(suited.checked_sub(1)?)).copied()
}

/// What [`Decimals::put_header`] wrote, borrowed.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    /// At which the integers behind the header stand for values.
    pub(crate) exponent: u8,
    /// Whether those are 32-bit floats.
    pub(crate) narrow: bool,
    count: usize,
    all_same: bool,
    positions: Reader<'a>,
    bits: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the header of a column of `value_count` values.
    ///
    /// # Errors
    /// `Corruption` for an unknown exponent, or exceptions outside the column.
    pub(crate) fn read(reader: &mut Reader<'a>, value_count: usize) -> Result<Self> {
        let first = reader.u8()?;
        let exponent = first & !(FLAG_EXCEPTIONS | FLAG_NARROW);
        let narrow = first & FLAG_NARROW != 0;
        if exponent > EXPONENT_MAX {
            return Err(Error::corrupt(format!("{exponent} is no decimal exponent")));
        }
        let mut header =
            Header { exponent, narrow, count: 0, all_same: false, positions: *reader, bits: &[] };
        if first & FLAG_EXCEPTIONS != 0 {
            let number = reader.uvarint_max(2 * value_count + 1, "count of decimal exceptions")?;
            header.count = number >> 1;
            header.all_same = number & 1 == 1;
            header.positions = *reader;
            let mut next = 0;
            for _ in 0..header.count {
                next += 1 + reader.uvarint_max(value_count, "distance of decimal exceptions")?;
                if next > value_count {
                    return Err(Error::corrupt(format!("decimal exception beyond {value_count} values")));
                }
            }
            header.bits = reader.bytes(8 * if header.all_same { 1 } else { header.count })?;
        }
        Ok(header)
    }

    /// Puts the exceptions into the decoded column.
    pub(crate) fn apply(&self, values: &mut [f64]) -> Result<()> {
        let mut positions = self.positions;
        let mut next = 0;
        let (bits, _) = self.bits.as_chunks::<8>();
        for index in 0..self.count {
            let position = next + positions.uvarint_max(values.len(), "distance of decimal exceptions")?;
            let bits = bits.get(if self.all_same { 0 } else { index });
            if let (Some(value), Some(bits)) = (values.get_mut(position), bits) {
                *value = f64::from_bits(u64::from_le_bytes(*bits));
            }
            next = position + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::STALE_NAN_BITS;

    #[track_caller]
    fn check_exponent(value: f64, expected: Option<u8>) {
        assert_eq!(smallest_exponent(value), expected, "{value}");
    }

    #[test]
    fn decimals_have_the_exponent_of_their_digits() {
        check_exponent(0.0, Some(0));
        check_exponent(42.0, Some(0));
        check_exponent(-1e15, Some(0));
        check_exponent(0.5, Some(1));
        check_exponent(20.1, Some(1));
        check_exponent(-273.15, Some(2));
        check_exponent(1e-9, Some(9));
        check_exponent(123456.789012345, Some(9));
    }

    #[test]
    fn what_has_no_integer_is_refused() {
        for value in
            [-0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(STALE_NAN_BITS), 1e300, 5e-324]
        {
            assert_eq!((0..=EXPONENT_MAX).find(|e| to_integer(value, *e).is_some()), None, "{value}");
        }
        assert_eq!(to_integer(9_223_372_036_854_775_808.0, 0), Some(i64::MAX));
    }

    #[test]
    fn exceptions_come_back_at_their_places() {
        for same in [true, false] {
            let mut values: Vec<f64> = (0..100).map(|i| f64::from(i) / 10.0).collect();
            for (index, position) in [0, 1, 50, 99].into_iter().enumerate() {
                let payload = if same { 2 } else { index as u64 };
                values[position] = f64::from_bits(0x7ff0_0000_0000_0002 + payload);
            }
            let decimals = Decimals::of(&values).unwrap();
            let mut out = Vec::new();
            decimals.put_header(&mut out);
            let header = Header::read(&mut Reader::new(&out), values.len()).unwrap();
            assert_eq!(header.exponent, 1);
            let mut back: Vec<f64> =
                decimals.integers.iter().map(|integer| from_integer(*integer, header.exponent)).collect();
            header.apply(&mut back).unwrap();
            assert!(back.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn floats_of_32_bits_have_few_digits() {
        let values: Vec<f64> = (0..100).map(|i| f64::from((107.37 + f64::from(i) / 100.0) as f32)).collect();
        let decimals = Decimals::of(&values).unwrap();
        assert_eq!((decimals.narrow, decimals.exponent), (true, 2));
        let back = decimals.integers.iter().map(|integer| from_narrow_integer(*integer, decimals.exponent));
        assert!(back.zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn headers_have_known_bytes() {
        let header = |values: &[f64]| {
            let mut out = Vec::new();
            Decimals::of(values).unwrap().put_header(&mut out);
            out
        };
        assert_eq!(header(&[1.0, 2.0]), [0]);
        assert_eq!(header(&[1.25, 2.0]), [2]);
        assert_eq!(header(&[f64::from(0.1f32), f64::from(0.2f32)]), [0x41]);
        let mut values = [0.5; 40];
        (values[3], values[9]) = (-0.0, -0.0);
        assert_eq!(header(&values), [0x81, 5, 3, 5, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    }

    #[test]
    fn noise_and_too_many_exceptions_are_refused() {
        let noise: Vec<f64> = (1..200).map(|i| f64::from(i).sqrt() / 7.0).collect();
        assert!(Decimals::of(&noise).is_none());
        assert!(Decimals::of(&[f64::NAN; 100]).is_none());
        assert!(Decimals::of(&[]).is_none());
    }

    #[test]
    fn headers_out_of_range_are_corrupt() {
        let read = |bytes: &[u8]| Header::read(&mut Reader::new(bytes), 10).map(|_| ());
        assert!(read(&[0x20]).is_err());
        assert!(read(&[23]).is_err());
        assert!(read(&[0x80, 24, 0]).is_err());
        assert!(read(&[0x80, 3, 10, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(read(&[0x80, 3, 9, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(read(&[0x80, 3, 9, 0, 0, 0, 0, 0, 0, 0, 0]).is_ok());
    }
}
