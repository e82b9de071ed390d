//! The agent of one server: what all its calls and its reconciler share.
//!
//! Owns the order of things: one mutating call per tenant at a time, the ledger before the effect, routes in one change.
//! The decisions are in `transition.rs`; the effects are in the submodules, one per concern. Knows nothing of gRPC.

mod adopt;
mod container;
mod data;
mod drain;
mod fenced;
mod health;
mod lifecycle;
mod limits;
mod looked;
mod moving;
mod report;
mod routes;
mod transfer;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64},
};

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    model::{ContainerState, TenantReport},
    tls,
};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    certificate::Certificates,
    clock::Clock,
    config::Config,
    events::Events,
    fenced::Fence,
    gate::Gates,
    grant::Grants,
    history::Remembered,
    leader::Leader,
    ledger::{Ledger, Record, Spec},
    link::Links,
    router::Router,
    runtime::Runtime,
    standing::Authority,
    transition::Next,
    volume::Notes,
    waitlist::Waitlist,
    watch::Watch,
    work::Work,
};

pub(crate) use container::GENERATION_LABEL;
pub(crate) use health::{Awaited, Watched};
pub(crate) use lifecycle::Started;
use looked::Looked;
pub(crate) use transfer::{PullRequest, Pulled, Sent, Statistics, Told};

/// Everything outside the agent that it acts through.
#[derive(Clone)]
pub struct Seams {
    /// Containers, volumes, images.
    pub runtime: Arc<dyn Runtime>,
    /// The reverse proxy.
    pub router: Arc<dyn Router>,
    /// How peers are reached.
    pub dial: Arc<dyn tls::Dial>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// What the last pass of the reconciler found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    /// About the server, in sentences.
    pub(crate) problems: Vec<String>,
    /// About single tenants.
    pub(crate) tenants: BTreeMap<TenantName, String>,
    /// Containers by tenant; `None` when the engine did not answer.
    pub(crate) containers: Option<BTreeMap<TenantName, ContainerState>>,
}

/// The agent of one server.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) dial: Arc<dyn tls::Dial>,
    pub(crate) clock: Arc<dyn Clock>,
    /// New at each start of the process.
    pub(crate) boot_id: String,
    /// Snapshots that were begun since.
    snapshots: AtomicU64,
    pub(crate) grants: Grants,
    pub(crate) gates: Gates,
    links: Links,
    /// Of the tenants' names.
    pub(crate) certificates: Certificates,
    /// What is known of volumes from earlier passes over them.
    pub(crate) notes: Arc<Notes>,
    pub(crate) waitlist: Arc<Waitlist>,
    pub(crate) authority: Authority,
    /// Whether this server is out of its fleet and must run none of its tenants.
    pub(crate) fence: Fence,
    /// Streams by which the controller watches this server now.
    pub(crate) watching: Arc<()>,
    /// Of several controllers.
    pub(crate) leader: Leader,
    /// Rung when one of these ends.
    pub(crate) unwatched: Notify,
    /// Of a member, once it is in use.
    pub(crate) identity: OnceLock<tls::Rotating>,
    /// Highest generations that this process issued, on a server that belongs to no fleet.
    pub(crate) issued: Mutex<BTreeMap<TenantName, Generation>>,
    pub(crate) work: Work,
    pub(crate) events: Events,
    /// Rung by what a snapshot shows beside the ledger and the condition.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) condition: watch::Sender<Condition>,
    /// Wakes the reconciler.
    pub(crate) wake: Notify,
    /// Work that goes on when its caller has gone.
    pub(crate) tasks: TaskTracker,
    /// Ends that work.
    pub(crate) ended: CancellationToken,
    /// Ends streams that would never end by themselves, before that.
    pub(crate) closing: CancellationToken,
    locks: Mutex<BTreeMap<TenantName, Arc<AsyncMutex<()>>>>,
    /// Held from looking for a free port to the write that takes it.
    allocation: AsyncMutex<()>,
    /// Held from reading the records to the router's answer, so that an older set of routes never follows a newer one.
    routing: AsyncMutex<()>,
    /// Secrets of probe routes.
    probes: Mutex<BTreeMap<TenantName, String>>,
    /// Containers that this process has made sure of, by what they were made from.
    settled: Mutex<BTreeMap<TenantName, Spec>>,
    /// Transfers into this server, so that a newer call may end an older one.
    pulls: Mutex<BTreeMap<TenantName, CancellationToken>>,
    /// Volumes that need no second look before a move goes on.
    looked: Looked,
    /// Tenants that come back from a move that was given up, until they are healthy.
    returning: Mutex<BTreeSet<TenantName>>,
    /// Calls that wait for a tenant's health, so that a newer decision need not wait for them.
    waits: Mutex<BTreeMap<TenantName, CancellationToken>>,
    /// What is known of the health of containers.
    watches: Mutex<BTreeMap<Watched, Watch>>,
    /// Why nobody answers Caddy's questions about certificates.
    ask_problem: Mutex<Option<String>>,
    /// Why other servers cannot recognise this one's proxy, or it them.
    link_problem: Mutex<Option<String>>,
}

/// The right to change one tenant.
pub(crate) type TenantLock = OwnedMutexGuard<()>;

impl Agent {
    pub(crate) fn new(
        config: Config,
        seams: Seams,
        ledger: Arc<Ledger>,
        work: Work,
        remembered: &Remembered,
    ) -> Arc<Self> {
        let fence = Fence::open(config.fenced_file());
        Arc::new(Self {
            gates: Gates::new(config.gate_dir(), config.gate),
            links: Links::new(config.link_dir()),
            certificates: Certificates::open(config.certificate_dir()),
            notes: Arc::new(Notes::new(config.notes_dir())),
            waitlist: Arc::new(Waitlist::new(config.waitlist_file())),
            authority: Authority::new(config.identity_file(), config.controller_file(), fence.clone()),
            fence,
            watching: Arc::default(),
            leader: Leader::new(config.leader_file()),
            unwatched: Notify::new(),
            identity: OnceLock::new(),
            issued: Mutex::default(),
            work,
            events: Events::after(remembered.events.clone()),
            changes: watch::Sender::new(0),
            config,
            ledger,
            runtime: seams.runtime,
            router: seams.router,
            dial: seams.dial,
            clock: seams.clock,
            boot_id: uuid::Uuid::new_v4().to_string(),
            snapshots: AtomicU64::default(),
            grants: Grants::default(),
            condition: watch::Sender::new(Condition::default()),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
            closing: CancellationToken::new(),
            locks: Mutex::default(),
            allocation: AsyncMutex::default(),
            routing: AsyncMutex::default(),
            probes: Mutex::default(),
            settled: Mutex::default(),
            pulls: Mutex::default(),
            looked: Looked::default(),
            returning: Mutex::default(),
            waits: Mutex::default(),
            watches: Mutex::new(remembered.watches()),
            ask_problem: Mutex::default(),
            link_problem: Mutex::default(),
        })
    }

    /// What keeps this server from meeting the public as its settings say.
    pub(crate) fn edge_problems(&self) -> Vec<String> {
        let found = [locked(&self.ask_problem).clone(), locked(&self.link_problem).clone()];
        self.config.edge.problems.iter().cloned().chain(found.into_iter().flatten()).collect()
    }

    pub(crate) fn set_ask_problem(&self, problem: Option<String>) {
        *locked(&self.ask_problem) = problem;
    }

    /// Runs work that a caller's departure must not cut in half; only the end of the agent does.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = self.ended.clone();
        let bounded = async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => Err(stopping()),
                done = work => done,
            }
        };
        let task = self.tasks.spawn(bounded.in_current_span());
        task.await.unwrap_or_else(|panic| Err(Error::bug(format!("the task of a call ended: {panic}"))))
    }

    fn lock_of(&self, tenant: &TenantName) -> Arc<AsyncMutex<()>> {
        locked(&self.locks).entry(tenant.clone()).or_default().clone()
    }

    /// Waits for the right to change a tenant.
    pub(crate) async fn lock(&self, tenant: &TenantName) -> TenantLock {
        self.lock_of(tenant).lock_owned().await
    }

    /// The right to change a tenant, if nobody has it.
    pub(crate) fn try_lock(&self, tenant: &TenantName) -> Option<TenantLock> {
        self.lock_of(tenant).try_lock_owned().ok()
    }

    /// The record to decide upon. A container of ours that no record accounts for is not touched by any call: it is somebody's
    /// running work from before this ledger.
    async fn load(&self, tenant: &TenantName) -> Result<Option<Record>, Error> {
        self.fence.heed()?;
        let record = self.ledger.get(tenant)?;
        if record.is_none() && self.runtime.container(&tenant.container()).await?.is_some() {
            return Err(Error::refused(
                reason::TENANT_EXISTS,
                format!(
                    "a container {} is on this server that the ledger knows nothing of; it was not touched: take it over \
                     (`featherctl server adopt`, or `tenant.sh adopt` on a server that belongs to no fleet), or remove it with `podman rm` if nobody needs it",
                    tenant.container()
                ),
            )
            .with("tenant", tenant));
        }
        Ok(record)
    }

    /// Makes a decision durable.
    async fn commit(&self, next: Next) -> Result<Record, Error> {
        match next {
            Next::Unchanged(record) => Ok(record),
            Next::Write(record) => self.write(record).await,
        }
    }

    async fn write(&self, record: Record) -> Result<Record, Error> {
        self.ledger.put(record.clone()).await?;
        self.wake.notify_one();
        Ok(record)
    }

    /// Tells whoever watches this server to look again.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// The tenant as it is to be reported, with its container looked at now.
    async fn report(&self, record: &Record) -> TenantReport {
        let state = match self.runtime.container(&record.tenant.container()).await {
            Ok(container) => container.map_or(ContainerState::Missing, |container| container.state),
            Err(_) => ContainerState::Unknown,
        };
        let report = report::tenant(record, state, None, self.watch_report(&Watched::Tenant(record.tenant.clone())));
        self.with_what_is_seen(record, state, report)
    }
}

/// The error for work that the agent's end cut short.
pub(crate) fn stopping() -> Error {
    Error::unavailable(reason::SERVER_UNREACHABLE, "the agent is stopping; try again when it is back")
}

/// A lock that survives a panic elsewhere: what it guards is replaced whole or not at all.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
