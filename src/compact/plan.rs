//! Which blocks to merge next. Pure: what is known of the live blocks in, a plan out.
//!
//! Invariants kept (`docs/architecture.md`): two live blocks whose times meet have LSN ranges that do not
//! interleave, and the later wins. So a merge takes *all* live blocks whose times meet its window and
//! whose LSNs lie between the smallest and the largest taken; where a block that reaches beyond the
//! window lies between them, the merge stops short of it.

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
    runs(inside, &across).into_iter().find_map(|run| {
        let size: u64 = run.iter().map(|block| block.size).sum();
        let fresh = run.iter().any(|block| block.level == 0);
        let enough = match run.len() {
            0 => false,
            // A lone block is rewritten once, for its denser codecs.
            1 => fresh && (limits.eager || closed),
            count => limits.eager || closed || count >= OPEN_WINDOW_COUNT,
        };
        if !enough || size > limits.output_size_max && run.len() > 1 {
            return None;
        }
        let level = (level as u8 + 1).max(run.iter().map(|block| block.level).max().unwrap_or(0));
        Some(Plan { inputs: run.iter().map(|block| block.number).collect(), window, level })
    })
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
