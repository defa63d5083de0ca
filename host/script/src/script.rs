//! A compiled script, and checking one without running it.

use std::{io, thread};

use rhai::{AST, Scope};
use sha2::{Digest, Sha256};

use crate::{
    diagnostic::Diagnostic,
    engine::{self, STACK},
    explain,
    manifest::ScriptManifest,
};

/// Longest script, in bytes.
pub const MAX_SOURCE: usize = 256 * 1024;

/// Names that every script can read without declaring them.
pub(crate) const CONSTANTS: [&str; 2] = ["args", "task"];

/// A script that compiles, with what it says of itself.
#[derive(Debug, Clone)]
pub struct Script {
    name: String,
    source: String,
    sha256: String,
    manifest: ScriptManifest,
    pub(crate) ast: AST,
}

impl Script {
    /// Compiles a script; `name` is what messages call it, such as `deploy-in-order.rhai`.
    ///
    /// # Errors
    /// What is wrong with its head or its text.
    pub fn compile(name: &str, source: &str) -> Result<Self, Box<Diagnostic>> {
        if source.len() > MAX_SOURCE {
            return Err(Diagnostic::new(
                name,
                "limit",
                format!("the script has {} bytes, more than the {MAX_SOURCE} that one may", source.len()),
                "split it into several scripts",
            ));
        }
        let manifest = ScriptManifest::read(name, source)?;
        // The depth of a text decides the depth of the stack, so the stack must be a known one.
        let ast = on_known_stack(|| parse(name, source)).map_err(|error| {
            let message = format!("no thread could be started to compile the script: {error}");
            Diagnostic::new(name, "unavailable", message, "try again when the server is less busy")
        })??;
        Ok(Self {
            name: name.to_owned(),
            source: source.to_owned(),
            sha256: hex::encode(Sha256::digest(source)),
            manifest,
            ast,
        })
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// SHA-256 of its text: what pins it for a whole run.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &ScriptManifest {
        &self.manifest
    }
}

/// Everything that is wrong with a script, found without running it. Empty: it compiles.
#[must_use]
pub fn check(name: &str, source: &str) -> Vec<Diagnostic> {
    Script::compile(name, source).err().map(|fault| *fault).into_iter().collect()
}

fn parse(name: &str, source: &str) -> Result<AST, Box<Diagnostic>> {
    let mut scope = Scope::new();
    for constant in CONSTANTS {
        scope.push_constant(constant, ());
    }
    engine::bare().compile_with_scope(&scope, source).map_err(|error| explain::parse(name, source, &error))
}

fn on_known_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("script-compile".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)?
            .join()
            .map_err(|_| io::Error::other("the compiler failed"))
    })
}
