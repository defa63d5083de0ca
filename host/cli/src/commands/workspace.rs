//! Reading a folder of files for `apply` and `validate`: the same checks, the same words.

use std::path::Path;

use windlass_client::Client;
use windlass_model::{
    PackageId,
    diagnostic::Diagnostic,
    files::{Folder, Loaded, gather, read},
    validate::Known,
};

use crate::{
    cli::Format,
    errors::{Failure, diagnostics_text},
    output::Ui,
};

/// Reads the files of a folder, as yet without looking at what names mean.
///
/// # Errors
/// When there is no such folder.
pub fn load(folder: &Path) -> Result<(Folder, Loaded), Failure> {
    if !folder.is_dir() {
        let message = format!("{} is no folder", folder.display());
        return Err(
            Failure::new("no-folder", message).fix("name the folder that holds project.yaml or environments.yaml")
        );
    }
    let source = Folder::new(folder);
    let (files, mut diagnostics) = gather(&source);
    let mut loaded = read(&files);
    diagnostics.append(&mut loaded.diagnostics);
    loaded.diagnostics = diagnostics;
    Ok((source, loaded))
}

/// What the server knows that files may name.
///
/// # Errors
/// When it refuses or cannot be reached.
pub async fn known(client: &Client) -> Result<Known, Failure> {
    let (plugins, packages) = (client.plugins().await?, client.packages().await?);
    let (environments, machines) = (client.environments().await?, client.machines().await?);
    Ok(Known {
        manifests: Some(plugins.into_iter().map(|plugin| plugin.manifest).collect()),
        packages: Some(packages.into_iter().filter_map(|package| PackageId::new(package.id).ok()).collect()),
        environments: Some(environments.into_iter().map(|environment| environment.name).collect()),
        machines: Some(machines),
    })
}

/// Prints warnings on standard error; errors become the command's failure.
///
/// # Errors
/// When there are errors among them.
pub fn report(ui: &Ui, diagnostics: Vec<Diagnostic>) -> Result<(), Failure> {
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(Failure::files(diagnostics));
    }
    match ui.format {
        _ if diagnostics.is_empty() => {}
        Format::Json | Format::Jsonl => ui.say(&serde_json::json!({ "warnings": diagnostics }).to_string())?,
        Format::Table | Format::Id => ui.say(diagnostics_text(&diagnostics).trim_end())?,
    }
    Ok(())
}
