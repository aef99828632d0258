//! Answers that are not data: refusals and errors, in the form that the clients of each world read.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};
use crate::protocol::otlp;

/// Whose clients a request comes from, which decides how errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum World {
    /// Our own routes: `{"error","details"}`.
    Own,
    /// Sessions: `{"error","details"}`.
    Sessions,
    /// UbiOps: `{"error"}`.
    Ubiops,
    /// Pushgateway: one line of text.
    Pushgateway,
    /// Prometheus remote write and read, imports: one line of text.
    Text,
    /// The Prometheus API: `{"status":"error","errorType","error"}`.
    Prometheus,
    /// InfluxDB: `{"code","message"}`.
    Influx,
    /// OTLP: `google.rpc.Status` in the form of the request.
    Otlp,
}

impl World {
    /// The world of a path, also of one that no route has.
    pub(super) fn of(path: &str) -> Self {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        if starts(&["/api/sessions", "/api/data/"]) {
            World::Sessions
        } else if is_ubiops(path) {
            World::Ubiops
        } else if starts(&["/metrics/", "/api/v1/metrics", "/api/v1/admin/wipe"]) {
            World::Pushgateway
        } else if starts(&["/api/v1/write", "/api/v1/read", "/api/v1/import"]) {
            World::Text
        } else if starts(&["/v1/metrics", "/api/v1/otlp/"]) {
            World::Otlp
        } else if starts(&["/write", "/api/v2/", "/api/v3/"]) {
            World::Influx
        } else if starts(&["/api/v1/"]) {
            World::Prometheus
        } else {
            World::Own
        }
    }
}

/// `/v2/projects/...`, `/v2.1/projects/...`.
fn is_ubiops(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    let version = parts.next().and_then(|part| part.strip_prefix('v'));
    parts.next() == Some("projects") && version.is_some_and(is_version)
}

/// A number, or two with a point between.
pub(crate) fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((major, minor)) => is_number(major) && is_number(minor),
        None => is_number(text),
    }
}

/// The status that an error of the engine or of a parser is answered with.
pub(super) fn status(error: &Error) -> StatusCode {
    match error.kind() {
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Busy | ErrorKind::Closed | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A refusal in the form of `world`; `headers` are those of the request.
pub(super) fn refuse(world: World, status: StatusCode, message: &str, headers: &HeaderMap) -> Response<Body> {
    let mut answer = match world {
        World::Own | World::Sessions => {
            let reason = status.canonical_reason().unwrap_or("Error");
            json_answer(status, &json!({ "error": reason, "details": message }))
        }
        World::Ubiops => json_answer(status, &json!({ "error": message })),
        World::Pushgateway | World::Text => text_answer(status, message),
        World::Prometheus => {
            let body = json!({ "status": "error", "errorType": prometheus_type(status), "error": message });
            json_answer(status, &body)
        }
        World::Influx => json_answer(status, &json!({ "code": influx_code(status), "message": message })),
        World::Otlp => otlp_answer(status, message, headers),
    };
    let more = answer.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        more.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic realm=\"icecore\""));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        more.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if world == World::Ubiops && status == StatusCode::TOO_MANY_REQUESTS {
        // The UbiOps client sleeps as long as this says, or a minute without it.
        more.insert("x-ratelimit-reset", HeaderValue::from_static("1"));
    }
    answer
}

/// An answer with a JSON body.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    with_type(status, "application/json", body.to_string())
}

/// An answer with one line of text.
pub(super) fn text_answer(status: StatusCode, text: &str) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// An answer with a body of `content_type`.
pub(super) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn otlp_answer(status: StatusCode, message: &str, headers: &HeaderMap) -> Response<Body> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = otlp::Form::from_content_type(content_type).unwrap_or(otlp::Form::Json);
    with_type(status, form.content_type(), otlp::encode_status(form, grpc_code(status), message))
}

/// The code of gRPC that the OTLP specification pairs with a status of HTTP.
fn grpc_code(status: StatusCode) -> i32 {
    match status.as_u16() {
        400 | 405 | 415 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        408 => 4,
        413 | 429 => 8,
        503 => 14,
        _ => 13,
    }
}

fn prometheus_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 405 | 413 | 415 => "bad_data",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        422 => "execution",
        429 | 503 => "unavailable",
        408 => "timeout",
        _ => "internal",
    }
}

fn influx_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        413 => "request too large",
        415 => "unsupported media type",
        429 => "too many requests",
        503 => "unavailable",
        500 => "internal error",
        _ => "invalid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(world: World, status: StatusCode) -> (HeaderMap, String) {
        let answer = refuse(world, status, "why", &HeaderMap::new());
        let headers = answer.headers().clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(axum::body::to_bytes(answer.into_body(), 1024)).unwrap();
        (headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn each_world_reads_its_own_form() {
        let check = |world, expected: &str| assert_eq!(body(world, StatusCode::UNAUTHORIZED).1, expected);
        check(World::Own, r#"{"details":"why","error":"Unauthorized"}"#);
        check(World::Sessions, r#"{"details":"why","error":"Unauthorized"}"#);
        check(World::Ubiops, r#"{"error":"why"}"#);
        check(World::Pushgateway, "why\n");
        check(World::Text, "why\n");
        check(World::Prometheus, r#"{"error":"why","errorType":"unauthorized","status":"error"}"#);
        check(World::Influx, r#"{"code":"unauthorized","message":"why"}"#);
        check(World::Otlp, r#"{"code":16,"message":"why"}"#);
    }

    #[test]
    fn headers_say_what_to_do_next() {
        assert!(body(World::Own, StatusCode::UNAUTHORIZED).0.contains_key(WWW_AUTHENTICATE));
        assert!(body(World::Text, StatusCode::SERVICE_UNAVAILABLE).0.contains_key(RETRY_AFTER));
        assert_eq!(body(World::Ubiops, StatusCode::TOO_MANY_REQUESTS).0["x-ratelimit-reset"], "1");
    }

    #[test]
    fn paths_belong_to_worlds() {
        let check = |path, world| assert_eq!(World::of(path), world, "{path}");
        check("/api/sessions/x/metrics", World::Sessions);
        check("/api/data/sessions", World::Sessions);
        check("/v2.1/projects/p/time-series/aggregate", World::Ubiops);
        check("/v2/projects/p", World::Ubiops);
        check("/vx/projects/p", World::Own);
        check("/metrics/job/a", World::Pushgateway);
        check("/metrics", World::Own);
        check("/api/v1/metrics", World::Pushgateway);
        check("/api/v1/write", World::Text);
        check("/api/v1/query", World::Prometheus);
        check("/v1/metrics", World::Otlp);
        check("/api/v1/otlp/v1/metrics", World::Otlp);
        check("/api/v2/write", World::Influx);
        check("/", World::Own);
    }
}
