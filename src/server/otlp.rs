//! OTLP metrics, in: `POST /v1/metrics` and `/api/v1/otlp/v1/metrics`.
//!
//! Deltas are added up here: the sums live as long as the process, so that a restart is a reset as any other. They are
//! taken over only when the points are in the log, so that a request which is sent again counts once.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode};
use parking_lot::Mutex;

use super::answer::{World, refuse, status, with_type};
use super::intake::Intake;
use super::{Frame, take};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Metadata, STALE_NAN_BITS, SeriesKey, ValueRef};
use crate::protocol::otlp::{Form, Outcome, Point, PointValue, Sink, decode, encode_answer};

/// Most series whose deltas are added up.
const DELTA_COUNT_MAX: usize = 1_000_000;

/// The sums of deltas by series.
#[derive(Debug, Default)]
pub(super) struct Deltas(Mutex<HashMap<SeriesKey, Sum>>);

#[derive(Clone, Copy, Debug)]
enum Sum {
    F64(f64),
    I64(i64),
}

/// Takes an export request.
pub(super) async fn export(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    take(&frame, request, |parts, body| {
        let content_type =
            parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(form) = Form::from_content_type(content_type) else {
            let message = "the content type is application/x-protobuf or application/json";
            return refuse(World::Otlp, StatusCode::UNSUPPORTED_MEDIA_TYPE, message, &parts.headers);
        };
        match store(&frame, form, body) {
            Ok(outcome) => with_type(StatusCode::OK, form.content_type(), encode_answer(form, &outcome)),
            Err(error) => refuse(World::Otlp, status(&error), &error.to_string(), &parts.headers),
        }
    })
    .await
}

fn store(frame: &Frame, form: Form, body: &[u8]) -> Result<Outcome> {
    let mut sums = frame.deltas.0.lock();
    let intake = Intake::of_request(frame, frame.env.stamp());
    let mut store = Store { intake, sums: &sums, changed: HashMap::new(), metadata: Vec::new() };
    let now = store.intake.now();
    let outcome = decode(form, body, now, &mut store)?;
    let Store { mut intake, changed, metadata, .. } = store;
    intake.commit(frame)?;
    sums.extend(changed);
    drop(sums);
    for (name, metadata) in metadata {
        match frame.describe(&name, metadata) {
            Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
    }
    Ok(outcome)
}

/// What one request has brought so far.
struct Store<'s> {
    intake: Intake,
    sums: &'s HashMap<SeriesKey, Sum>,
    /// The sums that it changes.
    changed: HashMap<SeriesKey, Sum>,
    metadata: Vec<(String, Metadata)>,
}

impl Sink for Store<'_> {
    fn point(&mut self, point: Point<'_>) -> Result<()> {
        let key =
            SeriesKey::new(point.name, point.tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref())))?;
        let value = if point.delta { self.add(&key, point.value)? } else { point.value };
        let value = match value {
            PointValue::F64(value) => ValueRef::F64(value),
            PointValue::I64(value) => ValueRef::I64(value),
            PointValue::Stale => ValueRef::F64(f64::from_bits(STALE_NAN_BITS)),
        };
        self.intake.put_key(&key, point.time, value)
    }

    fn metadata(&mut self, name: &str, metadata: Metadata) {
        self.metadata.push((name.to_owned(), metadata));
    }
}

impl Store<'_> {
    /// The sum of the deltas of a series, `value` included. One whose type changes begins anew.
    fn add(&mut self, key: &SeriesKey, value: PointValue) -> Result<PointValue> {
        let last = self.changed.get(key).or_else(|| self.sums.get(key)).copied();
        if last.is_none() && self.sums.len() + self.changed.len() >= DELTA_COUNT_MAX {
            return Err(Error::limit_exceeded(format!("deltas of more than {DELTA_COUNT_MAX} series")));
        }
        let sum = match (last, value) {
            (_, PointValue::Stale) => return Ok(value),
            (Some(Sum::F64(sum)), PointValue::F64(value)) => Sum::F64(sum + value),
            (Some(Sum::I64(sum)), PointValue::I64(value)) => Sum::I64(sum.saturating_add(value)),
            (_, PointValue::F64(value)) => Sum::F64(value),
            (_, PointValue::I64(value)) => Sum::I64(value),
        };
        self.changed.insert(key.clone(), sum);
        Ok(match sum {
            Sum::F64(sum) => PointValue::F64(sum),
            Sum::I64(sum) => PointValue::I64(sum),
        })
    }
}
