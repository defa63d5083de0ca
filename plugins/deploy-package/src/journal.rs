//! The journal of installs that lies beside the releases on the machine: one line for each change of state, fields
//! separated by tabs. It says which folders are ours, which of them are good, and what was installed last.
//!
//! `time  state  folder  package  version  sha256  fingerprint  project  environment  release  task`

use crate::settings::Settings;

/// How far an installation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Begun; if no later line says more, it was cut off.
    Installing,
    Succeeded,
    Failed,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub state: State,
    /// The name of the folder under `releases`.
    pub folder: String,
    pub version: String,
    pub sha256: String,
    pub fingerprint: String,
    /// As it was written.
    pub line: String,
}

impl Entry {
    /// Reads a line. One that is no entry (torn by a full disk, edited) is passed over.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t').skip(1);
        let state = match fields.next()? {
            "installing" => State::Installing,
            "succeeded" => State::Succeeded,
            "failed" => State::Failed,
            _ => return None,
        };
        let mut field = || fields.next().map(str::to_owned);
        let (folder, _package) = (field()?, field()?);
        // Only a plain name is ever ours: what is listed here may be removed one day.
        if folder.is_empty() || folder.starts_with('.') || folder.contains('/') {
            return None;
        }
        Some(Self { state, folder, version: field()?, sha256: field()?, fingerprint: field()?, line: line.to_owned() })
    }
}

/// The part of a line that does not depend on time and state.
pub(crate) fn describe(settings: &Settings, folder: &str) -> String {
    let (package, context) = (&settings.package, &settings.context);
    let fingerprint = settings.fingerprint();
    let fields = [
        folder,
        &package.id,
        &package.version,
        &package.sha256,
        &fingerprint,
        &context.project,
        &context.environment,
        &context.release,
        &context.task,
    ];
    fields.map(plain).join("\t")
}

/// A field never breaks its line and is never empty.
fn plain(field: &str) -> String {
    let text: String = field.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_entries_are_passed_over() {
        let line = "2026-01-02T03:04:05Z\tsucceeded\t1.0.0_1\tweb\t1.0.0\tabc\tdef\tshop\ttest\t1\t7";
        let entry = Entry::parse(line).unwrap();
        assert_eq!(
            (entry.state, entry.folder.as_str(), entry.version.as_str()),
            (State::Succeeded, "1.0.0_1", "1.0.0")
        );
        for bad in [
            "",
            "text",
            "2026\tsucceeded",
            "2026\tdone\t1\tweb\t1\tabc\tdef",
            "2026\tsucceeded\t../etc\tweb\t1\tabc\tdef",
            "2026\tsucceeded\t..\tweb\t1\tabc\tdef",
            "2026\tsucceeded\t\tweb\t1\tabc\tdef",
            "2026\tsucceeded\t1\tweb\t1\tabc",
        ] {
            assert_eq!(Entry::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_field_cannot_break_its_line() {
        assert_eq!(plain("a\tb\nc"), "a b c");
        assert_eq!(plain(""), "-");
    }
}
