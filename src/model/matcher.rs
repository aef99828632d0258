//! Predicates over metric names and tags, by which series are selected.

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex_automata::hybrid::dfa::DFA;
use regex_automata::meta;
use regex_automata::util::syntax;

use crate::error::{Error, Result};
use crate::model::SeriesKey;

/// The key under which matchers reach the metric name.
pub const NAME_KEY: &str = "__name__";

/// A regular expression (RE2 syntax as the `regex` crate has it), anchored at both ends.
#[derive(Clone)]
pub struct Regex {
    pattern: Arc<str>,
    compiled: Arc<meta::Regex>,
    automaton: Arc<OnceLock<Option<DFA>>>,
}

/// Memory for the states of one automaton while it is walked, in bytes.
const AUTOMATON_SIZE_MAX: usize = 2 << 20;

fn syntax() -> syntax::Config {
    syntax::Config::new().dot_matches_new_line(true)
}

fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

impl Regex {
    /// Compiles `pattern`, which must match the whole of a value; a dot also matches a newline.
    ///
    /// # Errors
    /// `InvalidInput` with the reason when the pattern does not compile or would take more than 10 MiB.
    pub fn new(pattern: &str) -> Result<Self> {
        let config = meta::Regex::config().nfa_size_limit(Some(10 << 20)).onepass_size_limit(Some(1 << 20));
        let compiled =
            meta::Regex::builder().configure(config).syntax(syntax()).build(&anchored(pattern)).map_err(
                |error| {
                    let reason = error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string);
                    Error::invalid_input(format!("regular expression {pattern:?}: {reason}"))
                },
            )?;
        Ok(Regex { pattern: pattern.into(), compiled: Arc::new(compiled), automaton: Arc::default() })
    }

    /// The pattern as it was given, without anchors.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Memory of the compiled expression, in bytes.
    #[cfg(feature = "promql")]
    pub(crate) fn memory_size(&self) -> usize {
        self.compiled.memory_usage()
    }

    /// Whether it matches the whole of `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// The same expression as an automaton that sorted texts are walked with, built when first asked for;
    /// none when there is no such automaton. It never forgets a state: when its states outgrow their
    /// memory, it gives up.
    pub(crate) fn automaton(&self) -> Option<&DFA> {
        let build = || {
            let config = DFA::config().cache_capacity(AUTOMATON_SIZE_MAX).minimum_cache_clear_count(Some(0));
            DFA::builder().configure(config).syntax(syntax()).build(&anchored(&self.pattern)).ok()
        };
        self.automaton.get_or_init(build).as_ref()
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.pattern)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

/// What the value of one tag (or the metric name) must be. An absent tag has the empty value.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// This very value. Equal to the empty string: absent.
    Equal(String),
    /// Any other value, absence included unless the string is empty.
    NotEqual(String),
    /// One of these values.
    In(Vec<String>),
    /// A value that the expression matches whole.
    Regex(Regex),
    /// A value that the expression does not match.
    NotRegex(Regex),
    /// Any value at all.
    Present,
    /// No value.
    Absent,
}

impl Match {
    /// Equal to `value`.
    pub fn equal(value: impl Into<String>) -> Self {
        Match::Equal(value.into())
    }

    /// Not equal to `value`.
    pub fn not_equal(value: impl Into<String>) -> Self {
        Match::NotEqual(value.into())
    }

    /// One of `values`.
    pub fn any_of<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        Match::In(values.into_iter().map(Into::into).collect())
    }

    /// Matched whole by the regular expression `pattern`.
    ///
    /// # Errors
    /// `InvalidInput` when the pattern does not compile.
    pub fn regex(pattern: &str) -> Result<Self> {
        Ok(Match::Regex(Regex::new(pattern)?))
    }

    /// Not matched by the regular expression `pattern`.
    ///
    /// # Errors
    /// `InvalidInput` when the pattern does not compile.
    pub fn not_regex(pattern: &str) -> Result<Self> {
        Ok(Match::NotRegex(Regex::new(pattern)?))
    }

    /// Whether `value` (empty: absent) satisfies it.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Match::Equal(wanted) => value == wanted,
            Match::NotEqual(refused) => value != refused,
            Match::In(wanted) => wanted.iter().any(|w| w == value),
            Match::Regex(regex) => regex.is_match(value),
            Match::NotRegex(regex) => !regex.is_match(value),
            Match::Present => !value.is_empty(),
            Match::Absent => value.is_empty(),
        }
    }

    /// Whether a series without the tag satisfies it.
    pub fn matches_absent(&self) -> bool {
        self.matches("")
    }
}

impl From<&str> for Match {
    fn from(value: &str) -> Self {
        Match::Equal(value.to_owned())
    }
}

impl From<String> for Match {
    fn from(value: String) -> Self {
        Match::Equal(value)
    }
}

/// One tag key and what its value must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Matcher {
    /// The tag's key, or [`NAME_KEY`] for the metric name.
    pub key: String,
    /// What its value must be.
    pub condition: Match,
}

/// Which series: all matchers must hold. Without matchers: every series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// The matchers, in the order given.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// Every series.
    pub fn all() -> Self {
        Selector::default()
    }

    /// Series of the metric `name`.
    pub fn name(name: impl Into<Match>) -> Self {
        Selector::default().with(NAME_KEY, name)
    }

    /// The same, and tag `key` must satisfy `condition`.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, condition: impl Into<Match>) -> Self {
        self.matchers.push(Matcher { key: key.into(), condition: condition.into() });
        self
    }

    /// Whether the series `key` satisfies every matcher.
    pub fn matches(&self, key: &SeriesKey) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = if matcher.key == NAME_KEY { key.name() } else { key.tag(&matcher.key) };
            matcher.condition.matches(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_expressions_are_anchored() {
        let regex = Regex::new("web.*|db").unwrap();
        assert!(regex.is_match("web-1") && regex.is_match("db"));
        assert!(!regex.is_match("dbx") && !regex.is_match("my-web"));
        assert!(Regex::new("(").unwrap_err().to_string().contains("regular expression"));
    }

    #[test]
    fn an_absent_tag_is_an_empty_one() {
        let key = SeriesKey::new("up", [("host", "a")]).unwrap();
        assert!(Selector::name("up").with("rack", "").matches(&key));
        assert!(Selector::name("up").with("rack", Match::Absent).matches(&key));
        assert!(Selector::name("up").with("host", Match::Present).matches(&key));
        assert!(Selector::name("up").with("rack", Match::regex(".*").unwrap()).matches(&key));
        assert!(!Selector::name("up").with("rack", Match::regex(".+").unwrap()).matches(&key));
    }
}
