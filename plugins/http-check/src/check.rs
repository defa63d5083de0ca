//! Asking until the answer is right or the attempts are used up.

use std::time::Duration;

use windlass_plugin::{Failure, Result};

use crate::settings::Settings;

/// How much of an answer is shown when it is wrong.
const EXCERPT: usize = 300;

/// What a check needs of the world. In production this is the host; in tests a list of answers.
pub(crate) trait Server {
    fn ask(&self) -> Result<Answer>;
    fn wait(&self, time: Duration) -> Result<()>;
    fn say(&self, line: &str);
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
    /// Nobody received it: a person took the request as done.
    pub taken_as_done: bool,
}

/// The first answer that is as expected, or a failure that tells the last one.
pub(crate) fn check(server: &impl Server, settings: &Settings) -> Result<Answer> {
    let mut attempt = 1;
    loop {
        let problem = match server.ask() {
            // Asked again, it would be done twice.
            Ok(answer) if answer.taken_as_done => return taken_as_done(server, answer, settings),
            Ok(answer) => match wrong(&answer, settings) {
                None => {
                    server.say(&format!("{} answered with status {}", settings.url, answer.status));
                    return Ok(answer);
                }
                Some(problem) => problem,
            },
            // Asking again changes nothing about a missing right or a request that cannot be made.
            Err(failure) if failure.is_cancelled() || ["denied", "invalid"].contains(&failure.code.as_str()) => {
                return Err(failure);
            }
            Err(failure) => failure.message,
        };
        if attempt == settings.attempts {
            let times = if attempt == 1 { "once".to_owned() } else { format!("{attempt} times") };
            let message = format!("{} {} was asked {times}; the last time {problem}", settings.method, settings.url);
            return Err(Failure::new("http-check", message).retryable());
        }
        server.say(&format!("attempt {attempt} of {}: {problem}", settings.attempts));
        server.wait(settings.interval)?;
        attempt += 1;
    }
}

/// A person's word is enough for a check of the status, and cannot tell what is in a body.
fn taken_as_done(server: &impl Server, answer: Answer, settings: &Settings) -> Result<Answer> {
    let asked = format!("{} {} was taken as done by a person", settings.method, settings.url);
    match &settings.expect_body {
        None => {
            server.say(&format!("{asked}; its answer is not known"));
            Ok(answer)
        }
        Some(expected) => {
            let message = format!("{asked}, and nobody can know whether it answered with `{expected}`");
            Err(Failure::new("answer-not-known", message))
        }
    }
}

/// What is wrong with an answer.
fn wrong(answer: &Answer, settings: &Settings) -> Option<String> {
    let status = answer.status;
    if i64::from(status) != settings.expect_status {
        let expected = settings.expect_status;
        return Some(format!("it answered with status {status} instead of {expected}: {}", excerpt(&answer.body)));
    }
    let expected = settings.expect_body.as_ref().filter(|text| !answer.body.contains(text.as_str()))?;
    Some(format!("it answered with status {status}, but not with `{expected}`: {}", excerpt(&answer.body)))
}

/// The beginning of a body on one line.
fn excerpt(body: &str) -> String {
    let line = body.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT) {
        _ if line.is_empty() => "(nothing)".to_owned(),
        None => line,
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    #[derive(Default)]
    struct Script {
        answers: RefCell<VecDeque<Result<Answer>>>,
        said: RefCell<Vec<String>>,
        waited: RefCell<Vec<Duration>>,
        cancelled: bool,
    }

    impl Script {
        fn of(answers: Vec<Result<Answer>>) -> Self {
            Self { answers: RefCell::new(answers.into()), ..Self::default() }
        }
    }

    impl Server for Script {
        fn ask(&self) -> Result<Answer> {
            self.answers.borrow_mut().pop_front().expect("asked once more than expected")
        }

        fn wait(&self, time: Duration) -> Result<()> {
            self.waited.borrow_mut().push(time);
            if self.cancelled { Err(Failure::new("cancelled", "the deployment is being cancelled")) } else { Ok(()) }
        }

        fn say(&self, line: &str) {
            self.said.borrow_mut().push(line.to_owned());
        }
    }

    fn settings(attempts: u64) -> Settings {
        Settings {
            url: "http://shop/health".into(),
            method: "GET".into(),
            headers: Vec::new(),
            expect_status: 200,
            expect_body: Some("1.1.0".into()),
            timeout: Duration::from_secs(60),
            attempts,
            interval: Duration::from_secs(3),
        }
    }

    fn answer(status: u16, body: &str) -> Result<Answer> {
        Ok(Answer { status, body: body.into(), taken_as_done: false })
    }

    #[test]
    fn what_a_person_took_as_done_is_not_asked_for_again() {
        let taken = || Ok(Answer { status: 200, body: String::new(), taken_as_done: true });
        let server = Script::of(vec![taken()]);
        let failure = check(&server, &settings(10)).unwrap_err();
        let message = "GET http://shop/health was taken as done by a person, and nobody can know whether it answered with `1.1.0`";
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("answer-not-known", message));

        // Whatever status is expected.
        let settings = Settings { expect_status: 201, expect_body: None, ..settings(10) };
        let server = Script::of(vec![taken()]);
        assert!(check(&server, &settings).unwrap().taken_as_done);
        let said = ["GET http://shop/health was taken as done by a person; its answer is not known"];
        assert_eq!(*server.said.borrow(), said);
    }

    fn refused() -> Result<Answer> {
        Err(Failure::new("connect", "shop refused the connection"))
    }

    #[test]
    fn it_asks_until_status_and_text_are_right() {
        let server =
            Script::of(vec![refused(), answer(503, "starting"), answer(200, "1.0.0"), answer(200, "version 1.1.0")]);
        assert_eq!(check(&server, &settings(10)).unwrap().body, "version 1.1.0");
        assert_eq!(
            *server.said.borrow(),
            [
                "attempt 1 of 10: shop refused the connection",
                "attempt 2 of 10: it answered with status 503 instead of 200: starting",
                "attempt 3 of 10: it answered with status 200, but not with `1.1.0`: 1.0.0",
                "http://shop/health answered with status 200",
            ]
        );
        assert_eq!(*server.waited.borrow(), [Duration::from_secs(3); 3]);
    }

    #[test]
    fn the_last_answer_is_told_when_the_attempts_are_used_up() {
        let page = format!("<html>\n  <h1>Bad\tGateway</h1> {}", "ä".repeat(400));
        let server = Script::of(vec![refused(), answer(502, &page)]);
        let failure = check(&server, &settings(2)).unwrap_err();
        let start = "GET http://shop/health was asked 2 times; the last time it answered with status 502 instead of 200: \
                     <html> <h1>Bad Gateway</h1> ää";
        assert!(failure.message.starts_with(start), "{failure}");
        assert!(failure.message.ends_with("ä…"), "{failure}");
        assert!(failure.retryable);
        let once = check(&Script::of(vec![answer(200, "")]), &settings(1)).unwrap_err();
        assert!(once.message.contains("was asked once; "), "{once}");
        assert!(once.message.ends_with("(nothing)"), "{once}");
    }

    #[test]
    fn what_asking_again_cannot_change_ends_it_at_once() {
        for code in ["denied", "invalid", "cancelled"] {
            let server = Script::of(vec![Err(Failure::new(code, "no"))]);
            assert_eq!(check(&server, &settings(10)).unwrap_err().code, code);
        }
        let cancelled = Script { cancelled: true, ..Script::of(vec![refused()]) };
        assert!(check(&cancelled, &settings(10)).unwrap_err().is_cancelled());
    }
}
