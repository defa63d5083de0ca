//! The head of a script: leading `//!` lines that say, in YAML, what the script is, needs and takes.

use std::{collections::BTreeSet, fmt};

use rhai::Position;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use windlass_model::{
    Capability,
    manifest::{Input, InputKind},
    nearest,
};

use crate::diagnostic::Diagnostic;

/// What marks a line of the head.
const MARK: &str = "//!";

/// What a script says of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptManifest {
    /// Its name, for people.
    #[serde(default)]
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
    /// What it asks the host for; what is not named here is denied.
    #[serde(default, deserialize_with = "needs")]
    pub needs: BTreeSet<Capability>,
    /// Arguments it takes.
    #[serde(default)]
    pub arguments: Vec<Input>,
}

impl ScriptManifest {
    /// Reads the head of a script. A script without one takes nothing and needs nothing.
    pub(crate) fn read(script: &str, source: &str) -> Result<Self, Box<Diagnostic>> {
        // The mark is replaced by as many blanks, so that places in the YAML are places in the script.
        let head: String =
            source.lines().map_while(|line| line.strip_prefix(MARK)).map(|line| format!("   {line}\n")).collect();
        if head.trim().is_empty() {
            return Ok(Self::default());
        }
        let manifest: Self = serde_saphyr::from_str(&head).map_err(|error| {
            let place = error.location().map_or(Position::NONE, |at| position(&at));
            let what = error.without_snippet().to_string();
            Diagnostic::new(
                script,
                "head",
                format!("the head of the script cannot be read: {}", first_line(&what)),
                "write the //! lines as YAML with the keys name, description, needs and arguments",
            )
            .at(source, place)
        })?;
        manifest.check(script)?;
        Ok(manifest)
    }

    fn check(&self, script: &str) -> Result<(), Box<Diagnostic>> {
        let fault = |message: String, fix: &str| Err(Diagnostic::new(script, "head", message, fix));
        let mut seen = BTreeSet::new();
        for argument in &self.arguments {
            let name = &argument.name;
            let proper = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                && name.starts_with(|c: char| c.is_ascii_lowercase());
            if !proper || name.len() > 64 {
                return fault(
                    format!("{name:?} cannot name an argument"),
                    "use lower-case letters, digits and '_', starting with a letter",
                );
            }
            if !seen.insert(name) {
                return fault(format!("the argument {name} is declared twice"), "keep one of the two");
            }
            if matches!(argument.kind, InputKind::Secret | InputKind::Package) {
                return fault(
                    format!("the argument {name} asks for a secret or a package, which scripts do not take"),
                    "take its name as text; a plugin step may use what it stands for",
                );
            }
        }
        Ok(())
    }
}

fn position(at: &serde_saphyr::Location) -> Position {
    let narrow = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    match narrow(at.line()) {
        0 => Position::NONE,
        line => Position::new(line, narrow(at.column())),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Reads `needs: tasks-read, lock` as well as `needs: [tasks-read, lock]`.
fn needs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Capability>, D::Error> {
    struct Needs;

    impl<'de> Visitor<'de> for Needs {
        type Value = BTreeSet<Capability>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("capabilities, such as `tasks-read, lock`")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            text.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(|word| capability(word).map_err(E::custom))
                .collect()
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeSet::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeSet::new();
            while let Some(word) = seq.next_element::<String>()? {
                found.insert(capability(&word).map_err(A::Error::custom)?);
            }
            Ok(found)
        }
    }

    deserializer.deserialize_any(Needs)
}

fn capability(word: &str) -> Result<Capability, String> {
    let all = || Capability::ALL.iter();
    all().find(|known| known.as_str() == word).cloned().ok_or_else(|| {
        let word: String = word.chars().take(40).collect();
        match nearest(&word, all().map(Capability::as_str)) {
            Some(near) => format!("there is no capability {word:?}, did you mean {near:?}?"),
            None => {
                let known: Vec<_> = all().map(Capability::as_str).collect();
                format!("there is no capability {word:?}, only {}", known.join(", "))
            }
        }
    })
}
