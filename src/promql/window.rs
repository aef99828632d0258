//! Functions over windows: `rate(x[5m])`, `max_over_time(x[1h])` and their like.

use super::eval::{Evaluator, Looks, Samples, Sink};
use super::kahan::{Kahan, Mean};
use super::plan::{Input, WindowCall};
use super::regression::{LinearFit, smoothing};
use super::slide::{Max, Min, Sliding, Window, windows};
use super::source::{WindowFunction, Windows};
use super::statistics::{median_deviation, quantile, variance};
use super::steps::{Series, Steps, present, seconds};
use crate::error::{Error, Result};

/// Evaluates the call and gives its series to `sink`.
pub(super) fn call(eval: &Evaluator<'_>, call: &WindowCall, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    if call.function == WindowFunction::Absent {
        return absent(eval, call, steps, sink);
    }
    if reduced_by_source(eval, call, steps, sink)? {
        return Ok(());
    }
    let params = call.params.iter().map(|param| eval.scalar(param, steps)).collect::<Result<Vec<_>>>()?;
    check_params(call.function, &params)?;
    let work = Work { eval, call, params, steps, looks: Looks::new(steps, call.windowed.moved) };
    eval.samples(&call.windowed, Some(call.function), steps, &mut |samples| {
        eval.budget.work(steps.count)?;
        let mut column = steps.absent();
        work.reduce(samples, &mut column)?;
        let series = Series {
            labels: samples.labels.clone(),
            drop_name: samples.drop_name || !call.function.keeps_name(),
            values: column,
        };
        if !series.is_present() {
            return Ok(());
        }
        note_non_counter(eval, call, &series);
        sink(series)
    })
}

/// Asks the source to reduce the windows itself; false when it does not.
fn reduced_by_source(
    eval: &Evaluator<'_>,
    call: &WindowCall,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<bool> {
    use WindowFunction::{Avg, Count, First, Last, Max, Min, Present, Sum};
    let looks = Looks::new(steps, call.windowed.moved);
    let (Input::Select(selector, _), Some(step)) = (&call.windowed.input, looks.moving_step()) else {
        return Ok(false);
    };
    if !matches!(call.function, Avg | Count | First | Last | Max | Min | Present | Sum) {
        return Ok(false);
    }
    let windows = Windows {
        function: call.function,
        first_end: looks.time(0),
        step,
        count: steps.count,
        width: call.windowed.range,
    };
    let Some(mut stream) = eval.source.select_windows(selector, &windows)? else { return Ok(false) };
    let mut values = Vec::new();
    while let Some(labels) = stream.next(&mut values)? {
        eval.budget.read(values.len())?;
        values.resize(steps.count, super::ABSENT);
        let column = std::mem::take(&mut values);
        let series = Series { labels, drop_name: !call.function.keeps_name(), values: column };
        if series.is_present() {
            sink(series)?;
        }
    }
    Ok(true)
}

/// `absent_over_time`: 1 where no series has a sample in the window.
fn absent(eval: &Evaluator<'_>, call: &WindowCall, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    let looks = Looks::new(steps, call.windowed.moved);
    let mut column = vec![1.0; steps.count];
    eval.samples(&call.windowed, Some(call.function), steps, &mut |samples| {
        windows(samples, looks, call.windowed.range, |window| {
            column[window.step] = super::ABSENT;
            Ok(())
        })
    })?;
    let series = Series { labels: call.absent.clone(), drop_name: false, values: column };
    if series.is_present() { sink(series) } else { Ok(()) }
}

fn check_params(function: WindowFunction, params: &[Vec<f64>]) -> Result<()> {
    let (WindowFunction::Smoothing, [smoothing, trend]) = (function, params) else { return Ok(()) };
    for (name, short, values) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if let Some(wrong) = values.iter().find(|v| !(**v > 0.0 && **v < 1.0)) {
            return Err(Error::invalid_input(format!(
                "invalid {name} factor. Expected: 0 < {short} < 1, got: {wrong:.6}"
            )));
        }
    }
    Ok(())
}

/// `rate` and `increase` of what does not look like a counter.
fn note_non_counter(eval: &Evaluator<'_>, call: &WindowCall, series: &Series) {
    if !matches!(call.function, WindowFunction::Rate | WindowFunction::Increase) {
        return;
    }
    let name = series.labels.name();
    if name.is_empty() {
        return;
    }
    match series.labels.get("__type__") {
        "counter" | "histogram" => {}
        "" if ["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end)) => {}
        "" => eval.annotations.possible_non_counter(name, call.span),
        kind => eval.annotations.possible_non_counter_type(name, kind, call.span),
    }
}

/// One call at work: its parameters at each step and the times of its windows.
struct Work<'w> {
    eval: &'w Evaluator<'w>,
    call: &'w WindowCall,
    params: Vec<Vec<f64>>,
    steps: Steps,
    looks: Looks,
}

impl Work<'_> {
    /// Reduces each window of a series into its place in `column`.
    fn reduce(&self, samples: Samples<'_>, column: &mut [f64]) -> Result<()> {
        let (times, values) = (samples.times, samples.values);
        let of = |w: &Window| &values[w.first..w.last];
        match self.call.function {
            WindowFunction::Absent => Ok(()),
            WindowFunction::Count => self.fill(samples, column, |w| Some(w.len() as f64)),
            WindowFunction::Present => self.fill(samples, column, |_| Some(1.0)),
            WindowFunction::First => self.fill(samples, column, |w| Some(values[w.first])),
            WindowFunction::Last => self.fill(samples, column, |w| Some(values[w.last - 1])),
            WindowFunction::TimeOfFirst => self.fill(samples, column, |w| Some(seconds(times[w.first]))),
            WindowFunction::TimeOfLast => self.fill(samples, column, |w| Some(seconds(times[w.last - 1]))),
            WindowFunction::Max => {
                let mut sliding = Sliding::<Max>::new();
                self.fill(samples, column, |w| Some(sliding.aggregate(values, w.first, w.last).0))
            }
            WindowFunction::Min => {
                let mut sliding = Sliding::<Min>::new();
                self.fill(samples, column, |w| Some(sliding.aggregate(values, w.first, w.last).0))
            }
            WindowFunction::Sum => {
                let mut sliding = Sliding::<Kahan>::new();
                self.fill(samples, column, |w| Some(sliding.aggregate(values, w.first, w.last).value()))
            }
            WindowFunction::Avg => {
                let mut sliding = Sliding::<Kahan>::new();
                self.fill(samples, column, |w| {
                    let sum = sliding.aggregate(values, w.first, w.last);
                    if sum.sum.is_finite() {
                        return Some(sum.sum / w.len() as f64 + sum.lost / w.len() as f64);
                    }
                    mean(of(&w))
                })
            }
            WindowFunction::Changes => {
                let changed = |a: f64, b: f64| a != b && !(a.is_nan() && b.is_nan());
                let events = Events::new(values, changed);
                self.fill(samples, column, |w| Some(events.between(w) as f64))
            }
            WindowFunction::Resets => {
                let events = Events::new(values, |a, b| b < a);
                self.fill(samples, column, |w| Some(events.between(w) as f64))
            }
            WindowFunction::Rate | WindowFunction::Increase | WindowFunction::Delta => {
                self.extrapolated(samples, column)
            }
            WindowFunction::Irate => self.fill(samples, column, |w| instant_rate(samples, w, true)),
            WindowFunction::Idelta => self.fill(samples, column, |w| instant_rate(samples, w, false)),
            WindowFunction::TimeOfMax => {
                self.scan(samples, column, |w| time_of(samples, w, |value, best| value >= best))
            }
            WindowFunction::TimeOfMin => {
                self.scan(samples, column, |w| time_of(samples, w, |value, best| value <= best))
            }
            WindowFunction::Stdvar => self.scan(samples, column, |w| Some(variance(of(&w)))),
            WindowFunction::Stddev => self.scan(samples, column, |w| Some(variance(of(&w)).sqrt())),
            WindowFunction::Mad => {
                let mut sorted = Vec::new();
                self.scan(samples, column, |w| Some(median_deviation(of(&w), &mut sorted)))
            }
            WindowFunction::Quantile => {
                let mut sorted = Vec::new();
                self.scan(samples, column, |w| {
                    let q = self.param(0, w.step);
                    if !(0.0..=1.0).contains(&q) {
                        self.eval.annotations.invalid_quantile(q, self.call.span);
                    }
                    Some(quantile(q, of(&w), &mut sorted))
                })
            }
            WindowFunction::Deriv => self.scan(samples, column, |w| {
                (w.len() > 1).then(|| LinearFit::new(&times[w.first..w.last], of(&w), times[w.first]).slope)
            }),
            WindowFunction::PredictLinear => self.scan(samples, column, |w| {
                // The prediction starts from the time of evaluation, wherever the window lies.
                let now = self.steps.time(w.step);
                let fit = (w.len() > 1).then(|| LinearFit::new(&times[w.first..w.last], of(&w), now))?;
                Some(fit.slope * self.param(0, w.step) + fit.intercept)
            }),
            WindowFunction::Smoothing => self.scan(samples, column, |w| {
                (w.len() > 1).then(|| smoothing(of(&w), self.param(0, w.step), self.param(1, w.step)))
            }),
        }
    }

    fn param(&self, index: usize, step: usize) -> f64 {
        self.params.get(index).and_then(|values| values.get(step)).copied().unwrap_or(f64::NAN)
    }

    /// Fills the column by a function that takes constant time for each window.
    fn fill(
        &self,
        samples: Samples<'_>,
        column: &mut [f64],
        mut function: impl FnMut(Window) -> Option<f64>,
    ) -> Result<()> {
        windows(samples, self.looks, self.call.windowed.range, |window| {
            if let Some(value) = function(window) {
                column[window.step] = present(value);
            }
            Ok(())
        })
    }

    /// Fills the column by a function that looks at all samples of each window.
    fn scan(
        &self,
        samples: Samples<'_>,
        column: &mut [f64],
        mut function: impl FnMut(Window) -> Option<f64>,
    ) -> Result<()> {
        windows(samples, self.looks, self.call.windowed.range, |window| {
            self.eval.budget.work(window.len())?;
            if let Some(value) = function(window) {
                column[window.step] = present(value);
            }
            Ok(())
        })
    }

    /// `rate`, `increase`, `delta`: the difference of the ends, extrapolated to those of the window.
    fn extrapolated(&self, samples: Samples<'_>, column: &mut [f64]) -> Result<()> {
        let function = self.call.function;
        let values = samples.values;
        let counter = function != WindowFunction::Delta;
        let resets = if counter { Events::new(values, |a, b| b < a) } else { Events::default() };
        let range = self.call.windowed.range;
        let per_second = function == WindowFunction::Rate;
        let range_seconds = seconds(range);
        let mut shape = Shape::default();
        windows(samples, self.looks, range, |w| {
            if w.len() < 2 {
                return Ok(());
            }
            let mut difference = values[w.last - 1] - values[w.first];
            let lost = resets.at_between(w);
            self.eval.budget.work(lost.len())?;
            for reset in lost {
                difference += values[reset - 1];
            }
            shape.fit(samples.times, w, range);
            let factor = match counter {
                true => shape.counter_factor(values[w.first], difference),
                false => shape.factor,
            };
            let mut result = difference * factor;
            if per_second {
                result /= range_seconds;
            }
            column[w.step] = present(result);
            Ok(())
        })
    }
}

/// How the samples of a window lie in it, and by how much the difference of the first and last grows when it is
/// carried to the ends of the window: by at most half a sample distance where the ends are further than 1.1
/// distances away. Most windows of a series have the shape of the one before, which saves all divisions.
#[derive(Debug, Default)]
struct Shape {
    /// From the first sample to the end, from the last sample to the end, and how many.
    key: (i64, i64, usize),
    sampled: f64,
    to_start: f64,
    to_end: f64,
    factor: f64,
}

impl Shape {
    /// Makes it that of `w`, which holds two samples or more.
    fn fit(&mut self, times: &[i64], w: Window, range: i64) {
        let (first, last) = (times[w.first], times[w.last - 1]);
        let key = (w.end.saturating_sub(first), w.end.saturating_sub(last), w.len());
        if self.key == key {
            return;
        }
        let sampled = seconds(last.saturating_sub(first));
        let average = sampled / (w.len() - 1) as f64;
        let threshold = average * 1.1;
        let mut to_start = seconds(first.saturating_sub(w.end.saturating_sub(range)));
        let mut to_end = seconds(key.1);
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let factor = (sampled + to_start + to_end) / sampled;
        *self = Shape { key, sampled, to_start, to_end, factor };
    }

    /// The factor of a counter that rose by `increase` from `first`: it is not carried to before it was zero.
    fn counter_factor(&self, first: f64, increase: f64) -> f64 {
        let was_zero_before = first >= increase && self.sampled >= self.to_start;
        if !(increase > 0.0 && first >= 0.0) || was_zero_before {
            return self.factor;
        }
        let to_zero = self.sampled * (first / increase);
        if to_zero < self.to_start {
            (self.sampled + to_zero + self.to_end) / self.sampled
        } else {
            self.factor
        }
    }
}

/// `irate` and `idelta`: from the last two samples.
fn instant_rate(samples: Samples<'_>, w: Window, is_rate: bool) -> Option<f64> {
    if w.len() < 2 {
        return None;
    }
    let (a, b) = (samples.values[w.last - 2], samples.values[w.last - 1]);
    let elapsed = seconds(samples.times[w.last - 1].saturating_sub(samples.times[w.last - 2]));
    match is_rate {
        true if b < a => Some(b / elapsed),
        true => Some((b - a) / elapsed),
        false => Some(b - a),
    }
}

fn time_of(samples: Samples<'_>, w: Window, better: impl Fn(f64, f64) -> bool) -> Option<f64> {
    let mut best = w.first;
    for index in w.first..w.last {
        let (value, known) = (samples.values[index], samples.values[best]);
        if better(value, known) || known.is_nan() {
            best = index;
        }
    }
    Some(seconds(samples.times[best]))
}

fn mean(values: &[f64]) -> Option<f64> {
    let (first, rest) = values.split_first()?;
    Some(rest.iter().fold(Mean::new(*first), |mean, v| mean.plus(*v)).value())
}

/// Places where a value stands in some relation to the one before it.
#[derive(Debug, Default)]
struct Events(Vec<usize>);

impl Events {
    fn new(values: &[f64], is_event: impl Fn(f64, f64) -> bool) -> Self {
        let pairs = values.windows(2).enumerate();
        Events(pairs.filter(|(_, pair)| is_event(pair[0], pair[1])).map(|(at, _)| at + 1).collect())
    }

    /// Those between two samples of the window.
    fn at_between(&self, w: Window) -> &[usize] {
        if self.0.is_empty() {
            return &[];
        }
        let from = self.0.partition_point(|at| *at <= w.first);
        let to = self.0.partition_point(|at| *at < w.last);
        self.0.get(from..to).unwrap_or_default()
    }

    fn between(&self, w: Window) -> usize {
        self.at_between(w).len()
    }
}
