//! Every form of error, as it is printed: for people, and the same for programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    thread,
};

use assert_cmd::Command;

/// What a command said to its standard error, and its exit code.
fn said(folder: &Path, env: &[(&str, &str)], arguments: &[&str]) -> (String, i32) {
    let mut command = Command::cargo_bin("windlass").unwrap();
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("NO_COLOR", "1").env("HOME", folder).env_remove("XDG_DATA_HOME");
    let ended = command.envs(env.iter().copied()).args(arguments).output().unwrap();
    (String::from_utf8(ended.stderr).unwrap(), ended.status.code().unwrap())
}

/// A server that gives each connection this answer, as it is.
fn server(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for link in listener.incoming() {
            let mut link = link.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(link.read(&mut byte), Ok(1)) {
                head.extend_from_slice(&byte);
            }
            // A client that has gone is no matter.
            let _ = link.write_all(answer.as_bytes());
        }
    });
    address
}

fn problem(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

const MISSING: &str = r#"{"type":"urn:windlass:problem:not-found","title":"Not Found","status":404,
    "detail":"there is no task 99","code":"not-found","fix":"windlass task list"}"#;
const MANY: &str = r#"{"type":"urn:windlass:problem:workspace","title":"Unprocessable Entity","status":422,
    "detail":"there is no environment tset (and 1 more)","code":"workspace","fix":"write test","errors":[
    {"at":"machines[0].environments[0]","detail":"E0201: there is no environment tset; write test"},
    {"at":"machines[1].roles[0]","detail":"E0105: the role \u001b[31mred is no name"}]}"#;
const SCRIPT: &str = r#"{"type":"urn:windlass:problem:script","title":"Unprocessable Entity","status":422,
    "detail":"nightly:1:5: expecting name of a variable\n   |\n 1 | let = 1\n   |     ^","code":"script",
    "fix":"correct the text at the caret"}"#;
const CONFLICT: &str = r#"{"type":"urn:windlass:problem:release-exists","title":"Conflict","status":409,
    "detail":"the release 1.0.0 of shop exists","code":"release-exists","fix":"choose another version"}"#;
const REFUSED: &str = r#"{"type":"urn:windlass:problem:unauthorized","title":"Unauthorized","status":401,
    "detail":"the token is not valid here","code":"unauthorized","fix":"set WINDLASS_TOKEN"}"#;

#[test]
fn every_form_of_error_says_what_where_why_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
    std::fs::create_dir(folder.path().join("bad")).unwrap();
    write("bad/project.yaml", "name: shop\n");
    write("bad/process.yaml", "steps:\n  - name: web\n    uses: run-script@1\n    rollin: { window: 2 }\n");
    write("bad.toml", "listen = \"127.0.0.1:0\"\nlog_fromat = \"json\"\n");
    write("empty-token", "\n");
    write("no.package", "x");
    // Nobody listens on a port that was just given back.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = [
        ("NOBODY", nobody),
        ("MISSING", server(problem("404 Not Found", MISSING))),
        ("MANY", server(problem("422 Unprocessable Entity", MANY))),
        ("SCRIPT", server(problem("422 Unprocessable Entity", SCRIPT))),
        ("CONFLICT", server(problem("409 Conflict", CONFLICT))),
        ("REFUSED", server(problem("401 Unauthorized", REFUSED))),
        ("FOREIGN", server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello".to_owned())),
    ]
    .map(|(name, address)| (name, format!("http://{address}")));
    // Server, command.
    let table: [(&str, &[&str]); 27] = [
        ("", &["deplyo", "shop"]),
        ("", &["deploy", "shop", "--enviroment", "test"]),
        ("", &["deploy", "shop"]),
        ("", &["deploy", "no good", "-e", "test"]),
        ("", &["deploy", "shop", "-e", "test", "--timeout", "soon"]),
        ("", &["task", "list", "--state", "happy"]),
        ("", &["machine", "add", "web1", "--ssh", "web1.example.org"]),
        ("", &["task", "list"]),
        ("", &["task", "list", "--token-file", "missing"]),
        ("", &["task", "list", "--token-file", "empty-token"]),
        ("", &["task", "list", "--server", "http://windlass.example.org"]),
        ("", &["task", "list", "--server", "windlass.example.org", "--token-file", "bad.toml"]),
        ("", &["serve", "--config", "bad.toml"]),
        ("", &["serve", "--config", "missing.toml"]),
        ("", &["validate", "bad", "--offline"]),
        ("", &["validate", "missing"]),
        ("", &["explain", "E9999"]),
        ("", &["package", "pack", "missing", "--id", "shop-web", "--version", "1.0.0"]),
        ("", &["package", "pack", "bad", "--id", "shop web", "--version", "1.0.0"]),
        ("NOBODY", &["package", "push", "no.package"]),
        ("NOBODY", &["task", "list"]),
        ("MISSING", &["task", "show", "99"]),
        ("MANY", &["environment", "list"]),
        ("SCRIPT", &["environment", "list"]),
        ("CONFLICT", &["release", "create", "shop"]),
        ("REFUSED", &["task", "list"]),
        ("FOREIGN", &["task", "list"]),
    ];
    let mut told = String::new();
    for (server, arguments) in table {
        let url = urls.iter().find(|(name, _)| *name == server).map(|(_, url)| url.as_str());
        let env: Vec<_> =
            url.map(|url| [("WINDLASS_URL", url), ("WINDLASS_TOKEN", "wl_1")]).into_iter().flatten().collect();
        let (mut error, code) = said(folder.path(), &env, arguments);
        assert!(!error.contains('\u{1b}') && !error.contains("wl_1"), "{error}");
        // Programs get the same words.
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(
            &said(folder.path(), &env, &[arguments, &["-o", "json"]].concat()).0,
        ) {
            let failure = &json["error"];
            assert_eq!(failure["exit"], code, "{arguments:?}");
            let message = failure["message"].as_str().unwrap().lines().next().unwrap();
            assert!(error.contains(message) || failure["diagnostics"].is_array(), "{message} is not in {error}");
        }
        for (name, url) in &urls {
            error = error.replace(url, &format!("http://{name}"));
        }
        let error = error.replace(folder.path().to_str().unwrap(), "FOLDER");
        let server = if server.is_empty() { String::new() } else { format!("    # {server}") };
        told.push_str(&format!("$ windlass {}{server}\n{error}exit {code}\n\n", arguments.join(" ")));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_link_that_breaks_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", server("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned()));
    let (error, code) = said(folder.path(), &[("WINDLASS_URL", &url), ("WINDLASS_TOKEN", "wl_1")], &["task", "list"]);
    assert_eq!(code, 69);
    assert!(error.starts_with("error[connection-broken]: the connection to http://127.0.0.1:"), "{error}");
    assert!(error.contains("  fix:   check the link and the server's log, then ask again\n"), "{error}");
}
