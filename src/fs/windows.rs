//! What differs between systems, for Windows. Used by `disk.rs` alone.

use std::fs::File;
use std::io;
use std::os::windows::fs::FileExt;
use std::path::Path;

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = file.seek_write(bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(count..).unwrap_or_default();
        offset += count as u64;
    }
    Ok(())
}

/// Directories cannot be flushed here; NTFS journals changes of names, in order, and flushing a file
/// afterwards brings its journal along.
pub(super) fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
}
