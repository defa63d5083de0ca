//! What can go wrong with the repository, each with the way out.

use std::io;
use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::digest::Sha256;

use super::index::IndexError;

/// Why a push was refused. Nothing of it remains.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// K5: a version is pushed once.
    #[error(
        "{name} is in the repository already{}",
        match same { Some(true) => ", with the same bytes", Some(false) => ", with other bytes", None => "" }
    )]
    Exists {
        /// What was pushed.
        name: String,
        /// Whether the bytes are the same, where that is known.
        same: Option<bool>,
    },
    /// The link broke or the sender stopped.
    #[error("the upload of {name} broke off after {received} bytes: {cause}")]
    Interrupted {
        /// What was pushed.
        name: String,
        /// Bytes that arrived.
        received: u64,
        /// What the link said.
        cause: io::Error,
    },
    /// The sender went silent.
    #[error("the upload of {name} stalled: nothing came for {seconds} s after {received} bytes")]
    Stalled {
        /// What was pushed.
        name: String,
        /// Bytes that arrived.
        received: u64,
        /// The time limit.
        seconds: u64,
    },
    /// Fewer or more bytes than announced.
    #[error("the upload of {name} brought {received} bytes where {expected} were announced")]
    Length {
        /// What was pushed.
        name: String,
        /// Bytes that arrived.
        received: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// Larger than the repository takes.
    #[error("{name} is larger than the allowed {limit} bytes")]
    TooLarge {
        /// What was pushed.
        name: String,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not the ones the sender meant.
    #[error("{name} arrived with SHA-256 {actual} where {expected} was announced")]
    Digest {
        /// What was pushed.
        name: String,
        /// What the sender announced.
        expected: Sha256,
        /// What arrived.
        actual: Sha256,
    },
    /// The archive is damaged or unsafe.
    #[error("{name} is refused: {cause}")]
    Archive {
        /// What was pushed.
        name: String,
        /// What is wrong with it.
        #[source]
        cause: ArchiveError,
    },
    /// This server could not do its part.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Why the repository itself could not do something.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// No such package or version.
    #[error("there is no package {wanted} in the repository")]
    NotFound {
        /// What was asked for.
        wanted: String,
        /// What there is instead, or how to add it.
        known: String,
    },
    /// The bytes of a known package are missing or changed on disk.
    #[error("the bytes of {name} are {problem} in {}", folder.display())]
    Damaged {
        /// Which package.
        name: String,
        /// Missing or changed.
        problem: &'static str,
        /// The repository's folder.
        folder: PathBuf,
    },
    /// The disk.
    #[error("the package folder {} could not be used: {cause}", folder.display())]
    Disk {
        /// The repository's folder.
        folder: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The records.
    #[error("the package records could not be used: {0}")]
    Index(#[from] IndexError),
    /// A record of a later release.
    #[error("the record of {id} has format {found}, and this release knows up to {known}")]
    NewerFormat {
        /// Which package.
        id: String,
        /// The record's format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
}

impl PushError {
    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Exists { .. } => "push it under a new version, or replace it with --if-exists replace".to_owned(),
            Self::Interrupted { .. } | Self::Length { .. } => "push it again".to_owned(),
            Self::Stalled { .. } => "check the link and push it again".to_owned(),
            Self::TooLarge { .. } => {
                "make it smaller, or raise 'packages.max_packed_bytes' in windlass.toml".to_owned()
            }
            Self::Digest { .. } => "build and push it again".to_owned(),
            Self::Archive { cause, .. } => cause.fix(),
            Self::Repository(error) => error.fix(),
        }
    }
}

impl RepositoryError {
    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NotFound { known, .. } => known.clone(),
            Self::Damaged { .. } => "push the same file again with --if-exists replace".to_owned(),
            Self::Disk { cause, .. } => disk_fix(cause).to_owned(),
            Self::Index(_) => "look at the server's log and start it again".to_owned(),
            Self::NewerFormat { .. } => "start the newer windlass".to_owned(),
        }
    }
}

fn disk_fix(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on its disk",
        io::ErrorKind::PermissionDenied => "give the account that runs windlass the right to write there",
        io::ErrorKind::ReadOnlyFilesystem => "mount its disk for writing",
        _ => "check the disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_with_the_disk_has_its_own_fix() {
        let kinds = [
            io::ErrorKind::StorageFull,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
            io::ErrorKind::Other,
        ];
        let texts = kinds.map(|kind| {
            let (folder, cause) = ("/var/lib/windlass/packages".into(), kind.into());
            let error = RepositoryError::Disk { folder, cause };
            format!("{error}; {}", error.fix())
        });
        insta::assert_snapshot!(texts.join("\n"), @r"
        the package folder /var/lib/windlass/packages could not be used: no storage space; free space on its disk
        the package folder /var/lib/windlass/packages could not be used: permission denied; give the account that runs windlass the right to write there
        the package folder /var/lib/windlass/packages could not be used: read-only filesystem or storage medium; mount its disk for writing
        the package folder /var/lib/windlass/packages could not be used: other error; check the disk
        ");
    }
}
