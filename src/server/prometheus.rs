//! The Prometheus HTTP API, out: queries, listings, status, administration, remote read.
//!
//! Forms and words are those of Prometheus 3.5, page "HTTP API". Whatever reads the database runs on a thread of its own
//! (`reading.rs`), which is where its answer is written and compressed as well. What an expression cannot be parsed for
//! is `bad_data` (400), what fails in its evaluation is `execution` (422).

mod admin;
mod listing;
mod parameters;
mod query;
mod remote_read;
mod status;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode};
use serde_json::{Value as Json, json};

use super::reading::Ticket;
use super::{Frame, body, compress, refuse_body};
use crate::error::{Error, ErrorKind};
use parameters::Parameters;

pub(super) use admin::{clean_tombstones, delete_series, snapshot};
pub(super) use listing::{label_values, labels, metadata, no_target_metadata, series};
pub(super) use query::{exemplars, format_query, parse_query, query, query_range};
pub(super) use remote_read::read;
pub(super) use status::*;

/// What a handler knows of its request besides the frame.
struct Question {
    parameters: Parameters,
    ticket: Ticket,
}

/// What is answered: JSON, and what may be wrong with it.
struct Answer {
    /// What stands behind `"data":`.
    data: String,
    warnings: Vec<String>,
    infos: Vec<String>,
}

impl Answer {
    fn new(data: String) -> Self {
        Answer { data, warnings: Vec::new(), infos: Vec::new() }
    }

    /// Says that a list was cut at `limit=`.
    fn truncated(&mut self) {
        self.warnings.push("results truncated due to limit".to_owned());
    }

    fn into_json(self) -> String {
        let mut out = self.data;
        out.insert_str(0, "{\"status\":\"success\",\"data\":");
        for (key, texts) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !texts.is_empty() {
                out.push_str(&format!(",\"{key}\":{}", json!(texts)));
            }
        }
        out.push('}');
        out
    }
}

impl From<Json> for Answer {
    fn from(data: Json) -> Self {
        Answer::new(data.to_string())
    }
}

/// Why a question has no answer.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

/// The client went away; nobody will read this, but the counters do. nginx' number, as Prometheus has it.
const CLIENT_CLOSED: u16 = 499;

impl Refusal {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Refusal { status, kind, message: message.into() }
    }

    fn bad_data(message: impl Into<String>) -> Self {
        Refusal::new(400, "bad_data", message)
    }

    fn timeout(message: impl Into<String>) -> Self {
        Refusal::new(503, "timeout", message)
    }

    /// A parameter that cannot be what it is.
    fn parameter(key: &str, reason: impl std::fmt::Display) -> Self {
        Refusal::bad_data(format!("invalid parameter {key:?}: {reason}"))
    }

    /// A failure of what `ticket` let run.
    fn of(error: &Error, ticket: &Ticket) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::LimitExceeded => Refusal::new(422, "execution", message),
            ErrorKind::Cancelled if ticket.cancel.is_cancelled() => {
                Refusal::new(CLIENT_CLOSED, "canceled", message)
            }
            ErrorKind::Cancelled => Refusal::timeout("query timed out in expression evaluation"),
            ErrorKind::NotFound => Refusal::new(404, "not_found", message),
            ErrorKind::Busy | ErrorKind::Closed => Refusal::new(503, "unavailable", message),
            _ => Refusal::new(500, "internal", message),
        }
    }

    fn into_json(self) -> String {
        json!({ "status": "error", "errorType": self.kind, "error": self.message }).to_string()
    }
}

/// Answers with what `work` makes of the parameters, those of the form before those of the URL. It may read for as long as
/// the server lets it, or `timeout=` if that is shorter.
async fn ask(
    frame: Arc<Frame>,
    request: Request,
    work: impl FnOnce(&Frame, &Question) -> Result<Answer, Refusal> + Send + 'static,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let parameters = {
        let form = match body::encoding(&parts.headers) {
            Ok(encoding) => {
                body::collect(encoding, &parts.headers, body, frame.options.limits.body, &frame.budget).await
            }
            Err(refusal) => Err(refusal),
        };
        match form {
            Ok(form) => Parameters::new(parts.uri.query().unwrap_or_default(), &form),
            Err(refusal) => return refuse_body(&refusal, &parts),
        }
    };
    let most = frame.options.limits.query_timeout;
    let asked = parameters.and_then(|parameters| {
        let timeout = parameters.duration("timeout")?.map_or(most, |timeout| timeout.min(most));
        Ok((parameters, timeout))
    });
    let (parameters, timeout) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return finish(Err(refusal), &parts.headers),
    };
    let shared = Arc::clone(&frame);
    let headers = parts.headers.clone();
    let answered = frame
        .read(timeout, move |ticket| {
            let answer = work(&shared, &Question { parameters, ticket: ticket.clone() });
            shared.readings.count(answer.as_ref().err().map(|refusal| refusal.kind));
            finish(answer, &headers)
        })
        .await;
    answered.unwrap_or_else(|refusal| {
        frame.readings.count(Some(refusal.kind()));
        finish(Err(refusal.into()), &parts.headers)
    })
}

impl From<super::reading::NotRun> for Refusal {
    fn from(reason: super::reading::NotRun) -> Self {
        match reason {
            super::reading::NotRun::Queue => Refusal::timeout("query timed out in query queue"),
            super::reading::NotRun::Panic => {
                Refusal::new(500, "internal", "the query panicked; please report it")
            }
        }
    }
}

fn finish(answer: Result<Answer, Refusal>, headers: &HeaderMap) -> Response<Body> {
    let (status, text) = match answer {
        Ok(answer) => (StatusCode::OK, answer.into_json()),
        Err(refusal) => (refusal.status, refusal.into_json()),
    };
    compress::answer(status, "application/json", text, headers)
}

/// An answer that was at hand.
fn at_once(data: Json, headers: &HeaderMap) -> Response<Body> {
    finish(Ok(data.into()), headers)
}
