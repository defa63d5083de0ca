//! Engines in the process of the test, without a server around them.

use std::time::Duration;

use windlass_engine::{Engine, EngineConfig};

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
