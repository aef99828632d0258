//! A door for the fuzz targets in `fuzz/` into parsers that are not public: each function takes any bytes and panics
//! when what it says of them does not hold.
//!
//! Compiled for fuzzing (cargo-fuzz sets `fuzzing`) and for the unit tests, which run the same properties over bytes
//! from fixed seeds. Not part of the interface of the crate.

pub mod codec;
pub mod index;
pub mod log;
pub mod manifest;

use crate::error::{Error, ErrorKind};

/// Damage is what a parser may say of any bytes, and nothing else.
#[track_caller]
fn only_corruption(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
}

/// Takes an input apart; when it has ended, everything is 0.
#[derive(Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at most 256.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.bytes(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// The next `count` bytes, or as many as there are.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Small numbers mostly, now and then any.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => self.word(),
            small => u64::from(small),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::env::Random;

    /// Runs a property over bytes of many lengths, some of which repeat small numbers.
    fn over_seeds(property: fn(&[u8])) {
        let slow = std::env::var_os("SLOW_TESTS").is_some();
        for seed in 0..if slow { 40_000 } else { 400 } {
            let mut random = Random::new(seed);
            let size = random.below(600);
            let bound = [256, 256, 8, 3][random.below(4) as usize];
            let input: Vec<u8> = (0..size).map(|_| random.below(bound) as u8).collect();
            property(&input);
        }
    }

    #[test]
    fn pages_round_trip_and_any_bytes_are_read_or_refused() {
        over_seeds(super::codec::round_trip);
        over_seeds(super::codec::decode);
    }

    #[test]
    fn selectors_answer_like_a_filter_and_any_bytes_are_read_or_refused() {
        over_seeds(super::index::select);
        over_seeds(super::index::decode);
    }

    #[test]
    fn what_the_log_accepts_is_what_was_written_and_survives_a_copy() {
        over_seeds(super::log::payload);
        over_seeds(super::log::segments);
    }

    #[test]
    fn edits_are_kept_or_refused_and_any_bytes_are_read_or_refused() {
        over_seeds(super::manifest::edits);
        over_seeds(super::manifest::decode);
    }
}
