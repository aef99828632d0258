//! Which series a query is about: the answers of all sources, joined by key and type.

use crate::error::Result;
use crate::model::{Selector, SeriesKey, ValueType};
use crate::query::budget::QueryReport;
use crate::query::scan::Context;

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
        let ordinals = if met { source.select(selector)? } else { Vec::new() };
        if ordinals.is_empty() {
            report.sources_skipped += 1;
        } else {
            context.budget.take_series(ordinals.len() as u64)?;
            found.push((index, ordinals));
        }
        context.budget.check()?;
    }
    let selection = match found.as_slice() {
        [(source, ordinals)] => from_one(context, *source, ordinals, keys)?,
        _ => join(context, &found)?,
    };
    report.series = selection.series.len() as u64;
    context.budget.take_series(report.series)?;
    context.budget.take_memory(report.series * size_of::<(Chosen, Part)>() as u64)?;
    Ok(selection)
}

fn from_one(context: &Context, source: usize, ordinals: &[u32], keys: bool) -> Result<Selection> {
    let keys = keys || context.has_deletes(source);
    let reader = context.source(source);
    let mut selection = Selection::default();
    selection.series.reserve_exact(ordinals.len());
    selection.parts.reserve_exact(ordinals.len());
    let keys = if keys { reader.keys(ordinals)? } else { Vec::new() };
    let mut keys = keys.into_iter();
    let value_types = reader.value_types(ordinals)?;
    for (position, (ordinal, value_type)) in ordinals.iter().zip(value_types).enumerate() {
        let key = keys.next();
        selection.series.push(Chosen { key, value_type, start: position, end: position + 1 });
        selection.parts.push(Part { source, ordinal: *ordinal });
    }
    Ok(selection)
}

fn join(context: &Context, found: &[(usize, Vec<u32>)]) -> Result<Selection> {
    let mut all = Vec::with_capacity(found.iter().map(|(_, ordinals)| ordinals.len()).sum());
    for (source, ordinals) in found {
        let reader = context.source(*source);
        let (keys, value_types) = (reader.keys(ordinals)?, reader.value_types(ordinals)?);
        for ((ordinal, key), value_type) in ordinals.iter().zip(keys).zip(value_types) {
            all.push((key, value_type, Part { source: *source, ordinal: *ordinal }));
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
    Ok(selection)
}
