//! Which series a query is about: the answers of all sources, joined by key and type.

use crate::error::{ErrorKind, Result};
use crate::model::{Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::query::budget::QueryReport;
use crate::query::scan::Context;
use crate::query::source::Damaged;

/// The chosen series, in order of key bytes and type.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub series: Vec<Chosen>,
    parts: Vec<Part>,
}

/// One series of the selection.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Its key; absent when nobody asked for it.
    pub key: Option<SeriesKey>,
    /// Its type.
    pub value_type: ValueType,
    start: usize,
    end: usize,
}

/// Where one source holds a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Position of the source in the snapshot.
    pub source: usize,
    /// The ordinal of the series there.
    pub ordinal: u32,
}

impl Selection {
    /// Where `chosen` lies, oldest source first.
    pub(crate) fn parts(&self, chosen: &Chosen) -> &[Part] {
        self.parts.get(chosen.start..chosen.end).unwrap_or_default()
    }
}

/// Asks every source that lies in the range for the series that match.
///
/// Keys cost an allocation each; with `keys` false they are left out where one source alone answers.
pub(crate) fn select(
    context: &Context,
    selector: &Selector,
    keys: bool,
    report: &mut QueryReport,
) -> Result<Selection> {
    let mut found = Vec::new();
    for (index, source) in context.snapshot.sources.iter().enumerate() {
        report.sources += 1;
        let bounds = source.time_bounds();
        let met =
            bounds.is_some_and(|(min, max)| context.range.meets(min, max)) && source.may_match(selector);
        let ordinals = if met { source.select(selector) } else { Ok(Vec::new()) };
        let ordinals = unless_damaged(context, index, ordinals, report)?.unwrap_or_default();
        if ordinals.is_empty() {
            report.sources_skipped += 1;
        } else {
            context.budget.take_series(ordinals.len() as u64)?;
            found.push((index, ordinals));
        }
        context.budget.check()?;
    }
    let is_joined = found.len() > 1;
    let mut listed = Vec::with_capacity(found.len());
    for (source, ordinals) in found {
        let keys = keys || is_joined || context.has_deletes(source);
        listed.push(list(context, source, ordinals, keys, report)?);
    }
    let selection = match <[Listed; 1]>::try_from(listed) {
        Ok([one]) => from_one(one),
        Err(listed) => join(listed),
    };
    report.series = selection.series.len() as u64;
    context.budget.take_series(report.series)?;
    let keys = selection.series.iter().filter_map(|chosen| chosen.key.as_ref()).map(key_size);
    context.budget.take_memory(report.series * size_of::<(Chosen, Part)>() as u64 + keys.sum::<u64>())?;
    Ok(selection)
}

/// The series that one source has, in order of key and type.
struct Listed {
    source: usize,
    ordinals: Vec<u32>,
    /// Empty when nobody needs them.
    keys: Vec<SeriesKey>,
    value_types: Vec<ValueType>,
}

/// Reads keys and types of series; where a partial answer is allowed, without those in a damaged part of the source.
fn list(
    context: &Context,
    source: usize,
    mut ordinals: Vec<u32>,
    with_keys: bool,
    report: &mut QueryReport,
) -> Result<Listed> {
    let reader = context.source(source);
    let read = |ordinals: &[u32]| {
        let keys = if with_keys { reader.keys(ordinals)? } else { Vec::new() };
        Ok((keys, reader.value_types(ordinals)?))
    };
    let (keys, value_types) = match unless_damaged(context, source, read(&ordinals), report)? {
        Some(found) => found,
        None => {
            ordinals.retain(|ordinal| read(&[*ordinal]).is_ok());
            read(&ordinals)?
        }
    };
    Ok(Listed { source, ordinals, keys, value_types })
}

/// What was read of a source; `None`, and a line in the report, when it is damaged and the query may go on without it.
fn unless_damaged<T>(
    context: &Context,
    source: usize,
    read: Result<T>,
    report: &mut QueryReport,
) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::Corruption && context.partial_allowed => {
            let (min, max) = context.source(source).time_bounds().unwrap_or((Timestamp::MIN, Timestamp::MAX));
            let range = TimeRange { start: min, end: max.saturating_add(1) };
            report.damaged.push(Damaged { range, what: error.to_string() });
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// What a key takes besides its place: its bytes, two counts, and what an allocator adds.
fn key_size(key: &SeriesKey) -> u64 {
    key.as_bytes().len() as u64 + 32
}

fn from_one(listed: Listed) -> Selection {
    let Listed { source, ordinals, keys, value_types } = listed;
    let mut selection = Selection::default();
    selection.series.reserve_exact(ordinals.len());
    selection.parts.reserve_exact(ordinals.len());
    let mut keys = keys.into_iter();
    for (position, (ordinal, value_type)) in ordinals.into_iter().zip(value_types).enumerate() {
        let key = keys.next();
        selection.series.push(Chosen { key, value_type, start: position, end: position + 1 });
        selection.parts.push(Part { source, ordinal });
    }
    selection
}

fn join(listed: Vec<Listed>) -> Selection {
    let mut all = Vec::with_capacity(listed.iter().map(|listed| listed.ordinals.len()).sum());
    for Listed { source, ordinals, keys, value_types } in listed {
        for ((ordinal, key), value_type) in ordinals.into_iter().zip(keys).zip(value_types) {
            all.push((key, value_type, Part { source, ordinal }));
        }
    }
    // Each source's series are sorted, so this merges runs; equal ones stay oldest source first.
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut selection = Selection { series: Vec::new(), parts: Vec::with_capacity(all.len()) };
    for (key, value_type, part) in all {
        let position = selection.parts.len();
        selection.parts.push(part);
        match selection.series.last_mut() {
            Some(last) if last.key.as_ref() == Some(&key) && last.value_type == value_type => {
                last.end = position + 1;
            }
            _ => {
                let (start, end) = (position, position + 1);
                selection.series.push(Chosen { key: Some(key), value_type, start, end });
            }
        }
    }
    selection
}
