//! The repository: what a push promises, what it refuses, and what it leaves behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use common::{ZipEntry, gzip, read_tar, repository, tar, tar_file, zip};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use windlass_packages::archive::Limits;
use windlass_packages::digest::Sha256;
use windlass_packages::name::PackageName;
use windlass_packages::payload::Form;
use windlass_packages::range::VersionRange;
use windlass_packages::repository::{
    Index, MemoryIndex, Overwrite, PreReleases, PushOptions, PushOutcome, Repository, RepositoryConfig, Verdict,
};

fn name(text: &str) -> PackageName {
    text.parse().unwrap()
}

fn sample(content: &str) -> Vec<u8> {
    gzip(&tar(&[tar_file("app/readme.txt", content.as_bytes())]))
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut found: Vec<_> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

async fn push(repository: &Repository, file: &str, bytes: &[u8]) -> Result<PushOutcome, String> {
    push_as(repository, file, bytes, PushOptions::default()).await
}

async fn push_as(
    repository: &Repository,
    file: &str,
    bytes: &[u8],
    options: PushOptions,
) -> Result<PushOutcome, String> {
    let pushed = repository.push(name(file), bytes, options).await;
    pushed.map(|pushed| pushed.outcome).map_err(|error| format!("{error}; {}", error.fix()))
}

fn overwriting(overwrite: Overwrite) -> PushOptions {
    PushOptions { overwrite, ..PushOptions::default() }
}

#[tokio::test]
async fn what_was_pushed_is_read_back_in_every_form() {
    let (folder, repository) = repository().await;
    let plain = tar(&[tar_file("app/readme.txt", b"hello")]);
    let packed = gzip(&plain);
    push(&repository, "shop-web.1.0.tar.gz", &packed).await.unwrap();
    let shop = name("shop-web.1.0.0.zip");
    let record = repository.get(&shop.id, &shop.version).await.unwrap();
    assert_eq!(record.original.sha256, Sha256::of(&packed));
    assert_eq!(record.name.to_string(), "shop-web.1.0.tar.gz");
    assert_eq!(record.entries, 1);

    let mut read = Vec::new();
    repository.open_original(&record).await.unwrap().read_to_end(&mut read).await.unwrap();
    assert_eq!(read, packed);

    let source = repository.open_payload(&record, Form::Gzip).await.unwrap();
    assert_eq!(source.blob(), record.original, "a tar.gz is sent as it is");
    for _ in 0..2 {
        let source = repository.open_payload(&record, Form::PlainTar).await.unwrap();
        assert_eq!(source.form(), Form::PlainTar);
        assert_eq!(fs::read(source.path()).unwrap(), plain);
        assert_eq!(source.blob().sha256, Sha256::of(&plain));
        assert_eq!(source.cache_path(), format!("packages/{}.tar", Sha256::of(&plain)));
    }
    assert_eq!(files_below(&folder.path().join("expanded")).len(), 1, "expanded once");
    assert_eq!(repository.verify(&record.original.sha256).await.unwrap(), Verdict::Intact);
}

#[tokio::test]
async fn a_plain_tar_is_sent_plain_whatever_is_wished() {
    let (_folder, repository) = repository().await;
    let plain = tar(&[tar_file("a", b"1")]);
    push(&repository, "app.1.0.tar", &plain).await.unwrap();
    let app = name("app.1.0.tar");
    let record = repository.get(&app.id, &app.version).await.unwrap();
    let source = repository.open_payload(&record, Form::Gzip).await.unwrap();
    assert_eq!((source.form(), source.blob()), (Form::PlainTar, record.original));
}

#[tokio::test]
async fn a_zip_becomes_the_same_tar_in_whatever_order_it_was_packed() {
    let (_folder, repository) = repository().await;
    let entries = [
        ZipEntry::with_mode("bin/run.sh", 0o100_755, b"#!/bin/sh\n"),
        ZipEntry::file("readme.txt", b"hello"),
        ZipEntry::with_mode("bin/", 0o040_755, b""),
        ZipEntry::with_mode("current", 0o120_777, b"bin/run.sh"),
    ];
    let mut reversed = entries.clone();
    reversed.reverse();
    push(&repository, "app.1.0.zip", &zip(&entries)).await.unwrap();
    push(&repository, "app.2.0.zip", &zip(&reversed)).await.unwrap();
    let app = name("app.1.0.zip");
    let records = repository.list(&app.id).await.unwrap();
    assert_ne!(records[0].original, records[1].original);
    assert_eq!(records[0].payload, records[1].payload);

    let source = repository.open_payload(&records[0], Form::PlainTar).await.unwrap();
    let found = read_tar(&fs::read(source.path()).unwrap());
    let expected = [
        ("bin/", "folder", 0o755, ""),
        ("bin/run.sh", "file", 0o755, "#!/bin/sh\n"),
        ("current", "link", 0o777, "bin/run.sh"),
        ("readme.txt", "file", 0o644, "hello"),
    ];
    let expected: Vec<_> =
        expected.map(|(path, kind, mode, text)| (path.to_owned(), kind, mode, text.to_owned())).into();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn nuget_bookkeeping_stays_behind_and_names_are_decoded() {
    let (_folder, repository) = repository().await;
    let entries = [
        ZipEntry::file("[Content_Types].xml", b"<x/>"),
        ZipEntry::file("_rels/.rels", b"<x/>"),
        ZipEntry::file("package/services/metadata/core-properties/1.psmdcp", b"<x/>"),
        ZipEntry::file("content/my%20file%2B.txt", b"1"),
        ZipEntry::file("content\\old.net.txt", b"2"),
        ZipEntry::file("100%.txt", b"3"),
        ZipEntry::file("app.nuspec", b"<x/>"),
    ];
    push(&repository, "app.1.0.nupkg", &zip(&entries)).await.unwrap();
    let app = name("app.1.0.nupkg");
    let record = repository.get(&app.id, &app.version).await.unwrap();
    let source = repository.open_payload(&record, Form::PlainTar).await.unwrap();
    let paths: Vec<_> = read_tar(&fs::read(source.path()).unwrap()).into_iter().map(|entry| entry.0).collect();
    assert_eq!(paths, ["100%.txt", "app.nuspec", "content/my file+.txt", "content/old.net.txt"]);
}

#[tokio::test]
async fn a_version_is_pushed_once_unless_told_otherwise() {
    let (folder, repository) = repository().await;
    let (one, two) = (sample("one"), sample("two"));
    let digest = |bytes: &[u8]| Some(Sha256::of(bytes));
    let knowing = |overwrite, expected_sha256| PushOptions { overwrite, expected_sha256, ..PushOptions::default() };
    assert_eq!(push(&repository, "app.1.0.tgz", &one).await, Ok(PushOutcome::Added));

    let table = [
        (&one, overwriting(Overwrite::Fail), None),
        (&one, knowing(Overwrite::Fail, digest(&one)), None),
        (&one, overwriting(Overwrite::IgnoreSame), Some(PushOutcome::AlreadyThere)),
        (&one, knowing(Overwrite::IgnoreSame, digest(&one)), Some(PushOutcome::AlreadyThere)),
        (&two, overwriting(Overwrite::IgnoreSame), None),
        (&two, knowing(Overwrite::IgnoreSame, digest(&two)), None),
        (&two, overwriting(Overwrite::Replace), Some(PushOutcome::Replaced)),
        (&one, overwriting(Overwrite::IgnoreSame), None),
    ];
    let mut refusals = Vec::new();
    for (bytes, options, expected) in table {
        // `1.0.0.0` is `1.0`.
        let answer = push_as(&repository, "APP.1.0.0.0.tgz", bytes, options).await;
        assert_eq!(answer.clone().ok(), expected, "{answer:?}");
        refusals.extend(answer.err());
    }
    insta::assert_snapshot!(refusals.join("\n"));

    assert_eq!(files_below(&folder.path().join("incoming")), [""; 0]);
    assert_eq!(files_below(&folder.path().join("sha256")).len(), 2);
    assert_eq!(repository.collect_garbage(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(repository.collect_garbage(Duration::ZERO).await.unwrap(), 1, "the replaced bytes");
    assert_eq!(repository.verify(&Sha256::of(&two)).await.unwrap(), Verdict::Intact);
}

#[tokio::test]
async fn of_many_pushes_at_once_exactly_one_wins() {
    let (folder, repository) = repository().await;
    let repository = Arc::new(repository);
    let pushes = (0..12).map(|number| {
        let repository = Arc::clone(&repository);
        tokio::spawn(async move { push(&repository, "app.1.0.tgz", &sample(&format!("push {number}"))).await })
    });
    let mut won = 0;
    for push in pushes.collect::<Vec<_>>() {
        won += usize::from(push.await.unwrap().is_ok());
    }
    assert_eq!(won, 1);
    assert_eq!(files_below(&folder.path().join("sha256")).len(), 1);
    assert_eq!(files_below(&folder.path().join("incoming")), [""; 0]);
}

/// A sender that breaks off, or goes silent, after some bytes.
struct Broken {
    left: Vec<u8>,
    silent: bool,
}

impl AsyncRead for Broken {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.left.is_empty() {
            let now = self.left.len().min(buffer.remaining());
            buffer.put_slice(&self.left.drain(..now).collect::<Vec<_>>());
            return Poll::Ready(Ok(()));
        }
        if self.silent {
            return Poll::Pending;
        }
        Poll::Ready(Err(std::io::Error::other("connection reset")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_upload_is_refused_with_a_fix_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = RepositoryConfig::new(folder.path());
    config.limits = Limits { packed_bytes: 4096, ..Limits::default() };
    let index = Arc::new(MemoryIndex::default());
    let repository = Repository::open(config, index.clone()).await.unwrap();
    let good = sample("hello");
    let noise: Vec<u8> = (0..5000u32).map(|byte| (byte * 7919 % 251) as u8).collect();
    let default = PushOptions::default;
    let mut texts = Vec::new();
    let bytes_cases = [
        ("cut", good[..good.len() - 9].to_vec(), default()),
        ("empty", Vec::new(), default()),
        ("noise", noise[..3000].to_vec(), default()),
        ("oversized", noise.clone(), default()),
        ("length", good.clone(), PushOptions { expected_size: Some(7), ..default() }),
        ("digest", good.clone(), PushOptions { expected_sha256: Some(Sha256::of(b"other")), ..default() }),
    ];
    for (case, bytes, options) in bytes_cases {
        let error = push_as(&repository, "app.1.0.tgz", &bytes, options).await.unwrap_err();
        texts.push(format!("{case}: {error}"));
    }
    for (case, silent) in [("broken", false), ("silent", true)] {
        let upload = Broken { left: good[..20].to_vec(), silent };
        let pushed = repository.push(name("app.1.0.tgz"), upload, default()).await;
        let error = pushed.unwrap_err();
        texts.push(format!("{case}: {error}; {}", error.fix()));
    }
    let app = name("app.1.0.tgz");
    texts.push(format!("get: {}", repository.get(&app.id, &app.version).await.unwrap_err()));
    insta::assert_snapshot!(texts.join("\n"));
    assert_eq!(index.ids().await.unwrap(), []);
    assert_eq!(files_below(folder.path()), [""; 0]);
    assert_eq!(push(&repository, "app.1.0.tgz", &good).await, Ok(PushOutcome::Added));
}

#[tokio::test]
async fn a_push_that_is_dropped_leaves_nothing() {
    let (folder, repository) = repository().await;
    let upload = Broken { left: sample("x"), silent: true };
    let pushing = repository.push(name("app.1.0.tgz"), upload, PushOptions::default());
    let dropped = tokio::time::timeout(Duration::from_millis(50), pushing).await;
    assert!(dropped.is_err());
    assert_eq!(files_below(folder.path()), [""; 0]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("packages"), b"a file in the way").unwrap();
    let config = RepositoryConfig::new(folder.path().join("packages"));
    let error = Repository::open(config, Arc::new(MemoryIndex::default())).await.err().unwrap();
    let text = format!("{error}; {}", error.fix()).replace(folder.path().to_str().unwrap(), "/data");
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn half_written_files_go_after_a_day() {
    let (folder, repository) = repository().await;
    drop(repository);
    let incoming = folder.path().join("incoming");
    let aged = |file: &str, hours: u64| {
        let file = fs::File::create(incoming.join(file)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    aged("old.partial", 25);
    aged("young.partial", 23);
    aged("other.txt", 48);
    let config = RepositoryConfig::new(folder.path());
    Repository::open(config, Arc::new(MemoryIndex::default())).await.unwrap();
    assert_eq!(files_below(&incoming), ["other.txt", "young.partial"]);
}

#[tokio::test]
async fn expanded_payloads_are_not_trusted_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = RepositoryConfig::new(folder.path());
    let index: Arc<MemoryIndex> = Arc::default();
    let repository = Repository::open(config.clone(), index.clone()).await.unwrap();
    push(&repository, "app.1.0.tgz", &sample("x")).await.unwrap();
    let app = name("app.1.0.tgz");
    let record = repository.get(&app.id, &app.version).await.unwrap();
    let source = repository.open_payload(&record, Form::PlainTar).await.unwrap();
    // What a power cut may leave: the right size, and nothing in it.
    let size = fs::metadata(source.path()).unwrap().len() as usize;
    fs::write(source.path(), vec![0; size]).unwrap();
    drop(repository);
    let repository = Repository::open(config, index).await.unwrap();
    let source = repository.open_payload(&record, Form::PlainTar).await.unwrap();
    assert_eq!(Sha256::of(&fs::read(source.path()).unwrap()), source.blob().sha256);
}

#[tokio::test]
async fn latest_obeys_range_and_pre_releases() {
    let (_folder, repository) = repository().await;
    for version in ["1.9", "1.10", "2.0-beta", "1.10.0-rc.1", "0.1"] {
        push(&repository, &format!("app.{version}.tgz"), &sample(version)).await.unwrap();
    }
    push(&repository, "other.9.0.tgz", &sample("other")).await.unwrap();
    let id = name("app.1.0.zip").id;
    let versions: Vec<_> = repository.list(&id).await.unwrap();
    let versions: Vec<_> = versions.iter().map(|record| record.name.version.as_str()).collect();
    assert_eq!(versions, ["2.0-beta", "1.10", "1.10.0-rc.1", "1.9", "0.1"]);
    let table = [
        ("*", PreReleases::Allowed, "2.0-beta"),
        ("*", PreReleases::Skipped, "1.10"),
        ("[1.0,1.10)", PreReleases::Allowed, "1.10.0-rc.1"),
        ("[1.0,1.10)", PreReleases::Skipped, "1.9"),
        ("[0.1]", PreReleases::Skipped, "0.1"),
    ];
    for (range, pre_releases, expected) in table {
        let range: VersionRange = range.parse().unwrap();
        let found = repository.latest(&id, &range, pre_releases).await.unwrap();
        assert_eq!(found.name.version.as_str(), expected, "{range}");
    }
    let range: VersionRange = "[3.0,)".parse().unwrap();
    let error = repository.latest(&id, &range, PreReleases::Allowed).await.unwrap_err();
    let missing = repository.get(&id, &"7.0".parse().unwrap()).await.unwrap_err();
    insta::assert_snapshot!(format!("{error}; {}\n{missing}; {}", error.fix(), missing.fix()));
}

#[tokio::test]
async fn removing_a_version_keeps_bytes_that_another_names() {
    let (folder, repository) = repository().await;
    let bytes = sample("same");
    push(&repository, "app.1.0.tgz", &bytes).await.unwrap();
    push(&repository, "app.2.0.tgz", &bytes).await.unwrap();
    let app = name("app.1.0.tgz");
    repository.remove(&app.id, &app.version).await.unwrap();
    assert_eq!(files_below(&folder.path().join("sha256")).len(), 1);
    repository.remove(&app.id, &"2.0".parse().unwrap()).await.unwrap();
    assert_eq!(files_below(&folder.path().join("sha256")).len(), 0);
    assert!(repository.remove(&app.id, &app.version).await.is_err());
}

#[tokio::test]
async fn damage_on_disk_is_seen_and_mended_by_a_push() {
    let (folder, repository) = repository().await;
    let bytes = sample("precious");
    push(&repository, "app.1.0.tgz", &bytes).await.unwrap();
    let app = name("app.1.0.tgz");
    let record = repository.get(&app.id, &app.version).await.unwrap();
    let digest = record.original.sha256;
    let file = folder.path().join("sha256").join(&files_below(&folder.path().join("sha256"))[0]);
    fs::remove_file(&file).unwrap();
    fs::write(&file, vec![b'x'; bytes.len()]).unwrap();
    assert!(matches!(repository.verify(&digest).await.unwrap(), Verdict::Changed(_)));
    let changed = repository.open_payload(&record, Form::PlainTar).await.unwrap_err();
    fs::remove_file(&file).unwrap();
    assert_eq!(repository.verify(&digest).await.unwrap(), Verdict::Missing);
    let missing = repository.open_payload(&record, Form::Gzip).await.unwrap_err();
    let unread = repository.open_original(&record).await.unwrap_err();
    let texts = format!("{changed}\n{missing}\n{unread}");
    insta::assert_snapshot!(texts.replace(folder.path().to_str().unwrap(), "/data"));
    push_as(&repository, "app.1.0.tgz", &bytes, overwriting(Overwrite::Replace)).await.unwrap();
    assert_eq!(repository.verify(&digest).await.unwrap(), Verdict::Intact);
}
