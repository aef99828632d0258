//! Which blocks to merge next. Pure: what is known of the live blocks in, a plan out.
//!
//! Invariants kept (`docs/architecture.md`): two live blocks whose times meet have LSN ranges that do not
//! interleave, and the later wins. So a merge takes *all* live blocks whose times meet its window and
//! whose LSNs lie between the smallest and the largest taken; where a block that reaches beyond the
//! window lies between them, the merge stops short of it.

use std::collections::BTreeSet;

use crate::block::BlockMeta;
use crate::compact::stretch::{LADDER, window};
use crate::model::{TimeRange, Timestamp};

/// Merging a window that still takes writes is worth it from this many blocks on.
const OPEN_WINDOW_COUNT: usize = 8;

/// What bounds a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most bytes that the inputs of a merge may have together.
    pub(crate) output_size_max: u64,
    /// Whether windows are merged that may still take writes: somebody asked for it.
    pub(crate) eager: bool,
}

/// Blocks to rewrite as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Numbers of the blocks, oldest first.
    pub(crate) inputs: Vec<u64>,
    /// All of them lie inside.
    pub(crate) window: TimeRange,
    /// Level of the output.
    pub(crate) level: u8,
}

/// The next merge, or `None` when all is merged. Finer windows come first.
pub(crate) fn plan(blocks: &[BlockMeta], limits: &Limits) -> Option<Plan> {
    let newest = blocks.iter().map(|block| block.max_time).max()?;
    (0..LADDER.len()).find_map(|level| {
        let mut windows: Vec<TimeRange> = blocks.iter().filter_map(|block| window_of(block, level)).collect();
        windows.sort_by_key(|window| window.start);
        windows.dedup();
        windows.into_iter().find_map(|window| plan_window(blocks, window, level, newest, limits))
    })
}

/// The window of a level that the block lies in whole, if there is one.
fn window_of(block: &BlockMeta, level: usize) -> Option<TimeRange> {
    let window = window(level, block.min_time);
    window.contains(Timestamp::from_nanos(block.max_time)).then_some(window)
}

fn plan_window(
    blocks: &[BlockMeta],
    window: TimeRange,
    level: usize,
    newest: i64,
    limits: &Limits,
) -> Option<Plan> {
    let time =
        |block: &BlockMeta| (Timestamp::from_nanos(block.min_time), Timestamp::from_nanos(block.max_time));
    let (inside, across): (Vec<&BlockMeta>, Vec<&BlockMeta>) = blocks
        .iter()
        .filter(|block| window.meets(time(block).0, time(block).1))
        .partition(|block| window.covers(time(block).0, time(block).1));
    let closed = Timestamp::from_nanos(newest) >= window.end;
    runs(inside, &across).into_iter().find_map(|mut run| {
        if !closed && !limits.eager {
            run = newest_of_a_level(&run).to_vec();
        }
        let size: u64 = run.iter().map(|block| block.size).sum();
        let fresh = run.iter().any(|block| block.level == 0);
        let enough = match run.len() {
            0 => false,
            // A lone block is rewritten once, for its denser codecs.
            1 => fresh && (limits.eager || closed),
            _ => true,
        };
        if !enough || size > limits.output_size_max && run.len() > 1 {
            return None;
        }
        let merged = run.iter().map(|block| block.level).max().unwrap_or(0);
        // What was merged in an open window counts as merged once more, else it would be taken again at once.
        let merged = if closed || limits.eager { merged } else { merged.saturating_add(1) };
        let level = (level as u8 + 1).max(merged);
        Some(Plan { inputs: run.iter().map(|block| block.number).collect(), window, level })
    })
}

/// The newest blocks that were merged least often, when they are many enough: what was merged lately is left alone
/// until there is as much of it again, so that each sample is rewritten once for each power of their number.
fn newest_of_a_level<'a, 'b>(run: &'a [&'b BlockMeta]) -> &'a [&'b BlockMeta] {
    let levels: BTreeSet<u8> = run.iter().map(|block| block.level).collect();
    let many = levels.into_iter().find_map(|level| {
        let newest = || run.iter().rev().take_while(|block| block.level <= level);
        (newest().filter(|block| block.level == level).count() >= OPEN_WINDOW_COUNT).then(|| newest().count())
    });
    let count = many.unwrap_or(0);
    run.get(run.len() - count..).unwrap_or_default()
}

/// Splits the blocks of a window, in order of LSN, wherever a block that reaches across its border lies between.
fn runs<'a>(mut inside: Vec<&'a BlockMeta>, across: &[&BlockMeta]) -> Vec<Vec<&'a BlockMeta>> {
    inside.sort_by_key(|block| (block.first_lsn, block.last_lsn));
    let mut runs: Vec<Vec<&BlockMeta>> = Vec::new();
    for block in inside {
        let joins = runs.last().is_some_and(|run| {
            let first = run.iter().map(|taken| taken.first_lsn).min().unwrap_or(0);
            let last = run.iter().map(|taken| taken.last_lsn).max().unwrap_or(0).max(block.last_lsn);
            !across.iter().any(|other| other.first_lsn <= last && first <= other.last_lsn)
        });
        match runs.last_mut() {
            Some(run) if joins => run.push(block),
            _ => runs.push(vec![block]),
        }
    }
    // Where even one block interleaves with one across, nothing can be taken.
    runs.retain(|run| {
        run.iter().all(|block| {
            !across.iter().any(|other| other.first_lsn <= block.last_lsn && block.first_lsn <= other.last_lsn)
                || run.len() == 1
        })
    });
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn block(number: u64, level: u8, min_time: i64, max_time: i64) -> BlockMeta {
        BlockMeta {
            database_id: [0; 16],
            number,
            level,
            min_time,
            max_time,
            first_lsn: number * 10,
            last_lsn: number * 10 + 9,
            series_count: 1,
            page_count: 1,
            sample_count: 1,
            size: 1,
        }
    }

    /// Flushes into one open window, merging whenever that is due; gives the levels that are left, oldest first, and
    /// how often a block was rewritten.
    fn run_open_window(flush_count: u64) -> (Vec<u8>, usize) {
        let limits = Limits { output_size_max: u64::MAX, eager: false };
        let (mut blocks, mut rewritten, mut next_number) = (Vec::new(), 0, 0);
        for _ in 0..flush_count {
            blocks.push(block(next_number, 0, 1, HOUR));
            next_number += 1;
            while let Some(plan) = plan(&blocks, &limits) {
                let taken: Vec<BlockMeta> =
                    blocks.extract_if(.., |block| plan.inputs.contains(&block.number)).collect();
                let newest = blocks.iter().map(|block| block.last_lsn).max().unwrap_or(0);
                assert!(taken.iter().all(|block| block.first_lsn >= newest), "only what is newest is taken");
                rewritten += taken.iter().map(|block| block.size as usize).sum::<usize>();
                let mut merged = block(next_number, plan.level, 1, HOUR);
                next_number += 1;
                (merged.first_lsn, merged.last_lsn) = (taken[0].first_lsn, taken[taken.len() - 1].last_lsn);
                merged.size = taken.iter().map(|block| block.size).sum();
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
        let limits = Limits { output_size_max: u64::MAX, eager: false };
        let mut blocks: Vec<BlockMeta> =
            (0..3).map(|number| block(number, 2 - number as u8, 1, HOUR)).collect();
        assert_eq!(plan(&blocks, &limits), None);
        blocks.push(block(3, 0, 2 * HOUR, 2 * HOUR + 1));
        let plan = plan(&blocks, &limits).unwrap();
        assert_eq!((plan.inputs, plan.level), (vec![0, 1, 2], 2));
    }
}
