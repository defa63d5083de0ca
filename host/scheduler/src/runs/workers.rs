//! Choosing a worker of a pool for a run.

use windlass_model::{MachineName, PoolName};

use crate::{
    event::{RunKey, Subject},
    progress::Phase,
    state::Pool,
    timers::Timer,
    turn::Turn,
};

impl Turn<'_> {
    /// The worker with the fewest leases, of these the first by name. One that was tried already comes last.
    pub(super) fn choose_worker(&mut self, key: RunKey, pool: PoolName) {
        let known = self.state.pools.get(&pool);
        let (workers, cap) = (known.map(|pool| &pool.workers), known.map_or(0, |pool| pool.lease_cap));
        let leases = |worker: &&MachineName| self.state.leases.get(*worker).copied().unwrap_or(0);
        let task = self.state.tasks.get(&key.task);
        let in_use = |worker: &&MachineName| task.is_some_and(|task| !task.progress.excluded.contains_key(*worker));
        let tried = task.and_then(|task| task.run(key)?.worker.as_ref());
        let cost = |worker: &&MachineName| (tried == Some(*worker), leases(worker));
        let worker = workers.into_iter().flatten().filter(in_use).min_by_key(cost).cloned();
        let until = self.now.saturating_add(self.state.settings.pool_wait_ms);
        let Some(run) = self.state.run_mut(key) else {
            return;
        };
        if let Some(worker) = worker {
            (run.worker, run.lease) = (Some(worker.clone()), Some(cap));
            *self.state.leases.entry(worker).or_default() += 1;
            return self.claim(key);
        }
        run.phase = Phase::Pool(until);
        let ticket = run.ticket;
        self.state.pool_queue.insert((pool, ticket, key));
        self.state.timers.set(until, Timer::Run(key));
        self.touch(Subject::Run(key));
    }

    pub fn pool_changed(&mut self, pool: PoolName, workers: Vec<MachineName>, lease_cap: u32) {
        let known = Pool { workers: workers.into_iter().collect(), lease_cap };
        let usable = !known.workers.is_empty();
        self.state.pools.insert(pool.clone(), known);
        let waiting: Vec<_> =
            self.state.pool_queue.iter().filter(|(name, ..)| *name == pool && usable).cloned().collect();
        for entry in waiting {
            self.state.pool_queue.remove(&entry);
            // It asks for its locks now, and not when it began to wait for a worker.
            let ticket = self.ticket();
            if let Some(run) = self.state.run_mut(entry.2) {
                run.ticket = ticket;
            }
            self.choose_worker(entry.2, pool.clone());
        }
    }
}
