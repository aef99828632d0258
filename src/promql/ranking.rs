//! Aggregations that look at all values of a group: `topk`, `limitk`, `quantile`, `count_values`.

use std::collections::{BTreeMap, HashMap};

use super::aggregate::Groups;
use super::eval::{Evaluator, Sink, wrong_type};
use super::labelcalls::label_name;
use super::order::compare_values;
use super::plan::{Aggregate, Node};
use super::statistics::quantile;
use super::steps::{ABSENT, Series, Steps, is_absent, present};
use crate::error::{Error, Result};
use crate::promql::Labels;

fn param(eval: &Evaluator<'_>, node: &Aggregate, steps: Steps) -> Result<Vec<f64>> {
    eval.scalar(node.param.as_ref().ok_or_else(|| wrong_type("parameter"))?, steps)
}

/// The parameter of `topk`, `bottomk` and `limitk` at each step; `None` where it selects nothing at all.
fn limits(eval: &Evaluator<'_>, node: &Aggregate, steps: Steps) -> Result<Option<Vec<usize>>> {
    let values = param(eval, node, steps)?;
    if values.iter().all(|v| *v < 1.0) {
        return Ok(None);
    }
    for value in &values {
        let reason = match value {
            v if v.is_nan() => return Err(Error::invalid_input("Parameter value is NaN")),
            v if *v <= i64::MIN as f64 => "underflows",
            v if *v >= i64::MAX as f64 => "overflows",
            _ => continue,
        };
        return Err(Error::invalid_input(format!("Scalar value {value} {reason} int64")));
    }
    Ok(Some(values.into_iter().map(|v| v as usize).collect()))
}

/// The series of each group, in the order in which they come.
fn grouped(
    eval: &Evaluator<'_>,
    node: &Aggregate,
    steps: Steps,
    held: &super::budget::Held<'_, '_>,
) -> Result<Vec<(Labels, Vec<Series>)>> {
    let mut groups = Groups::default();
    let mut members: Vec<(Labels, Vec<Series>)> = Vec::new();
    eval.vector(&node.input, steps, &mut |series| {
        held.grow(series.size())?;
        let (index, new) = groups.find(node, &series.labels);
        if let Some(labels) = new {
            members.push((labels, Vec::new()));
        }
        if let Some((_, group)) = members.get_mut(index) {
            group.push(series);
        }
        Ok(())
    })?;
    Ok(members)
}

/// `topk` and `bottomk`: NaN is taken only where numbers do not fill the places.
pub(super) fn top(
    eval: &Evaluator<'_>,
    node: &Aggregate,
    largest: bool,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let Some(limits) = limits(eval, node, steps)? else { return Ok(()) };
    let held = eval.budget.hold();
    for (_, mut members) in grouped(eval, node, steps, &held)? {
        eval.budget.work(members.len() * steps.count)?;
        let mut best = Best { largest, heap: Vec::new() };
        let mut kept = vec![false; members.len()];
        for (step, limit) in limits.iter().enumerate() {
            best.heap.clear();
            for (index, series) in members.iter().enumerate().filter(|(_, s)| !is_absent(s.values[step])) {
                best.offer(series.values[step], index, *limit);
            }
            kept.fill(false);
            best.heap.iter().for_each(|(_, index)| kept[*index] = true);
            for (series, _) in members.iter_mut().zip(&kept).filter(|(_, kept)| !**kept) {
                series.values[step] = ABSENT;
            }
        }
        if !eval.instant || steps.count != 1 {
            members.into_iter().filter(Series::is_present).try_for_each(&mut *sink)?;
            continue;
        }
        best.heap.sort_by(|a, b| compare_values(a.0, b.0, largest));
        for (_, index) in &best.heap {
            sink(members[*index].clone())?;
        }
    }
    Ok(())
}

/// The best values so far, the least of them first: a binary heap, sifted just as Go's `container/heap`
/// does, since that decides in Prometheus which of equal values stay.
struct Best {
    largest: bool,
    heap: Vec<(f64, usize)>,
}

impl Best {
    /// Whether the value at `a` leaves before that at `b`; NaN leaves first.
    fn is_less(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.heap[a].0, self.heap[b].0);
        a.is_nan() || if self.largest { a < b } else { a > b }
    }

    fn offer(&mut self, value: f64, index: usize, limit: usize) {
        if self.heap.len() < limit {
            self.heap.push((value, index));
            self.sift_up();
            return;
        }
        let Some((least, _)) = self.heap.first() else { return };
        let better = if self.largest { *least < value } else { *least > value };
        if better || (least.is_nan() && !value.is_nan()) {
            self.heap[0] = (value, index);
            self.sift_down();
        }
    }

    fn sift_up(&mut self) {
        let mut at = self.heap.len() - 1;
        while at > 0 && self.is_less(at, (at - 1) / 2) {
            self.heap.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.heap.len() {
                return;
            }
            let least = if right < self.heap.len() && self.is_less(right, left) { right } else { left };
            if !self.is_less(least, at) {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

/// `limitk`: the first series of each group.
pub(super) fn limit(eval: &Evaluator<'_>, node: &Aggregate, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    let Some(limits) = limits(eval, node, steps)? else { return Ok(()) };
    let held = eval.budget.hold();
    let mut groups = Groups::default();
    let mut taken: Vec<Vec<usize>> = Vec::new();
    eval.vector(&node.input, steps, &mut |mut series| {
        let (index, new) = groups.find(node, &series.labels);
        if let Some(labels) = new {
            held.grow(labels.size() + steps.count * 8)?;
            taken.push(vec![0; steps.count]);
        }
        let Some(taken) = taken.get_mut(index) else { return Ok(()) };
        for ((value, taken), limit) in series.values.iter_mut().zip(taken).zip(&limits) {
            if is_absent(*value) {
                continue;
            }
            *taken += 1;
            if *taken > *limit {
                *value = ABSENT;
            }
        }
        if series.is_present() { sink(series) } else { Ok(()) }
    })
}

/// `limit_ratio`: a share of the series chosen by the hash of their labels, so that the shares `r` and
/// `r - 1` are complements.
pub(super) fn limit_ratio(
    eval: &Evaluator<'_>,
    node: &Aggregate,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut ratios = param(eval, node, steps)?;
    if ratios.iter().any(|ratio| ratio.is_nan()) {
        return Err(Error::invalid_input("Ratio value is NaN"));
    }
    let largest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    if largest > 1.0 {
        eval.annotations.invalid_ratio(largest, 1.0, node.param_span);
    }
    if smallest < -1.0 {
        eval.annotations.invalid_ratio(smallest, -1.0, node.param_span);
    }
    ratios.iter_mut().for_each(|ratio| *ratio = ratio.clamp(-1.0, 1.0));
    eval.vector(&node.input, steps, &mut |mut series| {
        let place = hash(series.labels.as_bytes()) as f64 / u64::MAX as f64;
        for (value, ratio) in series.values.iter_mut().zip(&ratios) {
            let chosen = if *ratio >= 0.0 { place < *ratio } else { place >= 1.0 + ratio };
            // The largest hash belongs to the whole.
            if !chosen && *ratio != 1.0 {
                *value = ABSENT;
            }
        }
        if series.is_present() { sink(series) } else { Ok(()) }
    })
}

/// FNV-1a with the finisher of MurmurHash3, which spreads the short differences of labels.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(multiplier);
    }
    hash ^ (hash >> 33)
}

pub(super) fn quantiles(
    eval: &Evaluator<'_>,
    node: &Aggregate,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let ranks = param(eval, node, steps)?;
    for invalid in ranks.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
        eval.annotations.invalid_quantile(*invalid, node.param_span);
    }
    let held = eval.budget.hold();
    let (mut values, mut sorted) = (Vec::new(), Vec::new());
    for (labels, members) in grouped(eval, node, steps, &held)? {
        eval.budget.work(members.len() * steps.count)?;
        let mut column = steps.absent();
        for (step, slot) in column.iter_mut().enumerate() {
            values.clear();
            values.extend(members.iter().map(|series| series.values[step]).filter(|v| !is_absent(*v)));
            if !values.is_empty() {
                *slot = present(quantile(ranks[step], &values, &mut sorted));
            }
        }
        let drop_name = members.iter().any(|series| series.drop_name);
        sink(Series { labels, drop_name, values: column })?;
    }
    Ok(())
}

/// `count_values("label", v)`: how often each value occurs, the value written into a label.
pub(super) fn count_values(
    eval: &Evaluator<'_>,
    node: &Aggregate,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let Some(Node::Text(text)) = &node.param else { return Err(wrong_type("parameter")) };
    let label = label_name(Some(&text.value), |_| {
        format!("invalid label name {}", super::format::quote(&text.value))
    })?;
    let keeps_label = !(node.without && node.grouping.contains(&label));
    let held = eval.budget.hold();
    let mut groups = Groups::default();
    let mut group_labels: Vec<Labels> = Vec::new();
    let mut by_value: HashMap<(usize, u64), usize> = HashMap::new();
    let mut counted: Vec<Series> = Vec::new();
    eval.vector(&node.input, steps, &mut |series| {
        eval.budget.work(steps.count)?;
        let (group, new) = groups.find(node, &series.labels);
        group_labels.extend(new);
        for (step, value) in series.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
            let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            let index = match by_value.get(&(group, bits)) {
                Some(index) => *index,
                None => {
                    let mut builder = group_labels[group].to_builder();
                    if keeps_label {
                        builder.set(&label, &super::format::number(*value));
                    }
                    let new = Series {
                        labels: builder.build(),
                        drop_name: series.drop_name,
                        values: steps.absent(),
                    };
                    held.grow(new.size() + 48)?;
                    by_value.insert((group, bits), counted.len());
                    counted.push(new);
                    counted.len() - 1
                }
            };
            let slot = &mut counted[index].values[step];
            *slot = if is_absent(*slot) { 1.0 } else { *slot + 1.0 };
        }
        Ok(())
    })?;
    if keeps_label {
        return counted.into_iter().try_for_each(sink);
    }
    // Without the label, the counts of one group belong together again; sorted, so that every evaluation gives one order.
    let mut totals: BTreeMap<Labels, Series> = BTreeMap::new();
    for series in counted {
        let total = totals
            .entry(series.labels.clone())
            .or_insert_with(|| Series { values: steps.absent(), ..series.clone() });
        for (slot, value) in total.values.iter_mut().zip(&series.values).filter(|(_, v)| !is_absent(**v)) {
            *slot = if is_absent(*slot) { *value } else { *slot + value };
        }
    }
    totals.into_values().try_for_each(sink)
}
