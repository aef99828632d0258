//! Appending to the log: the open segment, its space, and what has yet to be synced.
//!
//! Owned by the commit lock of `db`; the files to sync are handed out, so that a sync runs outside
//! that lock. After a failed or short write nothing is appended behind it: the next write begins a new
//! segment, whose header says up to which LSN the one before it counts.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::fs::{Fs, WriteFile, name};
use crate::wal::format::{FRAME_HEADER_SIZE, SEGMENT_HEADER_SIZE, SEGMENT_SIZE_MIN};
use crate::wal::frame::{FrameHeader, SegmentHeader, put_frame};

/// Where an open database begins to write.
#[derive(Clone, Debug)]
pub(crate) struct LogStart {
    /// The database's directory.
    pub(crate) root: PathBuf,
    pub(crate) database_id: [u8; 16],
    pub(crate) incarnation: u64,
    /// Number for the first segment; higher than any ever used.
    pub(crate) number: u64,
    /// LSN of the last frame that counts, durable by now.
    pub(crate) last_lsn: u64,
    /// Segments are closed at this many bytes.
    pub(crate) segment_size_max: u64,
}

/// A segment that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) number: u64,
    /// LSN of its last frame, or of the frame before it while it has none.
    pub(crate) last_lsn: u64,
    /// Bytes it takes on disk.
    pub(crate) size: u64,
}

/// A segment's file, shared with whoever syncs it.
type LogFile = Arc<dyn WriteFile>;

/// The writing end of the log.
#[derive(Debug)]
pub(crate) struct Log {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    database_id: [u8; 16],
    incarnation: u64,
    next_number: u64,
    segment_size_max: u64,
    last_lsn: u64,
    open: Option<Open>,
    epoch: u64,
    closed: Vec<SegmentInfo>,
    unsynced: Vec<LogFile>,
}

#[derive(Debug)]
struct Open {
    header: SegmentHeader,
    seed: crc32fast::Hasher,
    file: LogFile,
    offset: u64,
    allocated: u64,
    size_max: u64,
}

impl Log {
    /// Begins after what recovery kept, whose segments are `existing`. Creates nothing before the first frame.
    pub(crate) fn new(fs: Arc<dyn Fs>, start: LogStart, existing: Vec<SegmentInfo>) -> Self {
        Log {
            fs,
            root: start.root,
            database_id: start.database_id,
            incarnation: start.incarnation,
            next_number: start.number,
            segment_size_max: start.segment_size_max,
            last_lsn: start.last_lsn,
            open: None,
            epoch: start.number,
            closed: existing,
            unsynced: Vec::new(),
        }
    }

    /// LSN of the last frame written.
    pub(crate) fn last_lsn(&self) -> u64 {
        self.last_lsn
    }

    /// Number that the next segment will take.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Bytes of all segments.
    pub(crate) fn size(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|segment| segment.size).sum();
        closed + self.open.as_ref().map_or(0, |open| open.allocated.max(open.offset))
    }

    /// Makes sure that a segment is open, with room by the rule of sizes for `size` more bytes.
    ///
    /// # Errors
    /// `Io`; the log is as before.
    pub(crate) fn prepare(&mut self, size: usize, durable_lsn: u64) -> Result<()> {
        let full = self.open.as_ref().is_some_and(|open| {
            open.offset > SEGMENT_HEADER_SIZE as u64 && open.offset + size as u64 > self.segment_size_max
        });
        if full {
            self.close_segment();
        }
        if self.open.is_none() {
            self.open_segment(durable_lsn)?;
        }
        Ok(())
    }

    /// Appends one frame to `out`, to be written by [`Log::write`] before the next [`Log::prepare`].
    ///
    /// Does nothing when no segment was prepared.
    pub(crate) fn put_frame(&self, out: &mut Vec<u8>, header: FrameHeader, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(open) = &self.open {
            put_frame(out, &open.seed, header, write);
        }
    }

    /// Writes frames made by [`Log::put_frame`], the last of which has `last_lsn`.
    ///
    /// # Errors
    /// `Io`; then none of the frames counts, now or after any crash that leaves a later segment.
    pub(crate) fn write(&mut self, frames: &[u8], last_lsn: u64) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(crate::Error::closed("no segment of the log is open"));
        };
        if let Err(error) = open.write(frames) {
            // Best effort: without its first header the failed group cannot be read back even if the
            // process dies before the next segment says where this one ends.
            let _ = open.file.write_at(&[0; FRAME_HEADER_SIZE], open.offset);
            self.close_segment();
            return Err(error);
        }
        self.last_lsn = last_lsn;
        Ok(())
    }

    /// Ends the epoch: the next frame goes to a new segment, in which no reference is defined yet.
    pub(crate) fn begin_epoch(&mut self) {
        self.close_segment();
        self.epoch = self.next_number;
    }

    /// The files whose bytes up to [`Log::last_lsn`] may not be on the device yet: closed ones, oldest first, and
    /// the open one.
    pub(crate) fn unsynced(&self) -> (Vec<LogFile>, Option<LogFile>) {
        (self.unsynced.clone(), self.open.as_ref().map(|open| open.file.clone()))
    }

    /// Notes that closed `files`, as [`Log::unsynced`] gave them, were synced.
    pub(crate) fn synced(&mut self, files: &[LogFile]) {
        self.unsynced.retain(|file| !files.iter().any(|synced| Arc::ptr_eq(file, synced)));
    }

    /// Takes out of the list the closed segments that hold nothing above `cut`; the caller removes the files.
    pub(crate) fn release(&mut self, cut: u64) -> Vec<SegmentInfo> {
        let (released, kept) = self.closed.iter().partition(|segment| segment.last_lsn <= cut);
        self.closed = kept;
        released
    }

    /// All segments that exist, oldest first, the open one included.
    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let open = self.open.as_ref().map(|open| SegmentInfo {
            number: open.header.number,
            last_lsn: self.last_lsn,
            size: open.allocated.max(open.offset),
        });
        self.closed.iter().copied().chain(open).collect()
    }

    /// Closes the open segment, if any: cuts off the space it did not need. It may be unsynced.
    pub(crate) fn close_segment(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Trimming saves space only; a segment that keeps its zeros reads the same.
        let trimmed = open.file.truncate(open.offset).is_ok();
        let size = if trimmed { open.offset } else { open.allocated.max(open.offset) };
        self.closed.push(SegmentInfo { number: open.header.number, last_lsn: self.last_lsn, size });
        self.unsynced.push(open.file);
    }

    fn open_segment(&mut self, durable_lsn: u64) -> Result<()> {
        let number = self.next_number;
        let header = SegmentHeader {
            database_id: self.database_id,
            number,
            incarnation: self.incarnation,
            epoch: self.epoch,
            previous_lsn: self.last_lsn,
            durable_lsn,
        };
        let path = name::segment_path(&self.root, number);
        let file = self.fs.create(&path)?;
        // The number is used up even when a later step fails and the file cannot be removed.
        self.next_number += 1;
        let (offset, allocated, size_max) = (0, 0, self.segment_size_max);
        let mut open = Open { header, seed: header.seed(), file, offset, allocated, size_max };
        let made =
            open.write(&header.encode()).and_then(|()| self.fs.sync_dir(&self.root.join(name::WAL_DIR)));
        if let Err(error) = made {
            let _ = self.fs.remove(&path);
            return Err(error);
        }
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.offset + bytes.len() as u64;
        if end > self.allocated {
            let target = (self.allocated * 2).max(SEGMENT_SIZE_MIN).min(self.size_max).max(end);
            self.file.allocate(target)?;
            self.allocated = target;
        }
        self.file.write_at(bytes, self.offset)?;
        self.offset = end;
        Ok(())
    }
}
