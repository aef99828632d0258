//! A file system that fails the nth call of a kind, over any other one: for tests that make every call fail
//! in turn.
//!
//! ```
//! use std::{path::Path, sync::Arc};
//! use icecore::fs::{Call, Fault, FaultFs, FaultKind, Fs, MemoryFs};
//!
//! let fs = FaultFs::new(Arc::new(MemoryFs::new(0)));
//! fs.inject(Fault { call: Call::Sync, nth: 2, kind: FaultKind::Io, sticky: false });
//! let file = fs.create(Path::new("/a")).unwrap();
//! assert!(file.sync().is_ok());
//! assert!(file.sync().is_err());
//! assert!(file.sync().is_ok());
//! assert_eq!(fs.fired(), 1);
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::fs::{DirEntry, FileInfo, Fs, Lock, Map, ReadFile, WriteFile};

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the method of Fs, ReadFile or WriteFile of its name")]
pub enum Call {
    /// Any of the others.
    Any,
    /// Any of the others that changes something on the disk.
    Change,
    Open,
    Create,
    Rename,
    Remove,
    Link,
    List,
    CreateDir,
    RemoveDir,
    SyncDir,
    Metadata,
    Lock,
    Size,
    Read,
    Map,
    Write,
    Sync,
    Allocate,
    Truncate,
}

impl Call {
    /// Every kind that stands for one method.
    pub const EACH: [Call; 18] = [
        Call::Open,
        Call::Create,
        Call::Rename,
        Call::Remove,
        Call::Link,
        Call::List,
        Call::CreateDir,
        Call::RemoveDir,
        Call::SyncDir,
        Call::Metadata,
        Call::Lock,
        Call::Size,
        Call::Read,
        Call::Map,
        Call::Write,
        Call::Sync,
        Call::Allocate,
        Call::Truncate,
    ];

    fn changes(self) -> bool {
        !matches!(self, Call::Open | Call::List | Call::Metadata | Call::Size | Call::Read | Call::Map)
    }

    fn covers(self, call: Call) -> bool {
        self == call || self == Call::Any || (self == Call::Change && call.changes())
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An error of the device (EIO). A failed sync loses what was not on the device, as kernels do.
    Io,
    /// No space on the device (ENOSPC).
    NoSpace,
    /// A write that writes half of its bytes and then finds no space, a read that finds half of its bytes.
    /// Other calls: as [`FaultKind::Io`].
    Short,
    /// The call does nothing at all, and a sync loses nothing: the machine is about to crash. Make it sticky.
    Stop,
}

/// A failure to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls it counts.
    pub call: Call,
    /// Which of them fails, from 1, counted from [`FaultFs::inject`] on.
    pub nth: u64,
    /// How it fails.
    pub kind: FaultKind,
    /// Whether all later ones fail as well.
    pub sticky: bool,
}

/// A file system that passes calls on to another one, counts them, and fails those it was told to. Clones
/// share all of it.
#[derive(Clone, Debug)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Call, u64>,
    fault: Option<Fault>,
    /// Calls that the fault counts, since it was injected.
    seen: u64,
    fired: u64,
}

impl FaultFs {
    /// Passes everything on to `inner` until told otherwise.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        FaultFs { inner, state: Arc::default() }
    }

    /// Sets the failure to come, in place of the one before, and counts for it from zero.
    pub fn inject(&self, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some(fault);
        state.seen = 0;
        state.fired = 0;
    }

    /// Lets every call through again.
    pub fn heal(&self) {
        self.state.lock().fault = None;
    }

    /// How many calls the fault has failed.
    pub fn fired(&self) -> u64 {
        self.state.lock().fired
    }

    /// How many calls of a kind were made in all, failed ones included.
    pub fn count(&self, call: Call) -> u64 {
        self.state.lock().counts.iter().filter(|(made, _)| call.covers(**made)).map(|(_, count)| count).sum()
    }

    /// Counts a call; says how it is to fail, if it is.
    fn next(&self, call: Call) -> Option<FaultKind> {
        let mut state = self.state.lock();
        *state.counts.entry(call).or_default() += 1;
        let fault = state.fault.filter(|fault| fault.call.covers(call))?;
        state.seen += 1;
        let fires = state.seen == fault.nth || (fault.sticky && state.seen > fault.nth);
        if !fires {
            return None;
        }
        state.fired += 1;
        Some(fault.kind)
    }

    fn check(&self, call: Call, path: &Path) -> Result<()> {
        self.next(call).map_or(Ok(()), |kind| Err(injected(call, path, kind)))
    }

    fn file<F: ?Sized>(&self, file: Arc<F>) -> FaultFile<F> {
        FaultFile { file, fs: self.clone() }
    }
}

fn injected(call: Call, path: &Path, kind: FaultKind) -> Error {
    let source = match kind {
        FaultKind::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "no space (injected)"),
        FaultKind::Short if call == Call::Write => {
            io::Error::new(io::ErrorKind::StorageFull, "short write (injected)")
        }
        FaultKind::Stop => io::Error::other("the machine stopped (injected)"),
        FaultKind::Io | FaultKind::Short => io::Error::other("input/output error (injected)"),
    };
    Error::io(&format!("{call:?}").to_lowercase(), path, source)
}

impl Fs for FaultFs {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.check(Call::Open, path)?;
        Ok(Arc::new(self.file(self.inner.open(path)?)))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn WriteFile>> {
        self.check(Call::Create, path)?;
        Ok(Arc::new(self.file(self.inner.create(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check(Call::Rename, from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.check(Call::Remove, path)?;
        self.inner.remove(path)
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        self.check(Call::Link, from)?;
        self.inner.link(from, to)
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.check(Call::List, path)?;
        self.inner.list(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.check(Call::CreateDir, path)?;
        self.inner.create_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.check(Call::CreateDir, path)?;
        self.inner.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.check(Call::RemoveDir, path)?;
        self.inner.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.check(Call::SyncDir, path)?;
        self.inner.sync_dir(path)
    }

    fn metadata(&self, path: &Path) -> Result<FileInfo> {
        self.check(Call::Metadata, path)?;
        self.inner.metadata(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Lock>> {
        self.check(Call::Lock, path)?;
        self.inner.lock(path, holder)
    }
}

#[derive(Debug)]
struct FaultFile<F: ?Sized> {
    file: Arc<F>,
    fs: FaultFs,
}

impl ReadFile for FaultFile<dyn ReadFile> {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn size(&self) -> Result<u64> {
        self.fs.check(Call::Size, self.path())?;
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match self.fs.next(Call::Read) {
            None => self.file.read_at(buffer, offset),
            Some(FaultKind::Short) => {
                let half = buffer.len() / 2;
                self.file.read_at(buffer.get_mut(..half).unwrap_or_default(), offset)
            }
            Some(kind) => Err(injected(Call::Read, self.path(), kind)),
        }
    }

    fn map(&self) -> Result<Option<Map>> {
        self.fs.check(Call::Map, self.path())?;
        self.file.map()
    }
}

impl WriteFile for FaultFile<dyn WriteFile> {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let Some(kind) = self.fs.next(Call::Write) else {
            return self.file.write_at(bytes, offset);
        };
        if kind == FaultKind::Short {
            self.file.write_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), offset)?;
        }
        Err(injected(Call::Write, self.path(), kind))
    }

    fn sync(&self) -> Result<()> {
        let Some(kind) = self.fs.next(Call::Sync) else {
            return self.file.sync();
        };
        if kind != FaultKind::Stop {
            self.file.lose_unsynced();
        }
        Err(injected(Call::Sync, self.path(), kind))
    }

    fn allocate(&self, size: u64) -> Result<()> {
        self.fs.check(Call::Allocate, self.path())?;
        self.file.allocate(size)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        self.fs.check(Call::Truncate, self.path())?;
        self.file.truncate(size)
    }

    fn lose_unsynced(&self) {
        self.file.lose_unsynced();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::MemoryFs;

    fn failing(call: Call, nth: u64, kind: FaultKind, sticky: bool) -> FaultFs {
        let fs = FaultFs::new(Arc::new(MemoryFs::new(0)));
        fs.inject(Fault { call, nth, kind, sticky });
        fs
    }

    #[test]
    fn the_nth_call_fails_once_or_from_then_on() {
        let path = Path::new("/f");
        let fs = failing(Call::Write, 2, FaultKind::NoSpace, false);
        let file = fs.create(path).unwrap();
        let results = [0, 1, 2].map(|offset| file.write_at(b"x", offset).is_ok());
        assert_eq!(results, [true, false, true]);
        assert_eq!((fs.fired(), fs.count(Call::Write), fs.count(Call::Any)), (1, 3, 4));

        let fs = failing(Call::Any, 2, FaultKind::NoSpace, true);
        let file = fs.create(path).unwrap();
        let error = file.write_at(b"x", 0).unwrap_err();
        assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
        assert!(file.sync().is_err() && fs.open(path).is_err());
        assert_eq!(fs.fired(), 3);
        fs.heal();
        assert!(file.sync().is_ok());
    }

    #[test]
    fn short_calls_do_half() {
        let path = Path::new("/f");
        let fs = failing(Call::Write, 1, FaultKind::Short, false);
        let file = fs.create(path).unwrap();
        assert!(file.write_at(b"12345678", 0).is_err());
        assert_eq!(fs.open(path).unwrap().read_all().unwrap(), b"1234");
        fs.inject(Fault { call: Call::Read, nth: 1, kind: FaultKind::Short, sticky: false });
        let error = fs.open(path).unwrap().read_exact_at(&mut [0; 4], 0).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corruption);
    }

    #[test]
    fn every_kind_of_call_can_fail() {
        for call in Call::EACH {
            let fs = failing(call, 1, FaultKind::Io, true);
            let _ = fs.create_dir(Path::new("/d"));
            let _ = fs.sync_dir(Path::new("/"));
            let _ = fs.list(Path::new("/"));
            let _ = fs.metadata(Path::new("/"));
            let _ = fs.lock(Path::new("/l"), "test");
            if let Ok(file) = fs.create(Path::new("/f")) {
                let _ = file.allocate(10);
                let _ = file.write_at(b"x", 0);
                let _ = file.truncate(5);
                let _ = file.sync();
            }
            if let Ok(file) = fs.open(Path::new("/f")) {
                let _ = (file.size(), file.read_at(&mut [0], 0), file.map());
            }
            let _ = fs.link(Path::new("/f"), Path::new("/g"));
            let _ = fs.rename(Path::new("/f"), Path::new("/h"));
            let _ = fs.remove(Path::new("/g"));
            let _ = fs.remove_dir(Path::new("/d"));
            assert!(fs.fired() > 0, "{call:?}");
        }
    }
}
