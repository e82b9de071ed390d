//! What the agent tells about itself: tenants, volumes, the whole server at one moment.
//!
//! Owns the translation of records into reports. No password has a place in a report.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use feather_proto::{
    ids::{ServerName, TenantName},
    model::{
        ContainerState, Residence as ReportedResidence, ServerSnapshot, TenantReport, VolumeReport, VolumeState,
        WatchReport,
    },
    version,
};

use time::OffsetDateTime;

use super::{Agent, Watched};
use crate::{
    ledger::{Desired, Record, Residence, Volume},
    runtime::Capacity,
};

/// A snapshot never waits longer than this for the engine: silence would look like a dead server.
const ENGINE_MAX: Duration = Duration::from_secs(3);

pub(super) fn tenant(
    record: &Record,
    container: ContainerState,
    problem: Option<String>,
    watch: WatchReport,
) -> TenantReport {
    let residence = match &record.residence {
        Residence::Absent => ReportedResidence::Absent,
        Residence::Active { desired: Desired::Run, .. } => ReportedResidence::Running,
        Residence::Active { desired: Desired::Stop, .. } => ReportedResidence::Stopped,
        Residence::Sealed => ReportedResidence::Sealed,
        Residence::Departed { .. } => ReportedResidence::Departed,
    };
    let forward_to = match &record.residence {
        Residence::Departed { forward_to } => forward_to.clone(),
        _ => None,
    };
    let incoming = record.incoming.as_ref();
    let spec = record.spec.as_ref().or_else(|| incoming.and_then(|incoming| incoming.spec.as_ref()));
    TenantReport {
        tenant: record.tenant.clone(),
        generation: record.generation,
        residence,
        incoming: incoming.map(|incoming| incoming.stage),
        container,
        port: record.ports().next(),
        image_digest: spec
            .map(|spec| spec.image_digest.clone())
            .or_else(|| incoming.map(|incoming| incoming.image_digest.clone())),
        created: spec.map(|spec| spec.created),
        forward_to,
        problem,
        watch,
        limits: spec.map(|spec| spec.limits).unwrap_or_default(),
        // Whoever knows the container puts it in, and whoever knows the proxy this.
        limits_pending: false,
        forward_idle: None,
    }
}

pub(super) fn volume(record: &Record) -> Option<VolumeReport> {
    let (state, generation, keep_until, last_summary) = match &record.volume {
        Volume::None => return None,
        Volume::Incomplete { generation } => (VolumeState::Incomplete, *generation, None, None),
        Volume::Complete { generation, summary, keep_until } => {
            (VolumeState::Complete, *generation, *keep_until, summary.clone())
        }
    };
    Some(VolumeReport { tenant: record.tenant.clone(), state, generation, keep_until, last_summary })
}

impl Agent {
    /// One tenant, or `None` when the ledger has never heard of it.
    pub(crate) async fn tenant_report(
        &self,
        name: &TenantName,
    ) -> Result<Option<TenantReport>, feather_proto::error::Error> {
        let Some(record) = self.ledger.get(name)? else { return Ok(None) };
        let report = self.report(&record).await;
        Ok(Some(TenantReport { problem: self.problem_of(name), ..report }))
    }

    fn problem_of(&self, name: &TenantName) -> Option<String> {
        self.condition.borrow().tenants.get(name).cloned()
    }

    /// Every tenant that the ledger knows.
    pub(crate) async fn tenant_reports(&self) -> Vec<TenantReport> {
        let containers = self.container_states().await;
        let state = |name: &TenantName| match &containers {
            Some(containers) => containers.get(name).copied().unwrap_or(ContainerState::Missing),
            None => ContainerState::Unknown,
        };
        let records = self.records();
        let report = |record: &Record| {
            let (name, watched) = (&record.tenant, Watched::Tenant(record.tenant.clone()));
            let report = tenant(record, state(name), self.problem_of(name), self.watch_report(&watched));
            self.with_what_is_seen(record, state(name), report)
        };
        records.iter().map(report).collect()
    }

    /// What no record says.
    pub(super) fn with_what_is_seen(
        &self,
        record: &Record,
        container: ContainerState,
        report: TenantReport,
    ) -> TenantReport {
        let limits_pending = self.limits_pending(record, container);
        let forwards = report.forward_to.is_some();
        // What is not watched yet, as behind a start, may be used at this moment.
        let idle = || self.router.last_asked(&record.tenant).map_or(Duration::ZERO, |last| last.elapsed());
        TenantReport { limits_pending, forward_idle: forwards.then(idle), ..report }
    }

    async fn container_states(&self) -> Option<BTreeMap<TenantName, ContainerState>> {
        let containers = tokio::time::timeout(ENGINE_MAX, self.runtime.containers("feather-user-")).await.ok()?.ok()?;
        let named =
            containers.into_iter().map(|container| (TenantName::from_container(&container.name), container.state));
        Some(named.filter_map(|(name, state)| name.map(|name| (name, state))).collect())
    }

    /// Everything that is known of this server, read now.
    pub(crate) async fn snapshot(&self, server: &ServerName) -> ServerSnapshot {
        // Before anything is read: what was begun later has seen at least as much.
        let sequence = self.snapshots.fetch_add(1, Ordering::Relaxed) + 1;
        let (tenants, engine) = tokio::join!(
            self.tenant_reports(),
            tokio::time::timeout(ENGINE_MAX, async {
                tokio::join!(self.runtime.images(), self.runtime.capacity(), self.volumes(), self.admin_report())
            })
        );
        let (images, capacity, volumes, admin) = match engine {
            Ok((images, capacity, volumes, admin)) => (images.ok(), capacity.ok(), volumes.ok(), admin),
            Err(_) => (None, None, None, None),
        };
        let mut problems = self.condition.borrow().problems.clone();
        // Not only as the last pass saw it: nobody is to be sent here before this is over.
        problems.extend(self.fence.problem().filter(|out| !problems.contains(out)));
        if images.is_none() || capacity.is_none() || volumes.is_none() {
            let silent = "Podman does not answer; sizes, images and the states of containers are unknown".to_owned();
            if !problems.contains(&silent) {
                problems.push(silent);
            }
        }
        let records = self.records();
        let unknown =
            Capacity { memory_total_bytes: 0, memory_free_bytes: 0, disk_total_bytes: 0, disk_free_bytes: 0, cores: 0 };
        let capacity = capacity.unwrap_or(unknown);
        let mut ports_used: Vec<u16> = records.iter().flat_map(|record| record.ports().collect::<Vec<_>>()).collect();
        ports_used.sort_unstable();
        ServerSnapshot {
            server: server.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: self.boot_id.clone(),
            sequence,
            domain_suffix: self.config.domain_suffix.clone(),
            ports: self.config.ports.clone(),
            ports_used,
            memory_total_bytes: capacity.memory_total_bytes,
            memory_free_bytes: capacity.memory_free_bytes,
            disk_total_bytes: capacity.disk_total_bytes,
            disk_free_bytes: capacity.disk_free_bytes,
            images: images.unwrap_or_default(),
            work_image: self.config.work_image.clone(),
            tenants,
            volumes: volumes.unwrap_or_else(|| records.iter().filter_map(volume).collect()),
            now: self.clock.now(),
            problems,
            admin,
            events: self.events.all(),
            forwards_by_tls: self.config.edge.domain().is_some(),
            certificate: self.certificates.held(),
            identity_ends: self.identity_ends(),
            revocations_digest: self.identity.get().map(|own| own.revoked().list().digest()).unwrap_or_default(),
            protocol: version::OURS,
        }
    }

    /// When the certificate in use ends; unknown before this server is a member.
    fn identity_ends(&self) -> Option<OffsetDateTime> {
        let (_, ends) = self.identity.get()?.identity().validity().ok()?;
        OffsetDateTime::from_unix_timestamp(ends).ok()
    }
}
