//! Bringing a package's bytes to a machine, in the form that suits the way there.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;
use windlass_effects::{CancelToken, Failure};
use windlass_machines::{Endpoint, FileSpec, Machine};
use windlass_model::Release;
use windlass_packages::{
    digest::Sha256,
    payload::{Form, PayloadSource},
    repository::{PackageRecord, RepositoryError},
    transfer::{LinkError, Progress as TransferProgress, Receiver},
};
use windlass_store::failpoint;

use crate::{
    error::{EngineError, ErrorKind},
    machines::place,
    services::Services,
};

/// Unpacked once here, a payload costs many machines on a fast network less than to unpack it each; on a slow one
/// its bytes count more.
pub fn form(endpoint: &Endpoint) -> Form {
    match endpoint {
        Endpoint::Local(_) => Form::PlainTar,
        Endpoint::Ssh(ssh) if is_loopback(&ssh.host) => Form::PlainTar,
        Endpoint::Ssh(_) => Form::Gzip,
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The package whose plain payload has this digest, which is how a release pins it.
///
/// # Errors
/// When the feed no longer has it.
pub async fn pinned(services: &Services, digest: &Sha256) -> Result<PackageRecord, EngineError> {
    services.feed.by_payload(digest).await?.ok_or_else(|| {
        EngineError::not_found("package with the digest", digest)
            .fix("push the package again, then create a new release")
    })
}

/// Unpacks the packages of a new release once, so that no deployment waits for it.
pub fn warm(services: &Arc<Services>, release: &Release) {
    let digests: Vec<Sha256> = release.packages.values().filter_map(|pinned| pinned.sha256.parse().ok()).collect();
    let services = Arc::clone(services);
    tokio::spawn(async move {
        for digest in digests {
            if let Err(error) = source(&services, &digest, Form::PlainTar).await {
                tracing::warn!(%digest, %error, "a package could not be unpacked ahead of time");
            }
        }
    });
}

/// A payload of a package that a release pinned.
///
/// # Errors
/// When the feed no longer has it.
pub async fn source(services: &Services, digest: &Sha256, form: Form) -> Result<PayloadSource, EngineError> {
    let record = pinned(services, digest).await?;
    services.packages.open_payload(&record, form).await.map_err(|error| lost(&record, &error))
}

/// What is told of a package whose bytes cannot be had any more.
fn lost(record: &PackageRecord, error: &RepositoryError) -> EngineError {
    let fix = match error {
        RepositoryError::Damaged { .. } => {
            format!(
                "windlass package push {} --if-exists replace, with the very same file, and deploy again",
                record.name
            )
        }
        other => other.fix(),
    };
    EngineError::new(ErrorKind::Unavailable, "package-lost", error.to_string()).fix(fix)
}

/// Where a package lies on a machine, bringing it there first if need be.
///
/// # Errors
/// When the machine cannot take it.
pub async fn stage(
    services: &Arc<Services>,
    machine: &Arc<Machine>,
    digest: &Sha256,
    cancel: &CancelToken,
) -> Result<String, Failure> {
    let work = async {
        let io = |error: EngineError| Failure::new("io", error.message).fix(error.fix.unwrap_or_default());
        let source = source(services, digest, form(machine.endpoint())).await.map_err(io)?;
        let mailbox = Mailbox::new(Arc::clone(services), Arc::clone(machine));
        let refused = |error: LinkError| Failure::new("io", error.reason);
        let path = mailbox.path(&source).await.map_err(refused)?;
        if !mailbox.has(&source).await.map_err(refused)? {
            mailbox.put(&source, None).await.map_err(refused)?;
        }
        Ok(path)
    };
    tokio::select! {
        staged = work => staged,
        () = cancel.cancelled() => Err(Failure::cancelled()),
    }
}

/// One machine's side of a transfer.
pub struct Mailbox {
    services: Arc<Services>,
    machine: Arc<Machine>,
}

impl Mailbox {
    /// The side of that machine.
    #[must_use]
    pub fn new(services: Arc<Services>, machine: Arc<Machine>) -> Self {
        Self { services, machine }
    }

    async fn path(&self, source: &PayloadSource) -> Result<String, LinkError> {
        let home = self.machine.home().await.map_err(link)?;
        Ok(format!("{home}/{}", source.cache_path()))
    }

    async fn put(&self, source: &PayloadSource, progress: Option<&TransferProgress>) -> Result<(), LinkError> {
        let blob = source.blob();
        let file = source.open().await.map_err(|error| LinkError {
            reason: format!("the server cannot read its copy of the package: {error}"),
            retryable: false,
        })?;
        let spec = FileSpec {
            path: self.path(source).await?,
            size: blob.size,
            sha256: blob.sha256.to_string(),
            mode: 0o600,
            sync: false,
        };
        let begin = std::time::Instant::now();
        let counted = Counted { file, progress, sent: 0, size: blob.size };
        self.machine.put(&spec, counted).await.map_err(link)?;
        failpoint::pass(|| "transfer/sent".to_owned());
        self.services.rates.note(&place(self.machine.endpoint()), blob.size, begin.elapsed());
        self.remember(source);
        Ok(())
    }

    fn key(&self, source: &PayloadSource) -> (String, String) {
        (place(self.machine.endpoint()), source.blob().sha256.to_string())
    }

    fn remember(&self, source: &PayloadSource) {
        self.services.held.lock().unwrap_or_else(PoisonError::into_inner).insert(self.key(source));
    }
}

#[async_trait]
impl Receiver for Mailbox {
    async fn has(&self, source: &PayloadSource) -> Result<bool, LinkError> {
        let path = self.path(source).await?;
        let known = self.services.held.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.key(source));
        // What this server saw arrive is not read again as a whole: that it is still there is enough.
        if known {
            return self.machine.exists(&path).await.map_err(link);
        }
        let has = self.machine.has_digest(&path, &source.blob().sha256.to_string()).await.map_err(link)?;
        if has {
            self.remember(source);
        }
        Ok(has)
    }

    async fn receive(
        &self,
        source: &PayloadSource,
        progress: &TransferProgress,
        cancel: &CancellationToken,
    ) -> Result<(), LinkError> {
        tokio::select! {
            sent = self.put(source, Some(progress)) => sent,
            () = cancel.cancelled() => Err(LinkError { reason: "the transfer was stopped".to_owned(), retryable: false }),
        }
    }
}

fn link(error: windlass_machines::MachineError) -> LinkError {
    LinkError { reason: format!("{error}; {}", error.fix()), retryable: error.is_retryable() }
}

/// A reader that reports what passes.
struct Counted<'p> {
    file: tokio::fs::File,
    progress: Option<&'p TransferProgress>,
    sent: u64,
    size: u64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = std::pin::Pin::new(&mut self.file).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        if let Some(progress) = self.progress {
            progress.advance(read);
        }
        if self.sent < self.size / 2 && self.sent + read >= self.size / 2 {
            failpoint::pass(|| "transfer/half".to_owned());
        }
        self.sent += read;
        polled
    }
}
