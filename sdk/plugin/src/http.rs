//! HTTP requests, made by the host. Needs the capability `http`.

use std::borrow::Cow;
use std::time::Duration;

use crate::bindings::windlass::http::client as raw;
use crate::clock::millis;
use crate::{Failure, Result, Secret};

/// A request being described.
pub struct Request {
    raw: raw::Request,
    shown: String,
}

impl Request {
    /// A request with any method.
    pub fn new(method: &str, url: &str) -> Self {
        Self { raw: raw::Request::new(method, url), shown: format!("{method} {url}") }
    }

    /// `GET`.
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// `POST`.
    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.raw.header(name, value);
        self
    }

    /// Adds a header whose value is a prefix (such as `Bearer `) and a secret.
    pub fn header_secret(self, name: &str, prefix: &str, value: &Secret) -> Self {
        self.raw.header_secret(name, prefix, &value.raw);
        self
    }

    /// The body to send.
    pub fn body(self, content: impl AsRef<[u8]>) -> Self {
        self.raw.body(content.as_ref());
        self
    }

    /// Gives up after so long; 30 seconds unless set.
    pub fn timeout(self, time: Duration) -> Self {
        self.raw.timeout_ms(millis(time));
        self
    }

    /// How much of the answer's body is kept; 64 KiB unless set.
    pub fn max_body(self, bytes: u32) -> Self {
        self.raw.max_body(bytes);
        self
    }

    /// Declares that the same request may be sent twice without harm.
    pub fn idempotency_key(self, key: &str) -> Self {
        self.raw.idempotency_key(key);
        self
    }

    /// Sends the request and waits for the answer.
    pub fn send(&self) -> Result<Response> {
        let raw = self.raw.send()?;
        Ok(Response {
            status: raw.status,
            headers: raw.headers,
            body: raw.body,
            truncated: raw.truncated,
            request: self.shown.clone(),
        })
    }
}

/// The answer of a server, whatever its status.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, bounded.
    pub body: Vec<u8>,
    /// True if the body was longer, or is not known.
    pub truncated: bool,
    request: String,
}

impl Response {
    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether nobody received it: how the request ended was unknown, and a person took it as done. Then the status is
    /// 200, and nothing is known of headers and body.
    pub fn is_taken_as_done(&self) -> bool {
        self.header("windlass-taken-as-done").is_some()
    }

    /// The response, if its status is 200 to 299.
    pub fn success(self) -> Result<Self> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let message = format!("{} answered with status {}", self.request, self.status);
        Err(Failure::new("http-status", message).with("status", self.status))
    }
}
