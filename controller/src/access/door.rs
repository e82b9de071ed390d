//! The layer in front of all services: who may make which call, and putting down what was changed.
//!
//! One place, so that no call can be forgotten; what a call needs is in `rights.rs`. Services check roles once more by themselves.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use feather_proto::{
    describe,
    error::{Error, reason},
    tls::{Answering, Peer, Taken, refusal},
};
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{
    recorder::{Record, peek},
    rights::{self, Effect, Right},
};
use crate::{leadership::Following, world::World};

/// Makes services behind the door.
#[derive(Clone)]
pub struct Door {
    world: Arc<World>,
}

impl Door {
    /// Of this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, world: self.world.clone() }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    world: Arc<World>,
}

impl<S> Service<Request<Body>> for Guarded<S>
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
        let Some(right) = rights::of(request.uri().path()) else { return Box::pin(inner.call(request)) };
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let _taken = request.extensions().get::<Taken>().cloned();
        let call = Call { world: self.world.clone(), right, peer, _taken };
        if call.world.following.is_some() && !right.shown_while_waiting() {
            return Box::pin(async move { Ok(refusal(call.only_shows().await)) });
        }
        if right.effect == Effect::Looks {
            return Box::pin(call.look(inner, request));
        }
        Box::pin(call.change(inner, request))
    }
}

/// What is said to whoever wants more of a controller that waits to lead than to see the fleet.
fn only_shows(leader: String) -> Error {
    let at = if leader.is_empty() { "another one".to_owned() } else { format!("the one at {leader}") };
    let message = format!(
        "this controller only shows the fleet, {at} leads: ask that one; featherctl finds it when --controller names all of them (A,B)"
    );
    Error::unavailable(reason::NOT_LEADER, message).with("leader", leader)
}

/// A call that has come to the door.
struct Call {
    world: Arc<World>,
    right: &'static Right,
    peer: Peer,
    /// Kept until the call is put down, also when its caller has left.
    _taken: Option<Taken>,
}

impl Call {
    /// Lets the call in, or says why not.
    async fn admit(&self, dry_run: bool) -> Result<(), Error> {
        if self.world.following.is_some() {
            // Whoever leads takes people out without telling this process.
            self.world.access.load(&self.world.store).await?;
        }
        self.world.access.revoked.check(&self.peer)?;
        self.right.check(self.peer.principal.clone(), dry_run)?;
        if self.world.following.is_some() {
            return Ok(());
        }
        self.world.access.note(&self.world.store, &self.peer, self.world.clock.now()).await;
        Ok(())
    }

    /// Says who leads, to whoever may know. The connection ends soon after: whoever dials again with several addresses finds the leader.
    async fn only_shows(&self) -> Error {
        if let Err(error) = self.admit(false).await {
            return error;
        }
        self.peer.hang_up();
        only_shows(self.world.following.as_ref().map(Following::leader).unwrap_or_default())
    }

    async fn look<S>(self, mut inner: S, request: Request<Body>) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        match self.admit(false).await {
            Ok(()) => inner.call(request).await,
            Err(error) => Ok(refusal(error)),
        }
    }

    async fn change<S>(self, mut inner: S, request: Request<Body>) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send + 'static,
    {
        // Who may make the call in no form is not read.
        if let Err(error) = self.right.check(self.peer.principal.clone(), true) {
            let record = Record::new(self.world.clone(), request.uri().path(), &self.peer, None);
            return Ok(record.finish(refusal(error)).await);
        }
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let (message, body) = match peek(body).await {
            Ok(peeked) => peeked,
            Err(error) => {
                let record = Record::new(self.world.clone(), &path, &self.peer, None);
                return Ok(record.finish(refusal(error)).await);
            }
        };
        let shown = describe::request(&path, &message);
        let dry_run = shown.as_ref().is_some_and(|shown| shown.dry_run);
        let request = Request::from_parts(head, body);
        if !self.right.changes(dry_run) {
            return match self.admit(true).await {
                Ok(()) => inner.call(request).await,
                Err(error) => Ok(refusal(error)),
            };
        }
        let record = Record::new(self.world.clone(), &path, &self.peer, shown);
        // Goes on when the caller leaves: what was done is put down.
        let calling = async move {
            let answer = match self.admit(false).await {
                Ok(()) => inner.call(request).await?,
                Err(error) => refusal(error),
            };
            Ok(record.finish(answer).await)
        };
        match tokio::spawn(calling.in_current_span()).await {
            Ok(answer) => answer,
            Err(panic) => Ok(refusal(Error::bug(format!("the task of a call ended: {panic}")))),
        }
    }
}
