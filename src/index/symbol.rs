//! Symbols: every tag and every tag key of a block, sorted, in one finite state transducer.
//!
//! The text of a tag is `key 0xFE value`, as in a series key; that of a key is the key alone. So the
//! values of a key have consecutive ranks, and the walk for one key starts at the node behind its mark.
//! Called by the writer (interning) and the reader (both directions, regular expressions).

use std::fmt;
use std::sync::Arc;

use fst::raw::{Fst, Node};
use hashbrown::HashMap;
use regex_automata::Anchored;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::start;

use crate::error::{Error, Result};
use crate::model::{NAME_KEY, Regex};

/// Between key and value, in symbols as in series keys. Never a byte of UTF-8.
pub(crate) const VALUE_MARK: u8 = 0xFE;
/// Before each tag of a series key. Never a byte of UTF-8.
pub(crate) const TAG_MARK: u8 = 0xFF;

/// The text of the symbol that the metric name `name` is.
pub(crate) fn name_symbol(name: &[u8]) -> Vec<u8> {
    [NAME_KEY.as_bytes(), &[VALUE_MARK], name].concat()
}

/// Gives each distinct text a number, in order of appearance.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    ids: HashMap<Box<[u8]>, u32>,
}

impl Interner {
    /// The number of `text`.
    ///
    /// # Errors
    /// `LimitExceeded` when there are 2^32 - 1 symbols.
    pub(crate) fn intern(&mut self, text: &[u8]) -> Result<u32> {
        if let Some(id) = self.ids.get(text) {
            return Ok(*id);
        }
        let id = u32::try_from(self.ids.len()).ok().filter(|id| *id < u32::MAX);
        let id = id.ok_or_else(|| Error::limit_exceeded("a block takes at most 2^32 - 1 different tags"))?;
        self.ids.insert(text.into(), id);
        Ok(id)
    }

    /// All texts with their numbers, sorted by text.
    pub(crate) fn into_sorted(self) -> Vec<(Box<[u8]>, u32)> {
        let mut sorted: Vec<_> = self.ids.into_iter().collect();
        sorted.sort_unstable();
        sorted
    }
}

/// Writes the transducer of `texts`, which are sorted and distinct; each maps to its position.
pub(crate) fn encode_symbols<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>> {
    let mut builder = fst::raw::Builder::memory();
    for (rank, text) in texts.enumerate() {
        builder.insert(text, rank as u64).map_err(|error| refused(&error))?;
    }
    builder.into_inner().map_err(|error| refused(&error))
}

#[cold]
fn refused(error: &fst::Error) -> Error {
    Error::invalid_input(format!("symbols cannot be indexed: {error}"))
}

/// The symbols of one block, read-only.
pub(crate) struct Symbols(Fst<Arc<[u8]>>);

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Symbols({})", self.len())
    }
}

/// A node of the transducer, and the rank of the first text at or below it.
#[derive(Clone, Copy)]
struct Position<'f> {
    node: Node<'f>,
    rank: u64,
}

impl Symbols {
    /// Takes bytes whose CRC was checked.
    pub(crate) fn open(bytes: Arc<[u8]>) -> Result<Self> {
        let fst = Fst::new(bytes).map_err(|error| Error::corrupt(format!("symbols: {error}")))?;
        Ok(Symbols(fst))
    }

    /// How many symbols there are; ranks are smaller.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The rank of the tag `key`=`value`, or of the key when `value` is `None`.
    pub(crate) fn rank(&self, key: &str, value: Option<&str>) -> Option<u32> {
        let mut at = self.descend(self.root(), key.as_bytes())?;
        if let Some(value) = value {
            at = self.descend(at, &[VALUE_MARK])?;
            at = self.descend(at, value.as_bytes())?;
        }
        rank_here(at)
    }

    /// Visits the texts of `ranks`, which rise.
    ///
    /// # Errors
    /// `Corruption` for a rank that has no text, and those of `visit`.
    pub(crate) fn texts(&self, ranks: &[u32], mut visit: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
        let mut text = Vec::new();
        // The way to the last text: each node, and the first rank that is not below it.
        let mut way = vec![(self.root(), self.len() as u64)];
        for rank in ranks {
            let wanted = u64::from(*rank);
            while way.pop_if(|(_, end)| *end <= wanted).is_some() {
                text.pop();
            }
            loop {
                let (at, end) = *way.last().ok_or_else(damaged)?;
                if at.rank == wanted && at.node.is_final() {
                    break;
                }
                // Outputs rise with the input byte, so the last one not above the rank leads to it.
                let rest = wanted.checked_sub(at.rank).ok_or_else(damaged)?;
                let above = first_where(at.node.len(), |index| at.node.transition(index).out.value() > rest);
                let transition = at.node.transition(above.checked_sub(1).ok_or_else(damaged)?);
                let end = if above == at.node.len() {
                    end
                } else {
                    at.rank + at.node.transition(above).out.value()
                };
                let below =
                    Position { node: self.0.node(transition.addr), rank: at.rank + transition.out.value() };
                text.push(transition.inp);
                way.push((below, end));
            }
            visit(*rank, &text)?;
        }
        Ok(())
    }

    /// The text of the symbol `rank`.
    pub(crate) fn text(&self, rank: u32) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        self.texts(&[rank], |_, text| {
            found.extend_from_slice(text);
            Ok(())
        })?;
        Ok(found)
    }

    /// All tag keys, sorted, with their ranks; the metric name is under [`NAME_KEY`].
    pub(crate) fn keys(&self) -> Vec<(String, u32)> {
        let mut keys = Vec::new();
        self.walk(self.root(), &mut Keys, &mut |text, rank| keys.push((lossy(text), rank)));
        keys
    }

    /// Visits the values of `key` in order, with their ranks.
    pub(crate) fn values(&self, key: &str, mut visit: impl FnMut(&str, u32)) {
        let Some(start) = self.values_of(key) else { return };
        self.walk(start, &mut Everything, &mut |text, rank| {
            if let Ok(text) = std::str::from_utf8(text) {
                visit(text, rank);
            }
        });
    }

    /// The ranks of the values of `key` that `regex` matches, in order.
    pub(crate) fn matching(&self, key: &str, regex: &Regex) -> Vec<u32> {
        let mut ranks = Vec::new();
        let Some(start) = self.values_of(key) else { return ranks };
        if let Some(mut automaton) = Automaton::new(regex) {
            self.walk(start, &mut automaton, &mut |_, rank| ranks.push(rank));
            if !automaton.gave_up {
                return ranks;
            }
            ranks.clear();
        }
        self.values(key, |value, rank| {
            if regex.is_match(value) {
                ranks.push(rank);
            }
        });
        ranks
    }

    fn root(&self) -> Position<'_> {
        Position { node: self.0.root(), rank: 0 }
    }

    fn values_of(&self, key: &str) -> Option<Position<'_>> {
        let at = self.descend(self.root(), key.as_bytes())?;
        self.descend(at, &[VALUE_MARK])
    }

    fn descend<'f>(&'f self, mut at: Position<'f>, bytes: &[u8]) -> Option<Position<'f>> {
        for byte in bytes {
            let transition = at.node.transition(at.node.find_input(*byte)?);
            at = Position { node: self.0.node(transition.addr), rank: at.rank + transition.out.value() };
        }
        Some(at)
    }

    /// Visits every text below `start` (without what leads to `start`) that `filter` lets through, in order.
    fn walk<'f, F: Filter>(
        &'f self,
        start: Position<'f>,
        filter: &mut F,
        visit: &mut impl FnMut(&[u8], u32),
    ) {
        let Some(state) = filter.start() else { return };
        let mut text = Vec::new();
        let mut stack = vec![(start, state, 0)];
        while let Some((at, state, next)) = stack.last_mut() {
            if *next == 0 && at.node.is_final() && filter.accepts(*state) {
                visit(&text, rank_here(*at).unwrap_or(u32::MAX));
            }
            if *next == at.node.len() {
                stack.pop();
                text.pop();
                continue;
            }
            let transition = at.node.transition(*next);
            *next += 1;
            let Some(state) = filter.step(*state, transition.inp) else { continue };
            let below =
                Position { node: self.0.node(transition.addr), rank: at.rank + transition.out.value() };
            text.push(transition.inp);
            if !below.node.is_empty() {
                stack.push((below, state, 0));
                continue;
            }
            // Nine of ten nodes are ends of texts; they need no place on the stack.
            if filter.accepts(state) {
                visit(&text, rank_here(below).unwrap_or(u32::MAX));
            }
            text.pop();
        }
    }
}

/// The rank of the text that ends at a position, if one does.
fn rank_here(at: Position<'_>) -> Option<u32> {
    if !at.node.is_final() {
        return None;
    }
    u32::try_from(at.rank + at.node.final_output().value()).ok()
}

/// The first of `0..count` for which `holds`, given that it holds for all behind it; else `count`.
fn first_where(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cold]
fn damaged() -> Error {
    Error::corrupt("a symbol's rank has no text")
}

/// Which texts a walk visits, decided byte by byte so that it turns back early.
trait Filter {
    type State: Copy;
    fn start(&mut self) -> Option<Self::State>;
    /// The state behind `byte`; none when nothing below can be accepted.
    fn step(&mut self, state: Self::State, byte: u8) -> Option<Self::State>;
    fn accepts(&mut self, state: Self::State) -> bool;
}

struct Everything;

impl Filter for Everything {
    type State = ();
    fn start(&mut self) -> Option<()> {
        Some(())
    }
    fn step(&mut self, (): (), _: u8) -> Option<()> {
        Some(())
    }
    fn accepts(&mut self, (): ()) -> bool {
        true
    }
}

/// Texts without a value.
struct Keys;

impl Filter for Keys {
    type State = ();
    fn start(&mut self) -> Option<()> {
        Some(())
    }
    fn step(&mut self, (): (), byte: u8) -> Option<()> {
        (byte != VALUE_MARK).then_some(())
    }
    fn accepts(&mut self, (): ()) -> bool {
        true
    }
}

/// A regular expression as a deterministic automaton, whose states are made as they are reached.
struct Automaton<'r> {
    dfa: &'r DFA,
    cache: Cache,
    gave_up: bool,
}

impl<'r> Automaton<'r> {
    /// None when there is no such automaton.
    fn new(regex: &'r Regex) -> Option<Self> {
        let dfa = regex.automaton()?;
        Some(Automaton { dfa, cache: dfa.create_cache(), gave_up: false })
    }

    fn checked<E>(&mut self, state: std::result::Result<LazyStateID, E>) -> Option<LazyStateID> {
        match state {
            Ok(state) if !state.is_quit() => (!state.is_dead()).then_some(state),
            _ => {
                self.gave_up = true;
                None
            }
        }
    }
}

impl Filter for Automaton<'_> {
    type State = LazyStateID;

    fn start(&mut self) -> Option<LazyStateID> {
        let state = self.dfa.start_state(&mut self.cache, &start::Config::new().anchored(Anchored::Yes));
        self.checked(state)
    }

    fn step(&mut self, state: LazyStateID, byte: u8) -> Option<LazyStateID> {
        if self.gave_up {
            return None;
        }
        let state = self.dfa.next_state(&mut self.cache, state, byte);
        self.checked(state)
    }

    fn accepts(&mut self, state: LazyStateID) -> bool {
        let end = self.dfa.next_eoi_state(&mut self.cache, state);
        self.checked(end).is_some_and(|end| end.is_match())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(texts: &[&str]) -> Symbols {
        let mut interner = Interner::default();
        for text in texts {
            let bytes: Vec<u8> = text.bytes().map(|b| if b == b'=' { VALUE_MARK } else { b }).collect();
            interner.intern(&bytes).unwrap();
        }
        let sorted = interner.into_sorted();
        Symbols::open(encode_symbols(sorted.iter().map(|(text, _)| &text[..])).unwrap().into()).unwrap()
    }

    fn small() -> Symbols {
        symbols(&["a", "a=1", "a=12", "a=\u{1f9ca}", "a=x", "ab", "ab=1", "abc", "abc=1", "abc=2", "b", "b="])
    }

    fn values(symbols: &Symbols, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        symbols.values(key, |value, _| found.push(value.to_owned()));
        found
    }

    #[test]
    fn ranks_and_texts_are_each_others_inverse() {
        let symbols = small();
        for rank in 0..symbols.len() as u32 {
            let text = symbols.text(rank).unwrap();
            let mut parts = text.split(|b| *b == VALUE_MARK).map(|part| std::str::from_utf8(part).unwrap());
            assert_eq!(symbols.rank(parts.next().unwrap(), parts.next()), Some(rank));
        }
        assert!(symbols.text(symbols.len() as u32).is_err());
        assert_eq!(symbols.rank("a", Some("2")), None);
        assert_eq!(symbols.rank("c", None), None);
    }

    #[test]
    fn keys_and_values_are_listed_in_order() {
        let symbols = small();
        let keys: Vec<_> = symbols.keys().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "ab", "abc", "b"]);
        assert_eq!(values(&symbols, "a"), ["1", "12", "x", "\u{1f9ca}"]);
        assert_eq!(values(&symbols, "b"), [""]);
        assert_eq!(values(&symbols, "nothing"), [""; 0]);
    }

    #[test]
    fn texts_of_rising_ranks_are_found_on_one_way() {
        let symbols = small();
        let all: Vec<u32> = (0..symbols.len() as u32).collect();
        for step in 1..5 {
            for first in 0..3 {
                let ranks: Vec<u32> = all.iter().copied().skip(first).step_by(step).collect();
                let mut found = Vec::new();
                let mut keep = |rank, text: &[u8]| {
                    found.push((rank, text.to_vec()));
                    Ok(())
                };
                symbols.texts(&ranks, &mut keep).unwrap();
                let expected: Vec<_> =
                    ranks.iter().map(|rank| (*rank, symbols.text(*rank).unwrap())).collect();
                assert_eq!(found, expected);
            }
        }
    }

    #[track_caller]
    fn check_regex(symbols: &Symbols, pattern: &str) {
        let regex = Regex::new(pattern).unwrap();
        let mut expected = Vec::new();
        symbols.values("k", |value, rank| {
            if regex.is_match(value) {
                expected.push(rank);
            }
        });
        assert_eq!(symbols.matching("k", &regex), expected, "{pattern}");
    }

    #[test]
    fn the_automaton_agrees_with_the_expression() {
        let mut texts =
            vec!["k".to_owned(), "k=a\nb".into(), "k=\u{e9}".into(), "k=a b".into(), "ka=1".into()];
        texts.extend((0..300).map(|i| format!("k=host_{i}")));
        let symbols = symbols(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for pattern in [
            ".*",
            ".+",
            "",
            "host_1.*",
            "host_(1|2)",
            "host_1|host_12|host_2",
            "a.b",
            ".",
            "\\w",
            "host_[0-9]{2}",
            ".*9",
            "(?i)HOST_7",
            "a|ab|a b",
            "host_1(2|.*)",
            "\\bhost_3\\d?\\b",
            "[^h].*",
            "x*",
            "(?-u:.)*",
        ] {
            if Regex::new(pattern).is_ok() {
                check_regex(&symbols, pattern);
            }
        }
    }

    #[test]
    fn an_expression_too_big_for_the_automaton_still_matches() {
        // Each position of an `a` is remembered for 20 steps, so that nearly every prefix is a state of its own.
        let mut bits = 1u64;
        let mut text = || {
            let letters = (0..60).map(|_| {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if bits >> 63 == 0 { 'a' } else { 'b' }
            });
            "k=".to_owned() + &letters.collect::<String>()
        };
        let texts: Vec<String> = (0..500).map(|_| text()).collect();
        let symbols = symbols(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let pattern = "(a|b)*a(a|b){20}";
        let regex = Regex::new(pattern).unwrap();
        let mut automaton = Automaton::new(&regex).unwrap();
        symbols.walk(symbols.values_of("k").unwrap(), &mut automaton, &mut |_, _| {});
        assert!(automaton.gave_up);
        check_regex(&symbols, pattern);
    }
}
