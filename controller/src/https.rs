//! Requests to services on the internet: the DNS provider and the certificate authority.
//!
//! Owns one HTTPS client with the habits that a change needs to be judged by its reply: a connection of its own for each
//! request (a kept one may be closed by the other end in the moment of its use, and then nobody knows what became of the request),
//! nothing is sent twice, no redirect is followed, no reply is read without end. It knows no service, and no error of it holds a
//! URL or a header.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// Bytes of a reply, at most; a longer one is an error.
pub const REPLY_MAX: usize = 4 << 20;

/// Connections to one place that are kept for the next request.
const KEPT_MAX: usize = 8;

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until the TCP connection stands.
    pub connect: Duration,
    /// From the beginning to the last byte of the reply.
    pub total: Duration,
}

impl Default for Limits {
    /// 10 s and 30 s.
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), total: Duration::from_secs(30) }
    }
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status line's number.
    pub status: StatusCode,
    /// The head.
    pub headers: http::HeaderMap,
    /// At most [`REPLY_MAX`] bytes.
    pub body: Bytes,
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// There was no connection: the other end has not seen the request.
    #[error("no connection: {0}")]
    NotSent(String),
    /// The request, or a part of it, may have arrived.
    #[error("the reply is lost: {0}")]
    Lost(String),
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The operating system trusts nobody.
    #[error(
        "no certificate authority is trusted on this machine: {0}; install the package ca-certificates, or name a file of \
         certificates in the environment variable SSL_CERT_FILE"
    )]
    NobodyTrusted(String),
    /// A certificate that was given does not parse.
    #[error("the certificates of the authority that is to be trusted do not parse: {0}")]
    Root(String),
    /// The settings of TLS do not fit together.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Whom a client trusts.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Whom the operating system trusts.
    System,
    /// Only who is certified by these certificates, in PEM.
    Only(&'a str),
    /// Nobody: for what is on this machine and speaks without TLS.
    Nobody,
}

/// An HTTPS client. Clones share nothing that matters: there are no kept connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limits: Limits,
}

impl Client {
    /// Reads the trusted certificates once; opens no connection. It speaks plain HTTP too: whoever has a secret to send decides
    /// about the address (see [`is_private`]).
    pub fn new(trust: Trust<'_>, limits: Limits) -> Result<Self, SetupError> {
        Self::with_kept(trust, limits, 0)
    }

    /// One that keeps connections, and may send again what a kept one did not take: for requests that may be made twice.
    pub fn keeping(trust: Trust<'_>, limits: Limits) -> Result<Self, SetupError> {
        Self::with_kept(trust, limits, KEPT_MAX)
    }

    fn with_kept(trust: Trust<'_>, limits: Limits, kept: usize) -> Result<Self, SetupError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(trust)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(limits.connect));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let inner = HyperClient::builder(TokioExecutor::new())
            .pool_max_idle_per_host(kept)
            .retry_canceled_requests(kept > 0)
            // There are gateways that know the names of their own headers only as they are spelled in papers.
            .http1_title_case_headers(true)
            .build(connector);
        Ok(Self { inner, limits })
    }

    /// Sends one request; the reply's head comes within the limits, its body as fast as it comes.
    pub async fn open(&self, request: Request<Bytes>) -> Result<http::Response<Incoming>, Failed> {
        let exchange = self.inner.request(request.map(Full::new));
        let lost = || Failed::Lost(format!("none within {} s", self.limits.total.as_secs_f32()));
        let reply = tokio::time::timeout(self.limits.total, exchange).await.map_err(|_| lost())?;
        reply.map_err(
            |error| {
                if error.is_connect() { Failed::NotSent(chain(&error)) } else { Failed::Lost(chain(&error)) }
            },
        )
    }

    /// Sends one request and reads the whole reply, within the limits. Dropping the future may leave the request sent.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Reply, Failed> {
        let exchange = async {
            let reply = self.inner.request(request.map(Full::new)).await.map_err(|error| {
                if error.is_connect() { Failed::NotSent(chain(&error)) } else { Failed::Lost(chain(&error)) }
            })?;
            let (head, body) = reply.into_parts();
            let body = Limited::new(body, REPLY_MAX).collect().await;
            let body = body.map_err(|error| Failed::Lost(chain(&*error)))?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(self.limits.total, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failed::Lost(format!("none within {} s", self.limits.total.as_secs_f32()))),
        }
    }
}

fn roots(trust: Trust<'_>) -> Result<RootCertStore, SetupError> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::Nobody => {}
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            // Systems have single certificates that are too odd to be read; one that can be is enough to go on.
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let why = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
                return Err(SetupError::NobodyTrusted(why));
            }
        }
        Trust::Only(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| SetupError::Root(error.to_string()))?;
                store.add(certificate).map_err(|error| SetupError::Root(error.to_string()))?;
            }
            if store.is_empty() {
                return Err(SetupError::Root("there is none".into()));
            }
        }
    }
    Ok(store)
}

/// May a secret be sent to this address? By TLS, or without it to this very machine.
pub fn is_private(uri: &http::Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let loopback = host.parse::<std::net::IpAddr>().map_or(host == "localhost", |address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => loopback,
        _ => false,
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::{Client, Failed, Limits, SetupError, Trust, is_private};

    #[test]
    fn secrets_go_by_tls_or_stay_on_this_machine() {
        for (uri, allowed) in [
            ("https://api.dynadot.com", true),
            ("http://127.0.0.1:8053", true),
            ("http://[::1]:8053", true),
            ("http://localhost:8053", true),
            ("http://api.dynadot.com", false),
            ("http://127.0.0.1.example.com", false),
            ("/restful", false),
        ] {
            assert_eq!(is_private(&uri.parse().unwrap()), allowed, "{uri}");
        }
    }

    #[test]
    fn whom_to_trust_must_be_said_readably() {
        for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let made = Client::new(Trust::Only(pem), Limits::default());
            assert!(matches!(made, Err(SetupError::Root(_))), "{pem}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_has_seen_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::new(Trust::Nobody, Limits::default()).unwrap();
        let request = http::Request::get(format!("http://{address}/secret")).body(bytes::Bytes::new()).unwrap();
        let failed = client.send(request).await.unwrap_err();
        assert!(matches!(&failed, Failed::NotSent(_)), "{failed}");
        assert!(!failed.to_string().contains("secret"), "{failed}");
    }
}
