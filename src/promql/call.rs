//! Calls of functions over instant vectors and scalars.

use super::ast::{self, Expr, LabelMatcher};
use super::eval::{Evaluator, Sink, wrong_type};
use super::labelcalls::{LabelJoin, LabelReplace};
use super::plan::{Call, Node, absent_labels};
use super::steps::{ABSENT, Series, Steps, is_absent, seconds};
use super::{datetime, histogram, info, labelcalls, math, order};
use crate::error::{Error, Result};
use crate::promql::Labels;

/// A function with what is known of its arguments before evaluation.
#[derive(Debug)]
pub(super) enum Bound {
    /// Each sample by itself.
    Map(fn(f64) -> f64),
    Absent(Labels),
    Clamp,
    ClampMin,
    ClampMax,
    Round,
    Timestamp,
    Scalar,
    Vector,
    Sort {
        descending: bool,
    },
    SortByLabel {
        labels: Vec<String>,
        descending: bool,
    },
    LabelReplace(Box<LabelReplace>),
    LabelJoin(LabelJoin),
    HistogramQuantile,
    HistogramFraction,
    /// Of native histograms only: nothing for floats.
    NativeHistogram,
    Info(Vec<LabelMatcher>),
}

impl Bound {
    /// Whether it holds all series of its argument at once.
    pub(super) fn collects(&self) -> bool {
        matches!(
            self,
            Bound::LabelReplace(_)
                | Bound::LabelJoin(_)
                | Bound::HistogramQuantile
                | Bound::HistogramFraction
                | Bound::Info(_)
        )
    }
}

/// Binds a call.
///
/// # Errors
/// `InvalidInput` for labels and expressions that label functions cannot take.
pub(super) fn bind(call: &ast::Call) -> Result<Bound> {
    let name = call.function.name;
    if let Some(function) = math::find(name).or_else(|| datetime::find(name)) {
        return Ok(Bound::Map(function));
    }
    let texts = || -> Vec<Vec<u8>> {
        let strings = call.args.iter().filter_map(|arg| match arg.unwrap_parens() {
            Expr::String(text) => Some(text.value.clone()),
            _ => None,
        });
        strings.collect()
    };
    Ok(match name {
        "absent" => Bound::Absent(match call.args.first() {
            Some(Expr::Vector(selector)) => absent_labels(&selector.matchers),
            _ => Labels::empty(),
        }),
        "clamp" => Bound::Clamp,
        "clamp_min" => Bound::ClampMin,
        "clamp_max" => Bound::ClampMax,
        "round" => Bound::Round,
        "timestamp" => Bound::Timestamp,
        "scalar" => Bound::Scalar,
        "vector" => Bound::Vector,
        "sort" => Bound::Sort { descending: false },
        "sort_desc" => Bound::Sort { descending: true },
        "sort_by_label" | "sort_by_label_desc" => {
            let labels =
                texts().into_iter().map(|text| String::from_utf8_lossy(&text).into_owned()).collect();
            Bound::SortByLabel { labels, descending: name == "sort_by_label_desc" }
        }
        "label_replace" => Bound::LabelReplace(Box::new(LabelReplace::new(&texts())?)),
        "label_join" => Bound::LabelJoin(LabelJoin::new(&texts())?),
        "histogram_quantile" => Bound::HistogramQuantile,
        "histogram_fraction" => Bound::HistogramFraction,
        "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev" | "histogram_stdvar" => {
            Bound::NativeHistogram
        }
        "info" => Bound::Info(match call.args.get(1) {
            Some(Expr::Vector(selector)) => selector.matchers.clone(),
            _ => Vec::new(),
        }),
        _ => return Err(Error::invalid_input(format!("function {name:?} cannot be evaluated"))),
    })
}

fn arg(call: &Call, index: usize) -> Result<&Node> {
    call.args.get(index).ok_or_else(|| wrong_type("argument"))
}

/// The value of a call that returns a scalar.
pub(super) fn scalar(eval: &Evaluator<'_>, call: &Call, steps: Steps) -> Result<Vec<f64>> {
    if !matches!(call.bound, Bound::Scalar) {
        return Err(wrong_type("scalar"));
    }
    let mut values = vec![f64::NAN; steps.count];
    let mut found = vec![0_u8; steps.count];
    eval.vector(arg(call, 0)?, steps, &mut |series| {
        for (index, value) in series.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
            found[index] = found[index].saturating_add(1);
            // A scalar is the value of the one sample; with several there is none.
            values[index] = if found[index] == 1 { *value } else { f64::NAN };
        }
        Ok(())
    })?;
    Ok(values)
}

/// Evaluates a call that returns a vector.
pub(super) fn vector(eval: &Evaluator<'_>, call: &Call, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    match &call.bound {
        Bound::Map(function) => map(eval, arg(call, 0)?, steps, sink, |_, v| function(v)),
        Bound::Clamp | Bound::ClampMin | Bound::ClampMax => clamp(eval, call, steps, sink),
        Bound::Round => {
            let to = match call.args.get(1) {
                Some(node) => eval.scalar(node, steps)?,
                None => vec![1.0; steps.count],
            };
            map(eval, arg(call, 0)?, steps, sink, |index, v| math::round(v, to[index]))
        }
        Bound::Vector => {
            let values = eval.scalar(arg(call, 0)?, steps)?.into_iter().map(super::steps::present).collect();
            sink(Series { labels: Labels::empty(), drop_name: false, values })
        }
        Bound::Timestamp => timestamp(eval, arg(call, 0)?, steps, sink),
        Bound::Absent(labels) => absent(eval, arg(call, 0)?, labels, steps, sink),
        Bound::Sort { descending } => order::by_value(eval, arg(call, 0)?, *descending, steps, sink),
        Bound::SortByLabel { labels, descending } => {
            order::by_labels(eval, arg(call, 0)?, labels, *descending, steps, sink)
        }
        Bound::LabelReplace(replace) => {
            labelcalls::relabel(eval, arg(call, 0)?, steps, sink, &|labels, drop| replace.apply(labels, drop))
        }
        Bound::LabelJoin(join) => {
            labelcalls::relabel(eval, arg(call, 0)?, steps, sink, &|labels, drop| join.apply(labels, drop))
        }
        Bound::HistogramQuantile => histogram::quantiles(eval, call, steps, sink),
        Bound::HistogramFraction => histogram::fractions(eval, call, steps, sink),
        Bound::NativeHistogram => eval.vector(arg(call, 0)?, steps, &mut |_| Ok(())),
        Bound::Info(matchers) => info::info(eval, arg(call, 0)?, matchers, steps, sink),
        Bound::Scalar => Err(wrong_type("vector")),
    }
}

fn map(
    eval: &Evaluator<'_>,
    input: &Node,
    steps: Steps,
    sink: &mut Sink<'_>,
    function: impl Fn(usize, f64) -> f64,
) -> Result<()> {
    eval.vector(input, steps, &mut |mut series| {
        for (index, value) in series.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = super::steps::present(function(index, *value));
            }
        }
        series.drop_name = true;
        sink(series)
    })
}

fn clamp(eval: &Evaluator<'_>, call: &Call, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    let bound = |index| eval.scalar(arg(call, index)?, steps);
    let (min, max) = match call.bound {
        Bound::Clamp => (bound(1)?, bound(2)?),
        Bound::ClampMin => (bound(1)?, vec![f64::INFINITY; steps.count]),
        _ => (vec![f64::NEG_INFINITY; steps.count], bound(1)?),
    };
    eval.vector(arg(call, 0)?, steps, &mut |mut series| {
        for (index, value) in series.values.iter_mut().enumerate().filter(|(_, v)| !is_absent(**v)) {
            let (min, max) = (min[index], max[index]);
            *value = if max < min {
                ABSENT
            } else if min.is_nan() || max.is_nan() {
                f64::NAN
            } else {
                // NaN stays, which `f64::clamp` grants as well; it panics where this does not.
                if *value < min {
                    min
                } else if *value > max {
                    max
                } else {
                    *value
                }
            };
        }
        series.drop_name = true;
        if series.is_present() { sink(series) } else { Ok(()) }
    })
}

/// The time of each sample: its own where the argument is a selector, else that of the step.
fn timestamp(eval: &Evaluator<'_>, input: &Node, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    if let Node::Select(select) = input {
        return eval.select(select, steps, true, sink);
    }
    if let Node::Once(inner) = input
        && let Node::Select(select) = &**inner
    {
        return eval.select(select, steps, true, sink);
    }
    map(eval, input, steps, sink, |index, _| seconds(steps.time(index)))
}

fn absent(
    eval: &Evaluator<'_>,
    input: &Node,
    labels: &Labels,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut values = vec![1.0; steps.count];
    eval.vector(input, steps, &mut |series| {
        for (slot, value) in values.iter_mut().zip(&series.values) {
            if !is_absent(*value) {
                *slot = ABSENT;
            }
        }
        Ok(())
    })?;
    let series = Series { labels: labels.clone(), drop_name: false, values };
    if series.is_present() { sink(series) } else { Ok(()) }
}
