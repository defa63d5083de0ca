//! What the author of a process can say about the step, and what of it one run needs. The manifest is here too: its
//! inputs are these settings.

use windlass_plugin::prelude::*;

const DEFAULT_INSTALL_DIR: &str = "#{Machine.Home}/apps/#{Project.Name}/#{Action.Package.PackageId}";
const DEFAULT_KEEP: i64 = 3;

pub(crate) fn manifest() -> Manifest {
    let script = |title: &str, when: &str| {
        let text =
            format!("Shell script (sh), run in the folder of the new version {when}. A failing script fails the step.");
        Input::text().title(title).description(&text)
    };
    Manifest::new("deploy-package", "1.0.0", "Deploy a package")
        .description(
            "Extracts a package into a folder of its version, runs the hooks of step and package, replaces variables in \
             files, and then makes the link `current` mean the new version. If anything fails, `current` stays as it was.",
        )
        .input("package", Input::package().title("Package").description("The id of the package.").required())
        .input(
            "install_dir",
            Input::text()
                .title("Install folder")
                .description(
                    "Absolute, or beginning with ~/. Versions go to `releases` in it; `current` is a link to the one in \
                     use.",
                )
                .default(DEFAULT_INSTALL_DIR),
        )
        .input("pre_deploy", script("Before", "before variables are replaced in files"))
        .input("deploy", script("Deploy", "before the switch to it"))
        .input("post_deploy", script("After", "after the switch to it; the place to restart a service"))
        .input("deploy_failed", script("On failure", "after a failure"))
        .input(
            "substitute",
            Input::list().title("Replace variables in files").description(
                "Patterns such as `config/*.json` or `**/*.conf`, relative to the package. `#{Name}` in these files becomes \
                 the value of that variable.",
            ),
        )
        .input(
            "keep",
            Input::integer()
                .title("Versions to keep")
                .description("How many earlier successful versions stay on the machine beside the current one.")
                .default(DEFAULT_KEEP),
        )
        .input(
            "force",
            Input::boolean()
                .title("Install again")
                .description("Install even if exactly this was the last successful installation.")
                .default(false),
        )
        .output("InstallationDirectory", "The folder of the version that was installed.")
        .output("Version", "The version of the package.")
        .output("PreviousVersion", "The version that was current before; empty if there was none.")
        .capability(Capability::Machine)
        .capability(Capability::Package)
        .exclusive_lock("dir:{install_dir}")
}

/// The inputs of one run, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub package: PackageFacts,
    /// Absolute, or beginning with `~/`.
    pub install_dir: String,
    pub scripts: Scripts,
    pub substitute: Vec<String>,
    pub keep: usize,
    pub force: bool,
    pub context: Context,
}

#[derive(Clone, Debug)]
pub(crate) struct PackageFacts {
    pub id: String,
    pub version: String,
    pub sha256: String,
    pub size: u64,
}

/// The scripts written into the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripts {
    pub pre_deploy: Option<String>,
    pub deploy: Option<String>,
    pub post_deploy: Option<String>,
    pub deploy_failed: Option<String>,
}

/// What the run belongs to; told to hooks and written into the journal on the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub project: String,
    pub environment: String,
    pub release: String,
    pub task: String,
}

impl Context {
    /// Asked for in one call: each call is recorded. Where a name means nothing (a script run outside of a deployment)
    /// all of it stays empty; nothing depends on it.
    fn read() -> Self {
        let names = "#{Project.Name}\n#{Environment.Name}\n#{Release.Number}\n#{Task.Id}";
        let values = variables::expand(names).unwrap_or_default();
        Self::of(&values)
    }

    fn of(values: &str) -> Self {
        let mut lines = values.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Self { project: next(), environment: next(), release: next(), task: next() }
    }
}

impl Settings {
    pub(crate) fn read(inputs: &Inputs, package: &Package) -> Result<Self> {
        let package = PackageFacts {
            id: package.id(),
            version: package.version(),
            sha256: package.sha256(),
            size: package.size(),
        };
        Ok(Self {
            install_dir: install_dir(&inputs.text("install_dir")?)?,
            scripts: Scripts {
                pre_deploy: inputs.non_empty("pre_deploy")?,
                deploy: inputs.non_empty("deploy")?,
                post_deploy: inputs.non_empty("post_deploy")?,
                deploy_failed: inputs.non_empty("deploy_failed")?,
            },
            substitute: inputs.list("substitute")?,
            keep: keep(inputs.parse("keep")?)?,
            force: inputs.parse("force")?,
            context: Context::read(),
            package,
        })
    }

    /// Changes when anything changes that an installation depends on, save the values put into files.
    pub(crate) fn fingerprint(&self) -> String {
        let scripts = &self.scripts;
        let parts =
            [&scripts.pre_deploy, &scripts.deploy, &scripts.post_deploy].map(|part| part.as_deref().unwrap_or(""));
        // FNV-1a: it tells texts apart, nobody has a reason to make two of them collide.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        format!("{hash:016x}")
    }
}

/// Looks at the inputs as written, where templates still stand for unknown text.
pub(crate) fn validate(inputs: &Value) -> Vec<Failure> {
    let mut problems = Vec::new();
    if let Some(text) = inputs.get("install_dir").and_then(Value::as_str).filter(|text| !text.contains("#{")) {
        problems.extend(install_dir(text).err());
    }
    if let Some(number) = inputs.get("keep").and_then(Value::as_i64) {
        problems.extend(keep(number).err());
    }
    problems
}

fn install_dir(text: &str) -> Result<String> {
    let path = text.trim().trim_end_matches('/');
    let wrong = |why: &str| {
        let message = format!("the install folder `{text}` {why}; write an absolute path such as /srv/shop");
        Err(Failure::new("invalid-input", message).with("input", "install_dir"))
    };
    if !path.starts_with('/') && !path.starts_with("~/") {
        return wrong("is not absolute");
    }
    if path.split('/').any(|part| part == "..") {
        return wrong("contains `..`");
    }
    if path.chars().any(char::is_control) {
        return wrong("contains a control character");
    }
    Ok(path.to_owned())
}

fn keep(number: i64) -> Result<usize> {
    usize::try_from(number).map_err(|_| {
        let message = format!("the number of versions to keep is {number}; write 0 or more");
        Failure::new("invalid-input", message).with("input", "keep")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_install_folder_is_absolute_and_goes_nowhere_else() {
        for (text, path) in [
            ("/srv/shop", "/srv/shop"),
            (" /srv/shop/ ", "/srv/shop"),
            ("~/apps/web", "~/apps/web"),
            ("/srv/with space", "/srv/with space"),
        ] {
            assert_eq!(install_dir(text).unwrap(), path);
        }
        for text in ["", "/", "srv", "./srv", "~", "/srv/../etc", "/srv/a\nb"] {
            assert!(install_dir(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_context_is_read_line_by_line() {
        let context = Context::of("shop\ntest\n\n42");
        let values = [context.project, context.environment, context.release, context.task];
        assert_eq!(values, ["shop", "test", "", "42"]);
        assert_eq!(Context::of("").task, "");
    }

    #[test]
    fn validation_names_the_input_and_leaves_templates_alone() {
        let problems = validate(&json!({"install_dir": "srv", "keep": -1}));
        let inputs: Vec<_> = problems.iter().map(|problem| problem.attributes[0].1.as_str()).collect();
        assert_eq!(inputs, ["install_dir", "keep"]);
        assert!(validate(&json!({"install_dir": "#{Root}/x", "keep": 3})).is_empty());
        assert!(validate(&json!({"package": "web"})).is_empty());
    }
}
