//! How a database is opened: every setting with its unit, its default and the reason for it.

use std::time::Duration;

use crate::block::ReadMode;
use crate::env::Env;

/// How safe a write is when its call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In the memory of this process: visible to queries, lost when the process dies.
    Buffered,
    /// Handed to the operating system: survives the death of the process. A power cut costs at most
    /// [`Options::sync_interval`].
    Os,
    /// On the device: survives a power cut.
    Sync,
}

/// Who does the work that no caller waits for: syncing, flushing, compacting, dropping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Two threads of the database: one syncs the log at its interval, one does the rest.
    Threads,
    /// Nobody but the host, by calling [`Db::maintain`](crate::Db::maintain).
    Host,
}

/// What happens when [`Options::disk_size_max`] is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtDiskCap {
    /// Writes fail with `LimitExceeded`.
    Refuse,
    /// The retention floor rises until the oldest blocks make room.
    DropOldest,
}

/// Settings of an open database. All may differ from one open to the next; none is stored.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files, clock, randomness. Default: those of the system.
    pub env: Env,
    /// Whether a database is made when the directory is absent or empty. Default: true.
    pub create: bool,
    /// Durability of writes that do not name one. Default: `Os`.
    pub durability: Durability,
    /// The log is brought to the device at least this often, also in silence. Default: 1 s; `None`: only when asked.
    pub sync_interval: Option<Duration>,
    /// Who flushes, compacts and drops. Default: `Threads`.
    pub background: Background,
    /// The head is flushed when it takes this many bytes of memory. Default: 24 MiB, which holds
    /// some ten million samples of regular series; while it is written a second head fills.
    pub flush_size: usize,
    /// The head is flushed when the log takes this many bytes on disk. Default: 128 MiB: it bounds the
    /// time that opening takes after a crash.
    pub wal_size_max: u64,
    /// The head is flushed when its oldest frame is this old. Default: 2 h.
    pub flush_age: Duration,
    /// Bytes of memory that heads, registry, caches, queries and merges may take. At the cap writes
    /// wait for a flush (with `Threads`) or fail with `LimitExceeded`, queries fail with `LimitExceeded`, and merges
    /// take fewer blocks at a time. What is kept for heads and caches, up to half of it, is not for queries, and 1 MiB always is.
    /// Answers count until they are handed out. Some MiB of buffers come on top. Default: 1 GiB.
    pub memory_size_max: usize,
    /// Bytes that all files of the directory may take. Default: `None`: as many as fit.
    pub disk_size_max: Option<u64>,
    /// What happens at `disk_size_max`. Default: `DropOldest`.
    pub at_disk_cap: AtDiskCap,
    /// Series that may be alive (in memory) at once. Default: 10 million.
    pub series_count_max: u64,
    /// Samples older than this are dropped. Default: `None`: kept for ever.
    pub retention: Option<Duration>,
    /// How pages are read. Default: `Pread`.
    pub read_mode: ReadMode,
    /// Bytes of index sections and decoded directories of blocks kept in memory. Default: 64 MiB.
    pub cache_size: usize,
    /// Whether blocks are merged in the background. Default: true.
    pub compaction: bool,
    /// Most bytes of blocks that one merge takes, so that none writes more. Default: 1 GiB; with `disk_size_max` at
    /// most a sixteenth of it, since a merge needs as much room again.
    pub merge_size_max: u64,
    /// A log segment is closed at this many bytes. Default: 16 MiB.
    pub segment_size_max: u64,
    /// Open in spite of damage in the log: what lies behind it is given up and reported. Default: false.
    pub salvage: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            env: Env::system(),
            create: true,
            durability: Durability::Os,
            sync_interval: Some(Duration::from_secs(1)),
            background: Background::Threads,
            flush_size: 24 << 20,
            wal_size_max: 128 << 20,
            flush_age: Duration::from_secs(2 * 3600),
            memory_size_max: 1 << 30,
            disk_size_max: None,
            at_disk_cap: AtDiskCap::DropOldest,
            series_count_max: 10_000_000,
            retention: None,
            read_mode: ReadMode::Pread,
            cache_size: 64 << 20,
            compaction: true,
            merge_size_max: 1 << 30,
            segment_size_max: crate::wal::SEGMENT_SIZE_MAX,
            salvage: false,
        }
    }
}
