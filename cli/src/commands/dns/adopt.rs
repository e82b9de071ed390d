//! `featherctl dns adopt`

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use crate::{
    arguments::Context,
    confirm::{Question, confirm},
    error::Failure,
    view::dns::RecordView,
};

/// Make records that somebody else made the fleet's.
///
/// They are not touched by that, but from then on the fleet changes and removes them. Names are a tenant's, '*' for the wildcard, or
/// whole names under the fleet's suffix. With --take-over and no names: what the controller's store says was the fleet's.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which names.
    #[arg(value_name = "NAME", required_unless_present = "take_over")]
    names: Vec<String>,
    /// Whatever says whose the names are gives way: another fleet's mark, or one that was lost.
    #[arg(long)]
    take_over: bool,
    /// Only show which records.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct AdoptedView {
    dry_run: bool,
    records: Vec<RecordView>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let ask = |dry_run| pb::AdoptDnsRecordsRequest {
        names: arguments.names.clone(),
        take_over: arguments.take_over,
        dry_run,
    };
    let shown = connection.call(connection.dns().adopt_dns_records(ask(true))).await?;
    let records: Vec<RecordView> = shown.records.into_iter().map(RecordView::from).collect();
    let text = || crate::view::dns::records(&records);
    if arguments.dry_run {
        let view = AdoptedView { dry_run: true, records: records.clone() };
        return context.output.show(&view, text);
    }
    if !arguments.yes {
        context.output.note(text().trim_end());
    }
    let consequence = "From now on the fleet changes and removes these records.";
    confirm(context.output, &Question { name: "adopt", consequence, yes: arguments.yes })?;
    let adopted = connection.call(connection.dns().adopt_dns_records(ask(false))).await?;
    let records: Vec<RecordView> = adopted.records.into_iter().map(RecordView::from).collect();
    let count = crate::units::counted(records.len() as u64, "record");
    context.output.show(&AdoptedView { dry_run: false, records }, String::new)?;
    context.output.note(&format!("{count} adopted; `featherctl dns plan` shows what the fleet makes of that"));
    Ok(())
}
