//! Containers of tenants: made, started, awaited, stopped.
//!
//! Owns what a tenant's container is made of and how long one waits for its health. Knows no generations to compare.

use std::{collections::BTreeMap, time::Duration};

use feather_proto::{
    error::{Code, Error, reason},
    ids::{Generation, TenantName},
    limits::Limits,
    model::ContainerState,
};
use tokio_util::sync::CancellationToken;

use super::{Agent, Awaited, Watched, locked};
use crate::{
    ledger::Spec,
    runtime::{ContainerSpec, Reach},
    transition,
};

/// Label of a container with the generation of its placement.
pub(crate) const GENERATION_LABEL: &str = "feather.generation";
/// Where a work container finds its user's password.
const PASSWORD_VARIABLE: &str = "FEATHER_PASSWORD";

impl Agent {
    fn container_spec(&self, tenant: &TenantName, spec: &Spec) -> ContainerSpec {
        let mut environment = self.config.tenant_environment.clone();
        environment.insert(PASSWORD_VARIABLE.into(), spec.password.expose().to_owned());
        ContainerSpec {
            name: tenant.container(),
            image: spec.image_digest.clone(),
            host_port: spec.port,
            reach: Reach::Published,
            volume: tenant.container(),
            environment,
            dns: self.config.tenant_dns.clone(),
            labels: BTreeMap::from([
                ("feather.tenant".into(), tenant.to_string()),
                (GENERATION_LABEL.into(), spec.placed.to_string()),
            ]),
            limits: Limits { revision: 0, ..spec.limits },
        }
    }

    /// Makes sure that the tenant's container exists as specified and runs. True when it had to be started.
    pub(crate) async fn start_container(&self, tenant: &TenantName, spec: &Spec) -> Result<bool, Error> {
        let name = tenant.container();
        self.looked.forget(tenant);
        // The engine would make an empty volume of this name without a word.
        if self.runtime.volume(&name).await?.is_none() {
            return Err(transition::data_missing(tenant));
        }
        let running = self.runs_as_adopted(tenant, spec).await? || self.runs_as_recorded(tenant, spec).await? || {
            self.runtime.ensure_container(&self.container_spec(tenant, spec)).await?;
            self.container_state(tenant).await? == ContainerState::Running
        };
        if !running {
            self.runtime.start(&name).await?;
            self.note_start(&Watched::Tenant(tenant.clone()));
        }
        // What runs may have been made with others, and an engine may have kept what it was told of them since.
        self.ensure_limits(tenant, spec).await?;
        locked(&self.settled).insert(tenant.clone(), spec.clone());
        Ok(!running)
    }

    /// Somebody else made the container, and it has not ended since it was taken over.
    async fn runs_as_adopted(&self, tenant: &TenantName, spec: &Spec) -> Result<bool, Error> {
        let Some(adopted) = &spec.adopted else { return Ok(false) };
        let container = self.runtime.container(&tenant.container()).await?;
        Ok(container.is_some_and(|one| one.id == *adopted && one.state == ContainerState::Running))
    }

    /// It runs, and is what its record says. What this server gives to every tenant, its keys above all, may have changed since: that
    /// takes effect at the tenant's next start, and is no reason to end its process.
    async fn runs_as_recorded(&self, tenant: &TenantName, spec: &Spec) -> Result<bool, Error> {
        if self.container_state(tenant).await? != ContainerState::Running {
            return Ok(false);
        }
        let Some(found) = self.runtime.inspect(&tenant.container()).await? else { return Ok(false) };
        let container = &found.container;
        Ok(container.state == ContainerState::Running
            && container.labels.get(GENERATION_LABEL) == Some(&spec.placed.to_string())
            && container.image_digest == spec.image_digest
            && container.host_port == Some(spec.port)
            && found.environment.get(PASSWORD_VARIABLE).map(String::as_str) == Some(spec.password.expose()))
    }

    pub(crate) async fn container_state(&self, tenant: &TenantName) -> Result<ContainerState, Error> {
        let container = self.runtime.container(&tenant.container()).await?;
        Ok(container.map_or(ContainerState::Missing, |container| container.state))
    }

    /// This process has made sure of the container with exactly this specification.
    pub(crate) fn is_settled(&self, tenant: &TenantName, spec: &Spec) -> bool {
        locked(&self.settled).get(tenant) == Some(spec)
    }

    /// On return the tenant's process has ended.
    pub(crate) async fn stop_container(&self, tenant: &TenantName) -> Result<(), Error> {
        locked(&self.settled).remove(tenant);
        Ok(self.runtime.stop(&tenant.container(), self.config.stop_grace).await?)
    }

    /// On return the tenant's container is gone; its process had its time to end.
    pub(crate) async fn remove_container(&self, tenant: &TenantName) -> Result<(), Error> {
        self.stop_container(tenant).await?;
        Ok(self.runtime.remove_container(&tenant.container()).await?)
    }

    /// Waits for the first healthy answer. The error quotes the container's last lines. A newer decision ends the wait.
    pub(crate) async fn wait_healthy(&self, tenant: &TenantName, spec: &Spec) -> Result<Duration, Error> {
        let (container, what) = (tenant.container(), tenant.as_str());
        let keys = self.config.tenant_environment.values().cloned();
        let secrets = keys.chain([spec.password.expose().to_owned()]).collect();
        let awaited = Awaited { container: &container, what, port: spec.port, secrets };
        let interrupted = CancellationToken::new();
        locked(&self.waits).insert(tenant.clone(), interrupted.clone());
        let done = tokio::select! {
            done = self.await_health(&awaited) => done.map_err(|error| error.with("tenant", tenant)),
            () = interrupted.cancelled() => Err(Error::new(
                Code::Cancelled,
                reason::CANCELLED,
                format!("a newer call about {tenant} ended the wait for its health"),
            )),
        };
        locked(&self.waits).remove(tenant);
        done
    }

    /// What stops, removes or abandons a tenant need not wait until it is healthy; only what would be refused as stale must.
    pub(crate) fn interrupt_wait(&self, tenant: &TenantName, generation: Generation) {
        let stale = matches!(self.ledger.get(tenant), Ok(Some(record)) if generation < record.generation);
        if !stale && let Some(waiting) = locked(&self.waits).get(tenant) {
            waiting.cancel();
        }
    }
}
