//! Looking through an uploaded archive before anything trusts it.
//!
//! One pass reads every entry, refuses what could harm a machine, and yields the archive as a
//! plain tar stream: tar archives pass through byte for byte, zip archives are rewritten. All
//! limits count bytes that were really inflated; sizes an archive declares are never believed.
//! `guard` knows what a safe tree of files is, `tar` and `zip` read the formats, `meter` counts.

mod guard;
mod meter;
mod tar;
mod zip;

use std::io::{self, Read, Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

pub use guard::{Entry, Guard, Kind};

use crate::digest::Blob;
use crate::name::Format;

/// What an archive may hold at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file as uploaded.
    pub packed_bytes: u64,
    /// Bytes of everything inflated, headers and padding included.
    pub unpacked_bytes: u64,
    /// Inflated bytes for each uploaded byte, looked at once `ratio_floor` bytes are inflated.
    pub ratio: u64,
    /// Small archives of zeros are no bombs: below this many inflated bytes the ratio is ignored.
    pub ratio_floor: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Folders inside folders.
    pub depth: usize,
    /// Bytes of one entry's path.
    pub path_bytes: usize,
    /// Bytes of all names and headers together. This bounds the memory an inspection takes.
    pub listing_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packed_bytes: 8 << 30,
            unpacked_bytes: 32 << 30,
            ratio: 200,
            ratio_floor: 64 << 20,
            entries: 200_000,
            depth: 64,
            path_bytes: 1024,
            listing_bytes: 32 << 20,
        }
    }
}

/// What an inspection found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The archive as a plain tar stream.
    pub plain: Blob,
    /// Files, folders and links.
    pub entries: u64,
    /// Things a person should know although the archive is accepted; the first few only.
    pub warnings: Vec<String>,
}

/// Why an archive is refused. Every text about an entry names it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The path leaves the folder, or cannot be trusted to stay in it.
    #[error("the entry {entry} has an unsafe path: {reason}")]
    Path {
        /// The entry, quoted.
        entry: String,
        /// What is wrong with its path.
        reason: &'static str,
    },
    /// A link leads outside, or cannot be trusted to stay inside.
    #[error("the link {entry} to {target} is unsafe: {reason}")]
    Link {
        /// The link, quoted.
        entry: String,
        /// Where it points, quoted.
        target: String,
        /// What is wrong with that.
        reason: &'static str,
    },
    /// Two entries claim one place.
    #[error("the entry {entry} clashes with an earlier one: {reason}")]
    Clash {
        /// The later entry, quoted.
        entry: String,
        /// How they clash.
        reason: &'static str,
    },
    /// Something that is neither file, folder nor link, or is stored in a way not understood.
    #[error("the entry {entry} is {what}")]
    Unsupported {
        /// The entry, quoted.
        entry: String,
        /// What it is.
        what: String,
        /// The way out.
        fix: &'static str,
    },
    /// A limit is exceeded.
    #[error("the entry {entry} exceeds a limit: {what}")]
    Limit {
        /// The entry at which the limit was reached, quoted.
        entry: String,
        /// Which limit, with its value.
        what: String,
        /// The setting to raise.
        setting: &'static str,
    },
    /// The bytes are no such archive, or end early.
    #[error("not a readable {format} archive ({at}): {cause}")]
    Damaged {
        /// The expected kind of archive.
        format: &'static str,
        /// How far reading came.
        at: String,
        /// What the reader met.
        cause: String,
    },
    /// Reading or writing on this side failed.
    #[error("the archive could not be processed here: {0}")]
    Io(#[source] io::Error),
    /// The caller asked to stop.
    #[error("the inspection was cancelled")]
    Stopped,
}

impl ArchiveError {
    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Path { .. } => "pack the folder again with 'windlass package pack'".to_owned(),
            Self::Link { .. } => "replace the link by the file it means".to_owned(),
            Self::Clash { .. } => "pack it so that it holds each path once".to_owned(),
            Self::Unsupported { fix, .. } => (*fix).to_owned(),
            Self::Limit { setting, .. } => format!("if the package is sound, raise '{setting}' in windlass.toml"),
            Self::Damaged { .. } => "it may be cut short or misnamed: build and push it again".to_owned(),
            Self::Io(_) => "look at the disk and the log of the server, and push it again".to_owned(),
            Self::Stopped => "push it again".to_owned(),
        }
    }
}

/// Tells a running inspection to stop; it does so at the next block.
#[derive(Debug, Default)]
pub struct StopFlag(AtomicBool);

impl StopFlag {
    /// Asks for the stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), ArchiveError> {
        if self.0.load(Ordering::Relaxed) { Err(ArchiveError::Stopped) } else { Ok(()) }
    }
}

/// Reads a whole archive once and refuses it unless every entry is safe.
///
/// The plain tar stream is hashed, and written to `plain` as it comes; pass `io::sink()` when only
/// the verdict matters. What was written is worth nothing until this returns `Ok`.
pub fn inspect<R: Read + Seek>(
    mut input: R,
    format: Format,
    limits: &Limits,
    stop: &StopFlag,
    plain: &mut dyn Write,
) -> Result<Inspection, ArchiveError> {
    let packed = input.seek(io::SeekFrom::End(0)).map_err(ArchiveError::Io)?;
    input.seek(io::SeekFrom::Start(0)).map_err(ArchiveError::Io)?;
    let meter = meter::Meter::new(limits, packed, stop, plain);
    match format {
        Format::Zip => zip::inspect(input, zip::Flavour::Plain, limits, meter),
        Format::Nupkg => zip::inspect(input, zip::Flavour::NuGet, limits, meter),
        Format::Tar => tar::inspect(&mut input, "tar", limits, meter),
        Format::TarGz | Format::Tgz => {
            // Several gzip members in a row are one stream, for `gzip -d` too.
            let input = io::BufReader::with_capacity(256 << 10, input);
            tar::inspect(&mut flate2::bufread::MultiGzDecoder::new(input), "tar.gz", limits, meter)
        }
    }
}

/// Quotes a name for a message: control characters escaped, never longer than a line.
pub(crate) fn quote(name: &str) -> String {
    let mut chars = name.chars();
    let shown: String = chars.by_ref().take(120).flat_map(char::escape_debug).collect();
    if chars.next().is_some() { format!("'{shown}…'") } else { format!("'{shown}'") }
}
