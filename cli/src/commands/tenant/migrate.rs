//! `featherctl tenant migrate`

use std::time::Duration;

use feather_proto::{
    ids::{ServerName, TenantName},
    pb::controller::v1 as pb,
};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{finish, plan, request_id, server_name, tenant_name},
    error::Failure,
    follow::Wait,
    units,
};

/// Move a tenant with all its data to another server.
///
/// The data is proved identical on both sides before anything is switched; until then every failure puts the tenant back
/// where it was. The copy on the old server is kept for a while: --undo moves back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Server to move to, instead of the one with most room.
    #[arg(long, value_name = "SERVER", value_parser = server_name, conflicts_with = "undo")]
    to: Option<ServerName>,
    /// Move back to the server it came from.
    #[arg(long)]
    undo: bool,
    /// How long the old server keeps its copy.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = units::parse_duration)]
    keep_source: Duration,
    /// Only print what would move, and what the new server has left then.
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
    source: &'a str,
    target: &'a str,
    volume_bytes: u64,
    explanation: &'a [String],
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::MigrateTenantRequest {
        request_id: request_id(),
        tenant: arguments.tenant.into(),
        server: arguments.to.map(String::from).unwrap_or_default(),
        dry_run: arguments.dry_run,
        undo: arguments.undo,
        keep_source_seconds: arguments.keep_source.as_secs(),
    };
    let response = connection.change(async || connection.tenants().migrate_tenant(request.clone()).await).await?;
    if arguments.dry_run {
        let view = PlanView {
            dry_run: true,
            tenant: &request.tenant,
            source: &response.source,
            target: &response.target,
            volume_bytes: response.volume_bytes,
            explanation: &response.explanation,
        };
        let size = units::bytes(view.volume_bytes);
        let headline = format!("would move {} {} -> {}, {size} of data", view.tenant, view.source, view.target);
        return context.output.show(&view, || plan(&headline, view.explanation));
    }
    finish(context, &connection, response.operation, arguments.wait, None).await
}
