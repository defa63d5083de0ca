//! What is done to a data folder while no server uses it: looking it over, and filling it from a backup.
//!
//! Looking over: the store checks its own files, then every record is decoded as its table says, then every
//! content-addressed file is read and compared with its name. Faults are named and the look goes on.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use windlass_store::{
    Batch, EmbeddedOptions, EmbeddedStore, Key, Store, StoreError, Table, TableName, import, read_backup,
};

pub use windlass_store::{BackupRead, Checked, Finding};

use crate::{
    backup::{RECORDS, blob_entry, package_entry, packages_folder},
    error::{EngineError, ErrorKind},
    records::{self as r, Parts},
    restored::{RESTORED, Restored, mark, open_tasks},
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

fn options() -> EmbeddedOptions {
    // No server: nothing has to be kept back.
    EmbeddedOptions { reserve_bytes: 0, ..EmbeddedOptions::default() }
}

fn invalid(code: &'static str, error: impl std::fmt::Display) -> EngineError {
    EngineError::invalid(code, error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(EngineError::internal)?
}

// === looking over ===

/// Reads everything in a data folder that no server uses.
///
/// # Errors
/// When there is no store in it, it is in use, or cannot be read at all. Damage is in the result.
pub async fn check(data: &Path) -> Result<Checked, EngineError> {
    let folder = data.join("store");
    let mut checked = blocking({
        let folder = folder.clone();
        move || windlass_store::check(&folder, &options()).map_err(|error| invalid("store", error))
    })
    .await?;
    let opened = blocking(move || EmbeddedStore::open(&folder, &options()).map_err(EngineError::internal)).await;
    match opened {
        Ok(store) => {
            let named = check_records(&store, &mut checked).await?;
            store.close().await?;
            let missing = named.into_iter().filter(|(_, path)| !data.join(path).is_file());
            for (place, path) in missing {
                checked.damaged(place, format!("the file it names is missing: {}", path.display()));
            }
        }
        // Why is in the findings already; records cannot be told apart from a journal that does not read.
        Err(error) => checked.damaged("records", format!("they were not looked at: {error}")),
    }
    let data = data.to_owned();
    blocking(move || {
        check_files(&data.join("blobs"), &blob_entry, &mut checked)?;
        check_files(&packages_folder(&data), &package_entry, &mut checked)?;
        Ok(checked)
    })
    .await
}

/// Decodes every record. Gives the files that records name, with the record.
async fn check_records(store: &dyn Store, checked: &mut Checked) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let mut known = BTreeSet::new();
    tables(store, checked, &mut known).await?;
    for table in store.tables().await? {
        if !known.contains(&table) {
            checked.damaged(&table, "no table of this release has that name; start the release that wrote it");
        }
    }
    let mut named = Vec::new();
    for record in r::all(store, &r::PACKAGES, r::PACKAGES.all()).await.unwrap_or_default() {
        for blob in record.blobs() {
            let digest = blob.sha256.to_string();
            let (shard, rest) = digest.split_at(2);
            named.push((format!("packages/{}", record.name), packages_folder(Path::new("")).join(shard).join(rest)));
        }
    }
    for (_, plugin) in r::PLUGINS.all(store, Key::new()).await.unwrap_or_default() {
        let shard = plugin.sha256.get(..2).unwrap_or_default();
        let path = Path::new("blobs").join(shard).join(&plugin.sha256);
        named.push((format!("plugins/{}@{}", plugin.manifest.id, plugin.manifest.version), path));
    }
    Ok(named)
}

async fn tables(store: &dyn Store, checked: &mut Checked, known: &mut BTreeSet<TableName>) -> Result<(), StoreError> {
    let mut look = Look { store, checked, known };
    look.table(&r::ENVIRONMENTS).await?;
    look.table(&r::MACHINES).await?;
    look.table(&r::PROJECTS).await?;
    look.parts(&r::PROCESSES).await?;
    look.table(&r::VARIABLES).await?;
    look.parts(&r::RELEASES).await?;
    look.table(&r::RELEASE_VARIABLES).await?;
    look.table(&r::PACKAGES).await?;
    look.table(&r::PAYLOADS).await?;
    look.parts(&r::PLUGINS).await?;
    look.parts(&r::SCRIPTS).await?;
    look.table(&r::TASKS).await?;
    look.table(&r::MACHINE_TASKS).await?;
    look.table(&r::STEPS).await?;
    look.table(&r::RUNS).await?;
    look.table(&r::OUTPUTS).await?;
    look.parts(&r::JOURNAL).await?;
    look.table(&r::LOGS).await?;
    look.table(&r::LOG_ENDS).await?;
    look.parts(&r::EVENTS).await?;
    look.parts(&r::SNAPSHOT).await?;
    look.table(&r::COUNTERS).await?;
    look.table(&r::TOKENS).await?;
    look.table(&RESTORED).await
}

struct Look<'a> {
    store: &'a dyn Store,
    checked: &'a mut Checked,
    known: &'a mut BTreeSet<TableName>,
}

impl Look<'_> {
    /// Decodes every record of a table.
    async fn table<T: Serialize + DeserializeOwned>(&mut self, table: &Table<T>) -> Result<(), StoreError> {
        self.known.insert(table.name().clone());
        let mut scan = table.all();
        loop {
            let page = self.store.scan(scan.clone()).await?;
            let last = page.records.last().map(|record| record.key.clone());
            for record in page.records {
                let place = place(table.name(), &record.key);
                if let Err(error) = table.decode(record) {
                    self.checked.damaged(place, error);
                }
            }
            match last {
                Some(last) if page.more => scan = scan.after(last),
                _ => return Ok(()),
            }
        }
    }

    /// Decodes every value of a table whose values lie in parts.
    async fn parts<T: Serialize + DeserializeOwned>(&mut self, parts: &Parts<T>) -> Result<(), StoreError> {
        self.known.insert(parts.table().name().clone());
        let mut scan = parts.table().all();
        loop {
            let page = self.store.scan(scan.clone()).await?;
            for record in &page.records {
                // Parts behind the end of a value are left-overs of a longer one.
                let Some(key) = record.key.strip_suffix(&[0; 8]) else { continue };
                match parts.get(self.store, Key::from_bytes(key)).await {
                    Ok(Some(_)) => {}
                    Ok(None) => self.checked.damaged(place(parts.table().name(), key), "a part of it is missing"),
                    Err(error @ StoreError::Stopped { .. }) => return Err(error),
                    Err(error) => self.checked.damaged(place(parts.table().name(), key), error),
                }
            }
            match page.records.last() {
                Some(last) if page.more => scan = scan.after(last.key.clone()),
                _ => return Ok(()),
            }
        }
    }
}

fn place(table: &TableName, key: &[u8]) -> String {
    let mut place = format!("{table}/");
    for byte in key {
        if byte.is_ascii_graphic() {
            place.push(char::from(*byte));
        } else {
            place.push_str(&format!("\\{byte:02x}"));
        }
    }
    place
}

/// Compares every file with the digest in its name.
fn check_files(
    folder: &Path,
    entry: &dyn Fn(&Path) -> Option<String>,
    checked: &mut Checked,
) -> Result<(), EngineError> {
    let failed = |error: io::Error| EngineError::internal(format!("failed to read {}: {error}", folder.display()));
    let shards = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        shards => shards.map_err(failed)?,
    };
    for shard in shards {
        let shard = shard.map_err(failed)?.path();
        for file in shard.is_dir().then(|| fs::read_dir(&shard).map_err(failed)).transpose()?.into_iter().flatten() {
            let path = file.map_err(failed)?.path();
            let Some(name) = path.strip_prefix(folder).ok().and_then(entry) else { continue };
            checked.files += 1;
            match digest_of(&path) {
                Ok(found) if name.ends_with(&found) => {}
                Ok(found) => checked
                    .damaged(path.display(), format!("its content has the digest {found}; put it back from a backup")),
                Err(error) => checked.damaged(path.display(), error),
            }
        }
    }
    Ok(())
}

fn digest_of(path: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut piece = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(piece.get(..read).unwrap_or_default());
    }
}

// === backups ===

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

#[cfg(test)]
mod tests {
    use windlass_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn every_table_is_looked_at() {
        let (store, mut checked, mut known) = (MemoryStore::new(), Checked::default(), BTreeSet::new());
        tables(&store, &mut checked, &mut known).await.unwrap();
        let text = include_str!("records.rs");
        let named = text.split("::new(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let missing: Vec<_> = named.filter(|name| !known.iter().any(|known| known.as_str() == *name)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "add them to `tables`");
        assert!(known.len() > 20);
    }

    #[tokio::test]
    async fn records_that_do_not_decode_are_named_by_key_and_the_look_goes_on() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(r::COUNTERS.name(), Key::of_text("task"), &b"\x01\"seven\""[..]);
        batch.put(r::COUNTERS.name(), Key::of_text("later"), &b"\x09{}"[..]);
        batch.put(r::TOKENS.name(), Key::of_text("t"), &b"\x01\"good\""[..]);
        batch.put(r::SCRIPTS.table().name(), Key::of_text("cut").id(0), &b"\x01\"+\\\"begun\""[..]);
        batch.put(&TableName::new("strange"), "k", "v");
        store.commit(batch).await.unwrap();
        let mut checked = Checked::default();
        check_records(&store, &mut checked).await.unwrap();
        let places: Vec<_> = checked.damage.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["scripts/cut\\00", "counters/later\\00", "counters/task\\00", "strange"]);
    }
}
