//! `featherctl tenant restart`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::{finish, request_id, tenant_name},
    error::Failure,
    follow::Wait,
};

/// Restart a tenant; a changed API key of its server takes effect.
///
/// Its container is made anew: data, password and address stay, whatever it wrote outside of its home directory goes. Requests
/// wait meanwhile. A stopped tenant is started.
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
    let request = pb::RestartTenantRequest { request_id: request_id(), tenant: arguments.tenant.into() };
    let response = connection.change(async || connection.tenants().restart_tenant(request.clone()).await).await?;
    finish(context, &connection, response.operation, arguments.wait, None).await
}
