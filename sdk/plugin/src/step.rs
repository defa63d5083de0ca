//! The trait a plugin implements, and the machine its step runs on.

use serde_json::Value;

use crate::bindings::windlass::machine::session::Session as RawSession;
use crate::{Failure, Inputs, Manifest, Result, Session};

/// A step plugin.
pub trait Step {
    /// What the step is, takes and needs. Must not call the host.
    fn manifest() -> Manifest;

    /// Does the work. A failure stops the deployment on this machine; a panic is a bug and is shown as one.
    fn run(target: &Target, inputs: &Inputs) -> Result<()>;

    /// Checks the inputs as written (an object whose templates are not expanded yet), beyond what the manifest says.
    /// Name the input of a problem with `.with("input", name)`. Must not call the host.
    fn validate(inputs: &Value) -> Vec<Failure> {
        let _ = inputs;
        Vec::new()
    }
}

/// Where a step runs: a machine, or the server itself.
pub struct Target<'a> {
    machine: Option<Session<'a>>,
}

impl<'a> Target<'a> {
    pub(crate) fn new(raw: Option<&'a RawSession>) -> Self {
        Self { machine: raw.map(Session::new) }
    }

    /// The machine, or a failure if the step was put on the server.
    pub fn machine(&self) -> Result<&Session<'a>> {
        self.machine.as_ref().ok_or_else(|| {
            Failure::new("no-machine", "this step needs a machine: give it a role or a pool with `on:` in the process")
        })
    }

    /// The machine, if the step runs on one.
    pub fn optional_machine(&self) -> Option<&Session<'a>> {
        self.machine.as_ref()
    }
}
