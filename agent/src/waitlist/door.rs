//! The waitlist's port: connections in, answers out, and nobody who may hold one for long.
//!
//! Owns the limits in time and size. A connection serves one request: sign-ups are rare, and what is not kept open cannot be
//! held open.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Door, Waitlist,
    answer::{Answer, address, client},
    rate::{Rate, Rates},
};
use crate::{agent::locked, clock::Clock};

/// How much and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often one client may send an address.
    pub rate: Rate,
    /// Longest form.
    pub form_bytes_max: usize,
    /// The head of a request, and then its body, must be there within this.
    pub patience: Duration,
    /// Connections beside each other; more wait to be accepted.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rate: Rate { burst: 10, interval: Duration::from_secs(6), clients_max: 10_000 },
            form_bytes_max: 4096,
            patience: Duration::from_secs(5),
            connections_max: 128,
        }
    }
}

/// So much of a form that is too long is read nevertheless, so that its sender reads the answer rather than a reset.
const READ_MAX: usize = 1 << 20;

struct Desk {
    waitlist: Arc<Waitlist>,
    door: Door,
    clock: Arc<dyn Clock>,
    rates: Mutex<Rates>,
}

pub(super) async fn serve(
    waitlist: Arc<Waitlist>,
    listener: TcpListener,
    door: Door,
    clock: Arc<dyn Clock>,
    ended: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(door.limits.connections_max));
    let rates = Mutex::new(Rates::new(door.limits.rate));
    let desk = Arc::new(Desk { waitlist, door, clock, rates });
    if let Ok(listen) = listener.local_addr() {
        tracing::info!(%listen, "the waitlist is open");
    }
    loop {
        let next = async {
            // Closed only with the process.
            let place = places.clone().acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = ended.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (desk, ended) = (desk.clone(), ended.clone());
                let one = async move {
                    tokio::select! {
                        () = one_request(desk, stream, peer) => {}
                        () = ended.cancelled() => {}
                    }
                    drop(place);
                };
                tokio::spawn(one.in_current_span());
            }
            Err(error) => {
                // Out of descriptors, most likely: others must give some back first.
                tracing::warn!(%error, "the waitlist cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn one_request(desk: Arc<Desk>, stream: TcpStream, peer: SocketAddr) {
    let patience = desk.door.limits.patience;
    let service = hyper::service::service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, std::convert::Infallible>(desk.answer(peer.ip(), request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // Head, body, disk, and a reader that takes the answer: nobody needs longer. What breaks off is the other side's business.
    drop(tokio::time::timeout(patience * 4, connection).await);
}

impl Desk {
    async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let answer = match *request.method() {
            Method::GET | Method::HEAD => Answer::Here,
            Method::OPTIONS => Answer::Preflight,
            Method::POST => {
                let (head, body) = request.into_parts();
                self.sign_up(peer, &head.headers, body).await.unwrap_or_else(|refusal| refusal)
            }
            _ => Answer::WrongMethod,
        };
        answer.response(&self.door.origins, origin.as_ref())
    }

    async fn sign_up(&self, peer: IpAddr, headers: &HeaderMap, body: Incoming) -> Result<Answer, Answer> {
        let form = self.form(body).await?;
        locked(&self.rates).take(client(peer, headers), Instant::now()).map_err(Answer::TooOften)?;
        let email = address(&form)?;
        match self.waitlist.sign_up(email, self.clock.now()).await {
            Ok(()) => Ok(Answer::Accepted),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "nobody can sign up on the waitlist");
                Err(Answer::Closed)
            }
        }
    }

    async fn form(&self, mut body: Incoming) -> Result<Bytes, Answer> {
        let limits = &self.door.limits;
        let read = async {
            let (mut form, mut length) = (BytesMut::new(), 0);
            while let Some(frame) = body.frame().await {
                // A sender that broke off reads no answer.
                let Ok(data) = frame.map_err(|_| Answer::TooSlow)?.into_data() else { continue };
                length += data.len();
                if length <= limits.form_bytes_max {
                    form.extend_from_slice(&data);
                } else if length > READ_MAX {
                    break;
                }
            }
            if length <= limits.form_bytes_max { Ok(form.freeze()) } else { Err(Answer::TooLong) }
        };
        tokio::time::timeout(limits.patience, read).await.unwrap_or(Err(Answer::TooSlow))
    }
}
