//! A fake host for tests of plugins and scripts.
//!
//! A [`FakeWorld`] stands for everything outside a guest: machines with scripted replies, files, variables, secrets,
//! packages, tasks that end at given times, HTTP replies, locks. Its clock is virtual: a wait of two hours takes no
//! time. Guests run in the real hosts, behind the real layers, so grants, journal and masking behave as they do in the
//! server. What a run did comes back as a [`Transcript`] with a stable text form, made for snapshots.
//!
//! ```
//! use windlass_testkit::{FakeTask, FakeWorld};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let world = FakeWorld::new().task(FakeTask::deployment(7, "shop", "1.0.0", "test").on("web1").ends_after_ms(60_000));
//! let script = r#"
//!     //! needs: tasks-read
//!     await_quiet(#{machine: "web1"});
//!     info("web1 is quiet");
//! "#;
//! let script = script.replace("    ", "").trim().to_owned();
//! let run = world.run_script(&script, []).await;
//! assert!(run.succeeded(), "{run}");
//! assert!(run.transcript.has("info: web1 is quiet"));
//! # });
//! ```

mod answers;
mod fake;
mod machine;
#[cfg(feature = "plugins")]
mod plugin;
mod replay;
mod run;
mod scenario;
mod task;
mod transcript;

pub use fake::FakeWorld;
pub use machine::{FakeMachine, Reply};
#[cfg(feature = "plugins")]
pub use plugin::PluginInputs;
pub use replay::ReplayMismatch;
pub use run::Run;
pub use scenario::{Scenario, ScenarioError, scenarios};
pub use task::FakeTask;
pub use transcript::Transcript;
