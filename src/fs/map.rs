//! Memory maps of sealed files, read-only. The only unsafe code outside measured kernels.

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
