//! The rules of OpenMetrics 1.0 about the samples of a family: which tags and values each kind
//! has ("Metric Types"), and what must hold within a group of one tag set and time.

use std::collections::HashSet;

use super::lex::Parsed;
use super::{Sample, Tag};
use crate::model::{MetricKind, Timestamp};
use crate::protocol::label::{BUCKET_KEY, QUANTILE_KEY};
use crate::protocol::number::parse_float;

/// Checks one sample of family `name` by itself: value, tags and exemplar.
pub(super) fn check_sample(name: &str, kind: MetricKind, sample: &Sample<'_>) -> Parsed<()> {
    let suffix = sample.name.strip_prefix(name).unwrap_or_default();
    let value = sample.value;
    let counted = matches!(suffix, "_total" | "_bucket" | "_count" | "_gcount" | "_sum");
    if (counted || suffix == "_gsum") && value.is_nan() {
        return Err(format!("{:?} is NaN", sample.name));
    }
    if counted && value < 0.0 {
        return Err(format!("{:?} is negative", sample.name));
    }
    let takes_exemplar = matches!(
        (kind, suffix),
        (MetricKind::Counter, "_total") | (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket")
    );
    if sample.exemplar.is_some() && !takes_exemplar {
        return Err(format!("{:?} cannot have an exemplar", sample.name));
    }
    match (kind, suffix) {
        (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket") => bucket_bound(sample).map(|_| ()),
        (MetricKind::Summary, "") => check_quantile(sample),
        (MetricKind::Info, _) if value != 1.0 => Err(format!("info {name:?} is not 1")),
        (MetricKind::StateSet, _) if value != 0.0 && value != 1.0 => {
            Err(format!("state {name:?} is neither 0 nor 1"))
        }
        (MetricKind::StateSet, _) if sample.tag(name).is_none() => {
            Err(format!("state {name:?} has no such label"))
        }
        _ => Ok(()),
    }
}

/// The upper bound of a bucket. Infinity is spelled `+Inf`.
fn bucket_bound(sample: &Sample<'_>) -> Parsed<f64> {
    let text = sample.tag(BUCKET_KEY).unwrap_or_default();
    let bound = parse_float(text.as_bytes());
    let good = bound.filter(|bound| bound.is_finite() || text == "+Inf");
    good.ok_or_else(|| format!("{:?} has no valid le label", sample.name))
}

fn check_quantile(sample: &Sample<'_>) -> Parsed<()> {
    let quantile = sample.tag(QUANTILE_KEY).and_then(|text| parse_float(text.as_bytes()));
    if !quantile.is_some_and(|quantile| (0.0..=1.0).contains(&quantile)) {
        return Err(format!("{:?} has no quantile label from 0 to 1", sample.name));
    }
    if sample.value < 0.0 {
        return Err(format!("a quantile of {:?} is negative", sample.name));
    }
    Ok(())
}

/// A tag set in order of the keys.
type TagSet<'a> = Vec<Tag<'a>>;

/// The groups of a family: samples of one tag set, without the tags that tell samples of a group apart.
#[derive(Default)]
pub(super) struct Groups<'a> {
    current: Option<Group<'a>>,
    done: HashSet<TagSet<'a>>,
}

struct Group<'a> {
    tags: TagSet<'a>,
    timestamp: Option<Timestamp>,
    histogram: Option<Histogram>,
}

impl<'a> Groups<'a> {
    /// Adds a sample: groups stand together, and times within one do not go back.
    pub(super) fn add(&mut self, name: &str, kind: MetricKind, sample: &Sample<'a>) -> Parsed<()> {
        let tags = group_tags(name, kind, sample);
        match &mut self.current {
            Some(group) if group.tags == tags => {
                if kind != MetricKind::Info {
                    check_time(group.timestamp, sample)?;
                }
                if group.timestamp != sample.timestamp {
                    group.timestamp = sample.timestamp;
                    if let Some(histogram) = &mut group.histogram {
                        std::mem::take(histogram).check()?;
                    }
                }
            }
            _ => {
                self.finish()?;
                if self.done.contains(&tags) {
                    return Err(format!("samples of one label set of {name:?} do not stand together"));
                }
                let is_histogram = matches!(kind, MetricKind::Histogram | MetricKind::GaugeHistogram);
                let histogram = is_histogram.then(Histogram::default);
                self.current = Some(Group { tags, timestamp: sample.timestamp, histogram });
            }
        }
        if let Some(histogram) = self.current.as_mut().and_then(|group| group.histogram.as_mut()) {
            histogram.add(sample.name.strip_prefix(name).unwrap_or_default(), sample)?;
        }
        Ok(())
    }

    /// Ends the last group.
    pub(super) fn finish(&mut self) -> Parsed<()> {
        let Some(group) = self.current.take() else { return Ok(()) };
        if let Some(histogram) = group.histogram {
            histogram.check()?;
        }
        self.done.insert(group.tags);
        Ok(())
    }
}

fn check_time(before: Option<Timestamp>, sample: &Sample<'_>) -> Parsed<()> {
    match (before, sample.timestamp) {
        (None, None) => Ok(()),
        (Some(before), Some(now)) if before <= now => Ok(()),
        (Some(_), Some(_)) => Err(format!("times of {:?} go back within a group", sample.name)),
        _ => Err(format!("{:?} has a time only sometimes within a group", sample.name)),
    }
}

/// The tags that samples of one group share. All of an info family is one group.
fn group_tags<'a>(name: &str, kind: MetricKind, sample: &Sample<'a>) -> TagSet<'a> {
    let own = match kind {
        MetricKind::Info => return Vec::new(),
        MetricKind::Summary if sample.name == name => QUANTILE_KEY,
        MetricKind::Histogram | MetricKind::GaugeHistogram if sample.name.ends_with("_bucket") => BUCKET_KEY,
        MetricKind::StateSet => name,
        _ => "",
    };
    let shared = sample.tags.iter().filter(|(key, value)| key != own && !value.is_empty());
    let mut tags: TagSet<'a> = shared.cloned().collect();
    tags.sort_unstable();
    tags
}

/// One histogram at one time.
#[derive(Default)]
struct Histogram {
    /// Upper bound and count of the last bucket.
    bucket: Option<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
    gauge_sum: Option<f64>,
    negative_buckets: bool,
}

impl Histogram {
    fn add(&mut self, suffix: &str, sample: &Sample<'_>) -> Parsed<()> {
        match suffix {
            "_bucket" => {
                let bound = bucket_bound(sample)?;
                if self.bucket.is_some_and(|(last, _)| bound <= last) {
                    return Err(format!("buckets of {:?} are out of order", sample.name));
                }
                if self.bucket.is_some_and(|(_, count)| sample.value < count) {
                    return Err(format!("counts of {:?} are not cumulative", sample.name));
                }
                self.negative_buckets |= bound < 0.0;
                self.bucket = Some((bound, sample.value));
            }
            "_count" | "_gcount" => self.count = Some(sample.value),
            "_sum" => self.sum = Some(sample.value),
            "_gsum" => self.gauge_sum = Some(sample.value),
            _ => {}
        }
        Ok(())
    }

    /// Checks the whole, once its last sample is there.
    fn check(&self) -> Parsed<()> {
        let Some((_, total)) = self.bucket.filter(|(bound, _)| *bound == f64::INFINITY) else {
            return Err("the +Inf bucket of a histogram is missing".to_owned());
        };
        let has_sum = self.sum.is_some() || self.gauge_sum.is_some();
        let broken = if self.count.is_some_and(|count| count != total) {
            "the count of a histogram is not that of its +Inf bucket"
        } else if has_sum != self.count.is_some() {
            "a histogram has only one of sum and count"
        } else if self.negative_buckets && self.sum.is_some() {
            "a histogram has a sum and negative buckets"
        } else if !self.negative_buckets && self.gauge_sum.is_some_and(|sum| sum < 0.0) {
            "a histogram has a negative sum without negative buckets"
        } else {
            return Ok(());
        };
        Err(broken.to_owned())
    }
}
