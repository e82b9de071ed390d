//! The dialling end: gRPC channels over mutual TLS, and the first contact of a server that knows only a fingerprint.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt as _, future::BoxFuture};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName as TlsName, UnixTime},
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;
use tonic::{body::Body, service::interceptor::InterceptedService, transport::Endpoint};
use tower::Service;

use super::{
    identity::{IdentityError, Principal, Rotating, provider, validity},
    revoked::Revoked,
    serve::{BoxIo, Peer},
    watched::Watched,
};
use crate::{
    error::{Error, reason},
    trace::Onward,
    version::{Heard, Range},
};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// HTTP/2 windows measured to carry a volume at full speed.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A peer that vanished without a word is noticed within the sum of these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How byte streams are opened: TCP, or a pipe in memory.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Connects to `host:port`.
    async fn dial(&self, address: &str) -> io::Result<BoxIo>;
}

/// Plain TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, address: &str) -> io::Result<BoxIo> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// How long one of several addresses may take, as long as others are left.
const NEXT_AFTER: Duration = Duration::from_millis(1500);

/// What a controller that leads says it speaks, and it is HTTP/2 all the same: a name for ALPN (RFC 7301), so that the handshake tells
/// leaders from those that wait. Whoever does not know it, on either side, says `h2`.
pub(super) const LEADER: &[u8] = b"feather-leader";

/// The addresses in `host:port` or `host:port,host:port`.
fn each(addresses: &str) -> Vec<String> {
    addresses.split(',').map(|one| one.trim().to_owned()).collect()
}

/// Connects to the first that answers of one or several addresses: `host:port`, `host:port,host:port`. Whether it leads is not looked at.
pub async fn dial_any(dial: &dyn Dial, addresses: &str) -> io::Result<BoxIo> {
    let connect = |address: String| async move { dial.dial(&address).await }.boxed();
    first(each(addresses), connect, |_| true).await
}

/// Connects to the one that `fits` of some addresses, else to the first that answered. All but the last have a short time each.
async fn first<'a, T>(
    addresses: Vec<String>,
    connect: impl Fn(String) -> BoxFuture<'a, io::Result<T>>,
    fits: impl Fn(&T) -> bool,
) -> io::Result<T> {
    if let [only] = &addresses[..] {
        return connect(only.clone()).await;
    }
    let (mut answered, mut failed, last) = (None, Vec::new(), addresses.len() - 1);
    for (number, address) in addresses.into_iter().enumerate() {
        let connecting = connect(address.clone());
        let connected = match number == last && answered.is_none() {
            true => connecting.await,
            false => tokio::time::timeout(NEXT_AFTER, connecting)
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))),
        };
        match connected {
            Ok(one) if fits(&one) => return Ok(one),
            Ok(one) => drop(answered.get_or_insert(one)),
            Err(error) => failed.push((address, error)),
        }
    }
    answered.ok_or_else(|| all_failed(failed))
}

/// What is wrong with an identity is said as it is; the rest says what each address did.
fn all_failed(mut failed: Vec<(String, io::Error)>) -> io::Error {
    let of_tls = failed.iter().position(|(_, error)| error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()));
    if let Some(place) = of_tls {
        return failed.swap_remove(place).1;
    }
    let kind = failed.last().map_or(io::ErrorKind::InvalidInput, |(_, error)| error.kind());
    let all: Vec<String> = failed.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    io::Error::new(kind, all.join("; "))
}

/// What calls are made over. Each of them says which trace it belongs to, and which versions of the protocol this process speaks.
#[derive(Debug, Clone)]
pub struct Channel {
    calls: InterceptedService<tonic::transport::Channel, Onward>,
    heard: Heard,
}

impl Channel {
    /// What is known of the versions that the other end speaks.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// The same way, for somebody of another release: one that speaks these versions, or that says nothing of any.
    #[must_use]
    pub fn saying(self, versions: Option<Range>) -> Self {
        Self { heard: self.heard.saying(versions), ..self }
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.calls, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        self.heard.stamp(request.headers_mut());
        let (heard, path) = (self.heard.clone(), request.uri().path().to_owned());
        let answering = self.calls.call(request);
        Box::pin(async move { Ok(heard.judge(&path, answering.await?.map(Body::new))) })
    }
}

/// A channel that connects when first used, and again when the connection broke. Of several addresses with commas between them it is the
/// one at which a controller leads, else the first that answers. The peer must prove to be `expected`.
///
/// Without an identity the peer is checked against `ca_pem` alone; only a joining agent calls so.
pub fn channel(
    dial: Arc<dyn Dial>,
    address: &str,
    expected: &Principal,
    trust: &Trust,
) -> Result<Channel, IdentityError> {
    let config = Arc::new(trust.client_config()?);
    let revoked = match trust {
        Trust::Mutual(identity) => identity.revoked().clone(),
        Trust::CaOnly(_) => Revoked::default(),
    };
    let name = tls_name(&expected.dns_name())?;
    let address = address.to_owned();
    let connector = tower::service_fn(move |_uri: http::Uri| {
        let (dial, config, name, address) = (dial.clone(), config.clone(), name.clone(), address.clone());
        let revoked = revoked.clone();
        async move {
            let connector = TlsConnector::from(config);
            let one = |address: String| {
                let (dial, connector, name) = (dial.clone(), connector.clone(), name.clone());
                async move { connector.connect(name, dial.dial(&address).await?).await }.boxed()
            };
            let connect = first(each(&address), one, |stream| stream.get_ref().1.alpn_protocol() == Some(LEADER));
            let stream = tokio::time::timeout(CONNECT_MAX, connect).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_MAX.as_secs()))
            })??;
            // A machine that was taken out of the fleet may still answer where it did.
            let peer = met(stream.get_ref().1);
            revoked.check(&peer).map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(Watched::new(stream, &revoked, &peer)))
        }
    });
    // The authority is never resolved: the connector knows the address. It appears in `:authority` only.
    let channel = Endpoint::from_static("http://feather.internal")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector);
    Ok(Channel { calls: InterceptedService::new(channel, Onward), heard: Heard::of(expected) })
}

/// What a dialling process trusts, and what it shows.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Mutual TLS with this identity.
    Mutual(Rotating),
    /// Trust this CA, show nothing.
    CaOnly(String),
}

impl Trust {
    pub(super) fn client_config(&self) -> Result<ClientConfig, IdentityError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| IdentityError::Unusable(error.to_string()))?;
        let mut config = match self {
            Trust::Mutual(identity) => builder
                .with_root_certificates(identity.identity().roots()?)
                .with_client_cert_resolver(Arc::new(identity.clone())),
            Trust::CaOnly(ca_pem) => {
                let only_ca =
                    super::Identity { certificate_pem: String::new(), key_pem: String::new(), ca_pem: ca_pem.clone() };
                builder.with_root_certificates(only_ca.roots()?).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![LEADER.to_vec(), b"h2".to_vec()];
        Ok(config)
    }
}

/// Who answered.
fn met(session: &rustls::ClientConnection) -> Peer {
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let validity = leaf.and_then(|leaf| validity(leaf));
    Peer {
        principal: leaf.and_then(|leaf| Principal::from_certificate(leaf)),
        valid_from: validity.map(|(from, _)| from),
        valid_until: validity.map(|(_, until)| until),
        ..Peer::default()
    }
}

fn tls_name(name: &str) -> Result<TlsName<'static>, IdentityError> {
    TlsName::try_from(name.to_owned()).map_err(|error| IdentityError::Unusable(error.to_string()))
}

/// Fetches the fleet's CA from a controller, believing only the one whose SHA-256 fingerprint is given (lower-case
/// hexadecimal). Nothing else of this first connection is trusted; the caller dials again with the CA.
pub async fn fetch_ca(dial: &dyn Dial, address: &str, fingerprint: &str) -> Result<String, Error> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Error::unavailable(
            reason::CONTROLLER_UNREACHABLE,
            format!("the controller at {address} cannot be reached ({error}); check the address and the firewall"),
        )
    };
    let finder = Arc::new(FindCa { fingerprint: fingerprint.to_owned(), found: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::bug(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(finder.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = tls_name(&Principal::controller().dns_name()).map_err(|error| Error::bug(error.to_string()))?;
    let connect = async {
        let stream = dial_any(dial, address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let outcome = tokio::time::timeout(CONNECT_MAX, connect).await.map_err(|error| unreachable(&error))?;
    let found = finder.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (found, outcome) {
        (Some(ca_pem), _) => Ok(ca_pem),
        (None, Err(error)) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => Err(Error::denied(
            reason::JOIN_TOKEN,
            format!(
                "{address} is not the controller that made this token (its CA has another fingerprint); ask for a new token"
            ),
        )),
        (None, Err(error)) => Err(unreachable(&error)),
        (None, Ok(_)) => Err(Error::bug("handshake without a verified certificate")),
    }
}

#[derive(Debug)]
struct FindCa {
    fingerprint: String,
    found: Mutex<Option<String>>,
}

impl ServerCertVerifier for FindCa {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &TlsName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(leaf).chain(intermediates);
        let Some(ca) = all.into_iter().find(|certificate| sha256_hex(certificate) == self.fingerprint) else {
            return Err(rustls::Error::General("no certificate with the expected fingerprint".into()));
        };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(pem(ca));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use futures::FutureExt as _;

    use super::{each, first};

    /// Says what is at each address: `leads`, `waits`, `silent`, or nothing.
    async fn found(addresses: &str) -> io::Result<String> {
        let connect = |address: String| {
            async move {
                match &address[..] {
                    "silent" => std::future::pending().await,
                    "gone" => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                    "other fleet" => Err(io::Error::other(rustls::Error::DecryptError)),
                    _ => Ok(address),
                }
            }
            .boxed()
        };
        first(each(addresses), connect, |one| one == "leads").await
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leads_is_found_among_all_that_answer() {
        for (addresses, expected) in [
            ("leads", "leads"),
            ("waits", "waits"),
            ("waits, leads", "leads"),
            ("gone,silent,waits,leads,waits", "leads"),
            ("gone,waits,also waits,silent", "waits"),
            ("silent,waits", "waits"),
        ] {
            let found = tokio::time::timeout(Duration::from_secs(4), found(addresses)).await.expect("in time");
            assert_eq!(found.unwrap(), expected, "{addresses}");
        }
        let error = found("gone,silent,gone").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("gone: connection refused; silent: timed out; gone: "), "{error}");
        let error = found("gone,other fleet,gone").await.unwrap_err();
        assert!(error.get_ref().unwrap().is::<rustls::Error>(), "what a person can mend is said: {error}");
    }
}
