//! Who decides about the tenants of this server: the server by itself, or the controller of the fleet it belongs to.
//!
//! Owns the one moment at which that changes. Generations are issued by one side only: a server that belongs to no fleet holds
//! its [`Right`] from the decision to the last effect, and becoming a member waits until nobody holds one. A controller can
//! therefore not ask anything of this agent, not even what it holds, before everything that was decided here is in the ledger
//! and done. Knows nothing of tenants.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::fenced::Fence;

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This server.
    Alone,
    /// Nobody for a moment: there is an identity, and it is not in use yet.
    Joining,
    /// Nobody: a member whose identity is gone. Its controller still counts on it.
    Lost,
    /// Nobody: the fleet has taken this server out, and gives its tenants other homes.
    Fenced,
    /// The controller.
    Member(Member),
}

/// What a member knows of its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name there.
    pub(crate) server: ServerName,
    /// `host:port` of the controller; `None` when the file that says so is gone.
    pub(crate) controller: Option<String>,
}

/// The right to decide about tenants here. Nobody becomes a member while it lives.
pub(crate) struct Right {
    _alone: OwnedRwLockReadGuard<()>,
}

/// Where this server stands.
pub(crate) struct Authority {
    /// Read by whoever decides here, written when that ends.
    alone: Arc<RwLock<()>>,
    standing: Mutex<Standing>,
    /// An identity on disk means that this server has joined, whether this process knows it or not.
    identity_file: PathBuf,
    /// So does this, which a join writes before the identity.
    membership_file: PathBuf,
    /// What the fleet decided about this server holds also when both are gone.
    fence: Fence,
}

impl Authority {
    pub(crate) fn new(identity_file: PathBuf, membership_file: PathBuf, fence: Fence) -> Self {
        Self { alone: Arc::default(), standing: Mutex::new(Standing::Alone), identity_file, membership_file, fence }
    }

    pub(crate) fn standing(&self) -> Standing {
        if self.fence.is_closed() {
            return Standing::Fenced;
        }
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match standing {
            Standing::Alone if self.identity_file.exists() => Standing::Joining,
            Standing::Alone if self.membership_file.exists() => Standing::Lost,
            standing => standing,
        }
    }

    /// The right to decide, on a server that belongs to no fleet.
    pub(crate) fn decide(&self) -> Result<Right, Standing> {
        // Whoever becomes a member waits for the lock, and nobody waits for him: the answer is `Joining` at once.
        let Ok(alone) = self.alone.clone().try_read_owned() else { return Err(Standing::Joining) };
        match self.standing() {
            Standing::Alone => Ok(Right { _alone: alone }),
            other => Err(other),
        }
    }

    /// From now on the controller decides. Waits for what was decided here to be done.
    pub(crate) async fn become_member(&self, member: Member) {
        self.set(Standing::Joining);
        let _nobody_decides_here = self.alone.write().await;
        self.set(Standing::Member(member));
    }

    fn set(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

/// The error while nobody decides for a moment.
pub(crate) fn joining() -> Error {
    Error::unavailable(
        reason::CONTROLLER_UNREACHABLE,
        "this server is just joining its fleet; nothing was changed: try again in a moment",
    )
}

impl Authority {
    /// The error while nobody decides until a person does something about it.
    pub(crate) fn lost(&self) -> Error {
        Error::refused(
            reason::WRONG_STATE,
            format!(
                "this server is a member of a fleet and its identity is gone; nothing was changed: let it rejoin with `featherctl server \
                 invite NAME --rejoin`, or, once the fleet knows it no more, delete {} so that it decides by itself",
                self.membership_file.display()
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Authority, Member, Standing};
    use crate::fenced::Fence;

    #[tokio::test]
    async fn a_server_becomes_a_member_only_when_all_that_it_decided_itself_is_done() {
        let authority = Arc::new(Authority::new("/nonexistent/a".into(), "/nonexistent/b".into(), Fence::default()));
        let right = authority.decide().ok().unwrap();
        let member = Member { server: "nyc".parse().unwrap(), controller: None };
        let joining = tokio::spawn({
            let (authority, member) = (authority.clone(), member.clone());
            async move { authority.become_member(member).await }
        });
        while authority.standing() == Standing::Alone {
            tokio::task::yield_now().await;
        }
        assert_eq!(authority.decide().err(), Some(Standing::Joining));
        assert!(!joining.is_finished());
        drop(right);
        joining.await.unwrap();
        assert_eq!(authority.decide().err(), Some(Standing::Member(member)));
    }

    #[test]
    fn an_identity_on_disk_ends_the_right_before_anybody_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (identity, membership) = (dir.path().join("agent.identity"), dir.path().join("controller.json"));
        let authority = Authority::new(identity.clone(), membership.clone(), Fence::default());
        assert!(authority.decide().is_ok());
        // A join that was cut off between the two, or a member whose identity somebody deleted: its controller counts on it.
        std::fs::write(membership, "x").unwrap();
        assert_eq!(authority.decide().err(), Some(Standing::Lost));
        std::fs::write(identity, "x").unwrap();
        assert_eq!(authority.decide().err(), Some(Standing::Joining));
    }
}
