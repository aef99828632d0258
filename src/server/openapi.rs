//! `/api/openapi.json`: the description of every route, put together from a file for each world in `openapi/`.
//!
//! Tests hold it to the table of routes, both ways, and send every example in it. `x-status` beside an example is the
//! status that it is refused with, `x-base64` says that its value is bytes.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use serde_json::Value as Json;

use super::answer::with_type;
use super::compress;

/// The frame of the document.
const BASE: &str = include_str!("openapi/base.json");
/// What each world adds to its paths and components.
const WORLDS: [&str; 6] = [
    include_str!("openapi/own.json"),
    include_str!("openapi/sessions.json"),
    include_str!("openapi/prometheus.json"),
    include_str!("openapi/intake.json"),
    include_str!("openapi/pushgateway.json"),
    include_str!("openapi/ubiops.json"),
];

static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// `GET /api/openapi.json`.
pub(super) async fn openapi() -> Response<Body> {
    with_type(StatusCode::OK, "application/json", TEXT.as_str())
}

/// `GET /api/v1/openapi.yaml`, where Prometheus has it: the same, since JSON is YAML.
pub(super) async fn openapi_yaml(headers: HeaderMap) -> Response<Body> {
    compress::answer(StatusCode::OK, "application/yaml", TEXT.clone(), &headers)
}

/// The whole document. A test reads the files, so that they are JSON.
pub(super) fn document() -> Json {
    let read = |text: &str| serde_json::from_str::<Json>(text).unwrap_or_default();
    let mut whole = read(BASE);
    whole["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for world in WORLDS {
        merge(&mut whole, read(world));
    }
    whole
}

/// Adds the members of `part`, those of objects that both have member by member.
fn merge(whole: &mut Json, part: Json) {
    match (whole, part) {
        (Json::Object(whole), Json::Object(part)) => {
            for (key, value) in part {
                merge(whole.entry(key).or_insert(Json::Null), value);
            }
        }
        (whole, part) => *whole = part,
    }
}
