//! Tests of remote read; requests and answers are checked against prost's declaration of the messages.

use prost::Message;

use super::*;
use crate::ErrorKind;

#[derive(Clone, PartialEq, Message)]
struct RequestMessage {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<QueryMessage>,
    #[prost(int32, repeated, tag = "2")]
    accepted: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryMessage {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<MatcherMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct MatcherMessage {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseMessage {
    #[prost(message, repeated, tag = "1")]
    results: Vec<ResultMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ResultMessage {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<SeriesMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesMessage {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelMessage>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<SampleMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct SampleMessage {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkedMessage {
    #[prost(message, repeated, tag = "1")]
    series: Vec<ChunkedSeries>,
    #[prost(int64, tag = "2")]
    query_index: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkedSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelMessage>,
    #[prost(message, repeated, tag = "2")]
    chunks: Vec<ChunkMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkMessage {
    #[prost(int64, tag = "1")]
    min: i64,
    #[prost(int64, tag = "2")]
    max: i64,
    #[prost(int32, tag = "3")]
    encoding: i32,
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
}

fn matcher(kind: i32, name: &str, value: &str) -> MatcherMessage {
    MatcherMessage { kind, name: name.into(), value: value.into() }
}

fn request(matchers: Vec<MatcherMessage>, accepted: &[i32]) -> Vec<u8> {
    let queries = vec![QueryMessage { start: 1_000, end: 2_000, matchers }];
    RequestMessage { queries, accepted: accepted.to_vec() }.encode_to_vec()
}

fn millis(times: &[i64]) -> Vec<Timestamp> {
    times.iter().map(|t| Timestamp::from_millis(*t)).collect()
}

fn names(labels: &[LabelMessage]) -> String {
    labels.iter().map(|l| format!("{}={} ", l.name, l.value)).collect()
}

#[test]
fn requests_become_selectors() {
    let all = vec![
        matcher(0, "__name__", "up"),
        matcher(1, "host", "a"),
        matcher(2, "job", "w.*"),
        matcher(3, "rack", "x|y"),
    ];
    let decoded = decode_request(&request(all, &[])).unwrap();
    let selector = Selector::name("up")
        .with("host", Match::not_equal("a"))
        .with("job", Match::regex("w.*").unwrap())
        .with("rack", Match::not_regex("x|y").unwrap());
    let range = TimeRange { start: Timestamp::from_millis(1_000), end: Timestamp::from_millis(2_001) };
    assert_eq!(decoded.queries, [ReadQuery { selector, range }]);
    assert_eq!(decoded.response, ResponseType::Samples);
}

#[test]
fn the_first_known_form_of_answer_is_taken() {
    let form = |accepted: &[i32]| decode_request(&request(vec![], accepted)).map(|r| r.response);
    assert_eq!(form(&[1, 0]).unwrap(), ResponseType::StreamedChunks);
    assert_eq!(form(&[9, 0]).unwrap(), ResponseType::Samples);
    assert_eq!(form(&[9]).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn bad_matchers_and_too_many_are_refused() {
    let kind = |matchers| decode_request(&request(matchers, &[])).unwrap_err().kind();
    assert_eq!(kind(vec![matcher(2, "job", "(")]), ErrorKind::InvalidInput);
    assert_eq!(kind(vec![matcher(7, "job", "x")]), ErrorKind::InvalidInput);
    assert_eq!(kind(vec![matcher(0, "job", "x"); MATCHER_COUNT_MAX + 1]), ErrorKind::LimitExceeded);
    let queries = vec![QueryMessage::default(); QUERY_COUNT_MAX + 1];
    let body = RequestMessage { queries, accepted: vec![] }.encode_to_vec();
    assert_eq!(decode_request(&body).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn truncated_and_mutated_requests_never_panic() {
    let body = request(vec![matcher(2, "job", "w.*"), matcher(0, "__name__", "up")], &[1, 0]);
    for end in 0..body.len() {
        let _ = decode_request(&body[..end]);
    }
    for bit in 0..body.len() * 8 {
        let mut mutated = body.clone();
        mutated[bit / 8] ^= 1 << (bit % 8);
        let _ = decode_request(&mutated);
    }
}

#[test]
fn samples_are_answered_query_by_query() {
    let mut times = millis(&[1, 2]);
    times.push(times[1].saturating_add(1));
    let mut answer = SamplesAnswer::default();
    let tags = [("Zone", "z"), ("host", "a")];
    answer.series(SeriesColumns { name: "up", tags: &tags, times: &times, values: &[-0.0, 2.0, 3.0] });
    answer.end_query();
    answer.end_query();
    let bytes = answer.finish();
    let message = ResponseMessage::decode(&bytes[..]).unwrap();
    assert_eq!(message.results.len(), 2);
    assert!(message.results[1].timeseries.is_empty());
    let series = &message.results[0].timeseries[0];
    assert_eq!(names(&series.labels), "Zone=z __name__=up host=a ");
    // Two samples in one millisecond: the last is answered.
    assert_eq!(
        series.samples.iter().map(|s| (s.timestamp, s.value)).collect::<Vec<_>>(),
        [(1, 0.0), (2, 3.0)]
    );
    assert!(series.samples[0].value.is_sign_negative());
}

fn frames(bytes: &[u8]) -> Vec<ChunkedMessage> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let size = usize::try_from(take_varint(&mut rest).unwrap()).unwrap();
        let (crc, after) = rest.split_at(4);
        let (message, after) = after.split_at(size);
        assert_eq!(crc, chunk::crc32c(message).to_be_bytes());
        found.push(ChunkedMessage::decode(message).unwrap());
        rest = after;
    }
    found
}

#[test]
fn streamed_chunks_hold_120_samples_each() {
    let times = millis(&(0..250).collect::<Vec<_>>());
    let values: Vec<f64> = (0..250).map(f64::from).collect();
    let mut out = Vec::new();
    encode_frames(
        3,
        SeriesColumns { name: "up", tags: &[("host", "a")], times: &times, values: &values },
        &mut out,
    );
    let found = frames(&out);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].query_index, 3);
    let series = &found[0].series[0];
    assert_eq!(names(&series.labels), "__name__=up host=a ");
    let spans: Vec<_> = series.chunks.iter().map(|c| (c.min, c.max, c.encoding, c.data[1])).collect();
    assert_eq!(spans, [(0, 119, 1, 120), (120, 239, 1, 120), (240, 249, 1, 10)]);
}

#[test]
fn long_series_go_into_several_frames() {
    let count = 200_000;
    let times = millis(&(0..count).map(|i| i * 1_000 + i * i % 997).collect::<Vec<_>>());
    let values: Vec<f64> = (0..count).map(|i| ((i * 7919) as f64).sqrt()).collect();
    let mut out = Vec::new();
    encode_frames(0, SeriesColumns { name: "up", tags: &[], times: &times, values: &values }, &mut out);
    let found = frames(&out);
    assert!(found.len() > 1);
    assert!(found.iter().all(|f| f.encoded_len() < FRAME_SIZE + 4096));
    let chunk_count: usize = found.iter().map(|f| f.series[0].chunks.len()).sum();
    assert_eq!(chunk_count, times.len().div_ceil(CHUNK_SAMPLES_MAX));
    let mut none = Vec::new();
    encode_frames(0, SeriesColumns { name: "up", tags: &[], times: &[], values: &[] }, &mut none);
    assert!(none.is_empty());
}
