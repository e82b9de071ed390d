//! Whose calls are heard: the list of revoked certificates, who was seen when, and telling both to whom it concerns.
//!
//! Owns what is in force in this process; the store owns what outlives it. What a role may do is in `access/rights.rs`, the layer in
//! front of all services in `access/door.rs`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use feather_proto::{
    error::{Code, Error, reason},
    ids::ServerName,
    model::rfc3339,
    tls::{Peer, Principal, Revoked},
};
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::{
    ca::BACKDATE,
    pace,
    store::{PEOPLE, Store, UserRow},
    world::World,
};

pub mod door;
mod recorder;
pub mod rights;

/// A person's calls are noted at most so often.
const SEEN_AGAIN: Duration = Duration::minutes(1);
/// A certificate begins at most so much later than now.
const AHEAD_MAX: Duration = Duration::minutes(10);
/// Refused calls of one caller that are put down in the audit log, all who show no certificate being one: so many at once, and so many in a
/// second for good.
const REFUSALS: Rate = Rate { burst: 60.0, per_second: 1.0 };
/// Certificates that one name gets by showing the one that it has.
const RENEWALS: Rate = Rate { burst: 30.0, per_second: 1.0 / 3600.0 };

/// What somebody has under way at a controller that waits ends so long after its certificate was revoked, at most.
const REREAD_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// Who is heard, and who was.
#[derive(Default)]
pub struct Access {
    /// In force now, also for connections that this process opens.
    pub revoked: Revoked,
    seen: Mutex<BTreeMap<Principal, OffsetDateTime>>,
    /// Held from the look whether somebody is in to what follows from it: by whoever takes somebody out, until the list is in force, and
    /// by whoever gives out a certificate or a token, until it is noted. So each of these is wholly before a revocation or behind it.
    turn: tokio::sync::Mutex<()>,
    /// Refusals that may still be put down.
    refusals: Buckets,
    /// Renewals that may still be asked for.
    renewals: Buckets,
}

/// How fast a bucket fills, and how much is in it at most.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// One bucket for each caller, which fills again with time. Callers are names in certificates of this fleet's CA, so there are not many.
#[derive(Default)]
struct Buckets {
    /// How many are left, and as of when.
    left: Mutex<BTreeMap<String, (f64, OffsetDateTime)>>,
}

impl Buckets {
    /// Takes one, if one is left.
    fn take(&self, rate: Rate, caller: &str, now: OffsetDateTime) -> bool {
        let mut buckets = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(caller.to_owned()).or_insert((rate.burst, now));
        let passed = (now - bucket.1).as_seconds_f64().max(0.0);
        *bucket = ((bucket.0 + passed * rate.per_second).min(rate.burst), now);
        let taken = bucket.0 >= 1.0;
        if taken {
            bucket.0 -= 1.0;
        }
        taken
    }
}

impl Access {
    /// With the list that connections look at.
    pub fn new(revoked: Revoked) -> Self {
        Self { revoked, ..Self::default() }
    }

    /// Puts in force what the store says, on top of what is in force: a list that was read before another change takes nothing back.
    /// Idempotent.
    pub async fn load(&self, store: &Store) -> Result<(), Error> {
        self.revoked.extend(&store.revocations().await?);
        Ok(())
    }

    /// Waits until nobody is being taken out or let in. Not to be asked for by whoever holds it.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The same, for a caller that was heard before and may have been taken out since.
    ///
    /// # Errors
    /// It was: `PERMISSION_DENIED` with the reason `REVOKED`.
    pub async fn turn_of(&self, caller: &Peer) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let turn = self.turn().await;
        self.revoked.check(caller)?;
        Ok(turn)
    }

    /// When a certificate of this name is to be issued: now, but not so early that it would be among those that are refused.
    pub fn issue_at(&self, principal: &Principal, now: OffsetDateTime) -> OffsetDateTime {
        let first = self.revoked.list().0.get(principal).map(|last| last + 1 + BACKDATE.whole_seconds());
        first.and_then(|first| OffsetDateTime::from_unix_timestamp(first).ok()).map_or(now, |first| first.max(now))
    }

    /// May a refusal of this caller (empty for one without a certificate) be put down?
    fn puts_down(&self, caller: &str, now: OffsetDateTime) -> bool {
        self.refusals.take(REFUSALS, caller, now)
    }

    /// Lets a caller renew its certificate, now and then.
    ///
    /// # Errors
    /// It does nothing else: `RESOURCE_EXHAUSTED` with the reason `LIMIT`.
    pub fn may_renew(&self, principal: &Principal, now: OffsetDateTime) -> Result<(), Error> {
        if self.renewals.take(RENEWALS, &principal.to_string(), now) {
            return Ok(());
        }
        let message = format!(
            "{principal} renews its certificate again and again; the one that it has is good, try again in an hour"
        );
        Err(Error::new(Code::Full, reason::LIMIT, message))
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
        // Somebody who was revoked while its call came in is not noted as somebody who is in.
        let Ok(_turn) = self.turn_of(peer).await else { return };
        let until = peer.valid_until.and_then(|until| OffsetDateTime::from_unix_timestamp(until).ok());
        if let Err(error) = store.note_seen(principal, peer.valid_from, until, now).await {
            tracing::warn!(%principal, error = &error as &dyn std::error::Error, "cannot note who called");
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(principal);
        }
    }
}

/// Reads the list again and again, for a controller that changes nothing in it.
pub async fn reread(world: Arc<World>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = world.access.load(&world.store).await {
            tracing::warn!(%error, "cannot read whose certificates are revoked");
        }
        tokio::select! {
            () = tokio::time::sleep(world.settings.reconcile.min(REREAD_MAX)) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

impl World {
    /// Takes a server out of the fleet, and refuses all certificates that it has now: at once by this controller, and by the agents within
    /// moments. A later invitation gives it another.
    pub async fn remove_server(&self, server: &ServerName) -> Result<(), Error> {
        let _turn = self.access.turn().await;
        let removed = self.store.remove_server(server, self.clock.now()).await;
        // Also when the store did not say that it was done: it may have been.
        self.access.load(&self.store).await?;
        self.ring_desired();
        Ok(removed?)
    }

    /// The same for a server that is dead, with whoever lives on it. Idempotent.
    pub async fn lose_server(&self, server: &ServerName) -> Result<(), Error> {
        let _turn = self.access.turn().await;
        let lost = self.store.lose_server(server, self.clock.now()).await;
        self.access.load(&self.store).await?;
        self.ring_desired();
        Ok(lost.map(drop)?)
    }

    /// Refuses all certificates that these names have now, for a caller who is in itself, if people as they are now say that they may go.
    /// Idempotent.
    pub async fn revoke(
        &self,
        principals: &[Principal],
        caller: &Peer,
        may: impl FnOnce(&[UserRow], OffsetDateTime) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let _turn = self.access.turn_of(caller).await?;
        let now = self.clock.now();
        may(&self.store.users().await?, now)?;
        let by = caller.principal.as_ref().map(ToString::to_string).unwrap_or_default();
        let revoked = self.store.revoke(principals, &by, now).await;
        self.access.load(&self.store).await?;
        Ok(revoked?)
    }

    /// When a certificate of this name is to be issued, by whoever has the turn. Noted before it is handed out: a revocation reaches so far.
    ///
    /// # Errors
    /// It would begin so far ahead that it were of no use: certificates were handed out, and revoked, while a clock was wrong.
    pub async fn issue(&self, principal: &Principal) -> Result<OffsetDateTime, Error> {
        let now = self.clock.now();
        let at = self.access.issue_at(principal, now);
        if at - now > AHEAD_MAX {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!(
                    "{principal} had certificates that begin at {}, by a clock that was wrong then or is now, and they are refused; a new one \
                     would begin behind them. Look at the controller's clock; if it is right, use another name",
                    rfc3339(at)
                ),
            ));
        }
        self.store.note_issued(principal, (at - BACKDATE).unix_timestamp()).await?;
        Ok(at)
    }
}

/// Reconciler: every agent that answers has the list that is in force.
pub async fn spread(world: Arc<World>, shutdown: CancellationToken) {
    let mut list = world.access.revoked.subscribe();
    let mut observed = world.fleet.subscribe();
    loop {
        let began = tokio::time::Instant::now();
        // Whoever changed the store may have ended before it could say so.
        if let Err(error) = world.access.load(&world.store).await {
            tracing::warn!(%error, "cannot read the list of revoked certificates; trying again");
        }
        let current = list.borrow_and_update().clone();
        let digest = current.digest();
        for (server, seen) in world.fleet.all() {
            if seen.alive().is_some_and(|snapshot| snapshot.revocations_digest != digest) {
                tell(&world, &server, &current).await;
            }
        }
        // Whose certificate is revoked is told at once, whatever else is to be looked at.
        tokio::select! {
            _ = list.changed() => continue,
            () = pace::rest_since(began) => {}
            () = shutdown.cancelled() => return,
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
    use feather_proto::tls::{Peer, Principal, Revocation, Role};
    use time::{Duration, OffsetDateTime};

    use super::{Access, SEEN_AGAIN};
    use crate::{ca::BACKDATE, store::Store};

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

    #[tokio::test]
    async fn what_the_store_said_before_takes_nothing_back_and_who_is_out_gets_no_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/test.db", folder.path().display())).await.unwrap();
        let access = Access::default();
        let (ada, now) = (Principal { role: Role::Admin, name: "ada".into() }, OffsetDateTime::UNIX_EPOCH);
        let peer = Peer { principal: Some(ada.clone()), valid_from: Some(0), ..Peer::default() };
        drop(access.turn_of(&peer).await.unwrap());
        access.revoked.replace([Revocation { principal: ada.clone(), valid_from_last: 7 }].into_iter().collect());
        // Its list is empty yet, as one that was read a moment ago.
        access.load(&store).await.unwrap();
        assert!(access.turn_of(&peer).await.is_err());
        // Nor is it noted.
        access.note(&store, &peer, now).await;
        assert_eq!(store.users().await.unwrap(), []);
        let later = Peer { valid_from: Some(8), ..peer };
        access.note(&store, &later, now + SEEN_AGAIN).await;
        assert_eq!(store.users().await.unwrap().len(), 1);
    }

    #[test]
    fn nobody_fills_the_store_by_being_refused() {
        let (access, now) = (Access::default(), OffsetDateTime::UNIX_EPOCH);
        for caller in ["", "viewer/eve"] {
            let taken = |at| (0..100).filter(|_| access.puts_down(caller, at)).count();
            assert_eq!((taken(now), taken(now), taken(now + Duration::seconds(5))), (60, 0, 5), "{caller:?}");
            assert_eq!(taken(now + Duration::hours(1)), 60);
            assert_eq!(taken(now), 0, "a clock that was set back gives nothing");
        }
    }

    #[test]
    fn a_certificate_is_renewed_now_and_then() {
        let (access, now, ada) = (Access::default(), OffsetDateTime::UNIX_EPOCH, Principal::agent("ada"));
        let renewed = |at| (0..100).filter(|_| access.may_renew(&ada, at).is_ok()).count();
        assert_eq!((renewed(now), renewed(now), renewed(now + Duration::hours(2))), (30, 0, 2));
        assert!(access.may_renew(&ada, now).unwrap_err().is(feather_proto::error::reason::LIMIT));
        assert!(access.may_renew(&Principal::agent("bob"), now).is_ok(), "others are not touched");
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
