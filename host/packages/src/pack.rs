//! Packing a folder so that equal content always gives equal bytes.
//!
//! Entries come in sorted order with fixed times, owners and modes, so a package that did not
//! change keeps its digest and is not sent again. The guard that judges uploads judges here too:
//! what is packed is accepted by a push. Everything here blocks; the file gets its name at the end.

mod writer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};
use walkdir::{DirEntry, WalkDir};

use crate::archive::{ArchiveError, Entry, Guard, Kind, Limits};
use crate::digest::Blob;
use crate::name::{Format, NameError, PackageId, PackageName};
use crate::version::Version;
use writer::Writer;

/// What to pack, and how.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The folder whose content goes into the package.
    pub folder: PathBuf,
    /// Which package.
    pub id: PackageId,
    /// Which version of it.
    pub version: Version,
    /// `TarGz` or `Zip`.
    pub format: Format,
    /// Where the file goes; its name follows from id, version and format.
    pub output: PathBuf,
    /// Only files that match one of these globs; empty means all.
    pub include: Vec<String>,
    /// No files or folders that match one of these globs.
    pub exclude: Vec<String>,
    /// Replace a file of the same name.
    pub overwrite: bool,
}

/// A package that was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The file.
    pub path: PathBuf,
    /// Its name, understood.
    pub name: PackageName,
    /// Its bytes.
    pub blob: Blob,
    /// Files, folders and links inside.
    pub entries: u64,
    /// Things a person should know.
    pub warnings: Vec<String>,
}

/// Why a folder could not be packed. No file is left behind.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The folder is not one.
    #[error("'{}' cannot be packed: {cause}", path.display())]
    Folder {
        /// What was named.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Only two formats are written.
    #[error("cannot pack as {}", .0.extension())]
    Format(Format),
    /// A glob is malformed.
    #[error("the pattern '{pattern}' cannot be read: {cause}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        cause: String,
    },
    /// Nothing is left to pack.
    #[error("nothing to pack in '{}'", .0.display())]
    Empty(PathBuf),
    /// The output exists.
    #[error("'{}' exists already", .0.display())]
    Exists(PathBuf),
    /// Something in the folder must not be in a package.
    #[error("'{}' cannot be packed: {cause}", folder.display())]
    Content {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with one of its entries.
        #[source]
        cause: ArchiveError,
    },
    /// Neither file, folder nor link, or its name is no text.
    #[error("'{}' cannot be packed: it is {what}", path.display())]
    Unsupported {
        /// The entry.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file changed under the reader.
    #[error("'{}' changed while it was read", .0.display())]
    Changed(PathBuf),
    /// Reading failed.
    #[error("'{}' could not be read: {cause}", path.display())]
    Read {
        /// The entry.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Writing failed.
    #[error("'{}' could not be written: {cause}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Id and version make no file name that reads back.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl PackError {
    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        let fix = match self {
            Self::Folder { .. } => "name the folder that holds the built application",
            Self::Format(_) => "choose .tar.gz or .zip",
            Self::Pattern { .. } => "write it like 'logs/**' or '*.pdb'",
            Self::Empty(_) => "check the folder and the include and exclude patterns",
            Self::Exists(_) => "pack a new version, remove the file, or overwrite it with --overwrite",
            Self::Content { cause, .. } => return cause.fix(),
            Self::Unsupported { .. } => "leave it out with --exclude",
            Self::Changed(_) => "wait until the build is finished and pack again",
            Self::Read { .. } => "check its permissions",
            Self::Write { .. } => "check the output folder and its disk",
            Self::Name(error) => return error.fix(),
        };
        fix.to_owned()
    }
}

/// One thing to pack.
struct Item {
    /// Inside the package, with `/`.
    name: String,
    source: PathBuf,
    what: What,
}

enum What {
    File { executable: bool },
    Folder,
    Link { target: String },
}

/// Packs a folder into one file.
pub fn pack(options: &PackOptions) -> Result<Packed, PackError> {
    if !matches!(options.format, Format::TarGz | Format::Tgz | Format::Zip) {
        return Err(PackError::Format(options.format));
    }
    let name = PackageName { id: options.id.clone(), version: options.version.clone(), format: options.format };
    let path = options.output.join(name.to_string());
    if path.exists() && !options.overwrite {
        return Err(PackError::Exists(path));
    }
    let items = collect(options, &path)?;
    let (entries, warnings) =
        judge(&items).map_err(|cause| PackError::Content { folder: options.folder.clone(), cause })?;
    let failed = |cause| PackError::Write { path: path.clone(), cause };
    fs::create_dir_all(&options.output).map_err(failed)?;
    let partial =
        tempfile::Builder::new().prefix("windlass-").suffix(".partial").tempfile_in(&options.output).map_err(failed)?;
    let mut writer = Writer::new(partial, options.format);
    for item in &items {
        writer.add(item, &path)?;
    }
    let (partial, blob) = writer.finish().map_err(failed)?;
    partial.as_file().sync_all().map_err(failed)?;
    // A temporary file is for its owner only; a package is for whoever may read the folder.
    set_readable(partial.as_file()).map_err(failed)?;
    partial.persist(&path).map_err(|error| failed(error.error))?;
    Ok(Packed { path, name, blob, entries, warnings })
}

/// Finds everything to pack, in the order in which it is packed.
fn collect(options: &PackOptions, output: &Path) -> Result<Vec<Item>, PackError> {
    let (include, exclude) = (globs(&options.include)?, globs(&options.exclude)?);
    let folder = &options.folder;
    let refuse = |cause| PackError::Folder { path: folder.clone(), cause };
    if !fs::metadata(folder).map_err(refuse)?.is_dir() {
        return Err(refuse(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let output =
        fs::canonicalize(&options.output).ok().and_then(|folder| output.file_name().map(|name| folder.join(name)));
    let mut walk = WalkDir::new(folder).min_depth(1).into_iter();
    let mut items = Vec::new();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| PackError::Read {
            path: error.path().unwrap_or(folder).to_owned(),
            cause: error.into(),
        })?;
        // Excluded things are not looked at, so that --exclude is a way out of every refusal.
        if exclude.is_match(entry.path().strip_prefix(folder).unwrap_or(entry.path())) {
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        let name = name_inside(folder, &entry)?;
        let what = understand(&entry)?;
        // Packing into the folder itself must not pack the file of an earlier run.
        let own =
            output.as_ref().is_some_and(|output| fs::canonicalize(entry.path()).is_ok_and(|path| path == *output));
        let wanted = options.include.is_empty() || (!matches!(what, What::Folder) && include.is_match(&name));
        if wanted && !own {
            items.push(Item { name, source: entry.into_path(), what });
        }
    }
    if items.is_empty() {
        return Err(PackError::Empty(folder.clone()));
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

fn name_inside(folder: &Path, entry: &DirEntry) -> Result<String, PackError> {
    let inside = entry.path().strip_prefix(folder).unwrap_or(entry.path());
    let mut parts = Vec::new();
    for part in inside.components() {
        parts.push(part.as_os_str().to_str().ok_or_else(|| PackError::Unsupported {
            path: entry.path().to_owned(),
            what: "named in something other than UTF-8",
        })?);
    }
    Ok(parts.join("/"))
}

fn understand(entry: &DirEntry) -> Result<What, PackError> {
    let unsupported = |what| Err(PackError::Unsupported { path: entry.path().to_owned(), what });
    let failed = |cause| PackError::Read { path: entry.path().to_owned(), cause };
    let kind = entry.file_type();
    if kind.is_dir() {
        return Ok(What::Folder);
    }
    if kind.is_symlink() {
        let target = fs::read_link(entry.path()).map_err(failed)?;
        return match target.to_str() {
            // On Windows a link is written with backslashes.
            Some(target) if cfg!(windows) => Ok(What::Link { target: target.replace('\\', "/") }),
            Some(target) => Ok(What::Link { target: target.to_owned() }),
            None => unsupported("a link whose target is not UTF-8"),
        };
    }
    if kind.is_file() {
        let known = entry.metadata().map_err(|error| failed(error.into()))?;
        return Ok(What::File { executable: is_executable(&known) });
    }
    unsupported("neither a file nor a folder nor a link")
}

/// Asks the guard of uploads, so that nothing is packed that a push would refuse.
fn judge(items: &[Item]) -> Result<(u64, Vec<String>), ArchiveError> {
    let limits = Limits::default();
    let mut guard = Guard::new(&limits);
    for item in items {
        let kind = match &item.what {
            What::File { .. } => Kind::File,
            What::Folder => Kind::Folder,
            What::Link { target } => Kind::Symlink(target),
        };
        guard.admit(Entry { path: &item.name, kind })?;
    }
    guard.finish()
}

fn globs(patterns: &[String]) -> Result<GlobSet, PackError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let failed =
            |cause: globset::Error| PackError::Pattern { pattern: pattern.clone(), cause: cause.kind().to_string() };
        set.add(Glob::new(pattern).map_err(failed)?);
    }
    set.build().map_err(|cause| PackError::Pattern { pattern: patterns.join(", "), cause: cause.kind().to_string() })
}

#[cfg(unix)]
fn is_executable(known: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&known.permissions()) & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}

#[cfg(unix)]
fn set_readable(file: &fs::File) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_readable(_: &fs::File) -> io::Result<()> {
    Ok(())
}
