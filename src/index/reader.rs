//! The index of a block, read-only: selectors to ordinals, ordinals to keys, and what tags there are.
//!
//! Called by the block reader, which has read the sections and checked their CRC. Errors name no file;
//! the caller adds it.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::index::postings::{Set, Union, postings_count, read_postings};
use crate::index::series::{read_keys, read_some_keys};
use crate::index::symbol::Symbols;
use crate::model::{Match, Matcher, Selector, SeriesKey};

/// The checked bytes of the sections.
#[derive(Clone, Debug)]
pub(crate) struct IndexSections {
    /// The transducer.
    pub symbols: Arc<[u8]>,
    /// Where the postings of each rank begin and end.
    pub offsets: Arc<[u8]>,
    /// The postings.
    pub postings: Arc<[u8]>,
}

/// The index of one block.
#[derive(Debug)]
pub(crate) struct Index {
    symbols: Symbols,
    offsets: Arc<[u8]>,
    postings: Arc<[u8]>,
    series_count: u32,
    size: usize,
}

impl Index {
    /// Puts the sections together.
    ///
    /// # Errors
    /// `Corruption` when they do not fit each other.
    pub(crate) fn open(sections: IndexSections, series_count: u32) -> Result<Self> {
        let IndexSections { symbols, offsets, postings } = sections;
        let size = symbols.len() + offsets.len() + postings.len();
        let symbols = Symbols::open(symbols)?;
        let (width, table) = offsets.split_first().ok_or_else(offsets_do_not_fit)?;
        let entries = symbols.len() + 1;
        if !(1..=8).contains(width) || entries.checked_mul(usize::from(*width)) != Some(table.len()) {
            return Err(offsets_do_not_fit());
        }
        Ok(Index { symbols, offsets, postings, series_count, size })
    }

    /// How many bytes of memory it takes.
    pub(crate) fn size(&self) -> usize {
        self.size + size_of::<Self>()
    }

    /// The ordinals of the series that satisfy all matchers, sorted.
    ///
    /// # Errors
    /// `Corruption` when postings are not what they must be.
    pub(crate) fn select(&self, selector: &Selector) -> Result<Vec<u32>> {
        let mut included = Vec::new();
        let mut excluded = Vec::new();
        for matcher in &selector.matchers {
            match self.plan(matcher) {
                Plan::Always => {}
                Plan::Include(source) => included.push((self.count(&source)?, source)),
                Plan::Exclude(source) => excluded.push(source),
            }
        }
        // The rarest first: what follows only has to be looked up for what is left.
        included.sort_by_key(|(count, _)| *count);
        let mut found = None;
        for (_, source) in included {
            found = Some(match found {
                None => self.evaluate(&source)?,
                Some(found) => Set::intersect(found, self.evaluate(&source)?),
            });
            if found.as_ref().is_some_and(Set::is_empty) {
                return Ok(Vec::new());
            }
        }
        let mut found = found.unwrap_or_else(|| Set::all(self.series_count));
        for source in excluded {
            found = found.subtract(&self.evaluate(&source)?);
        }
        Ok(found.into_sorted())
    }

    /// The tag keys, sorted, each with the number of series that have it; the metric name is `__name__`.
    pub(crate) fn tag_keys(&self) -> Result<Vec<(String, usize)>> {
        let keys = self.symbols.keys();
        keys.into_iter().map(|(key, rank)| Ok((key, postings_count(self.postings_of(rank)?)?))).collect()
    }

    /// The values of a tag key, sorted, each with the number of series that have it.
    pub(crate) fn tag_values(&self, key: &str) -> Result<Vec<(String, usize)>> {
        let mut values = Vec::new();
        self.symbols.values(key, |value, rank| values.push((value.to_owned(), rank)));
        values
            .into_iter()
            .map(|(value, rank)| Ok((value, postings_count(self.postings_of(rank)?)?)))
            .collect()
    }

    /// The keys of a key group of `count` series.
    pub(crate) fn keys(&self, bytes: &[u8], count: usize) -> Result<Vec<SeriesKey>> {
        read_keys(bytes, count, &self.symbols)
    }

    /// The keys at some positions, which rise, of a key group of `count` series.
    pub(crate) fn some_keys(&self, bytes: &[u8], count: usize, wanted: &[usize]) -> Result<Vec<SeriesKey>> {
        read_some_keys(bytes, count, wanted, &self.symbols)
    }

    /// How many symbols there are.
    pub(crate) fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// The rank of the tag `key`=`value`, or of the key when `value` is `None`.
    pub(crate) fn rank(&self, key: &str, value: Option<&str>) -> Option<u32> {
        self.symbols.rank(key, value)
    }

    /// The text of a symbol and the ordinals of the series that carry it; for verification.
    pub(crate) fn symbol(&self, rank: u32) -> Result<(Vec<u8>, Vec<u32>)> {
        Ok((self.symbols.text(rank)?, self.read(rank)?.into_sorted()))
    }

    fn plan(&self, matcher: &Matcher) -> Plan {
        let key = &matcher.key;
        let ranks = |values: &[String]| {
            let given = values.iter().filter(|value| !value.is_empty());
            let mut ranks: Vec<u32> = given.filter_map(|value| self.symbols.rank(key, Some(value))).collect();
            ranks.sort_unstable();
            ranks.dedup();
            ranks
        };
        let one = |value: &String| ranks(std::slice::from_ref(value));
        let absent = matcher.condition.matches_absent();
        let (listed, positive) = match &matcher.condition {
            Match::Equal(value) => (one(value), true),
            Match::NotEqual(value) => (one(value), false),
            Match::In(values) => (ranks(values), true),
            Match::Regex(regex) if regex.pattern() == ".*" => return Plan::Always,
            Match::Regex(regex) if regex.pattern() == ".+" => (Vec::new(), false),
            Match::Regex(regex) => (self.symbols.matching(key, regex), true),
            Match::NotRegex(regex) => (self.symbols.matching(key, regex), false),
            Match::Present => (Vec::new(), false),
            Match::Absent => (Vec::new(), true),
        };
        // `positive`: a present tag satisfies the condition when its value is listed; else when it is not.
        // A condition that absence satisfies is what is left when its opposite is taken away.
        let others = Source { listed, key: self.symbols.rank(key, None) };
        match (absent, positive) {
            (false, true) => Plan::Include(others.of_listed()),
            (false, false) => Plan::Include(others),
            (true, true) => Plan::Exclude(others),
            (true, false) => Plan::Exclude(others.of_listed()),
        }
    }

    /// At most how many series a source gives.
    fn count(&self, source: &Source) -> Result<usize> {
        match source.key {
            Some(rank) => postings_count(self.postings_of(rank)?),
            None => source
                .listed
                .iter()
                .try_fold(0, |sum, rank| Ok(sum + postings_count(self.postings_of(*rank)?)?)),
        }
    }

    fn evaluate(&self, source: &Source) -> Result<Set> {
        let listed = match source.listed.as_slice() {
            [rank] => self.read(*rank)?,
            ranks => self.union(ranks)?,
        };
        match source.key {
            None => Ok(listed),
            Some(rank) => Ok(self.read(rank)?.subtract(&listed)),
        }
    }

    fn union(&self, ranks: &[u32]) -> Result<Set> {
        let mut union = Union::new(self.series_count);
        for rank in ranks {
            union.read(self.postings_of(*rank)?)?;
        }
        Ok(union.finish())
    }

    fn read(&self, rank: u32) -> Result<Set> {
        read_postings(self.postings_of(rank)?, self.series_count)
    }

    fn postings_of(&self, rank: u32) -> Result<&[u8]> {
        let (start, end) = (self.offset(rank as usize)?, self.offset(rank as usize + 1)?);
        self.postings.get(start..end).ok_or_else(offsets_do_not_fit)
    }

    fn offset(&self, index: usize) -> Result<usize> {
        let (width, table) = self.offsets.split_first().ok_or_else(offsets_do_not_fit)?;
        let width = usize::from(*width);
        let entry = table.get(index * width..(index + 1) * width).ok_or_else(offsets_do_not_fit)?;
        let offset = entry.iter().rev().fold(0u64, |offset, byte| offset << 8 | u64::from(*byte));
        usize::try_from(offset).map_err(|_| offsets_do_not_fit())
    }
}

/// How one matcher is answered.
enum Plan {
    /// Every series satisfies it.
    Always,
    /// The series of the source do.
    Include(Source),
    /// All but the series of the source do.
    Exclude(Source),
}

/// Series given by symbols: with `key`, those that have the key but no listed value; else those that have one.
struct Source {
    listed: Vec<u32>,
    key: Option<u32>,
}

impl Source {
    fn of_listed(self) -> Self {
        Source { key: None, ..self }
    }
}

#[cold]
fn offsets_do_not_fit() -> Error {
    Error::corrupt("the offsets of postings do not fit symbols and postings")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index::IndexWriter;

    fn index(keys: &[SeriesKey]) -> (Index, Vec<Vec<u8>>) {
        let mut writer = IndexWriter::default();
        keys.iter().for_each(|key| writer.add(key).unwrap());
        let sorted = writer.sort().unwrap();
        let (postings, offsets) = sorted.encode_postings();
        let symbols = sorted.encode_symbols().unwrap();
        let groups = (0..keys.len() as u32).step_by(4);
        let groups = groups
            .map(|first| sorted.encode_keys(first..keys.len().min(first as usize + 4) as u32))
            .collect();
        let sections =
            IndexSections { symbols: symbols.into(), offsets: offsets.into(), postings: postings.into() };
        (Index::open(sections, keys.len() as u32).unwrap(), groups)
    }

    fn condition() -> impl Strategy<Value = Match> {
        let value = prop_oneof![Just(""), Just("a"), Just("b"), Just("ab"), Just("c"), Just("\u{1f9ca}")];
        let pattern =
            prop_oneof![Just(".*"), Just(".+"), Just(""), Just("a|b"), Just("a.*"), Just("[^a]"), Just("a?")];
        prop_oneof![
            value.clone().prop_map(Match::equal),
            value.clone().prop_map(Match::not_equal),
            prop::collection::vec(value, 0..4).prop_map(Match::any_of),
            pattern.clone().prop_map(|p| Match::regex(p).unwrap()),
            pattern.prop_map(|p| Match::not_regex(p).unwrap()),
            Just(Match::Present),
            Just(Match::Absent),
        ]
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let key = prop_oneof![Just("__name__"), Just("k"), Just("kk"), Just("l"), Just("none")];
        prop::collection::vec((key, condition()), 0..4).prop_map(|matchers| {
            matchers
                .into_iter()
                .fold(Selector::all(), |selector, (key, condition)| selector.with(key, condition))
        })
    }

    fn series() -> impl Strategy<Value = Vec<SeriesKey>> {
        let value =
            || prop_oneof![Just(""), Just("a"), Just("b"), Just("ab"), Just("abc"), Just("\u{1f9ca}")];
        let name = prop_oneof![Just("a"), Just("ab"), Just("c")];
        let key = (name, value(), value(), value())
            .prop_map(|(name, k, kk, l)| SeriesKey::new(name, [("k", k), ("kk", kk), ("l", l)]).unwrap());
        prop::collection::btree_set(key, 0..150).prop_map(|keys| keys.into_iter().collect())
    }

    proptest! {
        #[test]
        fn select_agrees_with_a_scan(keys in series(), selectors in prop::collection::vec(selector(), 10)) {
            let (index, _) = index(&keys);
            for selector in selectors {
                let matching = keys.iter().enumerate().filter(|(_, key)| selector.matches(key));
                let expected: Vec<u32> = matching.map(|(ordinal, _)| ordinal as u32).collect();
                prop_assert_eq!(index.select(&selector).unwrap(), expected, "{:?}", selector);
            }
        }

        #[test]
        fn keys_come_back(keys in series()) {
            let (index, groups) = index(&keys);
            for (group, keys) in groups.iter().zip(keys.chunks(4)) {
                prop_assert_eq!(index.keys(group, keys.len()).unwrap(), keys);
                let wanted: Vec<usize> = (0..keys.len()).step_by(3).collect();
                let some: Vec<SeriesKey> = wanted.iter().map(|position| keys[*position].clone()).collect();
                prop_assert_eq!(index.some_keys(group, keys.len(), &wanted).unwrap(), some);
            }
        }

        #[test]
        fn damaged_key_groups_do_not_panic(keys in series(), at: prop::sample::Index, bit in 0u32..8) {
            let (index, mut groups) = index(&keys);
            if let Some(group) = groups.first_mut() {
                let at = at.index(group.len());
                group[at] ^= 1u8 << bit;
                let _ = index.keys(group, keys.len().min(4));
                let _ = index.some_keys(group, keys.len().min(4), &[0, 3]);
            }
        }
    }

    #[test]
    fn keys_with_underscores_come_back() {
        let key = SeriesKey::new("a", [("__address__", "x"), ("__name", "y"), ("_", "z")]).unwrap();
        let (index, groups) = index(std::slice::from_ref(&key));
        assert_eq!(index.keys(&groups[0], 1).unwrap(), [key]);
    }

    #[test]
    fn tags_are_listed_with_their_numbers() {
        let key = |name: &str, host: &str| SeriesKey::new(name, [("host", host)]).unwrap();
        let (index, _) = index(&[key("a", ""), key("a", "x"), key("b", "x"), key("b", "y")]);
        let owned =
            |list: &[(&str, usize)]| list.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect::<Vec<_>>();
        assert_eq!(index.tag_keys().unwrap(), owned(&[("__name__", 4), ("host", 3)]));
        assert_eq!(index.tag_values("host").unwrap(), owned(&[("x", 2), ("y", 1)]));
        assert_eq!(index.tag_values("__name__").unwrap(), owned(&[("a", 2), ("b", 2)]));
        assert_eq!(index.symbol_count(), 6);
    }

    #[test]
    fn sections_that_do_not_fit_are_refused() {
        let sections = |offsets: &[u8]| {
            let symbols = crate::index::symbol::encode_symbols([&b"a"[..]].into_iter()).unwrap();
            IndexSections { symbols: symbols.into(), offsets: offsets.into(), postings: Arc::new([]) }
        };
        for offsets in [&[][..], &[0], &[9, 0], &[1, 0], &[1, 0, 0, 0]] {
            assert!(Index::open(sections(offsets), 1).is_err());
        }
        let index = Index::open(sections(&[1, 0, 1]), 1).unwrap();
        assert_eq!(
            index.select(&Selector::all().with("a", Match::Present)).unwrap_err().kind(),
            crate::ErrorKind::Corruption
        );
    }
}
