//! Reading the log back: which frames count, where the log ends, and whether that end is a torn tail
//! or damage.
//!
//! The rules (`docs/format.md`, "Reading the log"): segments are read in order of their numbers. A
//! segment counts up to the smallest `previous_lsn` of the segments after it. Frames form a chain by
//! `previous_lsn`; the log ends at the first link that is missing or unsound. When anything that was
//! written later proves that a frame beyond the end was on the device, the log is damaged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Fs, WriteFile, name};
use crate::wal::format::{
    FRAME_HEADER_SIZE, FRAME_MAGIC, FRAME_SIZE_MAX, SEGMENT_HEADER_SIZE, SEGMENT_SIZE_MAX,
};
use crate::wal::frame::{FrameHeader, SegmentHeader, get_frame, put_frame};
use crate::wal::writer::SegmentInfo;

/// A frame that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) segment: &'a SegmentHeader,
    pub(crate) header: FrameHeader,
    pub(crate) payload: &'a [u8],
    /// Path of the segment, for messages.
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
}

/// How the log ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LogEnd {
    /// LSN of the last frame that counts, or the cut.
    pub(crate) last_lsn: u64,
    /// Largest LSN in any sound frame or header, kept or discarded.
    pub(crate) largest_lsn: u64,
    /// Everything up to this LSN is proved to have been on the device.
    pub(crate) durable_lsn: u64,
    /// Where the chain broke, when bytes are left behind its end.
    pub(crate) torn: Option<Torn>,
    /// The segments that exist.
    pub(crate) segments: Vec<SegmentInfo>,
}

/// Bytes at the end of the log that are no frame of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Torn {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
}

/// What [`Chain::copy`] writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentCopy {
    pub(crate) incarnation: u64,
    /// Number of the first new segment.
    pub(crate) number: u64,
    /// Frames above this LSN are copied,
    pub(crate) after_lsn: u64,
    /// up to this one.
    pub(crate) last_lsn: u64,
}

#[derive(Debug)]
struct Copied {
    header: SegmentHeader,
    seed: crc32fast::Hasher,
    path: PathBuf,
    file: Arc<dyn WriteFile>,
    offset: u64,
    last_lsn: u64,
}

impl Copied {
    fn create(fs: &dyn Fs, root: &Path, header: SegmentHeader) -> Result<Self> {
        let path = root.join(name::WAL_DIR).join(name::temporary(&name::segment(header.number)));
        let file = fs.create(&path)?;
        let bytes = header.encode();
        file.write_at(&bytes, 0)?;
        let last_lsn = header.previous_lsn;
        Ok(Copied { header, seed: header.seed(), path, file, offset: bytes.len() as u64, last_lsn })
    }

    fn append(&mut self, frame: &Frame<'_>) -> Result<()> {
        let mut bytes = Vec::with_capacity(FRAME_HEADER_SIZE + frame.payload.len());
        put_frame(&mut bytes, &self.seed, frame.header, |out| out.extend_from_slice(frame.payload));
        self.file.write_at(&bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        self.last_lsn = frame.header.lsn;
        Ok(())
    }
}

/// All segments of a database, opened for one reading.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    fs: &'a dyn Fs,
    root: &'a Path,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    size: u64,
    header: Option<SegmentHeader>,
    /// Frames above it are of failed or abandoned writes.
    limit: u64,
}

impl<'a> Chain<'a> {
    /// Lists the segments and reads their headers.
    ///
    /// # Errors
    /// `UnsupportedVersion` when a segment is of a newer format, `Corruption` when one belongs to another database,
    /// `Io`. An unreadable header is no error here: it ends the chain.
    pub(crate) fn open(fs: &'a dyn Fs, root: &'a Path, database_id: [u8; 16]) -> Result<Self> {
        let dir = root.join(name::WAL_DIR);
        let mut segments = Vec::new();
        for entry in fs.list(&dir)? {
            let Some(number) = name::parse_segment(&entry.name) else { continue };
            let path = dir.join(&entry.name);
            let header = read_header(fs, &path, number, database_id)?;
            segments.push(Segment { number, path, size: entry.size, header, limit: u64::MAX });
        }
        segments.sort_by_key(|segment| segment.number);
        let mut limit = u64::MAX;
        for segment in segments.iter_mut().rev() {
            segment.limit = limit;
            if let Some(header) = &segment.header {
                limit = limit.min(header.previous_lsn);
            }
        }
        Ok(Chain { fs, root, segments })
    }

    /// Calls `visit` with every frame above `cut` that counts, in order.
    ///
    /// `proved` is an LSN that something outside the log (the manifest) proves to be durable. With `salvage`, damage
    /// ends the log like a torn tail. Reads one segment into memory at a time.
    ///
    /// # Errors
    /// `Corruption` when the log ends before an LSN that is proved durable; what `visit` returns; `Io`.
    pub(crate) fn read(
        &self,
        cut: u64,
        proved: u64,
        salvage: bool,
        mut visit: impl FnMut(Frame<'_>) -> Result<()>,
    ) -> Result<LogEnd> {
        let mut end = LogEnd {
            last_lsn: cut,
            largest_lsn: cut.max(proved),
            durable_lsn: proved.max(cut),
            ..LogEnd::default()
        };
        for segment in &self.segments {
            let mut segment_last = segment.header.map_or(0, |header| header.previous_lsn);
            self.read_segment(segment, &mut end, &mut segment_last, &mut visit)?;
            end.segments.push(SegmentInfo {
                number: segment.number,
                last_lsn: segment_last.min(segment.limit),
                size: segment.size,
            });
        }
        for info in &mut end.segments {
            info.last_lsn = info.last_lsn.min(end.last_lsn);
        }
        if salvage {
            end.durable_lsn = end.durable_lsn.min(end.last_lsn);
            return Ok(end);
        }
        match &end.torn {
            Some(torn) if end.durable_lsn > end.last_lsn => Err(Error::corruption(
                &torn.path,
                torn.offset,
                format!(
                    "the log breaks here after LSN {} ({}), but LSN {} was on the device",
                    end.last_lsn, torn.reason, end.durable_lsn
                ),
            )),
            None if end.durable_lsn > end.last_lsn => Err(Error::corruption(
                self.root.join(name::WAL_DIR),
                0,
                format!(
                    "the log ends at LSN {}, but LSN {} was on the device",
                    end.last_lsn, end.durable_lsn
                ),
            )),
            _ => Ok(end),
        }
    }

    /// Writes the frames above `copy.after_lsn` anew, so that what was merely readable in the cache of the system is on the
    /// device: one segment for each epoch, in place when this returns.
    ///
    /// Until the last of them is in place, the old segments count as before: each new one ends only those frames
    /// before it that it repeats, and the segment of the newest epoch takes its place first.
    ///
    /// # Errors
    /// `Io`, and what was made is of no effect on the next reading.
    pub(crate) fn copy(&self, fs: &dyn Fs, copy: &SegmentCopy) -> Result<Vec<SegmentInfo>> {
        let mut copies: Vec<Copied> = Vec::new();
        let mut number = copy.number;
        self.read(copy.after_lsn, 0, true, |frame| {
            if frame.header.lsn > copy.last_lsn {
                return Ok(());
            }
            if copies.last().is_none_or(|copied| copied.header.epoch != frame.segment.epoch) {
                let previous_lsn = frame.header.previous_lsn;
                let header = SegmentHeader {
                    number,
                    incarnation: copy.incarnation,
                    previous_lsn,
                    durable_lsn: copy.after_lsn,
                    ..*frame.segment
                };
                copies.push(Copied::create(fs, self.root, header)?);
                number += 1;
            }
            match copies.last_mut() {
                Some(copied) => copied.append(&frame),
                None => Ok(()),
            }
        })?;
        copies.iter().try_for_each(|copied| copied.file.sync())?;
        for copied in copies.iter().rev() {
            let path = name::segment_path(self.root, copied.header.number);
            fs.rename(&copied.path, &path)?;
            fs.sync_dir(&self.root.join(name::WAL_DIR))?;
        }
        let info = |copied: &Copied| SegmentInfo {
            number: copied.header.number,
            last_lsn: copied.last_lsn,
            size: copied.offset,
        };
        Ok(copies.iter().map(info).collect())
    }

    fn read_segment(
        &self,
        segment: &Segment,
        end: &mut LogEnd,
        segment_last: &mut u64,
        visit: &mut impl FnMut(Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let broken = |end: &mut LogEnd, offset: usize, reason| {
            let torn = Torn { path: segment.path.clone(), offset: offset as u64, reason };
            end.torn.get_or_insert(torn);
        };
        let Some(header) = &segment.header else {
            if segment.size > 0 {
                broken(end, 0, "the header of the segment is unsound");
            }
            return Ok(());
        };
        end.durable_lsn = end.durable_lsn.max(header.durable_lsn);
        end.largest_lsn = end.largest_lsn.max(header.previous_lsn);
        let bytes = read_bounded(self.fs, &segment.path)?;
        let seed = header.seed();
        let mut offset = SEGMENT_HEADER_SIZE;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let Some((frame, payload)) = get_frame(rest, &seed) else {
                let next = find_frame(rest, &seed);
                let used = next.is_some() || rest.iter().any(|byte| *byte != 0);
                if used && *segment_last < segment.limit {
                    broken(end, offset, "no sound frame");
                }
                let Some(skip) = next else { break };
                offset += skip;
                continue;
            };
            end.largest_lsn = end.largest_lsn.max(frame.lsn);
            end.durable_lsn = end.durable_lsn.max(frame.durable_lsn);
            if frame.lsn <= segment.limit {
                *segment_last = (*segment_last).max(frame.lsn);
                if frame.lsn > end.last_lsn {
                    if frame.previous_lsn == end.last_lsn {
                        let path = &segment.path;
                        visit(Frame {
                            segment: header,
                            header: frame,
                            payload,
                            path,
                            offset: offset as u64,
                        })?;
                        end.last_lsn = frame.lsn;
                        // What was unsound before is the tail of a life that this one gave up.
                        end.torn = None;
                    } else {
                        broken(end, offset, "frames before this one are missing");
                    }
                }
            }
            offset += FRAME_HEADER_SIZE + payload.len();
        }
        Ok(())
    }
}

fn read_header(
    fs: &dyn Fs,
    path: &Path,
    number: u64,
    database_id: [u8; 16],
) -> Result<Option<SegmentHeader>> {
    let file = fs.open(path)?;
    let mut bytes = [0; SEGMENT_HEADER_SIZE];
    let count = file.read_at(&mut bytes, 0)?;
    match SegmentHeader::decode(bytes.get(..count).unwrap_or_default()) {
        Ok(header) if header.database_id != database_id => {
            Err(Error::corruption(path, 0, "the segment belongs to another database"))
        }
        Ok(header) if header.number != number => Err(Error::corruption(
            path,
            0,
            format!("the segment is number {:#x}, its name says another", header.number),
        )),
        Ok(header) => Ok(Some(header)),
        Err(error) if error.kind() == ErrorKind::UnsupportedVersion => Err(error.at(path, 0)),
        Err(_) => Ok(None),
    }
}

/// The bytes of a segment, up to the most that one can hold.
fn read_bounded(fs: &dyn Fs, path: &Path) -> Result<Vec<u8>> {
    let file = fs.open(path)?;
    let size = file.size()?.min(SEGMENT_SIZE_MAX + (FRAME_HEADER_SIZE + FRAME_SIZE_MAX) as u64);
    let mut bytes = vec![0; size as usize];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Where the next sound frame begins behind the first byte of `bytes`.
fn find_frame(bytes: &[u8], seed: &crc32fast::Hasher) -> Option<usize> {
    let (first, rest_magic) = (FRAME_MAGIC[0], FRAME_MAGIC);
    let mut from = 1;
    loop {
        let found = bytes.get(from..)?.iter().position(|byte| *byte == first)? + from;
        let rest = bytes.get(found..)?;
        if rest.starts_with(&rest_magic) && get_frame(rest, seed).is_some() {
            return Some(found);
        }
        from = found + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::MemoryFs;
    use crate::wal::format::FrameKind;
    use crate::wal::writer::{Log, LogStart};

    const ROOT: &str = "/db";
    const ID: [u8; 16] = [9; 16];

    fn disk() -> MemoryFs {
        let disk = MemoryFs::new(1);
        disk.create_dir_all(Path::new("/db/wal")).unwrap();
        disk
    }

    fn log(disk: &MemoryFs, number: u64, incarnation: u64, last_lsn: u64) -> Log {
        let start = LogStart {
            root: ROOT.into(),
            database_id: ID,
            incarnation,
            number,
            last_lsn,
            segment_size_max: SEGMENT_SIZE_MAX,
        };
        Log::new(Arc::new(disk.clone()), start, Vec::new())
    }

    fn write(log: &mut Log, lsn: u64, durable_lsn: u64) {
        log.prepare(10, durable_lsn).unwrap();
        let mut frames = Vec::new();
        let previous_lsn = log.last_lsn();
        let header = FrameHeader { kind: FrameKind::Batch, lsn, previous_lsn, durable_lsn };
        log.put_frame(&mut frames, header, |out| out.extend_from_slice(&lsn.to_le_bytes()));
        log.write(&frames, lsn).unwrap();
    }

    /// The LSNs that count, and how the log ends.
    fn read(disk: &MemoryFs, cut: u64) -> Result<(Vec<u64>, LogEnd)> {
        let mut lsns = Vec::new();
        let end = Chain::open(disk, Path::new(ROOT), ID)?.read(cut, 0, false, |frame| {
            assert_eq!(frame.payload, frame.header.lsn.to_le_bytes());
            lsns.push(frame.header.lsn);
            Ok(())
        })?;
        Ok((lsns, end))
    }

    fn segment_path(number: u64) -> PathBuf {
        name::segment_path(Path::new(ROOT), number)
    }

    /// Replaces a segment by other bytes.
    fn replace(disk: &MemoryFs, number: u64, bytes: &[u8]) {
        disk.remove(&segment_path(number)).unwrap();
        disk.create(&segment_path(number)).unwrap().write_at(bytes, 0).unwrap();
    }

    fn bytes(disk: &MemoryFs, number: u64) -> Vec<u8> {
        disk.open(&segment_path(number)).unwrap().read_all().unwrap()
    }

    #[test]
    fn frames_come_back_across_segments_and_above_the_cut() {
        let disk = disk();
        let mut log = log(&disk, 1, 1, 0);
        for lsn in 1..=9 {
            write(&mut log, lsn, 0);
            if lsn % 3 == 0 {
                log.begin_epoch();
            }
        }
        let (lsns, end) = read(&disk, 0).unwrap();
        assert_eq!(lsns, (1..=9).collect::<Vec<_>>());
        assert_eq!((end.last_lsn, end.torn.is_none()), (9, true));
        assert_eq!(end.segments.iter().map(|s| s.last_lsn).collect::<Vec<_>>(), [3, 6, 9]);
        assert_eq!(read(&disk, 6).unwrap().0, [7, 8, 9]);
        assert_eq!(log.release(6).len(), 2);
    }

    #[test]
    fn replay_keeps_frames_before_a_torn_tail_at_every_byte() {
        let disk = disk();
        let mut log = log(&disk, 1, 1, 0);
        (1..=3).for_each(|lsn| write(&mut log, lsn, 0));
        log.close_segment();
        let whole = bytes(&disk, 1);
        let frame = FRAME_HEADER_SIZE + 8;
        for cut in 0..whole.len() {
            replace(&disk, 1, &whole[..cut]);
            let (lsns, end) = read(&disk, 0).unwrap();
            let kept = cut.saturating_sub(SEGMENT_HEADER_SIZE) / frame;
            assert_eq!(lsns.len(), kept, "cut at {cut}");
            let clean =
                cut == 0 || cut >= SEGMENT_HEADER_SIZE && (cut - SEGMENT_HEADER_SIZE).is_multiple_of(frame);
            assert_eq!(end.torn.is_none(), clean, "cut at {cut}");
        }
    }

    #[test]
    fn a_broken_frame_that_was_durable_is_damage() {
        let disk = disk();
        let mut log = log(&disk, 1, 1, 0);
        (1..=3).for_each(|lsn| write(&mut log, lsn, lsn - 1));
        log.close_segment();
        let whole = bytes(&disk, 1);
        let frame = FRAME_HEADER_SIZE + 8;
        for bit in SEGMENT_HEADER_SIZE * 8..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            replace(&disk, 1, &flipped);
            let broken = (bit / 8 - SEGMENT_HEADER_SIZE) / frame;
            match read(&disk, 0) {
                // Nothing says that the last frame was durable: it is a torn tail.
                Ok((lsns, end)) => {
                    assert_eq!((broken, lsns.len()), (2, 2));
                    assert!(end.torn.is_some());
                }
                Err(error) => {
                    assert!(broken < 2);
                    assert_eq!(error.kind(), ErrorKind::Corruption);
                    assert_eq!(error.offset(), Some((SEGMENT_HEADER_SIZE + broken * frame) as u64));
                }
            }
        }
    }

    #[test]
    fn frames_above_the_next_segment_s_word_never_return() {
        let disk = disk();
        let mut first = log(&disk, 1, 1, 0);
        (1..=5).for_each(|lsn| write(&mut first, lsn, 0));
        // A later life of the database kept only up to 3.
        let mut second = log(&disk, 2, 2, 3);
        write(&mut second, 100, 3);
        let (lsns, end) = read(&disk, 0).unwrap();
        assert_eq!(lsns, [1, 2, 3, 100]);
        assert_eq!((end.largest_lsn, end.torn), (100, None));
    }

    #[test]
    fn a_life_goes_on_behind_the_unsound_segment_of_one_before() {
        let disk = disk();
        let mut first = log(&disk, 1, 1, 0);
        (1..=3).for_each(|lsn| write(&mut first, lsn, 0));
        disk.create(&segment_path(2)).unwrap().write_at(&[7; 512], 0).unwrap();
        let mut second = log(&disk, 3, 2, 3);
        write(&mut second, 100, 3);
        let (lsns, end) = read(&disk, 0).unwrap();
        assert_eq!((lsns, end.torn), (vec![1, 2, 3, 100], None));
    }

    #[test]
    fn a_missing_frame_ends_the_log() {
        let disk = disk();
        let mut log = log(&disk, 1, 1, 0);
        (1..=2).for_each(|lsn| write(&mut log, lsn, 0));
        log.begin_epoch();
        (3..=4).for_each(|lsn| write(&mut log, lsn, 0));
        log.begin_epoch();
        write(&mut log, 5, 0);
        replace(&disk, 2, &[]);
        let (lsns, end) = read(&disk, 0).unwrap();
        assert_eq!((lsns, end.largest_lsn), (vec![1, 2], 5));
        assert!(end.torn.is_some());
    }
}
