//! `featherctl server invite`

use std::time::Duration;

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::server_name,
    error::Failure,
    units,
    view::{Moment, moment},
};

const TTL_MIN: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = Duration::from_secs(604_800);

/// Print a token that lets a new server join the fleet.
///
/// The token works once, for this name only, and is a secret until it is used. It is the only thing on stdout; how to use
/// it is said on stderr.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the new server will be called.
    #[arg(value_name = "NAME", value_parser = server_name)]
    server: ServerName,
    /// How long the token may be used: 1m to 7d.
    #[arg(long, value_name = "DURATION", default_value = "3h", value_parser = ttl)]
    ttl: Duration,
    /// For a member that has lost its identity or let its certificate run out: it keeps its name and its tenants.
    #[arg(long)]
    rejoin: bool,
}

#[derive(Serialize)]
struct InvitationView<'a> {
    server: &'a str,
    token: &'a str,
    expires: Option<Moment>,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = units::parse_duration(text)?;
    if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(ttl) } else { Err("it must be between 1m and 7d".into()) }
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let server = arguments.server.as_str();
    let ttl_seconds = u32::try_from(arguments.ttl.as_secs()).unwrap_or(u32::MAX);
    let request = pb::CreateJoinTokenRequest { server: server.to_owned(), ttl_seconds, rejoin: arguments.rejoin };
    let response = connection.call(connection.enrollment().create_join_token(request)).await?;
    let expires = moment!(response.expires);
    let until = expires.map(|expires| format!(", until {expires}")).unwrap_or_default();
    context.output.note(&format!(
        "This token lets one server join as {server}, once, within {}{until}:\n",
        units::spelled(arguments.ttl)
    ));
    let view = InvitationView { server, token: &response.token, expires };
    context.output.show(&view, || response.token.clone())?;
    context.output.note(&format!(
        "\nOn the machine that is to be {server}, type this and paste the token, so that it stays out of the shell's history:\n\
         \n    read -rs FEATHER_AGENT_JOIN_TOKEN && export FEATHER_AGENT_JOIN_TOKEN\n\
         \nThen start a birth container with `--env FEATHER_AGENT_JOIN_TOKEN` (README, \"On real servers\", has the whole \
         command), or, in one that runs already:\n\
         \n    podman exec --env FEATHER_AGENT_JOIN_TOKEN feather-birth-{server} feather-agent join\n\
         \n`featherctl server list` shows {server} as ready once it has joined."
    ));
    Ok(())
}
