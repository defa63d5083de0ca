//! `windlass:lock`: named locks.

use wasmtime::component::Resource;
use windlass_effects::{Effect, Outcome};
use windlass_model::manifest::LockMode;

use super::{Calls, Reply, check, check_name, refuse, unexpected};
use crate::bindings::windlass::lock::locks;

/// A lock that the run holds. Locks that a guest leaves behind are released by the engine at the end of the run:
/// a guest that was suspended is dropped too, and keeps its locks.
pub struct Lock {
    token: u64,
    held: bool,
}

impl locks::Host for Calls {
    async fn acquire(&mut self, name: String, exclusive: bool, wait_ms: u64) -> Reply<Resource<Lock>> {
        check!(check_name("the name of the lock", &name));
        let mode = if exclusive { LockMode::Exclusive } else { LockMode::Shared };
        match self.ask(Effect::Acquire { resource: name, mode, wait_ms }).await? {
            Ok(Outcome::Lock(grant)) => Ok(Ok(self.hand_out(Lock { token: grant.token, held: true })?)),
            Ok(other) => Err(unexpected("acquire", &other)),
            Err(failure) => refuse(failure),
        }
    }
}

impl locks::HostLock for Calls {
    async fn token(&mut self, lock: Resource<Lock>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&lock)?.token)
    }

    async fn release(&mut self, lock: Resource<Lock>) -> Reply<()> {
        let lock = self.table.get_mut(&lock)?;
        if !std::mem::replace(&mut lock.held, false) {
            return Ok(Ok(()));
        }
        let token = lock.token;
        self.ask_done(Effect::Release { token }).await
    }

    async fn drop(&mut self, lock: Resource<Lock>) -> wasmtime::Result<()> {
        let lock = self.table.delete(lock)?;
        if lock.held {
            // A guest cannot be told that this failed; the engine releases what is left at the end of the run.
            let _ = self.ask(Effect::Release { token: lock.token }).await?;
        }
        Ok(())
    }
}
