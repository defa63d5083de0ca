//! Secrets at rest: sealed with a key that lies beside the store, never in it.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::{
    Key, XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windlass_model::SecretText;
use zeroize::Zeroizing;

use crate::error::{EngineError, ErrorKind};

const NONCE: usize = 24;

/// A sealed secret, fit for the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

/// Seals and opens secrets.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    fingerprint: String,
}

impl Vault {
    /// Reads the key of that file, or makes one there.
    ///
    /// # Errors
    /// When the file cannot be read or made, is no key, or others may read it.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let failed = |error: std::io::Error| {
            EngineError::internal(format!("failed to open the secret key {}: {error}", path.display()))
        };
        if !path.exists() {
            let mut key = Zeroizing::new([0_u8; 32]);
            rand::rng().fill_bytes(&mut *key);
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            file.write_all(BASE64_STANDARD.encode(*key).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        let mode = fs::metadata(path).map_err(failed)?.mode();
        if mode & 0o077 != 0 {
            return Err(EngineError::new(
                ErrorKind::Unavailable,
                "secret-key-exposed",
                format!("the secret key {} may be read by others", path.display()),
            )
            .fix(format!("chmod 600 {}", path.display())));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim()).unwrap_or_default());
        if bytes.len() != 32 {
            return Err(EngineError::internal(format!("{} holds no secret key", path.display()))
                .fix("put the key from your backup back"));
        }
        // Of a random key a digest tells nothing; a part of it is enough to tell keys apart.
        let digest = Sha256::new().chain_update(b"windlass secret key").chain_update(&*bytes).finalize();
        let fingerprint = hex::encode(digest.get(..16).unwrap_or_default());
        Ok(Self { cipher: XChaCha20Poly1305::new(Key::from_slice(&bytes)), fingerprint })
    }

    /// Tells keys apart without telling anything of them.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Seals a secret. `place` says where it belongs: a sealed text moved elsewhere does not open.
    ///
    /// # Errors
    /// Never in practice; the cipher refuses texts beyond 256 GiB.
    pub fn seal(&self, place: &str, secret: &SecretText) -> Result<Sealed, EngineError> {
        let mut nonce = [0_u8; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: secret.expose().as_bytes(), aad: place.as_bytes() };
        let sealed = self
            .cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| EngineError::internal("failed to seal a secret"))?;
        Ok(Sealed(BASE64_STANDARD.encode([&nonce[..], &sealed].concat())))
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// When it was sealed by another key, for another place, or changed since.
    pub fn unseal(&self, place: &str, sealed: &Sealed) -> Result<SecretText, EngineError> {
        let failed = || {
            EngineError::internal(format!("failed to open the secret of {place}: it was sealed with another key"))
                .fix("put the secret key of this store back, or set the secret again")
        };
        let bytes = BASE64_STANDARD.decode(&sealed.0).map_err(|_| failed())?;
        let (nonce, text) = bytes.split_at_checked(NONCE).ok_or_else(failed)?;
        let payload = Payload { msg: text, aad: place.as_bytes() };
        let open = Zeroizing::new(self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| failed())?);
        std::str::from_utf8(&open).map(SecretText::new).map_err(|_| failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_where_it_belongs_and_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, other) = (Vault::open(&dir.path().join("a")).unwrap(), Vault::open(&dir.path().join("b")).unwrap());
        let sealed = vault.seal("shop/Db.Password", &SecretText::new("hunter2")).unwrap();
        assert!(!serde_json::to_string(&sealed).unwrap().contains("hunter2"));
        let again = Vault::open(&dir.path().join("a")).unwrap();
        assert_eq!(again.unseal("shop/Db.Password", &sealed).unwrap().expose(), "hunter2");
        assert!(vault.unseal("shop/Other", &sealed).is_err());
        assert!(other.unseal("shop/Db.Password", &sealed).is_err());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_fix() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Vault::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Vault::open(&path).err().unwrap();
        assert_eq!(error.fix.unwrap(), format!("chmod 600 {}", path.display()));
    }
}
