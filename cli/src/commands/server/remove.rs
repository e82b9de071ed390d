//! `featherctl server remove`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::server_name,
    confirm::{Question, confirm},
    error::Failure,
};

/// Take a server out of the fleet.
///
/// Refused while a tenant lives on it or an operation uses it: move its tenants away first. The machine itself is left as it
/// is; kept volumes on it stay there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only say whether it would be removed.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct RemovedView<'a> {
    server: &'a str,
    dry_run: bool,
    removed: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (server, dry_run) = (arguments.server.as_str(), arguments.dry_run);
    if !dry_run {
        let consequence =
            format!("This takes {server} out of the fleet: it gets no tenants and no new certificate any more.");
        confirm(context.output, &Question { name: server, consequence: &consequence, yes: arguments.yes })?;
    }
    let request = pb::RemoveServerRequest { server: server.to_owned(), dry_run };
    connection.call(connection.servers().remove_server(request)).await?;
    let view = RemovedView { server, dry_run, removed: !dry_run };
    context.output.show(&view, || if dry_run { format!("would remove {server}") } else { String::new() })?;
    if !dry_run {
        context
            .output
            .note(&format!("{server} is out of the fleet; `featherctl server invite {server}` lets it join again"));
    }
    Ok(())
}
