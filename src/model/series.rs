//! The key of a series: its metric name and tag set, in one canonical string of bytes.
//!
//! Layout (see `docs/format.md`, "Series keys"): the name, then for each tag in order of its key
//! `0xFF key 0xFE value`. Neither byte occurs in UTF-8, so the layout is unambiguous for any names,
//! and equal series have equal bytes.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::NAME_KEY;

/// Longest metric name, in bytes.
pub const NAME_SIZE_MAX: usize = 1024;
/// Longest tag key, in bytes.
pub const TAG_KEY_SIZE_MAX: usize = 1024;
/// Longest tag value, in bytes.
pub const TAG_VALUE_SIZE_MAX: usize = 16 * 1024;
/// Most tags of one series.
pub const TAG_COUNT_MAX: usize = 128;
/// Longest series key, in bytes: name, keys and values with one separator byte before each.
pub const SERIES_KEY_SIZE_MAX: usize = 32 * 1024;

const KEY_MARK: u8 = 0xFF;
const VALUE_MARK: u8 = 0xFE;

/// Metric name and tag set of a series: canonical, immutable, cheap to clone.
///
/// Ordered by its bytes: by name first, then by tags. A series is a key together with a
/// [`ValueType`](crate::ValueType).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey(Arc<[u8]>);

impl SeriesKey {
    /// Builds the key of `name` and `tags`, given in any order. Tags with an empty value are left out.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name, an empty tag key, a tag key twice, the key `__name__`, or a name, key, value or number of tags over its limit.
    pub fn new<K, V>(name: &str, tags: impl IntoIterator<Item = (K, V)>) -> Result<Self>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut sorted: Vec<(K, V)> = tags.into_iter().filter(|(_, v)| !v.as_ref().is_empty()).collect();
        sorted.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        let mut bytes = Vec::new();
        encode_key(name, sorted.iter().map(|(k, v)| (k.as_ref(), v.as_ref())), &mut bytes)?;
        Ok(SeriesKey(bytes.into()))
    }

    /// Takes bytes in the canonical layout, as the log and blocks hold them.
    ///
    /// # Errors
    /// `Corruption` when they are not canonical.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let key = SeriesKey(bytes.into());
        let mut canonical = Vec::with_capacity(bytes.len());
        let text = |part: &[u8]| std::str::from_utf8(part).map(str::to_owned).map_err(|_| not_canonical());
        let mut parts = bytes.split(|b| *b == KEY_MARK);
        let name = text(parts.next().unwrap_or_default())?;
        let mut tags = Vec::new();
        for part in parts {
            let at = part.iter().position(|b| *b == VALUE_MARK).ok_or_else(not_canonical)?;
            let (k, v) = part.split_at(at);
            tags.push((text(k)?, text(v.get(1..).unwrap_or_default())?));
        }
        encode_key(&name, tags.iter().map(|(k, v)| (k.as_str(), v.as_str())), &mut canonical)
            .map_err(|_| not_canonical())?;
        if canonical == bytes { Ok(key) } else { Err(not_canonical()) }
    }

    /// Takes bytes that were put together in the canonical layout from checked parts.
    pub(crate) fn from_checked_bytes(bytes: &[u8]) -> Self {
        debug_assert!(SeriesKey::from_bytes(bytes).is_ok());
        SeriesKey(bytes.into())
    }

    /// The key of a group of series, put together by [`SeriesKey::write_subset`]: its name may be empty.
    pub(crate) fn of_group(bytes: Vec<u8>) -> Self {
        SeriesKey(bytes.into())
    }

    /// Appends the canonical bytes of `name` with those tags of this key that `keep` wants.
    pub(crate) fn write_subset(&self, name: &str, keep: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
        out.extend_from_slice(name.as_bytes());
        for (key, value) in self.tags().filter(|(key, _)| keep(key)) {
            out.push(KEY_MARK);
            out.extend_from_slice(key.as_bytes());
            out.push(VALUE_MARK);
            out.extend_from_slice(value.as_bytes());
        }
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The metric name.
    pub fn name(&self) -> &str {
        let end = self.0.iter().position(|b| *b == KEY_MARK).unwrap_or(self.0.len());
        part(&self.0, 0, end)
    }

    /// The bytes of the name with the mark behind it, if there are tags. Keys are in order of these first.
    pub(crate) fn name_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|b| *b == KEY_MARK).map_or(self.0.len(), |mark| mark + 1);
        self.0.get(..end).unwrap_or_default()
    }

    /// The tags as `(key, value)`, in order of the keys.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(|b| *b == KEY_MARK).skip(1).map(|tag| {
            let at = tag.iter().position(|b| *b == VALUE_MARK).unwrap_or(tag.len());
            (part(tag, 0, at), part(tag, (at + 1).min(tag.len()), tag.len()))
        })
    }

    /// The value of one tag; empty when it is absent, which is the same.
    pub fn tag(&self, key: &str) -> &str {
        self.tags().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }
}

/// The text of `bytes[start..end]`. Keys are checked when they are built, so this cannot fail.
fn part(bytes: &[u8], start: usize, end: usize) -> &str {
    bytes.get(start..end).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
}

/// Appends the canonical bytes of `name` and of `tags`, which are sorted by key, to `out`.
///
/// # Errors
/// As [`SeriesKey::new`]; `out` then holds part of the key.
pub(crate) fn encode_key<'a>(
    name: &str,
    tags: impl Iterator<Item = (&'a str, &'a str)>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let start = out.len();
    if name.is_empty() {
        return Err(Error::invalid_input("a metric name is empty"));
    }
    if name.len() > NAME_SIZE_MAX {
        return Err(too_long("metric name", name, NAME_SIZE_MAX));
    }
    out.extend_from_slice(name.as_bytes());
    let mut last: Option<&str> = None;
    for (index, (key, value)) in tags.enumerate() {
        if index == TAG_COUNT_MAX {
            return Err(Error::invalid_input(format!("metric {name:?} has more than {TAG_COUNT_MAX} tags")));
        }
        if last == Some(key) {
            return Err(Error::invalid_input(format!("metric {name:?} has tag key {key:?} twice")));
        }
        if key.is_empty() {
            return Err(Error::invalid_input(format!("metric {name:?} has a tag with an empty key")));
        }
        if key == NAME_KEY {
            return Err(Error::invalid_input(format!(
                "metric {name:?} has tag key {key:?}; that is the name itself"
            )));
        }
        if key.len() > TAG_KEY_SIZE_MAX {
            return Err(too_long("tag key", key, TAG_KEY_SIZE_MAX));
        }
        if value.len() > TAG_VALUE_SIZE_MAX {
            return Err(too_long("tag value", value, TAG_VALUE_SIZE_MAX));
        }
        if value.is_empty() || last.is_some_and(|last| last > key) {
            return Err(Error::invalid_input(format!("tags of metric {name:?} are not canonical")));
        }
        out.push(KEY_MARK);
        out.extend_from_slice(key.as_bytes());
        out.push(VALUE_MARK);
        out.extend_from_slice(value.as_bytes());
        last = Some(key);
    }
    let size = out.len() - start;
    if size > SERIES_KEY_SIZE_MAX {
        return Err(Error::invalid_input(format!(
            "name and tags of metric {name:?} take {size} bytes, more than {SERIES_KEY_SIZE_MAX}"
        )));
    }
    Ok(())
}

#[cold]
fn too_long(what: &str, text: &str, limit: usize) -> Error {
    let shown: String = text.chars().take(40).collect();
    Error::invalid_input(format!("{what} {shown:?}... takes {} bytes, more than {limit}", text.len()))
}

#[cold]
fn not_canonical() -> Error {
    Error::corrupt("a series key is not in canonical form")
}

impl fmt::Display for SeriesKey {
    /// `name{key="value",...}`, values escaped as in Rust strings; `{}` for the group of everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut tags = self.tags().peekable();
        if tags.peek().is_none() && !self.name().is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (index, (key, value)) in tags.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_tags_does_not_matter() {
        let a = SeriesKey::new("cpu", [("host", "a"), ("core", "0")]).unwrap();
        let b = SeriesKey::new("cpu", [("core", "0"), ("host", "a"), ("empty", "")]).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.to_string(), r#"cpu{core="0",host="a"}"#);
        assert_eq!(a.name(), "cpu");
        assert_eq!(a.tag("host"), "a");
        assert_eq!(a.tag("rack"), "");
        assert_eq!(SeriesKey::from_bytes(a.as_bytes()).unwrap(), a);
    }

    #[track_caller]
    fn refused(name: &str, tags: &[(&str, &str)], part: &str) {
        let error = SeriesKey::new(name, tags.iter().copied()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn wrong_keys_are_refused() {
        let long = "x".repeat(TAG_VALUE_SIZE_MAX + 1);
        refused("", &[], "empty");
        refused("a", &[("", "b")], "empty key");
        refused("a", &[("k", "1"), ("k", "2")], "twice");
        refused("a", &[("__name__", "1")], "name itself");
        refused("a", &[("k", &long)], "more than 16384");
        refused(&long[..NAME_SIZE_MAX + 1], &[], "more than 1024");
    }

    #[test]
    fn names_at_their_limit_are_taken() {
        let name = "n".repeat(NAME_SIZE_MAX);
        let value = "v".repeat(TAG_VALUE_SIZE_MAX);
        let key = SeriesKey::new(&name, [("k", &value)]).unwrap();
        assert_eq!(key.tag("k"), value);
    }

    #[test]
    fn damaged_bytes_are_no_key() {
        for bytes in [&b""[..], b"a\xFF", b"a\xFFk", b"a\xFFk\xFE", b"a\xFFb\xFE1\xFFa\xFE1", b"\x80"] {
            assert_eq!(SeriesKey::from_bytes(bytes).unwrap_err().kind(), crate::ErrorKind::Corruption);
        }
    }
}
