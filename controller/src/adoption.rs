//! Tenants that live on a member and that the store does not know: they become tenants of the fleet where they are.
//!
//! A member that was by itself has tenants in its ledger; one that the old script ran has things that could become such. What is
//! in a ledger is a fact that the store has to learn, not a wish: so a reconciler takes it in, when its name is free. A name that
//! the store has ever given a home is never taken in, however it looks on some server: only that keeps a copy from long ago from
//! coming back as the tenant. One that stands still in a move which nobody remembers is taken in as stopped, once it is certain that nobody
//! else serves it, and what such a move has left elsewhere is given back (`sealed.rs`, pure). Owns that judgement (pure) and the taking-in;
//! what fits on a server is its agent's judgement.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use feather_proto::{
    adoption::{Action, Finding},
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::{ContainerState, Residence, ServerSnapshot, TenantReport},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Call,
    events,
    fleet::Observed,
    pace,
    store::{ServerRow, TakeIn, TenantRow, TenantState},
    world::World,
};
use sealed::{Doubt, Half, doubt, half, is_sealed};

mod sealed;

/// What the store says to a tenant that a member holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is known to live there.
    Known,
    /// Nobody has the name.
    Free,
    /// An operation is about it now.
    Busy,
    /// Somebody else has the name, or had it; and what to do.
    Taken(String),
}

/// Desired state, as far as names are concerned.
#[derive(Debug, Clone, Default)]
pub struct Names {
    rows: BTreeMap<TenantName, TenantRow>,
    held: BTreeSet<TenantName>,
    /// Whoever may have a tenant.
    members: Vec<ServerRow>,
}

impl Names {
    /// Of these rows, running operations and members.
    pub fn new(rows: Vec<TenantRow>, held: impl IntoIterator<Item = TenantName>, members: &[ServerRow]) -> Self {
        let rows = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        Self { rows, held: held.into_iter().collect(), members: members.to_vec() }
    }

    /// As the store has them now. Operations come first: what one of them has done is seen, or that it is under way.
    pub async fn read(world: &World) -> Result<Self, Error> {
        let store = &world.store;
        let running = store.unfinished_operations().await?;
        let held = running.iter().filter_map(|one| one.subject.tenant().cloned());
        Ok(Self::new(store.tenants().await?, held, &store.servers().await?))
    }

    fn row(&self, tenant: &TenantName) -> Option<&TenantRow> {
        self.rows.get(tenant)
    }

    fn is_held(&self, tenant: &TenantName) -> bool {
        self.held.contains(tenant)
    }

    /// What is to be said of one that stands still there while its name is another tenant's, which began at another time.
    fn other_tenant(&self, server: &ServerName, report: &TenantReport) -> Option<String> {
        let tenant = &report.tenant;
        let row = self.rows.get(tenant).filter(|_| is_sealed(report) && !self.held.contains(tenant))?;
        let home =
            row.server.as_ref().filter(|home| *home != server && report.created.is_some_and(|at| at != row.created))?;
        Some(format!(
            "one of this name stands still here in a move that no operation goes on with (generation {}), and the name belongs to another \
             tenant, of {home}: {}",
            report.generation,
            other_name(server, tenant)
        ))
    }

    fn members(&self) -> &[ServerRow] {
        &self.members
    }

    /// May this server's tenant have the name?
    pub fn claim(&self, server: &ServerName, tenant: &TenantName) -> Claim {
        let Some(row) = self.rows.get(tenant) else { return Claim::Free };
        let home = row.server.as_ref();
        match (row.state, home) {
            (TenantState::Active, Some(home)) if home == server => Claim::Known,
            _ if self.held.contains(tenant) => Claim::Busy,
            (TenantState::Removed, None) => Claim::Free,
            (TenantState::Adding, _) | (TenantState::Active, None) => Claim::Busy,
            (TenantState::Active, Some(home)) => Claim::Taken(format!(
                "the name belongs to a tenant on {home} (generation {}); both run on, and the fleet knows only that one: {}",
                row.generation,
                other_name(server, tenant)
            )),
            (TenantState::Removed, Some(home)) if home == server => Claim::Taken(format!(
                "it was removed from the fleet (generation {}) and is here all the same; `featherctl tenant add {tenant}` brings the one \
                 with the kept data back, and what runs here must be stopped in the birth container first",
                row.generation
            )),
            (TenantState::Removed, Some(home)) => Claim::Taken(format!(
                "the name belongs to a removed tenant whose data is kept on {home}; this one runs on, and the fleet does not know it: {}",
                other_name(server, tenant)
            )),
        }
    }
}

/// Names cannot be changed in place: a container and a volume are called by them.
fn other_name(server: &ServerName, tenant: &TenantName) -> String {
    let volume = tenant.container();
    format!(
        "to give this one another name, type in the birth container of {server}: `podman stop {volume} && podman volume create \
         feather-user-NEW && podman volume export {volume} | podman volume import feather-user-NEW -`, then `featherctl tenant add NEW \
         --server {server}`"
    )
}

/// Does it live on the server that reports it?
pub(crate) fn lives(report: &TenantReport) -> bool {
    matches!(report.residence, Residence::Running | Residence::Stopped)
}

/// What the fleet says to each finding of an agent, and to what else lives, or stands still, in its ledger.
pub fn judge(
    server: &ServerName,
    found: Vec<Finding>,
    snapshot: &ServerSnapshot,
    observed: &BTreeMap<ServerName, Observed>,
    names: &Names,
    chosen: &BTreeSet<TenantName>,
) -> Vec<Finding> {
    let mut judged: BTreeMap<String, Finding> = BTreeMap::new();
    for finding in found {
        let name = finding.name.clone();
        let here = name.parse().ok().filter(|_| matches!(finding.action, Action::Adopt | Action::Known));
        let finding = match here {
            Some(tenant) if finding.action == Action::Adopt => match names.claim(server, &tenant) {
                Claim::Free | Claim::Known => finding,
                claim => refused(finding, claim),
            },
            Some(tenant) if snapshot.tenant(&tenant).is_some_and(lives) => known(finding, names.claim(server, &tenant)),
            _ => finding,
        };
        judged.insert(name, finding);
    }
    for report in snapshot.tenants.iter().filter(|report| lives(report)) {
        let claim = names.claim(server, &report.tenant);
        let name = report.tenant.to_string();
        if claim != Claim::Known && !judged.contains_key(&name) {
            judged.insert(name, known(of_ledger(report), claim));
        }
    }
    for report in snapshot.tenants.iter().filter(|report| is_sealed(report)) {
        let (claim, name) = (names.claim(server, &report.tenant), report.tenant.to_string());
        if claim == Claim::Free {
            let doubt = doubt(server, report, observed, names);
            judged.insert(name, still(report, doubt, chosen.contains(&report.tenant)));
        }
    }
    judged.into_values().collect()
}

/// Of one that stands still in a move: where members only do not agree it is taken if a person named it.
fn still(report: &TenantReport, doubt: Option<Doubt>, chosen: bool) -> Finding {
    let (finding, tenant) = (of_ledger(report), &report.tenant);
    let note = format!(
        "it stands still in a move that no operation goes on with; as a tenant of the fleet it is a stopped one, and `featherctl tenant start \
         {tenant}` starts it"
    );
    match doubt {
        Some(Doubt::Served(why)) => finding.misfit(why),
        Some(Doubt::Disputed(why)) if !chosen => finding.misfit(why),
        Some(Doubt::Disputed(_)) | None => Finding { action: Action::Adopt, notes: vec![note], ..finding },
    }
}

/// Of a tenant that the member's ledger has already.
fn known(finding: Finding, claim: Claim) -> Finding {
    match claim {
        Claim::Known => finding,
        Claim::Free => Finding { action: Action::Adopt, ..finding },
        claim => refused(finding, claim),
    }
}

fn refused(finding: Finding, claim: Claim) -> Finding {
    let why = match claim {
        Claim::Taken(why) => why,
        _ => "an operation of the fleet is about this name now; adopt again when it has ended (`featherctl operation list`)".into(),
    };
    finding.misfit(why)
}

fn of_ledger(report: &TenantReport) -> Finding {
    Finding {
        name: report.tenant.to_string(),
        listed: false,
        container: !matches!(report.container, ContainerState::Missing | ContainerState::Unknown),
        running: report.container == ContainerState::Running,
        host_network: false,
        volume: true,
        routed: true,
        port: report.port,
        action: Action::Known,
        why: None,
        notes: vec![],
    }
}

/// Whose tenants can be taken in without asking anybody: their name is free, and only one member claims it; or they stand still there, and
/// nobody else can serve them.
pub fn unknown<'a>(
    observed: &'a BTreeMap<ServerName, Observed>,
    names: &Names,
) -> Vec<(&'a ServerName, &'a TenantReport)> {
    let alive = observed.iter().filter_map(|(server, one)| Some((server, one.alive()?)));
    let mut claims: BTreeMap<&TenantName, Vec<_>> = BTreeMap::new();
    for (server, snapshot) in alive {
        for report in &snapshot.tenants {
            let claims_it = lives(report) || (is_sealed(report) && doubt(server, report, observed, names).is_none());
            if claims_it && names.claim(server, &report.tenant) == Claim::Free {
                claims.entry(&report.tenant).or_default().push((server, report));
            }
        }
    }
    claims.into_values().filter(|claims| claims.len() == 1).flatten().collect()
}

/// Why one that stands still on its server must not be started there: somebody else may serve it.
pub(crate) fn served_elsewhere(
    home: &ServerName,
    report: &TenantReport,
    observed: &BTreeMap<ServerName, Observed>,
    names: &Names,
) -> Option<String> {
    match is_sealed(report).then(|| doubt(home, report, observed, names)).flatten() {
        Some(Doubt::Served(why)) => Some(why),
        Some(Doubt::Disputed(_)) | None => None,
    }
}

/// Does it hold what may be all that is left of a tenant that the store does not know there?
pub(crate) fn is_stray(server: &ServerName, report: &TenantReport, names: &Names) -> bool {
    let stands = is_sealed(report) || report.incoming.is_some();
    stands && matches!(names.claim(server, &report.tenant), Claim::Free | Claim::Taken(_))
}

/// What a person should know about tenants of a member that the fleet does not take in, in sentences.
pub fn conflicts(server: &ServerName, observed: &BTreeMap<ServerName, Observed>, names: &Names) -> Vec<String> {
    let Some(snapshot) = observed.get(server).and_then(Observed::alive) else { return vec![] };
    let still = snapshot.tenants.iter().filter_map(|report| {
        let unknown = is_sealed(report) && names.claim(server, &report.tenant) == Claim::Free;
        let doubted = unknown.then(|| doubt(server, report, observed, names)).flatten().map(Doubt::why);
        let waits = || match half(server, report, observed, names) {
            Some(Half::Waits(why)) => Some(why),
            Some(Half::Unwanted) | None => None,
        };
        let other = || names.other_tenant(server, report);
        Some(format!("{}: {}", report.tenant, doubted.or_else(waits).or_else(other)?))
    });
    let living = snapshot.tenants.iter().filter(|report| lives(report));
    let told = living.filter_map(|report| {
        let tenant = &report.tenant;
        match names.claim(server, tenant) {
            Claim::Taken(why) => Some(format!("{tenant}: {why}")),
            Claim::Free => {
                let rival = observed.iter().find(|(other, one)| {
                    *other != server && one.alive().and_then(|one| one.tenant(tenant)).is_some_and(lives)
                });
                let (rival, _) = rival?;
                Some(format!(
                    "{tenant}: {server} and {rival} both have a tenant of this name, and the fleet knows neither; `featherctl server adopt \
                     {server}` takes this one"
                ))
            }
            Claim::Known | Claim::Busy => None,
        }
    });
    told.chain(still).collect()
}

/// One pass: everybody who can be taken in is, and what has come to members in moves that nobody goes on with is given back.
pub async fn reconcile(world: &World) -> Result<usize, Error> {
    let observed = world.fleet.all();
    let concerns = |report: &TenantReport| lives(report) || is_sealed(report) || report.incoming.is_some();
    if !observed.values().filter_map(Observed::alive).any(|snapshot| snapshot.tenants.iter().any(concerns)) {
        return Ok(0);
    }
    // Behind what was observed: see `half`.
    let names = Names::read(world).await?;
    let mut taken = 0;
    for (server, report) in unknown(&observed, &names) {
        taken += usize::from(take_in(world, server, report).await?);
    }
    for (server, report) in unwanted(&observed, &names) {
        if let Err(error) = give_back(world, server, report).await {
            tracing::warn!(%server, tenant = %report.tenant, %error, "what a forgotten move left is not given back; trying again");
        }
    }
    Ok(taken)
}

/// What has come to members in moves that nobody goes on with, and whose original is in sight.
fn unwanted<'a>(
    observed: &'a BTreeMap<ServerName, Observed>,
    names: &Names,
) -> Vec<(&'a ServerName, &'a TenantReport)> {
    let alive = observed.iter().filter_map(|(server, one)| Some((server, one.alive()?)));
    let all = alive.flat_map(|(server, snapshot)| snapshot.tenants.iter().map(move |report| (server, report)));
    all.filter(|(server, report)| half(server, report, observed, names) == Some(Half::Unwanted)).collect()
}

/// Nothing of it runs any more, and its port is free; its data stays there, as incomplete, for the next move to begin with.
async fn give_back(world: &World, server: &ServerName, report: &TenantReport) -> Result<(), Error> {
    let (tenant, generation) = (&report.tenant, report.generation);
    // What was observed may be older than the end of the operation that it was for.
    let now = world.look(server).await?;
    if !now.tenant(tenant).is_some_and(|now| now.incoming.is_some() && now.generation == generation) {
        return Ok(());
    }
    let call = Call { request_id: uuid::Uuid::new_v4(), tenant: tenant.clone(), generation };
    world.agent(server).await?.abandon(&call, true).await?;
    world.look_again(server).await;
    tracing::info!(%server, %tenant, %generation, "what had come in a move that no operation goes on with was given back");
    let message =
        format!("a move of {tenant} to {server} had begun, and no operation goes on with it: it was given back");
    world.store.record(&events::of(tenant.as_str(), "move-given-back", message, world.clock.now())).await?;
    world.ring_desired();
    Ok(())
}

async fn take_in(world: &World, server: &ServerName, report: &TenantReport) -> Result<bool, Error> {
    let (now, tenant) = (world.clock.now(), &report.tenant);
    let how = match is_sealed(report) {
        true => format!(
            ", where it stands still in a move that no operation goes on with: `featherctl tenant start {tenant}` starts it"
        ),
        false => String::new(),
    };
    let message = format!("{tenant} was taken in on {server}{how}");
    let tenant = TakeIn {
        tenant: tenant.clone(),
        server: server.clone(),
        generation: report.generation,
        running: report.residence == Residence::Running,
        created: report.created.unwrap_or(now),
        event: events::of(tenant.as_str(), "tenant-taken-in", message, now),
    };
    let taken = world.store.take_in(&tenant).await?;
    if taken {
        tracing::info!(%server, tenant = %report.tenant, generation = %report.generation, "a tenant of this server became one of the fleet");
        world.ring_desired();
    }
    Ok(taken)
}

/// Keeps taking in until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let mut observed = world.fleet.subscribe();
    loop {
        let began = tokio::time::Instant::now();
        if let Err(error) = reconcile(&world).await {
            tracing::warn!(%error, "unknown tenants were not looked at; trying again");
        }
        shutdown.run_until_cancelled(pace::rest_since(began)).await;
        tokio::select! {
            _ = observed.changed() => {}
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// What was found on a server, and what became of it.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// In the order of names.
    pub findings: Vec<Finding>,
    /// What could not be read there.
    pub problems: Vec<String>,
}

/// Takes over a server: first its ledger, then the store. Cut off in between, the reconciler or the next call finishes it. Of tenants that
/// members do not agree about, those that are `chosen`.
pub async fn adopt(
    world: &World,
    server: &ServerName,
    chosen: &BTreeSet<TenantName>,
    dry_run: bool,
) -> Result<Adoption, Error> {
    let row = world.store.member(server).await?;
    let agent = world.agents.agent(&row.name, &row.principal(), &row.address)?;
    let (found, problems) = agent.plan_adoption().await?;
    let (snapshot, observed) = (agent.snapshot().await?, world.fleet.all());
    if let Some(unknown) = chosen.iter().find(|tenant| snapshot.tenant(tenant).is_none()) {
        let message = format!(
            "{server} has no {unknown} in its ledger; `featherctl server adopt {server} --dry-run` shows who is there"
        );
        return Err(Error::not_found(reason::TENANT_NOT_FOUND, message).with("tenant", unknown).with("server", server));
    }
    let findings = judge(server, found, &snapshot, &observed, &Names::read(world).await?, chosen);
    if dry_run {
        return Ok(Adoption { findings, problems });
    }
    let wanted: BTreeSet<TenantName> = findings
        .iter()
        .filter(|finding| finding.action == Action::Adopt)
        .filter_map(|finding| finding.name.parse().ok())
        .collect();
    let mut findings: BTreeMap<_, _> = findings.into_iter().map(|one| (one.name.clone(), one)).collect();
    if !wanted.is_empty() {
        for done in agent.adopt_tenants(uuid::Uuid::new_v4(), &wanted).await? {
            // What the ledger had before stays what the fleet said of it.
            if done.action != Action::Known {
                findings.insert(done.name.clone(), done);
            }
        }
    }
    let snapshot = agent.snapshot().await?;
    for report in
        snapshot.tenants.iter().filter(|report| wanted.contains(&report.tenant) && (lives(report) || is_sealed(report)))
    {
        let Some(finding) = findings.get_mut(report.tenant.as_str()) else { continue };
        // Somebody may have been heard to serve it while the agent was at work.
        if let Some(why) = served_elsewhere(server, report, &world.fleet.all(), &Names::read(world).await?) {
            *finding = finding.clone().misfit(why);
            continue;
        }
        // Somebody may have taken the name in between; the claim then says whose it is.
        if take_in(world, server, report).await? {
            finding.action = Action::Adopted;
        } else if let claim @ (Claim::Taken(_) | Claim::Busy) = Names::read(world).await?.claim(server, &report.tenant)
        {
            *finding = refused(finding.clone(), claim);
        } else {
            finding.action = Action::Adopted;
        }
    }
    world.fleet.saw(&row, snapshot, world.clock.now());
    Ok(Adoption { findings: findings.into_values().collect(), problems })
}

#[cfg(test)]
mod tests;
