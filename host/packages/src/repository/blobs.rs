//! Files named by their digest, under one folder.
//!
//! `sha256/ab/cdef…` holds finished bytes, `incoming/` what is being written, `expanded/` payloads
//! unpacked from gzip, which can be made again at any time. A file gets its final name only when
//! it is whole and on disk, so whatever has a final name can be trusted.
//! Everything here blocks; callers run it on threads meant for that.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::digest::{Blob, Hasher, Sha256};

/// How long a half-written file may lie around before a start removes it.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long an expanded payload may count on being left alone.
const EXPANDED_AGE: Duration = Duration::from_secs(24 * 3600);

/// The folder of all package bytes.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Prepares the folder and removes half-written files older than a day.
    ///
    /// Expanded payloads go too: they are written without waiting for the disk, so after a power
    /// cut their bytes prove nothing.
    pub(super) fn open(root: PathBuf, now: SystemTime) -> io::Result<Self> {
        let blobs = Self { root };
        fs::create_dir_all(blobs.root.join("sha256"))?;
        fs::create_dir_all(blobs.incoming())?;
        fs::create_dir_all(blobs.expanded())?;
        for entry in fs::read_dir(blobs.expanded())? {
            fs::remove_file(entry?.path())?;
        }
        for entry in fs::read_dir(blobs.incoming())? {
            let entry = entry?;
            let written = entry.metadata()?.modified()?;
            let old = now.duration_since(written).is_ok_and(|age| age > LEFTOVER_AGE);
            if old && entry.file_name().to_string_lossy().ends_with(".partial") {
                tracing::info!(file = %entry.path().display(), "removing a half-written upload");
                fs::remove_file(entry.path())?;
            }
        }
        Ok(blobs)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the bytes of a digest are, or would be.
    pub(super) fn path(&self, sha256: &Sha256) -> PathBuf {
        let name = sha256.to_string();
        let (shard, rest) = name.split_at(2);
        self.root.join("sha256").join(shard).join(rest)
    }

    /// A fresh file to write to. It vanishes when dropped before `keep`.
    pub(super) fn partial(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix("package-").suffix(".partial").tempfile_in(self.incoming())
    }

    /// Gives whole bytes their final name: file, rename and folder are on disk afterwards.
    pub(super) fn keep(&self, partial: NamedTempFile, blob: Blob) -> io::Result<()> {
        let path = self.path(&blob.sha256);
        partial.as_file().sync_all()?;
        let shard = path.parent().unwrap_or(&self.root);
        if !shard.exists() {
            fs::create_dir_all(shard)?;
            sync_folder(&self.root.join("sha256"))?;
        }
        let mut readable = partial.as_file().metadata()?.permissions();
        readable.set_readonly(true);
        partial.as_file().set_permissions(readable)?;
        // Also when the file is there already: so a second push mends bytes damaged on disk.
        partial.persist(&path).map_err(|error| error.error)?;
        sync_folder(shard)
    }

    /// Removes bytes; it is no error when they are gone.
    pub(super) fn remove(&self, sha256: &Sha256) -> io::Result<()> {
        match fs::remove_file(self.path(sha256)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Where the plain form of a compressed payload is kept while it is in use.
    pub(super) fn expanded_path(&self, sha256: &Sha256) -> PathBuf {
        self.expanded().join(format!("{sha256}.tar"))
    }

    /// True when the plain form is there; it then counts as just used.
    pub(super) fn use_expanded(&self, blob: Blob) -> bool {
        let Ok(file) = File::options().append(true).open(self.expanded_path(&blob.sha256)) else {
            return false;
        };
        let whole = file.metadata().is_ok_and(|known| known.len() == blob.size);
        // A failed touch only means that the file may be dropped, and made again, sooner.
        whole && file.set_times(FileTimes::new().set_modified(SystemTime::now())).is_ok()
    }

    /// Keeps a plain form, and drops those unused for a day while all take more than `budget`.
    pub(super) fn keep_expanded(&self, partial: NamedTempFile, blob: Blob, budget: u64) -> io::Result<()> {
        partial.persist(self.expanded_path(&blob.sha256)).map_err(|error| error.error)?;
        let mut total = 0;
        let mut files = Vec::new();
        for entry in fs::read_dir(self.expanded())? {
            let entry = entry?;
            let known = entry.metadata()?;
            total += known.len();
            files.push((known.modified()?, known.len(), entry.path()));
        }
        files.sort();
        let now = SystemTime::now();
        for (used, size, path) in files {
            let idle = now.duration_since(used).is_ok_and(|age| age > EXPANDED_AGE);
            if total <= budget || !idle {
                break;
            }
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }

    /// Reads the bytes of a digest again and tells what they are now; `None` when they are gone.
    pub(super) fn rehash(&self, sha256: &Sha256) -> io::Result<Option<Blob>> {
        let mut file = match File::open(self.path(sha256)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            match buffer.get(..read) {
                Some(bytes) if read > 0 => hasher.update(bytes),
                _ => return Ok(Some(hasher.finish())),
            }
        }
    }

    /// Digests of all finished files written before `before`.
    pub(super) fn older_than(&self, before: SystemTime) -> io::Result<Vec<Sha256>> {
        let mut found = Vec::new();
        for shard in fs::read_dir(self.root.join("sha256"))? {
            let shard = shard?;
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let name =
                    [shard.file_name(), entry.file_name()].map(|part| part.to_string_lossy().into_owned()).concat();
                if let Ok(digest) = name.parse()
                    && entry.metadata()?.modified()? < before
                {
                    found.push(digest);
                }
            }
        }
        Ok(found)
    }

    fn expanded(&self) -> PathBuf {
        self.root.join("expanded")
    }

    fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }
}

/// Makes names in a folder last through a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open a folder like a file, and writes its names through by itself.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expanded_payloads_go_oldest_first_but_not_on_their_first_day() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().to_owned(), SystemTime::now()).unwrap();
        let blob = |number: u8| Blob { sha256: Sha256::of(&[number]), size: 100 };
        let keep = |number: u8, budget: u64, age_hours: u64| {
            let partial = blobs.partial().unwrap();
            fs::write(partial.path(), [number; 100]).unwrap();
            blobs.keep_expanded(partial, blob(number), budget).unwrap();
            let path = blobs.expanded_path(&blob(number).sha256);
            let file = File::options().append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_hours * 3600)).unwrap();
        };
        let there = |number: u8| blobs.expanded_path(&blob(number).sha256).exists();
        keep(1, 300, 30);
        keep(2, 300, 50);
        keep(3, 300, 20);
        assert!(there(1) && there(2) && there(3), "within the budget all stay");
        keep(4, 300, 0);
        assert!(there(1) && !there(2) && there(3) && there(4), "the longest unused goes");
        keep(5, 100, 0);
        assert!(!there(1) && there(3) && there(4) && there(5), "those of the last day stay");
        keep(6, 400, 30);
        assert!(blobs.use_expanded(blob(6)), "using one makes it young again");
        keep(7, 100, 0);
        assert!(there(6));
        assert!(!blobs.use_expanded(blob(2)));
        let longer = Blob { size: 101, ..blob(6) };
        assert!(!blobs.use_expanded(longer), "a file of another size is not used");
    }
}
