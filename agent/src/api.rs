//! The gRPC services: decode, call, encode.
//!
//! Owns who may call what, and the server's limits. Decides nothing about tenants.

mod access;
mod adoption;
mod certificate;
mod image;
mod led;
mod local;
mod server;
mod tenant;
mod transfer;
mod volume;
mod waitlist;
mod work;

use std::{io, pin::Pin, sync::Arc, time::Duration};

use feather_proto::{
    error::Error,
    ids::{Generation, ServerName, TenantName},
    pb::{
        DESCRIPTORS,
        agent::v1::{
            access_service_server::AccessServiceServer, adoption_service_server::AdoptionServiceServer,
            certificate_service_server::CertificateServiceServer, image_service_server::ImageServiceServer,
            local_service_server::LocalServiceServer, server_service_server::ServerServiceServer,
            tenant_service_server::TenantServiceServer, transfer_service_server::TransferServiceServer,
            volume_service_server::VolumeServiceServer, waitlist_service_server::WaitlistServiceServer,
            work_service_server::WorkServiceServer,
        },
    },
    tls::{self, Bounds, Connection, Gate, Limits, Principal, Role, Rotating},
    trace,
    version::Negotiation,
};
use futures::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, transport::Server};

use crate::{agent::Agent, local::Socket, peer::MESSAGE_MAX_BYTES, peer::Peers};

/// Calls beside each other on one connection; streams count until their first message.
const CALLS_PER_CONNECTION_MAX: usize = 256;
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// HTTP/2 windows measured to carry a volume at full speed.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A caller that vanished without a word is noticed within the sum of these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Local calls under way have this long to say that the agent is stopping.
const LOCAL_GRACE: Duration = Duration::from_secs(1);
/// Pieces of archives and images are at most this long.
const PIECE_MAX_BYTES: usize = 1 << 20;

/// Heads of calls are small.
const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// What one caller may have under way: the controller looks, moves and watches for all tenants here. Nobody comes without a certificate.
const LIMITS: Limits = Limits { calls: 1024, strangers: 0, message_bytes };

/// Only volumes, images and lists are long.
fn message_bytes(path: &str) -> usize {
    let long = [
        "/feather.agent.v1.TransferService/",
        "/feather.agent.v1.VolumeService/",
        "/feather.agent.v1.ImageService/",
        "/feather.agent.v1.AccessService/",
    ];
    if long.iter().any(|service| path.starts_with(service)) { MESSAGE_MAX_BYTES } else { PIECE_MAX_BYTES }
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What every service holds.
#[derive(Clone)]
struct Api {
    agent: Arc<Agent>,
    server: ServerName,
    peers: Peers,
}

/// The caller must be the controller. People's certificates are good for nothing here: what they want goes by the controller, which knows
/// their rights and writes down what they did.
fn authorize<T>(request: &Request<T>) -> Result<(), Error> {
    tls::require(request, &[Role::Controller]).map(drop)
}

/// Tenant and generation of a mutating call. The request id is required so that every caller has one for its log.
fn placement(request_id: &str, tenant: &str, generation: u64) -> Result<(TenantName, Generation), Error> {
    feather_proto::model::request_id(request_id)?;
    Ok((tenant.parse()?, Generation(generation)))
}

/// Serves until `stopping`, then lets calls under way end.
pub(crate) async fn serve(
    agent: Arc<Agent>,
    server: ServerName,
    identity: Rotating,
    connections: impl Stream<Item = io::Result<Connection>> + Send + 'static,
    stopping: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let gate = Gate::new(identity.revoked().clone());
    let negotiation = Negotiation::of(&Principal::agent(&server));
    let peers = Peers { dial: agent.dial.clone(), identity };
    let api = Api { agent, server, peers };
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<TenantServiceServer<Api>>().await;
    reporter.set_serving::<VolumeServiceServer<Api>>().await;
    reporter.set_serving::<TransferServiceServer<Api>>().await;
    reporter.set_serving::<ImageServiceServer<Api>>().await;
    reporter.set_serving::<ServerServiceServer<Api>>().await;
    reporter.set_serving::<WaitlistServiceServer<Api>>().await;
    reporter.set_serving::<AdoptionServiceServer<Api>>().await;
    reporter.set_serving::<WorkServiceServer<Api>>().await;
    reporter.set_serving::<CertificateServiceServer<Api>>().await;
    reporter.set_serving::<AccessServiceServer<Api>>().await;
    let mut router = Server::builder()
        .layer(trace::Calls::default())
        .layer(negotiation)
        .http2_max_header_list_size(HEADERS_MAX_BYTES)
        .layer(Bounds::new(LIMITS))
        .layer(gate)
        .layer(led::Led(api.agent.clone()))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_service(health)
        .add_service(limited(TenantServiceServer::new(api.clone())))
        .add_service(
            TransferServiceServer::new(api.clone())
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES),
        )
        .add_service(
            VolumeServiceServer::new(api.clone())
                .max_decoding_message_size(MESSAGE_MAX_BYTES)
                .max_encoding_message_size(MESSAGE_MAX_BYTES),
        )
        .add_service(ImageServiceServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(WaitlistServiceServer::new(api.clone()).max_decoding_message_size(PIECE_MAX_BYTES))
        .add_service(AdoptionServiceServer::new(api.clone()))
        .add_service(WorkServiceServer::new(api.clone()))
        .add_service(CertificateServiceServer::new(api.clone()))
        .add_service(AccessServiceServer::new(api.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES))
        .add_service(ServerServiceServer::new(api));
    match tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS).build_v1() {
        Ok(reflection) => router = router.add_service(reflection),
        Err(error) => tracing::error!(%error, "serving without reflection"),
    }
    let shutdown = async move {
        stopping.cancelled().await;
        reporter.set_not_serving::<TenantServiceServer<Api>>().await;
        reporter.set_not_serving::<VolumeServiceServer<Api>>().await;
        reporter.set_not_serving::<TransferServiceServer<Api>>().await;
        reporter.set_not_serving::<ImageServiceServer<Api>>().await;
        reporter.set_not_serving::<ServerServiceServer<Api>>().await;
        reporter.set_not_serving::<WaitlistServiceServer<Api>>().await;
        reporter.set_not_serving::<AdoptionServiceServer<Api>>().await;
        reporter.set_not_serving::<WorkServiceServer<Api>>().await;
        reporter.set_not_serving::<CertificateServiceServer<Api>>().await;
        reporter.set_not_serving::<AccessServiceServer<Api>>().await;
    };
    router.serve_with_incoming_shutdown(connections, shutdown).await
}

/// Serves the local socket until the agent ends.
pub(crate) async fn serve_local(agent: Arc<Agent>, socket: Socket) -> Result<(), tonic::transport::Error> {
    let ended = agent.ended.clone();
    let serving = Server::builder()
        .layer(trace::Calls::default())
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .add_service(LocalServiceServer::new(local::Api { agent }))
        .serve_with_incoming_shutdown(UnixListenerStream::new(socket.into_listener()), ended.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        done = &mut serving => done,
        // Calls under way end with the agent; whoever keeps a connection open for other reasons is not waited for.
        () = async { ended.cancelled().await; tokio::time::sleep(LOCAL_GRACE).await } => Ok(()),
    }
}

fn limited<S>(service: TenantServiceServer<S>) -> TenantServiceServer<S> {
    service.max_decoding_message_size(PIECE_MAX_BYTES)
}
