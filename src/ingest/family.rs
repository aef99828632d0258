//! Instruments by tag set, and what families and single instruments share when they are read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::ingest::description::{check_label_names, check_series};
use crate::ingest::{Description, FamilySample, MetricFamily};
use crate::model::MetricKind;
use crate::model::sealed::Sealed;

/// Most children of one family. More means that a label holds something unbounded.
pub const FAMILY_CHILD_COUNT_MAX: usize = 100_000;

/// What can be registered: an instrument, a family, or a host's own source of one family of samples.
pub trait Collect: Send + Sync {
    /// The family's name, without suffixes.
    fn name(&self) -> &str;

    /// The family's type.
    fn kind(&self) -> MetricKind;

    /// The family with its samples now.
    fn collect(&self) -> MetricFamily;
}

/// An instrument: [`Counter`](super::Counter), [`Gauge`](super::Gauge), [`Summary`](super::Summary),
/// [`Histogram`](super::Histogram).
pub trait Instrument: Sealed + Clone + Send + Sync + 'static {
    /// Its type.
    #[doc(hidden)]
    const KIND: MetricKind;

    /// Name, help and unit.
    #[doc(hidden)]
    fn own_description(&self) -> &Description;

    /// Appends its samples, which carry `labels`.
    #[doc(hidden)]
    fn samples(&self, labels: &Labels<'_>, out: &mut Vec<FamilySample>);
}

impl<T: Instrument> Collect for T {
    fn name(&self) -> &str {
        &self.own_description().name
    }

    fn kind(&self) -> MetricKind {
        T::KIND
    }

    /// The family that holds nothing but this instrument.
    fn collect(&self) -> MetricFamily {
        let description = self.own_description();
        let mut family = empty_family(description, T::KIND);
        let labels = Labels { name: &description.name, keys: &[], values: &[] };
        self.samples(&labels, &mut family.samples);
        family
    }
}

impl Sealed for super::Counter {}
impl Sealed for super::Gauge {}
impl Sealed for super::Summary {}
impl Sealed for super::Histogram {}

/// The name and labels that the samples of one instrument have in common.
#[derive(Debug)]
pub struct Labels<'a> {
    name: &'a str,
    keys: &'a [String],
    values: &'a [String],
}

impl Labels<'_> {
    /// A sample of the family's name and `suffix`.
    pub(super) fn sample(&self, suffix: &str, value: f64) -> FamilySample {
        let owned = |text: &String| Cow::Owned(text.clone());
        let tags = self.keys.iter().map(owned).zip(self.values.iter().map(owned)).collect();
        FamilySample { name: format!("{}{suffix}", self.name).into(), tags, value, ..FamilySample::default() }
    }
}

fn empty_family(description: &Description, kind: MetricKind) -> MetricFamily {
    MetricFamily {
        name: description.name.clone().into(),
        kind,
        unit: description.unit.clone().into(),
        help: description.help.clone().into(),
        samples: Vec::new(),
    }
}

/// Instruments of one name, one for each set of label values, made when they are first asked for.
///
/// A clone is the same family. Looking a child up takes a lock and a search; where it counts, keep the child.
///
/// ```
/// use icecore::ingest::Counter;
///
/// let c = Counter::family("my_requests_total", "HTTP Failures", ["method", "endpoint"])?;
/// c.labels(["get", "/"])?.inc();
/// c.labels(["post", "/submit"])?.inc();
/// c.labels_by_name([("endpoint", "/submit"), ("method", "post")])?.inc();
/// assert_eq!(c.labels(["post", "/submit"])?.value(), 2.0);
///
/// let error = c.labels(["get"]).unwrap_err();
/// assert_eq!(error.to_string(), "family my_requests expects labels [method, endpoint], got 1 value");
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone)]
pub struct Family<T>(Arc<Inner<T>>);

/// Makes a child.
type Make<T> = Box<dyn Fn(&Arc<Description>) -> T + Send + Sync>;

struct Inner<T> {
    description: Arc<Description>,
    label_names: Vec<String>,
    make: Make<T>,
    /// By label values, in the order of `label_names`.
    children: RwLock<BTreeMap<Vec<String>, T>>,
}

impl<T: Instrument> Family<T> {
    pub(super) fn new<L: AsRef<str>>(
        description: Description,
        labels: impl IntoIterator<Item = L>,
        make: impl Fn(&Arc<Description>) -> T + Send + Sync + 'static,
    ) -> Result<Self> {
        let description = Arc::new(description.for_kind(T::KIND)?);
        let label_names: Vec<String> = labels.into_iter().map(|label| label.as_ref().to_owned()).collect();
        check_label_names(T::KIND, &description.name, &label_names)?;
        let children = RwLock::new(BTreeMap::new());
        Ok(Family(Arc::new(Inner { description, label_names, make: Box::new(make), children })))
    }

    /// The child with these label values, in the order of the label names.
    ///
    /// # Errors
    /// `InvalidInput` for another number of values than the family has labels, or a value that is too long;
    /// `LimitExceeded` for a new child beyond [`FAMILY_CHILD_COUNT_MAX`].
    pub fn labels<V: AsRef<str>>(&self, values: impl IntoIterator<Item = V>) -> Result<T> {
        let values: Vec<String> = values.into_iter().map(|value| value.as_ref().to_owned()).collect();
        if values.len() != self.0.label_names.len() {
            let (count, s) = (values.len(), if values.len() == 1 { "" } else { "s" });
            return Err(self.expected(&format!("{count} value{s}")));
        }
        self.child(values)
    }

    /// The child with these labels, in any order, as `(name, value)`.
    ///
    /// # Errors
    /// `InvalidInput` for a name that the family does not have, one that is missing or one given twice;
    /// otherwise as [`Family::labels`].
    pub fn labels_by_name<K: AsRef<str>, V: AsRef<str>>(
        &self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Result<T> {
        let mut values: Vec<Option<String>> = vec![None; self.0.label_names.len()];
        for (name, value) in labels {
            let name = name.as_ref();
            let index = self.0.label_names.iter().position(|own| own == name);
            let place = index.and_then(|index| values.get_mut(index));
            match place {
                None => return Err(self.expected(&format!("{name:?}"))),
                Some(Some(_)) => return Err(self.expected(&format!("{name:?} twice"))),
                Some(place) => *place = Some(value.as_ref().to_owned()),
            }
        }
        let missing = values.iter().zip(&self.0.label_names).find(|(value, _)| value.is_none());
        if let Some((_, name)) = missing {
            return Err(self.expected(&format!("no {name:?}")));
        }
        self.child(values.into_iter().flatten().collect())
    }

    /// Forgets the child with these label values; those who hold it change nothing that is seen any more.
    /// Returns whether there was one.
    pub fn remove<V: AsRef<str>>(&self, values: impl IntoIterator<Item = V>) -> bool {
        let values: Vec<String> = values.into_iter().map(|value| value.as_ref().to_owned()).collect();
        self.0.children.write().remove(&values).is_some()
    }

    /// Forgets all children.
    pub fn clear(&self) {
        self.0.children.write().clear();
    }

    /// Name, help and unit.
    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// The label names, in the order of the values that [`Family::labels`] takes.
    pub fn label_names(&self) -> &[String] {
        &self.0.label_names
    }

    fn child(&self, values: Vec<String>) -> Result<T> {
        if let Some(child) = self.0.children.read().get(&values) {
            return Ok(child.clone());
        }
        let name = &self.0.description.name;
        let pairs = self.0.label_names.iter().zip(&values).map(|(k, v)| (k.as_str(), v.as_str()));
        check_series(name, pairs)?;
        let mut children = self.0.children.write();
        if children.len() >= FAMILY_CHILD_COUNT_MAX && !children.contains_key(&values) {
            let limit = FAMILY_CHILD_COUNT_MAX;
            return Err(Error::limit_exceeded(format!("family {name} has {limit} children already")));
        }
        Ok(children.entry(values).or_insert_with(|| (self.0.make)(&self.0.description)).clone())
    }

    #[cold]
    fn expected(&self, found: &str) -> Error {
        let Inner { description, label_names, .. } = &*self.0;
        let expected = label_names.join(", ");
        Error::invalid_input(format!("family {} expects labels [{expected}], got {found}", description.name))
    }
}

impl<T: Instrument> Collect for Family<T> {
    fn name(&self) -> &str {
        &self.0.description.name
    }

    fn kind(&self) -> MetricKind {
        T::KIND
    }

    fn collect(&self) -> MetricFamily {
        let Inner { description, label_names: keys, .. } = &*self.0;
        // Copied out first, so that no lock is held while the functions of gauges run.
        let children: Vec<_> = self.0.children.read().iter().map(|(v, c)| (v.clone(), c.clone())).collect();
        let mut family = empty_family(description, T::KIND);
        for (values, child) in children {
            let labels = Labels { name: &description.name, keys, values: &values };
            child.samples(&labels, &mut family.samples);
        }
        family
    }
}

impl<T> fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("description", &self.0.description)
            .field("label_names", &self.0.label_names)
            .field("child_count", &self.0.children.read().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Counter, Gauge, Histogram};

    fn family() -> Family<Counter> {
        Counter::family("my_requests_total", "HTTP Failures", ["method", "endpoint"]).unwrap()
    }

    #[track_caller]
    fn refused(result: Result<Counter>, found: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        let expected = format!("family my_requests expects labels [method, endpoint], got {found}");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn wrong_labels_are_refused_with_what_is_expected() {
        let c = family();
        refused(c.labels(["get"]), "1 value");
        refused(c.labels(["get", "/", "x"]), "3 values");
        refused(c.labels_by_name([("method", "get"), ("path", "/")]), "\"path\"");
        refused(c.labels_by_name([("method", "get"), ("method", "put")]), "\"method\" twice");
        refused(c.labels_by_name([("method", "get")]), "no \"endpoint\"");
        assert!(c.collect().samples.is_empty());
    }

    #[test]
    fn children_are_read_in_order_of_their_values() {
        let c = family();
        c.labels(["post", "/"]).unwrap().inc_by(2);
        c.labels(["get", "/b"]).unwrap().inc();
        c.labels(["get", "/a"]).unwrap().inc();
        let read = c.collect();
        let values: Vec<&str> = read.samples.iter().map(|s| s.tags[1].1.as_ref()).collect();
        assert_eq!(values, ["/a", "/b", "/"]);
        assert_eq!(read.samples[2].name, "my_requests_total");
        assert_eq!(read.samples[2].value, 2.0);
        assert_eq!((read.name.as_ref(), read.kind), ("my_requests", MetricKind::Counter));
    }

    #[test]
    fn a_removed_child_starts_anew() {
        let c = family();
        c.labels(["get", "/"]).unwrap().inc();
        assert!(c.remove(["get", "/"]));
        assert!(!c.remove(["get", "/"]));
        assert_eq!(c.labels(["get", "/"]).unwrap().value(), 0.0);
    }

    #[test]
    fn the_number_of_children_is_limited() {
        let gauges = Gauge::family("g", "", ["n"]).unwrap();
        for n in 0..FAMILY_CHILD_COUNT_MAX {
            gauges.labels([n.to_string()]).unwrap();
        }
        assert_eq!(gauges.labels(["more"]).unwrap_err().kind(), crate::ErrorKind::LimitExceeded);
        assert!(gauges.labels(["7"]).is_ok());
    }

    #[test]
    fn a_value_that_cannot_be_stored_is_refused() {
        let long = "v".repeat(crate::model::TAG_VALUE_SIZE_MAX + 1);
        let c = family();
        assert_eq!(c.labels([&long, "/"]).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_family_of_histograms_shares_its_buckets() {
        let h = Histogram::family_with_buckets("h", "", ["op"], [1.0]).unwrap();
        h.labels(["read"]).unwrap().observe(0.5);
        let read = h.collect();
        let shown: Vec<_> = read.samples.iter().map(|s| (s.name.as_ref(), s.tags.len(), s.value)).collect();
        assert_eq!(
            shown,
            [("h_bucket", 2, 1.0), ("h_bucket", 2, 1.0), ("h_count", 1, 1.0), ("h_sum", 1, 0.5)]
        );
    }
}
