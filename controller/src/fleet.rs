//! What the agents report: observed state, in memory only.
//!
//! One watcher for each member keeps its newest snapshot. A silent stream makes a server *unreachable*; it never says anything
//! about its tenants. Decides nothing; `placement.rs` and the operations do, from what is here and in the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::{ContainerState, Residence, ServerSnapshot, TenantReport},
};
use futures::StreamExt as _;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod remarks;

pub use remarks::told;

use crate::{
    placement::{Bounds, Candidate, Need},
    store::{OperationRow, ServerRow, TenantRow, TenantState},
    world::World,
};

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Newest snapshot, if there ever was one.
    pub snapshot: Option<ServerSnapshot>,
    /// When it came, by our clock.
    pub last_seen: Option<OffsetDateTime>,
    /// Whether the stream is alive.
    pub reachability: Reachability,
}

/// Whether an agent's stream is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reachability {
    /// Not tried to the end since the controller started.
    Connecting,
    /// Snapshots come.
    Alive,
    /// Silent, and why.
    Silent(String),
}

impl Default for Observed {
    fn default() -> Self {
        Self { snapshot: None, last_seen: None, reachability: Reachability::Connecting }
    }
}

impl Observed {
    /// The snapshot, if it is fresh enough to act on.
    pub fn alive(&self) -> Option<&ServerSnapshot> {
        self.snapshot.as_ref().filter(|_| self.reachability == Reachability::Alive)
    }
}

/// Handle to observed state; cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    observed: Arc<Mutex<BTreeMap<ServerName, Observed>>>,
    /// Rung when anything observed changed.
    changed: watch::Sender<u64>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { observed: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Fleet {
    /// What is known of a member.
    pub fn observed(&self, server: &ServerName) -> Observed {
        self.lock().get(server).cloned().unwrap_or_default()
    }

    /// What is known of everything.
    pub fn all(&self) -> BTreeMap<ServerName, Observed> {
        self.lock().clone()
    }

    /// Calls with what is known of everything, without a copy of it. Must be quick: no snapshot is taken in meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&BTreeMap<ServerName, Observed>) -> T) -> T {
        look(&self.lock())
    }

    /// A tenant as its server reports it, if that server is alive.
    pub fn tenant(&self, server: &ServerName, tenant: &TenantName) -> Option<TenantReport> {
        self.lock().get(server)?.alive()?.tenant(tenant).cloned()
    }

    /// Rings when anything observed changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notes a snapshot.
    pub fn saw(&self, server: &ServerName, snapshot: ServerSnapshot, now: OffsetDateTime) {
        let observed = Observed { snapshot: Some(snapshot), last_seen: Some(now), reachability: Reachability::Alive };
        self.lock().insert(server.clone(), observed);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Notes silence. What was known before stays known, with its age.
    pub fn lost(&self, server: &ServerName, why: String) {
        let mut all = self.lock();
        let observed = all.entry(server.clone()).or_default();
        let news = !matches!(observed.reachability, Reachability::Silent(_));
        observed.reachability = Reachability::Silent(why);
        drop(all);
        if news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn forget(&self, server: &ServerName) {
        self.lock().remove(server);
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerName, Observed>> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one watcher for each member until shutdown.
pub async fn watch_members(world: Arc<World>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let mut desired = world.desired.subscribe();
    let mut watchers: BTreeMap<ServerName, (String, CancellationToken)> = BTreeMap::new();
    while !shutdown.is_cancelled() {
        match world.store.servers().await {
            Ok(members) => {
                watchers.retain(|name, (address, stop)| {
                    let stays = members.iter().any(|row| row.name == *name && row.address == *address);
                    if !stays {
                        stop.cancel();
                        world.fleet.forget(name);
                    }
                    stays
                });
                for row in members {
                    watchers.entry(row.name.clone()).or_insert_with(|| {
                        let stop = shutdown.child_token();
                        tasks.spawn(stop.clone().run_until_cancelled_owned(watch_member(world.clone(), row.clone())));
                        (row.address, stop)
                    });
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot list members"),
        }
        tokio::select! {
            _ = desired.changed() => {}
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => break,
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn watch_member(world: Arc<World>, row: ServerRow) {
    let mut pause = world.settings.backoff;
    loop {
        let why = match watch_once(&world, &row).await {
            Ok(()) => "its stream ended".to_owned(),
            Err(error) => error.message,
        };
        // A stream that worked for a while starts the back-off anew.
        if world.fleet.observed(&row.name).reachability == Reachability::Alive {
            tracing::warn!(server = %row.name, %why, "server became unreachable");
            pause = world.settings.backoff;
        }
        world.fleet.lost(&row.name, why);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(world.settings.heartbeat.max(Duration::from_millis(1)) * 2);
    }
}

async fn watch_once(world: &World, row: &ServerRow) -> Result<(), Error> {
    let agent = world.agents.agent(&row.name, &row.address)?;
    let heartbeat = world.settings.heartbeat;
    let silent = |_| Error::timeout(reason::SERVER_UNREACHABLE, "its stream went silent");
    let mut snapshots = tokio::time::timeout(heartbeat * 3, agent.watch(heartbeat)).await.map_err(silent)??;
    loop {
        let next = tokio::time::timeout(heartbeat * 3, snapshots.next()).await.map_err(silent)?;
        match next {
            Some(snapshot) => world.fleet.saw(&row.name, snapshot?, world.clock.now()),
            None => return Ok(()),
        }
    }
}

/// Members as candidates for placement: what they report, less what running operations were promised.
pub fn candidates(
    members: &[ServerRow],
    observed: &BTreeMap<ServerName, Observed>,
    tenants: &[TenantRow],
    running: &[OperationRow],
) -> Vec<Candidate> {
    let mut promised = promises(tenants, running);
    members
        .iter()
        .map(|row| candidate(row, observed.get(&row.name), &promised.remove(&row.name).unwrap_or_default()))
        .collect()
}

/// Tenants that each server has, or is about to have.
fn promises<'a>(
    tenants: &'a [TenantRow],
    running: &'a [OperationRow],
) -> BTreeMap<ServerName, BTreeSet<&'a TenantName>> {
    let placed = tenants.iter().filter(|one| one.state == TenantState::Active);
    let placed = placed.filter_map(|one| Some((one.server.as_ref()?, &one.name)));
    let coming = running.iter().filter_map(|one| Some((one.target.as_ref()?, one.subject.tenant()?)));
    let mut promised = BTreeMap::<ServerName, BTreeSet<&TenantName>>::new();
    for (server, tenant) in placed.chain(coming) {
        promised.entry(server.clone()).or_default().insert(tenant);
    }
    promised
}

fn candidate(row: &ServerRow, observed: Option<&Observed>, promised: &BTreeSet<&TenantName>) -> Candidate {
    let snapshot = observed.and_then(Observed::alive);
    let not_ready = match (observed.map(|one| &one.reachability), snapshot) {
        (_, Some(snapshot)) if !snapshot.problems.is_empty() => Some(snapshot.problems.join("; ")),
        (_, Some(_)) => None,
        (Some(Reachability::Silent(why)), _) => Some(format!("unreachable: {why}")),
        _ => Some("not connected yet".to_owned()),
    };
    // A tenant promised to the server whose port the snapshot does not show yet.
    let promised = promised
        .iter()
        .filter(|name| snapshot.and_then(|one| one.tenant(name)).is_none_or(|report| report.port.is_none()))
        .count();
    // A tenant that was adopted may have a port outside of the range.
    let used = |one: &ServerSnapshot| one.ports_used.iter().filter(|port| one.ports.contains(port)).count();
    let slots_free = snapshot.map_or(0, |one| one.ports.len().saturating_sub(used(one) + promised));
    Candidate {
        server: row.name.clone(),
        joined_ms: i64::try_from(row.joined.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX),
        not_ready,
        cordoned: row.upkeep.cordoned,
        labels: row.upkeep.labels.clone(),
        slots_free: u32::try_from(slots_free).unwrap_or(u32::MAX),
        memory_free_bytes: snapshot.map_or(0, |one| one.memory_free_bytes),
        disk_free_bytes: snapshot.map_or(0, |one| one.disk_free_bytes),
        image_digests: snapshot
            .map(|one| one.images.iter().map(|image| image.digest.clone()).collect())
            .unwrap_or_default(),
        work_image_digest: snapshot.and_then(|one| one.work_image_digest().map(ToOwned::to_owned)),
    }
}

/// What one more tenant needs, before anything particular is known of it.
pub fn need(world: &World) -> Need {
    Need {
        memory_bytes: world.settings.tenant_memory_bytes,
        volume_bytes: 0,
        disk_headroom_bytes: world.settings.disk_headroom_bytes,
        image_digest: None,
        only: None,
        except: None,
        bounds: Bounds::default(),
    }
}

/// What the fleet says about a tenant, desired and observed put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Runs.
    Running,
    /// Stopped by its operator.
    Stopped,
    /// Should run and does not yet.
    Starting,
    /// An operation is changing it.
    Changing,
    /// Its server cannot be reached.
    Unknown,
    /// Removed, volume kept.
    Removed,
    /// Its container is restarted again and again.
    CrashLoop,
    /// Needs a person.
    Broken,
}

/// Puts desired and observed together.
pub fn standing(row: &TenantRow, operation: bool, observed: &Observed) -> Standing {
    if operation {
        return Standing::Changing;
    }
    if row.state != TenantState::Active {
        return Standing::Removed;
    }
    let Some(snapshot) = observed.alive() else { return Standing::Unknown };
    let Some(report) = snapshot.tenant(&row.name) else { return Standing::Broken };
    match (report.residence, report.container) {
        (Residence::Running, _) if report.watch.crash_loop => Standing::CrashLoop,
        _ if report.problem.is_some() => Standing::Broken,
        (Residence::Stopped, _) if !row.running => Standing::Stopped,
        (Residence::Running, ContainerState::Running) => Standing::Running,
        (Residence::Running, ContainerState::Unknown) => Standing::Unknown,
        (Residence::Running, _) => Standing::Starting,
        _ => Standing::Broken,
    }
}

/// Why a tenant's server does not have it as it should, in words; none when it says nothing of that.
pub fn trouble(report: Option<&TenantReport>) -> Option<String> {
    let Some(report) = report else { return Some("its server does not know it".to_owned()) };
    report.problem.clone().or_else(|| Some(format!("its server says: {:?}", report.residence).to_lowercase()))
}
