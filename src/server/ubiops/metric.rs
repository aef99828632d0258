//! Metrics as UbiOps describes them: what is sent to create or change one, and what is answered.

use serde::Deserialize;
use serde_json::{Value, json};

use super::time_text;
use crate::error::{Error, Result};
use crate::model::{Metadata, MetricKind, Timestamp};

const NAME_SIZE_MAX: usize = 64;
const DESCRIPTION_SIZE_MAX: usize = 400;
const UNIT_SIZE_MAX: usize = 32;
const LABEL_COUNT_MAX: usize = 128;

/// How values of one period become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum MetricType {
    /// They are averaged.
    Gauge,
    /// They add up, and are read as a rate.
    Delta,
}

impl MetricType {
    /// The word on the wire.
    pub(in crate::server) fn name(self) -> &'static str {
        match self {
            MetricType::Gauge => "gauge",
            MetricType::Delta => "delta",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        match name {
            "gauge" => Ok(MetricType::Gauge),
            "delta" => Ok(MetricType::Delta),
            _ => Err(Error::invalid_input(format!("metric_type {name:?}; there are gauge and delta"))),
        }
    }

    /// The type of a metric whose kind is known; one that nobody described is a gauge.
    pub(in crate::server) fn of(kind: MetricKind) -> Self {
        if kind == MetricKind::Counter { MetricType::Delta } else { MetricType::Gauge }
    }

    fn kind(self) -> MetricKind {
        match self {
            MetricType::Gauge => MetricKind::Gauge,
            MetricType::Delta => MetricKind::Counter,
        }
    }
}

/// The body by which a metric is created, or what of it is changed.
#[derive(Debug, Default, Deserialize, PartialEq)]
pub(in crate::server) struct NewMetric {
    name: Option<String>,
    metric_type: Option<String>,
    description: Option<String>,
    unit: Option<String>,
    labels: Option<Vec<String>>,
}

impl NewMetric {
    /// Reads and checks the body of a creation.
    ///
    /// # Errors
    /// `InvalidInput` naming the field that is missing or wrong.
    pub(in crate::server) fn for_creation(body: &[u8]) -> Result<MetricDetail> {
        let new = Self::read(body)?;
        let name = new.name.clone().ok_or_else(|| Error::invalid_input("name is missing"))?;
        if name.is_empty() || name.chars().count() > NAME_SIZE_MAX {
            return Err(Error::invalid_input(format!("name has between 1 and {NAME_SIZE_MAX} characters")));
        }
        if new.metric_type.is_none() {
            return Err(Error::invalid_input("metric_type is missing"));
        }
        new.change(&MetricDetail::new(&name, &Metadata::default()))
    }

    /// Reads and checks the body of a change to `metric`; what it does not name stays.
    ///
    /// # Errors
    /// `InvalidInput` naming the field that is wrong, or that cannot be changed.
    pub(in crate::server) fn for_change(body: &[u8], metric: &MetricDetail) -> Result<MetricDetail> {
        let new = Self::read(body)?;
        if new.name.as_ref().is_some_and(|name| *name != metric.name) {
            return Err(Error::invalid_input(
                "the name of a metric cannot be changed: it is part of its series",
            ));
        }
        new.change(metric)
    }

    fn read(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body)
            .map_err(|error| Error::invalid_input(format!("Invalid request body: {error}")))
    }

    fn change(self, metric: &MetricDetail) -> Result<MetricDetail> {
        let mut changed = metric.clone();
        if let Some(name) = self.metric_type {
            changed.metric_type = MetricType::from_name(&name)?;
        }
        if let Some(description) = self.description {
            changed.description = limited("description", description, DESCRIPTION_SIZE_MAX)?;
        }
        if let Some(unit) = self.unit {
            changed.unit = limited("unit", unit, UNIT_SIZE_MAX)?;
        }
        if let Some(labels) = self.labels {
            if labels.len() > LABEL_COUNT_MAX {
                return Err(Error::invalid_input(format!("more than {LABEL_COUNT_MAX} labels")));
            }
            changed.labels = labels;
        }
        Ok(changed)
    }
}

fn limited(field: &str, text: String, size_max: usize) -> Result<String> {
    if text.chars().count() > size_max {
        return Err(Error::invalid_input(format!("{field} has more than {size_max} characters")));
    }
    Ok(text)
}

/// A metric as it is answered.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::server) struct MetricDetail {
    /// Its name.
    pub(in crate::server) name: String,
    /// How its values are read.
    pub(in crate::server) metric_type: MetricType,
    /// Its description, or nothing.
    pub(in crate::server) description: String,
    /// Its unit, or nothing.
    pub(in crate::server) unit: String,
    /// The keys of its labels.
    pub(in crate::server) labels: Vec<String>,
    /// When it was first and last seen; not known until it is.
    pub(in crate::server) times: (Timestamp, Timestamp),
}

impl MetricDetail {
    /// What is known of the metric `name`.
    pub(in crate::server) fn new(name: &str, metadata: &Metadata) -> Self {
        MetricDetail {
            name: name.to_owned(),
            metric_type: MetricType::of(metadata.kind),
            description: metadata.help.clone(),
            unit: metadata.unit.clone(),
            labels: Vec::new(),
            times: (Timestamp::default(), Timestamp::default()),
        }
    }

    /// What is stored of it.
    pub(in crate::server) fn metadata(&self) -> Metadata {
        Metadata { kind: self.metric_type.kind(), unit: self.unit.clone(), help: self.description.clone() }
    }

    /// As it is kept: what is answered, with the times in nanoseconds.
    pub(in crate::server) fn to_event(&self) -> Value {
        let mut event = self.to_json(0);
        event["times"] = json!([self.times.0.nanos(), self.times.1.nanos()]);
        event
    }

    /// Reads back what [`MetricDetail::to_event`] gave; `None` for anything else.
    pub(in crate::server) fn from_event(bytes: &[u8]) -> Option<Self> {
        let event: Value = serde_json::from_slice(bytes).ok()?;
        let text = |key: &str| event.get(key)?.as_str().map(str::to_owned);
        let time = |index: usize| event.get("times")?.get(index)?.as_i64().map(Timestamp::from_nanos);
        let labels =
            event.get("labels")?.as_array()?.iter().filter_map(|label| label.as_str().map(str::to_owned));
        Some(MetricDetail {
            name: text("name")?,
            metric_type: MetricType::from_name(&text("metric_type")?).ok()?,
            description: text("description")?,
            unit: text("unit")?,
            labels: labels.collect(),
            times: (time(0)?, time(1)?),
        })
    }

    /// The answer with `id`. Every key that the client wants is there.
    pub(in crate::server) fn to_json(&self, id: u64) -> Value {
        json!({
            "id": id,
            "name": self.name,
            "description": self.description,
            "creation_date": time_text(self.times.0),
            "last_updated": time_text(self.times.1),
            "custom": true,
            "metric_type": self.metric_type.name(),
            "unit": self.unit,
            "labels": self.labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_created_and_changed() {
        let body =
            br#"{"name":"custom.m","metric_type":"delta","description":"d","unit":"s","labels":["a"],"x":1}"#;
        let metric = NewMetric::for_creation(body).unwrap();
        assert_eq!(
            metric.metadata(),
            Metadata { kind: MetricKind::Counter, unit: "s".into(), help: "d".into() }
        );
        let json = metric.to_json(7);
        assert_eq!(
            json,
            json!({ "id": 7, "name": "custom.m", "description": "d", "creation_date": "1970-01-01T00:00:00Z",
                "last_updated": "1970-01-01T00:00:00Z", "custom": true, "metric_type": "delta", "unit": "s", "labels": ["a"] })
        );
        let changed = NewMetric::for_change(br#"{"unit":"ms","name":"custom.m"}"#, &metric).unwrap();
        assert_eq!((changed.unit.as_str(), changed.description.as_str()), ("ms", "d"));
        assert!(NewMetric::for_change(br#"{"name":"other"}"#, &metric).is_err());
        let event = changed.to_event().to_string();
        assert_eq!(MetricDetail::from_event(event.as_bytes()), Some(changed));
        assert_eq!(MetricDetail::from_event(b"null"), None);
    }

    #[test]
    fn wrong_metrics_are_named() {
        #[track_caller]
        fn refused(body: &str, reason: &str) {
            let error = NewMetric::for_creation(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        refused("{}", "name is missing");
        refused(r#"{"name":"a"}"#, "metric_type is missing");
        refused(r#"{"name":"","metric_type":"gauge"}"#, "between 1 and 64");
        refused(&format!(r#"{{"name":"{}","metric_type":"gauge"}}"#, "a".repeat(65)), "between 1 and 64");
        refused(r#"{"name":"a","metric_type":"sum"}"#, "gauge and delta");
        let long = format!(r#"{{"name":"a","metric_type":"gauge","unit":"{}"}}"#, "é".repeat(33));
        refused(&long, "unit has more than 32");
        refused("[]", "Invalid request body");
        assert!(NewMetric::for_creation(long.replacen('é', "", 1).as_bytes()).is_ok());
    }
}
