//! `featherctl server adopt`

use feather_proto::{
    ids::{ServerName, TenantName},
    pb::controller::v1 as pb,
};

use crate::{
    arguments::Context,
    commands::{server_name, tenant_name},
    confirm::NothingToConfirm,
    error::Failure,
    view::adoption::{AdoptionView, FindingView},
};

/// Take over what runs on a server and is no tenant yet.
///
/// What the old script left (its containers, its file of tenants, routes by hand) becomes tenants where it is, and so do tenants
/// that were added there before the server joined. Nothing is restarted; passwords, ports and routes stay. What does not fit is
/// left as it is, with the reason and what to do about it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Also this one, which stands still there in a forgotten move, though another server knows something newer of it. Once for each.
    ///
    /// Its data there becomes the tenant's; what another server has of it is an older copy from then on.
    #[arg(long = "tenant", value_name = "TENANT", value_parser = tenant_name)]
    tenants: Vec<TenantName>,
    /// Only show what was found and what would happen.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    _nothing: NothingToConfirm,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (server, dry_run) = (arguments.server.as_str(), arguments.dry_run);
    let tenants = arguments.tenants.iter().map(TenantName::to_string).collect();
    let request = pb::AdoptServerRequest { server: server.to_owned(), dry_run, tenants };
    let response = connection.call(connection.servers().adopt_server(request)).await?;
    let findings = response.findings.into_iter().map(FindingView::from).collect();
    let view = AdoptionView { server, dry_run, findings, problems: response.problems };
    context.output.show(&view, || view.text())?;
    context.output.note(&view.summary());
    Ok(())
}
