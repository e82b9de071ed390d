//! Faults between controller and agents: every call is counted, and any of them can be refused, lost on its way there, or lost on
//! its way back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use feather_controller::{
    agents::{
        Added, Agent, Agents, Asked, Call, Heeded, ImageWanted, LogLine, OnProgress, Pass, Peer, Probed, PullFrom,
        Pulled, Reading, SentVolume, SignUp, SignUps, Tried, VolumeNow,
    },
    world::Password,
};
use feather_proto::{
    adoption::Finding,
    email::EmailAddress,
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
    limits::Limits,
    model::{
        HeldCertificate, Image, ServerSnapshot, StartMode, StopReason, TenantReport, VolumeExpectation, VolumeSummary,
    },
    tls::{Principal, PublicCertificate, Revocation},
};
use futures::stream::BoxStream;
use time::OffsetDateTime;
use tokio::sync::Notify;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The agent says no, and did nothing.
    Refuse,
    /// The agent never hears of it; the caller learns nothing.
    LoseRequest,
    /// The agent does it; the caller learns nothing.
    LoseReply,
    /// The agent is at it still when the caller learns that the connection broke, and ends it while the caller tries again.
    Late,
    /// The agent does it, twice, as if a copy of the request had been under way.
    Repeat,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [Fault::Refuse, Fault::LoseRequest, Fault::LoseReply, Fault::Late, Fault::Repeat];
}

/// Long enough for a request to arrive, and for most of them too short to be done.
const LATE: Duration = Duration::from_millis(3);

/// A call that was made: to which server, and which.
pub type Made = (String, &'static str);

/// Called when a call is about to be made.
pub type OnCall = Arc<dyn Fn(&Made, usize) + Send + Sync>;

#[derive(Default)]
struct State {
    made: Vec<Made>,
    at: BTreeMap<usize, Fault>,
    always: BTreeMap<Made, Fault>,
    once: BTreeMap<Made, Fault>,
    on_call: Option<OnCall>,
    /// Servers that do not answer when their volumes are asked for.
    silent: BTreeSet<String>,
    /// How many wait for such an answer.
    unanswered: usize,
}

/// The switchboard, shared by test and controller.
#[derive(Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    /// Rung when a server may be silent no more.
    speaks: Arc<Notify>,
}

impl Faults {
    /// Calls of operations made so far, in order. Watching and looking are not counted: they change nothing.
    pub fn made(&self) -> Vec<Made> {
        self.lock().made.clone()
    }

    /// Forgets what was made and all faults.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// The call with this number (from 0) meets a fault.
    pub fn at(&self, number: usize, fault: Fault) {
        self.lock().at.insert(number, fault);
    }

    /// Every call of this kind to this server meets a fault.
    pub fn always(&self, server: &str, verb: &'static str, fault: Fault) {
        self.lock().always.insert((server.to_owned(), verb), fault);
    }

    /// The next call of this kind to this server meets a fault.
    pub fn once(&self, server: &str, verb: &'static str, fault: Fault) {
        self.lock().once.insert((server.to_owned(), verb), fault);
    }

    /// No more of that.
    pub fn never(&self, server: &str, verb: &'static str) {
        self.lock().always.remove(&(server.to_owned(), verb));
    }

    /// Somebody wants to know of every call before it is made.
    pub fn on_call(&self, hook: OnCall) {
        self.lock().on_call = Some(hook);
    }

    /// Whoever asks this server for a volume waits, until it is told otherwise.
    pub fn silence(&self, server: &str, silent: bool) {
        let mut state = self.lock();
        if silent {
            state.silent.insert(server.to_owned());
        } else {
            state.silent.remove(server);
            self.speaks.notify_waiters();
        }
    }

    /// How many wait for a silent server.
    pub fn unanswered(&self) -> usize {
        self.lock().unanswered
    }

    async fn wait_for(&self, server: &ServerName) {
        self.lock().unanswered += 1;
        loop {
            // Before the look, so that nothing is missed in between.
            let mut spoken = std::pin::pin!(self.speaks.notified());
            spoken.as_mut().enable();
            if !self.lock().silent.contains(server.as_str()) {
                break;
            }
            spoken.await;
        }
        self.lock().unanswered -= 1;
    }

    fn meet(&self, server: &ServerName, verb: &'static str) -> Option<Fault> {
        let made = (server.to_string(), verb);
        let mut state = self.lock();
        let number = state.made.len();
        state.made.push(made.clone());
        let once = state.once.remove(&made);
        let fault = once.or_else(|| state.at.get(&number).or_else(|| state.always.get(&made)).copied());
        let hook = state.on_call.clone();
        drop(state);
        if let Some(hook) = hook {
            hook(&made, number);
        }
        fault
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Agents behind the switchboard.
pub struct Faulty {
    /// The real ways.
    pub inner: Arc<dyn Agents>,
    /// The switchboard.
    pub faults: Faults,
}

impl Agents for Faulty {
    fn agent(&self, server: &ServerName, identity: &Principal, address: &str) -> Result<Arc<dyn Agent>, Error> {
        let inner = self.inner.agent(server, identity, address)?;
        Ok(Arc::new(FaultyAgent { inner, server: server.clone(), faults: self.faults.clone() }))
    }
}

struct FaultyAgent {
    inner: Arc<dyn Agent>,
    server: ServerName,
    faults: Faults,
}

fn lost(server: &ServerName) -> Error {
    Error::unavailable(reason::SERVER_UNREACHABLE, format!("{server}: the connection broke (injected)"))
}

macro_rules! through {
    ($self:ident, $verb:expr, $call:expr) => {{
        match $self.faults.meet(&$self.server, $verb) {
            None => $call.await,
            Some(Fault::Refuse) => {
                Err(Error::refused(reason::WRONG_STATE, format!("{} says no (injected)", $self.server)))
            }
            Some(Fault::LoseRequest) => Err(lost(&$self.server)),
            Some(Fault::LoseReply) => {
                drop($call.await);
                Err(lost(&$self.server))
            }
            Some(Fault::Late) => {
                drop(tokio::time::timeout(LATE, $call).await);
                Err(lost(&$self.server))
            }
            Some(Fault::Repeat) => {
                drop($call.await);
                $call.await
            }
        }
    }};
}

#[async_trait]
impl Agent for FaultyAgent {
    async fn snapshot(&self) -> Result<ServerSnapshot, Error> {
        self.inner.snapshot().await
    }

    async fn watch(&self, heartbeat: Duration) -> Result<BoxStream<'static, Result<ServerSnapshot, Error>>, Error> {
        self.inner.watch(heartbeat).await
    }

    async fn probe(&self, peers: &[Peer]) -> Result<Probed, Error> {
        self.inner.probe(peers).await
    }

    async fn plan_adoption(&self) -> Result<(Vec<Finding>, Vec<String>), Error> {
        self.inner.plan_adoption().await
    }

    async fn adopt_tenants(
        &self,
        request_id: uuid::Uuid,
        tenants: &BTreeSet<TenantName>,
    ) -> Result<Vec<Finding>, Error> {
        through!(self, "adopt_tenants", self.inner.adopt_tenants(request_id, tenants))
    }

    async fn set_revocations(&self, list: &[Revocation]) -> Result<String, Error> {
        through!(self, "set_revocations", self.inner.set_revocations(list))
    }

    async fn heeded(&self) -> Result<Heeded, Error> {
        self.inner.heeded().await
    }

    async fn add_tenant(&self, call: &Call, volume: VolumeExpectation, limits: Limits) -> Result<Added, Error> {
        through!(self, "add_tenant", self.inner.add_tenant(call, volume, limits))
    }

    async fn limit_tenant(&self, call: &Call, limits: Limits, check_only: bool) -> Result<TenantReport, Error> {
        let verb = if check_only { "check_limits" } else { "limit_tenant" };
        through!(self, verb, self.inner.limit_tenant(call, limits, check_only))
    }

    async fn remove_tenant(&self, call: &Call, discard_new: bool) -> Result<(), Error> {
        through!(self, "remove_tenant", self.inner.remove_tenant(call, discard_new))
    }

    async fn start_tenant(&self, call: &Call, mode: StartMode) -> Result<u64, Error> {
        through!(self, "start_tenant", self.inner.start_tenant(call, mode))
    }

    async fn stop_tenant(&self, call: &Call, reason: StopReason) -> Result<(), Error> {
        through!(self, "stop_tenant", self.inner.stop_tenant(call, reason))
    }

    async fn restart_tenant(&self, call: &Call) -> Result<u64, Error> {
        through!(self, "restart_tenant", self.inner.restart_tenant(call))
    }

    async fn reset_password(&self, call: &Call) -> Result<Password, Error> {
        through!(self, "reset_password", self.inner.reset_password(call))
    }

    async fn tail_logs(
        &self,
        tenant: &TenantName,
        lines: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        self.inner.tail_logs(tenant, lines, follow).await
    }

    async fn reserve(&self, call: &Call, image_digest: &str, volume_bytes: u64) -> Result<u16, Error> {
        through!(self, "reserve", self.inner.reserve(call, image_digest, volume_bytes))
    }

    async fn abandon(&self, call: &Call, keep_data: bool) -> Result<(), Error> {
        through!(self, "abandon", self.inner.abandon(call, keep_data))
    }

    async fn activate(&self, call: &Call, running: bool) -> Result<(), Error> {
        through!(self, "activate", self.inner.activate(call, running))
    }

    async fn hand_off(&self, call: &Call, forward_to: Option<&str>) -> Result<Option<u64>, Error> {
        through!(self, "hand_off", self.inner.hand_off(call, forward_to))
    }

    async fn retire(&self, call: &Call, keep_until: OffsetDateTime) -> Result<(), Error> {
        through!(self, "retire", self.inner.retire(call, keep_until))
    }

    async fn reclaim(&self, call: &Call, needs_data: bool) -> Result<(), Error> {
        through!(self, "reclaim", self.inner.reclaim(call, needs_data))
    }

    async fn volume(&self, tenant: &TenantName) -> Result<VolumeNow, Error> {
        self.faults.wait_for(&self.server).await;
        self.inner.volume(tenant).await
    }

    async fn grant_transfer(&self, call: &Call, peer: &Principal, ticket: &str, relayed: bool) -> Result<(), Error> {
        through!(self, "grant_transfer", self.inner.grant_transfer(call, peer, ticket, relayed))
    }

    async fn send_volume(&self, asked: Asked) -> Result<SentVolume, Error> {
        self.inner.send_volume(asked).await
    }

    async fn pull_volume(
        &self,
        call: &Call,
        from: &PullFrom,
        pass: Pass,
        progress: OnProgress,
    ) -> Result<Pulled, Error> {
        through!(self, "pull_volume", self.inner.pull_volume(call, from, pass, progress.clone()))
    }

    async fn try_swap(&self, swap: uuid::Uuid, image_digest: &str) -> Result<Tried, Error> {
        through!(self, "try_swap", self.inner.try_swap(swap, image_digest))
    }

    async fn commit_swap(&self, swap: uuid::Uuid) -> Result<(), Error> {
        through!(self, "commit_swap", self.inner.commit_swap(swap))
    }

    async fn set_certificate(&self, certificate: &PublicCertificate) -> Result<HeldCertificate, Error> {
        through!(self, "set_certificate", self.inner.set_certificate(certificate))
    }

    async fn abandon_swap(&self, swap: uuid::Uuid) -> Result<(), Error> {
        through!(self, "abandon_swap", self.inner.abandon_swap(swap))
    }

    async fn verify_volume(&self, tenant: &TenantName, reading: Reading) -> Result<VolumeSummary, Error> {
        through!(self, "verify_volume", self.inner.verify_volume(tenant, reading))
    }

    async fn export_volume(&self, tenant: &TenantName) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.inner.export_volume(tenant).await
    }

    async fn import_volume(
        &self,
        tenant: &TenantName,
        generation: Generation,
        archive: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<VolumeSummary, Error> {
        self.inner.import_volume(tenant, generation, archive).await
    }

    async fn load_image(
        &self,
        wanted: &ImageWanted,
        archive: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<Vec<Image>, Error> {
        self.inner.load_image(wanted, archive).await
    }

    async fn export_image(&self, image: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.inner.export_image(image).await
    }

    async fn sign_ups(&self) -> Result<SignUps, Error> {
        self.inner.sign_ups().await
    }

    async fn sign_up(&self, email: &EmailAddress) -> Result<Option<SignUp>, Error> {
        self.inner.sign_up(email).await
    }

    async fn remove_sign_up(&self, email: &EmailAddress) -> Result<bool, Error> {
        through!(self, "remove_sign_up", self.inner.remove_sign_up(email))
    }
}
