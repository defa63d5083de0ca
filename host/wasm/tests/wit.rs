//! The contract under `wit/` may grow but not change: every line that was released is still there, in its place.
//!
//! `wit/RELEASED` lists the released lines. Comments do not count. How to add to the contract is in
//! `wit/VERSIONING.md`; `WINDLASS_RELEASE_WIT=1` lets this test write down what was added.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{collections::BTreeSet, fs, path::PathBuf};

const HEAD: &str = "\
# Every line of the contract that was released: a line here is for ever (wit/VERSIONING.md).
# Written by `WINDLASS_RELEASE_WIT=1 cargo test -p windlass-wasm --test wit`, which only ever adds lines.
";

/// What may not even grow: types that are compared as a whole, and what plugins export.
const CLOSED: [&str; 8] = [
    "record ",
    "enum ",
    "variant ",
    "flags ",
    "interface run",
    "interface validate",
    "interface plan",
    "interface undo",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../wit")
}

/// All statements of the contract, each with the scopes it stands in. Patch versions do not count: they may rise.
fn statements() -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(folder().join("deps")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(folder().join("step.wit"));
    files.sort();
    files.iter().flat_map(|file| statements_of(&fs::read_to_string(file).unwrap())).collect()
}

fn statements_of(text: &str) -> Vec<String> {
    let mut scopes: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        let line = line.replace("@0.1.", "@0.1·");
        let line = line.split('·').enumerate().fold(String::new(), |all, (at, part)| {
            all + if at == 0 { part } else { part.trim_start_matches(|c: char| c.is_ascii_digit()) }
        });
        match line.as_str() {
            "" => {}
            "}" => drop(scopes.pop()),
            _ => {
                found.push(scopes.iter().cloned().chain([line.clone()]).collect::<Vec<_>>().join(" > "));
                if line.starts_with("package ") {
                    scopes.push(line.trim_end_matches(';').to_owned());
                } else if line.ends_with('{') {
                    scopes.push(line.trim_end_matches([' ', '{']).to_owned());
                }
            }
        }
    }
    found
}

fn closed(statement: &str) -> bool {
    let mut scopes: Vec<_> = statement.split(" > ").collect();
    scopes.pop();
    scopes.iter().any(|scope| {
        CLOSED.iter().any(|closed| if closed.ends_with(' ') { scope.starts_with(closed) } else { scope == closed })
    })
}

/// What is wrong with the contract as it is now, and what was added to it.
fn compare(released: &BTreeSet<String>, now: &[String]) -> (Vec<String>, Vec<String>) {
    let present: BTreeSet<_> = now.iter().collect();
    let gone = released.iter().filter(|line| !present.contains(line)).map(|line| {
        format!(
            "released, but changed or gone: {line}\n  put it back; to break with it, add a package of a higher version"
        )
    });
    let added: Vec<_> = now.iter().filter(|line| !released.contains(*line)).cloned().collect();
    // A new type may have fields; an old one may not get any.
    let grown = added.iter().filter(|line| closed(line)).filter_map(|line| {
        let scope = line.rsplit_once(" > ")?.0;
        let known = released.iter().any(|released| released.trim_end_matches([' ', '{']) == scope);
        known.then(|| {
            format!("added to something that is closed: {line}\n  make a new function, method or interface instead")
        })
    });
    (gone.chain(grown).collect(), added)
}

#[test]
fn released_lines_do_not_change() {
    let path = folder().join("RELEASED");
    let released: BTreeSet<String> = fs::read_to_string(&path)
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let now = statements();
    let (wrong, added) = compare(&released, &now);
    assert!(wrong.is_empty(), "the contract broke with compiled plugins:\n{}", wrong.join("\n"));
    if std::env::var_os("WINDLASS_RELEASE_WIT").is_some() {
        fs::write(&path, format!("{HEAD}{}\n", now.join("\n"))).unwrap();
    } else {
        assert!(
            added.is_empty(),
            "not released yet:\n{}\nif this is meant for ever, run\n  \
             WINDLASS_RELEASE_WIT=1 cargo test -p windlass-wasm --test wit",
            added.join("\n")
        );
    }
}

#[test]
fn what_breaks_a_plugin_is_noticed_and_what_does_not_is_allowed() {
    let old = "package a:b@0.1.0;\ninterface i {\n  record r {\n    x: u32,\n  }\n  f: func(v: r);\n}\n";
    let released: BTreeSet<_> = statements_of(old).into_iter().collect();
    let table = [
        ("the same", old.to_owned(), 0),
        ("a comment", old.replace("  f:", "  /// New words.\n  f:"), 0),
        ("a patch version", old.replace("0.1.0", "0.1.3"), 0),
        ("a new function", old.replace("  f:", "  g: func();\n  f:"), 0),
        ("a new record", old.replace("  f:", "  record s {\n    y: u32,\n  }\n  f:"), 0),
        ("a new field", old.replace("    x:", "    y: u32,\n    x:"), 1),
        ("a field of another type", old.replace("x: u32", "x: u64"), 2),
        ("a function gone", old.replace("  f: func(v: r);\n", ""), 1),
        ("a parameter more", old.replace("(v: r)", "(v: r, w: r)"), 1),
        ("another minor version", old.replace("0.1.0", "0.2.0"), 5),
    ];
    for (name, text, wrong) in table {
        let found = compare(&released, &statements_of(&text)).0;
        assert_eq!(found.len(), wrong, "{name}: {found:#?}");
    }
}

#[test]
fn everything_is_documented() {
    for entry in
        fs::read_dir(folder().join("deps")).unwrap().map(|e| e.unwrap().path()).chain([folder().join("step.wit")])
    {
        let text = fs::read_to_string(&entry).unwrap();
        let mut documented = false;
        for (number, line) in text.lines().map(str::trim).enumerate() {
            let plain = ["", "}"].contains(&line) || line.starts_with("use ");
            let in_world = line.starts_with("import ") || line.starts_with("export ") || line.starts_with("include ");
            if !plain && !in_world && !line.starts_with("///") {
                assert!(documented, "{}:{}: {line} has no documentation", entry.display(), number + 1);
            }
            documented = line.starts_with("///");
        }
    }
}
