//! Answers of any size, in bounded memory: the work fills a buffer, full buffers travel through a short channel to the
//! connection, and the work waits when the client is slow.
//!
//! Work waits for its turn as all that reads does (`reading.rs`). It gives its turn back when its answer is on its way, so
//! that slow clients keep nobody from asking; an answer that is being sent counts as a request under way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode};
use hyper::body::Frame as BodyFrame;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::answer::{World, refuse, status, with_type};
use super::parameters::Parameters;
use super::reading::{CancelOnDrop, NotRun, Ticket};
use super::{Frame, body, refuse_body};
use crate::error::{Error, ErrorKind, Result};

/// A buffer is sent when it holds so much.
const BUFFER_SIZE: usize = 64 << 10;
/// How many full buffers wait for the client.
const BUFFER_COUNT_MAX: usize = 4;
/// How long a client may take no byte of an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The parameters of a request, and what else there is of it.
///
/// # Errors
/// The refusal, as an answer.
pub(super) async fn parameters(
    frame: &Frame,
    request: Request,
) -> std::result::Result<(Parts, Parameters), Box<Response<Body>>> {
    let (parts, body) = request.into_parts();
    let limits = frame.options.limits.body;
    let collected = match body::encoding(&parts.headers) {
        Ok(encoding) => body::collect(encoding, &parts.headers, body, limits, &frame.budget).await,
        Err(refusal) => Err(refusal),
    };
    let read = match collected {
        Ok(plain) => Parameters::of(&parts.uri, &plain),
        Err(refusal) => return Err(Box::new(refuse_body(&refusal, &parts))),
    };
    match read {
        Ok(parameters) => Ok((parts, parameters)),
        Err(error) => Err(Box::new(refuse_own(&error, &parts.headers))),
    }
}

/// A refusal of a question, in our own form: what asks for too much is 422, since asking again does not help.
pub(super) fn refuse_own(error: &Error, headers: &HeaderMap) -> Response<Body> {
    let status = match error.kind() {
        ErrorKind::LimitExceeded => StatusCode::UNPROCESSABLE_ENTITY,
        _ => status(error),
    };
    refuse(World::Own, status, &error.to_string(), headers)
}

/// Why work did not run, as an error.
pub(super) fn not_run(reason: NotRun) -> Error {
    match reason {
        NotRun::Queue => Error::cancelled("the time was over before it was its turn (--query-count-max)"),
        NotRun::Panic => Error::closed("the work ended without an answer"),
    }
}

/// What the work of a [`stream`] writes to.
#[derive(Debug)]
pub(super) struct Out {
    /// Bytes that are not on their way yet.
    pub(super) buffer: Vec<u8>,
    sender: Sender<Message>,
    runtime: Handle,
    /// Held until something is sent.
    turn: Option<OwnedSemaphorePermit>,
}

/// A full buffer, the last one, or why there is no more.
type Message = Result<(Bytes, bool)>;

impl Out {
    /// Sends what was written if it is enough. Waits while the client is slow.
    ///
    /// # Errors
    /// `Cancelled` when the client is gone or takes nothing for too long.
    pub(super) fn send_full(&mut self) -> Result<()> {
        if self.buffer.len() < BUFFER_SIZE {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_SIZE + BUFFER_SIZE / 4));
        self.send(Ok((full.into(), false)))
    }

    fn send(&mut self, message: Message) -> Result<()> {
        self.turn = None;
        let gone = || Error::cancelled("the client went away");
        match self.sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
            Err(mpsc::error::TrySendError::Full(message)) => {
                let waiting = tokio::time::timeout(CLIENT_TIMEOUT, self.sender.reserve());
                let permit = self.runtime.block_on(waiting);
                let slow = |_| Error::cancelled("the client takes nothing of the answer");
                permit.map_err(slow)?.map_err(|_| gone())?.send(message);
                Ok(())
            }
        }
    }
}

/// Answers with what `work` writes, as it writes it. An error before the first full buffer is answered as a refusal;
/// one after it breaks the connection off, so that no client takes a part for the whole.
pub(super) async fn stream(
    frame: &Arc<Frame>,
    headers: &HeaderMap,
    content_type: &'static str,
    timeout: Duration,
    work: impl FnOnce(&Ticket, &mut Out) -> Result<()> + Send + 'static,
) -> Response<Body> {
    let (ticket, turn) = match frame.turn(timeout).await {
        Ok(begun) => begun,
        Err(reason) => return refuse_own(&not_run(reason), headers),
    };
    let guard = CancelOnDrop(ticket.cancel.clone());
    let (sender, mut receiver) = mpsc::channel(BUFFER_COUNT_MAX);
    let mut out = Out { buffer: Vec::new(), sender, runtime: Handle::current(), turn: Some(turn) };
    tokio::task::spawn_blocking(move || {
        let last = match work(&ticket, &mut out) {
            Ok(()) => Ok((std::mem::take(&mut out.buffer).into(), true)),
            Err(error) => Err(error),
        };
        // Nobody waits for it any more when this fails.
        let _ = out.send(last);
    });
    let first = receiver.recv().await.unwrap_or_else(|| Err(not_run(NotRun::Panic)));
    match first {
        Err(error) => refuse_own(&error, headers),
        Ok((bytes, true)) => with_type(StatusCode::OK, content_type, bytes),
        Ok((bytes, false)) => {
            let Ok(permit) = frame.requests.try_acquire() else {
                return refuse_own(&Error::busy("too many requests are under way"), headers);
            };
            permit.forget();
            let counted = Counted(Arc::clone(frame));
            let pieces =
                Pieces { first: Some(bytes), receiver, done: false, _guard: guard, _counted: counted };
            with_type(StatusCode::OK, content_type, Body::new(pieces))
        }
    }
}

/// Counts an answer that is being sent as a request under way.
#[derive(Debug)]
struct Counted(Arc<Frame>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.requests.add_permits(1);
    }
}

/// The body of an answer that is still being made.
#[derive(Debug)]
struct Pieces {
    first: Option<Bytes>,
    receiver: Receiver<Message>,
    done: bool,
    _guard: CancelOnDrop,
    _counted: Counted,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<BodyFrame<Bytes>, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(BodyFrame::data(first))));
        }
        if self.done {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(context).map(|message| match message {
            Some(Ok((bytes, is_last))) => {
                self.done = is_last;
                Some(Ok(BodyFrame::data(bytes)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(not_run(NotRun::Panic))),
        })
    }
}
