//! The conformance suite on every implementation, and random histories compared with the memory model.

// A test that cannot go on should stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use windlass_store::{
    Batch, EmbeddedOptions, EmbeddedStore, FaultPlan, FaultyStore, MemoryStore, Requirement, Scan, Store, TableName,
};

fn small() -> EmbeddedOptions {
    EmbeddedOptions { cache_bytes: 8 << 20, segment_bytes: 64 << 10, reserve_bytes: 4096, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    common::conforms(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let root = tempfile::tempdir().unwrap();
    let folders = std::cell::Cell::new(0);
    common::conforms(|| {
        folders.set(folders.get() + 1);
        let dir = root.path().join(folders.get().to_string());
        async move { Arc::new(EmbeddedStore::open(&dir, &small()).unwrap()) as Arc<dyn Store> }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faulty_without_faults() {
    common::conforms(|| async {
        Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), FaultPlan::none())) as Arc<dyn Store>
    })
    .await;
}

const TABLES: [TableName; 3] = [TableName::new("a"), TableName::new("ab"), TableName::new("b")];

/// One step of a random history; small key spaces, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Commit { ops: Vec<(usize, u8, Option<u16>)>, require: Option<(usize, u8, u8)>, relaxed: bool },
    Scan { table: usize, prefix: Option<u8>, limit: usize, descending: bool },
    Reopen { power_cut: bool },
}

fn any_step() -> impl Strategy<Value = Step> {
    let op = (0..3usize, 0..12u8, prop::option::weighted(0.7, 0..2000u16));
    prop_oneof![
        8 => (prop::collection::vec(op, 0..5), prop::option::of((0..3usize, 0..12u8, 0..3u8)), any::<bool>())
            .prop_map(|(ops, require, relaxed)| Step::Commit { ops, require, relaxed }),
        2 => (0..3usize, prop::option::of(0..4u8), 0..8usize, any::<bool>())
            .prop_map(|(table, prefix, limit, descending)| Step::Scan { table, prefix, limit, descending }),
        1 => any::<bool>().prop_map(|power_cut| Step::Reopen { power_cut }),
    ]
}

fn key(k: u8) -> Vec<u8> {
    vec![k % 4, k]
}

struct Pair {
    dir: TempDir,
    boot: u32,
    model: MemoryStore,
    real: Option<EmbeddedStore>,
}

impl Pair {
    fn open(&mut self) {
        let options = EmbeddedOptions { boot: Some(self.boot.to_string()), ..small() };
        self.real = Some(EmbeddedStore::open(self.dir.path(), &options).unwrap());
    }

    async fn step(&mut self, step: Step) {
        let real = self.real.as_ref().unwrap();
        match step {
            Step::Commit { ops, require, relaxed } => {
                let mut batch = Batch::new();
                for (table, k, value) in ops {
                    match value {
                        Some(length) => batch.put(&TABLES[table], key(k), vec![k; length.into()]),
                        None => batch.delete(&TABLES[table], key(k)),
                    };
                }
                if let Some((table, k, kind)) = require {
                    let version = self.model.get(&TABLES[table], &key(k)).await.unwrap().map(|r| r.version);
                    let requirement = match (kind, version) {
                        (0, _) => Requirement::Absent,
                        (1, Some(version)) => Requirement::Version(version),
                        _ => Requirement::Exists,
                    };
                    batch.require(&TABLES[table], key(k), requirement);
                }
                if relaxed {
                    batch.relaxed();
                }
                let (here, there) = (self.model.commit(batch.clone()).await, real.commit(batch).await);
                assert_eq!(format!("{here:?}"), format!("{there:?}"));
            }
            Step::Scan { table, prefix, limit, descending } => {
                let mut scan = Scan::table(&TABLES[table]).limit(limit);
                if let Some(prefix) = prefix {
                    scan = scan.prefix(vec![prefix]);
                }
                if descending {
                    scan = scan.descending();
                }
                let (here, there) = (self.model.scan(scan.clone()).await.unwrap(), real.scan(scan).await.unwrap());
                assert_eq!((here.records, here.more), (there.records, there.more));
            }
            Step::Reopen { power_cut } => {
                if power_cut {
                    // A forgotten trust mark is how an opening after a power cut differs from one after a close.
                    self.real = None;
                    std::fs::remove_file(self.dir.path().join("index.trust")).unwrap();
                    self.boot += 1;
                }
                self.real = None;
                self.open();
                self.same().await;
            }
        }
    }

    async fn same(&self) {
        let real = self.real.as_ref().unwrap();
        assert_eq!(self.model.tables().await.unwrap(), real.tables().await.unwrap());
        assert_eq!(self.model.last_seq(), real.last_seq());
        for table in TABLES {
            let scan = Scan::table(&table);
            assert_eq!(self.model.scan(scan.clone()).await.unwrap().records, real.scan(scan).await.unwrap().records);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("WINDLASS_LONG").is_some() { 400 } else { 24 }, ..Default::default() })]

    #[test]
    fn random_histories_match_the_model(steps in prop::collection::vec(any_step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair { dir: tempfile::tempdir().unwrap(), boot: 1, model: MemoryStore::new(), real: None };
            pair.open();
            for step in steps {
                pair.step(step).await;
            }
            pair.same().await;
        });
    }
}
