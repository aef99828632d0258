//! Aggregations over series: `sum by (job) (...)`.
//!
//! Those that fold (`sum`, `avg`, `min`, ...) hold one state for each group and step and let the
//! series pass. The others (`topk`, `quantile`, ...) are in [`super::ranking`].

use std::collections::HashMap;

use super::ast::AggregateOp;
use super::eval::{Evaluator, Sink};
use super::kahan::{Kahan, Mean};
use super::plan::Aggregate;
use super::ranking;
use super::slide::{Joined, Max, Min};
use super::steps::{ABSENT, Series, Steps, is_absent, present};
use crate::error::Result;
use crate::model::NAME_KEY;
use crate::promql::Labels;

pub(super) fn aggregate(
    eval: &Evaluator<'_>,
    node: &Aggregate,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    match node.op {
        AggregateOp::Sum => fold::<Kahan>(eval, node, steps, sink),
        AggregateOp::Avg => fold::<Mean>(eval, node, steps, sink),
        AggregateOp::Min => fold::<Min>(eval, node, steps, sink),
        AggregateOp::Max => fold::<Max>(eval, node, steps, sink),
        AggregateOp::Count => fold::<Count>(eval, node, steps, sink),
        AggregateOp::Group => fold::<Group>(eval, node, steps, sink),
        AggregateOp::Stdvar => fold::<Variance>(eval, node, steps, sink),
        AggregateOp::Stddev => fold::<Deviation>(eval, node, steps, sink),
        AggregateOp::TopK => ranking::top(eval, node, true, steps, sink),
        AggregateOp::BottomK => ranking::top(eval, node, false, steps, sink),
        AggregateOp::LimitK => ranking::limit(eval, node, steps, sink),
        AggregateOp::LimitRatio => ranking::limit_ratio(eval, node, steps, sink),
        AggregateOp::Quantile => ranking::quantiles(eval, node, steps, sink),
        AggregateOp::CountValues => ranking::count_values(eval, node, steps, sink),
    }
}

/// Finds the group of a series by its labels; each set of labels is built once.
#[derive(Default)]
pub(super) struct Groups {
    by_key: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
}

impl Groups {
    /// The index of the group of `labels`, and its labels if it is new. Indexes count up from 0.
    pub(super) fn find(&mut self, node: &Aggregate, labels: &Labels) -> (usize, Option<Labels>) {
        self.key.clear();
        let listed = |key: &str| node.grouping.binary_search_by(|g| g.as_str().cmp(key)).is_ok();
        if node.without {
            labels.write_if(|key| key != NAME_KEY && !listed(key), &mut self.key);
        } else if !node.grouping.is_empty() {
            labels.write_if(listed, &mut self.key);
        }
        if let Some(index) = self.by_key.get(&self.key) {
            return (*index, None);
        }
        let index = self.by_key.len();
        self.by_key.insert(self.key.clone(), index);
        (index, Some(Labels::from_written(&self.key)))
    }
}

/// The state of one group at one step.
trait Fold: Copy {
    fn start(value: f64) -> Self;
    fn add(self, value: f64) -> Self;
    fn finish(self) -> f64;
}

impl Fold for Kahan {
    fn start(value: f64) -> Self {
        Kahan::new(value)
    }
    fn add(self, value: f64) -> Self {
        self.plus(value)
    }
    fn finish(self) -> f64 {
        self.value()
    }
}

impl Fold for Mean {
    fn start(value: f64) -> Self {
        Mean::new(value)
    }
    fn add(self, value: f64) -> Self {
        self.plus(value)
    }
    fn finish(self) -> f64 {
        self.value()
    }
}

impl Fold for Max {
    fn start(value: f64) -> Self {
        Max(value)
    }
    fn add(self, value: f64) -> Self {
        self.join(Max(value))
    }
    fn finish(self) -> f64 {
        self.0
    }
}

impl Fold for Min {
    fn start(value: f64) -> Self {
        Min(value)
    }
    fn add(self, value: f64) -> Self {
        self.join(Min(value))
    }
    fn finish(self) -> f64 {
        self.0
    }
}

#[derive(Clone, Copy)]
struct Count(f64);

impl Fold for Count {
    fn start(_: f64) -> Self {
        Count(1.0)
    }
    fn add(self, _: f64) -> Self {
        Count(self.0 + 1.0)
    }
    fn finish(self) -> f64 {
        self.0
    }
}

#[derive(Clone, Copy)]
struct Group;

impl Fold for Group {
    fn start(_: f64) -> Self {
        Group
    }
    fn add(self, _: f64) -> Self {
        self
    }
    fn finish(self) -> f64 {
        1.0
    }
}

/// Population variance by Welford's method.
#[derive(Clone, Copy)]
struct Variance {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Fold for Variance {
    fn start(value: f64) -> Self {
        let squares = if value.is_finite() { 0.0 } else { f64::NAN };
        Variance { count: 1.0, mean: value, squares }
    }
    fn add(mut self, value: f64) -> Self {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
        self
    }
    fn finish(self) -> f64 {
        self.squares / self.count
    }
}

#[derive(Clone, Copy)]
struct Deviation(Variance);

impl Fold for Deviation {
    fn start(value: f64) -> Self {
        Deviation(Variance::start(value))
    }
    fn add(self, value: f64) -> Self {
        Deviation(self.0.add(value))
    }
    fn finish(self) -> f64 {
        self.0.finish().sqrt()
    }
}

struct State<F> {
    labels: Labels,
    drop_name: bool,
    steps: Vec<Option<F>>,
}

fn fold<F: Fold>(eval: &Evaluator<'_>, node: &Aggregate, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    let held = eval.budget.hold();
    let mut groups = Groups::default();
    let mut states: Vec<State<F>> = Vec::new();
    eval.vector(&node.input, steps, &mut |series| {
        eval.budget.work(steps.count)?;
        let (index, new) = groups.find(node, &series.labels);
        if let Some(labels) = new {
            held.grow(labels.size() * 2 + steps.count * size_of::<Option<F>>())?;
            states.push(State { labels, drop_name: false, steps: vec![None; steps.count] });
        }
        let Some(state) = states.get_mut(index) else { return Ok(()) };
        state.drop_name |= series.drop_name;
        for (slot, value) in state.steps.iter_mut().zip(&series.values) {
            if !is_absent(*value) {
                *slot = Some(slot.map_or_else(|| F::start(*value), |fold| fold.add(*value)));
            }
        }
        Ok(())
    })?;
    for state in states {
        let values = state.steps.into_iter().map(|fold| fold.map_or(ABSENT, |fold| present(fold.finish())));
        sink(Series { labels: state.labels, drop_name: state.drop_name, values: values.collect() })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Fold>(values: &[f64]) -> f64 {
        values[1..].iter().fold(F::start(values[0]), |fold, v| fold.add(*v)).finish()
    }

    #[test]
    fn folds_agree_with_their_definitions() {
        let values = [4.0, 1.0, f64::NAN, 7.0];
        assert_eq!(run::<Max>(&values), 7.0);
        assert_eq!(run::<Min>(&values), 1.0);
        assert_eq!(run::<Count>(&values), 4.0);
        assert_eq!(run::<Group>(&values), 1.0);
        assert!(run::<Kahan>(&values).is_nan());
        assert_eq!(run::<Variance>(&[1.0, 3.0]), 1.0);
        assert_eq!(run::<Deviation>(&[1.0, 5.0]), 2.0);
        assert!(run::<Variance>(&[f64::INFINITY]).is_nan());
    }
}
