//! The layer that lets in only the newest leader of several controllers, whatever is called.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use feather_proto::{
    epoch,
    error::Error,
    tls::{Answering, Peer, Role, refusal},
};
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::agent::Agent;

/// Makes services behind the look.
#[derive(Clone)]
pub(super) struct Led(pub(super) Arc<Agent>);

impl<S> Layer<S> for Led {
    type Service = Looking<S>;

    fn layer(&self, inner: S) -> Looking<S> {
        Looking { inner, agent: self.0.clone() }
    }
}

/// A service behind the look.
#[derive(Clone)]
pub(super) struct Looking<S> {
    inner: S,
    agent: Arc<Agent>,
}

/// The lead of a call of the controller, if it names one. Nobody else leads.
fn lead(request: &Request<Body>) -> Result<Option<i64>, Error> {
    let peer = request.extensions().get::<Peer>();
    match peer.and_then(|peer| peer.principal.as_ref()).map(|principal| principal.role) {
        Some(Role::Controller) => epoch::of(request.headers()),
        _ => Ok(None),
    }
}

impl<S> Service<Request<Body>> for Looking<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let agent = self.agent.clone();
        Box::pin(async move {
            let admitted = match lead(&request) {
                Ok(Some(epoch)) => agent.leader.admit(epoch).await,
                other => other.map(drop),
            };
            match admitted {
                Ok(()) => inner.call(request).await,
                Err(error) => Ok(refusal(error)),
            }
        })
    }
}
