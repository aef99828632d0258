//! The sessions world: `/api/sessions` and its neighbours, as DataCat's clients and documentation have them.
//!
//! The forms of bodies are those of `ingest`; here are the routes and the answers. Handles of sessions that are in use are
//! kept for a while, since finding a session asks the database and every metric is a request of its own.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::answer::{World, json_answer, refuse, status};
use super::import::pairs_of;
use super::intake::Times;
use super::parameters::parse_time;
use super::{Frame, take};
use crate::error::{Error, Result};
use crate::ingest::{
    Session, SessionEvent, SessionFilter, SessionId, SessionInfo, SessionMetric, SessionOptions, format_time,
    state_from_json,
};
use crate::model::Timestamp;

/// How long a generation of handles is young.
const TURN: Duration = Duration::from_secs(30);
/// Most handles of a generation.
const HANDLE_COUNT_MAX: usize = 10_000;

/// Handles of the sessions in use.
#[derive(Debug, Default)]
pub(super) struct SessionHandles(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<SessionId, Arc<Session>>,
    old: HashMap<SessionId, Arc<Session>>,
    /// When the young one began, on the monotonic clock.
    began: Duration,
}

impl Generations {
    fn keep(&mut self, id: SessionId, session: Arc<Session>, now: Duration) {
        if self.young.len() >= HANDLE_COUNT_MAX || now.saturating_sub(self.began) >= TURN {
            self.old = mem::take(&mut self.young);
            self.began = now;
        }
        self.young.insert(id, session);
    }

    fn find(&mut self, id: SessionId) -> Option<Arc<Session>> {
        self.young.get(&id).or_else(|| self.old.get(&id)).cloned()
    }

    fn forget(&mut self, id: SessionId) {
        self.young.remove(&id);
        self.old.remove(&id);
    }
}

/// `POST /api/sessions`. Every value of the answer is a string: a client of Go reads it as such.
pub(super) async fn create(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    take(&frame, request, |parts, body| {
        let created = read_json(body).and_then(|body| {
            let info = SessionInfo::from_json(&body)?;
            let session = frame.db.create_session_with(info, &options_of(&frame))?;
            let id = session.id();
            keep(&frame, session);
            Ok(json!({
                "session_id": id.to_string(), "id": id.to_string(), "created_at": format_time(id.created_at()),
            }))
        });
        answer(created, &parts.headers)
    })
    .await
}

/// `POST /api/sessions/{id}/metrics`.
pub(super) async fn metric(frame: State<Arc<Frame>>, id: Path<String>, request: Request) -> Response<Body> {
    let times = Times::new(&frame, frame.env.clock.now());
    log(frame, id, request, |session, body| {
        let metric = SessionMetric::from_json(&read_json(body)?)?;
        check_given(metric.time, times)?;
        session.record(&metric)
    })
    .await
}

/// `POST /api/sessions/{id}/events`.
pub(super) async fn event(frame: State<Arc<Frame>>, id: Path<String>, request: Request) -> Response<Body> {
    let times = Times::new(&frame, frame.env.clock.now());
    log(frame, id, request, |session, body| {
        let event = SessionEvent::from_json(&read_json(body)?)?;
        check_given(event.time, times)?;
        session.record_event(&event)
    })
    .await
}

/// `POST /api/sessions/{id}/state`: merged into the state; `null` deletes.
pub(super) async fn state(frame: State<Arc<Frame>>, id: Path<String>, request: Request) -> Response<Body> {
    let times = Times::new(&frame, frame.env.clock.now());
    log(frame, id, request, |session, body| {
        let (patch, time) = state_from_json(&read_json(body)?)?;
        check_given(time, times)?;
        session.update_state_at(patch, time)
    })
    .await
}

/// `POST /api/sessions/{id}/heartbeat`, with any body.
pub(super) async fn heartbeat(
    frame: State<Arc<Frame>>,
    id: Path<String>,
    request: Request,
) -> Response<Body> {
    log(frame, id, request, |session, _| session.heartbeat()).await
}

/// `POST /api/sessions/{id}/end`, with any body.
pub(super) async fn end(frame: State<Arc<Frame>>, id: Path<String>, request: Request) -> Response<Body> {
    log(frame, id, request, |session, _| session.end()).await
}

/// `POST /api/sessions/{id}/crash`, with a reason or without.
pub(super) async fn crash(frame: State<Arc<Frame>>, id: Path<String>, request: Request) -> Response<Body> {
    log(frame, id, request, |session, body| {
        let body = if body.is_empty() { Value::Null } else { read_json(body)? };
        session.crash(body.get("reason").and_then(Value::as_str).unwrap_or_default())
    })
    .await
}

/// `POST /api/sessions/{id}/resume`: takes it up again after its end.
pub(super) async fn resume(frame: State<Arc<Frame>>, id: Path<String>, request: Request) -> Response<Body> {
    log(frame, id, request, |session, _| session.resume()).await
}

/// `GET /api/sessions/{id}`: everything that was logged in it.
pub(super) async fn read(
    State(frame): State<Arc<Frame>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    let read = frame.run(true, || Ok(frame.db.session(parse_id(&id)?)?.to_json()));
    answer(read.map_err(|error| hint(error, &id)), &headers)
}

/// `DELETE /api/sessions/{id}`.
pub(super) async fn delete(
    State(frame): State<Arc<Frame>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    let deleted = frame.run(true, || {
        let id = parse_id(&id)?;
        frame.sessions.0.lock().forget(id);
        frame.db.delete_session(id)
    });
    answer(deleted.map(|()| done()).map_err(|error| hint(error, &id)), &headers)
}

/// `GET /api/sessions`: the newest first, filtered by `product`, `version`, `hostname`, `machine_id`, `status`, `from` and
/// `to`, page by page by `before` and `limit`.
pub(super) async fn list(State(frame): State<Arc<Frame>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let listed = filter_of(&frame, &uri).and_then(|filter| {
        let sessions = frame.run(true, || frame.db.sessions(&filter))?;
        Ok(Value::from(sessions.iter().map(|summary| summary.to_json()).collect::<Vec<_>>()))
    });
    answer(listed, &headers)
}

/// `GET /api/data/sessions`: the same sessions, each whole as `GET /api/sessions/{id}` gives it.
pub(super) async fn list_whole(
    State(frame): State<Arc<Frame>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let listed = filter_of(&frame, &uri).and_then(|filter| {
        frame.run(true, || {
            let sessions = frame.db.sessions(&filter)?;
            let views = sessions.iter().map(|summary| Ok(frame.db.session(summary.id)?.to_json()));
            Ok(Value::from(views.collect::<Result<Vec<_>>>()?))
        })
    });
    answer(listed, &headers)
}

/// `GET /health`.
pub(super) async fn health() -> Response<Body> {
    let body = json!({ "service": "icecore", "status": "healthy", "version": env!("CARGO_PKG_VERSION") });
    json_answer(StatusCode::OK, &body)
}

/// Does `work` in the session `id` with the body of `request`.
async fn log(
    State(frame): State<Arc<Frame>>,
    Path(id): Path<String>,
    request: Request,
    work: impl FnOnce(&Session, &[u8]) -> Result<()>,
) -> Response<Body> {
    take(&frame, request, |Parts { headers, .. }, body| {
        let logged = find(&frame, &id).and_then(|session| work(&session, body));
        answer(logged.map(|()| done()).map_err(|error| hint(error, &id)), headers)
    })
    .await
}

/// Refuses a time that a client gave and that is too far ahead.
fn check_given(time: Option<Timestamp>, times: Times) -> Result<()> {
    time.map_or(Ok(()), |time| times.check(time)).map_err(|error| error.context("timestamp"))
}

fn find(frame: &Frame, id: &str) -> Result<Arc<Session>> {
    let id = parse_id(id)?;
    if let Some(session) = frame.sessions.0.lock().find(id) {
        return Ok(session);
    }
    let session = frame.db.attach_session(id, &options_of(frame))?;
    Ok(keep(frame, session))
}

/// A 2xx means that a value is in the log, so values are as durable as everything else.
fn options_of(frame: &Frame) -> SessionOptions {
    SessionOptions { metric_durability: frame.durability }
}

fn keep(frame: &Frame, session: Session) -> Arc<Session> {
    let session = Arc::new(session);
    let now = frame.env.clock.monotonic();
    frame.sessions.0.lock().keep(session.id(), Arc::clone(&session), now);
    session
}

fn filter_of(frame: &Frame, uri: &Uri) -> Result<SessionFilter> {
    let time =
        |key: &str, text: &str| parse_time(text, frame.env.clock.now()).map_err(|error| error.context(key));
    let mut filter = SessionFilter::default();
    for (key, value) in pairs_of(uri) {
        match key.as_str() {
            "from" => filter.range.start = time(&key, &value)?,
            "to" => filter.range.end = time(&key, &value)?,
            _ => _ = filter.set_parameter(&key, &value)?,
        }
    }
    Ok(filter)
}

/// What is no id of a session is the id of none.
fn parse_id(id: &str) -> Result<SessionId> {
    id.parse().map_err(|_| Error::not_found(format!("{id:?} is not the id of a session")))
}

/// An id that is not known is mostly one of a documentation's examples.
fn hint(error: Error, id: &str) -> Error {
    if error.kind() != crate::ErrorKind::NotFound {
        return error;
    }
    Error::not_found(format!(
        "there is no session {id:?}; create one with POST /api/sessions {{\"product\":...,\"version\":...}} and use its id"
    ))
}

fn read_json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body)
        .map_err(|error| Error::invalid_input(format!("Invalid request body: {error}")))
}

fn done() -> Value {
    json!({ "success": true, "status": "ok" })
}

fn answer(result: Result<Value>, headers: &HeaderMap) -> Response<Body> {
    match result {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(error) => refuse(World::Sessions, status(&error), &error.to_string(), headers),
    }
}
