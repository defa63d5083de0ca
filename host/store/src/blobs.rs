//! What is too large for a record: files named by the SHA-256 of their content.
//!
//! A blob is written beside its place, synced, renamed, and the folder synced, so that a digest either names the
//! whole content or nothing. Records keep the digest. Putting the same content twice keeps one copy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::fs::{self, File};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

const CHUNK: usize = 256 * 1024;

/// The SHA-256 of a blob's content, written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BlobError;

    fn from_str(text: &str) -> Result<Self, BlobError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| BlobError::NotADigest(text.chars().take(80).collect()))?;
        Ok(Self(bytes))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a blob operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// A file operation failed.
    #[error("{what} {}: {source}; check the folder's permissions and free space", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The source of a put failed.
    #[error("read the content to store: {0}")]
    Source(io::Error),
    /// The content is longer than the caller allows.
    #[error("store a blob: the content is longer than the {limit} bytes allowed")]
    TooLarge { limit: u64 },
    /// There is no such blob.
    #[error("read the blob {0}: there is none with this digest")]
    Missing(Digest),
    /// The stored content no longer has its digest.
    #[error("read the blob {digest}: its content now has the digest {found}; restore {} from a backup", path.display())]
    Damaged { digest: Digest, found: Digest, path: PathBuf },
    /// A text is not a digest.
    #[error("'{0}' is not a digest: 64 hex digits are expected")]
    NotADigest(String),
}

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Opens the folder, creating it if need be. Left-overs of interrupted puts are removed, so open it once, before
    /// anything is put.
    ///
    /// # Errors
    /// If the folder cannot be created or read.
    pub async fn open(dir: &Path) -> Result<Self, BlobError> {
        let blobs = Self { dir: dir.to_owned() };
        let partial = blobs.partial_dir();
        fs::create_dir_all(&partial).await.map_err(failed("create", &partial))?;
        let mut entries = fs::read_dir(&partial).await.map_err(failed("read", &partial))?;
        while let Some(entry) = entries.next_entry().await.map_err(failed("read", &partial))? {
            let path = entry.path();
            fs::remove_file(&path).await.map_err(failed("remove", &path))?;
        }
        sync_dir(&blobs.dir).await?;
        Ok(blobs)
    }

    /// Stores everything `content` gives, up to `limit` bytes, and returns its digest once it is durable.
    ///
    /// # Errors
    /// If the content cannot be read, is too long, or cannot be written. Nothing is left behind then.
    pub async fn put(&self, content: &mut (dyn AsyncRead + Send + Unpin), limit: u64) -> Result<Digest, BlobError> {
        let partial = self.partial_dir().join(format!("{:032x}.partial", rand::random::<u128>()));
        let result = self.write_and_name(content, limit, &partial).await;
        if result.is_err() {
            // The error at hand tells more than a failed clean-up, which the next opening repeats.
            let _ = fs::remove_file(&partial).await;
        }
        result
    }

    async fn write_and_name(
        &self,
        content: &mut (dyn AsyncRead + Send + Unpin),
        limit: u64,
        partial: &Path,
    ) -> Result<Digest, BlobError> {
        let mut file = File::create(partial).await.map_err(failed("create", partial))?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut length = 0u64;
        loop {
            let read = content.read(&mut chunk).await.map_err(BlobError::Source)?;
            let piece = chunk.get(..read).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            length += read as u64;
            if length > limit {
                return Err(BlobError::TooLarge { limit });
            }
            hash.update(piece);
            file.write_all(piece).await.map_err(failed("write", partial))?;
        }
        file.flush().await.map_err(failed("write", partial))?;
        file.sync_all().await.map_err(failed("sync", partial))?;
        drop(file);
        let digest = Digest(hash.finalize().into());
        let path = self.path(digest);
        let shard = path.parent().unwrap_or(&self.dir);
        if !is_there(shard).await {
            fs::create_dir_all(shard).await.map_err(failed("create", shard))?;
            sync_dir(&self.dir).await?;
        }
        fs::rename(partial, &path).await.map_err(failed("rename", partial))?;
        sync_dir(shard).await?;
        Ok(digest)
    }

    /// Opens a blob for streaming. The content is not checked again; [`Blobs::read`] does.
    ///
    /// # Errors
    /// [`BlobError::Missing`] if there is none.
    pub async fn get(&self, digest: Digest) -> Result<Box<dyn AsyncRead + Send + Unpin>, BlobError> {
        Ok(Box::new(self.file(digest).await?))
    }

    /// Reads a whole blob of at most `limit` bytes and checks its digest.
    ///
    /// # Errors
    /// If there is none, it is longer, or it no longer has its digest.
    pub async fn read(&self, digest: Digest, limit: u64) -> Result<Bytes, BlobError> {
        let mut content = Vec::new();
        let path = self.path(digest);
        let mut source = self.file(digest).await?.take(limit.saturating_add(1));
        source.read_to_end(&mut content).await.map_err(failed("read", &path))?;
        if content.len() as u64 > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let found = Digest::of(&content);
        if found == digest { Ok(content.into()) } else { Err(BlobError::Damaged { digest, found, path }) }
    }

    /// Whether there is such a blob.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub async fn exists(&self, digest: Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        fs::try_exists(&path).await.map_err(failed("look for", &path))
    }

    /// The length of a blob.
    ///
    /// # Errors
    /// [`BlobError::Missing`] if there is none.
    pub async fn size(&self, digest: Digest) -> Result<u64, BlobError> {
        let path = self.path(digest);
        let data = fs::metadata(&path).await.map_err(|e| missing_or(digest, "measure", &path, e))?;
        Ok(data.len())
    }

    /// Removes a blob that no record names any more. Removing what is not there is no error.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub async fn remove(&self, digest: Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    async fn file(&self, digest: Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        File::open(&path).await.map_err(|e| missing_or(digest, "open", &path, e))
    }

    fn partial_dir(&self) -> PathBuf {
        self.dir.join("partial")
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        // Two digits a folder keep folders small.
        self.dir.join(name.get(..2).unwrap_or_default()).join(name)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { what, path, source }
}

fn missing_or(digest: Digest, what: &'static str, path: &Path, e: io::Error) -> BlobError {
    if e.kind() == io::ErrorKind::NotFound { BlobError::Missing(digest) } else { failed(what, path)(e) }
}

async fn is_there(path: &Path) -> bool {
    fs::metadata(path).await.is_ok()
}

async fn sync_dir(dir: &Path) -> Result<(), BlobError> {
    let opened = File::open(dir).await.map_err(failed("open", dir))?;
    opened.sync_all().await.map_err(failed("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[tokio::test]
    async fn content_comes_back_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).await.unwrap();
        let digest = blobs.put(&mut &b"abc"[..], 3).await.unwrap();
        assert_eq!(digest.to_string(), ABC);
        assert_eq!(blobs.put(&mut &b"abc"[..], 3).await.unwrap(), digest);
        assert_eq!(blobs.read(digest, 3).await.unwrap(), "abc");
        assert_eq!((blobs.exists(digest).await.unwrap(), blobs.size(digest).await.unwrap()), (true, 3));
        let mut streamed = Vec::new();
        blobs.get(digest).await.unwrap().read_to_end(&mut streamed).await.unwrap();
        assert_eq!(streamed, b"abc");
        blobs.remove(digest).await.unwrap();
        blobs.remove(digest).await.unwrap();
        assert!(matches!(blobs.read(digest, 3).await, Err(BlobError::Missing(_))));
    }

    #[tokio::test]
    async fn failed_puts_leave_nothing_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).await.unwrap();
        let refused = blobs.put(&mut &b"abc"[..], 2).await.unwrap_err();
        assert_eq!(refused.to_string(), "store a blob: the content is longer than the 2 bytes allowed");
        assert_eq!(std::fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);

        let digest = blobs.put(&mut &b"abc"[..], 9).await.unwrap();
        std::fs::write(dir.path().join("ba").join(ABC), b"abd").unwrap();
        assert!(matches!(blobs.read(digest, 9).await, Err(BlobError::Damaged { .. })));
        assert!("xyz".parse::<Digest>().is_err());

        std::fs::write(dir.path().join("partial/left.partial"), b"half").unwrap();
        Blobs::open(dir.path()).await.unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
    }
}
