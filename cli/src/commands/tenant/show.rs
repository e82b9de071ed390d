//! `featherctl tenant show`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::{present, tenant_name},
    error::Failure,
    view::tenant::TenantView,
};

/// Show everything about one tenant.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::GetTenantRequest { tenant: arguments.tenant.into() };
    let response = connection.call(connection.tenants().get_tenant(request)).await?;
    let tenant = TenantView::from(present(response.tenant, "tenant")?);
    context.output.show(&tenant, || tenant.details())
}
