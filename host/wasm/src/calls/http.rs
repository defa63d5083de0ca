//! `windlass:http`: requests made by the host.

use wasmtime::component::Resource;
use windlass_effects::{Effect, Failure, HeaderValue, HttpRequest, Outcome};

use super::base::Secret;
use super::{Builder, Calls, MAX_CONTENT, MAX_NAME, Reply, ask, check_name, check_size, check_text, refuse};
use crate::bindings::windlass::http::client;

/// Most headers of a request.
const MAX_HEADERS: usize = 100;
/// Most bytes of a body that are kept unless the guest says otherwise.
const DEFAULT_BODY: u32 = 64 << 10;
/// How long a request may take unless the guest says otherwise, and at most.
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
const MAX_TIMEOUT_MS: u64 = 600_000;

/// A request being built; the first thing wrong with it is told by `send`.
pub struct Request {
    request: HttpRequest,
    /// Bytes that the run counts for this handle.
    kept: usize,
    wrong: Option<Failure>,
}

impl Builder for Request {
    fn kept(&mut self) -> &mut usize {
        &mut self.kept
    }
}

impl Request {
    fn note(&mut self, check: Result<(), Failure>) -> bool {
        match check {
            Ok(()) => true,
            Err(failure) => {
                self.wrong.get_or_insert(failure);
                false
            }
        }
    }

    fn add_header(&mut self, name: String, value: HeaderValue) {
        let ok = self.note(check_header(&name, self.request.headers.len()));
        if ok {
            self.request.headers.push((name, value));
        }
    }
}

impl client::Host for Calls {}

impl client::HostRequest for Calls {
    async fn new(&mut self, method: String, url: String) -> wasmtime::Result<Resource<Request>> {
        let wrong = check_method(&method).and_then(|()| check_url(&url)).err();
        let bytes = method.len() + url.len();
        let request = HttpRequest {
            method,
            url,
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: DEFAULT_TIMEOUT_MS,
            max_body: DEFAULT_BODY,
            idempotency_key: None,
        };
        let kept = 0;
        self.begin(Request { request, kept, wrong }, bytes)
    }

    async fn header(&mut self, request: Resource<Request>, name: String, value: String) -> wasmtime::Result<()> {
        let request = self.grow(&request, name.len() + value.len())?;
        if request.note(check_value(&value)) {
            request.add_header(name, HeaderValue::Text(value));
        }
        Ok(())
    }

    async fn header_secret(
        &mut self,
        request: Resource<Request>,
        name: String,
        prefix: String,
        value: Resource<Secret>,
    ) -> wasmtime::Result<()> {
        let secret = self.table.get(&value)?.handle.clone();
        let request = self.grow(&request, name.len() + prefix.len())?;
        if request.note(check_value(&prefix)) {
            request.add_header(name, HeaderValue::Secret { prefix, secret });
        }
        Ok(())
    }

    async fn body(&mut self, request: Resource<Request>, content: Vec<u8>) -> wasmtime::Result<()> {
        let request = self.grow(&request, content.len())?;
        if request.note(check_size("the body of the request", content.len(), MAX_CONTENT)) {
            request.request.body = content;
        }
        Ok(())
    }

    async fn timeout_ms(&mut self, request: Resource<Request>, ms: u64) -> wasmtime::Result<()> {
        self.table.get_mut(&request)?.request.timeout_ms = ms.clamp(1, MAX_TIMEOUT_MS);
        Ok(())
    }

    async fn max_body(&mut self, request: Resource<Request>, bytes: u32) -> wasmtime::Result<()> {
        let most = u32::try_from(MAX_CONTENT).unwrap_or(u32::MAX);
        self.table.get_mut(&request)?.request.max_body = bytes.min(most);
        Ok(())
    }

    async fn idempotency_key(&mut self, request: Resource<Request>, key: String) -> wasmtime::Result<()> {
        let request = self.grow(&request, key.len())?;
        if request.note(check_name("the idempotency key", &key).and_then(|()| check_value(&key))) {
            request.request.idempotency_key = Some(key);
        }
        Ok(())
    }

    async fn send(&mut self, request: Resource<Request>) -> Reply<client::Response> {
        let Request { request, wrong, .. } = self.table.get(&request)?;
        if let Some(failure) = wrong {
            return refuse(failure.clone());
        }
        let request = request.clone();
        ask!(self, Effect::Http { request }, Outcome::Http(answer) => client::Response {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
            truncated: answer.truncated,
        })
    }

    async fn drop(&mut self, request: Resource<Request>) -> wasmtime::Result<()> {
        self.end(request)
    }
}

fn check_method(method: &str) -> Result<(), Failure> {
    if (1..=20).contains(&method.len()) && method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(Failure::new("invalid", "the method of the request is no word in capitals").fix("use one such as GET or POST"))
}

fn check_url(url: &str) -> Result<(), Failure> {
    check_name("the URL of the request", url)?;
    let known = url.starts_with("http://") || url.starts_with("https://");
    if known && !url.chars().any(|c| c.is_control() || c == ' ') {
        return Ok(());
    }
    Err(Failure::new("invalid", "the URL of the request is not an absolute http or https URL")
        .fix("write it as https://host/path, with spaces as %20"))
}

fn check_header(name: &str, headers: usize) -> Result<(), Failure> {
    if headers >= MAX_HEADERS {
        return Err(Failure::new("too-large", format!("the request has more than {MAX_HEADERS} headers")));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=200).contains(&name.len()) && name.bytes().all(token) {
        return Ok(());
    }
    Err(Failure::new("invalid", "a header of the request has a name that HTTP does not allow"))
}

/// A line break in a value would let a guest write headers of its own choice.
fn check_value(value: &str) -> Result<(), Failure> {
    check_text("a header of the request", value, MAX_NAME)?;
    if value.contains(['\r', '\n']) {
        return Err(Failure::new("invalid", "a header of the request contains a line break").fix("remove it"));
    }
    Ok(())
}
