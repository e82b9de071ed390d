//! Changes of tenants on a server that belongs to no fleet, and so issues generations itself.
//!
//! Owns the issuing (always one above the highest that anybody has seen) and the words for a person who has no controller
//! to ask. Every change here goes the way of a controller's call from then on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use feather_proto::{
    adoption::{Action, Finding},
    error::{Code, Error, reason},
    ids::{Generation, TenantName},
    limits::Limits,
    model::{StopReason, VolumeExpectation},
};

use crate::{
    adoption,
    agent::{Agent, locked},
    ledger::{Record, Residence, Volume},
    transition::AddRequest,
};

/// Adds a tenant, or waits for the add of it that is under way.
pub(crate) async fn add(agent: Arc<Agent>, tenant: TenantName) -> Result<(), Error> {
    let record = agent.ledger.get(&tenant)?;
    let under_way = record.as_ref().is_some_and(|record| record.provisioning().is_some());
    let generation = match &record {
        Some(record) if under_way => record.generation,
        Some(record) if matches!(record.residence, Residence::Active { .. } | Residence::Sealed) => {
            return Err(lives_here(&tenant));
        }
        _ => issue(&agent, &tenant)?,
    };
    let image = agent.config.work_image.clone();
    let (volume, limits) = (VolumeExpectation::Any, Limits::default());
    let request = AddRequest { tenant: tenant.clone(), generation, image, volume, limits };
    agent.add(&request).await.map(drop).map_err(|error| {
        let goes_on = matches!(agent.ledger.get(&tenant), Ok(Some(record)) if record.provisioning().is_some());
        match error.code {
            Code::Exists => lives_here(&tenant),
            code if code.retryable() && goes_on => Error {
                message: format!(
                    "{}; {tenant} is still being added: the same command again waits for it, `tenant.sh remove {tenant}` gives it up",
                    error.message
                ),
                ..error
            },
            _ => in_local_words(error, &tenant),
        }
    })
}

/// Removes a tenant that lives here; its data is kept.
pub(crate) async fn remove(agent: Arc<Agent>, tenant: TenantName) -> Result<(), Error> {
    let generation = next(&agent, &tenant)?;
    agent.remove(&tenant, generation, false).await.map(drop).map_err(|error| in_local_words(error, &tenant))
}

/// Starts a tenant that lives here. One that does not get healthy stays stopped.
pub(crate) async fn start(agent: Arc<Agent>, tenant: TenantName) -> Result<(), Error> {
    let (generation, stopped) = (next(&agent, &tenant)?, is_stopped(&agent, &tenant));
    let started = agent.start(&tenant, generation).await.map(drop);
    stopped_as_before(&agent, &tenant, stopped, started).await
}

/// Makes the container of a tenant that lives here anew. One that was stopped and does not get healthy stays stopped.
pub(crate) async fn restart(agent: Arc<Agent>, tenant: TenantName) -> Result<(), Error> {
    let (generation, stopped) = (next(&agent, &tenant)?, is_stopped(&agent, &tenant));
    let restarted = agent.restart(&tenant, generation).await.map(drop);
    stopped_as_before(&agent, &tenant, stopped, restarted).await
}

/// Takes over what the old script left, as far as it fits. In the order of names, with what could not be read.
pub(crate) async fn adopt(agent: Arc<Agent>, dry_run: bool, start: bool) -> Result<(Vec<Finding>, Vec<String>), Error> {
    let wish = adoption::Wish { start, alone: true };
    let (found, problems) = agent.plan_adoption(wish).await?;
    let fits = found.iter().filter(|finding| finding.action == Action::Adopt);
    let names: BTreeSet<TenantName> = fits.filter_map(|finding| finding.name.parse().ok()).collect();
    if dry_run || names.is_empty() {
        return Ok((found, problems));
    }
    let mut findings: BTreeMap<_, _> = found.into_iter().map(|finding| (finding.name.clone(), finding)).collect();
    for done in agent.adopt(&names, wish).await? {
        findings.insert(done.name.clone(), done);
    }
    Ok((findings.into_values().collect(), problems))
}

fn is_stopped(agent: &Agent, tenant: &TenantName) -> bool {
    matches!(agent.ledger.get(tenant), Ok(Some(record)) if !record.should_run())
}

async fn stopped_as_before(
    agent: &Arc<Agent>,
    tenant: &TenantName,
    stopped: bool,
    done: Result<(), Error>,
) -> Result<(), Error> {
    let Err(error) = done else { return Ok(()) };
    if stopped && error.is(reason::NEVER_HEALTHY) {
        let generation = next(agent, tenant)?;
        agent.stop(tenant, generation, StopReason::Operator).await?;
        return Err(Error { message: format!("{}\n{tenant} stays stopped", error.message), ..error });
    }
    Err(in_local_words(error, tenant))
}

/// Stops a tenant that lives here.
pub(crate) async fn stop(agent: Arc<Agent>, tenant: TenantName) -> Result<(), Error> {
    let generation = next(&agent, &tenant)?;
    let stopped = agent.stop(&tenant, generation, StopReason::Operator).await;
    stopped.map(drop).map_err(|error| in_local_words(error, &tenant))
}

/// The generation of a change of a tenant that must live here.
fn next(agent: &Agent, tenant: &TenantName) -> Result<Generation, Error> {
    match agent.ledger.get(tenant)? {
        Some(Record { residence: Residence::Active { .. } | Residence::Sealed, .. }) => issue(agent, tenant),
        Some(Record { residence: Residence::Absent, volume: Volume::Complete { .. }, .. }) => Err(Error::not_found(
            reason::TENANT_NOT_FOUND,
            format!("{tenant} was removed from this server; its data is kept: `tenant.sh add {tenant}` brings it back"),
        )
        .with("tenant", tenant)),
        _ => Err(Error::not_found(
            reason::TENANT_NOT_FOUND,
            format!("{tenant} does not live on this server; `tenant.sh list` shows who does"),
        )
        .with("tenant", tenant)),
    }
}

/// A number that nobody was given before: commands that come at once get one each, and the higher one wins. A number that
/// was issued and never written down had no effect, so that after a crash it may be issued again.
fn issue(agent: &Agent, tenant: &TenantName) -> Result<Generation, Error> {
    let mut issued = locked(&agent.issued);
    let seen = agent.ledger.get(tenant)?.map_or(Generation(0), |record| {
        record.incoming.as_ref().map_or(record.generation, |incoming| record.generation.max(incoming.generation))
    });
    let next = seen.max(issued.get(tenant).copied().unwrap_or_default()).next();
    issued.insert(tenant.clone(), next);
    Ok(next)
}

fn lives_here(tenant: &TenantName) -> Error {
    Error::exists(
        reason::TENANT_EXISTS,
        format!(
            "{tenant} lives on this server already; `tenant.sh list` shows it. For a new password: `tenant.sh remove {tenant}`, then \
             `tenant.sh add {tenant}`, which finds the data again"
        ),
    )
    .with("tenant", tenant)
}

/// The generations of two commands at once are nothing that a person should have to think about.
fn in_local_words(error: Error, tenant: &TenantName) -> Error {
    if error.code == Code::Stale {
        let sentence =
            format!("another command about {tenant} came in between; `tenant.sh list` shows how things stand");
        return Error::stale(reason::STALE_GENERATION, sentence).with("tenant", tenant);
    }
    error
}
