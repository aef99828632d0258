//! Prometheus remote read: requests to selectors, series to answers, whole or as streamed chunks.
//!
//! Messages `prometheus.ReadRequest`, `ReadResponse` and `ChunkedReadResponse`. Pure; the server asks the engine. Times
//! are milliseconds here and are rounded down: of several samples in one millisecond the last is answered, since
//! readers take strictly rising times only. Answers are written by hand, for prost would lose -0.0 (decision 0035).

mod chunk;

use crate::error::{Error, Result};
use crate::model::{Match, NAME_KEY, Selector, TimeRange, Timestamp};
use crate::protocol::protobuf::{Fields, Wire, put_bytes, put_double, put_int, put_varint, take_varint};

pub use chunk::CHUNK_SAMPLES_MAX;

/// Most queries of one request; Prometheus sends one for each selector of an expression.
pub const QUERY_COUNT_MAX: usize = 256;
/// Most matchers of one query.
pub const MATCHER_COUNT_MAX: usize = 128;
/// Size at which a frame of a streamed answer is closed, in bytes, as Prometheus has it.
pub const FRAME_SIZE: usize = 1 << 20;

/// `Content-Type` of an answer with samples, which is one snappy block.
pub const SAMPLES_TYPE: &str = "application/x-protobuf";
/// `Content-Type` of a streamed answer, which is not compressed.
pub const STREAMED_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// What is asked for.
#[derive(Debug)]
pub struct ReadRequest {
    /// Each is answered on its own, in this order.
    pub queries: Vec<ReadQuery>,
    /// How.
    pub response: ResponseType,
}

/// One query: series and time.
#[derive(Debug, PartialEq)]
pub struct ReadQuery {
    /// Which series.
    pub selector: Selector,
    /// From the first millisecond asked for to the end of the last, which is inclusive on the wire.
    pub range: TimeRange,
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// One message with all samples.
    Samples,
    /// Frames with chunks of XOR-compressed samples.
    StreamedChunks,
}

/// One series to be answered. Series of a query are given in the order of their labels, times strictly rising.
#[derive(Clone, Copy, Debug)]
pub struct SeriesColumns<'a> {
    /// The metric name.
    pub name: &'a str,
    /// The tags, sorted by key.
    pub tags: &'a [(&'a str, &'a str)],
    /// The times.
    pub times: &'a [Timestamp],
    /// As many values.
    pub values: &'a [f64],
}

/// Reads a request from its decompressed bytes.
///
/// # Errors
/// `InvalidInput` for bytes that are no request, a matcher whose expression does not compile, or when no form of answer
/// that is accepted is known here; `LimitExceeded` for more queries or matchers than the limits.
pub fn decode_request(body: &[u8]) -> Result<ReadRequest> {
    let mut queries = Vec::new();
    let mut accepted = Vec::new();
    let mut fields = Fields::new(body);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 if queries.len() == QUERY_COUNT_MAX => {
                return Err(Error::limit_exceeded(format!(
                    "more than {QUERY_COUNT_MAX} queries in one request"
                )));
            }
            1 => queries.push(read_query(value.bytes("ReadRequest.queries")?)?),
            2 => read_types(value, &mut accepted)?,
            _ => {}
        }
    }
    // No list means that samples are wanted; of a list, the first that is known.
    let response = if accepted.is_empty() {
        Some(ResponseType::Samples)
    } else {
        accepted.iter().find_map(|number| response_type(*number))
    };
    let response =
        response.ok_or_else(|| Error::invalid_input("none of the accepted response types is known"))?;
    Ok(ReadRequest { queries, response })
}

fn response_type(number: u64) -> Option<ResponseType> {
    match number {
        0 => Some(ResponseType::Samples),
        1 => Some(ResponseType::StreamedChunks),
        _ => None,
    }
}

/// Response types come packed or one by one. Only the first few can matter.
fn read_types(value: Wire<'_>, accepted: &mut Vec<u64>) -> Result<()> {
    const TYPE_COUNT_MAX: usize = 16;
    match value {
        Wire::Bytes(mut packed) => {
            while !packed.is_empty() && accepted.len() < TYPE_COUNT_MAX {
                accepted.push(take_varint(&mut packed)?);
            }
        }
        single if accepted.len() < TYPE_COUNT_MAX => {
            accepted.push(single.uint("ReadRequest.accepted_response_types")?);
        }
        _ => {}
    }
    Ok(())
}

fn read_query(message: &[u8]) -> Result<ReadQuery> {
    let (mut start, mut end) = (0, 0);
    let mut selector = Selector::all();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => start = value.int("Query.start_timestamp_ms")?,
            2 => end = value.int("Query.end_timestamp_ms")?,
            3 if selector.matchers.len() == MATCHER_COUNT_MAX => {
                return Err(Error::limit_exceeded(format!(
                    "more than {MATCHER_COUNT_MAX} matchers in one query"
                )));
            }
            3 => {
                let (key, condition) = read_matcher(value.bytes("Query.matchers")?)?;
                selector = selector.with(key, condition);
            }
            _ => {}
        }
    }
    let range = TimeRange {
        start: Timestamp::from_millis(start),
        end: Timestamp::from_millis(end.saturating_add(1)),
    };
    Ok(ReadQuery { selector, range })
}

fn read_matcher(message: &[u8]) -> Result<(&str, Match)> {
    let (mut kind, mut key, mut text) = (0, "", "");
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => kind = value.uint("LabelMatcher.type")?,
            2 => key = value.string("LabelMatcher.name")?,
            3 => text = value.string("LabelMatcher.value")?,
            _ => {}
        }
    }
    let condition = match kind {
        0 => Match::equal(text),
        1 => Match::not_equal(text),
        2 => Match::regex(text)?,
        3 => Match::not_regex(text)?,
        other => return Err(Error::invalid_input(format!("matcher of unknown type {other} for {key:?}"))),
    };
    Ok((key, condition))
}

/// An answer with samples, built query by query.
#[derive(Debug, Default)]
pub struct SamplesAnswer {
    out: Vec<u8>,
    result: Vec<u8>,
    scratch: Vec<u8>,
}

impl SamplesAnswer {
    /// Adds a series to the query that is being answered.
    pub fn series(&mut self, series: SeriesColumns<'_>) {
        self.scratch.clear();
        put_labels(&mut self.scratch, &series);
        let mut sample = Vec::with_capacity(20);
        for (millis, value) in last_of_each_milli(series.times, series.values) {
            sample.clear();
            put_double(&mut sample, 1, value);
            put_int(&mut sample, 2, millis);
            put_bytes(&mut self.scratch, 2, &sample);
        }
        put_bytes(&mut self.result, 1, &self.scratch);
    }

    /// Ends the answer of one query; each query needs it, also one that found nothing.
    pub fn end_query(&mut self) {
        put_bytes(&mut self.out, 1, &self.result);
        self.result.clear();
    }

    /// Bytes written so far, so that the caller can hold to a limit.
    pub fn size(&self) -> usize {
        self.out.len() + self.result.len()
    }

    /// The message, to be compressed as one snappy block.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Appends the frames of one series of a streamed answer to `out`: length, CRC-32C (big-endian), message. A series that
/// fills more than [`FRAME_SIZE`] goes into several frames; one without samples into none.
pub fn encode_frames(query_index: usize, series: SeriesColumns<'_>, out: &mut Vec<u8>) {
    let mut labels = Vec::new();
    put_labels(&mut labels, &series);
    let mut message = labels.clone();
    let mut samples = last_of_each_milli(series.times, series.values);
    loop {
        let run: Vec<(i64, f64)> = samples.by_ref().take(CHUNK_SAMPLES_MAX).collect();
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { break };
        let mut chunk = Vec::new();
        put_int(&mut chunk, 1, *first);
        put_int(&mut chunk, 2, *last);
        put_int(&mut chunk, 3, chunk::ENCODING_XOR);
        put_bytes(&mut chunk, 4, &chunk::encode_xor(&run));
        put_bytes(&mut message, 2, &chunk);
        if message.len() >= FRAME_SIZE {
            put_frame(query_index, &message, out);
            message.clone_from(&labels);
        }
    }
    if message.len() > labels.len() {
        put_frame(query_index, &message, out);
    }
}

fn put_frame(query_index: usize, series: &[u8], out: &mut Vec<u8>) {
    let mut message = Vec::with_capacity(series.len() + 16);
    put_bytes(&mut message, 1, series);
    put_int(&mut message, 2, i64::try_from(query_index).unwrap_or(i64::MAX));
    put_varint(out, message.len() as u64);
    out.extend_from_slice(&chunk::crc32c(&message).to_be_bytes());
    out.extend_from_slice(&message);
}

/// Labels as field 1, in order, the name in its place among the keys.
fn put_labels(out: &mut Vec<u8>, series: &SeriesColumns<'_>) {
    let at = series.tags.partition_point(|(key, _)| *key < NAME_KEY);
    let (before, after) = series.tags.split_at(at);
    let mut label = Vec::new();
    for (key, value) in before.iter().chain([&(NAME_KEY, series.name)]).chain(after) {
        label.clear();
        put_bytes(&mut label, 1, key.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(out, 1, &label);
    }
}

/// Milliseconds and values; of the samples within one millisecond the last.
fn last_of_each_milli<'a>(
    times: &'a [Timestamp],
    values: &'a [f64],
) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut rest = times.iter().map(|time| time.millis()).zip(values.iter().copied()).peekable();
    std::iter::from_fn(move || {
        let mut found = rest.next()?;
        while let Some(later) = rest.next_if(|later| later.0 == found.0) {
            found = later;
        }
        Some(found)
    })
}

#[cfg(test)]
#[path = "remote_read_tests.rs"]
mod tests;
