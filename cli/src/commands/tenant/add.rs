//! `featherctl tenant add`

use feather_proto::{
    ids::{ServerName, TenantName},
    labels::{Label, LabelName},
    pb::controller::v1 as pb,
};
use serde::Serialize;

use super::set::LimitArgs;
use crate::{
    arguments::Context,
    commands::{finish, group, label, labels, plan, request_id, server_name, tenant_name},
    error::Failure,
    follow::Wait,
};

/// Add a tenant, and print its address and password.
///
/// The password is printed once and not stored; `featherctl tenant password` sets a new one. A tenant that was removed
/// earlier finds its data again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the tenant: 1 to 20 of a-z, 0-9 and '-'. It becomes the first part of the address.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Server to put it on, instead of the one with most room.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    server: Option<ServerName>,
    /// A label that its server must have, as region=eu; may be given several times, and all must hold. Kept with the tenant.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    on: Vec<Label>,
    /// The server to put it on and leave it on: it is moved away only by name. Kept with the tenant.
    #[arg(long, value_name = "SERVER", value_parser = server_name, conflicts_with = "server")]
    pin: Option<ServerName>,
    /// A group, of which no two are put on one server. Kept with the tenant.
    #[arg(long, value_name = "GROUP", value_parser = group)]
    spread: Option<LabelName>,
    #[command(flatten)]
    limits: LimitArgs,
    /// Only print where it would go, and why.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

#[derive(Serialize)]
struct PlanView<'a> {
    dry_run: bool,
    tenant: &'a str,
    server: &'a str,
    url: &'a str,
    explanation: &'a [String],
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::AddTenantRequest {
        request_id: request_id(),
        tenant: arguments.tenant.into(),
        server: arguments.server.map(String::from).unwrap_or_default(),
        dry_run: arguments.dry_run,
        on: labels(&arguments.on),
        pin: arguments.pin.map(String::from).unwrap_or_default(),
        limits: arguments.limits.change(),
        spread: arguments.spread.map(String::from).unwrap_or_default(),
    };
    let response = connection.change(async || connection.tenants().add_tenant(request.clone()).await).await?;
    if arguments.dry_run {
        let view = PlanView {
            dry_run: true,
            tenant: &request.tenant,
            server: &response.server,
            url: &response.url,
            explanation: &response.explanation,
        };
        let headline = format!("would add {} on {}, at {}", view.tenant, view.server, view.url);
        return context.output.show(&view, || plan(&headline, view.explanation));
    }
    finish(context, &connection, response.operation, arguments.wait, Some(response.url)).await
}
