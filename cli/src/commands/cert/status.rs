//! `featherctl cert status`

use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, error::Failure, view::cert::CertView};

/// Show the certificate of the tenants' names: who issued it, when it is renewed, which servers hold it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.certs().get_cert_status(pb::GetCertStatusRequest {})).await?;
    let view = CertView::from(response);
    context.output.show(&view, || view.text())?;
    view.warnings.iter().for_each(|warning| context.output.note(warning));
    Ok(())
}
