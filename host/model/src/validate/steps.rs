//! Checks of a process: where its steps run, what they use, and in which order.

use crate::{
    codes::Code,
    diagnostic::Diagnostic,
    files::{Part, Subject},
    manifest::{Manifest, RunsOn},
    process::{On, StartTrigger, Step},
    suggest::nearest,
};

use super::{
    Check,
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
        let step_names = steps.iter().map(|step| step.name.as_str());
        self.duplicates(subject, "steps", "step", step_names);
        for (at, step) in steps.iter().enumerate() {
            if self.is_full() {
                return;
            }
            let place = [Part::Key("steps"), Part::Index(at)];
            if at == 0 && step.start == StartTrigger::WithPrevious {
                let diagnostic = Diagnostic::new(
                    Code::W0308,
                    format!("step {} is the first and starts with the previous one", step.name),
                )
                .fix("remove start: with-previous");
                self.report(subject, &with(&place, Part::Key("start")), diagnostic);
            }
            let environments = with(&place, Part::Key("environments"));
            self.environment_names(subject, &environments, &step.environments);
            self.on(subject, &place, step);
            self.rolling(subject, &place, step);
            self.uses(index, &place, step);
            self.step_templates(index, &place, step, &Reader::step(names, at));
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

    fn uses(&mut self, index: usize, place: &[Part<'_>], step: &'w Step) {
        let Some(manifests) = &self.known.manifests else {
            return;
        };
        let subject = Subject::Process(index);
        let manifest = match find(manifests, step) {
            Ok(manifest) => manifest,
            Err(diagnostic) => {
                self.report(subject, &with(place, Part::Key("uses")), *diagnostic);
                return;
            }
        };
        if manifest.runs_on == RunsOn::Machine && step.on.is_none() {
            let diagnostic =
                Diagnostic::new(Code::E0307, format!("step {} does not say on which machines it runs", step.name))
                    .cause(format!("{} works on machines", manifest.id))
                    .fix("add on: { role: … }");
            self.report(subject, &with(place, Part::Key("name")), diagnostic);
        }
        self.inputs(index, place, step, manifest);
    }
}

/// The installed plugin that a step uses.
fn find<'m>(manifests: &'m [Manifest], step: &Step) -> Result<&'m Manifest, Box<Diagnostic>> {
    let uses = &step.uses;
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
