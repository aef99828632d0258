//! Request bodies: collected as they arrive and decompressed, within limits of size, time and memory.

use std::ops::Deref;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::answer;
use super::budget::{Budget, Reservation};
use crate::error::{Error, ErrorKind};
use crate::protocol::body::{Encoding, decode_reserving};

/// Bodies up to this size, in bytes, are worked on at once.
const INLINE_SIZE_MAX: usize = 64 * 1024;
/// The same of compressed bodies, which may become a thousand times as large.
const INLINE_PACKED_SIZE_MAX: usize = 8 * 1024;

/// Limits of one body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Size, as sent and decompressed.
    pub size_max: usize,
    /// How long nothing may arrive.
    pub idle_timeout: Duration,
    /// How long the whole may take.
    pub timeout: Duration,
}

/// A whole body, decompressed. Its memory is counted until it is dropped.
#[derive(Debug)]
pub(super) struct PlainBody {
    bytes: Bytes,
    _reservation: Reservation,
}

impl Deref for PlainBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body was not taken: status and text of the answer.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The status.
    pub(super) status: StatusCode,
    /// The text.
    pub(super) message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal { status, message: message.into() }
    }

    fn too_big(size_max: usize) -> Self {
        let message = format!("the body is larger than {size_max} bytes (--body-size-max)");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }
}

impl From<Error> for Refusal {
    /// A body over its limit is 413, whereas a limit of the engine is 429.
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::LimitExceeded => StatusCode::PAYLOAD_TOO_LARGE,
            _ => answer::status(&error),
        };
        Refusal::new(status, error.to_string())
    }
}

/// The encoding that the headers name.
///
/// # Errors
/// 415 for one that is not known.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let name = headers.get(CONTENT_ENCODING).map_or(Ok(""), |value| value.to_str()).unwrap_or("?");
    Encoding::from_header(name).ok_or_else(|| {
        let message = format!("content encoding {name:?}; gzip, deflate, snappy and identity are taken");
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    })
}

/// A whole body as it was sent. Its memory is counted until it is dropped.
#[derive(Debug)]
pub(super) struct SentBody {
    encoding: Encoding,
    bytes: Bytes,
    reservation: Reservation,
}

impl SentBody {
    /// Whether working on it takes so long that other requests of the thread should not wait for it.
    pub(super) fn is_large(&self) -> bool {
        let size_max =
            if self.encoding == Encoding::Identity { INLINE_SIZE_MAX } else { INLINE_PACKED_SIZE_MAX };
        self.bytes.len() > size_max
    }

    /// Decompresses it.
    ///
    /// # Errors
    /// 413 over the size, 503 when `budget` is used up, 400 when it is damaged.
    pub(super) fn decode(self, limits: BodyLimits, budget: &Budget) -> Result<PlainBody, Refusal> {
        if self.encoding == Encoding::Identity {
            return Ok(PlainBody { bytes: self.bytes, _reservation: self.reservation });
        }
        let mut plain = budget.reservation();
        let grow = &mut |size| plain.grow(size);
        let decoded = decode_reserving(self.encoding, &self.bytes, limits.size_max, grow)?.into_owned();
        Ok(PlainBody { bytes: decoded.into(), _reservation: plain })
    }
}

/// Collects `body`, which is in `encoding`.
///
/// # Errors
/// 413 over the size, 408 when it comes too slowly, 503 when `budget` is used up, 400 when it breaks off.
pub(super) async fn receive(
    encoding: Encoding,
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    budget: &Budget,
) -> Result<SentBody, Refusal> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|size| size > limits.size_max) {
        return Err(Refusal::too_big(limits.size_max));
    }
    let mut reservation = budget.reservation();
    let bytes = receive_bytes(body, limits, &mut reservation).await?;
    Ok(SentBody { encoding, bytes, reservation })
}

/// Collects `body` and decompresses it, for requests that read.
///
/// # Errors
/// As [`receive`] and [`SentBody::decode`].
pub(super) async fn collect(
    encoding: Encoding,
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    budget: &Budget,
) -> Result<PlainBody, Refusal> {
    let sent = receive(encoding, headers, body, limits, budget).await?;
    if sent.is_large() {
        return tokio::task::block_in_place(|| sent.decode(limits, budget));
    }
    sent.decode(limits, budget)
}

/// The bytes as sent. A body that arrives in one piece is not copied.
async fn receive_bytes(
    mut body: Body,
    limits: BodyLimits,
    reservation: &mut Reservation,
) -> Result<Bytes, Refusal> {
    let end = Instant::now() + limits.timeout;
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let deadline = end.min(Instant::now() + limits.idle_timeout);
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| slow())?;
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let size = first.len().max(rest.len()) + data.len();
        if size > limits.size_max {
            return Err(Refusal::too_big(limits.size_max));
        }
        if first.is_empty() && rest.is_empty() {
            reservation.grow(data.len())?;
            first = data;
            continue;
        }
        if size > rest.capacity() {
            let wanted = size.next_power_of_two().min(limits.size_max);
            reservation.grow(wanted - rest.capacity())?;
            rest.reserve_exact(wanted - rest.len());
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

#[cold]
fn slow() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body arrives too slowly (--body-timeout)")
}
