//! Uploads that are broken, or are no packages: refused with a fix, and nothing of them stays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use windlass_tests::{
    server::Server,
    shop::{self, Anything},
    site::Site,
};

/// Sends a request byte for byte and nothing after it, and gives what is answered.
fn raw(server: &Server, request: &[u8]) -> Anything<String> {
    let mut link = TcpStream::connect(server.url().trim_start_matches("http://"))?;
    link.set_read_timeout(Some(Duration::from_secs(60)))?;
    link.write_all(request)?;
    link.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    link.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn put(server: &Server, length: usize, digest: Option<&str>, body: &[u8]) -> Vec<u8> {
    let digest = digest.map(|digest| format!("X-Content-SHA256: {digest}\r\n")).unwrap_or_default();
    let head = format!(
        "PUT /api/v1/packages/shop-web.1.0.0.tar.gz HTTP/1.1\r\nHost: windlass\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {length}\r\n{digest}Connection: close\r\n\r\n",
        server.token(),
    );
    [head.as_bytes(), body].concat()
}

/// Files below a folder, with their sizes.
fn files_below(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files_below(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_uploads_are_refused_and_leave_nothing() -> Anything<()> {
    let server = Server::start().await?;
    let archive = shop::archive(&[("hello", "hello\n")])?;
    let half = &archive[..archive.len() / 2];
    let wrong = "0".repeat(64);
    let packages = server.data().join("packages");
    let before = files_below(&packages);
    let cases: [(&str, Vec<u8>, &[&str]); 4] = [
        (
            "fewer bytes than announced",
            put(&server, archive.len(), None, half),
            &[" 400 ", "upload-broken", "broke off after", "push it again"],
        ),
        (
            "another digest than announced",
            put(&server, archive.len(), Some(&wrong), &archive),
            &[" 422 ", "0000 was announced", "push it again"],
        ),
        ("half an archive", put(&server, half.len(), None, half), &[" 422 ", "shop-web.1.0.0.tar.gz"]),
        ("no digest at all", put(&server, archive.len(), Some("abc"), &archive), &[" 422 ", "sha256sum"]),
    ];
    for (what, request, said) in cases {
        // Whoever sends no more can still hear why it was not taken.
        let answer = raw(&server, &request)?;
        assert!(!answer.contains(" 201 "), "{what} was taken: {answer}");
        for part in said {
            assert!(answer.contains(part), "to {what} it does not say {part:?} but\n{answer}");
        }
        assert!(server.client()?.packages().await?.is_empty(), "{what} left a package");
        assert_eq!(files_below(&packages), before, "{what} left files");
    }
    // The version is free still.
    let answer = raw(&server, &put(&server, archive.len(), None, &archive))?;
    assert!(answer.contains(" 201 "), "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_what_is_no_package_or_is_there_already_is_refused_with_a_fix() -> Anything<()> {
    let site = Site::new(0, "  - { name: s, uses: run-script@1, on: { role: web }, with: { script: date } }\n").await?;
    site.push("1.0.0", &[("hello", "hello\n")])?;
    let before = site.server.catalog().await?;
    let cases = [
        (site.write("shop-web.zip", "x")?, 1, "fix:   name it like shop-web.1.4.0.zip"),
        (site.write("shop-web.2.0.0.tar.gz", "no archive")?, 1, "shop-web.2.0.0.tar.gz"),
        (site.write("shop-web.1.0.0.tar.gz", "other bytes")?, 8, "--if-exists replace"),
    ];
    for (file, code, said) in cases {
        let ended = site.server.cli(&["package", "push", &file.display().to_string()])?;
        assert_eq!(ended.code, code, "{ended:#?}");
        assert!(ended.err.contains(said), "no {said:?} in {}", ended.err);
    }
    assert_eq!(site.server.catalog().await?, before);
    Ok(())
}
