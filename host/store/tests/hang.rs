//! sled hangs: nobody who uses the store waits for ever, and the process is told to start anew.
//!
//! One test in a file of its own, because afterwards sled is of no use in its process. What makes sled hang is its
//! own process-wide lock, held here by a transaction on a database that has nothing to do with the store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use windlass_store::{Batch, EmbeddedOptions, EmbeddedStore, Health, Scan, Store, StoreError, TableName};

const T: TableName = TableName::new("things");
const PATIENCE: Duration = Duration::from_secs(60);

/// One of a few hundred fills what the store holds in memory.
fn put(n: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put(&T, format!("k{n}"), vec![7; 32 << 10]);
    batch
}

/// Commits until the store has to write to its index, which hangs.
async fn fill(store: Arc<EmbeddedStore>, from: u32) -> Result<(), StoreError> {
    for n in from..from + 500 {
        store.commit(put(n)).await?;
    }
    Ok(())
}

/// Holds sled's lock until the sender is dropped.
fn hold_sled(dir: &std::path::Path) -> mpsc::Sender<()> {
    let db = sled::open(dir).unwrap();
    let (release, released) = mpsc::channel::<()>();
    let (held, is_held) = mpsc::channel();
    std::thread::spawn(move || {
        db.transaction(|_| {
            held.send(()).unwrap();
            let _ = released.recv();
            Ok::<(), sled::transaction::ConflictableTransactionError<()>>(())
        })
        .unwrap();
    });
    is_held.recv().unwrap();
    release
}

#[test]
fn nobody_waits_for_ever_for_an_index_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        cache_bytes: 8 << 20,
        reserve_bytes: 4096,
        look_every: Duration::from_millis(200),
        ..Default::default()
    };
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("data"), &options).unwrap());
    // Not dropped with threads that hang: the runtime would wait for its blocking readers.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(store.commit(put(1))).unwrap();
    let release = hold_sled(&dir.path().join("other"));

    let answers = runtime.block_on(async {
        let commits = [1000, 2000].map(|from| tokio::spawn(fill(store.clone(), from)));
        // A read that begins once the commit was seen to be held up (after 0.4 s) and before the store stops (at
        // 2.4 s) must not block the thread it runs on.
        let reader = tokio::spawn({
            let store = store.clone();
            async move {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(1200) {
                    tokio::task::yield_now().await;
                }
                store.scan(Scan::table(&T)).await.map(|page| page.records.len())
            }
        });
        let mut answers = Vec::new();
        for commit in commits {
            answers.push(commit.await.unwrap());
        }
        answers.push(reader.await.unwrap().map(drop));
        answers
    });
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
        assert!(error.to_string().contains("a commit did not end within 2.4s"), "{error}");
    }
    assert!(matches!(store.health(), Health::Stopped(_)));

    let (dropped, wait) = mpsc::channel();
    std::thread::spawn(move || {
        drop(store);
        dropped.send(()).unwrap();
    });
    wait.recv_timeout(PATIENCE).expect("the drop hangs");
    let again = EmbeddedStore::open(&dir.path().join("data"), &options).unwrap_err();
    let text = again.to_string().replace(&dir.path().display().to_string(), "DIR");
    assert_eq!(
        text,
        "open the store in DIR/data: an earlier opening of a store hangs in this process; start the server anew"
    );
    drop(release);
}
