//! The agents of a simulation: real ones, on fakes of engine and proxy, at a loopback port each.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use feather_agent::{
    Config, Local, Seams,
    clock::SystemClock,
    join::Membership,
    router::fake::Fake as FakeRouter,
    runtime::fake::{Behaviour, Fake as FakeRuntime},
};
use feather_controller::ca::Ca;
use feather_proto::{
    pb::controller::v1::{self as pb, enrollment_service_client::EnrollmentServiceClient},
    tls::{self, Identity, Principal, Rotating, Tcp, TcpIncoming, Trust},
};
use futures::StreamExt as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::people::People;
use crate::fleet::WORK_IMAGE;

/// Servers that join at once.
const JOINS_AT_ONCE: usize = 16;

struct Server {
    name: String,
    runtime: Arc<FakeRuntime>,
    state: PathBuf,
    address: SocketAddr,
    shutdown: CancellationToken,
    agent: Option<JoinHandle<()>>,
    /// Takes connections and says nothing.
    silent: Option<AbortOnDropHandle<()>>,
}

/// All of them.
pub(super) struct Agents {
    servers: Vec<Server>,
}

impl Agents {
    /// So many servers join the fleet.
    pub(super) async fn join(
        count: usize,
        folder: &Path,
        controller: &str,
        ca: &Ca,
        people: &Arc<People>,
    ) -> anyhow::Result<Self> {
        let joining = futures::stream::iter(0..count).map(|number| {
            let (people, ca_pem) = (people.clone(), ca.ca_pem().to_owned());
            async move { Server::join(number, folder, controller, &ca_pem, &people).await }
        });
        let joined: Vec<anyhow::Result<Server>> = joining.buffer_unordered(JOINS_AT_ONCE).collect().await;
        let servers = joined.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { servers })
    }

    /// So many agents say nothing from now on, though their ports are open. Returns the names of their servers.
    pub(super) async fn hang(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let mut hung = Vec::with_capacity(count);
        for server in self.servers.iter_mut().take(count) {
            server.stop().await;
            let listener = TcpListener::bind(server.address).await?;
            server.silent = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok((connection, _)) = listener.accept().await {
                    held.push(connection);
                }
            })));
            hung.push(server.name.clone());
        }
        Ok(hung)
    }

    /// Those that hang come back.
    pub(super) async fn wake(&mut self) -> anyhow::Result<()> {
        for server in &mut self.servers {
            if let Some(silent) = server.silent.take() {
                silent.abort();
                drop(silent.await);
                server.start().await?;
            }
        }
        Ok(())
    }

    /// All at once: agents and containers are gone, disks stay.
    pub(super) async fn power_off(&mut self) {
        futures::future::join_all(self.servers.iter_mut().map(Server::stop)).await;
        for server in &self.servers {
            server.runtime.reboot();
        }
    }

    /// All at once.
    pub(super) async fn power_on(&mut self) -> anyhow::Result<()> {
        futures::future::try_join_all(self.servers.iter_mut().map(Server::start)).await?;
        Ok(())
    }
}

impl Server {
    async fn join(
        number: usize,
        folder: &Path,
        controller: &str,
        ca_pem: &str,
        people: &People,
    ) -> anyhow::Result<Self> {
        let name = format!("s{number}");
        let root = folder.join(&name);
        let state = root.join("state");
        std::fs::create_dir_all(root.join("volumes"))?;
        std::fs::create_dir_all(&state)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (key_pem, csr_pem) = tls::csr(&name)?;
        let trust = Trust::CaOnly(ca_pem.to_owned());
        let channel = tls::channel(Arc::new(Tcp), controller, &Principal::controller(), &trust)?;
        let request = pb::JoinRequest {
            secret: people.invite(&name).await?,
            csr_pem,
            address: address.to_string(),
            public_address: format!("10.{}.{}.1", number / 250, number % 250),
            agent_version: env!("CARGO_PKG_VERSION").into(),
        };
        let joined = EnrollmentServiceClient::new(channel).join(request).await.context("a server cannot join")?;
        let joined = joined.into_inner();
        let identity = Identity { certificate_pem: joined.certificate_pem, key_pem, ca_pem: joined.ca_pem };
        let config = Config::new(&state);
        let membership = Membership::new(controller.into(), name.parse()?);
        std::fs::write(config.controller_file(), serde_json::to_vec(&membership)?)?;
        identity.save(&config.identity_file())?;
        let runtime = Arc::new(FakeRuntime::new(root.join("volumes")));
        runtime.add_image(WORK_IMAGE, "work", Behaviour::Healthy);
        let shutdown = CancellationToken::new();
        let mut server = Self { name, runtime, state, address, shutdown, agent: None, silent: None };
        server.serve(listener)?;
        Ok(server)
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await.context("a port was taken meanwhile")?;
        self.serve(listener)
    }

    fn serve(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let router = Arc::new(FakeRouter::new().in_front_of(&self.name, self.runtime.clone()));
        let mut config = Config::new(&self.state);
        config.stop_grace = Duration::from_millis(100);
        config.old_tenants_file = self.state.with_file_name("tenants.json");
        let seams = Seams { runtime: self.runtime.clone(), router, dial: Arc::new(Tcp), clock: Arc::new(SystemClock) };
        let identity = Rotating::new(Identity::load(&config.identity_file())?)?;
        self.shutdown = CancellationToken::new();
        let shutdown = self.shutdown.clone();
        let local = Local::start(config, seams)?;
        self.agent = Some(tokio::spawn(async move {
            if let Err(error) = local.listen(identity, TcpIncoming::stream(listener), shutdown).await {
                tracing::error!(%error, "an agent ended");
            }
            local.stop().await;
        }));
        Ok(())
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(agent) = self.agent.take() {
            drop(agent.await);
        }
    }
}
