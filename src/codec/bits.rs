//! Fixed-width bit packing of `u64`, in blocks of 128 values.
//!
//! Called by [`super::frame_of_reference`]. Layout in `docs/format.md`, "Frame of reference": value `i` lies at
//! bit `i * width`, lowest bit first, so eight values fill exactly `width` bytes. That is what makes the
//! decoder fast without intrinsics: for a width known at compile time each of the eight is one unaligned
//! load, one constant shift and one mask.

/// How many values one block holds.
pub(crate) const BLOCK_VALUE_COUNT: usize = 128;

/// Widest packing below whole words: a value at any bit of a byte then lies within eight bytes.
const WIDTH_PACKED_MAX: u32 = 57;

/// Most bytes of one packed block.
const BLOCK_SIZE_MAX: usize = BLOCK_VALUE_COUNT * 8;

/// The load of the last value of a group may reach this far behind the group.
const SLACK: usize = 8;

/// The width that holds values of `bits` bits: `bits` itself, or 64 when that is above 57.
pub(crate) const fn width_for(bits: u32) -> u32 {
    if bits > WIDTH_PACKED_MAX { u64::BITS } else { bits }
}

/// Whether a width read from disk is one that [`pack`] writes.
pub(crate) const fn is_width(width: u32) -> bool {
    width <= WIDTH_PACKED_MAX || width == u64::BITS
}

/// How many bytes `count` values of `width` bits take.
pub(crate) const fn packed_size(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// How many bits the value needs; 0 for zero.
pub(crate) const fn bit_length(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Appends the low `width` bits of each value. Bits above must be zero.
pub(crate) fn pack(values: &[u64], width: u32, out: &mut Vec<u8>) {
    debug_assert!(is_width(width));
    if width == u64::BITS {
        values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        return;
    }
    let mut word = 0u64;
    let mut filled = 0u32;
    for &value in values {
        word |= value << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= u64::BITS;
            // The part of `value` that did not fit; the shift is below 57 + 64, so it never overflows.
            word = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Unpacks one block from the front of `bytes`. Where they end early, the rest of the block is zero or
/// made of unspecified bits; the caller has compared lengths with [`packed_size`] and knows its count.
///
/// # Panics
/// For a width that [`is_width`] refuses.
pub(crate) fn unpack(bytes: &[u8], width: u32, out: &mut [u64; BLOCK_VALUE_COUNT]) {
    let size = packed_size(BLOCK_VALUE_COUNT, width);
    if bytes.len() >= size + SLACK {
        unpack_padded(bytes, width, out);
    } else {
        let mut padded = [0; BLOCK_SIZE_MAX + SLACK];
        let size = size.min(bytes.len());
        padded[..size].copy_from_slice(&bytes[..size]);
        unpack_padded(&padded, width, out);
    }
}

macro_rules! dispatch {
    ($width:expr, $bytes:expr, $out:expr, $($w:literal)*) => {
        match $width {
            0 => $out.fill(0),
            $($w => unpack_width::<$w>($bytes, $out),)*
            64 => unpack_words($bytes, $out),
            other => unreachable!("no packing has width {other}"),
        }
    };
}

fn unpack_padded(bytes: &[u8], width: u32, out: &mut [u64; BLOCK_VALUE_COUNT]) {
    dispatch!(width, bytes, out,
        1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30
        31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57);
}

fn unpack_width<const WIDTH: usize>(bytes: &[u8], out: &mut [u64; BLOCK_VALUE_COUNT]) {
    let mask = (1u64 << WIDTH) - 1;
    let (groups, _) = out.as_chunks_mut::<8>();
    for (index, group) in groups.iter_mut().enumerate() {
        let bytes = &bytes[index * WIDTH..index * WIDTH + WIDTH + SLACK];
        for (lane, value) in group.iter_mut().enumerate() {
            let bit = lane * WIDTH;
            *value = (word_at(bytes, bit / 8) >> (bit % 8)) & mask;
        }
    }
}

fn unpack_words(bytes: &[u8], out: &mut [u64; BLOCK_VALUE_COUNT]) {
    let (words, _) = bytes.as_chunks::<8>();
    for (value, word) in out.iter_mut().zip(words) {
        *value = u64::from_le_bytes(*word);
    }
}

#[inline(always)]
fn word_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(values: &[u64], width: u32) -> Vec<u8> {
        let mut out = Vec::new();
        pack(values, width, &mut out);
        out
    }

    #[test]
    fn packing_has_known_bytes() {
        assert_eq!(packed(&[1, 2, 3, 4, 5, 6, 7, 0], 3), [0xd1, 0x58, 0x1f]);
        assert_eq!(packed(&[0x1ff, 1], 9), [0xff, 0x03, 0x00]);
        assert!(packed(&[5; 100], 0).is_empty());
        assert_eq!(
            packed(&[u64::MAX, 1], 64),
            [255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn every_width_and_count_round_trips() {
        for width in (0..=64).filter(|width| is_width(*width)) {
            let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
            for count in [0, 1, 7, 8, 9, 63, 64, 65, 127, 128] {
                let values: Vec<u64> =
                    (0..count).map(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect();
                let bytes = packed(&values, width);
                assert_eq!(bytes.len(), packed_size(count, width));
                let mut out = [7; BLOCK_VALUE_COUNT];
                unpack(&bytes, width, &mut out);
                assert_eq!(out[..count], values, "width {width}, count {count}");
            }
        }
    }

    #[test]
    fn widths_above_57_are_whole_words() {
        assert_eq!([0, 57, 58, 64].map(width_for), [0, 57, 64, 64]);
        assert!(!is_width(58) && !is_width(63) && !is_width(65));
    }

    proptest! {
        #[test]
        fn any_bytes_unpack(bytes: Vec<u8>, width in 0u32..=64) {
            if is_width(width) {
                unpack(&bytes, width, &mut [0; BLOCK_VALUE_COUNT]);
            }
        }
    }
}
