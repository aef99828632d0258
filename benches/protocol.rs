//! Text parsers: StatsD datagrams, a page of the text format, the line protocol, CSV rows. Throughput is in
//! lines; the floor for each is in `docs/testing.md`.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use icecore::Timestamp;
use icecore::protocol::exposition::{Format, Lines, parse_text};
use icecore::protocol::line::{Parser, Precision};
use icecore::protocol::statsd::{Message, Options, parse_line};

const LINE_COUNT: usize = 10_000;

/// `LINE_COUNT` lines, each written by `line` from its number.
fn text(mut line: impl FnMut(&mut String, usize)) -> String {
    let mut text = String::new();
    (0..LINE_COUNT).for_each(|number| line(&mut text, number));
    text
}

fn statsd(c: &mut Criterion) {
    let text = text(|out, n| {
        let kind = ["c", "g", "h", "ms"][n % 4];
        writeln!(out, "my_metric_{}:{n}.5|{kind}|@0.5|#model:v{},region:eu,host:h{}", n % 50, n % 3, n % 100)
            .unwrap();
    });
    let lines: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
    let options = Options::default();
    let run = || {
        let metric = |line: &&[u8]| match parse_line(line, &options) {
            Ok(Message::Metric(metric)) => metric.tags.pairs().count() + metric.readings().count(),
            other => panic!("{other:?}"),
        };
        lines.iter().map(metric).sum::<usize>()
    };
    assert_eq!(run(), LINE_COUNT * 4);
    let mut group = c.benchmark_group("protocol/statsd");
    group.throughput(Throughput::Elements(LINE_COUNT as u64));
    group.bench_function("tagged", |b| b.iter(|| black_box(run())));
}

fn exposition(c: &mut Criterion) {
    let page = text(|out, n| {
        let (code, path) = (200 + n % 5, n / 5 % 40);
        writeln!(
            out,
            "http_requests_total{{code=\"{code}\",path=\"/v1/{path}\",host=\"h{}\"}} {n}.25",
            n / 200
        )
        .unwrap();
    });
    assert_eq!(parse_text(page.as_bytes()).unwrap()[0].samples.len(), LINE_COUNT);
    let mut group = c.benchmark_group("protocol/exposition");
    group.throughput(Throughput::Elements(LINE_COUNT as u64));
    group
        .bench_function("lines", |b| b.iter(|| black_box(Lines::new(page.as_bytes(), Format::Text).count())));
    group.bench_function("page", |b| b.iter(|| black_box(parse_text(page.as_bytes()).unwrap().len())));
}

fn line(c: &mut Criterion) {
    let text = text(|out, n| {
        writeln!(
            out,
            "cpu,host=h{},region=eu-1 user={n}.5,system={n}i,ok=t {}",
            n % 100,
            1_700_000_000_000 + n
        )
        .unwrap();
    });
    let parser = || Parser::new(text.as_bytes(), Precision::Milliseconds, Timestamp::from_nanos(0));
    assert_eq!(parser().flatten().map(|point| point.fields.len()).sum::<usize>(), LINE_COUNT * 3);
    let mut group = c.benchmark_group("protocol/line");
    group.throughput(Throughput::Elements(LINE_COUNT as u64));
    group.bench_function("three_fields", |b| b.iter(|| black_box(parser().count())));
}

#[cfg(feature = "cli")]
fn csv(c: &mut Criterion) {
    use icecore::ValueRef;
    use icecore::protocol::csv::{Mapping, Rows};
    let header = "series,tags,timestamp_ms,value\n".to_owned();
    let file = header
        + &text(|out, n| {
            writeln!(out, "cpu_usage,host=h{};core=0,{},{n}.125", n / 1000, 1_700_000_000_000 + n).unwrap();
        });
    let run = || {
        let mut rows = Rows::new(file.as_bytes(), Mapping::default()).unwrap();
        let (mut series_count, mut sum) = (0, 0.0);
        while let Some(row) = rows.next_row().unwrap() {
            let row = row.unwrap();
            series_count += usize::from(row.series_changed);
            let value = |(_, value): (usize, ValueRef<'_>)| match value {
                ValueRef::F64(value) => value,
                other => panic!("the column holds doubles, not {other:?}"),
            };
            sum += row.samples().map(value).sum::<f64>();
        }
        (series_count, sum)
    };
    assert_eq!(run().0, 10);
    let mut group = c.benchmark_group("protocol/csv");
    group.throughput(Throughput::Elements(LINE_COUNT as u64));
    group.bench_function("own_form", |b| b.iter(|| black_box(run())));
}

#[cfg(not(feature = "cli"))]
fn csv(_: &mut Criterion) {}

criterion_group!(benches, statsd, exposition, line, csv);
criterion_main!(benches);
