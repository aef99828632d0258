//! Recent time columns of a block being written, so that equal ones are kept once.
//!
//! Called by the block writer. Series that are scraped together have the same times in all pages of the
//! same stretch; a series that missed a sample has them less a position.

use std::cell::OnceCell;
use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;

use crate::block::format::Section;
use crate::chunk::SharedColumn;
use crate::chunk::times::{TimeColumnRef, absent_positions, decode_times};
use crate::error::Result;

/// Packed bytes and decoded times of the columns that are remembered, at most.
const MEMORY_SIZE_MAX: usize = 8 << 20;
/// Shorter columns are shared only when they are equal: their parts are not worth the search.
const PARTED_COUNT_MIN: u32 = 64;
/// Most positions that a page may lack of a column it shares.
const ABSENT_COUNT_MAX: usize = 64;
/// So many columns are compared with a page that lacks some positions.
const CANDIDATE_COUNT: usize = 4;

/// A column that was written.
#[derive(Debug)]
struct Written {
    column: SharedColumn,
    bytes: Box<[u8]>,
    times: OnceCell<Vec<i64>>,
}

impl Written {
    fn memory_size(&self) -> usize {
        self.bytes.len() + self.column.count as usize * size_of::<i64>() + size_of::<Self>() + 64
    }

    fn times(&self) -> &[i64] {
        self.times.get_or_init(|| {
            let mut times = Vec::new();
            // Bytes that do not decode come from another block and are refused by its reader.
            let _ = decode_times(self.column.count, TimeColumnRef::Packed(&self.bytes), &mut times);
            times
        })
    }
}

/// The columns written last, by the CRC of their bytes.
#[derive(Debug, Default)]
pub(crate) struct RecentColumns {
    by_crc: HashMap<u32, Written>,
    by_end: BTreeSet<(i64, u32)>,
    oldest: VecDeque<u32>,
    memory_size: usize,
}

/// The times of a page that is about to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedTimes<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) count: u32,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
}

/// Where a page finds its times.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) column: SharedColumn,
    pub(crate) crc: u32,
    /// Positions of the column that the page lacks.
    pub(crate) absent: Vec<u16>,
}

impl RecentColumns {
    /// A column that was written, is remembered, and holds these times.
    pub(crate) fn find(&self, times: PackedTimes<'_>) -> Result<Option<Found>> {
        let crc = crc32fast::hash(times.bytes);
        if let Some(same) = self.by_crc.get(&crc).filter(|written| *written.bytes == *times.bytes) {
            return Ok(Some(Found { column: same.column, crc, absent: Vec::new() }));
        }
        if times.count < PARTED_COUNT_MIN {
            return Ok(None);
        }
        let longer = self.by_end.range((times.max_time, 0)..).take(CANDIDATE_COUNT);
        let candidates = longer.filter_map(|(_, crc)| Some((*crc, self.by_crc.get(crc)?)));
        let mut part = Vec::new();
        for (crc, written) in candidates.filter(|(_, written)| may_hold(&written.column, times)) {
            if part.is_empty() {
                decode_times(times.count, TimeColumnRef::Packed(times.bytes), &mut part)?;
            }
            let absent = absent_positions(written.times(), &part, ABSENT_COUNT_MAX);
            // Two bytes a position, and some for their number and the ends.
            if let Some(absent) = absent.filter(|absent| absent.len() * 2 + 8 < times.bytes.len()) {
                return Ok(Some(Found { column: written.column, crc, absent }));
            }
        }
        Ok(None)
    }

    /// Remembers a column that was written to `section`.
    pub(crate) fn add(&mut self, times: PackedTimes<'_>, section: Section) -> Found {
        let PackedTimes { bytes, count, min_time, max_time } = times;
        let column =
            SharedColumn { offset: section.offset, size: bytes.len() as u32, count, min_time, max_time };
        let written = Written { column, bytes: bytes.into(), times: OnceCell::new() };
        self.forget(section.crc);
        self.memory_size += written.memory_size();
        if count >= PARTED_COUNT_MIN {
            self.by_end.insert((max_time, section.crc));
        }
        self.by_crc.insert(section.crc, written);
        self.oldest.push_back(section.crc);
        while self.memory_size > MEMORY_SIZE_MAX {
            let Some(oldest) = self.oldest.pop_front() else { break };
            self.forget(oldest);
        }
        Found { column, crc: section.crc, absent: Vec::new() }
    }

    fn forget(&mut self, crc: u32) {
        if let Some(written) = self.by_crc.remove(&crc) {
            self.memory_size -= written.memory_size();
            self.by_end.remove(&(written.column.max_time, crc));
        }
    }
}

/// Whether the page may be the column less some positions.
fn may_hold(column: &SharedColumn, times: PackedTimes<'_>) -> bool {
    let lacking = column.count.saturating_sub(times.count) as usize;
    (1..=ABSENT_COUNT_MAX).contains(&lacking)
        && column.min_time <= times.min_time
        && times.max_time <= column.max_time
}
