//! What a look at a folder finds: nothing in a sound one, and every fault by its name in a damaged one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use windlass_store::{Batch, Checked, EmbeddedOptions, EmbeddedStore, Store, TableName, check};

const T: TableName = TableName::new("things");

fn options() -> EmbeddedOptions {
    EmbeddedOptions { cache_bytes: 8 << 20, reserve_bytes: 4096, segment_bytes: 16 << 10, ..Default::default() }
}

/// A folder with a closed store: 40 records, written over and over into several segments, and one deleted.
async fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &options()).unwrap();
    for n in 0..120 {
        let mut batch = Batch::new();
        batch.put(&T, format!("k{}", n % 40), format!("value {n}").repeat(60));
        store.commit(batch).await.unwrap();
    }
    let mut batch = Batch::new();
    batch.delete(&T, "k39");
    store.commit(batch).await.unwrap();
    store.close().await.unwrap();
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn checked(dir: &TempDir) -> Checked {
    check(dir.path(), &options()).unwrap()
}

fn places(dir: &TempDir, checked: &Checked) -> Vec<String> {
    let root = dir.path().display().to_string();
    checked.damage.iter().map(|finding| finding.place.replace(&root, "DIR")).collect()
}

#[tokio::test]
async fn a_sound_folder_is_sound_and_stays_so() {
    let dir = filled().await;
    for _ in 0..2 {
        let found = checked(&dir);
        assert_eq!((found.records, found.last.0, found.is_sound()), (39, 121, true), "{found:?}");
        assert!(found.files >= 2 && found.notes.is_empty(), "{found:?}");
    }
    let store = EmbeddedStore::open(dir.path(), &options()).unwrap();
    assert_eq!(store.last_seq().0, 121);
    let used = check(dir.path(), &options()).unwrap_err();
    assert!(used.to_string().contains("it is in use already"), "{used}");
}

#[tokio::test]
async fn an_index_that_tells_another_story_is_named_record_by_record() {
    let dir = filled().await;
    {
        let index = sled::open(&files(&dir.path().join("index"))[0]).unwrap();
        index.insert(b"things\0k7", b"\0\0\0\0\0\0\0\x30other".to_vec()).unwrap();
        index.remove(b"things\0k8").unwrap();
        index.insert(b"things\0zz", b"\0\0\0\0\0\0\0\x01new".to_vec()).unwrap();
        index.flush().unwrap();
    }
    let found = checked(&dir);
    assert_eq!(places(&dir, &found), ["things/k7", "things/zz", "things/k8"]);
    let problems: Vec<_> = found.damage.iter().map(|finding| finding.problem.split(';').next().unwrap()).collect();
    assert_eq!(
        problems,
        [
            "the index shows another value than the journal",
            "the index shows it and the journal does not",
            "the journal holds it and the index does not show it"
        ]
    );
    // The fix it names.
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::remove_file(dir.path().join("index.trust")).unwrap();
    let found = checked(&dir);
    assert!(found.is_sound() && found.notes.len() == 1, "{found:?}");
    drop(EmbeddedStore::open(dir.path(), &options()).unwrap());
    assert_eq!(checked(&dir).notes, []);
}

#[tokio::test]
async fn one_damaged_file_does_not_hide_the_next() {
    let dir = filled().await;
    let (segments, exports) = (files(&dir.path().join("journal")), files(&dir.path().join("exports")));
    let all: Vec<_> = segments.iter().chain(&exports).cloned().collect();
    assert!(all.len() >= 2, "{all:?}");
    for path in &all {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let found = checked(&dir);
    let root = dir.path().display().to_string();
    let named: Vec<_> = all.iter().map(|path| path.display().to_string().replace(&root, "DIR")).collect();
    let places = places(&dir, &found);
    assert_eq!(places[..named.len()], named);
}

#[tokio::test]
async fn of_a_damaged_journal_the_rest_is_read_and_what_the_damage_took_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { segment_bytes: 64 << 20, ..options() };
    let store = EmbeddedStore::open(dir.path(), &options).unwrap();
    for n in 0..20 {
        let mut batch = Batch::new();
        batch.put(&T, format!("k{n:02}"), format!("value {n} ").repeat(60));
        store.commit(batch).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let segment = files(&dir.path().join("journal")).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|window| window == b"value 7 ").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    for _ in 0..2 {
        let found = check(dir.path(), &options).unwrap();
        assert_eq!((found.records, found.last.0), (19, 20), "{found:#?}");
        let told: Vec<_> = found.damage.iter().map(|finding| finding.problem.as_str()).collect();
        assert!(told[0].contains("in commit 8, behind which acknowledged commits follow"), "{told:#?}");
        assert_eq!(
            told[1..],
            ["commit 8 cannot be read; the rest can", "its last change is in commit 8, which cannot be read"]
        );
        assert_eq!(found.damage[2].place, "things/k07");
    }
    let salvaged = windlass_store::salvage(dir.path(), &options).unwrap();
    let read = |key: &'static str| {
        let store = &salvaged.store;
        async move { store.get(&T, key.as_bytes()).await.unwrap().map(|record| record.version.0) }
    };
    assert_eq!((read("k06").await, read("k07").await, read("k08").await), (Some(7), None, Some(9)));
}

#[test]
fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let error = check(dir.path(), &options()).unwrap_err().to_string();
    assert!(error.contains("it holds no store"), "{error}");
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}
