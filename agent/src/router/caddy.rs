//! The proxy for real: Caddy, whose configuration never changes, and files that it looks at for each request.
//!
//! Owns the order: first the files, which are what changes (`caddy/files.rs`), then Caddy's list of routes, which is compared
//! with what it should be and replaced only when somebody else changed it or Caddy started anew (`caddy/routes.rs`): guarded by
//! the entity tag, read again whenever the outcome is unknown. Nothing else in the project knows Caddy's JSON.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use feather_proto::ids::TenantName;
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

use self::{
    admin::{Admin, Failure, Routes},
    certificates::desired_certificates,
    files::{Entry, Files},
    routes::{Plan, Style, is_our_admin, is_ours, plan, plan_admin},
    traffic::Traffic,
};
use super::{Error, INSIDE_HEADER, Link, PROBE_HEADER, Route, Router, UnderWay};

mod address;
mod admin;
mod base;
mod certificates;
mod connections;
#[doc(hidden)]
pub mod contract;
mod files;
mod restart;
mod routes;
mod traffic;

pub use address::{ADMIN_SOCKET, AdminAddress, BadAddress};
pub use base::base;

/// How often a change is tried when somebody else changes the configuration, or replies get lost.
const ATTEMPTS: u32 = 5;
/// The first pause between attempts; it doubles. Caddy replaces its admin listener at each change, by us or others.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The file with the tenants' certificate, and what Caddy shows to itself to get it.
#[derive(Clone)]
pub struct CertificateSource {
    /// Folder of the file; nothing else is in it.
    pub folder: PathBuf,
    /// Letters and digits.
    pub secret: String,
}

impl fmt::Debug for CertificateSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CertificateSource").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Where Caddy is and what it serves.
#[derive(Debug, Clone)]
pub struct CaddyOptions {
    /// Admin API.
    pub admin: AdminAddress,
    /// Name of the HTTP server in Caddy's configuration that gets the routes.
    pub server: String,
    /// Tenants are `{name}.{domain_suffix}`.
    pub domain_suffix: String,
    /// The public port as this machine reaches it, for example `http://127.0.0.1:80`.
    pub public: String,
    /// Folder for the files that routes are.
    pub routes: PathBuf,
    /// Folder of the gates' sockets.
    pub gates: PathBuf,
    /// Ports for tenants.
    pub ports: RangeInclusive<u16>,
    /// Was Caddy started to speak TLS?
    pub speaks_tls: bool,
    /// The fleet's CA, if it is known at the start; [`Router::ensure_link`] says it later.
    pub fleet_ca: Option<PathBuf>,
    /// Where Caddy gets the certificate of the tenants' names; only what it is started with depends on it.
    pub certificate: Option<CertificateSource>,
    /// Longest wait for one answer of the admin API.
    pub timeout: Duration,
    /// Program and arguments that have Caddy restarted when it hangs; empty when there is no such thing.
    pub restart: Vec<String>,
}

impl CaddyOptions {
    /// Caddy as a birth container runs it.
    pub fn new(domain_suffix: impl fmt::Display, state_dir: &Path) -> Self {
        Self {
            admin: AdminAddress::of_a_birth(),
            server: base::SERVER.to_owned(),
            domain_suffix: domain_suffix.to_string(),
            public: "http://127.0.0.1:80".to_owned(),
            routes: state_dir.join("routes"),
            gates: state_dir.join("gates"),
            ports: 9001..=9010,
            speaks_tls: false,
            fleet_ca: None,
            certificate: None,
            timeout: Duration::from_secs(10),
            restart: Vec::new(),
        }
    }
}

/// Caddy behind its admin API.
pub struct Caddy {
    options: CaddyOptions,
    files: Files,
    traffic: Arc<Traffic>,
    admin: Admin,
    http: reqwest::Client,
    /// Caddy 2.6 refuses the field that keeps open streams alive over a change; found out by trying.
    refuses_stream_close_delay: AtomicBool,
    /// What other servers are recognised by, once this one has joined them.
    fleet_ca: std::sync::RwLock<Option<PathBuf>>,
    /// One change at a time: our own would only make each other stale.
    changing: Mutex<()>,
}

/// What somebody asked for.
enum Aim<'a> {
    /// Routes, and whose they are at most.
    Tenants(&'a BTreeMap<TenantName, Route>, Option<&'a BTreeSet<TenantName>>),
    Admin(Option<u16>),
}

/// What shall be made so.
enum Want<'a> {
    Tenants(Cow<'a, BTreeMap<TenantName, Route>>),
    Admin(Option<u16>),
}

impl Want<'_> {
    fn plan(&self, current: &[Value], style: &Style<'_>) -> Plan {
        match self {
            Want::Tenants(want) => plan(current, want, style),
            Want::Admin(port) => plan_admin(current, *port, style),
        }
    }
}

enum Step {
    Done(bool),
    /// Somebody else was faster, or the outcome is unknown.
    Again(Error),
}

impl Caddy {
    /// Prepares to talk to Caddy, which need not run yet and may be restarted.
    pub fn new(options: CaddyOptions) -> Result<Self, Error> {
        let builder = || {
            // No pool: the admin listener is replaced at each change, and a kept connection would be a dead one.
            let builder = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy();
            builder.redirect(reqwest::redirect::Policy::none())
        };
        let impossible = |error| unreachable(&options.admin, error);
        Ok(Self {
            admin: Admin::new(options.admin.client(builder()).map_err(impossible)?, &options),
            http: builder().build().map_err(impossible)?,
            refuses_stream_close_delay: AtomicBool::new(false),
            fleet_ca: std::sync::RwLock::new(options.fleet_ca.clone()),
            changing: Mutex::new(()),
            files: Files::of(&options),
            traffic: Arc::default(),
            options,
        })
    }

    fn style(&self) -> Style<'_> {
        Style {
            fleet_ca: self.fleet_ca.read().unwrap_or_else(PoisonError::into_inner).clone(),
            ..Style::of(&self.options, &self.files, !self.refuses_stream_close_delay.load(Ordering::Relaxed))
        }
    }

    async fn read(&self) -> Result<Routes, Error> {
        self.admin.routes().await.map_err(|failure| self.told(failure))
    }

    /// A reading that outlasts the replacement of the admin listener.
    async fn read_patiently(&self) -> Result<Routes, Error> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.read().await {
                Err(Error::Unreachable { .. }) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
        self.read().await
    }

    /// The files first: they are what requests look at, and they need no answer of Caddy's.
    async fn write_files(&self, want: &Want<'_>, plan: &Plan) -> Result<bool, Error> {
        let (files, traffic) = (self.files.clone(), Arc::clone(&self.traffic));
        let written = match want {
            Want::Tenants(routes) => {
                let routes = routes.as_ref();
                let forwards = routes.iter().filter(|(_, route)| matches!(route, Route::Forward { .. }));
                let forwards = forwards.map(|(tenant, _)| (tenant.clone(), files.folder(tenant))).collect();
                let entry = |(tenant, route): (&TenantName, &Route)| {
                    let by_hand = plan.by_hand.contains(tenant) && *route != Route::Foreign;
                    (tenant.clone(), if by_hand { Entry::none() } else { Entry::of(route) })
                };
                let entries = routes.iter().map(entry).collect();
                blocking(move || traffic.apart(&forwards, || files.apply(&entries))).await
            }
            Want::Admin(port) => {
                let port = port.filter(|_| !plan.admin_by_hand);
                blocking(move || files.apply_admin(port)).await
            }
        };
        written.map_err(|source| self.untouchable(source))
    }

    /// Everything that is here now for tenants that are not known stays: looked at for each try, because it is somebody else who writes it.
    async fn with_strangers<'a>(&self, aim: &Aim<'a>, current: &[Value]) -> Result<Want<'a>, Error> {
        let (wanted, known) = match *aim {
            Aim::Admin(port) => return Ok(Want::Admin(port)),
            Aim::Tenants(wanted, None) => return Ok(Want::Tenants(Cow::Borrowed(wanted))),
            Aim::Tenants(wanted, Some(known)) => (wanted, known),
        };
        let here = self.read_files().await?.into_keys().chain(current.iter().filter_map(routes::tenant_of));
        let strangers = here.filter(|tenant| !known.contains(tenant) && !wanted.contains_key(tenant));
        let strangers: BTreeMap<_, _> = strangers.map(|tenant| (tenant, Route::Foreign)).collect();
        Ok(Want::Tenants(if strangers.is_empty() {
            Cow::Borrowed(wanted)
        } else {
            Cow::Owned(wanted.clone().into_iter().chain(strangers).collect())
        }))
    }

    /// What the files of routes say; that the folders are looked at counts as nobody's request.
    async fn read_files(&self) -> Result<BTreeMap<TenantName, Route>, Error> {
        let (files, traffic) = (self.files.clone(), Arc::clone(&self.traffic));
        let read = blocking(move || traffic.unnoticed(|| files.read())).await;
        read.map_err(|source| self.untouchable(source))
    }

    async fn step(&self, aim: &Aim<'_>) -> Result<Step, Error> {
        let current = match self.read_patiently().await {
            Ok(current) => current,
            Err(error) => {
                if matches!(error, Error::Unreachable { .. }) {
                    let want = &self.with_strangers(aim, &[]).await?;
                    self.write_files(want, &want.plan(&[], &self.style())).await?;
                }
                return Err(error);
            }
        };
        let want = &self.with_strangers(aim, &current.list).await?;
        let plan = want.plan(&current.list, &self.style());
        let written = self.write_files(want, &plan).await?;
        let desired = plan.list;
        if desired == current.list {
            return Ok(Step::Done(written));
        }
        match self.admin.replace(&current, &desired).await {
            Ok(()) => Ok(Step::Done(true)),
            Err(Failure::Stale) => {
                Ok(Step::Again(Error::Refused("its configuration is being changed by somebody else".to_owned())))
            }
            Err(failure @ Failure::Unreachable(_)) => {
                let error = self.told(failure);
                // Applied or not? Only a look tells; our own change must not be taken for somebody else's.
                let found = self.read_patiently().await?;
                Ok(if found.list == desired { Step::Done(true) } else { Step::Again(error) })
            }
            Err(failure @ Failure::Refused(_)) if self.style().stream_close_delay => {
                self.without_stream_close_delay(&current, want, failure).await
            }
            Err(failure) => Err(self.told(failure)),
        }
    }

    async fn without_stream_close_delay(
        &self,
        current: &Routes,
        want: &Want<'_>,
        first: Failure,
    ) -> Result<Step, Error> {
        let style = Style { stream_close_delay: false, ..self.style() };
        let desired = want.plan(&current.list, &style).list;
        let outcome = if desired == current.list { Ok(()) } else { self.admin.replace(current, &desired).await };
        match outcome {
            Ok(()) => {
                self.refuses_stream_close_delay.store(true, Ordering::Relaxed);
                tracing::warn!(
                    "this Caddy has no stream_close_delay: each change of routes cuts open WebSockets; 2.7 or later keeps them"
                );
                Ok(Step::Done(desired != current.list))
            }
            // Refused both ways: it was not the field.
            Err(Failure::Refused(_)) => Err(self.told(first)),
            Err(failure) => Ok(Step::Again(self.told(failure))),
        }
    }

    async fn change(&self, aim: &Aim<'_>) -> Result<bool, Error> {
        let _one_at_a_time = self.changing.lock().await;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match self.step(aim).await? {
                Step::Done(changed) => return Ok(changed),
                Step::Again(error) if attempt == ATTEMPTS => return Err(error),
                Step::Again(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    fn untouchable(&self, source: io::Error) -> Error {
        Error::Files { path: self.options.routes.clone(), source }
    }

    fn told(&self, failure: Failure) -> Error {
        match failure {
            Failure::Unreachable(source) => Error::Unreachable { address: self.options.admin.to_string(), source },
            Failure::NoServer => Error::Unsuitable(format!(
                "Caddy's configuration has no HTTP server named {:?}, so there is no place for the routes of tenants; start \
                 Caddy with what `feather-agent caddy-config` prints, or say how the server is called there (--caddy-server, \
                 FEATHER_AGENT_CADDY_SERVER)",
                self.options.server
            )),
            Failure::Stale => Error::Refused("its configuration is being changed by somebody else".to_owned()),
            Failure::Refused(message) => Error::Refused(message),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn unreachable(address: impl fmt::Display, error: reqwest::Error) -> Error {
    Error::Unreachable { address: address.to_string(), source: error.without_url().into() }
}

/// Header values are patterns to Caddy; a token that is one would let strangers in.
fn refuse_patterns(routes: &BTreeMap<TenantName, Route>) -> Result<(), Error> {
    let plain = |token: &str| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match routes.iter().find(|(_, route)| matches!(route, Route::Probe { token, .. } if !plain(token))) {
        Some((tenant, _)) => {
            Err(Error::Unsuitable(format!("the probe token for {tenant} must be letters and digits only")))
        }
        None => Ok(()),
    }
}

#[async_trait]
impl Router for Caddy {
    async fn ensure_among(
        &self,
        routes: &BTreeMap<TenantName, Route>,
        known: Option<&BTreeSet<TenantName>>,
    ) -> Result<bool, Error> {
        refuse_patterns(routes)?;
        self.change(&Aim::Tenants(routes, known)).await
    }

    async fn ensure_admin(&self, port: Option<u16>) -> Result<bool, Error> {
        self.change(&Aim::Admin(port)).await
    }

    async fn observe_admin(&self) -> Result<Option<u16>, Error> {
        let current = self.read_patiently().await?.list;
        if current.iter().any(is_our_admin) {
            let files = self.files.clone();
            return blocking(move || files.read_admin()).await.map_err(|source| self.untouchable(source));
        }
        Ok(routes::parse_admin(&current))
    }

    async fn restart(&self) -> Result<(), Error> {
        restart::run(&self.options.restart).await
    }

    async fn observe(&self) -> Result<BTreeMap<TenantName, Route>, Error> {
        let current = self.read_patiently().await?.list;
        let mut routes = BTreeMap::new();
        if current.iter().any(is_ours) {
            routes = self.read_files().await?;
        }
        // A route by hand comes before ours.
        routes.extend(current.iter().filter_map(routes::parse));
        Ok(routes)
    }

    async fn ensure_link(&self, link: &Link) -> Result<bool, Error> {
        *self.fleet_ca.write().unwrap_or_else(PoisonError::into_inner) = Some(link.ca.clone());
        if !self.options.speaks_tls {
            return Ok(false);
        }
        let _one_at_a_time = self.changing.lock().await;
        let current = self.admin.certificates().await.map_err(|failure| self.told(failure))?;
        let desired = desired_certificates(&current, link);
        if desired == current {
            return Ok(false);
        }
        self.admin.set_certificates(&desired).await.map_err(|failure| self.told(failure))?;
        Ok(true)
    }

    fn entrance(&self) -> String {
        self.options.public.trim_start_matches("http://").to_owned()
    }

    fn last_asked(&self, tenant: &TenantName) -> Option<Instant> {
        self.traffic.last(tenant)
    }

    async fn in_flight(&self, port: u16) -> Result<UnderWay, Error> {
        let addresses = [routes::loopback(port), routes::by_hand(port)];
        let count = self.admin.in_flight(&addresses).await.map_err(|failure| self.told(failure))?;
        Ok(UnderWay { count, connections: connections::to(port)? })
    }

    async fn probe(&self, tenant: &TenantName, token: Option<&str>, limit: Duration) -> Result<u16, Error> {
        let url = format!("{}/health", self.options.public);
        let host = tenant.host(&self.options.domain_suffix);
        let mut request =
            self.http.get(url).header(reqwest::header::HOST, host).header(INSIDE_HEADER, "probe").timeout(limit);
        if let Some(token) = token {
            request = request.header(PROBE_HEADER, token);
        }
        let response = request.send().await.map_err(|error| unreachable(&self.options.public, error))?;
        Ok(response.status().as_u16())
    }
}

#[cfg(test)]
mod tests;
