//! The mind of the fleet: desired state, placement, operations, reconcilers.
//!
//! [`serve`] is the whole controller; `main.rs` and the tests call it with their own seams. Tenants and routing never depend on
//! it being up: agents keep what they were told last.

pub mod access;
pub mod adoption;
pub mod agents;
pub mod api;
pub mod audit;
pub mod backup;
pub mod backups;
pub mod ca;
pub mod certificate;
pub mod dns;
pub mod doctor;
pub mod enroll;
pub mod events;
pub mod explain;
pub mod fleet;
pub mod forwards;
pub mod http;
pub mod https;
pub mod intent;
pub mod leadership;
pub mod limits;
pub mod metrics;
pub mod operations;
pub mod pace;
pub mod placement;
pub mod rebuild;
pub mod recovery;
pub mod relay;
pub mod rename;
pub mod retirement;
pub mod seal;
pub mod store;
pub mod upkeep;
pub mod users;
pub mod waitlist;
pub mod warnings;
pub mod web;
pub mod world;

use std::{sync::Arc, time::Duration};

use feather_proto::{
    pb::agent::v1::transfer_service_server::TransferServiceServer,
    pb::controller::v1::{
        audit_service_server::AuditServiceServer, backup_service_server::BackupServiceServer,
        cert_service_server::CertServiceServer, dns_service_server::DnsServiceServer,
        enrollment_service_server::EnrollmentServiceServer, event_service_server::EventServiceServer,
        image_service_server::ImageServiceServer, member_service_server::MemberServiceServer,
        operation_service_server::OperationServiceServer, server_service_server::ServerServiceServer,
        status_service_server::StatusServiceServer, store_service_server::StoreServiceServer,
        tenant_service_server::TenantServiceServer, user_service_server::UserServiceServer,
        volume_service_server::VolumeServiceServer, waitlist_service_server::WaitlistServiceServer,
        warning_service_server::WarningServiceServer,
    },
    tls::{self, Bounds, ClientCertificate, Gate, Incoming, Limits, Principal, Rotating},
    trace,
    version::Negotiation,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use crate::{
    access::{Access, door::Door},
    agents::Agents,
    ca::Ca,
    certificate::Certificates,
    dns::{Dns, Managed},
    enroll::Enroll,
    fleet::Fleet,
    intent::Intent,
    leadership::Following,
    metrics::Metrics,
    operations::engine::Engine,
    relay::Relays,
    store::Store,
    users::Users,
    waitlist::Waitlist,
    world::{Clock, Settings, Volatile, World},
};

/// Everything outside the controller, behind its seams.
pub struct Seams {
    /// Desired state.
    pub store: Store,
    /// Ways to agents.
    pub agents: Arc<dyn Agents>,
    /// The zone to write to, if any.
    pub dns: Option<Managed>,
    /// How certificates are obtained, if at all.
    pub certificates: Option<certificate::Options>,
    /// Where the web page and the metrics are read, if anywhere.
    pub http: Option<tokio::net::TcpListener>,
    /// Set while another controller leads: then the fleet is only shown.
    pub following: Option<Following>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
}

/// What can end a controller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not answer at the start.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The identity is unusable.
    #[error(transparent)]
    Identity(#[from] tls::IdentityError),
    /// The CA is unusable.
    #[error(transparent)]
    Ca(#[from] ca::Error),
    /// Tenants' names do not lie in the zone.
    #[error("{0}")]
    Zone(String),
    /// The transport failed.
    #[error("the gRPC server ended")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection cannot be set up.
    #[error("the schema cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// At most this many calls at once on one connection.
const CALLS_PER_CONNECTION: usize = 64;
const STREAMS_PER_CONNECTION: u32 = 128;
/// Calls under way have this long to end when the controller stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Services whose health is reported, and the process as a whole (the empty name).
const SERVICES: [&str; 19] = [
    "",
    feather_proto::pb::controller::v1::audit_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::backup_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::cert_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::dns_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::enrollment_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::event_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::image_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::member_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::operation_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::server_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::status_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::store_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::tenant_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::user_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::volume_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::waitlist_service_server::SERVICE_NAME,
    feather_proto::pb::controller::v1::warning_service_server::SERVICE_NAME,
    feather_proto::pb::agent::v1::transfer_service_server::SERVICE_NAME,
];
/// Requests are small; archives come in pieces of at most 1 MiB.
const MESSAGE_MAX_BYTES: usize = 4 << 20;

/// Heads of calls are small.
const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// What one caller may have under way. Whoever watches every operation of a large fleet, or relays a volume for each of its servers, has
/// less.
const LIMITS: Limits = Limits { calls: 256, strangers: 16, message_bytes };

fn message_bytes(path: &str) -> usize {
    if path.contains(feather_proto::pb::agent::v1::transfer_service_server::SERVICE_NAME) {
        relay::MESSAGE_MAX_BYTES
    } else {
        MESSAGE_MAX_BYTES
    }
}

/// Certificate of the controller itself, made anew from the CA.
pub fn own_identity(ca: &Ca, clock: &dyn Clock) -> Result<tls::Identity, ca::Error> {
    ca.issue(&Principal::controller(), ca::CONTROLLER_LIFE, clock.now())
}

/// Serves until shutdown. Resumes unfinished operations before it reports healthy.
pub async fn serve(
    settings: Settings,
    seams: Seams,
    ca: Ca,
    advertise: String,
    identity: Rotating,
    incoming: Incoming,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut seams = seams;
    let http = seams.http.take();
    let page = http.as_ref().and_then(|listener| listener.local_addr().ok());
    let world = world(settings, seams, page, &advertise, &identity).await?;
    let engine = Engine::new(world.clone(), shutdown.clone());
    let reconcilers = TaskTracker::new();
    begin(&reconcilers, &world, &engine, &shutdown).await?;

    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, tonic_health::ServingStatus::Serving).await;
    let intent = Intent::new(world.clone(), engine.clone());
    let status = || {
        let servers = api::server::Servers::new(world.clone(), intent.clone());
        api::status::StatusApi::new(world.clone(), servers, api::tenant::Tenants::new(world.clone(), intent.clone()))
    };
    let router = http::metrics(world.clone()).merge(web::router(world.clone(), status()));
    reconcilers.spawn(http::serve(http, router, shutdown.clone()));
    let waitlist = Waitlist::new(world.clone(), intent.clone());
    let ca = Arc::new(ca);
    let users = Users::new(world.clone(), ca.clone(), advertise.clone());
    let enroll = Arc::new(Enroll::new(world.clone(), ca, advertise));
    let connections = tls::incoming(incoming, &identity, ClientCertificate::Optional, world.following.is_none())?;
    let serving = Server::builder()
        .layer(trace::Calls::counted_by(Arc::new(world.metrics.clone())))
        .layer(Negotiation::of(&Principal::controller()))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(HEADERS_MAX_BYTES)
        .layer(Bounds::new(LIMITS))
        .layer(Door::new(world.clone()))
        .layer(Gate::new(identity.revoked().clone()))
        .add_service(health)
        .add_service(schema().build_v1()?)
        .add_service(EnrollmentServiceServer::new(api::enrollment::Enrollment::new(enroll.clone())))
        .add_service(MemberServiceServer::new(api::member::Members::new(world.clone(), intent.clone(), enroll.clone())))
        .add_service(
            TransferServiceServer::new(api::transfer::Transfers::new(world.clone(), enroll))
                .max_decoding_message_size(relay::MESSAGE_MAX_BYTES)
                .max_encoding_message_size(relay::MESSAGE_MAX_BYTES),
        )
        .add_service(AuditServiceServer::new(api::audit::AuditApi::new(world.clone())))
        .add_service(BackupServiceServer::new(api::backup::BackupApi::new(world.clone())))
        .add_service(CertServiceServer::new(api::cert::CertApi::new(world.clone())))
        .add_service(DnsServiceServer::new(api::dns::DnsApi::new(world.clone())))
        .add_service(ServerServiceServer::new(api::server::Servers::new(world.clone(), intent.clone())))
        .add_service(StoreServiceServer::new(api::store::StoreApi::new(world.clone())))
        .add_service(TenantServiceServer::new(api::tenant::Tenants::new(world.clone(), intent.clone())))
        .add_service(OperationServiceServer::new(api::operation::Operations::new(world.clone(), engine.clone())))
        .add_service(
            VolumeServiceServer::new(api::volume::Volumes::new(world.clone()))
                .max_decoding_message_size(MESSAGE_MAX_BYTES),
        )
        .add_service(
            ImageServiceServer::new(api::image::Images::new(world.clone()))
                .max_decoding_message_size(MESSAGE_MAX_BYTES),
        )
        .add_service(StatusServiceServer::new(status()))
        .add_service(EventServiceServer::new(api::event::EventApi::new(world.clone())))
        .add_service(WarningServiceServer::new(api::warning::WarningApi::new(world.clone())))
        .add_service(UserServiceServer::new(api::user::UserApi::new(users)))
        .add_service(WaitlistServiceServer::new(api::waitlist::WaitlistApi::new(world.clone(), waitlist)))
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    let mut serving = Box::pin(serving);
    tokio::select! {
        ended = &mut serving => ended?,
        () = shutdown.cancelled() => {
            report(&reporter, tonic_health::ServingStatus::NotServing).await;
            // Watchers never end by themselves; they dial again, and find the next controller.
            drop(tokio::time::timeout(STOP_GRACE, &mut serving).await);
        }
    }
    engine.parked().await;
    reconcilers.close();
    reconcilers.wait().await;
    if world.following.is_none() {
        world.store.close().await;
    }
    Ok(())
}

/// What callers that do not know the services are told.
fn schema() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(feather_proto::pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Everything that services and operations act on.
async fn world(
    settings: Settings,
    seams: Seams,
    page: Option<std::net::SocketAddr>,
    advertise: &str,
    identity: &Rotating,
) -> Result<Arc<World>, Error> {
    let dns =
        Dns::new(seams.dns, &seams.store, &seams.clock, &settings.domain_suffix, &settings.dns).map_err(Error::Zone)?;
    let certificates = Certificates::new(seams.certificates, &settings.domain_suffix);
    let access = Access::new(identity.revoked().clone());
    // Before anything is dialled or served.
    access.revoked.replace(seams.store.revocations().await?);
    Ok(Arc::new(World {
        following: seams.following,
        access,
        certificates,
        store: seams.store,
        agents: seams.agents,
        fleet: Fleet::default(),
        dns,
        clock: seams.clock,
        settings,
        volatile: Arc::new(Volatile::default()),
        metrics: Metrics::default(),
        relays: Relays::default(),
        warnings: warnings::Turn::default(),
        backups: backups::Users::default(),
        placing: tokio::sync::Mutex::default(),
        page,
        advertise: advertise.to_owned(),
        desired: tokio::sync::watch::Sender::new(0),
    }))
}

/// Takes up what was left and keeps truths true; or, while another controller leads, only looks.
async fn begin(
    reconcilers: &TaskTracker,
    world: &Arc<World>,
    engine: &Arc<Engine>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    if world.following.is_some() {
        reconcilers.spawn(fleet::watch_members(world.clone(), shutdown.clone()));
        reconcilers.spawn(access::reread(world.clone(), shutdown.clone()));
        return Ok(());
    }
    reconcile(reconcilers, world, shutdown);
    let resumed = engine.resume().await?;
    tracing::info!(resumed, "controller ready");
    Ok(())
}

/// Starts what keeps truths true.
fn reconcile(reconcilers: &TaskTracker, world: &Arc<World>, shutdown: &CancellationToken) {
    reconcilers.spawn(fleet::watch_members(world.clone(), shutdown.clone()));
    reconcilers.spawn(dns::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(dns::converge::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(forwards::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(certificate::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(certificate::spread(world.clone(), shutdown.clone()));
    reconcilers.spawn(access::spread(world.clone(), shutdown.clone()));
    reconcilers.spawn(adoption::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(warnings::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(events::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(backups::keep(world.clone(), shutdown.clone()));
    reconcilers.spawn(limits::keep(world.clone(), shutdown.clone()));
}

async fn report(reporter: &HealthReporter, status: tonic_health::ServingStatus) {
    for name in SERVICES {
        reporter.set_service_status(name, status).await;
    }
}
