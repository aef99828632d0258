//! Every file and directory name of a database, built and parsed here and nowhere else.

use std::path::{Path, PathBuf};

/// The log of edits that says which files are live.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// What the one writer locks.
pub(crate) const LOCK: &str = "LOCK";
/// The directory of log segments.
pub(crate) const WAL_DIR: &str = "wal";
/// The directory of blocks.
pub(crate) const BLOCK_DIR: &str = "blocks";
/// The directory of files that are damaged or that nobody names.
pub(crate) const QUARANTINE_DIR: &str = "quarantine";
/// How the name of a file that is not published yet ends.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

const SEGMENT_SUFFIX: &str = ".wal";
const BLOCK_SUFFIX: &str = ".blk";

/// The name of a log segment in [`WAL_DIR`].
pub(crate) fn segment(number: u64) -> String {
    format!("{number:016x}{SEGMENT_SUFFIX}")
}

/// The name of a block in [`BLOCK_DIR`].
pub(crate) fn block(number: u64) -> String {
    format!("{number:016x}{BLOCK_SUFFIX}")
}

/// The name of a file until it is published as `name`.
pub(crate) fn temporary(name: &str) -> String {
    format!("{name}{TEMPORARY_SUFFIX}")
}

/// The path of the log segment `number` of the database in `root`.
pub(crate) fn segment_path(root: &Path, number: u64) -> PathBuf {
    root.join(WAL_DIR).join(segment(number))
}

/// The path of the block `number` of the database in `root`.
pub(crate) fn block_path(root: &Path, number: u64) -> PathBuf {
    root.join(BLOCK_DIR).join(block(number))
}

/// The number of the log segment of this name, if it is one.
pub(crate) fn parse_segment(name: &str) -> Option<u64> {
    parse_number(name, SEGMENT_SUFFIX)
}

/// The number of the block of this name, if it is one.
pub(crate) fn parse_block(name: &str) -> Option<u64> {
    parse_number(name, BLOCK_SUFFIX)
}

/// Whether the name is that of a file that was never published, and can go.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY_SUFFIX)
}

/// Only the very text that the functions above build: two names for one number would be two files.
fn parse_number(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let canonical = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if canonical { u64::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_their_number() {
        for number in [0, 1, 0xabc, u64::MAX] {
            assert_eq!(parse_segment(&segment(number)), Some(number));
            assert_eq!(parse_block(&block(number)), Some(number));
            assert_eq!(parse_block(&segment(number)), None);
        }
        assert_eq!(segment(10), "000000000000000a.wal");
        assert_eq!(block_path(Path::new("d"), 1), Path::new("d/blocks/0000000000000001.blk"));
        assert_eq!(segment_path(Path::new("d"), 1), Path::new("d/wal/0000000000000001.wal"));
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in
            ["1.blk", "000000000000000A.blk", "+00000000000000a.blk", "0000000000000001.blk.tmp", ".blk", ""]
        {
            assert_eq!(parse_block(name), None, "{name}");
        }
        assert!(is_temporary(&temporary(&block(1))));
        assert_eq!(temporary(MANIFEST), "MANIFEST.tmp");
        assert!(!is_temporary(MANIFEST));
    }
}
