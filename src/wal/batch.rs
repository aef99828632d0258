//! What one batch frame holds, in memory and as bytes (`docs/format.md`, "Batch payload").
//!
//! Columns: the series' references, the times, the values. References and times are coded as runs
//! of equal steps, so that a tick over neighbouring series, or one series' regular column, costs a
//! few bytes however long it is. Made by `db::write`, applied by `head`, read back by `head::replay`.

use std::ops::Range;

use crate::codec::varint::{Reader, put_bytes, put_ivarint, put_u8, put_uvarint};
use crate::error::{Error, Result};
use crate::model::{BytesColumn, SeriesKey, ValueType};

/// Fewest bytes that a coded byte string or definition takes; bounds allocation by input.
const SMALLEST_ITEM: usize = 1;

/// The first use of a series in an epoch: its reference and what it stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    pub(crate) id: u32,
    pub(crate) value_type: ValueType,
    pub(crate) key: SeriesKey,
}

/// Samples in the order given; for one series and time the later wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BatchColumns {
    /// Samples of f64 and i64 series: reference, nanoseconds, bits of the value.
    pub(crate) ids: Vec<u32>,
    pub(crate) times: Vec<i64>,
    pub(crate) words: Vec<u64>,
    /// Samples of bytes series.
    pub(crate) bytes_ids: Vec<u32>,
    pub(crate) bytes_times: Vec<i64>,
    pub(crate) bytes: BytesColumn,
}

impl BatchColumns {
    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.ids.len() + self.bytes_ids.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says which series the samples at `positions`, among those of their kind, belong to.
    pub(crate) fn set_ids(&mut self, value_type: ValueType, positions: Range<u32>, id: u32) {
        let ids = if value_type == ValueType::Bytes { &mut self.bytes_ids } else { &mut self.ids };
        if let Some(places) = ids.get_mut(positions.start as usize..positions.end as usize) {
            places.fill(id);
        }
    }

    /// Adds all samples of `others` behind these.
    pub(crate) fn extend(&mut self, others: &BatchColumns) {
        self.ids.extend_from_slice(&others.ids);
        self.times.extend_from_slice(&others.times);
        self.words.extend_from_slice(&others.words);
        self.bytes_ids.extend_from_slice(&others.bytes_ids);
        self.bytes_times.extend_from_slice(&others.bytes_times);
        others.bytes.iter().for_each(|value| self.bytes.push(value));
    }

    /// Removes all samples, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.times.clear();
        self.words.clear();
        self.bytes_ids.clear();
        self.bytes_times.clear();
        self.bytes.clear();
    }

    /// An upper bound of the bytes that [`encode_batch`] adds for these samples.
    pub(crate) fn encoded_size_max(&self) -> usize {
        // Two samples of any ids or times share a run of at most 10 + 10 + 10 bytes.
        self.ids.len() * (15 + 15 + 8) + self.bytes_ids.len() * (15 + 15 + 5) + self.bytes.size() + 64
    }
}

/// Appends a batch payload.
pub(crate) fn encode_batch(definitions: &[Definition], columns: &BatchColumns, out: &mut Vec<u8>) {
    put_uvarint(out, definitions.len() as u64);
    for definition in definitions {
        put_uvarint(out, u64::from(definition.id));
        put_u8(out, definition.value_type as u8);
        put_bytes(out, definition.key.as_bytes());
    }
    put_uvarint(out, columns.ids.len() as u64);
    put_runs(out, columns.ids.iter().map(|id| i64::from(*id)));
    put_runs(out, columns.times.iter().copied());
    out.reserve(columns.words.len() * 8);
    for word in &columns.words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    put_uvarint(out, columns.bytes_ids.len() as u64);
    put_runs(out, columns.bytes_ids.iter().map(|id| i64::from(*id)));
    put_runs(out, columns.bytes_times.iter().copied());
    for value in columns.bytes.iter() {
        put_bytes(out, value);
    }
}

/// Reads a batch payload whole.
pub(crate) fn decode_batch(payload: &[u8]) -> Result<(Vec<Definition>, BatchColumns)> {
    let mut reader = Reader::new(payload);
    let definition_count = item_count(&mut reader)?;
    let mut definitions = Vec::with_capacity(definition_count.min(1 << 16));
    for _ in 0..definition_count {
        let id = get_id(reader.uvarint()?)?;
        let number = reader.u8()?;
        let value_type = ValueType::from_number(number)
            .ok_or_else(|| Error::corrupt(format!("unknown value type {number} in the log")))?;
        let size = reader.uvarint()?;
        let key = SeriesKey::from_bytes(reader.bytes(usize::try_from(size).unwrap_or(usize::MAX))?)?;
        definitions.push(Definition { id, value_type, key });
    }
    let mut columns = BatchColumns::default();
    let count = reader.uvarint()?;
    if count > reader.remaining() as u64 / 8 {
        return Err(Error::corrupt("a batch claims more samples than it has bytes"));
    }
    let count = count as usize;
    columns.ids.reserve_exact(count);
    get_runs(&mut reader, count, |first, step, len| push_ids(&mut columns.ids, first, step, len))?;
    columns.times.reserve_exact(count);
    get_runs(&mut reader, count, |first, step, len| push_times(&mut columns.times, first, step, len))?;
    let words = reader.bytes(count * 8)?;
    columns.words.extend(words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
    let count = item_count(&mut reader)?;
    get_runs(&mut reader, count, |first, step, len| push_ids(&mut columns.bytes_ids, first, step, len))?;
    get_runs(&mut reader, count, |first, step, len| push_times(&mut columns.bytes_times, first, step, len))?;
    for _ in 0..count {
        let size = reader.uvarint()?;
        columns.bytes.push(reader.bytes(usize::try_from(size).unwrap_or(usize::MAX))?);
    }
    reader.finish()?;
    Ok((definitions, columns))
}

fn item_count(reader: &mut Reader<'_>) -> Result<usize> {
    let count = reader.uvarint()?;
    if count > (reader.remaining() / SMALLEST_ITEM) as u64 {
        return Err(Error::corrupt("a batch claims more items than it has bytes"));
    }
    Ok(count as usize)
}

fn get_id(number: u64) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::corrupt("a series reference exceeds 32 bits"))
}

/// Codes numbers as runs: the first less the last before it, the count less one, the step (if any).
fn put_runs(out: &mut Vec<u8>, mut numbers: impl Iterator<Item = i64>) {
    let Some(mut first) = numbers.next() else { return };
    let (mut before, mut last, mut step, mut more) = (0i64, first, 0i64, 0u64);
    let mut put = |first: i64, before: i64, step: i64, more: u64| {
        put_ivarint(out, first.wrapping_sub(before));
        put_uvarint(out, more);
        if more > 0 {
            put_ivarint(out, step);
        }
    };
    for number in numbers {
        let this = number.wrapping_sub(last);
        if more == 0 || this == step {
            step = this;
            more += 1;
        } else {
            put(first, before, step, more);
            (before, first, step, more) = (last, number, 0, 0);
        }
        last = number;
    }
    put(first, before, step, more);
}

/// Reads runs that hold `count` numbers in all: calls `push(first, step, length)` for each.
fn get_runs(
    reader: &mut Reader<'_>,
    count: usize,
    mut push: impl FnMut(i64, i64, usize) -> Result<()>,
) -> Result<()> {
    let (mut left, mut before) = (count, 0i64);
    while left > 0 {
        let first = before.wrapping_add(reader.ivarint()?);
        let more = reader.uvarint()?;
        if more >= left as u64 {
            return Err(Error::corrupt("a run in the log is longer than its batch"));
        }
        let step = if more > 0 { reader.ivarint()? } else { 0 };
        push(first, step, more as usize + 1)?;
        before = first.wrapping_add(step.wrapping_mul(more as i64));
        left -= more as usize + 1;
    }
    Ok(())
}

fn push_ids(ids: &mut Vec<u32>, first: i64, step: i64, len: usize) -> Result<()> {
    let wrong = || Error::corrupt("a series reference in the log is out of range");
    let last = step.checked_mul(len as i64 - 1).and_then(|d| first.checked_add(d)).ok_or_else(wrong)?;
    if u32::try_from(first).is_err() || u32::try_from(last).is_err() {
        return Err(wrong());
    }
    // Both ends fit and the steps are equal, so all between fit.
    ids.extend((0..len as i64).map(|i| (first + step * i) as u32));
    Ok(())
}

fn push_times(times: &mut Vec<i64>, first: i64, step: i64, len: usize) -> Result<()> {
    times.extend((0..len as i64).map(|i| first.wrapping_add(step.wrapping_mul(i))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<Definition>, BatchColumns) {
        let definitions = vec![Definition {
            id: 7,
            value_type: ValueType::F64,
            key: SeriesKey::new("cpu", [("host", "a")]).unwrap(),
        }];
        let mut columns = BatchColumns::default();
        for (id, time, word) in
            [(7, 10, 1), (8, 10, 2), (9, 10, 3), (7, i64::MAX - 1, 4), (0, i64::MIN + 1, 5)]
        {
            columns.ids.push(id);
            columns.times.push(time);
            columns.words.push(word);
        }
        for value in [&b"event"[..], b"", &[0xFF; 300]] {
            columns.bytes_ids.push(u32::MAX);
            columns.bytes_times.push(-5);
            columns.bytes.push(value);
        }
        (definitions, columns)
    }

    #[test]
    fn batch_round_trips() {
        let (definitions, columns) = sample();
        let mut out = Vec::new();
        encode_batch(&definitions, &columns, &mut out);
        assert_eq!(decode_batch(&out).unwrap(), (definitions, columns.clone()));
        assert!(out.len() <= columns.encoded_size_max() + 32);
    }

    #[test]
    fn any_cut_or_flip_is_an_error_or_another_batch() {
        let (definitions, columns) = sample();
        let mut out = Vec::new();
        encode_batch(&definitions, &columns, &mut out);
        for cut in 0..out.len() {
            assert!(decode_batch(&out[..cut]).is_err());
        }
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = decode_batch(&flipped);
        }
    }

    #[test]
    fn a_tick_costs_its_values_and_a_few_bytes() {
        let mut columns = BatchColumns::default();
        for id in 0..1000 {
            columns.ids.push(id);
            columns.times.push(1_700_000_000_000_000_000);
            columns.words.push(0);
        }
        let mut out = Vec::new();
        encode_batch(&[], &columns, &mut out);
        assert!(out.len() < 8 * 1000 + 32, "{}", out.len());
        assert_eq!(decode_batch(&out).unwrap().1, columns);
    }
}
