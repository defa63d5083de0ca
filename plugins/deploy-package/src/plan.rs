//! Decides what an installation will do, from the settings and the state of the install folder. No side effects.

use std::collections::BTreeSet;

use windlass_plugin::{Failure, Result};

use crate::journal::{Entry, State};
use crate::settings::Settings;
use crate::survey::Survey;

/// From here on old lines of the journal are dropped.
const JOURNAL_LINES: usize = 500;
/// What stays of it then, beside the lines of folders that exist.
const JOURNAL_KEPT: usize = 100;

/// What is going to happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Exactly this is installed and current already.
    Nothing {
        /// Its folder.
        folder: String,
    },
    Install(Install),
}

/// An installation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Install {
    /// The new folder under `releases`.
    pub name: String,
    /// The folder that `current` means now.
    pub previous: Option<String>,
    /// Its version; empty if there is none.
    pub previous_version: String,
    /// Folders to remove once all went well.
    pub remove: Vec<String>,
    /// The journal's lines from before this installation, if it got too long.
    pub shortened_journal: Option<Vec<String>>,
}

pub(crate) fn plan(settings: &Settings, survey: &Survey) -> Result<Plan> {
    if let Some(folder) = already_installed(settings, survey) {
        return Ok(Plan::Nothing { folder });
    }
    check_space(settings, survey)?;
    let name = free_name(&settings.package.version, &survey.folders);
    // A link to somewhere else is not a release of ours to come back to.
    let previous = survey.current.clone().filter(|folder| survey.folders.contains(folder));
    let remove = unwanted(survey, settings.keep);
    Ok(Plan::Install(Install {
        previous_version: previous.as_deref().map(|folder| version_of(survey, folder)).unwrap_or_default(),
        previous,
        shortened_journal: shortened(survey, &remove),
        remove,
        name,
    }))
}

/// The version a folder holds: as the journal says, else the folder is named by it.
pub(crate) fn version_of(survey: &Survey, folder: &str) -> String {
    survey.last_entry(folder).map_or_else(|| folder.to_owned(), |entry| entry.version.clone())
}

/// The folder of the last installation, if it was this very one and succeeded. Never when variables are put into files:
/// their values may have changed.
fn already_installed(settings: &Settings, survey: &Survey) -> Option<String> {
    if settings.force || !settings.substitute.is_empty() {
        return None;
    }
    let last = survey.journal.last()?;
    let same = last.state == State::Succeeded
        && last.sha256 == settings.package.sha256
        && last.fingerprint == settings.fingerprint()
        && survey.current.as_ref() == Some(&last.folder)
        && survey.folders.contains(&last.folder);
    same.then(|| last.folder.clone())
}

/// An archive larger than the free space cannot be extracted: say so before anything is touched.
fn check_space(settings: &Settings, survey: &Survey) -> Result<()> {
    let needed = settings.package.size.div_ceil(1024);
    match survey.free_kib {
        Some(free) if free < needed => Err(Failure::new(
            "disk-full",
            format!(
                "the disk of {} has {} MiB left, but {} {} needs more than {} MiB; free some space there, for example with \
                 a smaller `keep`",
                survey.base,
                free / 1024,
                settings.package.id,
                settings.package.version,
                needed.div_ceil(1024)
            ),
        )),
        _ => Ok(()),
    }
}

/// The version, or with `_1`, `_2` … behind it: what exists is never written over.
fn free_name(version: &str, folders: &BTreeSet<String>) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '_' }
    };
    let name: String = version.chars().map(allowed).collect();
    // A name of dots or one that looks like an option would mean something else to the tools.
    let name = if name.starts_with(|c: char| c.is_ascii_alphanumeric()) { name } else { format!("v{name}") };
    if !folders.contains(&name) {
        return name;
    }
    (1..=folders.len())
        .map(|number| format!("{name}_{number}"))
        .find(|name| !folders.contains(name))
        // So many names and one more than there are folders: one of them is free.
        .unwrap_or(name)
}

/// Folders of ours that neither are current nor among the last successful ones: older versions, failed and cut-off
/// installations. A folder that the journal does not know was put there by someone else and stays.
fn unwanted(survey: &Survey, keep: usize) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut good: Vec<&String> = Vec::new();
    for entry in survey.journal.iter().rev() {
        let last_word = seen.insert(&entry.folder);
        if last_word && entry.state == State::Succeeded && survey.folders.contains(&entry.folder) {
            good.push(&entry.folder);
        }
    }
    // What is current now is the version to go back to, however long ago it was installed.
    good.sort_by_key(|folder| survey.current.as_ref() != Some(*folder));
    good.truncate(keep);
    let known = |folder: &&String| survey.last_entry(folder).is_some();
    survey.folders.iter().filter(known).filter(|folder| !good.contains(folder)).cloned().collect()
}

fn shortened(survey: &Survey, remove: &[String]) -> Option<Vec<String>> {
    let recent = survey.journal.len().checked_sub(JOURNAL_KEPT).filter(|_| survey.journal.len() >= JOURNAL_LINES)?;
    let stays = |entry: &Entry| survey.folders.contains(&entry.folder) && !remove.contains(&entry.folder);
    let kept = survey.journal.iter().enumerate().filter(|(at, entry)| *at >= recent || stays(entry));
    Some(kept.map(|(_, entry)| entry.line.clone()).collect())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
