//! What a safe tree of files is: one rule book for every format, and for packing too.
//!
//! The guard sees each entry's path, kind and link target and keeps the tree they make. It refuses
//! whatever could be written outside the folder it is unpacked into, by any unpacker on any
//! system. Links are judged at the end, when every link they may pass through is known. It reads
//! no bytes and knows no format.

use std::collections::HashMap;

use super::{ArchiveError, Limits, quote};

/// The most warnings kept for one archive.
const MAX_WARNINGS: usize = 20;
/// The most links followed to find out where one link leads, as on Linux.
const MAX_HOPS: usize = 40;

/// One entry as its archive presents it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The path with `/` between folders; a leading `./` and a trailing `/` mean nothing.
    pub path: &'a str,
    /// What it is.
    pub kind: Kind<'a>,
}

/// The kinds of entry a package may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link and what it says.
    Symlink(&'a str),
    /// A second name of an earlier entry, whose whole path it holds.
    Hardlink(&'a str),
}

/// Admits entries one by one and remembers the tree they make.
pub struct Guard<'a> {
    limits: &'a Limits,
    nodes: Vec<Node>,
    by_name: HashMap<(usize, Box<str>), usize>,
    by_folded_name: HashMap<(usize, Box<str>), usize>,
    entries: u64,
    listing_bytes: u64,
    warnings: Vec<String>,
    more_warnings: u64,
}

struct Node {
    parent: usize,
    kind: NodeKind,
    /// An archive may list a folder once, or leave it to be understood from its files.
    listed: bool,
}

enum NodeKind {
    File,
    Folder,
    /// The path of the link, for messages, and its target.
    Symlink {
        path: Box<str>,
        target: Box<str>,
    },
}

const ROOT: usize = 0;

impl<'a> Guard<'a> {
    /// A guard over an empty folder.
    pub fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            nodes: vec![Node { parent: ROOT, kind: NodeKind::Folder, listed: true }],
            by_name: HashMap::new(),
            by_folded_name: HashMap::new(),
            entries: 0,
            listing_bytes: 0,
            warnings: Vec::new(),
            more_warnings: 0,
        }
    }

    /// Takes one entry into the tree, or says why not.
    pub fn admit(&mut self, entry: Entry<'_>) -> Result<(), ArchiveError> {
        self.count(entry)?;
        let components = components(entry.path, self.limits)?;
        let Some((name, folders)) = components.split_last() else {
            // The folder itself, as `tar c .` lists it.
            return match entry.kind {
                Kind::Folder => Ok(()),
                _ => Err(unsafe_path(entry.path, "it names the folder itself, but is no folder")),
            };
        };
        let mut parent = ROOT;
        for folder in folders {
            parent = self.enter(parent, folder, entry.path)?;
        }
        match entry.kind {
            Kind::Folder => {
                let node = self.enter(parent, name, entry.path)?;
                if let Some(node) = self.nodes.get_mut(node) {
                    node.listed = true;
                }
                Ok(())
            }
            Kind::File => self.add(parent, name, entry.path, NodeKind::File),
            Kind::Symlink(target) => {
                check_symlink_text(entry.path, target, self.limits)?;
                let kind = NodeKind::Symlink { path: entry.path.into(), target: target.into() };
                self.add(parent, name, entry.path, kind)
            }
            Kind::Hardlink(target) => {
                self.check_hardlink(entry.path, target)?;
                self.add(parent, name, entry.path, NodeKind::File)
            }
        }
    }

    /// Says something about an entry that is accepted all the same.
    pub fn warn(&mut self, text: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(text);
        } else {
            self.more_warnings += 1;
        }
    }

    /// Judges the whole tree, all links included. Returns the number of entries and the warnings.
    pub fn finish(mut self) -> Result<(u64, Vec<String>), ArchiveError> {
        for node in &self.nodes {
            if let NodeKind::Symlink { path, target } = &node.kind {
                self.follow(node.parent, target).map_err(|reason| ArchiveError::Link {
                    entry: quote(path),
                    target: quote(target),
                    reason,
                })?;
            }
        }
        if self.more_warnings > 0 {
            self.warnings.push(format!("{} more warnings are not shown", self.more_warnings));
        }
        Ok((self.entries, self.warnings))
    }

    fn count(&mut self, entry: Entry<'_>) -> Result<(), ArchiveError> {
        let limit = |what, setting| ArchiveError::Limit { entry: quote(entry.path), what, setting };
        self.entries += 1;
        let max = self.limits.entries;
        if self.entries > max {
            return Err(limit(format!("more than {max} entries"), "packages.max_entries"));
        }
        let target = match entry.kind {
            Kind::Symlink(target) | Kind::Hardlink(target) => target.len(),
            Kind::File | Kind::Folder => 0,
        };
        self.listing_bytes += (entry.path.len() + target) as u64;
        let max = self.limits.listing_bytes;
        if self.listing_bytes > max {
            return Err(limit(
                format!("the names of all entries take more than {max} bytes"),
                "packages.max_listing_bytes",
            ));
        }
        Ok(())
    }

    /// Steps into a folder, which may be made by this step.
    fn enter(&mut self, parent: usize, name: &str, path: &str) -> Result<usize, ArchiveError> {
        let Some(&node) = self.by_name.get(&(parent, name.into())) else {
            return Ok(self.insert(parent, name, path, Node { parent, kind: NodeKind::Folder, listed: false }));
        };
        match self.nodes.get(node).map(|node| &node.kind) {
            Some(NodeKind::Folder) => Ok(node),
            Some(NodeKind::Symlink { .. }) => Err(unsafe_path(path, "it would be written through an earlier link")),
            _ => Err(clash(path, "a file stands where a folder is needed")),
        }
    }

    fn add(&mut self, parent: usize, name: &str, path: &str, kind: NodeKind) -> Result<(), ArchiveError> {
        let earlier = self.by_name.get(&(parent, name.into())).and_then(|node| self.nodes.get(*node));
        match earlier {
            None => {
                self.insert(parent, name, path, Node { parent, kind, listed: true });
                Ok(())
            }
            Some(Node { kind: NodeKind::Folder, listed: false, .. }) => {
                Err(clash(path, "an earlier entry lies inside it as if it were a folder"))
            }
            Some(Node { kind: NodeKind::Folder, .. }) => Err(clash(path, "a folder of this name was listed before")),
            Some(_) => Err(clash(path, "the path was listed before")),
        }
    }

    fn insert(&mut self, parent: usize, name: &str, path: &str, node: Node) -> usize {
        let index = self.nodes.len();
        let folded: Box<str> = name.to_lowercase().into();
        if self.by_folded_name.insert((parent, folded), index).is_some() {
            self.warn(format!(
                "{} differs from another entry only in case: on Windows and macOS one overwrites the other",
                quote(path)
            ));
        }
        if let Some(reason) = trouble_on_windows(name) {
            self.warn(format!("{} cannot be unpacked on Windows: {reason}", quote(path)));
        }
        self.nodes.push(node);
        self.by_name.insert((parent, name.into()), index);
        index
    }

    fn check_hardlink(&self, path: &str, target: &str) -> Result<(), ArchiveError> {
        let refuse = |reason| Err(ArchiveError::Link { entry: quote(path), target: quote(target), reason });
        let Ok(components) = components(target, self.limits) else {
            return refuse("the target's path is unsafe");
        };
        let mut node = ROOT;
        for name in components {
            match self.by_name.get(&(node, name.into())) {
                Some(next) => node = *next,
                None => return refuse("a hard link must name an earlier file of the package"),
            }
        }
        match self.nodes.get(node).map(|node| &node.kind) {
            Some(NodeKind::File) => Ok(()),
            Some(NodeKind::Symlink { .. }) => refuse("a hard link must not name a symbolic link"),
            _ => refuse("a hard link must name an earlier file of the package"),
        }
    }

    /// Walks where a link leads, through other links, and refuses the step that would leave.
    fn follow(&self, start: usize, target: &str) -> Result<(), &'static str> {
        let mut node = start;
        let mut hops = 0;
        let mut todo: Vec<&str> = target.split('/').rev().collect();
        while let Some(name) = todo.pop() {
            match name {
                "" | "." => continue,
                ".." if node == ROOT => return Err("it leads out of the package"),
                ".." => node = self.nodes.get(node).map_or(ROOT, |node| node.parent),
                name => {
                    let Some(&next) = self.by_name.get(&(node, name.into())) else {
                        // It dangles here. What follows could only be judged on the machine.
                        let escapes = todo.contains(&"..");
                        return if escapes {
                            Err("it climbs out of a folder the package does not hold")
                        } else {
                            Ok(())
                        };
                    };
                    if let Some(NodeKind::Symlink { target, .. }) = self.nodes.get(next).map(|node| &node.kind) {
                        hops += 1;
                        if hops > MAX_HOPS {
                            return Err("it leads round in circles");
                        }
                        todo.extend(target.split('/').rev());
                    } else {
                        node = next;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Splits a path and refuses every spelling that some unpacker could take for another place.
fn components<'p>(path: &'p str, limits: &Limits) -> Result<Vec<&'p str>, ArchiveError> {
    let refuse = |reason| Err(unsafe_path(path, reason));
    let bytes = path.as_bytes();
    if path.is_empty() {
        return refuse("it is empty");
    }
    if path.len() > limits.path_bytes {
        return Err(ArchiveError::Limit {
            entry: quote(path),
            what: format!("its path is longer than {} bytes", limits.path_bytes),
            setting: "packages.max_path_bytes",
        });
    }
    if path.starts_with('/') {
        return refuse("it is absolute");
    }
    if path.contains('\0') {
        return refuse("it holds a NUL character");
    }
    if path.contains('\\') {
        return refuse("it holds a backslash, which Windows takes for a folder");
    }
    if path.chars().any(char::is_control) {
        return refuse("it holds a control character");
    }
    if matches!(bytes, [letter, b':', ..] if letter.is_ascii_alphabetic()) {
        return refuse("it starts with a drive letter");
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return refuse("it holds '..'");
    }
    if parts.iter().any(|part| part.len() > 255) {
        return refuse("one name in it is longer than 255 bytes");
    }
    if parts.len() > limits.depth {
        return Err(ArchiveError::Limit {
            entry: quote(path),
            what: format!("it lies more than {} folders deep", limits.depth),
            setting: "packages.max_depth",
        });
    }
    Ok(parts)
}

/// The rules for a link's own text; where it leads is judged at the end.
fn check_symlink_text(path: &str, target: &str, limits: &Limits) -> Result<(), ArchiveError> {
    let reason = if target.is_empty() {
        "it points nowhere"
    } else if target.starts_with('/') {
        "it is absolute"
    } else if target.contains('\\') {
        "it holds a backslash, which Windows takes for a folder"
    } else if target.chars().any(char::is_control) {
        "it holds a control character"
    } else if matches!(target.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic()) {
        "it starts with a drive letter"
    } else if target.len() > limits.path_bytes {
        "it is too long"
    } else {
        return Ok(());
    };
    Err(ArchiveError::Link { entry: quote(path), target: quote(target), reason })
}

/// Names that Linux takes and Windows does not.
fn trouble_on_windows(name: &str) -> Option<&'static str> {
    let stem = name.split('.').next().unwrap_or_default();
    let device = ["con", "prn", "aux", "nul"].iter().any(|device| stem.eq_ignore_ascii_case(device));
    let port = matches!(stem.as_bytes(), [a, b, c, b'1'..=b'9']
        if [*a, *b, *c].eq_ignore_ascii_case(b"com") || [*a, *b, *c].eq_ignore_ascii_case(b"lpt"));
    if name.contains([':', '<', '>', '"', '|', '?', '*']) {
        Some("the name holds one of : < > \" | ? *")
    } else if name.ends_with(['.', ' ']) {
        Some("the name ends in a dot or a space")
    } else if device || port {
        Some("the name is a device there")
    } else {
        None
    }
}

fn unsafe_path(path: &str, reason: &'static str) -> ArchiveError {
    ArchiveError::Path { entry: quote(path), reason }
}

fn clash(path: &str, reason: &'static str) -> ArchiveError {
    ArchiveError::Clash { entry: quote(path), reason }
}
