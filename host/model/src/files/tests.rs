//! Reading: that files and API say the same, what layouts there are, and that nothing breaks it.

use proptest::prelude::*;

use super::*;
use crate::{
    codes::Code,
    diagnostic::render,
    machine::{Environment, Machine},
    process::{Process, StartTrigger},
    variable::Scope,
};

fn files(list: &[(&str, &str)]) -> Vec<File> {
    list.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
}

fn good(list: &[(&str, &str)]) -> Workspace {
    let loaded = read(&files(list));
    assert!(loaded.is_good(), "{}", render(&loaded.diagnostics));
    loaded.workspace
}

fn codes(list: &[(&str, &str)]) -> Vec<Code> {
    let mut loaded = read(&files(list));
    loaded.validate(&Known::default());
    loaded.diagnostics.iter().map(|d| d.code).collect()
}

/// Every key of every type, so that a key missing on either side shows.
const EVERYTHING: &str = r##"{
  "environments": [{ "name": "test", "description": "for trying" }],
  "machines": [
    { "name": "m1", "environments": ["test"], "roles": ["web"], "pools": ["build"], "disabled": true,
      "connection": { "ssh": { "host": "h", "port": 2222, "user": "u", "auth": { "key-file": { "path": "k", "passphrase_env": "P" } },
        "host_key": "SHA256:x", "home": "/w" } } },
    { "name": "m2", "connection": { "ssh": { "host": "h", "user": "u", "auth": "agent" } } },
    { "name": "m3", "connection": { "ssh": { "host": "h", "user": "u", "auth": { "password": { "env": "P" } } } } },
    { "name": "m4", "connection": { "local": { "home": "/w" } } }
  ],
  "process": { "steps": [
    { "name": "a", "uses": "run-script@1", "on": { "role": "web" }, "start": "after-previous", "when": "always",
      "with": { "text": "x", "number": 1, "flag": true, "list": ["a"], "map": { "k": "v" } },
      "rolling": { "window": 2 }, "environments": ["test"], "timeout_seconds": 60, "disabled": true,
      "retries": 3, "retry_after_seconds": 5, "required": true, "isolation": "shared", "hold": "deployment" },
    { "name": "b", "uses": "run-script@1", "on": { "machine": "m1" }, "start": "with-previous", "when": "failure" },
    { "name": "c", "uses": "run-script@1", "on": { "pool": "build" }, "when": "success", "if": "#{A}" },
    { "name": "d", "approval": { "instructions": "look", "responsible": ["anna"], "expires_after_seconds": 60,
      "on_expiry": "proceed", "block_concurrent": true } },
    { "name": "e", "on": { "role": "web" }, "steps": [
      { "name": "f", "uses": "run-script@1", "locks": [
        { "resource": "iis", "mode": "shared", "scope": "step", "units": 1, "of": 3 }] } ] }
  ], "guided": true, "max_parallelism": 3, "max_runs": 4, "max_acquisitions": 5, "unavailable": "exclude",
    "on_deadlock": "ask", "lock_wait_seconds": 60, "isolation": "exclusive", "priority": "high", "supersede": true,
    "concurrency_tag": "#{Project.Name}" },
  "project": { "name": "shop", "description": "sells" }
}"##;

#[test]
fn the_files_say_what_the_api_says() {
    let all: serde_json::Value = serde_json::from_str(EVERYTHING).unwrap();
    // JSON is YAML: the same text is read by both.
    let list = |key: &str| serde_json::json!({ key: all[key] }).to_string();
    let workspace = good(&[
        ("environments.yaml", &list("environments")),
        ("machines.yaml", &list("machines")),
        ("shop/project.yaml", &all["project"].to_string()),
        ("shop/process.yaml", &all["process"].to_string()),
    ]);
    let environments: Vec<Environment> = serde_json::from_value(all["environments"].clone()).unwrap();
    let machines: Vec<Machine> = serde_json::from_value(all["machines"].clone()).unwrap();
    let process: Process = serde_json::from_value(all["process"].clone()).unwrap();
    assert_eq!(workspace.environments, environments);
    assert_eq!(workspace.machines, machines);
    assert_eq!(workspace.projects[0].process, process);
    assert_eq!(workspace.projects[0].project.description, "sells");
}

#[test]
fn every_key_that_the_schema_knows_can_be_written() {
    let written: serde_json::Value = serde_json::from_str(EVERYTHING).unwrap();
    let written = written.to_string();
    for kind in crate::schema::FileKind::ALL {
        if kind == crate::schema::FileKind::Variables {
            continue;
        }
        let schema = crate::schema::schema(kind, &[]);
        for key in keys(&schema) {
            let quoted = format!("\"{key}\":");
            assert!(written.contains(&quoted), "{kind:?} has a key {key}");
        }
    }
}

/// Names under every `properties` of a schema.
fn keys(schema: &serde_json::Value) -> Vec<String> {
    let mut found = Vec::new();
    match schema {
        serde_json::Value::Object(entries) => {
            for (name, value) in entries {
                if name == "properties" {
                    found.extend(value.as_object().unwrap().keys().cloned());
                }
                found.extend(keys(value));
            }
        }
        serde_json::Value::Array(items) => found.extend(items.iter().flat_map(keys)),
        _ => {}
    }
    found
}

#[test]
fn the_example_of_the_documentation_is_read() {
    let workspace = good(&[
        ("project.yaml", "name: shop"),
        (
            "process.yaml",
            r##"
# process.yaml
steps:
  - name: database
    uses: sql-migrate@1
    on: { pool: database-workers }
    with: { package: shop-db, connection: "#{Database.Url}" }
  - name: web
    uses: deploy-package@1
    on: { role: web }
    rolling: { window: 2 }
    with: { package: shop-web }
  - name: smoke
    uses: http-check@1
    start: with-previous
    with: { url: "http://#{Machine.Host}:8080/health" }
"##,
        ),
    ]);
    let steps = &workspace.projects[0].process.steps;
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[1].rolling.map(|r| r.window), Some(2));
    assert_eq!(steps[2].start, StartTrigger::WithPrevious);
}

#[test]
fn child_steps_are_numbered_behind_their_parent() {
    let workspace = good(&[
        ("project.yaml", "name: shop"),
        (
            "process.yaml",
            r#"
steps:
  - { name: a, uses: x@1 }
  - name: b
    on: { role: web }
    steps: [{ name: c, uses: x@1 }, { name: d, uses: x@1 }]
  - { name: e, approval: { instructions: Look. } }
"#,
        ),
    ]);
    let process = &workspace.projects[0].process;
    let told: Vec<_> = process.all_steps().map(|step| (step.step.name.to_string(), step.does(), step.place)).collect();
    let expected = [
        ("a", "x@1", (0, None)),
        ("b", "steps", (1, None)),
        ("c", "x@1", (1, Some(0))),
        ("d", "x@1", (1, Some(1))),
        ("e", "approval", (2, None)),
    ];
    assert_eq!(told, expected.map(|(name, does, place)| (name.to_owned(), does.to_owned(), place)));
    assert_eq!(process.step(3).and_then(|step| step.on().cloned()), process.steps[1].on);
    assert!(process.step(5).is_none());
}

#[test]
fn outputs_of_earlier_children_are_read_by_later_ones() {
    let process = |child: &str| {
        format!(
            "steps:\n  - {{ name: a, uses: x@1, with: {{ t: '{child}' }} }}\n  - name: b\n    steps:\n      \
             - {{ name: c, uses: x@1, with: {{ t: '#{{Step[a].Output.O}}' }} }}\n      \
             - {{ name: d, uses: x@1, with: {{ t: '#{{Step[c].Output.O}}' }}, if: '#{{Step[e].Output.O}}' }}\n  \
             - {{ name: e, start: with-previous, uses: x@1, with: {{ t: '#{{Step[c].Output.O}}' }} }}\n"
        )
    };
    // Of d its condition, and of e, which starts together with b, what c puts out.
    assert_eq!(codes(&[("project.yaml", "name: p"), ("process.yaml", &process("text"))]), [Code::E0208, Code::E0208]);
    assert_eq!(codes(&[("project.yaml", "name: p"), ("process.yaml", &process("#{Step[c].Output.O}"))]).len(), 3);
}

#[test]
fn values_are_the_text_that_was_written() {
    let text = r#"
variables:
  - { name: A, value: 1.10 }
  - { name: B, value: no }
  - { name: C, value: 007 }
  - { name: D, value: true }
  - name: E
    value: |
      one
      two
  - { name: F, value: "", scope: { environments: [x], roles: [r], machines: [m], steps: [s] } }
  - { name: "Servers[a].Name", value: 0x10 }
"#;
    let workspace = good(&[("project.yaml", "name: p"), ("process.yaml", "steps: []"), ("variables.yaml", text)]);
    let variables = &workspace.projects[0].variables;
    let values: Vec<_> = variables
        .iter()
        .map(|v| match &v.value {
            VariableValue::Text(text) => text.as_str(),
            VariableValue::Secret(_) => "?",
        })
        .collect();
    assert_eq!(values, ["1.10", "no", "007", "true", "one\ntwo\n", "", "0x10"]);
    let named = |text: &str| vec![text.to_owned()];
    let scope: Scope = serde_json::from_value(serde_json::json!({
        "environments": named("x"), "roles": named("r"), "machines": named("m"), "steps": named("s")
    }))
    .unwrap();
    assert_eq!(variables[5].scope, scope);
}

#[test]
fn layouts() {
    let project = |folder: &str| {
        vec![
            (format!("{folder}project.yaml"), "name: p".to_owned()),
            (format!("{folder}process.yaml"), "steps: []".to_owned()),
        ]
    };
    let count = |list: Vec<(String, String)>| {
        let files: Vec<File> = list.into_iter().map(|(path, text)| File { path, text }).collect();
        let loaded = read(&files);
        assert!(loaded.is_good(), "{}", render(&loaded.diagnostics));
        loaded.workspace.projects.len()
    };
    assert_eq!(count(project("")), 1);
    assert_eq!(count(project("shop/")), 1);
    assert_eq!(count([project("shop/"), project("blog/")].concat()), 2);
    assert_eq!(count(vec![("environments.yaml".into(), String::new())]), 0);
    // Environments belong to the whole workspace: a copy in a project folder is no such file.
    assert_eq!(count([project("a/"), vec![("a/environments.yaml".into(), "x".into())]].concat()), 1);
}

#[test]
fn secrets_are_never_in_the_file_and_never_shown() {
    let list = [
        ("project.yaml", "name: p"),
        ("process.yaml", "steps: []"),
        ("variables.yaml", "variables:\n  - { name: P, secret: hunter22 }\n"),
    ];
    let loaded = read(&files(&list));
    let text = render(&loaded.diagnostics);
    assert!(text.contains("a secret is never written into the file"), "{text}");
    assert!(!text.contains("hunter22"), "{text}");
    assert!(!serde_json::to_string(&loaded.diagnostics).unwrap().contains("hunter22"));
}

#[test]
fn names_are_only_checked_where_they_are_known() {
    let scoped =
        "variables: [{ name: A, value: a, scope: { environments: [nowhere], machines: [none], roles: [none] } }]";
    let project =
        [("p/project.yaml", "name: p"), ("p/process.yaml", "steps: [{ name: s, uses: x@1, with: { unknown: 1 } }]")];
    let offline = [project.as_slice(), &[("p/variables.yaml", scoped)]].concat();
    assert_eq!(codes(&offline), []);
    let alone =
        [offline.as_slice(), &[("environments.yaml", "environments: []"), ("machines.yaml", "machines: []")]].concat();
    assert_eq!(codes(&alone), [Code::E0201, Code::E0202, Code::W0203]);
    let mut loaded = read(&files(&alone));
    loaded.validate(&Known {
        environments: Some(vec!["Nowhere".parse().unwrap()]),
        machines: Some(vec![
            serde_json::from_str(
                r#"{"name":"none","roles":["none"],"environments":["nowhere"],"connection":{"local":{}}}"#,
            )
            .unwrap(),
        ]),
        ..Known::default()
    });
    assert!(loaded.diagnostics.is_empty(), "{}", render(&loaded.diagnostics));
}

#[test]
fn what_came_without_files_is_told_by_its_path() {
    let workspace: Workspace = serde_json::from_value(serde_json::json!({
        "environments": [{ "name": "a" }, { "name": "A" }],
        "projects": [{ "project": { "name": "p" }, "process": { "steps": [
            { "name": "s", "uses": "x@1", "rolling": { "window": 0 }, "with": { "a": ["#{"] } }
        ] } }],
    }))
    .unwrap();
    let diagnostics = validate(&workspace, &Places::default(), &Known::default());
    let places: Vec<_> = diagnostics.iter().map(|d| (d.code, d.place())).collect();
    assert_eq!(
        places,
        [
            (Code::E0206, "environments[1].name".to_owned()),
            (Code::E0109, "projects[0].process.steps[0].rolling.window".to_owned()),
            (Code::E0402, "projects[0].process.steps[0].with.a[0]".to_owned()),
        ]
    );
}

#[test]
fn control_characters_of_a_file_never_reach_the_terminal() {
    let text = "environments:\n  - name: \"a\u{1b}[31mb\"\n    x\u{7}y: 1\n";
    let loaded = read(&files(&[("environments.yaml", text)]));
    let shown = render(&loaded.diagnostics);
    assert!(!loaded.is_good());
    assert!(shown.chars().all(|c| !c.is_control() || c == '\n'), "{shown:?}");
}

#[test]
fn hostile_files_are_refused_in_time_and_without_overflow() {
    let million = 1 << 20;
    let bomb = {
        let mut text = String::from("environments:\n  - &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("  - &a{level} [{refs}]\n"));
        }
        text
    };
    for text in [
        "[".repeat(million),
        "{a: ".repeat(million / 4),
        "- ".repeat(million / 2),
        "? ".repeat(million / 2),
        "a:\n".repeat(million / 3),
        format!("environments: [{}]", "x,".repeat(200_000)),
        format!("environments: {}", "x".repeat(million)),
        "environments: &a [*a]".to_owned(),
        "\u{0}\u{1}\u{feff}".to_owned(),
        bomb,
    ] {
        let loaded = read(&files(&[("environments.yaml", &text)]));
        assert!(!loaded.is_good(), "{}", &text[..text.len().min(40)]);
        for diagnostic in &loaded.diagnostics {
            assert!(diagnostic.to_string().len() < 4000);
        }
    }
}

#[test]
fn a_file_with_nothing_but_mistakes_is_told_of_in_time_and_only_so_far() {
    let unknown: String = (0..40_000).map(|i| format!("k{i}: 1\n")).collect();
    let loaded = read(&files(&[("environments.yaml", &unknown)]));
    assert_eq!(loaded.diagnostics.len(), crate::diagnostic::MAX_DIAGNOSTICS);
    let variables: String = (0..15_000).map(|i| format!("  - {{ name: v{i}, value: '#{{w{i}}}' }}\n")).collect();
    let mut loaded = read(&files(&[
        ("project.yaml", "name: p"),
        ("process.yaml", "steps: []"),
        ("variables.yaml", &format!("variables:\n{variables}  - {{ name: Machine.Name, value: x }}\n")),
    ]));
    loaded.validate(&Known::default());
    let warnings = loaded.diagnostics.iter().filter(|d| !d.is_error()).count();
    assert_eq!(warnings, crate::diagnostic::MAX_DIAGNOSTICS);
    // The one error stands behind all the warnings, and is told all the same.
    assert_eq!(loaded.diagnostics.last().map(|d| d.code), Some(Code::E0407));
    assert_eq!(crate::diff::diff(&loaded.workspace, &loaded.workspace).unchanged, 15_002);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        for name in FILE_NAMES {
            let loaded = read(&files(&[(name, &text)]));
            let _ = render(&loaded.diagnostics);
        }
    }

    #[test]
    fn nearly_yaml_is_read_or_refused(
        text in "(steps:|name:|uses:|with:|variables:|value:|secret:|scope:|machines:|connection:|on:| |\n|  - |- |\\{|\\}|\\[|\\]|,|\"|'|&a|\\*a|#|!x|a@1|\\||>|1|true|\t|: ){0,50}"
    ) {
        let list: Vec<(&str, &str)> = FILE_NAMES.iter().map(|name| (*name, text.as_str())).collect();
        let mut loaded = read(&files(&list));
        loaded.validate(&Known { manifests: Some(Vec::new()), ..Known::default() });
        let _ = render(&loaded.diagnostics);
    }
}
