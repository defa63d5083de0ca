//! Effects of which nobody can know how they ended: a person is asked, and the run waits for the answer.

use windlass_effects::{Call, CancelToken, Decided, DecidedAs, Effect, EffectClass, Failure, Verdict};
use windlass_model::task::LogLevel;
use windlass_scheduler::{Answer, Ask, Choice, WaitOn};

use super::{performer::RunPerformer, waits};

/// Marks what the log holds about a person's decision, beside what it holds about effects by their index.
const WORD: u64 = 1 << 63;

/// What a person decided, or that one is asked.
pub(super) async fn ask(run: &RunPerformer, call: Call<'_>, failure: &Failure, cancel: &CancelToken) -> Verdict {
    if let Some(answer) = run.resumed(call.index).and_then(|resume| resume.answer) {
        let decided = decided(answer);
        // Of its own among what is said about the effect: each word is told once, whatever else was.
        let word = WORD | call.index << 16 | u64::from(call.tries & 0xffff);
        run.log.note(word, LogLevel::Warning, &run.masker.mask(&decided.in_words(call.effect)));
        return Verdict::Decided(decided);
    }
    // Whoever is being stopped asks nobody.
    if cancel.is_cancelled() {
        return Verdict::Nobody;
    }
    let mut choices = Vec::new();
    if call.effect.can_be_retried() {
        choices.push(Choice::Retry);
    }
    if call.effect.taken_as_done(call.index).is_some() {
        choices.push(Choice::Done);
    }
    choices.push(Choice::Fail);
    // Whoever is asked is shown the last lines.
    run.log.flush().await;
    let text = question(run, call, failure);
    let ask = Ask { text, choices, responsible: Vec::new(), expiry: None, keeps_tag: true };
    match waits::suspend(run, WaitOn::Person(Box::new(ask)), "a person decides".to_owned(), cancel).await {
        windlass_effects::Attempt::Suspended(until) => Verdict::Suspended(until),
        windlass_effects::Attempt::Answered(_) => Verdict::Nobody,
    }
}

fn decided(answer: Answer) -> Decided {
    let choice = match answer.choice {
        Choice::Retry => DecidedAs::Retry,
        Choice::Done => DecidedAs::Done,
        _ => DecidedAs::Fail,
    };
    Decided { choice, by: answer.by, notes: answer.notes }
}

/// What is known of it, in one paragraph: what was begun, under which ticket, and why nobody can know.
fn question(run: &RunPerformer, call: Call<'_>, failure: &Failure) -> String {
    let what = run.masker.mask(&call.effect.in_words()).into_owned();
    let ticket = match call.effect.class() {
        EffectClass::Ticketed => run.ticket(ticket_index(call)).ok().map(|ticket| format!("under the ticket {ticket}")),
        _ => None,
    };
    let what = (!failure.message.contains(&what)).then_some(what);
    let known: Vec<_> = what.into_iter().chain(ticket).collect();
    let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    format!("{} has an unknown outcome: {}{known}", run.node, failure.message)
}

/// The index whose ticket an effect uses.
fn ticket_index(call: Call<'_>) -> u64 {
    match call.effect {
        Effect::Wait { process, .. } | Effect::Kill { process, .. } | Effect::ReadOutput { process, .. } => *process,
        _ => call.index,
    }
}
