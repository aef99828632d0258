//! Warnings and infos that a query collects, worded and placed as Prometheus does.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::ast::Span;
use super::format::{general, quote};

/// Most warnings, and most infos, that one answer lists.
const LISTED_MAX: usize = 10;
/// Most that are collected before further ones are only counted.
const COLLECTED_MAX: usize = 10_000;

/// What was noted so far: each text once.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    warnings: RefCell<BTreeSet<Note>>,
    infos: RefCell<BTreeSet<Note>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    start: usize,
    message: String,
}

impl Annotations {
    fn add(set: &RefCell<BTreeSet<Note>>, message: String, span: Span) {
        let mut set = set.borrow_mut();
        if set.len() < COLLECTED_MAX {
            set.insert(Note { start: span.start, message });
        }
    }

    fn warn(&self, message: String, span: Span) {
        Self::add(&self.warnings, format!("PromQL warning: {message}"), span);
    }

    fn info(&self, message: String, span: Span) {
        Self::add(&self.infos, format!("PromQL info: {message}"), span);
    }

    pub(super) fn invalid_quantile(&self, quantile: f64, span: Span) {
        self.warn(format!("quantile value should be between 0 and 1, got {}", general(quantile)), span);
    }

    pub(super) fn invalid_ratio(&self, ratio: f64, capped: f64, span: Span) {
        let (ratio, capped) = (general(ratio), general(capped));
        self.warn(format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}"), span);
    }

    pub(super) fn bad_bucket_label(&self, metric: &str, value: &str, span: Span) {
        let value = quote(value.as_bytes());
        let message = format!("bucket label \"le\" is missing or has a malformed value of {value}");
        self.warn(for_metric(message, metric), span);
    }

    pub(super) fn possible_non_counter(&self, metric: &str, span: Span) {
        let metric = quote(metric.as_bytes());
        self.info(
            format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {metric}"
            ),
            span,
        );
    }

    pub(super) fn possible_non_counter_type(&self, metric: &str, kind: &str, span: Span) {
        let (metric, kind) = (quote(metric.as_bytes()), quote(kind.as_bytes()));
        self.info(
            format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", \
                 got {kind}: {metric}"
            ),
            span,
        );
    }

    pub(super) fn forced_monotonicity(&self, metric: &str, span: Span) {
        let message = "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        self.info(for_metric(message.to_owned(), metric), span);
    }

    /// Warnings and infos, with their places in `query`.
    pub(super) fn into_texts(self, query: &str) -> (Vec<String>, Vec<String>) {
        (texts(self.warnings, query, "warning"), texts(self.infos, query, "info"))
    }
}

fn for_metric(message: String, metric: &str) -> String {
    if metric.is_empty() {
        return message;
    }
    format!("{message} for metric name {}", quote(metric.as_bytes()))
}

fn texts(notes: RefCell<BTreeSet<Note>>, query: &str, kind: &str) -> Vec<String> {
    let notes = notes.into_inner();
    let total = notes.len();
    let placed = |note: Note| {
        if query.is_empty() {
            return note.message;
        }
        let place = Span { start: note.start, end: note.start }.position(query);
        format!("{} ({place})", note.message)
    };
    let mut out: Vec<String> = notes.into_iter().take(LISTED_MAX).map(placed).collect();
    if total > LISTED_MAX {
        out.push(format!("{} more {kind} annotations omitted", total - LISTED_MAX));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_listed_once_with_its_place() {
        let notes = Annotations::default();
        let span = Span { start: 5, end: 9 };
        notes.invalid_quantile(1.5, span);
        notes.invalid_quantile(1.5, span);
        notes.possible_non_counter("a", span);
        let (warnings, infos) = notes.into_texts("a +\n b");
        assert_eq!(warnings, ["PromQL warning: quantile value should be between 0 and 1, got 1.5 (2:2)"]);
        assert_eq!(infos.len(), 1);
        assert!(infos[0].ends_with(r#"_total/_sum/_count/_bucket: "a" (2:2)"#));
    }

    #[test]
    fn long_lists_are_cut() {
        let notes = Annotations::default();
        for n in 0..15 {
            notes.invalid_quantile(f64::from(n) + 2.0, Span::default());
        }
        let (warnings, _) = notes.into_texts("x");
        assert_eq!(warnings.len(), 11);
        assert_eq!(warnings[10], "5 more warning annotations omitted");
    }
}
