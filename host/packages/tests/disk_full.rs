//! A disk that takes no more: the push says so, leaves nothing, and the repository goes on.
//!
//! The test starts itself again under `ulimit -f`, with the signal that goes with it ignored, so
//! that every write beyond the limit fails as it does on a full disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(unix)]

mod common;

use std::io::ErrorKind;
use std::process::Command;

use common::{gzip, repository, tar, tar_file};
use windlass_packages::name::PackageName;
use windlass_packages::payload::Form;
use windlass_packages::repository::{PushError, PushOptions, Repository, RepositoryError};

const CHILD: &str = "WINDLASS_TEST_LIMITED";
/// In blocks of 512 bytes, as POSIX says, or of 1 KiB, as bash does: between 1 and 2 MiB.
const LIMIT: &str = "2048";

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(under_the_limit());
    }
    let script = format!("trap '' XFSZ; ulimit -f {LIMIT}; exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_is_told_and_leaves_nothing_behind", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

async fn under_the_limit() {
    let (folder, repository) = repository().await;
    let files = || {
        let all = walkdir::WalkDir::new(folder.path()).into_iter().map(Result::unwrap);
        all.filter(|entry| entry.file_type().is_file()).count()
    };

    let large = tar(&[tar_file("large", &vec![7; 3 << 20])]);
    match push(&repository, "app.1.0.tar", &large).await {
        Err(PushError::Repository(error)) => assert_full(&error),
        other => panic!("{other:?}"),
    }
    assert_eq!(files(), 0);

    // Small enough to be taken, too large to be expanded.
    push(&repository, "app.1.0.tar.gz", &gzip(&large)).await.unwrap();
    let name: PackageName = "app.1.0.tar.gz".parse().unwrap();
    let record = repository.get(&name.id, &name.version).await.unwrap();
    for _ in 0..2 {
        assert_full(&repository.open_payload(&record, Form::PlainTar).await.unwrap_err());
        assert_eq!(files(), 1, "the package itself");
    }
    repository.open_payload(&record, Form::Gzip).await.unwrap();
}

async fn push(repository: &Repository, file: &str, bytes: &[u8]) -> Result<(), PushError> {
    let pushed = repository.push(file.parse().unwrap(), bytes, PushOptions::default()).await;
    pushed.map(drop)
}

fn assert_full(error: &RepositoryError) {
    match error {
        RepositoryError::Disk { cause, .. } => {
            assert_eq!(cause.kind(), ErrorKind::FileTooLarge, "{error}");
        }
        other => panic!("{other}"),
    }
}
