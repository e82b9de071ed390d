//! Keeps forwarding true: a server that still gets requests for a tenant that lives elsewhere sends them there.
//!
//! Wanted: the ingress forwards every tenant that lives on another server (so that nothing needs a DNS change to be reachable),
//! the former ingress and every server that a tenant departed from do so until every name server has led elsewhere for long enough,
//! and nobody has come there for as long, and nobody forwards a tenant that is gone. A server
//! whose ledger is from before a move (a restored backup) runs an old copy: that is stopped, and becomes one that has departed.
//! Level-triggered; reads everything, compares, tells the agents what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
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
    pace,
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
    /// Those before, while somebody may still be led to them.
    pub former: &'a BTreeSet<ServerName>,
    /// Tenants whose names have led to where they should for so long that nobody should know an older address.
    pub left: &'a BTreeSet<TenantName>,
    /// Who comes all the same is still forwarded, until nobody has come for so long.
    pub quiet: Duration,
    /// Where each member takes forwarded requests; `None` for one that has not told yet.
    pub targets: &'a BTreeMap<ServerName, Option<String>>,
    /// All tenants.
    pub tenants: &'a BTreeMap<&'a TenantName, &'a TenantRow>,
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
        self.tenants.get(tenant).copied()
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
/// placement. A ledger that was restored from a backup brings them back; so does a move that was cut off behind the start of the target
/// and that nobody remembers, whose source holds requests still.
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
        let here = lives(report) || report.residence == Residence::Sealed;
        let old = here && report.incoming.is_none() && report.generation < row.generation;
        let elsewhere = row.server.as_ref() != Some(server) && !view.is_held(&report.tenant, server);
        (same && old && elsewhere).then(|| ((*report).clone(), row.generation))
    };
    snapshot.tenants.iter().filter_map(|report| older(&report)).collect()
}

/// Does somebody come for it here? An agent that cannot tell leaves it to the name servers alone.
fn is_used(report: Option<&TenantReport>, quiet: Duration) -> bool {
    let forwarded = report.filter(|report| report.forward_to.is_some());
    forwarded.and_then(|report| report.forward_idle).is_some_and(|idle| idle < quiet)
}

/// What one server should be told.
pub fn corrections(server: &ServerName, snapshot: &ServerSnapshot, view: &View<'_>) -> Vec<Correction> {
    let mut corrections = Vec::new();
    // Where nobody is led but those that lived there, no other tenant is of any concern.
    let all = view.ingress == Some(server) || view.former.contains(server);
    let everybody = all.then(|| view.tenants.values().copied()).into_iter().flatten();
    let here = (!all).then(|| snapshot.tenants.iter().filter_map(|report| view.row(&report.tenant)));
    let rows = everybody.chain(here.into_iter().flatten());
    for row in rows.filter(|row| !view.is_held(&row.name, server)) {
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
        let led_here = view.former.contains(server) || (departed && !view.left.contains(&row.name));
        let led_here = led_here || departed && is_used(report, view.quiet);
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

fn by_name(tenants: &[TenantRow]) -> BTreeMap<&TenantName, &TenantRow> {
    tenants.iter().map(|row| (&row.name, row)).collect()
}

/// One pass over all reachable servers.
pub async fn reconcile(world: &World) -> Result<usize, Error> {
    let (store, called) = (&world.store, world.fleet.settled().await);
    let tenants = store.all_tenants().await?;
    let running = store.unfinished_operations().await?;
    let held: Vec<Held> = running.iter().filter_map(Held::of).collect();
    let members = store.all_servers().await?;
    let targets = members.iter().map(|row| (row.name.clone(), world.forward_target_of(row))).collect();
    let ingress = crate::dns::wanted(world).await?.ingress;
    let seen = world.fleet.all();
    let at_home = settled(&tenants, &seen);
    let names = at_home.keys().cloned().collect();
    let Led { former, left, quiet } = dns_knows(world, &tenants).await?;
    if !world.fleet.holds(called) {
        // Half of it was read before a server got another name. Everything is looked at again.
        return Ok(0);
    }
    let rows = by_name(&tenants);
    let view = View {
        ingress: ingress.as_ref(),
        former: &former,
        left: &left,
        quiet,
        targets: &targets,
        tenants: &rows,
        held: &held,
        settled: &names,
    };
    let mut told = 0;
    for (server, observed) in &seen {
        let Some(snapshot) = observed.alive() else { continue };
        if !world.fleet.holds(called) {
            return Ok(told);
        }
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

/// What name servers say about who may still be led to an old place.
pub(crate) struct Led {
    /// Former ingresses, while they matter.
    pub(crate) former: BTreeSet<ServerName>,
    /// Tenants that nobody looks for elsewhere any more.
    pub(crate) left: BTreeSet<TenantName>,
    /// How long that had to be so.
    pub(crate) quiet: Duration,
}

/// Where no name server is asked, nobody is ever known to be led elsewhere.
pub(crate) async fn dns_knows(world: &World, tenants: &[TenantRow]) -> Result<Led, Error> {
    let mut former = dns::former_ingresses(&world.store).await?;
    let Ok(keeper) = world.dns.keeper() else {
        return Ok(Led { former, left: BTreeSet::new(), quiet: Duration::ZERO });
    };
    let (names, known) = (keeper.names(), world.dns.known());
    let wanted = dns::wanted(world).await?;
    let now = dns::converge::questions(names, &dns::terms(world, names, &wanted).await?, tenants);
    let now_ms = dns::now_ms(world);
    let left = |host: &str| known.is_left(names, host, &now, now_ms);
    let gone = tenants.iter().map(|row| &row.name).filter(|name| left(&names.host(name.as_str()))).cloned().collect();
    if left(&names.host(dns::plan::WILDCARD)) {
        former.clear();
    }
    Ok(Led { former, left: gone, quiet: known.quiet(now_ms) })
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
        let began = tokio::time::Instant::now();
        // In a large fleet there may be thousands to tell. Whoever was told half way is told again: it is always the same.
        let Some(looked) = shutdown.run_until_cancelled(reconcile(&world)).await else { return };
        if let Err(error) = looked {
            tracing::warn!(%error, "forwarding was not looked at; trying again");
        }
        let mut decided = desired.clone();
        shutdown.run_until_cancelled(pace::rest_until_called(began, decided.changed())).await;
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
    use std::{collections::BTreeSet, time::Duration};

    use feather_proto::{
        ids::{Generation, ServerName},
        model::{IncomingStage, Residence, ServerSnapshot, TenantReport},
    };
    use time::OffsetDateTime;

    use super::{Held, View, by_name, corrections, older_copies, settled};
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
            limits: Default::default(),
        }
    }

    fn report(tenant: &str, residence: Residence, forward_to: Option<&str>) -> TenantReport {
        TenantReport {
            forward_to: forward_to.map(ToOwned::to_owned),
            ..TenantReport::bare(tenant.parse().unwrap(), Generation(1), residence)
        }
    }

    fn snapshot(server: &str, tenants: Vec<TenantReport>) -> ServerSnapshot {
        ServerSnapshot { tenants, ..ServerSnapshot::empty(name(server)) }
    }

    fn observed(server: &str, reports: Vec<TenantReport>) -> (ServerName, Observed) {
        let reachability = Reachability::Alive;
        (name(server), Observed { snapshot: Some(snapshot(server, reports).into()), last_seen: None, reachability })
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
            former: &BTreeSet::new(),
            left: &BTreeSet::new(),
            quiet: Duration::ZERO,
            targets: &targets,
            tenants: &by_name(tenants),
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
        let used = |seconds| TenantReport { forward_idle: Some(Duration::from_secs(seconds)), ..departed("gil") };
        let left = ["gil".parse().unwrap()].into();
        let targets = [(name("fra"), Some("f:80".to_owned()))].into();
        let (ams, settled) = (name("ams"), BTreeSet::new());
        let asked = |gil: TenantReport, ingress: &ServerName, former: Option<&ServerName>| {
            // And an earlier one.
            let former = former.into_iter().cloned().chain([name("lax")]).collect();
            let seen = snapshot("ams", vec![gil, departed("hal")]);
            let view = View {
                ingress: Some(ingress),
                former: &former,
                left: &left,
                quiet: Duration::from_secs(600),
                targets: &targets,
                tenants: &by_name(&tenants),
                held: &[],
                settled: &settled,
            };
            let told = corrections(&ams, &seen, &view).into_iter().map(|one| (one.tenant.to_string(), one.forward_to));
            told.collect::<Vec<_>>()
        };
        let ended = [("gil".to_owned(), None)];
        assert_eq!(asked(departed("gil"), &name("nyc"), None), ended);
        // An ingress forwards whatever comes, and so does the one before it for a while.
        assert_eq!(asked(departed("gil"), &ams, None), []);
        assert_eq!(asked(departed("gil"), &name("nyc"), Some(&ams)), []);
        // Whoever goes on coming by an address that nobody is told any more is not turned away.
        assert_eq!(asked(used(599), &name("nyc"), None), []);
        assert_eq!(asked(used(600), &name("nyc"), None), ended);
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
        // Sealed: the source of a move that nobody remembers, or one whose end was cut off here.
        for residence in [Residence::Running, Residence::Stopped, Residence::Sealed] {
            assert_eq!(ended(living(residence, 2, then), home(), &[]), [(2, 3)]);
        }
        assert_eq!(ended(living(Residence::Running, 2, other), home(), &[]), [], "another tenant of that name");
        assert_eq!(ended(living(Residence::Running, 2, None), home(), &[]), [], "nobody knows whose");
        assert_eq!(ended(living(Residence::Running, 3, then), home(), &[]), [], "as new as the store");
        assert_eq!(ended(living(Residence::Sealed, 3, then), home(), &[]), [], "sealed as new as the store");
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
