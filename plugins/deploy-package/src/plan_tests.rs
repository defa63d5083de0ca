//! The decisions, as tables: what an install folder holds, and what follows.

use super::*;
use crate::settings::{Context, PackageFacts, Scripts};

fn settings(version: &str, keep: usize) -> Settings {
    Settings {
        package: PackageFacts {
            id: "web".into(),
            version: version.into(),
            sha256: format!("sha-{version}"),
            size: 4096,
        },
        install_dir: "/srv/web".into(),
        scripts: Scripts::default(),
        substitute: Vec::new(),
        keep,
        force: false,
        context: Context::default(),
    }
}

/// A journal from `version:folder:state` words, oldest first; the folders that exist; what is current.
fn survey(journal: &str, folders: &str, current: &str) -> Survey {
    let line = |word: &str| {
        let parts: Vec<&str> = word.split(':').collect();
        let (version, folder, state) = (parts[0], parts[1], parts[2]);
        let fingerprint = settings(version, 0).fingerprint();
        let state = match state {
            "ok" => "succeeded",
            "bad" => "failed",
            _ => "installing",
        };
        format!(
            "base /srv/web\njournal T\t{state}\t{folder}\tweb\t{version}\tsha-{version}\t{fingerprint}\tp\te\tr\t1\n"
        )
    };
    let mut answer: String = journal.split_whitespace().map(line).collect();
    answer.push_str("base /srv/web\n");
    for folder in folders.split_whitespace() {
        answer.push_str(&format!("folder {folder}\n"));
    }
    if !current.is_empty() {
        answer.push_str(&format!("current releases/{current}\n"));
    }
    Survey::parse(&answer).unwrap()
}

fn install(settings: &Settings, survey: &Survey) -> Install {
    match plan(settings, survey).unwrap() {
        Plan::Install(install) => install,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_is_named_by_the_version_and_never_reused() {
    for (version, folders, name) in [
        ("1.0.0", "", "1.0.0"),
        ("1.0.0", "0.9.0", "1.0.0"),
        ("1.0.0", "1.0.0", "1.0.0_1"),
        ("1.0.0", "1.0.0 1.0.0_1 1.0.0_2", "1.0.0_3"),
        ("1.0.0", "1.0.0 1.0.0_2", "1.0.0_1"),
        ("1.0.0-beta+7", "", "1.0.0-beta+7"),
        ("1.0/../x y", "", "1.0_.._x_y"),
        ("..", "", "v.."),
        ("-rf", "", "v-rf"),
    ] {
        assert_eq!(install(&settings(version, 3), &survey("", folders, "")).name, name);
    }
}

#[test]
fn what_is_kept_and_what_is_removed() {
    for (keep, journal, folders, current, removed) in [
        // The usual life: three earlier ones and the new one stay.
        (3, "1:1:ok 2:2:ok 3:3:ok 4:4:ok", "1 2 3 4", "4", "1"),
        (1, "1:1:ok 2:2:ok 3:3:ok", "1 2 3", "3", "1 2"),
        (0, "1:1:ok 2:2:ok", "1 2", "2", "1 2"),
        // Failed and cut-off installations go, whatever the number kept.
        (3, "1:1:ok 2:2:bad 3:3:begun", "1 2 3", "1", "2 3"),
        (3, "1:1:begun 1:1:ok 2:2:begun 2:2:bad", "1 2", "1", "2"),
        // What the journal does not know is not ours.
        (0, "1:1:ok", "1 theirs", "1", "1"),
        // What is current is the version to go back to, even if it is old.
        (1, "1:1:ok 2:2:ok 3:3:ok", "1 2 3", "1", "2 3"),
        // A folder that is gone takes no place.
        (1, "1:1:ok 2:2:ok 3:3:ok", "1 2", "2", "1"),
        // The last word on a folder counts.
        (3, "1:1:bad 1:1:ok", "1", "1", ""),
        (3, "1:1:ok 1:1:bad", "1", "", "1"),
    ] {
        let removed: Vec<&str> = removed.split_whitespace().collect();
        let install = install(&settings("9", keep), &survey(journal, folders, current));
        assert_eq!(install.remove, removed, "keep {keep} of {journal}");
    }
}

#[test]
fn only_the_very_same_as_last_time_is_installed_already() {
    let nothing = Plan::Nothing { folder: "2".into() };
    let base = || survey("1:1:ok 2:2:ok", "1 2", "2");
    assert_eq!(plan(&settings("2", 3), &base()).unwrap(), nothing);
    assert_eq!(install(&settings("1", 3), &base()).name, "1_1", "an older version is a new installation");

    let mut forced = settings("2", 3);
    forced.force = true;
    assert_eq!(install(&forced, &base()).name, "2_1");
    let mut other_script = settings("2", 3);
    other_script.scripts.deploy = Some("echo".into());
    assert_eq!(install(&other_script, &base()).name, "2_1");
    let mut with_variables = settings("2", 3);
    with_variables.substitute = vec!["*.conf".into()];
    assert_eq!(install(&with_variables, &base()).name, "2_1");
    let mut other_bytes = settings("2", 3);
    other_bytes.package.sha256 = "other".into();
    assert_eq!(install(&other_bytes, &base()).name, "2_1");

    for (journal, folders, current) in [
        ("1:1:ok 2:2:bad", "1 2", "2"),
        ("1:1:ok 2:2:ok", "1 2", "1"),
        ("1:1:ok 2:2:ok", "1", "2"),
        ("1:1:ok 2:2:ok 3:3:bad", "1 2 3", "2"),
    ] {
        assert!(matches!(plan(&settings("2", 3), &survey(journal, folders, current)).unwrap(), Plan::Install(_)));
    }
}

#[test]
fn the_previous_version_is_what_current_means() {
    let before = survey("1.0:1.0_1:ok 1.1:1.1:bad", "1.0_1 1.1", "1.0_1");
    let found = install(&settings("2", 3), &before);
    assert_eq!((found.previous.as_deref(), found.previous_version.as_str()), (Some("1.0_1"), "1.0"));
    let first = install(&settings("2", 3), &survey("", "", ""));
    assert_eq!((first.previous.as_deref(), first.previous_version.as_str()), (None, ""));
    let dangling = install(&settings("2", 3), &survey("1:1:ok", "", "1"));
    assert_eq!(dangling.previous, None);
}

#[test]
fn a_full_disk_is_told_before_anything_is_touched() {
    let mut full = survey("", "", "");
    full.free_kib = Some(3);
    assert_eq!(plan(&settings("1", 3), &full).unwrap_err().code, "disk-full");
    full.free_kib = Some(4);
    assert!(plan(&settings("1", 3), &full).is_ok());
}

#[test]
fn a_long_journal_is_shortened_but_forgets_no_folder() {
    let words: Vec<String> = (0..600).map(|number| format!("{number}:{number}:ok")).collect();
    let long = survey(&words.join(" "), "3 4 599", "599");
    let kept = install(&settings("new", 2), &long).shortened_journal.unwrap();
    assert_eq!(kept.len(), 101, "one hundred, and that of folder 4, which stays; folder 3 goes");
    assert!(kept[0].contains("\t4\tweb"));
    assert!(kept[100].contains("\t599\tweb"));
    let short = survey(&words[..100].join(" "), "3 4 99", "99");
    assert_eq!(install(&settings("new", 2), &short).shortened_journal, None);
}

#[test]
fn a_current_that_is_no_link_is_left_alone() {
    let error = Survey::parse("base /srv/web\nblocked\n").unwrap_err();
    assert!(error.message.contains("/srv/web/current"), "{error}");
    assert!(Survey::parse("sh: look: not found").is_err());
}
