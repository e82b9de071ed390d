//! `featherctl server drain`

use std::time::Duration;

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{finish, request_id, server_name, tenant::migrate::flow::Flow},
    confirm::NothingToConfirm,
    error::Failure,
    follow::Wait,
    units,
    view::moves::{ForeseenView, foreseen},
};

/// Move everybody away from a server, and keep new tenants away from it.
///
/// First it is seen whether the other servers could hold everybody; if not, nothing is done unless --partial says so. Then each tenant is
/// moved by an operation of its own, as `featherctl tenant migrate` does, and one that cannot be moved does not keep the others. A
/// table ends it; type the same again for those that were left. `featherctl server return` brings everybody home.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Server to move everybody to, instead of wherever placement says; tenants that are bound elsewhere stay.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    to: Option<ServerName>,
    #[command(flatten)]
    several: Several,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

/// Flags of a drain and of a return.
#[derive(Debug, clap::Args)]
pub(super) struct Several {
    /// Moves at once.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(super) parallel: u32,
    /// After this time no more moves begin; those under way end.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub(super) deadline: Option<Duration>,
    /// Also when not everybody fits.
    #[arg(long)]
    pub(super) partial: bool,
    #[command(flatten)]
    pub(super) flow: Flow,
    /// Only print who would go where.
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl Several {
    pub(super) fn deadline_seconds(&self) -> u64 {
        self.deadline.map_or(0, |deadline| deadline.as_secs())
    }
}

#[derive(Serialize)]
struct PlanView<'a> {
    dry_run: bool,
    server: &'a str,
    moves: Vec<ForeseenView>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let several = &arguments.several;
    let request = pb::DrainServerRequest {
        request_id: request_id(),
        server: arguments.server.into(),
        to: arguments.to.map(String::from).unwrap_or_default(),
        parallel: several.parallel,
        deadline_seconds: several.deadline_seconds(),
        partial: several.partial,
        dry_run: several.dry_run,
        bytes_per_second_max: several.flow.bytes_per_second_max(),
        route: several.flow.route().into(),
    };
    let response = connection.change(async || connection.servers().drain_server(request.clone()).await).await?;
    if several.dry_run {
        return planned(context, &request.server, response.moves);
    }
    finish(context, &connection, response.operation, arguments.wait, None).await
}

/// What a dry run found.
pub(super) fn planned(context: &Context, server: &str, moves: Vec<pb::ForeseenMove>) -> Result<(), Failure> {
    let view = PlanView { dry_run: true, server, moves: moves.into_iter().map(ForeseenView::from).collect() };
    context.output.show(&view, || if view.moves.is_empty() { String::new() } else { foreseen(&view.moves) })?;
    let left = view.moves.iter().filter(|one| one.target.is_none()).count();
    let tenants = units::counted(view.moves.len() as u64, "tenant");
    if left == 0 {
        context.output.note(&format!("{tenants} would be moved"));
        return Ok(());
    }
    Err(Failure::refused(
        "NOT_ALL_FIT",
        format!("{left} of {tenants} could not be moved"),
        "`featherctl server list` shows the room that there is; --partial moves the others all the same",
    ))
}
