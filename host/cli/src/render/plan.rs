//! A plan as text: what is moved, what starts when and takes how long, what waits for what, and the end.

use std::collections::BTreeMap;

use windlass_model::{
    TaskState,
    scheduling::{PlanView, PlannedDelivery, PlannedRun, PlannedWait},
};

use super::Table;
use crate::text::{bytes, count, duration, visible};

/// Names in one line; of more only the number is told.
const NAMES: usize = 6;
/// Turns of a step that are told one by one; of more only the last start is told.
const TURNS: usize = 4;
/// Lines of a part; of more only the number is told.
const LINES: usize = 40;

/// The text.
#[must_use]
pub fn shown(plan: &PlanView) -> String {
    let mut parts = vec![visible(&plan.title)];
    parts.extend(moved(plan));
    parts.extend(steps(plan));
    parts.extend(waits(&plan.waits));
    if !plan.locks.is_empty() {
        let titles: Vec<_> = plan.locks.iter().map(|lock| visible(&lock.title)).collect();
        parts.push(format!("locks {}", several(&titles, "other resource")));
    }
    for question in &plan.questions {
        let who =
            if question.responsible.is_empty() { "a person".to_owned() } else { question.responsible.join(" or ") };
        let (who, text) = (visible(&who), visible(&question.text));
        let answers = visible(&question.choices.join("|"));
        parts.push(format!("asks {who} after {}: {text} ({answers})", duration(question.in_ms)));
    }
    for deadlock in &plan.deadlocks {
        parts.push(format!("after {}: {}", duration(deadlock.in_ms), visible(&deadlock.text)));
    }
    parts.push(end(plan));
    parts.join("\n")
}

fn end(plan: &PlanView) -> String {
    let Some((ends, state)) = plan.ends_in_ms.zip(plan.state) else {
        return "it would not end by itself".to_owned();
    };
    let own = plan.runs.iter().any(|run| !run.learnt);
    let about = match (plan.guessed, own) {
        (true, true) => ", in part a guess: ~ marks what was never seen before",
        (true, false) => ", in part a guess: what it waits for was never seen before",
        (false, _) => "",
    };
    let error = plan.error.as_ref().map(|error| format!(": {}", visible(error))).unwrap_or_default();
    match state {
        TaskState::Succeeded => format!("over in {}{about}", duration(ends)),
        state => format!("{state} after {}{error}", duration(ends)),
    }
}

/// What goes to which machine.
fn moved(plan: &PlanView) -> Vec<String> {
    if plan.deliveries.is_empty() {
        return Vec::new();
    }
    let (moving, rest): (Vec<_>, Vec<_>) = plan.deliveries.iter().partition(|delivery| !delivery.packages.is_empty());
    let mut parts = Vec::new();
    if !moving.is_empty() {
        let mut table = Table::new(&["packages to", "bytes", "what", "there after"]);
        let alike = alike(&moving);
        for same in alike.iter().take(LINES) {
            let Some(first) = same.first() else { continue };
            let names: Vec<_> = same.iter().map(|delivery| delivery.machine.to_string()).collect();
            let what: Vec<_> =
                first.packages.iter().map(|package| format!("{} {}", package.package, package.version)).collect();
            let there = same.iter().filter_map(|delivery| delivery.there_in_ms).max();
            let guess = if first.learnt { "" } else { "~ " };
            let there = there.map(|at| format!("{guess}{}", duration(at))).unwrap_or_default();
            let each = if same.len() > 1 { " each" } else { "" };
            let size = format!("{}{each}", bytes(first.bytes));
            table.row([several(&names, "other machine"), size, several(&what, "other package"), there]);
        }
        parts.push(table.render());
        let more: usize = alike.iter().skip(LINES).map(Vec::len).sum();
        if more > 0 {
            parts.push(format!("and to {}; -o json tells all", count(more, "other machine")));
        }
    }
    if !rest.is_empty() {
        let names: Vec<_> = rest.iter().map(|delivery| delivery.machine.to_string()).collect();
        let verb = if names.len() == 1 { "holds its" } else { "hold their" };
        parts.push(format!("{} {verb} packages already", several(&names, "other machine")));
    }
    parts
}

/// Machines to which the same goes, in the order of the first.
fn alike<'p>(deliveries: &[&'p PlannedDelivery]) -> Vec<Vec<&'p PlannedDelivery>> {
    let mut groups: Vec<Vec<&PlannedDelivery>> = Vec::new();
    let mut known = BTreeMap::new();
    for delivery in deliveries {
        let what = delivery.packages.iter().map(|package| (&package.package, &package.version, package.bytes));
        let place = *known.entry((what.collect::<Vec<_>>(), delivery.learnt)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(delivery),
            None => groups.push(vec![delivery]),
        }
    }
    groups
}

/// Which step starts where and when, in order.
fn steps(plan: &PlanView) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    if !plan.runs.is_empty() {
        let mut table = Table::new(&["step", "on", "after", "takes"]);
        for turn in turns(&plan.runs) {
            table.row(turn.cells());
        }
        lines.push(table.render());
    }
    for skipped in &plan.skipped {
        lines.push(format!("skips {}: {}", visible(&skipped.step), visible(&skipped.why)));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Runs of a step that start together, or all later turns of a step that has many.
struct Turn<'p> {
    step: &'p str,
    machines: Vec<String>,
    first_ms: u64,
    last_ms: u64,
    takes_ms: Option<u64>,
    learnt: bool,
    /// Turns in it.
    turns: usize,
}

fn turns(runs: &[PlannedRun]) -> Vec<Turn<'_>> {
    let mut turns: Vec<Turn> = Vec::new();
    // For each step: how many turns it had, and where the last one is.
    let mut known: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for run in runs {
        let takes = run.ends_in_ms.map(|ends| ends.saturating_sub(run.starts_in_ms));
        let machine = run.machine.as_ref().map_or_else(|| "the server".to_owned(), ToString::to_string);
        let (had, at) = known.get(run.step.as_str()).copied().unwrap_or((0, usize::MAX));
        match turns.get_mut(at) {
            Some(turn) if turn.last_ms == run.starts_in_ms || had >= TURNS => {
                turn.turns += usize::from(turn.last_ms != run.starts_in_ms);
                turn.last_ms = run.starts_in_ms;
                turn.machines.push(machine);
                turn.takes_ms = turn.takes_ms.zip(takes).map(|(one, other)| one.max(other));
                turn.learnt &= run.learnt;
            }
            _ => {
                known.insert(&run.step, (had + 1, turns.len()));
                turns.push(Turn {
                    step: &run.step,
                    machines: vec![machine],
                    first_ms: run.starts_in_ms,
                    last_ms: run.starts_in_ms,
                    takes_ms: takes,
                    learnt: run.learnt,
                    turns: 1,
                });
            }
        }
    }
    turns
}

impl Turn<'_> {
    fn cells(&self) -> [String; 4] {
        let after = match self.turns {
            1 => duration(self.first_ms),
            more => format!("{} to {}, {more} turns", duration(self.first_ms), duration(self.last_ms)),
        };
        let guess = if self.learnt { "" } else { "~ " };
        let each = if self.machines.len() > 1 && self.takes_ms.is_some() { " each" } else { "" };
        let takes = self.takes_ms.map_or_else(|| "it would not end".to_owned(), duration);
        let on = several(&self.machines, "other machine");
        [self.step.to_owned(), on, after, format!("{guess}{takes}{each}")]
    }
}

/// What waits for what, and how long; what is the same on many machines is told once.
fn waits(waits: &[PlannedWait]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&PlannedWait>)> = Vec::new();
    let mut known = BTreeMap::new();
    for wait in waits {
        let step = wait.node.split_once('/').map_or(wait.node.as_str(), |(step, _)| step);
        let place = *known.entry((step, wait.node.contains('/'), &wait.text)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, group)) => group.push(wait),
            None => groups.push((step, vec![wait])),
        }
    }
    let more = groups.len().saturating_sub(LINES);
    let mut lines: Vec<_> = groups.iter().take(LINES).map(|(step, group)| waiting(step, group)).collect();
    if more > 0 {
        lines.push(format!("and {} more; -o json tells all", count(more, "wait")));
    }
    lines
}

fn waiting(step: &str, group: &[&PlannedWait]) -> String {
    let mut nodes: Vec<_> = group.iter().map(|wait| wait.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let who = match nodes.as_slice() {
        [""] => "it".to_owned(),
        [node] => visible(node),
        many => format!("{} on {}", visible(step), count(many.len(), "machine")),
    };
    let text = group.first().map(|wait| visible(&wait.text)).unwrap_or_default();
    let from = group.iter().map(|wait| wait.from_in_ms).min().unwrap_or_default();
    let longest = group.iter().map(|wait| wait.for_ms).max().unwrap_or_default();
    let upto = if group.iter().any(|wait| wait.for_ms != longest) { "up to " } else { "" };
    let after = if from > 0 { format!("after {}: ", duration(from)) } else { String::new() };
    format!("{after}{who} {text} ({upto}{})", duration(longest))
}

/// Names in one line: all of few, the first of many.
fn several(names: &[String], what: &str) -> String {
    let more = names.len().saturating_sub(NAMES);
    // One more name is as short as its number.
    let shown = if more == 1 { names.len() } else { names.len().min(NAMES) };
    let list = names.iter().take(shown).map(|name| visible(name)).collect::<Vec<_>>().join(", ");
    match names.len() - shown {
        0 => list,
        more => format!("{list} and {}", count(more, what)),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
