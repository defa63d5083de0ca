//! What the repository hands out is unpacked by the machine's own `tar`, as a target would.
//!
//! Random trees go through pack, push, payload and `tar x`, and must come out as they went in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use common::repository;
use proptest::prelude::*;
use windlass_packages::name::Format;
use windlass_packages::pack::{PackOptions, pack};
use windlass_packages::payload::Form;
use windlass_packages::repository::PushOptions;

/// Path to content; `Err` holds the target of a link, and an executable is marked.
type Tree = BTreeMap<String, Result<(Vec<u8>, bool), String>>;

fn any_tree() -> impl Strategy<Value = Tree> {
    // Folders and files have different letters, so no path is both. Some names are long enough to
    // need tar's extra headers.
    let folder = prop_oneof!["[a-c]{1,2}", Just("d".repeat(90))];
    let file = prop_oneof!["[x-z]{1,2} ?[0-9é]", Just("w".repeat(120))];
    let path = (prop::collection::vec(folder, 0..4), file)
        .prop_map(|(folders, file)| folders.into_iter().chain([file]).collect::<Vec<_>>().join("/"));
    let content = prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()).prop_map(Ok),
        1 => "[a-c]/[x-z]{1,2}".prop_map(Err),
    ];
    prop::collection::btree_map(path, content, 1..12)
}

fn build(root: &Path, tree: &Tree) {
    for (path, what) in tree {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match what {
            Err(target) => symlink(target, path).unwrap(),
            Ok((content, executable)) => {
                fs::write(&path, content).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if entry.file_type().is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            tree.insert(path, Err(target.to_str().unwrap().to_owned()));
        } else if entry.file_type().is_file() {
            let mode = entry.metadata().unwrap().permissions().mode();
            tree.insert(path, Ok((fs::read(entry.path()).unwrap(), mode & 0o111 != 0)));
        }
    }
    tree
}

fn untar(archive: &Path, form: Form, into: &Path) {
    fs::create_dir(into).unwrap();
    let flags = if form == Form::Gzip { "-xzf" } else { "-xf" };
    let mut tar = Command::new("tar");
    tar.arg(flags).arg(archive).arg("-C").arg(into).stdin(Stdio::null());
    let done = tar.output().expect("a target needs tar, and so does this test");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_goes_in_comes_out(tree in any_tree()) {
        let work = tempfile::tempdir().unwrap();
        build(&work.path().join("app"), &tree);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for format in [Format::Zip, Format::TarGz] {
            let packed = pack(&PackOptions {
                folder: work.path().join("app"),
                id: "app".parse().unwrap(),
                version: "1.0".parse().unwrap(),
                format,
                output: work.path().join("out"),
                include: Vec::new(),
                exclude: Vec::new(),
                overwrite: false,
            });
            let packed = packed.unwrap();
            runtime.block_on(async {
                let (_folder, repository) = repository().await;
                let upload = tokio::fs::File::open(&packed.path).await.unwrap();
                let pushed = repository.push(packed.name, upload, PushOptions::default()).await;
                let record = pushed.unwrap().record;
                for form in [Form::Gzip, Form::PlainTar] {
                    let source = repository.open_payload(&record, form).await.unwrap();
                    let into = work.path().join(format!("{format:?}-{form:?}"));
                    untar(source.path(), source.form(), &into);
                    prop_assert_eq!(&read(&into), &tree);
                }
                Ok(())
            })?;
        }
    }
}
