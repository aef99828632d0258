//! Tags of a session's metrics: lists of strings, as clients send them, and the tags of series that they become.

use std::borrow::Cow;

use crate::protocol::label::{BARE_TAG_VALUE, export_reserved, join_tags, split_tag};

/// The tag that every series of a session carries.
pub(super) const SESSION_KEY: &str = "session";
/// Keys that the layers above the engine set themselves. A user's own tag of such a key gets `exported_` before it.
const RESERVED_KEYS: [&str; 2] = [SESSION_KEY, "project"];
const EXPORTED: &str = "exported_";

/// Tags of a metric without any.
pub const NO_TAGS: [&str; 0] = [];

/// One tag of a session's metric: a string, or a key and a value.
///
/// The string `"endpoint:users"` is the tag `endpoint="users"`, the first colon splits; `"api"` is `api="true"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionTag<'a> {
    /// `key:value`, or a key alone.
    Text(Cow<'a, str>),
    /// A key and its value.
    Pair(Cow<'a, str>, Cow<'a, str>),
}

impl<'a> From<&'a str> for SessionTag<'a> {
    fn from(text: &'a str) -> Self {
        SessionTag::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for SessionTag<'a> {
    fn from(text: &'a String) -> Self {
        SessionTag::Text(Cow::Borrowed(text))
    }
}

impl From<String> for SessionTag<'_> {
    fn from(text: String) -> Self {
        SessionTag::Text(Cow::Owned(text))
    }
}

impl<'a, K: Into<Cow<'a, str>>, V: Into<Cow<'a, str>>> From<(K, V)> for SessionTag<'a> {
    fn from((key, value): (K, V)) -> Self {
        SessionTag::Pair(key.into(), value.into())
    }
}

impl SessionTag<'_> {
    /// The tag as one string of a list.
    pub(super) fn text(&self) -> String {
        match self {
            SessionTag::Text(text) => text.to_string(),
            SessionTag::Pair(key, value) => format!("{key}:{value}"),
        }
    }

    /// A copy that borrows nothing.
    pub(super) fn to_static(&self) -> SessionTag<'static> {
        let owned = |text: &Cow<'_, str>| Cow::Owned(text.to_string());
        match self {
            SessionTag::Text(text) => SessionTag::Text(owned(text)),
            SessionTag::Pair(key, value) => SessionTag::Pair(owned(key), owned(value)),
        }
    }

    fn pair(&self) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
        match self {
            SessionTag::Text(text) => {
                split_tag(text).map(|(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)))
            }
            SessionTag::Pair(key, value) => {
                Some((Cow::Borrowed(key.as_ref()), Cow::Borrowed(value.as_ref())))
            }
        }
    }
}

/// The tags of the series: sorted, one for each key, the values of a repeated key joined by commas.
pub(super) fn series_tags<'a>(list: &'a [SessionTag<'_>]) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let mut pairs: Vec<_> = list.iter().filter_map(SessionTag::pair).collect();
    export_reserved(&mut pairs, &RESERVED_KEYS);
    join_tags(pairs)
}

/// The list that series with these tags are taken to have come from, where none was written down: `SESSION_KEY` aside.
pub(super) fn list_of<'a>(tags: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let text = |(key, value): (&str, &str)| {
        let stripped = key.strip_prefix(EXPORTED).filter(|key| RESERVED_KEYS.contains(key));
        let key = stripped.unwrap_or(key);
        if value == BARE_TAG_VALUE { key.to_owned() } else { format!("{key}:{value}") }
    };
    tags.filter(|(key, _)| *key != SESSION_KEY).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &[SessionTag<'_>], tags: &[(&str, &str)], back: &[&str]) {
        let found = series_tags(list);
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        assert_eq!(found, tags);
        assert_eq!(list_of(found.into_iter()), back);
    }

    #[test]
    fn lists_become_tags_and_back() {
        check(&["api".into(), "v2".into()], &[("api", "true"), ("v2", "true")], &["api", "v2"]);
        check(
            &["user".into(), "endpoint:users".into(), "url:http://x".into()],
            &[("endpoint", "users"), ("url", "http://x"), ("user", "true")],
            &["endpoint:users", "url:http://x", "user"],
        );
        check(&["k:b".into(), "k:a".into(), "k:b".into()], &[("k", "b,a,b")], &["k:b,a,b"]);
        check(&[("endpoint", "users").into()], &[("endpoint", "users")], &["endpoint:users"]);
        check(&[":v".into(), "k:".into(), "".into()], &[("v", "true")], &["v"]);
    }

    #[test]
    fn keys_of_ours_are_exported() {
        check(
            &["session:mine".into(), ("project", "p").into()],
            &[("exported_project", "p"), ("exported_session", "mine")],
            &["project:p", "session:mine"],
        );
        check(
            &["exported_session:a".into(), "session:b".into()],
            &[("exported_session", "a,b")],
            &["session:a,b"],
        );
        assert_eq!(list_of([("session", "x"), ("api", "true")].into_iter()), ["api"]);
    }
}
