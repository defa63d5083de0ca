//! What a machine says of itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What a machine says of itself; asked once per connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `Linux`, `Darwin`, …
    pub os: String,
    /// Name and version of the distribution, where it tells.
    pub distribution: String,
    /// Version of the kernel.
    pub kernel: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Its own name for itself.
    pub hostname: String,
    /// Who we are there.
    pub user: String,
    /// Whether that is root.
    pub is_root: bool,
    /// The user's home folder.
    pub user_home: String,
    /// Windlass' folder.
    pub home: String,
    /// The user's login shell.
    pub shell: String,
    /// Changes with every restart of the machine.
    pub boot_id: String,
    /// What gives a command a process group of its own; empty when nothing does, and a cancel is less thorough.
    pub detach: String,
    /// Free space where Windlass' folder is, in bytes.
    pub free_bytes: Option<u64>,
    /// Which of the programs Windlass and its plugins like to use are there.
    pub tools: BTreeSet<String>,
}

impl Facts {
    /// Programs that are looked for.
    pub(crate) const TOOLS: [&str; 21] = [
        "awk",
        "bash",
        "busybox",
        "bzip2",
        "curl",
        "gzip",
        "openssl",
        "perl",
        "pwsh",
        "python3",
        "rsync",
        "setsid",
        "sha256sum",
        "shasum",
        "sudo",
        "systemctl",
        "systemd-run",
        "tar",
        "unzip",
        "xz",
        "zstd",
    ];

    /// Whether a program is there.
    #[must_use]
    pub fn has(&self, tool: &str) -> bool {
        self.tools.contains(tool)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let field = match name {
                "os" => &mut facts.os,
                "distribution" => &mut facts.distribution,
                "kernel" => &mut facts.kernel,
                "arch" => &mut facts.arch,
                "hostname" => &mut facts.hostname,
                "user" => &mut facts.user,
                "user_home" => &mut facts.user_home,
                "home" => &mut facts.home,
                "shell" => &mut facts.shell,
                "boot" => &mut facts.boot_id,
                "detach" => &mut facts.detach,
                "uid" => {
                    facts.is_root = value == "0";
                    continue;
                }
                "free_kib" => {
                    facts.free_bytes = value.parse::<u64>().ok().and_then(|kib| kib.checked_mul(1024));
                    continue;
                }
                "tool" => {
                    facts.tools.insert(value.to_owned());
                    continue;
                }
                _ => continue,
            };
            value.clone_into(field);
        }
        facts
    }
}
