//! Whole queries: from an expression and its times to an answer.

use std::cell::Cell;
use std::collections::HashMap;

use super::annotations::Annotations;
use super::ast::{Expr, ValueType};
use super::budget::{Budget, Held, Options, Stats};
use super::eval::Evaluator;
use super::merge::Merger;
use super::plan::{Node, Query, Windowed, plan};
use super::source::Source;
use super::steps::{Series, Steps, is_absent};
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::promql::Labels;

/// A sample of an instant vector; its time is that of the query.
///
/// Native histograms, when they come, are a second kind of value here and in [`RangeSeries`].
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name and labels.
    pub labels: Labels,
    /// When: the time of the query.
    pub time: Timestamp,
    /// The value.
    pub value: f64,
}

/// A time and a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub time: Timestamp,
    /// The value.
    pub value: f64,
}

/// A series of a matrix; its points are sorted by time.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSeries {
    /// Name and labels.
    pub labels: Labels,
    /// At least one.
    pub points: Vec<Point>,
}

/// What a query evaluates to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Scalar(Point),
    /// A string, with the time of the query.
    String(Timestamp, String),
    /// At most one sample of each series, in the order that the query gives them.
    Vector(Vec<Sample>),
    /// Points of each series, sorted by labels.
    Matrix(Vec<RangeSeries>),
}

impl Value {
    /// Keeps the first `limit` series, and says whether there were more.
    pub fn truncate(&mut self, limit: usize) -> bool {
        let count = match self {
            Value::Vector(samples) => {
                let count = samples.len();
                samples.truncate(limit);
                count
            }
            Value::Matrix(series) => {
                let count = series.len();
                series.truncate(limit);
                count
            }
            Value::Scalar(_) | Value::String(..) => 0,
        };
        count > limit
    }
}

/// The answer of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The result.
    pub value: Value,
    /// What may be wrong with it, worded and placed as Prometheus does; at most eleven.
    pub warnings: Vec<String>,
    /// What is worth knowing of it; at most eleven.
    pub infos: Vec<String>,
    /// What it took.
    pub stats: Stats,
}

/// Evaluates `expr` at one time. `text` is what it was parsed from; annotations place themselves in it.
///
/// # Errors
/// `InvalidInput` when it cannot be evaluated (ambiguous matching, equal label sets, wrong parameters),
/// `LimitExceeded` when it needs more than `options` grant, `Cancelled` when it is cancelled or late,
/// and those of the source.
pub fn instant(
    source: &dyn Source,
    expr: &Expr,
    text: &str,
    time: Timestamp,
    options: &Options,
) -> Result<Output> {
    let steps = Steps { start: time.nanos(), step: 1_000_000, count: 1 };
    run(source, expr, text, Asked { steps, end: time.nanos(), instant: true }, options)
}

/// Evaluates `expr` at `start`, and every `step` nanoseconds from there up to `end` inclusive.
///
/// # Errors
/// As [`instant`]; `InvalidInput` as well for a step that is not above zero, an end before the start,
/// and an expression that is neither scalar nor instant vector.
pub fn range(
    source: &dyn Source,
    expr: &Expr,
    text: &str,
    times: RangeTimes,
    options: &Options,
) -> Result<Output> {
    let RangeTimes { start, end, step } = times;
    if step <= 0 {
        return Err(Error::invalid_input("zero or negative query resolution step widths are not accepted"));
    }
    if end < start {
        return Err(Error::invalid_input("end timestamp must not be before start time"));
    }
    check_range(expr)?;
    let count = end.nanos().saturating_sub(start.nanos()) / step;
    let count = Budget::new(options).steps(count.saturating_add(1))?;
    let steps = Steps { start: start.nanos(), step, count };
    run(source, expr, text, Asked { steps, end: end.nanos(), instant: false }, options)
}

/// Whether `expr` can be evaluated at many times.
///
/// # Errors
/// `InvalidInput` for an expression that is neither scalar nor instant vector.
pub fn check_range(expr: &Expr) -> Result<()> {
    if matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector) {
        return Ok(());
    }
    let found = expr.value_type().documented();
    Err(Error::invalid_input(format!(
        "invalid expression type {found:?} for range query, must be Scalar or instant Vector"
    )))
}

/// The times of a range query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeTimes {
    /// The first time.
    pub start: Timestamp,
    /// No time is later.
    pub end: Timestamp,
    /// Distance of the times in nanoseconds; above zero.
    pub step: i64,
}

/// The plan by which `expr` would be evaluated, one line for each of its nodes.
///
/// # Errors
/// `InvalidInput` where planning finds what parsing cannot: label names, durations that come to nothing.
pub fn explain(expr: &Expr, times: RangeTimes, options: &Options) -> Result<String> {
    let RangeTimes { start, end, step } = times;
    let regex_size = &Cell::new(0);
    let query = Query { start: start.nanos(), end: end.nanos(), step, options, regex_size };
    Ok(plan(expr, query)?.to_string())
}

/// When a query is evaluated.
#[derive(Clone, Copy)]
struct Asked {
    steps: Steps,
    /// What `end()` stands for: the end that was asked for, which the last step may not reach.
    end: i64,
    instant: bool,
}

fn run(source: &dyn Source, expr: &Expr, text: &str, asked: Asked, options: &Options) -> Result<Output> {
    let Asked { steps, end, instant } = asked;
    let step = if instant { 0 } else { steps.step };
    let regex_size = &Cell::new(0);
    let node = plan(expr, Query { start: steps.start, end, step, options, regex_size })?;
    let budget = Budget::new(options);
    let annotations = Annotations::default();
    let eval = Evaluator { source, options, budget: &budget, annotations: &annotations, instant };
    let value = evaluate(&eval, expr, &node, steps)?;
    let stats = budget.stats();
    let (warnings, infos) = annotations.into_texts(text);
    Ok(Output { value, warnings, infos, stats })
}

fn evaluate(eval: &Evaluator<'_>, expr: &Expr, node: &Node, steps: Steps) -> Result<Value> {
    let time = Timestamp::from_nanos(steps.start);
    match expr.value_type() {
        ValueType::Scalar => {
            let values = eval.scalar(node, steps)?;
            let point = |(index, value): (usize, f64)| Point {
                time: Timestamp::from_nanos(steps.time(index)),
                value,
            };
            let points: Vec<Point> = values.into_iter().enumerate().map(point).collect();
            match (eval.instant, points.first()) {
                (true, Some(point)) => Ok(Value::Scalar(*point)),
                _ => Ok(Value::Matrix(vec![RangeSeries { labels: Labels::empty(), points }])),
            }
        }
        ValueType::String => {
            let text = match node {
                Node::Text(text) => text.text(),
                _ => String::new(),
            };
            Ok(Value::String(time, text))
        }
        ValueType::Vector => vector(eval, node, steps),
        ValueType::Matrix => match node {
            Node::Matrix(windowed) => matrix(eval, windowed, steps),
            _ => Err(Error::invalid_input("a range vector has no plan")),
        },
    }
}

fn vector(eval: &Evaluator<'_>, node: &Node, steps: Steps) -> Result<Value> {
    if eval.instant {
        let held = eval.budget.hold();
        let sample = |series: Series| {
            let value = series.values.first().copied().filter(|v| !is_absent(*v))?;
            Some(Sample { labels: series.labels, time: Timestamp::from_nanos(steps.start), value })
        };
        let all = named(eval, node, steps, &held)?;
        return Ok(Value::Vector(all.into_iter().filter_map(sample).collect()));
    }
    let mut matrix = in_passes(eval, node, steps)?;
    matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(Value::Matrix(matrix))
}

/// The series of a vector with their final names: those that were to be dropped go now, and series that
/// become equal by that must never meet.
fn named(eval: &Evaluator<'_>, node: &Node, steps: Steps, held: &Held<'_, '_>) -> Result<Vec<Series>> {
    let mut merger = Merger::new(held);
    eval.vector(node, steps, &mut |mut series| {
        if series.drop_name {
            series.labels = series.labels.without_name();
            series.drop_name = false;
        }
        merger.add(series)
    })?;
    Ok(merger.into_series())
}

/// Steps of one pass over a plan that collects series: their columns are some kilobytes each.
const PASS_STEP_COUNT: usize = 256;

/// Evaluates a range query. A plan that collects series takes its steps in several passes, so that what
/// it holds does not grow with the length of the query.
fn in_passes(eval: &Evaluator<'_>, node: &Node, steps: Steps) -> Result<Vec<RangeSeries>> {
    let pass = if node.collects() { PASS_STEP_COUNT } else { steps.count.max(1) };
    let answer = eval.budget.hold();
    let mut by_labels: HashMap<Labels, usize> = HashMap::new();
    let mut matrix: Vec<RangeSeries> = Vec::new();
    let mut from = 0;
    while from < steps.count {
        let some = Steps { start: steps.time(from), step: steps.step, count: pass.min(steps.count - from) };
        let held = eval.budget.hold();
        eval.budget.begin_pass();
        for series in named(eval, node, some, &held)? {
            let present = series.values.iter().enumerate().filter(|(_, v)| !is_absent(**v));
            let point = |(index, value): (usize, &f64)| Point {
                time: Timestamp::from_nanos(some.time(index)),
                value: *value,
            };
            let points: Vec<Point> = present.map(point).collect();
            if points.is_empty() {
                continue;
            }
            answer.grow(points.len() * size_of::<Point>())?;
            match by_labels.get(&series.labels).and_then(|index| matrix.get_mut(*index)) {
                Some(known) => known.points.extend(points),
                None => {
                    answer.grow(series.labels.size())?;
                    by_labels.insert(series.labels.clone(), matrix.len());
                    matrix.push(RangeSeries { labels: series.labels, points });
                }
            }
        }
        from += pass;
    }
    Ok(matrix)
}

/// A range vector as the whole of an instant query: the samples as they are.
fn matrix(eval: &Evaluator<'_>, windowed: &Windowed, steps: Steps) -> Result<Value> {
    let held = eval.budget.hold();
    let mut matrix = Vec::new();
    eval.samples(windowed, None, steps, &mut |samples| {
        held.grow(samples.labels.size() + samples.times.len() * size_of::<Point>())?;
        let point = |(time, value): (&i64, &f64)| Point { time: Timestamp::from_nanos(*time), value: *value };
        let points = samples.times.iter().zip(samples.values).map(point).collect();
        let labels = if samples.drop_name { samples.labels.without_name() } else { samples.labels.clone() };
        matrix.push(RangeSeries { labels, points });
        Ok(())
    })?;
    matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
    if matrix.windows(2).any(|pair| pair[0].labels == pair[1].labels) {
        return Err(super::merge::same_labels());
    }
    Ok(Value::Matrix(matrix))
}
