//! Compiled plugins on disk: found again, never trusted blindly.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use common::{Guest, bare, world};
use windlass_wasm::{Config, PluginHost};

fn host(folder: &tempfile::TempDir) -> PluginHost {
    PluginHost::new(Config { cache: Some(folder.path().join("code")), ..Config::default() }).unwrap()
}

fn files(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    fs::read_dir(folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_compiled_plugin_is_kept_closed_to_others_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    Guest::default().load(&host(&folder)).await;
    let kept = files(&folder);
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o600);
    let written = fs::metadata(&kept[0]).unwrap().modified().unwrap();

    let again = host(&folder);
    let plugin = Guest::default().load(&again).await;
    again.run(&plugin, bare(), world()).await.unwrap();
    assert_eq!(fs::metadata(&kept[0]).unwrap().modified().unwrap(), written, "it was not compiled again");
}

#[tokio::test]
async fn a_file_that_was_touched_is_not_run_but_made_anew() {
    type Damage = fn(&PathBuf);
    let damages: [(&str, Damage); 4] = [
        ("a byte changed", |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("cut short", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 3]).unwrap();
        }),
        ("empty", |path| fs::write(path, b"").unwrap()),
        ("open to others", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap()),
    ];
    for (name, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        Guest::default().load(&host(&folder)).await;
        let good = fs::read(&files(&folder)[0]).unwrap();
        damage(&files(&folder)[0]);
        let again = host(&folder);
        let plugin = Guest::default().load(&again).await;
        again.run(&plugin, bare(), world()).await.unwrap();
        let kept = files(&folder);
        assert_eq!(kept.len(), 1, "{name}");
        assert_eq!(fs::read(&kept[0]).unwrap().len(), good.len(), "{name}");
        assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn code_of_another_plugin_under_this_name_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    Guest::default().load(&host(&folder)).await;
    let first = files(&folder).remove(0);
    let trap = Guest::run("unreachable");
    trap.load(&host(&folder)).await;
    let second = files(&folder).into_iter().find(|path| *path != first).unwrap();
    fs::copy(&second, &first).unwrap();
    let again = host(&folder);
    let plugin = Guest::default().load(&again).await;
    again.run(&plugin, bare(), world()).await.unwrap();
}
