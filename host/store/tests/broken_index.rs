//! sled fails: the store stops, and the same process opens the folder again with a new index.
//!
//! One test in a file of its own, because if it ever fails sled is of no use in its process afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::path::{Path, PathBuf};

use windlass_store::{Batch, EmbeddedOptions, EmbeddedStore, Store, StoreError, TableName};

const T: TableName = TableName::new("things");
const BULK: TableName = TableName::new("bulk");

fn options() -> EmbeddedOptions {
    EmbeddedOptions { cache_bytes: 8 << 20, reserve_bytes: 4096, ..Default::default() }
}

fn put(n: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put(&T, format!("k{n}"), "value");
    batch
}

fn indexes(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir.join("index")).unwrap().map(|e| e.unwrap().path()).collect()
}

#[tokio::test]
async fn an_index_that_failed_is_left_behind_and_the_same_process_opens_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &options()).unwrap();
    // sled keeps large pages in files of their own. Where it cannot create one, it leaves a buffer behind that is
    // never written, and waits for that for ever in its own drop.
    let blobs = indexes(dir.path())[0].join("blobs");
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::write(&blobs, "not a folder").unwrap();
    let mut done = 0;
    let error = loop {
        let mut batch = put(done);
        batch.put(&BULK, format!("{done}"), vec![7; 32 << 10]);
        match store.commit(batch).await {
            Ok(_) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 500, "sled was expected to fail long before");
    };
    assert!(error.to_string().contains("it has stopped: write the index: "), "{error}");
    assert!(done > 2, "{done}");
    assert!(matches!(store.get(&T, b"k1").await, Err(StoreError::Stopped { .. })));
    let (dropped, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(store);
        dropped.send(()).unwrap();
    });
    wait.recv_timeout(std::time::Duration::from_secs(20)).expect("the drop hangs");
    let store = EmbeddedStore::open(dir.path(), &options()).unwrap();
    for n in 0..done {
        // The index failed after their answers: what it never took is in the journal.
        assert!(store.get(&T, format!("k{n}").as_bytes()).await.unwrap().is_some(), "{n}");
    }
    store.commit(put(9000)).await.unwrap();
    assert_eq!(indexes(dir.path()).len(), 1, "what was left behind is removed");
}
