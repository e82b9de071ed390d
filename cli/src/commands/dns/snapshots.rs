//! `featherctl dns snapshots`

use feather_proto::pb::controller::v1 as pb;

use crate::{
    arguments::Context,
    error::Failure,
    view::dns::{SnapshotView, snapshots},
};

/// Show the zones of before: one was kept before each change.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.dns().list_dns_snapshots(pb::ListDnsSnapshotsRequest {})).await?;
    let views: Vec<SnapshotView> = response.snapshots.into_iter().map(SnapshotView::from).collect();
    context.output.show(&views, || if views.is_empty() { String::new() } else { snapshots(&views) })?;
    if views.is_empty() {
        context.output.note("No snapshot yet: one is kept before each change.");
    }
    Ok(())
}
