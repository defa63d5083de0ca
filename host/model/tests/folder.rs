//! Reading a workspace from a disk: the folder, its links, its secrets, and what is in the way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::fs;

use windlass_model::{
    VariableValue,
    codes::Code,
    diagnostic::render,
    files::{Folder, gather, read},
};

fn workspace(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

#[test]
fn projects_are_the_folders_and_secrets_come_from_beside_them() {
    let folder = workspace(&[
        ("environments.yaml", b"environments: [{ name: test }]"),
        ("shop/project.yaml", b"name: shop"),
        ("shop/process.yaml", b"steps: []"),
        ("shop/variables.yaml", b"variables: [{ name: Key, secret: { file: secret/key } }]"),
        ("shop/secret/key", b"line one\nline two\r\n"),
        ("shop/docker-compose.yaml", b"services: {}"),
        (".git/project.yaml", b"not: ours"),
        ("docs/readme.md", b"hello"),
    ]);
    let source = Folder::new(folder.path());
    let (files, diagnostics) = gather(&source);
    assert_eq!(diagnostics, []);
    let mut loaded = read(&files);
    loaded.read_secrets(&source);
    assert!(loaded.is_good(), "{}", render(&loaded.diagnostics));
    assert_eq!(loaded.workspace.environments.len(), 1);
    let [shop] = loaded.workspace.projects.as_slice() else {
        panic!("expected one project");
    };
    let VariableValue::Secret(secret) = &shop.variables[0].value else {
        panic!("expected a secret");
    };
    assert_eq!(secret.expose(), "line one\nline two");
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = workspace(&[
        ("machines.yaml", b"\xff\xfe"),
        ("environments.yaml/x", b"a folder in place of the file"),
        ("shop/project.yaml", &[b'#'; (1 << 20) + 10]),
    ]);
    let (files, mut diagnostics) = gather(&Folder::new(folder.path()));
    diagnostics.extend(read(&files).diagnostics);
    let found: Vec<_> = diagnostics.iter().map(|d| (d.code, d.place())).collect();
    assert_eq!(found, [(Code::E0110, "machines.yaml".to_owned()), (Code::E0111, "shop".to_owned()),]);
    let (_, diagnostics) = gather(&Folder::new(folder.path().join("nowhere")));
    assert_eq!(diagnostics.len(), 1);
    assert!(diagnostics[0].message.contains("cannot be read"));
}
