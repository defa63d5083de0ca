//! The first token: made once, written where only the server's user can read it, never logged.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use windlass_engine::Engine;
use windlass_model::SecretText;

use crate::errors::Failure;

/// Makes the first token if there is none yet, and says where it lies.
///
/// # Errors
/// When the store or the file fails.
pub async fn provide(engine: &Engine, path: &Path) -> Result<(), Failure> {
    let made = engine.first_token().await;
    let made = made.map_err(|error| Failure::new(error.code, "failed to make the first token").cause(error.message))?;
    if let Some(token) = made {
        write(path, &token).map_err(|error| Failure::file("write the token to", path, &error))?;
        tracing::info!(file = %path.display(), "made the first token; commands on this machine find it there");
    }
    Ok(())
}

/// Writes aside and renames, so that a reader sees all of it or nothing.
fn write(path: &Path, token: &SecretText) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    writeln!(file, "{}", token.expose())?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_can_read_it_whatever_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "old").unwrap();
        fs::write(path.with_extension("new"), "left by a crash").unwrap();
        write(&path, &SecretText::new("wl_1")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "wl_1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!path.with_extension("new").exists());
    }
}
