//! Engines in the process of the test, without a server around them.

use std::time::Duration;

use windlass_engine::{Engine, EngineConfig, Followed};
use windlass_model::{TaskId, task::TaskDetail};

/// Opens an engine as soon as the one before has let go of its folder. `config` is asked anew for each try.
///
/// # Errors
/// When the folder cannot be opened for another reason, or stays in use for 20 seconds.
pub async fn opened(config: impl Fn() -> EngineConfig) -> Result<Engine, String> {
    let again = async {
        loop {
            match Engine::open(config()).await {
                Ok(engine) => return Ok(engine),
                Err(error) if error.message.contains("it is in use already") => {}
                Err(error) => return Err(error.message),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.map_err(|_| "the folder stays locked".to_owned())?
}

/// Follows a task until it is as wanted.
///
/// # Errors
/// When the task cannot be read, the engine ends, or it takes longer than `patience`.
pub async fn until(
    engine: &Engine,
    task: TaskId,
    patience: Duration,
    reached: impl Fn(&TaskDetail) -> bool,
) -> Result<TaskDetail, String> {
    // Before the first look, so that no change falls between.
    let mut follower = engine.events(None);
    let wait = async {
        loop {
            let detail = engine.task(task).await.map_err(|error| error.message)?;
            if reached(&detail) {
                return Ok(detail);
            }
            if follower.next().await == Followed::End {
                return Err("the engine ended".to_owned());
            }
        }
    };
    tokio::time::timeout(patience, wait).await.map_err(|_| "the task did not get there".to_owned())?
}
