//! The directory record of a page: where its times and values lie and what its aggregate is, in some
//! fifteen bytes.
//!
//! Called by the block writer and reader. A record is written against a [`Context`], a record that the
//! reader has read before; numbers are differences from it. Layout in `docs/format.md`, "Page records".

use crate::chunk::aggregate::{Detail, Ends, PageAggregate, Summary};
use crate::chunk::page::PAGE_SAMPLE_COUNT_MAX;
use crate::chunk::times::affine_end;
use crate::codec::choose::Encoding;
use crate::codec::decimal::{self, EXPONENT_MAX};
use crate::codec::varint::{Reader, put_ivarint, put_u8, put_u64, put_uvarint};
use crate::error::{Error, Result};
use crate::model::ValueType;

const TIMES_SAME_STEP: u8 = 0;
const TIMES_STEP: u8 = 1;
const TIMES_SHARED: u8 = 2;
const TIMES_SHARED_LESS: u8 = 3;
const TIMES_MASK: u8 = 3;
const FLAG_SAME_COUNT: u8 = 1 << 2;
const FLAG_RESERVED: u8 = 1 << 3;
const ENCODING_SHIFT: u32 = 4;

/// In the second byte: the low five bits are the decimal exponent, or this for values of eight bytes.
const EXPONENT_RAW: u8 = 31;
const EXPONENT_MASK: u8 = 31;
const FLAG_DETAIL: u8 = 1 << 5;
/// Sums are not integers at the exponent (doubles), or exceed 64 bits (integers).
const FLAG_SUM_RESTS: u8 = 1 << 6;
const FLAG_STALE: u8 = 1 << 7;

/// A time column that pages refer to by its index in the table of their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedColumn {
    /// Where the packed bytes lie in the file.
    pub(crate) offset: u64,
    /// How many bytes.
    pub(crate) size: u32,
    /// How many times.
    pub(crate) count: u32,
    /// The first time.
    pub(crate) min_time: i64,
    /// The last time.
    pub(crate) max_time: i64,
}

/// How a page finds its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimesMeta {
    /// A line from the page's first time on.
    Affine {
        /// The distance of neighbours; 0 for a single sample.
        step: i64,
    },
    /// A shared column.
    Shared {
        /// Its index in the table of the file.
        index: u32,
        /// Positions in it that the page lacks, rising.
        absent: Vec<u16>,
    },
}

/// One page, as the directory knows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PageMeta {
    /// Time of the first sample.
    pub(crate) min_time: i64,
    /// Time of the last sample.
    pub(crate) max_time: i64,
    /// Where the times are.
    pub(crate) times: TimesMeta,
    /// How the values are written.
    pub(crate) encoding: Encoding,
    /// How many bytes the values take; 0 for constant ones.
    pub(crate) values_size: u32,
    /// What is known of the values; its count is that of the page.
    pub(crate) aggregate: PageAggregate,
}

/// What a record is written against. Writer and reader must choose alike.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Context<'a> {
    /// Nothing: the first record.
    Start,
    /// The page before it, of the same series.
    After(&'a PageMeta),
    /// The first page of another series, for the first page of a series: likely to start at the same time.
    Beside(&'a PageMeta),
}

impl<'a> Context<'a> {
    fn page(self) -> Option<&'a PageMeta> {
        match self {
            Context::Start => None,
            Context::After(page) | Context::Beside(page) => Some(page),
        }
    }

    fn count(self) -> u32 {
        self.page().map_or(0, |page| page.aggregate.count)
    }

    fn step(self) -> i64 {
        match self.page().map(|page| &page.times) {
            Some(TimesMeta::Affine { step }) => *step,
            _ => 0,
        }
    }

    fn shared_index(self) -> i64 {
        match self.page().map(|page| &page.times) {
            Some(TimesMeta::Shared { index, .. }) => i64::from(*index),
            _ => 0,
        }
    }

    /// Where a line is expected to start.
    fn start(self, step: i64) -> i64 {
        match self {
            Context::Start => 0,
            Context::After(page) => page.max_time.wrapping_add(step),
            Context::Beside(page) => page.min_time,
        }
    }

    /// The double next to the page's first value.
    fn near_f64(self) -> f64 {
        match (self, self.page().map(|page| &page.aggregate.ends)) {
            (Context::After(_), Some(Ends::F64(summary))) => summary.last,
            (Context::Beside(_), Some(Ends::F64(summary))) => summary.first,
            _ => 0.0,
        }
    }

    /// The integer next to the page's first value.
    fn near_i64(self) -> i64 {
        match (self, self.page().map(|page| &page.aggregate.ends)) {
            (Context::After(_), Some(Ends::I64(summary))) => summary.last,
            (Context::Beside(_), Some(Ends::I64(summary))) => summary.first,
            _ => 0,
        }
    }
}

/// Appends the record of `page`.
pub(crate) fn put_page_meta(
    out: &mut Vec<u8>,
    context: Context<'_>,
    page: &PageMeta,
    shared: &[SharedColumn],
) {
    let count = page.aggregate.count;
    let same_count = if count == context.count() { FLAG_SAME_COUNT } else { 0 };
    let times = match &page.times {
        TimesMeta::Affine { step } if *step == context.step() || count == 1 => TIMES_SAME_STEP,
        TimesMeta::Affine { .. } => TIMES_STEP,
        TimesMeta::Shared { absent, .. } if absent.is_empty() => TIMES_SHARED,
        TimesMeta::Shared { .. } => TIMES_SHARED_LESS,
    };
    put_u8(out, times | same_count | (page.encoding as u8) << ENCODING_SHIFT);
    let values = ValueForm::of(page);
    put_u8(out, values.flags);
    if same_count == 0 && times != TIMES_SHARED {
        put_uvarint(out, u64::from(count));
    }
    put_times(out, context, page, shared);
    if page.encoding != Encoding::Constant {
        put_uvarint(out, u64::from(page.values_size));
    }
    if values.flags & FLAG_STALE != 0 {
        put_uvarint(out, u64::from(page.aggregate.stale_count));
    }
    match &page.aggregate.ends {
        Ends::F64(summary) if page.encoding == Encoding::Constant => {
            put_first_f64(out, context, &values, summary.first);
        }
        Ends::I64(summary) if page.encoding == Encoding::Constant => {
            put_ivarint(out, summary.first.wrapping_sub(context.near_i64()));
        }
        Ends::F64(summary) => put_f64(out, context, &values, summary, count),
        Ends::I64(summary) => put_i64(out, context, &values, summary, count),
        Ends::Bytes => {}
    }
}

/// Reads the record of a page whose series has this type of values.
///
/// # Errors
/// `Corruption` when it is cut short, refers to no shared column, or says what no page can be.
pub(crate) fn read_page_meta(
    reader: &mut Reader<'_>,
    context: Context<'_>,
    value_type: ValueType,
    shared: &[SharedColumn],
) -> Result<PageMeta> {
    let first = reader.u8()?;
    let values = ValueForm { flags: reader.u8()? };
    let encoding = Encoding::from_number(first >> ENCODING_SHIFT)
        .filter(|_| first & FLAG_RESERVED == 0)
        .ok_or_else(|| Error::corrupt(format!("page record starts with {first:#04x}")))?;
    let times = first & TIMES_MASK;
    let count = match (times, first & FLAG_SAME_COUNT != 0) {
        (TIMES_SHARED, _) => None,
        (_, true) => Some(context.count()),
        (_, false) => Some(reader.uvarint_max(PAGE_SAMPLE_COUNT_MAX, "count of samples")? as u32),
    };
    let found = read_times(reader, context, times, count, shared)?;
    let count = found.count;
    if count == 0 || count as usize > PAGE_SAMPLE_COUNT_MAX {
        return Err(Error::corrupt(format!("a page of {count} samples")));
    }
    let values_size = match encoding {
        Encoding::Constant => 0,
        _ => reader.uvarint_max(u32::MAX as usize, "size of values")? as u32,
    };
    let stale_count = match values.flags & FLAG_STALE {
        0 => 0,
        _ => reader.uvarint_max(count as usize, "count of staleness markers")? as u32,
    };
    let constant = encoding == Encoding::Constant;
    let aggregate = match value_type {
        ValueType::F64 if constant => {
            PageAggregate::of_constant_f64(read_first_f64(reader, context, &values)?, count)
        }
        ValueType::I64 if constant => {
            PageAggregate::of_constant_i64(context.near_i64().wrapping_add(reader.ivarint()?), count)
        }
        ValueType::F64 => {
            PageAggregate { count, stale_count, ends: Ends::F64(read_f64(reader, context, &values, count)?) }
        }
        ValueType::I64 => {
            PageAggregate { count, stale_count, ends: Ends::I64(read_i64(reader, context, &values, count)?) }
        }
        ValueType::Bytes => PageAggregate { count, stale_count, ends: Ends::Bytes },
    };
    let (min_time, max_time, times) = (found.min_time, found.max_time, found.times);
    Ok(PageMeta { min_time, max_time, times, encoding, values_size, aggregate })
}

fn put_times(out: &mut Vec<u8>, context: Context<'_>, page: &PageMeta, shared: &[SharedColumn]) {
    match &page.times {
        TimesMeta::Affine { step } => {
            let same_step = *step == context.step() || page.aggregate.count == 1;
            if !same_step {
                put_uvarint(out, *step as u64);
            }
            let step = if same_step { context.step() } else { *step };
            put_ivarint(out, page.min_time.wrapping_sub(context.start(step)));
        }
        TimesMeta::Shared { index, absent } => {
            put_ivarint(out, i64::from(*index) - context.shared_index());
            if !absent.is_empty() {
                put_absent(out, absent);
                let column = &shared[*index as usize];
                put_uvarint(out, page.min_time.wrapping_sub(column.min_time) as u64);
                put_uvarint(out, column.max_time.wrapping_sub(page.max_time) as u64);
            }
        }
    }
}

fn put_absent(out: &mut Vec<u8>, absent: &[u16]) {
    put_uvarint(out, absent.len() as u64);
    let mut next = 0;
    for position in absent {
        put_uvarint(out, u64::from(position - next));
        next = position + 1;
    }
}

struct FoundTimes {
    count: u32,
    min_time: i64,
    max_time: i64,
    times: TimesMeta,
}

/// Reads the times of a page whose count is known, unless it is that of its shared column.
fn read_times(
    reader: &mut Reader<'_>,
    context: Context<'_>,
    kind: u8,
    count: Option<u32>,
    shared: &[SharedColumn],
) -> Result<FoundTimes> {
    if let (TIMES_SAME_STEP | TIMES_STEP, Some(count)) = (kind, count) {
        let step = if kind == TIMES_STEP { reader.uvarint()? as i64 } else { context.step() };
        let min_time = context.start(step).wrapping_add(reader.ivarint()?);
        let step = if count == 1 { 0 } else { step };
        let max_time = affine_end(min_time, step, count.max(1))?;
        return Ok(FoundTimes { count, min_time, max_time, times: TimesMeta::Affine { step } });
    }
    let index = context.shared_index().wrapping_add(reader.ivarint()?);
    let index = usize::try_from(index).ok().filter(|index| *index < shared.len());
    let (index, column) = match index {
        Some(index) => (index as u32, shared[index]),
        None => return Err(Error::corrupt("a page refers to no shared time column")),
    };
    let Some(count) = count else {
        let SharedColumn { count, min_time, max_time, .. } = column;
        return Ok(FoundTimes {
            count,
            min_time,
            max_time,
            times: TimesMeta::Shared { index, absent: Vec::new() },
        });
    };
    let absent = read_absent(reader, column.count)?;
    if count as usize + absent.len() != column.count as usize {
        return Err(Error::corrupt(format!(
            "{} of {} times are absent, {count} left",
            absent.len(),
            column.count
        )));
    }
    let min_time = column.min_time.wrapping_add(reader.uvarint()? as i64);
    let max_time = column.max_time.wrapping_sub(reader.uvarint()? as i64);
    if min_time < column.min_time || max_time > column.max_time || min_time > max_time {
        return Err(Error::corrupt("the times of a page lie outside its shared column"));
    }
    Ok(FoundTimes { count, min_time, max_time, times: TimesMeta::Shared { index, absent } })
}

fn read_absent(reader: &mut Reader<'_>, column_count: u32) -> Result<Vec<u16>> {
    let limit = (column_count as usize).min(PAGE_SAMPLE_COUNT_MAX);
    let count = reader.uvarint_max(limit, "count of absent times")?;
    let mut absent = Vec::with_capacity(count.min(reader.remaining()));
    let mut next = 0;
    for _ in 0..count {
        next += reader.uvarint_max(limit, "distance of absent times")?;
        if next >= limit {
            return Err(Error::corrupt(format!("absent position {next} of {limit} times")));
        }
        absent.push(next as u16);
        next += 1;
    }
    Ok(absent)
}

/// How the values of a record are written: its second byte.
struct ValueForm {
    flags: u8,
}

impl ValueForm {
    fn of(page: &PageMeta) -> Self {
        let stored = page.encoding != Encoding::Constant;
        let flag = |set: bool, flag: u8| if set && stored { flag } else { 0 };
        let (exponent, has_detail, has_rests) = match &page.aggregate.ends {
            Ends::F64(summary) => {
                let exponent = shared_exponent(summary).unwrap_or(EXPONENT_RAW);
                (
                    exponent,
                    summary.detail.is_some(),
                    summary.detail.as_ref().is_some_and(|d| has_rests(d, exponent)),
                )
            }
            Ends::I64(summary) => (
                0,
                summary.detail.is_some(),
                summary.detail.as_ref().is_some_and(|d| is_wide(d, summary.first, page)),
            ),
            Ends::Bytes => (0, false, false),
        };
        let stale = flag(page.aggregate.stale_count > 0, FLAG_STALE);
        ValueForm {
            flags: exponent | flag(has_detail, FLAG_DETAIL) | flag(has_rests, FLAG_SUM_RESTS) | stale,
        }
    }

    /// `None` for values of eight bytes.
    fn exponent(&self) -> Result<Option<u8>> {
        match self.flags & EXPONENT_MASK {
            EXPONENT_RAW => Ok(None),
            exponent @ 0..=EXPONENT_MAX => Ok(Some(exponent)),
            other => Err(Error::corrupt(format!("{other} is no decimal exponent"))),
        }
    }
}

/// The smallest exponent at which all values of the summary are integers.
fn shared_exponent(summary: &Summary<f64, (f64, f64)>) -> Option<u8> {
    let detail = summary.detail.as_ref();
    let values = [
        summary.first,
        summary.last,
        detail.map_or(summary.first, |detail| detail.min),
        detail.map_or(summary.last, |detail| detail.max),
    ];
    let mut exponent = 0;
    for value in values {
        exponent = exponent.max(decimal::smallest_exponent(value)?);
    }
    values.iter().all(|value| decimal::to_integer(*value, exponent).is_some()).then_some(exponent)
}

/// Whether the sums are more than integers at the exponent.
fn has_rests(detail: &Detail<f64, (f64, f64)>, exponent: u8) -> bool {
    let is_whole = |(high, low): (f64, f64)| {
        low.to_bits() == 0 && (exponent == EXPONENT_RAW || decimal::to_integer(high, exponent).is_some())
    };
    !is_whole(detail.sum) || !is_whole(detail.reset_sum)
}

/// Whether the sums, less what is expected, exceed 64 bits.
fn is_wide(detail: &Detail<i64, i128>, first: i64, page: &PageMeta) -> bool {
    let fits = |sum: i128, count: u32| i64::try_from(sum - i128::from(first) * i128::from(count)).is_ok();
    !fits(detail.sum, page.aggregate.count) || !fits(detail.reset_sum, detail.reset_count)
}

fn put_first_f64(out: &mut Vec<u8>, context: Context<'_>, form: &ValueForm, first: f64) {
    match form.flags & EXPONENT_MASK {
        EXPONENT_RAW => put_u64(out, first.to_bits()),
        exponent => {
            let integer = |value: f64| decimal::to_integer(value, exponent).unwrap_or_default();
            put_ivarint(out, integer(first).wrapping_sub(integer(context.near_f64())));
        }
    }
}

fn put_f64(
    out: &mut Vec<u8>,
    context: Context<'_>,
    form: &ValueForm,
    summary: &Summary<f64, (f64, f64)>,
    count: u32,
) {
    let exponent = form.flags & EXPONENT_MASK;
    let detail = summary.detail.as_ref();
    if exponent == EXPONENT_RAW {
        put_u64(out, summary.first.to_bits());
        put_u64(out, summary.last.to_bits());
        if let Some(detail) = detail {
            put_u64(out, detail.min.to_bits());
            put_u64(out, detail.max.to_bits());
        }
    } else {
        let integer = |value: f64| decimal::to_integer(value, exponent).unwrap_or_default();
        let ends = [integer(summary.first), integer(summary.last)];
        let near = decimal::to_integer(context.near_f64(), exponent).unwrap_or_default();
        put_integers(out, near, ends, detail.map(|detail| [integer(detail.min), integer(detail.max)]));
    }
    if let Some(detail) = detail {
        put_uvarint(out, u64::from(detail.reset_count));
        put_sum_f64(out, form, summary.first, detail.sum, count);
        if detail.reset_count > 0 {
            put_sum_f64(out, form, summary.first, detail.reset_sum, detail.reset_count);
        }
    }
}

/// Four integers that lie close together: first (near what is known), last, smallest, largest.
fn put_integers(out: &mut Vec<u8>, near: i64, [first, last]: [i64; 2], extremes: Option<[i64; 2]>) {
    put_ivarint(out, first.wrapping_sub(near));
    put_ivarint(out, last.wrapping_sub(first));
    if let Some([min, max]) = extremes {
        put_uvarint(out, first.min(last).wrapping_sub(min) as u64);
        put_uvarint(out, max.wrapping_sub(first.max(last)) as u64);
    }
}

/// A sum of `count` values, against so many times the first value.
fn put_sum_f64(out: &mut Vec<u8>, form: &ValueForm, first: f64, (high, low): (f64, f64), count: u32) {
    let exponent = form.flags & EXPONENT_MASK;
    if exponent == EXPONENT_RAW {
        put_u64(out, high.to_bits());
    } else {
        let nearest = decimal::nearest_integer(high, exponent);
        put_ivarint(out, nearest.wrapping_sub(expected_sum(first, exponent, count)));
        if form.flags & FLAG_SUM_RESTS != 0 {
            let bits = decimal::from_integer(nearest, exponent).to_bits();
            put_ivarint(out, high.to_bits().wrapping_sub(bits) as i64);
        }
    }
    if form.flags & FLAG_SUM_RESTS != 0 {
        // Reversed, since the low bits of the rest's significand are mostly zero.
        put_uvarint(out, low.to_bits().reverse_bits());
    }
}

fn expected_sum(first: f64, exponent: u8, count: u32) -> i64 {
    decimal::nearest_integer(first, exponent).wrapping_mul(i64::from(count))
}

fn read_first_f64(reader: &mut Reader<'_>, context: Context<'_>, form: &ValueForm) -> Result<f64> {
    match form.exponent()? {
        None => reader.u64().map(f64::from_bits),
        Some(exponent) => {
            let near = decimal::to_integer(context.near_f64(), exponent).unwrap_or_default();
            Ok(decimal::from_integer(near.wrapping_add(reader.ivarint()?), exponent))
        }
    }
}

fn read_f64(
    reader: &mut Reader<'_>,
    context: Context<'_>,
    form: &ValueForm,
    count: u32,
) -> Result<Summary<f64, (f64, f64)>> {
    let exponent = form.exponent()?;
    let has_detail = form.flags & FLAG_DETAIL != 0;
    let [first, last, min, max] = match exponent {
        None => {
            let mut values = [0.0; 4];
            for value in values.iter_mut().take(if has_detail { 4 } else { 2 }) {
                *value = f64::from_bits(reader.u64()?);
            }
            values
        }
        Some(exponent) => {
            let near = decimal::to_integer(context.near_f64(), exponent).unwrap_or_default();
            read_integers(reader, near, has_detail)?.map(|integer| decimal::from_integer(integer, exponent))
        }
    };
    let mut summary = Summary { first, last, detail: None };
    if has_detail {
        let reset_count = read_reset_count(reader, count)?;
        let sum = read_sum_f64(reader, form, exponent, first, count)?;
        let reset_sum = match reset_count {
            0 => (0.0, 0.0),
            _ => read_sum_f64(reader, form, exponent, first, reset_count)?,
        };
        summary.detail = Some(Detail { min, max, sum, reset_count, reset_sum });
    }
    Ok(summary)
}

fn read_integers(reader: &mut Reader<'_>, near: i64, has_extremes: bool) -> Result<[i64; 4]> {
    let first = near.wrapping_add(reader.ivarint()?);
    let last = first.wrapping_add(reader.ivarint()?);
    let (mut min, mut max) = (first.min(last), first.max(last));
    if has_extremes {
        min = min.wrapping_sub(reader.uvarint()? as i64);
        max = max.wrapping_add(reader.uvarint()? as i64);
    }
    Ok([first, last, min, max])
}

fn read_reset_count(reader: &mut Reader<'_>, count: u32) -> Result<u32> {
    Ok(reader.uvarint_max(count as usize - 1, "count of resets")? as u32)
}

fn read_sum_f64(
    reader: &mut Reader<'_>,
    form: &ValueForm,
    exponent: Option<u8>,
    first: f64,
    count: u32,
) -> Result<(f64, f64)> {
    let has_rest = form.flags & FLAG_SUM_RESTS != 0;
    let high = match exponent {
        None => f64::from_bits(reader.u64()?),
        Some(exponent) => {
            let nearest = expected_sum(first, exponent, count).wrapping_add(reader.ivarint()?);
            let bits = decimal::from_integer(nearest, exponent).to_bits();
            let correction = if has_rest { reader.ivarint()? } else { 0 };
            f64::from_bits(bits.wrapping_add(correction as u64))
        }
    };
    let low = if has_rest { f64::from_bits(reader.uvarint()?.reverse_bits()) } else { 0.0 };
    Ok((high, low))
}

fn put_i64(
    out: &mut Vec<u8>,
    context: Context<'_>,
    form: &ValueForm,
    summary: &Summary<i64, i128>,
    count: u32,
) {
    let detail = summary.detail.as_ref();
    let extremes = detail.map(|detail| [detail.min, detail.max]);
    put_integers(out, context.near_i64(), [summary.first, summary.last], extremes);
    let Some(detail) = detail else { return };
    put_uvarint(out, u64::from(detail.reset_count));
    let mut put_sum = |sum: i128, count: u32| {
        if form.flags & FLAG_SUM_RESTS != 0 {
            out.extend_from_slice(&sum.to_le_bytes());
        } else {
            put_ivarint(out, (sum - i128::from(summary.first) * i128::from(count)) as i64);
        }
    };
    put_sum(detail.sum, count);
    if detail.reset_count > 0 {
        put_sum(detail.reset_sum, detail.reset_count);
    }
}

fn read_i64(
    reader: &mut Reader<'_>,
    context: Context<'_>,
    form: &ValueForm,
    count: u32,
) -> Result<Summary<i64, i128>> {
    let has_detail = form.flags & FLAG_DETAIL != 0;
    let [first, last, min, max] = read_integers(reader, context.near_i64(), has_detail)?;
    let mut summary = Summary { first, last, detail: None };
    if has_detail {
        let reset_count = read_reset_count(reader, count)?;
        let mut read_sum = |count: u32| match form.flags & FLAG_SUM_RESTS {
            0 => Ok(i128::from(first) * i128::from(count) + i128::from(reader.ivarint()?)),
            _ => reader.array().map(i128::from_le_bytes),
        };
        let sum = read_sum(count)?;
        let reset_sum = if reset_count > 0 { read_sum(reset_count)? } else { 0 };
        summary.detail = Some(Detail { min, max, sum, reset_count, reset_sum });
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::aggregate::aggregate_of;
    use crate::chunk::merge::ColumnSlice;
    use crate::model::STALE_NAN_BITS;

    fn shared() -> Vec<SharedColumn> {
        let column = |index: u32| SharedColumn {
            offset: 100 * u64::from(index),
            size: 90,
            count: 300 + index,
            min_time: i64::from(index) * 1000,
            max_time: i64::from(index) * 1000 + 900,
        };
        (0..3).map(column).collect()
    }

    fn affine(min_time: i64, step: i64, values: ColumnSlice<'_>, encoding: Encoding) -> PageMeta {
        let aggregate = aggregate_of(values);
        let max_time = min_time + step * (i64::from(aggregate.count) - 1);
        let values_size = if encoding == Encoding::Constant { 0 } else { 213 };
        let step = if aggregate.count == 1 { 0 } else { step };
        PageMeta { min_time, max_time, times: TimesMeta::Affine { step }, encoding, values_size, aggregate }
    }

    fn put(context: Context<'_>, page: &PageMeta) -> Vec<u8> {
        let mut out = Vec::new();
        put_page_meta(&mut out, context, page, &shared());
        out
    }

    fn value_type(page: &PageMeta) -> ValueType {
        match page.aggregate.ends {
            Ends::F64(_) => ValueType::F64,
            Ends::I64(_) => ValueType::I64,
            Ends::Bytes => ValueType::Bytes,
        }
    }

    /// Compares by the text, in which NaN equals itself, and by the bits of the ends.
    #[track_caller]
    fn check(context: Context<'_>, page: &PageMeta) -> usize {
        let bytes = put(context, page);
        let mut reader = Reader::new(&bytes);
        let read = read_page_meta(&mut reader, context, value_type(page), &shared()).unwrap();
        assert!(reader.finish().is_ok());
        assert_eq!(format!("{read:?}"), format!("{page:?}"));
        if let (Ends::F64(read), Ends::F64(put)) = (&read.aggregate.ends, &page.aggregate.ends) {
            assert_eq!(read.first.to_bits(), put.first.to_bits());
            assert_eq!(read.last.to_bits(), put.last.to_bits());
        }
        bytes.len()
    }

    const STEP: i64 = 10_000_000_000;
    const START: i64 = 1_700_000_000_000_000_000;

    fn walk(count: usize, unit: f64) -> Vec<f64> {
        (0..count).map(|i| ((i * i * 7 + i / 3) % 97) as f64 / unit).collect()
    }

    #[test]
    fn records_of_a_series_take_few_bytes() {
        let values = walk(1440, 1.0);
        let page = |index: usize| {
            let values = ColumnSlice::F64(&values[index * 720..][..720]);
            affine(START + STEP * 720 * index as i64, STEP, values, Encoding::FrameOfReference)
        };
        check(Context::Start, &page(0));
        assert!(check(Context::After(&page(0)), &page(1)) <= 20);
        assert!(check(Context::Beside(&page(0)), &page(0)) <= 20);
        let values = walk(720, 100.0);
        let decimal = affine(START, STEP, ColumnSlice::F64(&values), Encoding::FrameOfReference);
        assert!(check(Context::Beside(&decimal), &decimal) <= 32);
    }

    #[test]
    fn a_record_has_known_bytes() {
        let page = affine(100, 10, ColumnSlice::I64(&[5; 3]), Encoding::Constant);
        assert_eq!(put(Context::Start, &page), [0x11, 0, 3, 10, 0xc8, 1, 10]);
        let next = affine(130, 10, ColumnSlice::I64(&[6, 8, 7]), Encoding::FrameOfReference);
        assert_eq!(put(Context::After(&page), &next), [0x34, 0, 0, 0xd5, 1, 2, 2]);
        let mut less = next;
        less.times = TimesMeta::Shared { index: 2, absent: vec![0, 7] };
        (less.min_time, less.max_time) = (2001, 2890);
        assert_eq!(put(Context::After(&page), &less), [0x37, 0, 4, 2, 0, 6, 1, 10, 0xd5, 1, 2, 2]);
    }

    #[test]
    fn constants_store_one_value() {
        for value in [0.0, -0.0, 1.5, -3.0, 1e300, f64::NAN, f64::INFINITY, f64::from_bits(STALE_NAN_BITS)] {
            let page = affine(START, STEP, ColumnSlice::F64(&[value; 200]), Encoding::Constant);
            check(Context::Start, &page);
            assert!(check(Context::Beside(&page), &page) <= 11);
        }
        let page = affine(START, STEP, ColumnSlice::I64(&[i64::MIN; 200]), Encoding::Constant);
        assert!(check(Context::Beside(&page), &page) <= 4);
    }

    #[test]
    fn shared_columns_are_referred_to() {
        let values = walk(302, 1.0);
        let mut page = affine(0, 1, ColumnSlice::F64(&values), Encoding::Raw);
        page.times = TimesMeta::Shared { index: 2, absent: vec![] };
        (page.min_time, page.max_time) = (2000, 2900);
        check(Context::Start, &page);
        let context = page.clone();
        page.times = TimesMeta::Shared { index: 2, absent: vec![0, 1, 299] };
        page.aggregate = aggregate_of(ColumnSlice::F64(&values[..299]));
        (page.min_time, page.max_time) = (2003, 2900);
        check(Context::After(&context), &page);
    }

    #[test]
    fn integers_may_exceed_64_bits_in_sums() {
        let values: Vec<i64> = (0..200).map(|i| if i % 2 == 0 { i64::MAX } else { i64::MIN }).collect();
        check(Context::Start, &affine(0, 1, ColumnSlice::I64(&values), Encoding::Raw));
        let values: Vec<i64> = (0..200).map(|i| i * i).collect();
        check(Context::Start, &affine(0, 1, ColumnSlice::I64(&values), Encoding::Raw));
    }

    #[test]
    fn what_no_page_can_be_is_corrupt() {
        let read = |bytes: &[u8]| {
            read_page_meta(&mut Reader::new(bytes), Context::Start, ValueType::I64, &shared()).is_err()
        };
        assert!(!read(&[0x11, 0, 3, 10, 0xc8, 1, 10]));
        assert!(read(&[0x19, 0, 3, 10, 0xc8, 1, 10]), "reserved flag");
        assert!(read(&[0xf1, 0, 3, 10, 0xc8, 1, 10]), "encoding");
        assert!(read(&[0x11, 0, 0, 10, 0xc8, 1, 10]), "no samples");
        assert!(read(&[0x11, 0, 3, 0, 0xc8, 1, 10]), "no step");
        assert!(read(&[0x15, 0, 10, 0xc8, 1, 10]), "count of no context");
        assert!(read(&[0x12, 0, 6, 10]), "no such column");
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        let value = prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-1000i32..1000).prop_map(|i| f64::from(i) / 100.0),
        ];
        let decimal = (-1_000_000i32..1_000_000).prop_map(|i| f64::from(i) / 1000.0);
        prop_oneof![
            prop::collection::vec(value, 1..200),
            prop::collection::vec(decimal, 128..300),
            prop::collection::vec(-1e12..1e12f64, 128..300),
        ]
    }

    proptest! {
        #[test]
        fn records_round_trip(a in values(), b in values(), start in -1000i64..1000, step in 1i64..1000) {
            let first = affine(start, step, ColumnSlice::F64(&a), Encoding::Raw);
            let second = affine(first.max_time + step, step, ColumnSlice::F64(&b), Encoding::Raw);
            check(Context::Start, &first);
            check(Context::After(&first), &second);
            check(Context::Beside(&second), &first);
            let a: Vec<i64> = a.iter().map(|value| value.to_bits() as i64).collect();
            check(Context::Beside(&second), &affine(start, step, ColumnSlice::I64(&a), Encoding::Raw));
        }

        #[test]
        fn damaged_records_never_panic(a in values(), at: usize, xor: u8, cut: usize, bytes: Vec<u8>) {
            let page = affine(5, 7, ColumnSlice::F64(&a), Encoding::Raw);
            let mut record = put(Context::Start, &page);
            let size = record.len();
            record[at % size] ^= xor;
            for bytes in [&record[..], &record[..cut % size], &bytes] {
                for value_type in [ValueType::F64, ValueType::I64, ValueType::Bytes] {
                    let _ = read_page_meta(&mut Reader::new(bytes), Context::Start, value_type, &shared());
                    let _ = read_page_meta(&mut Reader::new(bytes), Context::After(&page), value_type, &shared());
                }
            }
        }
    }
}
