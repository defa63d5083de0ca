//! One deployment of one package on one machine, from looking to cleaning up, over anything that can run a script.

use windlass_plugin::{Failure, Result};

use crate::plan::{Plan, plan, version_of};
use crate::script::{Installation, Script, look};
use crate::settings::Settings;
use crate::survey::Survey;

/// What the deployment needs of a machine. In production this is the session of the step; in tests a real shell.
pub(crate) trait Machine {
    fn run(&self, script: &Script) -> Result<Ran>;
    fn substitute(&self, folder: &str, globs: &[String]) -> Result<()>;
    fn say(&self, line: &str);
}

/// How a script ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Deployed {
    /// The folder of the version that is current now.
    pub folder: String,
    /// The version that was current before; empty if there was none.
    pub previous_version: String,
}

pub(crate) fn deploy(machine: &impl Machine, settings: &Settings, archive: &str) -> Result<Deployed> {
    let looked = machine.run(&look(settings))?;
    if looked.code != 0 {
        return Err(failure("no-folder", &format!("{} cannot be looked at: {}", settings.install_dir, looked.stderr)));
    }
    let survey = Survey::parse(&looked.stdout)?;
    let package = &settings.package;
    let install = match plan(settings, &survey)? {
        Plan::Install(install) => install,
        Plan::Nothing { folder } => {
            machine.say(&format!(
                "{} {} is installed already; `force: true` installs it again",
                package.id, package.version
            ));
            let previous_version = version_of(&survey, &folder);
            return Ok(Deployed { folder: format!("{}/releases/{folder}", survey.base), previous_version });
        }
    };
    let parts = Installation::new(settings, &survey, &install, archive);
    let folder = format!("{}/releases/{}", survey.base, install.name);
    if settings.substitute.is_empty() {
        check(&machine.run(&parts.whole())?)?;
    } else {
        check(&machine.run(&parts.first_half())?)?;
        if let Err(reason) = machine.substitute(&folder, &settings.substitute) {
            if !reason.is_cancelled() {
                // It ends with an exit code of its own; the reason to tell is the one we have.
                machine.run(&parts.give_up(&reason.message))?;
            }
            return Err(reason.context(format!("variables were not put into the files of {folder}")));
        }
        check(&machine.run(&parts.second_half())?)?;
    }
    machine.say(&format!("{} {} is installed in {folder}", package.id, package.version));
    Ok(Deployed { folder, previous_version: install.previous_version })
}

/// A script that gave up says why in a line of its own.
fn check(ran: &Ran) -> Result<()> {
    if ran.code == 0 {
        return Ok(());
    }
    let given_up = ran.stdout.lines().rev().find_map(|line| line.strip_prefix("[deploy-package] failed "));
    Err(match given_up.and_then(|line| line.split_once(' ')) {
        Some((code, text)) => failure(code, text),
        None => {
            let last = ran.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            failure("script-failed", &format!("the installation ended with exit code {}: {last}", ran.code))
        }
    })
}

/// A failure with what to do about it.
fn failure(code: &str, text: &str) -> Failure {
    let advice = match code {
        "no-tar" => "install it there: apt-get install tar (or apk add tar, dnf install tar)",
        "no-unzip" => "install it there: apt-get install unzip (or apk add unzip, dnf install unzip), or push a tar.gz",
        "disk-full" => "free some space there, for example with a smaller `keep`; nothing was switched",
        "no-folder" => "choose an install_dir the login may write to, or give it the rights",
        "no-archive" => "deploy again: the package is sent anew",
        "bad-archive" => "pack and push the package again under a new version",
        "in-use" => "deploy again once the other deployment has ended",
        "hook-failed" => "its output is in the log above; `current` is as it was before",
        _ => "see the log above",
    };
    Failure::new(code, format!("{text}; {advice}"))
}

#[cfg(test)]
#[path = "deploy_tests.rs"]
mod tests;
