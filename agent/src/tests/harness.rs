//! A small world of agents: a CA, pipes instead of a network, one clock, fakes of everything outside.

#![allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use feather_proto::{
    error::Error,
    ids::TenantName,
    pb::agent::v1::{
        self as pb, adoption_service_client::AdoptionServiceClient, server_service_client::ServerServiceClient,
        tenant_service_client::TenantServiceClient, volume_service_client::VolumeServiceClient,
        work_service_client::WorkServiceClient,
    },
    tls::{self, BoxIo, Channel, Dial, Identity, Principal, Role, Rotating, Trust},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    Config, Local, Seams,
    clock::Clock,
    ledger::{Directory, Ledger, Record, Storage},
    local::Socket,
    router, runtime,
    runtime::fake::{Behaviour, Recorder},
    waitlist::{Door, Limits, Origins},
};

pub(super) const IMAGE: &str = "localhost/feather-work:latest";

/// Everything that any test logs, in the most talkative setting: one test looks for secrets in it.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

static CAPTURED: OnceLock<Captured> = OnceLock::new();

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn capture_log() -> &'static Captured {
    CAPTURED.get_or_init(|| {
        let captured = Captured::default();
        let filter = EnvFilter::new("trace,h2=off,rustls=off,hyper=off,hyper_util=off,tower=off");
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(captured.clone()).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        captured
    })
}

/// What was logged so far, by whatever test.
pub(super) fn captured_log() -> String {
    String::from_utf8_lossy(&capture_log().0.lock().unwrap()).into_owned()
}

/// Issues what a controller's CA would.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
    pub(super) der: Vec<u8>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn params(principal: &Principal) -> CertificateParams {
        let mut params = CertificateParams::new(vec![principal.dns_name()]).unwrap();
        params.subject_alt_names.push(SanType::URI(principal.uri().try_into().unwrap()));
        params.not_before = OffsetDateTime::now_utc() - time::Duration::minutes(5);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::hours(24);
        params
    }

    pub(super) fn issue(&self, principal: &Principal) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = Self::params(principal).signed_by(&key, &self.issuer).unwrap();
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), ca_pem: self.pem.clone() }
    }

    pub(super) fn sign(&self, csr_pem: &str, principal: &Principal) -> String {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params = Self::params(principal);
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

/// Addresses that lead to listeners in this process.
#[derive(Default)]
pub(super) struct Pipes(Mutex<BTreeMap<String, mpsc::UnboundedSender<io::Result<BoxIo>>>>);

impl Pipes {
    pub(super) fn listen(&self, address: &str) -> tls::Incoming {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().unwrap().insert(address.to_owned(), sender);
        Box::pin(UnboundedReceiverStream::new(receiver))
    }
}

#[async_trait]
impl Dial for Pipes {
    async fn dial(&self, address: &str) -> io::Result<BoxIo> {
        let (near, far) = tokio::io::duplex(1 << 20);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listeners = self.0.lock().unwrap();
        listeners.get(address).ok_or_else(refused)?.send(Ok(Box::new(far))).map_err(|_| refused())?;
        Ok(Box::new(near))
    }
}

/// A clock that tests set.
pub(super) struct SetClock(pub(super) Mutex<OffsetDateTime>);

impl Clock for SetClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap()
    }
}

pub(super) struct World {
    pub(super) ca: Ca,
    pub(super) pipes: Arc<Pipes>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) clock: Arc<SetClock>,
    peers: Arc<router::fake::Peers>,
    dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        capture_log();
        Self {
            ca: Ca::new(),
            pipes: Arc::default(),
            recorder: Arc::default(),
            clock: Arc::new(SetClock(Mutex::new(OffsetDateTime::now_utc()))),
            peers: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A server whose agent is not started yet.
    pub(super) fn server(&self, name: &str) -> Server {
        let dir = self.dir.path().join(name);
        let engine = runtime::fake::Fake::new(dir.join("volumes")).observed_by(name, self.recorder.clone());
        let engine = Arc::new(engine);
        let digest = engine.add_image(IMAGE, "work", Behaviour::Healthy);
        let proxy = router::fake::Fake::new().in_front_of(name, engine.clone()).among(self.peers.clone());
        let proxy = Arc::new(proxy);
        self.peers.insert(&format!("{name}:80"), &proxy);
        let config = Config {
            health_timeout: Duration::from_millis(300),
            reconcile_interval: Duration::from_millis(20),
            tenant_environment: BTreeMap::from([("OPENAI_API_KEY".into(), "key-of-the-birth".into())]),
            old_tenants_file: dir.join("tenants.json"),
            ..Config::new(dir.join("state"))
        };
        Server {
            name: name.to_owned(),
            digest,
            engine,
            proxy,
            config,
            waitlist: ([127, 0, 0, 1], 0).into(),
            identity: Rotating::new(self.ca.issue(&Principal::agent(name))).unwrap(),
            controller: Rotating::new(self.ca.issue(&Principal::controller())).unwrap(),
            pipes: self.pipes.clone(),
            clock: self.clock.clone(),
            joining: CancellationToken::new(),
            process: None,
        }
    }

    pub(super) async fn started(&self, name: &str) -> Server {
        let mut server = self.server(name);
        server.start().await;
        server
    }

    pub(super) fn assert_never_two(&self) {
        assert_eq!(self.recorder.violations(), Vec::<String>::new());
    }
}

pub(super) struct Server {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) engine: Arc<runtime::fake::Fake>,
    pub(super) proxy: Arc<router::fake::Fake>,
    pub(super) config: Config,
    /// Where people sign up, once it is started.
    pub(super) waitlist: std::net::SocketAddr,
    identity: Rotating,
    controller: Rotating,
    pipes: Arc<Pipes>,
    clock: Arc<SetClock>,
    joining: CancellationToken,
    process: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Server {
    pub(super) fn address(&self) -> String {
        format!("{}:7443", self.name)
    }

    pub(super) async fn start(&mut self) {
        let storage = Arc::new(Directory::new(self.config.ledger_dir()).unwrap());
        self.start_on(storage).await;
    }

    pub(super) async fn start_on(&mut self, storage: Arc<dyn Storage>) {
        let work = Arc::new(Directory::new(self.config.work_dir()).unwrap());
        self.start_with(storage, work).await;
    }

    /// The record of the admin container has a storage of its own.
    pub(super) async fn start_with(&mut self, storage: Arc<dyn Storage>, work: Arc<dyn Storage>) {
        let seams = Seams {
            runtime: self.engine.clone(),
            router: self.proxy.clone(),
            dial: self.pipes.clone(),
            clock: self.clock.clone(),
        };
        let shutdown = CancellationToken::new();
        let local = Local::start_with(self.config.clone(), seams, storage, work).unwrap();
        let (incoming, identity) = (self.pipes.listen(&self.address()), self.identity.clone());
        let until = shutdown.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.waitlist = listener.local_addr().unwrap();
        let door = Door { listen: self.waitlist, origins: Origins::Any, limits: Limits::default() };
        local.open_waitlist(listener, door);
        let task = tokio::spawn(async move {
            local.listen(identity, incoming, until).await.unwrap();
            local.stop().await;
        });
        self.process = Some((shutdown, task));
    }

    /// Starts its agent as one that belongs to no fleet, with its local socket.
    pub(super) async fn start_alone(&mut self) {
        let work = Arc::new(Directory::new(self.config.work_dir()).unwrap());
        self.start_alone_with(work).await;
    }

    /// The record of the admin container has a storage of its own.
    pub(super) async fn start_alone_with(&mut self, work: Arc<dyn Storage>) {
        let seams = Seams {
            runtime: self.engine.clone(),
            router: self.proxy.clone(),
            dial: self.pipes.clone(),
            clock: self.clock.clone(),
        };
        let path = self.socket();
        // What is left of an agent that crashed may accept connections for a moment.
        let mut socket = None;
        wait_until("the local socket", async || {
            socket = Socket::bind(&path).await.ok();
            (socket.is_some(), ())
        })
        .await;
        let ledger = Arc::new(Directory::new(self.config.ledger_dir()).unwrap());
        let local = Local::start_with(self.config.clone(), seams, ledger, work).unwrap();
        local.listen_locally(socket.unwrap());
        let (shutdown, joining) = (CancellationToken::new(), CancellationToken::new());
        self.joining = joining.clone();
        let (incoming, identity) = (self.pipes.listen(&self.address()), self.identity.clone());
        let until = shutdown.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = joining.cancelled() => local.listen(identity, incoming, until).await.unwrap(),
                () = until.cancelled() => {}
            }
            local.stop().await;
        });
        self.process = Some((shutdown, task));
    }

    /// What an agent does that finds its identity on disk.
    pub(super) fn join_fleet(&self) {
        self.joining.cancel();
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.config.state_dir.join("agent.sock")
    }

    /// Alice's record on disk.
    pub(super) fn record(&self) -> Record {
        let storage = Directory::new(self.config.ledger_dir()).unwrap();
        Ledger::open(Arc::new(storage)).unwrap().get(&alice()).unwrap().unwrap()
    }

    /// An orderly end.
    pub(super) async fn stop(&mut self) {
        let (shutdown, task) = self.process.take().unwrap();
        shutdown.cancel();
        task.await.unwrap();
    }

    /// Everything stops where it is.
    pub(super) async fn crash(&mut self) {
        let (_, task) = self.process.take().unwrap();
        task.abort();
        drop(task.await);
    }

    fn channel(&self, who: &Rotating) -> Channel {
        let trust = Trust::Mutual(who.clone());
        tls::channel(self.pipes.clone(), &self.address(), &Principal::agent(&self.name), &trust).unwrap()
    }

    pub(super) fn as_role(&self, world: &World, role: Role, name: &str) -> Channel {
        let identity = world.ca.issue(&Principal { role, name: name.into() });
        self.channel(&Rotating::new(identity).unwrap())
    }

    pub(super) fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.channel(&self.controller))
    }

    pub(super) fn volumes(&self) -> VolumeServiceClient<Channel> {
        VolumeServiceClient::new(self.channel(&self.controller)).max_decoding_message_size(8 << 20)
    }

    pub(super) fn adoption(&self) -> AdoptionServiceClient<Channel> {
        AdoptionServiceClient::new(self.channel(&self.controller))
    }

    pub(super) fn info(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.channel(&self.controller))
    }

    pub(super) fn work(&self) -> WorkServiceClient<Channel> {
        WorkServiceClient::new(self.channel(&self.controller))
    }

    pub(super) fn volume(&self) -> PathBuf {
        self.engine.volume_path("feather-user-alice")
    }

    /// A connection of the proxy to the tenant's gate.
    pub(super) async fn at_the_gate(&self) -> tokio::net::UnixStream {
        tokio::net::UnixStream::connect(self.config.gate_dir().join("alice")).await.unwrap()
    }

    /// What the public gets under the tenant's host name.
    pub(super) fn public(&self) -> (u16, Option<String>) {
        let answer = self.proxy.request(&alice(), &router::fake::Request::default());
        (answer.status, answer.served_by)
    }

    pub(super) async fn get(&self) -> pb::Tenant {
        let request = pb::GetTenantRequest { tenant: "alice".into() };
        self.tenants().get_tenant(request).await.unwrap().into_inner().tenant.unwrap()
    }

    pub(super) async fn snapshot(&self) -> pb::ServerSnapshot {
        self.info().get_info(pb::GetInfoRequest {}).await.unwrap().into_inner().snapshot.unwrap()
    }

    pub(super) async fn add(&self, generation: u64) -> Result<pb::AddTenantResponse, Error> {
        let answer = self.tenants().add_tenant(add(generation)).await;
        answer.map(tonic::Response::into_inner).map_err(Error::from)
    }
}

pub(super) fn alice() -> TenantName {
    "alice".parse().unwrap()
}

pub(super) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(super) fn add(generation: u64) -> pb::AddTenantRequest {
    pb::AddTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation,
        image: String::new(),
        volume: pb::VolumeExpectation::Any.into(),
        limits: None,
    }
}

macro_rules! requests {
    ($($name:ident => $message:ident { $($extra:tt)* }),* $(,)?) => {
        $(pub(super) fn $name(generation: u64) -> pb::$message {
            pb::$message { request_id: request_id(), tenant: "alice".into(), generation, $($extra)* }
        })*
    };
}

requests! {
    remove => RemoveTenantRequest { discard_new_volume: false },
    start => StartTenantRequest { mode: pb::StartMode::Serve.into() },
    trial => StartTenantRequest { mode: pb::StartMode::Trial.into() },
    stop => StopTenantRequest { reason: pb::StopReason::Operator.into() },
    seal => StopTenantRequest { reason: pb::StopReason::Move.into() },
    restart => RestartTenantRequest {},
    reset => ResetPasswordRequest {},
    abandon => AbandonTenantRequest { keep_data: false },
    activate => ActivateTenantRequest { stopped: false },
    remove_volume => RemoveVolumeRequest {},
}

pub(super) fn hand_off(generation: u64, forward_to: &str) -> pb::HandOffTenantRequest {
    let forward_to = forward_to.into();
    pb::HandOffTenantRequest { request_id: request_id(), tenant: "alice".into(), generation, forward_to }
}

pub(super) fn retire(generation: u64, keep_until: OffsetDateTime) -> pb::RetireTenantRequest {
    let keep_until = Some(feather_proto::model::to_timestamp(keep_until));
    pb::RetireTenantRequest { request_id: request_id(), tenant: "alice".into(), generation, keep_until }
}

pub(super) fn reserve(generation: u64, server: &Server) -> pb::ReserveTenantRequest {
    pb::ReserveTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation,
        image_digest: server.digest.clone(),
        volume_bytes: 1000,
    }
}

pub(super) const TICKET: &str = "a-ticket-of-more-than-32-characters";

pub(super) fn grant(generation: u64, peer: &str) -> pb::GrantTransferRequest {
    pb::GrantTransferRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation,
        peer: peer.into(),
        ticket: TICKET.into(),
        ttl_seconds: 60,
        relayed: false,
    }
}

pub(super) fn pull(generation: u64, source: &Server) -> pb::PullVolumeRequest {
    pb::PullVolumeRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation,
        source_address: source.address(),
        source_server: source.name.clone(),
        ticket: TICKET.into(),
        pass: pb::TransferPass::Final.into(),
        bytes_per_second_max: 0,
        relayed: false,
    }
}

/// Pulls to the end: both summaries.
pub(super) async fn pulled(target: &Server, request: pb::PullVolumeRequest) -> Result<pb::PullDone, Error> {
    let mut stream = target.volumes().pull_volume(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(pb::pull_volume_response::Event::Done(done)) = message.event {
            return Ok(done);
        }
    }
    panic!("a pull ended without a result");
}

/// The error of a call that must fail.
pub(super) fn refused<T>(answer: Result<T, Status>) -> Error {
    match answer {
        Ok(_) => panic!("the call was accepted"),
        Err(status) => status.into(),
    }
}

/// Waits for what some other task does, and says what was seen last.
pub(super) async fn wait_until<T: Debug>(what: &str, mut look: impl AsyncFnMut() -> (bool, T)) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let (done, seen) = look().await;
        if done {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come true; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
