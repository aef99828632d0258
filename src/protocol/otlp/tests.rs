//! Tests of OTLP in both forms. Protobuf bytes are made by prost from its own declaration of the messages; the JSON
//! example is laid out as the one that the OpenTelemetry project publishes.

use prost::Message;

use super::*;
use crate::ErrorKind;

const NOW: Timestamp = Timestamp::from_nanos(77);

#[derive(Clone, PartialEq, Message)]
struct RequestMessage {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<ScopeMessage>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<MetricMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<NumberData>,
    #[prost(message, optional, tag = "7")]
    sum: Option<NumberData>,
    #[prost(message, optional, tag = "9")]
    histogram: Option<HistogramData>,
    #[prost(message, optional, tag = "10")]
    exponential: Option<HistogramData>,
    #[prost(message, optional, tag = "11")]
    summary: Option<SummaryData>,
}

#[derive(Clone, PartialEq, Message)]
struct NumberData {
    #[prost(message, repeated, tag = "1")]
    points: Vec<NumberPoint>,
    #[prost(int32, tag = "2")]
    temporality: i32,
    #[prost(bool, tag = "3")]
    monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
struct NumberPoint {
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "2")]
    start: u64,
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(double, optional, tag = "4")]
    as_double: Option<f64>,
    #[prost(sfixed64, optional, tag = "6")]
    as_int: Option<i64>,
    #[prost(uint32, tag = "8")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramData {
    #[prost(message, repeated, tag = "1")]
    points: Vec<HistogramPoint>,
    #[prost(int32, tag = "2")]
    temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramPoint {
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    bounds: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryData {
    #[prost(message, repeated, tag = "1")]
    points: Vec<SummaryPoint>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryPoint {
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, tag = "5")]
    sum: f64,
    #[prost(message, repeated, tag = "6")]
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
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string: Option<String>,
    #[prost(bool, optional, tag = "2")]
    flag: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    int: Option<i64>,
    #[prost(double, optional, tag = "4")]
    double: Option<f64>,
    #[prost(message, optional, boxed, tag = "5")]
    array: Option<Box<ArrayValue>>,
    #[prost(message, optional, boxed, tag = "6")]
    map: Option<Box<ListValue>>,
    #[prost(bytes = "vec", optional, tag = "7")]
    bytes: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ListValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<KeyValue>,
}

fn string(key: &str, value: &str) -> KeyValue {
    any(key, AnyValue { string: Some(value.into()), ..AnyValue::default() })
}

fn any(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value) }
}

fn double(value: f64) -> NumberPoint {
    NumberPoint { as_double: Some(value), time: 5, ..NumberPoint::default() }
}

fn gauge(name: &str, points: Vec<NumberPoint>) -> MetricMessage {
    let data = NumberData { points, ..NumberData::default() };
    MetricMessage { name: name.into(), gauge: Some(data), ..MetricMessage::default() }
}

fn histogram(bucket_counts: &[u64], bounds: &[f64]) -> MetricMessage {
    let point = HistogramPoint {
        time: 5,
        count: bucket_counts.iter().sum(),
        sum: Some(2.5),
        bucket_counts: bucket_counts.to_vec(),
        bounds: bounds.to_vec(),
        ..HistogramPoint::default()
    };
    let data = HistogramData { points: vec![point], temporality: 2 };
    MetricMessage { name: "h".into(), histogram: Some(data), ..MetricMessage::default() }
}

fn request(attributes: Vec<KeyValue>, metrics: Vec<MetricMessage>) -> Vec<u8> {
    let scope = ScopeMessage { name: "lib".into(), version: "1".into(), attributes: vec![string("s", "sv")] };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics }];
    let resource_metrics = vec![ResourceMetrics { resource: Some(Resource { attributes }), scope_metrics }];
    RequestMessage { resource_metrics }.encode_to_vec()
}

/// Writes what it gets as lines; refuses series named `refused`.
#[derive(Default)]
struct Lines(Vec<String>);

impl Sink for Lines {
    fn point(&mut self, point: Point<'_>) -> Result<()> {
        if point.name == "refused" {
            return Err(Error::limit_exceeded("too many series"));
        }
        assert!(point.tags.is_sorted_by(|a, b| a.0 < b.0));
        let tags: Vec<String> = point.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let delta = if point.delta { " delta" } else { "" };
        let start = point.start.map(|start| format!(" since {start}")).unwrap_or_default();
        self.0.push(format!(
            "{}{{{}}} {:?}@{}{delta}{start}",
            point.name,
            tags.join(","),
            point.value,
            point.time
        ));
        Ok(())
    }

    fn metadata(&mut self, name: &str, metadata: Metadata) {
        self.0.push(format!("{name} is {} [{}] {}", metadata.kind.name(), metadata.unit, metadata.help));
    }
}

fn dump(form: Form, body: &[u8]) -> Result<(Vec<String>, Outcome)> {
    let mut lines = Lines::default();
    let outcome = decode(form, body, NOW, &mut lines)?;
    Ok((lines.0, outcome))
}

#[track_caller]
fn check(body: &[u8], expected: &[&str]) {
    let (lines, outcome) = dump(Form::Protobuf, body).unwrap();
    let points: Vec<_> = lines.iter().filter(|line| !line.contains(" is ")).collect();
    assert_eq!(points, expected);
    assert_eq!(outcome.rejected, 0, "{}", outcome.reason);
}

#[track_caller]
fn rejected(metric: MetricMessage, reason: &str) {
    let (_, outcome) = dump(Form::Protobuf, &request(vec![], vec![metric])).unwrap();
    assert_eq!(outcome.rejected, 1);
    assert!(outcome.reason.contains(reason), "{}", outcome.reason);
}

const EXAMPLE: &str = r#"{"resourceMetrics":[{
  "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},
  "scopeMetrics":[{
    "scope":{"name":"my.library","version":"1.0.0","attributes":[
      {"key":"my.scope.attribute","value":{"stringValue":"some scope attribute"}}]},
    "metrics":[
      {"name":"my.counter","unit":"1","description":"I am a Counter","sum":{"aggregationTemporality":1,"isMonotonic":true,
        "dataPoints":[{"asDouble":5,"startTimeUnixNano":"1544712660300000000","timeUnixNano":"1544712660300000000",
          "attributes":[{"key":"my.counter.attr","value":{"stringValue":"some value"}}]}]}},
      {"name":"my.gauge","unit":"1","description":"I am a Gauge","gauge":{
        "dataPoints":[{"asInt":"10","timeUnixNano":1544712660300000000}]}},
      {"name":"my.histogram","unit":"1","description":"I am a Histogram","histogram":{"aggregationTemporality":2,
        "dataPoints":[{"timeUnixNano":"1544712660300000000","count":"2","sum":2,"bucketCounts":["1","1"],
          "explicitBounds":[1],"min":0,"max":2}]}},
      {"name":"my.summary","summary":{"dataPoints":[{"timeUnixNano":"5","count":3,"sum":"NaN",
          "quantileValues":[{"quantile":0.5,"value":7}]}]}},
      {"name":"my.exponential.histogram","exponentialHistogram":{"aggregationTemporality":1,
        "dataPoints":[{"timeUnixNano":"1544712660300000000","count":"3","sum":10,"scale":0,"zeroCount":"1",
          "positive":{"offset":1,"bucketCounts":["0","2"]}}]}}
    ]}]}]}"#;

#[test]
fn the_published_example_is_read() {
    let (lines, outcome) = dump(Form::Json, EXAMPLE.as_bytes()).unwrap();
    let scope = "my.scope.attribute=some scope attribute,otel_scope_name=my.library,otel_scope_version=1.0.0,\
                 service.name=my.service";
    let at = "1544712660300000000";
    let expected = [
        "my.counter is counter [1] I am a Counter".to_owned(),
        format!("my.counter{{my.counter.attr=some value,{scope}}} F64(5.0)@{at} delta since {at}"),
        "my.gauge is gauge [1] I am a Gauge".to_owned(),
        format!("my.gauge{{{scope}}} I64(10)@{at}"),
        "my.histogram is histogram [1] I am a Histogram".to_owned(),
        format!("my.histogram_bucket{{le=1.0,{scope}}} F64(1.0)@{at}"),
        format!("my.histogram_bucket{{le=+Inf,{scope}}} F64(2.0)@{at}"),
        format!("my.histogram_sum{{{scope}}} F64(2.0)@{at}"),
        format!("my.histogram_count{{{scope}}} F64(2.0)@{at}"),
        "my.summary is summary [] ".to_owned(),
        format!(
            "my.summary{{{},quantile=0.5,service.name=my.service}} F64(7.0)@5",
            &scope[..scope.len() - 24]
        ),
        format!("my.summary_sum{{{scope}}} F64(NaN)@5"),
        format!("my.summary_count{{{scope}}} F64(3.0)@5"),
    ];
    assert_eq!(lines, expected);
    assert_eq!((outcome.accepted, outcome.rejected), (4, 1));
    assert!(outcome.reason.contains("my.exponential.histogram") && outcome.reason.contains("not stored yet"));
}

#[test]
fn protobuf_points_are_read() {
    let sum = NumberData {
        points: vec![NumberPoint { as_int: Some(i64::MIN), start: 3, ..NumberPoint::default() }],
        temporality: 2,
        monotonic: true,
    };
    let sum = MetricMessage { name: "s".into(), sum: Some(sum), ..MetricMessage::default() };
    let summary = SummaryPoint {
        time: 5,
        count: 2,
        sum: 3.0,
        quantiles: vec![QuantileMessage { quantile: 0.99, value: 1.5 }],
    };
    let summary = SummaryData { points: vec![summary] };
    let summary = MetricMessage { name: "q".into(), summary: Some(summary), ..MetricMessage::default() };
    let metrics = vec![gauge("g", vec![double(-1.5)]), sum, histogram(&[1, 2, 3], &[0.5, 1.0]), summary];
    let tags = "otel_scope_name=lib,otel_scope_version=1,r=rv,s=sv";
    let expected = [
        format!("g{{{tags}}} F64(-1.5)@5"),
        format!("s{{{tags}}} I64(-9223372036854775808)@77 since 3"),
        format!("h_bucket{{le=0.5,{tags}}} F64(1.0)@5"),
        format!("h_bucket{{le=1.0,{tags}}} F64(3.0)@5"),
        format!("h_bucket{{le=+Inf,{tags}}} F64(6.0)@5"),
        format!("h_sum{{{tags}}} F64(2.5)@5"),
        format!("h_count{{{tags}}} F64(6.0)@5"),
        format!("q{{{},quantile=0.99,r=rv,s=sv}} F64(1.5)@5", "otel_scope_name=lib,otel_scope_version=1"),
        format!("q_sum{{{tags}}} F64(3.0)@5"),
        format!("q_count{{{tags}}} F64(2.0)@5"),
    ];
    check(&request(vec![string("r", "rv")], metrics), &expected.each_ref().map(String::as_str));
}

#[test]
fn attributes_of_every_type_become_text() {
    let value = AnyValue::default;
    let list = ArrayValue {
        values: vec![
            AnyValue { int: Some(1), ..value() },
            AnyValue { string: Some("a\"".into()), ..value() },
            AnyValue { flag: Some(true), ..value() },
        ],
    };
    let map = ListValue { values: vec![any("b", AnyValue { double: Some(0.5), ..value() })] };
    let attributes = vec![
        any("bool", AnyValue { flag: Some(false), ..value() }),
        any("bytes", AnyValue { bytes: Some(b"hi!?".to_vec()), ..value() }),
        any("double", AnyValue { double: Some(1e300), ..value() }),
        any("int", AnyValue { int: Some(-3), ..value() }),
        any("list", AnyValue { array: Some(Box::new(list)), ..value() }),
        any("map", AnyValue { map: Some(Box::new(map)), ..value() }),
        any("none", value()),
        string("s", "point wins"),
    ];
    let point = NumberPoint { attributes, ..double(1.0) };
    let body = request(vec![string("int", "resource"), string("Z", "z")], vec![gauge("g", vec![point])]);
    check(
        &body,
        &["g{Z=z,bool=false,bytes=aGkhPw==,double=1e+300,int=-3,list=[1,\"a\\\"\",true],map={\"b\":0.5},\
           otel_scope_name=lib,otel_scope_version=1,s=point wins} F64(1.0)@5"],
    );
}

#[test]
fn attributes_in_json_become_the_same_text() {
    let body = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"g","gauge":{"dataPoints":[{"asDouble":"-Infinity",
        "timeUnixNano":5,"attributes":[
        {"key":"bool","value":{"boolValue":false}},{"key":"bytes","value":{"bytesValue":"aGkhPw=="}},
        {"key":"int","value":{"intValue":"-3"}},{"key":"none","value":null},{"key":"double","value":{"doubleValue":1e300}},
        {"key":"list","value":{"arrayValue":{"values":[{"intValue":1},{"stringValue":"a\""},{"boolValue":true}]}}},
        {"key":"map","value":{"kvlistValue":{"values":[{"key":"b","value":{"doubleValue":0.5}}]}}}]}]}}]}]}]}"#;
    let (lines, _) = dump(Form::Json, body.as_bytes()).unwrap();
    let tags = "bool=false,bytes=aGkhPw==,double=1e+300,int=-3,list=[1,\"a\\\"\",true],map={\"b\":0.5}";
    assert_eq!(lines[1], format!("g{{{tags}}} F64(-inf)@5"));
}

#[test]
fn points_without_a_recorded_value_are_stale() {
    let missing = NumberPoint { flags: 1, time: 5, ..NumberPoint::default() };
    let body = request(vec![], vec![gauge("g", vec![missing])]);
    check(&body, &["g{otel_scope_name=lib,otel_scope_version=1,s=sv} Stale@5"]);
}

#[test]
fn wrong_points_are_rejected_alone_and_counted() {
    rejected(gauge("g", vec![NumberPoint::default()]), "has no value");
    rejected(gauge("", vec![double(1.0)]), "has no name");
    rejected(gauge("g", vec![NumberPoint { time: u64::MAX, ..double(1.0) }]), "after the year 2262");
    rejected(gauge("refused", vec![double(1.0)]), "metric \"refused\": too many series");
    rejected(histogram(&[1, 2], &[1.0, 2.0]), "2 bucket counts for 2 bounds");
    rejected(histogram(&[1, 2, 3], &[2.0, 1.0]), "do not rise");
    rejected(histogram(&[1, 2], &[f64::NAN]), "do not rise");
    rejected(histogram(&[0; BUCKET_COUNT_MAX + 1], &[]), "more than 1024 buckets");
    let many = vec![string("k", "v"); ATTRIBUTE_COUNT_MAX + 1];
    rejected(gauge("g", vec![NumberPoint { attributes: many, ..double(1.0) }]), "more than 128 attributes");
    let exponential = MetricMessage {
        name: "e".into(),
        exponential: Some(HistogramData { points: vec![HistogramPoint::default()], temporality: 2 }),
        ..MetricMessage::default()
    };
    rejected(exponential, "exponential histograms are not stored yet");
    let unspecified = NumberData { points: vec![double(1.0)], ..NumberData::default() };
    rejected(
        MetricMessage { name: "s".into(), sum: Some(unspecified), ..MetricMessage::default() },
        "temporality is not given",
    );
    let body = request(vec![], vec![gauge("g", vec![NumberPoint::default(), double(1.0)])]);
    let (_, outcome) = dump(Form::Protobuf, &body).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 1));
}

#[test]
fn deep_attributes_are_rejected() {
    fn nested(depth: usize) -> AnyValue {
        if depth == 0 {
            return AnyValue { int: Some(1), ..AnyValue::default() };
        }
        let list = ArrayValue { values: vec![nested(depth - 1)] };
        AnyValue { array: Some(Box::new(list)), ..AnyValue::default() }
    }
    let point = |depth| NumberPoint { attributes: vec![any("deep", nested(depth))], ..double(1.0) };
    rejected(gauge("g", vec![point(ATTRIBUTE_DEPTH_MAX + 1)]), "nests deeper");
    let (_, outcome) =
        dump(Form::Protobuf, &request(vec![], vec![gauge("g", vec![point(ATTRIBUTE_DEPTH_MAX)])])).unwrap();
    assert_eq!(outcome.rejected, 0);
    let json = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"g","gauge":{{"dataPoints":[{{"asInt":1,"attributes":
        [{{"key":"k","value":{}{}{}}}]}}]}}}}]}}]}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(17),
        r#"{"intValue":1}"#,
        "]}}".repeat(17)
    );
    let (_, outcome) = dump(Form::Json, json.as_bytes()).unwrap();
    assert!(outcome.reason.contains("nests deeper"), "{}", outcome.reason);
}

#[test]
fn json_bombs_are_refused_before_they_grow() {
    let mut body = br#"{"resourceMetrics":["#.to_vec();
    body.extend(b"{},".repeat(JSON_OBJECT_COUNT_MAX));
    assert_eq!(dump(Form::Json, &body).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let deep = b"{\"resourceMetrics\":[[".to_vec();
    assert_eq!(dump(Form::Json, &deep.repeat(1000)).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn truncated_and_mutated_bytes_never_panic() {
    let attributes = vec![string("r", "rv"), any("i", AnyValue { int: Some(1), ..AnyValue::default() })];
    let body = request(attributes, vec![gauge("g", vec![double(1.0)]), histogram(&[1, 2], &[1.0])]);
    for (form, body) in [(Form::Protobuf, body), (Form::Json, EXAMPLE.as_bytes().to_vec())] {
        for end in 0..body.len() {
            let _ = dump(form, &body[..end]);
        }
        for bit in 0..body.len() * 8 {
            let mut mutated = body.clone();
            mutated[bit / 8] ^= 1 << (bit % 8);
            let _ = dump(form, &mutated);
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnswerMessage {
    #[prost(message, optional, tag = "1")]
    partial: Option<PartialMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialMessage {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

#[test]
fn answers_say_what_was_rejected() {
    let whole = Outcome { accepted: 5, ..Outcome::default() };
    assert!(encode_answer(Form::Protobuf, &whole).is_empty());
    assert_eq!(encode_answer(Form::Json, &whole), b"{}");
    let part = Outcome { accepted: 5, rejected: 2, reason: "why".into() };
    let partial = PartialMessage { rejected: 2, message: "why".into() };
    let bytes = encode_answer(Form::Protobuf, &part);
    assert_eq!(AnswerMessage::decode(&bytes[..]).unwrap(), AnswerMessage { partial: Some(partial.clone()) });
    let json: serde_json::Value = serde_json::from_slice(&encode_answer(Form::Json, &part)).unwrap();
    assert_eq!(json["partialSuccess"]["rejectedDataPoints"], "2");
    assert_eq!(json["partialSuccess"]["errorMessage"], "why");
    let status = encode_status(Form::Protobuf, 2, "why");
    assert_eq!(PartialMessage::decode(&status[..]).unwrap(), partial, "the status has the same two fields");
    assert_eq!(encode_status(Form::Json, 3, "why"), br#"{"code":3,"message":"why"}"#);
}

#[test]
fn content_types_choose_the_form() {
    assert_eq!(Form::from_content_type("application/x-protobuf"), Some(Form::Protobuf));
    assert_eq!(Form::from_content_type("application/json; charset=utf-8"), Some(Form::Json));
    assert_eq!(Form::from_content_type("text/plain"), None);
}
