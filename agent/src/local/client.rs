//! The command line at the other end of the local socket: what `tenant.sh` and `swap.sh` run.
//!
//! Owns what goes to stdout, what an error says, and the exit codes, which are featherctl's: 0 done, 1 refused, 2 usage, 3
//! unreachable, 70 a bug, 130 interrupted. Decides nothing: every command is one call, which goes on when its caller leaves.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use feather_proto::{
    adoption::Finding,
    error::{Code, Error},
    ids::TenantName,
    model::TenantReport,
    pb::agent::v1::{self as pb, local_service_client::LocalServiceClient},
};
use tonic::transport::{Channel, Endpoint};

use super::{findings, text};

/// Deadline of calls that only look.
const LOOK_MAX: Duration = Duration::from_secs(15);

/// Tenants of this server. On a member of a fleet every change goes through the controller.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Tenant {
    /// Add a tenant, wait until it is healthy, and print its address and password
    ///
    /// The password is printed once. A tenant that was removed earlier finds its data again, under a new password.
    Add(Name),
    /// Remove a tenant; its data is kept, and found again when it is added again
    Remove(Name),
    /// List the tenants of this server
    List,
    /// Start a stopped tenant and wait until it is healthy
    Start(Name),
    /// Stop a tenant; it stays stopped over reboots until it is started
    Stop(Name),
    /// Make a tenant's container anew, with the API keys that this server has now; a stopped one is started
    Restart(Name),
    /// Take over what the old script left on this server: its containers, volumes and file of tenants
    ///
    /// What runs is not restarted; passwords, ports, data and routes stay. What does not fit is left as it is, with the reason and what
    /// to do about it. For a server that belongs to no fleet; `featherctl server adopt` does the same for a member.
    Adopt(Adopt),
    /// Show this server at one glance: its fleet, slots, tenants, and what is wrong
    Status,
}

/// How to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Adopt {
    /// Only show what was found and what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// Start those that are stopped, as all are after their birth container was replaced by another one
    #[arg(long)]
    pub start: bool,
}

impl Tenant {
    /// What to say to a person who stops waiting.
    pub const GOES_ON: &str = "what was begun goes on; `tenant.sh list` shows how far it is, and an add that is typed again waits for it \
                               and prints the password";
}

/// A swap of the admin container.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Swap {
    /// Name or digest of the new one's image, which must be in this server's storage; the work image as it is now unless given
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
}

impl Swap {
    /// What to say to a person who stops waiting.
    pub const GOES_ON: &str = "the swap goes on; `tenant.sh status` shows which one serves";
}

/// Which tenant.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Name {
    /// Name of the tenant: 1 to 20 of a-z, 0-9 and '-', beginning with a letter
    #[arg(value_name = "NAME")]
    name: TenantName,
}

impl Name {
    /// As if it was typed.
    ///
    /// # Errors
    /// When that is no name of a tenant.
    pub fn new(name: &str) -> Result<Self, Error> {
        Ok(Self { name: name.parse()? })
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Nobody serves the socket.
    NoAgent {
        /// Which socket.
        socket: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The agent's answer.
    Answer(Error),
    /// Nobody reads our output.
    Output(io::Error),
    /// The person stopped waiting; what becomes of the command.
    Interrupted(&'static str),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Failure::Answer(status.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoAgent { socket, source } => {
                let causes = std::iter::successors(std::error::Error::source(source), |cause| cause.source());
                let cause = causes.last().map(|cause| format!(" ({cause})")).unwrap_or_default();
                write!(
                    formatter,
                    "unreachable: no agent answers at {}{cause}; run this as root in the birth container, where the agent runs (its log \
                     says why it does not), or point --local-socket (FEATHER_AGENT_LOCAL_SOCKET) at its socket",
                    socket.display()
                )
            }
            Failure::Answer(error) => {
                let heading = match error.code {
                    Code::Unavailable | Code::Timeout => "unreachable",
                    Code::Bug => "bug",
                    _ => "error",
                };
                write!(formatter, "{heading}: {}", error.message)
            }
            Failure::Output(error) => write!(formatter, "error: cannot write to standard output: {error}"),
            Failure::Interrupted(goes_on) => write!(formatter, "interrupted: {goes_on}"),
        }
    }
}

impl Failure {
    /// What the shell is told.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::NoAgent { .. } => 3,
            Failure::Answer(error) => match error.code {
                Code::Invalid => 2,
                Code::Unavailable | Code::Timeout => 3,
                Code::Bug => 70,
                _ => 1,
            },
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Output(_) => 1,
            Failure::Interrupted(_) => 130,
        }
    }
}

/// Says on standard error what went wrong, if anything did.
pub fn report(done: Result<(), Failure>) -> ExitCode {
    let Err(failure) = done else { return ExitCode::SUCCESS };
    let code = failure.exit_code();
    if code != 0 {
        // Whoever closed standard error does not want to know.
        drop(writeln!(io::stderr(), "{failure}"));
    }
    code.into()
}

/// The agent behind a socket.
///
/// # Errors
/// [`Failure::NoAgent`].
pub async fn connect(socket: &Path) -> Result<Channel, Failure> {
    let no_agent = |source| Failure::NoAgent { socket: socket.to_owned(), source };
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).map_err(no_agent)?;
    endpoint.connect().await.map_err(no_agent)
}

/// Does what was typed, and writes what it is to print.
///
/// # Errors
/// See [`Failure`].
pub async fn run(socket: &Path, command: Tenant, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let mut agent = LocalServiceClient::new(connect(socket).await?);
    match command {
        Tenant::Add(Name { name }) => {
            let request = pb::AddLocalTenantRequest { tenant: name.into() };
            let added = agent.add_local_tenant(request).await?.into_inner();
            writeln!(out, "{} | password: {}", added.url, added.password)?;
        }
        Tenant::Remove(Name { name }) => {
            agent.remove_local_tenant(pb::RemoveLocalTenantRequest { tenant: name.into() }).await?;
        }
        Tenant::Start(Name { name }) => {
            agent.start_local_tenant(pb::StartLocalTenantRequest { tenant: name.into() }).await?;
        }
        Tenant::Stop(Name { name }) => {
            agent.stop_local_tenant(pb::StopLocalTenantRequest { tenant: name.into() }).await?;
        }
        Tenant::Restart(Name { name }) => {
            agent.restart_local_tenant(pb::RestartLocalTenantRequest { tenant: name.into() }).await?;
        }
        Tenant::Adopt(Adopt { dry_run, start }) => {
            let request = pb::AdoptLocalTenantsRequest { dry_run, start };
            let response = agent.adopt_local_tenants(request).await?.into_inner();
            let decoded = response.findings.into_iter().map(Finding::try_from).collect::<Result<Vec<_>, _>>();
            let told = findings::told(&decoded.map_err(Failure::Answer)?, &response.problems, Adopt { dry_run, start });
            out.write_all(told.as_bytes())?;
        }
        Tenant::List => {
            let (tenants, fenced) = list(&mut agent).await?;
            out.write_all(text::tenants(&tenants).as_bytes())?;
            if !fenced.is_empty() {
                writeln!(out, "\n{fenced}")?;
            }
        }
        Tenant::Status => {
            let status = agent.get_status(looking(pb::GetStatusRequest {})).await?.into_inner();
            let (tenants, _) = list(&mut agent).await?;
            out.write_all(text::status(&status, &tenants).as_bytes())?;
        }
    }
    Ok(out.flush()?)
}

/// Swaps the admin container, and says what serves now.
///
/// # Errors
/// See [`Failure`].
pub async fn swap(socket: &Path, swap: Swap, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let mut agent = LocalServiceClient::new(connect(socket).await?);
    let request = pb::SwapLocalAdminRequest { image: swap.image.unwrap_or_default() };
    let swapped = agent.swap_local_admin(request).await?.into_inner();
    out.write_all(text::swapped(&swapped).as_bytes())?;
    Ok(out.flush()?)
}

/// Everybody, and why nobody runs here, if so.
async fn list(
    agent: &mut LocalServiceClient<Channel>,
) -> Result<(Vec<(TenantReport, pb::LocalTenant)>, String), Failure> {
    let answer = agent.list_local_tenants(looking(pb::ListLocalTenantsRequest {})).await?.into_inner();
    let decoded = answer.tenants.into_iter().map(|tenant| {
        let report = tenant.tenant.clone().unwrap_or_default();
        TenantReport::try_from(report).map(|report| (report, tenant)).map_err(Failure::Answer)
    });
    Ok((decoded.collect::<Result<_, _>>()?, answer.fenced))
}

fn looking<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(LOOK_MAX);
    request
}
