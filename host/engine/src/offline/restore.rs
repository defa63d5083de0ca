//! Making a data folder from a backup: aside first, looked over, and only then under its name.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use windlass_store::{BackupRead, Batch, EmbeddedStore, Store, import, read_backup};

use super::{blocking, check, invalid, options};
use crate::{
    backup::{RECORDS, packages_folder},
    error::{EngineError, ErrorKind},
    restored::{Restored, mark, open_tasks},
    vault::Vault,
};

/// A restored folder and what its server should know.
#[derive(Debug)]
pub struct RestoreReport {
    /// What the backup held.
    pub backup: BackupRead,
    /// Tasks that were under way, in words.
    pub open: Vec<String>,
    /// Whether the secret key is in place.
    pub key: bool,
}

/// Reads a backup file and checks all of it.
///
/// # Errors
/// When it is none, or damaged.
pub async fn verify_backup(file: &Path) -> Result<BackupRead, EngineError> {
    let file = file.to_owned();
    blocking(move || {
        let opened = open(&file)?;
        read_backup(opened, &mut |_, _| Ok(())).map_err(|error| invalid("backup", error))
    })
    .await
}

/// Makes a data folder from a backup: aside first, looked over, and only then under its name.
///
/// # Errors
/// When the folder holds something, the backup is damaged, or the secret key is not the one it was made with.
pub async fn restore(file: &Path, data: &Path, secret_key: Option<&Path>) -> Result<RestoreReport, EngineError> {
    if fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some()) || data.is_file() {
        let text = format!("{} is not empty, and a restore never mixes", data.display());
        return Err(EngineError::conflict("data-not-empty", text).fix("name a new folder with --data"));
    }
    let mut aside = data.as_os_str().to_owned();
    aside.push(format!(".restoring-{:08x}", rand::random::<u32>()));
    let aside = PathBuf::from(aside);
    let restored = fill(file, &aside, secret_key).await;
    let placed = match restored {
        Ok(report) => place_folder(&aside, data).map(|()| report),
        Err(error) => Err(error),
    };
    if placed.is_err() {
        // The error at hand tells more than a failed clean-up.
        let _ = fs::remove_dir_all(&aside);
    }
    placed
}

async fn fill(file: &Path, aside: &Path, secret_key: Option<&Path>) -> Result<RestoreReport, EngineError> {
    let (from, to) = (file.to_owned(), aside.to_owned());
    let backup = blocking(move || unpack(&from, &to)).await?;
    if let Some(path) = secret_key {
        let place = aside.join("secret.key");
        fs::copy(path, &place)
            .map_err(|error| invalid("secret-key", format!("failed to copy {}: {error}", path.display())))?;
        if Vault::open(&place)?.fingerprint() != backup.head.key {
            let text = format!("{} is not the key that the backup was made with", path.display());
            return Err(EngineError::invalid("secret-key", text).fix("name the secret.key of the old server"));
        }
    }
    let folder = aside.join("store");
    let store = blocking(move || EmbeddedStore::open(&folder, &options()).map_err(EngineError::internal)).await?;
    let records = aside.join(RECORDS);
    let imported = import(&store, &records).await.map_err(|error| invalid("backup", error))?;
    if imported.records != backup.head.records {
        let text = format!("it holds {} records and says {}", imported.records, backup.head.records);
        return Err(invalid("backup", text));
    }
    let mut batch = Batch::new();
    mark(&mut batch, &Restored { created_ms: backup.head.created_ms, key: backup.head.key.clone() })?;
    store.commit(batch).await?;
    let open = open_tasks(&store).await?;
    store.close().await?;
    drop(store);
    fs::remove_file(&records).map_err(EngineError::internal)?;
    let checked = check(aside).await?;
    if let Some(first) = checked.damage.first() {
        let text = format!(
            "what came out of it has {} faults, the first: {}: {}",
            checked.damage.len(),
            first.place,
            first.problem
        );
        return Err(invalid("backup", text));
    }
    Ok(RestoreReport { backup, open, key: secret_key.is_some() })
}

fn open(file: &Path) -> Result<impl Read, EngineError> {
    let opened = File::open(file).map_err(|error| {
        EngineError::new(ErrorKind::Invalid, "backup", format!("failed to open {}: {error}", file.display()))
    })?;
    Ok(BufReader::with_capacity(1 << 20, opened))
}

fn unpack(file: &Path, aside: &Path) -> Result<BackupRead, EngineError> {
    let opened = open(file)?;
    fs::create_dir_all(aside).map_err(EngineError::internal)?;
    let mut take = |name: &str, content: &mut dyn Read| {
        let digest = name.split_once('/').map(|(_, digest)| digest.split_at_checked(2).unwrap_or_default());
        let path = match (name.split('/').next(), digest) {
            (Some(RECORDS), None) => aside.join(RECORDS),
            (Some("blobs"), Some((shard, rest))) => aside.join("blobs").join(shard).join(format!("{shard}{rest}")),
            (Some("packages"), Some((shard, rest))) => packages_folder(aside).join(shard).join(rest),
            _ => return Err(io::Error::other(format!("this release knows no {name} in a backup"))),
        };
        fs::create_dir_all(path.parent().unwrap_or(aside))?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::copy(content, &mut file)?;
        file.flush()?;
        file.sync_all()
    };
    read_backup(opened, &mut take).map_err(|error| invalid("backup", error))
}

fn place_folder(aside: &Path, data: &Path) -> Result<(), EngineError> {
    let failed = |error: io::Error| EngineError::internal(format!("failed to make {}: {error}", data.display()));
    for folder in ["blobs", "packages", "."] {
        let folder = aside.join(folder);
        if folder.is_dir() {
            File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
    }
    // Onto an empty folder a rename is allowed.
    fs::rename(aside, data).map_err(failed)?;
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
}
