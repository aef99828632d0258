//! The evaluator: walks the plan and hands series on, one at a time.
//!
//! A node is evaluated over all steps at once. Vectors are not returned but given to a sink, series
//! by series, so that `sum(rate(x[5m]))` holds one series and its groups, however many series match.
//! Only what must see all series at once (vector matching, `topk`, sorting) collects them.

use super::annotations::Annotations;
use super::budget::{Budget, Options};
use super::call;
use super::plan::{Input, Moved, Node, Select, Shape, Windowed};
use super::slide::advance;
use super::source::{Hints, Source, WindowFunction};
use super::steps::{Series, Steps, seconds};
use super::{aggregate, binary, window};
use crate::error::{Error, Result};
use crate::model::{Selector, TimeRange, Timestamp, is_stale};
use crate::promql::Labels;

/// Takes the series of a vector as they come.
pub(super) type Sink<'s> = dyn FnMut(Series) -> Result<()> + 's;

/// What one evaluation works with.
pub(super) struct Evaluator<'e> {
    pub(super) source: &'e dyn Source,
    pub(super) options: &'e Options,
    pub(super) budget: &'e Budget<'e>,
    pub(super) annotations: &'e Annotations,
    /// Whether it is an instant query, whose order of series matters.
    pub(super) instant: bool,
}

/// Takes labels, times and values of series as a source gives them.
type EachSeries<'s> = dyn FnMut(Labels, &mut Vec<i64>, &mut Vec<f64>) -> Result<()> + 's;

/// All samples of one series that the windows of a call can hold, staleness markers left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples<'s> {
    pub(super) labels: &'s Labels,
    pub(super) drop_name: bool,
    pub(super) times: &'s [i64],
    pub(super) values: &'s [f64],
}

/// The times that a selector looks at, one for each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    steps: Steps,
    moved: Moved,
}

impl Looks {
    pub(super) fn new(steps: Steps, moved: Moved) -> Self {
        Looks { steps, moved }
    }

    pub(super) fn count(&self) -> usize {
        self.steps.count
    }

    /// The time looked at in step `index`.
    pub(super) fn time(&self, index: usize) -> i64 {
        self.moved.at.unwrap_or_else(|| self.steps.time(index)).saturating_sub(self.moved.offset)
    }

    /// The step distance, where the time moves with the steps.
    pub(super) fn moving_step(&self) -> Option<i64> {
        self.moved.at.is_none().then_some(self.steps.step)
    }

    fn last(&self) -> i64 {
        self.time(self.steps.count.saturating_sub(1))
    }

    /// The times later than `width` before the first look, up to the last.
    fn reach(&self, width: i64) -> TimeRange {
        let start = self.time(0).saturating_sub(width).saturating_add(1);
        let end = self.last().saturating_add(1);
        TimeRange { start: Timestamp::from_nanos(start), end: Timestamp::from_nanos(end) }
    }
}

#[cold]
pub(super) fn wrong_type(wanted: &str) -> Error {
    Error::invalid_input(format!("the plan has no {wanted} where one belongs"))
}

impl Evaluator<'_> {
    /// The value of a scalar at each step.
    pub(super) fn scalar(&self, node: &Node, steps: Steps) -> Result<Vec<f64>> {
        self.budget.work(steps.count)?;
        match node {
            Node::Number(value) => Ok(vec![*value; steps.count]),
            Node::Time => Ok((0..steps.count).map(|index| seconds(steps.time(index))).collect()),
            Node::Once(inner) => {
                let value = self.scalar(inner, steps.first())?.first().copied().unwrap_or(f64::NAN);
                Ok(vec![value; steps.count])
            }
            Node::Negate(inner) => {
                let mut values = self.scalar(inner, steps)?;
                values.iter_mut().for_each(|v| *v = -*v);
                Ok(values)
            }
            Node::Call(call) => call::scalar(self, call, steps),
            Node::Binary(binary) if matches!(binary.shape, Shape::Scalars) => {
                binary::scalars(self, binary, steps)
            }
            _ => Err(wrong_type("scalar")),
        }
    }

    /// Gives the series of a vector to `sink`; none of them is without a sample.
    pub(super) fn vector(&self, node: &Node, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
        if steps.count == 0 {
            return Ok(());
        }
        match node {
            Node::Select(select) => self.select(select, steps, false, sink),
            Node::Window(call) => window::call(self, call, steps, sink),
            Node::Call(call) => call::vector(self, call, steps, sink),
            Node::Aggregate(aggregate) => aggregate::aggregate(self, aggregate, steps, sink),
            Node::Binary(binary) => binary::vector(self, binary, steps, sink),
            Node::Negate(inner) => self.vector(inner, steps, &mut |mut series| {
                series.map(|v| -v);
                series.drop_name = true;
                sink(series)
            }),
            Node::Once(inner) => self.vector(inner, steps.first(), &mut |mut series| {
                let value = series.values.first().copied().unwrap_or(super::ABSENT);
                series.values.resize(steps.count, value);
                sink(series)
            }),
            _ => Err(wrong_type("vector")),
        }
    }

    /// The series of a vector, all at once.
    pub(super) fn collect(
        &self,
        node: &Node,
        steps: Steps,
        held: &super::budget::Held<'_, '_>,
    ) -> Result<Vec<Series>> {
        let mut all = Vec::new();
        self.vector(node, steps, &mut |series| {
            held.grow(series.size())?;
            all.push(series);
            Ok(())
        })?;
        Ok(all)
    }

    /// The latest sample of each series that is not older than the lookback; or its time.
    pub(super) fn select(
        &self,
        select: &Select,
        steps: Steps,
        times_wanted: bool,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let looks = Looks::new(steps, select.moved);
        let lookback = self.options.lookback;
        let hints = Hints { function: None, window: lookback, step: steps.step };
        self.read(&select.selector, looks.reach(lookback), &hints, &mut |labels, times, values| {
            self.budget.work(steps.count)?;
            let mut column = steps.absent();
            let mut next = 0;
            for (index, slot) in column.iter_mut().enumerate() {
                let look = looks.time(index);
                next = advance(times, next, look);
                let Some(last) = next.checked_sub(1) else { continue };
                if times[last] > look.saturating_sub(lookback) && !is_stale(values[last]) {
                    *slot = if times_wanted { seconds(times[last]) } else { values[last] };
                }
            }
            let series = Series { labels, drop_name: times_wanted, values: column };
            if series.is_present() { sink(series) } else { Ok(()) }
        })
    }

    /// Reads series from the source within the budget.
    fn read(
        &self,
        selector: &Selector,
        range: TimeRange,
        hints: &Hints,
        each: &mut EachSeries<'_>,
    ) -> Result<()> {
        self.budget.check()?;
        let mut stream = self.source.select(selector, range, hints)?;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        while let Some(labels) = stream.next(&mut times, &mut values)? {
            if times.len() != values.len() {
                return Err(Error::corrupt("a source gave columns of different length"));
            }
            self.budget.read(times.len())?;
            if !times.is_empty() {
                each(labels, &mut times, &mut values)?;
            }
        }
        Ok(())
    }

    /// The samples of each series that lie in any window of `windowed`.
    pub(super) fn samples(
        &self,
        windowed: &Windowed,
        function: Option<WindowFunction>,
        steps: Steps,
        each: &mut dyn FnMut(Samples<'_>) -> Result<()>,
    ) -> Result<()> {
        if steps.count == 0 {
            return Ok(());
        }
        let looks = Looks::new(steps, windowed.moved);
        match &windowed.input {
            Input::Select(selector, _) => {
                let hints = Hints { function, window: windowed.range, step: steps.step };
                self.read(selector, looks.reach(windowed.range), &hints, &mut |labels, times, values| {
                    drop_stale(times, values);
                    if times.is_empty() {
                        return Ok(());
                    }
                    each(Samples { labels: &labels, drop_name: false, times, values })
                })
            }
            Input::Subquery { node, step } => {
                let inner = self.subquery_steps(looks, windowed.range, *step)?;
                let (mut times, mut values) = (Vec::new(), Vec::new());
                self.vector(node, inner, &mut |series| {
                    self.budget.work(inner.count)?;
                    times.clear();
                    values.clear();
                    for (index, value) in series.values.iter().enumerate() {
                        if !super::is_absent(*value) {
                            times.push(inner.time(index));
                            values.push(*value);
                        }
                    }
                    let Series { labels, drop_name, .. } = series;
                    each(Samples { labels: &labels, drop_name, times: &times, values: &values })
                })
            }
        }
    }

    /// Multiples of `step` later than the begin of the first window, up to the last look.
    fn subquery_steps(&self, looks: Looks, range: i64, step: i64) -> Result<Steps> {
        let before = looks.time(0).saturating_sub(range);
        let start = before.div_euclid(step).saturating_add(1).saturating_mul(step);
        let last = looks.last();
        let count = if last < start { 0 } else { (last.saturating_sub(start) / step).saturating_add(1) };
        Ok(Steps { start, step, count: self.budget.steps(count)? })
    }
}

fn drop_stale(times: &mut Vec<i64>, values: &mut Vec<f64>) {
    if !values.iter().any(|v| is_stale(*v)) {
        return;
    }
    let mut keep = values.iter().map(|v| !is_stale(*v));
    times.retain(|_| keep.next().unwrap_or(false));
    values.retain(|v| !is_stale(*v));
}
