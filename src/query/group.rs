//! Grouping across series, and the k greatest and smallest of a result.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::model::{Column, NAME_KEY, SeriesKey};
use crate::query::fold::Fold;
use crate::query::result::SeriesColumns;
use crate::query::window::{Window, combine_windows};

/// Which series are answered together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Grouping {
    /// None: each for itself.
    #[default]
    Each,
    /// Those that agree in these tags (or the name, as `__name__`).
    By(Vec<String>),
    /// Those that agree in all tags but these; the name does not count.
    Without(Vec<String>),
}

impl Grouping {
    /// Whether it looks at keys at all.
    pub(crate) fn needs_keys(&self) -> bool {
        !matches!(self, Grouping::By(tags) if tags.is_empty())
    }

    /// Writes the group of a series, as a key, over `out`.
    fn write_group(&self, key: &SeriesKey, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Grouping::Each => out.extend_from_slice(key.as_bytes()),
            Grouping::By(wanted) => {
                let is_wanted = |tag: &str| wanted.iter().any(|wanted| wanted == tag);
                let name = if is_wanted(NAME_KEY) { key.name() } else { "" };
                key.write_subset(name, is_wanted, out);
            }
            Grouping::Without(refused) => {
                key.write_subset("", |tag| !refused.iter().any(|refused| refused == tag), out);
            }
        }
    }
}

/// The groups met so far and their windows.
#[derive(Debug)]
pub(crate) struct Groups<F> {
    grouping: Grouping,
    positions: HashMap<Vec<u8>, usize>,
    groups: Vec<Vec<Window<F>>>,
    /// The key of the series at hand.
    scratch: Vec<u8>,
}

impl<F: Fold> Groups<F> {
    pub(crate) fn new(grouping: Grouping) -> Self {
        Groups { grouping, positions: HashMap::new(), groups: Vec::new(), scratch: Vec::new() }
    }

    pub(crate) fn grouping(&self) -> &Grouping {
        &self.grouping
    }

    /// Takes the windows of one series, which comes after those added before in the order of keys.
    pub(crate) fn add(&mut self, key: Option<&SeriesKey>, windows: &mut Vec<Window<F>>) {
        if windows.is_empty() {
            return;
        }
        let position = match key.filter(|_| self.grouping.needs_keys()) {
            Some(key) => {
                self.grouping.write_group(key, &mut self.scratch);
                self.positions.get(&self.scratch).copied()
            }
            // There is one group.
            None => self.groups.len().checked_sub(1),
        };
        match position.and_then(|position| self.groups.get_mut(position)) {
            Some(group) => combine_windows(group, windows),
            None => {
                self.positions.insert(self.scratch.clone(), self.groups.len());
                self.groups.push(std::mem::take(windows));
            }
        }
    }

    /// Adds the groups of series that come later in the order of keys.
    pub(crate) fn merge(&mut self, later: Self) {
        let mut groups = later.groups;
        for (key, position) in later.positions {
            let mut windows = groups.get_mut(position).map(std::mem::take).unwrap_or_default();
            match self.positions.get(&key).and_then(|own| self.groups.get_mut(*own)) {
                Some(group) => combine_windows(group, &mut windows),
                None => {
                    self.positions.insert(key, self.groups.len());
                    self.groups.push(windows);
                }
            }
        }
    }

    /// The groups in order of their keys.
    pub(crate) fn finish(mut self) -> Vec<(SeriesKey, Vec<Window<F>>)> {
        let mut keys: Vec<(Vec<u8>, usize)> = self.positions.into_iter().collect();
        keys.sort_unstable();
        let take = |position: usize, groups: &mut Vec<Vec<Window<F>>>| {
            groups.get_mut(position).map(std::mem::take).unwrap_or_default()
        };
        keys.into_iter().map(|(key, at)| (SeriesKey::of_group(key), take(at, &mut self.groups))).collect()
    }
}

/// Which end of a ranking is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RankEnd {
    Top,
    Bottom,
}

/// Keeps, at each time, the `count` greatest or smallest values. NaN comes last; of equal values the series
/// that comes first in the result wins. Series that keep nothing go.
pub(crate) fn keep_ranked(series: &mut Vec<SeriesColumns>, end: RankEnd, count: usize) {
    let mut entries = Vec::new();
    for (position, columns) in series.iter().enumerate() {
        let values = columns.times.iter().zip(columns.doubles());
        entries.extend(values.map(|(time, value)| (*time, *value, position)));
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(rank(a.1, b.1, end)).then(a.2.cmp(&b.2)));
    let mut kept: Vec<_> = entries
        .chunk_by(|a, b| a.0 == b.0)
        .flat_map(|at_one_time| at_one_time.iter().take(count))
        .map(|(time, value, position)| (*position, *time, *value))
        .collect();
    kept.sort_by_key(|(position, time, _)| (*position, *time));
    for columns in &mut *series {
        columns.times.clear();
        columns.values = Column::F64(Vec::new());
    }
    for (position, time, value) in kept {
        if let Some(SeriesColumns { times, values: Column::F64(values), .. }) = series.get_mut(position) {
            times.push(time);
            values.push(value);
        }
    }
    series.retain(|columns| !columns.times.is_empty());
}

fn rank(a: f64, b: f64, end: RankEnd) -> Ordering {
    let by_value = match end {
        RankEnd::Top => b.partial_cmp(&a),
        RankEnd::Bottom => a.partial_cmp(&b),
    };
    by_value.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn groups_are_named_by_their_tags() {
        let key = SeriesKey::new("cpu", [("core", "0"), ("host", "a"), ("rack", "r")]).unwrap();
        let group = |grouping: Grouping| {
            let mut out = Vec::new();
            grouping.write_group(&key, &mut out);
            SeriesKey::of_group(out).to_string()
        };
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
        assert_eq!(group(Grouping::By(tags(&["host", "none"]))), r#"{host="a"}"#);
        assert_eq!(group(Grouping::By(tags(&["__name__", "host"]))), r#"cpu{host="a"}"#);
        assert_eq!(group(Grouping::By(tags(&[]))), "{}");
        assert_eq!(group(Grouping::Without(tags(&["host"]))), r#"{core="0",rack="r"}"#);
    }

    #[test]
    fn the_greatest_are_kept_at_each_time() {
        let columns = |name: &str, values: &[f64]| SeriesColumns {
            key: SeriesKey::new(name, [("", ""); 0]).unwrap(),
            times: (0..values.len()).map(|n| Timestamp::from_nanos(n as i64)).collect(),
            values: Column::F64(values.to_vec()),
        };
        let all = vec![
            columns("a", &[1.0, f64::NAN, 3.0]),
            columns("b", &[2.0, 1.0, 3.0]),
            columns("c", &[0.0, -1.0]),
        ];
        let kept = |end, count| {
            let mut series = all.clone();
            keep_ranked(&mut series, end, count);
            let text = |c: &SeriesColumns| {
                format!(
                    "{} {:?} {:?}",
                    c.key,
                    c.times.iter().map(|t| t.nanos()).collect::<Vec<_>>(),
                    c.doubles()
                )
            };
            series.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(kept(RankEnd::Top, 1), ["a [2] [3.0]", "b [0, 1] [2.0, 1.0]"]);
        assert_eq!(kept(RankEnd::Bottom, 1), ["a [2] [3.0]", "c [0, 1] [0.0, -1.0]"]);
        assert_eq!(kept(RankEnd::Top, 0), [""; 0]);
        assert_eq!(kept(RankEnd::Bottom, 9).len(), 3);
    }
}
