//! `featherctl waitlist list`

use feather_proto::ids::ServerName;

use super::{fetch, remark};
use crate::{arguments::Context, commands::server_name, error::Failure, view::waitlist};

/// Show who signed up, the earliest first.
///
/// An address that signed up on several servers is shown once, with the first of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only who signed up there.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    server: Option<ServerName>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let view = fetch(&connection, arguments.server.map(String::from).unwrap_or_default()).await?;
    context
        .output
        .show(&view, || if view.entries.is_empty() { String::new() } else { waitlist::list(&view.entries) })?;
    if view.entries.is_empty() && view.unreachable_servers.is_empty() {
        context.output.note("Nobody is on the waitlist.");
    }
    remark(context, &view);
    Ok(())
}
