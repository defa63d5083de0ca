//! Reads the maps of options that host functions take, such as `#{machine: "web1", timeout: "2h"}`.
//!
//! An option that a function does not know is refused: a misspelt filter would otherwise match everything.

use std::time::Duration;

use rhai::{Array, Dynamic, Map, NativeCallContext};
use windlass_effects::Failure;
use windlass_model::nearest;

use crate::{functions::failure, span, state::Fallible};

pub(crate) struct Options<'a, 'c> {
    ctx: &'a NativeCallContext<'c>,
    map: Map,
}

impl<'a, 'c> Options<'a, 'c> {
    /// Takes a map that may hold these keys only.
    pub(crate) fn new(ctx: &'a NativeCallContext<'c>, map: Map, known: &[&'static str]) -> Fallible<Self> {
        let options = Self { ctx, map };
        match options.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(options),
            Some(unknown) => {
                let fix = match nearest(unknown, known.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("it takes {}", known.join(", ")),
                };
                let what: String = unknown.chars().take(40).collect();
                Err(invalid(ctx, format!("{} takes no option {what}", ctx.fn_name()), fix))
            }
        }
    }

    /// An option as it is; none when it is missing or `()`.
    pub(crate) fn take(&mut self, key: &str) -> Option<Dynamic> {
        self.map.remove(key).filter(|value| !value.is_unit())
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &str) -> Fallible<Option<String>> {
        let value = self.take(key);
        value.map(|value| text(self.ctx, key, value)).transpose()
    }

    /// A text that must be there.
    pub(crate) fn need_text(&mut self, key: &str) -> Fallible<String> {
        self.text(key)?.ok_or_else(|| {
            let function = self.ctx.fn_name();
            invalid(self.ctx, format!("{function} needs the option {key}"), format!("write {function}(#{{{key}: …}})"))
        })
    }

    /// A text that is a name of something, in its own type.
    pub(crate) fn name<T>(&mut self, key: &str) -> Fallible<Option<T>>
    where
        T: std::str::FromStr<Err = windlass_model::InvalidName>,
    {
        let text = self.text(key)?;
        text.map(|text| {
            text.parse::<T>()
                .map_err(|error| invalid(self.ctx, error.to_string(), "give the name as Windlass lists it"))
        })
        .transpose()
    }

    /// A text, or a list of texts.
    pub(crate) fn texts(&mut self, key: &str) -> Fallible<Vec<String>> {
        let Some(value) = self.take(key) else {
            return Ok(Vec::new());
        };
        match value.try_cast_result::<Array>() {
            Ok(items) => items.into_iter().map(|item| text(self.ctx, key, item)).collect(),
            Err(value) => Ok(vec![text(self.ctx, key, value)?]),
        }
    }

    /// A map of texts.
    pub(crate) fn pairs(&mut self, key: &str) -> Fallible<Vec<(String, Dynamic)>> {
        let Some(value) = self.take(key) else {
            return Ok(Vec::new());
        };
        let map = value.try_cast_result::<Map>().map_err(|value| wrong(self.ctx, key, "a map", &value))?;
        Ok(map.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&mut self, key: &str) -> Fallible<Option<u64>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match value.as_int().ok().and_then(|n| u64::try_from(n).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(self.ctx, key, "a whole number, 0 or more", &value)),
        }
    }

    /// Yes or no; no when missing.
    pub(crate) fn flag(&mut self, key: &str) -> Fallible<bool> {
        let Some(value) = self.take(key) else {
            return Ok(false);
        };
        value.as_bool().map_err(|_| wrong(self.ctx, key, "true or false", &value))
    }

    /// A span of time.
    pub(crate) fn span(&mut self, key: &str) -> Fallible<Option<Duration>> {
        let value = self.take(key);
        value.map(|value| to_span(self.ctx, value)).transpose()
    }
}

/// A span of time: seconds, or a text such as `"10s"`.
pub(crate) fn to_span(ctx: &NativeCallContext, value: Dynamic) -> Fallible<Duration> {
    let read = if let Ok(whole) = value.as_int() {
        // Beyond 2⁵³ a number is no span anyway.
        #[allow(clippy::cast_precision_loss)]
        span::seconds(whole as f64)
    } else if let Ok(number) = value.as_float() {
        span::seconds(number)
    } else {
        match value.as_immutable_string_ref() {
            Ok(text) => span::parse(&text),
            Err(kind) => Err(format!("a {kind} is no span of time")),
        }
    };
    read.map_err(|why| invalid(ctx, why, "write seconds, or a text such as \"90s\", \"15m\", \"2h\", \"1h30m\""))
}

/// Milliseconds of a span.
pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The failure of a call whose arguments make no sense.
pub(crate) fn invalid(
    ctx: &NativeCallContext,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Box<rhai::EvalAltResult> {
    failure(ctx, Failure::new("invalid", message).fix(fix))
}

fn text(ctx: &NativeCallContext, key: &str, value: Dynamic) -> Fallible<String> {
    value.as_immutable_string_ref().map(|text| text.to_string()).map_err(|_| wrong(ctx, key, "a text", &value))
}

fn wrong(ctx: &NativeCallContext, key: &str, wanted: &str, value: &Dynamic) -> Box<rhai::EvalAltResult> {
    invalid(
        ctx,
        format!("the option {key} of {} is {wanted}, not {}", ctx.fn_name(), value.type_name()),
        format!("give {wanted}"),
    )
}
