//! A GET request, as small as can be: what the demo asks of its own servers needs no HTTP library.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How much of one is read.
const MOST: u64 = 64 * 1024;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// Asks a server on loopback.
pub async fn get(port: u16, path: &str) -> Result<Answer, String> {
    let asked = tokio::time::timeout(WITHIN, ask(port, path)).await;
    let text =
        asked.map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))?.map_err(|error| error.to_string())?;
    understand(&text).ok_or_else(|| format!("that is no HTTP answer: {:?}", text.chars().take(80).collect::<String>()))
}

async fn ask(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(MOST).read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn understand(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        let answer = understand("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n");
        assert_eq!(answer, Some(Answer { status: 404, body: "no\n".to_owned() }));
        for broken in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 many\r\n\r\n"] {
            assert_eq!(understand(broken), None, "{broken:?}");
        }
    }
}
