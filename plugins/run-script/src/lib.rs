//! Step `run-script`: runs a script of the process on a machine, in the interpreter it is written for, and takes output
//! variables from the lines it prints (`messages`). Scripts for `sh` and `bash` get small helper functions (`prelude`).

mod messages;
mod settings;

use windlass_plugin::prelude::*;

use messages::{Message, parse_line};
use settings::{Settings, prelude};

/// The most that the host hands over; messages before it are lost, and that is said.
const CAPTURE: u32 = 1 << 20;

struct RunScript;

impl Step for RunScript {
    fn manifest() -> Manifest {
        settings::manifest()
    }

    fn run(target: &Target, inputs: &Inputs) -> Result<()> {
        let settings = Settings::read(inputs)?;
        let exit = target.machine()?.run(command(&settings)?)?;
        if exit.truncated {
            warn!(
                "of what the script printed at most the last 1 MiB is known: output variables it set before that are not"
            );
        }
        let outcome = Outcome::of(&exit.text());
        for (name, value, sensitive) in &outcome.outputs {
            if *sensitive { control::sensitive_output(name, value)? } else { control::output(name, value)? }
        }
        control::output("ExitCode", &exit.code.to_string())?;
        judge(&settings, exit.code, &outcome, &exit.error_text())
    }

    fn validate(inputs: &Value) -> Vec<Failure> {
        settings::validate(inputs)
    }
}

fn command(settings: &Settings) -> Result<Command> {
    let text = format!("{}{}", prelude(&settings.interpreter), settings.script);
    let mut command = Command::script(&settings.interpreter, &text)
        .args(&settings.arguments)
        .timeout(settings.timeout)
        .capture_max(CAPTURE);
    for (name, value) in &settings.environment {
        command = command.env(name, value);
    }
    for (name, variable) in &settings.secrets {
        let secret = variables::secret(variable)?.or_fail(format!(
            "`secret_environment` gives {name} the variable {variable}, which does not exist: add it to variables.yaml"
        ))?;
        command = command.env_secret(name, &secret);
    }
    if let Some(folder) = &settings.working_directory {
        command = command.cwd(folder);
    }
    Ok(command)
}

/// What the script told by its messages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Name, value and whether the value is a secret; the last of a name counts.
    outputs: Vec<(String, String, bool)>,
    /// Why the script says it failed.
    reason: Option<String>,
}

impl Outcome {
    fn of(stdout: &str) -> Self {
        let mut outcome = Self::default();
        for message in stdout.lines().filter_map(parse_line) {
            match message {
                Message::SetVariable { name, value, sensitive } => {
                    outcome.outputs.retain(|(known, _, _)| *known != name);
                    outcome.outputs.push((name, value, sensitive));
                }
                Message::Fail { reason } => outcome.reason = Some(reason),
            }
        }
        outcome
    }
}

/// Whether the step succeeded, in words if not.
fn judge(settings: &Settings, code: i32, outcome: &Outcome, stderr: &str) -> Result<()> {
    let failed = |message: String| Err(Failure::new("script-failed", message).with("exit_code", code));
    let last = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    match (&outcome.reason, code, last) {
        (Some(reason), _, _) => failed(reason.clone()),
        (None, 0, Some(line)) if settings.fail_on_stderr => {
            failed(format!("the script wrote to standard error, which `fail_on_stderr` forbids: {line}"))
        }
        (None, 0, _) => Ok(()),
        (None, 127, last) => failed(format!(
            "the script ended with exit code 127 (a command was not found{}); is {} installed there?",
            last.map(|line| format!(": {line}")).unwrap_or_default(),
            if last.is_some() { "it" } else { settings.interpreter.as_str() }
        )),
        (None, code, Some(line)) => failed(format!("the script ended with exit code {code}: {line}")),
        (None, code, None) => failed(format!("the script ended with exit code {code}; see the log above")),
    }
}

export_step!(RunScript);

#[cfg(test)]
#[path = "run_script_tests.rs"]
mod tests;
