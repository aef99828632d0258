//! Memory maps of sealed files, read-only. Beside the one call of `env/heap.rs`, the only unsafe code.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// The bytes of a sealed file: mapped, or a copy where there is no mapping to be had.
#[derive(Debug)]
pub struct Map(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Copied(Vec<u8>),
}

impl Map {
    /// Maps `file`, which must be sealed: never written, cut or reused until it is unlinked.
    #[allow(unsafe_code)]
    pub(super) fn of_file(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            // An empty mapping is an error to the system.
            return Ok(Self::of_copy(Vec::new()));
        }
        // SAFETY: the bytes must not change while they are mapped. Published files of a database are written
        // once and from then on only unlinked (docs/format.md, "Published files"), which leaves mappings
        // whole. Another program that writes to them anyway breaks this, as it does for every program that
        // maps files; the documentation of mapped reading says so, and `pread` is the default.
        let map = unsafe { memmap2::MmapOptions::new().map(file)? };
        Ok(Map(Bytes::Mapped(map)))
    }

    /// Bytes that are in memory anyhow.
    pub(super) fn of_copy(bytes: Vec<u8>) -> Self {
        Map(Bytes::Copied(bytes))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(map) => map,
            Bytes::Copied(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_map_is_the_file_from_its_first_byte_to_its_last() {
        // Around the borders of a page of memory, where a length that is wrong by one would show.
        for size in [0, 1, 4_095, 4_096, 4_097, 100_000] {
            let bytes: Vec<u8> = (0..size).map(|n: u32| n.wrapping_mul(31) as u8).collect();
            let file = file_of(&bytes);
            let map = Map::of_file(file.as_file()).unwrap();
            assert_eq!(&map[..], bytes);
            assert_eq!(&Map::of_copy(bytes.clone())[..], bytes);
        }
    }

    #[test]
    fn a_map_outlives_the_name_and_the_handle() {
        let bytes = vec![7; 10_000];
        let file = file_of(&bytes);
        let map = Map::of_file(file.as_file()).unwrap();
        drop(file);
        let threads: Vec<_> = std::thread::scope(|scope| {
            let sums = (0..2).map(|_| scope.spawn(|| map.iter().map(|byte| u64::from(*byte)).sum::<u64>()));
            sums.collect::<Vec<_>>().into_iter().map(|sum| sum.join().unwrap()).collect()
        });
        assert_eq!(threads, [70_000, 70_000]);
    }
}
