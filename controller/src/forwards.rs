//! Keeps forwarding true: a server that still gets requests for a tenant that lives elsewhere sends them there.
//!
//! Wanted: the ingress forwards every tenant that lives on another server (so that nothing needs a DNS change to be reachable),
//! the former ingress and every server that a tenant departed from do so until every name server has led elsewhere for long enough,
//! and nobody forwards a tenant that is gone. A server
//! whose ledger is from before a move (a restored backup) runs an old copy: that is stopped, and becomes one that has departed.
//! Level-triggered; reads everything, compares, tells the agents what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use feather_proto::{
    error::Error,
    ids::{Generation, ServerName, TenantName},
    model::{Residence, ServerSnapshot, StopReason, TenantReport},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Call,
    dns,
    fleet::Observed,
    store::{OperationRow, TenantRow, TenantState},
    world::World,
};

/// One server should be told about one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Whom to tell.
    pub server: ServerName,
    /// About whom.
    pub tenant: TenantName,
    /// Under the generation of the placement in force.
    pub generation: Generation,
    /// Where to forward to, if anywhere.
    pub forward_to: Option<String>,
}

/// What the pure comparison needs.
pub struct View<'a> {
    /// Server that the wildcard record leads to.
    pub ingress: Option<&'a ServerName>,
    /// The one before, while somebody may still be led to it.
    pub former: Option<&'a ServerName>,
    /// Tenants whose names have led to where they should for so long that nobody knows an older address.
    pub left: &'a BTreeSet<TenantName>,
    /// Where each member takes forwarded requests; `None` for one that has not told yet.
    pub targets: &'a BTreeMap<ServerName, Option<String>>,
    /// All tenants.
    pub tenants: &'a [TenantRow],
    /// What running operations are about; that is left to them.
    pub held: &'a [Held],
    /// Tenants that were seen to live where they should, under the placement in force.
    pub settled: &'a BTreeSet<TenantName>,
}

/// A tenant that a running operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub tenant: TenantName,
    /// Servers that the operation itself tells.
    pub servers: Vec<ServerName>,
}

impl Held {
    fn of(operation: &OperationRow) -> Option<Self> {
        let servers = operation.source.iter().chain(&operation.target).cloned().collect();
        Some(Self { tenant: operation.subject.tenant()?.clone(), servers })
    }
}

impl View<'_> {
    /// Whether an operation tells this server about this tenant. It may be stuck for long behind its commit, on one of its own
    /// servers: all others then need to know at once where the tenant lives, but not before it does.
    fn is_held(&self, tenant: &TenantName, server: &ServerName) -> bool {
        let mut held = self.held.iter().filter(|held| &held.tenant == tenant);
        held.any(|held| held.servers.contains(server) || !self.settled.contains(tenant))
    }

    fn row(&self, tenant: &TenantName) -> Option<&TenantRow> {
        self.tenants.iter().find(|row| &row.name == tenant)
    }
}

/// Tenants that are seen to live where they should, and since when they exist.
fn settled(tenants: &[TenantRow], seen: &BTreeMap<ServerName, Observed>) -> BTreeMap<TenantName, TenantReport> {
    let at_home = |row: &TenantRow| {
        let home = row.server.as_ref().filter(|_| row.state == TenantState::Active)?;
        let report = seen.get(home)?.alive()?.tenant(&row.name)?;
        (lives(report) && report.incoming.is_none() && report.generation >= row.generation)
            .then(|| (row.name.clone(), report.clone()))
    };
    tenants.iter().filter_map(at_home).collect()
}

fn lives(report: &TenantReport) -> bool {
    matches!(report.residence, Residence::Running | Residence::Stopped)
}

/// Copies on this server from before a move: of a tenant that is settled elsewhere, made at the same time as it, under an older
/// placement. A ledger that was restored from a backup brings them back.
fn older_copies(
    server: &ServerName,
    snapshot: &ServerSnapshot,
    view: &View<'_>,
    settled: &BTreeMap<TenantName, TenantReport>,
) -> Vec<(TenantReport, Generation)> {
    let older = |report: &&TenantReport| {
        let row = view.row(&report.tenant)?;
        let there = settled.get(&report.tenant)?;
        let same = report.created.is_some() && report.created == there.created;
        let old = lives(report) && report.incoming.is_none() && report.generation < row.generation;
        let elsewhere = row.server.as_ref() != Some(server) && !view.is_held(&report.tenant, server);
        (same && old && elsewhere).then(|| ((*report).clone(), row.generation))
    };
    snapshot.tenants.iter().filter_map(|report| older(&report)).collect()
}

/// What one server should be told.
pub fn corrections(server: &ServerName, snapshot: &ServerSnapshot, view: &View<'_>) -> Vec<Correction> {
    let mut corrections = Vec::new();
    for row in view.tenants.iter().filter(|row| !view.is_held(&row.name, server)) {
        let report = snapshot.tenant(&row.name);
        // Never touches a tenant that lives, or is arriving, on that server: that is not a question of forwarding.
        let resides = report.is_some_and(|report| {
            matches!(report.residence, Residence::Running | Residence::Stopped | Residence::Sealed)
                || report.incoming.is_some()
        });
        if resides || row.server.as_ref() == Some(server) || row.generation == Generation(0) {
            continue;
        }
        let lives_at = row.server.as_ref().filter(|_| row.state == TenantState::Active);
        let departed = report.is_some_and(|report| report.residence == Residence::Departed);
        let led_here = view.former == Some(server) || (departed && !view.left.contains(&row.name));
        let target = lives_at.filter(|_| led_here || view.ingress == Some(server)).and_then(|at| view.targets.get(at));
        // Where it lives is known, how it is reached there is not: what is so stays so until it is.
        if target == Some(&None) {
            continue;
        }
        let wanted = target.and_then(Option::as_ref);
        let present = report.and_then(|report| report.forward_to.as_ref());
        if wanted != present {
            corrections.push(Correction {
                server: server.clone(),
                tenant: row.name.clone(),
                generation: row.generation,
                forward_to: wanted.cloned(),
            });
        }
    }
    corrections
}

/// One pass over all reachable servers.
pub async fn reconcile(world: &World) -> Result<usize, Error> {
    let store = &world.store;
    let tenants = store.tenants().await?;
    let running = store.unfinished_operations().await?;
    let held: Vec<Held> = running.iter().filter_map(Held::of).collect();
    let mut targets = BTreeMap::new();
    for row in store.servers().await? {
        targets.insert(row.name.clone(), world.forward_target(&row.name).await?);
    }
    let ingress = crate::dns::wanted(world).await?.ingress;
    let seen = world.fleet.all();
    let at_home = settled(&tenants, &seen);
    let names = at_home.keys().cloned().collect();
    let (former, left) = dns_knows(world, &tenants).await?;
    let view = View {
        ingress: ingress.as_ref(),
        former: former.as_ref(),
        left: &left,
        targets: &targets,
        tenants: &tenants,
        held: &held,
        settled: &names,
    };
    let mut told = 0;
    for (server, observed) in &seen {
        let Some(snapshot) = observed.alive() else { continue };
        for correction in corrections(server, snapshot, &view) {
            told += 1;
            if let Err(error) = tell(world, &correction).await {
                tracing::warn!(%server, tenant = %correction.tenant, %error, "forwarding is not as wanted; trying again");
            }
        }
        for (copy, generation) in older_copies(server, snapshot, &view, &at_home) {
            told += 1;
            let tenant = &copy.tenant;
            match seal(world, server, &copy, generation).await {
                Ok(()) => {
                    tracing::warn!(%server, %tenant, "stopped a copy from before a move; its volume is kept there")
                }
                Err(error) => {
                    tracing::warn!(%server, %tenant, %error, "a copy from before a move still runs; trying again")
                }
            }
        }
    }
    Ok(told)
}

/// The former ingress while it matters, and the tenants that nobody looks for elsewhere any more. Where no name server is asked, that is
/// never known.
pub(crate) async fn dns_knows(
    world: &World,
    tenants: &[TenantRow],
) -> Result<(Option<ServerName>, BTreeSet<TenantName>), Error> {
    let former: Option<ServerName> =
        world.store.setting(dns::FORMER_INGRESS).await?.map(|name| name.parse()).transpose()?;
    let Ok(keeper) = world.dns.keeper() else { return Ok((former, BTreeSet::new())) };
    let (names, known) = (keeper.names(), world.dns.known());
    let now_ms = i64::try_from(world.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
    let left = |host: &str| known.is_left(names, host, now_ms);
    let gone = tenants.iter().map(|row| &row.name).filter(|name| left(&names.host(name.as_str()))).cloned().collect();
    Ok((former.filter(|_| !left(&names.host(dns::plan::WILDCARD))), gone))
}

/// Ends a copy from before a move. The next pass of the reconciler tells its server where to forward.
async fn seal(world: &World, server: &ServerName, copy: &TenantReport, now: Generation) -> Result<(), Error> {
    let agent = world.agent(server).await?;
    let call = |generation| Call { request_id: uuid::Uuid::new_v4(), tenant: copy.tenant.clone(), generation };
    agent.stop_tenant(&call(copy.generation), StopReason::Move).await?;
    agent.hand_off(&call(now), None).await.map(drop)
}

async fn tell(world: &World, correction: &Correction) -> Result<(), Error> {
    let call =
        Call { request_id: uuid::Uuid::new_v4(), tenant: correction.tenant.clone(), generation: correction.generation };
    let agent = world.agent(&correction.server).await?;
    agent.hand_off(&call, correction.forward_to.as_deref()).await?;
    tracing::info!(server = %correction.server, tenant = %correction.tenant, forward_to = ?correction.forward_to, "forwarding corrected");
    Ok(())
}

/// Keeps forwarding true until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let mut desired = world.desired.subscribe();
    let mut observed = world.fleet.subscribe();
    loop {
        if let Err(error) = reconcile(&world).await {
            tracing::warn!(%error, "forwarding was not looked at; trying again");
        }
        tokio::select! {
            _ = desired.changed() => {}
            _ = observed.changed() => {}
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use feather_proto::{
        ids::{Generation, ServerName},
        model::{ContainerState, IncomingStage, Residence, ServerSnapshot, TenantReport},
    };
    use time::OffsetDateTime;

    use super::{Held, View, corrections, older_copies, settled};
    use crate::{
        fleet::{Observed, Reachability},
        store::{TenantRow, TenantState},
    };

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn row(tenant: &str, server: &str, state: TenantState) -> TenantRow {
        TenantRow {
            name: tenant.parse().unwrap(),
            state,
            server: Some(name(server)),
            previous_server: None,
            generation: Generation(3),
            generation_issued: Generation(4),
            running: true,
            created: OffsetDateTime::UNIX_EPOCH,
            version: 1,
            bounds: crate::placement::Bounds::default(),
        }
    }

    fn report(tenant: &str, residence: Residence, forward_to: Option<&str>) -> TenantReport {
        TenantReport {
            tenant: tenant.parse().unwrap(),
            generation: Generation(1),
            residence,
            incoming: None,
            container: ContainerState::Missing,
            port: None,
            image_digest: None,
            created: None,
            forward_to: forward_to.map(ToOwned::to_owned),
            problem: None,
            watch: Default::default(),
        }
    }

    fn snapshot(server: &str, tenants: Vec<TenantReport>) -> ServerSnapshot {
        ServerSnapshot { tenants, ..ServerSnapshot::empty(name(server)) }
    }

    fn observed(server: &str, reports: Vec<TenantReport>) -> (ServerName, Observed) {
        let reachability = Reachability::Alive;
        (name(server), Observed { snapshot: Some(snapshot(server, reports)), last_seen: None, reachability })
    }

    type Told = Vec<(String, Option<String>)>;

    /// What nyc, the ingress, is told; and which copies on it are ended, with the generation of the tenant in force.
    fn both(
        tenants: &[TenantRow],
        reports: Vec<TenantReport>,
        held: &[Held],
        others: Vec<(ServerName, Observed)>,
    ) -> (Told, Vec<(u64, u64)>) {
        let target = |text: &str| Some(text.to_owned());
        let targets = [("nyc", target("n:80")), ("fra", target("f:80")), ("ams", None)];
        let targets = targets.map(|(server, target)| (name(server), target)).into();
        let at_home = settled(tenants, &others.into_iter().collect());
        let names = at_home.keys().cloned().collect();
        let view = View {
            ingress: Some(&name("nyc")),
            former: None,
            left: &BTreeSet::new(),
            targets: &targets,
            tenants,
            held,
            settled: &names,
        };
        let nyc = snapshot("nyc", reports);
        let told = corrections(&name("nyc"), &nyc, &view).into_iter();
        let older = older_copies(&name("nyc"), &nyc, &view, &at_home).into_iter();
        (
            told.map(|one| (one.tenant.to_string(), one.forward_to)).collect(),
            older.map(|(copy, generation)| (copy.generation.0, generation.0)).collect(),
        )
    }

    fn told(tenants: &[TenantRow], reports: Vec<TenantReport>, held: &[Held]) -> Told {
        both(tenants, reports, held, vec![]).0
    }

    fn held(servers: &[&str]) -> [Held; 1] {
        let servers = servers.iter().map(|server| name(server)).collect();
        [Held { tenant: "alice".parse().unwrap(), servers }]
    }

    /// Alice, who exists since then, at home.
    fn living(residence: Residence, generation: u64, created: Option<OffsetDateTime>) -> TenantReport {
        TenantReport { generation: Generation(generation), created, ..report("alice", residence, None) }
    }

    #[test]
    fn the_ingress_forwards_tenants_that_live_elsewhere() {
        let tenants = [row("alice", "fra", TenantState::Active)];
        let wanted = vec![("alice".to_owned(), Some("f:80".to_owned()))];
        assert_eq!(told(&tenants, vec![], &[]), wanted);
        assert_eq!(told(&tenants, vec![report("alice", Residence::Departed, Some("x:80"))], &[]), wanted);
        assert_eq!(told(&tenants, vec![report("alice", Residence::Departed, Some("f:80"))], &[]), []);
    }

    #[test]
    fn a_forward_to_a_server_that_has_told_nothing_yet_stays_as_it_is() {
        let tenants = [row("alice", "ams", TenantState::Active)];
        for forward_to in [None, Some("a:80"), Some("ams@a:443")] {
            assert_eq!(told(&tenants, vec![report("alice", Residence::Departed, forward_to)], &[]), []);
        }
        let elsewhere = [row("alice", "gone", TenantState::Active)];
        let departed = report("alice", Residence::Departed, Some("g:80"));
        assert_eq!(told(&elsewhere, vec![departed], &[]), vec![("alice".to_owned(), None)]);
    }

    #[test]
    fn a_forward_ends_when_nobody_is_led_here_any_more() {
        let tenants = [row("gil", "fra", TenantState::Active), row("hal", "fra", TenantState::Active)];
        let departed = |name| report(name, Residence::Departed, Some("f:80"));
        let seen = snapshot("ams", vec![departed("gil"), departed("hal")]);
        let left = ["gil".parse().unwrap()].into();
        let targets = [(name("fra"), Some("f:80".to_owned()))].into();
        let (ams, settled) = (name("ams"), BTreeSet::new());
        let asked = |ingress: &ServerName, former| {
            let view = View {
                ingress: Some(ingress),
                former,
                left: &left,
                targets: &targets,
                tenants: &tenants,
                held: &[],
                settled: &settled,
            };
            let told = corrections(&ams, &seen, &view).into_iter().map(|one| (one.tenant.to_string(), one.forward_to));
            told.collect::<Vec<_>>()
        };
        assert_eq!(asked(&name("nyc"), None), [("gil".to_owned(), None)]);
        // An ingress forwards whatever comes, and so does the one before it for a while.
        assert_eq!(asked(&ams, None), []);
        assert_eq!(asked(&name("nyc"), Some(&ams)), []);
    }

    #[test]
    fn a_removed_tenant_is_forwarded_nowhere() {
        let tenants = [row("alice", "fra", TenantState::Removed)];
        let departed = report("alice", Residence::Departed, Some("f:80"));
        assert_eq!(told(&tenants, vec![departed], &[]), vec![("alice".to_owned(), None)]);
        assert_eq!(told(&tenants, vec![report("alice", Residence::Absent, None)], &[]), []);
    }

    #[test]
    fn tenants_that_live_or_arrive_there_or_are_held_are_left_alone() {
        let tenants = [row("alice", "fra", TenantState::Active)];
        for residence in [Residence::Running, Residence::Stopped, Residence::Sealed] {
            assert_eq!(told(&tenants, vec![report("alice", residence, None)], &[]), []);
        }
        let arriving =
            TenantReport { incoming: Some(IncomingStage::Trial), ..report("alice", Residence::Absent, None) };
        assert_eq!(told(&tenants, vec![arriving], &[]), []);
        assert_eq!(told(&tenants, vec![], &held(&["ams", "fra"])), []);
        assert_eq!(told(&[row("bob", "nyc", TenantState::Active)], vec![], &[]), []);
    }

    #[test]
    fn a_third_server_learns_where_a_tenant_lives_while_its_move_is_still_stuck_behind_the_commit() {
        let tenants = [row("alice", "fra", TenantState::Active)];
        let wanted = vec![("alice".to_owned(), Some("f:80".to_owned()))];
        let told = |generation, residence, held: &[Held]| {
            both(&tenants, vec![], held, vec![observed("fra", vec![living(residence, generation, None)])]).0
        };
        assert_eq!(told(3, Residence::Running, &held(&["ams", "fra"])), wanted);
        assert_eq!(told(3, Residence::Stopped, &held(&["ams", "fra"])), wanted);
        assert_eq!(told(2, Residence::Running, &held(&["ams", "fra"])), [], "an older placement");
        assert_eq!(told(3, Residence::Absent, &held(&["ams", "fra"])), [], "not there yet");
        assert_eq!(told(3, Residence::Running, &held(&["nyc", "fra"])), [], "the move itself tells this one");
    }

    #[test]
    fn only_a_copy_of_the_same_tenant_from_before_its_move_is_ended() {
        let tenants = [row("alice", "fra", TenantState::Active)];
        let (then, other) = (Some(OffsetDateTime::UNIX_EPOCH), Some(OffsetDateTime::UNIX_EPOCH + time::Duration::DAY));
        let ended = |copy: TenantReport, home: Vec<TenantReport>, held: &[Held]| {
            both(&tenants, vec![copy], held, vec![observed("fra", home)]).1
        };
        let home = || vec![living(Residence::Running, 3, then)];
        for residence in [Residence::Running, Residence::Stopped] {
            assert_eq!(ended(living(residence, 2, then), home(), &[]), [(2, 3)]);
        }
        assert_eq!(ended(living(Residence::Running, 2, other), home(), &[]), [], "another tenant of that name");
        assert_eq!(ended(living(Residence::Running, 2, None), home(), &[]), [], "nobody knows whose");
        assert_eq!(ended(living(Residence::Running, 3, then), home(), &[]), [], "as new as the store");
        assert_eq!(ended(living(Residence::Sealed, 2, then), home(), &[]), [], "sealed by somebody");
        assert_eq!(ended(living(Residence::Running, 2, then), vec![], &[]), [], "perhaps the only copy");
        assert_eq!(
            ended(living(Residence::Running, 2, then), home(), &held(&["nyc", "fra"])),
            [],
            "a move is under way"
        );
        assert_eq!(
            both(&tenants, vec![living(Residence::Running, 2, then)], &[], vec![]).1,
            [],
            "home is not in sight"
        );
    }
}
