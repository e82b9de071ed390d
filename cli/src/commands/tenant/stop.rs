//! `featherctl tenant stop`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::{finish, request_id, tenant_name},
    error::Failure,
    follow::Wait,
};

/// Stop a tenant.
///
/// Its place, data and address stay; the address answers 503 until the tenant is started again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::StopTenantRequest { request_id: request_id(), tenant: arguments.tenant.into() };
    let response = connection.change(async || connection.tenants().stop_tenant(request.clone()).await).await?;
    finish(context, &connection, response.operation, arguments.wait, None).await
}
