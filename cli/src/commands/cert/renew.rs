//! `featherctl cert renew`

use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, error::Failure};

/// Have another certificate obtained now.
///
/// It is renewed by itself at two thirds of its life; this is for a key that somebody may have seen, or to try again now after a
/// failure. The authority counts every try.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    connection.call(connection.certs().renew_cert(pb::RenewCertRequest {})).await?;
    context.output.note("another certificate is being obtained; `featherctl cert status` shows how far that is");
    Ok(())
}
