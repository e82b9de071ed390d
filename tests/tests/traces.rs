//! One move, as a collector of traces sees it. In a process of its own, because all of it is listened to.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use feather_proto::{pb::controller::v1 as pb, trace::Tracing};
use feather_tests::Fleet;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;
use tracing_subscriber::{Registry, layer::SubscriberExt as _};

/// Takes spans in, as any collector does.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, url)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_caller_through_the_controller_and_both_agents() {
    let (collector, url) = Collector::start().await;
    let tracing = Tracing::to("feather-tests", &url);
    tracing::subscriber::set_global_default(Registry::default().with(tracing.layer())).unwrap();
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    let password = fleet.add("alice", "nyc").await.password;
    let command = tracing::info_span!(target: "featherctl", "command", otel.name = "featherctl tenant migrate");
    let begun = fleet.begin_migrate("alice", "fra").instrument(command).await.unwrap();
    // Another controller goes on with it: the trace is the operation's, not the process's.
    fleet.kill_controller();
    fleet.start_controller().await;
    assert_eq!(fleet.outcome(&begun.id).await.state(), pb::OperationState::Succeeded);
    fleet.stop_controller().await;
    tracing.finish().await;

    let spans = collector.spans();
    let root = spans.iter().find(|span| span.name == "featherctl tenant migrate").expect("the caller's span");
    let trace: BTreeMap<_, _> =
        spans.iter().filter(|span| span.trace_id == root.trace_id).map(|span| (span.span_id.clone(), span)).collect();
    let names: BTreeSet<_> = trace.values().map(|span| span.name.as_str()).collect();
    for name in [
        "TenantService/MigrateTenant",
        "migrate alice",
        "transfer",
        "commit",
        "TenantService/ReserveTenant",
        "VolumeService/PullVolume",
        "TransferService/SendVolume",
        "TenantService/HandOffTenant",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    let orphans =
        trace.values().filter(|span| !span.parent_span_id.is_empty() && !trace.contains_key(&span.parent_span_id));
    let orphans: Vec<_> = orphans.map(|span| span.name.as_str()).collect();
    assert!(orphans.is_empty(), "what leads to {orphans:?} is missing");
    let told = format!("{spans:?}");
    assert!(!password.is_empty() && !told.contains(&password), "a span holds the password");
}
