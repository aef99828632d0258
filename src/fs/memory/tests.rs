//! The simulated disk against what POSIX says, and against the real one.

use std::collections::BTreeSet;

use super::*;
use crate::fs::DiskFs;

fn path(text: &str) -> &Path {
    Path::new(text)
}

/// Makes a file with these bytes, not synced.
fn put(fs: &dyn Fs, name: &str, bytes: &[u8]) {
    fs.create(path(name)).unwrap().write_at(bytes, 0).unwrap();
}

fn get(fs: &dyn Fs, name: &str) -> Option<Vec<u8>> {
    fs.open(path(name)).ok().map(|file| file.read_all().unwrap())
}

/// Every state that power cuts leave, as `name=bytes` of the files in the root.
fn outcomes(disk: &MemoryFs) -> BTreeSet<String> {
    (0..300)
        .map(|seed| {
            let after = disk.fork(seed).crash(Crash::PowerCut);
            let entries = after.list(path("/")).unwrap();
            let file = |e: DirEntry| {
                format!("{}={}", e.name, String::from_utf8(get(&after, &e.name).unwrap()).unwrap())
            };
            entries.into_iter().map(file).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[track_caller]
fn check_outcomes(disk: &MemoryFs, expected: &[&str]) {
    assert_eq!(outcomes(disk), expected.iter().map(ToString::to_string).collect());
}

/// A disk whose root holds the synced files `a=old` and `b=other`.
fn two_files() -> MemoryFs {
    let disk = MemoryFs::new(0);
    for (name, bytes) in [("a", b"old".as_slice()), ("b", b"other")] {
        let file = disk.create(path(name)).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
    }
    disk.sync_dir(path("/")).unwrap();
    disk
}

#[test]
fn a_synced_file_without_a_synced_name_may_vanish() {
    let disk = MemoryFs::new(0);
    let file = disk.create(path("a")).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    check_outcomes(&disk, &["", "a=x"]);
    disk.sync_dir(path("/")).unwrap();
    check_outcomes(&disk, &["a=x"]);
}

#[test]
fn a_synced_name_says_nothing_about_the_bytes() {
    let disk = MemoryFs::new(0);
    put(&disk, "a", b"xyz");
    disk.sync_dir(path("/")).unwrap();
    check_outcomes(&disk, &["a=", "a=\0\0\0", "a=xyz"]);
}

#[test]
fn an_unsynced_rename_is_there_or_not_and_never_half() {
    let disk = two_files();
    disk.rename(path("b"), path("a")).unwrap();
    assert_eq!(get(&disk, "a").unwrap(), b"other");
    check_outcomes(&disk, &["a=old b=other", "a=other"]);
    disk.sync_dir(path("/")).unwrap();
    check_outcomes(&disk, &["a=other"]);
}

#[test]
fn an_unsynced_removal_may_be_undone() {
    let disk = two_files();
    disk.remove(path("a")).unwrap();
    assert_eq!(get(&disk, "a"), None);
    check_outcomes(&disk, &["a=old b=other", "b=other"]);
}

#[test]
fn changes_of_names_are_lost_one_by_one() {
    let disk = two_files();
    disk.remove(path("a")).unwrap();
    disk.remove(path("b")).unwrap();
    check_outcomes(&disk, &["", "a=old", "a=old b=other", "b=other"]);
}

#[test]
fn a_move_between_directories_is_one_change() {
    let disk = two_files();
    disk.create_dir(path("d")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.rename(path("a"), path("d/a")).unwrap();
    let places = |disk: &MemoryFs| -> BTreeSet<(bool, bool)> {
        let after = (0..100).map(|seed| disk.fork(seed).crash(Crash::PowerCut));
        after.map(|fs| (get(&fs, "a").is_some(), get(&fs, "d/a").is_some())).collect()
    };
    assert_eq!(places(&disk), [(true, false), (false, true)].into());
    disk.sync_dir(path("d")).unwrap();
    assert_eq!(places(&disk), [(false, true)].into());
}

#[test]
fn a_new_directory_takes_its_files_with_it() {
    let disk = MemoryFs::new(0);
    disk.create_dir_all(path("/d/e")).unwrap();
    let file = disk.create(path("/d/e/f")).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path("/d/e")).unwrap();
    let there = |fs: &MemoryFs| (fs.exists(path("/d")).unwrap(), fs.exists(path("/d/e/f")).unwrap());
    let seen: BTreeSet<_> = (0..100).map(|seed| there(&disk.fork(seed).crash(Crash::PowerCut))).collect();
    assert_eq!(seen, [(false, false), (true, false), (true, true)].into());
}

#[test]
fn a_process_restart_keeps_everything_but_locks() {
    let disk = MemoryFs::new(0);
    put(&disk, "a", b"x");
    let lock = disk.lock(path("LOCK"), "first").unwrap();
    let after = disk.crash(Crash::ProcessRestart);
    assert_eq!(get(&after, "a").unwrap(), b"x");
    let held = after.lock(path("LOCK"), "second").unwrap();
    drop(lock);
    assert_eq!(
        after.lock(path("LOCK"), "third").unwrap_err().kind(),
        ErrorKind::Busy,
        "an old lock frees nothing"
    );
    drop(held);
    let lost = (0..100).any(|seed| get(&after.fork(seed).crash(Crash::PowerCut), "a").is_none());
    assert!(lost, "what was pending before the restart is pending after it");
}

#[test]
fn handles_from_before_a_crash_are_dead() {
    let disk = MemoryFs::new(0);
    let old = disk.create(path("a")).unwrap();
    old.write_at(b"x", 0).unwrap();
    let reader = disk.open(path("a")).unwrap();
    let after = disk.crash(Crash::ProcessRestart);
    assert_eq!(old.write_at(b"y", 0).unwrap_err().kind(), ErrorKind::Closed);
    assert!(old.sync().is_err() && reader.size().is_err());
    assert!(disk.create(path("b")).is_err() && disk.list(path("/")).is_err());
    drop((old, reader));
    assert_eq!(get(&after, "a").unwrap(), b"x");
}

#[test]
fn a_failed_sync_loses_bytes_that_a_second_one_does_not_bring_back() {
    let mut lost = 0;
    for seed in 0..100 {
        let disk = MemoryFs::new(seed);
        let file = disk.create(path("a")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        file.write_at(b"x", 0).unwrap();
        file.lose_unsynced();
        file.sync().unwrap();
        let after = disk.crash(Crash::PowerCut);
        lost += u32::from(get(&after, "a").unwrap() != b"x");
    }
    assert!(lost > 10, "{lost} of 100");
}

#[test]
fn hard_links_are_one_file() {
    let disk = two_files();
    disk.link(path("a"), path("c")).unwrap();
    assert!(disk.link(path("a"), path("b")).is_err(), "the name is taken");
    disk.remove(path("a")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    check_outcomes(&disk, &["b=other c=old"]);
    assert_eq!(disk.used(), 8);
}

#[test]
fn an_open_file_without_a_name_stays_readable_and_counts() {
    let disk = two_files();
    let reader = disk.open(path("a")).unwrap();
    disk.remove(path("a")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(reader.read_all().unwrap(), b"old");
    assert_eq!(disk.used(), 8);
    drop(reader);
    assert_eq!(disk.used(), 5);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = MemoryFs::new(0);
    disk.set_capacity(10);
    let file = disk.create(path("a")).unwrap();
    file.write_at(&[1; 8], 0).unwrap();
    let error = file.write_at(&[2; 8], 8).unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
    assert_eq!(get(&disk, "a").unwrap(), [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]);
    assert!(file.allocate(11).is_err());
    file.write_at(&[3; 10], 0).unwrap();
    disk.set_capacity(11);
    file.allocate(11).unwrap();
    file.truncate(0).unwrap();
    put(&disk, "b", &[0; 11]);
}

#[test]
fn the_same_seed_crashes_the_same_way() {
    let run = |seed| {
        let disk = MemoryFs::new(seed);
        put(&disk, "a", &[1; 5000]);
        put(&disk, "b", &[2; 5000]);
        let after = disk.crash(Crash::PowerCut);
        (get(&after, "a"), get(&after, "b"))
    };
    assert!((0..50).all(|seed| run(seed) == run(seed)));
    assert!((1..50).any(|seed| run(seed) != run(0)));
}

/// Writes down what a script of random calls got for answers. Which error comes first is the system's own
/// affair.
fn transcript(fs: &dyn Fs, root: &Path, seed: u64) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut writers: Vec<Arc<dyn WriteFile>> = Vec::new();
    let mut readers: Vec<Arc<dyn ReadFile>> = Vec::new();
    let mut locks = Vec::new();
    let mut lines = Vec::new();
    for step in 0..=255_u8 {
        let file = |random: &mut Random| {
            root.join(["a", "b", "d/a", "d/b", "d/e/a", "x/a"][random.below(6) as usize])
        };
        let (one, two) = (file(&mut random), file(&mut random));
        let dir = root.join(["d", "d/e"][random.below(2) as usize]);
        let offset = random.below(2000);
        let writer = writers.get(random.below(4) as usize);
        let call = random.below(18);
        let answer = match call {
            0 | 1 => fs.create(&one).map(|file| {
                writers.insert(0, file);
                String::new()
            }),
            2 => fs.open(&one).map(|file| {
                readers.insert(0, file);
                String::new()
            }),
            3 => fs.rename(&one, &two).map(|()| String::new()),
            4 => fs.remove(&one).map(|()| String::new()),
            5 => fs.link(&one, &two).map(|()| String::new()),
            6 => fs.list(&dir).map(|entries| format!("{entries:?}")),
            7 => fs.create_dir(&dir).map(|()| String::new()),
            8 => fs.create_dir_all(&dir).and(fs.sync_dir(&dir)).map(|()| String::new()),
            9 => fs.remove_dir(&dir).map(|()| String::new()),
            10 => fs.metadata(&one).map(|metadata| format!("{metadata:?}")),
            11 => fs.metadata(&dir).map(|metadata| format!("{metadata:?}")),
            12 => fs.lock(&root.join("LOCK"), "me").map(|lock| {
                locks.push(lock);
                String::new()
            }),
            13 => {
                locks.clear();
                Ok(String::new())
            }
            14 => writer
                .map_or(Ok(()), |file| file.write_at(&vec![step; offset as usize / 2], offset))
                .map(|()| String::new()),
            15 => {
                writer.map_or(Ok(()), |file| file.allocate(offset).and(file.sync())).map(|()| String::new())
            }
            16 => writer.map_or(Ok(()), |file| file.truncate(offset)).map(|()| String::new()),
            _ => readers
                .get(random.below(4) as usize)
                .map_or(Ok(String::new()), |file| Ok(read_in_every_way(&**file, offset))),
        };
        let answer =
            answer.map_err(|error| (error.kind() == ErrorKind::NotFound, error.kind() == ErrorKind::Busy));
        lines.push(format!("{step} {call} {answer:?}"));
    }
    lines
}

fn read_in_every_way(file: &dyn ReadFile, offset: u64) -> String {
    let all = file.read_all().unwrap();
    assert_eq!(file.map().unwrap().unwrap()[..], all);
    assert_eq!(file.size().unwrap(), all.len() as u64);
    let mut part = [0; 100];
    let count = file.read_at(&mut part, offset).unwrap();
    let exact = file.read_exact_at(&mut part, offset).map_err(|error| error.kind());
    format!("{all:?} {count} {exact:?} {part:?}")
}

#[test]
fn the_simulated_disk_answers_as_the_real_one() {
    let mut done = 0;
    for seed in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let real = transcript(&DiskFs::new(), directory.path(), seed);
        let simulated = MemoryFs::new(seed);
        simulated.create_dir_all(path("/root")).unwrap();
        let simulated = transcript(&simulated, path("/root"), seed);
        for (real, simulated) in real.iter().zip(&simulated) {
            assert_eq!(real, simulated, "seed {seed}");
            done += u32::from(real.contains("Ok"));
        }
    }
    assert!(done > 5000, "of 10,240 calls {done} did something");
}
