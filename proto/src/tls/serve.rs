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
use rustls::{ServerConfig, pki_types::UnixTime, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, transport::server::Connected};

use super::connect::LEADER;
use super::identity::{IdentityError, Principal, Role, Rotating, provider, validity};
use super::limits::{Seat, Seats};
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

/// Connections of one identity, and of all who show no certificate.
const CONNECTIONS_MAX: usize = 256;
const STRANGERS_MAX: usize = 64;
/// Beyond that, so many more are told so; further ones are cut off without a word.
const CROWDED_MAX: usize = 32;
/// Long enough to be told.
const CROWDED_LIFE: Duration = Duration::from_secs(10);
/// Likewise, for whoever is at the wrong controller.
const HANG_UP_AFTER: Duration = Duration::from_millis(200);
/// Who shows no certificate has one call to make.
const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// Begins every connection of HTTP/2. A peer that has not said so much by then is cut off.
const PREFACE_BYTES: usize = 24;
const PREFACE_MAX: Duration = Duration::from_secs(10);

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
    /// It has more connections open than it may: its calls are refused.
    pub crowded: bool,
    /// Ends its connection.
    pub hanging_up: HangUp,
}

/// Of one connection; which one makes no difference between peers.
#[derive(Debug, Clone, Default)]
pub struct HangUp(CancellationToken);

impl PartialEq for HangUp {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for HangUp {}

impl Peer {
    /// Ends its connection in a moment, which is long enough for the answer that is about to be given.
    pub fn hang_up(&self) {
        self.hanging_up.0.cancel();
    }
}

/// After how long a connection is cut off, if ever. A person's lasts as long as its certificate: who wants to go on shows another one. A
/// server renews its certificate beside its connections, and may keep them.
fn life(peer: &Peer, now_seconds: u64) -> Option<Duration> {
    if peer.crowded {
        return Some(CROWDED_LIFE);
    }
    let Some(principal) = &peer.principal else { return Some(STRANGER_LIFE) };
    let until = peer.valid_until.filter(|_| matches!(principal.role, Role::Admin | Role::Operator | Role::Viewer))?;
    Some(Duration::from_secs(u64::try_from(until).unwrap_or(0).saturating_sub(now_seconds)))
}

/// An accepted connection.
pub struct Connection {
    stream: TlsStream<BoxIo>,
    peer: Peer,
    /// When it is cut off, if ever.
    ends: Option<Pin<Box<Sleep>>>,
    /// Bytes that are still to come before `begins_by`.
    preface: usize,
    begins_by: Pin<Box<Sleep>>,
    /// Somebody wants it to end; nothing, once that is known.
    hanging_up: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _seat: Seat,
}

impl Connection {
    fn new(stream: TlsStream<BoxIo>, peer: Peer, seat: Seat) -> Self {
        // By the clock that the handshake was checked with.
        let life = life(&peer, UnixTime::now().as_secs());
        let hanging_up = peer.hanging_up.0.clone().cancelled_owned();
        Self {
            stream,
            peer,
            hanging_up: Some(Box::pin(hanging_up)),
            ends: life.map(|life| Box::pin(tokio::time::sleep(life))),
            preface: PREFACE_BYTES,
            begins_by: Box::pin(tokio::time::sleep(PREFACE_MAX)),
            _seat: seat,
        }
    }

    /// Is its time over?
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if self.hanging_up.as_mut().is_some_and(|asked| asked.as_mut().poll(context).is_ready()) {
            self.hanging_up = None;
            self.ends = Some(Box::pin(tokio::time::sleep(HANG_UP_AFTER)));
        }
        let late = self.preface > 0 && self.begins_by.as_mut().poll(context).is_ready();
        late || self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready())
    }
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
        if self.is_over(context) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "its time is over")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.preface = self.preface.saturating_sub(buffer.filled().len() - before);
        read
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

/// Connections after their handshake, ready for `tonic::transport::Server::serve_with_incoming`. Whoever has several addresses to dial
/// learns in the handshake whether this process `leads`.
pub fn incoming(
    listener: Incoming,
    identity: &Rotating,
    clients: ClientCertificate,
    leads: bool,
) -> Result<impl Stream<Item = io::Result<Connection>> + Send + use<>, IdentityError> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(identity, clients, leads)?));
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

/// Who has how many connections.
#[derive(Clone, Default)]
struct Crowd {
    seats: Seats,
    standing: Seats,
}

impl Crowd {
    /// A seat, or a place to stand and be told; neither, beyond that.
    fn let_in(&self, who: &Option<Principal>) -> Option<(Seat, bool)> {
        let max = if who.is_some() { CONNECTIONS_MAX } else { STRANGERS_MAX };
        let seat = self.seats.take(who, max).map(|seat| (seat, false));
        seat.or_else(|| self.standing.take(who, CROWDED_MAX).map(|seat| (seat, true)))
    }
}

/// Handshakes under way.
struct Handshakes {
    acceptor: TlsAcceptor,
    seats: Crowd,
    running: FuturesUnordered<Handshaking>,
    /// Dropping the sender ends the handshake.
    oldest_first: BTreeMap<u64, oneshot::Sender<()>>,
    begun: u64,
}

impl Handshakes {
    fn new(acceptor: TlsAcceptor) -> Self {
        Self {
            acceptor,
            seats: Crowd::default(),
            running: FuturesUnordered::new(),
            oldest_first: BTreeMap::new(),
            begun: 0,
        }
    }

    fn begin(&mut self, stream: BoxIo) {
        if self.oldest_first.len() >= HANDSHAKES_MAX {
            self.oldest_first.pop_first();
        }
        self.begun += 1;
        let (number, acceptor, (wanted, unwanted)) = (self.begun, self.acceptor.clone(), oneshot::channel());
        let seats = self.seats.clone();
        self.oldest_first.insert(number, wanted);
        self.running.push(Box::pin(async move {
            let done = tokio::select! {
                done = handshake(acceptor, seats, stream) => done,
                _ = unwanted => Err(io::Error::other("newer connections took its place")),
            };
            (number, done)
        }));
    }
}

async fn handshake(acceptor: TlsAcceptor, crowd: Crowd, stream: BoxIo) -> io::Result<Connection> {
    let address = stream.as_ref().remote();
    let stream = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await.map_err(io::Error::other)??;
    let certificates = stream.get_ref().1.peer_certificates();
    let leaf = certificates.and_then(|chain| chain.first());
    let principal = leaf.and_then(|leaf| Principal::from_certificate(leaf));
    let validity = leaf.and_then(|leaf| validity(leaf));
    let (valid_from, valid_until) = (validity.map(|(from, _)| from), validity.map(|(_, until)| until));
    let Some((seat, crowded)) = crowd.let_in(&principal) else {
        return Err(io::Error::other("too many connections of one caller"));
    };
    Ok(Connection::new(
        stream,
        Peer { principal, valid_from, valid_until, address, crowded, hanging_up: HangUp::default() },
        seat,
    ))
}

fn server_config(identity: &Rotating, clients: ClientCertificate, leads: bool) -> Result<ServerConfig, IdentityError> {
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
    config.alpn_protocols = if leads { vec![LEADER.to_vec(), b"h2".to_vec()] } else { vec![b"h2".to_vec()] };
    Ok(config)
}

/// Who made this call.
pub fn peer<T>(request: &Request<T>) -> Option<Principal> {
    request.extensions().get::<Peer>().and_then(|peer| peer.principal.clone())
}

/// The other end of the connection that a call came over; nobody, for a call that came over none.
pub fn calling<T>(request: &Request<T>) -> Peer {
    request.extensions().get::<Peer>().cloned().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::{pin::Pin, sync::Arc, time::Duration};

    use futures::{Stream, StreamExt as _};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_rustls::{TlsConnector, client::TlsStream};

    use super::{
        BoxIo, CONNECTIONS_MAX, CROWDED_LIFE, CROWDED_MAX, ClientCertificate, Connection, Crowd, Incoming, Peer,
        STRANGER_LIFE, STRANGERS_MAX, incoming, life,
    };
    use crate::tls::{Identity, Principal, Role, Rotating, Trust};

    type Connections = Pin<Box<dyn Stream<Item = std::io::Result<Connection>> + Send>>;

    /// A server that accepts what is sent here, and clients of its fleet.
    struct Ends {
        sender: futures::channel::mpsc::UnboundedSender<std::io::Result<BoxIo>>,
        connections: Connections,
        member: Trust,
        stranger: Trust,
    }

    fn issue(issuer: &Issuer<'_, KeyPair>, ca_pem: &str, principal: &Principal) -> Rotating {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.subject_alt_names = vec![
            SanType::DnsName(principal.dns_name().try_into().unwrap()),
            SanType::URI(principal.uri().try_into().unwrap()),
        ];
        let certificate_pem = params.signed_by(&key, issuer).unwrap().pem();
        Rotating::new(Identity { certificate_pem, key_pem: key.serialize_pem(), ca_pem: ca_pem.to_owned() }).unwrap()
    }

    fn ends() -> Ends {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let server = issue(&issuer, &ca_pem, &Principal::controller());
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let listener: Incoming = Box::pin(receiver);
        let connections = Box::pin(incoming(listener, &server, ClientCertificate::Optional, false).unwrap());
        let member = Trust::Mutual(issue(&issuer, &ca_pem, &Principal::agent("nyc")));
        Ends { sender, connections, member, stranger: Trust::CaOnly(ca_pem) }
    }

    impl Ends {
        async fn connect(&mut self, trust: &Trust) -> (TlsStream<DuplexStream>, Connection) {
            let (near, far) = tokio::io::duplex(64 << 10);
            self.sender.unbounded_send(Ok(Box::new(far) as BoxIo)).unwrap();
            let name = Principal::controller().dns_name().try_into().unwrap();
            let connector = TlsConnector::from(Arc::new(trust.client_config().unwrap()));
            let (client, server) = tokio::join!(connector.connect(name, near), self.connections.next());
            (client.unwrap(), server.unwrap().unwrap())
        }
    }

    /// For how many seconds the server reads on, when the client says so much at once and nothing more.
    async fn patience(trust: impl Fn(&Ends) -> Trust, says: &[u8]) -> u64 {
        let mut ends = ends();
        let trust = trust(&ends);
        let (mut client, mut server) = ends.connect(&trust).await;
        client.write_all(says).await.unwrap();
        client.flush().await.unwrap();
        let begun = tokio::time::Instant::now();
        let reading = async { while matches!(server.read(&mut [0; 64]).await, Ok(1..)) {} };
        // Longer than anybody is cut off after.
        drop(tokio::time::timeout(Duration::from_secs(3600), reading).await);
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_behind_its_handshake_is_cut_off() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let member = |ends: &Ends| ends.member.clone();
        assert_eq!(patience(member, b"").await, 10, "no preface");
        assert_eq!(patience(member, &preface[..10]).await, 10, "half of one");
        assert_eq!(patience(member, preface).await, 3600, "a member may be idle");
        assert_eq!(patience(|ends| ends.stranger.clone(), preface).await, 60, "a stranger has one call to make");
    }

    #[test]
    fn a_persons_connection_lasts_as_long_as_its_certificate() {
        let of = |principal: Option<Principal>| Peer { principal, valid_until: Some(1000), ..Peer::default() };
        let person = |role| of(Some(Principal { role, name: "ada".into() }));
        for role in [Role::Admin, Role::Operator, Role::Viewer] {
            assert_eq!(life(&person(role), 400), Some(Duration::from_secs(600)), "{role}");
            assert_eq!(life(&person(role), 1001), Some(Duration::ZERO), "{role}");
        }
        assert_eq!(life(&of(Some(Principal::agent("nyc"))), 400), None);
        assert_eq!(life(&of(None), 400), Some(STRANGER_LIFE));
        assert_eq!(life(&Peer { crowded: true, ..person(Role::Admin) }, 400), Some(CROWDED_LIFE));
    }

    #[test]
    fn connections_beyond_the_limit_are_told_so_and_those_beyond_that_are_cut_off() {
        let crowd = Crowd::default();
        for (who, max) in [(Some(Principal::agent("nyc")), CONNECTIONS_MAX), (None, STRANGERS_MAX)] {
            let held: Vec<_> = std::iter::from_fn(|| crowd.let_in(&who)).take(10_000).collect();
            let told = held.iter().filter(|(_, crowded)| *crowded).count();
            assert_eq!((held.len(), told), (max + CROWDED_MAX, CROWDED_MAX), "{who:?}");
            assert!(
                crowd.let_in(&Some(Principal::agent("fra"))).is_some_and(|(_, crowded)| !crowded),
                "others are not"
            );
            drop(held);
            assert!(crowd.let_in(&who).is_some_and(|(_, crowded)| !crowded), "there is room again");
        }
    }
}
