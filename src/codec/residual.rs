//! Integers as residuals: less the first value, divided by what all steps have in common, optionally as
//! differences of neighbours, or differences of those. The step before every integer encoding.
//!
//! Called by [`super::frame_of_reference`] and [`super::prefix`]. Layout in `docs/format.md`, "Residuals".
//! All arithmetic wraps, so that every column of integers has residuals and gets its values back.

use crate::codec::varint::{Reader, put_ivarint, put_u8, put_uvarint};
use crate::error::{Error, Result};

const FLAG_DELTA: u8 = 1;
const FLAG_DIVISOR: u8 = 2;
const FLAG_SECOND: u8 = 4;

/// How residuals were made from values: the header of every integer encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The first value; it has no residual.
    pub(crate) first: i64,
    /// What every difference from the first value is a multiple of; 1 where nothing is.
    pub(crate) divisor: u64,
    /// What residuals are differences from.
    pub(crate) order: Order,
}

/// What residuals are differences from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The first value.
    Plain,
    /// The value before.
    Delta,
    /// The difference before: for counters that rise steadily.
    Second,
}

impl Shape {
    /// The shape of `values`, of which there is at least one, with residuals from the first value.
    pub(crate) fn of(values: &[i64]) -> Self {
        Shape { first: values[0], divisor: common_divisor(values), order: Order::Plain }
    }

    /// The residuals of `values` from the first value, in units of the divisor: one fewer than values.
    pub(crate) fn residuals(&self, values: &[i64]) -> Vec<i64> {
        let from_first = values[1..].iter().map(|value| value.wrapping_sub(self.first));
        match self.divisor {
            1 => from_first.collect(),
            // With a divisor no difference overflows, and neither does a divisor above i64::MAX occur.
            divisor if divisor.is_power_of_two() => {
                from_first.map(|difference| difference >> divisor.trailing_zeros()).collect()
            }
            divisor => from_first.map(|difference| difference / divisor as i64).collect(),
        }
    }

    /// Appends the header.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let order = match self.order {
            Order::Plain => 0,
            Order::Delta => FLAG_DELTA,
            Order::Second => FLAG_DELTA | FLAG_SECOND,
        };
        put_u8(out, order | flag(self.divisor > 1, FLAG_DIVISOR));
        put_ivarint(out, self.first);
        if self.divisor > 1 {
            put_uvarint(out, self.divisor);
        }
    }

    /// Reads the header.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let flags = reader.u8()?;
        let order = match flags & !FLAG_DIVISOR {
            0 => Order::Plain,
            FLAG_DELTA => Order::Delta,
            flags if flags == FLAG_DELTA | FLAG_SECOND => Order::Second,
            _ => return Err(Error::corrupt(format!("unknown residual flags {flags:#04x}"))),
        };
        let first = reader.ivarint()?;
        let divisor = if flags & FLAG_DIVISOR != 0 { reader.uvarint()? } else { 1 };
        Ok(Shape { first, divisor, order })
    }

    /// Turns residuals back into values, block after block.
    pub(crate) fn restorer(&self) -> Restorer {
        Restorer { shape: *self, last: self.first, slope: 0 }
    }
}

/// Replaces differences from the first value by differences from the value before; applied again, by the
/// differences of those.
pub(crate) fn to_deltas(residuals: &mut [i64]) {
    let mut before = 0;
    for residual in residuals {
        let value = *residual;
        *residual = value.wrapping_sub(before);
        before = value;
    }
}

/// The state between two blocks of one column.
#[derive(Debug)]
pub(crate) struct Restorer {
    shape: Shape,
    last: i64,
    slope: i64,
}

impl Restorer {
    /// Replaces the next residuals by their values.
    #[inline]
    pub(crate) fn restore(&mut self, residuals: &mut [i64]) {
        let divisor = self.shape.divisor as i64;
        if divisor != 1 {
            residuals.iter_mut().for_each(|residual| *residual = residual.wrapping_mul(divisor));
        }
        match self.shape.order {
            Order::Plain => {
                let first = self.shape.first;
                residuals.iter_mut().for_each(|residual| *residual = residual.wrapping_add(first));
            }
            Order::Delta => add_up(residuals, &mut self.last),
            Order::Second => {
                add_up(residuals, &mut self.slope);
                add_up(residuals, &mut self.last);
            }
        }
    }
}

/// Replaces differences by their sums, from `last` on.
#[inline]
fn add_up(differences: &mut [i64], last: &mut i64) {
    let mut sum = *last;
    for difference in differences {
        sum = sum.wrapping_add(*difference);
        *difference = sum;
    }
    *last = sum;
}

/// The greatest common divisor of all differences from the first value; 1 when they overflow, are all
/// zero, or have none. It stops at the first pair of differences without one, so it is cheap where it
/// finds nothing.
fn common_divisor(values: &[i64]) -> u64 {
    let first = values[0];
    let mut divisor = 0u64;
    for value in &values[1..] {
        let Some(difference) = value.checked_sub(first) else { return 1 };
        let difference = difference.unsigned_abs();
        if divisor == 0 || !is_multiple(difference, divisor) {
            divisor = greatest_common_divisor(difference, divisor);
            if divisor == 1 {
                return 1;
            }
        }
    }
    // 2^63 is a divisor of i64::MIN only, and no i64.
    if divisor == 0 || divisor > i64::MAX as u64 { 1 } else { divisor }
}

fn is_multiple(value: u64, divisor: u64) -> bool {
    if divisor.is_power_of_two() { value & (divisor - 1) == 0 } else { value.is_multiple_of(divisor) }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[i64], divisor: u64) {
        for (order, differences) in [(Order::Plain, 0), (Order::Delta, 1), (Order::Second, 2)] {
            let shape = Shape { order, ..Shape::of(values) };
            assert_eq!(shape.divisor, divisor, "{values:?}");
            let mut residuals = shape.residuals(values);
            (0..differences).for_each(|_| to_deltas(&mut residuals));
            let mut header = Vec::new();
            shape.put(&mut header);
            assert_eq!(Shape::read(&mut Reader::new(&header)).unwrap(), shape);
            let mut restorer = shape.restorer();
            for block in residuals.chunks_mut(2) {
                restorer.restore(block);
            }
            assert_eq!(residuals, values[1..]);
        }
    }

    #[test]
    fn values_come_back() {
        check(&[5], 1);
        check(&[5, 5, 5], 1);
        check(&[10, 40, 25, 10, 70], 15);
        check(&[4096, 8192, 0, -4096], 4096);
        check(&[1, 2, 4, 8, 16], 1);
        check(&[i64::MIN, i64::MAX, 0, -1, i64::MIN], 1);
        check(&[0, i64::MIN, 0], 1);
        check(&[i64::MIN, i64::MIN + 4, i64::MIN + 2], 2);
        check(&[0, i64::MAX, 0], i64::MAX as u64);
    }

    #[test]
    fn unknown_flags_are_corrupt() {
        assert!(Shape::read(&mut Reader::new(&[4, 0])).is_err());
        assert!(Shape::read(&mut Reader::new(&[8, 0])).is_err());
    }
}
