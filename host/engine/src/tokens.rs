//! Bearer tokens: random, shown once, kept as digests.

use rand::Rng;
use sha2::{Digest, Sha256};
use windlass_model::{SecretText, TokenName};
use windlass_store::{Batch, Store};

use crate::{
    error::EngineError,
    records::{TOKENS, all},
};

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

/// Names of all tokens.
///
/// # Errors
/// When the store stopped.
pub async fn names(store: &dyn Store) -> Result<Vec<String>, EngineError> {
    let mut names = all(store, &TOKENS, TOKENS.all()).await?;
    names.sort();
    Ok(names)
}

/// Makes a token for somebody who has none.
///
/// # Errors
/// When there is one of that name, or the store stopped.
pub async fn add(store: &dyn Store, name: &TokenName) -> Result<SecretText, EngineError> {
    if names(store).await?.iter().any(|known| known.eq_ignore_ascii_case(name.as_str())) {
        return Err(EngineError::conflict("token-exists", format!("there is a token {name} already"))
            .fix(format!("choose another name, or make it void first: windlass token revoke {name}")));
    }
    create(store, name.as_str()).await
}

/// Makes a token void.
///
/// # Errors
/// When there is none of that name, or it is the last one.
pub async fn revoke(store: &dyn Store, name: &TokenName) -> Result<(), EngineError> {
    let mut batch = Batch::new();
    let mut left = 0_usize;
    let mut scan = TOKENS.all();
    loop {
        let page = TOKENS.scan(store, scan.clone()).await?;
        for record in &page.records {
            if record.value.eq_ignore_ascii_case(name.as_str()) {
                batch.delete(TOKENS.name(), record.key.clone());
            } else {
                left += 1;
            }
        }
        match page.records.last() {
            Some(last) if page.more => scan = scan.after(last.key.clone()),
            _ => break,
        }
    }
    if batch.is_empty() {
        return Err(EngineError::not_found("token", name).fix("windlass token list"));
    }
    if left == 0 {
        return Err(EngineError::conflict(
            "last-token",
            format!("{name} is the last token: nobody could make another"),
        )
        .fix("make a new one first: windlass token create <name>"));
    }
    store.commit(batch).await?;
    Ok(())
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
