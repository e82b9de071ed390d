//! What can be typed: the global flags and the nouns, and the way from arguments to an exit code.
//!
//! Knows nothing of what a verb does; each one lives in its own file under `commands`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};

use feather_proto::{trace::Tracing, version::told};
use tracing::Instrument as _;

use crate::{
    commands::{
        audit, cert, completions, controller, dns, doctor, events, explain, image, login, operation, server, status,
        tenant, top, user, version, volume, waitlist, warning,
    },
    connect::{self, Connection},
    error::Failure,
    output::{Format, Output},
    units,
};

/// Runs a fleet of Feather servers.
///
/// A tenant is one user's place: a work container with a home volume, a password and a web address. Tenants live on
/// servers; the controller places them, and moves them with their data from one server to another.
#[derive(Debug, Parser)]
#[command(name = "featherctl", version = told(), max_term_width = 100, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    noun: Noun,
}

const AFTER_HELP: &str = "\
Examples:
  featherctl server invite fra                 a token that lets a new server join
  featherctl tenant add alice                  prints https://alice... | password: ...
  featherctl tenant migrate alice --to fra     moves alice with all data
  featherctl tenant list --output json         for scripts

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 controller or server unreachable, 70 a bug,
130 interrupted.";

/// Flags that every command understands.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Form: table, wide or json.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table",
        env = "FEATHERCTL_OUTPUT",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub(crate) output: Format,
    /// Where the controller listens; if there are several, all with commas.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7400",
        env = "FEATHERCTL_CONTROLLER",
        hide_env_values = true,
        value_parser = connect::address
    )]
    pub(crate) controller: String,
    /// Your certificate and key [default: ~/.config/feather/admin.identity].
    #[arg(long, global = true, value_name = "FILE", env = "FEATHERCTL_IDENTITY", hide_env_values = true)]
    pub(crate) identity: Option<PathBuf>,
    /// How long to wait for the controller.
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "60s",
        env = "FEATHERCTL_TIMEOUT",
        hide_env_values = true,
        value_parser = units::parse_duration
    )]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum Noun {
    Status(status::Args),
    Top(top::Args),
    Explain(explain::Args),
    Doctor(doctor::Args),
    /// The machines that tenants live on.
    #[command(subcommand)]
    Server(server::Verb),
    /// Users' work containers: add, look at, move, remove.
    #[command(subcommand)]
    Tenant(tenant::Verb),
    /// Tenants' data: list, back up, restore, check.
    #[command(subcommand)]
    Volume(volume::Verb),
    /// What tenants run: look at, load, copy.
    #[command(subcommand)]
    Image(image::Verb),
    /// Who would like a tenant: look at, invite, forget.
    #[command(subcommand)]
    Waitlist(waitlist::Verb),
    /// Names in DNS: plan, apply, look at, restore.
    #[command(subcommand)]
    Dns(dns::Verb),
    /// The certificate of the tenants' names: look at, renew.
    #[command(subcommand)]
    Cert(cert::Verb),
    /// What needs a person: look at, take note of.
    #[command(subcommand)]
    Warning(warning::Verb),
    Events(events::Args),
    /// Changes under way or done: look at, watch, cancel.
    #[command(subcommand)]
    Operation(operation::Verb),
    /// Who may look, who may change tenants, who may change the fleet.
    #[command(subcommand)]
    User(user::Verb),
    Login(login::Args),
    /// The controller itself: copy its store.
    #[command(subcommand)]
    Controller(controller::Verb),
    /// What was changed, and by whom: look at, check.
    #[command(subcommand)]
    Audit(audit::Verb),
    Completions(completions::Args),
    Version(version::Args),
}

/// What a verb needs besides its own arguments.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) output: Output,
}

impl Context {
    /// A connection that is opened by the first call.
    pub(crate) fn connect(&self) -> Result<Connection, Failure> {
        Connection::new(&self.global)
    }
}

/// Runs the command line of this process and returns its exit code.
pub(crate) fn main() -> u8 {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = command().try_get_matches_from(&arguments).and_then(|matches| {
        let name = name(&matches);
        Ok((name, Arguments::from_arg_matches(&matches)?))
    });
    let (name, parsed) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return not_parsed(&error, &arguments),
    };
    let Arguments { global, noun } = parsed;
    let output = Output::new(global.output);
    // A panic is a bug of ours: the person gets the exit code for it, and the place to report.
    let ran = std::panic::catch_unwind(|| run(&name, noun, Context { global, output }));
    let failure = match ran {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::bug("featherctl stopped at a fault of its own (the lines above say where)"),
    };
    output.failure(&failure);
    failure.exit_code()
}

/// What was typed, without anything that it was given: `featherctl tenant migrate`.
fn name(matches: &clap::ArgMatches) -> String {
    let mut name = "featherctl".to_owned();
    let mut inner = Some(matches);
    while let Some((word, within)) = inner.and_then(clap::ArgMatches::subcommand) {
        name = format!("{name} {word}");
        inner = Some(within);
    }
    name
}

fn run(name: &str, noun: Noun, context: Context) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::bug(format!("cannot start the runtime: {error}")))?;
    let done = runtime.block_on(async {
        let tracing = Tracing::new("featherctl");
        tracing.install_silently();
        let keeps_certificate =
            !matches!(noun, Noun::Login(_) | Noun::Completions(_) | Noun::Version(_) | Noun::User(_));
        let done = dispatch(noun, &context).instrument(tracing::info_span!("command", otel.name = name)).await;
        if keeps_certificate && done.is_ok() {
            user::keep_certificate(&context).await;
        }
        tracing.finish().await;
        done
    });
    // A read of standard input may still be blocked in a thread; nobody waits for it.
    runtime.shutdown_background();
    done
}

async fn dispatch(noun: Noun, context: &Context) -> Result<(), Failure> {
    match noun {
        Noun::Status(arguments) => status::run(arguments, context).await,
        Noun::Top(arguments) => top::run(arguments, context).await,
        Noun::Doctor(arguments) => doctor::run(arguments, context).await,
        Noun::Explain(arguments) => explain::run(arguments, context).await,
        Noun::Server(verb) => server::run(verb, context).await,
        Noun::Tenant(verb) => tenant::run(verb, context).await,
        Noun::Volume(verb) => volume::run(verb, context).await,
        Noun::Image(verb) => image::run(verb, context).await,
        Noun::Waitlist(verb) => waitlist::run(verb, context).await,
        Noun::Dns(verb) => dns::run(verb, context).await,
        Noun::Cert(verb) => cert::run(verb, context).await,
        Noun::Warning(verb) => warning::run(verb, context).await,
        Noun::Events(arguments) => events::run(arguments, context).await,
        Noun::Operation(verb) => operation::run(verb, context).await,
        Noun::User(verb) => user::run(verb, context).await,
        Noun::Controller(verb) => controller::run(verb, context).await,
        Noun::Audit(verb) => audit::run(verb, context).await,
        Noun::Login(arguments) => login::run(arguments, context).await,
        Noun::Completions(arguments) => completions::run(&arguments, context, command()),
        Noun::Version(arguments) => version::run(&arguments, context),
    }
}

/// Summary, details, usage, options: one compact page, whether asked by `-h` or `--help`.
const HELP: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

fn command() -> Command {
    compact(Arguments::command())
}

/// clap spreads the help of a command that has details over many lines; showing the details as another part avoids that.
fn compact(command: Command) -> Command {
    let details = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    let details = details.split_once("\n\n").map(|(_, details)| details.to_owned());
    let command = command.help_template(HELP).long_about(None).mut_subcommands(compact);
    match details {
        Some(details) => command.before_help(details),
        None => command,
    }
}

/// Help and version are data; anything else is a mistake in the command line.
fn not_parsed(error: &clap::Error, arguments: &[OsString]) -> u8 {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked || !wants_json(arguments) {
        // Nothing can be told to a person whose stderr is closed.
        drop(error.print());
    } else {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Output::new(Format::Json).failure(&Failure::usage(message, "`featherctl --help` shows what can be typed"));
    }
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// The flags were not parsed, so this looks for the one that matters by itself.
fn wants_json(arguments: &[OsString]) -> bool {
    let pairs = arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    pairs
        || arguments.iter().any(|one| one == "--output=json")
        || std::env::var_os("FEATHERCTL_OUTPUT").is_some_and(|value| value == "json")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
