//! Smallest and largest value of tags, so that a look-up skips a block without loading its index.
//!
//! Called by the block writer and reader. A session id, ordered by time, meets one or two blocks of
//! hundreds. Layout in `docs/format.md`, "Bounds".

use crate::block::format::{BOUND_COUNT_MAX, BOUND_SIZE_MAX};
use crate::codec::varint::{Reader, put_bytes, put_u8, put_uvarint};
use crate::error::{Error, Result};
use crate::index::KeyStatistics;
use crate::model::{Match, Matcher, Selector, TAG_KEY_SIZE_MAX};

/// What is known of the values of one key. Texts are cut to [`BOUND_SIZE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    key: Box<str>,
    value_count: u32,
    smallest: Box<[u8]>,
    largest: Box<[u8]>,
}

/// Bounds of the tag keys of a block, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    bounds: Vec<Bound>,
    /// Whether every key of the block is here.
    complete: bool,
}

/// The start of a text that a bound keeps.
fn cut(text: &[u8]) -> &[u8] {
    text.get(..BOUND_SIZE_MAX).unwrap_or(text)
}

impl Bounds {
    /// Of the keys of a block, those with the most values when there are too many.
    pub(crate) fn new(mut keys: Vec<KeyStatistics>) -> Self {
        let complete = keys.len() <= BOUND_COUNT_MAX;
        if !complete {
            keys.sort_by_key(|key| std::cmp::Reverse(key.value_count));
            keys.truncate(BOUND_COUNT_MAX);
            keys.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let bound = |key: KeyStatistics| Bound {
            key: key.key.into(),
            value_count: key.value_count,
            smallest: cut(key.smallest.as_bytes()).into(),
            largest: cut(key.largest.as_bytes()).into(),
        };
        Bounds { bounds: keys.into_iter().map(bound).collect(), complete }
    }

    /// The bytes of the section.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u8(&mut out, u8::from(self.complete));
        put_uvarint(&mut out, self.bounds.len() as u64);
        for bound in &self.bounds {
            put_bytes(&mut out, bound.key.as_bytes());
            put_uvarint(&mut out, u64::from(bound.value_count));
            put_bytes(&mut out, &bound.smallest);
            put_bytes(&mut out, &bound.largest);
        }
        out
    }

    /// Reads the checked bytes of the section.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let complete = match reader.u8()? {
            0 => false,
            1 => true,
            flags => return Err(Error::corrupt(format!("the flags of the bounds are {flags}"))),
        };
        let count = reader.uvarint_max(BOUND_COUNT_MAX, "number of bounds")?;
        let mut bounds: Vec<Bound> = Vec::with_capacity(count);
        for _ in 0..count {
            let bound = read_bound(&mut reader)?;
            if bounds.last().is_some_and(|last| last.key >= bound.key) {
                return Err(Error::corrupt("the keys of the bounds do not rise"));
            }
            bounds.push(bound);
        }
        reader.finish()?;
        Ok(Bounds { bounds, complete })
    }

    /// Whether a series of the block can satisfy `selector`; false is certain, true is not.
    pub(crate) fn may_match(&self, selector: &Selector) -> bool {
        selector.matchers.iter().all(|matcher| self.may_match_one(matcher))
    }

    fn may_match_one(&self, matcher: &Matcher) -> bool {
        if matcher.condition.matches_absent() {
            return true;
        }
        let Ok(at) = self.bounds.binary_search_by(|bound| (*bound.key).cmp(&matcher.key)) else {
            return !self.complete;
        };
        let Some(bound) = self.bounds.get(at) else { return true };
        match &matcher.condition {
            Match::Equal(value) => bound.may_hold(value),
            Match::In(values) => values.iter().any(|value| bound.may_hold(value)),
            _ => true,
        }
    }
}

impl Bound {
    /// Cutting keeps the order: what is cut is at most what it was cut from, and equal starts are let through.
    fn may_hold(&self, value: &str) -> bool {
        let value = cut(value.as_bytes());
        *self.smallest <= *value && *value <= *self.largest
    }
}

fn read_bound(reader: &mut Reader<'_>) -> Result<Bound> {
    let key = reader.prefixed_bytes()?;
    let value_count = reader.uvarint_max(u32::MAX as usize, "number of values")? as u32;
    let (smallest, largest) = (reader.prefixed_bytes()?, reader.prefixed_bytes()?);
    let key = std::str::from_utf8(key).ok().filter(|key| key.len() <= TAG_KEY_SIZE_MAX);
    let key = key.ok_or_else(|| Error::corrupt("the key of a bound is none"))?;
    if smallest.len().max(largest.len()) > BOUND_SIZE_MAX || smallest > largest {
        return Err(Error::corrupt("the values of a bound are none"));
    }
    Ok(Bound { key: key.into(), value_count, smallest: smallest.into(), largest: largest.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str, value_count: u32, smallest: &str, largest: &str) -> KeyStatistics {
        KeyStatistics { key: key.into(), value_count, smallest: smallest.into(), largest: largest.into() }
    }

    fn bounds() -> Bounds {
        let long = "x".repeat(100);
        Bounds::new(vec![
            key("__name__", 2, "cpu", "mem"),
            key("host", 9, "b", "d"),
            key("text", 2, "a", &long),
        ])
    }

    #[track_caller]
    fn check(key: &str, condition: Match, expected: bool) {
        let selector = Selector::all().with(key, condition);
        assert_eq!(bounds().may_match(&selector), expected, "{selector:?}");
    }

    #[test]
    fn bounds_exclude_what_lies_outside_and_nothing_else() {
        check("host", Match::equal("c"), true);
        check("host", Match::equal("a"), false);
        check("host", Match::equal("da"), false);
        check("host", Match::any_of(["a", "d"]), true);
        check("host", Match::any_of(["a", ""]), true);
        check("host", Match::not_equal("c"), true);
        check("host", Match::Absent, true);
        check("host", Match::regex("z").unwrap(), true);
        check("session", Match::equal("c"), false);
        check("session", Match::Present, false);
        check("session", Match::Absent, true);
        check("text", Match::equal("x".repeat(100) + "y"), true);
        check("text", Match::equal("y"), false);
    }

    #[test]
    fn too_many_keys_leave_the_widest_and_exclude_no_unknown_one() {
        let keys = (0..BOUND_COUNT_MAX as u32 + 10).map(|i| key(&format!("k{i:03}"), i, "a", "b")).collect();
        let bounds = Bounds::new(keys);
        let with = |key: &str| Selector::all().with(key, "z");
        assert!(bounds.may_match(&with("k009")));
        assert!(!bounds.may_match(&with("k010")));
        assert_eq!(Bounds::decode(&bounds.encode()).unwrap(), bounds);
    }

    #[test]
    fn bounds_come_back_and_cuts_are_refused() {
        let bytes = bounds().encode();
        assert_eq!(Bounds::decode(&bytes).unwrap(), bounds());
        for size in 0..bytes.len() {
            assert!(Bounds::decode(&bytes[..size]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _ = Bounds::decode(&bad);
        }
    }
}
