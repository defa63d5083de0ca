//! The shell scripts that carry out a plan. The parts are files under `sh/`; data reaches them through the environment
//! only, so nothing is ever quoted into a script but the scripts of the process, and those in here-documents.

use crate::journal;
use crate::plan::Install;
use crate::settings::{Scripts, Settings};
use crate::survey::Survey;

/// A script for `sh` and its environment.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub text: String,
    pub env: Vec<(&'static str, String)>,
    /// Its output is an answer to us, not a log.
    pub quiet: bool,
}

/// Asks for the state of the install folder.
pub(crate) fn look(settings: &Settings) -> Script {
    Script {
        text: include_str!("sh/look.sh").to_owned(),
        env: vec![("WINDLASS_INSTALL_DIR", settings.install_dir.clone())],
        quiet: true,
    }
}

/// The parts of one installation, as scripts.
pub(crate) struct Installation<'a> {
    settings: &'a Settings,
    install: &'a Install,
    env: Vec<(&'static str, String)>,
}

impl<'a> Installation<'a> {
    pub(crate) fn new(settings: &'a Settings, survey: &Survey, install: &'a Install, archive: &str) -> Self {
        let (package, context) = (&settings.package, &settings.context);
        let previous = install.previous.clone().unwrap_or_default();
        let in_releases = |name: &str| format!("{}/releases/{name}", survey.base);
        let env = vec![
            ("WINDLASS_ARCHIVE", archive.to_owned()),
            ("WINDLASS_CURRENT", format!("{}/current", survey.base)),
            ("WINDLASS_ENVIRONMENT", context.environment.clone()),
            ("WINDLASS_FOLDER", in_releases(&install.name)),
            ("WINDLASS_INSTALL_DIR", survey.base.clone()),
            ("WINDLASS_JOURNAL_ENTRY", journal::describe(settings, &install.name)),
            ("WINDLASS_NAME", install.name.clone()),
            ("WINDLASS_PACKAGE", package.id.clone()),
            ("WINDLASS_PREVIOUS_FOLDER", install.previous.as_deref().map(in_releases).unwrap_or_default()),
            ("WINDLASS_PREVIOUS_NAME", previous),
            ("WINDLASS_PREVIOUS_VERSION", install.previous_version.clone()),
            ("WINDLASS_PROJECT", context.project.clone()),
            ("WINDLASS_RELEASE", context.release.clone()),
            ("WINDLASS_TASK", context.task.clone()),
            ("WINDLASS_VERSION", package.version.clone()),
        ];
        Self { settings, install, env }
    }

    /// Everything, when no files need variables in between.
    pub(crate) fn whole(&self) -> Script {
        self.script(&[
            include_str!("sh/extract.sh"),
            include_str!("sh/pre.sh"),
            include_str!("sh/switch.sh"),
            &self.cleaning(),
        ])
    }

    /// Up to the point where variables are put into files.
    pub(crate) fn first_half(&self) -> Script {
        self.script(&[include_str!("sh/extract.sh"), include_str!("sh/pre.sh")])
    }

    /// From there on.
    pub(crate) fn second_half(&self) -> Script {
        self.script(&[include_str!("sh/switch.sh"), &self.cleaning()])
    }

    /// Ends an installation that failed between the two halves.
    pub(crate) fn give_up(&self, reason: &str) -> Script {
        let mut script = self.script(&["give_up substitution-failed \"$WINDLASS_REASON\"\n"]);
        script.env.push(("WINDLASS_REASON", reason.to_owned()));
        script
    }

    fn script(&self, parts: &[&str]) -> Script {
        let mut text = include_str!("sh/common.sh").to_owned();
        text.push_str(&files(&self.settings.scripts));
        for part in parts {
            text.push_str(part);
        }
        Script { text, env: self.env.clone(), quiet: false }
    }

    fn cleaning(&self) -> String {
        let mut text = String::new();
        if let Some(lines) = &self.install.shortened_journal {
            // Behind the old lines come those of this installation, which only the machine has.
            let old = here_document("\"$state/journal.partial\"", &lines.join("\n"));
            text.push_str(&old);
            text.push_str("tail -n 2 \"$state/journal\" >>\"$state/journal.partial\" && ");
            text.push_str("mv \"$state/journal.partial\" \"$state/journal\"\n");
        }
        let names: Vec<String> = self.install.remove.iter().map(|name| quoted(name)).collect();
        text.push_str(&format!("set -- {}\n", names.join(" ")));
        text.push_str(include_str!("sh/remove.sh"));
        text
    }
}

/// Puts the scripts of the process into files that `hook` runs.
fn files(scripts: &Scripts) -> String {
    let all = [
        ("pre_deploy", &scripts.pre_deploy),
        ("deploy", &scripts.deploy),
        ("post_deploy", &scripts.post_deploy),
        ("deploy_failed", &scripts.deploy_failed),
    ];
    let given = all.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
    given.map(|(name, text)| here_document(&format!("\"$work/{name}.sh\""), text)).collect()
}

/// Writes a text into a file, letter by letter.
fn here_document(file: &str, text: &str) -> String {
    let mut end = "END_OF_TEXT".to_owned();
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    format!("cat >{file} <<'{end}'\n{text}\n{end}\n")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
