//! Volumes as they are shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, SummaryView, moment};
use crate::{output::table, units};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct VolumeView {
    pub(crate) tenant: String,
    pub(crate) server: String,
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) keep_until: Option<Moment>,
    /// Of the last whole walk.
    pub(crate) last_summary: Option<SummaryView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VolumesView {
    pub(crate) volumes: Vec<VolumeView>,
    pub(crate) unreachable_servers: Vec<String>,
}

impl From<pb::Volume> for VolumeView {
    fn from(pb: pb::Volume) -> Self {
        let role = match pb.role() {
            pb::VolumeRole::Unspecified => "unknown",
            pb::VolumeRole::Live => "live",
            pb::VolumeRole::Kept => "kept",
            pb::VolumeRole::UndoCopy => "undo-copy",
            pb::VolumeRole::Incomplete => "incomplete",
        };
        Self {
            tenant: pb.tenant,
            server: pb.server,
            name: pb.name,
            role,
            keep_until: moment!(pb.keep_until),
            last_summary: pb.last_summary.map(SummaryView::from),
        }
    }
}

impl From<pb::ListVolumesResponse> for VolumesView {
    fn from(pb: pb::ListVolumesResponse) -> Self {
        Self {
            volumes: pb.volumes.into_iter().map(VolumeView::from).collect(),
            unreachable_servers: pb.unreachable_servers,
        }
    }
}

pub(crate) fn list(volumes: &[VolumeView]) -> String {
    let rows: Vec<_> = volumes
        .iter()
        .map(|volume| {
            let summary = volume.last_summary.as_ref();
            [
                volume.tenant.clone(),
                volume.server.clone(),
                volume.role.to_owned(),
                summary.map(|summary| units::bytes(summary.bytes)).unwrap_or_default(),
                summary.map(|summary| summary.files.to_string()).unwrap_or_default(),
                volume.keep_until.map(|until| until.to_string()).unwrap_or_default(),
            ]
        })
        .collect();
    table(["USERNAME", "SERVER", "ROLE", "SIZE", "FILES", "KEPT UNTIL"], &rows)
}
