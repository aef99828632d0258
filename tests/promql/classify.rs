//! Which group a case belongs to: plain floats, experimental parts of the language, native histograms.

use std::collections::HashSet;

use super::script::{Command, Eval, Item, Session};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Float,
    Experimental,
    NativeHistogram,
}

const EXPERIMENTAL: [&str; 20] = [
    "limitk",
    "limit_ratio",
    "double_exponential_smoothing",
    "info",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "start",
    "end",
    "start_timestamp",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "first_over_time",
    "sort_by_label",
    "sort_by_label_desc",
    "histogram_quantiles",
];

const EXPERIMENTAL_FILES: [&str; 3] = ["duration_expression.test", "limit.test", "type_and_unit.test"];

/// The groups of the `eval`s of a session, in order.
pub(crate) fn groups(file: &str, session: &Session) -> Vec<Group> {
    let mut histograms: HashSet<String> = HashSet::new();
    let mut any_histogram = false;
    let mut groups = Vec::new();
    for command in session {
        match command {
            Command::Load(load) => {
                for series in &load.series {
                    let name = series.labels.name();
                    if series.items.contains(&Item::Histogram) {
                        histograms.insert(name.to_owned());
                        any_histogram = true;
                    }
                    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                    if let Some(base) = base.filter(|_| load.nhcb) {
                        histograms.insert(base.to_owned());
                        any_histogram = true;
                    }
                }
            }
            Command::Eval(eval) => groups.push(group(file, eval, &histograms, any_histogram)),
        }
    }
    groups
}

fn group(file: &str, eval: &Eval, histograms: &HashSet<String>, any_histogram: bool) -> Group {
    let (stripped, quoted) = strip_strings(&eval.query);
    let mentions = words(&stripped).any(|(_, word)| histograms.contains(word))
        || quoted.iter().any(|text| histograms.contains(text));
    let expects = eval.series.iter().any(|series| series.items.contains(&Item::Histogram));
    if expects || mentions || (any_histogram && is_nameless(&eval.query)) {
        return Group::NativeHistogram;
    }
    if EXPERIMENTAL_FILES.contains(&file) || uses_experimental(&stripped) {
        return Group::Experimental;
    }
    Group::Float
}

fn uses_experimental(stripped: &str) -> bool {
    words(stripped).any(|(at, word)| {
        let after = stripped[at + word.len()..].trim_start();
        let called = after.starts_with('(') || after.starts_with("by") || after.starts_with("without");
        let preprocessor = matches!(word, "start" | "end") && stripped[..at].trim_end().ends_with('@');
        called && !preprocessor && EXPERIMENTAL.contains(&word)
    })
}

/// Words with their places; a colon belongs to a word.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(move |c| !belongs(c))
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
        .filter(|(_, word)| word.starts_with(|c: char| !c.is_ascii_digit()))
}

/// A brace that does not follow a name.
fn is_nameless(query: &str) -> bool {
    query
        .match_indices('{')
        .any(|(at, _)| !query[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '}')))
}

/// The query with empty strings in place of its strings, and their contents.
fn strip_strings(query: &str) -> (String, Vec<String>) {
    let (mut stripped, mut quoted) = (String::new(), Vec::new());
    let mut rest = query;
    while let Some(at) = rest.find(['"', '\'', '`']) {
        let quote = rest.as_bytes()[at];
        let mut end = at + 1;
        while end < rest.len() && rest.as_bytes()[end] != quote {
            end += if rest.as_bytes()[end] == b'\\' && quote != b'`' { 2 } else { 1 };
        }
        stripped.push_str(&rest[..at]);
        stripped.push_str("\"\"");
        quoted.push(rest[at + 1..end].to_owned());
        rest = &rest[end + 1..];
    }
    stripped.push_str(rest);
    (stripped, quoted)
}
