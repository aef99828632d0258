//! `icecore query`: samples or aggregates of series, or the value of a PromQL expression, as a table, CSV, JSON or a chart.
//!
//! A selector alone is asked of the engine, which gives its samples as they are. Everything else is PromQL.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use icecore::{Aggregate, Compare, QueryReport, Selector, SeriesColumns, SeriesKey, Timestamp};
use serde_json::json;

use crate::chart;
use crate::failure::{Failure, Outcome, usage};
use crate::interrupt;
use crate::output::{Output, count, json_tags, json_value, rows, size, stdout, value, write_csv};
use crate::select::{Times, open_to_read};
use crate::time::{format_duration, format_time, parse_duration, parse_time};

/// Answers with samples or aggregates of series, or with the value of a PromQL expression.
///
/// A selector alone is answered with its samples, or with what --agg makes of them. Any other expression, or one with
/// --time, --step, --url or --explain, is PromQL: evaluated at --time (now, if it is not given), or from --from to --to
/// inclusive at every --step.
#[derive(Debug, clap::Args)]
pub(crate) struct Query {
    /// The directory of the database.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["url", "explain"], conflicts_with = "url")]
    data: Option<PathBuf>,
    /// A server that speaks the Prometheus HTTP API, such as http://localhost:9090.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The token that the server of --url asks for.
    #[arg(long, value_name = "TOKEN", requires = "url", env = "ICECORE_READ_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Which series: `cpu`, `cpu{host="a",core=~"0|1"}`, `{}` for all; or PromQL: `sum by (host) (rate(cpu[5m]))`.
    #[arg(value_name = "EXPRESSION")]
    text: String,
    #[command(flatten)]
    times: Times,
    /// PromQL: evaluate at this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true, conflicts_with_all = ["from", "to", "step"])]
    time: Option<Timestamp>,
    /// PromQL: evaluate again and again, so far apart, such as 1m; a 250th of the range if it is not given.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    step: Option<Duration>,
    /// PromQL: print the plan, and ask nothing.
    #[arg(long)]
    explain: bool,
    /// Windows of this length, such as 1m or 1h30m; needs --agg.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "agg")]
    window: Option<Duration>,
    /// count, sum, avg, min, max, first, last, stddev, quantile(0.9), rate, increase or delta; or latest, the last
    /// sample of each series as it is; or histogram_quantile(0.9) of series with `le`.
    #[arg(long, value_name = "AGGREGATE", value_parser = parse_kind)]
    agg: Option<Kind>,
    /// Answer together the series that agree in these tags, joined by commas; empty for all in one.
    #[arg(long, value_name = "TAGS", requires = "agg")]
    by: Option<String>,
    /// Answer together the series that agree in all other tags.
    #[arg(long, value_name = "TAGS", requires = "agg", conflicts_with = "by")]
    without: Option<String>,
    /// Of each window keep this many of the greatest.
    #[arg(long, value_name = "COUNT", requires = "agg")]
    top: Option<usize>,
    /// Of each window keep this many of the smallest.
    #[arg(long, value_name = "COUNT", requires = "agg", conflicts_with = "top")]
    bottom: Option<usize>,
    /// Only samples such as ">90", "<=0", "==1" or "!=0".
    #[arg(long = "where", value_name = "CONDITION", value_parser = parse_condition, allow_hyphen_values = true)]
    condition: Option<(Compare, f64)>,
    /// How the answer is written.
    #[arg(long, default_value = "table")]
    format: Format,
    /// Answer from what is readable where something is damaged.
    #[arg(long)]
    partial: bool,
    /// Say on standard error what the query did.
    #[arg(long)]
    report: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Json,
    Chart,
}

/// What becomes of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Aggregate(Aggregate),
    Latest,
    Histogram(f64),
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    if text == "latest" {
        return Ok(Kind::Latest);
    }
    if let Some(rank) = text.strip_prefix("histogram_quantile(").and_then(|rest| rest.strip_suffix(')')) {
        return rank.trim().parse().map(Kind::Histogram).map_err(|_| format!("{rank:?} is no rank"));
    }
    text.parse().map(Kind::Aggregate).map_err(|error: icecore::Error| error.to_string())
}

fn parse_condition(text: &str) -> Result<(Compare, f64), String> {
    Compare::parse_condition(text).map_err(|error| error.to_string())
}

/// The tags of `a,b`.
fn tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty())
}

/// Asks and prints.
pub(crate) fn run(arguments: &Query) -> Outcome {
    let is_promql = arguments.time.is_some() || arguments.step.is_some() || arguments.explain;
    match (&arguments.data, arguments.text.parse::<Selector>()) {
        (Some(data), Ok(selector)) if !is_promql => samples(arguments, data, selector),
        (_, selector) => expression(arguments, selector.err()),
    }
}

/// Evaluates PromQL, and prints.
#[cfg(feature = "promql")]
fn expression(arguments: &Query, _: Option<icecore::Error>) -> Outcome {
    use crate::promql::{Origin, Question, Times, explain, run};
    if arguments.agg.is_some() || arguments.condition.is_some() {
        return Err(usage("--agg and --where go with a selector alone; PromQL says it in the expression"));
    }
    let (from, to) = arguments.times.ends();
    let question = Question {
        text: &arguments.text,
        times: Times::of(arguments.time, from, to, arguments.step, crate::time::now())?,
        format: arguments.format,
        report: arguments.report,
        allow_partial: arguments.partial,
    };
    match (&arguments.data, &arguments.url) {
        _ if arguments.explain => explain(&question),
        (Some(path), _) => run(&question, &Origin::Directory(path)),
        (None, Some(url)) => run(&question, &Origin::Server { url, token: arguments.token.as_deref() }),
        (None, None) => Err(usage("give --data or --url")),
    }
}

/// What is no selector may be PromQL, which is not in this build.
#[cfg(not(feature = "promql"))]
fn expression(_: &Query, error: Option<icecore::Error>) -> Outcome {
    let reason = error.map(|error| format!("{error}; ")).unwrap_or_default();
    let Failure::Usage(help) = feature_is_off("PromQL") else { return Ok(()) };
    Err(usage(format!("{reason}{help}")))
}

/// Something is not in this build: how to get it.
#[cfg(not(all(feature = "promql", feature = "client")))]
pub(crate) fn feature_is_off(what: &str) -> Failure {
    let quoted = |argument: String| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=".contains(c);
        if argument.chars().all(is_plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    };
    let arguments: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    usage(format!("{what} is not in this build; run: cargo run --features full -- {}", arguments.join(" ")))
}

/// Asks the engine for samples or aggregates of series, and prints.
fn samples(arguments: &Query, data: &std::path::Path, selector: Selector) -> Outcome {
    let range = arguments.times.range()?;
    let reader = open_to_read(data)?;
    let query = reader.query(selector).range(range).cancel(interrupt::token());
    let query = arguments.shape(query);
    let begun = std::time::Instant::now();
    let mut out = stdout();
    let report = if arguments.agg.is_none() && arguments.format != Format::Chart {
        let mut stream = query.stream().map_err(wrong_or_failed)?;
        let mut writer = Writer::new(arguments.format, &mut out)?;
        for piece in stream.by_ref() {
            writer.piece(&piece?)?;
        }
        writer.finish()?;
        stream.report()
    } else {
        let result = query.run().map_err(wrong_or_failed)?;
        if arguments.format == Format::Chart {
            write!(out, "{}", chart::draw(&result.series))?;
        } else if arguments.format == Format::Table
            && result.series.iter().all(|series| series.times.len() == 1)
        {
            write_lines(&mut out, &result.series, arguments.agg == Some(Kind::Latest))?;
        } else {
            let mut writer = Writer::new(arguments.format, &mut out)?;
            for series in &result.series {
                writer.piece(series)?;
            }
            writer.finish()?;
        }
        result.report
    };
    out.flush()?;
    if arguments.report {
        tell(&report, begun.elapsed());
    }
    warn_of_damage(&report);
    Ok(())
}

impl Query {
    fn shape(&self, mut query: icecore::Query) -> icecore::Query {
        query = match self.agg {
            Some(Kind::Aggregate(aggregate)) => query.aggregate(aggregate),
            Some(Kind::Latest) => query.latest(),
            Some(Kind::Histogram(rank)) => query.histogram_quantile(rank),
            None => query,
        };
        if let Some(window) = self.window {
            query = query.window(window);
        }
        if let Some(by) = &self.by {
            query = query.by(tags(by));
        }
        if let Some(without) = &self.without {
            query = query.without(tags(without));
        }
        if let Some(top) = self.top {
            query = query.top(top);
        }
        if let Some(bottom) = self.bottom {
            query = query.bottom(bottom);
        }
        if let Some((compare, constant)) = self.condition {
            query = query.where_value(compare, constant);
        }
        if self.partial { query.allow_partial() } else { query }
    }
}

/// Parts of a query that do not fit each other are wrong arguments.
fn wrong_or_failed(error: icecore::Error) -> Failure {
    match error.kind() {
        icecore::ErrorKind::InvalidInput => usage(error),
        _ => error.into(),
    }
}

fn tell(report: &QueryReport, took: Duration) {
    eprintln!(
        "{}: {} series; {} of {} sources skipped; {} pages: {} by their aggregates, {} decoded, {} skipped; \
         {} samples decoded, {} read",
        format_duration(took),
        count(report.series),
        report.sources_skipped,
        report.sources,
        count(report.pages),
        count(report.pages_aggregated),
        count(report.pages_decoded),
        count(report.pages_skipped),
        count(report.samples_decoded),
        size(report.bytes_read),
    );
}

fn warn_of_damage(report: &QueryReport) {
    for damaged in &report.damaged {
        let (start, end) = (format_time(damaged.range.start), format_time(damaged.range.end));
        eprintln!("icecore: the answer is partial from {start} to {end}: {}", damaged.what);
    }
}

/// One value for each series: a line each, the values under each other.
fn write_lines(out: &mut Output, series: &[SeriesColumns], with_times: bool) -> Outcome {
    let values: Vec<String> =
        series.iter().map(|series| series.values.get(0).map(value).unwrap_or_default()).collect();
    let width = values.iter().map(String::len).max().unwrap_or(0).min(40);
    for (series, value) in series.iter().zip(&values) {
        match series.times.first().filter(|_| with_times) {
            Some(time) => writeln!(out, "{value:>width$}  {}  {}", format_time(*time), series.key)?,
            None => writeln!(out, "{value:>width$}  {}", series.key)?,
        }
    }
    Ok(())
}

/// Writes an answer piece by piece; pieces of one series follow each other.
struct Writer<'a> {
    format: Format,
    out: &'a mut Output,
    last: Option<SeriesKey>,
}

impl<'a> Writer<'a> {
    fn new(format: Format, out: &'a mut Output) -> Outcome<Self> {
        match format {
            Format::Csv => writeln!(out, "series,tags,timestamp_ns,value")?,
            Format::Json => write!(out, "{{\"time_unit\":\"ns\",\"series\":[")?,
            Format::Table | Format::Chart => {}
        }
        Ok(Writer { format, out, last: None })
    }

    fn piece(&mut self, piece: &SeriesColumns) -> Outcome {
        let is_new = self.last.as_ref() != Some(&piece.key);
        match self.format {
            Format::Csv => write_csv(self.out, piece)?,
            Format::Json => self.json(piece, is_new)?,
            Format::Table | Format::Chart => self.table(piece, is_new)?,
        }
        self.last = Some(piece.key.clone());
        Ok(())
    }

    fn table(&mut self, piece: &SeriesColumns, is_new: bool) -> Outcome {
        if is_new {
            writeln!(self.out, "{}", piece.key)?;
        }
        for (time, text) in rows(piece) {
            writeln!(self.out, "  {:<30}  {text}", format_time(time))?;
        }
        Ok(())
    }

    fn json(&mut self, piece: &SeriesColumns, is_new: bool) -> Outcome {
        if is_new {
            let comma = if self.last.is_some() { "]}," } else { "" };
            let (name, tags) = (json!(piece.key.name()), json_tags(&piece.key));
            let value_type = piece.values.value_type().name();
            write!(
                self.out,
                "{comma}\n{{\"name\":{name},\"tags\":{tags},\"type\":\"{value_type}\",\"samples\":["
            )?;
        }
        for (index, time) in piece.times.iter().enumerate() {
            let comma = if is_new && index == 0 { "" } else { "," };
            let value = piece.values.get(index).map(json_value).unwrap_or_default();
            write!(self.out, "{comma}[{time},{value}]")?;
        }
        Ok(())
    }

    fn finish(self) -> Outcome {
        if self.format == Format::Json {
            writeln!(self.out, "{}]}}", if self.last.is_some() { "]}\n" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_aggregates_are_read() {
        assert_eq!(parse_condition(">= 90"), Ok((Compare::GreaterOrEqual, 90.0)));
        assert_eq!(parse_kind("histogram_quantile(0.9)"), Ok(Kind::Histogram(0.9)));
        assert_eq!(parse_kind("max"), Ok(Kind::Aggregate(Aggregate::Max)));
        assert!(parse_kind("most").is_err());
        assert_eq!(tags(" a, b,").collect::<Vec<_>>(), ["a", "b"]);
    }
}
