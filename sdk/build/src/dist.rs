//! The `dist` folder: three files for each plugin, written aside and renamed, so that a reader never sees half of one.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::stamp::Stamp;
use crate::verify::Verified;
use crate::{BuildError, Plugin};

/// Makes the folder of a workspace if need be.
pub(crate) fn prepare(workspace: &Path) -> Result<PathBuf, BuildError> {
    let dist = workspace.join("dist");
    fs::create_dir_all(&dist).map_err(BuildError::file("create", &dist))?;
    Ok(dist)
}

/// Writes component, manifest and digest. The digest comes last: where it is, the others are complete.
pub(crate) fn write(dist: &Path, verified: Verified) -> Result<Plugin, BuildError> {
    let Verified { id, version, manifest, bytes } = verified;
    let sha256 = digest(&bytes);
    let [component, manifest_file, digest_file] = files_of(dist, &id);
    write_aside(&component, &bytes)?;
    write_aside(&manifest_file, manifest.as_bytes())?;
    // The form that `sha256sum -c` reads.
    write_aside(&digest_file, format!("{sha256}  {id}.wasm\n").as_bytes())?;
    Ok(Plugin { id, version, component, manifest: manifest_file, sha256 })
}

/// Removes the files of plugins that the last build made and this one no longer does.
pub(crate) fn remove_leftovers(dist: &Path, before: Option<&Stamp>, now: &[Plugin]) -> Result<(), BuildError> {
    let gone = before.into_iter().flat_map(Stamp::ids).filter(|id| now.iter().all(|plugin| plugin.id != **id));
    for file in gone.flat_map(|id| files_of(dist, id)) {
        match fs::remove_file(&file) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(BuildError::file("remove", &file)(cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Writes beside the file and renames.
pub(crate) fn write_aside(file: &Path, content: &[u8]) -> Result<(), BuildError> {
    let mut aside = file.as_os_str().to_owned();
    aside.push(".partial");
    let aside = PathBuf::from(aside);
    fs::write(&aside, content).map_err(BuildError::file("write", &aside))?;
    fs::rename(&aside, file).map_err(BuildError::file("replace", file))
}

fn files_of(dist: &Path, id: &str) -> [PathBuf; 3] {
    ["wasm", "json", "sha256"].map(|end| dist.join(format!("{id}.{end}")))
}
