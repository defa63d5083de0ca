//! The domain of Windlass: names, records, file formats, variables.
//!
//! This crate owns what things *are*. It performs no I/O and knows no step kind: what a step type
//! needs is data in its [`manifest`]. Deciding when things happen belongs to `windlass-scheduler`,
//! keeping them to `windlass-store`.

pub mod codes;
pub mod diagnostic;
pub mod diff;
pub mod files;
pub mod machine;
pub mod manifest;
pub mod name;
pub mod process;
pub mod project;
pub mod replay;
pub mod scheduling;
pub mod schema;
pub mod secret;
mod suggest;
pub mod task;
pub mod template;
pub mod validate;
pub mod variable;
pub mod variables;
pub mod views;
pub mod workspace;

pub use machine::{Connection, Environment, Machine, SshAuth};
pub use manifest::{Capability, Manifest};
pub use name::{
    EnvironmentName, InvalidName, MachineName, PackageId, PoolName, ProjectName, Role, StepName, TokenName,
};
pub use process::{On, PluginRef, Process, RunCondition, StartTrigger, Step};
pub use project::{PinnedGuest, PinnedPackage, Project, Release};
pub use secret::SecretText;
pub use suggest::nearest;
pub use task::{RunId, RunState, TaskId, TaskKind, TaskState};
pub use variable::{Scope, Variable, VariableValue};
pub use workspace::{ApplyReport, ProjectFiles, Workspace};
