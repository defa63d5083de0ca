//! The only place of the crate that touches a disk: fetching the texts of a workspace.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{FILE_NAMES, File, yaml::MAX_FILE};
use crate::{codes::Code, diagnostic::Diagnostic, suggest::nearest};

/// Most folders looked into.
const MAX_FOLDERS: usize = 2000;

/// Where files and secrets come from. Paths are relative to the workspace, with `/`.
pub trait Source {
    /// What lies in a folder; the workspace itself is the empty path.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>>;

    /// A file's text, of which no more than a little over the largest allowed size need be read.
    ///
    /// # Errors
    /// When the file cannot be read or is no UTF-8.
    fn read(&self, path: &str) -> io::Result<String>;

    /// A variable of the environment.
    fn env(&self, name: &str) -> Option<String>;
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a folder.
    pub folder: bool,
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The workspace at a path.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    fn path(&self, below: &str) -> PathBuf {
        if below.is_empty() { self.0.clone() } else { self.0.join(Path::new(below)) }
    }
}

impl Source for Folder {
    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.path(folder))? {
            let entry = entry?;
            entries.push(Entry {
                name: entry.file_name().to_string_lossy().into_owned(),
                // Follows links: a project folder may be one.
                folder: entry.path().is_dir(),
            });
        }
        Ok(entries)
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(self.path(path))?.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
        Ok(text)
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Fetches the files of a workspace: the top folder, and each folder in it.
#[must_use]
pub fn gather(source: &dyn Source) -> (Vec<File>, Vec<Diagnostic>) {
    let mut files = Vec::new();
    let mut diagnostics = Vec::new();
    let folders = folder(source, "", &mut files, &mut diagnostics);
    for name in folders.iter().take(MAX_FOLDERS) {
        folder(source, name, &mut files, &mut diagnostics);
    }
    if files.is_empty() && diagnostics.iter().all(|d| !d.is_error()) {
        diagnostics.push(
            Diagnostic::new(Code::E0110, "there are no Windlass files in this folder")
                .cause(format!("none of {} was found", FILE_NAMES.join(", ")))
                .fix("name the folder that holds them: windlass validate DIR"),
        );
    }
    (files, diagnostics)
}

/// Fetches the files of one folder and answers the folders in it.
fn folder(source: &dyn Source, path: &str, files: &mut Vec<File>, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
    let unreadable = |path: &str, error: &io::Error| {
        let mut diagnostic = Diagnostic::new(Code::E0110, format!("cannot be read: {error}"))
            .fix("check that it exists, is UTF-8 text, and may be read by you");
        diagnostic.file = if path.is_empty() { "." } else { path }.to_owned();
        diagnostic
    };
    let mut entries = match source.list(path) {
        Ok(entries) => entries,
        Err(error) => {
            diagnostics.push(unreadable(path, &error));
            return Vec::new();
        }
    };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut folders = Vec::new();
    for Entry { name, folder } in entries {
        let full = super::join(path, &name);
        if folder {
            if !name.starts_with('.') {
                folders.push(full);
            }
        } else if FILE_NAMES.contains(&name.as_str()) {
            match source.read(&full) {
                Ok(text) => files.push(File { path: full, text }),
                Err(error) => diagnostics.push(unreadable(&full, &error)),
            }
        } else if let Some(meant) = nearly(&name) {
            let message = format!("{full} is not read");
            let mut diagnostic = Diagnostic::new(Code::W0113, message)
                .hint(format!("did you mean {meant:?}?"))
                .fix(format!("mv {full} {}", super::join(path, &meant)));
            diagnostic.file = full;
            diagnostics.push(diagnostic);
        }
    }
    folders
}

/// The file that was probably meant by a name that is not read.
fn nearly(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"))?;
    nearest(&format!("{stem}.yaml"), FILE_NAMES)
        // Of a short name every other one is near: only a slip or two counts here.
        .filter(|meant| strsim::damerau_levenshtein(&format!("{stem}.yaml"), meant) <= 2)
}
