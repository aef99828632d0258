//! An answer against what a script expects of it.

use std::collections::BTreeMap;

use icecore::promql::{Labels, Output, Value};
use regex_automata::meta::Regex;

use super::script::{Eval, Item, NoteKind, TextMatch};

/// Equal to six digits, as Prometheus' own test engine compares.
pub(crate) fn almost(a: f64, b: f64) -> bool {
    const EPSILON: f64 = 1e-6;
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    if !a.is_finite() || !b.is_finite() {
        return false;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

fn wanted_float(item: Option<&Item>) -> Option<f64> {
    match item {
        Some(Item::Float(value)) => Some(*value),
        _ => None,
    }
}

/// What differs, if anything does.
pub(crate) fn compare(eval: &Eval, value: &Value) -> Result<(), String> {
    match value {
        Value::String(_, text) if eval.string.as_ref() == Some(text) => Ok(()),
        Value::String(_, text) => Err(format!("string {text:?}, expected {:?}", eval.string)),
        Value::Scalar(point) => match eval.scalar {
            Some(wanted) if almost(wanted, point.value) => Ok(()),
            wanted => Err(format!("scalar {}, expected {wanted:?}", point.value)),
        },
        _ if eval.scalar.is_some() => Err("expected a scalar".to_owned()),
        Value::Vector(samples) => {
            let found: Vec<(Labels, f64)> = samples.iter().map(|s| (s.labels.clone(), s.value)).collect();
            vector(eval, &found)
        }
        Value::Matrix(series) => {
            let mut found = BTreeMap::new();
            for series in series {
                let points = series.points.iter().map(|p| (p.time.nanos() / 1_000_000, p.value)).collect();
                if found.insert(series.labels.clone(), points).is_some() {
                    return Err(format!("series twice: {}", series.labels));
                }
            }
            matrix(eval, &found)
        }
    }
}

/// An instant vector.
pub(crate) fn vector(eval: &Eval, found: &[(Labels, f64)]) -> Result<(), String> {
    for (at, (labels, value)) in found.iter().enumerate() {
        let Some(place) = eval.series.iter().position(|s| s.labels == *labels) else {
            return Err(format!("unexpected series {labels:?} {value}"));
        };
        if found[..at].iter().any(|(other, _)| other == labels) {
            return Err(format!("series twice: {labels}"));
        }
        if eval.ordered && place != at {
            return Err(format!("{labels} at {at}, expected at {place}"));
        }
        match wanted_float(eval.series[place].items.first()) {
            Some(wanted) if almost(wanted, *value) => {}
            wanted => return Err(format!("{labels}: {value}, expected {wanted:?}")),
        }
    }
    match eval.series.iter().find(|s| !found.iter().any(|(labels, _)| *labels == s.labels)) {
        Some(missing) => Err(format!("missing series {}", missing.labels)),
        None => Ok(()),
    }
}

fn matrix(eval: &Eval, found: &BTreeMap<Labels, Vec<(i64, f64)>>) -> Result<(), String> {
    for (labels, points) in found {
        let Some(wanted) = eval.series.iter().find(|s| s.labels == *labels) else {
            return Err(format!("unexpected series {labels:?}"));
        };
        let times = (0..).map(|index| eval.start_ms + index * eval.step_ms);
        let wanted: Vec<(i64, Option<f64>)> = times
            .zip(&wanted.items)
            .filter(|(_, item)| **item != Item::Omitted)
            .map(|(time, item)| (time, wanted_float(Some(item))))
            .collect();
        if !wanted.iter().map(|(t, _)| t).eq(points.iter().map(|(t, _)| t)) {
            return Err(format!("{labels}: points {points:?}, expected {wanted:?}"));
        }
        for ((time, wanted), (_, value)) in wanted.iter().zip(points) {
            if !wanted.is_some_and(|wanted| almost(wanted, *value)) {
                return Err(format!("{labels} at {time}: {value}, expected {wanted:?}"));
            }
        }
    }
    let has_points = |items: &[Item]| items.iter().any(|item| *item != Item::Omitted);
    match eval.series.iter().find(|s| !found.contains_key(&s.labels) && has_points(&s.items)) {
        Some(missing) => Err(format!("missing series {}", missing.labels)),
        None => Ok(()),
    }
}

/// Warnings and infos.
pub(crate) fn notes(eval: &Eval, output: &Output) -> Result<(), String> {
    for (kind, wanted) in &eval.notes {
        let found = match kind {
            NoteKind::Warn | NoteKind::NoWarn => &output.warnings,
            NoteKind::Info | NoteKind::NoInfo => &output.infos,
        };
        let wants_none = matches!(kind, NoteKind::NoWarn | NoteKind::NoInfo);
        if wants_none != found.is_empty() {
            return Err(format!("expected {kind:?}, got {found:?}"));
        }
        if !wants_none && !found.iter().any(|text| text_matches(text, wanted)) {
            return Err(format!("expected {kind:?} {wanted:?}, got {found:?}"));
        }
    }
    Ok(())
}

pub(crate) fn text_matches(text: &str, wanted: &TextMatch) -> bool {
    match wanted {
        TextMatch::Any => true,
        TextMatch::Message(message) => text.contains(message.as_str()),
        TextMatch::Regex(regex) => Regex::new(regex).unwrap().is_match(text),
    }
}
