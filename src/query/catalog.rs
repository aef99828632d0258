//! What there is: names, tag keys, tag values, and how many series each brings.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{SeriesKey, ValueType};

type Listed = (SeriesKey, ValueType);

/// How many series there are, and what brings them. Each list is the largest first, equals in order of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// All series.
    pub series: u64,
    /// Metric names with their series.
    pub names: Vec<(String, u64)>,
    /// Tag keys with how many different values they have.
    pub keys: Vec<(String, u64)>,
    /// Pairs of tag key and value with their series.
    pub pairs: Vec<PairCount>,
}

/// A tag key with one of its values, and how many series carry it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairCount {
    /// The tag's key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// How many series.
    pub series: u64,
}

pub(crate) fn names(series: &[Listed]) -> Vec<String> {
    // The list is in order of keys, but a name that another one starts with may come back after it.
    let names: BTreeSet<&str> = series.iter().map(|(key, _)| key.name()).collect();
    names.into_iter().map(str::to_owned).collect()
}

pub(crate) fn tag_keys(series: &[Listed]) -> Vec<String> {
    let keys: BTreeSet<&str> = series.iter().flat_map(|(key, _)| key.tags()).map(|(key, _)| key).collect();
    keys.into_iter().map(str::to_owned).collect()
}

pub(crate) fn tag_values(series: &[Listed], key: &str) -> Vec<String> {
    let values: BTreeSet<&str> = series.iter().map(|(series, _)| series.tag(key)).collect();
    values.into_iter().filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

pub(crate) fn cardinality(series: &[Listed], most: usize) -> Cardinality {
    let mut names: BTreeMap<&str, u64> = BTreeMap::new();
    let mut pairs: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (key, _) in series {
        *names.entry(key.name()).or_default() += 1;
        key.tags().for_each(|pair| *pairs.entry(pair).or_default() += 1);
    }
    let mut keys: BTreeMap<&str, u64> = BTreeMap::new();
    pairs.keys().for_each(|(key, _)| *keys.entry(*key).or_default() += 1);
    let owned = |(text, count): (&str, u64)| (text.to_owned(), count);
    let pair = |((key, value), series): ((&str, &str), u64)| PairCount {
        key: key.to_owned(),
        value: value.to_owned(),
        series,
    };
    Cardinality {
        series: series.len() as u64,
        names: largest(names, most).into_iter().map(owned).collect(),
        keys: largest(keys, most).into_iter().map(owned).collect(),
        pairs: largest(pairs, most).into_iter().map(pair).collect(),
    }
}

fn largest<K: Ord>(counts: BTreeMap<K, u64>, most: usize) -> Vec<(K, u64)> {
    let mut counts: Vec<(K, u64)> = counts.into_iter().collect();
    // Stable, so that equals stay in order of text.
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(most);
    counts
}
