//! The gate that new effects pass, shut when the server stops.
//!
//! What has passed and must not be cut off keeps its [`Pass`] until its outcome is recorded; shutting the gate waits for
//! those. What comes to a shut gate waits there until it is dropped with its run, which the next start takes up again.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedRwLockReadGuard, RwLock, oneshot};

/// Leave to go on; the gate is not shut while it is held.
pub type Pass = OwnedRwLockReadGuard<()>;

/// The gate.
#[derive(Default)]
pub struct Gate(Arc<RwLock<()>>);

impl Gate {
    /// Lets an effect through; never, once the gate is being shut.
    pub async fn pass(&self) -> Pass {
        Arc::clone(&self.0).read_owned().await
    }

    /// Shuts the gate for good, and waits until every pass is given back, but no longer than `within`. Tells whether
    /// they were.
    pub async fn shut(&self, within: Duration) -> bool {
        let lock = Arc::clone(&self.0);
        let (sender, shut) = oneshot::channel();
        // On its own, because a lock that is no longer waited for lets others through again.
        tokio::spawn(async move {
            let _shut = lock.write_owned().await;
            // Whoever waited may have given up.
            let _ = sender.send(());
            std::future::pending::<()>().await;
        });
        tokio::time::timeout(within, shut).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_shut_gate_lets_nothing_through_and_waits_for_what_passed() {
        let gate = Arc::new(Gate::default());
        let pass = gate.pass().await;
        assert!(!gate.shut(SHORT).await, "somebody is still under way");
        assert!(tokio::time::timeout(LONG, gate.pass()).await.is_err(), "given up or not, it stays shut");
        drop(pass);
        assert!(tokio::time::timeout(LONG, gate.pass()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_shut_as_soon_as_the_last_pass_is_given_back() {
        let gate = Arc::new(Gate::default());
        let passes = [gate.pass().await, gate.pass().await];
        let shut = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.shut(LONG).await }
        });
        tokio::time::sleep(SHORT).await;
        drop(passes);
        assert!(shut.await.unwrap());
    }
}
