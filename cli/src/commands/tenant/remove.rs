//! `featherctl tenant remove`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{finish, plan, request_id, tenant_name},
    confirm::{Question, confirm},
    error::Failure,
    follow::Wait,
};

/// Remove a tenant; its data is kept.
///
/// Container, route and DNS records go. The volume stays on its server: adding the same name again brings everything back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only print what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Serialize)]
struct PlanView<'a> {
    dry_run: bool,
    tenant: &'a str,
    explanation: &'a [String],
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let tenant = arguments.tenant.as_str();
    if !arguments.dry_run {
        let consequence = format!("This removes {tenant}: it stops and its address answers no more. Its data is kept.");
        confirm(context.output, &Question { name: tenant, consequence: &consequence, yes: arguments.yes })?;
    }
    let request =
        pb::RemoveTenantRequest { request_id: request_id(), tenant: tenant.to_owned(), dry_run: arguments.dry_run };
    let response = connection.change(async || connection.tenants().remove_tenant(request.clone()).await).await?;
    if arguments.dry_run {
        let view = PlanView { dry_run: true, tenant, explanation: &response.explanation };
        return context
            .output
            .show(&view, || plan(&format!("would remove {tenant} and keep its data"), view.explanation));
    }
    finish(context, &connection, response.operation, arguments.wait, None).await
}
