//! The reverse proxy, in our verbs.
//!
//! Owns the seam between the agent and whatever answers the server's public port. Level-triggered: the agent says which
//! routes must hold, the router makes it so and leaves every other route alone. `router/caddy.rs` is the only file that
//! knows Caddy's JSON; `router/fake.rs` keeps the same contract in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use feather_proto::ids::TenantName;
use tokio::time::Instant;

pub mod caddy;
#[doc(hidden)]
pub mod contract;
pub mod fake;

/// What can go wrong with the proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin API does not answer; whether it applied the change is unknown.
    #[error("Caddy's admin API does not answer at {address}; is Caddy running?")]
    Unreachable {
        /// Where it was asked.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The configuration has no place for our routes.
    #[error("{0}")]
    Unsuitable(String),
    /// The files that the proxy looks at cannot be written or read.
    #[error("cannot write the routes in {path}; check the disk of the state directory, then try again")]
    Files {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The admin API refused the change and kept the old configuration.
    #[error("Caddy refused the change: {0}")]
    Refused(String),
}

/// What happens to requests for a tenant's host name on this server.
#[derive(Clone, PartialEq, Eq)]
pub enum Route {
    /// Go to the tenant's loopback port.
    Serve {
        /// Loopback port.
        port: u16,
    },
    /// Are answered 503 with `Retry-After`: the tenant lives here and does not run.
    Unavailable,
    /// Wait: they go to a socket that takes them in and answers when it is decided where the tenant lives. See [`crate::gate`].
    Hold {
        /// The socket; an absolute path.
        gate: PathBuf,
        /// Loopback port that the tenant was served from; what is under way there stays countable.
        port: u16,
    },
    /// Go to another server's Caddy, host name kept, with a hop mark; a request that carries [`HOPS_MAX`] already is answered 508.
    Forward {
        /// A [`ForwardTarget`](feather_proto::forward::ForwardTarget).
        to: String,
    },
    /// Only requests that carry the one-time probe header go to the port; all others go to `otherwise`, if any, or find no route.
    Probe {
        /// Loopback port.
        port: u16,
        /// Secret value of the header `Feather-Probe`.
        token: String,
        /// The public's route meanwhile.
        otherwise: Option<Box<Route>>,
    },
    /// Whatever somebody else wrote for the tenant stays as it is, also when this file has no word for it.
    Foreign,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Route::Serve { port } => write!(formatter, "serve :{port}"),
            Route::Unavailable => formatter.write_str("unavailable"),
            Route::Hold { port, .. } => write!(formatter, "hold, was :{port}"),
            Route::Forward { to } => write!(formatter, "forward {to}"),
            Route::Probe { port, otherwise, .. } => write!(formatter, "probe :{port}, otherwise {otherwise:?}"),
            Route::Foreign => formatter.write_str("somebody else's"),
        }
    }
}

/// Name of the header that opens a probe route.
pub const PROBE_HEADER: &str = "Feather-Probe";
/// Name of the header that marks a forwarded request: the name of each server that sent it on, and [`HOP_MARK`].
pub const HOP_HEADER: &str = "Feather-Forwarded-By";
/// Ends each name in [`HOP_HEADER`].
pub const HOP_MARK: char = '>';
/// A request is sent on so often. While a tenant moves, whoever has not heard of it yet sends its requests to where it lived, and
/// that server sends them on: several hops in a row are no loop. A gate and its own proxy count as one each.
pub const HOPS_MAX: usize = 5;
/// Name of the header that marks this server's own requests to its own proxy: they need no certificate. Heard from loopback
/// addresses only.
pub const INSIDE_HEADER: &str = "Feather-Inside";

/// How the servers of a fleet recognise each other's proxies. A file of that name never changes its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// PEM file with this server's certificate of the fleet, and its key.
    pub certificate: PathBuf,
    /// PEM file with the fleet's CA.
    pub ca: PathBuf,
}

/// What is under way to a port at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Requests and streams alike.
    pub count: u64,
    /// The near ends of all connections to the port, by which one knows each of them again; there may be others than the proxy's.
    /// A request through one of our own routes has a connection of its own.
    pub connections: BTreeSet<SocketAddr>,
}

/// The reverse proxy.
#[async_trait]
pub trait Router: Send + Sync {
    /// Makes the routes of tenants exactly these. No request is lost by that, neither of a tenant whose route changes nor of any
    /// other. A route that somebody else wrote and that does what it should is as good as ours. When the proxy does not answer
    /// the routes may have been made all the same. Returns whether a change was made.
    async fn ensure(&self, routes: &BTreeMap<TenantName, Route>) -> Result<bool, Error> {
        self.ensure_among(routes, None).await
    }
    /// The same for tenants that are `known`, if given: whatever the proxy has for anybody else is as [`Route::Foreign`], also when somebody
    /// writes it while the change is being made.
    async fn ensure_among(
        &self,
        routes: &BTreeMap<TenantName, Route>,
        known: Option<&BTreeSet<TenantName>>,
    ) -> Result<bool, Error>;
    /// The routes of tenants as the proxy has them now; [`Route::Foreign`] for one that does something else than any of ours.
    async fn observe(&self) -> Result<BTreeMap<TenantName, Route>, Error>;
    /// From now on other servers are recognised by this link, and find it here if this proxy speaks TLS. Returns whether a change
    /// was made.
    async fn ensure_link(&self, link: &Link) -> Result<bool, Error>;
    /// `host:port` at which a request with [`INSIDE_HEADER`] enters the routes from inside of this server, without TLS.
    fn entrance(&self) -> String;
    /// When a request last came for a tenant whose route is a [`Route::Forward`], as far as known: at the latest since it is one, or
    /// since this process looks. `None` for any other, and where that cannot be told. A stream counts when it begins.
    fn last_asked(&self, tenant: &TenantName) -> Option<Instant>;
    /// Requests and streams that are under way to a loopback port; none are counted when no route names it.
    async fn in_flight(&self, port: u16) -> Result<UnderWay, Error>;
    /// One `GET /health` by host name through the proxy's public port, with the probe header when a token is given; the status code.
    async fn probe(&self, tenant: &TenantName, token: Option<&str>, limit: Duration) -> Result<u16, Error>;
    /// Whatever is for no tenant goes to this loopback port, behind all routes of tenants and in place of a route by hand that
    /// leads elsewhere; without a port there is no such route of ours, and one by hand is left alone. Compares first, like
    /// [`Router::ensure`]. Returns whether a change was made.
    async fn ensure_admin(&self, port: Option<u16>) -> Result<bool, Error>;
    /// The port that gets it now, whoever wrote that route.
    async fn observe_admin(&self) -> Result<Option<u16>, Error>;
    /// Has the proxy's process ended and started again by whoever keeps it. [`Error::Unsuitable`] when nobody said how, or that
    /// did not work.
    async fn restart(&self) -> Result<(), Error>;
}
