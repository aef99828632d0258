//! `/api/events`: events of sessions, found by session, attributes, name, level and time; `docs/rest.md` has the forms.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde_json::{Value as Json, json};

use super::Frame;
use super::answer::json_answer;
use super::parameters::Parameters;
use super::piecewise::{not_run, parameters, refuse_own};
use super::reading::Ticket;
use crate::error::Result;
use crate::ingest::{EventFilter, FoundEvent, format_time};
use crate::model::Timestamp;

/// Most events of one page that may be asked for.
const LIMIT_MAX: usize = 10_000;
/// Every parameter.
const PARAMETERS: [&str; 14] = [
    "session",
    "product",
    "version",
    "hostname",
    "machine_id",
    "name",
    "level",
    "category",
    "group",
    "label",
    "from",
    "to",
    "before",
    "limit",
];

/// `GET` and `POST /api/events`.
pub(super) async fn events(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    let (parts, parameters) = match parameters(&frame, request).await {
        Ok(read) => read,
        Err(refusal) => return *refusal,
    };
    let found = match filter_of(&parameters, frame.env.clock.now()) {
        Ok(filter) => {
            let (asked, timeout) = (Arc::clone(&frame), frame.options.limits.query_timeout);
            let work = move |ticket: &Ticket| {
                asked.db.session_events_within(&filter, ticket.limits(&asked), ticket.cancel.clone())
            };
            frame.read(timeout, work).await.map_err(not_run).and_then(|found| found)
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(page) => {
            let events: Vec<Json> = page.events.iter().map(event_json).collect();
            let next = page.next.map(|place| place.to_string());
            json_answer(StatusCode::OK, &json!({ "events": events, "next": next }))
        }
        Err(error) => refuse_own(&error, &parts.headers),
    }
}

fn filter_of(parameters: &Parameters, now: Timestamp) -> Result<EventFilter> {
    parameters.only(&PARAMETERS)?;
    let text = |key| Ok(parameters.one(key)?.map(str::to_owned));
    let mut filter = EventFilter {
        session: parameters.parsed("session", str::parse)?,
        name: text("name")?,
        level: text("level")?,
        category: text("category")?,
        group: text("group")?,
        label: text("label")?,
        range: parameters.range(now)?,
        before: parameters.parsed("before", str::parse)?,
        ..EventFilter::default()
    };
    filter.limit = parameters.count("limit", LIMIT_MAX)?.unwrap_or(filter.limit);
    filter.sessions.product = text("product")?;
    filter.sessions.version = text("version")?;
    filter.sessions.hostname = text("hostname")?;
    filter.sessions.machine_id = text("machine_id")?;
    Ok(filter)
}

/// The event as its session shows it, and whose it is.
fn event_json(found: &FoundEvent) -> Json {
    let mut body = found.event.to_json();
    body["session_id"] = found.place.session.to_string().into();
    body["product"] = found.info.product.as_str().into();
    body["version"] = found.info.version.as_str().into();
    body["hostname"] = found.info.hostname.as_str().into();
    body["logged_at"] = format_time(found.place.logged_at).into();
    body
}
