//! A backup of a server that goes on, and a server made of it: nothing is missing, nothing starts untold, and damage
//! is named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf};

use windlass_client::Client;
use windlass_model::{
    Machine, TaskId, TaskState,
    views::{PushMode, ScriptRequest},
};
use windlass_tests::{
    server::Server,
    shop::{self, Anything},
    site::Site,
    stage::Stage,
    writer::Writer,
};

async fn create_machine(client: &Client, name: &str) -> Anything<()> {
    let machine: Machine = serde_json::from_value(serde_json::json!({ "name": name, "connection": { "local": {} } }))?;
    client.put_machine(&machine).await?;
    Ok(())
}

async fn machines(client: &Client) -> Anything<BTreeSet<String>> {
    Ok(client.machines().await?.iter().map(|machine| machine.name.to_string()).collect())
}

/// Machines, a package, and a script that waits: what a backup has to carry.
async fn filled() -> Anything<Server> {
    let server = Server::bare()?;
    let client = server.client()?;
    for number in 0..20 {
        create_machine(&client, &format!("before-{number}")).await?;
    }
    let archive = shop::archive(&[("hello", &"hello\n".repeat(1000))])?;
    let size = archive.len() as u64;
    let name = "shop-web.1.0.0.tar.gz";
    client.push_package(name, std::io::Cursor::new(archive), size, None, PushMode::Fail).await?;
    let script = ScriptRequest { name: "waits".into(), text: "sleep(3600);".into(), arguments: Default::default() };
    client.run_script(&script).await?;
    Ok(server)
}

/// Backs the server up while machines are created, and gives the file.
async fn backed_up(server: &Server) -> Anything<PathBuf> {
    let file = server.data().with_file_name("backup.tar");
    let client = server.client()?;
    let writer = tokio::spawn(async move {
        for number in 0.. {
            if create_machine(&client, &format!("during-{number}")).await.is_err() {
                return;
            }
        }
    });
    let mut command = server.spawn(&["backup", file.to_str().unwrap()])?;
    let ended = tokio::task::spawn_blocking(move || command.wait().map_err(|error| error.to_string())).await??;
    writer.abort();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert!(ended.err.contains("saved ") && ended.err.contains("keep DATA/secret.key"), "{ended:#?}");
    Ok(file)
}

/// Restores into the server's own place, its old folder put aside.
fn restored(server: &mut Server, file: &Path) -> Anything<String> {
    server.kill9()?;
    let (data, old) = (server.data(), server.data().with_file_name("old"));
    fs::rename(&data, &old)?;
    let key = old.join("secret.key");
    let arguments =
        ["restore", file.to_str().unwrap(), "--data", data.to_str().unwrap(), "--secret-key", key.to_str().unwrap()];
    let ended = server.cli(&arguments)?;
    assert_eq!(ended.code, 0, "{ended:#?}");
    Ok(ended.err)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_has_everything_and_starts_nothing_untold() -> Anything<()> {
    let mut server = filled().await?;
    let file = backed_up(&server).await?;
    let before = machines(&server.client()?).await?;
    let said = restored(&mut server, &file)?;
    assert!(said.contains("task 1 (script waits, executing)") && said.contains("--resume-restored"), "{said}");

    let refused = server.restart().unwrap_err().to_string();
    assert!(refused.contains("none of it is started again untold: task 1 (script waits, executing)"), "{refused}");
    assert!(refused.contains("windlass serve --resume-restored"), "{refused}");
    server.restart_with(&["--resume-restored"])?;
    let client = server.client()?;
    let after = machines(&client).await?;
    assert!((0..20).all(|number| after.contains(&format!("before-{number}"))), "{after:?}");
    assert!(after.is_subset(&before), "{after:?}");
    assert_eq!(client.packages().await?.len(), 1);
    assert_eq!(client.task(TaskId(1)).await?.summary.state, TaskState::Executing);
    create_machine(&client, "later").await?;

    // Told once is told for good.
    server.restart()?;
    assert!(machines(&server.client()?).await?.contains("later"));
    Ok(())
}

/// What the writer of round 1 has made there: machines, scripts, packages, each by its number in order.
async fn made(client: &Client) -> Anything<[Vec<usize>; 3]> {
    let numbers = |names: Vec<String>, prefix: &str| {
        let mut numbers: Vec<usize> = names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    };
    let query = windlass_model::task::TaskQuery { limit: Some(200), ..Default::default() };
    let tasks = client.tasks(&query).await?.items.into_iter().map(|task| task.title).collect();
    let packages = client.packages().await?.into_iter().map(|package| package.version).collect();
    Ok([
        numbers(machines(client).await?.into_iter().collect(), "extra-1-"),
        numbers(tasks, "script write-1-"),
        numbers(packages, "1.1."),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_moment_of_the_server() -> Anything<()> {
    let mut stage = Stage::new().await?;
    stage.release("5.0.5")?;
    let deployment = stage.site.client()?.run_script(&Stage::request("5.0.5")).await?.id;
    let mut writer = Writer::start(&stage.site.server, 1)?;
    let mut last = None;
    for number in 0..3 {
        let begin = std::time::Instant::now();
        while writer.written().0 < (number + 1) * 4 {
            assert!(begin.elapsed() < windlass_tests::stage::PATIENCE, "nothing is written");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let before = writer.written();
        let file = stage.site.server.data().with_file_name(format!("load-{number}.tar"));
        let mut command = stage.site.server.spawn(&["backup", file.to_str().unwrap()])?;
        let ended = tokio::task::spawn_blocking(move || command.wait().map_err(|error| error.to_string())).await??;
        assert_eq!(ended.code, 0, "{ended:#?}");
        last = Some((file.clone(), before, writer.written()));

        // Each is whole: its digests, its records, and every file that a record names.
        let copy = file.with_extension("copy");
        let restore = ["restore", file.to_str().unwrap(), "--data", copy.to_str().unwrap()];
        assert_eq!(stage.site.server.cli(&restore)?.code, 0);
        let checked = stage.site.server.cli(&["store", "check", "--data", copy.to_str().unwrap()])?;
        assert!(checked.code == 0 && checked.err.contains("all sound: "), "{checked:#?}");
    }
    writer.stop().await?;
    stage.ended(deployment).await?;
    let (file, before, after) = last.unwrap();
    restored(&mut stage.site.server, &file)?;
    stage.site.server.restart_with(&["--resume-restored"])?;
    let [machines, scripts, packages] = made(&stage.site.client()?).await?;
    // They were written one after the other, so every moment has the first so many of each, and as many of one as of
    // the other, give or take the one that was just being written.
    for (what, numbers) in [("machines", &machines), ("scripts", &scripts)] {
        assert!(numbers.iter().copied().eq(0..numbers.len()), "{what} are missing in between: {numbers:?}");
    }
    assert!(packages.iter().copied().eq((0..packages.len()).map(|number| number * 4)), "{packages:?}");
    assert!(machines.len() == scripts.len() || machines.len() == scripts.len() + 1, "{machines:?} {scripts:?}");
    assert!(scripts.len().div_ceil(4).abs_diff(packages.len()) <= 1, "{scripts:?} {packages:?}");
    assert!(machines.len() >= before.0 && scripts.len() >= before.1, "acknowledged before it began: {before:?}");
    assert!(machines.len() <= after.0 + 1 && scripts.len() <= after.1 + 1, "not even begun when it ended: {after:?}");
    // What was under way in it goes on from there, told to. The targets know what they did since, so nothing runs twice;
    // what that brought, they may have forgotten, and then a person is asked.
    let client = stage.site.client()?;
    let nobody_knows = async {
        loop {
            for question in client.interruptions().await? {
                assert!(question.unknown_outcome, "{question:#?}");
                let number = question.number.to_string();
                stage.site.server.cli(&["interruption", "answer", &number, "fail", "--notes", "restored"])?;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ended = stage.ended(deployment) => drop(ended?),
        failed = nobody_knows => return failed,
    }
    for target in &stage.site.targets {
        let starts = fs::read_to_string(target.home().join("starts"))?;
        let once: BTreeSet<_> = starts.lines().collect();
        assert_eq!(once.len(), starts.lines().count(), "started twice: {starts}");
    }
    // Numbers that the old server gave since are not given again, for the same reason.
    let script = ScriptRequest { name: "later".into(), text: "info(1);".into(), arguments: Default::default() };
    let later = stage.site.client()?.run_script(&script).await?.id;
    assert!(later.0 > 10_000, "{later}");
    Ok(())
}

/// Two runs on one machine: each writes down that it ran, and ends when told to.
const TWO_RUNS: &str = r#"
  - { name: forgotten, uses: run-script@1, on: { role: web }, isolation: shared,
      with: { script: "echo forgotten >> $HOME/ran; while [ ! -e $HOME/go1 ]; do sleep 0.05; done; echo over" } }
  - { name: open, uses: run-script@1, on: { role: web }, isolation: shared, start: with-previous,
      with: { script: "echo open >> $HOME/ran; while [ ! -e $HOME/go2 ]; do sleep 0.05; done; echo over" } }
"#;

/// Waits for something on the disk of a target.
async fn there(what: &str, is_there: impl Fn() -> bool) {
    let wait = async {
        while !is_there() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(windlass_tests::stage::PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} never came"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_machines_have_forgotten_since_the_backup_is_unknown_and_a_person_is_asked() -> Anything<()> {
    let mut site = Site::new(1, TWO_RUNS).await?;
    site.release("1.0.0")?;
    site.server.cli(&["deploy", "shop", "-e", "test", "--detach"])?.good()?;
    let home = site.targets[0].home();
    let ran = || fs::read_to_string(home.join("ran")).unwrap_or_default().lines().count();
    there("the commands", || ran() == 2).await;
    let file = backed_up(&site.server).await?;
    // One ends, and its result is taken and cleared; the other goes on.
    fs::write(home.join("go1"), "")?;
    let forgotten = |name: &str| name.starts_with("1.0.m-web0.1.0.") && name.ends_with("+go");
    let tombstones = || fs::read_dir(home.join(".windlass/done")).into_iter().flatten().flatten();
    there("the tombstone", || tombstones().any(|file| file.file_name().to_str().is_some_and(forgotten))).await;
    restored(&mut site.server, &file)?;
    site.server.restart_with(&["--resume-restored"])?;

    let client = site.client()?;
    let task = site.until(TaskId(1), |task| task.steps[0].runs[0].reason.is_some()).await?;
    assert_eq!(task.summary.state, TaskState::Executing);
    let question = client.interruptions().await?.into_iter().next().unwrap();
    assert!(question.unknown_outcome && question.node == "forgotten/web0", "{question:#?}");
    assert_eq!(question.choices, ["retry", "done", "fail"]);
    for words in
        ["has an unknown outcome: 1.0.m-web0.1.0.", " has ended on ", "its result was taken and cleared before"]
    {
        assert!(question.text.contains(words), "{words:?} is missing: {}", question.text);
    }
    fs::write(home.join("go2"), "")?;
    let number = question.number.to_string();
    site.server.cli(&["interruption", "answer", &number, "done", "--notes", "looked there"])?.good()?;
    site.server.cli(&["task", "follow", "1"])?.good()?;
    let ended = client.task(TaskId(1)).await?;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{ended:#?}");
    assert_eq!(ran(), 2, "neither ran twice");
    let open = site.log(TaskId(1), "open/web0").await?.join("\n");
    assert!(open.contains("over") && !open.contains("took it as done"), "it was only followed on: {open}");
    Ok(())
}

/// A run that writes down that it ran.
const ONE_RUN: &str = r#"
  - { name: work, uses: run-script@1, on: { role: web }, with: { script: "echo ran >> $HOME/ran" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_refused_by_machines_on_which_one_made_of_its_backup_has_worked_since() -> Anything<()> {
    let mut site = Site::new(1, ONE_RUN).await?;
    let ran = |site: &Site| fs::read_to_string(site.targets[0].home().join("ran")).unwrap_or_default().lines().count();
    site.deploy("1.0.0")?.good()?;
    let file = backed_up(&site.server).await?;
    restored(&mut site.server, &file)?;
    site.server.restart_with(&["--resume-restored"])?;
    site.deploy("2.0.0")?.good()?;
    assert_eq!(ran(&site), 2);

    // The first one comes back, as if it had only been cut off.
    site.server.kill9()?;
    let (data, old) = (site.server.data(), site.server.data().with_file_name("old"));
    fs::rename(&data, data.with_file_name("later"))?;
    fs::rename(&old, &data)?;
    site.server.restart()?;
    let ended = site.deploy("3.0.0")?;
    assert_ne!(ended.code, 0, "{ended:#?}");
    assert_eq!(ran(&site), 2, "it may not work there any more");
    let task = site.last_task().await?;
    assert_eq!(task.summary.state, TaskState::Failed, "{task:#?}");
    let log = site.log(task.summary.id, "work/web0").await?.join("\n");
    for words in ["nothing of it ran: a server that was made of a backup of this one has worked there since", "fix: "] {
        assert!(log.contains(words), "{words:?} is missing: {log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_backup_or_a_folder_is_named_and_nothing_is_made_of_it() -> Anything<()> {
    let mut server = filled().await?;
    let file = backed_up(&server).await?;
    let mut bytes = fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = file.with_file_name("damaged.tar");
    fs::write(&damaged, &bytes)?;
    let target = file.with_file_name("target");
    let ended = server.cli(&["restore", damaged.to_str().unwrap(), "--data", target.to_str().unwrap()])?;
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert!(ended.err.contains("error[backup]: the backup is damaged: "), "{}", ended.err);
    let left: Vec<_> = fs::read_dir(file.parent().unwrap())?
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("target"))
        .collect();
    assert_eq!(left, Vec::<String>::new());

    let data = server.data();
    let check = ["store", "check", "--data", data.to_str().unwrap()];
    let used = server.cli(&check)?;
    assert!(used.code == 1 && used.err.contains("it is in use already"), "{used:#?}");
    let onto = server.cli(&["restore", file.to_str().unwrap(), "--data", data.to_str().unwrap()])?;
    assert!(onto.code == 1 && onto.err.contains("error[data-not-empty]"), "{onto:#?}");

    server.kill9()?;
    let sound = server.cli(&check)?;
    assert!(sound.code == 0 && sound.err.contains("all sound: "), "{sound:#?}");
    let shards = data.join("packages/sha256");
    let shard = fs::read_dir(&shards)?.next().unwrap()?.path();
    let package = fs::read_dir(&shard)?.next().unwrap()?.path();
    let moved = package.with_file_name("moved");
    fs::rename(&package, &moved)?;
    let missing = server.cli(&check)?;
    assert_eq!(missing.code, 65, "{missing:#?}");
    assert!(missing.out.contains("damaged: packages/shop-web.1.0.0"), "{}", missing.out);
    assert!(missing.out.contains("the file it names is missing"), "{}", missing.out);
    fs::write(&package, "other content")?;
    let changed = server.cli(&check)?;
    assert_eq!(changed.code, 65, "{changed:#?}");
    assert!(
        changed.out.contains(&format!("damaged: {}: its content has the digest", package.display())),
        "{changed:#?}"
    );
    fs::remove_file(&package)?;
    fs::rename(&moved, &package)?;
    let sound = server.cli(&check)?;
    assert_eq!(sound.code, 0, "{sound:#?}");
    Ok(())
}
