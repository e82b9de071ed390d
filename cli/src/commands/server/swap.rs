//! `featherctl server swap`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{finish, plan, request_id, server_name},
    confirm::NothingToConfirm,
    error::Failure,
    follow::Wait,
};

/// Put another admin container in place of the one that serves.
///
/// The new one is started beside the old one; only when it is healthy do requests go to it, and none is refused meanwhile. What is
/// under way at the old one has five seconds to end. A new one that does not become healthy is removed, with its last lines in
/// the error, and the old one serves as before.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Name or digest of an image on that server, instead of its work image.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Only print what would take the place of what.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

#[derive(Serialize)]
struct PlanView<'a> {
    dry_run: bool,
    server: &'a str,
    image_digest: &'a str,
    explanation: &'a [String],
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::SwapAdminRequest {
        request_id: request_id(),
        server: arguments.server.into(),
        image: arguments.image.unwrap_or_default(),
        dry_run: arguments.dry_run,
    };
    let response = connection.change(async || connection.servers().swap_admin(request.clone()).await).await?;
    if arguments.dry_run {
        let (server, image_digest, explanation) = (&*request.server, &*response.image_digest, &*response.explanation);
        let view = PlanView { dry_run: true, server, image_digest, explanation };
        return context
            .output
            .show(&view, || plan(&format!("would swap the admin container of {server}"), explanation));
    }
    finish(context, &connection, response.operation, arguments.wait, None).await
}
