//! A disk that can lose power: what must be on it, and what may be.
//!
//! What was synced is there. Of what was not, each page of 4 KiB may be there or not, a size may be the old one or
//! any later one, and names follow their changes up to a random point. A name is durable only once its folder was
//! synced, which is stricter than ext4: a store that survives this survives it elsewhere too.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::trace::Event;

const PAGE: usize = 4096;

/// How much luck a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// Nothing that was not synced survives, range syncs excepted.
    None,
    /// Each unsynced page, size and name survives or not, at random.
    Random,
    /// As random, and range syncs do not count either: the drive has a volatile cache.
    VolatileCache,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8>, range_synced: bool },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Each with the number of its event.
    pending: Vec<(usize, Change)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File(u64),
    Folder,
}

#[derive(Debug)]
enum NameChange {
    Add(String, Entry),
    Rename(String, String),
    Remove(String),
}

/// The disk while a trace is played onto it.
#[derive(Default)]
pub struct Disk {
    files: HashMap<u64, File>,
    folders: HashMap<u64, String>,
    durable_names: BTreeMap<String, Entry>,
    pending_names: Vec<(usize, NameChange)>,
    played: usize,
    /// Inodes are used again after a removal; each life gets a number of its own.
    lives: HashMap<u64, u64>,
    next_life: u64,
}

impl Disk {
    /// Plays the next event.
    pub fn play(&mut self, event: &Event) {
        let at = self.played;
        self.played += 1;
        match event {
            Event::Create { path, inode } => {
                self.next_life += 1;
                self.lives.insert(*inode, self.next_life);
                self.folders.remove(inode);
                self.files.insert(self.next_life, File::default());
                self.pending_names.push((at, NameChange::Add(path.clone(), Entry::File(self.next_life))));
            }
            Event::MakeDir { path, inode } => {
                self.lives.remove(inode);
                self.folders.insert(*inode, path.clone());
                self.pending_names.push((at, NameChange::Add(path.clone(), Entry::Folder)));
            }
            Event::Rename { from, to } => {
                self.pending_names.push((at, NameChange::Rename(from.clone(), to.clone())));
            }
            Event::Remove { path } => self.pending_names.push((at, NameChange::Remove(path.clone()))),
            Event::Write { inode, offset, data } => {
                let change = Change::Write { offset: *offset, data: data.clone(), range_synced: false };
                self.change(*inode, at, change);
            }
            Event::Truncate { inode, length } => self.change(*inode, at, Change::Truncate(*length)),
            Event::Sync { inode, covered } => self.sync(*inode, *covered),
            Event::SyncRange { inode, offset, length } => self.sync_range(*inode, *offset, *length),
            Event::Told(_) => {}
        }
    }

    fn file(&mut self, inode: u64) -> Option<&mut File> {
        self.files.get_mut(self.lives.get(&inode)?)
    }

    fn change(&mut self, inode: u64, at: usize, change: Change) {
        self.file(inode).expect("a write to a file that was never created").pending.push((at, change));
    }

    fn sync(&mut self, inode: u64, covered: usize) {
        if let Some(folder) = self.folders.get(&inode).cloned().or_else(|| self.is_root(inode)) {
            // Names reach the disk in their order, so those of other folders before the last of this one come along.
            let in_folder = |change: &NameChange| match change {
                NameChange::Add(p, _) | NameChange::Remove(p) => parent(p) == folder,
                NameChange::Rename(a, b) => parent(a) == folder || parent(b) == folder,
            };
            let last = self.pending_names.iter().rposition(|(at, change)| *at < covered && in_folder(change));
            for (_, change) in self.pending_names.drain(..last.map_or(0, |l| l + 1)) {
                apply_name(&mut self.durable_names, change);
            }
        } else if let Some(file) = self.file(inode) {
            let (durable, pending) = (&mut file.durable, &mut file.pending);
            let split = pending.partition_point(|(at, _)| *at < covered);
            for (_, change) in pending.drain(..split) {
                match change {
                    Change::Write { offset, data, .. } => write_at(durable, offset, &data),
                    Change::Truncate(length) => durable.resize(length, 0),
                }
            }
        }
    }

    /// The root exists before the trace begins; it is the only folder the trace does not create.
    fn is_root(&self, inode: u64) -> Option<String> {
        (!self.lives.contains_key(&inode)).then(String::new)
    }

    fn sync_range(&mut self, inode: u64, from: usize, length: usize) {
        let Some(file) = self.file(inode) else { return };
        for (_, change) in &mut file.pending {
            if let Change::Write { offset, data, range_synced } = change
                && *offset >= from
                && *offset + data.len() <= from + length
            {
                *range_synced = true;
            }
        }
    }

    /// Writes one disk that a power cut may leave now into `folder`.
    pub fn cut(&self, luck: Luck, random: &mut StdRng, folder: &Path) {
        let mut names = self.durable_names.clone();
        let kept = if luck == Luck::None { 0 } else { random.random_range(0..=self.pending_names.len()) };
        for (_, change) in &self.pending_names[..kept] {
            apply_name(&mut names, change.clone_change());
        }
        for (path, entry) in &names {
            let target = folder.join(path);
            match entry {
                Entry::Folder => std::fs::create_dir_all(&target).unwrap(),
                Entry::File(life) => {
                    // A file whose folder is not durable cannot be reached.
                    if parent(path).is_empty() || names.contains_key(parent(path)) {
                        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
                        std::fs::write(&target, self.files[life].after_cut(luck, random)).unwrap();
                    }
                }
            }
        }
    }
}

impl NameChange {
    fn clone_change(&self) -> Self {
        match self {
            Self::Add(p, e) => Self::Add(p.clone(), e.clone()),
            Self::Rename(a, b) => Self::Rename(a.clone(), b.clone()),
            Self::Remove(p) => Self::Remove(p.clone()),
        }
    }
}

impl File {
    fn after_cut(&self, luck: Luck, random: &mut StdRng) -> Vec<u8> {
        let mut content = self.durable.clone();
        let mut size = content.len();
        let sizes_kept = if luck == Luck::None { 0 } else { random.random_range(0..=self.pending.len()) };
        for (i, (_, change)) in self.pending.iter().enumerate() {
            let size_kept = i < sizes_kept;
            match change {
                Change::Truncate(length) if size_kept => {
                    content.resize(*length, 0);
                    size = *length;
                }
                Change::Truncate(_) => {}
                Change::Write { offset, data, range_synced } => {
                    let sure = *range_synced && luck != Luck::VolatileCache;
                    keep_pages(&mut content, *offset, data, luck, sure, random);
                    if size_kept {
                        size = size.max(offset + data.len());
                    }
                }
            }
        }
        content.resize(size, 0);
        content
    }
}

fn keep_pages(content: &mut Vec<u8>, offset: usize, data: &[u8], luck: Luck, sure: bool, random: &mut impl Rng) {
    let mut at = offset;
    while at < offset + data.len() {
        let page_end = ((at / PAGE + 1) * PAGE).min(offset + data.len());
        if sure || (luck != Luck::None && random.random()) {
            write_at(content, at, &data[at - offset..page_end - offset]);
        }
        at = page_end;
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

fn apply_name(names: &mut BTreeMap<String, Entry>, change: NameChange) {
    match change {
        NameChange::Add(path, entry) => drop(names.insert(path, entry)),
        NameChange::Remove(path) => drop(names.remove(&path)),
        NameChange::Rename(from, to) => {
            if let Some(entry) = names.remove(&from) {
                names.insert(to, entry);
            }
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
