//! The label set of a series inside a query: a metric name, which may be gone, and sorted labels.
//!
//! The layout is that of [`SeriesKey`] (name, then `0xFF key 0xFE value` for each label in order of
//! its key), so a key becomes labels by one copy, equal sets have equal bytes, and hashing and
//! comparing never look at single labels. Unlike a key it may have no name, and any label keys.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::model::{NAME_KEY, SeriesKey};

const KEY_MARK: u8 = 0xFF;
const VALUE_MARK: u8 = 0xFE;

/// Labels that describe the metric itself and vanish together with its name.
const METADATA_KEYS: [&str; 2] = ["__type__", "__unit__"];

/// Metric name and labels of one series of a query: immutable, cheap to clone, compare and hash.
///
/// Ordered as Prometheus orders answers: by name, where there is one, then by keys and values in turn.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Labels {
    /// Builds a set from `name` (empty: none) and `labels` in any order.
    ///
    /// Labels with an empty value are left out; of labels with the same key the last one counts.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(name: &str, labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut builder = LabelsBuilder { name: name.to_owned(), labels: Vec::new() };
        for (key, value) in labels {
            builder.set(key.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// No name and no labels.
    pub fn empty() -> Self {
        Labels(Arc::new([]))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The metric name; empty when there is none.
    pub fn name(&self) -> &str {
        text(&self.0[..self.name_size()])
    }

    fn name_size(&self) -> usize {
        self.0.iter().position(|b| *b == KEY_MARK).unwrap_or(self.0.len())
    }

    /// The labels as `(key, value)`, in order of their keys, without the name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(|b| *b == KEY_MARK).skip(1).map(|label| {
            let at = label.iter().position(|b| *b == VALUE_MARK).unwrap_or(label.len());
            let (key, value) = label.split_at(at);
            (text(key), text(value.get(1..).unwrap_or_default()))
        })
    }

    /// The value of a label, or of the name for [`NAME_KEY`]; empty when absent.
    pub fn get(&self, key: &str) -> &str {
        if key == NAME_KEY {
            return self.name();
        }
        self.labels().find(|(k, _)| *k == key).map_or("", |(_, value)| value)
    }

    /// Whether neither name nor label is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same set without the metric name and what describes the metric.
    #[must_use]
    pub fn without_name(&self) -> Self {
        if self.labels().any(|(key, _)| METADATA_KEYS.contains(&key)) {
            let mut bytes = Vec::with_capacity(self.0.len());
            self.write_if(|key| key != NAME_KEY && !METADATA_KEYS.contains(&key), &mut bytes);
            return Labels(bytes.into());
        }
        match self.name_size() {
            0 => self.clone(),
            size => Labels(self.0[size..].into()),
        }
    }

    /// The same set with only the labels `keys`; [`NAME_KEY`] keeps the name.
    #[must_use]
    pub fn keep(&self, keys: &[String]) -> Self {
        self.filtered(|key| keys.iter().any(|k| k == key))
    }

    /// The same set without the labels `keys`; [`NAME_KEY`] drops the name.
    #[must_use]
    pub fn drop_keys(&self, keys: &[String]) -> Self {
        self.filtered(|key| !keys.iter().any(|k| k == key))
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len());
        self.write_if(keep, &mut bytes);
        Labels(bytes.into())
    }

    /// Appends the bytes of the subset whose keys satisfy `keep` ([`NAME_KEY`] stands for the name).
    pub(super) fn write_if(&self, keep: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
        if keep(NAME_KEY) {
            out.extend_from_slice(&self.0[..self.name_size()]);
        }
        for (key, value) in self.labels().filter(|(key, _)| keep(key)) {
            push_label(key, value, out);
        }
    }

    /// Takes bytes that [`Labels::write_if`] wrote.
    pub(super) fn from_written(bytes: &[u8]) -> Self {
        Labels(bytes.into())
    }

    /// A builder that starts from this set.
    pub(super) fn to_builder(&self) -> LabelsBuilder {
        let labels = self.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        LabelsBuilder { name: self.name().to_owned(), labels }
    }

    /// The size that a budget counts.
    pub(super) fn size(&self) -> usize {
        self.0.len() + 32
    }
}

impl Labels {
    /// Name and labels as pairs, the name first as that of [`NAME_KEY`], if there is one.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let name = Some((NAME_KEY, self.name())).filter(|(_, name)| !name.is_empty());
        name.into_iter().chain(self.labels())
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.0 == other.0 { Ordering::Equal } else { self.pairs().cmp(other.pairs()) }
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn push_label(key: &str, value: &str, out: &mut Vec<u8>) {
    out.push(KEY_MARK);
    out.extend_from_slice(key.as_bytes());
    out.push(VALUE_MARK);
    out.extend_from_slice(value.as_bytes());
}

impl From<&Labels> for SeriesKey {
    /// The key with these labels as its tags, for showing. Where there is no name it has an empty one, so it is none that
    /// could be written to.
    fn from(labels: &Labels) -> Self {
        SeriesKey::of_group(labels.0.to_vec())
    }
}

impl From<&SeriesKey> for Labels {
    fn from(key: &SeriesKey) -> Self {
        Labels(key.as_bytes().into())
    }
}

impl fmt::Display for Labels {
    /// `name{key="value", ...}` as Prometheus writes metrics; `{}` for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        let plain = super::lexer::is_metric_name(name);
        if plain {
            f.write_str(name)?;
        }
        let quoted = (!plain && !name.is_empty()).then(|| super::format::quote(name.as_bytes()));
        let parts = self.labels().map(|(key, value)| {
            let value = super::format::quote(value.as_bytes());
            match super::lexer::is_label_name(key) {
                true => format!("{key}={value}"),
                false => format!("{}={value}", super::format::quote(key.as_bytes())),
            }
        });
        let parts: Vec<String> = quoted.into_iter().chain(parts).collect();
        if parts.is_empty() && plain {
            return Ok(());
        }
        write!(f, "{{{}}}", parts.join(", "))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A label set in the making.
#[derive(Debug, Default)]
pub(super) struct LabelsBuilder {
    name: String,
    labels: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets a label, or the name for [`NAME_KEY`]; an empty value removes it.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        if key == NAME_KEY {
            value.clone_into(&mut self.name);
            return;
        }
        self.labels.retain(|(k, _)| k != key);
        if !value.is_empty() {
            self.labels.push((key.to_owned(), value.to_owned()));
        }
    }

    /// The value of a label set so far; empty when there is none.
    pub(super) fn get(&self, key: &str) -> &str {
        self.labels.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }

    /// The finished set.
    pub(super) fn build(mut self) -> Labels {
        self.labels.sort();
        let mut bytes = self.name.into_bytes();
        for (key, value) in &self.labels {
            push_label(key, value, &mut bytes);
        }
        Labels(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_key_becomes_labels_unchanged() {
        let key = SeriesKey::new("up", [("job", "a"), ("host", "b")]).unwrap();
        let labels = Labels::from(&key);
        assert_eq!(labels, Labels::new("up", [("host", "b"), ("job", "a"), ("none", "")]));
        assert_eq!((labels.name(), labels.get("job"), labels.get("rack")), ("up", "a", ""));
        assert_eq!(labels.to_string(), r#"up{host="b", job="a"}"#);
    }

    #[test]
    fn metadata_goes_with_the_name() {
        let labels = Labels::new("up", [("__type__", "gauge"), ("job", "a")]);
        assert_eq!(labels.without_name(), Labels::new("", [("job", "a")]));
        assert_eq!(Labels::new("up", [("", ""); 0]).without_name(), Labels::empty());
    }

    #[test]
    fn a_name_sorts_before_its_continuations() {
        let mut all = [
            Labels::new("ab", [("x", "1")]),
            Labels::new("", [("a", "1")]),
            Labels::new("a", [("x", "2")]),
            Labels::new("a", [("", ""); 0]),
            Labels::new("a", [("x", "1"), ("y", "1")]),
        ];
        all.sort();
        let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", r#"a{x="1", y="1"}"#, r#"a{x="2"}"#, r#"ab{x="1"}"#, r#"{a="1"}"#]);
    }

    #[test]
    fn subsets_keep_order() {
        let labels = Labels::new("m", [("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(labels.keep(&["c".into(), "a".into()]), Labels::new("", [("a", "1"), ("c", "3")]));
        assert_eq!(labels.drop_keys(&["b".into()]), Labels::new("m", [("a", "1"), ("c", "3")]));
        assert_eq!(labels.keep(&["__name__".into()]).to_string(), "m");
        assert_eq!(Labels::new("a b", [("c d", "e")]).to_string(), r#"{"a b", "c d"="e"}"#);
    }
}
