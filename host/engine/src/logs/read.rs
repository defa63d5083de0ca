//! Reading a node's log back.

use windlass_model::{TaskId, task::LogLine};
use windlass_store::{Key, Store, StoreError};

use crate::records::LOGS;

/// Lines of a node's log.
///
/// # Errors
/// When the store stopped or a chunk does not decode.
pub async fn read(
    store: &dyn Store,
    task: TaskId,
    node: &str,
    from: u64,
    limit: usize,
) -> Result<Vec<LogLine>, StoreError> {
    let prefix = Key::of_id(task.0).text(node);
    // The chunk that holds line `from` begins at or before it.
    let before =
        LOGS.starting_with(prefix.clone()).descending().limit(1).after(prefix.clone().id(from.saturating_add(1)));
    let start = LOGS.scan(store, before).await?.records.first().map(|record| record.key.clone());
    let mut scan = LOGS.starting_with(prefix.clone());
    let mut lines = Vec::new();
    if let Some(start) = start {
        if let Some(first) = store.get(LOGS.name(), &start).await? {
            lines.extend(LOGS.decode(first)?.value);
        }
        scan = scan.after(start);
    }
    lines.retain(|line| line.n >= from);
    while lines.len() < limit {
        let page = LOGS.scan(store, scan.clone().limit(16)).await?;
        let last = page.records.last().map(|record| record.key.clone());
        lines.extend(page.records.into_iter().flat_map(|record| record.value));
        match last {
            Some(last) if page.more => scan = scan.after(last),
            _ => break,
        }
    }
    lines.truncate(limit);
    Ok(lines)
}
