//! `featherctl dns records`

use feather_proto::pb::controller::v1 as pb;

use crate::{
    arguments::Context,
    error::Failure,
    view::dns::{RecordsView, records},
};

/// Show all records of the zone, and which are the fleet's.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.dns().list_dns_records(pb::ListDnsRecordsRequest {})).await?;
    let view = RecordsView::from(response);
    context.output.show(&view, || records(&view.records))
}
