//! The layer in front of all services of a process: refuses whoever may not be here any more, also in the middle of a call.
//!
//! Knows certificates and no rights: what a role may do is decided behind it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{revoked::Revoked, serve::Peer};
use crate::error::Error;

/// Makes services behind the gate.
#[derive(Debug, Clone)]
pub struct Gate {
    revoked: Revoked,
}

impl Gate {
    /// By the list that is in force.
    pub fn new(revoked: Revoked) -> Self {
        Self { revoked }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, revoked: self.revoked.clone() }
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gated<S> {
    inner: S,
    revoked: Revoked,
}

/// A call under way.
pub type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// How long a call may still be about to answer when its caller's certificate is revoked.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What ends a call before its time.
type Ended = Pin<Box<dyn Future<Output = Error> + Send>>;

impl<S> Service<Request<Body>> for Gated<S>
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
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        if let Err(error) = self.revoked.check(&peer) {
            return Box::pin(std::future::ready(Ok(refusal(error))));
        }
        // The one that is ready is used up; its place takes a clone that is not.
        let clone = self.inner.clone();
        let answer: Answering<S::Error> = Box::pin(std::mem::replace(&mut self.inner, clone).call(request));
        if peer.principal.is_none() {
            return answer;
        }
        let mut ended: Ended = Box::pin(self.revoked.ended(&peer));
        Box::pin(async move {
            let mut answer = answer;
            tokio::select! {
                biased;
                // An answer that is there is given: whoever revokes its own certificate hears that it was done.
                answer = &mut answer => Ok(answer?.map(|body| Body::new(Ending { body, ended: Some(ended), begun: false }))),
                error = &mut ended => Ok(last_word(answer, error).await?),
            }
        })
    }
}

/// Whoever revokes its own certificate hears that it was done, also when the list came into force by another way than its call. A call that
/// has nothing to say by then is refused; one that goes on says at most one message, as [`Ending`] has it.
async fn last_word<E>(
    answer: impl Future<Output = Result<Response<Body>, E>>,
    error: Error,
) -> Result<Response<Body>, E> {
    match tokio::time::timeout(LAST_WORD, answer).await {
        Ok(answer) => {
            let ended: Ended = Box::pin(std::future::ready(error));
            Ok(answer?.map(|body| Body::new(Ending { body, ended: Some(ended), begun: false })))
        }
        Err(_) => Ok(refusal(error)),
    }
}

/// An answer that says no.
pub fn refusal(error: Error) -> Response<Body> {
    Status::from(error).into_http()
}

/// An answer that ends early when its reader's certificate is revoked.
struct Ending {
    body: Body,
    /// Nothing, once that has been said.
    ended: Option<Ended>,
    /// Something was given already.
    begun: bool,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(ended) = &mut this.ended else { return Poll::Ready(None) };
        let next = Pin::new(&mut this.body).poll_frame(context);
        // What is there is given, so that whoever revokes its own certificate hears that it was done: the one message of an answer, and
        // the end of any. What would follow is taken away.
        let first = next.is_ready() && !std::mem::replace(&mut this.begun, true);
        let last =
            matches!(&next, Poll::Ready(None)) || matches!(&next, Poll::Ready(Some(Ok(frame))) if frame.is_trailers());
        if first || last {
            return next;
        }
        match ended.as_mut().poll(context) {
            Poll::Pending => next,
            Poll::Ready(error) => {
                this.ended = None;
                let mut trailers = http::HeaderMap::new();
                Poll::Ready(Some(Status::from(error).add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // It may be less.
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::{Request, Response};
    use tokio::sync::Notify;
    use tonic::{Status, body::Body};
    use tower::{Layer as _, Service as _};

    use super::{Gate, Revoked};
    use crate::tls::{Peer, Principal, Revocation, Role};

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_about_to_answer_does_and_one_that_is_not_is_refused() {
        for answers in [true, false] {
            let (revoked, speak) = (Revoked::default(), Arc::new(Notify::new()));
            let spoken = speak.clone();
            let service = tower::service_fn(move |_: Request<Body>| {
                let spoken = spoken.clone();
                async move {
                    spoken.notified().await;
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }
            });
            let ada = Principal { role: Role::Admin, name: "ada".into() };
            let mut request = Request::new(Body::empty());
            let peer = Peer { principal: Some(ada.clone()), valid_from: Some(7), ..Peer::default() };
            request.extensions_mut().insert(peer);
            let mut gated = Gate::new(revoked.clone()).layer(service);
            let mut call = gated.call(request);
            assert!(futures::poll!(&mut call).is_pending());
            revoked.replace([Revocation { principal: ada, valid_from_last: 7 }].into_iter().collect());
            assert!(futures::poll!(&mut call).is_pending());
            if answers {
                speak.notify_one();
            }
            let answer = call.await.unwrap();
            assert_eq!(Status::from_header_map(answer.headers()).is_none(), answers);
        }
    }
}
