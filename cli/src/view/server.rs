//! Servers as they are shown.

use feather_proto::{pb::controller::v1 as pb, version::Range};
use serde::Serialize;

use super::{
    ImageView, Moment,
    labels::LabelsView,
    life::{self, AdminView, EventView},
    moment, set,
};
use crate::{
    output::{pairs, table},
    units,
};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServerView {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) address: Option<String>,
    pub(crate) public_address: Option<String>,
    pub(crate) ingress: bool,
    pub(crate) joined: Option<Moment>,
    pub(crate) last_seen: Option<Moment>,
    pub(crate) agent_version: Option<String>,
    pub(crate) slots_total: u32,
    pub(crate) slots_free: u32,
    pub(crate) tenants: u32,
    pub(crate) memory_total_bytes: u64,
    pub(crate) memory_free_bytes: u64,
    pub(crate) disk_total_bytes: u64,
    pub(crate) disk_free_bytes: u64,
    pub(crate) images: Vec<ImageView>,
    pub(crate) problems: Vec<String>,
    pub(crate) admin: Option<AdminView>,
    pub(crate) events: Vec<EventView>,
    pub(crate) cordoned: bool,
    pub(crate) labels: LabelsView,
    pub(crate) version: u64,
    pub(crate) identity: Option<String>,
    pub(crate) protocol: Option<String>,
}

impl From<pb::Server> for ServerView {
    fn from(pb: pb::Server) -> Self {
        let state = match pb.state() {
            pb::ServerState::Unspecified => "unknown",
            pb::ServerState::Connecting => "connecting",
            pb::ServerState::Ready => "ready",
            pb::ServerState::Degraded => "degraded",
            pb::ServerState::Unreachable => "unreachable",
        };
        Self {
            name: pb.name,
            state,
            address: set(pb.address),
            public_address: set(pb.public_address),
            ingress: pb.ingress,
            joined: moment!(pb.joined),
            last_seen: moment!(pb.last_seen),
            agent_version: set(pb.agent_version),
            slots_total: pb.slots_total,
            slots_free: pb.slots_free,
            tenants: pb.tenants,
            memory_total_bytes: pb.memory_total_bytes,
            memory_free_bytes: pb.memory_free_bytes,
            disk_total_bytes: pb.disk_total_bytes,
            disk_free_bytes: pb.disk_free_bytes,
            images: pb.images.into_iter().map(ImageView::from).collect(),
            problems: pb.problems,
            admin: pb.admin.map(AdminView::from),
            events: pb.events.into_iter().map(EventView::from).collect(),
            cordoned: pb.cordoned,
            labels: pb.labels.into(),
            version: pb.version,
            identity: set(pb.identity),
            // A controller of the release before does not know it.
            protocol: Range::new(pb.protocol_oldest, pb.protocol_newest).map(|range| range.to_string()),
        }
    }
}

impl ServerView {
    /// Its state, and whether it takes new tenants.
    pub(super) fn standing(&self) -> String {
        if self.cordoned { format!("{}, cordoned", self.state) } else { self.state.to_owned() }
    }

    pub(super) fn slots(&self) -> String {
        format!("{}/{} free", self.slots_free, self.slots_total)
    }

    pub(super) fn memory(&self) -> String {
        units::free_of(self.memory_free_bytes, self.memory_total_bytes)
    }

    pub(super) fn disk(&self) -> String {
        units::free_of(self.disk_free_bytes, self.disk_total_bytes)
    }

    pub(super) fn seen(&self) -> String {
        self.last_seen.map(|seen| format!("{} ago", seen.age())).unwrap_or_default()
    }

    /// Aligned names and values.
    pub(crate) fn details(&self) -> String {
        let moment = |moment: Option<Moment>| moment.map(|moment| moment.to_string()).unwrap_or_default();
        let mut lines = vec![
            ("name", self.name.clone()),
            ("state", self.standing()),
            ("labels", self.labels.told()),
            ("agent address", self.address.clone().unwrap_or_default()),
            ("public address", self.public_address.clone().unwrap_or_default()),
            ("ingress", if self.ingress { "yes, the wildcard DNS record points here".into() } else { "no".into() }),
            ("tenants", self.tenants.to_string()),
            ("slots", self.slots()),
            ("memory", self.memory()),
            ("disk", self.disk()),
            ("agent version", self.agent_version.clone().unwrap_or_default()),
            ("protocol", self.protocol.clone().unwrap_or_default()),
            ("joined", moment(self.joined)),
            ("last seen", moment(self.last_seen)),
        ];
        let renamed = self.identity.iter().filter(|identity| **identity != self.name);
        lines.extend(renamed.map(|identity| ("identity", format!("{identity}, the name in its certificate"))));
        lines.extend(self.admin.iter().flat_map(AdminView::lines));
        for image in &self.images {
            let name = image.reference.as_deref().unwrap_or("(no name)");
            lines.push(("image", format!("{name} {} ({})", image.short_digest(), units::bytes(image.size_bytes))));
        }
        lines.extend(self.problems.iter().map(|problem| ("problem", problem.clone())));
        lines.extend(life::event_lines(&self.events));
        pairs(&lines)
    }

    /// What a list should draw attention to.
    pub(crate) fn remark(&self) -> Option<String> {
        let name = &self.name;
        match self.state {
            "unreachable" => Some(format!(
                "{name} does not answer; its tenants may well be running. Check the machine, its network and its agent."
            )),
            _ if !self.problems.is_empty() => Some(format!(
                "{name} reports: {}. `featherctl server show {name}` shows all.",
                self.problems.join("; ")
            )),
            _ => None,
        }
    }
}

pub(crate) fn list(servers: &[ServerView]) -> String {
    let row = |server: &ServerView| {
        [
            server.name.clone(),
            server.standing(),
            server.slots(),
            server.tenants.to_string(),
            server.memory(),
            server.disk(),
            server.address.clone().unwrap_or_default(),
            server.seen(),
        ]
    };
    let (head, rows) =
        (["NAME", "STATE", "SLOTS", "TENANTS", "MEMORY", "DISK", "ADDRESS", "SEEN"], servers.iter().map(row));
    if servers.iter().all(|server| server.labels.is_empty()) {
        return table(head, &rows.collect::<Vec<_>>());
    }
    // A column of nothing would only make lines longer.
    let [name, state, slots, tenants, memory, disk, address, seen] = head;
    let labelled: Vec<_> = rows
        .zip(servers)
        .map(|([name, state, slots, tenants, memory, disk, address, seen], server)| {
            [name, state, slots, tenants, memory, disk, address, seen, server.labels.told()]
        })
        .collect();
    table([name, state, slots, tenants, memory, disk, address, seen, "LABELS"], &labelled)
}
