//! What the machine says of its install folder: the answer to the script `look.sh`.

use std::collections::BTreeSet;

use windlass_plugin::{Failure, Result};

use crate::journal::Entry;

/// The install folder as it was when looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The install folder, absolute.
    pub base: String,
    /// The folder under `releases` that `current` means.
    pub current: Option<String>,
    /// The names under `releases`.
    pub folders: BTreeSet<String>,
    pub journal: Vec<Entry>,
    /// What the disk has left, if the machine can tell.
    pub free_kib: Option<u64>,
}

impl Survey {
    pub(crate) fn parse(answer: &str) -> Result<Self> {
        let mut survey = Self::default();
        for line in answer.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("base", path) => survey.base = path.to_owned(),
                ("current", link) => survey.current = link.trim_end_matches('/').rsplit('/').next().map(str::to_owned),
                ("blocked", _) => return Err(blocked(&survey.base)),
                ("folder", name) => {
                    survey.folders.insert(name.to_owned());
                }
                ("journal", entry) => survey.journal.extend(Entry::parse(entry)),
                ("free", number) => survey.free_kib = number.parse().ok(),
                _ => {}
            }
        }
        if survey.base.starts_with('/') {
            Ok(survey)
        } else {
            Err(Failure::new(
                "bad-answer",
                format!("the machine did not say where its install folder is but `{answer}`"),
            ))
        }
    }

    /// The last word on a folder.
    pub(crate) fn last_entry(&self, folder: &str) -> Option<&Entry> {
        self.journal.iter().rfind(|entry| entry.folder == folder)
    }
}

fn blocked(base: &str) -> Failure {
    let message = format!(
        "{base}/current is a file or folder, not a link made by an earlier deployment; \
         move it away or choose another install_dir"
    );
    Failure::new("blocked", message)
}
