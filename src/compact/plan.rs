//! Which blocks to merge next. Pure: what is known of the live blocks in, a plan out.
//!
//! Invariants kept (`docs/architecture.md`): two live blocks whose times meet have LSN ranges that do not
//! interleave, and the later wins. So a merge takes *all* live blocks whose times meet its window and
//! whose LSNs lie between the smallest and the largest taken; where a block that reaches beyond the
//! window lies between them, the merge stops short of it.

use std::collections::BTreeSet;

use crate::compact::stretch::{LADDER, window};
use crate::manifest::BlockMeta;
use crate::model::{TimeRange, Timestamp};

/// Merging a window that still takes writes is worth it from this many blocks on.
const OPEN_WINDOW_COUNT: usize = 8;

/// Most windows that one split cuts out of a block.
const SPLIT_COUNT_MAX: usize = 8;

/// What bounds a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most bytes that the inputs of a merge may have together.
    pub(crate) output_size_max: u64,
    /// Most series that the inputs of a merge may have together, each counted as often as it comes.
    pub(crate) series_count_max: u64,
    /// Whether windows are merged that may still take writes: somebody asked for it.
    pub(crate) eager: bool,
}

/// Blocks to rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Numbers of the blocks, oldest first.
    pub(crate) inputs: Vec<u64>,
    /// Disjoint, in order of time; all of the inputs lies inside. Each becomes a block, if it holds a sample.
    pub(crate) stretches: Vec<TimeRange>,
    /// Level of the output.
    pub(crate) level: u8,
}

/// The next merge or split, or `None` when all is merged. Finer windows come first. `fixed` are blocks that are not
/// to be read: damaged ones, wherever they lie.
pub(crate) fn plan(blocks: &[BlockMeta], fixed: &[BlockMeta], limits: &Limits) -> Option<Plan> {
    let newest = blocks.iter().map(|block| block.max_time).max()?;
    (0..LADDER.len()).find_map(|level| {
        let mut windows: Vec<TimeRange> = blocks.iter().filter_map(|block| window_of(block, level)).collect();
        windows.sort_by_key(|window| window.start);
        windows.dedup();
        let windows: Vec<Window<'_>> =
            windows.into_iter().map(|range| Window::new(blocks, fixed, range, newest >= range.end)).collect();
        let merge = windows.iter().find_map(|window| window.merge(level, limits));
        merge.or_else(|| split(&windows, limits))
    })
}

/// The window of a level that the block lies in whole, if there is one.
fn window_of(block: &BlockMeta, level: usize) -> Option<TimeRange> {
    let window = window(level, block.min_time.nanos());
    window.contains(block.max_time).then_some(window)
}

/// Blocks that meet one window.
struct Window<'a> {
    range: TimeRange,
    /// Whether it takes no writes any more, by the look of the newest sample.
    closed: bool,
    /// Live blocks that lie in it whole, in order of LSN.
    inside: Vec<&'a BlockMeta>,
    /// Live blocks that reach beyond it, in order of LSN.
    across: Vec<&'a BlockMeta>,
    /// Blocks that cannot be touched.
    fixed: Vec<&'a BlockMeta>,
}

/// Blocks one after the other in order of LSN.
type Run<'a> = Vec<&'a BlockMeta>;

impl<'a> Window<'a> {
    fn new(blocks: &'a [BlockMeta], fixed: &'a [BlockMeta], range: TimeRange, closed: bool) -> Self {
        let meets = |block: &&BlockMeta| range.meets(block.min_time, block.max_time);
        let (mut inside, mut across): (Run<'a>, Run<'a>) =
            blocks.iter().filter(meets).partition(|block| range.covers(block.min_time, block.max_time));
        inside.sort_by_key(|block| (block.first_lsn, block.last_lsn, block.min_time));
        across.sort_by_key(|block| (block.first_lsn, block.last_lsn, block.min_time));
        Window { range, closed, inside, across, fixed: fixed.iter().filter(meets).collect() }
    }

    fn merge(&self, level: usize, limits: &Limits) -> Option<Plan> {
        let barriers: Vec<&BlockMeta> = self.across.iter().chain(&self.fixed).copied().collect();
        let waits = !self.closed && !limits.eager;
        let part = |run: Run<'a>| if waits { newest_of_a_level(run) } else { run };
        let worth_it = |run: &Run<'_>| self.is_worth_it(run, limits);
        let run = self.runs(&barriers, limits).into_iter().map(part).find(worth_it)?;
        let merged = run.iter().map(|block| block.level).max().unwrap_or(0);
        // What was merged in an open window counts as merged once more, else it would be taken again at once.
        let level = (level as u8 + 1).max(merged.saturating_add(u8::from(waits)));
        Some(Plan {
            inputs: run.iter().map(|block| block.number).collect(),
            stretches: vec![self.range],
            level,
        })
    }

    fn is_worth_it(&self, run: &Run<'_>, limits: &Limits) -> bool {
        let fresh = run.iter().any(|block| block.level == 0);
        match run.len() {
            0 => false,
            // A lone block is rewritten once, for its denser codecs.
            1 => fresh && (limits.eager || self.closed),
            _ => true,
        }
    }

    /// The block that reaches beyond the window and lies between blocks that could be merged without it. A window that
    /// takes writes waits.
    fn in_the_way(&self, limits: &Limits) -> Option<&'a BlockMeta> {
        if !self.closed && !limits.eager {
            return None;
        }
        let wanted = |run: &Run<'_>| run.len() > 1 && self.is_worth_it(run, limits);
        self.runs(&self.fixed, limits).into_iter().filter(wanted).find_map(|run| {
            let (first, last) = lsns(&run)?;
            let between: Run<'_> =
                self.across.iter().copied().filter(|other| lsns_meet(other, first, last)).collect();
            // What is cut out of them is merged with the run next, so that no split is made for nothing.
            between.first().copied().filter(|_| fits(&run, &between, limits))
        })
    }

    /// The blocks inside, split wherever a barrier lies between or more would be too big. Blocks whose LSN
    /// ranges meet, as those of one flush do, stay together: another block that one of them is merged with would
    /// interleave with the rest.
    fn runs(&self, barriers: &[&BlockMeta], limits: &Limits) -> Vec<Run<'a>> {
        let mut runs: Vec<Run<'a>> = Vec::new();
        let mut goes_on = false;
        for unit in self.units() {
            let Some((first, last)) = lsns(&unit) else { continue };
            let is_free = |first, last| !barriers.iter().any(|barrier| lsns_meet(barrier, first, last));
            let too_big = !fits(&unit, &[], limits);
            if unit.len() > 1 && too_big || !is_free(first, last) {
                runs.extend(unit.into_iter().map(|block| vec![block]));
                goes_on = false;
                continue;
            }
            let joins = runs.last().filter(|_| goes_on).and_then(lsns).is_some_and(|(run_first, _)| {
                is_free(run_first, last) && runs.last().is_some_and(|run| fits(run, &unit, limits))
            });
            match runs.last_mut() {
                Some(run) if joins => run.extend(unit),
                _ => runs.push(unit),
            }
            goes_on = true;
        }
        runs
    }

    fn units(&self) -> Vec<Run<'a>> {
        let mut units: Vec<Run<'a>> = Vec::new();
        for block in &self.inside {
            let meets = units.last().and_then(lsns).is_some_and(|(_, last)| block.first_lsn <= last);
            match units.last_mut() {
                Some(unit) if meets => unit.push(block),
                _ => units.push(vec![block]),
            }
        }
        units
    }
}

/// The newest blocks that were merged least often, when they are many enough: what was merged lately is left alone
/// until there is as much of it again, so that each sample is rewritten once for each power of their number.
fn newest_of_a_level(mut run: Run<'_>) -> Run<'_> {
    let levels: BTreeSet<u8> = run.iter().map(|block| block.level).collect();
    let many = levels.into_iter().find_map(|level| {
        let newest = || run.iter().rev().take_while(|block| block.level <= level);
        (newest().filter(|block| block.level == level).count() >= OPEN_WINDOW_COUNT).then(|| newest().count())
    });
    let start = run.len() - many.unwrap_or(0);
    let older = run.get(..start).unwrap_or_default().iter().map(|block| block.last_lsn).max();
    let mut newest = run.split_off(start);
    // Of the blocks of one flush none may be left behind.
    newest.retain(|block| older.is_none_or(|last| last < block.first_lsn));
    newest
}

/// Cuts the first block that is in the way at the borders of the windows in which it is.
fn split(windows: &[Window<'_>], limits: &Limits) -> Option<Plan> {
    let mut in_the_way = windows.iter().filter_map(|window| Some((window.range, window.in_the_way(limits)?)));
    let (first, block) = in_the_way.next()?;
    let others = in_the_way.filter(|(_, other)| other.number == block.number).map(|(range, _)| range);
    let mut stretches = Vec::new();
    let mut start = Timestamp::MIN;
    for range in [first].into_iter().chain(others).take(SPLIT_COUNT_MAX) {
        stretches.extend([TimeRange { start, end: range.start }, range]);
        start = range.end;
    }
    stretches.push(TimeRange { start, end: Timestamp::MAX });
    stretches.retain(|range| !range.is_empty());
    Some(Plan { inputs: vec![block.number], stretches, level: block.level.max(1) })
}

/// Whether one merge may take the blocks of both.
fn fits(run: &[&BlockMeta], more: &[&BlockMeta], limits: &Limits) -> bool {
    let sum = |part: fn(&BlockMeta) -> u64| run.iter().chain(more).map(|block| part(block)).sum::<u64>();
    sum(|block| block.size) <= limits.output_size_max
        && sum(|block| block.series_count) <= limits.series_count_max
}

/// The smallest and largest LSN of a run.
fn lsns(run: &Run<'_>) -> Option<(u64, u64)> {
    let first = run.iter().map(|block| block.first_lsn).min()?;
    Some((first, run.iter().map(|block| block.last_lsn).max()?))
}

fn lsns_meet(block: &BlockMeta, first: u64, last: u64) -> bool {
    block.first_lsn <= last && first <= block.last_lsn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Random;

    const HOUR: i64 = 3_600_000_000_000;
    const EAGER: Limits = Limits { output_size_max: 100, series_count_max: 100, eager: true };

    /// A block of 10 bytes over whole hours, both inclusive.
    fn block(number: u64, hours: (i64, i64), lsns: (u64, u64)) -> BlockMeta {
        BlockMeta {
            number,
            size: 10,
            min_time: Timestamp::from_nanos(hours.0 * HOUR),
            max_time: Timestamp::from_nanos(hours.1 * HOUR + HOUR - 1),
            first_lsn: lsns.0,
            last_lsn: lsns.1,
            level: 1,
            series_count: 1,
            sample_count: 10,
        }
    }

    #[track_caller]
    fn check(
        blocks: &[BlockMeta],
        fixed: &[BlockMeta],
        limits: &Limits,
        inputs: &[u64],
        hours: &[(i64, i64)],
    ) {
        let plan = plan(blocks, fixed, limits).unwrap();
        assert_eq!(plan.inputs, inputs);
        let hour = |time: Timestamp| match time {
            Timestamp::MIN => i64::MIN,
            Timestamp::MAX => i64::MAX,
            time => time.nanos() / HOUR,
        };
        let found: Vec<_> = plan.stretches.iter().map(|range| (hour(range.start), hour(range.end))).collect();
        assert_eq!(found, hours);
    }

    #[test]
    fn all_blocks_of_a_window_become_one() {
        let blocks = [block(1, (0, 0), (1, 10)), block(2, (1, 1), (11, 20)), block(3, (0, 1), (21, 30))];
        check(&blocks, &[], &EAGER, &[1, 2, 3], &[(0, 2)]);
        assert_eq!(plan(&blocks, &[], &Limits { eager: false, ..EAGER }), None, "the window takes writes");
        assert_eq!(plan(&blocks[..1], &[], &EAGER), None);
        assert_eq!(plan(&[BlockMeta { level: 0, ..blocks[0] }], &[], &EAGER).unwrap().inputs, [1]);
    }

    #[test]
    fn a_merge_stops_short_of_what_makes_it_too_big() {
        let blocks: Vec<_> = (0..6).map(|n| block(n, (0, 1), (n * 10 + 1, n * 10 + 10))).collect();
        check(&blocks, &[], &Limits { output_size_max: 35, ..EAGER }, &[0, 1, 2], &[(0, 2)]);
        let mut big = blocks.clone();
        big[1].size = 90;
        check(&big, &[], &Limits { output_size_max: 50, ..EAGER }, &[2, 3, 4, 5], &[(0, 2)]);
        assert_eq!(plan(&blocks, &[], &Limits { output_size_max: 15, ..EAGER }), None);
        check(&blocks, &[], &Limits { series_count_max: 2, ..EAGER }, &[0, 1], &[(0, 2)]);
    }

    #[test]
    fn a_merge_stops_short_of_what_is_damaged() {
        let blocks: Vec<_> = [1, 2, 4, 5].map(|n| block(n, (0, 1), (n * 10, n * 10 + 9))).to_vec();
        check(&blocks, &[block(3, (0, 0), (30, 39))], &EAGER, &[1, 2], &[(0, 2)]);
        check(&blocks, &[block(3, (5, 5), (30, 39))], &EAGER, &[1, 2, 4, 5], &[(0, 2)]);
        let wide = block(3, (-50, 50), (20, 20));
        check(&blocks[1..], &[wide], &EAGER, &[4, 5], &[(0, 2)]);
    }

    #[test]
    fn blocks_of_one_flush_stay_together() {
        // Taking 2 with 3 and leaving 1 would interleave with it.
        let blocks = [block(1, (0, 0), (1, 10)), block(2, (1, 1), (1, 10)), block(3, (0, 1), (11, 20))];
        assert_eq!(plan(&blocks, &[], &Limits { output_size_max: 25, ..EAGER }).unwrap().inputs, [1, 2]);
        assert_eq!(plan(&blocks, &[], &Limits { output_size_max: 15, ..EAGER }), None);
    }

    #[test]
    fn a_wide_block_between_is_split_at_the_borders() {
        let (a, b) = (block(1, (10, 11), (1, 10)), block(3, (10, 11), (21, 30)));
        let wide = block(2, (0, 100), (11, 20));
        check(&[a, wide, b], &[], &EAGER, &[2], &[(i64::MIN, 10), (10, 12), (12, i64::MAX)]);
        let also = [block(4, (20, 21), (1, 10)), block(5, (20, 20), (21, 30))];
        let blocks = [vec![a, wide, b], also.to_vec()].concat();
        let hours = [(i64::MIN, 10), (10, 12), (12, 20), (20, 22), (22, i64::MAX)];
        check(&blocks, &[], &EAGER, &[2], &hours);
        // Not between: nothing is in the way.
        let after = block(2, (0, 100), (31, 40));
        check(&[a, b, after], &[], &EAGER, &[1, 3], &[(10, 12)]);
        // All three would be too big, so it is not split; a coarser window holds it whole.
        let small = Limits { output_size_max: 25, ..EAGER };
        check(&[a, wide, b], &[], &small, &[1, 2], &[(0, 240)]);
    }

    /// Carries plans out on what is known of blocks alone.
    #[test]
    fn plans_keep_blocks_in_order_and_come_to_an_end() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let (mut blocks, mut fixed, mut number) = (Vec::<BlockMeta>::new(), Vec::new(), 0);
            for flush in 0..12u64 {
                let mut hour = random.below(60) as i64;
                for _ in 0..=random.below(3) {
                    let length =
                        if random.below(4) == 0 { random.below(300) } else { random.below(2) } as i64;
                    let mut added = block(number, (hour, hour + length), (flush * 10 + 1, flush * 10 + 10));
                    (added.size, added.level) = (1 + random.below(40), random.below(2) as u8);
                    number += 1;
                    hour += length + 1;
                    let list = if random.below(10) == 0 { &mut fixed } else { &mut blocks };
                    list.push(added);
                }
            }
            let limits = Limits {
                output_size_max: 20 + random.below(200),
                series_count_max: 5 + random.below(50),
                eager: random.below(2) == 0,
            };
            let mut steps = 0;
            while let Some(plan) = plan(&blocks, &fixed, &limits) {
                steps += 1;
                assert!(steps < 2_000, "seed {seed}: no end");
                let (inputs, rest): (Vec<_>, Vec<_>) =
                    blocks.into_iter().partition(|block| plan.inputs.contains(&block.number));
                assert_eq!(inputs.len(), plan.inputs.len());
                blocks = rest;
                for range in &plan.stretches {
                    let met: Vec<_> =
                        inputs.iter().filter(|input| range.meets(input.min_time, input.max_time)).collect();
                    let Some(min) = met.iter().map(|input| input.min_time).min() else { continue };
                    let max = met.iter().map(|input| input.max_time).max().unwrap();
                    number += 1;
                    blocks.push(BlockMeta {
                        number,
                        size: met
                            .iter()
                            .map(|input| input.size)
                            .sum::<u64>()
                            .div_ceil(plan.stretches.len() as u64),
                        min_time: min.max(range.start),
                        max_time: max.min(range.end.saturating_sub(1)),
                        first_lsn: inputs.iter().map(|input| input.first_lsn).min().unwrap(),
                        last_lsn: inputs.iter().map(|input| input.last_lsn).max().unwrap(),
                        level: plan.level,
                        ..*met[0]
                    });
                }
                let all: Vec<&BlockMeta> = blocks.iter().chain(&fixed).collect();
                for (index, a) in all.iter().enumerate() {
                    for b in &all[index + 1..] {
                        let meet = a.min_time <= b.max_time && b.min_time <= a.max_time;
                        assert!(!meet || !lsns_meet(a, b.first_lsn, b.last_lsn), "seed {seed}: {a:?} {b:?}");
                    }
                }
            }
        }
    }

    /// One sample, after all blocks of lower numbers.
    fn level_block(number: u64, level: u8, hour: i64) -> BlockMeta {
        let lsns = (number * 10, number * 10 + 9);
        BlockMeta { level, sample_count: 1, size: 1, ..block(number, (hour, hour), lsns) }
    }

    /// Flushes into one open window, merging whenever that is due; gives the levels that are left, oldest first, and
    /// how often a block was rewritten.
    fn run_open_window(flush_count: u64) -> (Vec<u8>, usize) {
        let limits = Limits { output_size_max: u64::MAX, series_count_max: u64::MAX, eager: false };
        let (mut blocks, mut rewritten, mut next_number) = (Vec::new(), 0, 0);
        for _ in 0..flush_count {
            blocks.push(level_block(next_number, 0, 0));
            next_number += 1;
            while let Some(plan) = plan(&blocks, &[], &limits) {
                let taken: Vec<BlockMeta> =
                    blocks.extract_if(.., |block| plan.inputs.contains(&block.number)).collect();
                let newest = blocks.iter().map(|block| block.last_lsn).max().unwrap_or(0);
                assert!(taken.iter().all(|block| block.first_lsn >= newest), "only what is newest is taken");
                rewritten += taken.iter().map(|block| block.sample_count as usize).sum::<usize>();
                let mut merged = level_block(next_number, plan.level, 0);
                next_number += 1;
                (merged.first_lsn, merged.last_lsn) = (taken[0].first_lsn, taken[taken.len() - 1].last_lsn);
                merged.sample_count = taken.iter().map(|block| block.sample_count).sum();
                blocks.push(merged);
            }
        }
        (blocks.iter().map(|block| block.level).collect(), rewritten)
    }

    #[test]
    fn an_open_window_is_rewritten_once_for_each_power() {
        assert_eq!(run_open_window(7), (vec![0; 7], 0));
        assert_eq!(run_open_window(8), (vec![1], 8));
        assert_eq!(run_open_window(63).0, [vec![1; 7], vec![0; 7]].concat());
        assert_eq!(run_open_window(64), (vec![2], 2 * 64));
        assert_eq!(run_open_window(512), (vec![3], 3 * 512));
    }

    #[test]
    fn a_closed_window_becomes_one_block() {
        let limits = Limits { output_size_max: u64::MAX, series_count_max: u64::MAX, eager: false };
        let mut blocks: Vec<BlockMeta> =
            (0..3).map(|number| level_block(number, 2 - number as u8, 0)).collect();
        assert_eq!(plan(&blocks, &[], &limits), None);
        blocks.push(level_block(3, 0, 2));
        let plan = plan(&blocks, &[], &limits).unwrap();
        assert_eq!((plan.inputs, plan.level), (vec![0, 1, 2], 2));
    }
}
