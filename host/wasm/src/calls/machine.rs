//! `windlass:machine`: commands, processes and files on the machine that was lent to the run.

use wasmtime::component::Resource;
use windlass_effects::{Content, Effect, Outcome, SessionHandle};

use super::base::Secret;
use super::command::Command;
use super::packages::Package;
use super::{Calls, MAX_CONTENT, MAX_NAME, Reply, ask, check, check_name, check_size, check_text, refuse, unexpected};
use crate::bindings::windlass::machine::session::{self, Exit, Substitution};

/// Most bytes of one `read` of a process.
const MAX_READ: u32 = 64 << 10;
/// Most globs of one substitution, and most entries of each list in its report.
const MAX_GLOBS: usize = 100;
const MAX_REPORT: usize = 1000;

/// A machine that was lent to the run.
pub struct Session {
    pub handle: SessionHandle,
    pub name: String,
}

/// A command that was started.
pub struct Process {
    session: SessionHandle,
    id: u64,
    stdout_read: u64,
    stderr_read: u64,
    ended: bool,
}

impl session::Host for Calls {}

impl session::HostSession for Calls {
    async fn name(&mut self, session: Resource<Session>) -> wasmtime::Result<String> {
        Ok(self.table.get(&session)?.name.clone())
    }

    async fn facts(&mut self, session: Resource<Session>) -> Reply<Vec<(String, String)>> {
        let session = self.table.get(&session)?.handle;
        ask!(self, Effect::Facts { session }, Outcome::Facts(facts) => facts.into_iter().collect())
    }

    async fn run(&mut self, session: Resource<Session>, command: Resource<Command>) -> Reply<Exit> {
        let session = self.table.get(&session)?.handle;
        match self.table.get(&command)?.checked() {
            Ok(command) => {
                ask!(self, Effect::Run { session, command }, Outcome::Exit(exit) => Exit {
                    code: exit.code,
                    stdout: exit.stdout,
                    stderr: exit.stderr,
                    truncated: exit.truncated,
                })
            }
            Err(failure) => refuse(failure),
        }
    }

    async fn start(&mut self, session: Resource<Session>, command: Resource<Command>) -> Reply<Resource<Process>> {
        let session = self.table.get(&session)?.handle;
        let command = match self.table.get(&command)?.checked() {
            Ok(command) => command,
            Err(failure) => return refuse(failure),
        };
        match self.ask(Effect::Start { session, command }).await? {
            Ok(Outcome::Number(id)) => {
                let process = Process { session, id, stdout_read: 0, stderr_read: 0, ended: false };
                Ok(Ok(self.hand_out(process)?))
            }
            Ok(other) => Err(unexpected("start", &other)),
            Err(failure) => refuse(failure),
        }
    }

    async fn read_file(&mut self, session: Resource<Session>, path: String, max: u32) -> Reply<Vec<u8>> {
        check!(check_name("the path", &path));
        let session = self.table.get(&session)?.handle;
        let max = max.min(u32::try_from(MAX_CONTENT).unwrap_or(u32::MAX));
        ask!(self, Effect::ReadFile { session, path, max }, Outcome::Bytes(bytes) => bytes)
    }

    async fn write_file(&mut self, session: Resource<Session>, path: String, content: Vec<u8>, mode: u32) -> Reply<()> {
        check!(check_size("the content of the file", content.len(), MAX_CONTENT));
        self.write(session, path, Content::Bytes(content), mode).await
    }

    async fn write_secret(
        &mut self,
        session: Resource<Session>,
        path: String,
        content: Resource<Secret>,
        mode: u32,
    ) -> Reply<()> {
        let secret = self.table.get(&content)?.handle.clone();
        self.write(session, path, Content::Secret(secret), mode).await
    }

    async fn package_path(&mut self, session: Resource<Session>, package: Resource<Package>) -> Reply<String> {
        let session = self.table.get(&session)?.handle;
        let package = self.table.get(&package)?.handle;
        ask!(self, Effect::StagePackage { session, package }, Outcome::Text(path) => path)
    }

    async fn substitute(
        &mut self,
        session: Resource<Session>,
        root: String,
        globs: Vec<String>,
    ) -> Reply<Substitution> {
        check!(check_name("the root folder", &root));
        check!(check_size("the list of globs", globs.len(), MAX_GLOBS));
        for glob in &globs {
            check!(check_text("a glob", glob, MAX_NAME));
        }
        let session = self.table.get(&session)?.handle;
        let first = |mut list: Vec<String>| {
            list.truncate(MAX_REPORT);
            list
        };
        ask!(self, Effect::Substitute { session, root, globs }, Outcome::Substituted(report) => Substitution {
            changed: first(report.changed),
            unmatched: first(report.unmatched),
            unresolved: first(report.unresolved),
        })
    }

    async fn drop(&mut self, session: Resource<Session>) -> wasmtime::Result<()> {
        self.table.delete(session)?;
        Ok(())
    }
}

impl session::HostProcess for Calls {
    async fn read(&mut self, process: Resource<Process>, stderr: bool, max: u32) -> Reply<Vec<u8>> {
        let known = self.table.get(&process)?;
        let offset = if stderr { known.stderr_read } else { known.stdout_read };
        let (session, id) = (known.session, known.id);
        let max = max.clamp(1, MAX_READ);
        let answer = ask!(
            self,
            Effect::ReadOutput { session, process: id, stderr, offset, max },
            Outcome::Bytes(bytes) => bytes
        );
        if let Ok(Ok(bytes)) = &answer {
            let known = self.table.get_mut(&process)?;
            let read = if stderr { &mut known.stderr_read } else { &mut known.stdout_read };
            *read = read.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        answer
    }

    async fn wait(&mut self, process: Resource<Process>) -> Reply<i32> {
        let known = self.table.get(&process)?;
        let (session, id) = (known.session, known.id);
        let answer = ask!(self, Effect::Wait { session, process: id }, Outcome::Exit(exit) => exit.code);
        if let Ok(Ok(_)) = &answer {
            self.table.get_mut(&process)?.ended = true;
        }
        answer
    }

    async fn kill(&mut self, process: Resource<Process>) -> Reply<()> {
        let known = self.table.get_mut(&process)?;
        if std::mem::replace(&mut known.ended, true) {
            return Ok(Ok(()));
        }
        let (session, id) = (known.session, known.id);
        self.ask_done(Effect::Kill { session, process: id }).await
    }

    async fn drop(&mut self, process: Resource<Process>) -> wasmtime::Result<()> {
        let process = self.table.delete(process)?;
        if !process.ended {
            // A guest cannot be told that this failed; the engine ends what is left at the end of the run.
            let _ = self.ask(Effect::Kill { session: process.session, process: process.id }).await?;
        }
        Ok(())
    }
}

impl Calls {
    async fn write(&mut self, session: Resource<Session>, path: String, content: Content, mode: u32) -> Reply<()> {
        check!(check_name("the path", &path));
        let session = self.table.get(&session)?.handle;
        // Set-user-id and its like are not for files that a deployment writes.
        let mode = mode & 0o777;
        self.ask_done(Effect::WriteFile { session, path, content, mode }).await
    }
}
