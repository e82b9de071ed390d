//! Puts calls down in the audit log, whatever becomes of their callers.
//!
//! Owns reading the first message of a request without taking it away, and noticing how an answer ended. What is shown of messages is
//! decided by the schema's description; what a row holds, in `audit.rs`.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use feather_proto::{
    describe::{self, Shown},
    error::{self, Error, reason},
    tls::{Peer, refusal},
};
use futures::{StreamExt as _, stream};
use http::{Response, response::Parts};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, Collected, Full, StreamBody};
use tonic::{Code, Status, body::Body};

use crate::{audit::Entry, world::World};

/// A flag and the length stand before each message.
const PREFIX: usize = 5;

/// A call whose end will be put down.
pub(super) struct Record {
    world: Arc<World>,
    entry: Entry,
    path: String,
}

/// Reads the first message of a request, and gives back a body that is as it was. How long it may be and take is decided in front of
/// this.
pub(super) async fn peek(mut body: Body) -> Result<(Bytes, Body), Error> {
    let (mut held, mut all) = (Vec::new(), BytesMut::new());
    while !is_whole(&all) {
        match body.frame().await {
            None => break,
            Some(Err(status)) => return Err(Error::from(status)),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    all.extend_from_slice(data);
                }
                held.push(Ok::<_, Status>(frame));
            }
        }
    }
    let message = all.freeze();
    let message = if message.len() > PREFIX { message.slice(PREFIX..PREFIX + length(&message)) } else { Bytes::new() };
    Ok((message, Body::new(StreamBody::new(stream::iter(held).chain(BodyStream::new(body))))))
}

/// Bytes of the message behind the prefix, as far as they are there.
fn length(all: &[u8]) -> usize {
    let mut prefix = &all[1..PREFIX];
    (prefix.get_u32() as usize).min(all.len() - PREFIX)
}

fn is_whole(all: &[u8]) -> bool {
    all.len() >= PREFIX && all.len() - PREFIX >= (&all[1..PREFIX]).get_u32() as usize
}

impl Record {
    /// Of a call that is being made now.
    pub(super) fn new(world: Arc<World>, path: &str, peer: &Peer, shown: Option<Shown>) -> Self {
        let arguments = match shown {
            Some(shown) => serde_json::Value::Object(shown.fields).to_string(),
            None => "\"(no request of this call)\"".to_owned(),
        };
        let entry = Entry {
            at: world.clock.now(),
            caller: peer.principal.as_ref().map(ToString::to_string).unwrap_or_default(),
            address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
            rpc: path.trim_start_matches('/').to_owned(),
            arguments,
            code: String::new(),
            reason: String::new(),
            operation: String::new(),
        };
        Self { world, entry, path: path.to_owned() }
    }

    /// Puts down how the call ended, and gives back its answer; another one, when it cannot be put down.
    pub(super) async fn finish(self, answer: Response<Body>) -> Response<Body> {
        let (head, body) = answer.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return self.close(Some(&status), None).await.map_or_else(refusal, |()| Response::from_parts(head, body));
        }
        if describe::answers_in_a_stream(&self.path) {
            return Response::from_parts(head, self.follow(body));
        }
        match body.collect().await {
            Ok(collected) => self.answered(head, collected).await,
            Err(status) => self.close(Some(&status), None).await.map_or_else(refusal, |()| status.into_http()),
        }
    }

    /// An answer of one message.
    async fn answered(self, head: Parts, collected: Collected<Bytes>) -> Response<Body> {
        let trailers = collected.trailers().cloned();
        let bytes = collected.to_bytes();
        let status = trailers.as_ref().and_then(Status::from_header_map);
        let operation = bytes.get(PREFIX..).and_then(|message| describe::response(&self.path, message));
        if let Err(error) = self.close(status.as_ref(), operation.and_then(|shown| shown.operation)).await {
            return refusal(error);
        }
        let body = Full::new(bytes).with_trailers(std::future::ready(trailers.map(Ok)));
        Response::from_parts(head, Body::new(body))
    }

    /// An answer of many messages is put down with its end, or when nobody reads on.
    fn follow(self, body: Body) -> Body {
        let frames = stream::unfold(Some((body, Open(Some(self)))), |state| async move {
            let (mut body, mut open) = state?;
            let (status, frame) = match body.frame().await {
                Some(Ok(frame)) => match frame.trailers_ref() {
                    None => return Some((Ok(frame), Some((body, open)))),
                    Some(trailers) => (Status::from_header_map(trailers), Some(Ok(frame))),
                },
                Some(Err(status)) => (Some(status.clone()), Some(Err(status))),
                None => (None, None),
            };
            let ended = match open.0.take() {
                Some(record) => record.close(status.as_ref(), None).await,
                None => Ok(()),
            };
            match ended {
                Ok(()) => frame.map(|frame: Result<Frame<Bytes>, Status>| (frame, None)),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Body::new(StreamBody::new(frames))
    }

    /// Writes the row; no status is a good one.
    async fn close(self, status: Option<&Status>, operation: Option<String>) -> Result<(), Error> {
        let mut entry = self.entry;
        entry.at = self.world.clock.now();
        entry.operation = operation.unwrap_or_default();
        entry.code = "OK".to_owned();
        if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
            entry.code = format!("{:?}", status.code());
            entry.reason = Error::from(status.clone()).reason;
        }
        let refused = entry.code != "OK" || (entry.caller.is_empty() && status.is_some());
        if refused && !self.world.access.puts_down(&entry.caller, entry.at) {
            // Nobody must fill the store by being refused.
            tracing::warn!(
                rpc = entry.rpc,
                caller = entry.caller,
                address = entry.address,
                code = entry.code,
                "a refused call is not put down: too many of this caller"
            );
            return Ok(());
        }
        self.world.store.append_audit(&entry).await.map_err(|error| {
            tracing::error!(rpc = entry.rpc, caller = entry.caller, error = &error as &dyn std::error::Error, "cannot write the audit log");
            Error::unavailable(
                reason::STORAGE,
                "the call was made, and cannot be put down in the audit log; look at the controller's disk and its log, then at what became of it",
            )
        })
    }
}

/// A record that must not be dropped unwritten.
struct Open(Option<Record>);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(record) = self.0.take() {
            let left =
                Status::from(Error::new(error::Code::Cancelled, reason::CANCELLED, "the caller left before the end"));
            tokio::spawn(async move { drop(record.close(Some(&left), None).await) });
        }
    }
}
