//! The zone: what the fleet wants in it, and the reconciler that keeps it so.
//!
//! Owns the seam to a DNS provider. What is wanted is decided in [`plan`], purely. Nothing depends on DNS being up to date: the
//! ingress forwards whatever still arrives there.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use feather_proto::error::Error;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::world::World;

pub mod contract;
pub mod dynadot;
pub mod memory;
pub mod plan;
pub mod zone;

/// One address record under the suffix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// `*` for the wildcard, otherwise a tenant's name.
    pub name: String,
    /// A or AAAA.
    pub address: IpAddr,
}

/// A change of the zone, made on what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// To add, first.
    pub create: Vec<Record>,
    /// To remove, after that.
    pub remove: Vec<Record>,
}

/// A DNS provider, reduced to the records that are ours.
#[async_trait]
pub trait Dns: Send + Sync {
    /// Our records. An error is never an empty zone.
    async fn records(&self) -> Result<BTreeSet<Record>, Error>;
    /// Applies a change; creates before it removes, so that a name never disappears in between.
    async fn apply(&self, changes: &Changes) -> Result<(), Error>;
}

/// Reads, compares, applies; returns a sentence about what was done. No argument but the world.
pub async fn reconcile(world: &World) -> Result<String, Error> {
    let wanted = wanted(world).await?;
    let present = world.dns.records().await?;
    let changes = plan::diff(&wanted.records, &present);
    if changes == Changes::default() {
        return Ok(format!("as wanted (records: {})", present.len()));
    }
    world.dns.apply(&changes).await?;
    let message = format!("records created: {}, removed: {}", changes.create.len(), changes.remove.len());
    tracing::info!(
        created = changes.create.len(),
        removed = changes.remove.len(),
        over_budget = wanted.over_budget.len(),
        "dns changed"
    );
    Ok(message)
}

/// What the zone should hold, from the store alone. Settles the ingress once and keeps it.
pub async fn wanted(world: &World) -> Result<plan::Wanted, Error> {
    let (members, tenants) = (world.store.servers().await?, world.store.tenants().await?);
    let settled = world.store.setting(INGRESS).await?;
    let ingress = plan::ingress(settled.as_deref(), &members, &tenants);
    if let Some(ingress) = &ingress
        && settled.as_deref() != Some(ingress.as_str())
    {
        world.store.set_setting(INGRESS, ingress.as_str()).await?;
    }
    Ok(plan::wanted(ingress, &members, &tenants, world.settings.dns_budget))
}

/// Name of the setting that holds the ingress.
pub const INGRESS: &str = "ingress";

/// Keeps the zone as wanted until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let mut desired = world.desired.subscribe();
    loop {
        if let Err(error) = reconcile(&world).await {
            tracing::warn!(error = %error, "dns is not as wanted; trying again");
        }
        tokio::select! {
            _ = desired.changed() => {}
            () = tokio::time::sleep(world.settings.reconcile) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
