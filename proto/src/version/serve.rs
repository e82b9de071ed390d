//! The answering end: says what it speaks in every answer, and lets in only callers that it has a version in common with.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::{HEADER, OURS, Party, Range, SILENT, agree, is_free, said};
use crate::{
    error::Error,
    tls::{Answering, Peer, Principal, refusal},
};

/// Makes services behind the negotiation. It belongs outside of whatever refuses calls: every answer has to say what this end speaks.
#[derive(Debug, Clone)]
pub struct Negotiation {
    /// Who answers, as people call it.
    name: Arc<str>,
    speaks: Range,
}

impl Negotiation {
    /// Of this process.
    pub fn of(who: &Principal) -> Self {
        Self::speaking(who, OURS)
    }

    /// Of a process of another release.
    pub fn speaking(who: &Principal, speaks: Range) -> Self {
        Self { name: who.spoken().into(), speaks }
    }

    fn admit(&self, request: &Request<Body>) -> Result<(), Error> {
        if is_free(request.uri().path()) {
            return Ok(());
        }
        let speaks = said(request.headers())?.unwrap_or(SILENT);
        let caller = request.extensions().get::<Peer>().and_then(|peer| peer.principal.as_ref());
        let name = caller.map_or_else(|| "the caller".to_owned(), Principal::spoken);
        agree(Party { name: &name, speaks }, Party { name: &self.name, speaks: self.speaks }).map(drop)
    }
}

impl<S> Layer<S> for Negotiation {
    type Service = Negotiated<S>;

    fn layer(&self, inner: S) -> Negotiated<S> {
        Negotiated { inner, negotiation: self.clone() }
    }
}

/// A service behind the negotiation.
#[derive(Debug, Clone)]
pub struct Negotiated<S> {
    inner: S,
    negotiation: Negotiation,
}

impl<S> Service<Request<Body>> for Negotiated<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let speaks = self.negotiation.speaks;
        if let Err(error) = self.negotiation.admit(&request) {
            return Box::pin(async move { Ok(saying(speaks, refusal(error))) });
        }
        let answering = self.inner.call(request);
        Box::pin(async move { Ok(saying(speaks, answering.await?)) })
    }
}

fn saying(speaks: Range, mut answer: Response<Body>) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(&speaks.to_string()) {
        answer.headers_mut().insert(HEADER, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use http::{Request, Response};
    use tonic::body::Body;
    use tower::{Layer as _, Service as _};

    use super::{HEADER, Negotiation};
    use crate::{
        tls::{Peer, Principal, Role},
        version::{Range, STANDING},
    };

    /// What somebody gets who says this: the status and what the answer says; and how many calls came through.
    async fn asked(path: &str, says: Option<&str>) -> (Option<i32>, String, usize) {
        let through = Arc::new(AtomicUsize::new(0));
        let counted = through.clone();
        let inner = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        });
        let negotiation = Negotiation::speaking(&Principal::agent("nyc"), Range::new(2, 3).unwrap());
        let mut request = Request::builder().uri(path);
        if let Some(says) = says {
            request = request.header(HEADER, says);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let principal = Some(Principal { role: Role::Controller, name: "controller".into() });
        request.extensions_mut().insert(Peer { principal, ..Peer::default() });
        let answer = negotiation.layer(inner).call(request).await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let status = header("grpc-status").map(|status| status.parse().unwrap());
        (status, header(HEADER).unwrap(), through.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn whoever_has_no_version_in_common_does_not_come_through() {
        let call = "/feather.agent.v1.TenantService/AddTenant";
        for says in ["2", "1-2", "3-4", "1-9"] {
            assert_eq!(asked(call, Some(says)).await, (None, "2-3".into(), 1), "{says}");
        }
        let refused = tonic::Code::FailedPrecondition as i32;
        for says in [None, Some("1"), Some("4-5")] {
            assert_eq!(asked(call, says).await, (Some(refused), "2-3".into(), 0), "{says:?}");
        }
        let invalid = tonic::Code::InvalidArgument as i32;
        assert_eq!(asked(call, Some("two")).await, (Some(invalid), "2-3".into(), 0));
        assert_eq!(asked("/grpc.health.v1.Health/Check", None).await, (None, "2-3".into(), 1), "tools say nothing");
        // Who was away for years must hear that it is out of the fleet.
        for says in [None, Some("1"), Some("4-5")] {
            assert_eq!(asked(STANDING, says).await, (None, "2-3".into(), 1), "{says:?}");
        }
    }
}
