//! The scheduler in virtual time: the real state machine, driven by a pretended world.
//!
//! A [`World`] answers each decision with events that happen some time later. The simulator keeps the
//! agenda, jumps from one moment to the next, and records what was decided when. Tests use it to play whole
//! deployments in microseconds; it holds nothing but what the scheduler itself would be told.

use std::collections::BTreeMap;

use crate::{decision::Decision, event::Event, state::State};

/// What happens outside the scheduler.
pub trait World {
    /// Events that follow from a decision, each with its delay in milliseconds.
    fn react(&mut self, now_ms: u64, decision: &Decision) -> Vec<(u64, Event)>;
}

/// A decision and when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Virtual time, in milliseconds.
    pub at_ms: u64,
    /// What was decided.
    pub decision: Decision,
}

/// The agenda was not empty after the allowed number of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the simulation did not end within {events} events")]
pub struct Endless {
    /// How many events were played.
    pub events: usize,
}

/// Plays a scheduler against a world.
#[derive(Debug)]
pub struct Simulator<W> {
    /// The scheduler, as far as it is.
    pub state: State,
    /// The world.
    pub world: W,
    /// Events to come, in order; of those at the same time, the one put in first.
    agenda: BTreeMap<(u64, u64), Event>,
    planned: u64,
    now_ms: u64,
}

impl<W: World> Simulator<W> {
    /// A simulation that starts at time `now_ms`. What `state` has open goes on in the world.
    pub fn new(state: State, now_ms: u64, world: W) -> Self {
        let open = state.open_decisions();
        let mut simulator = Self { state, world, agenda: BTreeMap::new(), planned: 0, now_ms };
        for decision in open {
            simulator.answer(&decision);
        }
        simulator
    }

    /// Virtual time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// When the next thing happens. None: nothing is left to happen.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
        planned.into_iter().chain(self.state.next_wake()).min()
    }

    /// Plans an event.
    pub fn at(&mut self, at_ms: u64, event: Event) {
        self.planned += 1;
        self.agenda.insert((at_ms, self.planned), event);
    }

    /// Plays until nothing is left to happen.
    ///
    /// # Errors
    /// When more than `most` events were needed.
    pub fn run(&mut self, most: usize) -> Result<Vec<Moment>, Endless> {
        let mut told = Vec::new();
        for _ in 0..most {
            match self.step() {
                Some(decisions) => told.extend(decisions),
                None => return Ok(told),
            }
        }
        Err(Endless { events: most })
    }

    /// Plays the next event. None: nothing is left to happen.
    pub fn step(&mut self) -> Option<Vec<Moment>> {
        let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let wake = self.state.next_wake().filter(|wake| planned.is_none_or(|at| *wake < at));
        let event = match wake {
            Some(wake) => {
                self.now_ms = self.now_ms.max(wake);
                Event::Tick
            }
            None => {
                let ((at, _), event) = self.agenda.pop_first()?;
                self.now_ms = self.now_ms.max(at);
                event
            }
        };
        let decisions = self.state.next(self.now_ms, event);
        for decision in &decisions {
            self.answer(decision);
        }
        let moment = |decision| Moment { at_ms: self.now_ms, decision };
        Some(decisions.into_iter().map(moment).collect())
    }

    fn answer(&mut self, decision: &Decision) {
        for (delay, event) in self.world.react(self.now_ms, decision) {
            self.at(self.now_ms.saturating_add(delay), event);
        }
    }
}
