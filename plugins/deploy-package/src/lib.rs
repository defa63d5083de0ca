//! Step `deploy-package`: extracts a package into a folder of its version, runs the hooks of step and package, replaces
//! variables in files and makes `current` mean the new version, all or nothing. Old versions are removed.
//!
//! Decisions are made here, from what the machine says of its install folder (`survey`, `plan`); the machine only gets
//! straight-line shell scripts (`script`), two in the usual case: one that looks and one that installs.

mod deploy;
mod journal;
mod plan;
mod script;
mod settings;
mod survey;

use windlass_plugin::prelude::*;

use deploy::{Machine, Ran};
use script::Script;
use settings::Settings;

/// Enough for a thousand journal lines and releases.
const CAPTURE: u32 = 512 * 1024;

struct DeployPackage;

impl Step for DeployPackage {
    fn manifest() -> Manifest {
        settings::manifest()
    }

    fn run(target: &Target, inputs: &Inputs) -> Result<()> {
        let package = inputs.package("package")?;
        let settings = Settings::read(inputs, &package)?;
        let session = target.machine()?;
        let archive = session.package_path(&package)?;
        let deployed = deploy::deploy(&OverSession(session), &settings, &archive)?;
        control::output("InstallationDirectory", &deployed.folder)?;
        control::output("Version", &settings.package.version)?;
        control::output("PreviousVersion", &deployed.previous_version)
    }

    fn validate(inputs: &Value) -> Vec<Failure> {
        settings::validate(inputs)
    }
}

/// The machine of the step, reached through the host.
struct OverSession<'a>(&'a Session<'a>);

impl Machine for OverSession<'_> {
    fn run(&self, script: &Script) -> Result<Ran> {
        let mut command = Command::script("sh", &script.text).capture_max(CAPTURE);
        for (name, value) in &script.env {
            command = command.env(name, value);
        }
        if script.quiet {
            command = command.quiet();
        }
        let exit = self.0.run(command)?;
        Ok(Ran { code: exit.code, stdout: exit.text().into_owned(), stderr: exit.error_text().into_owned() })
    }

    fn substitute(&self, folder: &str, globs: &[String]) -> Result<()> {
        let done = self.0.substitute(folder, globs)?;
        info!(
            "replaced variables in: {}",
            if done.changed.is_empty() { "no file".into() } else { done.changed.join(", ") }
        );
        if !done.unmatched.is_empty() {
            warn!("no file of the package matches {}", done.unmatched.join(", "));
        }
        if !done.unresolved.is_empty() {
            warn!("left as written, because no such variable exists: {}", done.unresolved.join(", "));
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        info!("{line}");
    }
}

export_step!(DeployPackage);
