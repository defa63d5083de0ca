//! `windlass:base`: log, clock, randomness, secrets, variables.

use wasmtime::component::Resource;
use windlass_effects::{Effect, Failure, Outcome, SecretHandle};

use super::{Calls, MAX_CONTENT, Reply, ask, check, check_name, check_text, refuse, unexpected};
use crate::bindings::windlass::base::{clock, log, random, reveal, secrets, types, variables};

/// Most random bytes of one call.
const MAX_RANDOM: u32 = 1024;

/// A secret that was lent to the run.
pub struct Secret {
    pub name: String,
    pub handle: SecretHandle,
}

impl types::Host for Calls {}

impl log::Host for Calls {
    async fn write(&mut self, level: u8, message: String, attributes: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.log.write(level, &message, &attributes);
        Ok(())
    }
}

impl clock::Host for Calls {
    async fn now_unix_ms(&mut self) -> wasmtime::Result<u64> {
        match self.ask(Effect::Now).await? {
            Ok(Outcome::Number(ms)) => Ok(ms),
            Ok(other) => Err(unexpected("now", &other)),
            Err(failure) => Err(wasmtime::Error::new(failure)),
        }
    }

    async fn sleep_ms(&mut self, ms: u64) -> Reply<()> {
        self.ask_done(Effect::Sleep { ms }).await
    }
}

impl random::Host for Calls {
    async fn bytes(&mut self, count: u32) -> Reply<Vec<u8>> {
        if count > MAX_RANDOM {
            let message = format!("{count} random bytes were asked for, at most {MAX_RANDOM} are given at once");
            return refuse(Failure::new("too-large", message).fix("ask for fewer"));
        }
        ask!(self, Effect::Random { len: count }, Outcome::Bytes(bytes) => bytes)
    }
}

impl secrets::Host for Calls {}

impl secrets::HostSecret for Calls {
    async fn name(&mut self, secret: Resource<Secret>) -> wasmtime::Result<String> {
        Ok(self.table.get(&secret)?.name.clone())
    }

    async fn drop(&mut self, secret: Resource<Secret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl reveal::Host for Calls {
    async fn reveal(&mut self, secret: Resource<Secret>) -> Reply<Vec<u8>> {
        let secret = self.table.get(&secret)?.handle.clone();
        ask!(self, Effect::Reveal { secret }, Outcome::Secret(text) => text.expose().as_bytes().to_vec())
    }
}

impl variables::Host for Calls {
    async fn get(&mut self, name: String) -> Reply<Option<String>> {
        check!(check_name("the name of the variable", &name));
        ask!(self, Effect::Variable { name }, Outcome::MaybeText(value) => value)
    }

    async fn get_secret(&mut self, name: String) -> Reply<Option<Resource<Secret>>> {
        check!(check_name("the name of the secret", &name));
        match self.ask(Effect::HasSecret { name: name.clone() }).await? {
            Ok(Outcome::Flag(false)) => Ok(Ok(None)),
            Ok(Outcome::Flag(true)) => {
                let handle = SecretHandle(name.clone());
                Ok(Ok(Some(self.hand_out(Secret { name, handle })?)))
            }
            Ok(other) => Err(unexpected("has_secret", &other)),
            Err(failure) => refuse(failure),
        }
    }

    async fn expand(&mut self, text: String) -> Reply<String> {
        check!(check_text("the text to expand", &text, MAX_CONTENT));
        ask!(self, Effect::Expand { text }, Outcome::Text(text) => text)
    }
}
