//! The sum of all edits: which files are live, and what must be known to open them. Pure.
//!
//! [`State::apply`] is the one place that says which edits are possible; the writer asks it before it writes,
//! the reader after it has read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::manifest::edit::{BlockMeta, CleanShutdown, Edit, MetricMetadata, Quarantined, Tombstone};
use crate::manifest::format::{BLOCK_COUNT_MAX, RECORD_SIZE_TARGET};
use crate::model::{Match, Metadata, Timestamp};

/// What a manifest says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    /// Drawn when the database was made; every file of it carries it.
    pub database_id: [u8; 16],
    /// Live blocks by number.
    pub blocks: BTreeMap<u64, BlockMeta>,
    /// Deletes that may meet a block, by LSN.
    pub tombstones: BTreeMap<u64, Tombstone>,
    /// Blocks in `quarantine/`, by number.
    pub quarantined: BTreeMap<u64, Quarantined>,
    /// Metadata by metric name.
    pub metadata: BTreeMap<String, Metadata>,
    /// The log up to this LSN is no longer needed.
    pub cut: u64,
    /// Nothing before this time is in any answer.
    pub floor: Timestamp,
    /// Which open of the database wrote last.
    pub incarnation: u64,
    /// No file has this number or a greater one, as far as edits say; a crash may have left one that has.
    pub next_file: u64,
    /// The last edit closed the database in order.
    pub clean_shutdown: Option<CleanShutdown>,
}

impl State {
    /// Of a database without data.
    pub(crate) fn new(database_id: [u8; 16]) -> Self {
        State {
            database_id,
            blocks: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            metadata: BTreeMap::new(),
            cut: 0,
            floor: Timestamp::MIN,
            incarnation: 0,
            next_file: 1,
            clean_shutdown: None,
        }
    }

    /// Applies all of `edit`, or nothing.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the caller's error.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        self.check_scalars(edit)?;
        self.check_removed(edit)?;
        self.check_added(edit)?;

        for number in edit.blocks_removed.iter().chain(edit.quarantined.iter().map(|q| &q.block.number)) {
            self.blocks.remove(number);
        }
        self.blocks.extend(edit.blocks_added.iter().map(|block| (block.number, *block)));
        for lsn in &edit.tombstones_removed {
            self.tombstones.remove(lsn);
        }
        self.tombstones
            .extend(edit.tombstones_added.iter().map(|tombstone| (tombstone.lsn, tombstone.clone())));
        for number in &edit.released {
            self.quarantined.remove(number);
        }
        self.quarantined.extend(edit.quarantined.iter().map(|q| (q.block.number, q.clone())));
        self.metadata.extend(edit.metadata.iter().map(|entry| (entry.name.clone(), entry.metadata.clone())));
        self.cut = edit.cut.unwrap_or(self.cut);
        self.floor = edit.floor.unwrap_or(self.floor);
        self.incarnation = edit.incarnation.unwrap_or(self.incarnation);
        let added = edit.blocks_added.iter().map(|block| block.number.saturating_add(1)).max();
        self.next_file = self.next_file.max(edit.next_file.unwrap_or(0)).max(added.unwrap_or(0));
        self.clean_shutdown = edit.clean_shutdown;
        Ok(())
    }

    /// What only rises, rises (invariants 2, 4, 12, 16).
    fn check_scalars(&self, edit: &Edit) -> Result<(), String> {
        let falls = |what: &str, from: u64, to: Option<u64>| match to {
            Some(to) if to < from => Err(format!("the {what} would fall from {from} to {to}")),
            _ => Ok(()),
        };
        falls("cut", self.cut, edit.cut)?;
        falls("incarnation", self.incarnation, edit.incarnation)?;
        falls("next file number", self.next_file, edit.next_file)?;
        match edit.floor {
            Some(floor) if floor < self.floor => {
                Err(format!("the retention floor would fall from {} to {floor}", self.floor))
            }
            _ => Ok(()),
        }
    }

    /// What goes is there: two merges of one block would both take its place.
    fn check_removed(&self, edit: &Edit) -> Result<(), String> {
        let mut gone = BTreeSet::new();
        for number in &edit.blocks_removed {
            if !self.blocks.contains_key(number) || !gone.insert(number) {
                return Err(format!("block {number} is to be removed, but is not live"));
            }
        }
        for lsn in &edit.tombstones_removed {
            if !self.tombstones.contains_key(lsn) {
                return Err(format!("the tombstone of LSN {lsn} is to be removed, but is not there"));
            }
        }
        for number in &edit.released {
            if !self.quarantined.contains_key(number) {
                return Err(format!("block {number} is to leave quarantine, but is not in it"));
            }
        }
        Ok(())
    }

    /// What comes is possible, and has a place in the order of blocks.
    fn check_added(&self, edit: &Edit) -> Result<(), String> {
        for tombstone in &edit.tombstones_added {
            if self.tombstones.get(&tombstone.lsn).is_some_and(|known| known != tombstone) {
                return Err(format!("LSN {} has another tombstone", tombstone.lsn));
            }
        }
        let cut = edit.cut.unwrap_or(self.cut);
        let mut numbers = BTreeSet::new();
        for block in &edit.blocks_added {
            check_block(block, cut)?;
            let known =
                self.blocks.contains_key(&block.number) || self.quarantined.contains_key(&block.number);
            if known || !numbers.insert(block.number) {
                return Err(format!("block {} is to be added, but its number is taken", block.number));
            }
        }
        let count = self.blocks.len() - edit.blocks_removed.len() + edit.blocks_added.len();
        if count > BLOCK_COUNT_MAX {
            return Err(format!("there would be {count} live blocks, more than {BLOCK_COUNT_MAX}"));
        }
        let gone: BTreeSet<u64> = edit.blocks_removed.iter().copied().collect();
        let stay = self.blocks.values().filter(|block| !gone.contains(&block.number));
        check_order(&edit.blocks_added, stay)
    }

    /// The edits that make this state of the one of [`State::new`], each of which fits a record.
    pub(crate) fn to_edits(&self) -> Vec<Edit> {
        let mut edits: Vec<Edit> = in_pieces(self.blocks.values().copied(), |_| size_of::<BlockMeta>())
            // The cut is what allows blocks, so each piece carries it.
            .map(|blocks_added| Edit { blocks_added, cut: Some(self.cut), ..Edit::default() })
            .collect();
        let quarantined =
            in_pieces(self.quarantined.values().cloned(), |q| size_of::<Quarantined>() + q.reason.len());
        edits.extend(quarantined.map(|quarantined| Edit { quarantined, ..Edit::default() }));
        let metadata = self.metadata.iter().map(|(name, metadata)| {
            let (name, metadata) = (name.clone(), metadata.clone());
            MetricMetadata { name, metadata }
        });
        let rest = Edit {
            tombstones_added: self.tombstones.values().cloned().collect(),
            metadata: metadata.collect(),
            cut: Some(self.cut),
            floor: Some(self.floor),
            incarnation: Some(self.incarnation),
            next_file: Some(self.next_file),
            clean_shutdown: self.clean_shutdown,
            ..Edit::default()
        };
        edits.extend(to_pieces(rest));
        edits
    }
}

fn check_block(block: &BlockMeta, cut: u64) -> Result<(), String> {
    let number = block.number;
    if block.min_time > block.max_time || block.first_lsn > block.last_lsn {
        return Err(format!("block {number} ends before it starts"));
    }
    if block.series_count == 0 || block.series_count > block.sample_count {
        return Err(format!(
            "block {number} has {} series of {} samples",
            block.series_count, block.sample_count
        ));
    }
    if block.last_lsn > cut {
        return Err(format!("block {number} holds LSN {}, above the cut {cut}", block.last_lsn));
    }
    Ok(())
}

/// Of two blocks whose times meet, one must be the later (invariant 5): as rectangles of time and LSNs,
/// blocks do not meet. Sweeps over time with the LSN ranges that are open; as those do not meet, a new one
/// need be compared with one neighbour only.
fn check_order<'a>(added: &'a [BlockMeta], stay: impl Iterator<Item = &'a BlockMeta>) -> Result<(), String> {
    let Some(hull) = added.iter().copied().reduce(hull) else { return Ok(()) };
    let near = stay.filter(|block| {
        block.meets(&hull) && block.first_lsn <= hull.last_lsn && hull.first_lsn <= block.last_lsn
    });
    let mut blocks: Vec<&BlockMeta> = added.iter().chain(near).collect();
    blocks.sort_unstable_by_key(|block| block.min_time);

    let mut open = BTreeMap::<u64, &BlockMeta>::new();
    let mut ends = BinaryHeap::new();
    for block in blocks {
        while let Some(Reverse((max_time, lsn))) = ends.peek().copied()
            && max_time < block.min_time
        {
            ends.pop();
            open.remove(&lsn);
        }
        if let Some((_, other)) = open.range(..=block.last_lsn).next_back()
            && other.last_lsn >= block.first_lsn
        {
            return Err(format!("blocks {} and {} meet in time and in LSNs", block.number, other.number));
        }
        open.insert(block.first_lsn, block);
        ends.push(Reverse((block.max_time, block.first_lsn)));
    }
    Ok(())
}

/// The smallest rectangle around both.
fn hull(a: BlockMeta, b: BlockMeta) -> BlockMeta {
    BlockMeta {
        min_time: a.min_time.min(b.min_time),
        max_time: a.max_time.max(b.max_time),
        first_lsn: a.first_lsn.min(b.first_lsn),
        last_lsn: a.last_lsn.max(b.last_lsn),
        ..a
    }
}

/// The same edit as a sequence whose last one carries everything but the long lists. What the earlier ones
/// bring is true whether or not the last one follows: it is also still in the log, above the cut.
pub(crate) fn to_pieces(mut edit: Edit) -> Vec<Edit> {
    let text = |entry: &MetricMetadata| {
        size_of::<MetricMetadata>() + entry.name.len() + entry.metadata.unit.len() + entry.metadata.help.len()
    };
    let metadata = in_pieces(std::mem::take(&mut edit.metadata).into_iter(), text);
    let mut pieces: Vec<Edit> = metadata.map(|metadata| Edit { metadata, ..Edit::default() }).collect();
    let tombstones = in_pieces(std::mem::take(&mut edit.tombstones_added).into_iter(), tombstone_size);
    pieces.extend(tombstones.map(|tombstones_added| Edit { tombstones_added, ..Edit::default() }));
    // The common case: all of it is one record.
    if let [piece] = pieces.as_mut_slice() {
        edit.metadata = std::mem::take(&mut piece.metadata);
        edit.tombstones_added = std::mem::take(&mut piece.tombstones_added);
        pieces.clear();
    }
    pieces.push(edit);
    pieces
}

fn tombstone_size(tombstone: &Tombstone) -> usize {
    let texts = |condition: &Match| match condition {
        Match::Equal(text) | Match::NotEqual(text) => text.len(),
        Match::In(texts) => texts.iter().map(|text| text.len() + 8).sum(),
        Match::Regex(regex) | Match::NotRegex(regex) => regex.pattern().len(),
        Match::Present | Match::Absent => 0,
    };
    let matchers = tombstone.selector.matchers.iter();
    size_of::<Tombstone>()
        + matchers.map(|matcher| 24 + matcher.key.len() + texts(&matcher.condition)).sum::<usize>()
}

/// Groups `items` so that each group stays at about [`RECORD_SIZE_TARGET`] bytes.
fn in_pieces<T>(items: impl Iterator<Item = T>, size: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut pieces: Vec<Vec<T>> = Vec::new();
    let mut filled = usize::MAX;
    for item in items {
        let size = size(&item);
        match pieces.last_mut() {
            Some(piece) if filled + size <= RECORD_SIZE_TARGET => {
                piece.push(item);
                filled += size;
            }
            _ => {
                pieces.push(vec![item]);
                filled = size;
            }
        }
    }
    pieces.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::{block, edit_of_everything};
    use crate::model::{Selector, TimeRange};

    fn state_with(edit: Edit) -> State {
        let mut state = State::new([1; 16]);
        state.apply(&edit).unwrap();
        state
    }

    #[track_caller]
    fn refused(state: &State, edit: &Edit, reason: &str) {
        let mut after = state.clone();
        let error = after.apply(edit).unwrap_err();
        assert!(error.contains(reason), "{error}");
        assert_eq!(&after, state, "a refused edit changes nothing");
    }

    #[test]
    fn a_state_is_rebuilt_by_its_own_edits() {
        let state = state_with(edit_of_everything());
        let mut rebuilt = State::new([1; 16]);
        for edit in state.to_edits() {
            rebuilt.apply(&edit).unwrap();
        }
        assert_eq!(rebuilt, state);
    }

    #[test]
    fn long_lists_are_cut_into_records() {
        let metadata = |index| MetricMetadata {
            name: format!("metric_{index}"),
            metadata: Metadata { help: "x".repeat(1000), ..Metadata::default() },
        };
        let tombstone =
            |lsn| Tombstone { lsn, selector: Selector::name("y".repeat(1000)), range: TimeRange::ALL };
        let edit = Edit {
            metadata: (0..3000).map(metadata).collect(),
            tombstones_added: (0..3000).map(tombstone).collect(),
            cut: Some(1),
            ..Edit::default()
        };
        let pieces = to_pieces(edit.clone());
        assert!(pieces.len() > 5, "{}", pieces.len());
        for piece in &pieces {
            let mut out = Vec::new();
            crate::codec::meta::put_meta(&mut out, piece).unwrap();
            assert!(out.len() < 2 * RECORD_SIZE_TARGET);
        }
        assert_eq!(pieces.last().unwrap().cut, Some(1));
        let mut state = State::new([1; 16]);
        for piece in &pieces {
            state.apply(piece).unwrap();
        }
        assert_eq!(state, state_with(edit));
        let blocks = (1..40_000).map(|n| block(n, n as i64..n as i64, 1..1)).collect();
        let state = state_with(Edit { blocks_added: blocks, cut: Some(1), ..Edit::default() });
        assert!(state.to_edits().len() > 2);
    }

    #[test]
    fn what_only_rises_cannot_fall() {
        let state = state_with(edit_of_everything());
        let lower = Some(Timestamp::from_nanos(state.floor.nanos() - 1));
        refused(&state, &Edit { floor: lower, ..Edit::default() }, "retention floor");
        refused(&state, &Edit { cut: Some(state.cut - 1), ..Edit::default() }, "cut");
        refused(&state, &Edit { incarnation: Some(state.incarnation - 1), ..Edit::default() }, "incarnation");
        refused(&state, &Edit { next_file: Some(state.next_file - 1), ..Edit::default() }, "next file");
    }

    #[test]
    fn only_what_is_there_can_go() {
        let state =
            state_with(Edit { blocks_added: vec![block(1, 0..9, 1..5)], cut: Some(5), ..Edit::default() });
        refused(&state, &Edit { blocks_removed: vec![2], ..Edit::default() }, "block 2");
        refused(&state, &Edit { blocks_removed: vec![1, 1], ..Edit::default() }, "block 1");
        refused(&state, &Edit { tombstones_removed: vec![3], ..Edit::default() }, "LSN 3");
        refused(&state, &Edit { released: vec![1], ..Edit::default() }, "quarantine");
    }

    #[track_caller]
    fn adding(live: BlockMeta, added: BlockMeta, reason: Option<&str>) {
        let state = state_with(Edit { blocks_added: vec![live], cut: Some(100), ..Edit::default() });
        let edit = Edit { blocks_added: vec![added], ..Edit::default() };
        match reason {
            Some(reason) => refused(&state, &edit, reason),
            None => state.clone().apply(&edit).unwrap(),
        }
    }

    #[test]
    fn blocks_whose_times_meet_are_ordered_by_their_lsns() {
        let live = block(1, 10..20, 10..20);
        adding(live, block(2, 10..20, 21..30), None);
        adding(live, block(2, 0..99, 1..9), None);
        adding(live, block(2, 21..30, 10..20), None);
        adding(live, block(2, 20..30, 20..30), Some("meet"));
        adding(live, block(2, 0..10, 5..15), Some("meet"));
        adding(live, block(1, 30..40, 30..40), Some("taken"));
        adding(live, block(2, 30..40, 30..101), Some("above the cut"));
        let backwards = BlockMeta { max_time: Timestamp::from_nanos(29), ..block(2, 30..40, 30..31) };
        adding(live, backwards, Some("ends before"));
        adding(live, BlockMeta { sample_count: 0, ..block(2, 30..40, 30..31) }, Some("series"));
    }

    #[test]
    fn a_merge_replaces_its_inputs() {
        let inputs = vec![block(1, 0..9, 1..5), block(2, 5..20, 6..9)];
        let mut state = state_with(Edit { blocks_added: inputs, cut: Some(9), ..Edit::default() });
        let output = block(3, 0..20, 1..9);
        state
            .apply(&Edit { blocks_added: vec![output], blocks_removed: vec![1, 2], ..Edit::default() })
            .unwrap();
        assert_eq!(state.blocks.values().copied().collect::<Vec<_>>(), [output]);
        assert_eq!(state.next_file, 4);
    }

    #[test]
    fn a_quarantined_block_is_not_live() {
        let mut state =
            state_with(Edit { blocks_added: vec![block(1, 0..9, 1..5)], cut: Some(5), ..Edit::default() });
        let quarantined = Quarantined { block: block(1, 0..9, 1..5), reason: "CRC".to_owned() };
        state.apply(&Edit { quarantined: vec![quarantined], ..Edit::default() }).unwrap();
        assert!(state.blocks.is_empty() && state.quarantined.contains_key(&1));
        refused(&state, &Edit { blocks_added: vec![block(1, 0..9, 1..5)], ..Edit::default() }, "taken");
        state.apply(&Edit { released: vec![1], ..Edit::default() }).unwrap();
        assert!(state.quarantined.is_empty());
    }

    #[test]
    fn a_clean_shutdown_holds_until_the_next_edit() {
        let clean = CleanShutdown { last_lsn: 7, next_segment: 3 };
        let mut state = state_with(Edit { clean_shutdown: Some(clean), ..Edit::default() });
        assert_eq!(state.clean_shutdown, Some(clean));
        state.apply(&Edit::default()).unwrap();
        assert_eq!(state.clean_shutdown, None);
    }

    #[test]
    fn a_tombstone_may_come_twice_but_not_change() {
        let tombstone =
            |lsn, name: &str| Tombstone { lsn, selector: Selector::name(name), range: TimeRange::ALL };
        let edit = |name| Edit { tombstones_added: vec![tombstone(5, name)], ..Edit::default() };
        let mut state = state_with(edit("a"));
        state.apply(&edit("a")).unwrap();
        assert_eq!(state.tombstones.len(), 1);
        refused(&state, &edit("b"), "another tombstone");
    }
}
