//! Packages and plugins: uploads and lists.

use axum::http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use windlass_engine::package_view;
use windlass_model::views::{Items, PackageView, PluginRecord, PushMode, PushReport, PushResult};
use windlass_packages::{
    digest::{DigestError, Sha256},
    name::{NameError, PackageName},
    repository::{Overwrite, PushOptions, PushOutcome},
};

use super::whole;
use crate::{
    fault::Fault,
    input::{Blob, Created, Json, Nothing, Upload, drain, segment},
    operation::Call,
};

/// Which packages.
#[derive(Deserialize, JsonSchema)]
pub struct PackagePath {
    /// Id of the package.
    package: String,
}

/// Name of the uploaded file.
#[derive(Deserialize, JsonSchema)]
pub struct FilePath {
    /// `id.version.ext`, such as `shop-web.1.4.0.tar.gz`.
    package: String,
}

/// How to push.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushQuery {
    /// What to do when the version is there already.
    #[serde(default)]
    if_exists: PushMode,
}

/// Which plugin.
#[derive(Deserialize, JsonSchema)]
pub struct PluginPath {
    /// Its id.
    plugin: String,
}

/// Which version of it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginQuery {
    /// Its version. Left out: the newest.
    version: Option<String>,
}

pub async fn packages(call: Call) -> Result<Json<Items<PackageView>>, Fault> {
    Ok(whole(call.app.engine.packages(None).await?))
}

pub async fn versions(call: Call<PackagePath>) -> Result<Json<Items<PackageView>>, Fault> {
    let id = &call.path.package;
    let found = call.app.engine.packages(Some(id)).await?;
    if found.is_empty() {
        let missing = Fault::new(axum::http::StatusCode::NOT_FOUND, "not-found", format!("there is no package {id}"));
        return Err(missing.fix(format!("windlass package push {id}.<version>.tar.gz")));
    }
    Ok(whole(found))
}

pub async fn push(call: Call<FilePath, PushQuery, Upload>) -> Result<Created<PushReport>, Fault> {
    let Call { app, headers, path, query, body: Upload { mut bytes, length }, .. } = call;
    let taken = async {
        let name: PackageName = path.package.parse().map_err(|error: NameError| {
            Fault::invalid("package-name", error.to_string()).mistake("package", error.to_string()).fix(error.fix())
        })?;
        let options = PushOptions {
            overwrite: overwrite(query.if_exists),
            expected_sha256: digest(&headers)?,
            expected_size: length,
            ..PushOptions::default()
        };
        app.engine.push_package(name, &mut bytes, options).await.map_err(Fault::from)
    };
    let taken = taken.await;
    if taken.as_ref().is_err_and(|fault| !fault.is_stall()) {
        drain(bytes).await;
    }
    let pushed = taken?;
    let outcome = match pushed.outcome {
        PushOutcome::Added => PushResult::Added,
        PushOutcome::AlreadyThere => PushResult::AlreadyThere,
        PushOutcome::Replaced => PushResult::Replaced,
    };
    let package = package_view(pushed.record);
    Ok(Created {
        location: format!("/api/v1/packages/{}", segment(&package.id)),
        value: PushReport { package, outcome },
    })
}

fn overwrite(mode: PushMode) -> Overwrite {
    match mode {
        PushMode::Fail => Overwrite::Fail,
        PushMode::IgnoreSame => Overwrite::IgnoreSame,
        PushMode::Replace => Overwrite::Replace,
    }
}

fn digest(headers: &HeaderMap) -> Result<Option<Sha256>, Fault> {
    let given = headers.get("x-content-sha256").map(|value| value.to_str().unwrap_or_default().parse::<Sha256>());
    given.transpose().map_err(|error: DigestError| {
        Fault::invalid("digest", format!("the header X-Content-SHA256 cannot be taken: {error}"))
            .fix("send what sha256sum prints, or leave it out")
    })
}

pub async fn plugins(call: Call) -> Result<Json<Items<PluginRecord>>, Fault> {
    Ok(whole(call.app.engine.plugins().await?))
}

pub async fn plugin(call: Call<PluginPath, PluginQuery>) -> Result<Json<PluginRecord>, Fault> {
    let (id, wanted) = (&call.path.plugin, call.query.version);
    let installed = call.app.engine.plugins().await?;
    let parts = |record: &PluginRecord| -> Vec<u64> {
        record.manifest.version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    let found = installed
        .into_iter()
        .filter(|record| record.manifest.id == *id)
        .filter(|record| wanted.as_ref().is_none_or(|version| record.manifest.version == *version))
        .max_by_key(parts);
    found.map(Json).ok_or_else(|| {
        let version = wanted.map(|version| format!(" {version}")).unwrap_or_default();
        Fault::new(axum::http::StatusCode::NOT_FOUND, "not-found", format!("there is no plugin {id}{version}"))
            .fix("windlass plugin list")
    })
}

pub async fn install(call: Call<Nothing, Nothing, Blob>) -> Result<Created<PluginRecord>, Fault> {
    let blob = call.body;
    let record = call.app.engine.install_plugin(blob.bytes.clone()).await?;
    Ok(Created { location: format!("/api/v1/plugins/{}", segment(&record.manifest.id)), value: record })
}
