//! What the author of a process can say about the step, and the functions that shell scripts get for free.

use std::time::Duration;

use windlass_plugin::prelude::*;

const INTERPRETERS: [&str; 5] = ["sh", "bash", "pwsh", "powershell", "python3"];
const MAX_TIMEOUT: u64 = 7 * 24 * 3600;

pub(crate) fn manifest() -> Manifest {
    Manifest::new("run-script", "1.0.0", "Run a script")
        .description(
            "Runs a script on a machine. Exit code 0 is success. A script for sh or bash sets output variables with \
             `set_output NAME VALUE` and gives up with `fail_step REASON`; other languages print a line \
             `##windlass[setVariable name='…' value='…']`, name and value in base64.",
        )
        .input("script", Input::text().title("Script").description("The text of the script.").required())
        .input(
            "interpreter",
            Input::text()
                .title("Language")
                .description("The program that runs it; it must be installed on the machine.")
                .one_of(&INTERPRETERS)
                .default("sh"),
        )
        .input("arguments", Input::list().title("Arguments").description("Handed to the script as they are."))
        .input("environment", Input::map().title("Environment").description("Environment variables by name."))
        .input(
            "secret_environment",
            Input::map().title("Secret environment").description(
                "Environment variables by name, each with the name of a secret variable (not its value, not a template).",
            ),
        )
        .input(
            "working_directory",
            Input::text()
                .title("Working folder")
                .description("Must exist. The home folder of the login unless given."),
        )
        .input(
            "timeout_seconds",
            Input::integer()
                .title("Time limit")
                .description("Seconds after which the script is ended with all it started; at most a week.")
                .default(3600),
        )
        .input(
            "fail_on_stderr",
            Input::boolean()
                .title("Fail on error output")
                .description("Fail if the script writes anything to standard error.")
                .default(false),
        )
        .output("ExitCode", "The exit code of the script. Further outputs are those the script sets.")
        .capability(Capability::Machine)
}

/// The inputs of one run, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub script: String,
    pub interpreter: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Name in the environment, name of the secret variable.
    pub secrets: Vec<(String, String)>,
    pub working_directory: Option<String>,
    pub timeout: Duration,
    pub fail_on_stderr: bool,
}

impl Settings {
    pub(crate) fn read(inputs: &Inputs) -> Result<Self> {
        Ok(Self {
            script: inputs.text("script")?,
            interpreter: inputs.text("interpreter")?,
            arguments: inputs.list("arguments")?,
            environment: environment("environment", &inputs.json("environment")?)?,
            secrets: environment("secret_environment", &inputs.json("secret_environment")?)?,
            working_directory: inputs.non_empty("working_directory")?,
            timeout: timeout(inputs.parse("timeout_seconds")?)?,
            fail_on_stderr: inputs.parse("fail_on_stderr")?,
        })
    }
}

/// Looks at the inputs as written.
pub(crate) fn validate(inputs: &Value) -> Vec<Failure> {
    let maps = ["environment", "secret_environment"];
    let mut problems: Vec<_> =
        maps.iter().filter_map(|name| environment(name, inputs.get(name).unwrap_or(&Value::Null)).err()).collect();
    problems.extend(inputs.get("timeout_seconds").and_then(Value::as_i64).and_then(|seconds| timeout(seconds).err()));
    problems
}

fn timeout(seconds: i64) -> Result<Duration> {
    let valid = u64::try_from(seconds).ok().filter(|seconds| (1..=MAX_TIMEOUT).contains(seconds));
    valid.map(Duration::from_secs).ok_or_else(|| {
        let message = format!("a time limit of {seconds} seconds is not possible; write 1 to {MAX_TIMEOUT}");
        Failure::new("invalid-input", message).with("input", "timeout_seconds")
    })
}

/// Texts by name, where every name can be one of an environment variable.
fn environment(input: &str, map: &Value) -> Result<Vec<(String, String)>> {
    let wrong = |message: String| Failure::new("invalid-input", message).with("input", input);
    let fields = match map {
        Value::Null => return Ok(Vec::new()),
        Value::Object(fields) => fields,
        _ => return Err(wrong(format!("`{input}` must be texts by name"))),
    };
    let variable = |(name, value): (&String, &Value)| {
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let message = "cannot be the name of an environment variable; use letters, digits and underscores";
            return Err(wrong(format!("`{name}` in `{input}` {message}")));
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Ok((name.clone(), text))
    };
    fields.iter().map(variable).collect()
}

/// Functions for shell scripts. One line without a line break at its end, so that line numbers in error messages are
/// those of the script as written; a `#!` in its first line becomes a comment.
pub(crate) fn prelude(interpreter: &str) -> &'static str {
    match interpreter {
        "sh" | "bash" => concat!(
            "windlass_base64() { if command -v base64 >/dev/null 2>&1; then printf %s \"$1\" | base64 | tr -d '\\n'; ",
            "else printf %s \"$1\" | openssl base64 -A; fi; }; ",
            "set_output() { printf \"##windlass[setVariable name='%s' value='%s']\\n\" ",
            "\"$(windlass_base64 \"$1\")\" \"$(windlass_base64 \"$2\")\"; }; ",
            "fail_step() { printf \"##windlass[fail reason='%s']\\n\" \"$(windlass_base64 \"$*\")\"; exit 1; }; ",
        ),
        _ => "",
    }
}
