//! Whole deployments in a temporary folder, the scripts run by every POSIX shell found here: the system's `sh`, and
//! BusyBox with nothing but its own tools, bash and mksh where they are installed.
#![cfg(unix)]

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::settings::{Context, PackageFacts, Scripts};

/// A machine: a folder, a shell, and the tools that shell shall find.
struct Shell {
    words: Vec<String>,
    path: String,
    folder: tempfile::TempDir,
    said: RefCell<Vec<String>>,
    ran: RefCell<Vec<Ran>>,
    /// What `substitute` answers instead of doing it.
    refuses: Option<Failure>,
}

impl Shell {
    fn of(words: &[&str], path: String) -> Self {
        Self {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            path,
            folder: tempfile::tempdir().unwrap(),
            said: RefCell::default(),
            ran: RefCell::default(),
            refuses: None,
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The names in a folder, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn current(&self) -> Option<String> {
        Some(fs::read_link(self.at("app/current")).ok()?.to_str().unwrap().to_owned())
    }

    /// Packs files into an archive; the end of its name chooses the kind.
    fn pack(&self, name: &str, files: &[(&str, &str)]) -> String {
        let content = self.at(&format!("content-{name}"));
        for (file, text) in files {
            let path = content.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let archive = self.at(name);
        let kind = match name.rsplit('.').next().unwrap() {
            "zip" => {
                zip(&archive, files);
                return archive.to_str().unwrap().to_owned();
            }
            "tgz" => "-czf",
            _ => "-cf",
        };
        let status = Command::new("tar").arg(kind).arg(&archive).arg(".").current_dir(&content).status();
        assert!(status.unwrap().success());
        archive.to_str().unwrap().to_owned()
    }

    fn settings(&self, version: &str) -> Settings {
        let package =
            PackageFacts { id: "web".into(), version: version.into(), sha256: format!("sha-{version}"), size: 1 };
        Settings {
            package,
            install_dir: self.at("app").to_str().unwrap().to_owned(),
            scripts: Scripts::default(),
            substitute: Vec::new(),
            keep: 3,
            force: false,
            context: Context {
                project: "shop".into(),
                environment: "test".into(),
                release: "7".into(),
                task: "42".into(),
            },
        }
    }

    /// Deploys a package of one file that tells its version.
    fn deploy_version(&self, version: &str) -> Result<Deployed> {
        let archive = self.pack(&format!("web.{version}.tgz"), &[("version.txt", version)]);
        deploy(self, &self.settings(version), &archive)
    }
}

fn zip(archive: &Path, files: &[(&str, &str)]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(archive).unwrap());
    for (file, text) in files {
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(*file, stored).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
}

impl Machine for Shell {
    fn run(&self, script: &Script) -> Result<Ran> {
        let file = self.at("script.sh");
        fs::write(&file, &script.text)?;
        let output = Command::new(&self.words[0])
            .args(&self.words[1..])
            .arg(&file)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", self.folder.path())
            .envs(script.env.iter().map(|(name, value)| (*name, value)))
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ran = || Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        self.ran.borrow_mut().push(ran());
        Ok(ran())
    }

    fn substitute(&self, folder: &str, globs: &[String]) -> Result<()> {
        if let Some(failure) = &self.refuses {
            return Err(failure.clone());
        }
        for name in globs {
            let file = Path::new(folder).join(name);
            fs::write(&file, fs::read_to_string(&file)?.replace("#{Name}", "value"))?;
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        self.said.borrow_mut().push(line.to_owned());
    }
}

/// Runs a test on every shell there is here.
fn on_every_shell(test: impl Fn(&Shell)) {
    let path = std::env::var("PATH").unwrap();
    let found = |name: &str| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    test(&Shell::of(&["sh"], path.clone()));
    for (name, words) in [("bash", ["bash", "--posix"]), ("mksh", ["mksh", "-p"])] {
        if found(name).is_some() {
            test(&Shell::of(&words, path.clone()));
        }
    }
    if let Some(busybox) = found("busybox") {
        // Only BusyBox's own tools, as on Alpine.
        let tools = tempfile::tempdir().unwrap();
        let list = Command::new(&busybox).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(list).unwrap().lines() {
            symlink(&busybox, tools.path().join(applet)).unwrap();
        }
        let sh = tools.path().join("sh").to_str().unwrap().to_owned();
        test(&Shell::of(&[&sh], tools.path().to_str().unwrap().to_owned()));
    }
}

#[test]
fn versions_follow_one_another_and_old_ones_go() {
    on_every_shell(|shell| {
        let folder = shell.at("app/releases/1").to_str().unwrap().to_owned();
        assert_eq!(shell.deploy_version("1").unwrap(), Deployed { folder, previous_version: String::new() });
        assert_eq!(shell.ran.borrow().len(), 2, "one script looks, one installs");
        for version in 2..=6 {
            let deployed = shell.deploy_version(&version.to_string()).unwrap();
            assert_eq!(deployed.previous_version, (version - 1).to_string());
            assert_eq!(shell.read("app/current/version.txt"), version.to_string());
        }
        assert_eq!(shell.names("app/releases"), ["3", "4", "5", "6"], "three earlier ones and the current one");
        assert_eq!(shell.names("app"), [".windlass", "current", "releases"]);
        assert_eq!(shell.names("app/.windlass"), ["journal"]);
        let journal = shell.read("app/.windlass/journal");
        let last: Vec<&str> = journal.lines().last().unwrap().split('\t').collect();
        assert_eq!(last[1..6], ["succeeded", "6", "web", "6", "sha-6"]);
        assert_eq!(last[7..], ["shop", "test", "7", "42"]);
        assert_eq!(journal.lines().count(), 12);
    });
}

#[test]
fn the_same_again_does_nothing_and_going_back_installs_anew() {
    on_every_shell(|shell| {
        shell.deploy_version("1").unwrap();
        shell.ran.borrow_mut().clear();
        shell.deploy_version("1").unwrap();
        assert_eq!(shell.ran.borrow().len(), 1, "it was only looked at");
        assert!(shell.said.borrow().last().unwrap().contains("installed already"));
        shell.deploy_version("2").unwrap();
        let back = shell.deploy_version("1").unwrap();
        assert!(back.folder.ends_with("/releases/1_1"), "{}", back.folder);
        assert_eq!(shell.current().as_deref(), Some("releases/1_1"));
    });
}

#[test]
fn hooks_run_in_their_order_and_folder_and_know_what_is_deployed() {
    on_every_shell(|shell| {
        shell.deploy_version("1").unwrap();
        let log = shell.at("log").to_str().unwrap().to_owned();
        let tell = |who: &str| {
            format!(
                "echo \"{who} $WINDLASS_VERSION after $WINDLASS_PREVIOUS_VERSION in ${{PWD##*/}}, conf $(cat app.conf), \
                     current $(cat \"$WINDLASS_CURRENT/version.txt\")\" >>'{log}'"
            )
        };
        let archive = shell.pack(
            "web.2.tgz",
            &[
                ("version.txt", "2"),
                ("app.conf", "#{Name}"),
                ("PreDeploy.sh", &tell("PreDeploy.sh")),
                ("Deploy.sh", &tell("Deploy.sh")),
                ("PostDeploy.sh", &tell("PostDeploy.sh")),
                ("DeployFailed.sh", "exit 1"),
                ("sub/Deploy.sh", "exit 1"),
            ],
        );
        let mut settings = shell.settings("2");
        settings.substitute = vec!["app.conf".into()];
        settings.scripts.pre_deploy = Some(tell("pre_deploy"));
        settings.scripts.deploy = Some(tell("deploy"));
        settings.scripts.post_deploy = Some(tell("post_deploy"));
        deploy(shell, &settings, &archive).unwrap();
        let expected = "\
            pre_deploy 2 after 1 in 2, conf #{Name}, current 1\n\
            PreDeploy.sh 2 after 1 in 2, conf #{Name}, current 1\n\
            Deploy.sh 2 after 1 in 2, conf value, current 1\n\
            deploy 2 after 1 in 2, conf value, current 1\n\
            PostDeploy.sh 2 after 1 in 2, conf value, current 2\n\
            post_deploy 2 after 1 in 2, conf value, current 2\n";
        assert_eq!(shell.read("log"), expected);
    });
}

#[test]
fn a_failing_hook_leaves_current_and_lets_the_package_clean_up() {
    on_every_shell(|shell| {
        shell.deploy_version("1").unwrap();
        for (number, hook) in ["PreDeploy.sh", "Deploy.sh", "PostDeploy.sh"].into_iter().enumerate() {
            let version = format!("2.{number}");
            let archive = shell.pack(
                &format!("web.{version}.tgz"),
                &[
                    ("version.txt", &version),
                    (hook, "echo broken >&2; exit 3"),
                    (
                        "DeployFailed.sh",
                        "echo \"$WINDLASS_ERROR, current $(cat \"$WINDLASS_CURRENT/version.txt\")\" >failed",
                    ),
                ],
            );
            let mut settings = shell.settings(&version);
            settings.scripts.deploy_failed = Some("cp failed ../../seen".into());
            let error = deploy(shell, &settings, &archive).unwrap_err();
            assert_eq!(error.code, "hook-failed");
            assert!(error.message.starts_with(&format!("{hook} ended with exit code 3;")), "{error}");
            assert_eq!(shell.read("app/seen").trim(), format!("{hook} ended with exit code 3, current 1"));
            assert_eq!(shell.current().as_deref(), Some("releases/1"));
            assert!(shell.read("app/.windlass/journal").lines().last().unwrap().contains("\tfailed\t"));
        }
        shell.deploy_version("3").unwrap();
        assert_eq!(shell.names("app/releases"), ["1", "3"], "failed ones are removed by the next success");
    });
}

#[test]
fn a_first_deployment_that_fails_leaves_no_current() {
    on_every_shell(|shell| {
        let archive = shell.pack("web.1.tgz", &[("PostDeploy.sh", "exit 1")]);
        deploy(shell, &shell.settings("1"), &archive).unwrap_err();
        assert_eq!(shell.current(), None);
    });
}

#[test]
fn variables_that_cannot_be_put_into_files_fail_the_deployment() {
    let mut shell = Shell::of(&["sh"], std::env::var("PATH").unwrap());
    shell.deploy_version("1").unwrap();
    let archive =
        shell.pack("web.2.tgz", &[("a.conf", "x"), ("DeployFailed.sh", "echo \"$WINDLASS_ERROR\" >../../seen")]);
    let mut settings = shell.settings("2");
    settings.substitute = vec!["a.conf".into()];
    shell.refuses = Some(Failure::new("denied", "no such right"));
    let error = deploy(&shell, &settings, &archive).unwrap_err();
    assert_eq!(error.code, "denied");
    assert_eq!(shell.read("app/seen").trim(), "no such right");
    assert_eq!(shell.current().as_deref(), Some("releases/1"));

    shell.refuses = Some(Failure::new("cancelled", "the deployment is being cancelled"));
    shell.ran.borrow_mut().clear();
    assert!(deploy(&shell, &settings, &archive).unwrap_err().is_cancelled());
    assert_eq!(shell.ran.borrow().len(), 2, "nothing more is started on a machine that was told to stop");
}

#[test]
fn archives_of_every_kind_are_told_apart_by_content() {
    on_every_shell(|shell| {
        for (version, kind) in [("1", "tar"), ("2", "tgz"), ("3", "zip")] {
            let archive =
                shell.pack(&format!("web.{version}.{kind}"), &[("version.txt", version), ("a b/c'd.txt", "x")]);
            let blob = shell.at(&format!("blob-{version}"));
            fs::rename(archive, &blob).unwrap();
            deploy(shell, &shell.settings(version), blob.to_str().unwrap()).unwrap();
            assert_eq!(shell.read("app/current/version.txt"), version);
            assert_eq!(shell.read("app/current/a b/c'd.txt"), "x");
        }
    });
}

#[test]
fn a_broken_or_missing_archive_is_named_and_nothing_half_is_left() {
    on_every_shell(|shell| {
        shell.deploy_version("1").unwrap();
        let good = fs::read(shell.at("web.1.tgz")).unwrap();
        fs::write(shell.at("cut.tgz"), &good[..good.len() / 2]).unwrap();
        for (archive, code) in [("cut.tgz", "bad-archive"), ("none.tgz", "no-archive")] {
            let error = deploy(shell, &shell.settings("2"), shell.at(archive).to_str().unwrap()).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert_eq!(shell.names("app/releases").iter().filter(|name| !name.starts_with('.')).count(), 1);
        }
        shell.deploy_version("3").unwrap();
        assert_eq!(shell.names("app/releases"), ["1", "3"], "left-over parts are removed");
    });
}

/// Written by a child: a file that this process holds open for writing, in whatever thread, cannot be executed.
fn write_executable(file: &Path, body: &str) {
    let script = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(file).arg(body).status();
    assert!(status.unwrap().success());
}

/// A machine whose tools are the given ones only, each a link or a script of its own.
fn machine_with(tools: &[&str], own: &[(&str, &str)]) -> (Shell, tempfile::TempDir) {
    let bin = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    for tool in tools {
        let real = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file()).unwrap();
        symlink(real, bin.path().join(tool)).unwrap();
    }
    for (tool, body) in own {
        let file = bin.path().join(tool);
        write_executable(&file, body);
    }
    (Shell::of(&["/bin/sh"], bin.path().to_str().unwrap().to_owned()), bin)
}

const TOOLS: [&str; 18] = [
    "cat", "cp", "date", "df", "dirname", "grep", "head", "id", "ln", "mkdir", "mv", "od", "readlink", "rm", "sed",
    "sh", "tail", "tr",
];

#[test]
fn a_machine_without_tar_is_told_what_to_install() {
    let (shell, _bin) = machine_with(&TOOLS, &[]);
    let error = shell.deploy_version("1").unwrap_err();
    assert_eq!(error.code, "no-tar");
    assert!(error.message.contains("apt-get install tar"), "{error}");
    let zip = shell.pack("web.2.zip", &[("a", "b")]);
    assert_eq!(deploy(&shell, &shell.settings("2"), &zip).unwrap_err().code, "no-unzip");
    assert_eq!(shell.current(), None);
}

#[test]
fn a_disk_that_fills_up_is_called_full() {
    let tar = "echo 'tar: x: Cannot write: No space left on device' >&2; exit 2";
    let (shell, _bin) = machine_with(&TOOLS, &[("tar", tar)]);
    let error = shell.deploy_version("1").unwrap_err();
    assert_eq!(error.code, "disk-full");
}

#[test]
fn a_mv_without_the_usual_option_still_switches() {
    let mv = "case $1 in -T*|-h*) echo 'illegal option' >&2; exit 64;; esac; exec /bin/mv \"$@\"";
    let tools: Vec<&str> = TOOLS.into_iter().filter(|tool| *tool != "mv").chain(["tar", "gzip"]).collect();
    let (shell, _bin) = machine_with(&tools, &[("mv", mv)]);
    shell.deploy_version("1").unwrap();
    shell.deploy_version("2").unwrap();
    assert_eq!(shell.current().as_deref(), Some("releases/2"));
    assert_eq!(shell.names("app"), [".windlass", "current", "releases"]);
}

#[test]
fn the_home_folder_may_stand_for_the_start_of_the_path() {
    let shell = Shell::of(&["sh"], std::env::var("PATH").unwrap());
    let archive = shell.pack("web.1.tgz", &[("version.txt", "1")]);
    let settings = Settings { install_dir: "~/my apps/web".into(), ..shell.settings("1") };
    let deployed = deploy(&shell, &settings, &archive).unwrap();
    assert_eq!(deployed.folder, shell.at("my apps/web/releases/1").to_str().unwrap());
    assert_eq!(shell.read("my apps/web/current/version.txt"), "1");
}

#[test]
fn scripts_reach_the_machine_letter_by_letter() {
    on_every_shell(|shell| {
        let archive = shell.pack("web.1.tgz", &[("version.txt", "1")]);
        let mut settings = shell.settings("1");
        let odd = "cat >out <<'END_OF_TEXT'\n$HOME `id` \\ 'quoted' \"double\" ümläut\nEND_OF_TEXT";
        settings.scripts.deploy = Some(odd.into());
        deploy(shell, &settings, &archive).unwrap();
        assert_eq!(shell.read("app/current/out"), "$HOME `id` \\ 'quoted' \"double\" ümläut\n");
    });
}

#[test]
fn a_long_journal_is_shortened_on_the_machine() {
    on_every_shell(|shell| {
        shell.deploy_version("1").unwrap();
        let line = shell.read("app/.windlass/journal").lines().last().unwrap().to_owned();
        let old: String = (0..600).map(|number| line.replace("\t1\t", &format!("\told{number}\t")) + "\n").collect();
        fs::write(shell.at("app/.windlass/journal"), format!("{line}\n{old}")).unwrap();
        shell.deploy_version("2").unwrap();
        let journal = shell.read("app/.windlass/journal");
        assert_eq!(journal.lines().count(), 103, "release 1, a hundred old lines, two of release 2");
        assert!(journal.lines().last().unwrap().contains("succeeded\t2\tweb"));
        assert_eq!(shell.names("app/.windlass"), ["journal"]);
    });
}
