//! The state of the simulated disk: files and directories by number, and the paths between them.
//!
//! No handles and no lock: [`super::MemoryFs`] holds one of these behind its mutex.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use crate::env::Random;
use crate::error::{Error, Result};
use crate::fs::FileInfo;

use super::Crash;
use super::directory::{DirectoryState, NodeId};
use super::file::FileState;
use super::luck::Luck;

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) life: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    next_change: u64,
    pub(super) random: Random,
    pub(super) capacity: u64,
    pub(super) locks: BTreeMap<NodeId, String>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    /// Names that mean it, as processes see them.
    pub(super) links: u32,
    pub(super) handles: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    File(FileState),
    Directory(DirectoryState),
}

const ROOT: NodeId = 0;

pub(super) fn failed(action: &str, path: &Path, kind: io::ErrorKind) -> Error {
    match kind {
        io::ErrorKind::NotFound => Error::not_found(format!(
            "cannot {action} {}: there is no such file or directory",
            path.display()
        )),
        _ => Error::io(action, path, kind.into()),
    }
}

/// The names along a path, from the root.
fn names(path: &Path) -> Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => match name.to_str() {
                Some(name) => names.push(name),
                None => return Err(Error::invalid_input(format!("{} is not UTF-8", path.display()))),
            },
            Component::ParentDir => {
                return Err(Error::invalid_input(format!(
                    "{}: the simulated disk knows no ..",
                    path.display()
                )));
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    Ok(names)
}

/// What a path means inside its directory.
pub(super) struct Place<'a> {
    pub(super) directory: NodeId,
    pub(super) name: &'a str,
    pub(super) node: Option<NodeId>,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let root = Node { content: Content::Directory(DirectoryState::default()), links: 1, handles: 0 };
        Disk {
            life: 0,
            nodes: [(ROOT, root)].into(),
            next_node: ROOT + 1,
            next_change: 0,
            random: Random::new(seed),
            capacity: u64::MAX,
            locks: BTreeMap::new(),
        }
    }

    pub(super) fn directory(&mut self, id: NodeId) -> Option<&mut DirectoryState> {
        match self.nodes.get_mut(&id).map(|node| &mut node.content) {
            Some(Content::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn file(&mut self, id: NodeId) -> Option<&mut FileState> {
        match self.nodes.get_mut(&id).map(|node| &mut node.content) {
            Some(Content::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The file or directory that `path` means, to do `action`.
    pub(super) fn resolve(&mut self, action: &str, path: &Path) -> Result<NodeId> {
        let mut node = ROOT;
        for name in names(path)? {
            let found = self.directory(node).and_then(|directory| directory.get(name));
            node = found.ok_or_else(|| failed(action, path, io::ErrorKind::NotFound))?;
        }
        Ok(node)
    }

    /// Where the last name of `path` stands; its directory must exist.
    pub(super) fn place<'a>(&mut self, action: &str, path: &'a Path) -> Result<Place<'a>> {
        let name = names(path)?.pop().ok_or_else(|| failed(action, path, io::ErrorKind::InvalidInput))?;
        let directory = self.resolve(action, path.parent().unwrap_or(Path::new("")))?;
        let state =
            self.directory(directory).ok_or_else(|| failed(action, path, io::ErrorKind::NotADirectory))?;
        let node = state.get(name);
        Ok(Place { directory, name, node })
    }

    /// The same, where the name must be free.
    pub(super) fn free_place<'a>(&mut self, action: &str, path: &'a Path) -> Result<Place<'a>> {
        let place = self.place(action, path)?;
        if place.node.is_some() {
            return Err(failed(action, path, io::ErrorKind::AlreadyExists));
        }
        Ok(place)
    }

    /// The same, where the name must be that of a file.
    pub(super) fn file_place<'a>(&mut self, action: &str, path: &'a Path) -> Result<(Place<'a>, NodeId)> {
        let place = self.place(action, path)?;
        let node = place.node.ok_or_else(|| failed(action, path, io::ErrorKind::NotFound))?;
        if self.file(node).is_none() {
            return Err(failed(action, path, io::ErrorKind::IsADirectory));
        }
        Ok((place, node))
    }

    pub(super) fn add_node(&mut self, content: Content) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, Node { content, links: 0, handles: 0 });
        id
    }

    /// Changes names in directories, all as one, and keeps count of links.
    pub(super) fn change(&mut self, changes: &[(Place, Option<NodeId>)]) {
        let number = self.next_change;
        self.next_change += 1;
        let mut by_directory = BTreeMap::<NodeId, Vec<_>>::new();
        for (place, node) in changes {
            by_directory.entry(place.directory).or_default().push((place.name.to_owned(), *node));
            if let Some(node) = node.and_then(|node| self.nodes.get_mut(&node)) {
                node.links += 1;
            }
            if let Some(node) = place.node.and_then(|node| self.nodes.get_mut(&node)) {
                node.links -= 1;
            }
        }
        for (directory, names) in by_directory {
            if let Some(directory) = self.directory(directory) {
                directory.change(number, names);
            }
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> Result<NodeId> {
        let place = self.free_place("create", path)?;
        let node = self.add_node(Content::File(FileState::default()));
        self.change(&[(place, Some(node))]);
        Ok(node)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> Result<()> {
        let place = self.free_place("make directory", path)?;
        let node = self.add_node(Content::Directory(DirectoryState::default()));
        self.change(&[(place, Some(node))]);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> Result<()> {
        let id = self.resolve("sync directory", path)?;
        let directory = self.directory(id);
        let directory =
            directory.ok_or_else(|| failed("sync directory", path, io::ErrorKind::NotADirectory))?;
        let numbers = directory.sync();
        for node in self.nodes.values_mut() {
            if let Content::Directory(directory) = &mut node.content {
                directory.sync_through(&numbers);
            }
        }
        self.collect();
        Ok(())
    }

    /// Forgets files and directories that nobody can reach, now or after a power cut.
    pub(super) fn collect(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Content::Directory(directory) = &node.content {
                named.extend(directory.nodes());
            }
        }
        self.nodes.retain(|id, node| node.handles > 0 || named.contains(id));
    }

    /// Size of all files that still have a name or a handle.
    pub(super) fn used(&self) -> u64 {
        let held = self.nodes.values().filter(|node| node.links > 0 || node.handles > 0);
        held.map(|node| if let Content::File(file) = &node.content { file.size() as u64 } else { 0 }).sum()
    }

    /// How far a file of `size` bytes may grow towards `wanted`.
    pub(super) fn room(&self, size: u64, wanted: u64) -> u64 {
        if self.capacity == u64::MAX || wanted <= size {
            return wanted;
        }
        wanted.min(size + self.capacity.saturating_sub(self.used()))
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        self.life += 1;
        self.locks.clear();
        if crash == Crash::PowerCut {
            let mut random = self.random.clone();
            let mut luck = Luck::new(&mut random);
            let pending =
                self.nodes.values().filter_map(Node::as_directory).flat_map(DirectoryState::pending);
            let kept = luck.choose(pending.collect());
            for node in self.nodes.values_mut() {
                match &mut node.content {
                    Content::File(file) => file.power_cut(&mut luck),
                    Content::Directory(directory) => directory.power_cut(&kept),
                }
            }
            self.random = random;
        }
        self.drop_handles();
    }

    /// Closes every file: keeps what the tree reaches, and counts its links anew.
    pub(super) fn drop_handles(&mut self) {
        let mut links = BTreeMap::from([(ROOT, 1)]);
        let mut unseen = vec![ROOT];
        while let Some(id) = unseen.pop() {
            let children: Vec<_> =
                self.directory(id).into_iter().flat_map(|d| d.names().values().copied()).collect();
            for child in children {
                *links.entry(child).or_insert(0) += 1;
                unseen.push(child);
            }
        }
        let pending: BTreeSet<_> =
            self.nodes.values().filter_map(Node::as_directory).flat_map(DirectoryState::nodes).collect();
        self.nodes.retain(|id, _| links.contains_key(id) || pending.contains(id));
        for (id, node) in &mut self.nodes {
            node.handles = 0;
            node.links = links.get(id).copied().unwrap_or(0);
        }
    }
}

impl Node {
    pub(super) fn as_directory(&self) -> Option<&DirectoryState> {
        match &self.content {
            Content::Directory(directory) => Some(directory),
            Content::File(_) => None,
        }
    }

    pub(super) fn metadata(&self) -> FileInfo {
        match &self.content {
            Content::File(file) => FileInfo { size: file.size() as u64, is_dir: false },
            Content::Directory(_) => FileInfo { size: 0, is_dir: true },
        }
    }
}
