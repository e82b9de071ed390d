//! `featherctl volume list`

use feather_proto::pb::controller::v1 as pb;

use crate::{
    arguments::Context,
    error::Failure,
    view::volume::{self, VolumesView},
};

/// Show every volume in the fleet.
///
/// Roles: `live` (its tenant lives there), `kept` (of a removed tenant), `undo-copy` (left behind by a move),
/// `incomplete` (a transfer or import into it has not finished).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.volumes().list_volumes(pb::ListVolumesRequest {})).await?;
    let view = VolumesView::from(response);
    context.output.show(&view, || if view.volumes.is_empty() { String::new() } else { volume::list(&view.volumes) })?;
    if view.volumes.is_empty() && view.unreachable_servers.is_empty() {
        context.output.note("There are no volumes; `featherctl tenant add NAME` makes one.");
    }
    for server in &view.unreachable_servers {
        context.output.note(&format!("{server} does not answer: its volumes are missing from this list"));
    }
    Ok(())
}
