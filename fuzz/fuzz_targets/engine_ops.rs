//! Bytes drive operations on a database on the simulated disk: it holds what the plain map beside it holds, through
//! flushes, merges, crashes and power cuts.
#![no_main]

#[path = "../../tests/it/model/subject.rs"]
mod subject;

use libfuzzer_sys::fuzz_target;
use subject::{Op, Random, SERIES, Subject};

const SECOND: i64 = 1_000_000_000;
/// A database is opened, crashed and merged at each; more take too long for one input.
const OPERATION_COUNT_MAX: u64 = 60;

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(u64::from(*first))
    }

    /// Near others mostly; now and then years away.
    fn time(&mut self) -> Option<i64> {
        Some(match self.next()? {
            255 => i64::MIN + 1 + self.next()? as i64,
            254 => i64::MAX - 1 - self.next()? as i64,
            253 => self.next()? as i64 * 86_400 * 300 * SECOND,
            near => near as i64 * SECOND,
        })
    }

    fn operation(&mut self) -> Option<Op> {
        Some(match self.next()? % 32 {
            0..8 => {
                let count = self.next()?;
                let mut samples = Vec::new();
                for _ in 0..count % 16 {
                    samples.push((self.next()? % SERIES, self.time()?, self.next()?));
                }
                if let (Some(&(series, time, seed)), true) = (samples.first(), count >= 200) {
                    let mut random = Random(seed);
                    let line = |n| (series, time.saturating_add(n * SECOND).min(i64::MAX - 1), random.next());
                    samples.extend((0..300).map(line));
                }
                Op::Write { samples, sync: count & 16 != 0 }
            }
            8..12 => Op::Append { series: self.next()? % SERIES, time: self.time()?, value: self.next()? },
            12..15 => {
                let (from, a, b) = (self.next()? % SERIES, self.time()?, self.time()?);
                Op::Delete { from, to: from + a.unsigned_abs() % 3, start: a.min(b), end: a.max(b) }
            }
            15 => Op::Sync,
            16..20 => Op::Flush,
            20..22 => Op::Compact,
            22..25 => Op::Maintain,
            25 => Op::Reopen,
            26..29 => Op::Crash { power: true },
            29 => Op::Crash { power: false },
            30 => Op::Snapshot,
            _ => Op::Check,
        })
    }
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let Some(seed) = bytes.next() else { return };
    let mut subject = Subject::new(seed);
    for number in 0..OPERATION_COUNT_MAX {
        let Some(operation) = bytes.operation() else { break };
        subject.run(&operation, number);
    }
    subject.run(&Op::Check, 0);
});
