//! Compiled plugins on disk, so that a restart does not compile again.
//!
//! A file holds native code that will run with all rights of the server. So the folder belongs to the server alone,
//! files are 0600, a file names the component and the exact compiler it was made by, and carries a checksum. Whatever
//! does not fit is removed and compiled anew; nothing that came over the network ever gets here.

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

const MAGIC: &[u8] = b"windlass code 1\n";
const CHECKSUM: usize = 32;
/// Largest file that is read back.
const MAX_FILE: u64 = 1 << 30;

pub(crate) struct CodeCache {
    folder: PathBuf,
    compiler: String,
}

impl CodeCache {
    /// Opens the cache, creating its folder (0700) if needed.
    pub fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let mut compiler = hex::encode(hasher.0.finalize());
        compiler.truncate(16);
        Ok(Self { folder: folder.to_owned(), compiler })
    }

    /// The compiled component of that digest, if it is there and can be trusted.
    pub fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        match self.read(&path) {
            Ok(Some(code)) => {
                // SAFETY: the bytes are what `Component::serialize` gave `store` below: the file is owned by this
                // user and closed to others, its checksum covers component and compiler, and wasmtime itself refuses
                // code of another version or configuration.
                #[allow(unsafe_code)]
                let loaded = unsafe { Component::deserialize(engine, code) };
                loaded.map_err(|error| self.discard(&path, &format!("{error:#}"))).ok()
            }
            Ok(None) => None,
            Err(error) => {
                self.discard(&path, &error.to_string());
                None
            }
        }
    }

    /// Keeps a compiled component. A cache that cannot be written costs time, nothing else.
    pub fn store(&self, digest: &str, component: &Component) {
        let written = component
            .serialize()
            .map_err(|error| format!("{error:#}"))
            .and_then(|code| self.write(digest, &code).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(folder = %self.folder.display(), error, "a compiled plugin could not be kept");
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{}.code", self.compiler))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let owner = fs::metadata(&self.folder)?.uid();
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 || metadata.uid() != owner {
            return Err(io::Error::other("it is not a file that only the server can write"));
        }
        if metadata.len() > MAX_FILE {
            return Err(io::Error::other("it is too large"));
        }
        let bytes = fs::read(path)?;
        let code = bytes
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.split_at_checked(CHECKSUM))
            .filter(|(sum, code)| *sum == self.checksum(path, code).as_slice())
            .map(|(_, code)| code.to_vec());
        code.map(Some).ok_or_else(|| io::Error::other("its checksum is wrong"))
    }

    fn write(&self, digest: &str, code: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        // Created 0600 under a name of its own and renamed: a reader never sees half a file.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.checksum(&path, code))?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(&path).map(|_| ()).map_err(|error| error.error)
    }

    /// Covers the name too, which says of which component and by which compiler.
    fn checksum(&self, path: &Path, code: &[u8]) -> Vec<u8> {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        Sha256::new().chain_update(name).chain_update(code).finalize().to_vec()
    }

    fn discard(&self, path: &Path, why: &str) {
        tracing::warn!(file = %path.display(), why, "a compiled plugin was discarded and is compiled again");
        let _ = fs::remove_file(path);
    }
}

/// Wasmtime gives its configuration only as something to hash.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
