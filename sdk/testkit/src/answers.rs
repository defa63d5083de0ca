//! How the fake world answers each effect.

use windlass_effects::{
    Answer, Command, Content, Effect, Failure, HttpRequest, LockGrant, Outcome, PackageHandle, SecretHandle,
    SessionHandle, SubstituteReport,
};
use windlass_model::{TaskState, manifest::LockMode, task::TaskQuery};

use crate::{
    fake::State,
    machine::{FakeMachine, Reply},
    task::FakeTask,
};

/// How long a deployment takes that nothing is said of.
const DEPLOYMENT_MS: u64 = 60_000;

impl State {
    pub(crate) fn answer(&mut self, index: u64, effect: &Effect) -> Answer {
        match effect {
            Effect::Now => Ok(Outcome::Number(self.start_ms + self.now_ms)),
            Effect::Random { len } => Ok(Outcome::Bytes(random(index, *len))),
            Effect::Sleep { ms } => {
                self.now_ms += ms;
                Ok(Outcome::Done)
            }
            Effect::Variable { name } => Ok(Outcome::MaybeText(self.variables.get(name).cloned())),
            Effect::Expand { text } => self.expand(text),
            Effect::HasSecret { name } => Ok(Outcome::Flag(self.secrets.contains_key(name))),
            Effect::Reveal { secret: SecretHandle(name) } => {
                let secret = self.secrets.get(name).cloned();
                secret.map(Outcome::Secret).ok_or_else(|| missing("secret", name))
            }
            Effect::Output { .. } => Ok(Outcome::Done),
            Effect::Http { request } => self.http(request),
            Effect::Acquire { resource, mode, wait_ms } => self.acquire(resource, *mode, *wait_ms),
            Effect::Release { token } => {
                self.held.remove(token);
                Ok(Outcome::Done)
            }
            Effect::Tasks { query } => Ok(Outcome::Tasks(self.list(query))),
            Effect::AwaitQuiet { query, wait_ms } => self.await_quiet(query, *wait_ms),
            Effect::Deploy { project, environment, version, .. } => {
                Ok(Outcome::Number(self.deploy(project, environment, version.as_deref())))
            }
            Effect::AwaitTask { task, wait_ms } => self.await_task(*task, *wait_ms),
            Effect::PackageInfo { package } => self.package(*package).map(Outcome::Package),
            on_machine => self.on_machine(index, on_machine),
        }
    }

    fn expand(&self, text: &str) -> Answer {
        if let Some(name) = self.secrets.keys().find(|name| text.contains(&format!("#{{{name}}}"))) {
            return Err(Failure::new("secret", format!("the secret {name} would show")));
        }
        Ok(Outcome::Text(self.replaced(text, false)))
    }

    fn replaced(&self, text: &str, secrets: bool) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.variables {
            text = text.replace(&format!("#{{{name}}}"), value);
        }
        for (name, value) in self.secrets.iter().filter(|_| secrets) {
            text = text.replace(&format!("#{{{name}}}"), value.expose());
        }
        text
    }

    fn http(&self, request: &HttpRequest) -> Answer {
        let fits = |method: &String, url: &String| *method == request.method && *url == request.url;
        let found = self.http.iter().find(|(method, url, _)| fits(method, url));
        let Some((_, _, response)) = found else {
            let text = format!("the fake world has no answer to {} {}", request.method, request.url);
            return Err(Failure::new("unreachable", text).retryable());
        };
        let mut response = response.clone();
        let max = usize::try_from(request.max_body).unwrap_or(usize::MAX);
        response.truncated = response.body.len() > max;
        response.body.truncate(max);
        Ok(Outcome::Http(response))
    }

    fn acquire(&mut self, resource: &str, mode: LockMode, wait_ms: u64) -> Answer {
        let timeout = |holder: &str| Failure::new("timeout", format!("{resource} is held by {holder}"));
        let own = self
            .held
            .values()
            .find(|(held, how)| held == resource && (mode == LockMode::Exclusive || *how == LockMode::Exclusive));
        if own.is_some() {
            self.now_ms += wait_ms;
            return Err(timeout("this run itself"));
        }
        if let Some((holder, until)) = self.busy_locks.get(resource) {
            let until = until.unwrap_or(u64::MAX);
            if until > self.now_ms.saturating_add(wait_ms) {
                self.now_ms += wait_ms;
                return Err(timeout(holder));
            }
            self.now_ms = self.now_ms.max(until);
        }
        self.tokens += 1;
        self.held.insert(self.tokens, (resource.to_owned(), mode));
        Ok(Outcome::Lock(LockGrant { token: self.tokens }))
    }

    fn list(&self, query: &TaskQuery) -> Vec<windlass_model::task::TaskSummary> {
        let mut found: Vec<&FakeTask> = self.tasks.iter().filter(|task| task.matches(query, self.now_ms)).collect();
        found.sort_by_key(|task| std::cmp::Reverse(task.id));
        let limit = query.limit.unwrap_or(50).min(200);
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        found.into_iter().filter_map(|task| task.summary(self.start_ms, self.now_ms)).collect()
    }

    fn await_quiet(&mut self, query: &TaskQuery, wait_ms: u64) -> Answer {
        let busy = self
            .tasks
            .iter()
            .filter(|task| task.matches(query, self.now_ms) && task.runs_at(self.now_ms))
            .max_by_key(|task| task.ends_ms.unwrap_or(u64::MAX));
        let Some(last) = busy else {
            return Ok(Outcome::Done);
        };
        let (id, end) = (last.id, last.ends_ms);
        self.wait_until(end, wait_ms, &format!("task {id} is still running"))?;
        Ok(Outcome::Done)
    }

    fn await_task(&mut self, id: u64, wait_ms: u64) -> Answer {
        let found = |state: &Self| state.tasks.iter().find(|task| task.id == id).cloned();
        let task = found(self).ok_or_else(|| missing("task", &id.to_string()))?;
        if task.runs_at(self.now_ms) {
            self.wait_until(task.ends_ms, wait_ms, &format!("task {id} is still running"))?;
        }
        Ok(Outcome::Tasks(task.summary(self.start_ms, self.now_ms).into_iter().collect()))
    }

    fn wait_until(&mut self, end: Option<u64>, wait_ms: u64, why: &str) -> Result<(), Failure> {
        let patience = self.now_ms.saturating_add(wait_ms);
        match end {
            Some(end) if end <= patience => {
                self.now_ms = self.now_ms.max(end);
                Ok(())
            }
            _ => {
                self.now_ms = patience;
                Err(Failure::new("timeout", format!("{why} after {} s", wait_ms / 1_000)))
            }
        }
    }

    fn deploy(&mut self, project: &str, environment: &str, version: Option<&str>) -> u64 {
        let id = self.tasks.iter().map(|task| task.id).max().unwrap_or(0).max(100) + 1;
        let known = self.deployments.get(project).copied();
        let (take_ms, end_as) = known.unwrap_or((DEPLOYMENT_MS, TaskState::Succeeded));
        let mut task = FakeTask::deployment(id, project, version.unwrap_or("latest"), environment)
            .ends_after_ms(self.now_ms + take_ms)
            .ends_as(end_as);
        task.created_ms = self.now_ms;
        self.tasks.push(task);
        id
    }

    fn package(&self, handle: PackageHandle) -> Result<windlass_effects::PackageInfo, Failure> {
        let found = place(handle.0).and_then(|at| self.packages.get(at));
        found.map(|(info, _)| info.clone()).ok_or_else(|| missing("package", &handle.0.to_string()))
    }

    fn machine(&mut self, handle: SessionHandle) -> Result<&mut FakeMachine, Failure> {
        let found = place(handle.0).and_then(|at| self.machines.get_mut(at));
        found.ok_or_else(|| missing("machine", &handle.0.to_string()))
    }

    fn on_machine(&mut self, index: u64, effect: &Effect) -> Answer {
        match effect {
            Effect::Facts { session } => Ok(Outcome::Facts(self.machine(*session)?.facts.clone())),
            Effect::Run { session, command } => {
                let exit = self.reply(*session, command)?.exit(command.capture);
                Ok(Outcome::Exit(exit))
            }
            Effect::Start { session, command } => {
                let exit = self.reply(*session, command)?.exit(u32::MAX);
                self.processes.insert(index, exit);
                Ok(Outcome::Number(index))
            }
            Effect::ReadOutput { process, stderr, offset, max, .. } => {
                let exit = self.process(*process)?;
                let stream = if *stderr { &exit.stderr } else { &exit.stdout };
                let rest = stream.iter().skip(usize::try_from(*offset).unwrap_or(usize::MAX));
                let max = usize::try_from(*max).unwrap_or(usize::MAX);
                Ok(Outcome::Bytes(rest.take(max).copied().collect()))
            }
            Effect::Wait { process, .. } => Ok(Outcome::Exit(self.process(*process)?.clone())),
            Effect::Kill { .. } => Ok(Outcome::Done),
            Effect::ReadFile { session, path, max } => {
                let content = self.machine(*session)?.files.get(path).cloned();
                match content {
                    None => Err(missing("file", path)),
                    Some(content) if content.len() > usize::try_from(*max).unwrap_or(usize::MAX) => {
                        Err(Failure::new("too-large", format!("{path} is larger than {max} bytes")))
                    }
                    Some(content) => Ok(Outcome::Bytes(content.to_vec())),
                }
            }
            Effect::WriteFile { session, path, content, .. } => {
                let content = match content {
                    Content::Bytes(bytes) => bytes.clone(),
                    Content::Secret(SecretHandle(name)) => {
                        let secret = self.secrets.get(name).ok_or_else(|| missing("secret", name))?;
                        secret.expose().as_bytes().to_vec()
                    }
                };
                self.machine(*session)?.files.insert(path.clone(), content.into());
                Ok(Outcome::Done)
            }
            Effect::Substitute { session, root, globs } => self.substitute(*session, root, globs),
            Effect::StagePackage { session, package } => {
                let info = self.package(*package)?;
                let path = format!("/fake/packages/{}.{}", info.id, info.version);
                let content = place(package.0).and_then(|at| self.packages.get(at)).map(|(_, content)| content.clone());
                let files = &mut self.machine(*session)?.files;
                files.insert(path.clone(), content.unwrap_or_default());
                Ok(Outcome::Text(path))
            }
            other => Err(Failure::new("unavailable", format!("the fake world does not know {}", other.name()))),
        }
    }

    fn reply(&mut self, session: SessionHandle, command: &Command) -> Result<Reply, Failure> {
        let machine = self.machine(session)?;
        machine.answer(command).cloned().map_err(|why| {
            Failure::new("not-found", why).fix("add it: FakeMachine::reply(\"part of the command\", Reply::ok(\"\"))")
        })
    }

    fn process(&self, process: u64) -> Result<&windlass_effects::Exit, Failure> {
        self.processes.get(&process).ok_or_else(|| missing("process", &process.to_string()))
    }

    fn substitute(&mut self, session: SessionHandle, root: &str, globs: &[String]) -> Answer {
        let mut report = SubstituteReport::default();
        let root = format!("{}/", root.trim_end_matches('/'));
        let files = self.machine(session)?.files.clone();
        for glob in globs {
            let matcher =
                globset::Glob::new(glob).map_err(|error| Failure::new("invalid", error.to_string()))?.compile_matcher();
            let mut matched = false;
            for (path, content) in &files {
                let Some(relative) = path.strip_prefix(&root).filter(|path| matcher.is_match(path)) else {
                    continue;
                };
                matched = true;
                let before = String::from_utf8_lossy(content).into_owned();
                let after = self.replaced(&before, true);
                report.unresolved.extend(expressions(&after));
                if after != before {
                    report.changed.push(relative.to_owned());
                    self.machine(session)?.files.insert(path.clone(), after.into_bytes().into());
                }
            }
            if !matched {
                report.unmatched.push(glob.clone());
            }
        }
        Ok(Outcome::Substituted(report))
    }
}

/// What is left of `#{…}` in a text.
fn expressions(text: &str) -> Vec<String> {
    let parts = text.split("#{").skip(1);
    parts.filter_map(|part| part.split_once('}')).map(|(name, _)| name.to_owned()).collect()
}

/// Handles count from 1.
fn place(handle: u32) -> Option<usize> {
    usize::try_from(handle.checked_sub(1)?).ok()
}

fn missing(what: &str, name: &str) -> Failure {
    Failure::new("not-found", format!("the fake world has no {what} {name}"))
}

/// Bytes that look random and are the same in every run.
fn random(index: u64, len: u32) -> Vec<u8> {
    let mut state = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    (0..len.min(1_024))
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}
