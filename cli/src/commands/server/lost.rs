//! `featherctl server lost`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{finish, request_id, server_name, tenant::recover::With},
    confirm::{Question, confirm},
    error::Failure,
    follow::Wait,
    output::table,
    units,
    view::{Moment, moment, set},
};

/// Declare a server lost, and bring back elsewhere who lived on it.
///
/// For a machine that is dead and will not come back. It is taken out of the fleet: should it start again all the same, its agent hears of that
/// and runs nobody. Each tenant is brought back with the newest data that is left of it, which is a copy that a move left on another server or
/// a backup; what was written since is lost, and --dry-run says how long that is. Who has neither stays down as lost, and is never started
/// empty. A machine that still runs and is cut off from the controller, but not from its users, goes on serving them until it hears of
/// this: make sure that it is off (at its power, or at its provider's console) before you type its name.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// The server's name once more, in place of being asked for it: you vouch that its machine is off.
    #[arg(long, value_name = "SERVER")]
    confirm: Option<String>,
    #[command(flatten)]
    with: With,
    /// Tenants that are brought back at once.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    parallel: u32,
    /// Only print what would become of each tenant.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Serialize)]
struct PlanView<'a> {
    dry_run: bool,
    server: &'a str,
    last_heard: Option<Moment>,
    tenants: Vec<LostView>,
}

#[derive(Serialize)]
struct LostView {
    tenant: String,
    target: Option<String>,
    data: Option<String>,
    why: Option<String>,
    removed: bool,
}

impl From<pb::LostTenant> for LostView {
    fn from(pb: pb::LostTenant) -> Self {
        Self { tenant: pb.tenant, target: set(pb.target), data: set(pb.data), why: set(pb.why), removed: pb.removed }
    }
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let server = arguments.server.as_str();
    let mut request = pb::LoseServerRequest {
        request_id: request_id(),
        server: server.to_owned(),
        confirm: String::new(),
        from: arguments.with.from().into(),
        to: arguments.with.to(),
        parallel: arguments.parallel,
        dry_run: true,
    };
    let foreseen = connection.call(connection.servers().lose_server(request.clone())).await?;
    let last_heard = moment!(foreseen.last_heard);
    let view =
        PlanView { dry_run: true, server, last_heard, tenants: foreseen.tenants.into_iter().map(Into::into).collect() };
    if arguments.dry_run {
        context.output.show(&view, || fates(&view.tenants))?;
        context.output.note(&heard(&view));
        return Ok(());
    }
    context.output.note(fates(&view.tenants).trim_end());
    context.output.note(&heard(&view));
    request.confirm = match arguments.confirm {
        Some(typed) => typed,
        None => {
            let consequence = format!(
                "This takes {server} out of the fleet for good, and brings its tenants back as shown. You vouch that its machine is off: one \
                 that still serves its users goes on until it hears of this, and what they write there is lost."
            );
            if !context.output.can_ask() {
                return Err(Failure::usage(
                    "nobody can be asked for the server's name here, and --confirm was not given",
                    format!("add --confirm {server} if you mean it. {consequence}"),
                ));
            }
            // No --yes: the name itself has to be given.
            confirm(context.output, &Question { name: server, consequence: &consequence, yes: false })?;
            server.to_owned()
        }
    };
    request.dry_run = false;
    let response = connection.change(async || connection.servers().lose_server(request.clone()).await).await?;
    finish(context, &connection, response.operation, arguments.wait, None).await
}

fn heard(view: &PlanView<'_>) -> String {
    let since = match view.last_heard {
        Some(at) => format!("was heard of last at {at}"),
        None => "was not heard of since this controller started".to_owned(),
    };
    let back = view.tenants.iter().filter(|one| one.target.is_some()).count();
    let tenants = units::counted(view.tenants.iter().filter(|one| !one.removed).count() as u64, "tenant");
    format!("{} {since}; of {tenants} there, {back} can be brought back as things stand", view.server)
}

fn fates(tenants: &[LostView]) -> String {
    if tenants.is_empty() {
        return String::new();
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let row = |one: &LostView| {
        let with = one.data.clone().unwrap_or_else(|| text(&one.why));
        let why = if one.data.is_some() { text(&one.why) } else { String::new() };
        [one.tenant.clone(), one.target.clone().unwrap_or_else(|| "-".to_owned()), with, why]
    };
    table(["TENANT", "ON", "WITH", "BUT"], &tenants.iter().map(row).collect::<Vec<_>>())
}
