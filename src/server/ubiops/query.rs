//! Queries of the UbiOps API and their answers: series that match, and values by period.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::metric::{MetricDetail, MetricType};
use super::{PROJECT_KEY, time, time_text};
use crate::error::{Error, Result};
use crate::model::{SeriesKey, Timestamp};

/// The periods that values can be asked by, in seconds.
const PERIODS: [u64; 7] = [60, 300, 900, 3600, 7200, 21_600, 86_400];
/// The units that a rate can be asked in, in seconds.
const UNIT_PERIODS: [u64; 4] = [1, 60, 3600, 86_400];
const LIMIT_DEFAULT: usize = 500;
/// Most periods of one answer.
const PERIOD_COUNT_MAX: i64 = 100_000;

/// `GET time-series/data`.
#[derive(Debug, PartialEq)]
pub(in crate::server) struct DataQuery {
    /// The metric.
    pub(in crate::server) metric: String,
    /// Labels that the series must have.
    pub(in crate::server) labels: BTreeMap<String, String>,
    /// The start of the first period.
    pub(in crate::server) start: Timestamp,
    /// The end of the last.
    pub(in crate::server) end: Timestamp,
    /// The length of a period, in seconds.
    pub(in crate::server) period: u64,
    /// In what unit of seconds the rate of a delta metric is given.
    pub(in crate::server) unit_period: u64,
}

/// `GET time-series/search`.
#[derive(Debug, PartialEq)]
pub(in crate::server) struct SearchQuery {
    /// The metric, if only its series are wanted.
    pub(in crate::server) metric: Option<String>,
    /// Labels that the series must have.
    pub(in crate::server) labels: BTreeMap<String, String>,
    /// Whether the series must have no other labels.
    pub(in crate::server) exact_match: bool,
    /// How many are wanted.
    pub(in crate::server) limit: usize,
    /// How many are skipped.
    pub(in crate::server) offset: usize,
}

/// What one period holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::server) struct Aggregate {
    /// The start of the period.
    pub(in crate::server) start: Timestamp,
    /// How many values.
    pub(in crate::server) count: u64,
    /// Their sum.
    pub(in crate::server) sum: f64,
}

impl DataQuery {
    /// From the pairs of a query string, decoded.
    ///
    /// # Errors
    /// `InvalidInput` naming the parameter that is missing or wrong.
    pub(in crate::server) fn parse(pairs: &[(String, String)]) -> Result<Self> {
        let metric = needed(pairs, "metric")?.to_owned();
        let start = time(needed(pairs, "start_date")?)?;
        let end = time(needed(pairs, "end_date")?)?;
        let period = one_of(pairs, "aggregation_period", &PERIODS)?;
        let unit_period = one_of(pairs, "unit_period", &UNIT_PERIODS)?;
        let (start, end) = widen(start, end, period)?;
        Ok(DataQuery { metric, labels: labels(pairs)?, start, end, period, unit_period })
    }

    /// The answer: the periods that hold something, in order.
    pub(in crate::server) fn to_json(&self, metric: &MetricDetail, periods: &[Aggregate]) -> Value {
        let step = nanos(self.period);
        let points: Vec<Value> = periods
            .iter()
            .filter_map(|period| {
                let value = period_value(metric.metric_type, period, self.period, self.unit_period)?;
                let end = period.start.saturating_add(step);
                Some(json!({ "start_date": time_text(period.start), "end_date": time_text(end), "value": value }))
            })
            .collect();
        json!({
            "metric": self.metric,
            "metric_type": metric.metric_type.name(),
            "unit": metric.unit,
            "start_date": time_text(self.start),
            "end_date": time_text(self.end),
            "aggregation_period": self.period,
            "labels": self.labels,
            "data_points": points,
        })
    }
}

/// The value of a period: the mean of a gauge, the rate of a delta. `None` when it holds nothing, or what JSON cannot
/// say: the client takes no null.
pub(in crate::server) fn period_value(
    metric_type: MetricType,
    aggregate: &Aggregate,
    period: u64,
    unit_period: u64,
) -> Option<f64> {
    if aggregate.count == 0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss, reason = "counts and seconds are far below 2^53")]
    let value = match metric_type {
        MetricType::Gauge => aggregate.sum / aggregate.count as f64,
        MetricType::Delta => aggregate.sum * unit_period as f64 / period as f64,
    };
    value.is_finite().then_some(value)
}

impl SearchQuery {
    /// From the pairs of a query string, decoded.
    ///
    /// # Errors
    /// `InvalidInput` naming the parameter that is wrong.
    pub(in crate::server) fn parse(pairs: &[(String, String)]) -> Result<Self> {
        let number = |key: &str, default: usize| match get(pairs, key) {
            None => Ok(default),
            Some(text) => {
                text.parse().map_err(|_| Error::invalid_input(format!("{key} {text:?} is no count")))
            }
        };
        Ok(SearchQuery {
            metric: get(pairs, "metric").map(str::to_owned),
            labels: labels(pairs)?,
            exact_match: get(pairs, "exact_match").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            limit: number("limit", LIMIT_DEFAULT)?,
            offset: number("offset", 0)?,
        })
    }

    /// Whether the series `key` is one that is searched for.
    pub(in crate::server) fn matches(&self, key: &SeriesKey) -> bool {
        self.metric.as_ref().is_none_or(|metric| metric == key.name())
            && self.labels.iter().all(|(label, value)| key.tag(label) == value)
            && (!self.exact_match || own_labels(key).count() == self.labels.len())
    }
}

/// One series as a search answers it. It has no resolution, for nothing here is thinned out.
pub(in crate::server) fn series_json(key: &SeriesKey) -> Value {
    let labels: BTreeMap<&str, &str> = own_labels(key).collect();
    json!({ "id": series_id(key), "metric": key.name(), "labels": labels })
}

/// The number of a series: a hash of its key, so that it is the same at any time and in any process, below 2^53, so that
/// every JSON reader keeps it.
pub(in crate::server) fn series_id(key: &SeriesKey) -> u64 {
    // FNV-1a: short, spread well enough for identifiers that nobody attacks.
    let hash = key.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ hash >> 53) & ((1 << 53) - 1)
}

fn own_labels(key: &SeriesKey) -> impl Iterator<Item = (&str, &str)> {
    key.tags().filter(|(label, _)| *label != PROJECT_KEY)
}

/// The parameter `labels`, `k:v,k2:v2`; the first colon splits.
fn labels(pairs: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let text = get(pairs, "labels").unwrap_or_default();
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair
                .split_once(':')
                .ok_or_else(|| Error::invalid_input(format!("labels: {pair:?} is not key:value")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn get<'p>(pairs: &'p [(String, String)], key: &str) -> Option<&'p str> {
    pairs
        .iter()
        .find(|(own, _)| own == key)
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn needed<'p>(pairs: &'p [(String, String)], key: &str) -> Result<&'p str> {
    get(pairs, key).ok_or_else(|| Error::invalid_input(format!("{key} is missing")))
}

/// A number of seconds out of `allowed`, whose first is the default.
fn one_of(pairs: &[(String, String)], key: &str, allowed: &[u64]) -> Result<u64> {
    let Some(text) = get(pairs, key) else { return Ok(allowed.first().copied().unwrap_or(1)) };
    let found = text.parse().ok().filter(|seconds| allowed.contains(seconds));
    found.ok_or_else(|| Error::invalid_input(format!("{key} {text:?}; there are {allowed:?}")))
}

/// The start rounded down and the end up to whole periods.
fn widen(start: Timestamp, end: Timestamp, period: u64) -> Result<(Timestamp, Timestamp)> {
    let step = nanos(period);
    if end < start {
        return Err(Error::invalid_input("end_date is before start_date"));
    }
    let first = start.nanos().div_euclid(step);
    let last = end.nanos().div_euclid(step) + i64::from(end.nanos().rem_euclid(step) > 0);
    if last - first > PERIOD_COUNT_MAX {
        return Err(Error::invalid_input(format!("more than {PERIOD_COUNT_MAX} periods are asked for")));
    }
    let at = |index: i64| Timestamp::from_nanos(index.saturating_mul(step));
    Ok((at(first), at(last)))
}

fn nanos(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, MetricKind};

    fn pairs(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    const DATES: [(&str, &str); 3] =
        [("metric", "m"), ("start_date", "2026-11-20T23:52:16Z"), ("end_date", "2026-11-20T23:54:00Z")];

    fn query(more: &[(&str, &str)]) -> Result<DataQuery> {
        DataQuery::parse(&pairs(&[&DATES[..], more].concat()))
    }

    #[test]
    fn periods_are_whole() {
        let query = query(&[("labels", "a:b:c,d:e"), ("unit_period", "60")]).unwrap();
        assert_eq!(time_text(query.start), "2026-11-20T23:52:00Z");
        assert_eq!(time_text(query.end), "2026-11-20T23:54:00Z");
        assert_eq!((query.period, query.unit_period), (60, 60));
        assert_eq!(query.labels, BTreeMap::from([("a".into(), "b:c".into()), ("d".into(), "e".into())]));
    }

    #[test]
    fn answers_hold_data_points_and_leave_gaps_out() {
        let query = query(&[("unit_period", "3600")]).unwrap();
        let at = |minute: i64, count, sum| Aggregate {
            start: query.start.saturating_add(nanos(60) * minute),
            count,
            sum,
        };
        let periods = [at(0, 4, 6.0), at(1, 0, 0.0), at(1, 1, f64::NAN)];
        let gauge = MetricDetail::new("m", &Metadata { unit: "s".into(), ..Metadata::default() });
        let answer = query.to_json(&gauge, &periods);
        let expected = json!([{ "start_date": "2026-11-20T23:52:00Z", "end_date": "2026-11-20T23:53:00Z", "value": 1.5 }]);
        assert_eq!(answer["data_points"], expected);
        assert_eq!((&answer["metric_type"], &answer["unit"]), (&json!("gauge"), &json!("s")));
        let delta = MetricDetail::new("m", &Metadata { kind: MetricKind::Counter, ..Metadata::default() });
        assert_eq!(query.to_json(&delta, &periods)["data_points"][0]["value"], 360.0);
    }

    #[test]
    fn wrong_queries_are_named() {
        #[track_caller]
        fn refused(more: &[(&str, &str)], reason: &str) {
            let error = query(more).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        refused(&[("aggregation_period", "61")], "aggregation_period \"61\"");
        refused(&[("labels", "a")], "not key:value");
        let missing = DataQuery::parse(&pairs(&DATES[1..])).unwrap_err();
        assert!(missing.to_string().contains("metric is missing"));
        let swapped = [("metric", "m"), ("start_date", DATES[2].1), ("end_date", DATES[1].1)];
        assert!(DataQuery::parse(&pairs(&swapped)).is_err());
        let long = [("metric", "m"), ("start_date", "1970-01-01T00:00:00Z"), ("end_date", DATES[1].1)];
        assert!(
            DataQuery::parse(&pairs(&long)).unwrap_err().to_string().contains("more than 100000 periods")
        );
    }

    #[test]
    fn searches_match_series() {
        let key = SeriesKey::new("m", [("project", "p"), ("a", "1"), ("b", "2")]).unwrap();
        let search = |text: &[(&str, &str)]| SearchQuery::parse(&pairs(text)).unwrap();
        assert!(search(&[]).matches(&key));
        assert!(search(&[("metric", "m"), ("labels", "a:1")]).matches(&key));
        assert!(!search(&[("labels", "a:2")]).matches(&key));
        assert!(!search(&[("labels", "a:1"), ("exact_match", "True")]).matches(&key));
        assert!(search(&[("labels", "a:1,b:2"), ("exact_match", "True")]).matches(&key));
        assert_eq!(search(&[]).limit, 500);
        assert!(SearchQuery::parse(&pairs(&[("limit", "-1")])).is_err());
        let json = series_json(&key);
        assert_eq!(json["labels"], json!({ "a": "1", "b": "2" }));
        assert!(json["id"].as_u64().unwrap() < 1 << 53);
        assert_ne!(series_id(&key), series_id(&SeriesKey::new("m", [("project", "p")]).unwrap()));
    }
}
