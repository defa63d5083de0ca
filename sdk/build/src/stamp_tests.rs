//! A stamp must hold exactly as long as nothing changed that could change a plugin.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Stamp, dependencies};
use crate::Plugin;
use crate::compile::Artifact;
use crate::dist::digest;

struct World {
    _folder: tempfile::TempDir,
    workspace: PathBuf,
    dist: PathBuf,
    sdk: PathBuf,
}

/// A workspace with one plugin, built, whose component was compiled with a file outside.
fn built() -> World {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let (workspace, sdk) = (root.join("plugins"), root.join("the sdk/lib.rs"));
    let dist = workspace.join("dist");
    for (file, text) in [
        (workspace.join("Cargo.toml"), "[workspace]"),
        (workspace.join("one/src/lib.rs"), "fn one() {}"),
        (workspace.join("target/one.wasm"), "component"),
        (dist.join("one.wasm"), "component"),
        (dist.join("one.json"), "{}"),
        (dist.join("one.sha256"), "…"),
        (sdk.clone(), "fn sdk() {}"),
        (root.join("the sdk/Cargo.toml"), "[package]"),
    ] {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let wasm = workspace.join("target/one.wasm");
    let inside = workspace.join("one/src/lib.rs");
    let rule = format!("{}: {} {}\n", wasm.display(), inside.display(), sdk.display().to_string().replace(' ', "\\ "));
    fs::write(wasm.with_extension("d"), rule).unwrap();
    let artifact = Artifact { package: "one".into(), folder: workspace.join("one"), wasm };
    let plugin = Plugin {
        id: "one".into(),
        version: "1.0.0".into(),
        component: dist.join("one.wasm"),
        manifest: dist.join("one.json"),
        sha256: digest(b"component"),
    };
    Stamp::of(&workspace, Stamp::inputs(&workspace, None), &[artifact], &[plugin]).write(&dist).unwrap();
    World { _folder: folder, workspace, dist, sdk }
}

fn is_fresh(world: &World) -> bool {
    Stamp::read(&world.dist).unwrap().still_true(&world.workspace, &world.dist).is_some()
}

#[test]
fn nothing_changed_is_fresh_also_after_files_were_touched_or_cargo_wrote_its_target_folder() {
    let world = built();
    assert!(is_fresh(&world));
    let source = world.workspace.join("one/src/lib.rs");
    fs::write(&source, fs::read(&source).unwrap()).unwrap();
    fs::write(world.workspace.join("target/new"), "x").unwrap();
    fs::write(world.workspace.join(".hidden"), "x").unwrap();
    assert!(is_fresh(&world));
}

#[test]
fn every_change_that_matters_makes_it_stale() {
    type Change = fn(&World) -> std::io::Result<()>;
    let changes: [(&str, Change); 9] = [
        ("source", |w| fs::write(w.workspace.join("one/src/lib.rs"), "fn two() {}")),
        ("new file", |w| fs::write(w.workspace.join("one/src/new.rs"), "")),
        ("removed file", |w| fs::remove_file(w.workspace.join("Cargo.toml"))),
        ("sdk", |w| fs::write(&w.sdk, "fn sdk2() {}")),
        ("manifest of the sdk", |w| fs::write(w.sdk.with_file_name("Cargo.toml"), "[package] #")),
        ("component gone", |w| fs::remove_file(w.dist.join("one.wasm"))),
        ("component changed", |w| fs::write(w.dist.join("one.wasm"), "other")),
        ("manifest gone", |w| fs::remove_file(w.dist.join("one.json"))),
        ("digest gone", |w| fs::remove_file(w.dist.join("one.sha256"))),
    ];
    for (what, change) in changes {
        let world = built();
        change(&world).unwrap();
        assert!(!is_fresh(&world), "{what}");
    }
}

#[test]
fn an_unreadable_stamp_or_one_of_another_format_is_no_stamp() {
    let world = built();
    let file = world.dist.join(".stamp.json");
    let text = fs::read_to_string(&file).unwrap();
    for broken in ["", "{", &text.replace("\"format\": 1", "\"format\": 2")] {
        fs::write(&file, broken).unwrap();
        assert!(Stamp::read(&world.dist).is_none(), "{broken}");
    }
}

#[test]
fn names_with_spaces_survive_the_list_of_dependencies() {
    assert_eq!(dependencies(r"/t/a.wasm: /w/a\ b/lib.rs /w/c.rs"), [Path::new("/w/a b/lib.rs"), Path::new("/w/c.rs")]);
    assert!(dependencies("no rule").is_empty());
}
