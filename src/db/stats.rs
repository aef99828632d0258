//! What the engine counts about itself.

use crate::db::Inner;
use crate::model::Timestamp;

/// A picture of the engine at one moment. All sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Series that are alive: held by a handle or with samples in memory.
    pub series_alive: u64,
    /// Samples in memory, duplicates included.
    pub head_samples: u64,
    /// Times of the earliest and the latest sample in memory, deleted ones included; `None` when there is none.
    pub head_times: Option<(Timestamp, Timestamp)>,
    /// Memory that samples in memory take.
    pub head_size: u64,
    /// Memory that the registry of live series takes.
    pub registry_size: u64,
    /// Memory that indexes and directories of blocks take.
    pub cache_size: u64,
    /// Memory that running queries and merges have reserved.
    pub reserved_size: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Size of all blocks on disk.
    pub block_size: u64,
    /// Samples in blocks; one that lies in two blocks counts twice.
    pub block_samples: u64,
    /// Size of the log on disk.
    pub wal_size: u64,
    /// Size of all files of the database.
    pub disk_size: u64,
    /// The last LSN that queries see.
    pub visible_lsn: u64,
    /// The last LSN that is on the device.
    pub durable_lsn: u64,
    /// Samples that were dropped because they were older than the retention floor.
    pub dropped_below_floor: u64,
    /// Tombstones that some block still needs.
    pub tombstones: u64,
    /// Blocks in quarantine.
    pub quarantined: u64,
    /// Background steps that failed.
    pub background_failures: u64,
    /// What the last of them said.
    pub last_background_failure: Option<String>,
}

/// A live block, as its footer describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockStats {
    /// The number in its file name, never given twice.
    pub number: u64,
    /// The step of the window ladder that it lies inside one window of.
    pub level: u8,
    /// Time of its earliest sample.
    pub min_time: Timestamp,
    /// Time of its latest sample.
    pub max_time: Timestamp,
    /// How many series.
    pub series: u64,
    /// How many pages.
    pub pages: u64,
    /// How many samples.
    pub samples: u64,
    /// Size of its file, in bytes.
    pub size: u64,
}

impl Inner {
    pub(super) fn block_stats(&self) -> Vec<BlockStats> {
        let version = self.version();
        let stats = version.blocks.iter().map(|block| {
            let meta = block.meta();
            BlockStats {
                number: meta.number,
                level: meta.level,
                min_time: Timestamp::from_nanos(meta.min_time),
                max_time: Timestamp::from_nanos(meta.max_time),
                series: u64::from(meta.series_count),
                pages: meta.page_count,
                samples: meta.sample_count,
                size: meta.size,
            }
        });
        stats.collect()
    }

    /// Runs of samples in memory, staged ones counted as one for each series.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(super) fn head_run_count(&self) -> u64 {
        let version = self.version();
        version.frozen.iter().chain([&version.active]).map(|head| head.run_count()).sum()
    }

    pub(super) fn stats(&self) -> Stats {
        self.drain_buffers();
        let version = self.version();
        let (wal_size, head) =
            self.commits.paused(|committer| (committer.log.size(), committer.head.clone()));
        let heads = || version.frozen.iter().chain([&head]);
        let (background_failures, last_background_failure) = self.failures();
        let registry = head.registry().read();
        Stats {
            series_alive: registry.count(),
            head_samples: heads().map(|head| head.sample_count()).sum(),
            head_times: heads().filter_map(|head| head.time_bounds()).reduce(
                |(start, end), (other_start, other_end)| (start.min(other_start), end.max(other_end)),
            ),
            head_size: heads().map(|head| head.size() as u64).sum(),
            registry_size: registry.size() as u64,
            cache_size: self.cache_size() as u64,
            reserved_size: self.ledger.reserved() as u64,
            blocks: version.blocks.len() as u64,
            block_size: version.blocks.iter().map(|block| block.meta().size).sum(),
            block_samples: version.blocks.iter().map(|block| block.meta().sample_count).sum(),
            wal_size,
            disk_size: self.disk_size(),
            visible_lsn: self.commits.visible_lsn(),
            durable_lsn: self.commits.durable_lsn(),
            dropped_below_floor: self.commits.dropped_below_floor(),
            tombstones: version.tombstones.len() as u64,
            quarantined: version.damaged.len() as u64,
            background_failures,
            last_background_failure,
        }
    }
}
