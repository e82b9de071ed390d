//! The agent as a whole: its local side, which needs nobody, and its gRPC side, which needs an identity.
//!
//! Owns the order of starting and stopping. Binds nothing and reads no environment: whoever calls hands everything in, so that
//! tests run many agents in one process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use feather_proto::{
    ids::ServerName,
    tls::{self, ClientCertificate, IdentityError, Incoming, Role, Rotating},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    agent::{Agent, Seams},
    api, ask,
    config::Config,
    fenced, history,
    join::Membership,
    ledger::{self, Directory, Ledger, Storage},
    local::Socket,
    reconcile, revoked,
    standing::Member,
    waitlist::Door,
    watchdog,
    work::{Book, Work},
};

/// Calls under way have this long to end when the agent stops. What is cut off is taken up again from the ledger.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is somebody else's.
    #[error("the identity belongs to {0}, and an agent needs one with the role agent; join this server to the fleet")]
    NotAnAgent(String),
    /// Serving ended.
    #[error("the gRPC server ended")]
    Transport(#[from] tonic::transport::Error),
}

/// The local side of an agent: the ledger and the reconciler. Dropping it ends everything at once, as a crash would.
pub struct Local {
    agent: Arc<Agent>,
    _ended: DropGuard,
}

impl Local {
    /// Reads the ledger and begins to bring tenants back.
    ///
    /// # Errors
    /// [`Error::Ledger`] when the directory cannot be read. A damaged record of one tenant is no error: it is reported.
    pub fn start(config: Config, seams: Seams) -> Result<Self, Error> {
        let storage = Directory::new(config.ledger_dir())?;
        Self::start_on(config, seams, Arc::new(storage))
    }

    /// The same on another storage, for tests that make it fail.
    pub fn start_on(config: Config, seams: Seams, storage: Arc<dyn Storage>) -> Result<Self, Error> {
        let work = Directory::new(config.work_dir())?;
        Self::start_with(config, seams, storage, Arc::new(work))
    }

    /// The same with another storage for the record of the admin container, too.
    pub(crate) fn start_with(
        config: Config,
        seams: Seams,
        storage: Arc<dyn Storage>,
        work: Arc<dyn Storage>,
    ) -> Result<Self, Error> {
        let (history, remembered) = history::open(&config.history_dir());
        let agent = Agent::new(config, seams, Ledger::open(storage)?, Work::new(Book::open(work)?), &remembered);
        if let Some(storage) = history {
            agent.tasks.spawn(history::keep(agent.clone(), storage, remembered));
        }
        agent.tasks.spawn(reconcile::run(agent.clone()));
        agent.tasks.spawn(fenced::run(agent.clone()));
        agent.tasks.spawn(watchdog::run(agent.clone()));
        if let Some(door) = agent.config.waitlist.clone() {
            agent.tasks.spawn(agent.waitlist.clone().keep_open(door, agent.clock.clone(), agent.ended.clone()));
        }
        let ended = agent.ended.clone().drop_guard();
        Ok(Self { agent, _ended: ended })
    }

    /// From now on Caddy may ask at this address for which names it may get a certificate.
    pub fn answer_caddy(&self, address: SocketAddr) {
        let agent = self.agent.clone();
        let ended = agent.ended.clone();
        self.agent.tasks.spawn(async move { ended.run_until_cancelled(ask::run(agent, address)).await });
    }

    /// Serves the local socket until the agent ends.
    pub fn listen_locally(&self, socket: Socket) {
        let agent = self.agent.clone();
        self.agent.tasks.spawn(async move {
            if let Err(error) = api::serve_local(agent, socket).await {
                tracing::error!(%error, "the local socket is not served any more");
            }
        });
    }

    /// Makes this server a member: once everything that it decided by itself is done, the controller decides. Serves gRPC until
    /// `shutdown`, then lets calls under way end for a moment.
    ///
    /// # Errors
    /// [`Error::Identity`] and [`Error::NotAnAgent`] before anything is served.
    pub async fn listen(
        &self,
        identity: Rotating,
        incoming: Incoming,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let principal = identity.identity().principal()?;
        let server: Option<ServerName> = principal.name.parse().ok();
        let (Role::Agent, Some(server)) = (principal.role, server) else {
            return Err(Error::NotAnAgent(principal.to_string()));
        };
        revoked::restore(identity.revoked(), &self.agent.config.revoked_file());
        self.agent.leader.load();
        fenced::heed_join(&self.agent).await;
        let connections = tls::incoming(incoming, &identity, ClientCertificate::Required, false)?;
        let controller = Membership::load(&self.agent.config.controller_file()).ok();
        let member = Member { server: server.clone(), controller: controller.map(|known| known.controller) };
        // One agent has one identity; what changes is the certificate in it.
        drop(self.agent.identity.set(identity.clone()));
        tokio::select! {
            () = self.agent.authority.become_member(member) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        Membership::note_served(&self.agent.config.controller_file());
        tracing::info!(%server, "serving");
        let serving = api::serve(self.agent.clone(), server, identity, connections, shutdown.clone());
        let mut serving = Box::pin(serving);
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            () = shutdown.cancelled() => {}
        }
        self.agent.closing.cancel();
        if tokio::time::timeout(STOP_GRACE, &mut serving).await.is_err() {
            self.agent.ended.cancel();
            drop(tokio::time::timeout(STOP_GRACE, &mut serving).await);
        }
        Ok(())
    }

    /// Offers the waitlist on a listener that the caller has bound.
    pub fn open_waitlist(&self, listener: TcpListener, door: Door) {
        let (clock, ended) = (self.agent.clock.clone(), self.agent.ended.clone());
        self.agent.tasks.spawn(self.agent.waitlist.clone().serve(listener, door, clock, ended));
    }

    /// Ends the reconciler and waits until nothing of the agent runs any more.
    pub async fn stop(self) {
        self.agent.ended.cancel();
        self.agent.tasks.close();
        self.agent.tasks.wait().await;
    }
}

/// Runs a whole agent until `shutdown`.
///
/// # Errors
/// See [`Local::start`] and [`Local::listen`].
pub async fn serve(
    config: Config,
    seams: Seams,
    identity: Rotating,
    incoming: Incoming,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let local = Local::start(config, seams)?;
    let served = local.listen(identity, incoming, shutdown).await;
    local.stop().await;
    served
}
