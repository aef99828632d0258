//! Tests of remote write. The bytes are made by prost from its own declaration of the messages, so that our reader
//! is compared with another implementation.

use prost::Message;

use super::*;
use crate::ErrorKind;
use crate::model::STALE_NAN_BITS;

#[derive(Clone, PartialEq, Message)]
struct WriteMessage {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<SeriesMessage>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<MetadataMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesMessage {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelMessage>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<SampleMessage>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<SampleMessage>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<SampleMessage>,
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
struct MetadataMessage {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct RequestV2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<SeriesV2>,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesV2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<SampleMessage>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<SampleMessage>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<SampleMessage>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<MetadataV2>,
    #[prost(int64, tag = "6")]
    created: i64,
}

#[derive(Clone, PartialEq, Message)]
struct MetadataV2 {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

fn sample(value: f64, timestamp: i64) -> SampleMessage {
    SampleMessage { value, timestamp }
}

fn series(labels: &[(&str, &str)], samples: Vec<SampleMessage>) -> SeriesMessage {
    let label = |(name, value): &(&str, &str)| LabelMessage { name: (*name).into(), value: (*value).into() };
    SeriesMessage { labels: labels.iter().map(label).collect(), samples, ..SeriesMessage::default() }
}

fn v1(timeseries: Vec<SeriesMessage>) -> Vec<u8> {
    WriteMessage { timeseries, metadata: Vec::new() }.encode_to_vec()
}

/// Everything in a request as lines of text; a refused series is a line that starts with `refused`.
fn dump(version: Version, body: &[u8]) -> Result<Vec<String>> {
    let mut request = WriteRequest::new(version, body, Limits::default())?;
    let (mut lines, mut labels, mut samples) = (Vec::new(), Labels::default(), Vec::new());
    while let Some(entry) = request.next()? {
        match entry {
            Entry::Metadata(m) => {
                lines.push(format!("{} is {} [{}] {}", m.name, m.kind.name(), m.unit, m.help))
            }
            Entry::Series(series) => {
                if let Err(error) =
                    request.labels(&series, &mut labels).and_then(|()| series.samples(&mut samples))
                {
                    lines.push(format!("refused: {error}"));
                    continue;
                }
                let tags: Vec<String> = labels.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let values: Vec<String> =
                    samples.iter().map(|s| format!("{:?}@{}", s.value, s.time.millis())).collect();
                lines.push(format!("{}{{{}}} {}", labels.name, tags.join(","), values.join(" ")));
                if let Some(m) = request.metadata(&series, labels.name)? {
                    lines.push(format!("{} is {} [{}] {}", m.name, m.kind.name(), m.unit, m.help));
                }
            }
        }
    }
    Ok(lines)
}

fn sample_v1() -> Vec<u8> {
    let bucket = [("__name__", "h_bucket"), ("le", "1"), ("job", "a")];
    let request = WriteMessage {
        timeseries: vec![
            series(&[("__name__", "up"), ("host", "é")], vec![sample(1.5, 1_000), sample(0.25, 2_000)]),
            series(&bucket, vec![sample(f64::INFINITY, -5)]),
            series(&[("Zone", "b"), ("__name__", "x"), ("empty", "")], vec![sample(0.0, 0)]),
        ],
        metadata: vec![MetadataMessage {
            kind: 1,
            name: "up".into(),
            help: "Is it.".into(),
            unit: "s".into(),
        }],
    };
    request.encode_to_vec()
}

fn sample_v2() -> Vec<u8> {
    let symbols = ["", "__name__", "h_bucket", "le", "1", "How long.", "seconds"];
    let series = SeriesV2 {
        labels_refs: vec![1, 2, 3, 4],
        samples: vec![sample(2.0, 7)],
        metadata: Some(MetadataV2 { kind: 3, help_ref: 5, unit_ref: 6 }),
        created: 3,
        ..SeriesV2::default()
    };
    let bad = SeriesV2 { labels_refs: vec![1, 99], ..SeriesV2::default() };
    let odd = SeriesV2 { labels_refs: vec![1], ..SeriesV2::default() };
    RequestV2 { symbols: symbols.map(String::from).to_vec(), timeseries: vec![series, bad, odd] }
        .encode_to_vec()
}

#[test]
fn version_1_is_read_whole() {
    let expected = [
        "up{host=é} 1.5@1000 0.25@2000",
        "h_bucket{job=a,le=1} inf@-5",
        "x{Zone=b} 0.0@0",
        "up is counter [s] Is it.",
    ];
    assert_eq!(dump(Version::V1, &sample_v1()).unwrap(), expected);
}

#[test]
fn version_2_resolves_symbols_and_refuses_bad_references_alone() {
    let expected = [
        "h_bucket{le=1} 2.0@7",
        "h is histogram [seconds] How long.",
        "refused: reference to symbol 99, the request has 7",
        "refused: a series has an odd number of label references",
    ];
    assert_eq!(dump(Version::V2, &sample_v2()).unwrap(), expected);
}

#[test]
fn a_bad_series_leaves_the_good_ones() {
    let body = v1(vec![
        series(&[("host", "a")], vec![]),
        series(&[("__name__", "up"), ("k", "1"), ("k", "2")], vec![]),
        series(&[("__name__", "ok")], vec![sample(1.0, 1)]),
    ]);
    let lines = dump(Version::V1, &body).unwrap();
    assert!(lines[0].contains("no __name__"), "{lines:?}");
    assert!(lines[1].contains("\"k\" twice"), "{lines:?}");
    assert_eq!(lines[2], "ok{} 1.0@1");
}

#[test]
fn labels_that_are_not_utf_8_refuse_their_series() {
    let mut body = v1(vec![series(&[("__name__", "up"), ("host", "xx")], vec![])]);
    let at = body.windows(2).position(|pair| pair == b"xx").unwrap();
    body[at] = 0xff;
    assert!(dump(Version::V1, &body).unwrap()[0].contains("Label.value is not UTF-8"));
}

#[test]
fn native_histograms_and_exemplars_are_counted() {
    let with = SeriesMessage {
        histograms: vec![sample(1.0, 1)],
        exemplars: vec![sample(1.0, 1), sample(2.0, 2)],
        ..series(&[("__name__", "h")], vec![])
    };
    let body = v1(vec![with]);
    let mut request = WriteRequest::new(Version::V1, &body, Limits::default()).unwrap();
    let Some(Entry::Series(found)) = request.next().unwrap() else { panic!("a series is expected") };
    assert_eq!((found.sample_count, found.histogram_count, found.exemplar_count), (0, 1, 2));

    let with = SeriesV2 { histograms: vec![sample(1.0, 1)], ..SeriesV2::default() };
    let body = RequestV2 { symbols: vec![String::new()], timeseries: vec![with] }.encode_to_vec();
    let mut request = WriteRequest::new(Version::V2, &body, Limits::default()).unwrap();
    let Some(Entry::Series(found)) = request.next().unwrap() else { panic!("a series is expected") };
    assert_eq!((found.sample_count, found.histogram_count, found.exemplar_count), (0, 1, 0));
}

#[test]
fn label_bytes_tell_series_apart() {
    let labels = [("__name__", "up"), ("host", "a")];
    let other = [("__name__", "up"), ("host", "b")];
    let body = v1(vec![
        series(&labels, vec![sample(1.0, 1)]),
        series(&labels, vec![sample(2.0, 2), sample(3.0, 3)]),
        series(&other, vec![]),
    ]);
    let mut request = WriteRequest::new(Version::V1, &body, Limits::default()).unwrap();
    let mut found = Vec::new();
    while let Some(Entry::Series(series)) = request.next().unwrap() {
        found.push(series.label_bytes());
    }
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], found[2]);
}

#[test]
fn labels_in_unusual_places_are_found() {
    // Samples between the labels, and unpacked references: no sender does it, any may.
    let name = series(&[("__name__", "up")], vec![sample(1.0, 1)]).encode_to_vec();
    let host = series(&[("host", "a")], vec![sample(2.0, 2)]).encode_to_vec();
    let message = [name, host].concat();
    let mut body = vec![0x0a, u8::try_from(message.len()).unwrap()];
    body.extend_from_slice(&message);
    assert_eq!(dump(Version::V1, &body).unwrap(), ["up{host=a} 1.0@1 2.0@2"]);

    let symbols =
        RequestV2 { symbols: ["", "__name__", "up"].map(String::from).to_vec(), timeseries: vec![] };
    let body = [symbols.encode_to_vec(), vec![0x2a, 4, 0x08, 1, 0x08, 2]].concat();
    assert_eq!(dump(Version::V2, &body).unwrap(), ["up{} "]);
}

#[test]
fn expecting_labels_changes_no_answer() {
    let up = series(&[("__name__", "up"), ("host", "a")], vec![sample(1.0, 1)]).encode_to_vec();
    let more = series(&[("team", "b")], vec![sample(2.0, 2)]).encode_to_vec();
    let long =
        series(&[("__name__", "up"), ("path", &"p".repeat(200))], vec![sample(3.0, 3)]).encode_to_vec();
    let bare = series(&[], vec![sample(4.0, 4)]).encode_to_vec();
    let messages = [up.clone(), [up.clone(), more.clone()].concat(), [more, up].concat(), long, bare];
    fn read(message: &[u8]) -> TimeSeries<'_> {
        TimeSeries::read(Version::V1, message, &[]).unwrap()
    }
    let regions: Vec<&[u8]> =
        messages.iter().map(|message| read(message)).filter(|s| s.labels_first()).map(|s| s.labels).collect();
    assert_eq!(regions.len(), 3, "labels of two messages have samples between them");
    for message in &messages {
        let plain = read(message);
        for region in &regions {
            for end in 0..=region.len() {
                // A piece of a region is no region, so only what ends between labels may be asked with.
                if Fields::new(&region[..end]).all_read() {
                    let found = TimeSeries::read(Version::V1, message, &region[..end]).unwrap();
                    assert_eq!(found.labels, plain.labels);
                    assert_eq!(found.labels_first, plain.labels_first);
                    assert_eq!(found.sample_count, plain.sample_count);
                    assert_eq!(
                        found.as_expected(),
                        end > 0 && region[..end] == *plain.labels && plain.labels_first
                    );
                    let (mut one, mut other) = (Vec::new(), Vec::new());
                    found.samples(&mut one).unwrap();
                    plain.samples(&mut other).unwrap();
                    assert_eq!(one, other);
                }
            }
        }
    }
}

trait AllRead {
    /// Whether the bytes are whole fields.
    fn all_read(self) -> bool;
}

impl AllRead for Fields<'_> {
    fn all_read(mut self) -> bool {
        loop {
            match self.next() {
                Ok(Some(_)) => {}
                end => return end.is_ok(),
            }
        }
    }
}

#[test]
fn every_bit_of_a_value_is_kept() {
    for bits in [STALE_NAN_BITS, 0x7ff8_0000_0000_0001, 1, 0x8000_0000_0000_0000] {
        // prost leaves out -0.0, as if it were 0.0, so the bits are put in afterwards.
        let mut body = v1(vec![series(&[("__name__", "up")], vec![sample(1.25, 1)])]);
        let at = body.windows(8).position(|b| b == 1.25f64.to_le_bytes()).unwrap();
        body[at..at + 8].copy_from_slice(&bits.to_le_bytes());
        let mut request = WriteRequest::new(Version::V1, &body, Limits::default()).unwrap();
        let Some(Entry::Series(found)) = request.next().unwrap() else { panic!("a series is expected") };
        let mut samples = Vec::new();
        found.samples(&mut samples).unwrap();
        assert_eq!(samples[0].value.to_bits(), bits);
    }
}

#[test]
fn limits_refuse_the_request_at_their_edge() {
    fn read(version: Version, body: &[u8], limits: Limits) -> Result<()> {
        let mut request = WriteRequest::new(version, body, limits)?;
        while request.next()?.is_some() {}
        Ok(())
    }
    let body = v1(vec![series(&[("__name__", "a")], vec![sample(1.0, 1), sample(1.0, 2)]); 3]);
    let limits = Limits { series_count_max: 3, sample_count_max: 6, symbol_count_max: 7 };
    read(Version::V1, &body, limits).unwrap();
    read(Version::V2, &sample_v2(), limits).unwrap();
    for (version, body, limits) in [
        (Version::V1, &body, Limits { series_count_max: 2, ..limits }),
        (Version::V1, &body, Limits { sample_count_max: 5, ..limits }),
        (Version::V2, &sample_v2(), Limits { symbol_count_max: 6, ..limits }),
    ] {
        assert_eq!(read(version, body, limits).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}

#[test]
fn the_first_symbol_must_be_empty() {
    let body = RequestV2 { symbols: vec!["a".into()], timeseries: vec![] }.encode_to_vec();
    assert!(dump(Version::V2, &body).unwrap_err().to_string().contains("first symbol"));
}

#[test]
fn truncated_and_mutated_bytes_never_panic() {
    for (version, body) in [(Version::V1, sample_v1()), (Version::V2, sample_v2())] {
        let whole = dump(version, &body).unwrap();
        for end in 0..body.len() {
            if let Ok(lines) = dump(version, &body[..end]) {
                assert!(lines.len() <= whole.len());
            }
        }
        for bit in 0..body.len() * 8 {
            let mut mutated = body.clone();
            mutated[bit / 8] ^= 1 << (bit % 8);
            let _ = dump(version, &mutated);
        }
    }
}

#[test]
fn content_types_choose_the_version() {
    let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    assert_eq!(Version::from_content_type("application/x-protobuf"), Some(Version::V1));
    assert_eq!(Version::from_content_type(""), Some(Version::V1));
    assert_eq!(
        Version::from_content_type("application/x-protobuf; proto=prometheus.WriteRequest"),
        Some(Version::V1)
    );
    assert_eq!(Version::from_content_type(v2), Some(Version::V2));
    assert_eq!(Version::from_content_type("application/x-protobuf;proto=other"), None);
    assert_eq!(Version::from_content_type("application/json"), None);
}
