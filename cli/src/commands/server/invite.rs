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

/// Print the command that makes a machine a server of the fleet.
///
/// It starts a birth container, which joins by itself. The token in it works once, for this name only, and is a secret until
/// it is used: the command begins with a blank, which keeps it out of the history of most shells. `--output json` has the
/// token alone, too.
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
    /// Where the work image's archive is on the new server.
    #[arg(long, value_name = "FILE", default_value = "/opt/feather-work.tar", value_parser = plain_path)]
    work_image: String,
}

#[derive(Serialize)]
struct InvitationView<'a> {
    server: &'a str,
    token: &'a str,
    command: &'a str,
    domain_suffix: Option<&'a str>,
    expires: Option<Moment>,
}

/// One that needs no quoting in a shell, nor in Podman's list of mounts.
fn plain_path(text: &str) -> Result<String, String> {
    let plain =
        text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if plain { Ok(text.to_owned()) } else { Err("it must be a whole path of letters, digits and ./_-".into()) }
}

/// Labels with dots between them: nothing else is pasted into a shell.
fn plain_suffix(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// What to paste on the new server. Variables are handed on by name: no secret stands in a list of processes.
fn command(token: &str, work_image: &str, domain_suffix: Option<&str>) -> String {
    let suffix =
        domain_suffix.map(|suffix| format!("-e FEATHER_AGENT_DOMAIN_SUFFIX={suffix} \\\n  ")).unwrap_or_default();
    format!(
        " FEATHER_AGENT_JOIN_TOKEN={token} podman run --detach --name feather-birth --restart always --stop-timeout 20 \\
  --privileged --network=host --cgroupns=private \\
  --volume feather-storage:/var/lib/containers --volume feather-state:/var/lib/feather \\
  --volume {work_image}:/opt/feather-work.tar:ro \\
  -e FEATHER_AGENT_JOIN_TOKEN -e FEATHER_AGENT_ADVERTISE {suffix}-e DOMAIN -e ACME_EMAIL \\
  -e ANTHROPIC_API_KEY -e OPENAI_API_KEY -e FEATHER_ANTHROPIC_API_KEY -e FEATHER_OPENAI_API_KEY \\
  localhost/feather-birth:latest && systemctl enable podman-restart.service"
    )
}

/// What to type where a birth runs already. One that was a member gives its old identity up first, and its agent takes the new one when
/// it is started again.
fn typed_in_a_birth(rejoin: bool) -> String {
    let read = "read -rs FEATHER_AGENT_JOIN_TOKEN && export FEATHER_AGENT_JOIN_TOKEN     # paste the token";
    let join = "podman exec -e FEATHER_AGENT_JOIN_TOKEN feather-birth feather-agent join";
    let forget = "podman exec feather-birth rm -f /var/lib/feather/agent/agent.identity";
    let restart = "podman exec feather-birth s6-svc -r /run/service/agent";
    let lines: &[&str] = if rejoin { &[read, forget, join, restart] } else { &[read, join] };
    lines.iter().map(|line| format!("\n    {line}")).collect::<String>() + "\n"
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
        "On the machine that is to be {server}, as root, paste this command, once, within {}{until}:\n",
        units::spelled(arguments.ttl)
    ));
    let domain_suffix = Some(response.domain_suffix.as_str()).filter(|suffix| plain_suffix(suffix));
    let command = command(&response.token, &arguments.work_image, domain_suffix);
    let running =
        domain_suffix.map(|suffix| format!(" (with FEATHER_AGENT_DOMAIN_SUFFIX={suffix})")).unwrap_or_default();
    let view = InvitationView { server, token: &response.token, command: &command, domain_suffix, expires };
    context.output.show(&view, || command.clone())?;
    context.output.note(&format!(
        "\nIt needs Podman, the image of birth containers (`make birth-image`, or `podman load` what that made) and the work \
         image. API keys are taken from your environment there, and FEATHER_AGENT_ADVERTISE=HOST:PORT if the way from \
         there to the controller is not the way back. Its last part has Podman start the birth again when the machine is rebooted. \
         A birth that runs already{running} joins by:\n{}\
         \n`featherctl server list` shows {server} as ready once it has joined.",
        typed_in_a_birth(arguments.rejoin)
    ));
    Ok(())
}
