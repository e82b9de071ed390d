//! The accepting end: a span for each call, and a count.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use super::{PARENT, continues};

/// Somebody who counts calls.
pub trait Meter: Send + Sync {
    /// A call of this service and method has ended with this gRPC status code, so long after it came in. Streams end when their
    /// last message is sent; what was given up by its caller is not reported.
    fn ended(&self, service: &str, method: &str, code: i32, took: Duration);
}

/// Puts each call of ours into a span that continues its caller's trace.
#[derive(Clone, Default)]
pub struct Calls {
    meter: Option<Arc<dyn Meter>>,
}

impl Calls {
    /// Counted too.
    pub fn counted_by(meter: Arc<dyn Meter>) -> Self {
        Self { meter: Some(meter) }
    }
}

impl<S> Layer<S> for Calls {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner, meter: self.meter.clone() }
    }
}

/// What [`Calls`] makes of a service.
#[derive(Clone)]
pub struct Traced<S> {
    inner: S,
    meter: Option<Arc<dyn Meter>>,
}

type Answering<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S, B> Service<http::Request<B>> for Traced<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Some(name) = Name::of(request.uri().path()) else { return Box::pin(self.inner.call(request)) };
        let span = name.span(request.headers().get(PARENT).and_then(|parent| parent.to_str().ok()));
        let answering = span.in_scope(|| self.inner.call(request));
        let Some(meter) = self.meter.clone() else { return Box::pin(answering.instrument(span)) };
        let mut running = Running { name, meter, began: Instant::now() };
        let counted = async move {
            let response = answering.await?;
            let code = code(response.headers());
            if let Some(code) = code {
                running.ended(code);
                return Ok(response);
            }
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    if let Some(trailers) = frame.trailers_ref() {
                        running.ended(self::code(trailers).unwrap_or(tonic::Code::Unknown as i32));
                    }
                    frame
                }))
            }))
        };
        Box::pin(counted.instrument(span))
    }
}

fn code(headers: &http::HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

struct Running {
    name: Name,
    meter: Arc<dyn Meter>,
    began: Instant,
}

impl Running {
    fn ended(&mut self, code: i32) {
        self.meter.ended(&self.name.service, &self.name.method, code, self.began.elapsed());
    }
}

/// Of a call.
struct Name {
    service: String,
    method: String,
}

impl Name {
    /// Calls of this project's own services. Streams that tell what changes never end, and are part of no trace.
    fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix("/feather.")?.split_once('/')?;
        let service = service.rsplit('.').next()?;
        (!method.starts_with("Watch")).then(|| Self { service: service.to_owned(), method: method.to_owned() })
    }

    fn span(&self, parent: Option<&str>) -> Span {
        let Self { service, method } = self;
        let span = tracing::info_span!(
            "rpc",
            otel.name = format!("{service}/{method}"),
            otel.kind = "server",
            trace_id = tracing::field::Empty
        );
        continues(&span, parent);
        span
    }
}
