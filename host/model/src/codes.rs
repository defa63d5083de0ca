//! The stable codes of what can be wrong in a team's files.
//!
//! One table: code, title, explanation. The first letter tells the severity, E for an error and W for
//! a warning; the first two digits the subject: 01 the file itself, 02 references, 03 steps, 04
//! variables and templates. A code is never reused for something else. Every code has an example file
//! in `tests/codes`, which a test renders.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Severity;

macro_rules! codes {
    ($($code:ident $title:literal $explanation:literal)*) => {
        /// A stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The code as text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),* }
            }

            /// A few words for a heading.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$code => $title),* }
            }

            /// What it means and what to do, in a few sentences.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$code => $explanation),* }
            }
        }
    };
}

codes! {
    E0101 "not valid YAML"
        "The file cannot be read as YAML, so nothing in it was checked. Common reasons: a tab for indentation, an unclosed quote or bracket, a colon followed by a space inside an unquoted text, or lines of one list at different depths."
    E0102 "unknown key"
        "The key has no meaning at this place. Unknown keys are refused rather than ignored, since most of them are typing errors that would otherwise show only in a deployment. `windlass schema` prints every key there is, and editors can use it for completion."
    E0103 "missing key"
        "A key that must be there is missing, or has no value."
    E0104 "wrong kind of value"
        "The value is of another kind than the key takes: a list where one value is meant, a number where text is meant, and so on. In YAML an unquoted 1.10 is the number 1.1 and an unquoted true is a flag: write text in quotes."
    E0105 "not a name"
        "Names of projects, environments, machines, steps, roles, pools and packages have 1 to 64 characters, letters, digits, '-', '_' and '.', and start with a letter or a digit. Case does not count: Web and web are one name."
    E0106 "not one of the allowed values"
        "The key takes one of a few fixed words only."
    E0107 "duplicate key"
        "The same key stands twice in one map. One of the two values would be lost without a word, so the file is refused."
    E0108 "file too large or too deep"
        "A file may have 1 MiB, 100,000 values, a nesting of 32, and a few thousand repetitions through aliases. The limits keep a damaged or hostile file from using up the memory of the server."
    E0109 "number out of range"
        "The number is smaller or greater than the key allows."
    E0110 "file cannot be read"
        "The file or folder could not be opened, or is not UTF-8 text."
    E0111 "incomplete project folder"
        "A project is a folder with two files, project.yaml and process.yaml, and if it has variables a third, variables.yaml. The workspace may hold any number of such folders, or be one itself."
    E0112 "YAML feature that is not used here"
        "The files are plain YAML: no tags such as !include, no merge keys (<<), one document a file. Anchors and aliases are allowed. Where the same thing is needed twice, use a variable."
    W0113 "file is not read"
        "The name is nearly that of a file that Windlass reads, but not quite, so the file is ignored. The names are environments.yaml, machines.yaml, project.yaml, process.yaml and variables.yaml."
    E0201 "unknown environment"
        "Neither environments.yaml nor the server has an environment of that name. Scopes and conditions that name a missing environment would never hold, so they are refused."
    E0202 "unknown machine"
        "Neither machines.yaml nor the server has a machine of that name."
    W0203 "role that no machine has"
        "No machine that belongs to an environment has this role, so the step or the value would never apply. Add the role to a machine in machines.yaml, or correct the name."
    E0204 "unknown pool"
        "No machine works for a pool of that name. Pools come into being by machines that list them under `pools`."
    E0205 "unknown step"
        "The process of the project has no step of that name."
    E0206 "duplicate name"
        "Two things of one kind have the same name. Names are compared without regard to case."
    E0207 "unknown package"
        "The server has no package of that id. Push it first, or correct the id."
    E0208 "output that is not there yet"
        "Output variables of a step can be read by the steps that start after it has ended: not by itself, not by the steps that start together with it (start: with-previous), and not by earlier ones."
    E0301 "unknown step type"
        "No plugin of that id is installed, so nobody knows what the step does."
    E0302 "step type in another major version"
        "The plugin is installed, but not in the major version that the step was written for. A new major version may have other inputs, so it is never taken by itself."
    E0303 "missing input"
        "The step type cannot work without this input."
    E0304 "unknown input"
        "The step type has no input of that name. `windlass plugin inspect` lists the inputs with their meaning."
    E0305 "wrong kind of input"
        "The input takes another kind of value. Where it takes a number or a flag, a text with a #{…} expression is allowed too."
    E0306 "input not one of its allowed values"
        "The input takes one of a few fixed values only."
    E0307 "step without machines"
        "The step type works on machines, so the step must say which: `on: { role: … }`, `on: { machine: … }` or `on: { pool: … }`."
    W0308 "first step starts with the previous one"
        "There is no step before the first, so `start: with-previous` has no effect."
    W0309 "process without steps"
        "A deployment of the project would succeed and do nothing."
    W0310 "rolling window without effect"
        "A rolling window limits how many machines a step works on at once. A step that runs on one machine, or on none, has nothing to limit."
    E0311 "keys that do not go together"
        "Each of the keys has a meaning, but not together: one of them would have no effect, or say the opposite of the other. A step with child steps does nothing itself, and its children run where and when it does: on, start, rolling and approval belong to the parent."
    E0312 "step that does nothing"
        "A step does something of its own (uses), asks a person (approval), or holds child steps (steps)."
    W0313 "condition that never changes"
        "A condition is a text with #{…} expressions. Without one it is the same in every deployment: true, unless it is empty, 0, no or false."
    E0401 "ambiguous variable"
        "Two values of one variable have the same scope, so it could not be told which holds. The more specific scope wins (step, machine, role of the step, role, environment, in this order), and scopes of equal rank are refused instead of chosen by accident."
    E0402 "template does not parse"
        "A #{…} expression is not well formed. Write ##{ where the two characters are meant literally."
    W0403 "unknown variable"
        "The project has no variable of that name, and it is none of the server's own. The deployment would fail when the value is needed. Values set by an earlier step are written #{Step[name].Output.value}."
    W0404 "secret in clear text"
        "The name or the value looks like a password, token or key that stands readable in the file. Write `secret: { env: NAME }` or `secret: { file: PATH }` instead of `value`: it is then read when the files are applied, kept encrypted, and masked in logs."
    E0405 "secret cannot be read"
        "The environment variable or file that holds the secret is missing where the files are applied."
    E0406 "secret too short"
        "Secrets are masked in logs wherever they appear. One of fewer than four characters would blacken half of every log, so it is refused."
    E0407 "reserved name"
        "The server sets this variable itself for every deployment; a value in a file would never be used."
}

impl Code {
    /// Whether it stops, as its first letter says.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with('W') { Severity::Warning } else { Severity::Error }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no code {0:?}; codes look like E0102")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .iter()
            .find(|code| code.as_str().eq_ignore_ascii_case(text.trim()))
            .copied()
            .ok_or_else(|| UnknownCode(text.chars().take(20).collect()))
    }
}
