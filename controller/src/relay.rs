//! Which passes over volumes this controller may relay: those that operations of its own have under way, for as long as they do.
//!
//! Owns the register, in memory only: a controller that restarts relays nothing until it drives the move again. Keeps of a ticket
//! no more than its hash, and sees nothing of what is passed on.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// A message of a transfer holds at most a batch of 2 MiB or a list of 6 MiB, and its envelope.
pub const MESSAGE_MAX_BYTES: usize = 8 << 20;

/// One pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose volume.
    pub tenant: TenantName,
    /// Generation under which it will live on the target.
    pub generation: Generation,
    /// Where it lives.
    pub source: ServerName,
    /// The only one that may fetch it.
    pub target: ServerName,
}

struct Relay {
    terms: Terms,
    ticket_hash: [u8; 32],
    ended: CancellationToken,
}

/// The register.
#[derive(Default)]
pub struct Relays(Mutex<BTreeMap<TenantName, Relay>>);

/// A pass is under way for as long as this lives.
pub struct Open<'a> {
    relays: &'a Relays,
    tenant: TenantName,
    ended: CancellationToken,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.ended.cancel();
        // A newer pass over the same volume has taken its place in the register.
        let mut relays = self.relays.lock();
        if relays.get(&self.tenant).is_some_and(|relay| relay.ended.is_cancelled()) {
            relays.remove(&self.tenant);
        }
    }
}

fn hash(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

impl Relays {
    /// From now on the target may fetch by way of this controller.
    pub fn open(&self, terms: Terms, ticket: &str) -> Open<'_> {
        let (tenant, ended) = (terms.tenant.clone(), CancellationToken::new());
        let relay = Relay { terms, ticket_hash: hash(ticket), ended: ended.clone() };
        if let Some(older) = self.lock().insert(tenant.clone(), relay) {
            older.ended.cancel();
        }
        Open { relays: self, tenant, ended }
    }

    /// Where a caller's pass leads, and what ends it. Every mismatch gives the same answer.
    pub fn admit(
        &self,
        caller: &ServerName,
        tenant: &TenantName,
        generation: Generation,
        ticket: &str,
    ) -> Result<(ServerName, CancellationToken), Error> {
        let relays = self.lock();
        // Hashes are compared: how long that takes says nothing of the ticket.
        let found = relays.get(tenant).filter(|relay| {
            (relay.ticket_hash == hash(ticket))
                & (relay.terms.target == *caller)
                & (relay.terms.generation == generation)
                & !relay.ended.is_cancelled()
        });
        found.map(|relay| (relay.terms.source.clone(), relay.ended.clone())).ok_or_else(|| {
            Error::denied(
                reason::TICKET,
                "this controller relays no such transfer: the ticket is wrong, its move has ended, or it was granted to another server; \
                 start the move again",
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantName, Relay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::{error::reason, ids::Generation};

    use super::{Relays, Terms};

    fn terms() -> Terms {
        Terms {
            tenant: "alice".parse().unwrap(),
            generation: Generation(4),
            source: "nyc".parse().unwrap(),
            target: "fra".parse().unwrap(),
        }
    }

    #[test]
    fn only_the_target_of_a_pass_that_is_under_way_is_admitted() {
        let relays = Relays::default();
        let (fra, ams) = ("fra".parse().unwrap(), "ams".parse().unwrap());
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let open = relays.open(terms(), "right");
        let (source, ended) = relays.admit(&fra, &alice, Generation(4), "right").unwrap();
        assert_eq!(source.as_str(), "nyc");
        let wrong = [
            relays.admit(&ams, &alice, Generation(4), "right"),
            relays.admit(&fra, &bob, Generation(4), "right"),
            relays.admit(&fra, &alice, Generation(3), "right"),
            relays.admit(&fra, &alice, Generation(4), "wrong"),
            relays.admit(&fra, &alice, Generation(4), ""),
        ];
        assert!(wrong.into_iter().all(|answer| answer.unwrap_err().is(reason::TICKET)));
        drop(open);
        assert!(ended.is_cancelled());
        assert!(relays.admit(&fra, &alice, Generation(4), "right").is_err());
    }

    #[test]
    fn a_newer_pass_ends_an_older_one_and_outlives_it() {
        let relays = Relays::default();
        let (fra, alice) = ("fra".parse().unwrap(), "alice".parse().unwrap());
        let older = relays.open(terms(), "first");
        let (_, ended) = relays.admit(&fra, &alice, Generation(4), "first").unwrap();
        let newer = relays.open(terms(), "second");
        assert!(ended.is_cancelled());
        drop(older);
        assert!(relays.admit(&fra, &alice, Generation(4), "second").is_ok());
        drop(newer);
    }
}
