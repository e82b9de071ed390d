//! `featherctl server uncordon`

use feather_proto::ids::ServerName;

use super::cordon;
use crate::{arguments::Context, commands::server_name, confirm::NothingToConfirm, error::Failure};

/// Let a server take new tenants again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    cordon::set(&arguments.server, false, arguments.dry_run, context).await
}
