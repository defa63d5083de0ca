//! Packing: equal folders give equal bytes, and what was packed is accepted by a push.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{read_tar, repository};
use windlass_packages::digest::Sha256;
use windlass_packages::name::Format;
use windlass_packages::pack::{PackOptions, Packed, pack};
use windlass_packages::payload::Form;
use windlass_packages::repository::PushOptions;

fn options(folder: &Path, output: &Path, format: Format) -> PackOptions {
    PackOptions {
        folder: folder.to_owned(),
        id: "shop-web".parse().unwrap(),
        version: "1.4.0".parse().unwrap(),
        format,
        output: output.to_owned(),
        include: Vec::new(),
        exclude: Vec::new(),
        overwrite: false,
    }
}

/// The same application, its files made in this order.
fn application(folder: &Path, order: &[usize]) {
    let files = [
        ("bin/start.sh", "#!/bin/sh\n", 0o744),
        ("web/index.html", "<h1>shop</h1>", 0o600),
        ("web/logs/old.log", "noise", 0o644),
        ("a.pdb", "symbols", 0o644),
        ("web/sub/a b.txt", "x", 0o664),
    ];
    for place in order {
        let (path, content, mode) = files[*place];
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let age = Duration::from_secs(1000 * (*place as u64 + order[0] as u64));
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    fs::create_dir_all(folder.join("empty")).unwrap();
    symlink("web/index.html", folder.join("home")).unwrap();
}

#[tokio::test]
async fn equal_folders_give_equal_bytes_and_a_push_takes_them() {
    for format in [Format::TarGz, Format::Zip] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let out = tempfile::tempdir().unwrap();
        application(one.path(), &[0, 1, 2, 3, 4]);
        application(two.path(), &[4, 3, 2, 1, 0]);
        let first = pack(&options(one.path(), &out.path().join("one"), format)).unwrap();
        let second = pack(&options(two.path(), &out.path().join("two"), format)).unwrap();
        let bytes = fs::read(&first.path).unwrap();
        assert_eq!(bytes, fs::read(&second.path).unwrap(), "{format:?}");
        assert_eq!(first.blob.sha256, Sha256::of(&bytes));
        assert_eq!(first.blob.size, bytes.len() as u64);
        let file = first.path.file_name().unwrap().to_str().unwrap();
        assert_eq!(file, format!("shop-web.1.4.0{}", format.extension()));

        let (_folder, repository) = repository().await;
        let pushed = repository.push(first.name, &*bytes, PushOptions::default()).await.unwrap();
        assert_eq!(pushed.record.entries, first.entries);
        let source = repository.open_payload(&pushed.record, Form::PlainTar).await.unwrap();
        let found = read_tar(&fs::read(source.path()).unwrap());
        let listed: Vec<_> =
            found.iter().map(|(path, kind, mode, text)| format!("{path} {kind} {mode:o} {text:?}")).collect();
        insta::allow_duplicates! { insta::assert_snapshot!(listed.join("\n"), @r##"
        a.pdb file 644 "symbols"
        bin/ folder 755 ""
        bin/start.sh file 755 "#!/bin/sh\n"
        empty/ folder 755 ""
        home link 777 "web/index.html"
        web/ folder 755 ""
        web/index.html file 644 "<h1>shop</h1>"
        web/logs/ folder 755 ""
        web/logs/old.log file 644 "noise"
        web/sub/ folder 755 ""
        web/sub/a b.txt file 644 "x"
        "##) };
    }
}

fn paths(packed: &Packed) -> Vec<String> {
    let bytes = fs::read(&packed.path).unwrap();
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*bytes), &mut plain).unwrap();
    read_tar(&plain).into_iter().map(|entry| entry.0).collect()
}

#[test]
fn globs_choose_what_goes_in() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    application(folder.path(), &[0, 1, 2, 3, 4]);
    let table: [(&[&str], &[&str], &[&str]); 3] = [
        (
            &[],
            &["*.pdb", "**/logs", "empty"],
            &["bin/", "bin/start.sh", "home", "web/", "web/index.html", "web/sub/", "web/sub/a b.txt"],
        ),
        (&["web/**"], &["**/*.log"], &["web/index.html", "web/sub/a b.txt"]),
        (&["**/*.{html,sh}"], &[], &["bin/start.sh", "web/index.html"]),
    ];
    let owned = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect();
    for (include, exclude, expected) in table {
        let packed = pack(&PackOptions {
            include: owned(include),
            exclude: owned(exclude),
            overwrite: true,
            ..options(folder.path(), out.path(), Format::TarGz)
        });
        assert_eq!(paths(&packed.unwrap()), expected, "{include:?} {exclude:?}");
    }
}

#[test]
fn packing_into_the_folder_itself_leaves_the_package_out() {
    let folder = tempfile::tempdir().unwrap();
    application(folder.path(), &[0, 1, 2, 3, 4]);
    let again = PackOptions { overwrite: true, ..options(folder.path(), folder.path(), Format::TarGz) };
    let first = pack(&again).unwrap();
    let second = pack(&again).unwrap();
    assert_eq!(first, second);
}

#[test]
fn what_cannot_be_packed_is_named_and_leaves_no_file() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = folder.path();
    let refused = |change: &dyn Fn(&mut PackOptions)| {
        let mut options = options(&root.join("app"), &out.path().join("out"), Format::TarGz);
        change(&mut options);
        let error = pack(&options).unwrap_err();
        let error = format!("{error}; {}", error.fix());
        let error = error.replace(root.to_str().unwrap(), "/work");
        error.replace(out.path().to_str().unwrap(), "/out")
    };
    let mut texts = vec![refused(&|_| {})];
    fs::create_dir(root.join("app")).unwrap();
    texts.push(refused(&|_| {}));
    fs::write(root.join("app/file"), "x").unwrap();
    texts.push(refused(&|options| options.folder.push("file")));
    texts.push(refused(&|options| options.format = Format::Nupkg));
    texts.push(refused(&|options| options.include = vec!["{a".to_owned()]));
    texts.push(refused(&|options| options.exclude = vec!["*".to_owned()]));
    for (name, target) in [("out", "../../etc"), ("absolute", "/etc/passwd")] {
        symlink(target, root.join("app").join(name)).unwrap();
        texts.push(refused(&|_| {}));
        fs::remove_file(root.join("app").join(name)).unwrap();
    }
    let socket = std::os::unix::net::UnixListener::bind(root.join("app/socket")).unwrap();
    texts.push(refused(&|_| {}));
    drop(socket);
    fs::remove_file(root.join("app/socket")).unwrap();
    let name = std::os::unix::ffi::OsStrExt::from_bytes(b"bad\xff");
    let name: &std::ffi::OsStr = name;
    fs::write(root.join("app").join(name), "x").unwrap();
    texts.push(refused(&|_| {}));
    let without = PackOptions {
        exclude: vec!["bad*".to_owned()],
        ..options(&root.join("app"), &out.path().join("without"), Format::Zip)
    };
    assert_eq!(pack(&without).unwrap().entries, 1);
    fs::remove_file(root.join("app").join(name)).unwrap();
    assert!(!out.path().join("out").exists() || out.path().join("out").read_dir().unwrap().next().is_none());

    pack(&options(&root.join("app"), &out.path().join("out"), Format::TarGz)).unwrap();
    texts.push(refused(&|_| {}));
    insta::assert_snapshot!(texts.join("\n"));
}
