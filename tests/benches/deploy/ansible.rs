//! The peer that most people would use instead: ansible-core, tuned, in the same run.
//!
//! Tuned means what its own documentation recommends: pipelining, kept connections, as many forks as targets, no
//! gathering of facts. It is installed from PyPI into the build folder once.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use windlass_tests::sshd::Sshd;

use crate::Anything;

/// The version that is measured.
const VERSION: &str = "ansible-core==2.19.*";

/// An installed ansible with its inventory of targets.
pub struct Ansible {
    playbook: PathBuf,
    folder: PathBuf,
}

impl Ansible {
    /// Installs it if need be and writes down the targets.
    pub fn prepare(folder: &Path, targets: &[Sshd]) -> Anything<Self> {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ansible");
        let playbook = place.join("bin/ansible-playbook");
        if !playbook.exists() {
            told(Command::new("python3").args(["-m", "venv"]).arg(&place).output()?)?;
            told(Command::new(place.join("bin/pip")).args(["install", "--quiet", VERSION]).output()?)?;
        }
        let folder = folder.join("ansible");
        std::fs::create_dir_all(&folder)?;
        let forks = targets.len();
        std::fs::write(
            folder.join("ansible.cfg"),
            format!(
                "[defaults]\nforks = {forks}\ngathering = explicit\nhost_key_checking = False\ninventory = hosts.ini\n\
                 [connection]\npipelining = True\n\
                 [ssh_connection]\npipelining = True\n\
                 ssh_args = -F none -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=/dev/null \
                 -o LogLevel=ERROR -o IdentitiesOnly=yes -c aes128-gcm@openssh.com\n"
            ),
        )?;
        let mut hosts = String::from("[web]\n");
        for (number, target) in targets.iter().enumerate() {
            writeln!(
                hosts,
                "web{number} ansible_host=127.0.0.1 ansible_port={} ansible_user={} ansible_ssh_private_key_file={} \
                 ansible_python_interpreter={} home={}",
                target.port(),
                target.user(),
                target.login_key_path().display(),
                // The targets are this machine.
                place.join("bin/python").display(),
                target.home().display(),
            )?;
        }
        std::fs::write(folder.join("hosts.ini"), hosts)?;
        Ok(Self { playbook, folder })
    }

    /// Sends, verifies, unpacks, runs a script and switches, as a playbook is commonly written.
    pub fn deploy(&self, archive: &Path, round: usize) -> Anything<Duration> {
        let archive = archive.display();
        self.play(&format!(
            "- hosts: web\n  tasks:\n\
             \x20   - file: {{ path: '{{{{ home }}}}/ansible/{round}', state: directory }}\n\
             \x20   - copy: {{ src: '{archive}', dest: '{{{{ home }}}}/ansible/f{round}' }}\n\
             \x20   - unarchive: {{ src: '{{{{ home }}}}/ansible/f{round}', dest: '{{{{ home }}}}/ansible/{round}', remote_src: true }}\n\
             \x20   - command: sh '{{{{ home }}}}/ansible/{round}/PostDeploy.sh'\n\
             \x20   - file: {{ src: '{round}', dest: '{{{{ home }}}}/ansible/current', state: link }}\n"
        ))
    }

    /// Small steps one after another, with the module that costs least.
    pub fn steps(&self, steps: usize) -> Anything<Duration> {
        let mut book = "- hosts: web\n  tasks:\n".to_owned();
        for _ in 0..steps {
            book.push_str("    - raw: 'true'\n");
        }
        self.play(&book)
    }

    fn play(&self, book: &str) -> Anything<Duration> {
        std::fs::write(self.folder.join("book.yml"), book)?;
        let started = Instant::now();
        told(Command::new(&self.playbook).arg("book.yml").current_dir(&self.folder).output()?)?;
        Ok(started.elapsed())
    }
}

fn told(output: Output) -> Anything<()> {
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("the peer failed:\n{out}{err}").into())
}
