//! Administration, behind a switch: snapshot, deletion, and getting rid of what is deleted.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::{Answer, Question, Refusal, ask};
use crate::error::{Error, ErrorKind};
use crate::server::Frame;
use crate::server::import::empty;

/// Where snapshots go, below the directory of the database, as Prometheus has it.
const SNAPSHOT_DIR: &str = "snapshots";

/// `POST` and `PUT /api/v1/admin/tsdb/snapshot`.
pub(in crate::server) async fn snapshot(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    administer(frame, request, |frame, question| {
        if question.parameters.get("skip_head") == "true" {
            return Err(Refusal::parameter("skip_head", "snapshots hold what is in memory as well"));
        }
        let now = frame.env.clock.now();
        let time = jiff::Timestamp::from_nanosecond(i128::from(now.nanos())).unwrap_or_default();
        let name = format!("{}-{:016x}", time.strftime("%Y%m%dT%H%M%SZ"), frame.env.random_u64());
        let parent = frame.db.path().join(SNAPSHOT_DIR);
        let made = frame.env.fs.create_dir_all(&parent).and_then(|()| frame.db.snapshot(parent.join(&name)));
        made.map_err(|error| failed(&error))?;
        Ok(json!({ "name": name }).into())
    })
    .await
}

/// `POST` and `PUT /api/v1/admin/tsdb/delete_series`.
pub(in crate::server) async fn delete_series(
    State(frame): State<Arc<Frame>>,
    request: Request,
) -> Response<Body> {
    without_content(administer(frame, request, |frame, question| {
        let range = question.parameters.range()?;
        let selectors = question.parameters.selectors()?;
        if selectors.is_empty() {
            return Err(Refusal::bad_data("no match[] parameter provided"));
        }
        for selector in selectors {
            frame.db.delete(&selector, range).map_err(|error| failed(&error))?;
        }
        Ok(json!(null).into())
    }))
    .await
}

/// `POST` and `PUT /api/v1/admin/tsdb/clean_tombstones`: merges until what was deleted is gone from the device.
pub(in crate::server) async fn clean_tombstones(
    State(frame): State<Arc<Frame>>,
    request: Request,
) -> Response<Body> {
    without_content(administer(frame, request, |frame, _| {
        frame.db.flush().and_then(|()| frame.db.compact()).map_err(|error| failed(&error))?;
        Ok(json!(null).into())
    }))
    .await
}

async fn administer(
    frame: Arc<Frame>,
    request: Request,
    work: impl FnOnce(&Frame, &Question) -> Result<Answer, Refusal> + Send + 'static,
) -> Response<Body> {
    ask(frame, request, |frame, question| {
        if !frame.options.admin_api {
            let message = "admin APIs disabled; start the server with --enable-admin-api";
            return Err(Refusal::new(503, "unavailable", message));
        }
        work(frame, question)
    })
    .await
}

/// The answer of success as one of 204.
async fn without_content(answer: impl Future<Output = Response<Body>>) -> Response<Body> {
    let answer = answer.await;
    if answer.status() == StatusCode::OK { empty(StatusCode::NO_CONTENT) } else { answer }
}

fn failed(error: &Error) -> Refusal {
    match error.kind() {
        ErrorKind::Busy | ErrorKind::Closed | ErrorKind::LimitExceeded => {
            Refusal::new(503, "unavailable", error.to_string())
        }
        _ => Refusal::new(500, "internal", error.to_string()),
    }
}
