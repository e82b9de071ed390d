//! `featherctl dns restore`

use feather_proto::pb::controller::v1 as pb;

use crate::{
    arguments::Context,
    confirm::{Question, confirm},
    error::Failure,
    view::dns::RestoreView,
};

/// Bring back what others had in the zone, from a snapshot.
///
/// The fleet's own records stay as they are. This is the one command that writes records of others, so it shows them first and asks
/// for their number.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of the snapshot.
    #[arg(value_name = "SNAPSHOT")]
    snapshot: i64,
    /// Only show what would come back, and what would go.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let ask = |dry_run, zone_hash| pb::RestoreDnsSnapshotRequest { id: arguments.snapshot, dry_run, zone_hash };
    let shown = connection.call(connection.dns().restore_dns_snapshot(ask(true, String::new()))).await?;
    let zone_hash = shown.zone_hash.clone();
    let view = RestoreView::new(arguments.snapshot, arguments.dry_run, shown);
    if arguments.dry_run {
        return context.output.show(&view, || view.text());
    }
    if view.is_done() {
        context.output.show(&view, String::new)?;
        context.output.note("The zone is as in that snapshot already; nothing to do.");
        return Ok(());
    }
    context.output.note(view.text().trim_end());
    let counts = view.counts();
    let consequence = format!("This writes the whole zone anew: {counts} are records that come and go.");
    confirm(context.output, &Question { name: &counts, consequence: &consequence, yes: arguments.yes })?;
    connection.call(connection.dns().restore_dns_snapshot(ask(false, zone_hash))).await?;
    context.output.show(&view, String::new)?;
    context
        .output
        .note(&format!("The zone is as in snapshot {} again, with the fleet's records of now.", arguments.snapshot));
    Ok(())
}
