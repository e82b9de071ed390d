//! `featherctl server cordon`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{arguments::Context, commands::server_name, confirm::NothingToConfirm, error::Failure};

/// Keep new tenants away from a server; those that live there stay.
///
/// Nothing is added there and nothing is moved there, also by name, until `featherctl server uncordon`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    pub(super) server: ServerName,
    /// Only say what would change.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) _confirm: NothingToConfirm,
}

#[derive(Serialize)]
struct CordonView<'a> {
    server: &'a str,
    dry_run: bool,
    cordoned: bool,
    changed: bool,
    version: u64,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    set(&arguments.server, true, arguments.dry_run, context).await
}

/// Sets it, and says what that means.
pub(super) async fn set(server: &ServerName, cordoned: bool, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::CordonServerRequest { server: server.to_string(), cordoned, dry_run };
    let response = connection.change(async || connection.servers().cordon_server(request.clone()).await).await?;
    let view = CordonView {
        server: server.as_str(),
        dry_run,
        cordoned: response.cordoned,
        changed: response.changed,
        version: response.version,
    };
    context.output.show(&view, String::new)?;
    let would = if dry_run { "would take" } else { "takes" };
    context.output.note(&match (cordoned, view.changed) {
        (true, true) => format!("{server} {would} no new tenants; `featherctl server uncordon {server}` lifts that"),
        (true, false) => format!("{server} takes no new tenants already"),
        (false, true) => format!("{server} {would} new tenants again"),
        (false, false) => format!("{server} takes new tenants already"),
    });
    Ok(())
}
