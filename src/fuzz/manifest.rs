//! The manifest: any edits are kept or refused whole; any bytes are read or refused, and what is read can be written.

use std::path::Path;
use std::sync::Arc;

use super::Input;
use crate::codec::frame::put_frame;
use crate::error::ErrorKind;
use crate::fs::{Crash, Fs, MemoryFs, name};
use crate::manifest::{
    BlockMeta, CleanShutdown, Edit, Manifest, MetricMetadata, Quarantined, State, Tombstone, read,
};
use crate::model::{Metadata, Selector, TimeRange, Timestamp};

const ROOT: &str = "/db";
/// How a record starts, before its frame.
const RECORD_MAGIC: &[u8] = b"ICED";

fn disk() -> MemoryFs {
    let disk = MemoryFs::new(0);
    disk.create_dir_all(Path::new(ROOT)).unwrap();
    disk
}

/// Edits, possible and impossible ones: the file says what the manifest says, after each and after a power cut.
pub fn edits(input: &[u8]) {
    let disk = disk();
    let mut input = Input(input);
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let mut manifest = Manifest::create(fs, Path::new(ROOT), [7; 16], &Edit::default()).unwrap();
    while !input.is_empty() {
        let before = manifest.state().clone();
        match manifest.append(edit(&mut input)) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                assert_eq!(*manifest.state(), before);
            }
        }
    }
    assert_eq!(read(&disk, Path::new(ROOT)).unwrap().state, *manifest.state());
    let after = disk.crash(Crash::PowerCut);
    assert_eq!(read(&after, Path::new(ROOT)).unwrap().state, *manifest.state());
}

fn edit(input: &mut Input<'_>) -> Edit {
    let mut edit = Edit::default();
    for _ in 0..=input.below(3) {
        match input.below(12) {
            0..4 => edit.blocks_added.push(block(input)),
            4 => edit.blocks_removed.push(input.number()),
            5 => edit.cut = Some(input.number()),
            6 => edit.floor = Some(Timestamp::from_nanos(input.number() as i64)),
            7 => edit.tombstones_added.push(Tombstone {
                lsn: input.number(),
                selector: Selector::name("m").with("k", "v"),
                range: TimeRange::ALL,
            }),
            8 => edit.tombstones_removed.push(input.number()),
            9 => edit.quarantined.push(Quarantined { block: block(input), reason: "CRC".to_owned() }),
            10 => {
                let help = String::from_utf8_lossy(input.bytes(5)).into_owned();
                let metadata = Metadata { help, ..Metadata::default() };
                edit.metadata.push(MetricMetadata { name: "m".to_owned(), metadata });
            }
            _ => {
                edit.incarnation = Some(input.number());
                edit.clean_shutdown =
                    Some(CleanShutdown { last_lsn: input.number(), next_segment: input.number() });
            }
        }
    }
    edit
}

fn block(input: &mut Input<'_>) -> BlockMeta {
    let (min, first) = (input.number() as i64, input.number());
    BlockMeta {
        number: input.number(),
        size: 1000,
        min_time: Timestamp::from_nanos(min),
        max_time: Timestamp::from_nanos(min.saturating_add(i64::from(input.byte()) - 1)),
        first_lsn: first,
        last_lsn: first.saturating_add(u64::from(input.byte())).saturating_sub(1),
        level: 1,
        series_count: 1,
        sample_count: 1,
    }
}

/// A sound manifest, and behind it records with a sound checksum around any bytes, or any bytes; or bytes of the sound
/// part changed.
pub fn decode(input: &[u8]) {
    let disk = disk();
    let mut input = Input(input);
    let edit = Edit { cut: Some(5), next_file: Some(9), ..Edit::default() };
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    drop(Manifest::create(fs, Path::new(ROOT), [7; 16], &edit).unwrap());
    let path = Path::new(ROOT).join(name::MANIFEST);
    let mut bytes = disk.open(&path).unwrap().read_all().unwrap();
    let sound = bytes.len();
    while !input.is_empty() {
        match input.below(4) {
            0 => {
                let at = input.below(sound.min(256));
                bytes[at] ^= input.byte();
            }
            1 => {
                let size = input.below(40);
                bytes.extend_from_slice(input.bytes(size));
            }
            _ => {
                let size = input.number().min(400) as usize;
                bytes.extend_from_slice(RECORD_MAGIC);
                put_frame(&mut bytes, input.bytes(size));
            }
        }
    }
    let file = disk.create(Path::new("/db/other")).unwrap();
    file.write_at(&bytes, 0).unwrap();
    disk.rename(Path::new("/db/other"), &path).unwrap();
    match read(&disk, Path::new(ROOT)) {
        Ok(loaded) => check_rewritten(&disk, loaded.state.clone(), loaded),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::UnsupportedVersion), "{error}");
        }
    }
}

/// What was read, written anew as opening does, is read as the same.
fn check_rewritten(disk: &MemoryFs, mut state: State, loaded: crate::manifest::Loaded) {
    if loaded.sequence == u64::MAX {
        return;
    }
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    drop(Manifest::open(fs, Path::new(ROOT), loaded, &Edit::default()).unwrap());
    // A clean shutdown holds until the next edit.
    state.clean_shutdown = None;
    assert_eq!(read(disk, Path::new(ROOT)).unwrap().state, state);
}
