//! Metric lines: `name:value[:value...]|type[|@rate][|#tags][|c:id][|e:data][|card:level][|Tseconds]`.

use std::borrow::Cow;

use super::tags::{Tags, has_style_mark};
use super::{Grammar, Options, Refusal};
use crate::model::Timestamp;
use crate::protocol::label::is_metric_name;
use crate::protocol::number::{parse_float, parse_int};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    /// `c`: adds to a sum; a negative value subtracts.
    Counter,
    /// `g`: the last value counts.
    Gauge,
    /// `ms`: an observed duration in milliseconds.
    Timer,
    /// `h`: an observed value.
    Histogram,
    /// `d`: an observed value, by Datadog aggregated over all hosts.
    Distribution,
    /// `s`: counts distinct values, which need not be numbers.
    Set,
}

impl MetricType {
    fn from_text(text: &str) -> Result<Self, Refusal> {
        Ok(match text {
            "c" => MetricType::Counter,
            "g" => MetricType::Gauge,
            "ms" => MetricType::Timer,
            "h" => MetricType::Histogram,
            "d" => MetricType::Distribution,
            "s" => MetricType::Set,
            "" => return Err(Refusal::MissingType),
            _ => return Err(Refusal::UnknownType),
        })
    }

    /// Whether its values are observations that a histogram or a summary takes.
    pub fn is_observed(self) -> bool {
        matches!(self, MetricType::Timer | MetricType::Histogram | MetricType::Distribution)
    }
}

/// One value of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The value as sent.
    pub value: f64,
    /// Whether it was written with a `+` or `-`: where gauges are relative, one that adds.
    pub signed: bool,
}

/// A metric line. Every value in it was checked, so reading them cannot fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric<'a> {
    /// The name, verbatim; copied only when SignalFx tags stood inside it.
    pub name: Cow<'a, str>,
    /// The type.
    pub metric_type: MetricType,
    /// The value or values as text.
    values: &'a str,
    /// The fraction of the calls that were sent, above 0 and up to 1. A counter stands for `value / rate`, an
    /// observation for `1 / rate` of them; gauges and sets ignore it.
    pub sample_rate: f64,
    /// Its tags.
    pub tags: Tags<'a>,
    /// The time of the value; without it, the time of arrival.
    pub timestamp: Option<Timestamp>,
    /// The container that sent it (`c:`).
    pub container_id: Option<&'a str>,
    /// What the sender's admission controller said of its origin (`e:`).
    pub external_data: Option<&'a str>,
    /// How many tags of origin the sender wants (`card:`).
    pub cardinality: Option<&'a str>,
}

impl<'a> Metric<'a> {
    /// The values in the order sent; none for a set.
    pub fn readings(&self) -> impl Iterator<Item = Reading> + use<'a> {
        let text = if self.metric_type == MetricType::Set { None } else { Some(self.values) };
        text.into_iter().flat_map(|text| text.split(':')).filter_map(|text| {
            let value = parse_float(text.as_bytes())?;
            Some(Reading { value, signed: text.starts_with(['+', '-']) })
        })
    }

    /// The readings' values in base units: timers in seconds, everything else as sent.
    pub fn base_values(&self) -> impl Iterator<Item = f64> + use<'a> {
        let divisor = if self.metric_type == MetricType::Timer { 1000.0 } else { 1.0 };
        self.readings().map(move |reading| reading.value / divisor)
    }

    /// The member that a set gets.
    pub fn set_member(&self) -> Option<&'a str> {
        (self.metric_type == MetricType::Set).then_some(self.values)
    }
}

/// Parses a line that is neither an event nor a service check.
pub(super) fn parse_metric<'a>(line: &'a str, options: &Options) -> Result<Metric<'a>, Refusal> {
    let exporter = options.grammar == Grammar::StatsdExporter;
    let (name, rest) = line.split_once(':').ok_or(Refusal::MissingValue)?;
    if name.is_empty() {
        return Err(Refusal::MissingName);
    }
    let mut fields = rest.split('|');
    let values = fields.next().unwrap_or_default();
    let metric_type = MetricType::from_text(fields.next().ok_or(Refusal::MissingType)?)?;
    let dogstatsd_tags = rest.contains("|#");
    if exporter && dogstatsd_tags && has_style_mark(name) {
        return Err(Refusal::MixedTagStyles);
    }
    check_values(values, metric_type, exporter.then_some(name))?;
    let (name, tags) = options.styles.split_name(name);
    if name.is_empty() {
        return Err(Refusal::MissingName);
    }
    if dogstatsd_tags && !tags.is_empty() {
        return Err(Refusal::MixedTagStyles);
    }
    let mut metric = Metric {
        name,
        metric_type,
        values,
        sample_rate: 1.0,
        tags,
        timestamp: None,
        container_id: None,
        external_data: None,
        cardinality: None,
    };
    for field in fields {
        read_field(&mut metric, field, options)?;
    }
    Ok(metric)
}

/// Checks every value. `exporter_name` is the metric's name under the grammar of statsd_exporter, which
/// has no sets and takes several values only for observations of a plain name.
fn check_values(values: &str, metric_type: MetricType, exporter_name: Option<&str>) -> Result<(), Refusal> {
    if let Some(name) = exporter_name {
        if metric_type == MetricType::Set {
            return Err(Refusal::UnknownType);
        }
        if values.contains(':') && !(metric_type.is_observed() && is_metric_name(name)) {
            return Err(Refusal::PackedValue);
        }
    }
    let good = match metric_type {
        MetricType::Set => !values.is_empty(),
        _ => values.split(':').all(|value| parse_float(value.as_bytes()).is_some()),
    };
    if good { Ok(()) } else { Err(Refusal::BadValue) }
}

/// Reads one field behind the type.
fn read_field<'a>(metric: &mut Metric<'a>, field: &'a str, options: &Options) -> Result<(), Refusal> {
    let exporter = options.grammar == Grammar::StatsdExporter;
    if let Some(rate) = field.strip_prefix('@') {
        let rate = parse_float(rate.as_bytes()).filter(|rate| *rate > 0.0 && *rate <= 1.0);
        match rate {
            // A rate so small that its inverse is infinite weighs nothing that can be added.
            Some(rate) if rate.recip().is_finite() => metric.sample_rate = rate,
            _ if exporter => {}
            _ => return Err(Refusal::BadSampleRate),
        }
    } else if let Some(tags) = field.strip_prefix('#') {
        if options.styles.dogstatsd {
            metric.tags = Tags::dogstatsd(tags, exporter);
        }
    } else if let Some(id) = field.strip_prefix("c:").filter(|id| !id.is_empty()) {
        metric.container_id = Some(id);
    } else if let Some(seconds) = field.strip_prefix('T') {
        match parse_int(seconds.as_bytes()).filter(|seconds| *seconds > 0) {
            Some(seconds) => metric.timestamp = Some(Timestamp::from_secs(seconds)),
            None if exporter => {}
            None => return Err(Refusal::BadTimestamp),
        }
    } else if exporter {
        return Err(Refusal::BadField);
    } else if let Some(data) = field.strip_prefix("e:") {
        metric.external_data = Some(data);
    } else if let Some(level) = field.strip_prefix("card:") {
        metric.cardinality = Some(level);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(line: &str) -> Metric<'_> {
        parse_metric(line, &Options::default()).unwrap_or_else(|refusal| panic!("{line}: {refusal:?}"))
    }

    #[track_caller]
    fn check_refused(line: &str, refusal: Refusal) {
        assert_eq!(parse_metric(line, &Options::default()), Err(refusal), "{line}");
    }

    #[test]
    fn every_field_of_protocol_1_6_is_read() {
        let metric =
            parse("a.b-c d:1:-2.5:3|h|@0.5|#k:v,bare|c:ci-12|e:it-false,cn-x|card:low|T1700000000|z:9");
        assert_eq!(metric.name, "a.b-c d");
        let values: Vec<_> = metric.readings().map(|r| (r.value, r.signed)).collect();
        assert_eq!(values, [(1.0, false), (-2.5, true), (3.0, false)]);
        assert_eq!(metric.sample_rate, 0.5);
        assert_eq!(metric.tags.pairs().collect::<Vec<_>>(), [("k", "v"), ("bare", "true")]);
        assert_eq!(metric.container_id, Some("ci-12"));
        assert_eq!(metric.external_data, Some("it-false,cn-x"));
        assert_eq!(metric.cardinality, Some("low"));
        assert_eq!(metric.timestamp, Some(Timestamp::from_secs(1_700_000_000)));
    }

    #[test]
    fn timers_are_seconds_in_base_units() {
        assert_eq!(parse("t:250:5|ms").base_values().collect::<Vec<_>>(), [0.25, 0.005]);
        assert_eq!(parse("t:250|h").base_values().collect::<Vec<_>>(), [250.0]);
    }

    #[test]
    fn values_that_are_not_finite_are_values() {
        assert!(parse("g:nan|g").readings().next().unwrap().value.is_nan());
        assert_eq!(parse("g:-inf|g").readings().next().unwrap().value, f64::NEG_INFINITY);
    }

    #[test]
    fn sets_take_any_text() {
        let metric = parse("users:user one:x|s|#a:b");
        assert_eq!(metric.set_member(), Some("user one:x"));
        assert_eq!(metric.readings().count(), 0);
        check_refused("users:|s", Refusal::BadValue);
    }

    #[test]
    fn bad_parts_name_their_reason() {
        check_refused("a:|c", Refusal::BadValue);
        check_refused("a:1:|c", Refusal::BadValue);
        check_refused("a:1:x:3|c", Refusal::BadValue);
        check_refused("a:1|c|@0", Refusal::BadSampleRate);
        check_refused("a:1|c|@1e-320", Refusal::BadSampleRate);
        check_refused("a:1|c|@1.5", Refusal::BadSampleRate);
        check_refused("a:1|c|@nan", Refusal::BadSampleRate);
        check_refused("a:1|c|T", Refusal::BadTimestamp);
        check_refused("a:1|c|T-5", Refusal::BadTimestamp);
        check_refused("a:1|c|T99999999999999999999", Refusal::BadTimestamp);
        check_refused("a:1|", Refusal::MissingType);
        check_refused("a:1|C", Refusal::UnknownType);
    }

    #[test]
    fn unknown_and_empty_fields_are_skipped() {
        assert_eq!(parse("a:1|c||x:1|c:|m:test|#").tags.pairs().count(), 0);
    }

    #[test]
    fn tags_in_two_places_are_refused() {
        let options = Options { styles: super::super::TagStyles::ALL, ..Options::default() };
        assert_eq!(parse_metric("a,b=1:1|c|#c:2", &options), Err(Refusal::MixedTagStyles));
        assert_eq!(parse("a,b=1:1|c|#c:2").name, "a,b=1");
    }
}
