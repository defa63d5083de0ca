//! Package file names: `id.version.ext`, read and written.
//!
//! Ids may hold dots and numbers (`Acme.Web2`), so the split looks for the shortest id whose rest
//! is a whole version. Ids compare without regard to case, because file systems and people do.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::version::{Version, VersionError};

/// The longest accepted package id.
const MAX_ID: usize = 100;

/// The id of a package: letters (at least one), digits and `_`, in segments joined by `-` or `.`.
///
/// Two ids that differ only in case are the same package; the first spelling is kept for display.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageId(String);

/// How a package file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A zip archive.
    Zip,
    /// A NuGet package: a zip archive with some bookkeeping entries.
    Nupkg,
    /// A tar archive.
    Tar,
    /// A tar archive compressed with gzip, named `.tar.gz`.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// The same, named `.tgz`.
    Tgz,
}

/// Everything a package's file name says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackageName {
    /// Which package.
    pub id: PackageId,
    /// Which version of it.
    pub version: Version,
    /// How it is packed.
    pub format: Format,
}

/// Why a text names no package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The extension is unknown.
    #[error("'{0}' is no package file name: it ends in none of .zip, .nupkg, .tar, .tar.gz and .tgz")]
    Extension(String),
    /// The name does not hold a version.
    #[error("'{0}' is no package file name: no version found between id and extension")]
    NoVersion(String, &'static str),
    /// The id holds characters an id must not hold.
    #[error("'{0}' is no package id")]
    Id(String),
    /// The name carries folders.
    #[error("'{0}' is no package file name: it carries folders")]
    Folder(String),
    /// The version given beside the id cannot be read.
    #[error(transparent)]
    Version(#[from] VersionError),
}

impl NameError {
    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Extension(_) => "name it like shop-web.1.4.0.tar.gz".to_owned(),
            Self::NoVersion(_, extension) => format!("name it like shop-web.1.4.0{extension}"),
            Self::Id(_) => {
                "use letters (at least one), digits and '_', joined by single '-' or '.', at most 100 characters"
                    .to_owned()
            }
            Self::Folder(_) => "give the bare name, without folders".to_owned(),
            Self::Version(error) => error.fix(),
        }
    }
}

impl PackageId {
    /// The id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one text that all equal ids share, for keys.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl Format {
    /// Every format, longest extension first, so that `.tar.gz` wins over a mere `.gz`.
    pub const ALL: [Self; 5] = [Self::TarGz, Self::Nupkg, Self::Zip, Self::Tar, Self::Tgz];

    /// The extension with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zip => ".zip",
            Self::Nupkg => ".nupkg",
            Self::Tar => ".tar",
            Self::TarGz => ".tar.gz",
            Self::Tgz => ".tgz",
        }
    }
}

impl PackageName {
    /// A name from its parts, for callers that hold id and version apart.
    pub fn new(id: &str, version: &str, format: Format) -> Result<Self, NameError> {
        Ok(Self { id: id.parse()?, version: version.parse()?, format })
    }
}

impl FromStr for PackageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shown = || text.chars().take(200).collect::<String>();
        if text.contains(['/', '\\']) {
            return Err(NameError::Folder(shown()));
        }
        let (format, stem) = split_extension(text).ok_or_else(|| NameError::Extension(shown()))?;
        for (dot, _) in stem.match_indices('.') {
            let (id, rest) = stem.split_at(dot);
            let Some(Ok(version)) = rest.get(1..).map(str::parse) else {
                continue;
            };
            return Ok(Self { id: id.parse()?, version, format });
        }
        Err(NameError::NoVersion(shown(), format.extension()))
    }
}

fn split_extension(text: &str) -> Option<(Format, &str)> {
    Format::ALL.into_iter().find_map(|format| {
        let extension = format.extension();
        let at = text.len().checked_sub(extension.len())?;
        let (stem, tail) = text.split_at_checked(at)?;
        tail.eq_ignore_ascii_case(extension).then_some((format, stem))
    })
}

impl FromStr for PackageId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let segments_ok = text.split(['-', '.']).all(|segment| !segment.is_empty() && segment.bytes().all(word));
        // Without a letter, `1.0.zip` would be version 0 of a package called 1.
        let has_letter = text.bytes().any(|byte| byte.is_ascii_alphabetic());
        if text.len() > MAX_ID || !segments_ok || !has_letter {
            return Err(NameError::Id(text.chars().take(MAX_ID).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}", self.id, self.version, self.format.extension())
    }
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackageId({})", self.0)
    }
}

impl PartialEq for PackageId {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for PackageId {}

impl Hash for PackageId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Ord for PackageId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for PackageId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<String> for PackageId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<PackageId> for String {
    fn from(id: PackageId) -> Self {
        id.0
    }
}
