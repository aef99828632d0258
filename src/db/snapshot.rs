//! An own database made of a running one, by hard links of files that never change.
//!
//! The target's `MANIFEST` is written last: a directory without it is not a database, so a snapshot that
//! was cut off is refused by name and never taken for a whole one.

use std::path::Path;

use crate::db::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Fs, name};
use crate::manifest::{Edit, Loaded, Manifest};

/// Bytes are copied in pieces of this size where hard links are not to be had.
const COPY_SIZE: usize = 1 << 20;

impl Inner {
    /// Makes a consistent copy in `target`, which is absent or empty. Writers wait only for the sync and the close of
    /// one log segment.
    pub(super) fn snapshot_to(&self, target: &Path) -> Result<()> {
        let fs = self.env().fs.as_ref();
        check_target(fs, target)?;
        // No step runs meanwhile, so no file that is linked here is removed before it is.
        let _step = self.pause_maintenance();
        self.drain_buffers();
        let (segments, last_lsn) = self.commits.paused(|committer| {
            self.commits.close_open_frame(committer)?;
            committer.log.close_segment();
            let last_lsn = self.commits.sync_paused(committer)?;
            Ok((committer.log.segments(), last_lsn))
        })?;
        let state = self.manifest.lock().state().clone();
        fs.create_dir_all(target)?;
        for dir in [name::WAL_DIR, name::BLOCK_DIR] {
            fs.create_dir_all(&target.join(dir))?;
        }
        for number in state.blocks.keys() {
            link(fs, &name::block_path(&self.root, *number), &name::block_path(target, *number))?;
        }
        for segment in segments.iter().filter(|segment| segment.last_lsn > state.cut) {
            let number = segment.number;
            link(fs, &name::segment_path(&self.root, number), &name::segment_path(target, number))?;
        }
        for dir in [name::WAL_DIR, name::BLOCK_DIR] {
            fs.sync_dir(&target.join(dir))?;
        }
        // Frames after the pause lie in segments that are not linked; the incarnation keeps LSNs of the two
        // databases, which share an id and a past, from being the same.
        let edit = Edit { incarnation: Some(state.incarnation), ..Edit::default() };
        debug_assert!(last_lsn >= state.cut);
        let loaded = Loaded { state, sequence: 0, torn_size: 0 };
        Manifest::open(self.env().fs.clone(), target, loaded, &edit)?;
        sync_parent(fs, target)
    }
}

fn check_target(fs: &dyn Fs, target: &Path) -> Result<()> {
    match fs.list(target) {
        Ok(entries) if entries.is_empty() => Ok(()),
        Ok(_) => Err(Error::invalid_input("the target of a snapshot is not empty").in_path(target)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_parent(fs: &dyn Fs, target: &Path) -> Result<()> {
    match target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs.sync_dir(parent),
        None => Ok(()),
    }
}

/// Gives the file a second name, or copies it where that cannot be.
fn link(fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
    if fs.link(from, to).is_ok() {
        return Ok(());
    }
    let source = fs.open(from)?;
    let copy = fs.create(to)?;
    let mut buffer = vec![0; COPY_SIZE];
    let mut offset = 0;
    loop {
        let count = source.read_at(&mut buffer, offset)?;
        if count == 0 {
            return copy.sync();
        }
        copy.write_at(buffer.get(..count).unwrap_or_default(), offset)?;
        offset += count as u64;
    }
}
