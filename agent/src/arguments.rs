//! Flags and environment of `feather-agent`.
//!
//! Owns names, defaults and what is refused before anything runs. `Debug` does not exist: a flag may be a secret.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use feather_agent::{
    edge::{Edge, EdgeSettings},
    join::Addresses,
    local::{self, client},
    password::{LENGTH_MAX, LENGTH_MIN},
    router::caddy::AdminAddress,
    waitlist::Origins,
};

/// The agent of one server: runs the tenants of its ledger, and changes them when a controller says so.
#[derive(Parser)]
#[command(version = feather_proto::version::told(), name = "feather-agent")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Where the ledger and this server's identity are kept
    #[arg(long, global = true, env = "FEATHER_AGENT_STATE_DIR", default_value = "/var/lib/feather/agent")]
    pub(crate) state_dir: PathBuf,
    /// Socket for commands on this server itself
    #[arg(long, global = true, env = "FEATHER_AGENT_LOCAL_SOCKET", default_value = local::SOCKET)]
    pub(crate) local_socket: PathBuf,
    /// Form of the log on standard error; FEATHER_AGENT_LOG sets what is logged, for example `debug`
    #[arg(long, global = true, env = "FEATHER_AGENT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run this server's tenants, and serve the controller once this server has joined
    Serve(Box<ServeArguments>),
    /// Make this server a member of the fleet
    Join(JoinArguments),
    /// Print the configuration that Caddy is to be started with
    CaddyConfig(CaddyConfigArguments),
    /// Load an archive of images into Podman, if it is whole and for this machine, and print what it held
    LoadImage(LoadImageArguments),
    /// Look at and change the tenants of this server; `tenant.sh` for short
    #[command(subcommand)]
    Tenant(client::Tenant),
    /// Put a new admin container in the place of the one that serves, without refusing a request; `swap.sh` for short
    ///
    /// The new one is started beside the old one and must become healthy before any request reaches it; otherwise the old one serves
    /// as before. What is under way at the old one has five seconds to end.
    Swap(client::Swap),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Args)]
pub(crate) struct ServeArguments {
    /// Where the gRPC services listen
    #[arg(long, env = "FEATHER_AGENT_LISTEN", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// Podman's API socket
    #[arg(long, env = "FEATHER_AGENT_PODMAN_SOCKET", default_value = "/run/podman/podman.sock")]
    pub(crate) podman_socket: PathBuf,
    /// Name of the HTTP server in Caddy's configuration that has the routes of tenants
    #[arg(long, env = "FEATHER_AGENT_CADDY_SERVER", default_value = "feather")]
    pub(crate) caddy_server: String,
    /// Caddy's public port as seen from here, for trial requests
    #[arg(long, env = "FEATHER_AGENT_CADDY_PUBLIC", default_value = "http://127.0.0.1:80")]
    pub(crate) caddy_public: String,
    #[command(flatten)]
    pub(crate) routes: RouteArguments,
    /// Image that tenants get unless told otherwise
    #[arg(long, env = "FEATHER_AGENT_WORK_IMAGE", default_value = "localhost/feather-work:latest")]
    pub(crate) work_image: String,
    /// Name servers of tenants
    #[arg(long, env = "FEATHER_AGENT_TENANT_DNS", value_delimiter = ',', default_value = "8.8.8.8,1.1.1.1")]
    pub(crate) tenant_dns: Vec<String>,
    /// How long a container may take to its first healthy answer
    #[arg(long, env = "FEATHER_AGENT_HEALTH_TIMEOUT_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) health_timeout_seconds: u64,
    /// How long a container may take to end before it is killed
    #[arg(long, env = "FEATHER_AGENT_STOP_GRACE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(crate) stop_grace_seconds: u64,
    /// Where the script of the time before kept its tenants, for taking them over
    #[arg(long, env = "FEATHER_AGENT_OLD_TENANTS_FILE", default_value = "/tmp/tenants.json")]
    pub(crate) old_tenants_file: PathBuf,
    /// Whether this server has an admin container, which answers whatever is for no tenant
    #[arg(long, env = "FEATHER_AGENT_ADMIN", value_enum, default_value_t = Switch::On)]
    pub(crate) admin: Switch,
    /// What the admin container finds at /home/user: a directory, or the name of a volume; /home/user when there is one here,
    /// otherwise the volume feather-work
    #[arg(long, env = "FEATHER_AGENT_ADMIN_HOME")]
    pub(crate) admin_home: Option<String>,
    /// How often tenants, admin container and Caddy are asked whether they answer
    #[arg(long, env = "FEATHER_AGENT_WATCHDOG_INTERVAL_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watchdog_interval_seconds: u64,
    /// After so many failed checks in a row, what does not answer is restarted
    #[arg(long, env = "FEATHER_AGENT_WATCHDOG_FAILURES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) watchdog_failures: u32,
    /// Program and arguments, parted by spaces, that have Caddy restarted when it hangs; nothing is done without
    #[arg(long, env = "FEATHER_AGENT_CADDY_RESTART", default_value = "")]
    pub(crate) caddy_restart: String,
    /// Characters of a new password, 6 to 64
    #[arg(long, env = "FEATHER_AGENT_PASSWORD_LENGTH", default_value = "10", value_parser = password_length)]
    pub(crate) password_length: usize,
    #[command(flatten)]
    pub(crate) edge: EdgeArguments,
    /// Where people sign up for the waitlist; empty: nowhere
    #[arg(long, env = "FEATHER_AGENT_WAITLIST_LISTEN", default_value = "127.0.0.1:9099", value_parser = optional_address)]
    pub(crate) waitlist_listen: OptionalAddress,
    /// Origins whose pages may send addresses to the waitlist, with commas between them; `*`: everybody's
    #[arg(long, env = "FEATHER_AGENT_WAITLIST_ORIGINS", default_value = "*")]
    pub(crate) waitlist_origins: Origins,
}

/// What Caddy and the agent that looks after it must agree about.
#[derive(Args)]
pub(crate) struct RouteArguments {
    /// Caddy's admin API: `unix//PATH` for a socket, `http://HOST:PORT` for a port, which everybody on this machine reaches
    #[arg(long, env = "FEATHER_AGENT_CADDY_ADMIN", default_value = "http://127.0.0.1:2020")]
    pub(crate) caddy_admin: AdminAddress,
    /// Tenants are reached at `NAME.SUFFIX`
    #[arg(
        long,
        env = "FEATHER_AGENT_DOMAIN_SUFFIX",
        default_value = "users.inceptel.ai",
        value_parser = feather_proto::ids::domain_suffix
    )]
    pub(crate) domain_suffix: String,
    /// Loopback ports for tenants, first and last
    #[arg(long, env = "FEATHER_AGENT_PORTS", default_value = "9001-9010")]
    pub(crate) ports: Ports,
}

#[derive(Args)]
pub(crate) struct CaddyConfigArguments {
    #[command(flatten)]
    pub(crate) edge: EdgeArguments,
    #[command(flatten)]
    pub(crate) routes: RouteArguments,
}

#[derive(Args)]
pub(crate) struct LoadImageArguments {
    /// What `podman save --output FILE IMAGE` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Podman's API socket
    #[arg(long, env = "FEATHER_AGENT_PODMAN_SOCKET", default_value = "/run/podman/podman.sock")]
    pub(crate) podman_socket: PathBuf,
}

/// How this server meets the public. Taken as they are: what cannot be used must not keep the tenants from running.
#[derive(Args)]
pub(crate) struct EdgeArguments {
    /// Host name of the admin's site, for example `example.com`: serve HTTPS on port 443 and redirect port 80 to it. Empty: plain
    /// HTTP on port 80
    #[arg(long, env = "DOMAIN", default_value = "", hide_default_value = true)]
    domain: String,
    /// E-mail address for the account with the certificate authority
    #[arg(long, env = "ACME_EMAIL", default_value = "", hide_default_value = true)]
    acme_email: String,
    /// Directory URL of another certificate authority than the usual public ones
    #[arg(long, env = "ACME_CA", default_value = "", hide_default_value = true)]
    acme_ca: String,
    /// PEM file with the root that the certificate authority's own certificate is checked against
    #[arg(long, env = "ACME_CA_ROOT", default_value = "", hide_default_value = true)]
    acme_ca_root: String,
    /// Where Caddy asks whether it may get a certificate for a name; a loopback address
    #[arg(long, env = "FEATHER_AGENT_ASK_LISTEN", default_value = "127.0.0.1:9098")]
    ask_listen: SocketAddr,
}

impl EdgeArguments {
    pub(crate) fn edge(&self) -> Edge {
        let settings = EdgeSettings {
            domain: self.domain.clone(),
            acme_email: self.acme_email.clone(),
            acme_ca: self.acme_ca.clone(),
            acme_ca_root: self.acme_ca_root.clone(),
            ask: self.ask_listen,
        };
        Edge::of(&settings, std::path::Path::is_file)
    }
}

/// Where to listen, or nowhere.
#[derive(Clone, Copy)]
pub(crate) struct OptionalAddress(pub(crate) Option<SocketAddr>);

fn optional_address(text: &str) -> Result<OptionalAddress, String> {
    if text.is_empty() {
        return Ok(OptionalAddress(None));
    }
    let wrong = |_| "must be ADDRESS:PORT, for example 127.0.0.1:9099, or empty".to_owned();
    text.parse().map(|address| OptionalAddress(Some(address))).map_err(wrong)
}

#[derive(Args)]
pub(crate) struct JoinArguments {
    /// What `featherctl server invite` printed; in the environment it stays out of the list of processes
    #[arg(long, env = "FEATHER_AGENT_JOIN_TOKEN", hide_env_values = true)]
    pub(crate) token: String,
    /// `HOST:PORT` where the controller and other servers reach this agent; unless given, the address from which this server
    /// reaches the controller
    #[arg(long, env = "FEATHER_AGENT_ADVERTISE", value_parser = host_and_port)]
    advertise: Option<String>,
    /// Where the agent will listen, for the port
    #[arg(long, env = "FEATHER_AGENT_LISTEN", default_value = "0.0.0.0:7443")]
    listen: SocketAddr,
    /// Host or address where the world reaches this server's Caddy; the host of --advertise unless given
    #[arg(long, env = "FEATHER_AGENT_PUBLIC_ADDRESS")]
    public_address: Option<String>,
}

impl JoinArguments {
    /// How this server is reached; `own` is its address as the way to the controller has it.
    pub(crate) fn addresses(&self, own: IpAddr) -> anyhow::Result<Addresses> {
        let agent = match &self.advertise {
            Some(given) => given.clone(),
            None => SocketAddr::new(own, self.listen.port()).to_string(),
        };
        if let Some(given) = self.public_address.as_ref().filter(|given| !given.is_empty()) {
            return Ok(Addresses { agent, public: given.clone() });
        }
        let host = agent.rsplit_once(':').map(|(host, _)| host);
        let host = host.ok_or_else(|| anyhow::anyhow!("--advertise must be HOST:PORT"))?;
        let public = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Addresses { agent, public })
    }
}

/// A range of ports as `first-last`.
#[derive(Clone)]
pub(crate) struct Ports(pub(crate) RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a range of ports; write it as 9001-9010");
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first == 0 || first > last {
            return Err(bad());
        }
        Ok(Self(first..=last))
    }
}

fn password_length(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(length) if (LENGTH_MIN..=LENGTH_MAX).contains(&length) => Ok(length),
        _ => Err(format!("must be from {LENGTH_MIN} to {LENGTH_MAX}")),
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err("must be HOST:PORT, for example 192.0.2.7:7443".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Arguments, Command, Ports};

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_server_is_reached_where_it_says_or_by_its_own_address() {
        let of = |words: &[&str], own: &str| {
            let all = ["feather-agent", "join", "--token", "t"].iter().chain(words);
            let Command::Join(join) =
                Arguments::try_parse_from(all).map_err(|error| error.to_string()).unwrap().command
            else {
                panic!("that is no join")
            };
            let addresses = join.addresses(own.parse().unwrap()).unwrap();
            format!("{} {}", addresses.agent, addresses.public)
        };
        assert_eq!(of(&[], "192.0.2.7"), "192.0.2.7:7443 192.0.2.7");
        assert_eq!(of(&["--listen", "0.0.0.0:7500"], "2001:db8::7"), "[2001:db8::7]:7500 2001:db8::7");
        assert_eq!(of(&["--advertise", "fra.example.com:7443"], "192.0.2.7"), "fra.example.com:7443 fra.example.com");
        let both = ["--advertise", "10.0.0.7:7443", "--public-address", "fra.example.com"];
        assert_eq!(of(&both, "192.0.2.7"), "10.0.0.7:7443 fra.example.com");
    }

    #[test]
    fn port_ranges_parse_strictly() {
        assert_eq!("9001-9010".parse::<Ports>().ok().map(|ports| ports.0), Some(9001..=9010));
        for bad in ["", "9001", "9010-9001", "0-5", "a-b", "9001-70000"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad:?} was accepted");
        }
    }
}
