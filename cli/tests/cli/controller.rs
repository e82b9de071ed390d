//! A controller that follows a script: for each call a queue of answers, refusals and streams; and the binary run against it.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    fmt,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex},
};

use feather_proto::{
    error::Error,
    pb::controller::v1 as pb,
    tls::{ClientCertificate, Identity, Principal, Rotating, TcpIncoming, incoming},
    version::Negotiation,
};
use futures::{Stream, StreamExt as _};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};
use tonic::{Request, Response, Status, transport::Server};

use crate::identity::{Fleet, ada, admin};

/// One thing that a scripted stream does.
pub(crate) enum Act<T> {
    /// Sends a message.
    Send(T),
    /// Ends with an error that no controller made, as a broken connection does.
    Break,
    /// Cuts the connection itself.
    Cut,
    /// Says nothing more, and tells that it has come so far.
    Hang(Arc<tokio::sync::Notify>),
}

type Answer = Result<Box<dyn Any + Send>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<BTreeMap<&'static str, VecDeque<Answer>>>>,
    calls: Arc<Mutex<Vec<String>>>,
    links: Arc<Mutex<JoinSet<()>>>,
    /// Signs for whoever logs in.
    fleet: Arc<std::sync::OnceLock<Arc<Fleet>>>,
}

impl Script {
    fn next<Out: 'static>(&self, rpc: &'static str, call: &impl fmt::Debug) -> Result<Out, Status> {
        self.calls.lock().unwrap().push(format!("{rpc}: {call:?}"));
        let answer = self.answers.lock().unwrap().get_mut(rpc).and_then(VecDeque::pop_front);
        let answer = answer.unwrap_or_else(|| Err(Status::unimplemented("not in the script")))?;
        Ok(*answer.downcast::<Out>().expect("the script answers with the message of the call"))
    }

    fn unary<In: fmt::Debug, Out: 'static>(
        &self,
        rpc: &'static str,
        request: Request<In>,
    ) -> Result<Response<Out>, Status> {
        self.next(rpc, request.get_ref()).map(Response::new)
    }

    fn stream<In, Out>(&self, rpc: &'static str, request: Request<In>) -> Result<Response<Answers<Out>>, Status>
    where
        In: fmt::Debug,
        Out: Send + 'static,
    {
        let acts: Vec<Act<Out>> = self.next(rpc, request.get_ref())?;
        let links = self.links.clone();
        let stream = futures::stream::iter(acts).then(move |act| {
            let links = links.clone();
            async move {
                match act {
                    Act::Send(message) => Ok(message),
                    Act::Break => Err(Status::unavailable("gone")),
                    Act::Cut => {
                        links.lock().unwrap().abort_all();
                        std::future::pending().await
                    }
                    Act::Hang(reached) => {
                        reached.notify_one();
                        std::future::pending().await
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

macro_rules! service {
    ($module:ident :: $service:ident {
        $($method:ident: $rpc:ident($request:ident) -> $response:ident),* $(,)?
    } streams {
        $($stream_method:ident: $stream_rpc:ident($stream_request:ident) -> $stream_response:ident as $stream:ident),*
    }) => {
        #[tonic::async_trait]
        impl pb::$module::$service for Script {
            $(type $stream = Answers<pb::$stream_response>;

            async fn $stream_method(
                &self,
                request: Request<pb::$stream_request>,
            ) -> Result<Response<Self::$stream>, Status> {
                self.stream(stringify!($stream_rpc), request)
            })*

            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                self.unary(stringify!($rpc), request)
            })*
        }
    };
}

service! { server_service_server::ServerService {
    list_servers: ListServers(ListServersRequest) -> ListServersResponse,
    get_server: GetServer(GetServerRequest) -> GetServerResponse,
    remove_server: RemoveServer(RemoveServerRequest) -> RemoveServerResponse,
    adopt_server: AdoptServer(AdoptServerRequest) -> AdoptServerResponse,
    swap_admin: SwapAdmin(SwapAdminRequest) -> SwapAdminResponse,
    cordon_server: CordonServer(CordonServerRequest) -> CordonServerResponse,
    label_server: LabelServer(LabelServerRequest) -> LabelServerResponse,
    drain_server: DrainServer(DrainServerRequest) -> DrainServerResponse,
    lose_server: LoseServer(LoseServerRequest) -> LoseServerResponse,
    return_server: ReturnServer(ReturnServerRequest) -> ReturnServerResponse,
    rename_server: RenameServer(RenameServerRequest) -> RenameServerResponse,
    retire_server: RetireServer(RetireServerRequest) -> RetireServerResponse,
} streams {} }

service! { tenant_service_server::TenantService {
    add_tenant: AddTenant(AddTenantRequest) -> AddTenantResponse,
    remove_tenant: RemoveTenant(RemoveTenantRequest) -> RemoveTenantResponse,
    get_tenant: GetTenant(GetTenantRequest) -> GetTenantResponse,
    list_tenants: ListTenants(ListTenantsRequest) -> ListTenantsResponse,
    migrate_tenant: MigrateTenant(MigrateTenantRequest) -> MigrateTenantResponse,
    limit_tenant: LimitTenant(LimitTenantRequest) -> LimitTenantResponse,
    place_tenant: PlaceTenant(PlaceTenantRequest) -> PlaceTenantResponse,
    recover_tenant: RecoverTenant(RecoverTenantRequest) -> RecoverTenantResponse,
    start_tenant: StartTenant(StartTenantRequest) -> StartTenantResponse,
    stop_tenant: StopTenant(StopTenantRequest) -> StopTenantResponse,
    restart_tenant: RestartTenant(RestartTenantRequest) -> RestartTenantResponse,
    reset_password: ResetPassword(ResetPasswordRequest) -> ResetPasswordResponse,
} streams {
    tail_logs: TailLogs(TailLogsRequest) -> TailLogsResponse as TailLogsStream
} }

service! { operation_service_server::OperationService {
    get_operation: GetOperation(GetOperationRequest) -> GetOperationResponse,
    list_operations: ListOperations(ListOperationsRequest) -> ListOperationsResponse,
    cancel_operation: CancelOperation(CancelOperationRequest) -> CancelOperationResponse,
    retry_operation: RetryOperation(RetryOperationRequest) -> RetryOperationResponse,
} streams {
    watch_operation: WatchOperation(WatchOperationRequest) -> WatchOperationResponse as WatchOperationStream
} }

service! { event_service_server::EventService {} streams {
    watch_events: WatchEvents(WatchEventsRequest) -> WatchEventsResponse as WatchEventsStream
} }

service! { status_service_server::StatusService {
    get_status: GetStatus(GetStatusRequest) -> GetStatusResponse,
    explain_tenant: ExplainTenant(ExplainTenantRequest) -> ExplainTenantResponse,
    diagnose: Diagnose(DiagnoseRequest) -> DiagnoseResponse,
    explain_server: ExplainServer(ExplainServerRequest) -> ExplainServerResponse,
} streams {} }

service! { warning_service_server::WarningService {
    list_warnings: ListWarnings(ListWarningsRequest) -> ListWarningsResponse,
    acknowledge_warning: AcknowledgeWarning(AcknowledgeWarningRequest) -> AcknowledgeWarningResponse,
} streams {} }

service! { audit_service_server::AuditService {
    list_audit: ListAudit(ListAuditRequest) -> ListAuditResponse,
    verify_audit: VerifyAudit(VerifyAuditRequest) -> VerifyAuditResponse,
} streams {} }

service! { store_service_server::StoreService {} streams {
    backup_store: BackupStore(BackupStoreRequest) -> BackupStoreResponse as BackupStoreStream
} }

service! { cert_service_server::CertService {
    get_cert_status: GetCertStatus(GetCertStatusRequest) -> GetCertStatusResponse,
    renew_cert: RenewCert(RenewCertRequest) -> RenewCertResponse,
} streams {} }

service! { dns_service_server::DnsService {
    plan_dns: PlanDns(PlanDnsRequest) -> PlanDnsResponse,
    apply_dns: ApplyDns(ApplyDnsRequest) -> ApplyDnsResponse,
    get_dns_status: GetDnsStatus(GetDnsStatusRequest) -> GetDnsStatusResponse,
    list_dns_records: ListDnsRecords(ListDnsRecordsRequest) -> ListDnsRecordsResponse,
    list_dns_snapshots: ListDnsSnapshots(ListDnsSnapshotsRequest) -> ListDnsSnapshotsResponse,
    restore_dns_snapshot: RestoreDnsSnapshot(RestoreDnsSnapshotRequest) -> RestoreDnsSnapshotResponse,
    adopt_dns_records: AdoptDnsRecords(AdoptDnsRecordsRequest) -> AdoptDnsRecordsResponse,
    set_ingress: SetIngress(SetIngressRequest) -> SetIngressResponse,
} streams {} }

#[tonic::async_trait]
impl pb::enrollment_service_server::EnrollmentService for Script {
    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
        self.unary("CreateJoinToken", request)
    }

    async fn join(&self, _: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        Err(Status::unimplemented("only agents join"))
    }

    async fn renew_certificate(
        &self,
        _: Request<pb::RenewCertificateRequest>,
    ) -> Result<Response<pb::RenewCertificateResponse>, Status> {
        Err(Status::unimplemented("only agents renew"))
    }

    async fn get_standing(
        &self,
        _: Request<pb::GetStandingRequest>,
    ) -> Result<Response<pb::GetStandingResponse>, Status> {
        Err(Status::unimplemented("only agents ask"))
    }
}

#[tonic::async_trait]
impl pb::volume_service_server::VolumeService for Script {
    type ExportVolumeStream = Answers<pb::ExportVolumeResponse>;

    async fn list_volumes(
        &self,
        request: Request<pb::ListVolumesRequest>,
    ) -> Result<Response<pb::ListVolumesResponse>, Status> {
        self.unary("ListVolumes", request)
    }

    async fn export_volume(
        &self,
        request: Request<pb::ExportVolumeRequest>,
    ) -> Result<Response<Self::ExportVolumeStream>, Status> {
        self.stream("ExportVolume", request)
    }

    /// Takes the whole stream before it answers, and refuses one without its end, as the real one does.
    async fn import_volume(
        &self,
        request: Request<tonic::Streaming<pb::ImportVolumeRequest>>,
    ) -> Result<Response<pb::ImportVolumeResponse>, Status> {
        let mut stream = request.into_inner();
        let (mut tenant, mut data, mut whole) = (String::new(), Vec::new(), false);
        while let Some(message) = stream.message().await? {
            tenant.push_str(&message.tenant);
            data.extend_from_slice(&message.data);
            whole = message.end;
        }
        self.next("ImportVolume", &format_args!("{tenant}, {} bytes, whole: {whole}", data.len())).map(Response::new)
    }

    async fn verify_volume(
        &self,
        request: Request<pb::VerifyVolumeRequest>,
    ) -> Result<Response<pb::VerifyVolumeResponse>, Status> {
        self.unary("VerifyVolume", request)
    }
}

#[tonic::async_trait]
impl pb::image_service_server::ImageService for Script {
    type SyncImageStream = Answers<pb::SyncImageResponse>;

    async fn list_images(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        self.unary("ListImages", request)
    }

    async fn sync_image(
        &self,
        request: Request<pb::SyncImageRequest>,
    ) -> Result<Response<Self::SyncImageStream>, Status> {
        self.stream("SyncImage", request)
    }

    /// Takes the whole stream before it answers.
    async fn load_image(
        &self,
        request: Request<tonic::Streaming<pb::LoadImageRequest>>,
    ) -> Result<Response<pb::LoadImageResponse>, Status> {
        let mut stream = request.into_inner();
        let (mut server, mut said, mut sent, mut whole) = (String::new(), 0, 0, false);
        while let Some(message) = stream.message().await? {
            server.push_str(&message.server);
            said += message.size_bytes;
            sent += message.data.len();
            whole = message.end;
        }
        self.next("LoadImage", &format_args!("{server}, {sent} bytes of {said}, whole: {whole}")).map(Response::new)
    }
}

/// Messages with addresses do not print, so the calls are spelled out.
#[tonic::async_trait]
impl pb::waitlist_service_server::WaitlistService for Script {
    type ListEntriesStream = Answers<pb::ListEntriesResponse>;

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<Self::ListEntriesStream>, Status> {
        self.stream("ListEntries", request)
    }

    async fn remove_entry(
        &self,
        request: Request<pb::RemoveEntryRequest>,
    ) -> Result<Response<pb::RemoveEntryResponse>, Status> {
        self.next("RemoveEntry", &request.get_ref().email).map(Response::new)
    }

    async fn invite(&self, request: Request<pb::InviteRequest>) -> Result<Response<pb::InviteResponse>, Status> {
        let pb::InviteRequest { request_id, email, tenant, server, dry_run } = request.into_inner();
        let call = format_args!("request_id: {request_id:?}, {email} as {tenant:?} on {server:?}, dry run: {dry_run}");
        self.next("Invite", &call).map(Response::new)
    }
}

/// Tokens and signing requests do not print, and each request is signed for real.
#[tonic::async_trait]
impl pb::user_service_server::UserService for Script {
    async fn add_user(&self, request: Request<pb::AddUserRequest>) -> Result<Response<pb::AddUserResponse>, Status> {
        self.unary("AddUser", request)
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        self.unary("ListUsers", request)
    }

    async fn create_web_token(
        &self,
        request: Request<pb::CreateWebTokenRequest>,
    ) -> Result<Response<pb::CreateWebTokenResponse>, Status> {
        self.unary("CreateWebToken", request)
    }

    async fn revoke_user(
        &self,
        request: Request<pb::RevokeUserRequest>,
    ) -> Result<Response<pb::RevokeUserResponse>, Status> {
        self.unary("RevokeUser", request)
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        let answer: pb::LoginResponse = self.next("Login", &request.get_ref().secret)?;
        let (certificate_pem, ca_pem) = self.fleet.get().unwrap().sign(&request.get_ref().csr_pem, &ada());
        Ok(Response::new(pb::LoginResponse { certificate_pem, ca_pem, ..answer }))
    }

    async fn renew_login(
        &self,
        request: Request<pb::RenewLoginRequest>,
    ) -> Result<Response<pb::RenewLoginResponse>, Status> {
        let _: pb::RenewLoginResponse = self.next("RenewLogin", &format_args!(""))?;
        let (certificate_pem, ca_pem) = self.fleet.get().unwrap().sign(&request.get_ref().csr_pem, &admin());
        Ok(Response::new(pb::RenewLoginResponse { certificate_pem, ca_pem }))
    }
}

/// A scripted controller with a home directory for the binary.
pub(crate) struct Controller {
    script: Script,
    pub(crate) fleet: Arc<Fleet>,
    address: String,
    home: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        let fleet = Fleet::new();
        let identity = fleet.issue(&Principal::controller());
        Self::start_as(fleet, identity).await
    }

    /// A controller that shows some other identity.
    pub(crate) async fn start_as(fleet: Fleet, identity: Identity) -> Self {
        let script = Script::default();
        let fleet = script.fleet.get_or_init(|| Arc::new(fleet)).clone();
        let rotating = Rotating::new(identity).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = listener.local_addr().unwrap();
        let connections =
            incoming(TcpIncoming::stream(listener), &rotating, ClientCertificate::Optional, true).unwrap();
        let router = Server::builder()
            .layer(Negotiation::of(&Principal::controller()))
            .add_service(pb::enrollment_service_server::EnrollmentServiceServer::new(script.clone()))
            .add_service(pb::server_service_server::ServerServiceServer::new(script.clone()))
            .add_service(pb::tenant_service_server::TenantServiceServer::new(script.clone()))
            .add_service(pb::operation_service_server::OperationServiceServer::new(script.clone()))
            .add_service(pb::volume_service_server::VolumeServiceServer::new(script.clone()))
            .add_service(pb::image_service_server::ImageServiceServer::new(script.clone()))
            .add_service(pb::cert_service_server::CertServiceServer::new(script.clone()))
            .add_service(pb::event_service_server::EventServiceServer::new(script.clone()))
            .add_service(pb::status_service_server::StatusServiceServer::new(script.clone()))
            .add_service(pb::warning_service_server::WarningServiceServer::new(script.clone()))
            .add_service(pb::dns_service_server::DnsServiceServer::new(script.clone()))
            .add_service(pb::audit_service_server::AuditServiceServer::new(script.clone()))
            .add_service(pb::store_service_server::StoreServiceServer::new(script.clone()))
            .add_service(pb::user_service_server::UserServiceServer::new(script.clone()))
            .add_service(pb::waitlist_service_server::WaitlistServiceServer::new(script.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { router.serve_with_incoming(connections).await.unwrap() });

        // Connections go through a relay, so that a test can cut them.
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = relay.local_addr().unwrap().to_string();
        let links = script.links.clone();
        tasks.spawn(async move {
            while let Ok((mut near, _)) = relay.accept().await {
                links.lock().unwrap().spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(behind).await {
                        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                    }
                });
            }
        });
        let home = tempfile::tempdir().unwrap();
        let controller = Self { script, fleet, address, home, _tasks: tasks };
        controller.use_identity(&controller.fleet.issue(&admin()));
        controller
    }

    /// Puts an identity where featherctl looks by itself.
    pub(crate) fn use_identity(&self, identity: &Identity) {
        let folder = self.home.path().join(".config/feather");
        std::fs::create_dir_all(&folder).unwrap();
        identity.save(&folder.join("admin.identity")).unwrap();
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The next answer to a call: a message, or the acts of a stream.
    pub(crate) fn answers<T: Any + Send>(&self, rpc: &'static str, answer: T) -> &Self {
        self.push(rpc, Ok(Box::new(answer)))
    }

    pub(crate) fn refuses(&self, rpc: &'static str, error: Error) -> &Self {
        self.push(rpc, Err(error.into()))
    }

    pub(crate) fn breaks(&self, rpc: &'static str) -> &Self {
        self.push(rpc, Err(Status::unavailable("gone")))
    }

    fn push(&self, rpc: &'static str, answer: Answer) -> &Self {
        self.script.answers.lock().unwrap().entry(rpc).or_default().push_back(answer);
        self
    }

    /// The calls so far, with request ids replaced by the order of their first use.
    pub(crate) fn calls(&self) -> String {
        let mut ids = Vec::new();
        let mut lines = Vec::new();
        for call in self.script.calls.lock().unwrap().iter() {
            let mut line = call.clone();
            if let Some((_, rest)) = call.split_once("request_id: \"") {
                let id = rest.split('"').next().unwrap().to_owned();
                assert!(id.parse::<uuid::Uuid>().is_ok(), "{id:?} is not a UUID");
                let place = ids.iter().position(|known| *known == id).unwrap_or(ids.len());
                line = line.replace(&id, &format!("id-{place}"));
                ids.push(id);
            }
            lines.push(line);
        }
        lines.join("\n")
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_featherctl"));
        command
            .args(arguments.split_whitespace().map(|word| word.replace("HOME", &self.home().display().to_string())))
            .env_clear()
            .env("HOME", self.home())
            .env("FEATHERCTL_CONTROLLER", &self.address)
            .current_dir(self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &str) -> Ran {
        self.finish(self.command(arguments).spawn().unwrap()).await
    }

    pub(crate) async fn run_with_input(&self, arguments: &str, input: &[u8]) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The binary may have refused without reading.
        drop(stdin.write_all(input).await);
        drop(stdin);
        self.finish(child).await
    }

    pub(crate) async fn finish(&self, child: tokio::process::Child) -> Ran {
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(&self.address, "CONTROLLER").replace(&self.home().display().to_string(), "HOME")
        };
        Ran { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    }
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl fmt::Display for Ran {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                writeln!(formatter, "--- {name}\n{}", text.trim_end_matches('\n'))?;
            }
        }
        writeln!(formatter, "--- exit {}", self.code.map_or("by signal".to_owned(), |code| code.to_string()))
    }
}
