//! Pushed metrics as protobuf: length-delimited `io.prometheus.client.MetricFamily`, as Go clients send them to a
//! Pushgateway.
//!
//! The message is `metrics.proto` of prometheus/client_model. Gives the same families as the text format does, with the
//! parts of histograms and summaries as samples of their own, so that what follows does not know which of both it was.

use std::borrow::Cow;

use super::exposition::{Exemplar, Family, Sample, Tag};
use super::label::{BUCKET_KEY, QUANTILE_KEY, normalize_tag};
use super::number::push_float_dotted;
use super::protobuf::{Fields, Wire, malformed, take_bytes};
use crate::error::{Error, Result};
use crate::model::{MetricKind, TAG_COUNT_MAX, Timestamp};

/// Most samples of one body: each takes some hundred bytes of memory.
pub const SAMPLE_COUNT_MAX: usize = 1 << 20;

/// The `Content-Type` of such bodies, without parameters.
pub const MEDIA_TYPE: &str = "application/vnd.google.protobuf";

/// Whether a `Content-Type` says that the body is delimited metric families.
///
/// # Errors
/// `InvalidInput` when it says protobuf, but another message or encoding.
pub fn is_metric_family(content_type: &str) -> Result<bool> {
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case(MEDIA_TYPE) {
        return Ok(false);
    }
    let (mut proto, mut encoding) = ("", "");
    for part in parts {
        match part.split_once('=') {
            Some(("proto", value)) => proto = value.trim_matches('"'),
            Some(("encoding", value)) => encoding = value.trim_matches('"'),
            _ => {}
        }
    }
    if proto == "io.prometheus.client.MetricFamily" && encoding == "delimited" {
        return Ok(true);
    }
    Err(Error::invalid_input(format!(
        "content type {content_type:?}; of protobuf only delimited io.prometheus.client.MetricFamily is taken"
    )))
}

/// Reads the families of `body`, which is decompressed, in the order sent.
///
/// # Errors
/// `InvalidInput` for bytes that are no such messages, metrics without a value of their family's type, and histograms
/// with native buckets only; `LimitExceeded` for more than [`SAMPLE_COUNT_MAX`] samples. The body is refused whole, as a
/// Pushgateway does.
pub fn decode_families(body: &[u8]) -> Result<Vec<Family<'_>>> {
    let mut rest = body;
    let mut families = Vec::new();
    let mut sample_count = 0;
    while !rest.is_empty() {
        let family = Reader { sample_count: &mut sample_count }.family(take_bytes(&mut rest)?)?;
        // A family without samples says nothing that is kept; dropping it keeps a body of empty ones small.
        if !family.samples.is_empty() {
            families.push(family);
        }
    }
    Ok(families)
}

/// What all samples of one metric share.
#[derive(Default)]
struct Metric<'a> {
    tags: Vec<Tag<'a>>,
    timestamp: Option<Timestamp>,
    exemplar: Option<Box<Exemplar<'a>>>,
}

struct Reader<'c> {
    sample_count: &'c mut usize,
}

impl Reader<'_> {
    fn family<'a>(&mut self, message: &'a [u8]) -> Result<Family<'a>> {
        let mut family = Family::default();
        // The number of COUNTER is 0, so that an absent type is that.
        let mut kind = 0;
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => family.name = Cow::Borrowed(value.string("MetricFamily.name")?),
                2 => family.help = Cow::Borrowed(value.string("MetricFamily.help")?),
                3 => kind = value.uint("MetricFamily.type")?,
                5 => family.unit = Cow::Borrowed(value.string("MetricFamily.unit")?),
                _ => {}
            }
        }
        if family.name.is_empty() {
            return Err(Error::invalid_input("a metric family has no name"));
        }
        family.kind = kind_from_number(kind)?;
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            if number == 4 {
                let metric = value.bytes("MetricFamily.metric")?;
                self.metric(metric, &mut family)
                    .map_err(|error| error.context(format!("metric {}", family.name)))?;
            }
        }
        Ok(family)
    }

    fn metric<'a>(&mut self, message: &'a [u8], family: &mut Family<'a>) -> Result<()> {
        let mut metric = Metric::default();
        let mut data = None;
        let wanted = data_field(family.kind);
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 if metric.tags.len() == TAG_COUNT_MAX => {
                    return Err(Error::invalid_input(format!("more than {TAG_COUNT_MAX} labels")));
                }
                1 => {
                    let (key, value) = read_label(value.bytes("Metric.label")?)?;
                    if metric.tags.iter().any(|(other, _)| *other == key) {
                        return Err(Error::invalid_input(format!("label {key:?} twice")));
                    }
                    metric.tags.push((Cow::Borrowed(key), normalize_tag(&family.name, key, value)));
                }
                6 => metric.timestamp = Some(Timestamp::from_millis(value.int("Metric.timestamp_ms")?)),
                n if n == wanted => data = Some(value.bytes("Metric value")?),
                _ => {}
            }
        }
        let Some(data) = data else {
            return Err(Error::invalid_input(format!("it has no {} value", family.kind.name())));
        };
        match family.kind {
            MetricKind::Summary => self.summary(data, metric, family),
            MetricKind::Histogram | MetricKind::GaugeHistogram => self.histogram(data, metric, family),
            _ => self.single(data, metric, family),
        }
    }

    /// Counter, gauge or untyped: a message whose field 1 is the value.
    fn single<'a>(
        &mut self,
        message: &'a [u8],
        mut metric: Metric<'a>,
        family: &mut Family<'a>,
    ) -> Result<()> {
        let mut found = 0.0;
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => found = value.double("value")?,
                2 if family.kind == MetricKind::Counter => {
                    metric.exemplar = Some(Box::new(read_exemplar(value.bytes("Counter.exemplar")?)?));
                }
                _ => {}
            }
        }
        let exemplar = metric.exemplar.take();
        self.put(family, &metric, "", None, found)?;
        if let Some(last) = family.samples.last_mut() {
            last.exemplar = exemplar;
        }
        Ok(())
    }

    fn summary<'a>(&mut self, message: &'a [u8], metric: Metric<'a>, family: &mut Family<'a>) -> Result<()> {
        let (mut count, mut sum) = (0, 0.0);
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => count = value.uint("Summary.sample_count")?,
                2 => sum = value.double("Summary.sample_sum")?,
                3 => {
                    let (quantile, at) = read_quantile(value.bytes("Summary.quantile")?)?;
                    self.put(family, &metric, "", Some((QUANTILE_KEY, quantile)), at)?;
                }
                _ => {}
            }
        }
        self.put(family, &metric, "_sum", None, sum)?;
        self.put(family, &metric, "_count", None, count as f64)
    }

    fn histogram<'a>(
        &mut self,
        message: &'a [u8],
        metric: Metric<'a>,
        family: &mut Family<'a>,
    ) -> Result<()> {
        let (mut count, mut count_float, mut sum) = (0, 0.0, 0.0);
        let (mut bucket_count, mut is_native, mut has_infinite) = (0, false, false);
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => count = value.uint("Histogram.sample_count")?,
                2 => sum = value.double("Histogram.sample_sum")?,
                3 => {
                    let (bound, below, exemplar) = read_bucket(value.bytes("Histogram.bucket")?)?;
                    self.put(family, &metric, "_bucket", Some((BUCKET_KEY, bound)), below)?;
                    if let Some(last) = family.samples.last_mut() {
                        last.exemplar = exemplar;
                    }
                    bucket_count += 1;
                    has_infinite |= bound == f64::INFINITY;
                }
                4 => count_float = value.double("Histogram.sample_count_float")?,
                // Spans of native buckets, negative and positive.
                9 | 12 => is_native = true,
                _ => {}
            }
        }
        if is_native && bucket_count == 0 {
            return Err(Error::invalid_input(
                "native histograms are not stored yet; give the histogram classic buckets as well",
            ));
        }
        let total = if count_float > 0.0 { count_float } else { count as f64 };
        if !has_infinite {
            self.put(family, &metric, "_bucket", Some((BUCKET_KEY, f64::INFINITY)), total)?;
        }
        let (sum_suffix, count_suffix) =
            if family.kind == MetricKind::GaugeHistogram { ("_gsum", "_gcount") } else { ("_sum", "_count") };
        self.put(family, &metric, sum_suffix, None, sum)?;
        self.put(family, &metric, count_suffix, None, total)
    }

    fn put<'a>(
        &mut self,
        family: &mut Family<'a>,
        metric: &Metric<'a>,
        suffix: &str,
        bound: Option<(&'static str, f64)>,
        value: f64,
    ) -> Result<()> {
        *self.sample_count += 1;
        if *self.sample_count > SAMPLE_COUNT_MAX {
            return Err(Error::limit_exceeded(format!("more than {SAMPLE_COUNT_MAX} samples in one body")));
        }
        let name = if suffix.is_empty() {
            family.name.clone()
        } else {
            Cow::Owned(format!("{}{suffix}", family.name))
        };
        let mut tags = metric.tags.clone();
        if let Some((key, bound)) = bound {
            let mut text = String::new();
            push_float_dotted(&mut text, bound);
            tags.push((Cow::Borrowed(key), Cow::Owned(text)));
        }
        family.samples.push(Sample { name, tags, value, timestamp: metric.timestamp, exemplar: None });
        Ok(())
    }
}

fn kind_from_number(number: u64) -> Result<MetricKind> {
    Ok(match number {
        0 => MetricKind::Counter,
        1 => MetricKind::Gauge,
        2 => MetricKind::Summary,
        3 => MetricKind::Unknown,
        4 => MetricKind::Histogram,
        5 => MetricKind::GaugeHistogram,
        other => return Err(malformed(&format!("a metric family of unknown type {other}"))),
    })
}

/// The field of `Metric` that holds the value of a kind.
fn data_field(kind: MetricKind) -> u64 {
    match kind {
        MetricKind::Gauge => 2,
        MetricKind::Counter => 3,
        MetricKind::Summary => 4,
        MetricKind::Histogram | MetricKind::GaugeHistogram => 7,
        _ => 5,
    }
}

fn read_label(message: &[u8]) -> Result<(&str, &str)> {
    let (mut key, mut text) = ("", "");
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => key = value.string("LabelPair.name")?,
            2 => text = value.string("LabelPair.value")?,
            _ => {}
        }
    }
    Ok((key, text))
}

fn read_quantile(message: &[u8]) -> Result<(f64, f64)> {
    let (mut quantile, mut at) = (0.0, 0.0);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => quantile = value.double("Quantile.quantile")?,
            2 => at = value.double("Quantile.value")?,
            _ => {}
        }
    }
    Ok((quantile, at))
}

type Bucket<'a> = (f64, f64, Option<Box<Exemplar<'a>>>);

fn read_bucket(message: &[u8]) -> Result<Bucket<'_>> {
    let (mut bound, mut count, mut count_float, mut exemplar) = (0.0, 0, 0.0, None);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => count = value.uint("Bucket.cumulative_count")?,
            2 => bound = value.double("Bucket.upper_bound")?,
            3 => exemplar = Some(Box::new(read_exemplar(value.bytes("Bucket.exemplar")?)?)),
            4 => count_float = value.double("Bucket.cumulative_count_float")?,
            _ => {}
        }
    }
    Ok((bound, if count_float > 0.0 { count_float } else { count as f64 }, exemplar))
}

fn read_exemplar(message: &[u8]) -> Result<Exemplar<'_>> {
    let mut exemplar = Exemplar::default();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 if exemplar.tags.len() < TAG_COUNT_MAX => {
                let (key, value) = read_label(value.bytes("Exemplar.label")?)?;
                exemplar.tags.push((Cow::Borrowed(key), Cow::Borrowed(value)));
            }
            2 => exemplar.value = value.double("Exemplar.value")?,
            3 => exemplar.timestamp = read_timestamp(value)?,
            _ => {}
        }
    }
    Ok(exemplar)
}

/// `google.protobuf.Timestamp`.
fn read_timestamp(value: Wire<'_>) -> Result<Option<Timestamp>> {
    let (mut secs, mut nanos) = (0, 0);
    let mut fields = Fields::new(value.bytes("Exemplar.timestamp")?);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => secs = value.int("Timestamp.seconds")?,
            2 => nanos = value.int("Timestamp.nanos")?,
            _ => {}
        }
    }
    Ok(Some(Timestamp::from_secs(secs).saturating_add(nanos)))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::ErrorKind;
    use crate::protocol::protobuf::put_varint;

    #[derive(Clone, PartialEq, Message)]
    struct FamilyMessage {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        help: String,
        #[prost(int32, tag = "3")]
        kind: i32,
        #[prost(message, repeated, tag = "4")]
        metrics: Vec<MetricMessage>,
        #[prost(string, tag = "5")]
        unit: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct MetricMessage {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<LabelMessage>,
        #[prost(message, optional, tag = "2")]
        gauge: Option<NumberMessage>,
        #[prost(message, optional, tag = "3")]
        counter: Option<NumberMessage>,
        #[prost(message, optional, tag = "4")]
        summary: Option<SummaryMessage>,
        #[prost(message, optional, tag = "5")]
        untyped: Option<NumberMessage>,
        #[prost(int64, optional, tag = "6")]
        timestamp: Option<i64>,
        #[prost(message, optional, tag = "7")]
        histogram: Option<HistogramMessage>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct LabelMessage {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct NumberMessage {
        #[prost(double, optional, tag = "1")]
        value: Option<f64>,
        #[prost(message, optional, tag = "2")]
        exemplar: Option<ExemplarMessage>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ExemplarMessage {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<LabelMessage>,
        #[prost(double, tag = "2")]
        value: f64,
        #[prost(message, optional, tag = "3")]
        timestamp: Option<TimestampMessage>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct TimestampMessage {
        #[prost(int64, tag = "1")]
        secs: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    struct SummaryMessage {
        #[prost(uint64, tag = "1")]
        count: u64,
        #[prost(double, tag = "2")]
        sum: f64,
        #[prost(message, repeated, tag = "3")]
        quantiles: Vec<QuantileMessage>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct QuantileMessage {
        #[prost(double, tag = "1")]
        quantile: f64,
        #[prost(double, tag = "2")]
        value: f64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct HistogramMessage {
        #[prost(uint64, tag = "1")]
        count: u64,
        #[prost(double, tag = "2")]
        sum: f64,
        #[prost(message, repeated, tag = "3")]
        buckets: Vec<BucketMessage>,
        #[prost(message, repeated, tag = "12")]
        spans: Vec<BucketMessage>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct BucketMessage {
        #[prost(uint64, tag = "1")]
        count: u64,
        #[prost(double, tag = "2")]
        bound: f64,
    }

    fn number(value: f64) -> Option<NumberMessage> {
        Some(NumberMessage { value: Some(value), exemplar: None })
    }

    fn label(name: &str, value: &str) -> LabelMessage {
        LabelMessage { name: name.into(), value: value.into() }
    }

    fn family(name: &str, kind: i32, metrics: Vec<MetricMessage>) -> FamilyMessage {
        FamilyMessage { name: name.into(), help: "Help.".into(), kind, metrics, unit: String::new() }
    }

    fn body(families: &[FamilyMessage]) -> Vec<u8> {
        families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
    }

    fn sample_body() -> Vec<u8> {
        let exemplar = ExemplarMessage {
            labels: vec![label("trace_id", "t1")],
            value: 0.5,
            timestamp: Some(TimestampMessage { secs: 2, nanos: 3 }),
        };
        let counter = NumberMessage { value: Some(3.0), exemplar: Some(exemplar) };
        let summary = SummaryMessage {
            count: 2,
            sum: 1.5,
            quantiles: vec![QuantileMessage { quantile: 0.5, value: 0.7 }],
        };
        let histogram = HistogramMessage {
            count: 3,
            sum: 9.0,
            buckets: vec![BucketMessage { count: 1, bound: 1.0 }, BucketMessage { count: 2, bound: 2.5 }],
            spans: vec![BucketMessage::default()],
        };
        let of = MetricMessage::default;
        body(&[
            family(
                "requests_total",
                0,
                vec![MetricMessage { labels: vec![label("code", "200")], counter: Some(counter), ..of() }],
            ),
            family("temp", 1, vec![MetricMessage { gauge: number(-1.5), timestamp: Some(7), ..of() }]),
            family(
                "lat",
                2,
                vec![MetricMessage { labels: vec![label("a", "b")], summary: Some(summary), ..of() }],
            ),
            family("any", 3, vec![MetricMessage { untyped: number(f64::NAN), ..of() }]),
            family("size", 4, vec![MetricMessage { histogram: Some(histogram), ..of() }]),
            family("empty", 1, vec![]),
        ])
    }

    fn lines(families: &[Family<'_>]) -> Vec<String> {
        let mut lines = Vec::new();
        for family in families {
            for sample in &family.samples {
                let tags: Vec<String> = sample.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let time = sample.timestamp.map(|t| format!("@{}", t.millis())).unwrap_or_default();
                let kind = family.kind.name();
                lines.push(format!("{kind} {}{{{}}} {:?}{time}", sample.name, tags.join(","), sample.value));
            }
        }
        lines
    }

    #[test]
    fn families_of_every_type_are_read() {
        let body = sample_body();
        let families = decode_families(&body).unwrap();
        let expected = [
            "counter requests_total{code=200} 3.0",
            "gauge temp{} -1.5@7",
            "summary lat{a=b,quantile=0.5} 0.7",
            "summary lat_sum{a=b} 1.5",
            "summary lat_count{a=b} 2.0",
            "unknown any{} NaN",
            "histogram size_bucket{le=1.0} 1.0",
            "histogram size_bucket{le=2.5} 2.0",
            "histogram size_bucket{le=+Inf} 3.0",
            "histogram size_sum{} 9.0",
            "histogram size_count{} 3.0",
        ];
        assert_eq!(lines(&families), expected);
        let exemplar = families[0].samples[0].exemplar.as_deref().unwrap();
        assert_eq!((exemplar.value, exemplar.tags[0].1.as_ref()), (0.5, "t1"));
        assert_eq!(exemplar.timestamp, Some(Timestamp::from_nanos(2_000_000_003)));
        assert_eq!(families[0].help, "Help.");
    }

    #[test]
    fn wrong_families_refuse_the_body() {
        #[track_caller]
        fn refused(family: FamilyMessage, reason: &str) {
            let error = decode_families(&body(&[family])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(reason), "{error}");
        }
        let of = MetricMessage::default;
        refused(family("", 0, vec![]), "has no name");
        refused(family("a", 9, vec![]), "unknown type 9");
        refused(
            family("a", 0, vec![MetricMessage { gauge: number(1.0), ..of() }]),
            "metric a: it has no counter value",
        );
        let twice = vec![label("k", "v"); 2];
        refused(
            family("a", 1, vec![MetricMessage { labels: twice, gauge: number(1.0), ..of() }]),
            "label \"k\" twice",
        );
        let labels = (0..=TAG_COUNT_MAX).map(|index| label(&format!("k{index}"), "v")).collect();
        refused(
            family("a", 1, vec![MetricMessage { labels, gauge: number(1.0), ..of() }]),
            "more than 128 labels",
        );
        let native =
            HistogramMessage { spans: vec![BucketMessage::default()], ..HistogramMessage::default() };
        let native = MetricMessage { histogram: Some(native), ..of() };
        refused(family("a", 4, vec![native]), "native histograms are not stored yet");
    }

    #[test]
    fn a_body_of_tiny_metrics_meets_the_limit() {
        // Per metric four bytes: the field, its length, an empty gauge.
        let mut message = family("g", 1, vec![]).encode_to_vec();
        message.extend([0x22, 2, 0x12, 0].repeat(SAMPLE_COUNT_MAX + 1));
        let mut body = Vec::new();
        put_varint(&mut body, message.len() as u64);
        body.extend(message);
        assert_eq!(decode_families(&body).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn truncated_and_mutated_bytes_never_panic() {
        let body = sample_body();
        let whole = decode_families(&body).unwrap().len();
        for end in 0..body.len() {
            if let Ok(families) = decode_families(&body[..end]) {
                assert!(families.len() <= whole);
            }
        }
        for bit in 0..body.len() * 8 {
            let mut mutated = body.clone();
            mutated[bit / 8] ^= 1 << (bit % 8);
            let _ = decode_families(&mutated);
        }
    }

    #[test]
    fn content_types_are_told_apart() {
        let go =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        assert!(is_metric_family(go).unwrap());
        assert!(!is_metric_family("text/plain; version=0.0.4").unwrap());
        assert!(!is_metric_family("").unwrap());
        assert!(is_metric_family("application/vnd.google.protobuf; encoding=text").is_err());
    }
}
