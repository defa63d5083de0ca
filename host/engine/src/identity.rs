//! Who this server is to machines: what tells its commands and locks there from those of other servers, and its locks
//! from its own of a former life.
//!
//! A machine keeps the highest fencing token it has seen of each resource, for ever. Two servers that work on one
//! machine count apart, so the resource bears a name that no other server has. A server that was made of a backup
//! counts from where the backup was, and has to be believed nevertheless: its tokens begin with the number of its life.
//!
//! A machine also remembers tickets, and would give a server that was made anew, and counts from one again, the results
//! of its predecessor. So tickets bear the name too; a server made of a backup has its own commands to find again.

use windlass_effects::Failure;
use windlass_machines::{Fence, MachineError, Ticket};
use windlass_model::{RunId, manifest::LockMode};
use windlass_scheduler::Resource;
use windlass_store::{Batch, Store, StoreError};

use crate::{driver::MachineLock, records::COUNTERS, vault::Vault};

/// Low bits of a token on a machine: the scheduler's own token. Above it is the number of the life.
const TOKEN_BITS: u32 = 38;
/// How much of the name is in a ticket, which is part of file names.
const TICKET_NAME: usize = 12;
/// Its name among the counters.
const LIFE: &str = "life";

/// Who this server is to machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The same in every life, and no other server's.
    name: String,
    /// Grows whenever the server is made of a backup.
    life: u64,
}

impl Identity {
    /// Reads it from the store. The name is that of the secret key, which goes with the data wherever that goes.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn load(store: &dyn Store, vault: &Vault) -> Result<Self, StoreError> {
        Ok(Self { name: vault.fingerprint(), life: life(store).await? })
    }

    /// The lock of a machine as the machine knows it.
    #[must_use]
    pub fn fence(&self, lock: &MachineLock) -> Fence {
        let most = (1 << TOKEN_BITS) - 1;
        Fence {
            resource: format!("{} {}", self.name, lock.resource.as_str()),
            token: (self.life << TOKEN_BITS) | lock.token.min(most),
            exclusive: lock.mode == LockMode::Exclusive,
        }
    }

    /// The ticket of an effect of a run, which a person had done once more so many times.
    ///
    /// # Errors
    /// When the run's id is too long for one.
    pub fn ticket(&self, run: &RunId, index: u64, tries: u32) -> Result<Ticket, MachineError> {
        let name = self.name.get(..TICKET_NAME).unwrap_or_default();
        let more = if tries > 0 { format!("-{tries}") } else { String::new() };
        Ticket::new(format!("{run}.{index}{more}.{name}"))
    }

    /// What is told of a command that its machine refused, because it has seen a later holder of the lock. `home` is
    /// Windlass' folder there.
    #[must_use]
    pub fn refusal(&self, machine: &Resource, home: &str, seen: u64) -> Failure {
        let refused = format!("{machine} refused to start the command, and nothing of it ran");
        let (why, fix) = if seen >> TOKEN_BITS > self.life {
            (
                "a server that was made of a backup of this one has worked there since".to_owned(),
                format!(
                    "stop that server if this one is to go on, remove the folder {home}/fences on {machine}, \
                     and deploy again"
                ),
            )
        } else {
            (
                format!("this step has lost its lock of {machine}, and a later holder of it has worked there since"),
                "see with windlass lock list who holds it now, and deploy again once that is over".to_owned(),
            )
        };
        Failure::new("stale", format!("{refused}: {why}")).fix(fix)
    }
}

async fn life(store: &dyn Store) -> Result<u64, StoreError> {
    Ok(COUNTERS.get(store, LIFE).await?.map_or(0, |stored| stored.value))
}

/// Begins another life. By the clock, since two servers may be made of one backup: the later one is to be believed.
///
/// # Errors
/// When the store stopped.
pub async fn reborn(store: &dyn Store, batch: &mut Batch, now_ms: u64) -> Result<(), StoreError> {
    let minutes = now_ms / 60_000;
    let next = minutes.max(life(store).await?.saturating_add(1));
    COUNTERS.put(batch, LIFE, &next)
}

#[cfg(test)]
mod tests {
    use windlass_store::MemoryStore;

    use super::*;

    fn lock(token: u64) -> MachineLock {
        MachineLock { resource: Resource::canonical("machine:web1"), mode: LockMode::Exclusive, token }
    }

    #[tokio::test]
    async fn a_later_life_is_believed_before_any_token_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(&folder.path().join("key")).unwrap();
        let other = Vault::open(&folder.path().join("other")).unwrap();
        let store = MemoryStore::new();
        let first = Identity::load(&store, &vault).await.unwrap();
        let mut lives = vec![first.clone()];
        // A clock that stands still, or goes back, gives another life all the same.
        for now_ms in [1_800_000_000_000, 1_800_000_000_000, 1_700_000_000_000] {
            let mut batch = Batch::new();
            reborn(&store, &mut batch, now_ms).await.unwrap();
            store.commit(batch).await.unwrap();
            lives.push(Identity::load(&store, &vault).await.unwrap());
        }
        for pair in lives.windows(2) {
            let (last, next) = (pair[0].fence(&lock(u64::MAX)), pair[1].fence(&lock(1)));
            assert!(last.token < next.token && last.resource == next.resource, "{last:?} {next:?}");
        }
        assert!(first.fence(&lock(7)).token < first.fence(&lock(8)).token);
        let stranger = Identity::load(&store, &other).await.unwrap();
        assert_ne!(stranger.fence(&lock(7)).resource, first.fence(&lock(7)).resource);
    }

    #[test]
    fn a_refusal_says_who_was_there_and_what_to_do() {
        let own = Identity { name: "a".into(), life: 3 };
        let told = |seen| {
            let failure = own.refusal(&lock(1).resource, "/home/deploy/.windlass", seen);
            format!("{}\nfix: {}", failure.message, failure.attribute("fix").unwrap_or_default())
        };
        insta::assert_snapshot!(told((3 << TOKEN_BITS) | 9), @"
        machine web1 refused to start the command, and nothing of it ran: this step has lost its lock of machine web1, and a later holder of it has worked there since
        fix: see with windlass lock list who holds it now, and deploy again once that is over
        ");
        insta::assert_snapshot!(told((4 << TOKEN_BITS) | 1), @"
        machine web1 refused to start the command, and nothing of it ran: a server that was made of a backup of this one has worked there since
        fix: stop that server if this one is to go on, remove the folder /home/deploy/.windlass/fences on machine web1, and deploy again
        ");
    }
}
