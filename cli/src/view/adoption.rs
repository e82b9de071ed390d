//! What was found on a server that was run by the old script, as it is shown.

use feather_proto::pb::types::v1 as pb;
use serde::Serialize;

use super::set;
use crate::output::table;

#[derive(Debug, Serialize)]
pub(crate) struct AdoptionView<'a> {
    pub(crate) server: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) findings: Vec<FindingView>,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FindingView {
    pub(crate) name: String,
    pub(crate) action: &'static str,
    pub(crate) port: Option<u32>,
    pub(crate) container: Option<&'static str>,
    pub(crate) host_network: bool,
    pub(crate) listed: bool,
    pub(crate) volume: bool,
    pub(crate) routed: bool,
    pub(crate) why: Option<String>,
    pub(crate) notes: Vec<String>,
}

impl From<pb::AdoptionFinding> for FindingView {
    fn from(pb: pb::AdoptionFinding) -> Self {
        let action = match pb.action() {
            pb::AdoptionAction::Unspecified => "unknown",
            pb::AdoptionAction::Adopt => "adopt",
            pb::AdoptionAction::Adopted => "adopted",
            pb::AdoptionAction::Known => "known",
            pb::AdoptionAction::Keep => "keep",
            pb::AdoptionAction::Misfit => "misfit",
        };
        Self {
            action,
            port: (pb.port > 0).then_some(pb.port),
            container: pb.container.then_some(if pb.running { "running" } else { "stopped" }),
            host_network: pb.host_network,
            listed: pb.listed,
            volume: pb.volume,
            routed: pb.routed,
            why: set(pb.why),
            notes: pb.notes,
            name: pb.name,
        }
    }
}

impl FindingView {
    fn found(&self) -> String {
        let places = [
            (self.listed, "file"),
            (self.container.is_some(), "container"),
            (self.volume, "volume"),
            (self.routed, "route"),
        ];
        let found: Vec<_> = places.iter().filter(|(there, _)| *there).map(|(_, place)| *place).collect();
        found.join(" ")
    }

    fn row(&self) -> [String; 5] {
        let container =
            self.container.map(|state| if self.host_network { format!("{state}, host network") } else { state.into() });
        let port = self.port.map(|port| port.to_string());
        [
            self.name.clone(),
            self.found(),
            port.unwrap_or_default(),
            container.unwrap_or_default(),
            self.action.to_owned(),
        ]
    }

    fn remarks(&self) -> Vec<String> {
        let kept = format!("only a volume; it stays, and `featherctl tenant add {}` finds it", self.name);
        let kept = (self.action == "keep").then_some(kept);
        let all = self.why.iter().chain(&kept).chain(&self.notes);
        all.map(|remark| format!("{}: {remark}", self.name)).collect()
    }
}

impl AdoptionView<'_> {
    /// The table, and under it what there is to say about single names: too long for a column.
    pub(crate) fn text(&self) -> String {
        if self.findings.is_empty() {
            return self.problems.join("\n");
        }
        let rows: Vec<_> = self.findings.iter().map(FindingView::row).collect();
        let mut text = table(["NAME", "FOUND", "PORT", "CONTAINER", "ACTION"], &rows);
        let remarks: Vec<_> =
            self.findings.iter().flat_map(FindingView::remarks).chain(self.problems.iter().cloned()).collect();
        if !remarks.is_empty() {
            text.push_str(&format!("\n{}", remarks.join("\n")));
        }
        text
    }

    /// One sentence: what is so now, and what to type next.
    pub(crate) fn summary(&self) -> String {
        let count = |action: &str| self.findings.iter().filter(|finding| finding.action == action).count();
        let (fit, adopted, misfits) = (count("adopt"), count("adopted"), count("misfit"));
        let server = self.server;
        let left = if misfits > 0 { format!("; {misfits} left as found, see above") } else { String::new() };
        match (self.dry_run, fit, adopted) {
            (true, 0, _) => format!("nothing to adopt on {server}{left}"),
            (true, fit, _) => format!("`featherctl server adopt {server}` would adopt {fit} in place{left}"),
            (false, _, 0) => format!("nothing was adopted on {server}{left}"),
            (false, _, adopted) => format!("{adopted} adopted on {server}, nothing was restarted{left}"),
        }
    }
}
