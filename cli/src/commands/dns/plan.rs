//! `featherctl dns plan`

use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, commands::present, connect::Connection, error::Failure, view::dns::PlanView};

/// Show what would change in the zone, and what stands in the way.
///
/// Nothing is changed. Records that are not the fleet's are counted, and never touched by any plan.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let plan = fetch(&context.connect()?).await?;
    context.output.show(&plan, || plan.text())?;
    plan.remarks().iter().for_each(|remark| context.output.note(remark));
    Ok(())
}

/// A plan on the zone as it is now.
pub(super) async fn fetch(connection: &Connection) -> Result<PlanView, Failure> {
    let response = connection.call(connection.dns().plan_dns(pb::PlanDnsRequest {})).await?;
    Ok(PlanView::from(present(response.plan, "plan")?))
}
