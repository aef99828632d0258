//! What there is: label names, label values, series, metadata. Series of bytes are events and no part of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response};
use serde_json::{Map, Value as Json, json};

use super::parameters::{Parameters, unescape_label};
use super::{Answer, Question, Refusal, ask, at_once};
use crate::model::{NAME_KEY, Selector, SeriesKey, ValueType};
use crate::promql::{self, Labels};
use crate::server::Frame;

/// `GET` and `POST /api/v1/labels`.
pub(in crate::server) async fn labels(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(frame, request, |frame, question| {
        let mut keys = BTreeSet::new();
        each_series(frame, question, |series| {
            keys.insert(NAME_KEY.to_owned());
            for (key, _) in series.tags() {
                if !keys.contains(key) {
                    keys.insert(key.to_owned());
                }
            }
        })?;
        limited(keys, &question.parameters)
    })
    .await
}

/// `GET /api/v1/label/{name}/values`.
pub(in crate::server) async fn label_values(
    State(frame): State<Arc<Frame>>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let name = unescape_label(&name);
    ask(frame, request, move |frame, question| {
        if name.is_empty() {
            return Err(Refusal::bad_data(format!("invalid label name: {name:?}")));
        }
        let mut values = BTreeSet::new();
        each_series(frame, question, |series| {
            let value = if name == NAME_KEY { series.name() } else { series.tag(&name) };
            if !value.is_empty() && !values.contains(value) {
                values.insert(value.to_owned());
            }
        })?;
        limited(values, &question.parameters)
    })
    .await
}

/// `GET` and `POST /api/v1/series`.
pub(in crate::server) async fn series(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(frame, request, |frame, question| {
        if question.parameters.all("match[]").next().is_none() {
            return Err(Refusal::bad_data("no match[] parameter provided"));
        }
        let limit = question.parameters.limit()?;
        let mut found = BTreeSet::new();
        each_series(frame, question, |series| {
            found.insert(Labels::from(series));
        })?;
        let mut data = String::from("[");
        for (index, labels) in found.iter().take(limit).enumerate() {
            if index > 0 {
                data.push(',');
            }
            promql::push_labels(&mut data, labels);
        }
        data.push(']');
        let mut answer = Answer::new(data);
        if found.len() > limit {
            answer.truncated();
        }
        Ok(answer)
    })
    .await
}

/// `GET /api/v1/metadata`.
pub(in crate::server) async fn metadata(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(frame, request, |frame, question| {
        let wanted = question.parameters.get("metric");
        let limit = count(&question.parameters, "limit")?;
        // There is one entry for each metric: the last that was said.
        count(&question.parameters, "limit_per_metric")?;
        let mut found = Map::new();
        for (name, metadata) in frame.db.all_metadata() {
            if found.len() >= limit {
                break;
            }
            if wanted.is_empty() || wanted == name {
                let entry =
                    json!({ "type": metadata.kind.name(), "help": metadata.help, "unit": metadata.unit });
                found.insert(name, json!([entry]));
            }
        }
        Ok(Json::Object(found).into())
    })
    .await
}

/// `GET /api/v1/targets/metadata`: nothing is scraped from here.
pub(in crate::server) async fn no_target_metadata(headers: HeaderMap) -> Response<Body> {
    at_once(json!([]), &headers)
}

/// A limit in the way of `metadata`, where any negative number is none.
fn count(parameters: &Parameters, key: &str) -> Result<usize, Refusal> {
    match parameters.get(key) {
        "" => Ok(usize::MAX),
        text => match text.parse::<i64>() {
            Ok(number) => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
            Err(_) => Err(Refusal::bad_data(format!("{key} must be a number"))),
        },
    }
}

/// Visits the series with samples in the range of time that `match[]` selects, or all; some maybe twice.
fn each_series(frame: &Frame, question: &Question, mut visit: impl FnMut(&SeriesKey)) -> Result<(), Refusal> {
    let range = question.parameters.range()?;
    let mut selectors = question.parameters.selectors()?;
    if selectors.is_empty() {
        selectors.push(Selector::all());
    }
    for selector in selectors {
        let query = question.ticket.stop(frame.db.query(selector), frame).range(range);
        let found = query.series().map_err(|error| Refusal::of(&error, &question.ticket))?;
        found.iter().filter(|(_, kind)| *kind != ValueType::Bytes).for_each(|(key, _)| visit(key));
    }
    Ok(())
}

fn limited(texts: BTreeSet<String>, parameters: &Parameters) -> Result<Answer, Refusal> {
    let limit = parameters.limit()?;
    let mut answer = Answer::from(json!(texts.iter().take(limit).collect::<Vec<_>>()));
    if texts.len() > limit {
        answer.truncated();
    }
    Ok(answer)
}
