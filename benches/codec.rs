//! Encoding and decoding of pages, with bytes a sample beside the time: `cargo bench --bench codec`.
//!
//! Groups `codec/encode_page` and `codec/decode_page`, each input as flush and as compaction encode it.
//! Best case: `constant`, which has no bytes. Worst case: `noise`, which no encoding makes smaller.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use icecore::Column;
use icecore::bench::{Page, page_ends};

const SAMPLE_COUNT: usize = 43_200;
const START: i64 = 1_700_006_400_000_000_000;
const STEP: i64 = 10_000_000_000;

/// SplitMix64 (Steele et al., OOPSLA 2014), so that inputs are the same everywhere.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Twelve uniform numbers less six: normal enough.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// The inputs by name.
fn inputs() -> Vec<(&'static str, Vec<f64>)> {
    let mut random = Random(1);
    let mut walk = 50.0f64;
    let gauge_walk = (0..SAMPLE_COUNT).map(|_| {
        walk = (walk + random.normal()).clamp(0.0, 100.0);
        walk.trunc()
    });
    let gauge_walk = gauge_walk.collect();
    let mut count = 0.0;
    let counter_steady = (0..SAMPLE_COUNT).map(|_| {
        count += 1000.0 + (20.0 * random.normal()).trunc();
        count
    });
    let counter_steady = counter_steady.collect();
    let decimal =
        (0..SAMPLE_COUNT).map(|i| (2000.0 * (i as f64 / 700.0).sin() + random.normal()).trunc() / 100.0);
    let decimal = decimal.collect();
    vec![
        ("gauge_walk", gauge_walk),
        ("counter_steady", counter_steady),
        ("decimal", decimal),
        ("constant", vec![42.5; SAMPLE_COUNT]),
        ("noise", (0..SAMPLE_COUNT).map(|_| f64::from_bits(random.bits())).collect()),
    ]
}

/// A series of one input, cut into pages.
struct Series {
    times: Vec<i64>,
    values: Column,
    ends: Vec<usize>,
}

impl Series {
    fn new(values: Vec<f64>) -> Self {
        let times: Vec<i64> = (0..values.len() as i64).map(|index| START + STEP * index).collect();
        let values = Column::F64(values);
        let ends = page_ends(&times, &values);
        Series { times, values, ends }
    }

    fn encode(&self, compact: bool) -> Vec<Page> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let encode =
            |(start, end): (usize, &usize)| Page::encode(&self.times, &self.values, start, *end, compact);
        starts.zip(&self.ends).map(encode).collect()
    }

    /// Decodes page after page into the same two columns, and returns how many samples there were.
    fn decode(&self, pages: &[Page], times: &mut Vec<i64>, values: &mut Column) -> usize {
        let mut count = 0;
        for page in pages {
            times.clear();
            values.clear();
            page.decode(times, values).expect("an encoded page decodes");
            count += times.len();
        }
        count
    }

    /// Every bit comes back; prints what it takes.
    fn check(&self, name: &str, compact: bool) {
        let pages = self.encode(compact);
        let (mut times, mut values) = (Vec::new(), Column::F64(Vec::new()));
        pages.iter().for_each(|page| page.decode(&mut times, &mut values).expect("an encoded page decodes"));
        let bits = |column: &Column| match column {
            Column::F64(values) => values.iter().map(|value| value.to_bits()).collect(),
            _ => Vec::new(),
        };
        assert_eq!(times, self.times);
        assert_eq!(bits(&values), bits(&self.values));
        let values_size: usize = pages.iter().map(Page::values_size).sum();
        let before = std::iter::once(None).chain(pages.iter().map(Some));
        let record_size: usize =
            pages.iter().zip(before).map(|(page, before)| page.record_size(before)).sum();
        let per_sample = |size: usize| size as f64 / self.times.len() as f64;
        println!(
            "{name}: values {:.3}, records {:.3} bytes a sample, {} pages",
            per_sample(values_size),
            per_sample(record_size),
            pages.len()
        );
    }
}

fn effort_name(compact: bool) -> &'static str {
    if compact { "compact" } else { "flush" }
}

fn pages(criterion: &mut Criterion) {
    let inputs: Vec<_> = inputs().into_iter().map(|(name, values)| (name, Series::new(values))).collect();
    for compact in [false, true] {
        for (name, series) in &inputs {
            series.check(&format!("{name}/{}", effort_name(compact)), compact);
        }
    }
    let mut group = criterion.benchmark_group("codec/encode_page");
    group.throughput(Throughput::Elements(SAMPLE_COUNT as u64)).sample_size(10);
    for compact in [false, true] {
        for (name, series) in &inputs {
            let id = BenchmarkId::new(*name, effort_name(compact));
            group.bench_function(id, |bencher| bencher.iter(|| series.encode(compact)));
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("codec/decode_page");
    group.throughput(Throughput::Elements(SAMPLE_COUNT as u64));
    for compact in [false, true] {
        for (name, series) in &inputs {
            let pages = series.encode(compact);
            let (mut times, mut values) = (Vec::new(), Column::F64(Vec::new()));
            assert_eq!(series.decode(&pages, &mut times, &mut values), SAMPLE_COUNT);
            let id = BenchmarkId::new(*name, effort_name(compact));
            group.bench_function(id, |bencher| {
                bencher.iter(|| series.decode(&pages, &mut times, &mut values));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
