//! What the tests of this crate share: a world that answers effects by rule, and components written by hand.
//!
//! The components are WebAssembly text, so these tests need no toolchain for guests.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use windlass_effects::{Answer, CancelToken, Effect, Exit, Failure, Line, LockGrant, Outcome, Stop, Waist};
use windlass_wasm::{Config, Plugin, PluginHost, RunRequest};

/// A world in memory. `Sleep` waits for the cancel; what else is asked is answered at once.
#[derive(Default)]
pub struct World {
    pub cancel: CancelToken,
    pub lines: Mutex<Vec<String>>,
    pub effects: Mutex<Vec<Effect>>,
    pub progress: Mutex<Vec<(u64, u64, String)>>,
    /// A sleep that does not even end when the run is cancelled.
    pub deaf: bool,
    /// What ends the run at the first effect.
    pub stop: Option<Stop>,
}

impl World {
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap().clone()
    }
}

#[async_trait]
impl Waist for World {
    async fn call(&self, effect: Effect) -> Result<Answer, Stop> {
        self.effects.lock().unwrap().push(effect.clone());
        if let Some(stop) = &self.stop {
            return Err(stop.clone());
        }
        Ok(match effect {
            Effect::Sleep { .. } if self.deaf => std::future::pending().await,
            Effect::Sleep { .. } => {
                self.cancel.cancelled().await;
                Err(Failure::cancelled())
            }
            Effect::Now => Ok(Outcome::Number(1_700_000_000_000)),
            Effect::Random { len } => Ok(Outcome::Bytes(vec![7; len as usize])),
            Effect::Expand { text } if text.contains("Secret") => Err(Failure::new("secret", "a secret would show")),
            Effect::Expand { text } => Ok(Outcome::Text(text.replace("#{Name}", "web"))),
            Effect::Variable { name } => Ok(Outcome::MaybeText((name == "Known").then(|| "value".to_owned()))),
            Effect::HasSecret { name } => Ok(Outcome::Flag(name == "Db.Password")),
            Effect::Facts { .. } => Ok(Outcome::Facts(BTreeMap::from([("os".into(), "linux".into())]))),
            Effect::Run { command, .. } => Ok(Outcome::Exit(Exit {
                code: 0,
                stdout: format!("{:?}\n", command.program).into_bytes(),
                ..Exit::default()
            })),
            Effect::Start { .. } | Effect::Deploy { .. } => Ok(Outcome::Number(1)),
            Effect::ReadOutput { offset: 0, .. } => Ok(Outcome::Bytes(b"out".to_vec())),
            Effect::ReadOutput { .. } => Ok(Outcome::Bytes(Vec::new())),
            Effect::Wait { .. } => Ok(Outcome::Exit(Exit { code: 3, ..Exit::default() })),
            Effect::ReadFile { .. } => Ok(Outcome::Bytes(b"content".to_vec())),
            Effect::StagePackage { .. } => Ok(Outcome::Text("/packages/shop.tar.gz".into())),
            Effect::Acquire { .. } => Ok(Outcome::Lock(LockGrant { token: 41 })),
            Effect::Tasks { .. } => Ok(Outcome::Tasks(Vec::new())),
            _ => Ok(Outcome::Done),
        })
    }

    fn log(&self, line: Line) {
        self.lines.lock().unwrap().push(format!("{:?} {}", line.level, line.text));
    }

    fn progress(&self, done: u64, total: u64, note: String) {
        self.progress.lock().unwrap().push((done, total, note));
    }

    fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}

pub fn host() -> PluginHost {
    PluginHost::new(Config::default()).unwrap()
}

/// A component written by hand; what is not set is that of a plugin that does nothing.
pub struct Guest {
    /// Version of the contract that is imported and exported.
    pub version: &'static str,
    pub manifest: String,
    /// Imports besides the usual ones, in component text.
    pub imports: &'static str,
    /// Functions lowered from them, in component text.
    pub lowered: &'static str,
    /// How the core module gets at them: `(export "name" (func $name))`.
    pub given: &'static str,
    /// Imports and functions of the core module, in core text.
    pub functions: &'static str,
    /// What `run` does before it succeeds. `$log`, `$drop_inputs` and `$deep` are there to be called.
    pub run: &'static str,
    pub describe: &'static str,
}

pub const MANIFEST: &str = r#"{"id":"by-hand","version":"1.0.0","title":"By hand"}"#;

impl Default for Guest {
    fn default() -> Self {
        Self {
            version: "0.1.0",
            manifest: MANIFEST.to_owned(),
            imports: "",
            lowered: "",
            given: "",
            functions: "",
            run: "",
            describe: "",
        }
    }
}

impl Guest {
    pub fn run(run: &'static str) -> Self {
        Self { run, ..Self::default() }
    }

    pub fn text(&self) -> String {
        let Self { version, imports, lowered, given, functions, run, describe, manifest } = self;
        let data = manifest.replace('\\', "\\\\").replace('"', "\\\"");
        let len = manifest.len();
        format!(
            r#"(component
  (import "windlass:base/types@{version}" (instance $types
    (type $f (record (field "code" string) (field "message" string) (field "retryable" bool)
      (field "attributes" (list (tuple string string)))))
    (export "failure" (type (eq $f)))))
  (alias export $types "failure" (type $failure))
  (import "windlass:base/log@{version}" (instance $log
    (export "write" (func (param "level" u8) (param "message" string)
      (param "attributes" (list (tuple string string)))))))
  (import "windlass:machine/session@{version}" (instance $session (export "session" (type (sub resource)))))
  (alias export $session "session" (type $Session))
  (import "windlass:step/inputs@{version}" (instance $inputs (export "inputs" (type (sub resource)))))
  (alias export $inputs "inputs" (type $Inputs))
  {imports}
  (core module $libc
    (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
  (core instance $libc (instantiate $libc))
  (core func $log (canon lower (func $log "write") (memory (core memory $libc "memory"))))
  (core func $drop_inputs (canon resource.drop $Inputs))
  {lowered}
  (core module $main
    (import "libc" "memory" (memory 2))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "host" "drop-inputs" (func $drop_inputs (param i32)))
    {functions}
    (data (i32.const 1024) "{data}")
    (data (i32.const 512) "hello from the guest")
    (func $deep (export "deep") (call $deep))
    (func (export "describe") (result i32)
      {describe}
      (i32.store (i32.const 16) (i32.const 1024))
      (i32.store (i32.const 20) (i32.const {len}))
      (i32.const 16))
    (func $run (export "run") (param i32 i32 i32) (result i32)
      {run}
      (call $drop_inputs (local.get 2))
      (i32.store8 (i32.const 32) (i32.const 0))
      (i32.const 32)))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "log" (func $log)) (export "drop-inputs" (func $drop_inputs)) {given}))))
  (func $describe (result string) (canon lift (core func $main "describe") (memory (core memory $libc "memory"))))
  (func $run (param "target" (option (borrow $Session))) (param "inputs" (borrow $Inputs))
    (result (result (error $failure)))
    (canon lift (core func $main "run") (memory (core memory $libc "memory"))))
  (instance $step (export "describe" (func $describe)) (export "run" (func $run)))
  (export "windlass:step/run@{version}" (instance $step)))"#
        )
    }

    pub fn bytes(&self) -> Vec<u8> {
        wat::parse_str(self.text()).unwrap()
    }

    pub async fn load(&self, host: &PluginHost) -> Plugin {
        host.load(self.bytes()).await.unwrap()
    }
}

/// A plugin that sleeps for a minute and gives up when the sleep fails.
pub fn sleeper() -> Guest {
    Guest {
        imports: r#"(import "windlass:base/clock@0.1.0" (instance $clock
            (alias outer 1 $failure (type $f)) (export "failure" (type $g (eq $f)))
            (export "sleep-ms" (func (param "ms" u64) (result (result (error $g)))))))"#,
        lowered: r#"(core func $sleep (canon lower (func $clock "sleep-ms")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))"#,
        given: r#"(export "sleep" (func $sleep))"#,
        functions: r#"(import "host" "sleep" (func $sleep (param i64 i32)))"#,
        run: "(call $sleep (i64.const 60000) (i32.const 64))",
        ..Guest::default()
    }
}

/// A plugin that makes filters and never drops one; it needs to see tasks.
pub fn leaker() -> Guest {
    Guest {
        manifest: r#"{"id":"leaker","version":"1.0.0","title":"Leaks","capabilities":["tasks-read"]}"#.to_owned(),
        imports: r#"(import "windlass:tasks/query@0.1.0" (instance $query
            (export "filter" (type $filter (sub resource)))
            (export "[constructor]filter" (func (result (own $filter))))))"#,
        lowered: r#"(core func $filter (canon lower (func $query "[constructor]filter")))"#,
        given: r#"(export "filter" (func $filter))"#,
        functions: r#"(import "host" "filter" (func $filter (result i32)))"#,
        run: "(loop $again (drop (call $filter)) (br $again))",
        ..Guest::default()
    }
}

pub fn world() -> Arc<World> {
    Arc::new(World::default())
}

/// Runs a plugin with nothing granted and nothing given.
pub fn bare() -> RunRequest {
    RunRequest::default()
}
