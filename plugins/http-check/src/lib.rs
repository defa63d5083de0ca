//! Step `http-check`: asks a URL until it answers as expected, a bounded number of times. What counts as expected is
//! decided in `check`, over anything that can ask and wait.

mod check;
mod settings;

use std::time::Duration;

use windlass_plugin::prelude::*;

use check::{Answer, Server, check};
use settings::Settings;

struct HttpCheck;

impl Step for HttpCheck {
    fn manifest() -> Manifest {
        settings::manifest()
    }

    fn run(_target: &Target, inputs: &Inputs) -> Result<()> {
        let server = OverHost { settings: Settings::read(inputs)?, token: inputs.optional_secret("bearer_token")? };
        let answer = check(&server, &server.settings)?;
        if answer.taken_as_done { Ok(()) } else { control::output("Status", &answer.status.to_string()) }
    }

    fn validate(inputs: &Value) -> Vec<Failure> {
        settings::validate(inputs)
    }
}

/// The server behind the URL, asked by the host.
struct OverHost {
    settings: Settings,
    token: Option<Secret>,
}

impl Server for OverHost {
    fn ask(&self) -> Result<Answer> {
        let settings = &self.settings;
        let mut request = http::Request::new(&settings.method, &settings.url).timeout(settings.timeout);
        for (name, value) in &settings.headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header_secret("authorization", "Bearer ", token);
        }
        let response = request.send()?;
        Ok(Answer {
            status: response.status,
            body: response.text().into_owned(),
            taken_as_done: response.is_taken_as_done(),
        })
    }

    fn wait(&self, time: Duration) -> Result<()> {
        clock::sleep(time)
    }

    fn say(&self, line: &str) {
        info!("{line}");
    }
}

export_step!(HttpCheck);
