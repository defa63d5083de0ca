//! Checks of a process: where its steps run, what they use, and in which order.

use std::collections::BTreeSet;

use crate::{
    codes::Code,
    diagnostic::Diagnostic,
    files::{Part, Subject},
    manifest::{LockScope, Manifest, RunsOn},
    process::{On, Placed, PluginRef, StartTrigger, Step, StepIsolation},
    suggest::nearest,
    workspace::ProjectFiles,
};

use super::{
    Check, duplicate,
    variables::{Names, Reader},
};

impl<'w> Check<'w> {
    pub(super) fn process(&mut self, index: usize, names: &Names<'w>) {
        let project = names.project;
        let subject = Subject::Process(index);
        let steps = &project.process.steps;
        if steps.is_empty() {
            let diagnostic = Diagnostic::new(
                Code::W0309,
                format!("the process of {} has no steps", project.project.name),
            )
            .fix("add a step: - { name: hello, uses: run-script@1, on: { role: web }, with: { script: echo hello } }");
            self.report(subject, &[Part::KeyOf("steps")], diagnostic);
        }
        self.shared_settings(subject, project, names);
        let mut seen = BTreeSet::new();
        let (mut group, mut lead) = (0, 0);
        for (number, step) in project.process.all_steps().enumerate() {
            if self.is_full() {
                return;
            }
            let (at, child) = step.place;
            if child.is_none() {
                lead = number;
                group = if step.start == StartTrigger::AfterPrevious { number } else { group };
            }
            let mut place = vec![Part::Key("steps"), Part::Index(at)];
            if let Some(child) = child {
                place.extend([Part::Key("steps"), Part::Index(child)]);
            }
            if !seen.insert(step.name.key()) {
                self.report(subject, &with(&place, Part::Key("name")), duplicate("step", step.name.as_str()));
            }
            if at == 0 && child.is_none() && step.start == StartTrigger::WithPrevious {
                let diagnostic = Diagnostic::new(
                    Code::W0308,
                    format!("step {} is the first and starts with the previous one", step.name),
                )
                .fix("remove start: with-previous");
                self.report(subject, &with(&place, Part::Key("start")), diagnostic);
            }
            let environments = with(&place, Part::Key("environments"));
            self.environment_names(subject, &environments, &step.environments);
            self.togetherness(subject, &place, &step);
            self.on(subject, &place, &step);
            self.rolling(subject, &place, &step);
            self.uses(index, &place, &step);
            let reader = Reader::step(names, group, lead, number);
            self.conditions(subject, &place, &step, &reader);
            self.step_templates(index, &place, &step, &reader);
        }
    }

    /// What holds for all steps of a process.
    fn shared_settings(&mut self, subject: Subject, project: &ProjectFiles, names: &Names<'w>) {
        if let Some(tag) = &project.process.concurrency_tag {
            self.template(subject, &[Part::Key("concurrency_tag")], tag, &Reader::start(names));
        }
    }

    /// Keys of one step that say opposite things, or nothing.
    fn togetherness(&mut self, subject: Subject, place: &[Part<'_>], step: &Placed<'_>) {
        let name = &step.name;
        if step.uses.is_none() && step.approval.is_none() && step.steps.is_empty() {
            let diagnostic = Diagnostic::new(Code::E0312, format!("step {name} does nothing"))
                .fix("say what it does: uses: …, or approval: …, or steps: …");
            self.report(subject, &with(place, Part::KeyOf("name")), diagnostic);
        }
        let parent = !step.steps.is_empty();
        let idle = step.uses.is_none();
        let table = [
            (
                parent && !idle,
                "uses",
                "has child steps and does nothing itself",
                "move it into a child step of its own",
            ),
            (
                parent && matches!(step.on, Some(On::Pool(_))),
                "on",
                "has child steps, and a pool chooses a worker for each of them",
                "name a machine or a role, or take the steps out of it",
            ),
            (
                parent && step.hold == LockScope::Step,
                "hold",
                "has child steps, and its own part ends before theirs",
                "write hold: deployment, or give hold to the child steps",
            ),
            (
                idle && !step.with.is_empty(),
                "with",
                "uses no step type that takes inputs",
                "add uses: …, or remove with",
            ),
            (idle && !step.locks.is_empty(), "locks", "does nothing that needs locks", "give them to the child steps"),
            (
                !step.locks.is_empty() && step.isolation != StepIsolation::Declared,
                "locks",
                "says by isolation what it keeps from others, and again by locks",
                "remove isolation, or locks",
            ),
            (
                idle && !parent && step.on.is_some(),
                "on",
                "only asks a person, which is done once and without a machine",
                "remove it",
            ),
        ];
        let child = step.parent.map(|parent| format!("write it at the parent step {}", parent.name));
        let inherited = [
            ("on", step.on.is_some(), "runs where its parent runs"),
            ("start", step.start != StartTrigger::AfterPrevious, "starts after the child step above it"),
            ("rolling", step.rolling.is_some(), "shares the window of its parent"),
            ("approval", step.approval.is_some(), "starts once its parent has been approved"),
            ("steps", parent, "has no child steps of its own"),
        ];
        for (wrong, key, why, fix) in table {
            if wrong {
                self.together(subject, place, step, key, why, fix);
            }
        }
        if let Some(fix) = child {
            for (key, wrong, why) in inherited {
                if wrong {
                    self.together(subject, place, step, key, why, &fix);
                }
            }
        }
    }

    fn together(&mut self, subject: Subject, place: &[Part<'_>], step: &Step, key: &str, why: &str, fix: &str) {
        let diagnostic = Diagnostic::new(Code::E0311, format!("step {} cannot have {key} here", step.name))
            .cause(format!("it {why}"))
            .fix(fix);
        self.report(subject, &with(place, Part::KeyOf(key)), diagnostic);
    }

    /// The texts that decide over a step, and what a person is told.
    fn conditions(&mut self, subject: Subject, place: &[Part<'_>], step: &Step, reader: &Reader<'_>) {
        if let Some(condition) = &step.condition {
            let place = with(place, Part::Key("if"));
            if condition.contains("#{") {
                self.template(subject, &place, condition, reader);
            } else {
                let message = format!("the condition of step {} holds no expression", step.name);
                let diagnostic =
                    Diagnostic::new(Code::W0313, message).fix(format!("write if: \"#{{{}}}\"", condition.trim()));
                self.report(subject, &place, diagnostic);
            }
        }
        if let Some(approval) = &step.approval {
            let place = with(&with(place, Part::Key("approval")), Part::Key("instructions"));
            self.template(subject, &place, &approval.instructions, reader);
        }
        let locks = with(place, Part::Key("locks"));
        for (at, lock) in step.locks.iter().enumerate() {
            let place = with(&with(&locks, Part::Index(at)), Part::Key("resource"));
            self.template(subject, &place, &lock.resource, reader);
        }
    }

    fn on(&mut self, subject: Subject, place: &[Part<'_>], step: &Step) {
        let (key, unknown) = match &step.on {
            Some(On::Role(role)) => ("role", self.unknown_role(role)),
            Some(On::Machine(machine)) => ("machine", self.unknown_machine(machine)),
            Some(On::Pool(pool)) => ("pool", self.unknown_pool(pool)),
            None => return,
        };
        if let Some(diagnostic) = unknown {
            let path = with(&with(place, Part::Key("on")), Part::Key(key));
            self.report(subject, &path, diagnostic);
        }
    }

    fn rolling(&mut self, subject: Subject, place: &[Part<'_>], step: &Step) {
        let Some(rolling) = step.rolling else { return };
        let path = with(place, Part::Key("rolling"));
        if rolling.window == 0 {
            let diagnostic = Diagnostic::new(Code::E0109, "window cannot be 0").fix("write a whole number, 1 or more");
            self.report(subject, &with(&path, Part::Key("window")), diagnostic);
        } else if !matches!(step.on, Some(On::Role(_))) {
            let diagnostic =
                Diagnostic::new(Code::W0310, format!("step {} never runs on more than one machine", step.name))
                    .fix("remove rolling, or run the step on a role");
            self.report(subject, &path, diagnostic);
        }
    }

    fn uses(&mut self, index: usize, place: &[Part<'_>], step: &Placed<'_>) {
        let (Some(manifests), Some(uses)) = (&self.known.manifests, &step.uses) else {
            return;
        };
        let subject = Subject::Process(index);
        let manifest = match find(manifests, step, uses) {
            Ok(manifest) => manifest,
            Err(diagnostic) => {
                self.report(subject, &with(place, Part::Key("uses")), *diagnostic);
                return;
            }
        };
        if manifest.runs_on == RunsOn::Machine && step.on().is_none() {
            let diagnostic =
                Diagnostic::new(Code::E0307, format!("step {} does not say on which machines it runs", step.name))
                    .cause(format!("{} works on machines", manifest.id))
                    .fix(match step.parent {
                        Some(parent) => format!("add on: {{ role: … }} to its parent, step {}", parent.name),
                        None => "add on: { role: … }".to_owned(),
                    });
            self.report(subject, &with(place, Part::Key("name")), diagnostic);
        }
        self.inputs(index, place, step, manifest);
    }
}

/// The installed plugin that a step uses.
fn find<'m>(manifests: &'m [Manifest], step: &Step, uses: &PluginRef) -> Result<&'m Manifest, Box<Diagnostic>> {
    if let Some(manifest) = Manifest::newest(manifests, uses) {
        return Ok(manifest);
    }
    let same: Vec<&Manifest> = manifests.iter().filter(|m| m.id == uses.id).collect();
    let install = format!("windlass plugin install {uses}");
    Err(Box::new(if same.is_empty() {
        let near = nearest(&uses.id, manifests.iter().map(|m| m.id.as_str()));
        let near = manifests
            .iter()
            .find(|m| Some(&m.id) == near.as_ref())
            .map(|m| format!("{}@{}", m.id, m.major().unwrap_or(1)));
        Diagnostic::new(Code::E0301, format!("no plugin {} is installed", uses.id))
            .cause(format!("step {} uses {uses}", step.name))
            .near_or(near, install)
    } else {
        let have: Vec<&str> = same.iter().map(|m| m.version.as_str()).collect();
        let message = format!("no version {}.x of plugin {} is installed", uses.major, uses.id);
        Diagnostic::new(Code::E0302, message).cause(format!("installed: {}", have.join(", "))).fix(install)
    }))
}

/// A path with one part more.
pub(super) fn with<'p>(path: &[Part<'p>], part: Part<'p>) -> Vec<Part<'p>> {
    let mut path = path.to_vec();
    path.push(part);
    path
}
