//! The data folder: who may use it, where things are, and whether the index in it can be trusted.
//!
//! The folder is locked for the life of a store. The reserve file keeps some space that is given up when the disk
//! is full. The trust mark says which index is the current one and under which boot of the machine it was last
//! written: sled's own syncing does not survive a power cut, so after one the index is thrown away and built again
//! from the journal.
//!
//! Each index that is built has a folder of its own, under a name that was never used before. So one that had to be
//! abandoned open (see `index`) can neither lock out its successor nor write into it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::record::Seq;
use crate::transfer::sync_parent;

/// A locked data folder.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    _lock: File,
}

/// What the trust mark says about the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The machine has been up ever since, or the index was closed in order. This is the index.
    Good(IndexName),
    /// The machine has restarted while the index was open.
    MachineRestarted,
    /// There is no mark: the index is new, or something went wrong with it.
    Unmarked,
}

/// The name of one index's folder: 16 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct IndexName(String);

impl TryFrom<String> for IndexName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let good = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if good { Ok(Self(name)) } else { Err("not the name of an index") }
    }
}

impl From<IndexName> for String {
    fn from(name: IndexName) -> Self {
        name.0
    }
}

/// Format 1 knew a single index without a name; it is built anew.
const MARK_FORMAT: u8 = 2;

#[derive(serde::Serialize, serde::Deserialize)]
struct Mark {
    format: u8,
    boot: String,
    closed: bool,
    index: IndexName,
}

impl Folder {
    /// Creates what is missing and takes the lock.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { what, path, source }
        };
        let new = !root.exists();
        for dir in [root, &root.join("journal"), &root.join("exports")] {
            fs::create_dir_all(dir).map_err(io("create", dir))?;
        }
        File::open(root).and_then(|dir| dir.sync_all()).map_err(io("sync", root))?;
        if new {
            sync_parent(root).map_err(io("sync the parent of", root))?;
        }
        let path = root.join("lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { dir: root.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let folder = Self { root: root.to_owned(), _lock: lock };
        for dir in [folder.journal(), folder.exports()] {
            remove_partials(&dir).map_err(io("clean", &dir))?;
        }
        Ok(folder)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn exports(&self) -> PathBuf {
        self.root.join("exports")
    }

    /// Where the indexes are: the current one, and whatever is left of earlier ones.
    pub(crate) fn indexes(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn index(&self, name: &IndexName) -> PathBuf {
        self.indexes().join(&name.0)
    }

    fn mark(&self) -> PathBuf {
        self.root.join("index.trust")
    }

    fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// Whether the index may be used after this boot of the machine found it.
    pub(crate) fn trust(&self, boot: &str) -> Trust {
        let Some(mark) = fs::read(self.mark()).ok().and_then(|text| serde_json::from_slice::<Mark>(&text).ok()) else {
            return Trust::Unmarked;
        };
        if mark.format != MARK_FORMAT {
            Trust::Unmarked
        } else if mark.closed || mark.boot == boot {
            Trust::Good(mark.index)
        } else {
            Trust::MachineRestarted
        }
    }

    /// Records that this index is the current one, and in use (or closed in order) under this boot.
    pub(crate) fn set_trust(&self, boot: &str, closed: bool, index: &IndexName) -> io::Result<()> {
        let mark = Mark { format: MARK_FORMAT, boot: boot.to_owned(), closed, index: index.clone() };
        let mark = serde_json::to_vec(&mark)?;
        let partial = self.root.join("index.trust.partial");
        let mut file = File::create(&partial)?;
        file.write_all(&mark)?;
        file.sync_all()?;
        fs::rename(&partial, self.mark())?;
        sync_parent(&self.mark())
    }

    /// Takes the trust away, durably.
    pub(crate) fn distrust(&self) -> io::Result<()> {
        remove_if_there(&self.mark())?;
        sync_parent(&self.mark())
    }

    /// Removes every index and names the next one. The trust goes first, so that half an index is never believed.
    pub(crate) fn new_index(&self) -> io::Result<IndexName> {
        self.distrust()?;
        match fs::remove_dir_all(self.indexes()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::create_dir(self.indexes())?;
        Ok(IndexName(format!("{:016x}", rand::random::<u64>())))
    }

    /// Fills the reserve file with real blocks, if it is not there yet.
    pub(crate) fn keep_reserve(&self, bytes: u64) -> io::Result<()> {
        let path = self.reserve();
        if fs::metadata(&path).is_ok_and(|m| m.len() >= bytes) {
            return Ok(());
        }
        let fill = || {
            let mut file = File::create(&path)?;
            let zeros = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                let piece = left.min(1 << 20);
                file.write_all(zeros.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or_default())?;
                left -= piece;
            }
            file.sync_all()
        };
        fill().inspect_err(|_| {
            // Half a reserve only takes space away; the caller learns of the failure.
            let _ = fs::remove_file(&path);
        })
    }

    /// Gives the reserve up. `false` if it was gone already.
    pub(crate) fn give_up_reserve(&self) -> io::Result<bool> {
        match fs::remove_file(self.reserve()) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// The verified exports in a folder, oldest first.
pub(crate) fn list_exports(dir: &Path) -> io::Result<Vec<(Seq, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jsonl"));
        if let Some(seq) = name.and_then(|n| n.parse().ok()) {
            found.push((Seq(seq), path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The file name of the export that shows the store as of `seq`.
pub(crate) fn export_name(seq: Seq) -> String {
    format!("{:020}.jsonl", seq.0)
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn remove_partials(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "partial") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
