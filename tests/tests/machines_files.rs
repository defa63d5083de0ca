//! Files to and from machines: whole or not at all.

// A test may fail at any line; its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use windlass_machines::{
    CancelToken, CommandSpec, Config, Endpoint, FileSpec, Interpreter, LocalEndpoint, MachineError, Machines,
    MemorySink, Ticket,
};
use windlass_tests::sshd::{Options, Sshd};

fn spec(path: &Path, bytes: &[u8]) -> FileSpec {
    FileSpec {
        path: path.display().to_string(),
        size: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(bytes)),
        mode: 0o640,
        sync: true,
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_go_there_and_back_unchanged() {
    let sshd = Sshd::start().unwrap();
    let local_home = tempfile::tempdir().unwrap();
    let local = Endpoint::Local(LocalEndpoint { home: Some(local_home.path().display().to_string()) });
    let pool = Machines::new(Config::default());
    let bytes: Vec<u8> = (0..8_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for endpoint in [sshd.endpoint(), local] {
        let machine = pool.connect(&endpoint).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a new/folder/file");
        let file = spec(&path, &bytes);
        assert!(!machine.exists(&file.path).await.unwrap());
        assert!(!machine.has_digest(&file.path, &file.sha256).await.unwrap());
        machine.put(&file, &bytes[..]).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(machine.exists(&file.path).await.unwrap());
        assert!(machine.has_digest(&file.path, &file.sha256).await.unwrap());
        assert!(machine.get(&file.path, 8_000_000).await.unwrap() == bytes);
        let large = machine.get(&file.path, 7_999_999).await.unwrap_err();
        assert!(matches!(large, MachineError::TooLarge { size: 8_000_000, .. }), "{large}");

        // Too short, too long, other bytes: the old file stays, nothing is left beside it.
        let mut wrong = bytes.clone();
        wrong[77] ^= 1;
        for bad in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat(), &wrong] {
            let damaged = machine.put(&file, bad).await.unwrap_err();
            assert!(matches!(damaged, MachineError::Damaged { .. }), "{damaged}");
        }
        assert!(std::fs::read(&path).unwrap() == bytes);
        assert_eq!(entries(path.parent().unwrap()), ["file"]);

        let missing = machine.get("/no/such/file", 10).await.unwrap_err();
        assert_eq!(missing.to_string(), format!("/no/such/file on {endpoint}: there is no such file"));
        let onto_folder = machine.put(&spec(folder.path(), b"x"), &b"x"[..]).await.unwrap_err();
        assert!(matches!(onto_folder, MachineError::File { .. }), "{onto_folder}");
        let below_file = machine.put(&spec(&path.join("below"), b"x"), &b"x"[..]).await.unwrap_err();
        assert!(matches!(below_file, MachineError::File { .. }), "{below_file}");
        machine.put_bytes(&path.display().to_string(), b"", 0o600).await.unwrap();
        assert_eq!(&machine.get(&file.path, 10).await.unwrap()[..], b"");
    }
}

#[tokio::test]
async fn facts_tell_what_is_there() {
    let sshd = Sshd::start().unwrap();
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let facts = machine.facts().await.unwrap();
    assert_eq!(facts.user, sshd.user());
    assert_eq!(facts.user_home, sshd.home().display().to_string());
    assert_eq!(facts.home, sshd.home().join(".windlass").display().to_string());
    assert!(facts.has("tar") && !facts.has("no-such-tool"), "{:?}", facts.tools);
    assert!(facts.free_bytes > Some(0) && !facts.os.is_empty() && facts.boot_id.len() > 8, "{facts:?}");
    let mode = std::fs::metadata(sshd.home().join(".windlass")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_machine_without_a_digest_program_says_so() {
    let tools = tempfile::tempdir().unwrap();
    for tool in ["sh", "cat", "mkdir", "chmod", "mv", "rm", "wc"] {
        let path =
            ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(path, tools.path().join(tool)).unwrap();
    }
    let env = vec![("PATH".to_owned(), tools.path().display().to_string())];
    let sshd = Sshd::start_with(Options { env, ..Options::default() }).unwrap();
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let path = sshd.home().join("file");
    let error = machine.put(&spec(&path, b"x"), &b"x"[..]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} has no program for SHA-256 (sha256sum, shasum or openssl)", sshd.endpoint())
    );
    assert_eq!(entries(&sshd.home()), [".windlass"]);
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    }
    let _unmount = Unmount(folder.path().to_owned());
    let endpoint = Endpoint::Local(LocalEndpoint { home: Some(folder.path().join("home").display().to_string()) });
    let machine = Machines::new(Config::default()).connect(&endpoint).await.unwrap();
    let bytes = vec![7; 3_000_000];
    let full = machine.put(&spec(&folder.path().join("file"), &bytes), &bytes[..]).await.unwrap_err();
    assert!(matches!(full, MachineError::DiskFull { .. }), "{full}");
    assert_eq!(entries(folder.path()), ["home"]);

    // A command that fills the disk itself still gets its true exit code.
    let ticket = |text: &str| Ticket::new(text).unwrap();
    let run = |name: &'static str, text: &'static str| {
        let machine = &machine;
        async move {
            let mut sink = MemorySink::default();
            let spec = CommandSpec::script(Interpreter::Sh, text);
            machine.run(&ticket(name), &spec, &mut sink, &CancelToken::new()).await.map(|exit| exit.code)
        }
    };
    assert_eq!(run("fills", "head -c 5000000 /dev/zero; exit 6").await, Ok(6));
    let refused = run("refused", "true").await;
    assert!(matches!(refused, Err(MachineError::DiskFull { .. })), "{refused:?}");
    std::fs::remove_file(folder.path().join("home/runs/fills+out")).unwrap();
    assert_eq!(run("refused", "exit 8").await, Ok(8));
}

/// Unmounts, however the test ends.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
