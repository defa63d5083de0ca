//! A small application in code: machines over real `sshd` servers, packages with hooks, a project.

use std::{io::Write, path::Path, process::Command};

use serde_json::json;
use windlass_model::{Machine, Workspace};

use crate::sshd::Sshd;

/// What building a piece of the shop may fail with.
pub type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A machine that is reached over one of the harness' servers.
///
/// # Errors
/// When the name is no name.
pub fn machine(name: &str, role: &str, target: &Sshd) -> Anything<Machine> {
    Ok(serde_json::from_value(json!({
        "name": name,
        "environments": ["test"],
        "roles": [role],
        "connection": { "ssh": {
            "host": "127.0.0.1",
            "port": target.port(),
            "user": target.user(),
            "auth": { "key-file": { "path": target.login_key_path() } },
            "host_key": target.host_key(),
        } },
    }))?)
}

/// A workspace with the environment `test`, these machines, and a project `shop` with these steps and variables.
///
/// # Errors
/// When a step or variable is none.
pub fn workspace(
    machines: Vec<Machine>,
    steps: serde_json::Value,
    variables: serde_json::Value,
) -> Anything<Workspace> {
    let mut workspace: Workspace = serde_json::from_value(json!({
        "environments": [{ "name": "test" }],
        "projects": [{ "project": { "name": "shop" }, "process": { "steps": steps }, "variables": variables }],
    }))?;
    workspace.machines = machines;
    Ok(workspace)
}

/// A tar.gz of these files, made by the system's own tar.
///
/// # Errors
/// When a file cannot be written or tar fails.
pub fn archive(files: &[(&str, &str)]) -> Anything<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    for (path, content) in files {
        let path = folder.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create(path)?.write_all(content.as_bytes())?;
    }
    pack(folder.path())
}

fn pack(folder: &Path) -> Anything<Vec<u8>> {
    let packed = Command::new("tar").arg("-czf").arg("-").arg("-C").arg(folder).arg(".").output()?;
    if packed.status.success() { Ok(packed.stdout) } else { Err("tar failed".into()) }
}
