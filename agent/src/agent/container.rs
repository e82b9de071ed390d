//! Containers of tenants: made, started, awaited, stopped.
//!
//! Owns what a tenant's container is made of and how long one waits for its health. Knows no generations to compare.

use std::{collections::BTreeMap, time::Duration};

use feather_proto::{
    error::{Code, Error, reason},
    ids::{Generation, TenantName},
    model::ContainerState,
};
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Agent, locked};
use crate::{ledger::Spec, runtime::ContainerSpec, transition};

/// Label of a container with the generation of its placement.
pub(crate) const GENERATION_LABEL: &str = "feather.generation";
/// One health request may take this long.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);
/// How often a container that is not healthy yet is looked at, whether its process still lives.
const STATE_INTERVAL: Duration = Duration::from_millis(500);
/// What is quoted from the output of a container that failed.
const LOG_LINES: u32 = 10;
const LOG_BYTES: usize = 2048;

/// Pauses between health requests: short at first, when most containers answer, because they are part of every outage.
fn health_pause(waited: Duration) -> Duration {
    Duration::from_millis(match waited.as_millis() {
        0..250 => 10,
        250..2_000 => 50,
        2_000..10_000 => 100,
        _ => 500,
    })
}

impl Agent {
    fn container_spec(&self, tenant: &TenantName, spec: &Spec) -> ContainerSpec {
        let mut environment = self.config.tenant_environment.clone();
        environment.insert("FEATHER_PASSWORD".into(), spec.password.expose().to_owned());
        ContainerSpec {
            name: tenant.container(),
            image: spec.image_digest.clone(),
            host_port: spec.port,
            volume: tenant.container(),
            environment,
            dns: self.config.tenant_dns.clone(),
            labels: BTreeMap::from([
                ("feather.tenant".into(), tenant.to_string()),
                (GENERATION_LABEL.into(), spec.placed.to_string()),
            ]),
        }
    }

    /// Makes sure that the tenant's container exists as specified and runs. True when it had to be started.
    pub(crate) async fn start_container(&self, tenant: &TenantName, spec: &Spec) -> Result<bool, Error> {
        let name = tenant.container();
        // The engine would make an empty volume of this name without a word.
        if self.runtime.volume(&name).await?.is_none() {
            return Err(transition::data_missing(tenant));
        }
        let running = self.runs_as_adopted(tenant, spec).await? || {
            self.runtime.ensure_container(&self.container_spec(tenant, spec)).await?;
            self.container_state(tenant).await? == ContainerState::Running
        };
        if !running {
            self.runtime.start(&name).await?;
        }
        locked(&self.settled).insert(tenant.clone(), spec.clone());
        Ok(!running)
    }

    /// Somebody else made the container, and it has not ended since it was taken over.
    async fn runs_as_adopted(&self, tenant: &TenantName, spec: &Spec) -> Result<bool, Error> {
        let Some(adopted) = &spec.adopted else { return Ok(false) };
        let container = self.runtime.container(&tenant.container()).await?;
        Ok(container.is_some_and(|one| one.id == *adopted && one.state == ContainerState::Running))
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
        let interrupted = CancellationToken::new();
        locked(&self.waits).insert(tenant.clone(), interrupted.clone());
        let done = tokio::select! {
            done = self.poll_health(tenant, spec) => done,
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

    async fn poll_health(&self, tenant: &TenantName, spec: &Spec) -> Result<Duration, Error> {
        let began = Instant::now();
        let mut looked = began;
        let why = loop {
            if self.runtime.healthy(spec.port, HEALTH_LIMIT).await {
                return Ok(began.elapsed());
            }
            if began.elapsed() >= self.config.health_timeout {
                let seconds = self.config.health_timeout.as_secs();
                break format!("{tenant} did not answer its health check within {seconds} s");
            }
            if looked.elapsed() >= STATE_INTERVAL {
                looked = Instant::now();
                // An engine that does not answer says nothing about the container: go on asking it for its health.
                if let Ok(ContainerState::Exited | ContainerState::Missing) = self.container_state(tenant).await {
                    break format!("the process of {tenant} ended before it answered its health check");
                }
            }
            tokio::time::sleep(health_pause(began.elapsed())).await;
        };
        let lines = self.last_lines(tenant, spec).await;
        let output = if lines.is_empty() { "; it wrote nothing".into() } else { format!("; its last lines:\n{lines}") };
        Err(Error::refused(reason::NEVER_HEALTHY, format!("{why}{output}")).with("tenant", tenant))
    }

    /// The end of a container's output, for a person. Secrets that it was given are blotted out.
    async fn last_lines(&self, tenant: &TenantName, spec: &Spec) -> String {
        let collect = async {
            let stream = self.runtime.logs(&tenant.container(), LOG_LINES, false).await.ok()?;
            Some(stream.take(LOG_LINES as usize).filter_map(|line| async { line.ok() }).collect::<Vec<_>>().await)
        };
        let lines = tokio::time::timeout(Duration::from_secs(5), collect).await.ok().flatten().unwrap_or_default();
        let mut text = lines.iter().map(|line| format!("  {}", line.text)).collect::<Vec<_>>().join("\n");
        let keys = self.config.tenant_environment.values().map(String::as_str);
        for secret in keys.chain([spec.password.expose()]).filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "***");
        }
        while text.len() > LOG_BYTES {
            // Whole lines go first, the oldest before the newer; a single endless one is cut.
            match text.split_once('\n') {
                Some((_, rest)) => text = rest.to_owned(),
                None => text = text.chars().take(LOG_BYTES / 4).collect(),
            }
        }
        text
    }
}
