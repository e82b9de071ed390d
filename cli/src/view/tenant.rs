//! Tenants as they are shown.

use feather_proto::{limits::Limits, pb::controller::v1 as pb};
use serde::Serialize;

use super::{Moment, labels::LabelsView, life::restarts, moment, or_empty, set};
use crate::{
    limits,
    output::{pairs, table},
};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct TenantView {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) server: Option<String>,
    pub(crate) port: Option<u32>,
    pub(crate) url: Option<String>,
    pub(crate) generation: u64,
    pub(crate) created: Option<Moment>,
    pub(crate) operation: Option<String>,
    pub(crate) problem: Option<String>,
    pub(crate) image_digest: Option<String>,
    pub(crate) previous_server: Option<String>,
    pub(crate) dns_address: Option<String>,
    pub(crate) restarts: u64,
    pub(crate) last_restart: Option<Moment>,
    pub(crate) on: LabelsView,
    pub(crate) pin: Option<String>,
    /// When its newest backup that was read back in order was taken.
    pub(crate) last_verified_backup: Option<Moment>,
    /// What it may use.
    pub(crate) limits: LimitsView,
    /// Its server has those limits, as far as is known.
    pub(crate) limits_applied: bool,
    /// Its group, of which no two are on one server.
    pub(crate) spread: Option<String>,
}

/// Limits: a number, or `null` for none.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct LimitsView {
    pub(crate) memory_bytes: Option<u64>,
    /// In thousandths of a core.
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) pids: Option<u32>,
}

impl From<Limits> for LimitsView {
    fn from(limits: Limits) -> Self {
        Self { memory_bytes: limits.memory_bytes, cpu_millis: limits.cpu_millis, pids: limits.pids }
    }
}

impl LimitsView {
    pub(super) fn memory(&self) -> String {
        self.memory_bytes.map(limits::spelled_memory).unwrap_or_default()
    }

    pub(super) fn cpus(&self) -> String {
        self.cpu_millis.map(limits::spelled_cpus).unwrap_or_default()
    }

    pub(super) fn pids(&self) -> String {
        self.pids.map(|pids| pids.to_string()).unwrap_or_default()
    }
}

/// The word for a state.
pub(crate) fn word(state: pb::TenantState) -> &'static str {
    match state {
        pb::TenantState::Unspecified | pb::TenantState::Unknown => "unknown",
        pb::TenantState::Running => "running",
        pb::TenantState::Stopped => "stopped",
        pb::TenantState::Starting => "starting",
        pb::TenantState::Changing => "changing",
        pb::TenantState::Removed => "removed",
        pb::TenantState::Broken => "broken",
        pb::TenantState::Lost => "lost",
        pb::TenantState::CrashLoop => "crash-loop",
    }
}

impl From<pb::Tenant> for TenantView {
    fn from(pb: pb::Tenant) -> Self {
        let state = word(pb.state());
        Self {
            name: pb.name,
            state,
            server: set(pb.server),
            port: Some(pb.port).filter(|port| *port != 0),
            url: set(pb.url),
            generation: pb.generation,
            created: moment!(pb.created),
            operation: set(pb.operation),
            problem: set(pb.problem),
            image_digest: set(pb.image_digest),
            previous_server: set(pb.previous_server),
            dns_address: set(pb.dns_address),
            restarts: pb.restarts,
            last_restart: moment!(pb.last_restart),
            on: pb.on.into(),
            pin: set(pb.pin),
            last_verified_backup: moment!(pb.last_verified_backup),
            limits: pb.limits.map(Limits::from).unwrap_or_default().into(),
            limits_applied: !pb.limits_pending,
            spread: set(pb.spread),
        }
    }
}

impl TenantView {
    pub(super) fn port(&self) -> String {
        self.port.map(|port| port.to_string()).unwrap_or_default()
    }

    /// A limit, and whether its server has it.
    fn pending(&self, limit: String) -> String {
        match (limit.is_empty(), self.limits_applied) {
            (true, _) => limit,
            (false, true) => format!("at most {limit}"),
            (false, false) => format!("at most {limit}, not applied yet"),
        }
    }

    /// Aligned names and values.
    pub(crate) fn details(&self) -> String {
        pairs(&[
            ("name", self.name.clone()),
            ("state", self.state.to_owned()),
            ("problem", or_empty(self.problem.as_ref())),
            ("server", or_empty(self.server.as_ref())),
            ("only on", self.on.told()),
            ("pinned to", or_empty(self.pin.as_ref())),
            ("away from", self.spread.as_ref().map(|group| format!("others of the group {group}")).unwrap_or_default()),
            ("memory", self.pending(self.limits.memory())),
            ("cpus", self.pending(self.limits.cpus())),
            ("processes", self.pending(self.limits.pids())),
            ("port", self.port()),
            ("url", or_empty(self.url.as_ref())),
            ("dns address", or_empty(self.dns_address.as_ref())),
            ("created", self.created.map(|created| created.to_string()).unwrap_or_default()),
            ("operation", or_empty(self.operation.as_ref())),
            (
                "restarts",
                Some(self.restarts)
                    .filter(|count| *count > 0)
                    .map(|count| restarts(count, self.last_restart))
                    .unwrap_or_default(),
            ),
            (
                "backed up",
                self.last_verified_backup.map(|at| format!("{} ago, verified", at.age())).unwrap_or_default(),
            ),
            ("moved from", or_empty(self.previous_server.as_ref())),
            ("generation", self.generation.to_string()),
            ("image", or_empty(self.image_digest.as_ref())),
        ])
    }

    /// What a list should draw attention to.
    pub(crate) fn remark(&self) -> Option<String> {
        let name = &self.name;
        let server = self.server.as_deref().unwrap_or("its server");
        match (self.state, &self.problem, &self.operation) {
            (_, Some(problem), _) => Some(format!("{name}: {problem}")),
            (_, None, Some(operation)) => {
                Some(format!("{name} is being changed: `featherctl operation watch {operation}` follows it"))
            }
            ("crash-loop", ..) => Some(format!(
                "{name} had to be restarted {} times; this goes on with growing pauses. `featherctl tenant logs {name}` shows what it says.",
                self.restarts
            )),
            ("unknown", ..) => Some(format!("{name}: {server} does not answer; {name} may well be running there")),
            _ => None,
        }
    }
}

pub(crate) fn list(tenants: &[TenantView]) -> String {
    let rows: Vec<_> = tenants
        .iter()
        .map(|tenant| {
            [
                tenant.name.clone(),
                or_empty(tenant.server.as_ref()),
                tenant.port(),
                tenant.state.to_owned(),
                tenant.created.map(Moment::age).unwrap_or_default(),
                or_empty(tenant.url.as_ref()),
            ]
        })
        .collect();
    table(["USERNAME", "SERVER", "PORT", "STATE", "AGE", "URL"], &rows)
}
