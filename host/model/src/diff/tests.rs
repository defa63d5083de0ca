//! What is said of a change, and what never is.

use super::*;
use crate::files::{File, read};

/// A workspace from files written `path: text` with `---` lines between them.
fn workspace(text: &str) -> Workspace {
    let files: Vec<File> = text
        .split("---\n")
        .map(|part| {
            let (path, text) = part.split_once('\n').unwrap();
            File { path: path.into(), text: text.into() }
        })
        .collect();
    let loaded = read(&files);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    loaded.workspace
}

const BEFORE: &str = r#"environments.yaml
environments: [{ name: test }, { name: old }]
---
machines.yaml
machines:
  - { name: web1, roles: [web], environments: [test], connection: { ssh: { host: a, user: u } } }
  - { name: web2, roles: [web], connection: { local: {} } }
---
shop/project.yaml
name: shop
---
shop/process.yaml
steps:
  - { name: database, uses: sql-migrate@1, with: { package: db } }
  - { name: web, uses: deploy-package@1, on: { role: web }, with: { package: shop-web, keep: 3 } }
  - { name: check, uses: http-check@1 }
---
shop/variables.yaml
variables:
  - { name: Url, value: "http://a" }
  - { name: Url, value: "http://b", scope: { environments: [test] } }
  - { name: Gone, value: x }
"#;

const AFTER: &str = r#"environments.yaml
environments: [{ name: test, description: for trying }, { name: prod }]
---
machines.yaml
machines:
  - { name: WEB1, roles: [web, cache], environments: [test], connection: { ssh: { host: a, user: u } } }
  - { name: web2, roles: [web], connection: { local: {} } }
---
shop/project.yaml
name: shop
---
shop/process.yaml
steps:
  - { name: web, uses: deploy-package@1, on: { role: web }, rolling: { window: 2 }, with: { package: shop-site } }
  - { name: database, uses: sql-migrate@1, with: { package: db } }
  - { name: smoke, uses: http-check@1 }
---
shop/variables.yaml
variables:
  - { name: url, value: "http://a" }
  - { name: Url, value: "http://c", scope: { environments: [test] } }
  - { name: New, value: x, scope: { roles: [web] } }
"#;

#[test]
fn every_kind_of_change_has_its_line() {
    let (before, after) = (workspace(BEFORE), workspace(AFTER));
    insta::assert_snapshot!(diff(&before, &after));
}

#[test]
fn nothing_changes_when_a_state_is_applied_to_itself() {
    for text in [BEFORE, AFTER] {
        let state = workspace(text);
        assert_eq!(state.with(&state), state);
        assert_eq!(diff(&state, &state).changes, []);
        assert_eq!(diff(&Workspace::default(), &state).unchanged, 0);
    }
}

#[test]
fn what_the_files_do_not_name_stays() {
    let before = workspace(BEFORE);
    let after = before.with(&workspace("environments.yaml\nenvironments: [{ name: prod }]\n"));
    assert_eq!(diff(&before, &after).to_string(), "+ environment prod\nunchanged: 11");
}

#[test]
fn a_trusted_host_key_outlives_files_without_one_but_not_a_new_address() {
    let machine = |host: &str, key: Option<&str>| {
        let mut workspace = workspace(&format!(
            "machines.yaml\nmachines: [{{ name: m, connection: {{ ssh: {{ host: {host}, user: u }} }} }}]\n"
        ));
        if let Connection::Ssh { host_key, .. } = &mut workspace.machines[0].connection {
            *host_key = key.map(str::to_owned);
        }
        workspace
    };
    let trusted = machine("a", Some("SHA256:x"));
    for (files, kept) in
        [(machine("a", None), true), (machine("b", None), false), (machine("a", Some("SHA256:y")), false)]
    {
        assert_eq!(trusted.with(&files) == trusted, kept);
    }
}

#[test]
fn of_a_secret_only_the_change_is_told() {
    let secret = |text: &str| VariableValue::Secret(crate::SecretText::new(text));
    let state = |value: VariableValue| {
        let mut state = workspace(BEFORE);
        state.projects[0].variables[0].value = value;
        state
    };
    let report = diff(&state(secret("hush-hush")), &state(secret("other-one")));
    assert_eq!(report.changes[0].to_string(), "~ variable Url of shop: secret changed");
    let report = diff(&state(VariableValue::Text("x".into())), &state(secret("hush-hush")));
    assert_eq!(report.changes[0].to_string(), "~ variable Url of shop: value \"x\" → a secret");
    assert!(!serde_json::to_string(&report).unwrap().contains("hush"));
}

#[test]
fn child_steps_and_what_holds_for_all_steps_are_told_line_by_line() {
    let state =
        |process: &str| workspace(&format!("shop/project.yaml\nname: shop\n---\nshop/process.yaml\n{process}\n"));
    let step = |name: &str| format!("{{ name: {name}, uses: x@1 }}");
    let before = state(&format!("steps: [{{ name: web, on: {{ role: web }}, steps: [{}] }}]", step("drain")));
    let after = state(&format!(
        "guided: true\nmax_runs: 4\nsteps: [{{ name: web, on: {{ role: web }}, steps: [{}, {{ name: drain, uses: x@1, retries: 2 }}] }}]",
        step("install")
    ));
    let lines: Vec<_> = diff(&before, &after).changes.iter().map(ToString::to_string).collect();
    let expected = [
        "~ process of shop: guided true (new); max_runs 4 (new)",
        "~ step web of shop: steps [\"drain\"] → [\"install\", \"drain\"]",
        "+ step install of shop",
        "~ step drain of shop: retries 2 (new)",
    ];
    assert_eq!(lines, expected);
    assert!(diff(&after, &after).changes.is_empty());
}
