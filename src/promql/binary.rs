//! Binary operators: scalars, a vector and a scalar, and two vectors whose series are matched.

use std::collections::HashMap;

use super::ast::{BinaryOp, Cardinality, Matching};
use super::eval::{Evaluator, Sink, wrong_type};
use super::math::{arithmetic, compare};
use super::merge::Merger;
use super::plan::{Binary, Node, Shape};
use super::steps::{ABSENT, Series, Steps, is_absent, present};
use crate::error::{Error, Result};
use crate::model::NAME_KEY;
use crate::promql::Labels;

/// Both sides scalars.
pub(super) fn scalars(eval: &Evaluator<'_>, node: &Binary, steps: Steps) -> Result<Vec<f64>> {
    let mut left = eval.scalar(&node.left, steps)?;
    let right = eval.scalar(&node.right, steps)?;
    for (a, b) in left.iter_mut().zip(&right) {
        *a = match node.op.is_comparison() {
            true => f64::from(u8::from(compare(node.op, *a, *b))),
            false => arithmetic(node.op, *a, *b),
        };
    }
    Ok(left)
}

/// At least one side a vector.
pub(super) fn vector(eval: &Evaluator<'_>, node: &Binary, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    match &node.shape {
        Shape::Scalars => Err(wrong_type("vector")),
        Shape::ScalarRight => {
            let scalar = eval.scalar(&node.right, steps)?;
            with_scalar(eval, node, &node.left, steps, sink, |index, v| (v, scalar[index]))
        }
        Shape::ScalarLeft => {
            let scalar = eval.scalar(&node.left, steps)?;
            with_scalar(eval, node, &node.right, steps, sink, |index, v| (scalar[index], v))
        }
        Shape::Vectors(matching) if node.op.is_set() => set(eval, node, matching, steps, sink),
        Shape::Vectors(matching) => Join { eval, node, matching, steps }.run(sink),
    }
}

fn with_scalar(
    eval: &Evaluator<'_>,
    node: &Binary,
    input: &Node,
    steps: Steps,
    sink: &mut Sink<'_>,
    sides: impl Fn(usize, f64) -> (f64, f64),
) -> Result<()> {
    let filters = node.op.is_comparison() && !node.return_bool;
    eval.vector(input, steps, &mut |mut series| {
        for (index, value) in series.values.iter_mut().enumerate().filter(|(_, v)| !is_absent(**v)) {
            let (a, b) = sides(index, *value);
            let kept = *value;
            *value = result(node, a, b, kept);
        }
        series.drop_name |= !filters;
        if series.is_present() { sink(series) } else { Ok(()) }
    })
}

/// The result of two samples; a comparison that filters answers `kept`, or nothing.
fn result(node: &Binary, a: f64, b: f64, kept: f64) -> f64 {
    if !node.op.is_comparison() {
        return present(arithmetic(node.op, a, b));
    }
    match (compare(node.op, a, b), node.return_bool) {
        (holds, true) => f64::from(u8::from(holds)),
        (true, false) => kept,
        (false, false) => ABSENT,
    }
}

/// Places of what has a signature.
type ByKey = HashMap<Vec<u8>, usize>;

/// Which labels decide that two series belong together.
struct Signature<'m> {
    matching: &'m Matching,
    key: Vec<u8>,
}

impl<'m> Signature<'m> {
    fn new(matching: &'m Matching) -> Self {
        Signature { matching, key: Vec::new() }
    }

    fn of(&mut self, labels: &Labels) -> &Vec<u8> {
        self.key.clear();
        let listed = |key: &str| self.matching.labels.iter().any(|label| label == key);
        if self.matching.on {
            labels.write_if(listed, &mut self.key);
        } else {
            labels.write_if(|key| key != NAME_KEY && !listed(key), &mut self.key);
        }
        &self.key
    }
}

/// `and`, `or`, `unless`.
fn set(
    eval: &Evaluator<'_>,
    node: &Binary,
    matching: &Matching,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let held = eval.budget.hold();
    // For `or` the left side decides which of the right is taken, else the right decides on the left.
    let is_or = node.op == BinaryOp::Or;
    let (deciding, decided) = if is_or { (&node.left, &node.right) } else { (&node.right, &node.left) };
    let mut merger = Merger::new(&held);
    let mut signature = Signature::new(matching);
    let mut there: HashMap<Vec<u8>, Vec<bool>> = HashMap::new();
    eval.vector(deciding, steps, &mut |series| {
        eval.budget.work(steps.count)?;
        let key = signature.of(&series.labels);
        if !there.contains_key(key) {
            held.grow(key.len() + steps.count + 64)?;
            there.insert(key.clone(), vec![false; steps.count]);
        }
        if let Some(there) = there.get_mut(key) {
            for (there, value) in there.iter_mut().zip(&series.values) {
                *there |= !is_absent(*value);
            }
        }
        if is_or { merger.add(series) } else { Ok(()) }
    })?;
    eval.vector(decided, steps, &mut |mut series| {
        eval.budget.work(steps.count)?;
        let keeps_where = node.op == BinaryOp::And;
        match there.get(signature.of(&series.labels)) {
            None if keeps_where => return Ok(()),
            None => {}
            Some(there) => {
                for (value, there) in series.values.iter_mut().zip(there) {
                    if *there != keeps_where {
                        *value = ABSENT;
                    }
                }
            }
        }
        if !series.is_present() {
            return Ok(());
        }
        if is_or { merger.add(series) } else { sink(series) }
    })?;
    merger.into_series().into_iter().try_for_each(sink)
}

/// Arithmetic and comparison of two vectors. The side of which one series is wanted for each
/// signature is "one", the other "many", also where it has one as well.
struct Join<'j> {
    eval: &'j Evaluator<'j>,
    node: &'j Binary,
    matching: &'j Matching,
    steps: Steps,
}

/// The series of the "one" side that share a signature: at each step at most one has a sample.
struct One {
    /// Labels of the series that have a sample at some step.
    labels: Vec<Labels>,
    /// Which of them it is at each step.
    owner: Vec<u32>,
    values: Vec<f64>,
    /// Where a series of the other side met it; used for one-to-one matching and filling.
    met: Vec<bool>,
    drop_name: bool,
}

impl Join<'_> {
    fn run(&self, sink: &mut Sink<'_>) -> Result<()> {
        let held = self.eval.budget.hold();
        let swapped = self.matching.cardinality == Cardinality::OneToMany;
        let (many, one) =
            if swapped { (&self.node.right, &self.node.left) } else { (&self.node.left, &self.node.right) };
        let many = self.eval.collect(many, self.steps, &held)?;
        let fills = self.matching.fill_left.is_some() || self.matching.fill_right.is_some();
        if many.is_empty() && !fills {
            return Ok(());
        }
        let (mut ones, mut by_key) = self.collect_one(one, &many, swapped, &held)?;
        let mut signature = Signature::new(self.matching);
        let mut merger = Merger::new(&held);
        let mut seen: HashMap<(usize, Labels), Vec<bool>> = HashMap::new();
        let fill_one = if swapped { self.matching.fill_left } else { self.matching.fill_right };
        for series in many {
            self.eval.budget.work(self.steps.count)?;
            let key = signature.of(&series.labels);
            let index = match (by_key.get(key), fill_one) {
                (Some(index), _) => *index,
                (None, None) => continue,
                (None, Some(_)) => {
                    by_key.insert(key.clone(), ones.len());
                    ones.push(self.nothing(Labels::from_written(key)));
                    ones.len() - 1
                }
            };
            let one = &mut ones[index];
            for part in self.combine(&series, one, swapped, fill_one)? {
                if self.matching.cardinality != Cardinality::OneToOne {
                    let met = seen
                        .entry((index, part.labels.clone()))
                        .or_insert_with(|| vec![false; self.steps.count]);
                    meet(met, &part.values, "grouping labels must ensure unique matches")?;
                }
                merger.add(part)?;
            }
        }
        let fill_many = if swapped { self.matching.fill_right } else { self.matching.fill_left };
        if let Some(fill) = fill_many {
            for one in &ones {
                for part in self.fill_many(one, fill, swapped) {
                    merger.add(part)?;
                }
            }
        }
        merger.into_series().into_iter().filter(Series::is_present).try_for_each(sink)
    }

    fn nothing(&self, labels: Labels) -> One {
        One {
            labels: vec![labels],
            owner: vec![0; self.steps.count],
            values: self.steps.absent(),
            met: vec![false; self.steps.count],
            drop_name: false,
        }
    }

    /// Collects the "one" side by signature.
    fn collect_one(
        &self,
        node: &Node,
        many: &[Series],
        swapped: bool,
        held: &super::budget::Held<'_, '_>,
    ) -> Result<(Vec<One>, ByKey)> {
        // Where the other side is empty nothing is matched, and so nothing is ambiguous.
        let matters = |step: usize| {
            many.iter().any(|series| !is_absent(series.values[step])) || self.matching.fill_left.is_some()
        };
        let mut ones: Vec<One> = Vec::new();
        let mut by_key = ByKey::new();
        let mut signature = Signature::new(self.matching);
        self.eval.vector(node, self.steps, &mut |series| {
            self.eval.budget.work(self.steps.count)?;
            held.grow(series.size() + self.steps.count * 5)?;
            let key = signature.of(&series.labels);
            let Some(one) = by_key.get(key).and_then(|index| ones.get_mut(*index)) else {
                by_key.insert(key.clone(), ones.len());
                ones.push(One {
                    labels: vec![series.labels],
                    owner: vec![0; self.steps.count],
                    values: series.values,
                    met: vec![false; self.steps.count],
                    drop_name: series.drop_name,
                });
                return Ok(());
            };
            let owner = one.labels.len() as u32;
            for (step, value) in series.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                if is_absent(one.values[step]) {
                    one.values[step] = *value;
                    one.owner[step] = owner;
                } else if matters(step) {
                    let first = &one.labels[one.owner[step] as usize];
                    return Err(ambiguous(key, &series.labels, first, swapped));
                }
            }
            one.labels.push(series.labels);
            Ok(())
        })?;
        Ok((ones, by_key))
    }

    /// The results of one series of the "many" side: one for each series of the "one" side it meets
    /// whose labels matter.
    fn combine(
        &self,
        series: &Series,
        one: &mut One,
        swapped: bool,
        fill: Option<f64>,
    ) -> Result<Vec<Series>> {
        let distinct = if self.labels_of_one_matter() { one.labels.len() } else { 1 };
        let mut parts: Vec<Option<Vec<f64>>> = vec![None; distinct];
        for step in 0..self.steps.count {
            let many_value = series.values[step];
            let one_value = match (is_absent(one.values[step]), fill) {
                (false, _) => one.values[step],
                (true, Some(fill)) => fill,
                (true, None) => continue,
            };
            if is_absent(many_value) {
                continue;
            }
            let (a, b) = if swapped { (one_value, many_value) } else { (many_value, one_value) };
            let value = result(self.node, a, b, a);
            if is_absent(value) {
                if fill.is_some() || self.matching.fill_left.is_some() {
                    one.met[step] = true;
                }
                continue;
            }
            if self.matching.cardinality == Cardinality::OneToOne && one.met[step] {
                return Err(many_matches("many-to-one matching must be explicit (group_left/group_right)"));
            }
            one.met[step] = true;
            let part = if distinct == 1 { 0 } else { one.owner[step] as usize };
            parts[part].get_or_insert_with(|| self.steps.absent())[step] = value;
        }
        let parts = parts.into_iter().enumerate().filter_map(|(index, values)| {
            let labels = self.result_labels(&series.labels, &one.labels[index]);
            Some(Series { labels, drop_name: self.drops_name(series.drop_name), values: values? })
        });
        Ok(parts.collect())
    }

    /// What the "one" side gives where nothing of the "many" side met it.
    fn fill_many(&self, one: &One, fill: f64, swapped: bool) -> Vec<Series> {
        let mut parts: Vec<Option<Vec<f64>>> = vec![None; one.labels.len()];
        for step in 0..self.steps.count {
            let value = one.values[step];
            if is_absent(value) || one.met[step] {
                continue;
            }
            let (a, b) = if swapped { (value, fill) } else { (fill, value) };
            let value = result(self.node, a, b, a);
            if !is_absent(value) {
                parts[one.owner[step] as usize].get_or_insert_with(|| self.steps.absent())[step] = value;
            }
        }
        let mut signature = Signature::new(self.matching);
        let parts = parts.into_iter().enumerate().filter_map(|(index, values)| {
            let absent_side = Labels::from_written(signature.of(&one.labels[index]));
            let labels = self.result_labels(&absent_side, &one.labels[index]);
            Some(Series { labels, drop_name: self.drops_name(one.drop_name), values: values? })
        });
        parts.collect()
    }

    fn labels_of_one_matter(&self) -> bool {
        !self.matching.include.is_empty()
    }

    /// Arithmetic removes names at once, `bool` comparisons late.
    fn drops_name(&self, already: bool) -> bool {
        self.node.return_bool || (already && self.node.op.is_comparison())
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = self.matching;
        let mut labels = if self.node.op.is_comparison() && !self.node.return_bool {
            many.clone()
        } else {
            self.nameless(many)
        };
        if matching.cardinality == Cardinality::OneToOne {
            labels =
                if matching.on { labels.keep(&matching.labels) } else { labels.drop_keys(&matching.labels) };
        }
        if matching.include.is_empty() {
            return labels;
        }
        let mut builder = labels.to_builder();
        for label in &matching.include {
            builder.set(label, one.get(label));
        }
        builder.build()
    }

    fn nameless(&self, labels: &Labels) -> Labels {
        if self.node.op.is_comparison() { labels.clone() } else { labels.without_name() }
    }
}

/// Marks the steps at which `values` has samples; an error where one is marked already.
fn meet(met: &mut [bool], values: &[f64], reason: &str) -> Result<()> {
    for (met, value) in met.iter_mut().zip(values) {
        if !is_absent(*value) {
            if *met {
                return Err(many_matches(reason));
            }
            *met = true;
        }
    }
    Ok(())
}

#[cold]
fn many_matches(reason: &str) -> Error {
    Error::invalid_input(format!("multiple matches for labels: {reason}"))
}

#[cold]
fn ambiguous(key: &[u8], second: &Labels, first: &Labels, swapped: bool) -> Error {
    let side = if swapped { "left" } else { "right" };
    let group = Labels::from_written(key);
    let braces = |labels: &Labels| if labels.is_empty() { "{}".to_owned() } else { labels.to_string() };
    Error::invalid_input(format!(
        "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
         many-to-many matching not allowed: matching labels must be unique on one side",
        braces(&group),
        braces(second),
        braces(first)
    ))
}
