//! `label_replace` and `label_join`.

use regex_automata::meta;
use regex_automata::util::{captures::Captures, interpolate, syntax};

use super::eval::{Evaluator, Sink};
use super::format::quote;
use super::merge::Merger;
use super::plan::Node;
use super::steps::{Series, Steps};
use crate::error::{Error, Result};
use crate::model::NAME_KEY;
use crate::promql::Labels;

/// Longest label value that a query makes, in bytes: nested calls could double it each time.
const LABEL_SIZE_MAX: usize = 1 << 20;

#[cold]
fn label_too_long() -> Error {
    Error::limit_exceeded(format!("a label would be longer than {LABEL_SIZE_MAX} bytes"))
}

/// Applies `change` to the labels of each series; those that become equal must never meet.
pub(super) fn relabel(
    eval: &Evaluator<'_>,
    input: &Node,
    steps: Steps,
    sink: &mut Sink<'_>,
    change: &dyn Fn(Labels, bool) -> Result<(Labels, bool)>,
) -> Result<()> {
    let held = eval.budget.hold();
    let mut merger = Merger::new(&held);
    eval.vector(input, steps, &mut |series| {
        let (labels, drop_name) = change(series.labels, series.drop_name)?;
        merger.add(Series { labels, drop_name, values: series.values })
    })?;
    merger.into_series().into_iter().try_for_each(sink)
}

/// The text of argument `index`.
fn text(args: &[Vec<u8>], index: usize) -> String {
    args.get(index).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// A label name: any UTF-8 that is not empty.
pub(super) fn label_name(bytes: Option<&Vec<u8>>, refusal: impl Fn(&str) -> String) -> Result<String> {
    let bytes = bytes.map(Vec::as_slice).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(Error::invalid_input(refusal(&String::from_utf8_lossy(bytes)))),
    }
}

/// `label_replace(v, target, replacement, source, regex)`.
#[derive(Debug)]
pub(super) struct LabelReplace {
    target: String,
    replacement: String,
    source: String,
    regex: meta::Regex,
}

impl LabelReplace {
    /// From the four strings of the call.
    pub(super) fn new(args: &[Vec<u8>]) -> Result<Self> {
        let pattern = text(args, 3);
        let config = meta::Regex::config().nfa_size_limit(Some(10 << 20)).onepass_size_limit(Some(1 << 20));
        let regex = meta::Regex::builder()
            .configure(config)
            .syntax(syntax::Config::new().dot_matches_new_line(true))
            .build(&format!("^(?:{pattern})$"))
            .map_err(|_| {
                Error::invalid_input(format!("invalid regular expression in label_replace(): {pattern}"))
            })?;
        let target = label_name(args.first(), |name| {
            format!("invalid destination label name in label_replace(): {name}")
        })?;
        Ok(LabelReplace { target, replacement: text(args, 1), source: text(args, 2), regex })
    }

    /// Memory of the compiled expression.
    pub(super) fn regex_size(&self) -> usize {
        self.regex.memory_usage()
    }

    /// The changed labels, and whether their name still goes.
    pub(super) fn apply(&self, labels: Labels, drop_name: bool) -> Result<(Labels, bool)> {
        let mut captures: Captures = self.regex.create_captures();
        let value = labels.get(&self.source);
        self.regex.captures(value, &mut captures);
        if !captures.is_match() {
            return Ok((labels, drop_name));
        }
        let (mut replaced, mut too_long) = (String::new(), false);
        interpolate::string(
            &self.replacement,
            |index, out| {
                let group =
                    captures.get_group(index).and_then(|span| value.get(span.range())).unwrap_or_default();
                too_long |= out.len() + group.len() > LABEL_SIZE_MAX;
                if !too_long {
                    out.push_str(group);
                }
            },
            |name| captures.group_info().to_index(captures.pattern()?, name),
            &mut replaced,
        );
        if too_long {
            return Err(label_too_long());
        }
        with_label(&labels, &self.target, &replaced, drop_name)
    }
}

/// Sets a label; a name that was set on purpose stays.
fn with_label(labels: &Labels, target: &str, value: &str, drop_name: bool) -> Result<(Labels, bool)> {
    if value.len() > LABEL_SIZE_MAX {
        return Err(label_too_long());
    }
    let mut builder = labels.to_builder();
    builder.set(target, value);
    Ok((builder.build(), drop_name && target != NAME_KEY))
}

/// `label_join(v, target, separator, source...)`.
#[derive(Debug)]
pub(super) struct LabelJoin {
    target: String,
    separator: String,
    sources: Vec<String>,
}

impl LabelJoin {
    /// From the strings of the call.
    pub(super) fn new(args: &[Vec<u8>]) -> Result<Self> {
        let target = label_name(args.first(), |name| {
            format!("invalid destination label name in label_join(): {name}")
        })?;
        let source = |bytes: &Vec<u8>| {
            label_name(Some(bytes), |name| {
                format!("invalid source label name in label_join(): {}", quote(name.as_bytes()))
            })
        };
        let sources = args.iter().skip(2).map(source).collect::<Result<Vec<_>>>()?;
        Ok(LabelJoin { target, separator: text(args, 1), sources })
    }

    /// The changed labels, and whether their name still goes.
    pub(super) fn apply(&self, labels: Labels, drop_name: bool) -> Result<(Labels, bool)> {
        let values: Vec<&str> = self.sources.iter().map(|source| labels.get(source)).collect();
        let size: usize = values.iter().map(|value| value.len() + self.separator.len()).sum();
        if size > LABEL_SIZE_MAX + self.separator.len() {
            return Err(label_too_long());
        }
        let joined = values.join(&self.separator);
        with_label(&labels, &self.target, &joined, drop_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[test]
    fn groups_are_put_into_the_replacement() {
        let replace = LabelReplace::new(&args(&["dst", "<$1-${2}$$>", "src", "(a+)(?P<n>b*)"])).unwrap();
        let (labels, drop_name) = replace.apply(Labels::new("m", [("src", "aab")]), true).unwrap();
        assert_eq!(labels.get("dst"), "<aa-b$>");
        assert!(drop_name);
        let other = Labels::new("m", [("src", "x")]);
        assert_eq!(replace.apply(other.clone(), true).unwrap().0, other);
    }

    #[test]
    fn a_name_that_was_set_stays() {
        let join = LabelJoin::new(&args(&["__name__", "_", "a", "b"])).unwrap();
        let (labels, drop_name) = join.apply(Labels::new("m", [("a", "1"), ("b", "2")]), true).unwrap();
        assert_eq!((labels.name(), drop_name), ("1_2", false));
    }

    #[test]
    fn labels_do_not_grow_without_end() {
        let replace = LabelReplace::new(&args(&["l", "$1$1", "l", "(.*)"])).unwrap();
        let mut labels = Labels::new("m", [("l", "x")]);
        let error = (0..64).find_map(|_| match replace.apply(labels.clone(), false) {
            Ok((longer, _)) => {
                labels = longer;
                None
            }
            Err(error) => Some(error),
        });
        assert_eq!(error.unwrap().kind(), crate::ErrorKind::LimitExceeded);
    }

    #[test]
    fn wrong_names_and_expressions_are_refused() {
        assert!(LabelReplace::new(&args(&["dst", "", "src", "("])).is_err());
        assert!(LabelReplace::new(&[b"\xff".to_vec(), vec![], vec![], vec![]]).is_err());
        assert!(LabelJoin::new(&args(&["", "-", "a"])).is_err());
    }
}
