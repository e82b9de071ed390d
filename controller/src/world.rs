//! Everything that operations and reconcilers act on: agents, store, what was observed, DNS, the clock.
//!
//! Owns only the bundle; each part has its own file. Tests put fakes or faults behind the same seams.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use feather_proto::{
    error::Error,
    forward::ForwardTarget,
    ids::{OperationId, ServerName, TenantName},
    model::ServerSnapshot,
};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    access::Access,
    agents::{Agent, Agents, TransferProgress},
    backups,
    certificate::Certificates,
    dns::{self, Dns},
    fleet::Fleet,
    leadership::Following,
    metrics::Metrics,
    operations::{Subject, pace::Pace},
    relay::Relays,
    store::{ServerRow, Store, TenantRow, tenant_not_found},
    warnings,
};

/// Where proxies that speak TLS take forwarded requests.
const HTTPS_PORT: u16 = 443;

/// Wall clock. Timers are tokio's; this is for what people read and for expiry.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> OffsetDateTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// Knobs of the controller.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `alice` is served as `alice.{domain_suffix}`.
    pub domain_suffix: String,
    /// Port at which servers' Caddys take forwarded requests.
    pub http_port: u16,
    /// Tries of a step whose outcome is unknown, before it counts as failed (or, where it cannot fail, as struggling).
    pub attempts: u32,
    /// Pause after the first try; doubled each time.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// Longest silence of an agent's stream before its server counts as unreachable is three times this.
    pub heartbeat: Duration,
    /// Interval of reconcilers that nothing woke.
    pub reconcile: Duration,
    /// Memory that must be free for one more tenant, in bytes.
    pub tenant_memory_bytes: u64,
    /// Disk that must stay free on each server, in bytes.
    pub disk_headroom_bytes: u64,
    /// Own DNS records for tenants away from the ingress, at most.
    pub dns_budget: usize,
    /// How the zone is kept.
    pub dns: dns::Rules,
    /// How long something may be wrong before a person is told.
    pub patience: warnings::Patience,
    /// Time between two looks for backups that are due.
    pub backup_look: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domain_suffix: "users.inceptel.ai".into(),
            http_port: 80,
            attempts: 5,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(15),
            heartbeat: Duration::from_secs(3),
            reconcile: Duration::from_secs(10),
            tenant_memory_bytes: 64 << 20,
            disk_headroom_bytes: 256 << 20,
            dns_budget: 60,
            dns: dns::Rules::default(),
            patience: warnings::Patience::default(),
            backup_look: Duration::from_secs(20),
        }
    }
}

/// A tenant's password on its way to the person who asked for it. In memory only, never in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(..)")
    }
}

/// What is known about operations and never written down.
#[derive(Debug)]
pub struct Volatile {
    passwords: Mutex<BTreeMap<OperationId, Password>>,
    progress: Mutex<BTreeMap<OperationId, Pace>>,
    /// Rung when any operation or its progress changed.
    changed: watch::Sender<u64>,
    /// The same of one operation, for those that somebody follows.
    followed: Mutex<BTreeMap<OperationId, watch::Sender<u64>>>,
}

impl Default for Volatile {
    fn default() -> Self {
        Self {
            passwords: Mutex::default(),
            progress: Mutex::default(),
            changed: watch::Sender::new(0),
            followed: Mutex::default(),
        }
    }
}

impl Volatile {
    /// Keeps the password of an added tenant until it is handed out.
    pub fn keep_password(&self, id: &OperationId, password: Password) {
        lock(&self.passwords).insert(id.clone(), password);
    }

    /// Hands it out, once.
    pub fn take_password(&self, id: &OperationId) -> Option<Password> {
        lock(&self.passwords).remove(id)
    }

    /// Notes how far a transfer is, and measures how fast it goes.
    pub fn note_progress(&self, id: &OperationId, now: TransferProgress) {
        lock(&self.progress).entry(id.clone()).or_default().note(now, tokio::time::Instant::now());
        self.ring(id);
    }

    /// How far a transfer is, while it runs.
    pub fn progress(&self, id: &OperationId) -> Option<TransferProgress> {
        lock(&self.progress).get(id).map(Pace::progress)
    }

    /// The step is over.
    pub fn clear_progress(&self, id: &OperationId) {
        lock(&self.progress).remove(id);
    }

    /// Says that an operation changed.
    pub fn ring(&self, id: &OperationId) {
        self.changed.send_modify(|count| *count += 1);
        if let Some(followed) = lock(&self.followed).get(id) {
            followed.send_modify(|count| *count += 1);
        }
    }

    /// Rings when this operation or its progress changed: whoever follows one of many is not woken for the others.
    pub fn follow(&self, id: &OperationId) -> watch::Receiver<u64> {
        let mut followed = lock(&self.followed);
        followed.retain(|_, sender| sender.receiver_count() > 0);
        followed.entry(id.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Rings when any operation or its progress changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bundle.
pub struct World {
    /// Of a controller that waits to lead, and only shows the fleet: nothing here changes anything, then.
    pub following: Option<Following>,
    /// Whose calls are heard.
    pub access: Access,
    /// Desired state.
    pub store: Store,
    /// Ways to agents.
    pub agents: Arc<dyn Agents>,
    /// Observed state.
    pub fleet: Fleet,
    /// The zone.
    pub dns: Dns,
    /// The certificate of the tenants' names.
    pub certificates: Certificates,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Knobs.
    pub settings: Settings,
    /// In memory only.
    pub volatile: Arc<Volatile>,
    /// What is counted.
    pub metrics: Metrics,
    /// Passes over volumes that this controller may relay now.
    pub relays: Relays,
    /// One look for what needs a person at a time.
    pub warnings: warnings::Turn,
    /// Where this controller serves its web page and its metrics, if anywhere.
    pub page: Option<std::net::SocketAddr>,
    /// Who uses which repository of backups.
    pub backups: backups::Users,
    /// `host:port` at which agents reach this controller.
    pub advertise: String,
    /// Held from the look at who has room until the operation that takes it is in the store: two that look at once would both
    /// choose the last place. Never held while an agent is asked.
    pub placing: tokio::sync::Mutex<()>,
    /// Rung when desired state changed: reconcilers look again.
    pub desired: watch::Sender<u64>,
}

impl World {
    /// The agent of a member.
    pub async fn agent(&self, server: &ServerName) -> Result<Arc<dyn Agent>, Error> {
        let row = self.store.member(server).await?;
        self.agents.agent(&row.name, &row.principal(), &row.address)
    }

    /// Says which operation holds a tenant, before anything else is found wrong with a second change.
    pub async fn not_held(&self, tenant: &TenantName) -> Result<(), Error> {
        self.free(&Subject::Tenant(tenant.clone())).await
    }

    /// The same for whatever an operation may be about.
    pub async fn free(&self, subject: &Subject) -> Result<(), Error> {
        let running = self.store.unfinished_operations().await?;
        running
            .iter()
            .find(|one| one.subject == *subject)
            .map_or(Ok(()), |one| Err(crate::store::held(subject, &one.id)))
    }

    /// The server that holds a tenant's data, also when it was removed.
    pub async fn holder(&self, tenant: &TenantName) -> Result<(TenantRow, ServerName), Error> {
        let row = self.store.require_tenant(tenant).await?;
        let server = row.server.clone().ok_or_else(|| tenant_not_found(tenant))?;
        Ok((row, server))
    }

    /// Looks at a server now, so that whoever asks right behind a change sees it. Not being able to is no failure: the watcher will.
    pub async fn look_again(&self, server: &ServerName) {
        drop(self.look(server).await);
    }

    /// The same, for whoever cannot do without.
    ///
    /// # Errors
    /// No such server, or its agent did not answer.
    pub async fn look(&self, server: &ServerName) -> Result<ServerSnapshot, Error> {
        let row = self.store.member(server).await?;
        let agent = self.agents.agent(&row.name, &row.principal(), &row.address)?;
        let snapshot = agent.snapshot().await?;
        self.fleet.saw(&row, snapshot.clone(), self.clock.now());
        Ok(snapshot)
    }

    /// Public URL of a tenant.
    pub fn url(&self, tenant: &TenantName) -> String {
        format!("https://{}", tenant.host(&self.settings.domain_suffix))
    }

    /// Where other servers send what they forward to this one, and how; `None` until it has told how since this controller started.
    pub async fn forward_target(&self, server: &ServerName) -> Result<Option<String>, Error> {
        let row = self.store.member(server).await?;
        Ok(self.forward_target_of(&row))
    }

    /// The same of a member whose row is at hand.
    pub fn forward_target_of(&self, row: &ServerRow) -> Option<String> {
        let snapshot = self.fleet.observed(&row.name).snapshot?;
        let target = if snapshot.forwards_by_tls {
            ForwardTarget::new(&row.public_address, HTTPS_PORT, Some(row.identity.clone()))
        } else {
            ForwardTarget::new(&row.public_address, self.settings.http_port, None)
        };
        Some(target.to_string())
    }

    /// Says that desired state changed.
    pub fn ring_desired(&self) {
        self.desired.send_modify(|count| *count += 1);
    }
}
