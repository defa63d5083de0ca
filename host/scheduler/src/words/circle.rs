//! A deadlock in words.

use windlass_model::task::run_node;

use super::named;
use crate::{
    deadlock::{Edge, Node, Why},
    event::RunKey,
    state::State,
};

/// A circle of waits, every edge in words.
pub(crate) fn circle(state: &State, edges: &[Edge]) -> String {
    let mut parts = Vec::new();
    for edge in edges {
        if let (Node::Run(run), Node::Call(request)) = (edge.from, edge.to)
            && request.run == run
        {
            continue;
        }
        let (from, to) = (node(state, edge.from), node(state, edge.to));
        parts.push(match &edge.why {
            Why::Lock { resource, behind: false } => format!("{from} waits for {resource}, held by {to}"),
            Why::Lock { resource, behind: true } => format!("{from} waits for {resource} behind {to}"),
            Why::Tag => format!("{from} waits for the turn of {to} to be over"),
            Why::End => format!("{from} waits for {to} to end"),
            Why::Place => format!("{from} waits for the place in its window that {to} takes"),
            Why::Part => format!("{from} does not end before {to}"),
        });
    }
    format!("deadlock: {}", parts.join("; "))
}

fn node(state: &State, node: Node) -> String {
    let run = |key: RunKey| {
        let task = state.tasks.get(&key.task);
        let node = task.and_then(|task| Some(run_node(&task.step_plan(key.step)?.name, task.machine(key))));
        format!("step {} of {}", node.unwrap_or_default(), named(state, key.task))
    };
    match node {
        Node::Task(id) => named(state, id),
        Node::Step(id, step) => {
            let name = state.tasks.get(&id).and_then(|task| task.step_plan(step)).map_or("", |step| step.name.as_str());
            format!("step {name} of {}", named(state, id))
        }
        Node::Run(key) => run(key),
        Node::Call(request) => run(request.run),
    }
}
