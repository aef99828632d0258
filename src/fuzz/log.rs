//! The log: payloads, and whole directories of segments that no writer would have written.

use std::path::Path;
use std::sync::Arc;

use super::{Input, only_corruption};
use crate::error::Result;
use crate::fs::{Fs, MemoryFs, name};
use crate::head::{Head, Registry, Replay};
use crate::model::{SeriesKey, ValueType};
use crate::sync::RwLock;
use crate::wal::{
    BatchColumns, Chain, Definition, FrameHeader, FrameKind, LogEnd, SegmentCopy, SegmentHeader,
    decode_batch, decode_delete, decode_metadata, encode_batch, encode_delete, encode_metadata, put_frame,
};

const ROOT: &str = "/db";
const ID: [u8; 16] = [9; 16];
/// Numbers of copied segments begin here; those of an input lie below.
const COPY_NUMBER: u64 = 1 << 32;

/// What a payload is read as, written again, is read as the same.
pub fn payload(bytes: &[u8]) {
    match decode_batch(bytes) {
        Ok((definitions, columns)) => {
            let mut again = Vec::new();
            encode_batch(&definitions, &columns, &mut again);
            assert_eq!(decode_batch(&again).unwrap(), (definitions, columns));
        }
        Err(error) => only_corruption(&error),
    }
    match decode_delete(bytes) {
        Ok(record) => {
            let mut again = Vec::new();
            encode_delete(&record, &mut again);
            assert_eq!(decode_delete(&again).unwrap(), record);
        }
        Err(error) => only_corruption(&error),
    }
    match decode_metadata(bytes) {
        Ok(record) => {
            let mut again = Vec::new();
            encode_metadata(&record, &mut again);
            assert_eq!(decode_metadata(&again).unwrap(), record);
        }
        Err(error) => only_corruption(&error),
    }
}

/// Segments of sound frames in any order, with any LSNs, between damaged bytes: reading gives a chain of frames that
/// lie there byte for byte, gives it again, and gives it still when what is not durable was copied, as opening does.
pub fn segments(input: &[u8]) {
    let disk = MemoryFs::new(0);
    disk.create_dir_all(&Path::new(ROOT).join(name::WAL_DIR)).unwrap();
    let mut input = Input(input);
    let cut = input.number();
    put_segments(&disk, &mut input);
    for salvage in [false, true] {
        match read(&disk, cut, salvage) {
            Ok((lsns, end)) => {
                assert!(salvage || end.durable_lsn <= end.last_lsn);
                assert_eq!(lsns.last().copied().unwrap_or(cut), end.last_lsn);
                assert!(end.last_lsn <= end.largest_lsn);
                if salvage {
                    check_copy(&disk, cut, &lsns, &end);
                }
            }
            Err(error) => only_corruption(&error),
        }
    }
}

fn put_segments(disk: &MemoryFs, input: &mut Input<'_>) {
    let mut number = 0;
    while !input.is_empty() && number < 40 {
        number += 1 + input.below(2) as u64;
        let header = SegmentHeader {
            database_id: ID,
            number,
            incarnation: input.number(),
            epoch: input.number(),
            previous_lsn: input.number(),
            durable_lsn: input.number(),
        };
        let mut bytes = header.encode();
        for _ in 0..input.below(8) {
            put_item(&mut bytes, &header, input);
        }
        let path = name::segment_path(Path::new(ROOT), number);
        disk.create(&path).unwrap().write_at(&bytes, 0).unwrap();
    }
}

/// A frame, or damage.
fn put_item(bytes: &mut Vec<u8>, header: &SegmentHeader, input: &mut Input<'_>) {
    match input.below(8) {
        0 => {
            let size = input.below(60);
            bytes.extend_from_slice(input.bytes(size));
        }
        1 => {
            let at = input.number() as usize % bytes.len();
            bytes[at] ^= input.byte();
        }
        2 => bytes.truncate(bytes.len() - input.below(bytes.len().min(200))),
        kind => {
            let kind = [
                FrameKind::Batch,
                FrameKind::Batch,
                FrameKind::Batch,
                FrameKind::Delete,
                FrameKind::Metadata,
            ][kind - 3];
            let lsn = input.number();
            let previous_lsn = lsn.wrapping_sub(1 + input.below(2) as u64);
            let frame = FrameHeader { kind, lsn, previous_lsn, durable_lsn: input.number() };
            let is_batch = kind == FrameKind::Batch && input.below(2) == 0;
            let size = input.below(30);
            let payload = input.bytes(size);
            put_frame(bytes, &header.seed(), frame, |out| {
                if is_batch { encode_batch(&[definition()], &columns(lsn), out) } else { out.extend(payload) }
            });
        }
    }
}

fn definition() -> Definition {
    Definition { id: 3, value_type: ValueType::I64, key: SeriesKey::new("m", [("k", "v")]).unwrap() }
}

fn columns(lsn: u64) -> BatchColumns {
    BatchColumns { ids: vec![3], times: vec![lsn as i64 / 2], words: vec![lsn], ..BatchColumns::default() }
}

/// The LSNs that count, replayed into a head as far as their payloads allow.
fn read(disk: &MemoryFs, cut: u64, salvage: bool) -> Result<(Vec<u64>, LogEnd)> {
    let mut lsns = Vec::new();
    let mut last = cut;
    let mut replay = Replay::new(Arc::new(Head::new(Arc::new(RwLock::new(Registry::default())), cut)));
    let end = Chain::open(disk, Path::new(ROOT), ID)?.read(cut, 0, salvage, |frame| {
        assert!(
            frame.header.lsn > last && frame.header.previous_lsn == last,
            "{:?} after {last}",
            frame.header
        );
        last = frame.header.lsn;
        lsns.push(last);
        let mut again = Vec::new();
        put_frame(&mut again, &frame.segment.seed(), frame.header, |out| {
            out.extend_from_slice(frame.payload)
        });
        let stored = disk.open(frame.path)?.read_all()?;
        assert!(stored[frame.offset as usize..].starts_with(&again), "a frame is as it was written");
        if let Err(error) = replay.apply(&frame) {
            only_corruption(&error);
        }
        Ok(())
    })?;
    Ok((lsns, end))
}

/// What opening copies counts as before, whichever of the copies a crash keeps.
fn check_copy(disk: &MemoryFs, cut: u64, lsns: &[u64], end: &LogEnd) {
    let middle = lsns.get(lsns.len() / 2).copied().unwrap_or(cut);
    for after_lsn in [cut, middle] {
        let disk = disk.fork(0);
        let copy = SegmentCopy { incarnation: 1, number: COPY_NUMBER, after_lsn, last_lsn: end.last_lsn };
        let chain = Chain::open(&disk, Path::new(ROOT), ID).unwrap();
        let copied = chain.copy(&disk, &copy).unwrap();
        for keep in 0..=copied.len() {
            let disk = disk.fork(0);
            // The newest epoch is renamed first, so a crash leaves the last ones.
            for segment in &copied[..keep] {
                disk.remove(&name::segment_path(Path::new(ROOT), segment.number)).unwrap();
            }
            assert_eq!(
                read(&disk, cut, true).unwrap().0,
                lsns,
                "after LSN {after_lsn} without {keep} copies"
            );
        }
    }
}
