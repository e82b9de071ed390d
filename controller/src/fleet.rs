//! What the agents report: observed state, in memory only.
//!
//! One watcher for each member keeps its newest snapshot. A silent stream makes a server *unreachable*; it never says anything
//! about its tenants. Decides nothing; `placement.rs` and the operations do, from what is here and in the store.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
#[cfg(test)]
mod tests;

pub use remarks::told;

use crate::{
    pace,
    placement::{Bounds, Candidate, Groups, Need},
    store::{Membership, OperationRow, ServerRow, TenantRow, TenantState},
    world::World,
};

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Newest snapshot, if there ever was one.
    pub snapshot: Option<Arc<ServerSnapshot>>,
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
        self.snapshot.as_deref().filter(|_| self.reachability == Reachability::Alive)
    }
}

/// Everything observed.
#[derive(Default)]
struct Seen {
    /// By what members are called.
    observed: BTreeMap<ServerName, Observed>,
    /// What members are called, and of which version of their rows that is.
    names: BTreeMap<Membership, (i64, ServerName)>,
}

impl Seen {
    fn name(&self, row: &ServerRow) -> ServerName {
        self.names.get(&row.membership()).map_or_else(|| row.name.clone(), |(_, name)| name.clone())
    }
}

/// Handle to observed state; cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    seen: Arc<Mutex<Seen>>,
    /// Rung when anything observed changed.
    changed: watch::Sender<u64>,
    /// Counts the beginnings and the ends of renamings: odd while a server gets another name, here or in the store.
    naming: watch::Sender<u64>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { seen: Arc::default(), changed: watch::Sender::new(0), naming: watch::Sender::new(0) }
    }
}

/// A server is being renamed for as long as this lives.
pub struct Naming<'a>(&'a Fleet);

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        self.0.naming.send_modify(|count| *count += 1);
    }
}

/// A moment at which no server is being renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names(u64);

impl Fleet {
    /// What is known of a member.
    pub fn observed(&self, server: &ServerName) -> Observed {
        self.lock().observed.get(server).cloned().unwrap_or_default()
    }

    /// What is known of everything. Cheap: snapshots are shared.
    pub fn all(&self) -> BTreeMap<ServerName, Observed> {
        self.lock().observed.clone()
    }

    /// Calls with what is known of everything, without a copy of it. Must be quick: no snapshot is taken in meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&BTreeMap<ServerName, Observed>) -> T) -> T {
        look(&self.lock().observed)
    }

    /// A tenant as its server reports it, if that server is alive.
    pub fn tenant(&self, server: &ServerName, tenant: &TenantName) -> Option<TenantReport> {
        self.lock().observed.get(server)?.alive()?.tenant(tenant).cloned()
    }

    /// Rings when anything observed changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notes a snapshot, by what its server is called now. One that was overtaken by a newer one only shows that its server is there.
    pub fn saw(&self, row: &ServerRow, snapshot: ServerSnapshot, now: OffsetDateTime) {
        let mut seen = self.lock();
        let server = seen.name(row);
        let known = seen.observed.get(&server).and_then(|one| one.snapshot.clone());
        let overtaken = |known: &Arc<ServerSnapshot>| {
            known.boot_id == snapshot.boot_id && snapshot.sequence != 0 && known.sequence > snapshot.sequence
        };
        // An agent calls itself what its certificate says.
        let snapshot =
            known.filter(overtaken).unwrap_or_else(|| Arc::new(ServerSnapshot { server: server.clone(), ..snapshot }));
        let observed = Observed { snapshot: Some(snapshot), last_seen: Some(now), reachability: Reachability::Alive };
        seen.observed.insert(server, observed);
        drop(seen);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Notes silence. What was known before stays known, with its age.
    pub fn lost(&self, row: &ServerRow, why: String) {
        let mut seen = self.lock();
        let server = seen.name(row);
        let observed = seen.observed.entry(server).or_default();
        let news = !matches!(observed.reachability, Reachability::Silent(_));
        observed.reachability = Reachability::Silent(why);
        drop(seen);
        if news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// What a member is called now, whatever its row said when it was read.
    pub fn name(&self, row: &ServerRow) -> ServerName {
        self.lock().name(row)
    }

    /// Notes what members are called: what was observed of one under an earlier name is known under the new one from then on. A row that
    /// was read before another one changes nothing.
    pub fn called(&self, members: &[ServerRow]) {
        let mut seen = self.lock();
        let mut moved = Vec::new();
        for row in members {
            let key = row.membership();
            let known = seen.names.get(&key).cloned();
            if known.as_ref().is_some_and(|(version, _)| *version >= row.upkeep.version) {
                continue;
            }
            seen.names.insert(key, (row.upkeep.version, row.name.clone()));
            if let Some((_, before)) = known.filter(|(_, before)| *before != row.name)
                && let Some(observed) = seen.observed.remove(&before)
            {
                moved.push((row.name.clone(), observed));
            }
        }
        let news = !moved.is_empty();
        for (server, observed) in moved {
            let named = |snapshot: Arc<ServerSnapshot>| {
                let mut snapshot = Arc::unwrap_or_clone(snapshot);
                snapshot.server = server.clone();
                Arc::new(snapshot)
            };
            let snapshot = observed.snapshot.map(named);
            seen.observed.insert(server, Observed { snapshot, ..observed });
        }
        drop(seen);
        if news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Waits until no other server is being renamed. From then until the end of what is returned nobody decides anything on names.
    pub async fn renaming(&self) -> Naming<'_> {
        loop {
            let Names(settled) = self.settled().await;
            let begun = self.naming.send_if_modified(|count| {
                let free = *count == settled;
                *count += u64::from(free);
                free
            });
            if begun {
                return Naming(self);
            }
        }
    }

    /// Waits until no server is being renamed. What is read from here on, of the store and of what was observed, calls servers by the same
    /// names if [`Self::holds`] says so afterwards.
    pub async fn settled(&self) -> Names {
        let mut naming = self.naming.subscribe();
        // The sender is this handle's own.
        let settled = naming.wait_for(|count| count % 2 == 0).await.map_or(0, |count| *count);
        Names(settled)
    }

    /// Was no server renamed since?
    pub fn holds(&self, names: Names) -> bool {
        *self.naming.borrow() == names.0
    }

    /// A membership has ended. What was seen stays as long as nothing else is, when its place was `taken`.
    fn forget(&self, row: &ServerRow, taken: bool) {
        let mut seen = self.lock();
        let server = seen.name(row);
        if !taken {
            seen.observed.remove(&server);
        }
        seen.names.remove(&row.membership());
        drop(seen);
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one watcher for each member until shutdown.
pub async fn watch_members(world: Arc<World>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let mut desired = world.desired.subscribe();
    let mut watchers: BTreeMap<Membership, (ServerRow, CancellationToken)> = BTreeMap::new();
    while !shutdown.is_cancelled() {
        let began = tokio::time::Instant::now();
        match world.store.servers().await {
            Ok(members) => {
                let rows: BTreeMap<Membership, &ServerRow> =
                    members.iter().map(|row| (row.membership(), row)).collect();
                watchers.retain(|membership, (watched, stop)| {
                    let stays = rows.get(membership).is_some_and(|row| row.address == watched.address);
                    if !stays {
                        stop.cancel();
                        let server = world.fleet.name(watched);
                        let taken = members.iter().any(|row| row.name == server && row.address == watched.address);
                        world.fleet.forget(watched, taken);
                    }
                    stays
                });
                world.fleet.called(&members);
                for (membership, row) in rows {
                    watchers.entry(membership).or_insert_with(|| {
                        let stop = shutdown.child_token();
                        tasks.spawn(stop.clone().run_until_cancelled_owned(watch_member(world.clone(), row.clone())));
                        (row.clone(), stop)
                    });
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot list members"),
        }
        shutdown.run_until_cancelled(pace::rest_since(began)).await;
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
        let row = ServerRow { name: world.fleet.name(&row), ..row.clone() };
        let why = match watch_once(&world, &row).await {
            Ok(()) => "its stream ended".to_owned(),
            Err(error) => error.message,
        };
        // A stream that worked for a while starts the back-off anew.
        let server = world.fleet.name(&row);
        if world.fleet.observed(&server).reachability == Reachability::Alive {
            tracing::warn!(%server, %why, "server became unreachable");
            pause = world.settings.backoff;
        }
        world.fleet.lost(&row, why);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(world.settings.heartbeat.max(Duration::from_millis(1)) * 2);
    }
}

async fn watch_once(world: &World, row: &ServerRow) -> Result<(), Error> {
    let agent = world.agents.agent(&row.name, &row.principal(), &row.address)?;
    let heartbeat = world.settings.heartbeat;
    let silent = |_| Error::timeout(reason::SERVER_UNREACHABLE, "its stream went silent");
    let mut snapshots = tokio::time::timeout(heartbeat * 3, agent.watch(heartbeat)).await.map_err(silent)??;
    loop {
        let next = tokio::time::timeout(heartbeat * 3, snapshots.next()).await.map_err(silent)?;
        match next {
            Some(snapshot) => world.fleet.saw(row, snapshot?, world.clock.now()),
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
    let promised = promises(tenants, running);
    members
        .iter()
        .map(|row| candidate(row, observed.get(&row.name), promised.get(&row.name).map_or(&[], Vec::as_slice)))
        .collect()
}

/// Tenants that each server has, or is about to have, with their rows as far as there are any.
type Promised<'a> = Vec<(&'a TenantName, Option<&'a TenantRow>)>;

fn promises<'a>(tenants: &'a [TenantRow], running: &'a [OperationRow]) -> HashMap<&'a ServerName, Promised<'a>> {
    let mut coming: BTreeMap<&TenantName, BTreeSet<&ServerName>> = BTreeMap::new();
    for (server, tenant) in running.iter().filter_map(|one| Some((one.target.as_ref()?, one.subject.tenant()?))) {
        coming.entry(tenant).or_default().insert(server);
    }
    let mut promised = HashMap::<&ServerName, Promised<'_>>::new();
    for row in tenants {
        let lives = row.server.as_ref().filter(|_| row.state == TenantState::Active);
        let comes = coming.remove(&row.name).unwrap_or_default();
        let elsewhere = comes.into_iter().filter(|server| Some(*server) != lives);
        for server in lives.into_iter().chain(elsewhere) {
            promised.entry(server).or_default().push((&row.name, Some(row)));
        }
    }
    for (tenant, servers) in coming {
        servers.into_iter().for_each(|server| promised.entry(server).or_default().push((tenant, None)));
    }
    promised
}

fn candidate(
    row: &ServerRow,
    observed: Option<&Observed>,
    promised: &[(&TenantName, Option<&TenantRow>)],
) -> Candidate {
    let snapshot = observed.and_then(Observed::alive);
    let not_ready = match (observed.map(|one| &one.reachability), snapshot) {
        (_, Some(snapshot)) if !snapshot.problems.is_empty() => Some(snapshot.problems.join("; ")),
        (_, Some(_)) => None,
        (Some(Reachability::Silent(why)), _) => Some(format!("unreachable: {why}")),
        _ => Some("not connected yet".to_owned()),
    };
    // What a tenant may use is not there for another, whether it uses it now or not.
    let limited = promised
        .iter()
        .filter_map(|(_, row)| *row)
        .filter_map(|row| row.limits.memory_bytes)
        .fold(0, u64::saturating_add);
    let mut groups = Groups::new();
    for row in promised.iter().filter_map(|(_, row)| *row) {
        if let Some(group) = &row.bounds.spread {
            groups.entry(group.clone()).or_default().insert(row.name.clone());
        }
    }
    // A tenant promised to the server whose port the snapshot does not show yet.
    let promised = promised
        .iter()
        .filter(|(name, _)| snapshot.and_then(|one| one.tenant(name)).is_none_or(|report| report.port.is_none()))
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
        groups,
        slots_free: u32::try_from(slots_free).unwrap_or(u32::MAX),
        memory_free_bytes: snapshot
            .map_or(0, |one| one.memory_free_bytes.min(one.memory_total_bytes.saturating_sub(limited))),
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
        tenant: None,
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

/// Does a tenant live on a server that is no member? Only one that was declared lost leaves that behind.
pub fn is_lost(row: &TenantRow, is_member: impl Fn(&ServerName) -> bool) -> bool {
    row.state == TenantState::Active && row.server.as_ref().is_some_and(|server| !is_member(server))
}

/// What is to be said of a tenant whose server is lost.
pub fn told_lost(tenant: &str, server: &str) -> String {
    format!(
        "{server}, where it lived, is lost; `featherctl tenant recover {tenant}` brings it back with what is left of its data, `featherctl tenant \
         remove {tenant}` gives it up"
    )
}

/// Why a tenant's server does not have it as it should, in words; none when it says nothing of that.
pub fn trouble(report: Option<&TenantReport>) -> Option<String> {
    let Some(report) = report else { return Some("its server does not know it".to_owned()) };
    report.problem.clone().or_else(|| Some(format!("its server says: {:?}", report.residence).to_lowercase()))
}
