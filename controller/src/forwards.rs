//! Keeps forwarding true: a server that still gets requests for a tenant that lives elsewhere sends them there.
//!
//! Wanted: the ingress forwards every tenant that lives on another server (so that nothing needs a DNS change to be reachable),
//! every server that a tenant departed from forwards to where it lives now, and nobody forwards a tenant that is gone.
//! Level-triggered; reads everything, compares, tells the agents what differs.

use std::{collections::BTreeMap, sync::Arc};

use feather_proto::{
    error::Error,
    ids::{Generation, ServerName, TenantName},
    model::{Residence, ServerSnapshot},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Call,
    store::{TenantRow, TenantState},
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
    /// Where each member takes forwarded requests; `None` for one that has not told yet.
    pub targets: &'a BTreeMap<ServerName, Option<String>>,
    /// All tenants.
    pub tenants: &'a [TenantRow],
    /// Tenants held by a running operation; those are left to it.
    pub held: &'a [TenantName],
}

/// What one server should be told.
pub fn corrections(server: &ServerName, snapshot: &ServerSnapshot, view: &View<'_>) -> Vec<Correction> {
    let mut corrections = Vec::new();
    for row in view.tenants.iter().filter(|row| !view.held.contains(&row.name)) {
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
        let target = lives_at.filter(|_| departed || view.ingress == Some(server)).and_then(|at| view.targets.get(at));
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
    let held: Vec<TenantName> = running.iter().filter_map(|row| row.subject.tenant().cloned()).collect();
    let mut targets = BTreeMap::new();
    for row in store.servers().await? {
        targets.insert(row.name.clone(), world.forward_target(&row.name).await?);
    }
    let ingress = crate::dns::wanted(world).await?.ingress;
    let view = View { ingress: ingress.as_ref(), targets: &targets, tenants: &tenants, held: &held };
    let mut told = 0;
    for (server, observed) in world.fleet.all() {
        let Some(snapshot) = observed.alive() else { continue };
        for correction in corrections(&server, snapshot, &view) {
            told += 1;
            if let Err(error) = tell(world, &correction).await {
                tracing::warn!(%server, tenant = %correction.tenant, %error, "forwarding is not as wanted; trying again");
            }
        }
    }
    Ok(told)
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
    use feather_proto::{
        ids::{Generation, ServerName, TenantName},
        model::{ContainerState, IncomingStage, Residence, ServerSnapshot, TenantReport},
    };
    use time::OffsetDateTime;

    use super::{View, corrections};
    use crate::store::{TenantRow, TenantState};

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

    fn told(tenants: &[TenantRow], reports: Vec<TenantReport>, held: &[TenantName]) -> Vec<(String, Option<String>)> {
        let snapshot = ServerSnapshot {
            server: name("nyc"),
            version: String::new(),
            boot_id: String::new(),
            ports: 1..=2,
            ports_used: vec![],
            memory_total_bytes: 0,
            memory_free_bytes: 0,
            disk_total_bytes: 0,
            disk_free_bytes: 0,
            images: vec![],
            work_image: String::new(),
            tenants: reports,
            volumes: vec![],
            now: OffsetDateTime::UNIX_EPOCH,
            problems: vec![],
            admin: None,
            events: vec![],
            forwards_by_tls: false,
        };
        let target = |text: &str| Some(text.to_owned());
        let targets = [("nyc", target("n:80")), ("fra", target("f:80")), ("ams", None)];
        let targets = targets.map(|(server, target)| (name(server), target)).into();
        let view = View { ingress: Some(&name("nyc")), targets: &targets, tenants, held };
        corrections(&name("nyc"), &snapshot, &view)
            .into_iter()
            .map(|one| (one.tenant.to_string(), one.forward_to))
            .collect()
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
        assert_eq!(told(&tenants, vec![], &["alice".parse().unwrap()]), []);
        assert_eq!(told(&[row("bob", "nyc", TenantState::Active)], vec![], &[]), []);
    }
}
