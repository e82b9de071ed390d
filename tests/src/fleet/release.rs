//! Servers of a fleet whose agents seem to be of another release.
//!
//! What stands in front of such an agent passes every call on, unread, and says or leaves out what that release would.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use feather_controller::ca::{self, Ca};
use feather_proto::{
    tls::{self, Answering, Channel, ClientCertificate, Dial, Peer, Principal, Role, Rotating, Trust},
    version::{self, Negotiation, Range},
};
use http::{Request, Response};
use tonic::{Status, body::Body, service::Routes, transport::Server};
use tower::{Layer, Service, ServiceExt as _, layer::layer_fn};

use super::{Fleet, Process, agent_address};

/// A release that an agent seems to be of.
#[derive(Debug, Clone, Default)]
pub struct Release {
    /// What it says it speaks; nothing, for the release that knew no versions. That one is told nothing either.
    pub speaks: Option<Range>,
    /// Calls that it does not know: `Service/Call`.
    pub lacks: BTreeSet<&'static str>,
}

/// Where the real agent listens.
pub(super) fn behind(name: &str) -> String {
    format!("{name}-behind:7443")
}

impl Fleet {
    /// From now on a server's agent seems to be of this release, to whoever calls it.
    pub fn seems(&mut self, name: &str, release: Release) {
        self.kill_agent(name);
        let incoming = self.network.listen(&agent_address(name));
        let identity = Rotating::new(self.identity(Role::Agent, name)).expect("an identity");
        let front = Front {
            server: name.to_owned(),
            release: Arc::new(release),
            ca: Arc::new(self.ca()),
            dial: self.network.from(&format!("{name}-front")),
            channels: Arc::default(),
        };
        let process = Process::start(move |_| async move {
            let connections =
                tls::incoming(incoming, &identity, ClientCertificate::Required, false).expect("a listener");
            let served = Server::builder().layer(front).add_routes(Routes::default());
            served.serve_with_incoming(connections).await.expect("it serves");
        });
        self.fronts.insert(name.to_owned(), process);
        self.start_agent(name);
    }
}

/// Takes the place of all services.
#[derive(Clone)]
struct Front {
    server: String,
    release: Arc<Release>,
    /// Callers are to be seen behind it as who they are.
    ca: Arc<Ca>,
    dial: Arc<dyn Dial>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Front {
    fn channel(&self, caller: &Principal) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let made = channels.entry(caller.to_string()).or_insert_with(|| {
            let identity =
                self.ca.issue(caller, ca::PERSON_LIFE, time::OffsetDateTime::now_utc()).expect("a certificate");
            let trust = Trust::Mutual(Rotating::new(identity).expect("an identity"));
            let to = Principal::agent(&self.server);
            tls::channel(self.dial.clone(), &behind(&self.server), &to, &trust).expect("a channel")
        });
        // Whoever knows no versions passes none on.
        made.clone().saying(self.release.speaks.map(|_| version::OURS))
    }

    async fn pass_on(self, request: Request<Body>) -> Response<Body> {
        let call = request.uri().path().trim_start_matches("/feather.agent.v1.");
        if self.release.lacks.contains(call) {
            return Status::unimplemented("").into_http();
        }
        let caller = request.extensions().get::<Peer>().and_then(|peer| peer.principal.clone()).expect("a certificate");
        let (mut head, body) = request.into_parts();
        head.extensions.clear();
        head.headers.remove(version::HEADER);
        let answer = self.channel(&caller).oneshot(Request::from_parts(head, body)).await;
        let mut answer = answer.unwrap_or_else(|error| Status::unavailable(error.to_string()).into_http());
        answer.headers_mut().remove(version::HEADER);
        answer
    }
}

impl<S> Layer<S> for Front {
    type Service = Fronting;

    fn layer(&self, _: S) -> Fronting {
        Fronting(self.clone())
    }
}

#[derive(Clone)]
struct Fronting(Front);

impl Service<Request<Body>> for Fronting {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answering<Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let front = self.0.clone();
        let Some(speaks) = front.release.speaks else { return Box::pin(async { Ok(front.pass_on(request).await) }) };
        let negotiation = Negotiation::speaking(&Principal::agent(&front.server), speaks);
        let passing = layer_fn(|front: Front| {
            tower::service_fn(move |request| {
                let front = front.clone();
                async move { Ok::<_, std::convert::Infallible>(front.pass_on(request).await) }
            })
        });
        Box::pin(negotiation.layer(passing.layer(front)).oneshot(request))
    }
}
