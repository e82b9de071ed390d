//! Whose calls are heard: the list of revoked certificates, who was seen when, and telling both to whom it concerns.
//!
//! Owns what is in force in this process; the store owns what outlives it. What a role may do is in `access/rights.rs`, the layer in
//! front of all services in `access/door.rs`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use feather_proto::{
    error::Error,
    ids::ServerName,
    tls::{Peer, Principal, Revoked},
};
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::{
    ca::BACKDATE,
    store::{PEOPLE, Store},
    world::World,
};

pub mod door;
mod recorder;
pub mod rights;

/// A person's calls are noted at most so often.
const SEEN_AGAIN: Duration = Duration::minutes(1);
/// Refused callers without a certificate that are put down in the audit log: so many at once, and so many in a second for good.
const STRANGERS_BURST: f64 = 60.0;
const STRANGERS_PER_SECOND: f64 = 1.0;

/// Who is heard, and who was.
#[derive(Default)]
pub struct Access {
    /// In force now, also for connections that this process opens.
    pub revoked: Revoked,
    seen: Mutex<BTreeMap<Principal, OffsetDateTime>>,
    /// Refusals of callers without a certificate that may still be put down.
    strangers: Strangers,
}

/// A bucket that fills again with time.
struct Strangers {
    /// How many are left, and as of when.
    left: Mutex<(f64, Option<OffsetDateTime>)>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { left: Mutex::new((STRANGERS_BURST, None)) }
    }
}

impl Strangers {
    /// Takes one, if one is left.
    fn take(&self, now: OffsetDateTime) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = left.1.map_or(0.0, |last| (now - last).as_seconds_f64().max(0.0));
        *left = ((left.0 + passed * STRANGERS_PER_SECOND).min(STRANGERS_BURST), Some(now));
        let taken = left.0 >= 1.0;
        if taken {
            left.0 -= 1.0;
        }
        taken
    }
}

impl Access {
    /// With the list that connections look at.
    pub fn new(revoked: Revoked) -> Self {
        Self { revoked, seen: Mutex::default(), strangers: Strangers::default() }
    }

    /// Puts in force what the store says.
    pub async fn load(&self, store: &Store) -> Result<(), Error> {
        let list = store.revocations().await?;
        if *self.revoked.list() != list {
            self.revoked.replace(list);
        }
        Ok(())
    }

    /// When a certificate of this name is to be issued: now, but not so early that it would be among those that are refused.
    pub fn issue_at(&self, principal: &Principal, now: OffsetDateTime) -> OffsetDateTime {
        let first = self.revoked.list().0.get(principal).map(|last| last + 1 + BACKDATE.whole_seconds());
        first.and_then(|first| OffsetDateTime::from_unix_timestamp(first).ok()).map_or(now, |first| first.max(now))
    }

    /// Shall this call be noted?
    fn is_news(&self, principal: &Principal, now: OffsetDateTime) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let news = seen.get(principal).is_none_or(|last| now - *last >= SEEN_AGAIN || now < *last);
        if news {
            seen.insert(principal.clone(), now);
        }
        news
    }

    /// Notes that a person called. Not being able to is no reason to refuse the call.
    pub async fn note(&self, store: &Store, peer: &Peer, now: OffsetDateTime) {
        let Some(principal) = peer.principal.as_ref().filter(|one| PEOPLE.contains(&one.role)) else { return };
        if !self.is_news(principal, now) {
            return;
        }
        let until = peer.valid_until.and_then(|until| OffsetDateTime::from_unix_timestamp(until).ok());
        if let Err(error) = store.note_seen(principal, until, now).await {
            tracing::warn!(%principal, error = &error as &dyn std::error::Error, "cannot note who called");
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(principal);
        }
    }
}

impl World {
    /// Refuses all certificates that a server has now: at once by this controller, and by the agents within moments. A later
    /// invitation gives it another. Idempotent.
    pub async fn revoke_server(&self, server: &ServerName, by: &str) -> Result<(), Error> {
        self.revoke(&[Principal::agent(server)], by).await
    }

    /// The same for any names.
    pub async fn revoke(&self, principals: &[Principal], by: &str) -> Result<(), Error> {
        self.store.revoke(principals, by, self.clock.now()).await?;
        self.access.load(&self.store).await
    }
}

/// Reconciler: every agent that answers has the list that is in force.
pub async fn spread(world: Arc<World>, shutdown: CancellationToken) {
    let mut list = world.access.revoked.subscribe();
    let mut observed = world.fleet.subscribe();
    loop {
        let current = list.borrow_and_update().clone();
        let digest = current.digest();
        for (server, seen) in world.fleet.all() {
            if seen.alive().is_some_and(|snapshot| snapshot.revocations_digest != digest) {
                tell(&world, &server, &current).await;
            }
        }
        tokio::select! {
            _ = list.changed() => {}
            _ = observed.changed() => {}
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn tell(world: &World, server: &ServerName, list: &feather_proto::tls::Revocations) {
    let told = async { world.agent(server).await?.set_revocations(&list.lines()).await }.await;
    match told {
        Ok(_) => {
            tracing::info!(%server, lines = list.0.len(), "list of revoked certificates handed over");
            world.look_again(server).await;
        }
        Err(error) => {
            tracing::warn!(%server, %error, "a server did not take the list of revoked certificates; trying again")
        }
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::tls::{Principal, Revocation};
    use time::{Duration, OffsetDateTime};

    use super::{Access, Strangers};
    use crate::ca::BACKDATE;

    #[test]
    fn a_certificate_is_never_issued_among_those_that_are_refused() {
        let access = Access::default();
        let (nyc, now) = (Principal::agent("nyc"), OffsetDateTime::from_unix_timestamp(1_000_000).unwrap());
        assert_eq!(access.issue_at(&nyc, now), now);
        let valid_from_last = (now - BACKDATE).unix_timestamp();
        let line = Revocation { principal: nyc.clone(), valid_from_last };
        access.revoked.replace([line].into_iter().collect());
        for now in [now, now + Duration::milliseconds(999), now + Duration::hours(1), now - Duration::hours(1)] {
            let valid_from = (access.issue_at(&nyc, now) - BACKDATE).unix_timestamp();
            assert!(!access.revoked.list().refuses(&nyc, Some(valid_from)), "{now}");
        }
        assert_eq!(access.issue_at(&nyc, now + Duration::hours(1)), now + Duration::hours(1));
    }

    #[test]
    fn strangers_do_not_fill_the_store() {
        let (strangers, now) = (Strangers::default(), OffsetDateTime::UNIX_EPOCH);
        let taken = |at| (0..100).filter(|_| strangers.take(at)).count();
        assert_eq!((taken(now), taken(now), taken(now + Duration::seconds(5))), (60, 0, 5));
        assert_eq!(taken(now + Duration::hours(1)), 60);
        assert_eq!(taken(now), 0, "a clock that was set back gives nothing");
    }

    #[test]
    fn calls_are_noted_once_a_minute() {
        let access = Access::default();
        let (ada, now) = (Principal::agent("ada"), OffsetDateTime::UNIX_EPOCH);
        let noted = [0, 1, 59, 60, 61, 30].map(|second| access.is_news(&ada, now + Duration::seconds(second)));
        // The last one: a clock that was set back.
        assert_eq!(noted, [true, false, false, true, false, true]);
    }
}
