//! Changes what a tenant may use. Touches no process: it is kept first, and then its server has it.

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    limits::{Change, Limits},
};

use super::Intent;
use crate::{agents::Call, limits, store::TenantRow};

/// What became of a change of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// Where the tenant lives.
    pub server: ServerName,
    /// What it may use from now on, or would.
    pub limits: Limits,
    /// That is news.
    pub changed: bool,
    /// Its server has it.
    pub applied: bool,
    /// Why its server has not got it; the reconciler goes on trying.
    pub problem: Option<String>,
}

impl Intent {
    /// Changes what a tenant may use. Idempotent.
    ///
    /// # Errors
    /// It lives nowhere, an operation has it, its server does not answer or says that it cannot be, there is not as much memory beside
    /// the limits of others, or somebody else changed the tenant at the same moment. Nothing is kept then.
    pub async fn limit(&self, tenant: &TenantName, change: &Change, dry_run: bool) -> Result<Limited, Error> {
        let (row, server) = self.living(tenant).await?;
        self.world.not_held(tenant).await?;
        let report = self.reachable(&server)?.alive().and_then(|snapshot| snapshot.tenant(tenant)).cloned();
        let seen = report.as_ref().map_or(0, |report| report.limits.revision);
        let mut new = row.limits.changed(change, seen).check()?;
        if new == row.limits
            && !change.is_empty()
            && report.as_ref().is_some_and(|report| limits::overtaken(&row, report))
        {
            // What the store says already is news to the server.
            new.revision = seen.saturating_add(1);
        }
        if new == row.limits {
            let applied = limits::applied(&row, report.as_ref());
            return Ok(Limited { server, limits: new, changed: false, applied, problem: None });
        }
        let call = Call { request_id: uuid::Uuid::now_v7(), tenant: tenant.clone(), generation: row.generation };
        self.world.agent(&server).await?.limit_tenant(&call, new, true).await.map_err(super::nothing_began)?;
        let placing = self.world.placing.lock().await;
        self.has_room(&row, &server, &new).await?;
        if dry_run {
            return Ok(Limited { server, limits: new, changed: true, applied: false, problem: None });
        }
        self.world.store.set_limits(tenant, row.version, &new).await?;
        drop(placing);
        let problem = limits::hand_over(&self.world, &row, &server, new).await.err().map(|error| error.message);
        // Whoever waits for limits to be kept looks again; so does the reconciler, where its server has not got them.
        self.world.ring_desired();
        Ok(Limited { server, limits: new, changed: true, applied: problem.is_none(), problem })
    }

    /// All limits of memory on a server together are at most what it has. What has no limit is not counted.
    async fn has_room(&self, row: &TenantRow, server: &ServerName, new: &Limits) -> Result<(), Error> {
        let Some(memory) = new.memory_bytes.filter(|memory| row.limits.memory_bytes.is_none_or(|now| *memory > now))
        else {
            return Ok(());
        };
        let rows = self.world.store.limited_tenants().await?;
        let running = self.world.store.unfinished_operations().await?;
        let coming = running.iter().filter(|one| one.target.as_ref() == Some(server));
        let coming = coming.filter_map(|one| one.subject.tenant().cloned()).collect();
        let others = limits::memory_promised(rows.iter().filter(|other| other.name != row.name), server, &coming);
        let total = self.reachable(server)?.alive().map_or(0, |snapshot| snapshot.memory_total_bytes);
        if memory <= total.saturating_sub(others) {
            return Ok(());
        }
        Err(Error::full(
            reason::NO_ROOM,
            format!(
                "{server} has {} MiB of memory, of which limits of other tenants take {} MiB: {} MiB for {tenant} do not fit beside them. Give it less, \
                 or move it to a server with more first (`featherctl tenant migrate {tenant} --to SERVER`)",
                total >> 20,
                others >> 20,
                memory.div_ceil(1 << 20),
                tenant = row.name,
            ),
        )
        .with("tenant", &row.name)
        .with("server", server))
    }
}
