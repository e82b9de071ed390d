//! `feather-controller`: wires the controller to the real world.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use feather_controller::{
    Seams,
    agents::grpc::GrpcAgents,
    backup,
    ca::{self, Ca},
    certificate::{self, acme::Authority},
    dns::{
        self, Managed,
        authority::Network,
        dynadot::{self, Credentials, Dynadot, DynadotOptions},
        memory::Memory,
        propose::{Cap, SUB_RECORDS_MAX},
    },
    leadership::{self, Rhythm},
    own_identity,
    rebuild::{self, Assigned, Named, Said},
    seal::Seal,
    serve,
    store::{Store, has_password, shown},
    world::{Clock as _, Settings, SystemClock},
};
use feather_proto::{
    ids::ServerName,
    tls::{Principal, Role, Rotating, Tcp, TcpIncoming},
    trace::{LogForm, Tracing},
};
use tokio_util::sync::CancellationToken;

/// Controller of a Feather fleet: places tenants, moves them between servers, keeps DNS true.
#[derive(Parser)]
#[command(name = "feather-controller", version = feather_proto::version::told())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Begin a new fleet: make its certificate authority and an admin identity for featherctl.
    Init(Init),
    /// Make an identity for one more person, or a new one for somebody whose certificate has run out.
    Identity(NewIdentity),
    /// Put a backup of the store in place of a lost or older one, while no controller runs.
    Restore(Restore),
    /// Learn a lost store again from the servers, which know what lives where: shows what it would hold, and writes it with --apply.
    ///
    /// Needs the state folder with the CA: no agent answers anybody without it. Nobody is started or stopped by it. The store must be empty,
    /// and no controller may run.
    Rebuild(Box<Rebuild>),
    /// Serve the fleet until SIGTERM or Ctrl-C.
    Serve(Box<Serve>),
}

#[derive(Args)]
struct Init {
    /// Folder for the CA's key and certificate; created if it is missing.
    #[arg(long, env = "FEATHER_CONTROLLER_STATE_DIR", default_value = STATE_DIR_DEFAULT)]
    state_dir: PathBuf,
    /// HOST:PORT at which servers and featherctl will reach this controller; written into join tokens. Of several controllers on one
    /// PostgreSQL, all of them with commas between.
    #[arg(long, env = "FEATHER_CONTROLLER_ADVERTISE")]
    advertise: String,
    /// Login name inside the admin identity.
    #[arg(long, default_value = "admin")]
    admin: String,
}

#[derive(Args)]
struct NewIdentity {
    /// Folder that `init` filled.
    #[arg(long, env = "FEATHER_CONTROLLER_STATE_DIR", default_value = STATE_DIR_DEFAULT)]
    state_dir: PathBuf,
    /// Login name inside the identity; shown as the one who asked for an operation.
    #[arg(long)]
    name: String,
    /// What it entitles to: `viewer` looks, `operator` changes tenants, `admin` changes servers too.
    #[arg(long, value_enum)]
    role: Entitled,
    /// File to write, readable by its owner only. An existing file is not overwritten.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Entitled {
    Admin,
    Operator,
    Viewer,
}

#[derive(Args)]
struct Restore {
    /// What `featherctl controller backup` wrote.
    file: PathBuf,
    /// Folder that `init` filled. It is not part of a backup, and must be there.
    #[arg(long, env = "FEATHER_CONTROLLER_STATE_DIR", default_value = STATE_DIR_DEFAULT)]
    state_dir: PathBuf,
    /// Where desired state is kept.
    #[arg(
        long,
        env = "FEATHER_CONTROLLER_STORE",
        hide_env_values = true,
        default_value = STORE_DEFAULT
    )]
    store: String,
    /// Put it in the place of a store that is there; that one is kept beside it.
    #[arg(long)]
    replace: bool,
}

#[derive(Args)]
struct Rebuild {
    /// Folder that `init` filled.
    #[arg(long, env = "FEATHER_CONTROLLER_STATE_DIR", default_value = STATE_DIR_DEFAULT)]
    state_dir: PathBuf,
    /// The store to be filled, as `serve` is told it.
    #[arg(
        long,
        env = "FEATHER_CONTROLLER_STORE",
        hide_env_values = true,
        default_value = STORE_DEFAULT
    )]
    store: String,
    /// A server, by the name in its certificate, and the address of its agent; once for each. Where the world reaches it stands behind a comma, if it is another address and
    /// no forward tells it.
    #[arg(long = "agent", value_name = "NAME=HOST:PORT[,PUBLIC]")]
    agent: Vec<Named>,
    /// File with the same, one on each line.
    #[arg(long, value_name = "FILE")]
    agents: Option<PathBuf>,
    /// Go on although this is missing: the name of a server that does not answer or is out of the fleet, or a forward that leads to no server
    /// that was named, as it is shown. May be given several times.
    #[arg(long, value_name = "NAME|FORWARD")]
    without: Vec<String>,
    /// Who has a tenant that several servers hold as theirs, or that one which does not answer may have. May be given several times.
    #[arg(long, value_name = "TENANT=SERVER")]
    assign: Vec<Assigned>,
    /// The server that the wildcard leads to, if forwards leave more than one that it can be.
    #[arg(long, value_name = "SERVER")]
    ingress: Option<ServerName>,
    /// Look once more, and write it.
    #[arg(long)]
    apply: bool,
    /// Show it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Serve {
    /// Folder that `init` filled.
    #[arg(long, env = "FEATHER_CONTROLLER_STATE_DIR", default_value = STATE_DIR_DEFAULT)]
    state_dir: PathBuf,
    /// Address to listen on.
    #[arg(long, env = "FEATHER_CONTROLLER_LISTEN", default_value = "0.0.0.0:7400")]
    listen: SocketAddr,
    /// Where desired state is kept: a file of SQLite, or a database of PostgreSQL 13 or newer, postgres://USER@HOST:5432/DATABASE. A
    /// password belongs into this environment variable, PGPASSWORD or a file that PGPASSFILE names; sslmode=verify-full asks for TLS.
    #[arg(
        long,
        env = "FEATHER_CONTROLLER_STORE",
        hide_env_values = true,
        default_value = STORE_DEFAULT
    )]
    store: String,
    /// Domain under which tenants are served: alice becomes alice.SUFFIX.
    #[arg(
        long,
        env = "FEATHER_CONTROLLER_DOMAIN_SUFFIX",
        default_value = "users.inceptel.ai",
        value_parser = feather_proto::ids::domain_suffix
    )]
    domain_suffix: String,
    /// Where DNS is written: `dynadot`, `none` for fleets whose DNS is done by hand, `memory` for a zone in this process, to try things.
    #[arg(long, env = "FEATHER_CONTROLLER_DNS", value_enum, default_value_t = Provider::None)]
    dns: Provider,
    /// The registered domain that the domain suffix lies in [default: the suffix without its first label].
    #[arg(long, env = "FEATHER_CONTROLLER_DNS_ZONE")]
    dns_zone: Option<String>,
    /// Who changes the zone: the controller by itself, or a person with `featherctl dns apply`.
    #[arg(long, env = "FEATHER_CONTROLLER_DNS_MODE", value_enum, default_value_t = DnsMode::Auto)]
    dns_mode: DnsMode,
    /// Names of the zone that may change at once: a number, or a share of those that are ours (and at least five).
    #[arg(long, env = "FEATHER_CONTROLLER_MAX_CHANGES", default_value = "30%")]
    max_changes: Cap,
    /// Ask these name servers, IP or IP:PORT, instead of those that the zone names. May be given several times.
    #[arg(long, env = "FEATHER_CONTROLLER_DNS_AUTHORITY", value_delimiter = ',', value_parser = name_server)]
    dns_authority: Vec<SocketAddr>,
    /// Address of Dynadot's API: https://api-sandbox.dynadot.com to play.
    #[arg(long, env = "FEATHER_CONTROLLER_DYNADOT_URL", default_value = dynadot::PRODUCTION)]
    dynadot_url: String,
    /// File with the API key, readable by its owner only; or FEATHER_DYNADOT_KEY in the environment.
    #[arg(long, env = dynadot::KEY_FILE)]
    dynadot_key_file: Option<PathBuf>,
    /// File with the API secret, readable by its owner only; or FEATHER_DYNADOT_SECRET in the environment.
    #[arg(long, env = dynadot::SECRET_FILE)]
    dynadot_secret_file: Option<PathBuf>,
    /// Certificate authority for one certificate of all tenants' names, by ACME: the URL of its directory, for instance
    /// https://acme-v02.api.letsencrypt.org/directory. Needs --dns dynadot. Without it no certificate is obtained.
    #[arg(long, env = "FEATHER_CONTROLLER_ACME_DIRECTORY")]
    acme_directory: Option<String>,
    /// File with the certificates (PEM) that an authority of your own is checked against, instead of the system's.
    #[arg(long, env = "FEATHER_CONTROLLER_ACME_ROOT")]
    acme_root: Option<PathBuf>,
    /// Where the authority may write to when something is wrong with a certificate.
    #[arg(long, env = "FEATHER_CONTROLLER_ACME_EMAIL")]
    acme_email: Option<String>,
    /// Port at which the servers' Caddys take requests that another server forwards.
    #[arg(long, env = "FEATHER_CONTROLLER_HTTP_PORT", default_value_t = 80)]
    http_port: u16,
    /// Own DNS records for tenants away from the ingress, at most; beyond that the ingress forwards.
    #[arg(long, env = "FEATHER_CONTROLLER_DNS_BUDGET", default_value_t = 60)]
    dns_budget: usize,
    /// Memory in MiB that must be free on a server for one more tenant.
    #[arg(long, env = "FEATHER_CONTROLLER_TENANT_MEMORY_MIB", default_value_t = 64)]
    tenant_memory_mib: u64,
    /// Disk in MiB that must stay free on each server.
    #[arg(long, env = "FEATHER_CONTROLLER_DISK_HEADROOM_MIB", default_value_t = 256)]
    disk_headroom_mib: u64,
    /// Serves a web page that shows the fleet to whoever has a token (`featherctl user web`), and metrics for Prometheus at /metrics
    /// without any login; at 127.0.0.1:7480 unless another address is given. Off without this option.
    #[arg(long, env = "FEATHER_CONTROLLER_HTTP", value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:7480")]
    http: Option<SocketAddr>,
    /// Form of the log on standard error.
    #[arg(long, env = "FEATHER_CONTROLLER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum Provider {
    None,
    Memory,
    Dynadot,
}

#[derive(Clone, Copy, ValueEnum)]
enum DnsMode {
    Auto,
    Manual,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Where `init` and `serve` look unless told otherwise.
const STATE_DIR_DEFAULT: &str = "/var/lib/feather/controller";
const STORE_DEFAULT: &str = "sqlite:///var/lib/feather/controller.db";
/// File beside the CA that remembers what `init` was told.
const ADVERTISE_FILE: &str = "advertise";

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    match Arguments::parse().command {
        Command::Init(arguments) => init(&arguments),
        Command::Identity(arguments) => new_identity(&arguments),
        Command::Restore(arguments) => runtime.block_on(restore(&arguments)),
        Command::Rebuild(arguments) => runtime.block_on(learn(*arguments)),
        Command::Serve(arguments) => runtime.block_on(run(*arguments)),
    }
}

#[allow(clippy::print_stdout)] // The only output of a command that people run by hand.
fn init(arguments: &Init) -> anyhow::Result<()> {
    let Init { state_dir, advertise, admin } = arguments;
    anyhow::ensure!(
        advertise.split(',').all(|one| {
            one.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        }),
        "--advertise must be HOST:PORT, for example controller.example.com:7400, or several with commas between them"
    );
    create_private(state_dir)?;
    let now = SystemClock.now();
    Ca::create(state_dir, now)?;
    let authority = Ca::load(state_dir)?;
    std::fs::write(state_dir.join(ADVERTISE_FILE), advertise).context("cannot write the state folder")?;
    let person = Principal { role: Role::Admin, name: admin.clone() };
    let identity = state_dir.join("admin.identity");
    authority.issue(&person, ca::PERSON_LIFE, now)?.save(&identity)?;
    println!("fleet CA fingerprint: sha256:{}", authority.fingerprint()?);
    println!("admin identity:       {}", identity.display());
    println!();
    let store = if state_dir == Path::new(STATE_DIR_DEFAULT) {
        String::new()
    } else {
        format!(" --store sqlite://{}/controller.db", state_dir.display())
    };
    println!("Start the controller:  feather-controller serve --state-dir {}{store}", state_dir.display());
    println!(
        "Point featherctl at it: export FEATHERCTL_CONTROLLER={advertise} FEATHERCTL_IDENTITY={}",
        identity.display()
    );
    Ok(())
}

#[allow(clippy::print_stdout)] // The only output of a command that people run by hand.
fn new_identity(arguments: &NewIdentity) -> anyhow::Result<()> {
    let NewIdentity { state_dir, name, role, out } = arguments;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    anyhow::ensure!(
        (1..=64).contains(&name.len()) && name.bytes().all(fits),
        "--name must be 1 to 64 letters, digits or any of -_.@"
    );
    anyhow::ensure!(!out.exists(), "{} exists; choose another file, or move it away", out.display());
    let role = match role {
        Entitled::Admin => Role::Admin,
        Entitled::Operator => Role::Operator,
        Entitled::Viewer => Role::Viewer,
    };
    let person = Principal { role, name: name.clone() };
    let identity = Ca::load(state_dir)?.issue(&person, ca::PERSON_LIFE, SystemClock.now())?;
    identity.save(out)?;
    println!("{person}: {}, valid for {} days", out.display(), ca::PERSON_LIFE.whole_days());
    Ok(())
}

#[allow(clippy::print_stdout)] // The only output of a command that people run by hand.
async fn restore(arguments: &Restore) -> anyhow::Result<()> {
    let Restore { file, state_dir, store, replace } = arguments;
    // Without its authority a store is of no use, and with another one no server would know its controller.
    Ca::load(state_dir)?;
    let _only_one = lock(state_dir)?;
    let restored = backup::restore(file, store, *replace).await?;
    println!("restored to {}", restored.target.display());
    if let Some(kept) = restored.kept {
        println!("what was there before is kept as {}", kept.display());
    }
    println!(
        "What happened after the backup is not in it: look at `featherctl tenant list` and `featherctl user list`"
    );
    println!("before anything else, and revoke once more whoever was revoked since.");
    Ok(())
}

#[allow(clippy::print_stdout)] // The only output of a command that people run by hand.
async fn learn(arguments: Rebuild) -> anyhow::Result<()> {
    let Rebuild { state_dir, store: url, agent: mut named, agents: file, without, assign, ingress, apply, json } =
        arguments;
    if let Some(file) = file {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {} (--agents)", file.display()))?;
        let more =
            rebuild::read_agents(&text).map_err(|error| anyhow::anyhow!("{} (--agents): {error}", file.display()))?;
        named.extend(more);
    }
    let said = Said::new(named, without, assign, ingress).map_err(anyhow::Error::msg)?;
    let authority = Ca::load(&state_dir).context(
        "without the CA's key nothing can be learned, because agents answer only a controller of their CA: put the state folder back (init \
         would begin another fleet)",
    )?;
    let _only_one = lock(&state_dir)?;
    no_password_shown(&url)?;
    // A look makes no file.
    let is_there = backup::file_of(&url).map_or(true, |file| file.exists());
    let store = match apply || is_there {
        true => {
            Some(Store::open(&url).await.with_context(|| format!("cannot open the store {} (--store)", shown(&url)))?)
        }
        false => None,
    };
    let identity = Rotating::new(own_identity(&authority, &SystemClock)?)?;
    let epoch = store.as_ref().map(Store::epoch).unwrap_or_default();
    let agents = Arc::new(GrpcAgents::new(Arc::new(Tcp), identity, epoch));
    let seams = rebuild::Seams { agents, clock: Arc::new(SystemClock) };
    let show = |plan: &rebuild::Plan, written| match json {
        true => println!("{:#}", rebuild::json(plan, written)),
        false => print!("{}", rebuild::text(plan, written)),
    };
    let done = match &store {
        Some(store) if apply => rebuild::apply(&seams, store, &said).await.inspect(|plan| show(plan, true)),
        Some(store) => match rebuild::require_blank(store).await {
            Ok(()) => Ok(rebuild::plan(&seams, &said).await).inspect(|plan| show(plan, false)),
            Err(error) => Err(error),
        },
        None => Ok(rebuild::plan(&seams, &said).await).inspect(|plan| show(plan, false)),
    };
    if let Some(store) = store {
        store.close().await;
    }
    if let Err(rebuild::Error::Unsettled(plan)) = &done {
        show(plan, false);
    }
    Ok(done.map(drop)?)
}

/// Everybody on a machine sees how a process was called.
fn no_password_shown(store: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        !(has_password(store) && std::env::args().any(|word| word.ends_with(store))),
        "everybody on this machine can read the password in --store: put the URL into FEATHER_CONTROLLER_STORE, or only the password \
         into PGPASSWORD or a file that PGPASSFILE names"
    );
    Ok(())
}

fn create_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create {}", folder.display()))
}

async fn run(arguments: Serve) -> anyhow::Result<()> {
    let tracing = Tracing::new("feather-controller");
    tracing.install(arguments.log_format.into(), log_filter());
    let done = Box::pin(serve_fleet(arguments)).await;
    tracing.finish().await;
    done
}

async fn serve_fleet(arguments: Serve) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock);
    let authority = Ca::load(&arguments.state_dir)?;
    let _only_one = lock(&arguments.state_dir)?;
    let advertise = std::fs::read_to_string(arguments.state_dir.join(ADVERTISE_FILE))
        .with_context(|| format!("{} was not made by `feather-controller init`", arguments.state_dir.display()))?;
    let identity = Rotating::new(own_identity(&authority, &*clock)?)?;
    no_password_shown(&arguments.store)?;
    let store = Store::open(&arguments.store)
        .await
        .with_context(|| format!("cannot open the store {} (--store)", shown(&arguments.store)))?;
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let renewing = renew(arguments.state_dir.clone(), identity.clone());
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(renewing));
    let listener = listen(arguments.listen)?;
    let agents = Arc::new(GrpcAgents::new(Arc::new(Tcp), identity.clone(), store.epoch()));
    let rhythm = Rhythm::default();
    let lead = if store.is_shared() {
        let incoming = TcpIncoming::stream(tokio::net::TcpListener::from_std(listener.try_clone()?)?);
        let show = |following, over| {
            // What is shown of the zone and the certificate is the leader's to say.
            let following = Some(following);
            let (store, agents, clock) = (store.clone(), agents.clone(), clock.clone());
            let seams = Seams { store, agents, dns: None, certificates: None, http: None, following, clock };
            let authority = Ca::load(&arguments.state_dir);
            let (settings, advertise, identity) = (settings(&arguments), advertise.clone(), identity.clone());
            async move { serve(settings, seams, authority?, advertise, identity, incoming, over).await }
        };
        tracing::info!(listen = %arguments.listen, "controller waits to lead, and shows the fleet meanwhile");
        match leadership::follow(&store, &own_name(arguments.listen), rhythm, &shutdown, show).await {
            Some(lead) => Some(lead),
            None => return Ok(()),
        }
    } else {
        // The lock keeps everybody else out of it. The number tells agents which of two copies of a store was served last.
        store.lead_alone().await?;
        None
    };
    let http = match arguments.http {
        Some(address) => Some(
            tokio::net::TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} (--http); does somebody else?"))?,
        ),
        None => None,
    };
    let dns = managed(&arguments, &store).await?;
    let certificates = certificates(&arguments)?;
    let settings = settings(&arguments);
    tracing::info!(listen = %arguments.listen, "controller starts");
    let (stop, leading) = (shutdown.child_token(), store.clone());
    let seams = Seams { store, agents, dns, certificates, http, following: None, clock };
    let incoming = TcpIncoming::stream(tokio::net::TcpListener::from_std(listener)?);
    let serving = Box::pin(serve(settings, seams, authority, advertise, identity, incoming, stop.clone()));
    match lead {
        None => serving.await?,
        Some(lead) => {
            leadership::lead(leading, lead, rhythm, stop, serving).await.transpose()?;
            anyhow::ensure!(
                shutdown.is_cancelled(),
                "this controller does not lead any more; started again, it waits until it does"
            );
        }
    }
    tracing::info!("controller stopped");
    Ok(())
}

/// Binds once: whoever calls while this process begins to lead waits for a moment, and is not refused.
fn listen(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}; is another controller running?"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The knobs that flags turn.
fn settings(arguments: &Serve) -> Settings {
    Settings {
        domain_suffix: arguments.domain_suffix.clone(),
        http_port: arguments.http_port,
        tenant_memory_bytes: arguments.tenant_memory_mib << 20,
        disk_headroom_bytes: arguments.disk_headroom_mib << 20,
        dns_budget: arguments.dns_budget,
        dns: dns::Rules {
            mode: match arguments.dns_mode {
                DnsMode::Auto => dns::Mode::Auto,
                DnsMode::Manual => dns::Mode::Manual,
            },
            // A zone that begins empty with each process gets all of its names at once.
            cap: if matches!(arguments.dns, Provider::Memory) {
                Cap::Count(SUB_RECORDS_MAX)
            } else {
                arguments.max_changes
            },
            ..dns::Rules::default()
        },
        ..Settings::default()
    }
}

/// What the others are told of a leader: its machine and port.
fn own_name(listen: SocketAddr) -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", name.trim(), listen.port())
}

/// How certificates are obtained, if the flags say so.
fn certificates(arguments: &Serve) -> anyhow::Result<Option<certificate::Options>> {
    let Some(directory) = &arguments.acme_directory else { return Ok(None) };
    anyhow::ensure!(
        matches!(arguments.dns, Provider::Dynadot),
        "--acme-directory needs --dns dynadot: a certificate for all names under a domain is got by records in its zone"
    );
    anyhow::ensure!(
        directory.starts_with("https://"),
        "--acme-directory must be the URL of a directory, such as https://acme-v02.api.letsencrypt.org/directory"
    );
    let root = arguments.acme_root.as_ref().map(|path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {} (--acme-root)", path.display()))
    });
    let authority = Authority::new(directory, root.transpose()?.as_deref(), arguments.acme_email.as_deref())?;
    let seal = Seal::load_or_create(&arguments.state_dir)?;
    Ok(Some(certificate::Options::new(authority, seal)))
}

/// An address, with the usual port unless it names another.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    with_port
        .or_else(|| text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53)))
        .ok_or_else(|| format!("{text:?} is no name server: write IP or IP:PORT, for example 192.0.2.53"))
}

/// The zone that the flags name.
async fn managed(arguments: &Serve, store: &Store) -> anyhow::Result<Option<Managed>> {
    let suffix = arguments.domain_suffix.as_str();
    // A suffix of two labels is most likely a registered domain itself.
    let parent = suffix.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'));
    let zone = arguments.dns_zone.clone().unwrap_or_else(|| parent.unwrap_or(suffix).to_owned());
    match arguments.dns {
        Provider::None => Ok(None),
        Provider::Memory => {
            let key = format!("memory/{zone}");
            // The zone of an earlier process went with it, and what was ours in it.
            store.forget_dns(&key).await?;
            Ok(Some(Managed { provider: Arc::new(Memory::new(&zone)), key, authorities: None }))
        }
        Provider::Dynadot => {
            let (key_file, secret_file) =
                (arguments.dynadot_key_file.as_deref(), arguments.dynadot_secret_file.as_deref());
            let credentials = Credentials::load(|name| std::env::var(name).ok(), key_file, secret_file)?;
            // Any number will do: it only spreads pauses.
            let seed = u64::from(std::process::id());
            let options =
                DynadotOptions { url: arguments.dynadot_url.clone(), seed, ..DynadotOptions::new(&zone, credentials) };
            let authorities = Arc::new(Network { fixed: arguments.dns_authority.clone() });
            let provider = Arc::new(Dynadot::new(options)?);
            Ok(Some(Managed { provider, key: format!("dynadot/{zone}"), authorities: Some(authorities) }))
        }
    }
}

/// Keeps a second controller of the same fleet out for as long as the file is open: two would drive the same operations.
fn lock(state_dir: &Path) -> anyhow::Result<std::fs::File> {
    let path = state_dir.join("controller.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.try_lock()
        .with_context(|| format!("another feather-controller serves with {}; stop it first", state_dir.display()))?;
    Ok(file)
}

/// The controller's own certificate, made anew long before it ends.
async fn renew(state_dir: PathBuf, identity: Rotating) {
    let third = std::time::Duration::try_from(ca::CONTROLLER_LIFE / 3).unwrap_or(std::time::Duration::from_secs(3600));
    loop {
        tokio::time::sleep(third).await;
        let fresh = Ca::load(&state_dir).and_then(|authority| own_identity(&authority, &SystemClock));
        match fresh.map(|fresh| identity.replace(fresh)) {
            Ok(Ok(())) => tracing::info!("own certificate renewed"),
            Ok(Err(error)) => tracing::error!(%error, "own certificate not renewed"),
            Err(error) => tracing::error!(%error, "own certificate not renewed"),
        }
    }
}

async fn stop_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("stopping");
    shutdown.cancel();
}

fn log_filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn,h2=warn"))
}

impl From<LogFormat> for LogForm {
    fn from(format: LogFormat) -> LogForm {
        match format {
            LogFormat::Text => LogForm::Text,
            LogFormat::Json => LogForm::Json,
        }
    }
}
