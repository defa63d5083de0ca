//! What every implementation of `Store` must do. A new implementation passes [`conforms`] or it is no store.
//!
//! The suite takes a function that makes a fresh, empty store. It uses the public trait only.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use windlass_store::{
    Batch, Health, MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_PAGE_RECORDS, MAX_VALUE_BYTES, MemoryStore,
    Requirement, Scan, Seq, Store, StoreError, TableName, TransferError, WatchEnd, import,
};

const A: TableName = TableName::new("a");
/// Its name begins with the other's: rows of one must never show in the other.
const AB: TableName = TableName::new("ab");

fn put(table: &TableName, key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(table, key.to_owned(), value.to_owned());
    batch
}

async fn keys(store: &dyn Store, scan: Scan) -> Vec<String> {
    let page = store.scan(scan).await.unwrap();
    page.records.iter().map(|r| String::from_utf8_lossy(&r.key).into_owned()).collect()
}

/// Runs the whole suite, each part on a store of its own.
pub async fn conforms<F, R>(fresh: F)
where
    F: Fn() -> R,
    R: Future<Output = Arc<dyn Store>>,
{
    reads_give_what_was_committed(&*fresh().await).await;
    requirements_hold_or_nothing_happens(&*fresh().await).await;
    limits_are_refused_in_words(&*fresh().await).await;
    scans_are_ordered_bounded_and_stay_in_their_table(&*fresh().await).await;
    watchers_see_every_change_or_learn_that_they_lagged(&*fresh().await).await;
    a_counter_under_contention_loses_no_step(fresh().await).await;
    durable_and_relaxed_commits_keep_their_order(fresh().await).await;
    exports_come_back_and_damage_is_refused(&*fresh().await, &*fresh().await).await;
    a_closed_store_says_so(&*fresh().await).await;
}

async fn reads_give_what_was_committed(store: &dyn Store) {
    assert_eq!(store.get(&A, b"x").await.unwrap(), None);
    assert_eq!(store.tables().await.unwrap(), []);
    let first = store.commit(put(&A, "x", "1")).await.unwrap();
    let second = store.commit(put(&AB, "x", "2")).await.unwrap();
    assert!(second > first && store.last_seq() == second);
    let record = store.get(&A, b"x").await.unwrap().unwrap();
    assert_eq!((&record.key[..], &record.value[..], record.version), (&b"x"[..], &b"1"[..], first));
    assert_eq!(store.tables().await.unwrap(), [A, AB]);

    // The last of several changes to one key counts; deleting what is not there is no error.
    let mut batch = put(&A, "y", "old");
    batch.delete(&A, "y").put(&A, "y", "new").delete(&A, "x").delete(&A, "none").put(&A, "empty", "");
    let third = store.commit(batch).await.unwrap();
    assert_eq!(store.get(&A, b"x").await.unwrap(), None);
    assert_eq!(store.get(&A, b"y").await.unwrap().unwrap().value, "new");
    assert_eq!(store.get(&A, b"empty").await.unwrap().unwrap().version, third);
    assert_eq!(store.health(), Health::Good);
}

async fn requirements_hold_or_nothing_happens(store: &dyn Store) {
    let version = store.commit(put(&A, "there", "1")).await.unwrap();
    let cases = [
        ("there", Requirement::Exists, None),
        ("there", Requirement::Version(version), None),
        ("gone", Requirement::Absent, None),
        (
            "there",
            Requirement::Absent,
            Some(format!("commit: a/there exists already (version {version}); read it again and retry")),
        ),
        ("gone", Requirement::Exists, Some("commit: a/gone does not exist; read it again and retry".into())),
        (
            "there",
            Requirement::Version(Seq(9999)),
            Some(format!("commit: a/there has changed (version {version}, expected 9999); read it again and retry")),
        ),
        (
            "gone",
            Requirement::Version(version),
            Some(format!("commit: a/gone is gone (expected version {version}); read it again and retry")),
        ),
    ];
    for (key, requirement, refusal) in cases {
        let before = store.last_seq();
        let mut batch = put(&AB, "effect", "done");
        batch.require(&A, key, requirement);
        match (store.commit(batch).await, refusal) {
            (Ok(_), None) => {
                let mut undo = Batch::new();
                undo.delete(&AB, "effect");
                store.commit(undo).await.unwrap();
            }
            (Err(e), Some(text)) => {
                let unmet = e.as_unmet().unwrap();
                assert_eq!((e.to_string(), &unmet.table, &unmet.key[..]), (text, &A, key.as_bytes()));
                assert_eq!(store.get(&AB, b"effect").await.unwrap(), None);
                assert_eq!(store.last_seq(), before);
            }
            (result, expected) => panic!("{key} {requirement:?}: {result:?}, expected {expected:?}"),
        }
    }
    // A batch that only asks changes nothing and says how far the store is.
    let mut question = Batch::new();
    question.require_exists(&A, "there");
    assert_eq!(store.commit(question).await.unwrap(), store.last_seq());
}

async fn limits_are_refused_in_words(store: &dyn Store) {
    let text = |n: usize| "v".repeat(n);
    store.commit(put(&A, &text(MAX_KEY_BYTES), &text(MAX_VALUE_BYTES))).await.unwrap();
    let mut many = Batch::new();
    let mut heavy = Batch::new();
    for i in 0..=MAX_BATCH_OPS {
        many.delete(&A, i.to_string());
    }
    for i in 0..=MAX_BATCH_BYTES / MAX_VALUE_BYTES {
        heavy.put(&A, i.to_string(), text(MAX_VALUE_BYTES));
    }
    let cases = [
        (
            put(&A, "big", &text(MAX_VALUE_BYTES + 1)),
            "store a/big: the value has 32769 bytes and a record holds at most 32768; put it into the blob store and keep its digest",
        ),
        (put(&A, "", "v"), "store a record in a: a key has 1 to 1024 bytes, this one has 0"),
        (put(&A, &text(1025), "v"), "store a record in a: a key has 1 to 1024 bytes, this one has 1025"),
        (many, "commit a batch of 65537 changes and requirements: the limit is 65536; split it"),
        (heavy, "commit a batch of 33590190 bytes: the limit is 33554432; split it"),
    ];
    let before = store.last_seq();
    for (batch, refusal) in cases {
        assert_eq!(store.commit(batch).await.unwrap_err().to_string(), refusal);
    }
    assert_eq!(store.last_seq(), before);
}

async fn scans_are_ordered_bounded_and_stay_in_their_table(store: &dyn Store) {
    let mut batch = Batch::new();
    for key in ["b", "a", "ba", "bb", "c", "\u{10ffff}"] {
        batch.put(&A, key, "1");
        batch.put(&AB, format!("other-{key}"), "2");
    }
    store.commit(batch).await.unwrap();
    let all = || Scan::table(&A);
    let cases = [
        (all(), vec!["a", "b", "ba", "bb", "c", "\u{10ffff}"]),
        (all().descending(), vec!["\u{10ffff}", "c", "bb", "ba", "b", "a"]),
        (all().prefix("b"), vec!["b", "ba", "bb"]),
        (all().prefix("b").descending(), vec!["bb", "ba", "b"]),
        (all().prefix("b").after("b"), vec!["ba", "bb"]),
        (all().prefix("b").descending().after("bb"), vec!["ba", "b"]),
        (all().range("b", "bb"), vec!["b", "ba"]),
        (all().range("c", "b"), vec![]),
        (all().range("b", "b"), vec![]),
        (all().limit(2), vec!["a", "b"]),
        (all().limit(0), vec![]),
        (all().prefix("x"), vec![]),
        (Scan::table(&TableName::new("none")), vec![]),
    ];
    for (scan, expected) in cases {
        let shown = format!("{scan:?}");
        assert_eq!(keys(store, scan).await, expected, "{shown}");
    }

    // Pages end at their limits and go on where they ended.
    let large = "v".repeat(MAX_VALUE_BYTES);
    for chunk in 0..13 {
        let mut batch = Batch::new();
        for i in 0..100 {
            batch.put(&AB, format!("n{:05}", chunk * 100 + i), if i % 2 == 0 { "" } else { &large }.to_owned());
        }
        store.commit(batch).await.unwrap();
    }
    let (mut seen, mut scan) = (0, Scan::table(&AB).prefix("n"));
    loop {
        let page = store.scan(scan.clone()).await.unwrap();
        let bytes: usize = page.records.iter().map(|r| r.value.len()).sum();
        assert!(page.records.len() <= MAX_PAGE_RECORDS && bytes <= 5 << 20);
        seen += page.records.len();
        let Some(last) = page.records.last().filter(|_| page.more) else { break };
        scan = scan.after(last.key.clone());
    }
    assert_eq!(seen, 1300);
}

async fn watchers_see_every_change_or_learn_that_they_lagged(store: &dyn Store) {
    let start = store.last_seq();
    let mut live = store.watch(&A, b"k", None);
    let mut batch = put(&A, "k1", "v");
    batch.put(&A, "other", "v").put(&AB, "k", "v");
    let first = store.commit(batch).await.unwrap();
    let mut delete = Batch::new();
    delete.delete(&A, "k1");
    let second = store.commit(delete).await.unwrap();
    for watch in [&mut live, &mut store.watch(&A, b"", Some(start))] {
        let changes = watch.next().await.unwrap();
        assert_eq!(
            (changes[0].seq, &changes[0].key[..], changes[0].value.as_deref()),
            (first, &b"k1"[..], Some(&b"v"[..]))
        );
        let changes = watch.next().await.unwrap();
        assert_eq!((changes.len(), changes[0].seq, &changes[0].value), (1, second, &None));
    }
    // One that waits is woken.
    let (woken, _) = tokio::join!(live.next(), store.commit(put(&A, "k2", "v")));
    assert_eq!(woken.unwrap()[0].key, "k2");

    // A watcher that sleeps through more than is kept is told, and goes on from there.
    let mut slow = store.watch(&A, b"", Some(start));
    let large = "v".repeat(MAX_VALUE_BYTES);
    for _ in 0..6 {
        let mut batch = Batch::new();
        for i in 0..100 {
            batch.put(&A, format!("z{i}"), large.clone());
        }
        store.commit(batch).await.unwrap();
    }
    let Err(WatchEnd::Lagged(lagged)) = slow.next().await else { panic!("20 MiB must not be kept for a watcher") };
    assert_eq!(lagged.resume_from, store.last_seq());
    store.commit(put(&A, "after", "v")).await.unwrap();
    assert_eq!(slow.next().await.unwrap()[0].key, "after");
}

async fn a_counter_under_contention_loses_no_step(store: Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                loop {
                    let now = store.get(&A, b"counter").await.unwrap();
                    let count: u64 =
                        now.as_ref().map_or(0, |r| std::str::from_utf8(&r.value).unwrap().parse().unwrap());
                    let mut step = put(&A, "counter", &(count + 1).to_string());
                    match now {
                        Some(record) => step.require_version(&A, "counter", record.version),
                        None => step.require_absent(&A, "counter"),
                    };
                    match store.commit(step).await {
                        Ok(_) => break,
                        Err(StoreError::Unmet(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(store.get(&A, b"counter").await.unwrap().unwrap().value, "160");
}

async fn durable_and_relaxed_commits_keep_their_order(store: Arc<dyn Store>) {
    let mut watch = store.watch(&A, b"", None);
    let mut last = Seq(0);
    for i in 0..50u32 {
        let mut batch = put(&A, "place", &i.to_string());
        if i % 3 != 0 {
            batch.relaxed();
        }
        let seq = store.commit(batch).await.unwrap();
        assert!(seq > last);
        last = seq;
        assert_eq!(store.get(&A, b"place").await.unwrap().unwrap().value, i.to_string());
        assert_eq!(watch.next().await.unwrap()[0].seq, seq);
    }
}

async fn exports_come_back_and_damage_is_refused(store: &dyn Store, fresh: &dyn Store) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.jsonl");
    for i in 0..30u8 {
        let mut batch = Batch::new();
        batch.put(&A, vec![i, 0, 0xff], vec![0xff, i]).put(&AB, format!("text \"{i}\"\n"), "ü\u{1}{\"json\":1}");
        if i % 3 == 0 {
            batch.delete(&A, vec![i.saturating_sub(1), 0, 0xff]);
        }
        store.commit(batch).await.unwrap();
    }
    let exported = store.export(&file).await.unwrap();
    assert_eq!(exported.seq, store.last_seq());
    assert!(matches!(store.export(&file).await, Err(TransferError::Exists(_))));

    refuses_damaged_copies(&std::fs::read(&file).unwrap(), dir.path()).await;
    assert_eq!(import(fresh, &file).await.unwrap(), exported);
    assert_eq!(fresh.tables().await.unwrap(), [A, AB]);
    for table in [A, AB] {
        let rows = |page: windlass_store::Page| page.records.into_iter().map(|r| (r.key, r.value)).collect::<Vec<_>>();
        let (there, here) =
            (store.scan(Scan::table(&table)).await.unwrap(), fresh.scan(Scan::table(&table)).await.unwrap());
        assert_eq!(rows(there), rows(here));
    }
    assert!(matches!(import(fresh, &file).await, Err(TransferError::NotEmpty(table)) if table == A));
}

async fn refuses_damaged_copies(good: &[u8], dir: &Path) {
    let path = dir.join("damaged.jsonl");
    let lines: Vec<&[u8]> = good.split_inclusive(|&b| b == b'\n').collect();
    let swapped = [&lines[..1], &lines[2..3], &lines[1..2], &lines[3..]].concat().concat();
    let text = String::from_utf8(good.to_vec()).unwrap();
    let cases: [(&str, Vec<u8>); 7] = [
        ("cut in a line", good[..good.len() / 2].to_vec()),
        ("without its last line", lines[..lines.len() - 1].concat()),
        ("with a line missing", [&lines[..2], &lines[3..]].concat().concat()),
        ("with lines swapped", swapped),
        ("with something behind", [good, b"{}\n"].concat()),
        ("with a value changed", text.replacen("json", "jsom", 1).into_bytes()),
        ("not an export", b"hello\n".to_vec()),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        let target = MemoryStore::new();
        let error = import(&target, &path).await.expect_err(what);
        assert!(matches!(error, TransferError::Damaged { .. }), "{what}: {error}");
        assert_eq!(target.tables().await.unwrap(), [], "{what}");
    }
    std::fs::write(&path, text.replacen("\"windlass_export\":1", "\"windlass_export\":2", 1)).unwrap();
    assert!(matches!(import(&MemoryStore::new(), &path).await, Err(TransferError::NewerFormat { found: 2, .. })));
}

async fn a_closed_store_says_so(store: &dyn Store) {
    let mut watch = store.watch(&A, b"", None);
    store.commit(put(&A, "x", "1")).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(&*store.stopped().await, "it was closed");
    let text = "use the store: it has stopped: it was closed; restart the server";
    assert_eq!(store.commit(put(&A, "x", "2")).await.unwrap_err().to_string(), text);
    assert_eq!(store.get(&A, b"x").await.unwrap_err().to_string(), text);
    assert_eq!(store.scan(Scan::table(&A)).await.unwrap_err().to_string(), text);
    assert_eq!(store.close().await.unwrap_err().to_string(), text);
    assert_eq!(store.health(), Health::Stopped("it was closed".into()));
    // What was committed before is still delivered, then the end.
    assert_eq!(watch.next().await.unwrap()[0].key, "x");
    assert!(matches!(watch.next().await, Err(WatchEnd::Stopped(_))));
}
