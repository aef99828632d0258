//! `icecore query` with an expression of PromQL: on a directory, or asked of a server.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use icecore::promql::{self, EngineSource, Expr, Options, Output as Answer, RangeTimes, Value};
use icecore::{Column, SeriesColumns, SeriesKey, Timestamp};

use crate::failure::{Outcome, usage};
use crate::interrupt;
use crate::output::{Output, count, number, rows, size, stdout, write_csv};
use crate::query::Format;
use crate::select::open_to_read;
use crate::time::{format_duration, format_time};
use crate::{chart, remote};

/// Steps of a range that names none.
const STEP_COUNT: i64 = 250;
/// The shortest step that is chosen for a range that names none.
const STEP_MIN: i64 = 1_000_000_000;
/// Length of a range whose begin is not named.
const RANGE_DEFAULT: i64 = 3_600_000_000_000;
/// Columns of the longest bar.
const BAR_WIDTH: f64 = 50.0;

/// What is asked, when, and how the answer is shown.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) text: &'a str,
    pub(crate) times: Times,
    pub(crate) format: Format,
    pub(crate) report: bool,
    pub(crate) allow_partial: bool,
}

/// When an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Times {
    At(Timestamp),
    Range(RangeTimes),
}

/// Where the answer comes from.
#[derive(Debug)]
pub(crate) enum Origin<'a> {
    Directory(&'a Path),
    Server { url: &'a str, token: Option<&'a str> },
}

impl Times {
    /// A range if a begin or a step is named, else one time.
    pub(crate) fn of(
        time: Option<Timestamp>,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        step: Option<Duration>,
        now: Timestamp,
    ) -> Outcome<Self> {
        if time.is_some() || (from.is_none() && step.is_none()) {
            if to.is_some() {
                return Err(usage("--to is the end of a range: give --from, or --time for one time"));
            }
            return Ok(Times::At(time.unwrap_or(now)));
        }
        let end = to.unwrap_or(now);
        let start = from.unwrap_or_else(|| end.saturating_sub(RANGE_DEFAULT));
        if end < start {
            return Err(usage("--from is not before --to"));
        }
        let usual = (end.nanos().saturating_sub(start.nanos()) / STEP_COUNT).max(STEP_MIN);
        let step = step.map_or(usual, |step| i64::try_from(step.as_nanos()).unwrap_or(i64::MAX));
        Ok(Times::Range(RangeTimes { start, end, step }))
    }

    fn range(self) -> RangeTimes {
        match self {
            Times::At(time) => RangeTimes { start: time, end: time, step: 1 },
            Times::Range(times) => times,
        }
    }
}

/// Evaluates and prints.
pub(crate) fn run(question: &Question<'_>, from: &Origin<'_>) -> Outcome {
    let begun = Instant::now();
    let answer = match from {
        Origin::Directory(path) => evaluate(question, path)?,
        Origin::Server { url, token } => remote::ask(url, *token, question.text, question.times)?,
    };
    print(&answer.value, question.format)?;
    for (kind, texts) in [("warning", &answer.warnings), ("info", &answer.infos)] {
        texts.iter().for_each(|text| eprintln!("icecore: {kind}: {text}"));
    }
    let took = format_duration(begun.elapsed());
    if question.report && matches!(from, Origin::Server { .. }) {
        eprintln!("{took}, on the way and at the server");
    } else if question.report {
        let stats = answer.stats;
        eprintln!(
            "{took}: {} series and {} samples read, at most {} held",
            count(stats.series),
            count(stats.samples),
            size(stats.memory_peak),
        );
    }
    Ok(())
}

/// Prints the plan by which the expression would be evaluated.
pub(crate) fn explain(question: &Question<'_>) -> Outcome {
    let expr = parse(question.text)?;
    let plan = promql::explain(&expr, question.times.range(), &Options::default()).map_err(usage)?;
    let mut out = stdout();
    writeln!(out, "{}", plan.trim_end())?;
    Ok(out.flush()?)
}

fn parse(text: &str) -> Outcome<Expr> {
    promql::parse(text).map_err(usage)
}

fn evaluate(question: &Question<'_>, path: &Path) -> Outcome<Answer> {
    let expr = parse(question.text)?;
    let reader = open_to_read(path)?;
    let source = EngineSource::new(|selector| {
        let query = reader.query(selector).cancel(interrupt::token());
        if question.allow_partial { query.allow_partial() } else { query }
    });
    let options = Options { cancel: interrupt::token(), ..Options::default() };
    let answer = match question.times {
        Times::At(time) => promql::instant(&source, &expr, question.text, time, &options),
        Times::Range(times) => {
            promql::check_range(&expr).map_err(usage)?;
            promql::range(&source, &expr, question.text, times, &options)
        }
    };
    Ok(answer?)
}

fn print(value: &Value, format: Format) -> Outcome {
    let mut out = stdout();
    match (format, value) {
        (Format::Json, _) => {
            let mut text = String::from("{");
            promql::push_value(&mut text, value);
            writeln!(out, "{text}}}")?;
        }
        (Format::Csv, Value::String(..)) => {
            return Err(usage("a string has no CSV form; take another --format"));
        }
        (Format::Csv, _) => {
            writeln!(out, "series,tags,timestamp_ns,value")?;
            columns(value).iter().try_for_each(|series| write_csv(&mut out, series))?;
        }
        (Format::Chart, Value::Matrix(_)) => write!(out, "{}", chart::draw(&columns(value)))?,
        (Format::Chart, Value::Vector(_)) => write_bars(&mut out, &columns(value))?,
        (_, Value::Scalar(point)) => writeln!(out, "{}", number(point.value))?,
        (_, Value::String(_, text)) => writeln!(out, "{text}")?,
        (_, Value::Vector(_)) => write_lines(&mut out, &columns(value))?,
        (_, Value::Matrix(_)) => {
            for series in columns(value) {
                writeln!(out, "{}", series.key)?;
                for (time, text) in rows(&series) {
                    writeln!(out, "  {:<30}  {text}", format_time(time))?;
                }
            }
        }
    }
    Ok(out.flush()?)
}

/// The answer in the columns of the engine, which the other verbs show as well.
fn columns(value: &Value) -> Vec<SeriesColumns> {
    let of = |labels: &promql::Labels, points: &[promql::Point]| SeriesColumns {
        key: SeriesKey::from(labels),
        times: points.iter().map(|point| point.time).collect(),
        values: Column::F64(points.iter().map(|point| point.value).collect()),
    };
    match value {
        Value::Scalar(point) => vec![of(&promql::Labels::empty(), &[*point])],
        Value::String(..) => Vec::new(),
        Value::Vector(samples) => {
            let point = |sample: &promql::Sample| promql::Point { time: sample.time, value: sample.value };
            samples.iter().map(|sample| of(&sample.labels, &[point(sample)])).collect()
        }
        Value::Matrix(matrix) => matrix.iter().map(|series| of(&series.labels, &series.points)).collect(),
    }
}

/// One line for each sample, the values under each other.
fn write_lines(out: &mut Output, samples: &[SeriesColumns]) -> Outcome {
    let values: Vec<String> = samples.iter().flat_map(SeriesColumns::doubles).map(|v| number(*v)).collect();
    let width = values.iter().map(String::len).max().unwrap_or(0);
    for (sample, value) in samples.iter().zip(&values) {
        writeln!(out, "{value:>width$}  {}", sample.key)?;
    }
    Ok(())
}

/// One bar for each sample, as long as its size compares with the greatest.
fn write_bars(out: &mut Output, samples: &[SeriesColumns]) -> Outcome {
    let values: Vec<f64> = samples.iter().flat_map(SeriesColumns::doubles).copied().collect();
    let most = values.iter().map(|v| v.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let width = values.iter().map(|v| number(*v).len()).max().unwrap_or(0);
    for (sample, value) in samples.iter().zip(&values) {
        let share = if most > 0.0 && value.is_finite() { value.abs() / most } else { 0.0 };
        let bar = "█".repeat((share * BAR_WIDTH).round() as usize);
        writeln!(out, "{:>width$}  {bar:<50}  {}", number(*value), sample.key)?;
    }
    Ok(())
}

/// A failure that a server told, in the words of its API.
#[cfg(feature = "client")]
pub(crate) fn told(kind: &str, message: &str) -> crate::failure::Failure {
    match kind {
        "bad_data" => usage(message),
        _ => crate::failure::Failure::Failed(format!("the server says {kind}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_make_an_instant_or_a_range() {
        let now = Timestamp::from_secs(10_000);
        let at = |seconds| Some(Timestamp::from_secs(seconds));
        let minute = Some(Duration::from_secs(60));
        let range = |start, end, step: i64| {
            let (start, end) = (Timestamp::from_secs(start), Timestamp::from_secs(end));
            Times::Range(RangeTimes { start, end, step: step * 1_000_000_000 })
        };
        assert_eq!(Times::of(None, None, None, None, now).unwrap(), Times::At(now));
        assert_eq!(Times::of(at(5), None, None, None, now).unwrap(), Times::At(Timestamp::from_secs(5)));
        assert_eq!(Times::of(None, at(100), at(200), minute, now).unwrap(), range(100, 200, 60));
        assert_eq!(Times::of(None, None, None, minute, now).unwrap(), range(6_400, 10_000, 60));
        assert_eq!(Times::of(None, at(0), at(500), None, now).unwrap(), range(0, 500, 2));
        assert_eq!(Times::of(None, at(0), at(5), None, now).unwrap(), range(0, 5, 1));
        assert!(Times::of(None, None, at(5), None, now).is_err());
        assert!(Times::of(None, at(6), at(5), None, now).is_err());
    }
}
