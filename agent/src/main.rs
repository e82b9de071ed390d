//! `feather-agent`: reads flags and environment, wires the agent, runs it.
//!
//! Decides nothing; every behaviour is in the library.

mod arguments;

use std::{collections::BTreeMap, io::Write as _, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use feather_agent::{
    Local, Seams, certificate,
    clock::SystemClock,
    config::{AdminSettings, Config, PASSED_VARIABLES},
    image,
    join::{self, Membership},
    link::Links,
    local::{self, Socket, client},
    renew::Renewal,
    router::caddy::{self, Caddy, CaddyOptions, CertificateSource},
    runtime::podman::{Podman, PodmanOptions},
    state::{self, StateDir},
    waitlist::{Door, Limits},
};
use feather_proto::{
    tls::{Dial, Identity, Rotating, Tcp, TcpIncoming},
    trace::{LogForm, Tracing},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use arguments::{
    Arguments, CaddyConfigArguments, Command, JoinArguments, LoadImageArguments, LogFormat, RouteArguments,
    ServeArguments, Switch,
};

/// How often an agent without identity looks whether it has joined meanwhile.
const IDENTITY_INTERVAL: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let tracing = Tracing::new("feather-agent");
    let filter = EnvFilter::try_from_env("FEATHER_AGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing.install(arguments.log_format.into(), filter);
    let code = run(arguments).await;
    tracing.finish().await;
    code
}

async fn run(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Serve(serve) => Box::pin(self::serve(&arguments.state_dir, &arguments.local_socket, *serve)).await,
        Command::Join(join) => self::join(&arguments.state_dir, join).await,
        Command::CaddyConfig(caddy) => caddy_config(&arguments.state_dir, &caddy),
        Command::LoadImage(load) => return client::report(load_image(load).await),
        Command::Tenant(command) => return client::report(tenant(&arguments.local_socket, command).await),
        Command::Swap(swap) => return client::report(self::swap(&arguments.local_socket, swap).await),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl From<LogFormat> for LogForm {
    fn from(format: LogFormat) -> LogForm {
        match format {
            LogFormat::Text => LogForm::Text,
            LogFormat::Json => LogForm::Json,
        }
    }
}

async fn join(state_dir: &Path, arguments: JoinArguments) -> anyhow::Result<()> {
    state::create(state_dir)?;
    let token = arguments.token.parse().map_err(anyhow::Error::new)?;
    let addresses = arguments.addresses(join::own_address(&token).await?)?;
    let identity = join::join(&Config::new(state_dir), Arc::new(Tcp), &token, &addresses).await?;
    tracing::info!(server = identity.principal()?.name, "this server has joined the fleet");
    Ok(())
}

fn caddy_config(state_dir: &Path, arguments: &CaddyConfigArguments) -> anyhow::Result<()> {
    let edge = arguments.edge.edge();
    for problem in &edge.problems {
        tracing::error!("{problem}");
    }
    // Caddy serves without it too; the agent's state directory that cannot be written is told elsewhere.
    let secret = certificate::secret(state_dir).inspect_err(|error| {
        tracing::error!(%error, "the fleet's certificate will not be served");
    });
    let folder = Config::new(state_dir).certificate_dir();
    let options = CaddyOptions {
        certificate: secret.ok().map(|secret| CertificateSource { folder, secret }),
        ..caddy_options(&arguments.routes, state_dir)
    };
    let text = serde_json::to_string_pretty(&caddy::base(&edge, &options))?;
    std::io::stdout().write_all(format!("{text}\n").as_bytes()).context("cannot print the configuration")
}

/// What decides about the routes: the same for the Caddy that is started and for the agent that looks after it.
fn caddy_options(arguments: &RouteArguments, state_dir: &Path) -> CaddyOptions {
    let config = Config::new(state_dir);
    // Without it the agent says it in a moment.
    let link = Links::new(config.link_dir()).of(&config.identity_file()).ok().flatten();
    CaddyOptions {
        admin: arguments.caddy_admin.clone(),
        ports: arguments.ports.0.clone(),
        fleet_ca: link.map(|link| link.ca),
        ..CaddyOptions::new(&arguments.domain_suffix, state_dir)
    }
}

async fn load_image(arguments: LoadImageArguments) -> Result<(), client::Failure> {
    // No container is made here, so that no label needs a key.
    let options = PodmanOptions::new(Default::default());
    let podman =
        Podman::connect(&arguments.podman_socket, options).map_err(|error| client::Failure::Answer(error.into()))?;
    let images = image::load_file(&podman, &arguments.file).await.map_err(client::Failure::Answer)?;
    let lines = images.iter().map(|image| format!("{} {}\n", image.reference, image.digest));
    Ok(std::io::stdout().write_all(lines.collect::<String>().as_bytes())?)
}

/// A command on this server itself. It stops waiting when the person does; what it began goes on.
async fn tenant(socket: &Path, command: client::Tenant) -> Result<(), client::Failure> {
    let mut out = std::io::stdout();
    tokio::select! {
        done = client::run(socket, command, &mut out) => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(client::Failure::Interrupted(client::Tenant::GOES_ON)),
    }
}

async fn swap(socket: &Path, swap: client::Swap) -> Result<(), client::Failure> {
    let mut out = std::io::stdout();
    tokio::select! {
        done = client::swap(socket, swap, &mut out) => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(client::Failure::Interrupted(client::Swap::GOES_ON)),
    }
}

async fn serve(state_dir: &Path, socket: &Path, arguments: ServeArguments) -> anyhow::Result<()> {
    let shutdown = shutdown_on_signal()?;
    let state = StateDir::take(state_dir)?;
    let identity_file = Config::new(state_dir).identity_file();
    let joined = if identity_file.exists() { Some(load_identity(&identity_file)?) } else { None };
    let dial: Arc<dyn Dial> = Arc::new(Tcp);
    let seams = Seams {
        runtime: Arc::new(Podman::connect(&arguments.podman_socket, PodmanOptions::new(state.label_key()?))?),
        router: Arc::new(Caddy::new(CaddyOptions {
            server: arguments.caddy_server.clone(),
            public: arguments.caddy_public.clone(),
            restart: arguments.caddy_restart.split_whitespace().map(ToOwned::to_owned).collect(),
            speaks_tls: arguments.edge.edge().domain().is_some(),
            ..caddy_options(&arguments.routes, state_dir)
        })?),
        dial: dial.clone(),
        clock: Arc::new(SystemClock),
    };
    let listen = arguments.listen;
    let config = config(state_dir, arguments);
    let membership_file = config.controller_file();
    let ask = config.edge.ask();
    // First of all, because beside another agent this one must not touch anything.
    let socket = match Socket::bind(socket).await {
        Ok(socket) => Some(socket),
        Err(error @ local::Error::Taken(_)) => return Err(error.into()),
        // Tenants are better served without it than not at all.
        Err(error) => {
            tracing::error!("no command on this server will reach the agent: {:#}", anyhow::Error::new(error));
            None
        }
    };
    let local = Local::start(config, seams)?;
    if let Some(address) = ask {
        local.answer_caddy(address);
    }
    if let Some(socket) = socket {
        local.listen_locally(socket);
    }

    let identity = match joined {
        Some(identity) => Some(identity),
        None => wait_for_identity(&identity_file, &shutdown).await?,
    };
    if let Some(identity) = identity {
        match renewal(&identity, &identity_file, &membership_file, dial) {
            Ok(renewal) => drop(tokio::spawn(renewal.run(shutdown.clone()))),
            // The certificate is good for a while, and tenants are better served meanwhile.
            Err(error) => tracing::error!("the certificate will not be renewed: {error:#}; join this server anew"),
        }
        let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        local.listen(identity, TcpIncoming::stream(listener), shutdown).await?;
    }
    local.stop().await;
    drop(state);
    Ok(())
}

fn config(state_dir: &Path, arguments: ServeArguments) -> Config {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let set = PASSED_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let tenant_environment: BTreeMap<_, _> = set.filter(|(_, value)| !value.is_empty()).collect();
    Config {
        admin: (arguments.admin == Switch::On).then(|| AdminSettings {
            home: admin_home(arguments.admin_home),
            environment: AdminSettings::pick(variables),
        }),
        watchdog_interval: Duration::from_secs(arguments.watchdog_interval_seconds),
        watchdog_checks: arguments.watchdog_failures,
        ports: arguments.routes.ports.0,
        work_image: arguments.work_image,
        tenant_environment,
        tenant_dns: arguments.tenant_dns,
        health_timeout: Duration::from_secs(arguments.health_timeout_seconds),
        stop_grace: Duration::from_secs(arguments.stop_grace_seconds),
        password_length: arguments.password_length,
        domain_suffix: arguments.routes.domain_suffix,
        edge: arguments.edge.edge(),
        waitlist: arguments.waitlist_listen.0.map(|listen| Door {
            listen,
            origins: arguments.waitlist_origins,
            limits: Limits::default(),
        }),
        old_tenants_file: arguments.old_tenants_file,
        ..Config::new(state_dir)
    }
}

/// Whoever mounts something at /home/user of the birth means the admin container by it.
fn admin_home(given: Option<String>) -> String {
    const HOME: &str = "/home/user";
    let fallback = || if Path::new(HOME).is_dir() { HOME } else { "feather-work" }.to_owned();
    given.filter(|given| !given.is_empty()).unwrap_or_else(fallback)
}

fn load_identity(file: &Path) -> anyhow::Result<Rotating> {
    Ok(Rotating::new(Identity::load(file)?)?)
}

/// Tenants run meanwhile. `None` when it is time to stop.
async fn wait_for_identity(file: &Path, shutdown: &CancellationToken) -> anyhow::Result<Option<Rotating>> {
    tracing::info!("this server is no member of a fleet yet: tenants run, and `feather-agent join` makes it one");
    while !file.exists() {
        tokio::select! {
            () = tokio::time::sleep(IDENTITY_INTERVAL) => {}
            () = shutdown.cancelled() => return Ok(None),
        }
    }
    load_identity(file).map(Some)
}

fn renewal(identity: &Rotating, file: &Path, membership: &Path, dial: Arc<dyn Dial>) -> anyhow::Result<Renewal> {
    let controller = Membership::load(membership)?.controller;
    let clock = Arc::new(SystemClock);
    Ok(Renewal { identity: identity.clone(), file: file.to_owned(), controller, dial, clock })
}

fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; tenants run on");
        asked.cancel();
    });
    Ok(shutdown)
}
