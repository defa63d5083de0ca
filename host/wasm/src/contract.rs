//! Which interfaces this server serves, in which version, and what each needs: the server's side of `wit/`.

use std::collections::BTreeSet;

use wasmtime::{
    Engine,
    component::{Component, HasSelf, Linker, ResourceType, types::ComponentItem},
};
use windlass_model::Capability;

use crate::{
    bindings::windlass as wit,
    calls::{Calls, base, command, http, inputs, lock, machine, packages, tasks},
    error::Refused,
};

/// The version of every package that is served.
pub(crate) const SERVED: Version = Version { major: 0, minor: 1, patch: 0 };

/// What every step plugin exports, and what it may export besides.
pub(crate) const RUN: &str = "windlass:step/run";
pub(crate) const VALIDATE: &str = "windlass:step/validate@0.1.0";

type Link = fn(&mut Linker<Calls>) -> wasmtime::Result<()>;

/// One interface that is served.
struct Served {
    name: &'static str,
    /// What a run must be granted to call its functions.
    needs: Option<Capability>,
    /// Puts functions and types into a linker.
    link: Link,
    /// The types alone: other interfaces mention them, so they are there even when the functions are not granted.
    types: fn() -> Vec<(&'static str, ResourceType)>,
}

macro_rules! served {
    ($name:literal, $needs:expr, $($module:ident)::+ $(, $resource:literal = $state:ty)*) => {
        Served {
            name: $name,
            needs: $needs,
            link: |linker| wit::$($module)::+::add_to_linker::<_, HasSelf<Calls>>(linker, |calls| calls),
            types: || vec![$(($resource, ResourceType::host::<$state>())),*],
        }
    };
}

fn served() -> [Served; 16] {
    use Capability as C;
    [
        served!("windlass:base/types", None, base::types),
        served!("windlass:base/log", None, base::log),
        served!("windlass:base/clock", None, base::clock),
        served!("windlass:base/random", None, base::random),
        served!("windlass:base/secrets", None, base::secrets, "secret" = base::Secret),
        served!("windlass:base/variables", None, base::variables),
        served!("windlass:base/reveal", Some(C::SecretReveal), base::reveal, "secret" = base::Secret),
        served!("windlass:control/control", None, control::control),
        served!("windlass:step/inputs", None, step::inputs, "inputs" = inputs::Inputs),
        served!("windlass:packages/packages", Some(C::Package), packages::packages, "package" = packages::Package),
        served!(
            "windlass:machine/session",
            Some(C::Machine),
            machine::session,
            "session" = machine::Session,
            "command" = command::Command,
            "process" = machine::Process
        ),
        served!("windlass:lock/locks", Some(C::Lock), lock::locks, "lock" = lock::Lock),
        served!("windlass:tasks/types", None, tasks::types),
        served!("windlass:tasks/query", Some(C::TasksRead), tasks::query, "filter" = tasks::Filter),
        served!("windlass:tasks/deploy", Some(C::TasksDeploy), tasks::deploy, "deployment" = tasks::Deployment),
        served!("windlass:http/client", Some(C::Http), http::client, "request" = http::Request),
    ]
}

/// A linker with everything that these grants allow, and the bare types of the rest.
pub(crate) fn linker(engine: &Engine, allowed: impl Fn(&Capability) -> bool) -> wasmtime::Result<Linker<Calls>> {
    let mut linker = Linker::new(engine);
    for interface in served() {
        if interface.needs.as_ref().is_none_or(&allowed) {
            (interface.link)(&mut linker)?;
            continue;
        }
        let mut instance = linker.instance(&format!("{}@{SERVED}", interface.name))?;
        for (name, resource) in (interface.types)() {
            // No guest can own a handle of a type whose functions it cannot call, so there is nothing to drop.
            instance.resource(name, resource, |_, _| Ok(()))?;
        }
    }
    Ok(linker)
}

/// What a component imports, as far as the server cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Package and interface, such as `windlass:machine/session`.
    pub interface: String,
    /// The version it was built for.
    pub version: String,
    /// Whether it calls functions, or only mentions types.
    pub calls: bool,
    /// What calling them needs.
    pub needs: Option<Capability>,
}

/// Checks every import and export of a component against what is served.
pub(crate) fn check(engine: &Engine, component: &Component) -> Result<Vec<Import>, Refused> {
    let ty = component.component_type();
    let imports = ty
        .imports(engine)
        .map(|(name, import)| check_import(engine, name, &import.ty))
        .collect::<Result<Vec<_>, _>>()?;
    let exports: BTreeSet<&str> = ty.exports(engine).map(|(name, _)| name).collect();
    let Some(run) = exports.iter().find(|name| Name::parse(name).path == RUN) else {
        return Err(Refused::NoStep { exports: exports.iter().map(ToString::to_string).collect() });
    };
    check_version(&Name::parse(run))?;
    Ok(imports)
}

fn check_import(engine: &Engine, name: &str, item: &ComponentItem) -> Result<Import, Refused> {
    let parsed = Name::parse(name);
    let Some(interface) = served().into_iter().find(|served| served.name == parsed.path) else {
        return Err(if package_is_served(parsed.path) && parsed.version.is_some_and(|v| !v.fits(SERVED)) {
            Refused::OtherVersion { interface: name.to_owned(), served: SERVED.to_string() }
        } else {
            Refused::NotServed { import: name.to_owned() }
        });
    };
    check_version(&parsed)?;
    let ComponentItem::ComponentInstance(instance) = item else {
        return Err(Refused::NotServed { import: name.to_owned() });
    };
    let calls = instance.exports(engine).any(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
    Ok(Import {
        interface: parsed.path.to_owned(),
        version: parsed.version.map(|version| version.to_string()).unwrap_or_default(),
        calls,
        needs: interface.needs,
    })
}

fn check_version(name: &Name<'_>) -> Result<(), Refused> {
    match name.version {
        Some(version) if version.fits(SERVED) => Ok(()),
        _ => Err(Refused::OtherVersion { interface: name.full.to_owned(), served: SERVED.to_string() }),
    }
}

fn package_is_served(path: &str) -> bool {
    let package = path.split('/').next();
    served().iter().any(|served| served.name.split('/').next() == package)
}

/// A name such as `windlass:machine/session@0.1.0`.
struct Name<'a> {
    full: &'a str,
    path: &'a str,
    version: Option<Version>,
}

impl<'a> Name<'a> {
    fn parse(full: &'a str) -> Self {
        match full.split_once('@') {
            Some((path, version)) => Self { full, path, version: Version::parse(version) },
            None => Self { full, path: full, version: None },
        }
    }
}

/// The version of a package of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    major: u64,
    minor: u64,
    patch: u64,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse().ok());
        let version = Self { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? };
        numbers.next().is_none().then_some(version)
    }

    /// Whether a plugin built for this version finds the same packages in the other, as wasmtime's linker sees it.
    fn fits(self, served: Self) -> bool {
        match self.major {
            0 => served.major == 0 && self.minor == served.minor,
            major => served.major == major,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
