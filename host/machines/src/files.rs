//! Files to and from a machine, streamed through `cat`.
//!
//! A file that is put appears whole or not at all: it is written beside its place, its size and SHA-256 are checked
//! there, then it is renamed. Only the login shell, `sh` and a few POSIX programs are needed on the far side.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::connection::Connection;
use crate::error::MachineError;
use crate::link::{Channel, Event, Output};
use crate::runner::quote;

/// Bytes read from a local file at once.
const CHUNK: usize = 128 * 1024;
/// What may be said before and around our own line.
const CHATTER: usize = 64 * 1024;

/// Prints the digest of stdin by whatever the machine has for it; exits 72 when it has nothing.
const DIGEST: &str = "s() { if command -v sha256sum; then sha256sum <\"$1\"; elif command -v shasum; then shasum -a 256 <\"$1\"; \
    elif command -v openssl; then openssl dgst -sha256 -r <\"$1\"; elif command -v busybox; then busybox sha256sum <\"$1\"; \
    else return 72; fi | { read -r a; read -r h b; echo \"$h\"; }; }; ";

/// $1 path, $2 nonce, $3 mode, $4 size, $5 digest, $6 whether to sync.
const PUT: &str = "LC_ALL=C; export LC_ALL; t=$1.partial-$2; d=${1%/*}; \
    e() { rm -f \"$t\"; echo \"$2 E $1\"; exit 1; }; \
    [ -d \"$1\" ] && e folder \"$2\"; \
    case $1 in ?*/*) mkdir -p \"$d\" || e mkdir \"$2\";; esac; \
    [ -n \"$(s /dev/null)\" ] || e digest \"$2\"; \
    (umask 077; exec cat >\"$t\") || e write \"$2\"; \
    n=$(($(wc -c <\"$t\"))); h=$(s \"$t\"); \
    [ \"$n:$h\" = \"$4:$5\" ] || e \"damaged $n $h\" \"$2\"; \
    chmod \"$3\" \"$t\" || e write \"$2\"; \
    if [ \"$6\" = 1 ]; then sync \"$t\" 2>/dev/null || sync; fi; \
    mv -f \"$t\" \"$1\" || e write \"$2\"; echo \"$2 OK\"";

/// $1 path, $2 nonce: the digest, or nothing.
const DIGEST_OF: &str = "[ -e \"$1\" ] || { echo \"$2 E missing\"; exit; }; [ -r \"$1\" ] && [ -f \"$1\" ] || { echo \"$2 E file\"; exit; }; \
    h=$(s \"$1\"); if [ -n \"$h\" ]; then echo \"$2 OK $h\"; else echo \"$2 E digest\"; fi";

/// $1 path, $2 nonce.
const PUT_PLAIN: &str = "LC_ALL=C; export LC_ALL; umask 077; if cat >\"$1\"; then echo \"$2 OK $(($(wc -c <\"$1\")))\"; else rm -f \"$1\"; echo \"$2 E write\"; fi";

/// $1 path, $2 nonce: a line with the size, then the bytes.
const GET: &str = "[ -e \"$1\" ] || { echo \"$2 E missing\"; exit; }; [ -f \"$1\" ] || { echo \"$2 E folder\"; exit; }; \
    [ -r \"$1\" ] || { echo \"$2 E read\"; exit; }; echo \"$2 OK $(($(wc -c <\"$1\")))\"; exec cat \"$1\"";

/// $1 path, $2 nonce.
const EXISTS: &str = "if [ -e \"$1\" ] || [ -h \"$1\" ]; then echo \"$2 OK yes\"; else echo \"$2 OK no\"; fi";

/// What a file is to be on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Where it goes; relative to the user's home. Missing folders are made.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, in lower-case hex.
    pub sha256: String,
    /// Permissions, such as `0o644`.
    pub mode: u32,
    /// Whether it must survive a power cut of the machine right after.
    pub sync: bool,
}

/// Streams a file to the machine; it appears under its name only when complete and correct.
pub(crate) async fn put(
    connection: &Connection,
    file: &FileSpec,
    mut from: impl AsyncRead + Unpin + Send,
) -> Result<(), MachineError> {
    check_path(&file.path)?;
    let nonce = nonce();
    let arguments = [
        file.path.as_str(),
        &nonce,
        &format!("{:o}", file.mode),
        &file.size.to_string(),
        &file.sha256,
        if file.sync { "1" } else { "0" },
    ];
    let Channel { input, output } = connection.exec(&call(&format!("{DIGEST}{PUT}"), &arguments)).await?;
    let reading = tokio::spawn(listen(output, nonce.clone()));
    let mut failed = None;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match from.read_buf(&mut chunk).await {
            Ok(0) => break,
            Ok(_) => {
                if !input.send(chunk.freeze()).await {
                    break;
                }
            }
            Err(e) => {
                failed = Some(e.to_string());
                break;
            }
        }
    }
    drop(input);
    let reply = reading.await.map_err(|e| odd(connection, &e.to_string()))?.ok_or_else(|| connection.dead())?;
    if let Some(reason) = failed {
        return Err(MachineError::Here {
            machine: connection.machine().to_owned(),
            doing: format!("read what goes to {}", file.path),
            reason,
        });
    }
    let mut words = reply.line.split(' ');
    match (words.next(), words.next()) {
        (Some("OK"), _) => Ok(()),
        (Some("E"), Some("damaged")) => {
            let [size, digest] = [words.next().unwrap_or_default(), words.next().unwrap_or_default()];
            Err(MachineError::Damaged {
                machine: connection.machine().to_owned(),
                path: file.path.clone(),
                expected: format!("{} bytes, {}", file.size, file.sha256),
                found: format!("{size} bytes, {digest}"),
            })
        }
        _ => Err(refusal(connection, &file.path, &reply)),
    }
}

/// Writes a small file for the runner: no digest, no rename, the runner only reads it once it was confirmed.
pub(crate) async fn put_plain(connection: &Connection, path: &str, bytes: Bytes) -> Result<(), MachineError> {
    let nonce = nonce();
    let Channel { input, output } = connection.exec(&call(PUT_PLAIN, &[path, &nonce])).await?;
    let reading = tokio::spawn(listen(output, nonce));
    let size = bytes.len();
    let mut bytes = bytes;
    while !bytes.is_empty() && input.send(bytes.split_to(bytes.len().min(CHUNK))).await {}
    drop(input);
    let reply = reading.await.map_err(|e| odd(connection, &e.to_string()))?.ok_or_else(|| connection.dead())?;
    match reply.line.as_str() {
        line if line == format!("OK {size}") => Ok(()),
        // It was killed before it could say anything: as good as a lost link, and done again like one.
        "" if reply.complaint.is_empty() => Err(MachineError::LinkLost {
            machine: connection.machine().to_owned(),
            reason: format!("what should write {path} there ended without a word"),
        }),
        _ => Err(refusal(connection, path, &reply)),
    }
}

/// Streams a file from the machine. Larger than `limit`: refused before a byte is taken.
pub(crate) async fn get(
    connection: &Connection,
    path: &str,
    limit: u64,
    mut to: impl AsyncWrite + Unpin + Send,
) -> Result<u64, MachineError> {
    check_path(path)?;
    let nonce = nonce();
    let Channel { input, mut output } = connection.exec(&call(GET, &[path, &nonce])).await?;
    drop(input);
    let mut head = Head::new(&nonce);
    let mut left: Option<u64> = None;
    let mut size = 0;
    let mut complaint = String::new();
    while let Some(event) = output.next().await {
        let mut bytes = match event {
            Event::Out(bytes) => bytes,
            Event::Err(bytes) => {
                remember(&mut complaint, &bytes);
                continue;
            }
            Event::Exit(_) => {
                return match left {
                    Some(0) => Ok(size),
                    Some(left) => Err(file_error(connection, path, &format!("it ended {left} bytes early"))),
                    None => Err(odd(connection, &complaint)),
                };
            }
        };
        if left.is_none() {
            let Some((line, rest)) = head.push(&bytes).map_err(|reason| odd(connection, &reason))? else {
                continue;
            };
            let reply = Reply { line, complaint: complaint.clone() };
            size = reply
                .line
                .strip_prefix("OK ")
                .and_then(|n| n.parse().ok())
                .ok_or_else(|| refusal(connection, path, &reply))?;
            if size > limit {
                return Err(MachineError::TooLarge {
                    machine: connection.machine().to_owned(),
                    path: path.to_owned(),
                    size,
                    limit,
                });
            }
            left = Some(size);
            bytes = rest;
        }
        if let Some(left) = &mut left {
            // A file that grows meanwhile: what was there at first is what was asked for.
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
            to.write_all(&bytes).await.map_err(|e| MachineError::Here {
                machine: connection.machine().to_owned(),
                doing: format!("keep {path}"),
                reason: e.to_string(),
            })?;
        }
    }
    Err(connection.dead())
}

/// SHA-256 of a file there in lower-case hex; `None` when there is no such file.
pub(crate) async fn digest(connection: &Connection, path: &str) -> Result<Option<String>, MachineError> {
    let reply = ask(connection, &format!("{DIGEST}{DIGEST_OF}"), path).await?;
    match reply.line.split_once(' ') {
        Some(("OK", digest)) => Ok(Some(digest.trim().to_owned())),
        Some(("E", "missing")) => Ok(None),
        _ => Err(refusal(connection, path, &reply)),
    }
}

/// Whether something of that name is there.
pub(crate) async fn exists(connection: &Connection, path: &str) -> Result<bool, MachineError> {
    let reply = ask(connection, EXISTS, path).await?;
    match reply.line.as_str() {
        "OK yes" => Ok(true),
        "OK no" => Ok(false),
        _ => Err(refusal(connection, path, &reply)),
    }
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn ask(connection: &Connection, program: &str, path: &str) -> Result<Reply, MachineError> {
    check_path(path)?;
    let nonce = nonce();
    let Channel { input, output } = connection.exec(&call(program, &[path, &nonce])).await?;
    drop(input);
    listen(output, nonce).await.ok_or_else(|| connection.dead())
}

/// What one of the programs above answered.
struct Reply {
    /// Our line without its nonce; empty when it never came.
    line: String,
    /// The last of what it printed to standard error.
    complaint: String,
}

/// Reads to the end; `None` when the link was lost before.
async fn listen(mut output: Output, nonce: String) -> Option<Reply> {
    let mut head = Head::new(&nonce);
    let mut reply = Reply { line: String::new(), complaint: String::new() };
    loop {
        match output.next().await? {
            Event::Out(bytes) => match head.push(&bytes) {
                Ok(Some((line, _))) => reply.line = line,
                Ok(None) => {}
                Err(reason) => reply.complaint = reason,
            },
            Event::Err(bytes) => remember(&mut reply.complaint, &bytes),
            Event::Exit(_) => return Some(reply),
        }
    }
}

/// Looks for the first line that begins with the nonce, past whatever a login shell prints before.
struct Head {
    nonce: String,
    seen: BytesMut,
}

impl Head {
    fn new(nonce: &str) -> Self {
        Self { nonce: nonce.to_owned(), seen: BytesMut::new() }
    }

    /// The line and the bytes after it, once it is complete.
    fn push(&mut self, bytes: &[u8]) -> Result<Option<(String, Bytes)>, String> {
        self.seen.extend_from_slice(bytes);
        let Some(at) = self.seen.windows(self.nonce.len()).position(|w| w == self.nonce.as_bytes()) else {
            return if self.seen.len() > CHATTER { Err("endless output without an answer".into()) } else { Ok(None) };
        };
        let tail = self.seen.get(at..).unwrap_or_default();
        let Some(length) = tail.iter().position(|b| *b == b'\n') else {
            return Ok(None);
        };
        let mut rest = std::mem::take(&mut self.seen).freeze().slice(at..);
        let line = rest.split_to(length + 1);
        let text = String::from_utf8_lossy(line.get(self.nonce.len()..length).unwrap_or_default()).trim().to_owned();
        Ok(Some((text, rest)))
    }
}

/// A command line for any login shell: one `sh -c` with quoted arguments.
fn call(program: &str, arguments: &[&str]) -> String {
    let mut line = format!("exec sh -c {} windlass", quote(program));
    for argument in arguments {
        line.push(' ');
        line.push_str(&quote(argument));
    }
    line
}

fn nonce() -> String {
    format!("windlass{:016x}", rand::random::<u64>())
}

fn remember(complaint: &mut String, bytes: &[u8]) {
    if complaint.len() < CHATTER {
        complaint.push_str(&String::from_utf8_lossy(bytes));
    }
}

fn check_path(path: &str) -> Result<(), MachineError> {
    let reason = match path {
        "" => "is empty",
        _ if path.contains(['\0', '\n']) => "must be one line",
        _ if path.starts_with('-') => "must not begin with `-`",
        _ if path.ends_with('/') => "must name a file",
        _ => return Ok(()),
    };
    Err(MachineError::Invalid { what: format!("the path {path:?}"), reason: reason.into() })
}

fn refusal(connection: &Connection, path: &str, reply: &Reply) -> MachineError {
    let machine = connection.machine().to_owned();
    let complaint = reply.complaint.trim().lines().last().unwrap_or_default();
    if ["No space left", "Disk quota", "quota exceeded"].iter().any(|text| reply.complaint.contains(text)) {
        return MachineError::DiskFull { machine, path: path.to_owned() };
    }
    let reason = match reply.line.strip_prefix("E ") {
        Some("digest") => {
            return MachineError::MissingTool {
                machine,
                tool: "program for SHA-256 (sha256sum, shasum or openssl)".into(),
            };
        }
        Some("missing") => "there is no such file".to_owned(),
        Some("folder") => "it is a folder or no ordinary file".to_owned(),
        Some("read" | "file") => "it cannot be read".to_owned(),
        Some("mkdir") => format!("its folder cannot be made: {complaint}"),
        Some("write") => format!("it cannot be written: {complaint}"),
        _ if complaint.is_empty() => "no answer".to_owned(),
        _ => complaint.to_owned(),
    };
    file_error(connection, path, &reason)
}

fn file_error(connection: &Connection, path: &str, reason: &str) -> MachineError {
    MachineError::File { machine: connection.machine().to_owned(), path: path.to_owned(), reason: reason.to_owned() }
}

fn odd(connection: &Connection, reason: &str) -> MachineError {
    MachineError::Protocol { machine: connection.machine().to_owned(), reason: reason.to_owned() }
}
