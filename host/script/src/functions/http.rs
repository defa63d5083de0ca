//! HTTP requests, made by the host.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, Map, NativeCallContext};
use windlass_effects::{Effect, HeaderValue, HttpRequest, HttpResponse, Outcome};

use super::{answer, basic::Secret, host_fn, text_of};
use crate::{
    engine::MAX_STRING,
    options::{Options, invalid, ms, to_span},
    state::{Fallible, RunState},
    value,
};

/// An answer.
#[derive(Debug, Clone)]
struct Response(Arc<HttpResponse>);

const OPTIONS: [&str; 7] = ["method", "url", "headers", "body", "timeout", "max_body", "idempotency_key"];

pub(super) fn register(engine: &mut Engine, state: &Arc<RunState>) {
    engine
        .register_type_with_name::<Response>("response")
        .register_get("status", |response: &mut Response| i64::from(response.0.status))
        .register_get("ok", |response: &mut Response| (200..300).contains(&response.0.status))
        .register_get("body", |response: &mut Response| text_of(&response.0.body))
        .register_get("truncated", |response: &mut Response| response.0.truncated)
        .register_get("headers", |response: &mut Response| {
            let pairs = response.0.headers.iter();
            pairs.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect::<Map>()
        })
        .register_fn("json", json);
    host_fn!(engine, state, "http", |ctx, options: Map| {
        let request = request(ctx, options)?;
        let answer = state.ask(ctx, Effect::Http { request })?;
        answer!(ctx, answer, Outcome::Http(response) => Response(response.into()))
    });
}

fn request(ctx: &NativeCallContext, options: Map) -> Fallible<HttpRequest> {
    let mut options = Options::new(ctx, options, &OPTIONS)?;
    let url = options.need_text("url")?;
    let method = options.text("method")?.unwrap_or_else(|| "GET".to_owned());
    let mut headers = headers(ctx, options.pairs("headers")?)?;
    let timeout = match options.span("timeout")? {
        Some(span) => span,
        None => to_span(ctx, "30s".into())?,
    };
    let max = u32::try_from(MAX_STRING).unwrap_or(u32::MAX);
    let max_body = options.number("max_body")?;
    Ok(HttpRequest {
        method: method.to_ascii_uppercase(),
        url,
        body: body(ctx, options.take("body"), &mut headers)?,
        headers,
        timeout_ms: ms(timeout),
        max_body: max_body.map_or(max, |bytes| u32::try_from(bytes).unwrap_or(max).min(max)),
        idempotency_key: options.text("idempotency_key")?,
    })
}

fn headers(ctx: &NativeCallContext, pairs: Vec<(String, Dynamic)>) -> Fallible<Vec<(String, HeaderValue)>> {
    let read = |(name, value): (String, Dynamic)| match value.try_cast_result::<Secret>() {
        Ok(Secret { prefix, secret }) => Ok((name, HeaderValue::Secret { prefix, secret })),
        Err(value) if value.is::<Map>() || value.is::<Array>() => {
            Err(invalid(ctx, format!("the header {name} is {}", value.type_name()), "give a text or a secret"))
        }
        Err(value) => Ok((name, HeaderValue::Text(value.to_string()))),
    };
    pairs.into_iter().map(read).collect()
}

/// The body: a text as it is, a map or an array as JSON.
fn body(
    ctx: &NativeCallContext,
    given: Option<Dynamic>,
    headers: &mut Vec<(String, HeaderValue)>,
) -> Fallible<Vec<u8>> {
    let Some(given) = given else {
        return Ok(Vec::new());
    };
    if !given.is::<Map>() && !given.is::<Array>() {
        return Ok(given.to_string().into_bytes());
    }
    let json = value::to_json(&given).map_err(|why| {
        invalid(ctx, format!("the body cannot be sent: {why}"), "send texts, numbers, maps and arrays")
    })?;
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        let json_type = HeaderValue::Text("application/json".to_owned());
        headers.push(("content-type".to_owned(), json_type));
    }
    Ok(json.to_string().into_bytes())
}

/// The body read as JSON.
fn json(ctx: NativeCallContext, response: &mut Response) -> Fallible<Dynamic> {
    let fault = |why: String| {
        let status = response.0.status;
        invalid(
            &ctx,
            format!("the answer (status {status}) is no JSON that can be read: {why}"),
            "look at its body first",
        )
    };
    let value = serde_json::from_slice(&response.0.body).map_err(|error| fault(error.to_string()))?;
    value::to_dynamic(&value).map_err(|why| fault(format!("it {why}")))
}
