//! Each promise of a query alone.

use std::sync::Arc;
use std::time::Duration;

use super::memory::{MemoryPage, MemorySeries, MemorySource, snapshot, source_of};
use crate::error::ErrorKind;
use crate::model::{
    BytesColumn, Column, Match, STALE_NAN_BITS, Selector, SeriesKey, TimeRange, Timestamp, ValueType,
};
use crate::query::aggregate::Compare;
use crate::query::budget::{CancelToken, QueryLimits};
use crate::query::builder::Query;
use crate::query::result::SeriesColumns;
use crate::query::source::{Damaged, Snapshot, Tombstone};

fn query(snapshot: &Snapshot) -> Query {
    Query::new(Arc::new(snapshot.clone()), Selector::all())
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange { start: Timestamp::from_nanos(start), end: Timestamp::from_nanos(end) }
}

fn key(name: &str, tags: &[(&str, &str)]) -> SeriesKey {
    SeriesKey::new(name, tags.iter().copied()).unwrap()
}

fn text(columns: &SeriesColumns) -> String {
    let times: Vec<i64> = columns.times.iter().map(|time| time.nanos()).collect();
    format!("{} {times:?} {:?}", columns.key, columns.values)
}

#[track_caller]
fn check(query: Query, expected: &[&str]) {
    let found: Vec<String> = query.run().unwrap().series.iter().map(text).collect();
    assert_eq!(found, expected);
}

/// Many series of one long page each.
fn wide(series: i64, samples: i64) -> Snapshot {
    let one = |n: i64| MemorySeries {
        key: key("wide", &[("n", &format!("{n:04}")), ("odd", &(n % 2).to_string())]),
        value_type: ValueType::F64,
        pages: vec![MemoryPage::new(
            (0..samples).collect(),
            Column::F64((0..samples).map(|t| ((t * 31 + n * 17) % 97) as f64 / 7.0).collect()),
        )],
    };
    snapshot(vec![MemorySource { lsn_last: 1, series: (0..series).map(one).collect() }])
}

#[test]
fn later_sources_win_and_deletes_spare_what_came_after() {
    let mut snapshot = snapshot(vec![
        source_of("m", &[1, 2, 3, 4], &[1.0, 2.0, 3.0, 4.0]),
        MemorySource { lsn_last: 9, ..source_of("m", &[2, 5], &[20.0, 50.0]) },
    ]);
    check(query(&snapshot), &["m [1, 2, 3, 4, 5] F64([1.0, 20.0, 3.0, 4.0, 50.0])"]);
    snapshot.tombstones = vec![Tombstone { lsn: 5, selector: Selector::name("m"), range: range(2, 4) }];
    check(query(&snapshot), &["m [1, 2, 4, 5] F64([1.0, 20.0, 4.0, 50.0])"]);
    snapshot.tombstones.push(Tombstone { lsn: 10, selector: Selector::name("other"), range: TimeRange::ALL });
    check(query(&snapshot).sum(), &["m [-9223372036854775808] F64([75.0])"]);
    snapshot.tombstones.push(Tombstone { lsn: 11, selector: Selector::all(), range: TimeRange::ALL });
    check(query(&snapshot), &[]);
    assert_eq!(query(&snapshot).names().unwrap(), [""; 0]);
}

#[test]
fn nothing_below_the_floor_is_answered() {
    let mut snapshot = snapshot(vec![source_of("m", &[1, 2, 3], &[1.0, 2.0, 3.0])]);
    snapshot.floor = Timestamp::from_nanos(2);
    check(query(&snapshot), &["m [2, 3] F64([2.0, 3.0])"]);
    check(query(&snapshot).range(range(0, 10)).count(), &["m [0] F64([2.0])"]);
    snapshot.floor = Timestamp::from_nanos(4);
    check(query(&snapshot), &[]);
}

#[test]
fn pages_that_lie_in_one_window_are_not_decoded() {
    let report = |query: Query| query.run().unwrap().report;
    let snapshot = wide(3, 1_000);
    let whole = report(query(&snapshot).max().by(["odd"]));
    assert_eq!((whole.pages_aggregated, whole.pages_decoded, whole.samples_decoded), (3, 0, 0));
    let cut = report(query(&snapshot).max().range(range(0, 999)));
    assert_eq!((cut.pages_aggregated, cut.pages_decoded, cut.samples_decoded), (0, 3, 3_000));
    let windows = report(query(&snapshot).max().window(Duration::from_nanos(500)));
    assert_eq!((windows.pages_aggregated, windows.pages_decoded), (0, 3));
    let none = report(query(&snapshot).where_value(Compare::Greater, 1e6));
    assert_eq!((none.pages_skipped, none.pages_decoded), (3, 0));
    let outside = report(query(&snapshot).range(range(5_000, 6_000)));
    assert_eq!((outside.sources, outside.sources_skipped, outside.series), (1, 1, 0));
}

#[test]
fn sums_of_integers_are_exact_until_the_end() {
    let big = (1_i64 << 53) + 1;
    let series = |values: Vec<i64>| MemorySeries {
        key: key("m", &[]),
        value_type: ValueType::I64,
        pages: vec![MemoryPage::new((0..values.len() as i64).collect(), Column::I64(values))],
    };
    let sum = |values: Vec<i64>| {
        let snapshot = snapshot(vec![MemorySource { lsn_last: 1, series: vec![series(values)] }]);
        let query = query(&snapshot).range(range(0, 1_000));
        [query.clone().sum(), query.increase()].map(|query| query.run().unwrap().series[0].doubles()[0])
    };
    assert_eq!(sum(vec![big, 2]), [9_007_199_254_740_996.0, 2.0], "doubles would give ...994 for the sum");
    assert_eq!(sum(vec![i64::MIN, i64::MAX]), [-1.0, 18_446_744_073_709_551_615.0]);
    assert_eq!(sum(vec![i64::MAX; 3])[0], 3.0 * 9_223_372_036_854_775_807.0);
}

#[test]
fn doubles_and_integers_of_a_group_add_exactly() {
    let snapshot = snapshot(vec![MemorySource {
        lsn_last: 1,
        series: vec![
            MemorySeries {
                key: key("m", &[]),
                value_type: ValueType::F64,
                pages: vec![MemoryPage::new(vec![1, 2], Column::F64(vec![0.5, -1e18]))],
            },
            MemorySeries {
                key: key("m", &[]),
                value_type: ValueType::I64,
                pages: vec![MemoryPage::new(vec![1, 2], Column::I64(vec![1_000_000_000_000_000_001, -3]))],
            },
        ],
    }]);
    check(query(&snapshot).range(range(0, 9)).sum().by([""; 0]), &["{} [0] F64([-1.5])"]);
}

#[test]
fn staleness_markers_are_counted_apart() {
    let stale = f64::from_bits(STALE_NAN_BITS);
    let snapshot = snapshot(vec![source_of("m", &[1, 2, 3, 4], &[1.0, 3.0, stale, stale])]);
    let base = query(&snapshot).range(range(0, 9));
    let counted = base.clone().count().run().unwrap();
    assert_eq!((counted.series[0].doubles(), counted.report.stale_markers), (&[2.0][..], 2));
    let mean = base.clone().mean().run().unwrap();
    assert_eq!((mean.series[0].doubles(), mean.report.stale_markers), (&[2.0][..], 2));
    check(base.clone().last(), &["m [0] F64([3.0])"]);
    check(base.clone().latest(), &["m [2] F64([3.0])"]);
    check(base.clone().increase(), &["m [0] F64([2.0])"]);
    let raw = base.run().unwrap();
    assert_eq!(raw.series[0].doubles()[3].to_bits(), STALE_NAN_BITS);
}

#[test]
fn answers_do_not_depend_on_threads() {
    let snapshot = wide(600, 1_500);
    let run = |threads| {
        let base = query(&snapshot).window(Duration::from_nanos(400)).threads(threads);
        let results = [base.clone().sum().by(["odd"]), base.clone().stddev(), base.last().by([""; 0])]
            .map(|query| query.run().unwrap());
        let raw = query(&snapshot).threads(threads).run().unwrap();
        let work = results.iter().chain([&raw]).map(|r| (r.report.pages_decoded, r.report.samples_decoded));
        assert_eq!(work.collect::<Vec<_>>(), [(600, 900_000); 4]);
        assert_eq!(raw.report.threads, threads as u64);
        (results.map(|result| result.series), raw.series)
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

#[test]
fn limits_hold_and_name_themselves() {
    let snapshot = wide(20, 100);
    let fails = |limits: QueryLimits, kind: ErrorKind, name: &str| {
        let error = query(&snapshot).limits(limits).run().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(name), "{error}");
    };
    let limits = QueryLimits::default;
    fails(QueryLimits { series_count_max: 19, ..limits() }, ErrorKind::LimitExceeded, "series_count_max");
    fails(QueryLimits { sample_count_max: 1_999, ..limits() }, ErrorKind::LimitExceeded, "sample_count_max");
    fails(QueryLimits { memory_size_max: 30_000, ..limits() }, ErrorKind::LimitExceeded, "memory_size_max");
    fails(
        QueryLimits { duration_max: Some(Duration::ZERO), ..limits() },
        ErrorKind::Cancelled,
        "duration_max",
    );
    let enough = QueryLimits { series_count_max: 20, sample_count_max: 2_000, ..limits() };
    assert_eq!(query(&snapshot).limits(enough).run().unwrap().series.len(), 20);
    let token = CancelToken::new();
    token.cancel();
    let cancelled = query(&snapshot).cancel(token).run().unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
}

#[test]
fn damage_fails_or_marks_the_answer() {
    let mut snapshot = snapshot(vec![source_of("m", &[1, 2], &[1.0, 2.0])]);
    snapshot.damaged = vec![Damaged { range: range(10, 20), what: "block 7".into() }];
    let error = query(&snapshot).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("block 7"), "{error}");
    assert!(query(&snapshot).range(range(0, 10)).run().is_ok(), "it does not meet the damage");
    let partial = query(&snapshot).allow_partial().run().unwrap();
    assert!(partial.report.is_partial() && partial.series.len() == 1);
}

#[test]
fn damaged_pages_are_left_out_of_partial_answers_only() {
    for shift in [10, 3] {
        let mut first = source_of("m", &[1, 2, 3], &[1.0, 2.0, 3.0]);
        first.series[0]
            .pages
            .push(MemoryPage { damaged: true, ..MemoryPage::new(vec![4, 5], Column::F64(vec![4.0, 5.0])) });
        let second = MemorySource { lsn_last: 2, ..source_of("m", &[shift, shift + 1], &[8.0, 9.0]) };
        let snapshot = snapshot(vec![first, second]);
        for query in [query(&snapshot), query(&snapshot).max().window(Duration::from_nanos(4))] {
            assert_eq!(query.run().unwrap_err().kind(), ErrorKind::Corruption);
            let partial = query.allow_partial().run().unwrap();
            assert_eq!(partial.report.damaged[0].range, range(4, 6));
            assert!(partial.series[0].times.len() >= 2);
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let snapshot = snapshot(Vec::new());
    let refused = |query: Query| assert_eq!(query.run().unwrap_err().kind(), ErrorKind::InvalidInput);
    refused(query(&snapshot).by(["a"]));
    refused(query(&snapshot).window(Duration::from_secs(1)));
    refused(query(&snapshot).latest().top(1));
    refused(query(&snapshot).quantile(1.5));
    refused(query(&snapshot).histogram_quantile(f64::NAN));
    refused(query(&snapshot).rate());
    refused(query(&snapshot).sum().window(Duration::ZERO));
    assert_eq!(query(&snapshot).sum().stream().unwrap_err().kind(), ErrorKind::InvalidInput);
    check(query(&snapshot).rate().window(Duration::from_secs(1)), &[]);
    check(query(&snapshot).range(range(5, 1)), &[]);
}

#[test]
fn bytes_are_counted_but_have_no_sum() {
    let mut column = BytesColumn::default();
    [&b"a"[..], b"", b"ccc"].into_iter().for_each(|value| column.push(value));
    let pages = vec![MemoryPage::new(vec![1, 2, 3], Column::Bytes(column))];
    let series = vec![MemorySeries { key: key("log", &[]), value_type: ValueType::Bytes, pages }];
    let snapshot = snapshot(vec![MemorySource { lsn_last: 1, series }]);
    check(query(&snapshot).range(range(2, 9)).count(), &["log [2] F64([2.0])"]);
    let sum = query(&snapshot).sum().run().unwrap();
    assert_eq!((sum.series.len(), sum.report.series_without_answer), (0, 1));
    let filtered = query(&snapshot).where_value(Compare::NotEqual, 0.0);
    assert_eq!(filtered.run().unwrap().report.series_without_answer, 1);
    assert_eq!(filtered.stream().unwrap().count(), 0);
}

#[test]
fn pieces_of_a_stream_are_bounded() {
    let pages = (0..50).map(|n: i64| {
        let times: Vec<i64> = (n * 2_000..(n + 1) * 2_000).collect();
        MemoryPage::new(times.clone(), Column::I64(times))
    });
    let series =
        vec![MemorySeries { key: key("m", &[]), value_type: ValueType::I64, pages: pages.collect() }];
    let snapshot = snapshot(vec![MemorySource { lsn_last: 1, series }]);
    let pieces: Vec<SeriesColumns> = query(&snapshot).stream().unwrap().map(Result::unwrap).collect();
    assert!(pieces.iter().all(|piece| piece.times.len() <= 10_192));
    let times: Vec<i64> = pieces.iter().flat_map(|piece| &piece.times).map(|time| time.nanos()).collect();
    assert_eq!(times, (0..100_000).collect::<Vec<_>>());
}

#[test]
fn histogram_buckets_are_added_before_the_quantile() {
    let bucket = |host: &str, bound: &str, from: f64, to: f64| MemorySeries {
        key: key("latency_bucket", &[("host", host), ("le", bound)]),
        value_type: ValueType::F64,
        pages: vec![MemoryPage::new(vec![1, 8], Column::F64(vec![from, to]))],
    };
    let mut source = MemorySource {
        lsn_last: 1,
        series: vec![
            bucket("a", "1", 5.0, 15.0),
            bucket("a", "2", 5.0, 25.0),
            bucket("a", "+Inf", 5.0, 25.0),
            // A reset: these rose by 20, 20, 20.
            bucket("b", "1", 100.0, 20.0),
            bucket("b", "2", 100.0, 20.0),
            bucket("b", "+Inf", 100.0, 20.0),
            bucket("b", "none", 0.0, 1.0),
            bucket("b", "NaN", 0.0, 1.0),
        ],
    };
    source.sort();
    let snapshot = snapshot(vec![source]);
    let median = query(&snapshot).range(range(0, 10)).histogram_quantile(0.5);
    check(median.clone(), &[r#"{host="a"} [0] F64([1.0])"#, r#"{host="b"} [0] F64([0.5])"#]);
    check(median.clone().by([""; 0]), &["{} [0] F64([0.6666666666666666])"]);
    check(median.clone().without(["host"]), &["{} [0] F64([0.6666666666666666])"]);
    check(median.top(1), &[r#"{host="a"} [0] F64([1.0])"#]);
}

#[test]
fn listings_tell_what_there_is() {
    let mut snapshot = wide(10, 5);
    snapshot.sources.push(Arc::new(source_of("alone", &[100], &[1.0])));
    assert_eq!(query(&snapshot).names().unwrap(), ["alone", "wide"]);
    assert_eq!(query(&snapshot).range(range(0, 50)).names().unwrap(), ["wide"]);
    assert_eq!(query(&snapshot).where_value(Compare::Less, -1.0).names().unwrap(), ["alone", "wide"]);
    assert_eq!(query(&snapshot).tag_keys().unwrap(), ["n", "odd"]);
    assert_eq!(query(&snapshot).tag_values("odd").unwrap(), ["0", "1"]);
    assert_eq!(
        query(&snapshot).with("n", Match::regex("000[12]").unwrap()).tag_values("n").unwrap(),
        ["0001", "0002"]
    );
    let cardinality = query(&snapshot).cardinality(1).unwrap();
    assert_eq!(cardinality.series, 11);
    assert_eq!(cardinality.names, [("wide".to_owned(), 10)]);
    assert_eq!(cardinality.keys, [("n".to_owned(), 10)]);
    assert_eq!((cardinality.pairs[0].value.as_str(), cardinality.pairs[0].series), ("0", 5));
}
