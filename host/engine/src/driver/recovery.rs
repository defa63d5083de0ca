//! Taking the scheduler's state up again, and storing it as a whole now and then.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use tokio::sync::mpsc;
use windlass_scheduler::{Event, Settings, State};
use windlass_store::{Key, StoreError};

use super::{Actor, Driver, Input, Shared, turn::Turn};
use crate::{
    board::Board,
    error::{EngineError, ErrorKind},
    records::{EVENTS, SNAPSHOT, StoredSnapshot},
};

impl Driver {
    /// Restores the scheduler from the store.
    ///
    /// # Errors
    /// When the store stopped or holds what cannot be read.
    pub async fn restore(
        shared: Arc<Shared>,
        actor: Arc<dyn Actor>,
        inputs: mpsc::Receiver<Input>,
        settings: Settings,
    ) -> Result<Self, EngineError> {
        let store = Arc::clone(&shared.store);
        let (mut number, mut state) = match SNAPSHOT.all(&*store, Key::new()).await?.pop() {
            Some((_, stored)) => {
                let state =
                    State::restore(stored.snapshot).map_err(|error| EngineError::internal(error.to_string()))?;
                (stored.upto, state)
            }
            None => (0, State::new(settings.clone())),
        };
        for (key, stored) in EVENTS.all(&*store, Key::new()).await? {
            let Some(n) = Key::parts(&key).id() else {
                continue;
            };
            if n > number {
                state.next(stored.at_ms, stored.event);
                number = n;
            }
        }
        state.give_back_room();
        let mut ahead = Board::default();
        for (id, _, _) in state.tasks() {
            match crate::tasks::stored_detail(&*store, id).await {
                Ok(detail) => detail.into_iter().for_each(|detail| ahead.insert(detail)),
                // The scheduler knows what to do with it all the same.
                Err(error) if error.kind == ErrorKind::Internal => {
                    tracing::error!(task = %id, %error, "a task goes on without being shown: windlass store check tells more");
                }
                Err(error) => return Err(error),
            }
        }
        *shared.board.write().unwrap_or_else(PoisonError::into_inner) = ahead.clone();
        let plans = state.tasks().map(|(id, plan, _)| (id, Arc::clone(plan))).collect();
        let (approvals, since) = (HashMap::new(), Vec::new());
        let mut driver = Self { shared, actor, inputs, state, ahead, number, plans, approvals, since, kept: None };
        driver.recover(settings).await?;
        Ok(driver)
    }

    /// Settings may be other ones now, and everything that was open is acted on again.
    async fn recover(&mut self, settings: Settings) -> Result<(), EngineError> {
        let mut turn = Turn::default();
        if *self.state.settings() != settings {
            self.take(&mut turn, Event::SettingsChanged { settings })?;
        }
        EVENTS.clear(&*self.shared.store, &mut turn.batch).await?;
        self.since.clear();
        SNAPSHOT.clear(&*self.shared.store, &mut turn.batch).await?;
        // A number of its own: that of the old one is just being taken away.
        self.number += 1;
        self.put_snapshot(&mut turn).await?;
        let open = self.open_decisions();
        open.iter().for_each(|decision| self.note_question(decision));
        turn.acts.extend(open);
        self.finish(turn).await.map_err(EngineError::from)
    }

    /// The whole state replaces the events that led to it.
    pub(super) async fn put_snapshot(&mut self, turn: &mut Turn) -> Result<(), StoreError> {
        let stored = StoredSnapshot { upto: self.number, snapshot: self.state.snapshot() };
        // Thousands of tasks are more than one commit takes; what is written before counts only with the turn.
        let (before, last, parts) = SNAPSHOT.put_large(&Key::of_id(self.number), &stored)?;
        for batch in before {
            self.shared.store.commit(batch).await?;
        }
        turn.batch.append(last);
        if let Some((old, parts)) = self.kept.replace((self.number, parts)) {
            SNAPSHOT.delete(&mut turn.batch, &Key::of_id(old), parts);
        }
        for (number, parts) in self.since.drain(..) {
            EVENTS.delete(&mut turn.batch, &Key::of_id(number), parts);
        }
        Ok(())
    }
}
