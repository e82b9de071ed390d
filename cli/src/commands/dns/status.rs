//! `featherctl dns status`

use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, error::Failure, view::dns::StatusView};

/// Show where each name leads, and whether that is in the zone and at every name server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.dns().get_dns_status(pb::GetDnsStatusRequest {})).await?;
    let view = StatusView::from(response);
    context.output.show(&view, || view.text())?;
    view.warnings.iter().for_each(|warning| context.output.note(warning));
    Ok(())
}
