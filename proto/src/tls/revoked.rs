//! Certificates that are not accepted any more, although they have not ended.
//!
//! Owns the list and the handle through which whoever serves or dials looks at it. Who comes onto it is the controller's to
//! decide; agents get it from there.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    identity::{Principal, Role},
    serve::Peer,
};
use crate::{
    error::{Error, reason},
    pb::agent::v1 as pb,
};

/// For each name the last moment of its refused certificates: those valid from that second (since 1970) or an earlier one.
/// Certificates are not listed one by one, because those made from the CA's key by hand are in no book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(pub BTreeMap<Principal, i64>);

/// One line of the list, as it is sent and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Whose certificates.
    pub principal: Principal,
    /// Those that are valid from this second, since 1970, or an earlier one.
    pub valid_from_last: i64,
}

impl Revocations {
    /// Is a certificate of this name, valid from that second, refused? One that does not say from when it is valid is, as soon as
    /// its name is on the list.
    pub fn refuses(&self, principal: &Principal, valid_from: Option<i64>) -> bool {
        self.0.get(principal).is_some_and(|last| valid_from.is_none_or(|from| from <= *last))
    }

    /// Refuses more than before; never less.
    pub fn add(&mut self, one: Revocation) {
        let last = self.0.entry(one.principal).or_insert(one.valid_from_last);
        *last = one.valid_from_last.max(*last);
    }

    /// The lines of the list, in order of names.
    pub fn lines(&self) -> Vec<Revocation> {
        let line =
            |(principal, last): (&Principal, &i64)| Revocation { principal: principal.clone(), valid_from_last: *last };
        self.0.iter().map(line).collect()
    }

    /// Names a list by what is on it; empty for the empty one.
    pub fn digest(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let text: String = self.0.iter().map(|(principal, last)| format!("{} {last}\n", principal.uri())).collect();
        super::sha256_hex(text.as_bytes())
    }
}

impl FromIterator<Revocation> for Revocations {
    fn from_iter<I: IntoIterator<Item = Revocation>>(lines: I) -> Self {
        let mut all = Self::default();
        lines.into_iter().for_each(|line| all.add(line));
        all
    }
}

impl From<Revocation> for pb::Revocation {
    fn from(line: Revocation) -> Self {
        Self { principal: line.principal.uri(), valid_from_last: line.valid_from_last }
    }
}

impl TryFrom<pb::Revocation> for Revocation {
    type Error = Error;

    fn try_from(line: pb::Revocation) -> Result<Self, Error> {
        let principal = line.principal.parse();
        let principal = principal.map_err(|()| crate::model::invalid_field("principal", "feather://ROLE/NAME"))?;
        Ok(Self { principal, valid_from_last: line.valid_from_last })
    }
}

/// The list that is in force in this process. Clones share it.
#[derive(Debug, Clone)]
pub struct Revoked {
    list: watch::Sender<Arc<Revocations>>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self { list: watch::Sender::new(Arc::default()) }
    }
}

impl Revoked {
    /// The list now.
    pub fn list(&self) -> Arc<Revocations> {
        self.list.borrow().clone()
    }

    /// From now on this list is in force, also for calls under way.
    pub fn replace(&self, list: Revocations) {
        self.list.send_replace(Arc::new(list));
    }

    /// From now on these are refused as well, also for calls under way. A list that is older than the one in force takes nothing back.
    pub fn extend(&self, more: &Revocations) {
        self.list.send_if_modified(|list| {
            let mut all = Revocations::clone(list);
            more.lines().into_iter().for_each(|line| all.add(line));
            let changed = all != **list;
            if changed {
                *list = Arc::new(all);
            }
            changed
        });
    }

    /// Rings when another list is in force.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Revocations>> {
        self.list.subscribe()
    }

    /// The error for a peer whose certificate is on the list.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` with the reason `REVOKED`.
    pub fn check(&self, peer: &Peer) -> Result<(), Error> {
        match &peer.principal {
            Some(principal) if self.list.borrow().refuses(principal, peer.valid_from) => Err(refused(principal)),
            _ => Ok(()),
        }
    }

    /// Ends when a peer's certificate comes onto the list, with the error for it; never, for a peer without one.
    pub fn ended(&self, peer: &Peer) -> impl Future<Output = Error> + Send + use<> {
        let (mut list, peer) = (self.list.subscribe(), peer.clone());
        async move {
            if let Some(principal) = &peer.principal
                && list.wait_for(|list| list.refuses(principal, peer.valid_from)).await.is_ok()
            {
                return refused(principal);
            }
            std::future::pending().await
        }
    }
}

fn refused(principal: &Principal) -> Error {
    let name = &principal.name;
    let message = match principal.role {
        Role::Agent => format!(
            "{name} is no member of the fleet by this certificate any more; invite it again with `featherctl server invite {name}`"
        ),
        _ => format!(
            "the certificate of {principal} was revoked; an admin can let {name} log in again: `featherctl user add {name}`"
        ),
    };
    Error::denied(reason::REVOKED, message)
}

#[cfg(test)]
mod tests {
    use super::{Revocation, Revocations, Revoked};
    use crate::tls::{Peer, Principal, Role};

    fn ada() -> Principal {
        Principal { role: Role::Operator, name: "ada".into() }
    }

    fn list(valid_from_last: i64) -> Revocations {
        [Revocation { principal: ada(), valid_from_last }].into_iter().collect()
    }

    fn peer(principal: Principal, valid_from: Option<i64>) -> Peer {
        Peer { principal: Some(principal), valid_from, ..Peer::default() }
    }

    #[test]
    fn older_certificates_of_a_name_are_refused_and_newer_ones_are_not() {
        let list = list(100);
        for (valid_from, refused) in [(Some(99), true), (Some(100), true), (Some(101), false), (None, true)] {
            assert_eq!(list.refuses(&ada(), valid_from), refused, "{valid_from:?}");
        }
        let namesake = Principal { role: Role::Admin, ..ada() };
        assert!(!list.refuses(&namesake, Some(0)), "another role is another name");
    }

    #[test]
    fn a_list_never_refuses_less_and_is_named_by_what_is_on_it() {
        let mut all = list(100);
        let digest = all.digest();
        all.add(Revocation { principal: ada(), valid_from_last: 50 });
        assert_eq!((all.lines().len(), all.digest()), (1, digest.clone()));
        all.add(Revocation { principal: ada(), valid_from_last: 101 });
        assert!(all.refuses(&ada(), Some(101)) && all.digest() != digest);
        assert_eq!(Revocations::default().digest(), "");
    }

    #[test]
    fn an_older_list_takes_nothing_back() {
        let revoked = Revoked::default();
        let mut rung = revoked.subscribe();
        rung.mark_unchanged();
        for (last, rings, now) in [(100, true, 100), (50, false, 100), (100, false, 100), (101, true, 101)] {
            revoked.extend(&list(last));
            assert_eq!(rung.has_changed().unwrap(), rings, "{last}");
            rung.mark_unchanged();
            assert_eq!(*revoked.list(), list(now), "{last}");
        }
        revoked.extend(&Revocations::default());
        assert_eq!(*revoked.list(), list(101));
    }

    #[tokio::test]
    async fn whoever_is_connected_is_told() {
        let revoked = Revoked::default();
        let (old, new) = (peer(ada(), Some(7)), peer(ada(), Some(8)));
        let (ended, going_on) = (revoked.ended(&old), revoked.ended(&new));
        assert!(revoked.check(&old).is_ok());
        revoked.replace(list(7));
        assert!(ended.await.message.contains("operator/ada was revoked"));
        assert!(revoked.check(&old).is_err() && revoked.check(&new).is_ok());
        let mut going_on = std::pin::pin!(going_on);
        assert!(futures::poll!(&mut going_on).is_pending());
        assert!(revoked.check(&Peer::default()).is_ok(), "who shows nothing has nothing revoked");
    }
}
