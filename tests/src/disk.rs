//! A disk of its own for the data of a server: small, and to be made read-only.
//!
//! It is a file system in memory, in a mount namespace that one process holds and that servers enter, so nobody else sees
//! it, it outlives servers, and it goes with its handle.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{shop::Anything, sshd::die_with_us};

/// The disk.
#[derive(Debug)]
pub struct OwnDisk {
    holder: Child,
    at: PathBuf,
}

impl OwnDisk {
    /// A disk of so many MiB at an existing folder. `None` where nothing may be mounted.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn new(at: &Path, mib: u32) -> Anything<Option<Self>> {
        let script =
            format!("mount -t tmpfs -o size={mib}m tmpfs '{}' && echo mounted && exec sleep infinity", at.display());
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        die_with_us(&mut command);
        let mut disk = Self { holder: command.spawn()?, at: at.to_owned() };
        let mut told = String::new();
        if let Some(out) = disk.holder.stdout.take() {
            BufReader::new(out).read_line(&mut told)?;
        }
        Ok((told == "mounted\n").then_some(disk))
    }

    /// The command, run where the disk is.
    #[must_use]
    pub fn enter(&self, inner: &Command) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.holder.id().to_string();
        command.args(["--target", &target, "--user", "--mount", "--preserve-credentials"]);
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Mounts it anew with other options, such as `ro`. No file of it may be open for writing when it becomes read-only.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn remount(&self, options: &str) -> Anything<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(&self.at);
        let done = self.enter(&mount).output()?;
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned().into()) }
    }

    /// Its root as seen from here.
    #[must_use]
    pub fn seen(&self) -> PathBuf {
        // Made relative: joining an absolute path would drop what is in front of it.
        let inside = self.at.strip_prefix("/").unwrap_or(&self.at);
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        // One that has ended already is no error.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
