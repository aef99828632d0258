//! Small databases with every bit flipped, every file cut at every byte, and files that are missing, foreign or in
//! the wrong place. Whatever is done to them, opening and reading give the right data, or say what is wrong; they never
//! panic, hang, or take memory that the files do not justify. And undoing the damage gives back everything.
//!
//! `cargo test` takes a sample of some seconds, `SLOW_TESTS=1` all of it.

mod damage {
    pub(crate) mod allocation;
    pub(crate) mod subject;
}

use std::path::{Path, PathBuf};

use damage::allocation::largest_during;
use damage::subject::{Outcome, ROOT, Subject};
use icecore::ErrorKind;
use icecore::fs::{Fs, MemoryFs};

/// Most bytes that reading a database of some kilobytes may ask for at once.
const ALLOCATION_SIZE_MAX: usize = 4 << 20;

fn slow() -> bool {
    std::env::var_os("SLOW_TESTS").is_some()
}

fn read(disk: &MemoryFs, path: &Path) -> Vec<u8> {
    disk.open(path).unwrap().read_all().unwrap()
}

/// Puts a file of these bytes in the place of `path`.
fn put(disk: &MemoryFs, path: &Path, bytes: &[u8]) {
    let changed = Path::new("/changed");
    disk.create(changed).unwrap().write_at(bytes, 0).unwrap();
    disk.rename(changed, path).unwrap();
}

/// Opens the damaged database and checks what it says.
#[track_caller]
fn check(subject: &Subject, disk: &MemoryFs, case: &str) -> Outcome {
    let (outcome, largest) = largest_during(|| subject.outcome(disk, case));
    assert!(largest <= ALLOCATION_SIZE_MAX, "{case}: {largest} bytes were asked for at once");
    outcome
}

/// `count` numbers below `end`, spread over all of them; all of them in a slow run.
fn sample(end: usize, count: usize) -> impl Iterator<Item = usize> {
    let step = if slow() { 1 } else { (end / count).max(1) | 1 };
    (0..end).step_by(step)
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    for subject in Subject::all() {
        for path in subject.files() {
            let bytes = read(&subject.disk, &path);
            // The zeros taken ahead behind the last frame are all alike.
            let end = (bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 65).min(bytes.len());
            for bit in sample(end * 8, 60) {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let disk = subject.disk.fork(0);
                put(&disk, &path, &flipped);
                let case = format!("{}: {} bit {bit}", subject.name, path.display());
                let outcome = check(&subject, &disk, &case);
                if outcome == Outcome::Refused && (slow() || bit % 8 == 0) {
                    put(&disk, &path, &bytes);
                    assert_eq!(check(&subject, &disk, &case), Outcome::Right, "{case}, repaired");
                }
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_is_found_or_changes_nothing() {
    for subject in Subject::all() {
        for path in subject.files() {
            let bytes = read(&subject.disk, &path);
            let end = (bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 2).min(bytes.len());
            for size in sample(end, 25) {
                let disk = subject.disk.fork(0);
                put(&disk, &path, &bytes[..size]);
                check(&subject, &disk, &format!("{}: {} of {size} bytes", subject.name, path.display()));
            }
        }
    }
}

#[test]
fn a_file_that_is_missing_or_longer_is_found_or_changes_nothing() {
    for subject in Subject::all() {
        for path in subject.files() {
            let case = format!("{}: {}", subject.name, path.display());
            let disk = subject.disk.fork(0);
            disk.remove(&path).unwrap();
            let outcome = check(&subject, &disk, &format!("{case} is missing"));
            assert!(outcome != Outcome::Right || subject.is_spare(&path), "{case} is missing");
            let bytes = read(&subject.disk, &path);
            for more in [&[0; 1][..], &[0xff; 3], &[0; 600], &bytes] {
                let disk = subject.disk.fork(0);
                put(&disk, &path, &[&bytes, more].concat());
                check(&subject, &disk, &format!("{case} with {} bytes more", more.len()));
            }
        }
    }
}

#[test]
fn files_of_another_database_are_never_taken_for_ours() {
    let (ours, theirs) = (Subject::blocks_and_log(1), Subject::blocks_and_log(2));
    let files = ours.files();
    assert_eq!(files, theirs.files(), "two databases of one shape");
    for path in files {
        let disk = ours.disk.fork(0);
        put(&disk, &path, &read(&theirs.disk, &path));
        let outcome = check(&ours, &disk, &format!("{} of another database", path.display()));
        assert_ne!(outcome, Outcome::Right, "{}", path.display());
    }
    // All blocks at once: nothing but the ids in them tells.
    let disk = ours.disk.fork(0);
    for path in ours.files().iter().filter(|path| path.to_string_lossy().contains(".blk")) {
        put(&disk, path, &read(&theirs.disk, path));
    }
    assert_eq!(check(&ours, &disk, "all blocks of another database"), Outcome::Marked);
}

#[test]
fn a_file_under_another_number_is_never_taken_for_it() {
    let subject = Subject::blocks_and_log(1);
    let files = subject.files();
    for from in &files {
        for to in files.iter().filter(|to| *to != from) {
            let disk = subject.disk.fork(0);
            put(&disk, to, &read(&subject.disk, from));
            let case = format!("{} in place of {}", from.display(), to.display());
            let outcome = check(&subject, &disk, &case);
            assert!(outcome != Outcome::Right || subject.is_spare(to), "{case}");
        }
        let Some(name) = from.file_name().filter(|name| name.to_string_lossy().len() == 20) else { continue };
        let number = name.to_string_lossy().replace("000000000000", "0000000000ff");
        let disk = subject.disk.fork(0);
        put(&disk, &from.with_file_name(number), &read(&subject.disk, from));
        check(&subject, &disk, &format!("a second {}", from.display()));
    }
}

#[test]
fn directories_and_files_in_each_others_place_are_named() {
    let subject = Subject::blocks_and_log(1);
    for path in subject.files().into_iter().chain([Path::new(ROOT).join("LOCK")]) {
        let disk = subject.disk.fork(0);
        disk.remove(&path).unwrap();
        disk.create_dir_all(&path).unwrap();
        let outcome = check(&subject, &disk, &format!("{} is a directory", path.display()));
        assert!(outcome != Outcome::Right || subject.is_spare(&path), "{}", path.display());
    }
    for dir in ["wal", "blocks", "quarantine"] {
        let disk = subject.disk.fork(0);
        let path = Path::new(ROOT).join(dir);
        for entry in disk.list(&path).unwrap_or_default() {
            disk.remove(&path.join(entry.name)).unwrap();
        }
        let _ = disk.remove_dir(&path);
        put(&disk, &path, b"a letter");
        check(&subject, &disk, &format!("{} is a file", path.display()));
    }
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let subject = Subject::blocks_and_log(1);
    let disk = subject.disk.fork(0);
    let strangers: Vec<PathBuf> =
        ["letter.txt", "wal/notes", "blocks/1.blk", "blocks/x.blk", "wal/00.wal", "CURRENT"]
            .iter()
            .map(|name| Path::new(ROOT).join(name))
            .collect();
    for path in &strangers {
        put(&disk, path, b"not ours");
    }
    assert_eq!(check(&subject, &disk, "strangers"), Outcome::Right);
    for path in &strangers {
        assert_eq!(read(&disk, path), b"not ours", "{}", path.display());
    }
}

#[test]
fn a_newer_version_is_refused_and_nothing_is_touched() {
    let subject = Subject::blocks_and_log(1);
    for path in subject.files() {
        // The version lies behind the magic of every kind of file, and a checksum of the header behind both.
        let mut bytes = read(&subject.disk, &path);
        let header_size = if path.ends_with("MANIFEST") { 44 } else { 68 };
        let header_size = if path.to_string_lossy().ends_with(".blk") { 32 } else { header_size };
        bytes[4] = 2;
        let crc = crc32fast::hash(&bytes[..header_size - 4]);
        bytes[header_size - 4..header_size].copy_from_slice(&crc.to_le_bytes());
        let disk = subject.disk.fork(0);
        put(&disk, &path, &bytes);
        let before = subject.tree(&disk);
        let error = subject.open(&disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{}: {error}", path.display());
        assert_eq!(subject.tree(&disk), before, "{}", path.display());
        assert_eq!(subject.open_reader(&disk).unwrap_err().kind(), ErrorKind::UnsupportedVersion);
    }
}
