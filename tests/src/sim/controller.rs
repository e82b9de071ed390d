//! The controller of a simulation: the real one, in a process of its own.

use std::{
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use feather_controller::{
    Seams,
    agents::grpc::GrpcAgents,
    ca::Ca,
    own_identity, serve,
    store::Store,
    world::{Settings, SystemClock},
};
use feather_proto::tls::{Rotating, Tcp, TcpIncoming};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

const STOP_MAX: Duration = Duration::from_secs(30);

/// That process, as the simulation sees it.
pub(super) struct Controller {
    process: Child,
    /// `host:port`.
    pub(super) address: String,
}

impl Controller {
    /// Starts this program once more, on the CA in this folder.
    pub(super) async fn start(state: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program has no path")?;
        let mut process = Command::new(program)
            .arg("--controller")
            .arg(state)
            // It ends when this end of the pipe does, however that happens.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the controller cannot be started")?;
        let output = process.stdout.take().context("the controller has no output")?;
        let mut lines = BufReader::new(output).lines();
        let address = lines.next_line().await?.context("the controller ended at its start")?;
        Ok(Self { process, address })
    }

    /// Resident memory now and at its peak, in MiB.
    pub(super) fn memory_mib(&self) -> anyhow::Result<(f64, f64)> {
        let id = self.process.id().context("the controller has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            let kib: f64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
            (kib / 102.4).round() / 10.0
        };
        Ok((mib("VmRSS:"), mib("VmHWM:")))
    }

    /// Lets it end.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.process.stdin.take());
        let ended =
            tokio::time::timeout(STOP_MAX, self.process.wait()).await.context("the controller does not end")??;
        anyhow::ensure!(ended.success(), "the controller ended with {ended}");
        Ok(())
    }
}

/// What the other process does: serves until its standard input ends.
pub fn main(state: &Path) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let served = tokio::runtime::Runtime::new().map_err(anyhow::Error::new).and_then(|runtime| {
        runtime.block_on(async {
            let shutdown = CancellationToken::new();
            let asked = shutdown.clone();
            std::thread::spawn(move || {
                // Nothing is ever written to it.
                let mut line = String::new();
                drop(std::io::stdin().lock().read_line(&mut line));
                asked.cancel();
            });
            Box::pin(fleet(state.to_owned(), shutdown)).await
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn fleet(state: PathBuf, shutdown: CancellationToken) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock);
    let ca = Ca::load(&state)?;
    let identity = Rotating::new(own_identity(&ca, &*clock)?)?;
    let store = Store::open(&format!("sqlite://{}/controller.db", state.display())).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let agents = Arc::new(GrpcAgents::new(Arc::new(Tcp), identity.clone(), store.epoch()));
    let seams = Seams { store, agents, dns: None, certificates: None, http: None, following: None, clock };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{address}")?;
    out.flush()?;
    drop(out);
    let incoming = TcpIncoming::stream(listener);
    Ok(Box::pin(serve(Settings::default(), seams, ca, address, identity, incoming, shutdown)).await?)
}
