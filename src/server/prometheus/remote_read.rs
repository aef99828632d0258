//! `POST /api/v1/read`: series for another Prometheus, whole or as streamed chunks.
//!
//! Prometheus wants series sorted by all their labels, the name among them; the engine gives them in order of its keys,
//! where a name or value that another one starts with comes elsewhere. So what comes early waits in a buffer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::Frame as Piece;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::Refusal;
use crate::error::{Error, Result};
use crate::model::{SeriesKey, Timestamp, ValueType};
use crate::promql::{EngineSource, Hints, Labels, Source};
use crate::protocol::body::Encoding;
use crate::protocol::remote_read::{
    FRAME_SIZE, ReadQuery, ReadRequest, ResponseType, SAMPLES_TYPE, STREAMED_TYPE, SamplesAnswer,
    SeriesColumns, decode_request, encode_frames,
};
use crate::server::answer::{World, refuse, with_type};
use crate::server::reading::{NotRun, Ticket};
use crate::server::{Frame, body, refuse_body};

/// How long a client may take nothing of a streamed answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Pieces of a streamed answer that are ready before the client takes them.
const PIECE_COUNT_MAX: usize = 2;

/// What the work says first: the whole answer, or that pieces follow.
enum Begin {
    Whole(Vec<u8>),
    Stream(mpsc::Receiver<Result<Bytes>>),
}

/// `POST /api/v1/read`.
pub(in crate::server) async fn read(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let limits = frame.options.limits;
    // Whatever the headers say, it is snappy.
    let collected = body::collect(Encoding::Snappy, &parts.headers, body, limits.body, &frame.budget).await;
    let asked = match collected {
        Ok(bytes) => decode_request(&bytes),
        Err(refusal) => return refuse_body(&refusal, &parts),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return refused(&Refusal::bad_data(error.to_string()), &parts.headers),
    };
    let (begin, begun) = oneshot::channel();
    let shared = Arc::clone(&frame);
    let task = tokio::spawn(async move {
        let server = Arc::clone(&shared);
        server.read(limits.query_timeout, move |ticket| work(&shared, ticket, &asked, begin)).await
    });
    // The task goes when its client does, and with it the work.
    let mut task = AbortOnDrop(task);
    match begun.await {
        Ok(Ok(Begin::Whole(bytes))) => {
            let mut answer = with_type(StatusCode::OK, SAMPLES_TYPE, bytes);
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
            answer
        }
        Ok(Ok(Begin::Stream(pieces))) => {
            with_type(StatusCode::OK, STREAMED_TYPE, Body::new(Pieces { pieces, _task: task }))
        }
        Ok(Err(refusal)) => refused(&refusal, &parts.headers),
        // It ended before it began.
        Err(_) => {
            let reason = match (&mut task.0).await {
                Ok(Err(reason)) => reason,
                _ => NotRun::Panic,
            };
            frame.readings.count(Some(reason.kind()));
            refused(&reason.into(), &parts.headers)
        }
    }
}

fn refused(refusal: &Refusal, headers: &HeaderMap) -> Response<Body> {
    refuse(World::Text, refusal.status, &refusal.message, headers)
}

struct AbortOnDrop(tokio::task::JoinHandle<std::result::Result<(), NotRun>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The pieces of a streamed answer as the body of a response.
struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes>>,
    _task: AbortOnDrop,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Piece<Bytes>, Error>>> {
        // An error in the middle breaks the connection off, which is the only way to tell the client.
        self.pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Piece::data)))
    }
}

type Beginning = oneshot::Sender<std::result::Result<Begin, Refusal>>;

fn work(frame: &Frame, ticket: &Ticket, asked: &ReadRequest, begin: Beginning) {
    let count = |failed: Option<&Error>| {
        frame.readings.count(failed.map(|error| Refusal::of(error, ticket).kind));
    };
    match asked.response {
        ResponseType::Samples => {
            let answer = whole(frame, ticket, asked);
            count(answer.as_ref().err());
            let _ = begin.send(answer.map(Begin::Whole).map_err(|error| Refusal::of(&error, ticket)));
        }
        ResponseType::StreamedChunks => {
            let (sender, pieces) = mpsc::channel(PIECE_COUNT_MAX);
            if begin.send(Ok(Begin::Stream(pieces))).is_err() {
                return;
            }
            let done = stream(frame, ticket, asked, &sender);
            count(done.as_ref().err());
            if let Err(error) = done {
                let _ = send(&sender, Err(error));
            }
        }
    }
}

/// One message with all samples, compressed.
fn whole(frame: &Frame, ticket: &Ticket, asked: &ReadRequest) -> Result<Vec<u8>> {
    let size_max = usize::try_from(frame.options.limits.query_memory_max).unwrap_or(usize::MAX);
    let mut answer = SamplesAnswer::default();
    for query in &asked.queries {
        in_order(frame, ticket, query, &mut |series| {
            answer.series(series);
            if answer.size() > size_max {
                let message = format!("the answer takes more than {size_max} bytes (--query-memory-max)");
                return Err(Error::limit_exceeded(message));
            }
            Ok(())
        })?;
        answer.end_query();
    }
    let message = answer.finish();
    snap::raw::Encoder::new().compress_vec(&message).map_err(|error| Error::limit_exceeded(error.to_string()))
}

/// Frames of chunks, sent as they fill.
fn stream(
    frame: &Frame,
    ticket: &Ticket,
    asked: &ReadRequest,
    sender: &mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let mut out = Vec::new();
    for (index, query) in asked.queries.iter().enumerate() {
        in_order(frame, ticket, query, &mut |series| {
            encode_frames(index, series, &mut out);
            if out.len() >= FRAME_SIZE {
                send(sender, Ok(std::mem::take(&mut out).into()))?;
            }
            Ok(())
        })?;
    }
    if out.is_empty() { Ok(()) } else { send(sender, Ok(out.into())) }
}

/// Hands a piece on. Waits while the client is slow, but not for one that takes nothing.
fn send(sender: &mpsc::Sender<Result<Bytes>>, piece: Result<Bytes>) -> Result<()> {
    let waiting = async { tokio::time::timeout(CLIENT_TIMEOUT, sender.send(piece)).await };
    match Handle::current().block_on(waiting) {
        Ok(sent) => sent.map_err(|_| Error::cancelled("the client has gone")),
        Err(_) => Err(Error::cancelled("the client takes nothing of the answer")),
    }
}

/// Samples of one series.
type Columns = (Vec<i64>, Vec<f64>);

/// Gives the series that `query` selects to `each`, in the order of their labels.
fn in_order(
    frame: &Frame,
    ticket: &Ticket,
    query: &ReadQuery,
    each: &mut dyn FnMut(SeriesColumns<'_>) -> Result<()>,
) -> Result<()> {
    let listed = ticket.stop(frame.db.query(query.selector.clone()), frame).range(query.range).series()?;
    let mut order: Vec<Labels> = listed.iter().filter_map(numeric).collect();
    drop(listed);
    order.sort_by(by_wire_order);
    order.dedup();
    let source = EngineSource::new(|selector| ticket.stop(frame.db.query(selector), frame));
    let hints = Hints { function: None, window: 0, step: 0 };
    let mut stream = source.select(&query.selector, query.range, &hints)?;
    let mut early =
        Early { size: 0, size_max: frame.options.limits.query_memory_max, series: HashMap::new() };
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut next = 0;
    while let Some(labels) = stream.next(&mut times, &mut values)? {
        if order.get(next) != Some(&labels) {
            early.keep(labels, (times.clone(), values.clone()))?;
        } else {
            give(&labels, &times, &values, each)?;
            next += 1;
        }
        while let Some((labels, (times, values))) = order.get(next).and_then(|labels| early.take(labels)) {
            give(&labels, &times, &values, each)?;
            next += 1;
        }
    }
    // What was deleted or written since they were listed leaves holes.
    let mut rest: Vec<(Labels, Columns)> = early.series.into_iter().collect();
    rest.sort_by(|a, b| by_wire_order(&a.0, &b.0));
    rest.iter().try_for_each(|(labels, (times, values))| give(labels, times, values, each))
}

fn numeric((key, kind): &(SeriesKey, ValueType)) -> Option<Labels> {
    (*kind != ValueType::Bytes).then(|| Labels::from(key))
}

/// Labels as they go on the wire, where the name stands among the keys.
fn by_wire_order(a: &Labels, b: &Labels) -> std::cmp::Ordering {
    let sorted = |labels: &Labels| {
        let mut pairs: Vec<(String, String)> =
            labels.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        pairs.sort();
        pairs
    };
    // The name is the first of all, unless a key is less than it, such as one in capitals.
    let is_usual =
        |labels: &Labels| labels.labels().next().is_none_or(|(key, _)| key > crate::model::NAME_KEY);
    if is_usual(a) && is_usual(b) { a.cmp(b) } else { sorted(a).cmp(&sorted(b)) }
}

/// Series whose turn has not come.
struct Early {
    size: u64,
    size_max: u64,
    series: HashMap<Labels, Columns>,
}

impl Early {
    fn keep(&mut self, labels: Labels, columns: Columns) -> Result<()> {
        self.size += size(&columns);
        if self.size > self.size_max {
            let message =
                format!("sorting the series takes more than {} bytes (--query-memory-max)", self.size_max);
            return Err(Error::limit_exceeded(message));
        }
        self.series.insert(labels, columns);
        Ok(())
    }

    fn take(&mut self, labels: &Labels) -> Option<(Labels, Columns)> {
        let (labels, columns) = self.series.remove_entry(labels)?;
        self.size -= size(&columns);
        Some((labels, columns))
    }
}

fn size(columns: &Columns) -> u64 {
    16 * columns.0.len() as u64 + 64
}

fn give(
    labels: &Labels,
    times: &[i64],
    values: &[f64],
    each: &mut dyn FnMut(SeriesColumns<'_>) -> Result<()>,
) -> Result<()> {
    let tags: Vec<(&str, &str)> = labels.labels().collect();
    let times: Vec<Timestamp> = times.iter().map(|nanos| Timestamp::from_nanos(*nanos)).collect();
    each(SeriesColumns { name: labels.name(), tags: &tags, times: &times, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stands_among_the_keys() {
        let mut all = [
            Labels::new("b", [("a", "1")]),
            Labels::new("a", [("a", "2")]),
            Labels::new("z", [("Upper", "1")]),
            Labels::new("a", [("a", "10"), ("b", "")]),
        ];
        all.sort_by(by_wire_order);
        let names: Vec<&str> = all.iter().map(Labels::name).collect();
        assert_eq!(names, ["z", "a", "a", "b"]);
        assert_eq!(all[1].get("a"), "10");
    }
}
