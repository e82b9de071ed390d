//! `featherctl tenant recover`

use feather_proto::{
    ids::{ServerName, TenantName},
    pb::controller::v1 as pb,
};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{finish, plan, request_id, server_name, tenant_name},
    confirm::NothingToConfirm,
    error::Failure,
    follow::Wait,
};

/// Bring back a tenant whose server is lost.
///
/// With the newest data that is left of it: a copy that a move left on another server, or a backup. Which, and how old it is, --dry-run says.
/// What was written since is lost. Where nobody knows which data is the newest, it is said what there is, and nothing is done before you
/// choose. It gets a new password. Without any data nothing is done: a tenant never starts empty in place of its data.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    #[command(flatten)]
    with: With,
    /// Only print with which data, and where.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

/// With which data, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct With {
    /// Not the newest data of all, but the newest copy on a server, or the newest backup.
    #[arg(long, value_name = "KIND")]
    from: Option<Kind>,
    /// With --from copy the one on this server; otherwise where what comes from a backup goes, over other data that the server may have of
    /// the tenant.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    to: Option<ServerName>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Copy,
    Backup,
}

impl With {
    pub(in crate::commands) fn from(&self) -> pb::RecoverFrom {
        match self.from {
            None => pb::RecoverFrom::Unspecified,
            Some(Kind::Copy) => pb::RecoverFrom::Copy,
            Some(Kind::Backup) => pb::RecoverFrom::Backup,
        }
    }

    pub(in crate::commands) fn to(&self) -> String {
        self.to.clone().map(String::from).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct PlanView<'a> {
    dry_run: bool,
    tenant: &'a str,
    server: &'a str,
    explanation: &'a [String],
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::RecoverTenantRequest {
        request_id: request_id(),
        tenant: arguments.tenant.to_string(),
        from: arguments.with.from().into(),
        to: arguments.with.to(),
        dry_run: arguments.dry_run,
    };
    let response = connection.change(async || connection.tenants().recover_tenant(request.clone()).await).await?;
    if arguments.dry_run {
        let (tenant, server) = (arguments.tenant.as_str(), response.target.as_str());
        let view = PlanView { dry_run: true, tenant, server, explanation: &response.explanation };
        return context
            .output
            .show(&view, || plan(&format!("would bring {tenant} back on {server}"), view.explanation));
    }
    finish(context, &connection, response.operation, arguments.wait, None).await
}
