//! What is sent to a machine: a tar stream, with or without gzip, and where it lies there.
//!
//! Every package is kept in the form it was uploaded and, where that is no tar, in a form a target
//! can unpack with nothing but `tar`. A package so has up to two forms to choose from: compressed
//! for slow links, plain where the network is faster than gzip.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{Blob, Sha256};

/// The form of a payload's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// tar, compressed with gzip.
    Gzip,
    /// tar.
    PlainTar,
}

/// The forms in which one package can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Compressed. Absent for a package that was uploaded as plain tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gzip: Option<Blob>,
    /// Plain. Made on first use where only the compressed form is kept.
    pub plain: Blob,
}

/// One payload, ready to be read as often as needed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PayloadSource {
    blob: Blob,
    form: Form,
    path: Arc<Path>,
}

impl Form {
    /// The extension of a cached payload, with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Gzip => ".tar.gz",
            Self::PlainTar => ".tar",
        }
    }
}

impl Payload {
    /// The bytes for a wish. A package uploaded as plain tar is sent plain in any case.
    pub fn choose(&self, wish: Form) -> (Form, Blob) {
        match (wish, self.gzip) {
            (Form::Gzip, Some(blob)) => (Form::Gzip, blob),
            _ => (Form::PlainTar, self.plain),
        }
    }
}

impl PayloadSource {
    /// A payload in a file that holds exactly `blob`.
    pub fn new(blob: Blob, form: Form, path: impl Into<Arc<Path>>) -> Self {
        Self { blob, form, path: path.into() }
    }

    /// Digest and size of the bytes that are sent.
    pub fn blob(&self) -> Blob {
        self.blob
    }

    /// How the bytes are to be unpacked.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The file on this server, for readers that want to open it themselves.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a machine caches it, relative to the machine's Windlass home.
    pub fn cache_path(&self) -> String {
        cache_path(&self.blob.sha256, self.form)
    }

    /// Opens the bytes for a reader on a thread of its own.
    pub fn open_blocking(&self) -> std::io::Result<std::fs::File> {
        std::fs::File::open(&self.path)
    }

    /// Opens the bytes for an asynchronous reader.
    pub async fn open(&self) -> std::io::Result<tokio::fs::File> {
        tokio::fs::File::open(PathBuf::from(&*self.path)).await
    }
}

/// Where every machine caches a payload, relative to its Windlass home, always with `/`.
///
/// The digest alone names the file: equal bytes are cached once, whatever package they belong to.
pub fn cache_path(sha256: &Sha256, form: Form) -> String {
    format!("packages/{sha256}{}", form.extension())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_granted_where_the_form_exists() {
        let blob = |text: &[u8]| Blob { sha256: Sha256::of(text), size: text.len() as u64 };
        let both = Payload { gzip: Some(blob(b"gz")), plain: blob(b"tar") };
        assert_eq!(both.choose(Form::Gzip), (Form::Gzip, blob(b"gz")));
        assert_eq!(both.choose(Form::PlainTar), (Form::PlainTar, blob(b"tar")));
        let plain = Payload { gzip: None, plain: blob(b"tar") };
        assert_eq!(plain.choose(Form::Gzip), (Form::PlainTar, blob(b"tar")));
        assert_eq!(
            cache_path(&Sha256::of(b""), Form::Gzip),
            "packages/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.tar.gz"
        );
    }
}
