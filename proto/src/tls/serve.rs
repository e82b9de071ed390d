//! The accepting end: TLS handshakes beside each other, and the peer's principal for every call.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream::FuturesUnordered};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Request, transport::server::Connected};

use super::identity::{IdentityError, Principal, Role, Rotating, provider, validity};
use crate::error::{Error, reason};

/// A byte stream of any kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// The address at the other end, where there is one.
    fn remote(&self) -> Option<SocketAddr>;
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + Any> Io for T {
    fn remote(&self) -> Option<SocketAddr> {
        (self as &dyn Any).downcast_ref::<TcpStream>().and_then(|stream| stream.peer_addr().ok())
    }
}

/// A byte stream of any kind, boxed.
pub type BoxIo = Box<dyn Io>;

/// Connections before their handshake.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<BoxIo>> + Send>>;

/// A peer that has not finished its handshake by then is cut off.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes under way at once. One more ends the oldest: whoever opens connections and says nothing must not keep others out.
const HANDSHAKES_MAX: usize = 256;

/// The other end of the connection that a call came over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Who it proved to be, or nobody.
    pub principal: Option<Principal>,
    /// From when its certificate is valid, in seconds since 1970.
    pub valid_from: Option<i64>,
    /// Until when, likewise.
    pub valid_until: Option<i64>,
    /// Where it called from, if that is known.
    pub address: Option<SocketAddr>,
}

/// An accepted connection.
pub struct Connection {
    stream: TlsStream<BoxIo>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts TCP connections without end. An error of one accept (out of descriptors, say) is logged and never ends the stream.
pub struct TcpIncoming;

impl TcpIncoming {
    /// All connections of a listener.
    pub fn stream(listener: TcpListener) -> Incoming {
        Box::pin(futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| {
                // Small gRPC messages must not wait for a full segment; a failure here only costs latency.
                drop(stream.set_nodelay(true));
                Box::new(stream) as BoxIo
            });
            Some((accepted, listener))
        }))
    }
}

/// Who must show a certificate at the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Everybody.
    Required,
    /// Nobody; calls decide by [`require`]. For the controller, where a joining agent has none yet.
    Optional,
}

/// Connections after their handshake, ready for `tonic::transport::Server::serve_with_incoming`.
pub fn incoming(
    listener: Incoming,
    identity: &Rotating,
    clients: ClientCertificate,
) -> Result<impl Stream<Item = io::Result<Connection>> + Send + use<>, IdentityError> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(identity, clients)?));
    Ok(futures::stream::unfold((listener, Handshakes::new(acceptor)), |(mut listener, mut handshakes)| async move {
        loop {
            tokio::select! {
                biased;
                Some((number, done)) = handshakes.running.next() => {
                    handshakes.oldest_first.remove(&number);
                    match done {
                        Ok(connection) => return Some((Ok(connection), (listener, handshakes))),
                        Err(error) => tracing::debug!(%error, "handshake refused"),
                    }
                }
                accepted = listener.next() => match accepted {
                    Some(Ok(stream)) => handshakes.begin(stream),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    None => return None,
                },
            }
        }
    }))
}

type Handshaking = Pin<Box<dyn Future<Output = (u64, io::Result<Connection>)> + Send>>;

/// Handshakes under way.
struct Handshakes {
    acceptor: TlsAcceptor,
    running: FuturesUnordered<Handshaking>,
    /// Dropping the sender ends the handshake.
    oldest_first: BTreeMap<u64, oneshot::Sender<()>>,
    begun: u64,
}

impl Handshakes {
    fn new(acceptor: TlsAcceptor) -> Self {
        Self { acceptor, running: FuturesUnordered::new(), oldest_first: BTreeMap::new(), begun: 0 }
    }

    fn begin(&mut self, stream: BoxIo) {
        if self.oldest_first.len() >= HANDSHAKES_MAX {
            self.oldest_first.pop_first();
        }
        self.begun += 1;
        let (number, acceptor, (wanted, unwanted)) = (self.begun, self.acceptor.clone(), oneshot::channel());
        self.oldest_first.insert(number, wanted);
        self.running.push(Box::pin(async move {
            let done = tokio::select! {
                done = handshake(acceptor, stream) => done,
                _ = unwanted => Err(io::Error::other("newer connections took its place")),
            };
            (number, done)
        }));
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: BoxIo) -> io::Result<Connection> {
    let address = stream.as_ref().remote();
    let stream = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await.map_err(io::Error::other)??;
    let certificates = stream.get_ref().1.peer_certificates();
    let leaf = certificates.and_then(|chain| chain.first());
    let principal = leaf.and_then(|leaf| Principal::from_certificate(leaf));
    let validity = leaf.and_then(|leaf| validity(leaf));
    let (valid_from, valid_until) = (validity.map(|(from, _)| from), validity.map(|(_, until)| until));
    Ok(Connection { stream, peer: Peer { principal, valid_from, valid_until, address } })
}

fn server_config(identity: &Rotating, clients: ClientCertificate) -> Result<ServerConfig, IdentityError> {
    let unusable = |error: &dyn std::fmt::Display| IdentityError::Unusable(error.to_string());
    let roots = Arc::new(identity.identity().roots()?);
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if clients == ClientCertificate::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().map_err(|error| unusable(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Who made this call.
pub fn peer<T>(request: &Request<T>) -> Option<Principal> {
    request.extensions().get::<Peer>().and_then(|peer| peer.principal.clone())
}

/// From when the caller's certificate is valid, in seconds since 1970.
pub fn peer_valid_from<T>(request: &Request<T>) -> Option<i64> {
    request.extensions().get::<Peer>().and_then(|peer| peer.valid_from)
}

/// The caller, if it has one of these roles.
pub fn require<T>(request: &Request<T>, roles: &[Role]) -> Result<Principal, Error> {
    entitled(peer(request), roles)
}

/// A caller, if it has one of these roles.
pub fn entitled(caller: Option<Principal>, roles: &[Role]) -> Result<Principal, Error> {
    let Some(principal) = caller else {
        return Err(Error::unauthenticated(
            reason::UNAUTHENTICATED,
            "this call needs a client certificate of the fleet; point --identity (FEATHERCTL_IDENTITY) at one",
        ));
    };
    if roles.contains(&principal.role) {
        return Ok(principal);
    }
    let allowed: Vec<String> = roles.iter().map(ToString::to_string).collect();
    Err(Error::denied(reason::ROLE, format!("{principal} may not do this; it needs the role {}", allowed.join(" or "))))
}
