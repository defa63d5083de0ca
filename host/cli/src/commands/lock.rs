//! `windlass lock`: who holds what, who waits for it, and taking it away.

use clap::Subcommand;
use windlass_model::{
    TaskId,
    manifest::LockMode,
    scheduling::{BreakRequest, LockUse, LockView},
};

use super::Context;
use crate::{errors::Failure, exit::Exit, text::visible};

/// Look at locks, and break one that nobody will give back
#[derive(Debug, Subcommand)]
pub enum Lock {
    /// List everything that is held or waited for
    #[command(after_help = "Examples:\n  windlass lock list\n  windlass lock list -o json")]
    List,
    /// Show who holds a resource and who waits for it, in order
    #[command(after_help = "Examples:\n  windlass lock show machine:web1\n  windlass lock show global:licence -o json")]
    Show {
        /// Its name, as the list tells it
        resource: String,
    },
    /// Take a resource away from those who hold it
    #[command(
        after_help = "Examples:\n  windlass lock break machine:web1 --reason 'the machine was rebuilt'\n  windlass lock break global:licence --reason 'counted twice' -o json\n\n\
                      Whoever held it may still be at work: break only what you know to be idle. It is kept who broke what and why."
    )]
    Break {
        /// Its name, as the list tells it
        resource: String,
        /// Only from this task
        #[arg(long)]
        task: Option<TaskId>,
        /// Why; it is kept
        #[arg(long)]
        reason: String,
    },
    /// List the locks that were broken: when, by whom and why
    #[command(after_help = "Examples:\n  windlass lock broken\n  windlass lock broken -o json")]
    Broken,
}

fn who(by: &LockUse) -> String {
    let node = if by.node.is_empty() { String::new() } else { format!(" {}", visible(&by.node)) };
    let mode = if by.mode == LockMode::Shared { ", shared" } else { "" };
    let units = by.of.map(|of| format!(", {} of {of}", by.units)).unwrap_or_default();
    format!("task {}{node} ({}{mode}{units})", by.task, by.scope)
}

fn shown(lock: &LockView) -> String {
    let mut text = format!("{} · {}", visible(&lock.resource), visible(&lock.title));
    for holder in &lock.holders {
        let token = holder.token.map(|token| format!(" · token {token}")).unwrap_or_default();
        text.push_str(&format!("\n  held by {}{token}\n          {}", who(holder), visible(&holder.title)));
    }
    for (place, waiter) in lock.queue.iter().enumerate() {
        text.push_str(&format!("\n  {}. waits: {}", place + 1, who(waiter)));
    }
    text
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Lock) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        Lock::List => {
            let found = client.locks().await?;
            let cells = |lock: &LockView| {
                let holders: Vec<_> = lock.holders.iter().map(who).collect();
                vec![visible(&lock.resource).to_string(), holders.join(", "), lock.queue.len().to_string()]
            };
            context.ui.list(&found, |lock| lock.resource.clone(), &["resource", "held by", "waiting"], cells)?;
        }
        Lock::Show { resource } => {
            let found = client.locks().await?.into_iter().find(|lock| lock.resource == resource);
            let found = found.ok_or_else(|| {
                Failure::new("not-found", format!("{resource} is neither held nor waited for"))
                    .fix("windlass lock list")
            })?;
            context.ui.one(&found, |lock| lock.resource.clone(), shown)?;
        }
        Lock::Break { resource, task, reason } => {
            let broken = client.break_lock(&BreakRequest { resource, task, reason }).await?;
            context.ui.one(
                &broken,
                |broken| broken.resource.clone(),
                |broken| {
                    let holders: Vec<_> = broken.holders.iter().map(who).collect();
                    format!("{} was taken away from {}", visible(&broken.resource), holders.join(", "))
                },
            )?;
        }
        Lock::Broken => {
            let found = client.broken_locks().await?;
            context.ui.list(
                &found,
                |broken| broken.resource.clone(),
                &["when", "resource", "by", "reason"],
                |broken| {
                    let when = crate::text::date(broken.at_ms);
                    vec![
                        when,
                        visible(&broken.resource).to_string(),
                        visible(&broken.by).to_string(),
                        visible(&broken.reason).to_string(),
                    ]
                },
            )?;
        }
    }
    Ok(Exit::Done)
}
