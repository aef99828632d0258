//! Live groups: what was pushed last under each key, and what a push writes and ends.
//!
//! A push gives the new state of a group whole (PUT) or family by family (POST). From it follow the points to write at
//! the time of the push and the series that end with it. [`Groups`] is changed only after the points are written, so a
//! push that cannot be stored changes nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::path::GroupKey;
use crate::error::{Error, Result};
use crate::ingest::{FamilySample, MetricFamily, Point};
use crate::model::{MetricKind, STALE_NAN_BITS, SeriesKey, Timestamp};
use crate::protocol::exposition::Family;

pub(super) const PUSH_TIME: &str = "push_time_seconds";
pub(super) const PUSH_FAILURE_TIME: &str = "push_failure_time_seconds";

/// How a push treats what the group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Method {
    /// PUT: the group is what was pushed.
    Replace,
    /// POST: families of the same name are replaced, others stay.
    Add,
}

/// What is kept of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::server) struct Group {
    /// The families, labels of the group laid over their samples.
    pub(in crate::server) families: Vec<MetricFamily>,
    /// When it was last pushed.
    pub(in crate::server) pushed: Option<Timestamp>,
    /// When a push was last refused for what it held.
    pub(in crate::server) failed: Option<Timestamp>,
}

/// What a push or a deletion does, to be written before [`Groups::commit`].
#[derive(Debug)]
pub(in crate::server) struct Change {
    key: GroupKey,
    /// The group afterwards; `None` when it is gone.
    group: Option<Group>,
    /// The samples to write, and staleness markers of the series that end.
    pub(in crate::server) points: Vec<Point>,
}

/// All live groups.
#[derive(Debug, Default)]
pub(in crate::server) struct Groups {
    groups: BTreeMap<GroupKey, Group>,
}

impl Groups {
    /// The group `key`, if it lives.
    pub(super) fn get(&self, key: &GroupKey) -> Option<&Group> {
        self.groups.get(key)
    }

    /// The groups, ordered by their labels.
    pub(in crate::server) fn iter(&self) -> impl Iterator<Item = (&GroupKey, &Group)> {
        self.groups.iter()
    }

    /// Works out a push of `families` to the group `key` at `now`.
    ///
    /// # Errors
    /// `InvalidInput` for samples with a time, a series twice, or a sample that is no series: nothing is to be written,
    /// and [`Groups::fail`] is to be told.
    pub(in crate::server) fn push(
        &self,
        key: &GroupKey,
        method: Method,
        families: &[Family<'_>],
        now: Timestamp,
    ) -> Result<Change> {
        let none = Group::default();
        let before = self.groups.get(key).unwrap_or(&none);
        let mut pushed: Vec<MetricFamily> =
            families.iter().filter(|f| !is_own(f)).map(|f| overlay(f, key)).collect();
        check_times(&pushed)?;
        let written = points(&pushed, now)?;
        check_unique(&written)?;
        if method == Method::Add {
            let stays = |family: &&MetricFamily| pushed.iter().all(|new| new.name != family.name);
            let kept: Vec<MetricFamily> = before.families.iter().filter(stays).cloned().collect();
            pushed.extend(kept);
        }
        let group = Group { families: pushed, pushed: Some(now), failed: before.failed };
        let mut change = Change { key: key.clone(), points: written, group: None };
        change.end(series(before)?, &series(&group)?, now);
        change.points.extend(own_points(key, &group, now)?);
        change.group = Some(group);
        Ok(change)
    }

    /// Works out the deletion of the group `key`; `None` when there is no such group.
    ///
    /// # Errors
    /// None in practice: what is kept was writable before.
    pub(in crate::server) fn delete(&self, key: &GroupKey, now: Timestamp) -> Result<Option<Change>> {
        let Some(group) = self.groups.get(key) else { return Ok(None) };
        let mut change = Change { key: key.clone(), group: None, points: Vec::new() };
        change.end(series(group)?, &HashSet::new(), now);
        let own = own_points(key, group, now)?.into_iter().map(|point| point.key).collect();
        change.end(own, &HashSet::new(), now);
        Ok(Some(change))
    }

    /// Takes over a change whose points are written.
    pub(in crate::server) fn commit(&mut self, change: Change) {
        match change.group {
            Some(group) => self.groups.insert(change.key, group),
            None => self.groups.remove(&change.key),
        };
    }

    /// Notes that a push to `key` was refused for what it held.
    pub(in crate::server) fn fail(&mut self, key: &GroupKey, now: Timestamp) {
        self.groups.entry(key.clone()).or_default().failed = Some(now);
    }

    /// Everything that lives, once more at `now`, so that an instant query finds it.
    ///
    /// # Errors
    /// None in practice: what is kept was writable before.
    pub(in crate::server) fn points(&self, now: Timestamp) -> Result<Vec<Point>> {
        let mut all = Vec::new();
        for (key, group) in &self.groups {
            all.extend(points(&group.families, now)?);
            all.extend(own_points(key, group, now)?);
        }
        Ok(all)
    }
}

impl Change {
    /// The group `key` as it was when the database was closed; nothing is to be written.
    pub(super) fn restored(key: GroupKey, group: Group) -> Self {
        Change { key, group: Some(group), points: Vec::new() }
    }

    /// The group afterwards; `None` when it is gone.
    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Adds a staleness marker for each series of `before` that is not in `after`.
    fn end(&mut self, before: HashSet<SeriesKey>, after: &HashSet<SeriesKey>, time: Timestamp) {
        let stale = f64::from_bits(STALE_NAN_BITS);
        let ended = before.into_iter().filter(|key| !after.contains(key));
        self.points.extend(ended.map(|key| Point { key, time, value: stale }));
    }
}

/// Whether the gateway sets this family itself.
fn is_own(family: &Family<'_>) -> bool {
    family.name == PUSH_TIME || family.name == PUSH_FAILURE_TIME
}

/// `family`, owned, with the labels of the group in place of its own of the same key. Empty ones are no tags.
fn overlay(family: &Family<'_>, key: &GroupKey) -> MetricFamily {
    let owned = |text: &Cow<'_, str>| Cow::Owned(text.to_string());
    let samples = family.samples.iter().map(|sample| {
        let own = sample.tags.iter().filter(|(k, _)| key.get(k).is_none());
        let own = own.map(|(k, v)| (k.as_ref(), v.as_ref()));
        let tags = own.chain(key.labels()).filter(|(_, v)| !v.is_empty());
        FamilySample {
            name: owned(&sample.name),
            tags: tags.map(|(k, v)| (Cow::Owned(k.to_owned()), Cow::Owned(v.to_owned()))).collect(),
            value: sample.value,
            timestamp: sample.timestamp,
            exemplar: None,
        }
    });
    MetricFamily {
        name: owned(&family.name),
        kind: family.kind,
        unit: owned(&family.unit),
        help: owned(&family.help),
        samples: samples.collect(),
    }
}

fn check_times(families: &[MetricFamily]) -> Result<()> {
    let timed = families.iter().flat_map(|family| &family.samples).find(|sample| sample.timestamp.is_some());
    match timed {
        Some(sample) => Err(inconsistent(&format!("pushed metric {} has a timestamp", sample.name))),
        None => Ok(()),
    }
}

fn check_unique(points: &[Point]) -> Result<()> {
    let mut seen = HashSet::with_capacity(points.len());
    match points.iter().find(|point| !seen.insert(&point.key)) {
        Some(twice) => Err(inconsistent(&format!("collected metric {} was collected before", twice.key))),
        None => Ok(()),
    }
}

#[cold]
fn inconsistent(reason: &str) -> Error {
    Error::invalid_input(format!(
        "pushed metrics are invalid or inconsistent with existing metrics: {reason}"
    ))
}

fn points(families: &[MetricFamily], time: Timestamp) -> Result<Vec<Point>> {
    let samples = families.iter().flat_map(|family| &family.samples);
    samples
        .map(|sample| {
            let tags = sample.tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
            Ok(Point { key: SeriesKey::new(&sample.name, tags)?, time, value: sample.value })
        })
        .collect()
}

fn series(group: &Group) -> Result<HashSet<SeriesKey>> {
    Ok(points(&group.families, Timestamp::default())?.into_iter().map(|point| point.key).collect())
}

/// `push_time_seconds` and `push_failure_time_seconds` of a group.
fn own_points(key: &GroupKey, group: &Group, now: Timestamp) -> Result<Vec<Point>> {
    points(&own_families(key, group), now)
}

/// The families that the gateway adds to a group: when it was pushed, and when a push failed, in seconds; 0 for never.
pub(super) fn own_families(key: &GroupKey, group: &Group) -> [MetricFamily; 2] {
    let family = |name: &'static str, help: &'static str, time: Option<Timestamp>| {
        let tags = key.labels().filter(|(_, value)| !value.is_empty());
        let sample = FamilySample {
            name: name.into(),
            tags: tags.map(|(k, v)| (Cow::Owned(k.to_owned()), Cow::Owned(v.to_owned()))).collect(),
            value: time.map_or(0.0, seconds),
            ..FamilySample::default()
        };
        let samples = vec![sample];
        MetricFamily {
            name: name.into(),
            kind: MetricKind::Gauge,
            help: help.into(),
            samples,
            ..MetricFamily::default()
        }
    };
    [
        family(PUSH_TIME, "Last Unix time when changing this group succeeded.", group.pushed),
        family(PUSH_FAILURE_TIME, "Last Unix time when changing this group failed.", group.failed),
    ]
}

#[allow(clippy::cast_precision_loss, reason = "a time in seconds is given as a double, as the original does")]
fn seconds(time: Timestamp) -> f64 {
    time.nanos() as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::path::parse_path;
    use super::*;
    use crate::model::is_stale;
    use crate::protocol::exposition::parse_text;

    const ONE: Timestamp = Timestamp::from_secs(1);
    const TWO: Timestamp = Timestamp::from_secs(2);

    fn change(groups: &Groups, path: &str, method: Method, page: &str, now: Timestamp) -> Result<Change> {
        groups.push(&parse_path(path).unwrap(), method, &parse_text(page.as_bytes()).unwrap(), now)
    }

    /// Pushes, commits, and shows the points without those of the gateway itself.
    fn push(groups: &mut Groups, path: &str, method: Method, page: &str, now: Timestamp) -> Vec<String> {
        let change = change(groups, path, method, page, now).unwrap();
        let shown = shown(&change.points, now);
        groups.commit(change);
        shown
    }

    fn shown(points: &[Point], now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        for point in points {
            assert_eq!(point.time, now);
            if !point.key.name().starts_with("push_") {
                let value = if is_stale(point.value) { "stale".to_owned() } else { point.value.to_string() };
                lines.push(format!("{} {value}", point.key));
            }
        }
        lines.sort();
        lines
    }

    #[test]
    fn labels_of_the_path_win_over_those_of_the_body() {
        let mut groups = Groups::default();
        let page = "loss{step=\"0\",pod=\"h\",gone=\"x\"} 0.2\n";
        let lines = push(&mut groups, "job/wl/step/1/gone@base64/=", Method::Replace, page, ONE);
        assert_eq!(lines, [r#"loss{job="wl",pod="h",step="1"} 0.2"#]);
    }

    #[test]
    fn put_replaces_the_group_and_ends_what_goes() {
        let mut groups = Groups::default();
        push(&mut groups, "job/a", Method::Replace, "x 1\ny{k=\"1\"} 2\ny{k=\"2\"} 3\n", ONE);
        let lines = push(&mut groups, "job/a", Method::Replace, "y{k=\"2\"} 4\n", TWO);
        assert_eq!(lines, [r#"x{job="a"} stale"#, r#"y{job="a",k="1"} stale"#, r#"y{job="a",k="2"} 4"#]);
        let lines = push(&mut groups, "job/a", Method::Replace, "", TWO);
        assert_eq!(lines, [r#"y{job="a",k="2"} stale"#]);
        assert_eq!(groups.iter().next().unwrap().1.pushed, Some(TWO));
    }

    #[test]
    fn post_replaces_families_of_the_same_name_only() {
        let mut groups = Groups::default();
        push(&mut groups, "job/a", Method::Replace, "x 1\ny{k=\"1\"} 2\n", ONE);
        let lines = push(&mut groups, "job/a", Method::Add, "y{k=\"2\"} 3\n", TWO);
        assert_eq!(lines, [r#"y{job="a",k="1"} stale"#, r#"y{job="a",k="2"} 3"#]);
        assert_eq!(shown(&groups.points(TWO).unwrap(), TWO), [r#"x{job="a"} 1"#, r#"y{job="a",k="2"} 3"#]);
        assert!(push(&mut groups, "job/a", Method::Add, "", TWO).is_empty());
    }

    #[test]
    fn a_type_may_change_between_pushes() {
        let mut groups = Groups::default();
        push(&mut groups, "job/a", Method::Add, "# TYPE x summary\nx_sum 1\nx_count 2\n", ONE);
        let page = "# TYPE x histogram\nx_bucket{le=\"+Inf\"} 2\nx_sum 1\nx_count 2\n";
        let lines = push(&mut groups, "job/a", Method::Add, page, TWO);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| !line.ends_with("stale")), "{lines:?}");
    }

    #[test]
    fn deleting_ends_every_series() {
        let mut groups = Groups::default();
        push(&mut groups, "job/a", Method::Replace, "x 1\n", ONE);
        push(&mut groups, "job/b", Method::Replace, "x 1\n", ONE);
        let key = parse_path("job/a").unwrap();
        let change = groups.delete(&key, TWO).unwrap().unwrap();
        assert_eq!(change.points.len(), 3);
        assert!(change.points.iter().all(|point| is_stale(point.value)));
        groups.commit(change);
        assert_eq!(groups.iter().count(), 1);
        assert!(groups.delete(&key, TWO).unwrap().is_none());
    }

    #[test]
    fn push_times_are_those_of_the_gateway() {
        let mut groups = Groups::default();
        let key = parse_path("job/a").unwrap();
        push(&mut groups, "job/a", Method::Replace, "push_time_seconds 99\n", ONE);
        groups.fail(&key, TWO);
        let points = groups.points(TWO).unwrap();
        let values: Vec<_> = points.iter().map(|point| (point.key.name(), point.value)).collect();
        assert_eq!(values, [("push_time_seconds", 1.0), ("push_failure_time_seconds", 2.0)]);
        // A failed push to a group that is not there makes one, as the original does.
        groups.fail(&parse_path("job/new").unwrap(), TWO);
        assert_eq!(groups.iter().count(), 2);
    }

    #[test]
    fn wrong_pushes_change_nothing() {
        #[track_caller]
        fn refused(page: &str, reason: &str) {
            let groups = Groups::default();
            let error = change(&groups, "job/a/k/1", Method::Replace, page, ONE).unwrap_err().to_string();
            assert!(error.starts_with("pushed metrics are invalid or inconsistent"), "{error}");
            assert!(error.contains(reason), "{error}");
        }
        refused("x 1 1000\n", "x has a timestamp");
        refused("x 1\nx 2\n", "collected before");
        refused("x{k=\"1\"} 1\nx{k=\"2\"} 1\n", "collected before");
    }
}
