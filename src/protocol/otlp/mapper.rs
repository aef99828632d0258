//! Data points to points of series: the one mapping that both forms of OTLP share.

use std::borrow::Cow;

use super::{BUCKET_COUNT_MAX, Outcome, Point, PointValue, Sink};
use crate::error::{Error, Result};
use crate::model::{Metadata, MetricKind, Timestamp};
use crate::protocol::label::{BUCKET_KEY, QUANTILE_KEY};
use crate::protocol::number::push_float_dotted;

/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
const NO_RECORDED_VALUE: u64 = 1;
const SCOPE_NAME_KEY: &str = "otel_scope_name";
const SCOPE_VERSION_KEY: &str = "otel_scope_version";

pub(super) type Attributes<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Name, version and attributes of an instrumentation scope.
#[derive(Default)]
pub(super) struct Scope<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) version: Cow<'a, str>,
    pub(super) attributes: Attributes<'a>,
}

/// What the points of a metric have in common.
pub(super) struct Metric<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) unit: &'a str,
    pub(super) data: DataKind,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum DataKind {
    Gauge,
    Sum {
        temporality: Temporality,
        monotonic: bool,
    },
    Histogram {
        temporality: Temporality,
    },
    ExponentialHistogram,
    Summary,
    /// A kind that is newer than this mapping, or none.
    Unknown,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Temporality {
    Unspecified,
    Delta,
    Cumulative,
}

impl Temporality {
    pub(super) fn from_number(number: u64) -> Self {
        match number {
            1 => Temporality::Delta,
            2 => Temporality::Cumulative,
            _ => Temporality::Unspecified,
        }
    }
}

/// One data point of any kind.
#[derive(Default)]
pub(super) struct DataPoint<'a> {
    pub(super) attributes: Attributes<'a>,
    pub(super) start: u64,
    pub(super) time: u64,
    pub(super) flags: u64,
    pub(super) body: Body,
}

#[derive(Default)]
pub(super) enum Body {
    #[default]
    Missing,
    Double(f64),
    Int(i64),
    Histogram {
        count: u64,
        sum: Option<f64>,
        bucket_counts: Vec<u64>,
        bounds: Vec<f64>,
    },
    Summary {
        count: u64,
        sum: f64,
        quantiles: Vec<(f64, f64)>,
    },
}

pub(super) struct Mapper<'a, 's> {
    sink: &'s mut dyn Sink,
    now: Timestamp,
    /// Tags of resource and scope.
    base: Attributes<'a>,
    /// Why the points of the current resource and scope are refused, if they are.
    refusal: Option<String>,
    pub(super) outcome: Outcome,
}

impl<'a, 's> Mapper<'a, 's> {
    pub(super) fn new(sink: &'s mut dyn Sink, now: Timestamp) -> Self {
        Mapper { sink, now, base: Vec::new(), refusal: None, outcome: Outcome::default() }
    }

    /// Begins the metrics of one scope of one resource. If either cannot be read, all points in it are rejected.
    pub(super) fn begin(&mut self, resource: &Result<Attributes<'a>>, scope: Result<Scope<'a>>) {
        self.base.clear();
        self.refusal = None;
        match (resource, scope) {
            (Ok(resource), Ok(scope)) => {
                self.base.extend(resource.iter().cloned());
                self.base.push((Cow::Borrowed(SCOPE_NAME_KEY), scope.name));
                self.base.push((Cow::Borrowed(SCOPE_VERSION_KEY), scope.version));
                self.base.extend(scope.attributes);
            }
            (Err(error), _) => self.refusal = Some(format!("resource: {error}")),
            (_, Err(error)) => self.refusal = Some(format!("scope: {error}")),
        }
    }

    /// Begins the points of a metric.
    pub(super) fn metric(&mut self, metric: &Metric<'_>) {
        let kind = match metric.data {
            DataKind::Gauge => MetricKind::Gauge,
            DataKind::Sum { monotonic: true, .. } => MetricKind::Counter,
            DataKind::Sum { monotonic: false, .. } => MetricKind::Gauge,
            DataKind::Histogram { .. } => MetricKind::Histogram,
            DataKind::Summary => MetricKind::Summary,
            DataKind::ExponentialHistogram | DataKind::Unknown => return,
        };
        if !metric.name.is_empty() {
            let metadata =
                Metadata { kind, unit: metric.unit.to_owned(), help: metric.description.to_owned() };
            self.sink.metadata(metric.name, metadata);
        }
    }

    /// Takes one data point of `metric`, or says why it is rejected.
    pub(super) fn point(&mut self, metric: &Metric<'_>, point: Result<DataPoint<'a>>) {
        let taken = match &self.refusal {
            Some(reason) => Err(Error::invalid_input(reason.clone())),
            None => point.and_then(|point| self.put(metric, point)),
        };
        match taken {
            Ok(()) => self.outcome.accepted += 1,
            Err(error) => {
                self.outcome.rejected += 1;
                if self.outcome.reason.is_empty() {
                    self.outcome.reason = format!("metric {:?}: {error}", metric.name);
                }
            }
        }
    }

    fn put(&mut self, metric: &Metric<'_>, point: DataPoint<'a>) -> Result<()> {
        let delta = is_delta(metric)?;
        let time = self.time(point.time)?;
        let start = (point.start != 0).then(|| i64::try_from(point.start).ok()).flatten();
        let mut series = SeriesPoints {
            sink: &mut *self.sink,
            stale: point.flags & NO_RECORDED_VALUE != 0,
            tags: merge(&self.base, point.attributes),
            time,
            start: start.map(Timestamp::from_nanos),
            delta,
        };
        match (metric.data, point.body) {
            (DataKind::Gauge | DataKind::Sum { .. }, Body::Double(value)) => {
                series.put(metric.name, PointValue::F64(value))
            }
            (DataKind::Gauge | DataKind::Sum { .. }, Body::Int(value)) => {
                series.put(metric.name, PointValue::I64(value))
            }
            (DataKind::Gauge | DataKind::Sum { .. }, Body::Missing) if series.stale => {
                series.put(metric.name, PointValue::Stale)
            }
            (DataKind::Histogram { .. }, Body::Histogram { count, sum, bucket_counts, bounds }) => {
                series.put_histogram(metric.name, Histogram { count, sum, bucket_counts, bounds })
            }
            (DataKind::Summary, Body::Summary { count, sum, quantiles }) => {
                series.put_summary(metric.name, Summary { count, sum, quantiles })
            }
            _ => Err(Error::invalid_input("the point has no value")),
        }
    }

    fn time(&self, nanos: u64) -> Result<Timestamp> {
        if nanos == 0 {
            return Ok(self.now);
        }
        let nanos = i64::try_from(nanos);
        nanos.map(Timestamp::from_nanos).map_err(|_| Error::invalid_input("the time is after the year 2262"))
    }
}

fn is_delta(metric: &Metric<'_>) -> Result<bool> {
    let temporality = match metric.data {
        _ if metric.name.is_empty() => return Err(Error::invalid_input("the metric has no name")),
        DataKind::Gauge | DataKind::Summary => return Ok(false),
        DataKind::Sum { temporality, .. } | DataKind::Histogram { temporality } => temporality,
        DataKind::ExponentialHistogram => {
            return Err(Error::invalid_input(
                "exponential histograms are not stored yet; choose explicit bucket histograms in the SDK's view",
            ));
        }
        DataKind::Unknown => return Err(Error::invalid_input("the metric has no data of a known kind")),
    };
    match temporality {
        Temporality::Delta => Ok(true),
        Temporality::Cumulative => Ok(false),
        Temporality::Unspecified => Err(Error::invalid_input("the aggregation temporality is not given")),
    }
}

/// Tags of a point: the later of one key wins, the empty ones go.
fn merge<'a>(base: &Attributes<'a>, own: Attributes<'a>) -> Attributes<'a> {
    let mut tags = base.clone();
    tags.extend(own);
    tags.sort_by(|a, b| a.0.cmp(&b.0));
    // `dedup_by` keeps the first of equal keys, so the values change places before.
    tags.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    tags.retain(|(_, value)| !value.is_empty());
    tags
}

struct Histogram {
    count: u64,
    sum: Option<f64>,
    bucket_counts: Vec<u64>,
    bounds: Vec<f64>,
}

struct Summary {
    count: u64,
    sum: f64,
    quantiles: Vec<(f64, f64)>,
}

/// The series of one data point.
struct SeriesPoints<'a, 'p> {
    sink: &'p mut dyn Sink,
    stale: bool,
    tags: Attributes<'a>,
    time: Timestamp,
    start: Option<Timestamp>,
    delta: bool,
}

impl SeriesPoints<'_, '_> {
    fn put(&mut self, name: &str, value: PointValue) -> Result<()> {
        let value = if self.stale { PointValue::Stale } else { value };
        let SeriesPoints { time, start, delta, .. } = *self;
        self.sink.point(Point { name, tags: &self.tags, time, start, value, delta })
    }

    /// Puts `value` into the series that has the tag `key` besides, which replaces the point's own of that key.
    fn put_tagged(&mut self, name: &str, (key, bound): (&'static str, f64), value: f64) -> Result<()> {
        let mut text = String::new();
        push_float_dotted(&mut text, bound);
        let at = self.tags.binary_search_by(|(k, _)| k.as_ref().cmp(key));
        let tag = (Cow::Borrowed(key), Cow::Owned(text));
        match at {
            Ok(at) => self.tags[at] = tag,
            Err(at) => self.tags.insert(at, tag),
        }
        self.put(name, PointValue::F64(value))
    }

    fn remove_tag(&mut self, key: &str) {
        self.tags.retain(|(k, _)| k != key);
    }

    fn put_histogram(&mut self, name: &str, histogram: Histogram) -> Result<()> {
        let Histogram { count, sum, bucket_counts, bounds } = histogram;
        check_buckets(&bucket_counts, &bounds)?;
        let bucket_name = format!("{name}_bucket");
        let mut cumulative = 0u64;
        for (bound, bucket) in bounds.iter().chain([&f64::INFINITY]).zip(&bucket_counts) {
            cumulative = cumulative.saturating_add(*bucket);
            self.put_tagged(&bucket_name, (BUCKET_KEY, *bound), cumulative as f64)?;
        }
        if bucket_counts.is_empty() {
            self.put_tagged(&bucket_name, (BUCKET_KEY, f64::INFINITY), count as f64)?;
        }
        self.remove_tag(BUCKET_KEY);
        if let Some(sum) = sum {
            self.put(&format!("{name}_sum"), PointValue::F64(sum))?;
        }
        self.put(&format!("{name}_count"), PointValue::F64(count as f64))
    }

    fn put_summary(&mut self, name: &str, summary: Summary) -> Result<()> {
        if summary.quantiles.len() > BUCKET_COUNT_MAX {
            return Err(Error::invalid_input(format!(
                "a summary with more than {BUCKET_COUNT_MAX} quantiles"
            )));
        }
        for (quantile, value) in &summary.quantiles {
            self.put_tagged(name, (QUANTILE_KEY, *quantile), *value)?;
        }
        self.remove_tag(QUANTILE_KEY);
        self.put(&format!("{name}_sum"), PointValue::F64(summary.sum))?;
        self.put(&format!("{name}_count"), PointValue::F64(summary.count as f64))
    }
}

/// One more count than bounds, or neither; bounds rise.
fn check_buckets(counts: &[u64], bounds: &[f64]) -> Result<()> {
    if counts.len() > BUCKET_COUNT_MAX {
        return Err(Error::invalid_input(format!("a histogram with more than {BUCKET_COUNT_MAX} buckets")));
    }
    if counts.len() != bounds.len() + 1 && !(counts.is_empty() && bounds.is_empty()) {
        return Err(Error::invalid_input(format!(
            "a histogram with {} bucket counts for {} bounds",
            counts.len(),
            bounds.len()
        )));
    }
    if !bounds.is_sorted_by(|a, b| a < b) || bounds.last().is_some_and(|last| !last.is_finite()) {
        return Err(Error::invalid_input("the bounds of a histogram do not rise"));
    }
    Ok(())
}
