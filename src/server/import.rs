//! Lines of text, in: InfluxDB line protocol and Prometheus or OpenMetrics text. Good lines are kept, bad ones named.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, Uri};

use super::answer::{World, refuse, status};
use super::intake::Intake;
use super::{Frame, take};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Metadata, Timestamp, ValueRef};
use crate::protocol::exposition::{Entry, Format, Lines};
use crate::protocol::line::{Parser, Precision};

/// The pairs of a query string, decoded.
pub(super) fn pairs_of(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

/// The first value of `key`, empty when it is absent.
pub(super) fn parameter<'p>(pairs: &'p [(String, String)], key: &str) -> &'p str {
    pairs.iter().find(|(own, _)| own == key).map_or("", |(_, value)| value)
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// `POST /write` and `/api/v2/write`: line protocol with times in nanoseconds unless `precision` says otherwise.
pub(super) async fn write_lines(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    take(&frame, request, |parts, body| {
        answer(parts, World::Influx, lines(&frame, parts, body, Precision::Nanoseconds))
    })
    .await
}

/// `POST /api/v3/write_lp`: as the others, but the precision is told by the size of each time.
pub(super) async fn write_lines_v3(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    take(&frame, request, |parts, body| {
        answer(parts, World::Influx, lines(&frame, parts, body, Precision::Auto))
    })
    .await
}

/// `POST /api/v1/import/prometheus`: a page of text; samples without a time get that of receipt.
pub(super) async fn import_text(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    take(&frame, request, |parts, body| answer(parts, World::Text, text(&frame, parts, body))).await
}

fn answer(parts: &Parts, world: World, stored: Result<Intake>) -> Response<Body> {
    match stored {
        Ok(intake) if intake.refused.count == 0 => empty(StatusCode::NO_CONTENT),
        Ok(intake) => {
            let summary = format!("partial write: {}", intake.refused.summary("lines"));
            refuse(world, StatusCode::BAD_REQUEST, &summary, &parts.headers)
        }
        Err(error) => refuse(world, status(&error), &error.to_string(), &parts.headers),
    }
}

fn lines(frame: &Frame, parts: &Parts, body: &[u8], default: Precision) -> Result<Intake> {
    let pairs = pairs_of(&parts.uri);
    let precision = match parameter(&pairs, "precision") {
        "" => default,
        name => Precision::from_name(name).ok_or_else(|| {
            Error::invalid_input(format!("precision {name:?}; there are ns, us, ms, s and auto"))
        })?,
    };
    let mut intake = Intake::of_request(frame, frame.env.stamp());
    for line in Parser::new(body, precision, intake.now()) {
        let mut point = match line {
            Ok(point) => point,
            Err(error) => {
                intake.refused.add(&Error::invalid_input(error.to_string()));
                continue;
            }
        };
        for key in ["db", "bucket"] {
            point.set_default_tag(key, parameter(&pairs, key));
        }
        let tags: Vec<(&str, &str)> =
            point.tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        for (name, value) in point.samples() {
            if let Err(error) = intake.put(&name, &tags, point.time, value) {
                intake.refused.add(&error);
            }
        }
    }
    intake.commit(frame)?;
    Ok(intake)
}

fn text(frame: &Frame, parts: &Parts, body: &[u8]) -> Result<Intake> {
    let content_type =
        parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut intake = Intake::of_request(frame, frame.env.clock.now());
    let mut metadata: BTreeMap<String, Metadata> = BTreeMap::new();
    for entry in Lines::new(body, Format::from_content_type(content_type)) {
        match entry {
            Ok(Entry::Sample(sample)) => {
                let tags: Vec<(&str, &str)> =
                    sample.tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
                let time: Timestamp = sample.timestamp.unwrap_or(intake.now());
                if let Err(error) = intake.put(&sample.name, &tags, time, ValueRef::F64(sample.value)) {
                    intake.refused.add(&error);
                }
            }
            Ok(Entry::Help(name, help)) => {
                metadata.entry(name.into_owned()).or_default().help = help.into_owned()
            }
            Ok(Entry::Kind(name, kind)) => metadata.entry(name.into_owned()).or_default().kind = kind,
            Ok(Entry::Unit(name, unit)) => {
                metadata.entry(name.into_owned()).or_default().unit = unit.into_owned()
            }
            Err(error) => {
                intake.refused.add(&Error::invalid_input(format!("line {}: {}", error.line, error.reason)))
            }
        }
    }
    intake.commit(frame)?;
    for (name, metadata) in metadata {
        match frame.describe(&name, metadata) {
            Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
    }
    Ok(intake)
}
