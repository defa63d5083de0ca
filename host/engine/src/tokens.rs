//! Bearer tokens: random, shown once, kept as digests.

use rand::Rng;
use sha2::{Digest, Sha256};
use windlass_model::SecretText;
use windlass_store::{Batch, Store};

use crate::{error::EngineError, records::TOKENS};

/// Makes a token with that name.
///
/// # Errors
/// When the store stopped.
pub async fn create(store: &dyn Store, name: &str) -> Result<SecretText, EngineError> {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    let token = SecretText::new(format!("wl_{}", hex::encode(bytes)));
    let mut batch = Batch::new();
    TOKENS.put(&mut batch, digest(token.expose()).as_str(), &name.to_owned())?;
    store.commit(batch).await?;
    Ok(token)
}

/// The name of a token, if it is one. Looking up its digest takes the same time whatever the token.
///
/// # Errors
/// When the store stopped.
pub async fn check(store: &dyn Store, token: &str) -> Result<Option<String>, EngineError> {
    Ok(TOKENS.get(store, digest(token).as_str()).await?.map(|stored| stored.value))
}

/// Whether there is any token.
///
/// # Errors
/// When the store stopped.
pub async fn any(store: &dyn Store) -> Result<bool, EngineError> {
    Ok(!TOKENS.scan(store, TOKENS.all().limit(1)).await?.records.is_empty())
}

fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}
