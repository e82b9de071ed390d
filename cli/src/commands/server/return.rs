//! `featherctl server return`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};

use super::drain::{Several, planned};
use crate::{
    arguments::Context,
    commands::{finish, request_id, server_name},
    confirm::NothingToConfirm,
    error::Failure,
    follow::Wait,
};

/// Let a server take tenants again, and bring home those that were drained from it.
///
/// Home come those that `featherctl server drain` moved away and that still live elsewhere; who was moved away by name stays. Each is
/// moved by an operation of its own, and a table ends it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    #[command(flatten)]
    several: Several,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let several = &arguments.several;
    let request = pb::ReturnServerRequest {
        request_id: request_id(),
        server: arguments.server.into(),
        parallel: several.parallel,
        deadline_seconds: several.deadline_seconds(),
        partial: several.partial,
        dry_run: several.dry_run,
        bytes_per_second_max: several.flow.bytes_per_second_max(),
        route: several.flow.route().into(),
    };
    let response = connection.change(async || connection.servers().return_server(request.clone()).await).await?;
    if several.dry_run {
        return planned(context, &request.server, response.moves);
    }
    finish(context, &connection, response.operation, arguments.wait, None).await
}
