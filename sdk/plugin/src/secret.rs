//! Handles to secrets.

use std::fmt;

use crate::bindings::windlass::base::{reveal, secrets::Secret as Raw};
use crate::{Failure, Result};

/// A secret that stays on the host. Hand it on to a [`crate::Command`] or an [`crate::http::Request`].
pub struct Secret {
    pub(crate) raw: Raw,
}

impl Secret {
    pub(crate) fn new(raw: Raw) -> Self {
        Self { raw }
    }

    /// The name it was asked for by.
    pub fn name(&self) -> String {
        self.raw.name()
    }

    /// The value in clear. Needs the capability `secret-reveal`; prefer to hand the secret on.
    pub fn reveal(&self) -> Result<Vec<u8>> {
        Ok(reveal::reveal(&self.raw)?)
    }

    /// The value in clear, which must be text. Needs the capability `secret-reveal`.
    pub fn reveal_text(&self) -> Result<String> {
        // The conversion error of the standard library would carry the value.
        String::from_utf8(self.reveal()?)
            .map_err(|_| Failure::new("plugin", format!("secret `{}` is no UTF-8 text", self.name())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
