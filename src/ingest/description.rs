//! What an instrument is called and what it means; the rules for names, in one place.

use crate::error::{Error, Result};
use crate::model::{MetricKind, NAME_SIZE_MAX, SeriesKey};
use crate::protocol::label::{BUCKET_KEY, QUANTILE_KEY};

/// Longest suffix that exposing adds to a name: `_bucket`.
const SUFFIX_SIZE_MAX: usize = 7;

/// Name, help and unit of an instrument or family.
///
/// ```
/// use icecore::ingest::{Description, Gauge};
///
/// let queue = Gauge::from_description(Description::new("queue_size_bytes", "Waiting to be sent").unit("bytes"))?;
/// assert_eq!(queue.description().unit, "bytes");
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The metric's name, any UTF-8. A counter's has no `_total` here; exposing adds it.
    pub name: String,
    /// One sentence for people: HELP when exposed, metadata when stored.
    pub help: String,
    /// The base unit (`seconds`, `bytes`), or empty. It should also end the name.
    pub unit: String,
}

impl Description {
    /// A description without a unit.
    pub fn new(name: &str, help: &str) -> Self {
        Description { name: name.to_owned(), help: help.to_owned(), unit: String::new() }
    }

    /// The same with a unit.
    #[must_use]
    pub fn unit(mut self, unit: &str) -> Self {
        unit.clone_into(&mut self.unit);
        self
    }

    /// The description as an instrument of `kind` keeps it: a counter's name without `_total`.
    pub(super) fn for_kind(mut self, kind: MetricKind) -> Result<Self> {
        if kind == MetricKind::Counter && self.name.ends_with("_total") {
            self.name.truncate(self.name.len() - "_total".len());
        }
        if self.name.is_empty() {
            return Err(Error::invalid_input(format!("a {} needs a name", kind.name())));
        }
        if self.name.len() > NAME_SIZE_MAX - SUFFIX_SIZE_MAX {
            let limit = NAME_SIZE_MAX - SUFFIX_SIZE_MAX;
            return Err(Error::invalid_input(format!("name of a {} is over {limit} bytes", kind.name())));
        }
        Ok(self)
    }
}

/// Checks the label names of a family of `kind` called `name`.
///
/// # Errors
/// `InvalidInput` for no name at all, an empty, reserved or repeated one, and for the label that the kind
/// itself adds (`le` of a histogram, `quantile` of a summary).
pub(super) fn check_label_names(kind: MetricKind, name: &str, labels: &[String]) -> Result<()> {
    let own = match kind {
        MetricKind::Histogram => Some(BUCKET_KEY),
        MetricKind::Summary => Some(QUANTILE_KEY),
        _ => None,
    };
    if labels.is_empty() {
        return Err(Error::invalid_input(format!("family {name} has no label names")));
    }
    if let Some(own) = own.filter(|own| labels.iter().any(|label| label == own)) {
        let kind = kind.name();
        return Err(Error::invalid_input(format!("family {name}: a {kind} has label {own:?} of its own")));
    }
    check_series(name, labels.iter().map(|label| (label.as_str(), "v")))
}

/// Checks that the series of a child can be stored, whatever suffix and bucket are added to it.
pub(super) fn check_series<'a>(name: &str, tags: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    // Longer than any bound or quantile is in text.
    let bound = (BUCKET_KEY, "-1.7976931348623157e+308");
    SeriesKey::new(&format!("{name}_bucket"), tags.filter(|(key, _)| *key != BUCKET_KEY).chain([bound]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_name(kind: MetricKind, name: &str, expected: &str) {
        assert_eq!(Description::new(name, "").for_kind(kind).unwrap().name, expected);
    }

    #[test]
    fn only_a_counter_loses_total() {
        check_name(MetricKind::Counter, "requests_total", "requests");
        check_name(MetricKind::Counter, "requests", "requests");
        check_name(MetricKind::Counter, "requests_total_total", "requests_total");
        check_name(MetricKind::Gauge, "requests_total", "requests_total");
    }

    #[track_caller]
    fn check_labels(kind: MetricKind, labels: &[&str], expected: &str) {
        let labels: Vec<String> = labels.iter().map(|l| (*l).to_owned()).collect();
        let error = check_label_names(kind, "jobs", &labels).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn wrong_names_are_refused() {
        assert!(Description::new("_total", "").for_kind(MetricKind::Counter).is_err());
        assert!(Description::new(&"n".repeat(1018), "").for_kind(MetricKind::Gauge).is_err());
        assert!(Description::new(&"n".repeat(1017), "").for_kind(MetricKind::Gauge).is_ok());
        check_labels(MetricKind::Counter, &[], "no label names");
        check_labels(MetricKind::Counter, &["a", "a"], "twice");
        check_labels(MetricKind::Counter, &["__name__"], "name itself");
        check_labels(MetricKind::Counter, &[""], "empty key");
        check_labels(MetricKind::Histogram, &["le"], "of its own");
        check_labels(MetricKind::Summary, &["quantile"], "of its own");
    }

    #[test]
    fn any_name_but_the_reserved_ones_is_a_label() {
        let labels = ["le".to_owned(), "user agent".to_owned(), "größe".to_owned()];
        check_label_names(MetricKind::Counter, "jobs", &labels).unwrap();
    }
}
