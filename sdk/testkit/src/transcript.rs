//! What a run did, in order, with a stable text form.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde_json::Value;
use windlass_effects::{Answer, CancelToken, Effect, Line, Outcome, Stop, Waist};

/// Most lines that are kept.
const MAX_LINES: usize = 50_000;

/// Effects with their answers, log lines and progress of one run, a line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript(pub(crate) Vec<String>);

impl Transcript {
    /// Its lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// Whether one of its lines holds this text.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        self.0.iter().any(|line| line.contains(text))
    }

    /// The first of these texts that no line holds after the line of the text before it.
    #[must_use]
    pub fn first_missing<'t>(&self, texts: &'t [String]) -> Option<&'t str> {
        let mut lines = self.0.iter();
        texts.iter().find(|text| !lines.any(|line| line.contains(text.as_str()))).map(String::as_str)
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Writes down what passes a waist.
pub(crate) struct Recorder {
    inner: Arc<dyn Waist>,
    lines: Mutex<Vec<String>>,
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn Waist>) -> Self {
        Self { inner, lines: Mutex::default() }
    }

    pub(crate) fn transcript(&self) -> Transcript {
        Transcript(self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn write(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MAX_LINES {
            lines.push(line);
        }
    }
}

#[async_trait]
impl Waist for Recorder {
    async fn call(&self, effect: Effect) -> Result<Answer, Stop> {
        let asked = describe(&effect);
        let answer = self.inner.call(effect).await;
        self.write(match &answer {
            Ok(Ok(outcome)) => format!("{asked} -> {}", answered(outcome)),
            Ok(Err(failure)) => {
                format!("{asked} -> failed ({}): {}", failure.code, failure.message)
            }
            Err(stop) => format!("{asked} -> stop: {stop}"),
        });
        answer
    }

    fn log(&self, line: Line) {
        let level = format!("{:?}", line.level).to_lowercase();
        self.write(format!("{level}: {}", line.text));
        self.inner.log(line);
    }

    fn progress(&self, done: u64, total: u64, note: String) {
        self.write(format!("progress: {done}/{total} {note}").trim_end().to_owned());
        self.inner.progress(done, total, note);
    }

    fn cancel(&self) -> &CancelToken {
        self.inner.cancel()
    }
}

/// An effect as `name key=value …`.
fn describe(effect: &Effect) -> String {
    let mut text = effect.name().to_owned();
    if let Ok(Value::Object(fields)) = serde_json::to_value(effect) {
        for (name, value) in fields.iter().filter(|(name, _)| *name != "effect") {
            text += &format!(" {name}={value}");
        }
    }
    text
}

fn answered(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Secret(_) => "a secret".to_owned(),
        Outcome::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Outcome::Exit(exit) => format!(
            "exit {} stdout={:?} stderr={:?}",
            exit.code,
            String::from_utf8_lossy(&exit.stdout),
            String::from_utf8_lossy(&exit.stderr)
        ),
        Outcome::Http(response) => {
            format!("{} {:?}", response.status, String::from_utf8_lossy(&response.body))
        }
        Outcome::Lock(grant) => format!("token {}", grant.token),
        Outcome::Tasks(tasks) => {
            let tasks: Vec<_> = tasks.iter().map(|task| format!("{} {}", task.id, task.state)).collect();
            format!("tasks [{}]", tasks.join(", "))
        }
        Outcome::Flag(flag) => flag.to_string(),
        Outcome::Number(number) => number.to_string(),
        Outcome::Text(text) => format!("{text:?}"),
        Outcome::MaybeText(text) => format!("{text:?}"),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}
