//! `/api/query`: the engine's own queries, out, in columns; `docs/rest.md` has parameters and answers.
//!
//! Raw samples are streamed, in memory that does not grow with the answer. Aggregates are worked out first, within the
//! memory that a query may take; several of one question see one state of the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Response};
use serde_json::{Value as Json, json};

use super::Frame;
use super::columns::{Form, Piece, Writer};
use super::parameters::Parameters;
use super::piecewise::{Out, parameters, refuse_own, stream};
use super::reading::Ticket;
use crate::error::{Error, Result};
use crate::model::{Selector, SeriesKey, TimeRange, Timestamp, ValueRef, ValueType};
use crate::query::{Aggregate, Compare, Query, QueryLimits, QueryReport, SeriesColumns};

/// Most aggregates of one question.
const AGGREGATE_COUNT_MAX: usize = 16;
/// Every parameter.
const PARAMETERS: [&str; 16] = [
    "selector", "from", "to", "window", "origin", "agg", "by", "without", "top", "bottom", "where", "limit",
    "partial", "times", "format", "timeout",
];

/// A question, as its parameters put it.
#[derive(Debug)]
struct Question {
    selector: Selector,
    range: TimeRange,
    window: Option<Duration>,
    origin: Timestamp,
    kind: Kind,
    by: Option<Vec<String>>,
    without: Option<Vec<String>>,
    top: Option<usize>,
    bottom: Option<usize>,
    condition: Option<(Compare, f64)>,
    row_count_max: usize,
    partial: bool,
    dates: bool,
    form: Form,
    timeout: Option<Duration>,
}

/// What becomes of the samples.
#[derive(Debug, PartialEq)]
enum Kind {
    Raw,
    Last,
    Aggregates(Vec<Made>),
}

/// What is made of each window.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Made {
    Aggregate(Aggregate),
    Histogram(f64),
}

/// `GET` and `POST /api/query`.
pub(super) async fn query(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    let (parts, parameters) = match parameters(&frame, request).await {
        Ok(read) => read,
        Err(refusal) => return *refusal,
    };
    match Question::read(&parameters, &parts.headers, frame.env.clock.now()) {
        Err(error) => refuse_own(&error, &parts.headers),
        Ok(question) => {
            let (form, asked) = (question.form, Arc::clone(&frame));
            let most = frame.options.limits.query_timeout;
            let timeout = question.timeout.map_or(most, |timeout| timeout.min(most));
            let work = move |ticket: &Ticket, out: &mut Out| question.answer(&asked, ticket, out);
            stream(&frame, &parts.headers, form.content_type(), timeout, work).await
        }
    }
}

impl Question {
    fn read(parameters: &Parameters, headers: &HeaderMap, now: Timestamp) -> Result<Self> {
        parameters.only(&PARAMETERS)?;
        let selector = parameters.parsed("selector", str::parse)?.ok_or_else(|| {
            Error::invalid_input(
                "selector: it is missing; give one such as cpu{host=\"a\"}, or {} for all series",
            )
        })?;
        let question = Question {
            selector,
            range: parameters.range(now)?,
            window: parameters.duration("window")?,
            origin: parameters.time("origin", now)?.unwrap_or_default(),
            kind: kind(parameters)?,
            by: parameters.list("by"),
            without: parameters.list("without"),
            top: parameters.count("top", usize::MAX)?,
            bottom: parameters.count("bottom", usize::MAX)?,
            condition: parameters.parsed("where", Compare::parse_condition)?,
            row_count_max: parameters.count("limit", usize::MAX)?.unwrap_or(usize::MAX),
            partial: parameters.flag("partial")?,
            dates: parameters.parsed("times", dates)?.unwrap_or_default(),
            form: match parameters.parsed("format", form)? {
                Some(form) => form,
                None => accepted(headers),
            },
            timeout: parameters.duration("timeout")?,
        };
        question.check()?;
        Ok(question)
    }

    /// Refuses parameters that do not fit each other.
    fn check(&self) -> Result<()> {
        let given = [
            ("window", self.window.is_some()),
            ("by", self.by.is_some()),
            ("without", self.without.is_some()),
            ("top", self.top.is_some()),
            ("bottom", self.bottom.is_some()),
        ];
        let aggregates = matches!(self.kind, Kind::Aggregates(_));
        if let Some((key, _)) = given.iter().find(|(_, given)| *given && !aggregates) {
            return Err(Error::invalid_input(format!("{key}: it needs an aggregate (agg)")));
        }
        if self.by.is_some() && self.without.is_some() {
            return Err(Error::invalid_input("without: it cannot be given together with by"));
        }
        if self.top.is_some() && self.bottom.is_some() {
            return Err(Error::invalid_input("bottom: it cannot be given together with top"));
        }
        Ok(())
    }

    fn answer(&self, frame: &Frame, ticket: &Ticket, out: &mut Out) -> Result<()> {
        let query = frame.db.query(self.selector.clone()).range(self.range).origin(self.origin);
        let mut limits = ticket.limits(frame);
        if self.kind == Kind::Raw {
            // They pass by, as many as there are.
            limits.sample_count_max = QueryLimits::default().sample_count_max;
        }
        let mut query = query.limits(limits).cancel(ticket.cancel.clone());
        if let Some((compare, constant)) = self.condition {
            query = query.where_value(compare, constant);
        }
        if self.partial {
            query = query.allow_partial();
        }
        match &self.kind {
            Kind::Raw => self.raw(&query, out),
            Kind::Last => {
                let answered = query.latest().run()?;
                let mut rows = Rows::new(self, vec!["value".to_owned()], out);
                for series in &answered.series {
                    if !rows.series(series, out)? {
                        break;
                    }
                }
                rows.end(&answered.report, out);
                Ok(())
            }
            Kind::Aggregates(made) => self.aggregates(query, made, out),
        }
    }

    fn raw(&self, query: &Query, out: &mut Out) -> Result<()> {
        let mut stream = query.stream()?;
        let mut rows = Rows::new(self, vec!["value".to_owned()], out);
        for piece in stream.by_ref() {
            if !rows.series(&piece?, out)? {
                break;
            }
        }
        rows.end(&stream.report(), out);
        Ok(())
    }

    fn aggregates(&self, query: Query, made: &[Made], out: &mut Out) -> Result<()> {
        let query = self.shaped(query).pinned()?;
        let mut joined: BTreeMap<SeriesKey, Vec<Option<SeriesColumns>>> = BTreeMap::new();
        let mut report = QueryReport::default();
        for (column, made) in made.iter().enumerate() {
            let query = match made {
                Made::Aggregate(aggregate) => query.clone().aggregate(*aggregate),
                Made::Histogram(rank) => query.clone().histogram_quantile(*rank),
            };
            let answered = query.run()?;
            for series in answered.series {
                let columns = joined.entry(series.key.clone()).or_default();
                columns.resize(column, None);
                columns.push(Some(series));
            }
            report = sum(report, &answered.report);
        }
        let mut rows = Rows::new(self, made.iter().map(|made| made.name()).collect(), out);
        for (key, columns) in &joined {
            if !rows.joined(key, columns, out)? {
                break;
            }
        }
        rows.end(&report, out);
        Ok(())
    }

    fn shaped(&self, mut query: Query) -> Query {
        if let Some(window) = self.window {
            query = query.window(window);
        }
        if let Some(by) = &self.by {
            query = query.by(by.iter().cloned());
        }
        if let Some(without) = &self.without {
            query = query.without(without.iter().cloned());
        }
        if let Some(top) = self.top {
            query = query.top(top);
        }
        if let Some(bottom) = self.bottom {
            query = query.bottom(bottom);
        }
        query
    }
}

/// The rows of an answer on their way out, up to as many as were asked for.
struct Rows {
    writer: Writer,
    left: usize,
    truncated: bool,
}

impl Rows {
    fn new(question: &Question, columns: Vec<String>, out: &mut Out) -> Self {
        let writer = Writer::new(question.form, question.dates, columns);
        writer.begin(&mut out.buffer);
        Rows { writer, left: question.row_count_max, truncated: false }
    }

    /// Writes a piece; returns whether more may follow.
    fn put(&mut self, mut piece: Piece<'_>, out: &mut Out) -> Result<bool> {
        if piece.times.len() > self.left {
            self.truncated = true;
            piece.times = piece.times.get(..self.left).unwrap_or_default();
        }
        self.left -= piece.times.len();
        if !piece.times.is_empty() {
            self.writer.piece(&mut out.buffer, &piece);
            out.send_full()?;
        }
        Ok(!self.truncated)
    }

    fn series(&mut self, series: &SeriesColumns, out: &mut Out) -> Result<bool> {
        let cell = |_: usize, row: usize| series.values.get(row);
        let value_type = series.values.value_type();
        self.put(Piece { key: &series.key, value_type, times: &series.times, cell: &cell }, out)
    }

    /// Writes what several aggregates made of one group. A window that one of them has no value for has none there.
    fn joined(&mut self, key: &SeriesKey, columns: &[Option<SeriesColumns>], out: &mut Out) -> Result<bool> {
        let mut times: Vec<Timestamp> =
            columns.iter().flatten().flat_map(|series| series.times.iter().copied()).collect();
        times.sort_unstable();
        times.dedup();
        let cell = |column: usize, row: usize| {
            let series = columns.get(column)?.as_ref()?;
            let at = series.times.binary_search(times.get(row)?).ok()?;
            series.doubles().get(at).map(|value| ValueRef::F64(*value))
        };
        self.put(Piece { key, value_type: ValueType::F64, times: &times, cell: &cell }, out)
    }

    fn end(&self, report: &QueryReport, out: &mut Out) {
        self.writer.end(&mut out.buffer, self.truncated, &report_json(report));
    }
}

impl Made {
    fn name(self) -> String {
        match self {
            Made::Aggregate(aggregate) => aggregate.to_string(),
            Made::Histogram(rank) => format!("histogram_quantile({rank})"),
        }
    }
}

fn kind(parameters: &Parameters) -> Result<Kind> {
    let names = parameters.list("agg").unwrap_or_default();
    match names.as_slice() {
        [] => return Ok(Kind::Raw),
        [one] if one == "raw" => return Ok(Kind::Raw),
        [one] if one == "latest" => return Ok(Kind::Last),
        many if many.len() > AGGREGATE_COUNT_MAX => {
            return Err(Error::invalid_input(format!("agg: more than {AGGREGATE_COUNT_MAX}")));
        }
        _ => {}
    }
    let mut made = Vec::new();
    for name in &names {
        let one = made_of(name).map_err(|error| error.context("agg"))?;
        if made.contains(&one) {
            return Err(Error::invalid_input(format!("agg: {name} is given twice")));
        }
        made.push(one);
    }
    Ok(Kind::Aggregates(made))
}

fn made_of(name: &str) -> Result<Made> {
    if name == "raw" || name == "latest" {
        return Err(Error::invalid_input(format!("{name} stands alone")));
    }
    let rank = name.strip_prefix("histogram_quantile(").and_then(|rest| rest.strip_suffix(')'));
    match rank {
        Some(rank) => {
            let rank = rank.trim().parse().ok().filter(|rank| (0.0..=1.0).contains(rank));
            rank.map(Made::Histogram)
                .ok_or_else(|| Error::invalid_input(format!("{name}: the rank is not between 0 and 1")))
        }
        None => name
            .parse()
            .map(Made::Aggregate)
            .map_err(|error: Error| error.context("besides raw, latest and histogram_quantile(rank)")),
    }
}

fn dates(text: &str) -> Result<bool> {
    match text {
        "ns" => Ok(false),
        "rfc3339" => Ok(true),
        _ => Err(Error::invalid_input(format!("{text:?} is neither ns nor rfc3339"))),
    }
}

fn form(text: &str) -> Result<Form> {
    match text {
        "json" => Ok(Form::Json),
        "jsonl" => Ok(Form::JsonLines),
        "csv" => Ok(Form::Csv),
        _ => Err(Error::invalid_input(format!("{text:?} is none of json, jsonl and csv"))),
    }
}

/// The first form that the `Accept` header names, JSON if it names none of ours.
fn accepted(headers: &HeaderMap) -> Form {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = |item: &str| match item.split(';').next().unwrap_or_default().trim() {
        "text/csv" => Some(Form::Csv),
        "application/x-ndjson" | "application/jsonl" | "application/jsonlines" => Some(Form::JsonLines),
        "application/json" => Some(Form::Json),
        _ => None,
    };
    accept.split(',').find_map(form).unwrap_or(Form::Json)
}

/// The work of two queries; they choose the same series of the same sources.
fn sum(mut total: QueryReport, other: &QueryReport) -> QueryReport {
    (total.series, total.damaged) = (other.series, Vec::new());
    total.add(other);
    total
}

fn report_json(report: &QueryReport) -> Json {
    let mut body = json!({
        "series": report.series, "series_without_answer": report.series_without_answer,
        "samples_decoded": report.samples_decoded, "pages_decoded": report.pages_decoded,
        "pages_aggregated": report.pages_aggregated, "stale_markers": report.stale_markers,
        "partial": report.is_partial(),
    });
    if report.is_partial() {
        let damaged = report.damaged.iter().map(|damaged| {
            let range = damaged.range;
            json!({ "from": range.start.nanos(), "to": range.end.nanos(), "what": damaged.what })
        });
        body["damaged"] = damaged.collect();
    }
    body
}
