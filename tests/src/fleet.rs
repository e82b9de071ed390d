//! A whole fleet: one controller, some servers, and a person with an admin identity.

#![allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]

mod lost_store;
mod person;
mod release;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use feather_agent::{
    Config,
    config::AdminSettings,
    join::Membership,
    local::Socket,
    router::fake::{Fake as FakeRouter, Peers},
    runtime::fake::{Behaviour, Fake as FakeRuntime, Recorder},
    waitlist::{Door, Limits, Origins},
};
use feather_controller::{
    Seams,
    agents::{Agent, Agents as _, grpc::GrpcAgents},
    ca::{self, Ca},
    certificate,
    dns::{Managed, Rules, authority::Authorities, memory::Memory, zone::Provider},
    leadership::{self, Rhythm},
    own_identity,
    store::{AfterCommit, Store},
    world::{Settings, SystemClock},
};
use feather_proto::{
    epoch::Epoch,
    ids::TenantName,
    pb::controller::v1::{self as pb, enrollment_service_client::EnrollmentServiceClient},
    tls::{self, Identity, Principal, Role, Rotating, Trust},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    faults::{Faults, Faulty},
    network::Network,
    process::Process,
    wait::until,
};

/// Reference of the image that tenants run.
pub const WORK_IMAGE: &str = "localhost/feather-work:latest";
const CONTROLLER: &str = "controller:7400";
/// Where a controller shows the fleet that waits to lead.
const WAITING: &str = "waiting:7400";
/// The zone that tenants' names lie in.
pub const ZONE: &str = "inceptel.ai";

/// One server: what outlives its agent, and the agent.
pub struct ServerBox {
    /// Its engine.
    pub runtime: Arc<FakeRuntime>,
    /// Its proxy.
    pub router: Arc<FakeRouter>,
    /// Its agent's folder.
    pub state_dir: PathBuf,
    /// Where people sign up there.
    pub waitlist: std::net::SocketAddr,
    agent: Option<Process>,
}

/// Kills the controller's progress behind a chosen write, as a crash right after it would.
#[derive(Default)]
struct CrashPoint {
    /// Writes until the crash; below zero: never.
    remaining: AtomicI64,
    /// The kind of write that it crashes behind, whatever comes before.
    behind: Mutex<Option<&'static str>>,
    reached: Notify,
}

/// A fleet.
pub struct Fleet {
    /// Servers by name.
    pub servers: BTreeMap<String, ServerBox>,
    /// Who ran where, and whether anything ran twice.
    pub recorder: Arc<Recorder>,
    /// The zone.
    pub dns: Arc<dyn Provider>,
    /// Who answers for it; nobody, for the one in memory.
    pub authorities: Option<Arc<dyn Authorities>>,
    /// Servers with a public address that is not their name.
    addresses: BTreeMap<String, String>,
    /// Faults between controller and agents.
    pub faults: Faults,
    /// The network between all of them.
    pub network: Network,
    /// How controllers take turns in leading, from their next start on; not at all unless a test wants it.
    pub rhythm: Option<Rhythm>,
    /// Knobs of the controller; changed before its next start.
    pub settings: Settings,
    /// How the controller obtains certificates, given its state folder, from its next start on; not at all unless a test wants it.
    pub certificates: Option<MakeCertificates>,
    /// What admin containers are made of, from the next start of an agent on; none unless a test wants them.
    pub admin: Option<AdminSettings>,
    peers: Arc<Peers>,
    crash: Arc<CrashPoint>,
    controller: Option<Process>,
    /// Waits to lead in its place.
    rival: Option<Process>,
    http: Option<std::net::SocketAddr>,
    /// Number of the newest lead.
    lead: Arc<AtomicI64>,
    folder: tempfile::TempDir,
    /// Servers whose agents seem to be of another release, and what stands in front of them.
    fronts: BTreeMap<String, Process>,
}

pub use release::Release;

/// Makes what a controller needs for certificates, from its state folder.
pub type MakeCertificates = Arc<dyn Fn(&Path) -> certificate::Options + Send + Sync>;

/// How an operation ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The operation.
    pub operation: pb::Operation,
    /// The password that came with it.
    pub password: String,
}

impl Outcome {
    /// Its state.
    pub fn state(&self) -> pb::OperationState {
        self.operation.state()
    }

    /// Steps that have this event in the log, in order.
    pub fn steps(&self, event: &str) -> Vec<&str> {
        self.operation.log.iter().filter(|line| line.event == event).map(|line| line.step.as_str()).collect()
    }
}

/// Settings of a controller that waits for nothing for long.
pub fn settings() -> Settings {
    Settings {
        attempts: 3,
        backoff: Duration::from_millis(2),
        backoff_max: Duration::from_millis(40),
        heartbeat: Duration::from_millis(300),
        reconcile: Duration::from_millis(150),
        backup_look: Duration::from_millis(50),
        dns: Rules {
            patience: Duration::from_millis(40),
            sight: Duration::from_millis(200),
            look_again: Duration::from_millis(5),
            lease: Duration::from_millis(500),
            interval: Duration::from_millis(150),
            ask_again: Duration::from_millis(20),
            ..Rules::default()
        },
        ..Settings::default()
    }
}

/// A tenant's name.
pub fn tenant(name: &str) -> TenantName {
    name.parse().expect("a valid tenant name")
}

impl Fleet {
    /// A controller and these servers, all joined and ready.
    pub async fn start(names: &[&str]) -> Self {
        let servers: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
        Self::start_in((Arc::new(Memory::new(ZONE)), None), &servers, settings()).await
    }

    /// The same on a zone: servers with the addresses that its records lead to.
    pub async fn start_in(
        zone: (Arc<dyn Provider>, Option<Arc<dyn Authorities>>),
        servers: &[(&str, &str)],
        settings: Settings,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca_dir = folder.path().join("controller");
        std::fs::create_dir(&ca_dir).expect("a folder for the CA");
        let now = time::OffsetDateTime::now_utc();
        Ca::create(&ca_dir, now).expect("a new CA");
        let mut fleet = Self {
            servers: BTreeMap::new(),
            recorder: Arc::default(),
            dns: zone.0,
            authorities: zone.1,
            addresses: servers.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect(),
            faults: Faults::default(),
            network: Network::default(),
            certificates: None,
            settings,
            admin: None,
            peers: Arc::default(),
            crash: Arc::new(CrashPoint {
                remaining: AtomicI64::new(-1),
                behind: Mutex::default(),
                reached: Notify::new(),
            }),
            controller: None,
            rival: None,
            rhythm: None,
            http: None,
            lead: Arc::default(),
            folder,
            fronts: BTreeMap::new(),
        };
        fleet.start_controller().await;
        for (name, _) in servers {
            fleet.join(name).await;
        }
        fleet.all_ready().await;
        fleet
    }

    /// Folder of what the controller has beside its store: its CA, and the key that secrets in the store are sealed with.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("controller")
    }

    /// The fleet's CA.
    pub fn ca(&self) -> Ca {
        Ca::load(&self.state_dir()).expect("the CA of this fleet")
    }

    /// An identity of this fleet.
    pub fn identity(&self, role: Role, name: &str) -> Identity {
        let principal = Principal { role, name: name.to_owned() };
        self.ca().issue(&principal, ca::PERSON_LIFE, time::OffsetDateTime::now_utc()).expect("a certificate")
    }

    /// URL of the controller's store, for tests that look into it while no controller runs.
    pub fn store_url(&self) -> String {
        format!("sqlite://{}", self.folder.path().join("controller.db").display())
    }

    /// Starts the controller on what its store holds.
    pub async fn start_controller(&mut self) {
        self.controller = Some(self.controller_process());
    }

    /// Starts another one on the same store. It waits until it leads, and takes the first one's place when that is killed.
    pub fn start_rival(&mut self) {
        self.rival = Some(self.controller_process());
    }

    fn controller_process(&mut self) -> Process {
        let store_url = self.store_url();
        let (settings, dns, faults) = (self.settings.clone(), self.dns.clone(), self.faults.clone());
        let authorities = self.authorities.clone();
        let certificates = self.certificates.as_ref().map(|make| make(&self.state_dir()));
        let (ca, shown_by) = (self.ca(), self.ca());
        let (dial, incoming) = (self.network.from("controller"), self.listen());
        let (after_commit, http) = (self.after_commit(), self.listen_for_http());
        let (network, rhythm, newest) = (self.network.clone(), self.rhythm, self.lead.clone());
        Process::start(move |shutdown| async move {
            let clock = Arc::new(SystemClock);
            let identity = Rotating::new(own_identity(&ca, &*clock).expect("a certificate")).expect("an identity");
            let store = Store::open_watched(&store_url, after_commit).await.expect("the store opens");
            let (leading, stop) = (store.clone(), shutdown.child_token());
            let agents =
                Arc::new(Faulty { inner: Arc::new(GrpcAgents::new(dial, identity.clone(), store.epoch())), faults });
            let lead = match rhythm {
                None => {
                    store.lead_alone().await.expect("the store leads");
                    None
                }
                Some(rhythm) => {
                    let show = |following, over| {
                        let (store, agents, clock) = (store.clone(), agents.clone(), clock.clone());
                        let following = Some(following);
                        let seams =
                            Seams { store, agents, dns: None, certificates: None, http: None, following, clock };
                        let (settings, identity, incoming) =
                            (settings.clone(), identity.clone(), network.listen(WAITING));
                        feather_controller::serve(
                            settings,
                            seams,
                            shown_by,
                            CONTROLLER.into(),
                            identity,
                            incoming,
                            over,
                        )
                    };
                    match leadership::follow(&store, CONTROLLER, rhythm, &shutdown, show).await {
                        Some(lead) => Some((lead, rhythm)),
                        None => return,
                    }
                }
            };
            newest.store(store.epoch().get().unwrap_or_default(), Ordering::SeqCst);
            let incoming = incoming.unwrap_or_else(|| network.listen(CONTROLLER));
            let http = Some(tokio::net::TcpListener::from_std(http).expect("a listener"));
            let dns = Some(Managed { provider: dns, key: format!("test/{ZONE}"), authorities });
            let seams = Seams { store, agents, dns, certificates, http, following: None, clock };
            let serving =
                feather_controller::serve(settings, seams, ca, CONTROLLER.into(), identity, incoming, stop.clone());
            let serving = Box::pin(serving);
            match lead {
                None => serving.await.expect("the controller serves"),
                Some((lead, rhythm)) => {
                    let ended = leadership::lead(leading, lead, rhythm, stop, serving).await;
                    ended.transpose().expect("the controller serves");
                }
            }
        })
    }

    /// Number of the newest lead of a controller.
    pub fn lead(&self) -> i64 {
        self.lead.load(Ordering::SeqCst)
    }

    /// A server, as a controller sees it that works under this lead.
    pub fn agent_under(&self, lead: i64, server: &str) -> Arc<dyn Agent> {
        let identity = own_identity(&self.ca(), &SystemClock).expect("a certificate");
        let epoch = Epoch::default();
        epoch.set(lead);
        let dial = self.network.from("controller");
        let agents = GrpcAgents::new(dial, Rotating::new(identity).expect("an identity"), epoch);
        let address = format!("{server}:7443");
        let identity = Principal::agent(server);
        agents.agent(&server.parse().expect("a valid name"), &identity, &address).expect("a channel")
    }

    /// Whoever has to lead first listens when it does.
    fn listen(&self) -> Option<tls::Incoming> {
        self.rhythm.is_none().then(|| self.network.listen(CONTROLLER))
    }

    /// A port of its own for each controller.
    fn listen_for_http(&mut self) -> std::net::TcpListener {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        self.http = listener.local_addr().ok();
        listener
    }

    /// Where the controller tells its metrics.
    pub fn http_address(&self) -> std::net::SocketAddr {
        self.http.expect("a controller was started")
    }

    /// The controller crashes right after this many further writes; `reached` tells when.
    pub fn crash_after_writes(&self, writes: i64) {
        self.crash.remaining.store(writes, Ordering::SeqCst);
    }

    /// The controller crashes right behind the next write of this kind.
    pub fn crash_behind(&self, what: &'static str) {
        *self.crash.behind.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// Waits for the crash that was asked for; false when the operation ended before.
    pub async fn crash_or<F: Future>(&self, other: F) -> Option<F::Output> {
        tokio::select! {
            () = self.crash.reached.notified() => None,
            output = other => Some(output),
        }
    }

    fn after_commit(&self) -> AfterCommit {
        let crash = self.crash.clone();
        Arc::new(move |what| {
            let crash = crash.clone();
            Box::pin(async move {
                let behind = crash.behind.lock().unwrap_or_else(PoisonError::into_inner).take_if(|one| *one == what);
                // 0 is the last write that happens; below it there is no plan to crash.
                let counted =
                    crash.remaining.load(Ordering::SeqCst) >= 0 && crash.remaining.fetch_sub(1, Ordering::SeqCst) == 1;
                if counted || behind.is_some() {
                    crash.reached.notify_one();
                    std::future::pending::<()>().await;
                }
            })
        })
    }

    /// As SIGKILL.
    pub fn kill_controller(&mut self) {
        self.crash.remaining.store(-1, Ordering::SeqCst);
        self.network.close(CONTROLLER);
        if let Some(controller) = self.controller.take() {
            controller.kill();
        }
        self.controller = self.rival.take();
    }

    /// As SIGTERM.
    pub async fn stop_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.stop().await;
        }
        match self.rival.take() {
            // It may listen already.
            Some(rival) => self.controller = Some(rival),
            None => self.network.close(CONTROLLER),
        }
    }

    /// Invites a server, lets it join, starts its agent.
    pub async fn join(&mut self, name: &str) {
        self.provide(name);
        self.enter(name).await;
        self.start_agent(name);
    }

    /// Lets a server join that may have been by itself for a while.
    pub async fn enter(&self, name: &str) {
        self.admit(name, &self.servers[name].state_dir, false).await;
    }

    /// A server whose agent is not started, and that belongs to no fleet.
    pub fn provide(&mut self, name: &str) {
        let root = self.folder.path().join(name);
        std::fs::create_dir_all(root.join("volumes")).expect("a folder for volumes");
        let recorder: Arc<Recorder> = self.recorder.clone();
        let runtime = Arc::new(FakeRuntime::new(root.join("volumes")).observed_by(name, recorder));
        runtime.add_image(WORK_IMAGE, "work", Behaviour::Healthy);
        let router = Arc::new(FakeRouter::new().in_front_of(name, runtime.clone()).among(self.peers.clone()));
        self.peers.insert(&format!("{}:80", self.public_address(name)), &router);
        let state_dir = root.join("state");
        std::fs::create_dir_all(&state_dir).expect("a folder for the agent");
        let waitlist = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        self.servers.insert(name.to_owned(), ServerBox { runtime, router, state_dir, waitlist, agent: None });
    }

    /// A member whose identity is lost gets a new one, and its agent is started.
    pub async fn rejoin(&mut self, name: &str) {
        let state_dir = self.servers[name].state_dir.clone();
        std::fs::remove_file(Config::new(&state_dir).identity_file()).expect("an identity to lose");
        self.admit(name, &state_dir, true).await;
        self.start_agent(name);
    }

    /// The same for a machine that the fleet calls by another name than this harness does; it has that one in its certificate then.
    pub async fn rejoin_as(&mut self, machine: &str, name: &str) {
        let state_dir = self.servers[machine].state_dir.clone();
        std::fs::remove_file(Config::new(&state_dir).identity_file()).expect("an identity to lose");
        self.admit_as(machine, name, &state_dir, true).await;
        self.start_agent(machine);
    }

    /// Another machine takes a member's place. This one keeps its identity, which is void from then on.
    pub async fn replace_elsewhere(&self, name: &str) {
        let elsewhere = self.folder.path().join(format!("{name}-elsewhere"));
        std::fs::create_dir_all(&elsewhere).expect("a folder for the other machine");
        self.admit(name, &elsewhere, true).await;
    }

    /// A server that is out of the fleet joins it again by another name, with what is on its disk.
    pub async fn rename(&mut self, old: &str, new: &str) {
        let server = self.servers.remove(old).expect("a known server");
        drop(std::fs::remove_file(Config::new(&server.state_dir).identity_file()));
        self.peers.insert(&format!("{}:80", self.public_address(new)), &server.router);
        self.servers.insert(new.to_owned(), server);
        self.enter(new).await;
    }

    /// Gets a certificate for a server.
    async fn admit(&self, name: &str, state_dir: &Path, rejoin: bool) {
        self.admit_as(name, name, state_dir, rejoin).await;
    }

    async fn admit_as(&self, machine: &str, name: &str, state_dir: &Path, rejoin: bool) {
        let invitation = pb::CreateJoinTokenRequest { server: name.into(), ttl_seconds: 0, rejoin };
        let token = self.enrollment().create_join_token(invitation).await.expect("an invitation").into_inner().token;
        let token: feather_proto::join_token::JoinToken = token.parse().expect("a token");
        let (key_pem, csr_pem) = tls::csr(name).expect("a signing request");
        let trust = Trust::CaOnly(self.ca().ca_pem().to_owned());
        let channel =
            tls::channel(self.network.from(machine), CONTROLLER, &Principal::controller(), &trust).expect("a channel");
        let joined = EnrollmentServiceClient::new(channel)
            .join(pb::JoinRequest {
                secret: token.secret,
                csr_pem,
                address: agent_address(machine),
                public_address: self.public_address(machine),
                agent_version: "test".into(),
            })
            .await
            .expect("a certificate")
            .into_inner();
        let identity = Identity { certificate_pem: joined.certificate_pem, key_pem, ca_pem: joined.ca_pem };
        let membership = Membership::new(CONTROLLER.into(), name.parse().expect("a server name"));
        membership.begin(&Config::new(state_dir), joined.anew).expect("the membership is written");
        identity.save(&Config::new(state_dir).identity_file()).expect("the identity is written");
    }

    /// Where the world reaches a server.
    fn public_address(&self, name: &str) -> String {
        self.addresses.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// Where a server's commands of its own go.
    pub fn local_socket(&self, name: &str) -> PathBuf {
        local_socket(&self.servers[name].state_dir)
    }

    /// Starts an agent on what its folder holds. Without an identity it is by itself until it gets one.
    pub fn start_agent(&mut self, name: &str) {
        let address = if self.fronts.contains_key(name) { release::behind(name) } else { agent_address(name) };
        let (dial, incoming) = (self.network.from(name), self.network.listen(&address));
        let admin = self.admin.clone();
        let server = self.servers.get_mut(name).expect("a known server");
        let mut config = Config::new(&server.state_dir);
        config.admin = admin;
        config.drain_limit = Duration::from_millis(20);
        config.health_timeout = Duration::from_millis(400);
        config.stop_grace = Duration::from_millis(100);
        config.reconcile_interval = Duration::from_millis(100);
        config.standing_interval = Duration::from_millis(200);
        config.old_tenants_file = old_tenants_file(&server.state_dir);
        let seams = feather_agent::Seams {
            runtime: server.runtime.clone(),
            router: server.router.clone(),
            dial,
            clock: Arc::new(feather_agent::clock::SystemClock),
        };
        let (identity_file, socket) = (config.identity_file(), local_socket(&config.state_dir));
        // A port of its own at each start: others of this machine may have taken the last one.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("a listener");
        server.waitlist = listener.local_addr().expect("its address");
        let door = Door { listen: server.waitlist, origins: Origins::Any, limits: Limits::default() };
        server.agent = Some(Process::start(|shutdown: CancellationToken| async move {
            // The one before may be ending still.
            let socket = until("the local socket is free", || Socket::bind(&socket)).await;
            let local = feather_agent::Local::start(config, seams).expect("the agent starts");
            local.listen_locally(socket);
            local.open_waitlist(tokio::net::TcpListener::from_std(listener).expect("a listener"), door);
            until_identity(&identity_file, &shutdown).await;
            if let Ok(identity) = Identity::load(&identity_file) {
                let identity = Rotating::new(identity).expect("a usable identity");
                local.listen(identity, incoming, shutdown).await.expect("the agent serves");
            }
            local.stop().await;
        }));
    }

    /// As SIGKILL to the agent alone; containers run on.
    pub fn kill_agent(&mut self, name: &str) {
        self.network.close(&agent_address(name));
        if let Some(agent) = self.servers.get_mut(name).and_then(|server| server.agent.take()) {
            agent.kill();
        }
    }

    /// The birth container loses its power: agent and containers are gone, disk stays.
    pub fn power_off(&mut self, name: &str) {
        self.kill_agent(name);
        self.servers[name].runtime.reboot();
        self.servers[name].router.lose_routes();
    }
}

fn local_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

async fn until_identity(file: &Path, shutdown: &CancellationToken) {
    while !file.exists() && !shutdown.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Where the old script keeps its tenants on the server with this agent.
pub fn old_tenants_file(state_dir: &Path) -> PathBuf {
    state_dir.with_file_name("tenants.json")
}

fn agent_address(name: &str) -> String {
    format!("{name}:7443")
}

/// A fresh request id.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
