//! The whole way of a package, with real bytes: push, payload, barrier, cache of a machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use common::{ZipEntry, gzip, repository, tar, tar_file, zip};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windlass_packages::digest::Hasher;
use windlass_packages::name::PackageName;
use windlass_packages::payload::{Form, PayloadSource};
use windlass_packages::repository::{PushOptions, Repository};
use windlass_packages::transfer::{
    AcquireOptions, AcquireReport, Delivery, LinkError, Parcel, Progress, Receiver, acquire,
};

/// A machine that is a folder. It verifies before it gives bytes their name, as all must.
struct FolderMachine {
    home: PathBuf,
    /// Changes the first byte on the way, as a broken link might.
    garbles: bool,
}

impl FolderMachine {
    fn copy(&self, source: &PayloadSource, progress: &Progress) -> std::io::Result<()> {
        let target = self.home.join(source.cache_path());
        fs::create_dir_all(target.parent().unwrap())?;
        let partial = target.with_extension("partial");
        let (mut from, mut to) = (source.open_blocking()?, fs::File::create(&partial)?);
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 1000]);
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            if self.garbles && hasher.size() == 0 {
                buffer[0] ^= 1;
            }
            hasher.update(&buffer[..read]);
            to.write_all(&buffer[..read])?;
            progress.advance(read as u64);
        }
        if hasher.finish() != source.blob() {
            return Err(std::io::Error::other("the SHA-256 differs; check the machine's network"));
        }
        fs::rename(partial, target)
    }
}

#[async_trait]
impl Receiver for FolderMachine {
    async fn has(&self, source: &PayloadSource) -> Result<bool, LinkError> {
        Ok(self.home.join(source.cache_path()).exists())
    }

    async fn receive(
        &self,
        source: &PayloadSource,
        progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<(), LinkError> {
        self.copy(source, progress).map_err(|error| LinkError { reason: error.to_string(), retryable: false })
    }
}

async fn parcel(repository: &Repository, file: &str, bytes: &[u8], form: Form) -> Parcel {
    let name: PackageName = file.parse().unwrap();
    let package = format!("{} {}", name.id, name.version).into();
    let pushed = repository.push(name, bytes, PushOptions::default()).await.unwrap();
    Parcel { package, source: repository.open_payload(&pushed.record, form).await.unwrap() }
}

async fn bring(root: &Path, machines: &[(&str, bool)], parcels: &[Parcel]) -> AcquireReport {
    let plan = machines.iter().map(|(name, garbles)| Delivery {
        machine: (*name).into(),
        receiver: Arc::new(FolderMachine { home: root.join(name), garbles: *garbles }),
        parcels: parcels.to_vec(),
    });
    let (events, _) = mpsc::channel(1);
    let options = AcquireOptions::default();
    acquire(plan.collect(), &options, events, &CancellationToken::new()).await
}

#[tokio::test]
async fn every_machine_holds_every_byte_or_is_named() {
    let (_folder, repository) = repository().await;
    let machines = tempfile::tempdir().unwrap();
    let web = zip(&[ZipEntry::file("index.html", b"<h1>shop</h1>")]);
    let schema = gzip(&tar(&[tar_file("001.sql", &[b'-'; 50_000])]));
    let parcels = [
        parcel(&repository, "shop-web.1.0.zip", &web, Form::Gzip).await,
        parcel(&repository, "shop-db.1.0.tgz", &schema, Form::PlainTar).await,
    ];

    let names = [("web-1", false), ("web-2", true), ("web-3", false)];
    let report = bring(machines.path(), &names, &parcels).await;
    let failures: Vec<_> = report.failures().map(|failure| failure.to_string()).collect();
    insta::assert_snapshot!(
        failures.join("\n"),
        @"web-2 did not get shop-web 1.0 after 1 try: the SHA-256 differs; check the machine's network"
    );
    let each: u64 = parcels.iter().map(|parcel| parcel.source.blob().size).sum();
    assert_eq!(report.bytes_sent(), 2 * each);
    for name in ["web-1", "web-3"] {
        for parcel in &parcels {
            let cached = machines.path().join(name).join(parcel.source.cache_path());
            assert_eq!(fs::read(cached).unwrap(), fs::read(parcel.source.path()).unwrap());
        }
    }

    // The next deployment sends only what is missing.
    let report = bring(machines.path(), &names.map(|(name, _)| (name, false)), &parcels).await;
    assert!(report.is_complete());
    assert_eq!(report.bytes_sent(), each);
}
