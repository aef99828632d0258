//! OTLP metrics over HTTP, protobuf and JSON: export requests to points of series, and the answers.
//!
//! After the OpenTelemetry Protocol specification ("OTLP/HTTP", partial success, JSON encoding) and its `metrics.proto`.
//! Pure: the caller gives the time of receipt and a [`Sink`], and keeps the state by which deltas add up. The mapping:
//!
//! - names are kept verbatim; a histogram becomes the classic series `<name>_bucket` with `le`, `<name>_sum` and
//!   `<name>_count`, a summary `<name>` with `quantile`, `<name>_sum` and `<name>_count`;
//! - attributes of resource, scope and point become tags, the narrower wins; name and version of the scope become
//!   `otel_scope_name` and `otel_scope_version`, as OpenTelemetry's page "Prometheus and OpenMetrics compatibility" has
//!   it; values that are no strings are written as JSON;
//! - unit and description become metadata;
//! - integer points stay integers; a point flagged "no recorded value" is a staleness marker;
//! - exponential histograms are rejected, and so is what is malformed: counted, with the first reason. Exemplars, and
//!   the minimum and maximum of a histogram, have no counterpart and are left out.

mod json;
mod mapper;
mod protobuf;

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::model::{Metadata, Timestamp};
use crate::protocol::protobuf::{put_bytes, put_int};

use mapper::Mapper;

/// Most attributes of one resource, scope or point.
pub const ATTRIBUTE_COUNT_MAX: usize = 128;
/// Largest attribute value that is not a string, in bytes on the wire.
pub const ATTRIBUTE_SIZE_MAX: usize = 64 * 1024;
/// How deep lists and maps in an attribute may nest.
pub const ATTRIBUTE_DEPTH_MAX: usize = 16;
/// Most buckets of a histogram, most quantiles of a summary.
pub const BUCKET_COUNT_MAX: usize = 1024;
/// Most JSON objects in a request: each takes up to 300 bytes of memory, and a batch of 10,000 points has some 200,000.
pub const JSON_OBJECT_COUNT_MAX: usize = 1 << 19;

/// How a request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Form {
    /// From the value of `Content-Type`; `None` for another, which is answered with 415.
    pub fn from_content_type(value: &str) -> Option<Self> {
        let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Form::Protobuf),
            "application/json" => Some(Form::Json),
            _ => None,
        }
    }

    /// The `Content-Type` of the answer, which is that of the request.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Protobuf => "application/x-protobuf",
            Form::Json => "application/json",
        }
    }
}

/// One value of one series.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The series' metric name.
    pub name: &'a str,
    /// Its tags, sorted by key, keys unique, none empty.
    pub tags: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// When it was measured, or when it was received if the sender did not say.
    pub time: Timestamp,
    /// Since when it has been counted; a later one than before says that the count began anew.
    pub start: Option<Timestamp>,
    /// The value.
    pub value: PointValue,
    /// Whether the value is an increase since the last point, to be added up by the caller.
    pub delta: bool,
}

/// A point's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PointValue {
    /// A double, or a part of a histogram or summary.
    F64(f64),
    /// An integer.
    I64(i64),
    /// The series has no value from here on.
    Stale,
}

/// What takes in the points of a request.
pub trait Sink {
    /// One point.
    ///
    /// # Errors
    /// Any refusal; the data point is then counted as rejected, for this reason.
    fn point(&mut self, point: Point<'_>) -> Result<()>;

    /// What the request says of the metric `name`, whose points follow.
    fn metadata(&mut self, name: &str, metadata: Metadata);
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Data points taken; a histogram counts as one.
    pub accepted: u64,
    /// Data points refused.
    pub rejected: u64,
    /// Why the first was refused; empty when none was.
    pub reason: String,
}

/// Reads an export request from its decompressed bytes and hands its points to `sink`; `now` is the time of receipt.
///
/// # Errors
/// `InvalidInput` when the bytes are no such request, `LimitExceeded` for more JSON objects than
/// [`JSON_OBJECT_COUNT_MAX`]: then the whole is refused and what `sink` has got is to be dropped.
pub fn decode(form: Form, body: &[u8], now: Timestamp, sink: &mut dyn Sink) -> Result<Outcome> {
    let mut mapper = Mapper::new(sink, now);
    match form {
        Form::Protobuf => protobuf::read_request(body, &mut mapper)?,
        Form::Json => json::read_request(body, &mut mapper)?,
    }
    Ok(mapper.outcome)
}

/// The body of a 200: `ExportMetricsServiceResponse`, with `partial_success` when something was rejected.
pub fn encode_answer(form: Form, outcome: &Outcome) -> Vec<u8> {
    let rejected = i64::try_from(outcome.rejected).unwrap_or(i64::MAX);
    match form {
        _ if rejected == 0 && form == Form::Json => b"{}".to_vec(),
        _ if rejected == 0 => Vec::new(),
        Form::Json => serde_json::json!({
            // Integers of 64 bits are strings in the JSON of protobuf.
            "partialSuccess": { "rejectedDataPoints": rejected.to_string(), "errorMessage": outcome.reason }
        })
        .to_string()
        .into_bytes(),
        Form::Protobuf => {
            let mut partial = Vec::new();
            put_int(&mut partial, 1, rejected);
            put_bytes(&mut partial, 2, outcome.reason.as_bytes());
            let mut out = Vec::new();
            put_bytes(&mut out, 1, &partial);
            out
        }
    }
}

/// The body of an error: `google.rpc.Status` with a code of gRPC (3 invalid argument, 8 exhausted, 14 unavailable,
/// 16 unauthenticated).
pub fn encode_status(form: Form, code: i32, message: &str) -> Vec<u8> {
    match form {
        Form::Json => serde_json::json!({ "code": code, "message": message }).to_string().into_bytes(),
        Form::Protobuf => {
            let mut out = Vec::new();
            put_int(&mut out, 1, i64::from(code));
            put_bytes(&mut out, 2, message.as_bytes());
            out
        }
    }
}

#[cold]
fn too_many_attributes() -> Error {
    Error::invalid_input(format!("more than {ATTRIBUTE_COUNT_MAX} attributes"))
}

#[cfg(test)]
mod tests;
