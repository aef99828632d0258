//! Remote write decoding: 10,000 samples a request, one a series, eleven labels each, as workload S sends them.
//!
//! `zero_copy` reads names, tags and samples; `known_series` reads samples only and takes the label bytes as they are,
//! as a caller does who has seen the series before; `prost` is the generated decoder that we do not use.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use icecore::protocol::body::decode_snappy_block;
use icecore::protocol::remote_write::{Entry, Labels, Limits, Sample, Version, WriteRequest};
use prost::Message;

const HOST_COUNT: usize = 100;
const METRICS: [&str; 10] =
    ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
const TICK_COUNT: usize = 10;
const SAMPLE_COUNT: usize = HOST_COUNT * METRICS.len() * TICK_COUNT;

#[derive(Clone, PartialEq, Message)]
struct WriteMessage {
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

fn series(host: usize, metric: &str, tick: usize) -> SeriesMessage {
    let labels = [
        ("__name__", format!("cpu_usage_{metric}")),
        ("arch", "x64".into()),
        ("datacenter", format!("eu-central-1{}", ['a', 'b'][host % 2])),
        ("hostname", format!("host_{host}")),
        ("os", "Ubuntu16.04LTS".into()),
        ("rack", format!("{}", host * 7 % 100)),
        ("region", "eu-central-1".into()),
        ("service", format!("{}", host % 20)),
        ("service_environment", "production".into()),
        ("service_version", "1".into()),
        ("team", "SF".into()),
    ];
    let label = |(name, value): (&str, String)| LabelMessage { name: name.into(), value };
    let value = ((host * 31 + tick * 17) % 100) as f64;
    let timestamp = 1_700_000_000_000 + 10_000 * tick as i64;
    SeriesMessage { labels: labels.map(label).to_vec(), samples: vec![SampleMessage { value, timestamp }] }
}

fn request() -> Vec<u8> {
    let mut timeseries = Vec::new();
    for tick in 0..TICK_COUNT {
        for host in 0..HOST_COUNT {
            timeseries.extend(METRICS.map(|metric| series(host, metric, tick)));
        }
    }
    WriteMessage { timeseries }.encode_to_vec()
}

fn zero_copy(body: &[u8], samples: &mut Vec<Sample>) -> (usize, f64) {
    let mut labels = Labels::default();
    let (mut tag_count, mut sum) = (0, 0.0);
    let mut request = WriteRequest::new(Version::V1, body, Limits::default()).unwrap();
    while let Some(Entry::Series(series)) = request.next().unwrap() {
        request.labels(&series, &mut labels).unwrap();
        series.samples(samples).unwrap();
        tag_count += labels.tags.len();
        sum += samples.iter().map(|s| s.value).sum::<f64>();
    }
    (tag_count, sum)
}

fn known_series(body: &[u8], samples: &mut Vec<Sample>) -> (usize, f64) {
    let (mut size, mut sum) = (0, 0.0);
    let mut request = WriteRequest::new(Version::V1, body, Limits::default()).unwrap();
    while let Some(Entry::Series(series)) = request.next().unwrap() {
        size += series.label_bytes().len();
        series.samples(samples).unwrap();
        sum += samples.iter().map(|s| s.value).sum::<f64>();
    }
    (size, sum)
}

fn prost_decode(body: &[u8]) -> (usize, f64) {
    let message = WriteMessage::decode(body).unwrap();
    let tag_count = message.timeseries.iter().map(|s| s.labels.len() - 1).sum();
    (tag_count, message.timeseries.iter().flat_map(|s| &s.samples).map(|s| s.value).sum())
}

fn decode(criterion: &mut Criterion) {
    let body = request();
    let packed = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let mut samples = Vec::new();
    assert_eq!(zero_copy(&body, &mut samples), prost_decode(&body));
    assert_eq!(zero_copy(&body, &mut samples).0, 10 * SAMPLE_COUNT);

    let mut group = criterion.benchmark_group("protocol/remote_write");
    group.throughput(Throughput::Elements(SAMPLE_COUNT as u64));
    group.bench_function("zero_copy", |b| b.iter(|| zero_copy(black_box(&body), &mut samples)));
    group.bench_function("known_series", |b| b.iter(|| known_series(black_box(&body), &mut samples)));
    group.bench_function("prost", |b| b.iter(|| prost_decode(black_box(&body))));
    let mut plain = Vec::new();
    group.bench_function("snappy", |b| {
        b.iter(|| decode_snappy_block(black_box(&packed), body.len(), &mut plain).unwrap());
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
