//! What the author of a process can say about the step.

use std::time::Duration;

use windlass_plugin::prelude::*;

const MAX_ATTEMPTS: i64 = 1000;
const MAX_INTERVAL: i64 = 3600;
const MAX_TIMEOUT: i64 = 600;

pub(crate) fn manifest() -> Manifest {
    Manifest::new("http-check", "1.0.0", "Check a URL")
        .description("Asks a URL until it answers with the expected status and text, and fails if it never does. Asked by the server.")
        .input("url", Input::text().title("URL").description("Absolute, http or https.").required())
        .input(
            "method",
            Input::text().title("Method").one_of(&["GET", "HEAD", "POST", "PUT", "OPTIONS"]).default("GET"),
        )
        .input("headers", Input::map().title("Headers").description("Header values by name."))
        .input(
            "bearer_token",
            Input::secret().title("Token").description("Sent as `Authorization: Bearer …`."),
        )
        .input("expect_status", Input::integer().title("Status").description("The status code that is right.").default(200))
        .input(
            "expect_body",
            Input::text().title("Text").description("A text that the first 64 KiB of the answer must contain."),
        )
        .input(
            "timeout_seconds",
            Input::integer().title("Time limit").description("Seconds for one attempt, at most 600.").default(60),
        )
        .input(
            "attempts",
            Input::integer().title("Attempts").description("How often it is asked at most, 1 to 1000.").default(10),
        )
        .input(
            "interval_seconds",
            Input::integer().title("Interval").description("Seconds between two attempts, at most 3600.").default(3),
        )
        .output("Status", "The status code of the answer.")
        .capability(Capability::Http)
        // A name of its own: looking at a URL disturbs nobody, so the machine is not locked for it.
        .shared_lock("url:{url}")
        .runs_anywhere()
}

/// The inputs of one run, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub url: String,
    pub method: String,
    pub headers: Vec<(String, String)>,
    pub expect_status: i64,
    pub expect_body: Option<String>,
    pub timeout: Duration,
    pub attempts: u64,
    pub interval: Duration,
}

impl Settings {
    pub(crate) fn read(inputs: &Inputs) -> Result<Self> {
        let number = |name: &str, least, most| between(name, inputs.parse(name)?, least, most);
        Ok(Self {
            url: url(&inputs.text("url")?)?,
            method: inputs.text("method")?,
            headers: headers(&inputs.json("headers")?)?,
            expect_status: inputs.parse("expect_status")?,
            expect_body: inputs.non_empty("expect_body")?,
            timeout: Duration::from_secs(number("timeout_seconds", 1, MAX_TIMEOUT)?),
            attempts: number("attempts", 1, MAX_ATTEMPTS)?,
            interval: Duration::from_secs(number("interval_seconds", 0, MAX_INTERVAL)?),
        })
    }
}

/// Looks at the inputs as written, where templates still stand for unknown text.
pub(crate) fn validate(inputs: &Value) -> Vec<Failure> {
    let mut problems = Vec::new();
    if let Some(text) = inputs.get("url").and_then(Value::as_str).filter(|text| !text.contains("#{")) {
        problems.extend(url(text).err());
    }
    problems.extend(headers(inputs.get("headers").unwrap_or(&Value::Null)).err());
    for (name, least, most) in [
        ("expect_status", 100, 599),
        ("timeout_seconds", 1, MAX_TIMEOUT),
        ("attempts", 1, MAX_ATTEMPTS),
        ("interval_seconds", 0, MAX_INTERVAL),
    ] {
        let number = inputs.get(name).and_then(Value::as_i64);
        problems.extend(number.and_then(|number| between(name, number, least, most).err()));
    }
    problems
}

fn between(name: &str, number: i64, least: i64, most: i64) -> Result<u64> {
    u64::try_from(number).ok().filter(|_| (least..=most).contains(&number)).ok_or_else(|| {
        let message = format!("`{name}` is {number}; write {least} to {most}");
        Failure::new("invalid-input", message).with("input", name)
    })
}

fn url(text: &str) -> Result<String> {
    let text = text.trim();
    let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(text.to_owned()),
        _ => {
            let message =
                format!("`{text}` is no URL that can be asked; write one such as http://#{{Machine.Host}}:8080/health");
            Err(Failure::new("invalid-input", message).with("input", "url"))
        }
    }
}

fn headers(map: &Value) -> Result<Vec<(String, String)>> {
    let wrong = || Failure::new("invalid-input", "`headers` must be texts by name").with("input", "headers");
    match map {
        Value::Null => Ok(Vec::new()),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.as_str().map(str::to_owned).ok_or_else(wrong)?)))
            .collect(),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_absolute_and_names_a_host() {
        for good in ["http://a", "https://a:8080/x?y#z", " http://[::1]/ "] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/x", "ftp://a", "http://", "http:///x"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn validation_names_every_input_that_is_wrong() {
        let problems = validate(&json!({
            "url": "shop", "headers": [], "expect_status": 42, "timeout_seconds": 0, "attempts": 0, "interval_seconds": -1,
        }));
        let names: Vec<_> = problems.iter().map(|problem| problem.attributes[0].1.clone()).collect();
        assert_eq!(names, ["url", "headers", "expect_status", "timeout_seconds", "attempts", "interval_seconds"]);
        assert!(validate(&json!({"url": "#{Url}", "expect_status": 204})).is_empty());
    }
}
