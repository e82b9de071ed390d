//! A zone in memory: for a fleet without DNS of its own, and for tests.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use feather_proto::error::{Error, reason};

use super::{Changes, Dns, Record};

/// The zone.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeSet<Record>,
    broken: bool,
}

impl Memory {
    /// Refuses everything from now on, or no more.
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Result<std::sync::MutexGuard<'_, State>, Error> {
        let state = self.lock();
        if state.broken {
            return Err(Error::unavailable(reason::DNS, "the DNS provider does not answer"));
        }
        Ok(state)
    }
}

#[async_trait]
impl Dns for Memory {
    async fn records(&self) -> Result<BTreeSet<Record>, Error> {
        Ok(self.usable()?.records.clone())
    }

    async fn apply(&self, changes: &Changes) -> Result<(), Error> {
        let mut state = self.usable()?;
        state.records.extend(changes.create.iter().cloned());
        for record in &changes.remove {
            state.records.remove(record);
        }
        Ok(())
    }
}
