//! `windlass backup`: everything the server keeps, in one file, while it goes on.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use futures::StreamExt;
use windlass_engine::offline;

use super::Context;
use crate::{
    cli::Format,
    errors::Failure,
    exit::Exit,
    text::{bytes, date},
};

/// Save everything the server keeps to a file, while it goes on
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass backup windlass-monday.tar\n  windlass backup /mnt/backup/$(date +%F).tar\n\n\
                  The file is checked before it gets its name. It does not hold DATA/secret.key, which opens the\n\
                  secrets in it: keep a copy of that elsewhere. windlass restore turns both into a server again."
)]
pub struct Backup {
    /// The file to write; it must not exist yet
    file: PathBuf,
}

/// Runs it.
///
/// # Errors
/// When the file cannot be written, or the server cannot be reached or breaks off.
pub async fn run(context: &Context<'_>, command: Backup) -> Result<Exit, Failure> {
    let file = command.file;
    if file.exists() {
        return Err(
            Failure::new("file-exists", format!("{} exists already", file.display())).fix("choose another name")
        );
    }
    let client = context.client()?;
    let mut aside = file.as_os_str().to_owned();
    aside.push(".partial");
    let aside = PathBuf::from(aside);
    let saved = save(&client, &aside, &file).await;
    if saved.is_err() {
        // The error at hand tells more than a failed clean-up.
        let _ = fs::remove_file(&aside);
    }
    let backup = saved?;
    match context.ui.format {
        Format::Table => context.ui.say(&format!(
            "saved {} records and {} files, {}, to {}; keep DATA/secret.key of the server elsewhere",
            backup.head.records,
            backup.files.saturating_sub(1),
            bytes(backup.bytes),
            file.display()
        ))?,
        Format::Id => context.ui.data(&file.display().to_string())?,
        Format::Json | Format::Jsonl => context.ui.json(&serde_json::json!({
            "file": file,
            "bytes": backup.bytes,
            "files": backup.files.saturating_sub(1),
            "records": backup.head.records,
            "commit": backup.head.seq,
            "created": date(backup.head.created_ms),
        }))?,
    }
    Ok(Exit::Done)
}

async fn save(
    client: &windlass_client::Client,
    aside: &Path,
    file: &Path,
) -> Result<windlass_engine::offline::BackupRead, Failure> {
    let failed = |error: std::io::Error| Failure::file("write", aside, &error);
    let mut pieces = std::pin::pin!(client.backup().await?);
    let mut out =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(aside).map_err(failed)?;
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece?).map_err(failed)?;
    }
    out.sync_all().map_err(failed)?;
    // What a broken connection left, or a disk that lies, must not get the name of a backup.
    let read = offline::verify_backup(aside).await.map_err(Failure::from)?;
    fs::rename(aside, file).map_err(failed)?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(read)
}
