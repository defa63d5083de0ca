//! What `windlass task replay` prints: a run step by step, as its journal has it.

use windlass_model::replay::{ReplayStep, ReplayView};

use crate::text::visible;

/// A replay for people.
pub fn shown(view: &ReplayView) -> String {
    let mut text = format!("run {} · {}", view.run, visible(&view.node));
    if !view.guest.is_empty() {
        text.push_str(&format!("\n{}", visible(&view.guest)));
    }
    text.push('\n');
    for step in &view.steps {
        text.push_str(&format!("\n{}", line(step)));
    }
    if let Some(ending) = &view.ending {
        text.push_str(&format!("\n\n{}", visible(ending)));
    }
    if let Some(fault) = &view.fault {
        text.push_str(&format!("\n\n{}", visible(&fault.to_string())));
    }
    text
}

fn line(step: &ReplayStep) -> String {
    match step {
        ReplayStep::Effect { index, asked, answered } => {
            let index = index.map(|index| index.to_string()).unwrap_or_default();
            let answered = answered.as_deref().unwrap_or("(no answer is recorded)");
            format!("{index:>4}  {} -> {}", visible(asked), visible(answered))
        }
        ReplayStep::Line { level, text } => {
            format!("    | {} {}", format!("{level:?}").to_lowercase(), visible(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_model::{TaskId, replay::ReplayFault, task::LogLevel};

    use super::*;

    fn view(fault: Option<ReplayFault>) -> ReplayView {
        let effect = |index: Option<u64>, asked: &str, answered: Option<&str>| ReplayStep::Effect {
            index,
            asked: asked.to_owned(),
            answered: answered.map(str::to_owned),
        };
        ReplayView {
            run: windlass_model::RunId::script(TaskId(12)),
            node: "nightly/server".to_owned(),
            guest: "script nightly".to_owned(),
            steps: vec![
                effect(None, "variable \"Name\"", Some("\"shop\"")),
                effect(Some(0), "now", Some("1900000000000")),
                ReplayStep::Line { level: LogLevel::Info, text: "begins\u{1b}[31m".to_owned() },
                effect(Some(1), "run sh: \"uptime\"", Some("exit 0, printed \"up 3 days\"")),
                effect(Some(2), "sleep 5000 ms", None),
            ],
            ending: fault.is_none().then(|| "the journal ends here".to_owned()),
            fault,
        }
    }

    #[test]
    fn a_replay_shows_each_effect_and_what_is_wrong() {
        let (recorded, asked) = ("sleep 5000 ms [0a1b2c3d]".to_owned(), "sleep 6000 ms [ffeeddcc]".to_owned());
        insta::assert_snapshot!("good", shown(&view(None)));
        let differs = ReplayFault::Differs { index: 2, recorded, asked };
        insta::assert_snapshot!("differs", shown(&view(Some(differs))));
        let damaged = ReplayFault::Damaged { what: "entry 1 is missing".to_owned() };
        insta::assert_snapshot!("damaged", shown(&view(Some(damaged))));
    }
}
