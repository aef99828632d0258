//! The engine against a plain map: seeded lists of operations under random options. A failure prints its seed and
//! the shortest list that still fails.

pub(crate) mod subject;

use subject::{Op, Random, SERIES, Subject};

/// Times in a few clusters, so that samples meet, with now and then one that is years away.
fn time(random: &mut Random, now: i64) -> i64 {
    const SECOND: i64 = 1_000_000_000;
    match random.below(20) {
        0 => random.next() as i64 / 4,
        1..4 => random.below(50) as i64 * SECOND,
        _ => (now * 10 + random.below(30) as i64) * SECOND,
    }
}

pub(crate) fn operations(seed: u64, count: usize) -> Vec<Op> {
    let mut random = Random(seed);
    (0..count as i64)
        .map(|now| match random.below(40) {
            0..14 => {
                let count = if random.below(4) == 0 { random.below(600) } else { random.below(20) } + 1;
                let sample = |random: &mut Random| (random.below(SERIES), time(random, now), random.next());
                Op::Write {
                    samples: (0..count).map(|_| sample(&mut random)).collect(),
                    sync: random.below(3) == 0,
                }
            }
            14..18 => Op::Append {
                series: random.below(SERIES),
                time: time(&mut random, now),
                value: random.next(),
            },
            18..20 => {
                let (a, b) = (time(&mut random, now), time(&mut random, now));
                let from = random.below(SERIES);
                Op::Delete { from, to: from + random.below(3), start: a.min(b), end: a.max(b) }
            }
            20..22 => Op::Sync,
            22..26 => Op::Flush,
            26..28 => Op::Compact,
            28..31 => Op::Maintain,
            31..32 => Op::Reopen,
            32..35 => Op::Crash { power: true },
            35..36 => Op::Crash { power: false },
            36..37 => Op::Snapshot,
            _ => Op::Check,
        })
        .collect()
}

fn run(seed: u64, ops: &[Op]) -> Result<(), String> {
    let result = std::panic::catch_unwind(|| {
        let mut subject = Subject::new(seed);
        for (number, op) in (1..).zip(ops) {
            subject.run(op, seed.wrapping_mul(1000) + number);
        }
        subject.run(&Op::Check, 0);
    });
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The shortest list found that fails, by leaving out pieces for as long as it does.
fn shrink(seed: u64, mut ops: Vec<Op>) -> Vec<Op> {
    let mut size = ops.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(start..(start + size).min(ops.len()));
            if run(seed, &fewer).is_err() {
                ops = fewer;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    ops
}

/// A number from the environment.
pub(crate) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_engine_is_a_map_through_crashes() {
    let first = setting("MODEL_SEED").unwrap_or(0);
    let slow = std::env::var_os("SLOW_TESTS").is_some();
    let seeds = setting("MODEL_COUNT").unwrap_or(if slow { 2000 } else { 60 });
    for seed in first..first + seeds {
        let ops = operations(seed, 60);
        if let Err(reason) = run(seed, &ops) {
            let shortest = shrink(seed, ops);
            let again = run(seed, &shortest).unwrap_err();
            panic!(
                "seed {seed}: {reason}\nshortest list ({} operations): {again}\n{shortest:#?}",
                shortest.len()
            );
        }
    }
}
