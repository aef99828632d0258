//! The Prometheus HTTP API, out: queries, and the listings that Grafana and promtool ask for.
//!
//! Forms and words are those of Prometheus' page "HTTP API". What an expression cannot be parsed for is `bad_data` (400),
//! what fails in its evaluation is `execution` (422).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value as Json, json};

use super::answer::{World, json_answer, refuse, status};
use super::import::parameter;
use super::pushgateway::percent_decode;
use super::{Frame, take};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{NAME_KEY, Selector, TimeRange, Timestamp, ValueType};
use crate::promql::{self, EngineSource, Labels, Output, Point, RangeTimes, Value, value_text};

/// Most points of a series in the answer of a range query, as Prometheus has it.
const POINT_COUNT_MAX: i64 = 11_000;

type Pairs = [(String, String)];

/// `GET` and `POST /api/v1/query`.
pub(super) async fn query(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(&frame, request, |pairs| {
        let text = needed(pairs, "query")?;
        let expr = promql::parse(text)?;
        let time = time_or(pairs, "time", frame.env.clock.now())?;
        let source = EngineSource::new(|selector| frame.db.query(selector));
        let output = promql::instant(&source, &expr, text, time, &promql::Options::default());
        output.map(|output| success(&output)).map_err(execution)
    })
    .await
}

/// `GET` and `POST /api/v1/query_range`.
pub(super) async fn query_range(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(&frame, request, |pairs| {
        let text = needed(pairs, "query")?;
        let expr = promql::parse(text)?;
        let times = RangeTimes {
            start: time(needed(pairs, "start")?, "start")?,
            end: time(needed(pairs, "end")?, "end")?,
            step: step(needed(pairs, "step")?)?,
        };
        if times.step <= 0 {
            return Err(Error::invalid_input(
                "zero or negative query resolution step widths are not accepted",
            )
            .into());
        }
        if times.end < times.start {
            return Err(Error::invalid_input("end timestamp must not be before start time").into());
        }
        if times.end.nanos().saturating_sub(times.start.nanos()) / times.step > POINT_COUNT_MAX {
            let message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
            return Err(Error::invalid_input(message).into());
        }
        let source = EngineSource::new(|selector| frame.db.query(selector));
        let output = promql::range(&source, &expr, text, times, &promql::Options::default());
        output.map(|output| success(&output)).map_err(execution)
    })
    .await
}

/// `GET` and `POST /api/v1/labels`.
pub(super) async fn labels(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(&frame, request, |pairs| {
        let mut keys = BTreeSet::new();
        for (selector, range) in selected(pairs)? {
            let found = frame.db.query(selector).range(range).tag_keys()?;
            if !found.is_empty() {
                keys.insert(NAME_KEY.to_owned());
            }
            keys.extend(found);
        }
        Ok(data(&json!(keys)))
    })
    .await
}

/// `GET /api/v1/label/{name}/values`.
pub(super) async fn label_values(
    State(frame): State<Arc<Frame>>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    ask(&frame, request, |pairs| {
        let mut values = BTreeSet::new();
        for (selector, range) in selected(pairs)? {
            let query = frame.db.query(selector).range(range);
            values.extend(if name == NAME_KEY { query.names()? } else { query.tag_values(&name)? });
        }
        Ok(data(&json!(values)))
    })
    .await
}

/// `GET` and `POST /api/v1/series`.
pub(super) async fn series(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(&frame, request, |pairs| {
        if pairs.iter().all(|(key, _)| key != "match[]") {
            return Err(Error::invalid_input("no match[] parameter provided").into());
        }
        let mut keys = BTreeSet::new();
        for (selector, range) in selected(pairs)? {
            if selector.matchers.iter().all(|matcher| matcher.condition.matches_absent()) {
                let message = "match[] must contain at least one non-empty matcher";
                return Err(Error::invalid_input(message).into());
            }
            let found = frame.db.query(selector).range(range).series()?;
            keys.extend(found.into_iter().filter(|(_, kind)| *kind != ValueType::Bytes).map(|(key, _)| key));
        }
        let list: Vec<Json> =
            keys.iter().map(|key| metric_json(&Labels::new(key.name(), key.tags()))).collect();
        Ok(data(&json!(list)))
    })
    .await
}

/// `GET /api/v1/metadata`.
pub(super) async fn metadata(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(&frame, request, |pairs| {
        let wanted = parameter(pairs, "metric");
        let mut found = Map::new();
        for (name, metadata) in frame.db.all_metadata() {
            if wanted.is_empty() || wanted == name {
                let entry =
                    json!([{ "type": metadata.kind.name(), "help": metadata.help, "unit": metadata.unit }]);
                found.insert(name, entry);
            }
        }
        Ok(data(&Json::Object(found)))
    })
    .await
}

/// `GET` and `POST /api/v1/format_query`.
pub(super) async fn format_query(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(&frame, request, |pairs| Ok(data(&json!(promql::pretty(&promql::parse(needed(pairs, "query")?)?)))))
        .await
}

/// `GET` and `POST /api/v1/parse_query`.
pub(super) async fn parse_query(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(&frame, request, |pairs| Ok(data(&promql::tree_json(&promql::parse(needed(pairs, "query")?)?)))).await
}

/// `GET` and `POST /api/v1/query_exemplars`: none are stored.
pub(super) async fn no_exemplars() -> Response<Body> {
    json_answer(StatusCode::OK, &data(&json!([])))
}

/// `GET /api/v1/rules`: there are none.
pub(super) async fn no_rules() -> Response<Body> {
    json_answer(StatusCode::OK, &data(&json!({ "groups": [] })))
}

/// `GET /api/v1/alerts`: there are none.
pub(super) async fn no_alerts() -> Response<Body> {
    json_answer(StatusCode::OK, &data(&json!({ "alerts": [] })))
}

/// `GET /api/v1/status/buildinfo`, by which Grafana tells what it talks to.
pub(super) async fn build_info() -> Response<Body> {
    json_answer(
        StatusCode::OK,
        &data(&json!({
            "version": "3.5.0", "revision": concat!("icecore-", env!("CARGO_PKG_VERSION")), "branch": "", "buildUser": "",
            "buildDate": "", "goVersion": "",
        })),
    )
}

/// Why a question has no answer.
struct Refusal {
    status: StatusCode,
    error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal { status: status(&error), error }
    }
}

/// A failure in the evaluation of what was parsed.
fn execution(error: Error) -> Refusal {
    let status = match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::LimitExceeded => StatusCode::UNPROCESSABLE_ENTITY,
        _ => status(&error),
    };
    Refusal { status, error }
}

/// Answers with what `work` makes of the parameters, those of the URL and those of a form.
async fn ask(
    frame: &Frame,
    request: Request,
    work: impl FnOnce(&Pairs) -> std::result::Result<Json, Refusal>,
) -> Response<Body> {
    take(frame, request, |Parts { uri, headers, .. }, body| {
        let answered = pairs(uri.query().unwrap_or_default(), body).map_err(Refusal::from);
        let answered = answered.and_then(|pairs| tokio::task::block_in_place(|| work(&pairs)));
        answer(answered, headers)
    })
    .await
}

fn answer(result: std::result::Result<Json, Refusal>, headers: &HeaderMap) -> Response<Body> {
    match result {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(Refusal { status, error }) => refuse(World::Prometheus, status, &error.to_string(), headers),
    }
}

fn pairs(query: &str, form: &[u8]) -> Result<Vec<(String, String)>> {
    let form = std::str::from_utf8(form).map_err(|_| Error::invalid_input("the form is not UTF-8"))?;
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    let fields = form.split('&').chain(query.split('&')).map(str::trim).filter(|field| !field.is_empty());
    fields
        .map(|field| {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect()
}

fn needed<'p>(pairs: &'p Pairs, key: &str) -> Result<&'p str> {
    match parameter(pairs, key) {
        "" => Err(Error::invalid_input(format!("invalid parameter {key:?}: it is missing or empty"))),
        value => Ok(value),
    }
}

fn time_or(pairs: &Pairs, key: &str, default: Timestamp) -> Result<Timestamp> {
    match parameter(pairs, key) {
        "" => Ok(default),
        text => time(text, key),
    }
}

/// A time as seconds since the epoch, with a fraction or without, or as RFC 3339 has it.
fn time(text: &str, key: &str) -> Result<Timestamp> {
    if let Some(time) = crate::protocol::number::parse_seconds(text.as_bytes()) {
        return Ok(time);
    }
    let time: Option<jiff::Timestamp> = text.parse().ok();
    let nanos = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    let refused = || {
        Error::invalid_input(format!("invalid parameter {key:?}: cannot parse {text:?} to a valid timestamp"))
    };
    nanos.map(Timestamp::from_nanos).ok_or_else(refused)
}

/// A step as seconds or as a duration of PromQL, in nanoseconds.
fn step(text: &str) -> Result<i64> {
    if let Some(seconds) = crate::protocol::number::parse_seconds(text.as_bytes()) {
        return Ok(seconds.nanos());
    }
    let refused = || {
        Error::invalid_input(format!("invalid parameter \"step\": cannot parse {text:?} to a valid duration"))
    };
    let mut nanos = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(refused)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return Err(refused()),
        };
        let number: i64 = number.parse().map_err(|_| refused())?;
        nanos = nanos.saturating_add(number.saturating_mul(millis * 1_000_000));
        rest = after;
    }
    Ok(nanos)
}

/// The selectors of `match[]`, every series without one, each with the range of time that is asked for.
fn selected(pairs: &Pairs) -> Result<Vec<(Selector, TimeRange)>> {
    let start = time_or(pairs, "start", Timestamp::MIN)?;
    let end = time_or(pairs, "end", Timestamp::MAX)?.saturating_add(1);
    let range = TimeRange { start, end };
    let texts = pairs.iter().filter(|(key, _)| key == "match[]").map(|(_, text)| text.as_str());
    let mut selectors: Vec<(Selector, TimeRange)> =
        texts.map(|text| Ok((text.parse()?, range))).collect::<Result<_>>()?;
    if selectors.is_empty() {
        selectors.push((Selector::all(), range));
    }
    Ok(selectors)
}

fn data(data: &Json) -> Json {
    json!({ "status": "success", "data": data })
}

fn success(output: &Output) -> Json {
    let (kind, result) = match &output.value {
        Value::Scalar(point) => ("scalar", point_json(*point)),
        Value::String(time, text) => ("string", json!([time_json(*time), text])),
        Value::Vector(samples) => {
            let sample = |sample: &promql::Sample| {
                let point = Point { time: sample.time, value: sample.value };
                json!({ "metric": metric_json(&sample.labels), "value": point_json(point) })
            };
            ("vector", samples.iter().map(sample).collect())
        }
        Value::Matrix(series) => {
            let series_json = |series: &promql::RangeSeries| {
                let points: Vec<Json> = series.points.iter().map(|point| point_json(*point)).collect();
                json!({ "metric": metric_json(&series.labels), "values": points })
            };
            ("matrix", series.iter().map(series_json).collect())
        }
    };
    let mut body = data(&json!({ "resultType": kind, "result": result }));
    for (key, texts) in [("warnings", &output.warnings), ("infos", &output.infos)] {
        if !texts.is_empty() {
            body[key] = json!(texts);
        }
    }
    body
}

fn metric_json(labels: &Labels) -> Json {
    let name = Some((NAME_KEY, labels.name())).filter(|(_, name)| !name.is_empty());
    let pairs = name.into_iter().chain(labels.labels());
    Json::Object(pairs.map(|(key, value)| (key.to_owned(), Json::from(value))).collect())
}

fn point_json(point: Point) -> Json {
    json!([time_json(point.time), value_text(point.value)])
}

/// Seconds with at most three digits behind the point, none where there are whole seconds.
fn time_json(time: Timestamp) -> Json {
    let millis = time.millis();
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of any year that matters fit a double")]
    if millis % 1000 == 0 { json!(millis / 1000) } else { json!(millis as f64 / 1000.0) }
}
