//! What becomes of the tenants of a drain or return, as it is shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::set;
use crate::{output::table, units};

/// One tenant's part.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TenantMoveView {
    pub(crate) tenant: String,
    pub(crate) end: &'static str,
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) operation: Option<String>,
    pub(crate) outage_ms: Option<u64>,
    pub(crate) why: Option<String>,
}

impl From<pb::TenantMove> for TenantMoveView {
    fn from(pb: pb::TenantMove) -> Self {
        let end = match pb.end() {
            pb::MoveEnd::Unspecified => "unknown",
            pb::MoveEnd::Waiting => "waiting",
            pb::MoveEnd::Moving => "moving",
            pb::MoveEnd::Stuck => "stuck",
            pb::MoveEnd::Moved => "moved",
            pb::MoveEnd::Elsewhere => "elsewhere",
            pb::MoveEnd::Left => "left",
            pb::MoveEnd::Recovered => "recovered",
            pb::MoveEnd::Lost => "lost",
        };
        Self {
            tenant: pb.tenant,
            end,
            source: set(pb.source),
            target: set(pb.target),
            operation: set(pb.operation),
            outage_ms: Some(pb.outage_ms).filter(|outage| *outage > 0),
            why: set(pb.why),
        }
    }
}

impl TenantMoveView {
    /// A line for somebody who watches; nothing while there is nothing to say.
    pub(crate) fn told(&self) -> Option<String> {
        let to = self.target.as_deref().map(|target| format!(" to {target}")).unwrap_or_default();
        let why = self.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        match self.end {
            "waiting" => None,
            "moving" => Some(format!("{} moves{to}", self.tenant)),
            "moved" => Some(format!("{} moved{to}", self.tenant)),
            "elsewhere" => Some(format!("{} lives elsewhere already", self.tenant)),
            "recovered" => Some(format!("{} is back{}{why}", self.tenant, to.replace(" to ", " on "))),
            "lost" => Some(format!("{} is lost{why}", self.tenant)),
            "stuck" => Some(format!("{} is stuck{why}", self.tenant)),
            _ => Some(format!("{} was not moved{why}", self.tenant)),
        }
    }
}

pub(crate) fn list(moves: &[TenantMoveView]) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let row = |one: &TenantMoveView| {
        [
            one.tenant.clone(),
            text(&one.source),
            text(&one.target),
            one.end.to_owned(),
            one.outage_ms.map(units::brief).unwrap_or_default(),
            one.why.as_ref().map(|why| why.lines().next().unwrap_or_default().to_owned()).unwrap_or_default(),
        ]
    };
    table(["TENANT", "FROM", "TO", "END", "OUTAGE", "WHY"], &moves.iter().map(row).collect::<Vec<_>>())
}

/// What became of those of a lost server.
pub(crate) fn recovered(moves: &[TenantMoveView]) -> String {
    let row = |one: &TenantMoveView| {
        [
            one.tenant.clone(),
            one.target.clone().unwrap_or_default(),
            one.end.to_owned(),
            one.why.as_ref().map(|why| why.lines().next().unwrap_or_default().to_owned()).unwrap_or_default(),
        ]
    };
    table(["TENANT", "ON", "END", "WITH OR WHY"], &moves.iter().map(row).collect::<Vec<_>>())
}

/// Where one would go.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ForeseenView {
    pub(crate) tenant: String,
    pub(crate) source: String,
    pub(crate) target: Option<String>,
    pub(crate) volume_bytes: u64,
    pub(crate) why: Option<String>,
}

impl From<pb::ForeseenMove> for ForeseenView {
    fn from(pb: pb::ForeseenMove) -> Self {
        Self {
            tenant: pb.tenant,
            source: pb.source,
            target: set(pb.target),
            volume_bytes: pb.volume_bytes,
            why: set(pb.why),
        }
    }
}

pub(crate) fn foreseen(moves: &[ForeseenView]) -> String {
    let row = |one: &ForeseenView| {
        [
            one.tenant.clone(),
            one.source.clone(),
            one.target.clone().unwrap_or_default(),
            units::bytes(one.volume_bytes),
            one.why.clone().unwrap_or_default(),
        ]
    };
    table(["TENANT", "FROM", "TO", "DATA", "WHY"], &moves.iter().map(row).collect::<Vec<_>>())
}
