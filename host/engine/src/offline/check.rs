//! Looking a data folder over: the store checks its own files, then every record is decoded as its table says, then
//! every content-addressed file is read and compared with its name. Faults are named and the look goes on.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use windlass_store::{Checked, EmbeddedStore, Key, Store, StoreError, Table, TableName};

use super::{blocking, invalid, options};
use crate::{
    backup::{blob_entry, package_entry, packages_folder},
    error::EngineError,
    records::{self as r, Parts},
    restored::RESTORED,
};

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
    let damaged = folder.clone();
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
        Err(error) if checked.is_sound() => checked.damaged("records", format!("they were not looked at: {error}")),
        // Why is in the findings already; what can be read is looked at all the same.
        Err(_) => {
            let salvaged = blocking(move || {
                windlass_store::salvage(&damaged, &options()).map_err(|error| invalid("store", error))
            });
            check_records(&salvaged.await?.store, &mut checked).await?;
        }
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
    look.table(&r::RESUMES).await?;
    look.parts(&r::PINS).await?;
    look.parts(&r::SUBSTITUTIONS).await?;
    look.table(&r::AWAY).await?;
    look.table(&r::LOGS).await?;
    look.table(&r::LOG_ENDS).await?;
    look.parts(&r::EVENTS).await?;
    look.parts(&r::SNAPSHOT).await?;
    look.table(&r::COUNTERS).await?;
    look.table(&r::DURATIONS).await?;
    look.table(&r::HELD).await?;
    look.table(&r::RATES).await?;
    look.table(&r::BROKEN_LOCKS).await?;
    look.table(&r::ONCE).await?;
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

#[cfg(test)]
mod tests {
    use windlass_store::{Batch, MemoryStore};

    use super::*;

    #[tokio::test]
    async fn every_table_is_looked_at() {
        let (store, mut checked, mut known) = (MemoryStore::new(), Checked::default(), BTreeSet::new());
        tables(&store, &mut checked, &mut known).await.unwrap();
        let text = include_str!("../records.rs");
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
