//! Who may fetch which volume: tickets for one peer, one tenant, one generation, some minutes.
//!
//! Owns the tickets (as hashes, in memory only: an agent that restarts has granted nothing) and ends the transfers that use
//! them when they are revoked. Knows nothing of records: whether a tenant may be sent is decided before a grant and again
//! before every transfer.

use std::{collections::BTreeMap, fmt, sync::Mutex, time::Duration};

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
    tls::{Principal, Role},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::locked;

/// Shortest ticket.
const TICKET_MIN: usize = 32;
/// Longest life of a ticket.
const TTL_MAX_SECONDS: u32 = 3600;

/// A secret that the controller chose for one move.
#[derive(Clone)]
pub(crate) struct Ticket(String);

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ticket(..)")
    }
}

impl Ticket {
    /// Refuses what could be guessed.
    pub(crate) fn parse(text: String) -> Result<Self, Error> {
        if (TICKET_MIN..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text));
        }
        Err(feather_proto::model::invalid_field("ticket", "32 to 512 printable ASCII characters"))
    }

    /// For the one call that presents it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    fn hash(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }
}

/// The life of a ticket, from the field of a request.
pub(crate) fn time_to_live(seconds: u32) -> Result<Duration, Error> {
    if (1..=TTL_MAX_SECONDS).contains(&seconds) {
        return Ok(Duration::from_secs(seconds.into()));
    }
    Err(feather_proto::model::invalid_field("ttl_seconds", "from 1 to 3600"))
}

/// Who may fetch a volume, and for which placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) generation: Generation,
    pub(crate) peer: ServerName,
    /// The controller presents the ticket in the peer's place.
    pub(crate) relayed: bool,
}

impl Terms {
    fn admits(&self, caller: &Principal) -> bool {
        match self.relayed {
            true => caller.role == Role::Controller,
            false => caller.role == Role::Agent && caller.name == self.peer.as_str(),
        }
    }
}

struct Grant {
    ticket_hash: [u8; 32],
    terms: Terms,
    expires: Instant,
    /// Ends every transfer under this grant.
    revoked: CancellationToken,
    /// Ends the newest one.
    sending: CancellationToken,
}

/// All tickets of this server, at most one per tenant.
#[derive(Default)]
pub(crate) struct Grants(Mutex<BTreeMap<TenantName, Grant>>);

impl Grants {
    /// Lets one peer fetch one volume. A newer grant takes the place of an older one.
    pub(crate) fn grant(&self, tenant: &TenantName, terms: Terms, ticket: &Ticket, life: Duration) {
        let revoked = CancellationToken::new();
        let sending = revoked.child_token();
        let expires = Instant::now() + life;
        let ticket_hash = Ticket::hash(&ticket.0);
        let mut grants = locked(&self.0);
        if let Some(same) = grants.get_mut(tenant)
            && bool::from(same.ticket_hash.ct_eq(&ticket_hash))
            && same.terms == terms
        {
            same.expires = expires;
            return;
        }
        let grant = Grant { ticket_hash, terms, expires, revoked, sending };
        if let Some(old) = grants.insert(tenant.clone(), grant) {
            old.revoked.cancel();
        }
    }

    /// The caller may read the volume until the token is cancelled. An older transfer under the same ticket ends: its other
    /// end has evidently given up. Every mismatch gives the same answer.
    pub(crate) fn redeem(
        &self,
        caller: &Principal,
        tenant: &TenantName,
        generation: Generation,
        ticket: &str,
    ) -> Result<CancellationToken, Error> {
        let mut grants = locked(&self.0);
        let presented = Ticket::hash(ticket);
        let grant = grants.get_mut(tenant).filter(|grant| {
            let right_ticket = bool::from(grant.ticket_hash.ct_eq(&presented));
            let right_terms = grant.terms.admits(caller) & (grant.terms.generation == generation);
            right_ticket & right_terms & (Instant::now() < grant.expires)
        });
        let Some(grant) = grant else {
            return Err(Error::denied(
                reason::TICKET,
                "this ticket does not open this volume: it is wrong, expired, or was granted to another server; start the move again",
            ));
        };
        grant.sending.cancel();
        grant.sending = grant.revoked.child_token();
        Ok(grant.sending.clone())
    }

    /// Nobody may read the tenant's volume any more.
    pub(crate) fn revoke(&self, tenant: &TenantName) {
        if let Some(grant) = locked(&self.0).remove(tenant) {
            grant.revoked.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use feather_proto::{error::reason, ids::Generation, tls::Principal};

    use super::{Grants, Terms, Ticket};

    const TICKET: &str = "0123456789abcdef0123456789abcdef";

    fn granted() -> Grants {
        granted_on(Terms { generation: Generation(4), peer: "fra".parse().unwrap(), relayed: false })
    }

    fn granted_on(terms: Terms) -> Grants {
        let grants = Grants::default();
        let ticket = Ticket::parse(TICKET.into()).unwrap();
        grants.grant(&"alice".parse().unwrap(), terms, &ticket, Duration::from_secs(60));
        grants
    }

    #[tokio::test]
    async fn a_relayed_ticket_is_the_controllers_alone() {
        let terms = Terms { generation: Generation(4), peer: "fra".parse().unwrap(), relayed: true };
        let (grants, alice) = (granted_on(terms), "alice".parse().unwrap());
        let denied = grants.redeem(&Principal::agent("fra"), &alice, Generation(4), TICKET).unwrap_err();
        assert!(denied.is(reason::TICKET));
        assert!(grants.redeem(&Principal::controller(), &alice, Generation(4), TICKET).is_ok());
    }

    #[tokio::test]
    async fn every_mismatch_gets_the_same_answer() {
        let grants = granted();
        let (fra, alice) = (Principal::agent("fra"), "alice".parse().unwrap());
        let other = "f".repeat(32);
        let attempts = [
            grants.redeem(&Principal::agent("nyc"), &alice, Generation(4), TICKET),
            grants.redeem(&Principal::controller(), &alice, Generation(4), TICKET),
            grants.redeem(&fra, &"bob".parse().unwrap(), Generation(4), TICKET),
            grants.redeem(&fra, &alice, Generation(5), TICKET),
            grants.redeem(&fra, &alice, Generation(4), &other),
            grants.redeem(&fra, &alice, Generation(4), ""),
        ];
        let errors: Vec<_> = attempts.into_iter().map(Result::unwrap_err).collect();
        assert!(errors.iter().all(|error| error.is(reason::TICKET) && *error == errors[0]));
        assert!(grants.redeem(&fra, &alice, Generation(4), TICKET).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_can_be_used_again_until_it_expires() {
        let grants = granted();
        let (fra, alice) = (Principal::agent("fra"), "alice".parse().unwrap());
        let first = grants.redeem(&fra, &alice, Generation(4), TICKET).unwrap();
        let second = grants.redeem(&fra, &alice, Generation(4), TICKET).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(grants.redeem(&fra, &alice, Generation(4), TICKET).is_err());
        assert!(!second.is_cancelled());
        grants.revoke(&alice);
        assert!(second.is_cancelled());
    }

    #[test]
    fn short_tickets_are_refused_and_debug_shows_nothing() {
        assert!(Ticket::parse("short".into()).is_err());
        let ticket = Ticket::parse(TICKET.into()).unwrap();
        assert!(!format!("{ticket:?}").contains(TICKET));
    }
}
