//! The far side of the runner alone: a shell with `runner.sh` loaded, spoken to by hand.
//!
//! For what no real host would do in good order: requests that overlap badly, files as a crash leaves them.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

/// Long for a loaded machine; nothing here takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// The four shells that may call themselves `sh`.
pub const SHELLS: [&str; 4] = ["dash", "busybox", "bash", "mksh"];

/// A shell with the runner loaded.
#[derive(Debug)]
pub struct FarSide {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    home: PathBuf,
    number: u64,
}

impl FarSide {
    /// Loads the runner into `shell`, with `home` as Windlass' folder and `key` as the connection's name.
    ///
    /// # Errors
    /// When the shell is missing and cannot be installed, or the runner does not load.
    pub fn load(shell: &str, home: &Path, key: &str) -> io::Result<Self> {
        let program = crate::sshd::find_or_install(shell, shell, &[])?;
        let mut command = Command::new(program);
        if shell == "busybox" {
            command.arg("sh");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let mut far = Self { child, input, lines, home: home.to_owned(), number: 0 };
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/machines/src/runner/runner.sh"),
        )?;
        far.say(&format!("_w_n=N _w_k={key}\n_w_home='{}'\n{text}\n", home.display()))?;
        let ready = far.answer(0)?;
        if ready.starts_with("READY ") { Ok(far) } else { Err(io::Error::other(ready)) }
    }

    /// Shell code as it is.
    ///
    /// # Errors
    /// When the shell is gone.
    pub fn say(&mut self, code: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or_else(|| io::Error::other("its input was closed"))?;
        input.write_all(code.as_bytes())?;
        input.flush()
    }

    /// Calls `verb` with a number and `arguments`; what it answers. `!` lines in between are left out.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn ask(&mut self, verb: &str, arguments: &str) -> io::Result<String> {
        self.number += 1;
        self.say(&format!("{verb} {} {arguments}\n", self.number))?;
        self.answer(self.number)
    }

    /// Starts a script under `ticket`.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn start(&mut self, ticket: &str, script: &str) -> io::Result<String> {
        self.say("_w_env() { :; }\n_w_cmd() { exec $_w_detach \"$_w_i\" \"$_w_f+script.$_w_k$_w_ext\"; }\n_w_ext=\n")?;
        self.ask("_w_start", &format!("{ticket} sh 't{}' -", script.replace('\'', r"'\''")))
    }

    /// Waits until the state of `ticket` is one of which `what` holds.
    ///
    /// # Errors
    /// When that does not come.
    pub fn until(&mut self, ticket: &str, what: impl Fn(&str) -> bool) -> io::Result<String> {
        let begin = std::time::Instant::now();
        loop {
            let state = self.ask("_w_status", ticket)?;
            if what(&state) {
                return Ok(state);
            }
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("{ticket} stays {state}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answer(&mut self, number: u64) -> io::Result<String> {
        let head = format!("N = {number} ");
        loop {
            let line = self.lines.recv_timeout(PATIENCE).map_err(|e| io::Error::other(format!("no answer: {e}")))?;
            if let Some(at) = line.find(&head) {
                return Ok(line.get(at + head.len()..).unwrap_or_default().to_owned());
            }
        }
    }

    /// Ends its input, as a link does that is lost.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Names of the files in `folder` of its home, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.home.join(folder))?;
        let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for FarSide {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
