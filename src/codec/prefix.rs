//! Residuals in a prefix code of the page's own: short codes for what is frequent, in four bit streams.
//!
//! Called by [`super::choose`] at compaction. Small random steps, the usual case of metrics, come within
//! some percent of their entropy, and a page of a few hundred samples pays for its own code table. Huffman,
//! "A method for the construction of minimum-redundancy codes" (1952), canonical; tokens with extra bits
//! as in DEFLATE (RFC 1951, section 3.2.5); several streams, so that the processor decodes them at once,
//! as in Zstandard's literals (RFC 8878, section 4.2). Layout in `docs/format.md`, "Prefix codes".

use crate::codec::residual::{Order, Shape, to_deltas};
use crate::codec::varint::{Reader, put_ivarint, put_u8, unzigzag, zigzag};
use crate::error::{Error, Result};

/// Longest code, in bits. The decoder's table has two to this power of entries, and every page builds one.
const LENGTH_MAX: u32 = 9;
/// In the count of tokens: numbers are residuals less a base, where steps go one way.
const FLAG_BASE: u8 = 0x80;
/// Numbers below this are tokens of their own.
const DIRECT_COUNT: u64 = 16;
/// Longest number that has a token: with a code it is read from 57 bits.
const NUMBER_BITS_MAX: u32 = 48;
/// Direct numbers, and two tokens for each length from 5 bits on.
const TOKEN_COUNT_MAX: usize = DIRECT_COUNT as usize + 2 * (NUMBER_BITS_MAX as usize - 4);
/// The residual at `i` lies in the stream `i` modulo this.
const STREAM_COUNT: usize = 4;
/// How many residuals are decoded at once.
const BLOCK_VALUE_COUNT: usize = 128;

/// Appends `values`, of which there is at least one. Returns false, appending nothing, when a residual is
/// too long for a token, or all have the same token.
pub(crate) fn encode(values: &[i64], out: &mut Vec<u8>) -> bool {
    let shape = Shape::of(values);
    let mut residuals = shape.residuals(values);
    let mut best: Option<Coded> = None;
    for order in [Order::Plain, Order::Delta, Order::Second] {
        if order != Order::Plain {
            to_deltas(&mut residuals);
        }
        let base = residuals.iter().copied().min().unwrap_or_default();
        for base in [None, Some(base)] {
            let coded = Coded::of(&residuals, order, base);
            if coded
                .as_ref()
                .is_some_and(|coded| best.as_ref().is_none_or(|best| coded.code.cost < best.code.cost))
            {
                best = coded;
            }
        }
    }
    let Some(Coded { order, base, numbers, code }) = best else { return false };
    Shape { order, ..shape }.put(out);
    code.put(base, out);
    put_streams(&numbers, &code, out);
    true
}

/// Residuals as numbers, and a code for them.
struct Coded {
    order: Order,
    /// Subtracted from each residual; without it, the number is the zig-zag form.
    base: Option<i64>,
    numbers: Vec<u64>,
    code: Code,
}

impl Coded {
    fn of(residuals: &[i64], order: Order, base: Option<i64>) -> Option<Self> {
        let numbers: Vec<u64> = match base {
            Some(base) => residuals.iter().map(|residual| residual.wrapping_sub(base) as u64).collect(),
            None => residuals.iter().map(|residual| zigzag(*residual)).collect(),
        };
        let code = Code::of(&numbers)?;
        Some(Coded { order, base, numbers, code })
    }
}

/// A number's token, and how many of its low bits follow the token's code.
fn token_of(number: u64) -> (usize, u32) {
    if number < DIRECT_COUNT {
        return (number as usize, 0);
    }
    let bits = u64::BITS - number.leading_zeros();
    let second = (number >> (bits - 2)) as usize & 1;
    (DIRECT_COUNT as usize + 2 * (bits as usize - 5) + second, bits - 2)
}

/// The smallest number of a token, and how many bits it adds to.
const fn token_range(token: usize) -> (u64, u32) {
    if token < DIRECT_COUNT as usize {
        return (token as u64, 0);
    }
    let above = token - DIRECT_COUNT as usize;
    let extra = above as u32 / 2 + 3;
    ((2 | (above as u64 & 1)) << extra, extra)
}

/// A prefix code: for each token the length of its code, 0 for tokens that do not occur.
struct Code {
    lengths: Vec<u8>,
    /// Bits of all codes and extra bits, and of the table.
    cost: usize,
}

impl Code {
    /// The best code for `numbers` within the longest length; `None` when a number is too long, or all
    /// have one token, which has no use for a code.
    fn of(numbers: &[u64]) -> Option<Self> {
        let mut counts = [0u32; TOKEN_COUNT_MAX];
        let mut extra_bits = 0;
        for number in numbers {
            let (token, extra) = token_of(*number);
            *counts.get_mut(token)? += 1;
            extra_bits += extra as usize;
        }
        let used = counts.iter().rposition(|count| *count != 0)? + 1;
        if counts.iter().filter(|count| **count > 0).count() < 2 {
            return None;
        }
        let lengths = code_lengths(&counts[..used]);
        let code_bits: usize =
            lengths.iter().zip(&counts).map(|(length, count)| usize::from(*length) * *count as usize).sum();
        Some(Code { cost: code_bits + extra_bits + 4 * used, lengths })
    }

    fn put(&self, base: Option<i64>, out: &mut Vec<u8>) {
        put_u8(out, self.lengths.len() as u8 | if base.is_some() { FLAG_BASE } else { 0 });
        if let Some(base) = base {
            put_ivarint(out, base);
        }
        for pair in self.lengths.chunks(2) {
            put_u8(out, pair[0] | pair.get(1).copied().unwrap_or_default() << 4);
        }
    }
}

/// Lengths of an optimal prefix code, cut to [`LENGTH_MAX`]. At least two counts are above zero.
fn code_lengths(counts: &[u32]) -> Vec<u8> {
    let mut lengths = huffman_lengths(counts);
    let mut by_count: Vec<usize> = (0..counts.len()).filter(|token| counts[*token] > 0).collect();
    by_count.sort_by_key(|token| counts[*token]);
    for token in &by_count {
        lengths[*token] = lengths[*token].min(LENGTH_MAX as u8);
    }
    // Cutting long codes short takes more room than there is; the rarest tokens below the limit give it.
    let full = 1i64 << LENGTH_MAX;
    let room = |length: u8| 1i64 << (LENGTH_MAX - u32::from(length));
    let mut taken: i64 = by_count.iter().map(|token| room(lengths[*token])).sum();
    while taken > full {
        let Some(token) = by_count.iter().find(|token| u32::from(lengths[**token]) < LENGTH_MAX) else {
            break;
        };
        taken -= room(lengths[*token]) / 2;
        lengths[*token] += 1;
    }
    // What that left over goes to the most frequent tokens that can use it.
    for token in by_count.iter().rev() {
        while lengths[*token] > 1 && taken + room(lengths[*token]) <= full {
            taken += room(lengths[*token]);
            lengths[*token] -= 1;
        }
    }
    lengths
}

/// Lengths of an optimal prefix code by the two-queue construction. At least two counts are above zero.
fn huffman_lengths(counts: &[u32]) -> Vec<u8> {
    let mut leaves: Vec<usize> = (0..counts.len()).filter(|token| counts[*token] > 0).collect();
    leaves.sort_by_key(|token| counts[*token]);
    let leaf_count = leaves.len();
    let mut weights: Vec<u32> = leaves.iter().map(|token| counts[*token]).collect();
    let mut parents = vec![0usize; 2 * leaf_count];
    let (mut leaf, mut inner) = (0, leaf_count);
    while weights.len() < 2 * leaf_count - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let take_leaf = leaf < leaf_count && (inner >= weights.len() || weights[leaf] <= weights[inner]);
            let node = if take_leaf { &mut leaf } else { &mut inner };
            parents[*node] = weights.len();
            weight += weights[*node];
            *node += 1;
        }
        weights.push(weight);
    }
    // The root is last; walking down from it, each node lies one deeper than its parent.
    let mut depths = vec![0u8; weights.len()];
    for node in (0..weights.len() - 1).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    let mut lengths = vec![0; counts.len()];
    for (token, depth) in leaves.iter().zip(&depths) {
        lengths[*token] = *depth;
    }
    lengths
}

/// The codes of a table of lengths, canonical: by length, then by token; first bit lowest.
fn canonical_codes(lengths: &[u8]) -> impl Iterator<Item = (usize, u32, u32)> {
    let mut next = 0u32;
    let mut length_before = 0;
    let by_length = (1..=LENGTH_MAX).flat_map(|length| (0..lengths.len()).map(move |token| (length, token)));
    by_length.filter(|(length, token)| u32::from(lengths[*token]) == *length).map(move |(length, token)| {
        next <<= length - length_before;
        length_before = length;
        let code = next.reverse_bits() >> (u32::BITS - length);
        next += 1;
        (token, code, length)
    })
}

fn put_streams(numbers: &[u64], code: &Code, out: &mut Vec<u8>) {
    let mut codes = [(0u32, 0u32); TOKEN_COUNT_MAX];
    canonical_codes(&code.lengths).for_each(|(token, code, length)| codes[token] = (code, length));
    let streams: [Vec<u8>; STREAM_COUNT] = std::array::from_fn(|stream| {
        let mut writer = BitWriter::default();
        for number in numbers.iter().skip(stream).step_by(STREAM_COUNT) {
            let (token, extra) = token_of(*number);
            let (code, length) = codes[token];
            writer.put(u64::from(code), length);
            writer.put(number & ((1 << extra) - 1), extra);
        }
        writer.finish()
    });
    let mut before = 0;
    for stream in &streams[..STREAM_COUNT - 1] {
        put_ivarint(out, stream.len() as i64 - before);
        before = stream.len() as i64;
    }
    streams.iter().for_each(|stream| out.extend_from_slice(stream));
}

/// Bits into bytes, lowest first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    filled: u32,
}

impl BitWriter {
    /// Up to 48 bits.
    fn put(&mut self, bits: u64, count: u32) {
        self.pending |= bits << self.filled;
        self.filled += count;
        while self.filled >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Reads `count` values and hands them to `emit` in order, up to 128 at a time.
///
/// # Errors
/// `Corruption`; some values may have been handed over by then.
pub(crate) fn decode(reader: &mut Reader<'_>, count: usize, mut emit: impl FnMut(&[i64])) -> Result<()> {
    let shape = Shape::read(reader)?;
    let first = reader.u8()?;
    let base = if first & FLAG_BASE != 0 { Some(reader.ivarint()?) } else { None };
    let table = Table::read(reader, usize::from(first & !FLAG_BASE))?;
    let mut streams = Streams::read(reader)?;
    emit(&[shape.first]);
    let mut restorer = shape.restorer();
    let mut numbers = [0u64; BLOCK_VALUE_COUNT];
    let mut block = [0i64; BLOCK_VALUE_COUNT];
    let mut left = count - 1;
    while left > 0 {
        let count = left.min(BLOCK_VALUE_COUNT);
        if table.all_direct {
            streams.decode_direct(&table, &mut numbers, count);
        } else {
            streams.decode(&table, &mut numbers, count);
        }
        match base {
            Some(base) => block
                .iter_mut()
                .zip(&numbers)
                .for_each(|(residual, number)| *residual = (*number as i64).wrapping_add(base)),
            None => {
                block.iter_mut().zip(&numbers).for_each(|(residual, number)| *residual = unzigzag(*number));
            }
        }
        restorer.restore(&mut block[..count]);
        emit(&block[..count]);
        left -= count;
    }
    streams.finish()
}

/// For the next bits of a stream: the token, its code's length and how many extra bits follow.
struct Table {
    entries: [Entry; 1 << LENGTH_MAX],
    mask: usize,
    /// Whether no token has extra bits.
    all_direct: bool,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    token: u8,
    length: u8,
    /// Of the code and the extra bits together.
    total: u8,
}

impl Table {
    fn read(reader: &mut Reader<'_>, token_count: usize) -> Result<Self> {
        if token_count == 0 || token_count > TOKEN_COUNT_MAX {
            return Err(Error::corrupt(format!("a prefix code of {token_count} tokens")));
        }
        let mut lengths = [0u8; TOKEN_COUNT_MAX + 1];
        for (pair, byte) in lengths.chunks_mut(2).zip(reader.bytes(token_count.div_ceil(2))?) {
            pair[0] = byte & 15;
            pair[1] = byte >> 4;
        }
        let lengths = &lengths[..token_count];
        Self::check(lengths)?;
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let mut table = Table {
            entries: [Entry::default(); 1 << LENGTH_MAX],
            mask: (1 << longest) - 1,
            all_direct: token_count <= DIRECT_COUNT as usize,
        };
        for (token, code, length) in canonical_codes(lengths) {
            let total = length as u8 + token_range(token).1 as u8;
            let entry = Entry { token: token as u8, length: length as u8, total };
            let entries = &mut table.entries[..=table.mask];
            entries[code as usize..].iter_mut().step_by(1 << length).for_each(|slot| *slot = entry);
        }
        Ok(table)
    }

    /// The codes must fill the table: then whatever bits follow have a token.
    fn check(lengths: &[u8]) -> Result<()> {
        let mut taken = 0;
        for length in lengths.iter().copied().filter(|length| *length > 0) {
            if u32::from(length) > LENGTH_MAX {
                return Err(Error::corrupt(format!("a prefix of {length} bits")));
            }
            taken += 1 << (LENGTH_MAX - u32::from(length));
        }
        if taken == 1 << LENGTH_MAX { Ok(()) } else { Err(Error::corrupt("a prefix code is not complete")) }
    }
}

/// The bit streams, each with the bit it is at. Bits behind the last byte are zero.
struct Streams<'a> {
    bytes: &'a [u8],
    bits: [usize; STREAM_COUNT],
    /// Where each stream must end, in bytes.
    ends: [usize; STREAM_COUNT],
}

impl<'a> Streams<'a> {
    /// Takes everything that is left.
    fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let mut sizes = [0usize; STREAM_COUNT - 1];
        let mut before = 0i64;
        for size in &mut sizes {
            before = before.wrapping_add(reader.ivarint()?);
            *size = usize::try_from(before).map_err(|_| Error::corrupt("a bit stream of negative size"))?;
        }
        let bytes = reader.bytes(reader.remaining())?;
        let mut streams = Streams { bytes, bits: [0; STREAM_COUNT], ends: [bytes.len(); STREAM_COUNT] };
        let mut start = 0usize;
        for (stream, size) in sizes.into_iter().enumerate() {
            let end = start.checked_add(size).filter(|end| *end <= bytes.len());
            start = end.ok_or_else(|| Error::corrupt("a bit stream ends behind its page"))?;
            streams.ends[stream] = start;
            streams.bits[stream + 1] = 8 * start;
        }
        Ok(streams)
    }

    /// At least 57 bits from `bit` on.
    #[inline(always)]
    fn word(&self, bit: usize) -> u64 {
        let offset = bit / 8;
        let word = match self.bytes.get(offset..offset + 8) {
            Some(bytes) => u64::from_le_bytes(bytes.try_into().unwrap_or_default()),
            None => self.last_word(offset),
        };
        word >> (bit % 8)
    }

    #[cold]
    fn last_word(&self, offset: usize) -> u64 {
        let rest = self.bytes.get(offset..).unwrap_or_default();
        rest.iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    fn decode(&mut self, table: &Table, numbers: &mut [u64; BLOCK_VALUE_COUNT], count: usize) {
        // A copy of the positions stays in registers.
        let mut bits = self.bits;
        let (whole, rest) = numbers[..count].as_chunks_mut::<STREAM_COUNT>();
        for numbers in whole {
            for (number, bit) in numbers.iter_mut().zip(&mut bits) {
                *number = self.next(table, bit);
            }
        }
        for (number, bit) in rest.iter_mut().zip(&mut bits) {
            *number = self.next(table, bit);
        }
        self.bits = bits;
    }

    #[inline(always)]
    fn next(&self, table: &Table, bit: &mut usize) -> u64 {
        let word = self.word(*bit);
        let entry = table.entries[word as usize & table.mask & ((1 << LENGTH_MAX) - 1)];
        *bit += usize::from(entry.total);
        // The extra bits lie between the code's length and the total.
        let extra = (word & !(u64::MAX << (entry.total & 63))) >> (entry.length & 63);
        BASES[usize::from(entry.token) % BASES.len()] + extra
    }

    /// The same where no token has extra bits: four codes fit one word.
    fn decode_direct(&mut self, table: &Table, numbers: &mut [u64; BLOCK_VALUE_COUNT], count: usize) {
        const CODES: usize = 4;
        if count < BLOCK_VALUE_COUNT {
            return self.decode(table, numbers, count);
        }
        let mut bits = self.bits;
        let (groups, _) = numbers.as_chunks_mut::<{ STREAM_COUNT * CODES }>();
        for group in groups {
            let mut words = bits.map(|bit| self.word(bit));
            let (rounds, _) = group.as_chunks_mut::<STREAM_COUNT>();
            for numbers in rounds {
                for ((number, word), bit) in numbers.iter_mut().zip(&mut words).zip(&mut bits) {
                    let entry = table.entries[*word as usize & table.mask & ((1 << LENGTH_MAX) - 1)];
                    *number = u64::from(entry.token);
                    *word >>= entry.length & 63;
                    *bit += usize::from(entry.length);
                }
            }
        }
        self.bits = bits;
    }

    /// Every stream must have been read to its last byte.
    fn finish(&self) -> Result<()> {
        let at_end = self.bits.iter().zip(&self.ends).all(|(bit, end)| bit.div_ceil(8) == *end);
        if at_end { Ok(()) } else { Err(Error::corrupt("bit streams end elsewhere than their codes")) }
    }
}

/// The smallest number of each token.
const BASES: [u64; 128] = {
    let mut bases = [0; 128];
    let mut token = 0;
    while token < TOKEN_COUNT_MAX {
        bases[token] = token_range(token).0;
        token += 1;
    }
    bases
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(values: &[i64]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        encode(values, &mut out).then_some(out)
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
        let bytes = encoded(values).expect("residuals are short enough");
        assert_eq!(decoded(&bytes, values.len()).unwrap(), values);
        bytes.len()
    }

    #[test]
    fn tokens_cover_every_number_once() {
        for token in 0..TOKEN_COUNT_MAX {
            let (base, extra) = token_range(token);
            assert_eq!(token_of(base), (token, extra));
            assert_eq!(token_of(base + (1 << extra) - 1), (token, extra));
        }
        assert_eq!(token_of((1 << NUMBER_BITS_MAX) - 1).0, TOKEN_COUNT_MAX - 1);
        assert_eq!(token_of(1 << NUMBER_BITS_MAX).0, TOKEN_COUNT_MAX);
    }

    #[test]
    fn layout_has_known_bytes() {
        // Differences of 1 (nine times), -1 (three times) and 5 above -1: tokens 2, 0 and 6, codes 0, 10, 11.
        let bytes = encoded(&[0, 1, 0, 1, 2, 1, 2, 3, 4, 3, 4, 5, 6, 11]).unwrap();
        assert_eq!(bytes[..2], [1, 0], "header");
        assert_eq!(bytes[2..8], [0x87, 1, 0x02, 0x01, 0, 0x02], "base and lengths");
        assert_eq!(bytes[8..], [2, 0, 0, 0b110_1010, 0b0001, 0, 0], "streams");
    }

    #[test]
    fn codes_are_complete_and_within_the_limit() {
        for counts in [
            vec![1, 1],
            vec![0, 900, 0, 1],
            (0..TOKEN_COUNT_MAX as u32).map(|token| token * token).collect(),
            (0..30).map(|token| 1u32 << token).collect(),
            (0..TOKEN_COUNT_MAX as u32).map(|token| 1 << (token % 20)).collect(),
        ] {
            let lengths = code_lengths(&counts);
            assert!(lengths.iter().all(|length| u32::from(*length) <= LENGTH_MAX));
            assert!(lengths.iter().zip(&counts).all(|(length, count)| (*length > 0) == (*count > 0)));
            assert!(Table::check(&lengths).is_ok(), "{counts:?} {lengths:?}");
        }
    }

    #[test]
    fn small_steps_come_near_their_entropy() {
        let mut state = 7u64;
        let walk: Vec<i64> = (0..720)
            .scan(50, |value, _| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *value += (state >> 62) as i64 - (state >> 61 & 1) as i64 - 1;
                Some(*value)
            })
            .collect();
        assert!(check(&walk) < 720 * 9 / 32 + 16, "the entropy is 2.25 bits");
    }

    #[test]
    fn numbers_that_are_too_long_are_left_to_others() {
        assert!(encoded(&[0, i64::MAX, i64::MIN, 3]).is_none());
        check(&[0, 1 << 46, 5, (1 << 46) + 1]);
    }

    fn column() -> impl Strategy<Value = Vec<i64>> {
        let value = prop_oneof![
            Just(0i64),
            -3i64..3,
            -100_000i64..100_000,
            -(1i64 << 46)..(1i64 << 46),
            (0i64..1000).prop_map(|i| i * 4096),
        ];
        prop_oneof![
            prop::collection::vec(value, 2..400),
            prop::collection::vec(-5i64..6, 2..700).prop_map(|steps| {
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
            if let Some(bytes) = encoded(&values) {
                prop_assert_eq!(decoded(&bytes, values.len()).unwrap(), values);
            }
        }

        #[test]
        fn damaged_bytes_never_panic(values in column(), at: usize, xor: u8, cut: usize, count in 1usize..2049) {
            if let Some(mut bytes) = encoded(&values) {
                let size = bytes.len();
                bytes[at % size] ^= xor;
                let _ = decoded(&bytes, values.len());
                let _ = decoded(&bytes, count);
                let _ = decoded(&bytes[..cut % size], values.len());
            }
        }
    }
}
