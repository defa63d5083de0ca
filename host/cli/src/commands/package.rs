//! `windlass package`: pack folders, push files, list what is there.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::{Subcommand, ValueEnum};
use windlass_model::views::{PackageView, PushMode, PushReport, PushResult};
use windlass_packages::{
    digest::Hasher,
    name::{Format as Archive, NameError, PackageId},
    pack::{PackOptions, pack},
    version::{Version, VersionError},
};

use super::Context;
use crate::{
    cli::Format,
    errors::Failure,
    exit::Exit,
    text::{bytes, date, visible},
};

/// Bytes read of a file at a time.
const PIECE: usize = 256 << 10;

/// Pack, push and list packages
#[derive(Debug, Subcommand)]
pub enum Package {
    /// Push package files to the server
    #[command(after_help = "Examples:\n  windlass package push shop-web.1.4.0.tar.gz\n  \
        windlass package push dist/*.zip --if-exists ignore-same")]
    Push {
        /// The files, named id.version.ext with zip, tar, tar.gz, tgz or nupkg
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// What to do with a version that is there already
        #[arg(long, value_enum, default_value_t = IfExists::Fail)]
        if_exists: IfExists,
    },
    /// List packages
    #[command(after_help = "Examples:\n  windlass package list\n  windlass package list shop-web -o json")]
    List {
        /// Only this package
        id: Option<String>,
    },
    /// Pack a folder into a package file; equal content gives equal bytes
    #[command(after_help = "Examples:\n  windlass package pack build --id shop-web --version 1.4.0\n  \
        windlass package pack build --id shop-web --version 1.4.0 --to dist --exclude '*.pdb' --push")]
    Pack {
        /// The folder
        folder: PathBuf,
        /// Id of the package
        #[arg(long, value_parser = parse_id)]
        id: PackageId,
        /// Its version
        #[arg(long, value_parser = parse_version)]
        version: Version,
        /// Folder to put the file into
        #[arg(long, default_value = ".", value_name = "DIR")]
        to: PathBuf,
        /// Kind of archive
        #[arg(long, value_enum, default_value_t = Kind::TarGz)]
        format: Kind,
        /// Only files that match; may be repeated
        #[arg(long, value_name = "GLOB")]
        include: Vec<String>,
        /// No files or folders that match; may be repeated
        #[arg(long, value_name = "GLOB")]
        exclude: Vec<String>,
        /// Replace a file of the same name
        #[arg(long)]
        overwrite: bool,
        /// Push it as well
        #[arg(long)]
        push: bool,
    },
}

fn parse_id(text: &str) -> Result<PackageId, String> {
    text.parse().map_err(|error: NameError| format!("{error}; {}", error.fix()))
}

fn parse_version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|error: VersionError| format!("{error}; {}", error.fix()))
}

/// What to do with a version that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IfExists {
    /// Refuse it
    Fail,
    /// Fine if the bytes are the same, refused otherwise
    IgnoreSame,
    /// Put the new one in its place
    Replace,
}

impl From<IfExists> for PushMode {
    fn from(mode: IfExists) -> Self {
        match mode {
            IfExists::Fail => Self::Fail,
            IfExists::IgnoreSame => Self::IgnoreSame,
            IfExists::Replace => Self::Replace,
        }
    }
}

/// Kinds of archives that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Compressed tar
    #[value(name = "tar.gz")]
    TarGz,
    /// Zip
    Zip,
}

/// Runs it.
///
/// # Errors
/// When a file cannot be read or packed, or the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Package) -> Result<Exit, Failure> {
    match command {
        Package::Push { files, if_exists } => push(context, &files, if_exists.into()).await?,
        Package::List { id } => {
            let client = context.client()?;
            let found = match id {
                Some(id) => client.package_versions(&id).await?,
                None => client.packages().await?,
            };
            let name = |package: &PackageView| format!("{} {}", package.id, package.version);
            context.ui.list(&found, name, &["id", "version", "size", "pushed"], |package| {
                vec![package.id.clone(), package.version.clone(), bytes(package.size), date(package.pushed_ms)]
            })?;
        }
        Package::Pack { folder, id, version, to, format, include, exclude, overwrite, push: then_push } => {
            let format = match format {
                Kind::TarGz => Archive::TarGz,
                Kind::Zip => Archive::Zip,
            };
            let options = PackOptions { folder, id, version, format, output: to, include, exclude, overwrite };
            let path = pack_folder(context, options, then_push).await?;
            if then_push {
                push(context, &[path], PushMode::Fail).await?;
            }
        }
    }
    Ok(Exit::Done)
}

async fn pack_folder(context: &Context<'_>, options: PackOptions, quiet: bool) -> Result<PathBuf, Failure> {
    let packed = tokio::task::spawn_blocking(move || pack(&options))
        .await
        .map_err(|error| Failure::new("pack", "packing was interrupted").cause(error.to_string()))?
        .map_err(|error| Failure::new("pack", error.to_string()).fix(error.fix()))?;
    for warning in &packed.warnings {
        context.ui.say(&format!("warning: {}", visible(warning)))?;
    }
    let path = packed.path.display().to_string();
    let value = serde_json::json!({
        "path": path,
        "id": packed.name.id.to_string(),
        "version": packed.name.version.to_string(),
        "size": packed.blob.size,
        "sha256": packed.blob.sha256.to_string(),
        "entries": packed.entries,
    });
    // What is pushed as well prints the server's answer as its data.
    if !quiet {
        let text = format!("{path}  {} entries, {}", packed.entries, bytes(packed.blob.size));
        context.ui.one(&value, |_| path.clone(), |_| text)?;
    }
    Ok(packed.path)
}

async fn push(context: &Context<'_>, files: &[PathBuf], mode: PushMode) -> Result<(), Failure> {
    let client = context.client()?;
    // All names are checked before the first byte is sent.
    for file in files {
        file_name(file)?;
    }
    for file in files {
        let report = send(&client, file, mode).await?;
        for warning in &report.package.warnings {
            context.ui.say(&format!("warning: {}", visible(warning)))?;
        }
        let name = |report: &PushReport| format!("{} {}", report.package.id, report.package.version);
        match context.ui.format {
            // One object a file: several files give lines, not one document after the other.
            Format::Json if files.len() > 1 => {
                context.ui.data(&serde_json::to_string(&report).map_err(std::io::Error::from)?)?
            }
            _ => context.ui.one(&report, name, pushed)?,
        }
    }
    Ok(())
}

/// Sends a file. Its digest goes along, so that the server knows whether all of it arrived unharmed.
async fn send(client: &windlass_client::Client, path: &Path, mode: PushMode) -> Result<PushReport, Failure> {
    let failed = |error: std::io::Error| Failure::file("read", path, &error);
    let name = file_name(path)?;
    let (sha256, size) = digest(path).await?;
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let report = client.push_package(&name, file, size, Some(&sha256), mode).await;
    report.map_err(|error| Failure::from(error).at(path.display().to_string()))
}

/// SHA-256 and size of a file.
async fn digest(path: &Path) -> Result<(String, u64), Failure> {
    let owned = path.to_owned();
    let read = move || {
        let mut hasher = Hasher::default();
        let mut file = std::fs::File::open(&owned)?;
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(hasher.finish()),
                size => hasher.update(piece.get(..size).unwrap_or_default()),
            }
        }
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other);
    let blob = read.and_then(|read| read).map_err(|error: std::io::Error| Failure::file("read", path, &error))?;
    Ok((blob.sha256.to_string(), blob.size))
}

fn file_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !path.is_file() {
        let failure = Failure::new("file", format!("there is no file {}", path.display()));
        return Err(failure.fix("name a package file; one is made of a folder by: windlass package pack"));
    }
    name.parse::<windlass_packages::name::PackageName>().map(|_| name.clone()).map_err(|error| {
        Failure::new("package-name", error.to_string()).at(path.display().to_string()).fix(error.fix())
    })
}

fn pushed(report: &PushReport) -> String {
    let verb = match report.outcome {
        PushResult::Added => "pushed",
        PushResult::AlreadyThere => "already there",
        PushResult::Replaced => "replaced",
    };
    let package = &report.package;
    format!("{verb}  {} {}  {}", visible(&package.id), visible(&package.version), bytes(package.size))
}
