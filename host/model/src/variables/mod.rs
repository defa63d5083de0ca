//! Which value of a variable holds where.
//!
//! [`VariableSet`] owns scoping and ranking: kinds of scope are ANDed, values within a kind are
//! ORed, and among the values that hold the most specific wins, kind by kind from step down to
//! environment. Two values of equal rank are an error that names both: nothing is ever chosen by
//! accident. Expanding `#{…}` inside values belongs to [`crate::template`]; [`Context`] ties a set,
//! the server's own variables and the outputs of earlier steps together for that.

mod context;
mod outputs;
mod system;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use context::Context;
pub(crate) use context::OutputPath;
pub use outputs::{AmbiguousOutput, Outputs};
pub(crate) use system::without_prefix as strip_octopus;
pub use system::{System, is_system_name, system_names};

use crate::{
    name::{EnvironmentName, MachineName, Role, StepName},
    variable::{Scope, Variable},
};

/// Where a variable is read: what is not set matches no scope that asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Environment deployed to.
    pub environment: Option<EnvironmentName>,
    /// Machine worked on.
    pub machine: Option<MachineName>,
    /// Roles of that machine.
    pub roles: Vec<Role>,
    /// Step that reads.
    pub step: Option<StepName>,
    /// Role by which the step chose its machines: outranks the machine's other roles.
    pub step_role: Option<Role>,
}

/// How specific a matching value is. Greater wins; equal ranks are a tie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rank(u8);

impl Rank {
    const STEP: u8 = 16;
    const MACHINE: u8 = 8;
    const STEP_ROLE: u8 = 4;
    const ROLE: u8 = 2;
    const ENVIRONMENT: u8 = 1;

    /// Rank of a scope at a place, none when it does not hold there.
    ///
    /// One bit a kind, the most specific kind highest: comparing the numbers compares rank by rank,
    /// and a further scope wins between equals, as in CSS.
    #[must_use]
    pub fn of(scope: &Scope, place: &Place) -> Option<Self> {
        let mut rank = 0;
        let mut hold = |listed: bool, matches: bool, bit: u8| {
            if listed && matches {
                rank |= bit;
            }
            !listed || matches
        };
        let by_step_role = place.step_role.as_ref().is_some_and(|role| scope.roles.contains(role));
        let by_role = scope.roles.iter().any(|role| place.roles.contains(role));
        let role_bit = if by_step_role { Self::STEP_ROLE } else { Self::ROLE };
        let holds = hold(!scope.steps.is_empty(), is_in(&scope.steps, place.step.as_ref()), Self::STEP)
            && hold(!scope.machines.is_empty(), is_in(&scope.machines, place.machine.as_ref()), Self::MACHINE)
            && hold(!scope.roles.is_empty(), by_step_role || by_role, role_bit)
            && hold(
                !scope.environments.is_empty(),
                is_in(&scope.environments, place.environment.as_ref()),
                Self::ENVIRONMENT,
            );
        holds.then_some(Self(rank))
    }
}

fn is_in<T: PartialEq>(listed: &[T], asked: Option<&T>) -> bool {
    asked.is_some_and(|asked| listed.contains(asked))
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (Self::STEP, "step"),
            (Self::MACHINE, "machine"),
            (Self::STEP_ROLE, "role of the step"),
            (Self::ROLE, "role"),
            (Self::ENVIRONMENT, "environment"),
        ];
        let named: Vec<&str> = kinds.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect();
        if named.is_empty() { f.write_str("unscoped") } else { f.write_str(&named.join(" + ")) }
    }
}

/// Several values of a variable hold with the same rank.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "variable {name} is ambiguous here: {} hold equally ({rank}); give one of them a narrower scope",
    scopes.join(" and ")
)]
pub struct Ambiguous {
    /// The variable.
    pub name: String,
    /// The rank that several values share.
    pub rank: Rank,
    /// Scopes of those values, as text.
    pub scopes: Vec<String>,
}

/// A value of a variable, judged at a place: for previews and for "why this value".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The value with its scope.
    pub variable: &'a Variable,
    /// Its rank, none when it does not hold there.
    pub rank: Option<Rank>,
    /// Whether it is the one that is used.
    pub chosen: bool,
}

/// The variables of a project, found by name without regard to case.
#[derive(Debug, Clone, Default)]
pub struct VariableSet {
    by_name: BTreeMap<String, Vec<Variable>>,
}

impl VariableSet {
    /// Takes a list of values; a name may come several times with different scopes.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = Variable>) -> Self {
        let mut by_name: BTreeMap<String, Vec<Variable>> = BTreeMap::new();
        for variable in variables {
            by_name.entry(variable.name.to_lowercase()).or_default().push(variable);
        }
        Self { by_name }
    }

    /// The value that holds at a place.
    ///
    /// # Errors
    /// When several hold with the same rank.
    pub fn resolve(&self, name: &str, place: &Place) -> Result<Option<&Variable>, Ambiguous> {
        let mut best: Option<(Rank, Vec<&Variable>)> = None;
        for variable in self.values(name) {
            let Some(rank) = Rank::of(&variable.scope, place) else {
                continue;
            };
            match &mut best {
                Some((highest, _)) if *highest > rank => {}
                Some((highest, equal)) if *highest == rank => equal.push(variable),
                _ => best = Some((rank, vec![variable])),
            }
        }
        match best {
            None => Ok(None),
            Some((rank, equal)) => match equal.as_slice() {
                [only] => Ok(Some(only)),
                _ => Err(Ambiguous {
                    name: name.to_owned(),
                    rank,
                    scopes: equal.iter().map(|v| v.scope.to_string()).collect(),
                }),
            },
        }
    }

    /// Every value of a variable, judged at a place.
    #[must_use]
    pub fn explain(&self, name: &str, place: &Place) -> Vec<Candidate<'_>> {
        let winner = self.resolve(name, place).ok().flatten();
        self.values(name)
            .iter()
            .map(|variable| Candidate {
                variable,
                rank: Rank::of(&variable.scope, place),
                chosen: winner.is_some_and(|winner| std::ptr::eq(winner, variable)),
            })
            .collect()
    }

    /// Names as written, each once, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.values().filter_map(|values| values.first()).map(|variable| variable.name.as_str())
    }

    /// Every value of every variable.
    pub fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.by_name.values().flatten()
    }

    /// Whether there is no variable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Keys `a` of the variables `prefix[a]…`, each once.
    #[must_use]
    pub fn keys_under(&self, prefix: &str) -> Vec<String> {
        let open = format!("{}[", prefix.to_lowercase());
        let mut seen = BTreeSet::new();
        self.by_name
            .range(open.clone()..)
            .take_while(|(name, _)| name.starts_with(&open))
            .filter_map(|(_, values)| values.first())
            .filter_map(|variable| key_after(&variable.name, open.len()))
            .filter(|key| seen.insert(key.to_lowercase()))
            .map(str::to_owned)
            .collect()
    }

    fn values(&self, name: &str) -> &[Variable] {
        self.by_name.get(&name.to_lowercase()).map_or(&[], Vec::as_slice)
    }
}

/// The text up to the bracket that closes the one just before `start`.
pub(crate) fn key_after(name: &str, start: usize) -> Option<&str> {
    let rest = name.get(start..)?;
    let mut depth = 0usize;
    for (at, c) in rest.char_indices() {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => return rest.get(..at),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
