//! `process.yaml`: the steps of a project, and what holds for all of them.

use super::{
    decode::maybe_text,
    shape::{Fields, Shape},
    yaml::{Node, Value},
};
use crate::{
    codes::Code,
    diagnostic::Diagnostic,
    manifest::{LockMode, LockNeed, LockScope, With},
    process::{
        Approval, On, OnDeadlock, OnExpiry, OnUnavailable, PluginRef, Priority, Process, Rolling, RunCondition,
        StartTrigger, Step, StepIsolation,
    },
};

/// A year in seconds: longer is a mistake, and the sum with a clock can then not overflow.
const YEAR: u64 = 365 * 24 * 3600;
const ISOLATIONS: &[(&str, StepIsolation)] = &[
    ("declared", StepIsolation::Declared),
    ("exclusive", StepIsolation::Exclusive),
    ("shared", StepIsolation::Shared),
];
const SCOPES: &[(&str, LockScope)] =
    &[("call", LockScope::Call), ("step", LockScope::Step), ("deployment", LockScope::Deployment)];

/// `process.yaml`
pub(super) fn process(shape: &mut Shape<'_>, root: &Node) -> Process {
    const KEYS: &[&str] = &[
        "steps",
        "guided",
        "max_parallelism",
        "max_runs",
        "max_acquisitions",
        "unavailable",
        "on_deadlock",
        "lock_wait_seconds",
        "isolation",
        "priority",
        "supersede",
        "concurrency_tag",
    ];
    if root.value == Value::Null {
        return Process::default();
    }
    let Some(fields) = shape.fields(root, "the file", KEYS) else {
        return Process::default();
    };
    let most = |shape: &mut Shape<'_>, key| {
        let most = maybe_number(shape, &fields, key, 1..=1000).flatten();
        most.and_then(|most| u32::try_from(most).ok())
    };
    let (max_parallelism, max_runs, max_acquisitions) =
        (most(shape, "max_parallelism"), most(shape, "max_runs"), most(shape, "max_acquisitions"));
    let unavailable =
        [("fail", OnUnavailable::Fail), ("skip", OnUnavailable::Skip), ("exclude", OnUnavailable::Exclude)];
    let deadlock = [("fail", OnDeadlock::Fail), ("ask", OnDeadlock::Ask)];
    // The default first, as `choice` wants it.
    let priority = [("normal", Priority::Normal), ("low", Priority::Low), ("high", Priority::High)];
    let guided = shape.flag(&fields, "guided").unwrap_or_default();
    let unavailable = shape.choice(&fields, "unavailable", &unavailable).unwrap_or_default();
    let on_deadlock = shape.choice(&fields, "on_deadlock", &deadlock).unwrap_or_default();
    let lock_wait_seconds = maybe_number(shape, &fields, "lock_wait_seconds", 1..=YEAR).flatten();
    let isolation = shape.choice(&fields, "isolation", ISOLATIONS).unwrap_or_default();
    let priority = shape.choice(&fields, "priority", &priority).unwrap_or_default();
    let supersede = shape.flag(&fields, "supersede").unwrap_or_default();
    let concurrency_tag = maybe_text(shape, &fields, "concurrency_tag").flatten();
    let steps = shape.required(&fields, "steps", "[]").and_then(|node| shape.list(node, "steps", step));
    Process {
        steps: steps.unwrap_or_default(),
        guided,
        max_parallelism,
        max_runs,
        max_acquisitions,
        unavailable,
        on_deadlock,
        lock_wait_seconds,
        isolation,
        priority,
        supersede,
        concurrency_tag,
    }
}

const STEP: &[&str] = &[
    "name",
    "uses",
    "on",
    "with",
    "start",
    "rolling",
    "when",
    "if",
    "approval",
    "steps",
    "environments",
    "timeout_seconds",
    "retries",
    "retry_after_seconds",
    "required",
    "isolation",
    "locks",
    "hold",
    "disabled",
];

fn step(shape: &mut Shape<'_>, node: &Node) -> Option<Step> {
    let fields = shape.fields(node, "a step", STEP)?;
    let works = ["approval", "steps"].iter().any(|key| fields.get(key).is_some());
    let uses = match fields.get("uses") {
        Some(node) => plugin(shape, node).map(Some),
        None if works => Some(None),
        None => shape.required(&fields, "uses", "run-script@1").and(None),
    };
    let on = maybe(shape, &fields, "on", on);
    let with = maybe(shape, &fields, "with", with);
    let rolling = maybe(shape, &fields, "rolling", rolling);
    let condition = match fields.get("if") {
        Some(node) => shape.loose_text(node, "if").map(Some),
        None => Some(None),
    };
    let approval = maybe(shape, &fields, "approval", approval);
    let steps = maybe(shape, &fields, "steps", |shape, node| shape.list(node, "steps", step));
    let locks = maybe(shape, &fields, "locks", |shape, node| shape.list(node, "locks", lock));
    let when = when(shape, &fields);
    let limits = limits(shape, &fields);
    let environments = shape.names(&fields, "environments");
    let required = shape.flag(&fields, "required");
    let isolation = shape.choice(&fields, "isolation", ISOLATIONS);
    let hold = shape.choice(&fields, "hold", SCOPES);
    let disabled = shape.flag(&fields, "disabled");
    let name = shape.required(&fields, "name", "web")?;
    let ((start, when), (timeout_seconds, retries, retry_after_seconds)) = (when?, limits?);
    Some(Step {
        name: shape.name(name, "name")?,
        uses: uses?,
        on: on?,
        with: with?.unwrap_or_default(),
        start,
        rolling: rolling?,
        when,
        condition: condition?,
        approval: approval?,
        steps: steps?.unwrap_or_default(),
        environments: environments?,
        timeout_seconds,
        retries,
        retry_after_seconds,
        required: required?,
        isolation: isolation?,
        locks: locks?.unwrap_or_default(),
        hold: hold?,
        disabled: disabled?,
    })
}

fn when(shape: &mut Shape<'_>, fields: &Fields<'_>) -> Option<(StartTrigger, RunCondition)> {
    let starts = [("after-previous", StartTrigger::AfterPrevious), ("with-previous", StartTrigger::WithPrevious)];
    let start = shape.choice(fields, "start", &starts);
    let conditions =
        [("success", RunCondition::Success), ("failure", RunCondition::Failure), ("always", RunCondition::Always)];
    let when = shape.choice(fields, "when", &conditions);
    Some((start?, when?))
}

/// Time limit, retries, and the wait before the first of them.
fn limits(shape: &mut Shape<'_>, fields: &Fields<'_>) -> Option<(Option<u64>, u32, u64)> {
    let timeout = maybe_number(shape, fields, "timeout_seconds", 1..=YEAR);
    let retries = maybe_number(shape, fields, "retries", 0..=10);
    let after = maybe_number(shape, fields, "retry_after_seconds", 0..=24 * 3600);
    Some((timeout?, u32::try_from(retries?.unwrap_or(0)).ok()?, after?.unwrap_or(0)))
}

/// What stands under an optional key.
fn maybe<T>(
    shape: &mut Shape<'_>,
    fields: &Fields<'_>,
    key: &str,
    read: impl FnOnce(&mut Shape<'_>, &Node) -> Option<T>,
) -> Option<Option<T>> {
    match fields.get(key) {
        Some(node) => read(shape, node).map(Some),
        None => Some(None),
    }
}

fn maybe_number(
    shape: &mut Shape<'_>,
    fields: &Fields<'_>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Option<Option<u64>> {
    maybe(shape, fields, key, |shape, node| shape.number(node, key, range))
}

fn approval(shape: &mut Shape<'_>, node: &Node) -> Option<Approval> {
    const KEYS: &[&str] = &["instructions", "responsible", "expires_after_seconds", "on_expiry", "block_concurrent"];
    let fields = shape.fields(node, "an approval", KEYS)?;
    let responsible = match fields.get("responsible") {
        Some(node) => shape.list(node, "responsible", |shape, node| shape.loose_text(node, "responsible")),
        None => Some(Vec::new()),
    };
    let expires_after_seconds = maybe_number(shape, &fields, "expires_after_seconds", 1..=YEAR);
    let on_expiry = shape.choice(&fields, "on_expiry", &[("abort", OnExpiry::Abort), ("proceed", OnExpiry::Proceed)]);
    let block_concurrent = shape.flag(&fields, "block_concurrent");
    let instructions = shape.required(&fields, "instructions", "Look at the graphs, then go on.")?;
    Some(Approval {
        instructions: shape.text(instructions, "instructions")?,
        responsible: responsible?,
        expires_after_seconds: expires_after_seconds?,
        on_expiry: on_expiry?,
        block_concurrent: block_concurrent?,
    })
}

fn lock(shape: &mut Shape<'_>, node: &Node) -> Option<LockNeed> {
    let fields = shape.fields(node, "a lock", &["resource", "mode", "scope", "units", "of"])?;
    let modes = [("exclusive", LockMode::Exclusive), ("shared", LockMode::Shared)];
    let mode = shape.choice(&fields, "mode", &modes);
    let scope = shape.choice(&fields, "scope", SCOPES);
    let units = maybe_number(shape, &fields, "units", 1..=1_000_000);
    let of = maybe_number(shape, &fields, "of", 1..=1_000_000);
    let resource = shape.required(&fields, "resource", "iis")?;
    let count = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    Some(LockNeed {
        resource: shape.text(resource, "resource")?,
        mode: mode?,
        scope: scope?,
        units: count(units?),
        of: count(of?),
    })
}

fn plugin(shape: &mut Shape<'_>, node: &Node) -> Option<PluginRef> {
    let text = shape.text(node, "uses")?;
    match text.parse() {
        Ok(uses) => Some(uses),
        Err(_) => {
            let message = format!("{text:?} names no step type");
            let mut diagnostic = Diagnostic::new(Code::E0105, message)
                .cause("a step type is written as id@major, so that a new major version is never taken by itself");
            if let Some(id) = text.split('@').next().filter(|id| !id.is_empty()) {
                diagnostic = diagnostic.fix(format!("write uses: {}@1", id.to_lowercase()));
            }
            shape.fail(node.at, diagnostic)
        }
    }
}

fn on(shape: &mut Shape<'_>, node: &Node) -> Option<On> {
    let (kind, node) = shape.one_of(node, "on", &["role", "machine", "pool"])?;
    match kind {
        "role" => shape.name(node, "role").map(On::Role),
        "machine" => shape.name(node, "machine").map(On::Machine),
        _ => shape.name(node, "pool").map(On::Pool),
    }
}

fn rolling(shape: &mut Shape<'_>, node: &Node) -> Option<Rolling> {
    let fields = shape.fields(node, "rolling", &["window"])?;
    let window = shape.required(&fields, "window", "1")?;
    let window = shape.number(window, "window", 1..=u64::from(u32::MAX))?;
    Some(Rolling { window: u32::try_from(window).ok()? })
}

/// Inputs of a step: any values, since only the step type knows them.
fn with(shape: &mut Shape<'_>, node: &Node) -> Option<With> {
    match &node.value {
        Value::Null => Some(With::new()),
        Value::Map(entries) => {
            Some(entries.iter().map(|(key, node)| (key.text.clone(), node.value.to_json())).collect())
        }
        other => {
            let message = format!("with must be a map of inputs, not {}", other.kind());
            shape.fail(node.at, Diagnostic::new(Code::E0104, message))
        }
    }
}
