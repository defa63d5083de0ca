//! Which server is meant, and with which token; and what its errors mean for the exit code.
//!
//! The token of a local server is only ever sent to this machine. Elsewhere a token must be given on purpose.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use windlass_client::Client;
use windlass_model::SecretText;

use crate::{
    cli::Global,
    config::{Env, File, Server, ServerFlags},
    errors::Failure,
    exit::Exit,
};

/// Longest token file.
const MAX_TOKEN: u64 = 4096;

/// A client of the server that is meant.
///
/// # Errors
/// When the configuration is broken, or there is no token.
pub fn client(global: &Global, env: &dyn Env) -> Result<Client, Failure> {
    let target = target(global, env)?;
    Client::new(&target.url, target.token.expose()).map_err(Failure::from)
}

/// A server and the token for it.
struct Target {
    url: String,
    token: SecretText,
}

fn target(global: &Global, env: &dyn Env) -> Result<Target, Failure> {
    let local = || -> Result<Server, Failure> {
        let file = File::find(global.config.as_deref(), env)?;
        Server::resolve(ServerFlags::default(), env, file)
    };
    let url = match global.server.clone().or_else(|| env.var("WINDLASS_URL")) {
        Some(url) => url,
        None => {
            let server = local()?;
            let url = server.local_url();
            if !is_this_machine(&url) {
                return Err(Failure::usage("it is not clear which server is meant")
                    .cause(format!("the configuration names {url}, which is not this machine"))
                    .fix(format!("windlass --server {url} …")));
            }
            url
        }
    };
    let token = if let Some(path) = &global.token_file {
        read_token(path)?
    } else if let Some(token) = env.var("WINDLASS_TOKEN") {
        SecretText::new(token.trim())
    } else if is_this_machine(&url) {
        local_token(&local()?.token_file())?
    } else {
        return Err(no_token(format!("the server {url} wants a token")));
    };
    Ok(Target { url, token })
}

fn local_token(path: &PathBuf) -> Result<SecretText, Failure> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(no_token("the server of this machine has left no token".to_owned())
                .cause(format!("there is no file {}", path.display()))
                .fix("start it with: windlass serve   (or name its folder: WINDLASS_DATA=DIR)"))
        }
        _ => read_token(path),
    }
}

fn no_token(message: String) -> Failure {
    Failure::new("no-token", message)
        .fix("give one: --token-file FILE, or the environment variable WINDLASS_TOKEN")
        .exit(Exit::NotAllowed)
}

fn read_token(path: &Path) -> Result<SecretText, Failure> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
        .map_err(|error| Failure::file("read the token from", path, &error).exit(Exit::NotAllowed))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(no_token(format!("the token file {} is empty", path.display())));
    }
    Ok(SecretText::new(token))
}

/// Whether the address is a loopback one.
fn is_this_machine(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A user part could hide the real host behind a familiar name.
    if authority.contains('@') {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
