//! One simulated file: what processes read, what is on the device, and what is under way between them.
//!
//! Pure: no locks, no names. A write is seen at once and stays *pending*, one version per 512-byte sector and
//! write, until a sync. A power cut keeps, for each sector, some version of it or none, and some size the
//! file has had, so that writes are lost, reordered and torn, and sizes come without data. Sectors are whole:
//! a kernel writes back pages, so what reaches the device is always the content that the page had at some
//! moment.

use std::collections::BTreeMap;

use super::luck::Luck;

/// The unit in which devices write whole.
pub(super) const SECTOR_SIZE: usize = 512;

/// Of one sector no more pending versions are kept; older ones make room. Bounds the memory that many small
/// appends take.
const SECTOR_VERSIONS_MAX: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    cache: Vec<u8>,
    device: Vec<u8>,
    /// Every size since the last sync, in order.
    sizes: Vec<usize>,
    pending: BTreeMap<usize, Vec<Version>>,
}

/// What a sector held after a write.
#[derive(Clone, Debug)]
struct Version {
    /// How many of the pending sizes came before it.
    sizes: usize,
    bytes: Box<[u8; SECTOR_SIZE]>,
}

impl FileState {
    pub(super) fn size(&self) -> usize {
        self.cache.len()
    }

    /// What a process reads.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.cache
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let rest =
            usize::try_from(offset).ok().and_then(|offset| self.cache.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        count
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.sizes.push(end);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
    }

    pub(super) fn resize(&mut self, size: usize) {
        if size == self.cache.len() {
            return;
        }
        self.cache.resize(size, 0);
        self.sizes.push(size);
    }

    /// Adds a version for each sector of `start..end`.
    fn touch(&mut self, start: usize, end: usize) {
        for index in start / SECTOR_SIZE..end.div_ceil(SECTOR_SIZE) {
            let bytes = sector(&self.cache, index);
            let versions = self.pending.entry(index).or_default();
            if versions.len() == SECTOR_VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push(Version { sizes: self.sizes.len(), bytes });
        }
    }

    /// Brings everything to the device.
    pub(super) fn sync(&mut self) {
        let smallest = self.sizes.iter().copied().min().unwrap_or(usize::MAX);
        self.device.truncate(smallest);
        self.device.resize(self.cache.len(), 0);
        for index in std::mem::take(&mut self.pending).into_keys() {
            let start = index * SECTOR_SIZE;
            let end = self.cache.len().min(start + SECTOR_SIZE);
            if start < end {
                self.device[start..end].copy_from_slice(&self.cache[start..end]);
            }
        }
        self.sizes.clear();
    }

    /// What a failed sync does: some of the pending writes reach the device, the others are forgotten, and
    /// all count as written; processes go on reading them.
    pub(super) fn lose_pending(&mut self, luck: &mut Luck) {
        self.device = self.after_power_cut(luck);
        self.pending.clear();
        self.sizes.clear();
    }

    /// Leaves what the device holds after a power cut.
    pub(super) fn power_cut(&mut self, luck: &mut Luck) {
        self.device = self.after_power_cut(luck);
        self.cache.clone_from(&self.device);
        self.pending.clear();
        self.sizes.clear();
    }

    fn after_power_cut(&self, luck: &mut Luck) -> Vec<u8> {
        // Sizes are metadata, written in order by the journal: the device has seen the first `seen` of them.
        let seen = luck.pick(self.sizes.len());
        let kept_sizes = &self.sizes[..seen];
        let size = kept_sizes.last().copied().unwrap_or(self.device.len());

        // What a later, kept cut took away is gone even where the file grew again.
        let limit = |sizes_before: usize| {
            let later = kept_sizes.get(sizes_before.min(seen)..).unwrap_or_default();
            later.iter().copied().min().unwrap_or(size).min(size)
        };
        let mut bytes = self.device.clone();
        bytes.truncate(limit(0));
        bytes.resize(size, 0);
        for (&index, versions) in &self.pending {
            let Some(kept) = luck.pick(versions.len()).checked_sub(1) else { continue };
            let version = &versions[kept];
            let start = index * SECTOR_SIZE;
            let end = limit(version.sizes).min(start + SECTOR_SIZE);
            if start < end {
                bytes[start..end].copy_from_slice(&version.bytes[..end - start]);
                // The rest of the sector was zero when the version was taken, or was cut off since.
                let rest = size.min(start + SECTOR_SIZE);
                bytes[end..rest].fill(0);
            }
        }
        bytes
    }
}

fn sector(bytes: &[u8], index: usize) -> Box<[u8; SECTOR_SIZE]> {
    let mut copy = Box::new([0; SECTOR_SIZE]);
    let start = index * SECTOR_SIZE;
    let held = &bytes[start..bytes.len().min(start + SECTOR_SIZE)];
    copy[..held.len()].copy_from_slice(held);
    copy
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::env::Random;

    /// Every state that power cuts leave of `file`, over many seeds.
    fn outcomes(file: &FileState) -> BTreeSet<Vec<u8>> {
        (0..400)
            .map(|seed| {
                let mut copy = file.clone();
                copy.power_cut(&mut Luck::new(&mut Random::new(seed)));
                copy.cache
            })
            .collect()
    }

    #[test]
    fn synced_bytes_survive_everything() {
        let mut file = FileState::default();
        file.write_at(&[7; 1500], 0);
        file.sync();
        assert_eq!(outcomes(&file), [vec![7; 1500]].into());
    }

    #[test]
    fn unsynced_appends_are_lost_torn_reordered_or_only_a_size() {
        let mut file = FileState::default();
        file.write_at(&[1; 512], 0);
        file.sync();
        file.write_at(&[2; 512], 512);
        file.write_at(&[3; 1024], 1024);
        let seen = outcomes(&file);
        let state = |b: u8, c: u8, d: u8| [[1; 512], [b; 512], [c; 512], [d; 512]].concat();
        assert!(seen.contains(&vec![1; 512]), "nothing kept");
        assert!(seen.contains(&state(2, 3, 3)), "all kept");
        assert!(seen.contains(&state(0, 0, 0)), "a size without data");
        assert!(seen.contains(&state(0, 3, 3)), "the later write without the earlier one");
        assert!(seen.contains(&state(2, 3, 0)), "torn inside one write");
        assert!(seen.contains(&state(2, 0, 0)[..1024]), "a prefix");
        assert!(seen.iter().all(|bytes| bytes.starts_with(&[1; 512])), "what was synced is there");
    }

    #[test]
    fn an_overwritten_sector_holds_one_of_its_versions() {
        let mut file = FileState::default();
        file.write_at(&[1; 100], 0);
        file.sync();
        file.write_at(&[2; 50], 0);
        file.write_at(&[3; 25], 0);
        let expected =
            [vec![1; 100], [[2; 50], [1; 50]].concat(), [&[3; 25][..], &[2; 25], &[1; 50]].concat()];
        assert_eq!(outcomes(&file), expected.into());
    }

    #[test]
    fn what_was_cut_off_never_comes_back_once_the_cut_is_kept() {
        let mut file = FileState::default();
        file.write_at(&[1; 600], 0);
        file.sync();
        file.resize(300);
        file.resize(600);
        let mut cut_and_grown = vec![1; 300];
        cut_and_grown.resize(600, 0);
        let expected = [vec![1; 600], vec![1; 300], cut_and_grown.clone()];
        assert_eq!(outcomes(&file), expected.into());
        file.sync();
        assert_eq!(outcomes(&file), [cut_and_grown].into());
    }

    #[test]
    fn sync_leaves_on_the_device_what_processes_read() {
        let mut random = Random::new(1);
        let mut file = FileState::default();
        for _ in 0..2000 {
            match random.below(10) {
                0 => file.sync(),
                1 => file.resize(random.below(3000) as usize),
                _ => {
                    let bytes = vec![random.below(256) as u8; random.below(900) as usize];
                    file.write_at(&bytes, random.below(3000) as usize);
                }
            }
            let mut copy = file.clone();
            copy.sync();
            assert_eq!(copy.device, copy.cache);
        }
    }

    #[test]
    fn after_a_failed_sync_the_retry_lies() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut file = FileState::default();
            file.write_at(&[1; 512], 0);
            file.sync();
            file.write_at(&[2; 512], 0);
            file.lose_pending(&mut Luck::new(&mut Random::new(seed)));
            file.sync();
            assert_eq!(file.bytes(), [2; 512], "processes read on");
            lost += usize::from(outcomes(&file) == [vec![1; 512]].into());
        }
        assert!((10..90).contains(&lost), "{lost} of 100 lost their bytes");
    }
}
