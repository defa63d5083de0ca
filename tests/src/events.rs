//! The server's stream of events, read as any other program would: plain HTTP.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

use crate::{server::Server, shop::Anything};

/// How long the next event may take.
const NEXT: Duration = Duration::from_secs(60);

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    response: Response,
    text: String,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u64,
    /// What it tells.
    pub data: Value,
}

impl Events {
    /// The stream at a path, such as `/api/v1/events`, from the event after `after` on if it is given.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn follow(server: &Server, path: &str, after: Option<u64>) -> Anything<Self> {
        // The typed client installs the cryptography that every client of this process needs.
        server.client()?;
        let mut request = reqwest::Client::new().get(format!("{}{path}", server.url())).bearer_auth(server.token());
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await?.error_for_status()?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if kind != Some("text/event-stream") {
            return Err(format!("{path} answers {kind:?}").into());
        }
        Ok(Self { response, text: String::new() })
    }

    /// The next event that is no comment; none at the end.
    ///
    /// # Errors
    /// When none comes in time, or it is no event.
    pub async fn next(&mut self) -> Anything<Option<Event>> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let event = field("event:").zip(field("data:")).map(|(name, data)| {
                    let id = field("id:").and_then(|id| id.parse().ok()).unwrap_or(0);
                    serde_json::from_str(data).map(|data| Event { name: name.to_owned(), id, data })
                });
                self.text = rest.to_owned();
                if let Some(event) = event {
                    return Ok(Some(event?));
                }
            }
            let Some(piece) = tokio::time::timeout(NEXT, self.response.chunk()).await?? else { return Ok(None) };
            self.text.push_str(std::str::from_utf8(&piece)?);
        }
    }
}
