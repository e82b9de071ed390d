//! `featherctl dns apply`

use feather_proto::pb::controller::v1 as pb;

use super::plan;
use crate::{
    arguments::Context,
    confirm::{Question, confirm},
    error::Failure,
    units,
    view::dns::AppliedView,
};

/// Change the zone as planned, after asking.
///
/// What is shown is what is done: if zone or fleet change meanwhile, nothing is. Only records of the fleet change; the zone as it
/// was is kept as a snapshot.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names that may change, this once: a number, or a share of the fleet's records as 50%.
    #[arg(long, value_name = "COUNT|SHARE")]
    max_changes: Option<String>,
    /// It is right that far fewer records of others are in the zone than before.
    #[arg(long)]
    accept_fewer: bool,
    /// Only this plan, as `featherctl dns plan` named it.
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let shown = plan::fetch(&connection).await?;
    if !context.output.is_json() && !arguments.yes {
        context.output.note(shown.text().trim_end());
    }
    let named = match arguments.plan {
        Some(plan) => plan,
        None if shown.is_done() && !arguments.accept_fewer => {
            context.output.show(&AppliedView::nothing(&shown), String::new)?;
            context.output.note("The zone is as wanted; nothing to do.");
            return Ok(());
        }
        None => shown.plan.clone(),
    };
    let names = units::counted(u64::from(shown.changes), "name");
    let consequence = format!("This changes {names} in {}.", shown.zone);
    confirm(context.output, &Question { name: "apply", consequence: &consequence, yes: arguments.yes })?;
    let request = pb::ApplyDnsRequest {
        plan: named,
        max_changes: arguments.max_changes.unwrap_or_default(),
        accept_fewer: arguments.accept_fewer,
    };
    let view = AppliedView::from(connection.call(connection.dns().apply_dns(request)).await?);
    context.output.show(&view, String::new)?;
    context.output.note(&view.told());
    view.noticed.iter().for_each(|noticed| context.output.note(noticed));
    Ok(())
}
