//! Pages and columns: what is encoded decodes to the same bits; any bytes decode or are refused.

use super::{Input, only_corruption};
use crate::chunk::merge::ColumnSlice;
use crate::chunk::{
    Context, Effort, PAGE_SAMPLE_COUNT_MAX, PageMeta, TimeColumn, TimeColumnRef, TimesMeta, decode_times,
    encode_page, put_page_meta, read_page_meta,
};
use crate::codec::choose::{self, Encoding};
use crate::codec::varint::Reader;
use crate::model::{BytesColumn, Column, ValueRef, ValueType};

/// A page of any values comes back bit for bit, at any effort, and so does what its record says.
pub fn round_trip(input: &[u8]) {
    let mut input = Input(input);
    let effort = if input.byte().is_multiple_of(2) { Effort::Flush } else { Effort::Compact };
    let step = [1, 1000, 1_000_000_007, 1 << 55][input.below(4)];
    let shape = input.byte();
    let (mut times, mut values, mut time) = (Vec::new(), empty(input.byte()), input.word() as i64 / 2);
    let repeats = 1 + input.below(40);
    while !input.is_empty() {
        let value_at = input.0;
        for _ in 0..repeats {
            let next = time.checked_add(step * (1 + i64::from(shape & 1) * (times.len() as i64 % 7)));
            let Some(next) = next.filter(|_| times.len() < PAGE_SAMPLE_COUNT_MAX) else { break };
            input.0 = value_at;
            push(&mut values, shape >> 1, &mut input, times.len());
            times.push(next);
            time = next;
        }
        if input.0.len() == value_at.len() {
            break;
        }
    }
    if !times.is_empty() {
        check_page(&times, &values, effort);
    }
}

fn empty(kind: u8) -> Column {
    Column::new([ValueType::F64, ValueType::I64, ValueType::Bytes][usize::from(kind) % 3])
}

/// Adds a value: any bits, or one of the shapes for which there are encodings.
fn push(values: &mut Column, shape: u8, input: &mut Input<'_>, index: usize) {
    let index = index as i64;
    match values {
        Column::F64(values) => values.push(match shape % 4 {
            0 => f64::from_bits(input.word()),
            1 => (i64::from(input.byte()) + index) as f64 / 10f64.powi(i32::from(shape >> 2) % 20),
            2 => f64::from(input.byte()) * index as f64,
            _ => [0.0, -0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 2.0, f64::MAX][input.below(6)],
        }),
        Column::I64(values) => values.push(match shape % 3 {
            0 => input.word() as i64,
            1 => i64::from(input.byte()).wrapping_mul(1 << (shape >> 2)),
            _ => i64::MAX.wrapping_add(i64::from(input.byte()) * index),
        }),
        Column::Bytes(values) => {
            let size = input.below(20);
            values.push(&input.bytes(size).repeat(1 + usize::from(shape >> 4)));
        }
    }
}

/// Columns as bits, so that a NaN equals itself.
fn bits(column: &Column) -> (Vec<u64>, Option<BytesColumn>) {
    match column {
        Column::F64(values) => (values.iter().map(|value| value.to_bits()).collect(), None),
        Column::I64(values) => (values.iter().map(|value| *value as u64).collect(), None),
        Column::Bytes(values) => (Vec::new(), Some(values.clone())),
    }
}

fn check_page(times: &[i64], values: &Column, effort: Effort) {
    let page = encode_page(times, ColumnSlice::new(values, 0, values.len()), effort);
    let (mut found_times, mut found) = (vec![-1], Column::new(values.value_type()));
    page.decode_times(&mut found_times).unwrap();
    assert_eq!(found_times[1..], *times);
    page.decode_values(&mut found).unwrap();
    assert_eq!(bits(&found), bits(values));
    let step = match page.times {
        TimeColumn::Affine { step, .. } => step,
        TimeColumn::Packed(_) => return,
    };
    let meta = PageMeta {
        min_time: page.min_time,
        max_time: page.max_time,
        times: TimesMeta::Affine { step },
        encoding: page.encoding,
        values_size: page.values.len() as u32,
        aggregate: page.aggregate,
    };
    for context in [Context::Start, Context::Beside(&meta)] {
        check_record(context, &meta, values.value_type());
    }
}

/// A record is read as it was written. Debug text has every bit of a double but those of a NaN.
fn check_record(context: Context<'_>, meta: &PageMeta, value_type: ValueType) {
    let mut record = Vec::new();
    put_page_meta(&mut record, context, meta, &[]);
    let mut reader = Reader::new(&record);
    let found = read_page_meta(&mut reader, context, value_type, &[]).unwrap();
    reader.finish().unwrap();
    assert_eq!(format!("{found:?}"), format!("{meta:?}"));
}

/// Any bytes, taken as a column of any encoding, as times and as a page record.
pub fn decode(input: &[u8]) {
    let mut input = Input(input);
    let (encoding, kind) = (input.byte(), input.byte());
    let count = usize::from(u16::from_le_bytes([input.byte(), input.byte()])) % (PAGE_SAMPLE_COUNT_MAX + 2);
    let bytes = input.0;
    let mut column = empty(kind);
    let constant = match column {
        Column::F64(_) => ValueRef::F64(1.0),
        Column::I64(_) => ValueRef::I64(1),
        Column::Bytes(_) => ValueRef::Bytes(&[]),
    };
    if let Some(encoding) = Encoding::from_number(encoding % 10) {
        match choose::decode(encoding, count, bytes, constant, &mut column) {
            Ok(()) => assert_eq!(column.len(), count),
            Err(error) => only_corruption(&error),
        }
    }
    let mut times = Vec::new();
    match decode_times(count as u32, TimeColumnRef::Packed(bytes), &mut times) {
        Ok(()) => assert!(times.len() == count && times.is_sorted_by(|a, b| a < b)),
        Err(error) => only_corruption(&error),
    }
    let value_type = column.value_type();
    let mut reader = Reader::new(bytes);
    let Ok(first) = read_page_meta(&mut reader, Context::Start, value_type, &[]) else { return };
    check_times(&first);
    if let Ok(second) = read_page_meta(&mut reader, Context::After(&first), value_type, &[]) {
        check_times(&second);
    }
}

fn check_times(page: &PageMeta) {
    assert!(page.min_time <= page.max_time);
    assert!((1..=PAGE_SAMPLE_COUNT_MAX as u32).contains(&page.aggregate.count));
    if let TimesMeta::Affine { step } = page.times {
        let mut times = Vec::new();
        let column = TimeColumnRef::Affine { start: page.min_time, step };
        decode_times(page.aggregate.count, column, &mut times).unwrap();
        assert_eq!(times.last(), Some(&page.max_time));
    }
}
