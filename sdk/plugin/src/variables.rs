//! The variables of this run, as scoped to its environment, machine and step.

use crate::bindings::windlass::base::variables as raw;
use crate::{Result, Secret};

/// The value of a variable that is no secret.
pub fn get(name: &str) -> Result<Option<String>> {
    Ok(raw::get(name)?)
}

/// A handle to a secret variable.
pub fn secret(name: &str) -> Result<Option<Secret>> {
    Ok(raw::get_secret(name)?.map(Secret::new))
}

/// Replaces `#{Name}` templates in a text. Templates that would need a secret are refused.
pub fn expand(text: &str) -> Result<String> {
    Ok(raw::expand(text)?)
}
