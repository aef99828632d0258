//! One measurement of a session, with everything that can be said of it.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::ingest::session::RESERVED_NAMES;
use crate::ingest::session::tags::SessionTag;
use crate::model::{NAME_SIZE_MAX, Timestamp};

/// What a session's metric measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionMetricKind {
    /// A present state.
    #[default]
    Gauge,
    /// A total so far.
    Counter,
    /// One of many observations.
    Histogram,
    /// A duration, of `count` things.
    Timer,
}

impl SessionMetricKind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            SessionMetricKind::Gauge => "gauge",
            SessionMetricKind::Counter => "counter",
            SessionMetricKind::Histogram => "histogram",
            SessionMetricKind::Timer => "timer",
        }
    }

    /// The kind that `name` is the word for.
    pub fn from_name(name: &str) -> Option<Self> {
        use SessionMetricKind::{Counter, Gauge, Histogram, Timer};
        [Gauge, Counter, Histogram, Timer].into_iter().find(|kind| kind.name() == name)
    }
}

/// A measurement of a session.
///
/// ```
/// use icecore::ingest::SessionMetric;
///
/// let metric = SessionMetric::timer("process_items", 5.2).count(3).unit("seconds").tags(["batch:7"]);
/// assert_eq!(metric.count, Some(3));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SessionMetric {
    /// The metric's name, any UTF-8.
    pub name: String,
    /// The value, a finite number.
    pub value: f64,
    /// What it measures.
    pub kind: SessionMetricKind,
    /// Its tags, in the order given.
    pub tags: Vec<SessionTag<'static>>,
    /// Of how many things the value is.
    pub count: Option<u64>,
    /// The unit of the value.
    pub unit: Option<String>,
    /// Anything else.
    pub metadata: Option<Value>,
    /// When it was measured, if not now.
    pub time: Option<Timestamp>,
}

impl SessionMetric {
    /// A present state.
    pub fn gauge(name: &str, value: impl Into<f64>) -> Self {
        Self::new(SessionMetricKind::Gauge, name, value.into())
    }

    /// A total so far.
    pub fn counter(name: &str, value: impl Into<f64>) -> Self {
        Self::new(SessionMetricKind::Counter, name, value.into())
    }

    /// One of many observations.
    pub fn histogram(name: &str, value: impl Into<f64>) -> Self {
        Self::new(SessionMetricKind::Histogram, name, value.into())
    }

    /// A duration.
    pub fn timer(name: &str, value: impl Into<f64>) -> Self {
        Self::new(SessionMetricKind::Timer, name, value.into())
    }

    fn new(kind: SessionMetricKind, name: &str, value: f64) -> Self {
        let name = name.to_owned();
        SessionMetric {
            name,
            value,
            kind,
            tags: Vec::new(),
            count: None,
            unit: None,
            metadata: None,
            time: None,
        }
    }

    /// The same with these tags, strings or pairs.
    #[must_use]
    pub fn tags<T: Into<SessionTag<'static>>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// The same, of `count` things.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// The same with a unit.
    #[must_use]
    pub fn unit(mut self, unit: &str) -> Self {
        self.unit = Some(unit.to_owned());
        self
    }

    /// The same with something else said of it.
    #[must_use]
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// The same, measured at `time`.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }
}

/// Checks name and value of a session's metric.
///
/// # Errors
/// `InvalidInput` naming the field.
pub(super) fn check_metric(name: &str, value: f64) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid_input("name: a metric has a name"));
    }
    if name.len() > NAME_SIZE_MAX {
        return Err(Error::invalid_input(format!("name: longer than {NAME_SIZE_MAX} bytes")));
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(Error::invalid_input(format!("name: {name} is a name of the sessions' own")));
    }
    if !value.is_finite() {
        return Err(Error::invalid_input(format!("value: {value} is not a finite number (metric {name:?})")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_words() {
        for word in ["gauge", "counter", "histogram", "timer"] {
            assert_eq!(SessionMetricKind::from_name(word).unwrap().name(), word);
        }
        assert_eq!(SessionMetricKind::from_name("Timer"), None);
    }

    #[track_caller]
    fn refused(name: &str, value: f64, part: &str) {
        let error = check_metric(name, value).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        refused("", 1.0, "name:");
        refused(&"n".repeat(NAME_SIZE_MAX + 1), 1.0, "name:");
        refused("session_info", 1.0, "name:");
        refused("m", f64::NAN, "value:");
        refused("m", f64::INFINITY, "value:");
        check_metric("größe in °C", -0.0).unwrap();
    }
}
