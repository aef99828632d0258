//! `info(v)`: adds the labels of info metrics, such as `target_info`, to the series they belong to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ast::LabelMatcher;
use super::eval::{Evaluator, Sink};
use super::merge::Merger;
use super::plan::{Input, Moved, Node, Select, to_selector};
use super::steps::{Series, Steps, is_absent};
use crate::error::{Error, Result};
use crate::model::{Match, Matcher, NAME_KEY, Selector};
use crate::promql::Labels;

/// The labels by which an info series belongs to others.
const IDENTIFYING_KEYS: [&str; 2] = ["instance", "job"];

/// The info metric when none is named.
const DEFAULT_METRIC: &str = "target_info";

pub(super) fn info(
    eval: &Evaluator<'_>,
    input: &Node,
    matchers: &[LabelMatcher],
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let held = eval.budget.hold();
    let base = eval.collect(input, steps, &held)?;
    let (names, data): (Vec<_>, Vec<_>) = matchers.iter().cloned().partition(|m| m.name == NAME_KEY);
    let is_info = |labels: &Labels| match &names[..] {
        [] if matchers.is_empty() => labels.name() == DEFAULT_METRIC,
        [] => false,
        names => names.iter().all(|m| m.condition.matches(labels.name())),
    };
    let infos = Infos::read(eval, input, &base, &is_info, &names, &data, steps)?;
    let mut merger = Merger::new(&held);
    for series in base {
        if is_info(&series.labels) {
            merger.add(series)?;
            continue;
        }
        for part in infos.enrich(&series, &data, steps)? {
            merger.add(part)?;
        }
    }
    merger.into_series().into_iter().try_for_each(sink)
}

/// The info series, by metric and identifying labels.
struct Infos {
    labels: Vec<Labels>,
    /// For each metric name and identity: which series is the newest at each step.
    newest: BTreeMap<String, HashMap<Vec<u8>, Vec<Option<usize>>>>,
}

impl Infos {
    fn read(
        eval: &Evaluator<'_>,
        input: &Node,
        base: &[Series],
        is_info: &dyn Fn(&Labels) -> bool,
        names: &[LabelMatcher],
        data: &[LabelMatcher],
        steps: Steps,
    ) -> Result<Self> {
        let mut infos = Infos { labels: Vec::new(), newest: BTreeMap::new() };
        let Some(selector) = selector(base, is_info, names, data) else { return Ok(infos) };
        let select = Select::hidden(selector, first_moved(input));
        let mut times: Vec<Vec<f64>> = Vec::new();
        eval.select(&select, steps, true, &mut |series| {
            let index = infos.labels.len();
            let by_identity = infos.newest.entry(series.labels.name().to_owned()).or_default();
            let newest =
                by_identity.entry(identity(&series.labels)).or_insert_with(|| vec![None; steps.count]);
            for (step, time) in series.values.iter().enumerate().filter(|(_, t)| !is_absent(**t)) {
                let Some(known) = newest[step] else {
                    newest[step] = Some(index);
                    continue;
                };
                let known_time = times[known][step];
                if known_time < *time {
                    newest[step] = Some(index);
                } else if known_time == *time {
                    let (a, b) = (&infos.labels[known], &series.labels);
                    let millis = (time * 1000.0).round();
                    return Err(Error::invalid_input(format!(
                        "found duplicate series for info metric: existing {a} @ {millis}, new {b} @ {millis}"
                    )));
                }
            }
            infos.labels.push(series.labels);
            times.push(series.values);
            Ok(())
        })?;
        Ok(infos)
    }

    /// The series with the labels of its info series added, parted where those change.
    fn enrich(&self, series: &Series, data: &[LabelMatcher], steps: Steps) -> Result<Vec<Series>> {
        let identity = identity(&series.labels);
        let found: Vec<&Vec<Option<usize>>> = self.newest.values().filter_map(|m| m.get(&identity)).collect();
        let mut parts: BTreeMap<Vec<Option<usize>>, Option<Series>> = BTreeMap::new();
        for step in 0..steps.count {
            if is_absent(series.values[step]) {
                continue;
            }
            let combination: Vec<Option<usize>> = found.iter().map(|newest| newest[step]).collect();
            if !parts.contains_key(&combination) {
                let labels = self.enriched_labels(&series.labels, &combination, data)?;
                let part = labels.map(|labels| Series { labels, values: steps.absent(), ..*series });
                parts.insert(combination.clone(), part);
            }
            if let Some(Some(part)) = parts.get_mut(&combination) {
                part.values[step] = series.values[step];
            }
        }
        Ok(parts.into_values().flatten().collect())
    }

    /// `None` where there is no info series and the matchers want one.
    fn enriched_labels(
        &self,
        base: &Labels,
        combination: &[Option<usize>],
        data: &[LabelMatcher],
    ) -> Result<Option<Labels>> {
        let mut added = super::labels::LabelsBuilder::default();
        let mut any = false;
        for info in combination.iter().flatten().filter_map(|index| self.labels.get(*index)) {
            any = true;
            for (key, value) in info.labels() {
                if !data.is_empty() && !data.iter().any(|m| m.name == key) {
                    continue;
                }
                if !added.get(key).is_empty() && added.get(key) != value {
                    return Err(Error::invalid_input(format!("conflicting label: {key}")));
                }
                if base.get(key).is_empty() {
                    added.set(key, value);
                }
            }
        }
        if !any && data.iter().any(|m| !m.condition.matches_absent()) {
            return Ok(None);
        }
        let mut builder = base.to_builder();
        for (key, value) in added.build().labels() {
            builder.set(key, value);
        }
        Ok(Some(builder.build()))
    }
}

/// Name and identifying labels.
fn identity(labels: &Labels) -> Vec<u8> {
    let mut key = Vec::new();
    labels.write_if(|k| IDENTIFYING_KEYS.contains(&k), &mut key);
    key
}

/// Info series that can belong to any of `base`; `None` when no series has an identifying label.
fn selector(
    base: &[Series],
    is_info: &dyn Fn(&Labels) -> bool,
    names: &[LabelMatcher],
    data: &[LabelMatcher],
) -> Option<Selector> {
    let mut selector = if names.is_empty() { Selector::name(DEFAULT_METRIC) } else { to_selector(names) };
    let mut identified = false;
    for key in IDENTIFYING_KEYS {
        let wanted: BTreeSet<&str> = base
            .iter()
            .filter(|series| !is_info(&series.labels))
            .map(|series| series.labels.get(key))
            .filter(|value| !value.is_empty())
            .collect();
        if !wanted.is_empty() {
            identified = true;
            selector.matchers.push(Matcher { key: key.to_owned(), condition: Match::any_of(wanted) });
        }
    }
    selector.matchers.extend(to_selector(data).matchers);
    identified.then_some(selector)
}

/// The offset and time of the first selector below `node`, which hold for the info series as well.
fn first_moved(node: &Node) -> Moved {
    let still = Moved { at: None, offset: 0 };
    match node {
        Node::Select(select) => select.moved,
        Node::Matrix(windowed) => windowed.moved,
        Node::Window(call) => match &call.windowed.input {
            Input::Select(..) => call.windowed.moved,
            Input::Subquery { node, .. } => first_moved(node),
        },
        Node::Call(call) => call.args.iter().find(|arg| reads(arg)).map_or(still, first_moved),
        Node::Aggregate(aggregate) => first_moved(&aggregate.input),
        Node::Binary(binary) if reads(&binary.left) => first_moved(&binary.left),
        Node::Binary(binary) => first_moved(&binary.right),
        Node::Negate(inner) | Node::Once(inner) => first_moved(inner),
        Node::Number(_) | Node::Text(_) | Node::Time => still,
    }
}

fn reads(node: &Node) -> bool {
    match node {
        Node::Number(_) | Node::Text(_) | Node::Time => false,
        Node::Select(_) | Node::Matrix(_) | Node::Window(_) => true,
        Node::Call(call) => call.args.iter().any(reads),
        Node::Aggregate(aggregate) => reads(&aggregate.input),
        Node::Binary(binary) => reads(&binary.left) || reads(&binary.right),
        Node::Negate(inner) | Node::Once(inner) => reads(inner),
    }
}
