//! How much one caller may have at once: connections, calls, bytes in a message.
//!
//! Owns counting by identity, and the layer that refuses what is too much with a sentence. How long a handshake may take is where
//! connections are accepted.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    gate::{Answering, refusal},
    identity::Principal,
    serve::Peer,
};
use crate::error::{Error, reason};

/// A caller says this soon what it wants: its first message is whole by then, or its request has ended without one.
const FIRST_MESSAGE_LIMIT: Duration = Duration::from_secs(30);
/// What somebody without a certificate has to say is a token and a signing request.
const STRANGERS_MESSAGE_MAX: usize = 64 << 10;
/// A flag and the length stand before each message.
const PREFIX: usize = 5;

/// Seats by identity; everybody without a certificate is one.
#[derive(Debug, Clone, Default)]
pub struct Seats {
    taken: Arc<Mutex<BTreeMap<Option<Principal>, usize>>>,
}

/// One seat, given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    who: Option<Principal>,
}

impl Seats {
    /// Takes one of so many; none, when all are taken.
    pub fn take(&self, who: &Option<Principal>, max: usize) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(who.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Seat { seats: self.clone(), who: who.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

/// The limits of a process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls under way of one identity.
    pub calls: usize,
    /// Calls under way of all who have no certificate.
    pub strangers: usize,
    /// Bytes of a message for the call with this path.
    pub message_bytes: fn(&str) -> usize,
}

/// Makes services within limits.
#[derive(Debug, Clone)]
pub struct Bounds {
    limits: Limits,
    seats: Seats,
}

impl Bounds {
    /// With these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, seats: Seats::default() }
    }
}

impl<S> Layer<S> for Bounds {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, bounds: self.clone() }
    }
}

/// A service within limits.
#[derive(Debug, Clone)]
pub struct Bounded<S> {
    inner: S,
    bounds: Bounds,
}

/// The seat of a call, in its extensions: whoever goes on with the call when its caller has left keeps it.
#[derive(Debug, Clone)]
pub struct Taken {
    _seat: Arc<Seat>,
}

impl<S> Service<Request<Body>> for Bounded<S>
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
        let Limits { calls, strangers, message_bytes } = self.bounds.limits;
        let (max, who) = match &peer.principal {
            Some(principal) => (calls, principal.to_string()),
            None => (strangers, "callers without a certificate".to_owned()),
        };
        let seat = if peer.crowded { None } else { self.bounds.seats.take(&peer.principal, max) };
        let Some(seat) = seat else {
            return Box::pin(std::future::ready(Ok(refusal(crowded(&who, peer.crowded, max)))));
        };
        let bytes = message_bytes(request.uri().path());
        let bytes = if peer.principal.is_some() { bytes } else { bytes.min(STRANGERS_MESSAGE_MAX) };
        let taken = Taken { _seat: Arc::new(seat) };
        let mut request = request.map(|body| Body::new(Measured::new(body, bytes)));
        request.extensions_mut().insert(taken.clone());
        let clone = self.inner.clone();
        let answer = std::mem::replace(&mut self.inner, clone).call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Seated { body, _taken: taken }))) })
    }
}

fn crowded(who: &str, connections: bool, max: usize) -> Error {
    let message = if connections {
        format!("{who}: too many connections are open already; close some, or make several calls over one")
    } else {
        format!("{who}: {max} calls are under way already; wait until some have ended, then try again")
    };
    Error::full(reason::LIMIT, message)
}

/// An answer that keeps its caller's seat.
struct Seated {
    body: Body,
    _taken: Taken,
}

impl http_body::Body for Seated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Follows where messages begin and end in a request.
#[derive(Debug, Default)]
struct Ruler {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    begun: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// A message was whole.
    whole: bool,
}

impl Ruler {
    /// Takes the next bytes; says the length of a message that is too long, as soon as its prefix is there.
    fn take(&mut self, mut data: &[u8], max: usize) -> Result<(), usize> {
        while !data.is_empty() {
            if self.left > 0 {
                let step = self.left.min(data.len());
                (self.left, data) = (self.left - step, &data[step..]);
                self.whole |= self.left == 0;
                continue;
            }
            let step = (PREFIX - self.begun).min(data.len());
            self.prefix[self.begun..self.begun + step].copy_from_slice(&data[..step]);
            (self.begun, data) = (self.begun + step, &data[step..]);
            if self.begun == PREFIX {
                let [_, length @ ..] = self.prefix;
                (self.begun, self.left) = (0, u32::from_be_bytes(length) as usize);
                self.whole |= self.left == 0;
                if self.left > max {
                    return Err(self.left);
                }
            }
        }
        Ok(())
    }
}

/// A request whose messages are not too long, and whose first one does not take for ever.
struct Measured {
    body: Body,
    max: usize,
    ruler: Ruler,
    /// Until the first message is whole.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Measured {
    fn new(body: Body, max: usize) -> Self {
        let limit = Some(Box::pin(tokio::time::sleep(FIRST_MESSAGE_LIMIT)));
        Self { body, max, ruler: Ruler::default(), limit }
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let next = Pin::new(&mut this.body).poll_frame(context);
        match &next {
            Poll::Ready(Some(Ok(frame))) => {
                let taken = frame.data_ref().map_or(Ok(()), |data| this.ruler.take(data, this.max));
                if let Err(length) = taken {
                    let message =
                        format!("a message of {length} bytes is too long; this call takes at most {}", this.max);
                    return Poll::Ready(Some(Err(Error::full(reason::LIMIT, message).into())));
                }
                if this.ruler.whole {
                    this.limit = None;
                }
            }
            Poll::Ready(_) => this.limit = None,
            Poll::Pending => {
                if this.limit.as_mut().is_some_and(|limit| limit.as_mut().poll(context).is_ready()) {
                    this.limit = None;
                    let message = "no whole first message came within 30 s; send the request at once";
                    return Poll::Ready(Some(Err(Error::full(reason::LIMIT, message).into())));
                }
            }
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::{Ruler, Seats};
    use crate::tls::Principal;

    #[test]
    fn seats_are_counted_by_identity_and_given_back() {
        let (seats, nyc, fra) = (Seats::default(), Some(Principal::agent("nyc")), Some(Principal::agent("fra")));
        let first = seats.take(&nyc, 2).unwrap();
        let _second = seats.take(&nyc, 2).unwrap();
        assert!(seats.take(&nyc, 2).is_none(), "all are taken");
        assert!(seats.take(&fra, 2).is_some() && seats.take(&None, 1).is_some(), "others have their own");
        drop(first);
        assert!(seats.take(&nyc, 2).is_some());
        assert_eq!(seats.taken.lock().unwrap().len(), 1, "who has none is not remembered");
    }

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(bytes.len() + length, 7);
        bytes
    }

    #[test]
    fn a_message_that_is_too_long_is_found_by_its_prefix_however_it_is_cut() {
        let all = [message(3), message(0), message(10), message(11)].concat();
        for step in 1..=all.len() {
            let mut ruler = Ruler::default();
            let mut verdicts = all.chunks(step).map(|piece| ruler.take(piece, 10));
            assert_eq!(verdicts.find(Result::is_err), Some(Err(11)), "in pieces of {step}");
        }
        let mut ruler = Ruler::default();
        ruler.take(&message(3)[..7], 10).unwrap();
        assert!(!ruler.whole);
        ruler.take(&message(3)[7..], 10).unwrap();
        assert!(ruler.whole);
        let mut empty = Ruler::default();
        empty.take(&message(0), 10).unwrap();
        assert!(empty.whole, "an empty message is whole with its prefix");
    }
}
