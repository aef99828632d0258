//! A disk in memory that forgets what was not synced, for tests: ours, and those of programs that build on
//! the engine.
//!
//! It keeps what is on the device apart from what processes read, for bytes and for names, and a power cut
//! picks, by seed, any state that POSIX allows. All of it is one value behind one mutex; paths are taken from
//! the root, and `..` is refused.

mod directory;
mod file;
mod luck;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::env::Random;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{DirEntry, FileInfo, Fs, Lock, Map, ReadFile, WriteFile};

use directory::NodeId;
use file::FileState;
use luck::Luck;
use tree::{Disk, failed};

/// What ends the life of a [`MemoryFs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the operating system keeps every write and name. Locks are released.
    ProcessRestart,
    /// The machine dies; of what was not synced, anything may be kept and anything lost.
    PowerCut,
}

/// A simulated disk. Clones share it; a crash makes all of them useless and gives a new one with what is
/// left.
#[derive(Clone, Debug)]
pub struct MemoryFs {
    disk: Arc<Mutex<Disk>>,
    /// Of the machine's lives, the one this handle belongs to.
    life: u64,
}

impl MemoryFs {
    /// An empty disk without limit, that has only its root directory. `seed` decides what crashes keep.
    pub fn new(seed: u64) -> Self {
        MemoryFs { disk: Arc::new(Mutex::new(Disk::new(seed))), life: 0 }
    }

    /// Limits the size of all files together, in bytes; writes beyond it fail with `StorageFull`, after
    /// writing what fits.
    pub fn set_capacity(&self, capacity: u64) {
        self.disk.lock().capacity = capacity;
    }

    /// Size of all files together, in bytes.
    pub fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// Ends this life of the disk, for every handle to it and to its files, and starts the next with what is
    /// left.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> MemoryFs {
        let mut disk = self.disk.lock();
        disk.crash(crash);
        MemoryFs { disk: self.disk.clone(), life: disk.life }
    }

    /// A copy of the disk as it is, pending writes and all, that lives and crashes on its own, by the seed
    /// `seed`. No locks are held on it.
    #[must_use]
    pub fn fork(&self, seed: u64) -> MemoryFs {
        let mut disk = self.disk.lock().clone();
        disk.random = Random::new(seed);
        disk.life += 1;
        disk.locks.clear();
        disk.drop_handles();
        let life = disk.life;
        MemoryFs { disk: Arc::new(Mutex::new(disk)), life }
    }

    /// The disk, if this handle's life has not ended.
    fn live(&self) -> Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        if disk.life == self.life { Ok(disk) } else { Err(Error::closed("the simulated machine crashed")) }
    }

    fn handle(&self, disk: &mut Disk, node: NodeId, path: &Path) -> MemoryFile {
        if let Some(node) = disk.nodes.get_mut(&node) {
            node.handles += 1;
        }
        MemoryFile { fs: self.clone(), node, path: path.to_owned() }
    }
}

impl Fs for MemoryFs {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let mut disk = self.live()?;
        let (_, node) = disk.file_place("open", path)?;
        Ok(Arc::new(self.handle(&mut disk, node, path)))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn WriteFile>> {
        let mut disk = self.live()?;
        let node = disk.create_file(path)?;
        Ok(Arc::new(self.handle(&mut disk, node, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = self.live()?;
        let (source, node) = disk.file_place("rename", from)?;
        let target = disk.place("rename", to)?;
        match target.node {
            Some(other) if other == node => Ok(()),
            Some(other) if disk.file(other).is_none() => {
                Err(failed("rename", to, io::ErrorKind::IsADirectory))
            }
            _ => {
                disk.change(&[(source, None), (target, Some(node))]);
                Ok(())
            }
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut disk = self.live()?;
        let (place, _) = disk.file_place("remove", path)?;
        disk.change(&[(place, None)]);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let mut disk = self.live()?;
        let (_, node) = disk.file_place("link", from)?;
        let place = disk.free_place("link", to)?;
        disk.change(&[(place, Some(node))]);
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let mut disk = self.live()?;
        let id = disk.resolve("list", path)?;
        let directory =
            disk.directory(id).ok_or_else(|| failed("list", path, io::ErrorKind::NotADirectory))?;
        let names = directory.names().clone();
        let entry = |(name, id)| {
            let FileInfo { size, is_dir } = disk.nodes.get(&id)?.metadata();
            Some(DirEntry { name, size, is_dir })
        };
        Ok(names.into_iter().filter_map(entry).collect())
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.live()?.create_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut disk = self.live()?;
        let mut above: Vec<_> = path.ancestors().collect();
        above.reverse();
        for path in above {
            match disk.resolve("make directory", path) {
                Ok(id) if disk.directory(id).is_some() => {}
                Ok(_) => return Err(failed("make directory", path, io::ErrorKind::AlreadyExists)),
                Err(error) if error.kind() == ErrorKind::NotFound => disk.create_dir(path)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let mut disk = self.live()?;
        let place = disk.place("remove directory", path)?;
        let node = place.node.ok_or_else(|| failed("remove directory", path, io::ErrorKind::NotFound))?;
        let directory = disk.directory(node);
        let directory =
            directory.ok_or_else(|| failed("remove directory", path, io::ErrorKind::NotADirectory))?;
        if !directory.names().is_empty() {
            return Err(failed("remove directory", path, io::ErrorKind::DirectoryNotEmpty));
        }
        disk.change(&[(place, None)]);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.live()?.sync_dir(path)
    }

    fn metadata(&self, path: &Path) -> Result<FileInfo> {
        let mut disk = self.live()?;
        let id = disk.resolve("look at", path)?;
        let node = disk.nodes.get(&id).ok_or_else(|| failed("look at", path, io::ErrorKind::NotFound))?;
        Ok(node.metadata())
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Lock>> {
        let mut disk = self.live()?;
        let node = match disk.place("open", path)?.node {
            Some(node) => node,
            None => disk.create_file(path)?,
        };
        if let Some(other) = disk.locks.get(&node) {
            return Err(Error::busy(format!("{} is held by {other}", path.display())));
        }
        let file = disk.file(node).ok_or_else(|| failed("open", path, io::ErrorKind::IsADirectory))?;
        file.resize(0);
        file.write_at(holder.as_bytes(), 0);
        disk.locks.insert(node, holder.to_owned());
        Ok(Box::new(MemoryLock { fs: self.clone(), node }))
    }
}

#[derive(Debug)]
struct MemoryLock {
    fs: MemoryFs,
    node: NodeId,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        if let Ok(mut disk) = self.fs.live() {
            disk.locks.remove(&self.node);
        }
    }
}

/// A handle to a file, by its node: the name may come to mean another file.
#[derive(Debug)]
struct MemoryFile {
    fs: MemoryFs,
    node: NodeId,
    path: PathBuf,
}

impl MemoryFile {
    /// Does something to the file while the disk is locked. A handle keeps its node, so it is there while the
    /// machine lives.
    fn with<T>(&self, action: impl FnOnce(&mut FileState) -> T) -> Result<T> {
        let mut disk = self.fs.live()?;
        let file = disk.file(self.node).ok_or_else(|| failed("use", &self.path, io::ErrorKind::NotFound))?;
        Ok(action(file))
    }

    /// Grows or writes up to `end`, as far as there is room: `action` gets the end that it may reach.
    fn grow(&self, end: u64, action: impl FnOnce(&mut FileState, u64)) -> Result<()> {
        let mut disk = self.fs.live()?;
        let size = disk.file(self.node).map_or(0, |file| file.size() as u64);
        let room = disk.room(size, end);
        if let Some(file) = disk.file(self.node) {
            action(file, room);
        }
        if room < end { Err(failed("write", &self.path, io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let Ok(mut disk) = self.fs.live()
            && let Some(node) = disk.nodes.get_mut(&self.node)
        {
            node.handles -= 1;
        }
    }
}

impl ReadFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> Result<u64> {
        self.with(|file| file.size() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.with(|file| file.read_at(buffer, offset))
    }

    fn map(&self) -> Result<Option<Map>> {
        self.with(|file| Some(Map::of_copy(file.bytes().to_vec())))
    }
}

impl WriteFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.grow(offset + bytes.len() as u64, |file, end| {
            let count = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
            file.write_at(&bytes[..count], offset as usize);
        })
    }

    fn sync(&self) -> Result<()> {
        self.with(FileState::sync)
    }

    fn allocate(&self, size: u64) -> Result<()> {
        self.grow(size, |file, end| {
            if end > file.size() as u64 {
                file.resize(end as usize);
            }
        })
    }

    fn truncate(&self, size: u64) -> Result<()> {
        self.grow(size, |file, end| file.resize(end as usize))
    }

    fn lose_unsynced(&self) {
        if let Ok(mut disk) = self.fs.live() {
            let mut random = disk.random.clone();
            if let Some(file) = disk.file(self.node) {
                file.lose_pending(&mut Luck::new(&mut random));
            }
            disk.random = random;
        }
    }
}

#[cfg(test)]
mod tests;
