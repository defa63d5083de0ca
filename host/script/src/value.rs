//! Values between JSON and Rhai.

use rhai::{Array, Dynamic, Map};
use serde_json::Value;

/// Deepest nesting of a value that comes in.
const MAX_DEPTH: usize = 32;

/// A JSON value as the script sees it.
///
/// # Errors
/// A fragment that fits after the value's name.
pub(crate) fn to_dynamic(value: &Value) -> Result<Dynamic, String> {
    deep(value, 0)
}

fn deep(value: &Value, depth: usize) -> Result<Dynamic, String> {
    if depth > MAX_DEPTH {
        return Err(format!("is nested deeper than {MAX_DEPTH}"));
    }
    Ok(match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            let items: Result<Array, _> = items.iter().map(|item| deep(item, depth + 1)).collect();
            items?.into()
        }
        Value::Object(fields) => {
            let fields: Result<Map, String> =
                fields.iter().map(|(name, field)| Ok((name.as_str().into(), deep(field, depth + 1)?))).collect();
            fields?.into()
        }
    })
}

/// A value of a script as JSON.
///
/// # Errors
/// A fragment that names the type that has no JSON.
pub(crate) fn to_json(value: &Dynamic) -> Result<Value, String> {
    rhai::serde::from_dynamic(value).map_err(|_| format!("a {} has no JSON form", value.type_name()))
}

/// A value for a sentence: texts without quotes.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
