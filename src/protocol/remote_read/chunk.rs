//! The chunk of Prometheus: XOR-compressed samples, for streamed remote read only. Nothing is stored in this form.
//!
//! Gorilla (VLDB 2015, section 4.1) with Prometheus' own widths, as its `tsdb/docs/format/chunks.md` ("XOR chunk data")
//! describes them: varints for the first time and step, 14, 17, 20 or 64 bits for a change of step, leading zeros capped
//! at 31 since their field has 5 bits.

/// Most samples of one chunk, as Prometheus cuts them.
pub const CHUNK_SAMPLES_MAX: usize = 120;
/// `Chunk.Encoding.XOR`.
pub(super) const ENCODING_XOR: i64 = 1;
/// The most leading zeros that 5 bits can say.
const LEADING_MAX: u32 = 31;

/// Compresses samples (milliseconds, value), at most [`CHUNK_SAMPLES_MAX`], to the bytes of a chunk.
pub(super) fn encode_xor(samples: &[(i64, f64)]) -> Vec<u8> {
    let count = u16::try_from(samples.len()).unwrap_or(u16::MAX);
    let mut out = BitWriter { bytes: count.to_be_bytes().to_vec(), free: 0 };
    let mut values = ValueState::default();
    let (mut last, mut last_step) = (0i64, 0i64);
    for (index, (time, value)) in samples.iter().enumerate() {
        let bits = value.to_bits();
        let step = time.wrapping_sub(last);
        match index {
            0 => {
                out.varint(zig_zag(*time));
                out.bits(bits, 64);
                values.bits = bits;
            }
            1 => {
                out.varint(step.cast_unsigned());
                values.put(&mut out, bits);
            }
            _ => {
                put_step_change(&mut out, step.wrapping_sub(last_step));
                values.put(&mut out, bits);
            }
        }
        (last, last_step) = (*time, step);
    }
    out.bytes
}

fn zig_zag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn put_step_change(out: &mut BitWriter, change: i64) {
    let fits = |width: u32| -((1i64 << (width - 1)) - 1) <= change && change <= 1i64 << (width - 1);
    let (prefix, prefix_width, width) = match change {
        0 => return out.bits(0, 1),
        _ if fits(14) => (0b10, 2, 14),
        _ if fits(17) => (0b110, 3, 17),
        _ if fits(20) => (0b1110, 4, 20),
        _ => (0b1111, 4, 64),
    };
    out.bits(prefix, prefix_width);
    out.bits(change.cast_unsigned(), width);
}

/// The last value, and the window of meaningful bits that the last change of value opened.
#[derive(Default)]
struct ValueState {
    bits: u64,
    window: Option<(u32, u32)>,
}

impl ValueState {
    fn put(&mut self, out: &mut BitWriter, bits: u64) {
        let change = bits ^ self.bits;
        self.bits = bits;
        if change == 0 {
            return out.bits(0, 1);
        }
        out.bits(1, 1);
        let leading = change.leading_zeros().min(LEADING_MAX);
        let trailing = change.trailing_zeros();
        if let Some((window_leading, window_trailing)) = self.window
            && leading >= window_leading
            && trailing >= window_trailing
        {
            out.bits(0, 1);
            return out.bits(change >> window_trailing, 64 - window_leading - window_trailing);
        }
        self.window = Some((leading, trailing));
        let width = 64 - leading - trailing;
        out.bits(1, 1);
        out.bits(u64::from(leading), 5);
        // 64 meaningful bits are written as 0, which cannot occur otherwise.
        out.bits(u64::from(width), 6);
        out.bits(change >> trailing, width);
    }
}

/// Bits to bytes, the highest first.
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not used yet.
    free: u32,
}

impl BitWriter {
    /// Appends the lowest `width` bits of `value`.
    fn bits(&mut self, value: u64, width: u32) {
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let count = left.min(self.free);
            let part = (value >> (left - count)) & ((1 << count) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= part.to_le_bytes()[0] << (self.free - count);
            }
            self.free -= count;
            left -= count;
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bits(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.bits(value, 8);
    }
}

/// CRC-32C (Castagnoli), which the frames of a streamed answer carry. `crc32fast` has the other polynomial only.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc: u32, byte| {
        let index = (crc.to_le_bytes()[0] ^ byte) as usize;
        TABLE[index] ^ crc >> 8
    })
}

const fn table() -> [u32; 256] {
    /// The polynomial 0x1EDC6F41, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::STALE_NAN_BITS;

    /// Reads a chunk back, written apart from the encoder after the same description.
    fn decode_xor(bytes: &[u8]) -> Vec<(i64, f64)> {
        struct Bits<'a>(&'a [u8], usize);
        impl Bits<'_> {
            fn take(&mut self, width: usize) -> u64 {
                (0..width).fold(0, |value, _| {
                    let bit = self.0[self.1 / 8] >> (7 - self.1 % 8) & 1;
                    self.1 += 1;
                    value << 1 | u64::from(bit)
                })
            }
            fn varint(&mut self) -> u64 {
                let (mut value, mut shift) = (0, 0);
                loop {
                    let byte = self.take(8);
                    value |= (byte & 0x7f) << shift;
                    shift += 7;
                    if byte < 0x80 {
                        return value;
                    }
                }
            }
        }
        let mut bits = Bits(bytes, 0);
        let count = bits.take(16);
        let (mut time, mut step, mut value) = (0i64, 0i64, 0u64);
        let (mut leading, mut trailing) = (0, 0);
        let mut samples = Vec::new();
        for index in 0..count {
            if index == 0 {
                let coded = bits.varint();
                time = (coded >> 1) as i64 ^ -((coded & 1) as i64);
                value = bits.take(64);
                samples.push((time, f64::from_bits(value)));
                continue;
            }
            if index == 1 {
                step = bits.varint() as i64;
            } else {
                let mut ones = 0;
                while ones < 4 && bits.take(1) == 1 {
                    ones += 1;
                }
                let width = [0, 14, 17, 20, 64][ones];
                let raw = bits.take(width);
                let change = if width != 64 && width != 0 && raw > 1 << (width - 1) {
                    raw as i64 - (1 << width)
                } else {
                    raw as i64
                };
                step += change;
            }
            time += step;
            if bits.take(1) == 1 {
                if bits.take(1) == 1 {
                    leading = bits.take(5) as usize;
                    let width = match bits.take(6) {
                        0 => 64,
                        width => width as usize,
                    };
                    trailing = 64 - leading - width;
                }
                value ^= bits.take(64 - leading - trailing) << trailing;
            }
            samples.push((time, f64::from_bits(value)));
        }
        samples
    }

    #[track_caller]
    fn check(samples: &[(i64, f64)]) {
        let decoded = decode_xor(&encode_xor(samples));
        let bits = |samples: &[(i64, f64)]| samples.iter().map(|s| (s.0, s.1.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&decoded), bits(samples));
    }

    #[test]
    fn chunks_round_trip() {
        check(&[]);
        check(&[(-5, -0.0)]);
        check(&[(i64::MAX / 2, 1.0), (i64::MAX / 2 + 1, f64::NAN)]);
        check(&[(0, f64::from_bits(STALE_NAN_BITS)), (1, f64::INFINITY), (2, 5e-324), (3, f64::MAX)]);
        let walk: Vec<_> =
            (0..120).map(|i| (1_700_000_000_000 + i * 15_000 + i % 3, (i * i % 77) as f64 / 8.0)).collect();
        check(&walk);
    }

    #[test]
    fn changes_of_step_reach_every_width() {
        for change in
            [0, 1, 8191, 8192, 8193, -8191, -8192, 65536, 65537, -65535, 524_288, 524_289, -524_287, 1 << 40]
        {
            let first = 1 << 41;
            check(&[(0, 1.0), (first, 2.0), (first * 2 + change, 3.0)]);
        }
    }

    #[test]
    fn known_bytes() {
        // Count 2; time 1 as zig-zag 2; 1.0; step 1; the same value is one zero bit.
        let expected = [0, 2, 2, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(encode_xor(&[(1, 1.0), (2, 1.0)]), expected);
    }

    #[test]
    fn crc_is_castagnoli() {
        // The check value of the catalogue of CRC algorithms, CRC-32/ISCSI.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }
}
