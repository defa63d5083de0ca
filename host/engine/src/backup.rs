//! Backups: everything the server keeps, read while it goes on.
//!
//! The records come as of one commit. Files are content-addressed, never changed, and on disk before a record names
//! them, so those that are there after that commit are enough. The secret key is not among them: whoever gets hold of
//! a backup must not be able to open its secrets. The backup is made as it is read, at the reader's pace.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use windlass_store::{BackupError, BackupHead, BackupWriter, Exported, add_folder};

use crate::{
    error::{EngineError, ErrorKind},
    open::Engine,
    room,
};

/// The records in a backup.
pub(crate) const RECORDS: &str = "records.jsonl";
/// Bytes of one piece.
const PIECE: usize = 256 << 10;
/// Pieces that may wait for the reader.
const WAITING: usize = 8;

/// A backup on its way; dropping it ends the work.
pub struct BackupStream(mpsc::Receiver<io::Result<Bytes>>);

impl Stream for BackupStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

impl Engine {
    /// Begins a backup. What fails later ends the stream with an error, and such a file is no backup.
    ///
    /// # Errors
    /// When another one is being made, there is no room for the records, or the store stopped.
    pub async fn backup(&self) -> Result<BackupStream, EngineError> {
        let permit = Arc::clone(&self.backups).try_acquire_owned().map_err(|_| {
            EngineError::conflict("backup-running", "another backup is being made").fix("wait for its end")
        })?;
        let shared = &self.services.shared;
        room::for_work(&*shared.store, "make a backup", 0)?;
        let records = Scratch::new(&self.data)?;
        let exported = shared.store.export(&records.0).await;
        let exported = exported.map_err(|error| {
            EngineError::new(ErrorKind::Unavailable, "backup", format!("the records cannot be exported: {error}"))
                .fix("look at the server's log, then try again")
        })?;
        let key = self.services.vault.fingerprint();
        let head = BackupHead::new(env!("CARGO_PKG_VERSION"), shared.clock.now_ms(), &exported, key);
        let (sender, receiver) = mpsc::channel(WAITING);
        let work = Work { permit, data: self.data.clone(), records, head, exported };
        tokio::task::spawn_blocking(move || work.run(sender));
        Ok(BackupStream(receiver))
    }
}

/// A file that goes with its handle.
struct Scratch(PathBuf);

impl Scratch {
    fn new(data: &Path) -> Result<Self, EngineError> {
        let folder = scratch_folder(data);
        let failed = |error| EngineError::internal(format!("failed to create {}: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Self(folder.join(format!("{:016x}.jsonl", rand::random::<u64>()))))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where records lie while a backup is made.
pub(crate) fn scratch_folder(data: &Path) -> PathBuf {
    data.join("backup.partial")
}

struct Work {
    /// Held to the end: one backup at a time.
    permit: OwnedSemaphorePermit,
    data: PathBuf,
    records: Scratch,
    head: BackupHead,
    exported: Exported,
}

impl Work {
    fn run(self, sender: mpsc::Sender<io::Result<Bytes>>) {
        let result = self.write(Pieces { sender: sender.clone(), piece: Vec::with_capacity(PIECE) });
        match result {
            Ok(()) => tracing::info!(seq = self.exported.seq.0, records = self.exported.records, "made a backup"),
            Err(error) => {
                tracing::warn!(%error, "a backup was not finished");
                // The reader may be what is gone.
                let _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
            }
        }
        drop(self.permit);
    }

    fn write(&self, out: Pieces) -> Result<(), BackupError> {
        let failed = |what| move |source| BackupError::Io { what, source };
        let mut writer = BackupWriter::new(out, &self.head)?;
        let mut records = std::fs::File::open(&self.records.0).map_err(failed("read the records for"))?;
        let size = records.metadata().map_err(failed("read the records for"))?.len();
        writer.add(RECORDS, size, &mut records)?;
        add_folder(&mut writer, &self.data.join("blobs"), &blob_entry)?;
        add_folder(&mut writer, &packages_folder(&self.data), &package_entry)?;
        writer.finish()?.flush().map_err(failed("send"))
    }
}

/// Where finished packages lie: two digits of the digest a folder, the rest a file.
pub(crate) fn packages_folder(data: &Path) -> PathBuf {
    data.join("packages/sha256")
}

/// `ab/abcd…` of the blobs' folder.
pub(crate) fn blob_entry(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    is_digest(name).then(|| format!("blobs/{name}"))
}

/// `ab/cd…` of the packages' folder.
pub(crate) fn package_entry(path: &Path) -> Option<String> {
    let (shard, rest) = (path.parent()?.to_str()?, path.file_name()?.to_str()?);
    let name = format!("{shard}{rest}");
    is_digest(&name).then(|| format!("packages/{name}"))
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Sends what is written in pieces, and waits while the reader is busy.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
