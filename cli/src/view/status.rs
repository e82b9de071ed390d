//! The fleet at a glance.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{
    Moment, moment,
    operation::{OperationView, State},
    server::ServerView,
    set, tenant,
    warning::{self, WarningView},
};
use crate::{
    output::{pairs, table},
    units,
};

/// Servers that are shown line by line unless all are asked for.
const SERVERS_SHOWN: usize = 16;
/// Operations that are shown line by line unless all are asked for.
const OPERATIONS_SHOWN: usize = 8;
/// Warnings that are shown unless all are asked for.
const WARNINGS_SHOWN: usize = 4;

#[derive(Debug, Serialize)]
pub(crate) struct CountView {
    pub(crate) state: &'static str,
    pub(crate) count: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct UnderWayView {
    #[serde(flatten)]
    pub(crate) operation: OperationView,
    /// Of what is being transferred now; null when nothing is.
    pub(crate) bytes_done: Option<u64>,
    pub(crate) bytes_total: Option<u64>,
    /// How fast; null while that is not known.
    pub(crate) bytes_per_second: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DnsGlanceView {
    pub(crate) mode: String,
    pub(crate) zone: String,
    pub(crate) looked: Option<Moment>,
    pub(crate) message: Option<String>,
    pub(crate) problem: Option<String>,
    pub(crate) on_their_way: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct CertificateGlanceView {
    pub(crate) names: Vec<String>,
    pub(crate) not_after: Option<Moment>,
    pub(crate) next_renewal: Option<Moment>,
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    pub(crate) now: Option<Moment>,
    pub(crate) version: String,
    /// Where the controller is that leads, if the one that answered does not.
    pub(crate) leader: Option<String>,
    pub(crate) servers: Vec<ServerView>,
    pub(crate) tenants: Vec<CountView>,
    pub(crate) operations: Vec<UnderWayView>,
    pub(crate) dns: Option<DnsGlanceView>,
    pub(crate) certificate: Option<CertificateGlanceView>,
    pub(crate) warnings: Vec<WarningView>,
    pub(crate) acknowledged: u32,
}

impl From<pb::GetStatusResponse> for StatusView {
    fn from(pb: pb::GetStatusResponse) -> Self {
        let under_way = |pb: pb::OperationUnderWay| UnderWayView {
            operation: OperationView::from(pb.operation.unwrap_or_default()),
            bytes_done: pb.progress.as_ref().map(|progress| progress.bytes),
            bytes_total: pb.progress.as_ref().map(|progress| progress.total_bytes).filter(|total| *total > 0),
            bytes_per_second: pb.progress.as_ref().map(|progress| progress.bytes_per_second).filter(|rate| *rate > 0),
        };
        let dns = |pb: pb::DnsGlance| DnsGlanceView {
            mode: pb.mode,
            zone: pb.zone,
            looked: moment!(pb.looked),
            message: set(pb.message),
            problem: set(pb.problem),
            on_their_way: pb.on_their_way,
        };
        let certificate = |pb: pb::CertificateGlance| CertificateGlanceView {
            names: pb.names,
            not_after: moment!(pb.not_after),
            next_renewal: moment!(pb.next_renewal),
            problem: set(pb.problem),
        };
        let count = |pb: pb::TenantCount| CountView { state: tenant::word(pb.state()), count: pb.count };
        Self {
            now: moment!(pb.now),
            version: pb.version,
            leader: set(pb.leader),
            servers: pb.servers.into_iter().map(ServerView::from).collect(),
            tenants: pb.tenants.into_iter().map(count).collect(),
            operations: pb.operations.into_iter().map(under_way).collect(),
            dns: pb.dns.map(dns),
            certificate: pb.certificate.map(certificate),
            warnings: pb.warnings.into_iter().map(WarningView::from).collect(),
            acknowledged: pb.acknowledged,
        }
    }
}

impl UnderWayView {
    /// From where to where.
    pub(crate) fn route(&self) -> String {
        match (&self.operation.source, &self.operation.target) {
            (Some(source), Some(target)) if source != target => format!("{source} -> {target}"),
            (one, other) => one.as_ref().or(other.as_ref()).cloned().unwrap_or_default(),
        }
    }

    /// How much is through, in hundredths; none while the whole is not known.
    pub(crate) fn percent(&self) -> Option<u64> {
        let (done, total) = self.bytes_done.zip(self.bytes_total)?;
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        Some(u64::try_from(percent.min(100)).unwrap_or(100))
    }

    /// How long it will take still; none while that cannot be said.
    pub(crate) fn seconds_left(&self) -> Option<u64> {
        let (done, total) = self.bytes_done.zip(self.bytes_total)?;
        Some(total.saturating_sub(done).div_ceil(self.bytes_per_second?.max(1)))
    }

    fn row(&self) -> [String; 6] {
        let operation = &self.operation;
        let route = self.route();
        let step = match (operation.state, self.percent()) {
            (State::Stuck, _) => "stuck".to_owned(),
            (_, Some(percent)) => format!("{} {percent}%", operation.step.as_deref().unwrap_or("transfer")),
            _ => operation.step.clone().unwrap_or_default(),
        };
        let age = operation.created.map(Moment::age).unwrap_or_default();
        [operation.tenant.clone(), operation.kind.to_owned(), route, step, age, operation.id.clone()]
    }
}

impl DnsGlanceView {
    fn line(&self) -> String {
        let looked = self.looked.map(|looked| format!(", {} ago", looked.age())).unwrap_or_default();
        let said = self.problem.as_ref().or(self.message.as_ref()).map_or("not looked at yet", String::as_str);
        let way = match self.on_their_way {
            0 => String::new(),
            count => format!("; {} on the way to name servers", units::counted(count.into(), "name")),
        };
        format!("{} ({}){looked}: {said}{way}", self.zone, self.mode)
    }
}

impl CertificateGlanceView {
    fn line(&self) -> String {
        let names = self.names.join(", ");
        let life = self.not_after.map_or("none yet".to_owned(), |ends| {
            let renewed = self.next_renewal.map(|next| format!(", renewed {}", next.day())).unwrap_or_default();
            format!("until {}{renewed}", ends.day())
        });
        let problem = self.problem.as_ref().map(|problem| format!("; {problem}")).unwrap_or_default();
        format!("{names}: {life}{problem}")
    }
}

impl StatusView {
    /// One screen; with `all` as many lines as there are.
    pub(crate) fn text(&self, all: bool) -> String {
        let shown = |most: usize| if all { usize::MAX } else { most };
        let mut parts = vec![pairs(&self.summary())];
        if !self.servers.is_empty() {
            parts.push(self.server_table(shown(SERVERS_SHOWN)));
        }
        if !self.operations.is_empty() {
            let rows: Vec<_> = self.operations.iter().take(shown(OPERATIONS_SHOWN)).map(UnderWayView::row).collect();
            let rest = self.operations.len() - rows.len();
            let table = table(["SUBJECT", "KIND", "SERVERS", "STEP", "AGE", "OPERATION"], &rows);
            parts.push(table + &more(rest, "`featherctl operation list`"));
        }
        if !self.warnings.is_empty() {
            let first: Vec<_> = self.warnings.iter().take(shown(WARNINGS_SHOWN)).cloned().collect();
            let rest = self.warnings.len() - first.len();
            parts.push(format!("warnings\n{}{}", warning::list(&first), more(rest, "`featherctl warning list`")));
        }
        parts.join("\n")
    }

    fn summary(&self) -> Vec<(&'static str, String)> {
        let ready = self.servers.iter().filter(|server| server.state == "ready").count();
        let free: u64 = self.servers.iter().map(|server| u64::from(server.slots_free)).sum();
        let slots: u64 = self.servers.iter().map(|server| u64::from(server.slots_total)).sum();
        let servers = self.servers.len();
        let tenants: Vec<_> = self
            .tenants
            .iter()
            .filter(|one| one.state != "removed")
            .map(|one| format!("{} {}", one.count, one.state))
            .collect();
        let warnings = match (self.warnings.len(), self.acknowledged) {
            (0, 0) => "none".to_owned(),
            (new, 0) => new.to_string(),
            (new, known) => format!("{new}, and {known} that somebody knows of"),
        };
        let controller = match &self.leader {
            None => self.version.clone(),
            Some(leader) => format!("{}, which only shows the fleet; the one at {leader} leads", self.version),
        };
        vec![
            ("controller", controller),
            ("servers", format!("{ready} of {servers} ready, {free} of {slots} slots free")),
            ("tenants", if tenants.is_empty() { "none".into() } else { tenants.join(", ") }),
            (
                "operations",
                if self.operations.is_empty() {
                    "none under way".into()
                } else {
                    format!("{} under way", self.operations.len())
                },
            ),
            ("dns", self.dns.as_ref().map_or("not written by this controller".into(), DnsGlanceView::line)),
            ("certificate", self.certificate.as_ref().map(CertificateGlanceView::line).unwrap_or_default()),
            ("warnings", warnings),
        ]
    }

    /// Those that need attention first, then the fullest.
    fn server_table(&self, most: usize) -> String {
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|server| (server.state == "ready", server.slots_free));
        let rows: Vec<_> = servers
            .iter()
            .take(most)
            .map(|server| {
                let name = if server.ingress { format!("{} *", server.name) } else { server.name.clone() };
                [
                    name,
                    server.state.to_owned(),
                    format!("{}/{}", server.slots_free, server.slots_total),
                    server.tenants.to_string(),
                    units::bytes(server.memory_free_bytes),
                    units::bytes(server.disk_free_bytes),
                    server.last_seen.map(Moment::age).unwrap_or_default(),
                ]
            })
            .collect();
        let rest = servers.len() - rows.len();
        let table = table(["SERVER", "STATE", "FREE SLOTS", "TENANTS", "FREE MEMORY", "FREE DISK", "SEEN"], &rows);
        table + &more(rest, "`featherctl status --all`")
    }
}

fn more(rest: usize, command: &str) -> String {
    if rest == 0 { String::new() } else { format!("and {rest} more: {command}\n") }
}
