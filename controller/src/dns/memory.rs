//! A whole zone in memory, with the rules of a real one: for a fleet without DNS of its own, and for tests.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::{
    dynadot::checks,
    zone::{Provider, ProviderError, Removed, Zone, ZoneRecord},
};

/// TTL of a new zone, in seconds.
const TTL: u32 = 300;

/// The zone.
#[derive(Debug)]
pub struct Memory {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    zone: Zone,
    broken: bool,
    keeping: bool,
}

impl Memory {
    /// An empty zone of that name.
    pub fn new(name: &str) -> Self {
        Self::holding(name, Zone { ttl: TTL, records: Vec::new() })
    }

    /// A zone that holds something already.
    pub fn holding(name: &str, mut zone: Zone) -> Self {
        zone.records.sort();
        Self { name: name.to_owned(), state: Mutex::new(State { zone, broken: false, keeping: false }) }
    }

    /// Answers nothing from now on, or again.
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    /// Refuses every removal from now on, or takes them again.
    pub fn set_keeping(&self, keeping: bool) {
        self.lock().keeping = keeping;
    }

    /// Changes the zone as somebody in a web panel would; returns what it holds then.
    pub fn edit(&self, change: impl FnOnce(&mut Zone)) -> Zone {
        let mut state = self.lock();
        change(&mut state.zone);
        state.zone.records.sort();
        state.zone.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self) -> Result<std::sync::MutexGuard<'_, State>, ProviderError> {
        let state = self.lock();
        if state.broken {
            let message = "the DNS provider does not answer".to_owned();
            return Err(ProviderError::Later { message, pause: std::time::Duration::from_secs(1) });
        }
        Ok(state)
    }
}

fn refused(why: String) -> ProviderError {
    ProviderError::Refused(format!("the zone in memory does not take this: {why}"))
}

#[async_trait]
impl Provider for Memory {
    fn zone(&self) -> &str {
        &self.name
    }

    async fn read(&self) -> Result<Zone, ProviderError> {
        Ok(self.usable()?.zone.clone())
    }

    async fn append(&self, records: &[ZoneRecord], ttl: u32) -> Result<(), ProviderError> {
        let mut state = self.usable()?;
        checks::append(&self.name, records, ttl).map_err(refused)?;
        let mut next = Zone { ttl, records: state.zone.records.iter().chain(records).cloned().collect() };
        checks::replace(&self.name, &next).map_err(refused)?;
        next.records.sort();
        state.zone = next;
        Ok(())
    }

    async fn remove(&self, records: &[ZoneRecord]) -> Result<Removed, ProviderError> {
        let mut state = self.usable()?;
        checks::remove(records).map_err(refused)?;
        if state.keeping {
            return Err(refused("it lets nothing go".to_owned()));
        }
        let (gone, kept) = state.zone.records.iter().cloned().partition::<Vec<_>, _>(|record| records.contains(record));
        state.zone.records = kept;
        let apex = gone.iter().filter(|record| record.host.is_empty()).count();
        Ok(Removed { apex, sub: gone.len() - apex })
    }

    fn objection(&self, zone: &Zone) -> Option<String> {
        checks::replace(&self.name, zone).err()
    }

    async fn replace(&self, zone: &Zone) -> Result<(), ProviderError> {
        let mut state = self.usable()?;
        checks::replace(&self.name, zone).map_err(refused)?;
        state.zone = zone.clone();
        state.zone.records.sort();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, Provider as _, ProviderError, Zone, ZoneRecord};

    fn record(host: &str, kind: &str, value: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: String::new() }
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let apex = vec![record("", "a", "192.0.2.80")];
        crate::dns::contract::all(&Memory::holding("example.com", Zone { ttl: 300, records: apex })).await;
    }

    #[tokio::test]
    async fn it_keeps_the_rules_of_a_zone() {
        let memory = Memory::new("example.com");
        let alias = record("x", "cname", "y.example.net");
        memory.append(std::slice::from_ref(&alias), 60).await.unwrap();
        let excluded = memory.append(&[record("x", "a", "192.0.2.1")], 60).await;
        assert!(matches!(excluded, Err(ProviderError::Refused(_))), "{excluded:?}");
        let many: Vec<_> = (0..100).map(|number| record(&format!("h{number}"), "a", "192.0.2.1")).collect();
        assert!(matches!(memory.append(&many, 60).await, Err(ProviderError::Refused(_))));
        memory.append(&many[..99], 120).await.unwrap();
        let zone = memory.read().await.unwrap();
        assert_eq!((zone.ttl, zone.records.len()), (120, 100));
        assert_eq!(memory.remove(&[alias, record("none", "a", "192.0.2.1")]).await.unwrap().sub, 1);
        memory.set_broken(true);
        assert!(matches!(memory.read().await, Err(ProviderError::Later { .. })));
    }
}
