//! A data folder that came out of a backup: nothing of what the backup says is running goes on without being told.
//!
//! The old server may still be at work, or its work may have ended since, and a second start of it helps nobody. The
//! restore leaves a mark in the store; the first opening asks, and takes the mark away once it was told.

use serde::{Deserialize, Serialize};
use windlass_store::{Batch, Key, Store, StoreError, Table};

use crate::{
    error::{EngineError, ErrorKind},
    identity,
    records::{COUNTERS, TASKS, all},
    vault::Vault,
};

pub const RESTORED: Table<Restored> = Table::new("restored", 1);
/// Numbers of tasks that are left out after a restore: the old server may have given them since the backup, and machines
/// know by them which commands have run.
const LEFT_OUT: u64 = 10_000;
/// Tasks that are named in full.
const NAMED: usize = 5;

/// Where the records come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When the backup was made.
    pub created_ms: u64,
    /// Fingerprint of the secret key that opens its secrets.
    pub key: String,
}

/// Adds the mark.
///
/// # Errors
/// Never in practice.
pub fn mark(batch: &mut Batch, restored: &Restored) -> Result<(), StoreError> {
    RESTORED.put(batch, Key::of_text("mark"), restored)
}

/// Lets an engine open the store if it holds no restored work, or was told to go on with it.
///
/// # Errors
/// When it was not told, or the secret key is another one.
pub async fn admit(store: &dyn Store, vault: &Vault, resume: bool, now_ms: u64) -> Result<(), EngineError> {
    let Some(restored) = RESTORED.get(store, Key::of_text("mark")).await? else {
        return Ok(());
    };
    if restored.value.key != vault.fingerprint() {
        return Err(EngineError::new(
            ErrorKind::Unavailable,
            "other-secret-key",
            "the data comes from a backup, and the file secret.key beside it is not the one its secrets were sealed with",
        )
        .fix("copy the secret.key of the old server over it, then start again"));
    }
    let open = open_tasks(store).await?;
    if !open.is_empty() && !resume {
        return Err(EngineError::new(ErrorKind::Conflict, "restored", refusal(&open))
            .fix("make sure that the old server is stopped, then go on with them: windlass serve --resume-restored"));
    }
    if !open.is_empty() {
        tracing::warn!(tasks = open.len(), "going on with the tasks of a backup, as told");
    }
    let mut batch = Batch::new();
    RESTORED.delete(&mut batch, Key::of_text("mark"));
    let last = COUNTERS.get(store, "task").await?.map_or(0, |stored| stored.value);
    COUNTERS.put(&mut batch, "task", &last.saturating_add(LEFT_OUT))?;
    identity::reborn(store, &mut batch, now_ms).await?;
    store.commit(batch).await?;
    Ok(())
}

fn refusal(open: &[String]) -> String {
    let named = open.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = open.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!(
        "the data comes from a backup in which work was under way, and none of it is started again untold: {named}{more}"
    )
}

/// The tasks that are not over, in words.
///
/// # Errors
/// When the store stopped.
pub async fn open_tasks(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let tasks = all(store, &TASKS, TASKS.all()).await?;
    let open = tasks.into_iter().filter(|task| !task.state.is_final());
    Ok(open.map(|task| format!("task {} ({}, {})", task.id, task.title, task.state.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use windlass_model::{
        TaskId, TaskState,
        task::{TaskKind, TaskSummary},
    };
    use windlass_store::MemoryStore;

    use super::*;

    async fn restored(vault: &Vault, states: &[TaskState]) -> MemoryStore {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        mark(&mut batch, &Restored { created_ms: 1, key: vault.fingerprint() }).unwrap();
        for (number, state) in (1..).zip(states) {
            let task = TaskSummary {
                id: TaskId(number),
                what: TaskKind::Script { name: "s".into(), sha256: String::new(), arguments: Default::default() },
                title: "a script".into(),
                state: *state,
                reason: None,
                error: None,
                created_ms: 0,
                started_ms: None,
                ended_ms: None,
            };
            TASKS.put(&mut batch, number, &task).unwrap();
        }
        store.commit(batch).await.unwrap();
        store
    }

    #[tokio::test]
    async fn restored_work_waits_for_a_word_and_then_the_mark_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(&folder.path().join("key")).unwrap();
        let store = restored(&vault, &[TaskState::Succeeded, TaskState::Executing, TaskState::Queued]).await;
        for _ in 0..2 {
            let error = admit(&store, &vault, false, 0).await.unwrap_err();
            assert_eq!(
                error.message,
                "the data comes from a backup in which work was under way, and none of it is started again untold: \
                 task 2 (a script, executing); task 3 (a script, queued)"
            );
        }
        let other = Vault::open(&folder.path().join("other")).unwrap();
        assert_eq!(admit(&store, &other, true, 0).await.unwrap_err().code, "other-secret-key");
        admit(&store, &vault, true, 0).await.unwrap();
        admit(&store, &vault, false, 0).await.expect("it was told once");

        let store = restored(&vault, &[TaskState::Failed]).await;
        admit(&store, &vault, false, 0).await.expect("there is nothing to go on with");
        assert_eq!(RESTORED.get(&store, Key::of_text("mark")).await.unwrap(), None);
    }
}
