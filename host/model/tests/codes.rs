//! Every code has an example, and the text that people see for it is a snapshot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{collections::BTreeSet, io};

use windlass_model::{
    Manifest, PackageId,
    codes::Code,
    diagnostic::render,
    files::{Entry, Source, gather, read},
    validate::Known,
};

/// A workspace in one text: `-- path` before each file.
struct Example(Vec<(String, String)>);

impl Example {
    fn parse(text: &str) -> Self {
        let parts = text.strip_prefix("-- ").unwrap().split("\n-- ");
        Self(
            parts
                .map(|part| {
                    let (path, text) = part.split_once('\n').unwrap();
                    (path.to_owned(), format!("{text}\n"))
                })
                .collect(),
        )
    }
}

impl Source for Example {
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let below = |path: &str| match folder {
            "" => Some(path.to_owned()),
            folder => path.strip_prefix(&format!("{folder}/")).map(str::to_owned),
        };
        let entries: BTreeSet<(String, bool)> = self
            .0
            .iter()
            .filter_map(|(path, _)| below(path))
            .map(|path| match path.split_once('/') {
                Some((name, _)) => (name.to_owned(), true),
                None => (path, false),
            })
            .collect();
        Ok(entries.into_iter().map(|(name, folder)| Entry { name, folder }).collect())
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let found = self.0.iter().find(|(name, _)| name == path);
        found.map(|(_, text)| text.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn env(&self, name: &str) -> Option<String> {
        match name {
            "LONG" => Some("long-enough".into()),
            "SHORT" => Some("abc\n".into()),
            _ => None,
        }
    }
}

fn known() -> Known {
    let manifests = [
        r#"{"id":"deploy-package","version":"1.2.0","title":"Deploy a package","inputs":[
            {"name":"package","type":"package","required":true,"description":"what to deploy"},
            {"name":"keep","type":"integer"},{"name":"directory"},{"name":"substitute","type":"list"}]}"#,
        r#"{"id":"run-script","version":"1.0.0","title":"Run a script","inputs":[
            {"name":"script","required":true},{"name":"interpreter","enum":["sh","bash","python"]}]}"#,
        r#"{"id":"http-check","version":"1.0.0","title":"Check by HTTP","runs_on":"anywhere","inputs":[
            {"name":"url","required":true,"description":"address to ask"},
            {"name":"expect_status","type":"integer"},{"name":"follow","type":"boolean"}]}"#,
    ];
    let manifests = manifests.map(|text| serde_json::from_str::<Manifest>(text).unwrap());
    Known {
        manifests: Some(manifests.into()),
        packages: Some(vec![PackageId::new("shop-web").unwrap()]),
        ..Known::default()
    }
}

#[test]
fn every_code_has_an_example_that_shows_it() {
    let mut wrong = Vec::new();
    for code in Code::ALL {
        let path = format!("{}/tests/codes/{code}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{path} is missing"));
        let example = Example::parse(text.trim_end());
        let (files, mut diagnostics) = gather(&example);
        let mut loaded = read(&files);
        loaded.validate(&known());
        loaded.read_secrets(&example);
        diagnostics.append(&mut loaded.diagnostics);
        let all = render(&diagnostics);
        if !diagnostics.iter().any(|d| d.code == *code) {
            wrong.push(format!("{code} is not shown by its example:\n{all}"));
        }
        if diagnostics.iter().any(|d| d.code != *code) {
            wrong.push(format!("{code} is not alone in its example:\n{all}"));
        }
        if diagnostics.iter().any(|d| d.fix.is_empty()) {
            wrong.push(format!("{code} has no fix:\n{all}"));
        }
        let shown = format!("{}\n{}\n", all, code.explanation());
        insta::assert_snapshot!(code.as_str(), shown);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn codes_are_read_back_from_their_text() {
    for code in Code::ALL {
        assert_eq!(code.as_str().to_lowercase().parse::<Code>(), Ok(*code));
        assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        assert!(!code.title().is_empty());
    }
    assert!("E9999".parse::<Code>().is_err());
}
