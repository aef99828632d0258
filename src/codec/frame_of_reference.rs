//! Patched frame of reference: residuals in blocks of 128, each less the block's smallest, packed to one
//! width; the few that need more keep their high bits behind the block.
//!
//! Called by [`super::choose`] for values at flush and by `chunk` for times. Cheap both ways. After Zukowski
//! et al., "Super-Scalar RAM-CPU Cache Compression" (ICDE 2006), PFOR. Layout in `docs/format.md`,
//! "Frame of reference".

use crate::codec::bits::{self, BLOCK_VALUE_COUNT};
use crate::codec::residual::{Order, Shape, to_deltas};
use crate::codec::varint::{Reader, put_ivarint, put_u8, put_uvarint};
use crate::error::{Error, Result};

/// Set in the width byte of a block that has exceptions.
const FLAG_EXCEPTIONS: u8 = 0x80;

/// How many lengths in bits a residual can have.
const LENGTH_COUNT: usize = u64::BITS as usize + 1;

/// Appends `values`, of which there is at least one, with or without differences, whichever is smaller.
pub(crate) fn encode(values: &[i64], out: &mut Vec<u8>) {
    let shape = Shape::of(values);
    let plain = shape.residuals(values);
    let mut deltas = plain.clone();
    to_deltas(&mut deltas);
    let (plain_form, delta_form) = (Form::of(&plain), Form::of(&deltas));
    let (order, residuals, form) = if delta_form.weight < plain_form.weight {
        (Order::Delta, deltas, delta_form)
    } else {
        (Order::Plain, plain, plain_form)
    };
    Shape { order, ..shape }.put(out);
    put_blocks(&residuals, &form, out);
}

/// Residuals at a glance.
struct Form {
    /// The smallest of each block.
    bases: Vec<i64>,
    /// The bits that residuals have above them. Cheaper to find than the size, and in nearly all columns it
    /// orders the two forms alike.
    weight: usize,
}

impl Form {
    fn of(residuals: &[i64]) -> Self {
        let mut form = Form { bases: Vec::with_capacity(residuals.len() / BLOCK_VALUE_COUNT + 1), weight: 0 };
        for block in residuals.chunks(BLOCK_VALUE_COUNT) {
            let base = block.iter().copied().min().unwrap_or_default();
            form.weight +=
                block.iter().map(|residual| bits::bit_length(above(*residual, base)) as usize).sum::<usize>();
            form.bases.push(base);
        }
        form
    }
}

/// The parameters of one block.
#[derive(Clone, Copy)]
struct BlockPlan {
    base: i64,
    width: u32,
    exception_count: usize,
    /// Estimated size in bits.
    cost: usize,
}

impl BlockPlan {
    fn of(residuals: &[i64], base: i64) -> Self {
        // Two tables in turn: equal lengths that follow each other would wait for one counter.
        let (mut counts, mut others) = ([0u8; LENGTH_COUNT], [0u8; LENGTH_COUNT]);
        for pair in residuals.chunks(2) {
            counts[bits::bit_length(above(pair[0], base)) as usize] += 1;
            if let Some(residual) = pair.get(1) {
                others[bits::bit_length(above(*residual, base)) as usize] += 1;
            }
        }
        counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
        let top = counts.iter().rposition(|count| *count != 0).unwrap_or_default() as u32;
        Self::cheapest(residuals.len(), base, &counts, top)
    }

    /// The width with the smallest estimate, given how many residuals have each bit length. An exception
    /// costs its position and its high bits, taken to be as long as the longest.
    fn cheapest(count: usize, base: i64, counts: &[u8; LENGTH_COUNT], top: u32) -> Self {
        let width = bits::width_for(top);
        let mut best = BlockPlan { base, width, exception_count: 0, cost: count * width as usize };
        let mut exception_count = 0;
        for length in (1..=top).rev() {
            exception_count += usize::from(counts[length as usize]);
            let width = length - 1;
            if bits::width_for(width) != width {
                continue;
            }
            let high_size = (top - width).div_ceil(7) as usize;
            let cost = count * width as usize + 8 + exception_count * (8 + 8 * high_size);
            if cost < best.cost {
                best = BlockPlan { base, width, exception_count, cost };
            }
        }
        best
    }
}

fn above(residual: i64, base: i64) -> u64 {
    residual.wrapping_sub(base) as u64
}

fn put_blocks(residuals: &[i64], form: &Form, out: &mut Vec<u8>) {
    let mut packed = Vec::with_capacity(BLOCK_VALUE_COUNT);
    let mut base_before = 0i64;
    for (residuals, base) in residuals.chunks(BLOCK_VALUE_COUNT).zip(&form.bases) {
        let block = BlockPlan::of(residuals, *base);
        let flag = if block.exception_count > 0 { FLAG_EXCEPTIONS } else { 0 };
        put_u8(out, block.width as u8 | flag);
        put_ivarint(out, block.base.wrapping_sub(base_before));
        base_before = block.base;
        packed.clear();
        packed.extend(residuals.iter().map(|residual| above(*residual, block.base)));
        if block.exception_count > 0 {
            put_exceptions(&mut packed, &block, out);
        }
        bits::pack(&packed, block.width, out);
    }
}

/// Writes what does not fit the block's width, and cuts it off.
fn put_exceptions(values: &mut [u64], block: &BlockPlan, out: &mut Vec<u8>) {
    put_u8(out, block.exception_count as u8);
    for (position, value) in values.iter_mut().enumerate() {
        let high = *value >> block.width;
        if high != 0 {
            put_u8(out, position as u8);
            put_uvarint(out, high);
            *value -= high << block.width;
        }
    }
}

/// Reads `count` values, at least one, and hands them to `emit` in order, up to 128 at a time.
///
/// # Errors
/// `Corruption`; some values may have been handed over by then.
pub(crate) fn decode(reader: &mut Reader<'_>, count: usize, mut emit: impl FnMut(&[i64])) -> Result<()> {
    let shape = Shape::read(reader)?;
    emit(&[shape.first]);
    let mut restorer = shape.restorer();
    let mut values = [0u64; BLOCK_VALUE_COUNT];
    let mut block = [0i64; BLOCK_VALUE_COUNT];
    let mut base = 0i64;
    let mut left = count - 1;
    while left > 0 {
        let count = left.min(BLOCK_VALUE_COUNT);
        base = read_block(reader, base, count, &mut values)?;
        for (residual, value) in block.iter_mut().zip(&values) {
            *residual = (*value as i64).wrapping_add(base);
        }
        restorer.restore(&mut block[..count]);
        emit(&block[..count]);
        left -= count;
    }
    Ok(())
}

/// Reads one block of `count` values above its base, and returns the base.
#[inline]
fn read_block(
    reader: &mut Reader<'_>,
    base_before: i64,
    count: usize,
    values: &mut [u64; BLOCK_VALUE_COUNT],
) -> Result<i64> {
    let first = reader.u8()?;
    let width = u32::from(first & !FLAG_EXCEPTIONS);
    if !bits::is_width(width) {
        return Err(Error::corrupt(format!("{width} is no width of packed bits")));
    }
    let base = base_before.wrapping_add(reader.ivarint()?);
    let exceptions =
        if first & FLAG_EXCEPTIONS != 0 { Some(Exceptions::read(reader, width, count)?) } else { None };
    // What lies behind the block is looked at, not used: it saves copying.
    let bytes = reader.rest();
    reader.bytes(bits::packed_size(count, width))?;
    bits::unpack(bytes, width, values);
    if let Some(exceptions) = exceptions {
        exceptions.apply(values);
    }
    Ok(base)
}

/// The exceptions of one block.
struct Exceptions {
    count: usize,
    positions: [u8; BLOCK_VALUE_COUNT],
    parts: [u64; BLOCK_VALUE_COUNT],
}

impl Exceptions {
    fn read(reader: &mut Reader<'_>, width: u32, value_count: usize) -> Result<Self> {
        let count = usize::from(reader.u8()?);
        if count > value_count {
            return Err(Error::corrupt(format!("{count} exceptions among {value_count} values")));
        }
        let mut exceptions =
            Exceptions { count, positions: [0; BLOCK_VALUE_COUNT], parts: [0; BLOCK_VALUE_COUNT] };
        for index in 0..count {
            let position = reader.u8()?;
            if usize::from(position) >= value_count {
                return Err(Error::corrupt(format!("exception at {position} of {value_count} values")));
            }
            exceptions.positions[index] = position;
            exceptions.parts[index] = reader.uvarint()?.checked_shl(width).unwrap_or(0);
        }
        Ok(exceptions)
    }

    fn apply(&self, values: &mut [u64; BLOCK_VALUE_COUNT]) {
        for (position, part) in self.positions.iter().zip(&self.parts).take(self.count) {
            values[usize::from(*position) % BLOCK_VALUE_COUNT] |= part;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(values: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(values, &mut out);
        out
    }

    fn decoded(bytes: &[u8], count: usize) -> Result<Vec<i64>> {
        let mut values = Vec::new();
        let mut reader = Reader::new(bytes);
        decode(&mut reader, count, |block| values.extend_from_slice(block))?;
        reader.finish()?;
        Ok(values)
    }

    #[track_caller]
    fn check(values: &[i64]) -> usize {
        let bytes = encoded(values);
        assert_eq!(decoded(&bytes, values.len()).unwrap(), values);
        bytes.len()
    }

    #[test]
    fn layout_has_known_bytes() {
        assert_eq!(encoded(&[7]), [0, 14]);
        assert_eq!(encoded(&[7, 8, 7, 9]), [0, 14, 2, 0, 0b10_00_01]);
        assert_eq!(encoded(&[0, 10, 20, 30]), [3, 0, 10, 0, 2]);
        let mut spike = vec![0; 100];
        spike[51] = 1000;
        assert_eq!(encoded(&spike), [2, 0, 0xe8, 7, 0x80, 0, 1, 50, 1]);
        spike[9] = 1;
        assert_eq!(encoded(&spike), [0, 0, 0x80, 0, 2, 8, 1, 50, 0xe8, 7]);
    }

    #[test]
    fn lines_cost_no_bits_and_outliers_stay_alone() {
        let line: Vec<i64> = (0..2000).map(|i| 1_700_000_000_000 + i * 10_000).collect();
        assert!(check(&line) < 50);
        let mut holes = line.clone();
        holes.retain(|value| value % 170_000 != 0);
        assert!(check(&holes) < 400);
    }

    #[test]
    fn extremes_round_trip() {
        check(&[i64::MIN, i64::MAX, i64::MIN, 0, -1, 1]);
        check(&[i64::MAX; 300]);
        check(&[i64::MIN, i64::MIN + 1, i64::MIN]);
        check(&(0..300).map(|i| if i % 2 == 0 { i64::MIN } else { i64::MAX }).collect::<Vec<_>>());
    }

    fn column() -> impl Strategy<Value = Vec<i64>> {
        let value = prop_oneof![
            Just(0i64),
            -3i64..3,
            -100_000i64..100_000,
            any::<i64>(),
            (0i64..1000).prop_map(|i| i * 4096),
        ];
        prop_oneof![
            prop::collection::vec(value, 1..400),
            prop::collection::vec(-5i64..6, 1..400).prop_map(|steps| {
                steps
                    .iter()
                    .scan(0, |sum, step| {
                        *sum += step;
                        Some(*sum)
                    })
                    .collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_column_round_trips(values in column()) {
            check(&values);
        }

        #[test]
        fn damaged_bytes_never_panic(values in column(), at: usize, xor: u8, cut: usize) {
            let mut bytes = encoded(&values);
            let size = bytes.len();
            bytes[at % size] ^= xor;
            let _ = decoded(&bytes, values.len());
            let _ = decoded(&bytes[..cut % size], values.len());
        }
    }
}
