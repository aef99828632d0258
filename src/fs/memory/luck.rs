//! What one crash keeps: the extremes, all and nothing, often enough, and everything between.

use std::collections::BTreeSet;

use crate::env::Random;

/// The luck of one crash.
#[derive(Debug)]
pub(super) struct Luck<'a> {
    random: &'a mut Random,
    /// How much is kept, of [`ALL`].
    share: u64,
}

const ALL: u64 = 256;

impl<'a> Luck<'a> {
    pub(super) fn new(random: &'a mut Random) -> Self {
        let share = match random.below(4) {
            0 => 0,
            1 => ALL,
            _ => random.below(ALL),
        };
        Luck { random, share }
    }

    /// How many of the `count` states that followed the safe one were reached: one of `0..=count`.
    pub(super) fn pick(&mut self, count: usize) -> usize {
        match self.share {
            0 => 0,
            ALL => count,
            share if self.random.below(ALL) < share => {
                1 + usize::try_from(self.random.below(count as u64)).unwrap_or_default()
            }
            _ => 0,
        }
        .min(count)
    }

    /// Which of these changes of names are kept: in half of the crashes the first so many, as a journal does,
    /// else each by itself, as POSIX allows.
    pub(super) fn choose(&mut self, changes: BTreeSet<u64>) -> BTreeSet<u64> {
        if self.random.below(2) == 0 {
            let count = self.pick(changes.len());
            return changes.into_iter().take(count).collect();
        }
        changes.into_iter().filter(|_| self.pick(1) == 1).collect()
    }
}
