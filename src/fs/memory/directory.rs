//! One simulated directory: the names that processes see, those on the device, and the changes between them.
//!
//! Pure: no files, no paths. A change is atomic: a power cut keeps it or does not.

use std::collections::{BTreeMap, BTreeSet};

/// Which file or directory a name means.
pub(super) type NodeId = u64;

type Names = BTreeMap<String, NodeId>;

#[derive(Clone, Debug, Default)]
pub(super) struct DirectoryState {
    names: Names,
    device: Names,
    pending: Vec<Change>,
}

/// Names given (`Some`) and taken (`None`) at once. A rename between two directories is a change of each, of
/// one number.
#[derive(Clone, Debug)]
struct Change {
    number: u64,
    names: Vec<(String, Option<NodeId>)>,
}

impl DirectoryState {
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn get(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// Every file and directory that a name means, or may mean after a power cut.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let pending = self.pending.iter().flat_map(|change| &change.names);
        self.names.values().chain(self.device.values()).copied().chain(pending.filter_map(|(_, node)| *node))
    }

    pub(super) fn change(&mut self, number: u64, names: Vec<(String, Option<NodeId>)>) {
        let change = Change { number, names };
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// Brings all names to the device; returns the numbers of the changes that went along.
    pub(super) fn sync(&mut self) -> Vec<u64> {
        self.device.clone_from(&self.names);
        self.pending.drain(..).map(|change| change.number).collect()
    }

    /// Brings what happened here up to the last of the changes `numbers`, sorted, to the device: another
    /// directory took part in them and was synced.
    pub(super) fn sync_through(&mut self, numbers: &[u64]) {
        let last = self.pending.iter().rposition(|change| numbers.binary_search(&change.number).is_ok());
        for change in self.pending.drain(..last.map_or(0, |last| last + 1)) {
            change.apply(&mut self.device);
        }
    }

    /// The numbers of the changes that are not on the device.
    pub(super) fn pending(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|change| change.number)
    }

    /// Leaves what the device holds after a power cut that keeps these changes.
    pub(super) fn power_cut(&mut self, kept: &BTreeSet<u64>) {
        for change in self.pending.drain(..).filter(|change| kept.contains(&change.number)) {
            change.apply(&mut self.device);
        }
        self.names.clone_from(&self.device);
    }
}

impl Change {
    fn apply(&self, names: &mut Names) {
        for (name, node) in &self.names {
            match node {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
    }
}
