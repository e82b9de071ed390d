//! What tenants may use: the store says it, their servers have it.
//!
//! Owns the comparison of both, which is pure, and the reconciler that hands over what a server has not got: because it was away when it
//! was said, or its answer was lost, or a tenant came to it from a server that had not got it either. A server decides by the revision
//! that nothing older takes the place of what it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use feather_proto::{
    error::Error,
    ids::{ServerName, TenantName},
    limits::Limits,
    model::{Residence, TenantReport},
};
use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Call,
    fleet::Observed,
    pace,
    store::{TenantRow, TenantState},
    world::World,
};

/// Servers that are told at once: one that hangs keeps nobody else waiting.
const TOLD_AT_ONCE: usize = 16;

/// Has a server what the store says, as far as it told?
pub fn applied(row: &TenantRow, report: Option<&TenantReport>) -> bool {
    if report.is_some_and(|report| overtaken(row, report)) {
        return false;
    }
    !row.limits.is_said()
        || report.is_some_and(|report| report.limits.revision >= row.limits.revision && !report.limits_pending)
}

/// Does a server hold to something that was said later than what the store knows? A store that was brought back from a backup is like that.
pub fn overtaken(row: &TenantRow, report: &TenantReport) -> bool {
    report.limits.revision > row.limits.revision && !row.limits.allows_as(&report.limits)
}

/// Memory that the limits of tenants on a server take together, in bytes; of `rows`, those that live there or are coming.
pub fn memory_promised<'a>(
    rows: impl IntoIterator<Item = &'a TenantRow>,
    server: &ServerName,
    coming: &BTreeSet<TenantName>,
) -> u64 {
    let lives = |row: &TenantRow| row.state == TenantState::Active && row.server.as_ref() == Some(server);
    let here = rows.into_iter().filter(|row| lives(row) || coming.contains(&row.name));
    here.filter_map(|row| row.limits.memory_bytes).fold(0, u64::saturating_add)
}

/// Tenants whose server answers and has not got what the store says. Whoever is being changed is left to that operation.
pub fn behind<'a>(
    rows: &'a [TenantRow],
    observed: &BTreeMap<ServerName, Observed>,
    held: &BTreeSet<TenantName>,
) -> Vec<(&'a ServerName, &'a TenantRow)> {
    let lacks = |row: &&'a TenantRow| {
        let server = row.server.as_ref().filter(|_| row.state == TenantState::Active)?;
        let report = observed.get(server)?.alive()?.tenant(&row.name)?;
        let settled = matches!(report.residence, Residence::Running | Residence::Stopped) && report.incoming.is_none();
        (settled && report.limits.revision < row.limits.revision).then_some((server, *row))
    };
    rows.iter().filter(|row| !held.contains(&row.name)).filter_map(|row| lacks(&row)).collect()
}

/// Hands the limits of a tenant to its server, and looks what it has then: an answer may be lost.
///
/// # Errors
/// The server does not have them, and why.
pub async fn hand_over(world: &World, row: &TenantRow, server: &ServerName, limits: Limits) -> Result<(), Error> {
    let call = Call { request_id: uuid::Uuid::now_v7(), tenant: row.name.clone(), generation: row.generation };
    let told = async { world.agent(server).await?.limit_tenant(&call, limits, false).await }.await;
    world.look_again(server).await;
    let wanted = TenantRow { limits, ..row.clone() };
    let report = world.fleet.tenant(server, &row.name);
    match told {
        _ if applied(&wanted, report.as_ref()) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Error::unavailable(
            feather_proto::error::reason::RUNTIME,
            format!("{server} has noted it and has not applied it yet"),
        )),
    }
}

/// Reconciler: every server has the limits of its tenants.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let mut desired = world.desired.subscribe();
    // So that the same trouble is logged once.
    let mut known = BTreeMap::new();
    loop {
        let began = tokio::time::Instant::now();
        let Some(looked) = shutdown.run_until_cancelled(pass(&world)).await else { return };
        match looked {
            Ok(failures) => {
                for (tenant, error) in &failures {
                    if known.get(tenant) != Some(&error.message) {
                        tracing::warn!(%tenant, %error, "a server has not got the limits of a tenant; trying again");
                    }
                }
                known = failures.into_iter().map(|(tenant, error)| (tenant, error.message)).collect();
            }
            Err(error) => tracing::warn!(%error, "cannot compare limits; trying again"),
        }
        shutdown.run_until_cancelled(pace::rest_since(began)).await;
        tokio::select! {
            _ = desired.changed() => {}
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn pass(world: &World) -> Result<Vec<(TenantName, Error)>, Error> {
    let rows = world.store.limited_tenants().await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let running = world.store.unfinished_operations().await?;
    let held = running.iter().filter_map(|one| one.subject.tenant().cloned()).collect();
    let behind: Vec<_> = world.fleet.with(|observed| {
        behind(&rows, observed, &held).into_iter().map(|(server, row)| (server.clone(), row.clone())).collect()
    });
    let told = stream::iter(behind).map(|(server, row)| async move {
        match hand_over(world, &row, &server, row.limits).await {
            Ok(()) => {
                tracing::info!(tenant = %row.name, %server, revision = row.limits.revision, "limits handed over");
                None
            }
            Err(error) => Some((row.name, error)),
        }
    });
    Ok(told.buffer_unordered(TOLD_AT_ONCE).filter_map(std::future::ready).collect().await)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use feather_proto::{
        ids::{Generation, ServerName},
        limits::Limits,
        model::{ContainerState, IncomingStage, Residence, ServerSnapshot, TenantReport, WatchReport},
    };
    use time::OffsetDateTime;

    use super::{applied, behind, memory_promised};
    use crate::{
        fleet::{Observed, Reachability},
        store::{TenantRow, TenantState},
    };

    fn row(name: &str, server: &str, memory: Option<u64>, revision: u64) -> TenantRow {
        TenantRow {
            name: name.parse().unwrap(),
            state: TenantState::Active,
            server: Some(server.parse().unwrap()),
            previous_server: None,
            generation: Generation(3),
            generation_issued: Generation(4),
            running: true,
            created: OffsetDateTime::UNIX_EPOCH,
            version: 1,
            bounds: Default::default(),
            limits: Limits { memory_bytes: memory, revision, ..Limits::default() },
        }
    }

    fn report(revision: u64) -> TenantReport {
        TenantReport {
            tenant: "alice".parse().unwrap(),
            generation: Generation(3),
            residence: Residence::Running,
            incoming: None,
            container: ContainerState::Running,
            port: Some(9001),
            image_digest: None,
            created: None,
            forward_to: None,
            problem: None,
            watch: WatchReport::default(),
            limits: Limits { revision, ..Limits::default() },
            limits_pending: false,
            forward_idle: None,
        }
    }

    fn seen(report: TenantReport, reachability: Reachability) -> BTreeMap<ServerName, Observed> {
        let nyc: ServerName = "nyc".parse().unwrap();
        let snapshot = ServerSnapshot { tenants: vec![report], ..ServerSnapshot::empty(nyc.clone()) };
        [(nyc, Observed { snapshot: Some(snapshot.into()), last_seen: None, reachability })].into()
    }

    #[test]
    fn only_who_can_take_it_and_has_not_got_it_is_told() {
        let rows = [row("alice", "nyc", Some(1 << 30), 2)];
        let told = |report, reachability| behind(&rows, &seen(report, reachability), &BTreeSet::new()).len();
        assert_eq!(told(report(0), Reachability::Alive), 1);
        assert_eq!(told(report(1), Reachability::Alive), 1);
        assert_eq!(told(report(2), Reachability::Alive), 0, "it has it");
        assert_eq!(told(report(3), Reachability::Alive), 0, "it has seen more than this store");
        assert_eq!(told(report(1), Reachability::Silent("gone".into())), 0);
        for other in [
            TenantReport { residence: Residence::Sealed, ..report(1) },
            TenantReport { residence: Residence::Departed, ..report(1) },
            TenantReport { incoming: Some(IncomingStage::Received), ..report(1) },
            TenantReport { tenant: "bob".parse().unwrap(), ..report(1) },
        ] {
            assert_eq!(told(other.clone(), Reachability::Alive), 0, "{other:?}");
        }
        let held = ["alice".parse().unwrap()].into();
        assert!(behind(&rows, &seen(report(1), Reachability::Alive), &held).is_empty(), "an operation has it");
        let removed = [TenantRow { state: TenantState::Removed, ..rows[0].clone() }];
        assert!(behind(&removed, &seen(report(1), Reachability::Alive), &BTreeSet::new()).is_empty());
    }

    #[test]
    fn what_is_noted_and_not_applied_is_not_applied() {
        let alice = row("alice", "nyc", None, 2);
        assert!(applied(&alice, Some(&report(2))));
        assert!(!applied(&alice, Some(&TenantReport { limits_pending: true, ..report(2) })));
        assert!(!applied(&alice, Some(&report(1))) && !applied(&alice, None));
        let later = Limits { memory_bytes: Some(2 << 30), ..report(3).limits };
        assert!(
            !applied(&alice, Some(&TenantReport { limits: later, ..report(3) })),
            "of after the backup of this store"
        );
        assert!(applied(&alice, Some(&report(3))), "the same, said again");
        assert!(applied(&row("bob", "nyc", None, 0), None), "where nothing was said nothing is missing");
    }

    #[test]
    fn memory_is_counted_where_its_tenant_lives() {
        let removed = TenantRow { state: TenantState::Removed, ..row("dora", "nyc", Some(8), 1) };
        let rows =
            [row("alice", "nyc", Some(1), 1), row("bob", "nyc", None, 1), row("carol", "fra", Some(4), 1), removed];
        assert_eq!(memory_promised(&rows, &"nyc".parse().unwrap(), &BTreeSet::new()), 1);
        let endless = [row("alice", "nyc", Some(u64::MAX), 1), row("bob", "nyc", Some(9), 1)];
        assert_eq!(memory_promised(&endless, &"nyc".parse().unwrap(), &BTreeSet::new()), u64::MAX);
    }
}
