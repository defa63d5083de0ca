//! Pools: which workers each has, told to the scheduler whenever that may have changed.
//!
//! A worker is a machine that lists the pool. Which of them a run gets is decided when it is ready, by the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{MachineName, PoolName};
use windlass_scheduler::{Event, Pool};
use windlass_store::Batch;

use crate::{catalog, error::EngineError, services::Services};

/// Runs at once on each worker: any number. What must not run together says so by its locks.
const LEASE_CAP: u32 = 0;

/// Tells the scheduler the workers of every pool that is not as it knows it.
///
/// # Errors
/// When the store or the driver stopped.
pub async fn tell(services: &Services) -> Result<(), EngineError> {
    // One at a time: of two changes the later one is told last.
    let mut told = services.pools.lock().await;
    let mut pools: BTreeMap<PoolName, BTreeSet<MachineName>> = BTreeMap::new();
    for machine in catalog::machines(services).await?.into_iter().filter(|machine| !machine.disabled) {
        for pool in machine.pools {
            pools.entry(pool).or_default().insert(machine.name.clone());
        }
    }
    let known = match &mut *told {
        Some(known) => known,
        None => told.insert(services.driver.look(|state| state.snapshot().pools).await?),
    };
    for pool in known.keys() {
        pools.entry(pool.clone()).or_default();
    }
    for (pool, workers) in pools {
        let now = Pool { workers, lease_cap: LEASE_CAP };
        if known.get(&pool) == Some(&now) {
            continue;
        }
        let workers = now.workers.iter().cloned().collect();
        let event = Event::PoolChanged { pool: pool.clone(), workers, lease_cap: LEASE_CAP };
        services.driver.submit(event, None, Batch::new()).await?;
        known.insert(pool, now);
    }
    Ok(())
}
