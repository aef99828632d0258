//! Remote write of workload S (`benches/engine.rs`): 10,000 samples a request, each an entry of its own with all its
//! labels, as Prometheus sends them, and the series divided among the connections, as Prometheus does it.

use crate::http::{Connection, request};
use crate::{Bench, count};
use icecore::Selector;

const METRICS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
const START_MILLIS: i64 = 1_451_606_400_000; // 2016-01-01T00:00:00Z, as TSBS has it
const STEP_MILLIS: i64 = 10_000;
const SAMPLES_A_REQUEST: usize = 10_000;
const CONNECTION_COUNT: usize = 2;

pub(crate) fn run(small: bool) {
    let (hosts, ticks) = if small { (10, 36) } else { (100, 8640) };
    let requests: Vec<_> = (0..CONNECTION_COUNT).map(|part| requests(part, hosts, ticks)).collect();
    let total = (hosts * METRICS.len() * ticks) as u64;
    let size: usize = requests.iter().flatten().map(Vec::len).sum();

    let bench = Bench::start(&[]);
    let address = bench.served.address;
    let send = |requests: &[Vec<u8>]| {
        let mut connection = Connection::open(address);
        requests.iter().for_each(|request| _ = connection.ask(request));
    };
    let cost = bench.measure(|| {
        std::thread::scope(|scope| requests.iter().for_each(|part| _ = scope.spawn(|| send(part))));
    });
    let memory = bench.memory_peak();
    let (db, _directory) = bench.stop();
    assert_eq!(count(&db, Selector::all()), total);
    println!(
        "remote_write: {:.2} M samples/s (target 4), {} (target 0.2), {:.1} bytes a sample on \
         the wire, server {memory} MiB at most; {total} samples in {:.2} s, all there after a restart",
        cost.rate(total) / 1e6,
        cost.cpu_per_million(total),
        size as f64 / total as f64,
        cost.elapsed.as_secs_f64(),
    );
}

/// The requests of one connection, headers and compressed bodies: its share of the hosts, by tick, host, metric.
fn requests(part: usize, hosts: usize, ticks: usize) -> Vec<Vec<u8>> {
    let mut random = Random(1 + part as u64);
    let own = (0..hosts).filter(|host| host % CONNECTION_COUNT == part);
    let labels: Vec<Vec<u8>> = own.flat_map(|host| labels(host, &mut random)).collect();
    let mut values: Vec<f64> = labels.iter().map(|_| (random.next() % 101) as f64).collect();
    let (mut body, mut count) = (Vec::new(), 0);
    let mut requests = Vec::new();
    for tick in 0..ticks {
        let millis = START_MILLIS + tick as i64 * STEP_MILLIS;
        for (labels, walk) in labels.iter().zip(&mut values) {
            *walk = (*walk + random.normal()).clamp(0.0, 100.0);
            let mut sample = vec![0x09];
            sample.extend_from_slice(&walk.trunc().to_le_bytes());
            sample.push(0x10);
            put_varint(&mut sample, millis as u64);
            let size = labels.len() + 2 + sample.len();
            body.push(0x0a);
            put_varint(&mut body, size as u64);
            body.extend_from_slice(labels);
            put_bytes(&mut body, 2, &sample);
            count += 1;
            if count % SAMPLES_A_REQUEST == 0 {
                requests.push(packed(&body));
                body.clear();
            }
        }
    }
    if !body.is_empty() {
        requests.push(packed(&body));
    }
    requests
}

fn packed(body: &[u8]) -> Vec<u8> {
    let body = snap::raw::Encoder::new().compress_vec(body).unwrap();
    let headers = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                   X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
    request("POST", "/api/v1/write", headers, &body)
}

/// The labels of each metric of a host as they are sent, sorted, the name first.
fn labels(host: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let mut pick = |of: &str, count: u64| format!("{of}{}", random.next() % count);
    let tags = [
        ("arch", pick("x", 2)),
        ("datacenter", pick("eu-west-1", 26)),
        ("hostname", format!("host_{host}")),
        ("os", pick("Ubuntu16.04", 3)),
        ("rack", pick("", 100)),
        ("region", pick("eu-west-", 9)),
        ("service", pick("", 20)),
        ("service_environment", pick("env", 3)),
        ("service_version", pick("", 2)),
        ("team", pick("team_", 4)),
    ];
    let of_metric = |metric: &str| {
        let mut labels = Vec::new();
        put_label(&mut labels, "__name__", metric);
        tags.iter().for_each(|(key, value)| put_label(&mut labels, key, value));
        labels
    };
    METRICS.map(of_metric).to_vec()
}

fn put_label(out: &mut Vec<u8>, key: &str, value: &str) {
    let mut label = Vec::new();
    put_bytes(&mut label, 1, key.as_bytes());
    put_bytes(&mut label, 2, value.as_bytes());
    put_bytes(out, 1, &label);
}

fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// splitmix64, and from it normal steps by the sum of twelve uniform numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }
}
