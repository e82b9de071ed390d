//! `featherctl server show`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::{present, server_name},
    error::Failure,
    view::server::ServerView,
};

/// Show everything about one server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::GetServerRequest { server: arguments.server.into() };
    let response = connection.call(connection.servers().get_server(request)).await?;
    let server = ServerView::from(present(response.server, "server")?);
    context.output.show(&server, || server.details())
}
