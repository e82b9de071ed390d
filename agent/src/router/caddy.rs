//! The proxy for real: Caddy through its admin API.
//!
//! Owns how and when the list of routes is read and replaced: compared first, guarded by the entity tag, read again whenever
//! the outcome is unknown. What routes look like is in `caddy/routes.rs`; nothing else in the project knows Caddy's JSON.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use feather_proto::ids::TenantName;
use serde_json::Value;
use tokio::sync::Mutex;

use self::{
    admin::{Admin, Failure, Routes},
    routes::{Style, desired_routes},
};
use super::{Error, INSIDE_HEADER, PROBE_HEADER, Route, Router};

mod admin;
mod base;
#[doc(hidden)]
pub mod contract;
mod restart;
mod routes;

pub use base::base;

/// How often a change is tried when somebody else changes the configuration, or replies get lost.
const ATTEMPTS: u32 = 5;
/// The first pause between attempts; it doubles. Caddy replaces its admin listener at each change, by us or others.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Where Caddy is and what it serves.
#[derive(Debug, Clone)]
pub struct CaddyOptions {
    /// Admin API, for example `http://127.0.0.1:2020`.
    pub admin: String,
    /// Name of the HTTP server in Caddy's configuration that gets the routes.
    pub server: String,
    /// Tenants are `{name}.{domain_suffix}`.
    pub domain_suffix: String,
    /// The public port as this machine reaches it, for example `http://127.0.0.1:80`.
    pub public: String,
    /// This server's name, which marks what it forwards.
    pub server_name: String,
    /// Longest wait for one answer of the admin API.
    pub timeout: Duration,
    /// Program and arguments that have Caddy restarted when it hangs; empty when there is no such thing.
    pub restart: Vec<String>,
}

impl CaddyOptions {
    /// Caddy as a birth container runs it.
    pub fn new(server_name: impl fmt::Display, domain_suffix: impl fmt::Display) -> Self {
        Self {
            admin: "http://127.0.0.1:2020".to_owned(),
            server: base::SERVER.to_owned(),
            domain_suffix: domain_suffix.to_string(),
            public: "http://127.0.0.1:80".to_owned(),
            server_name: server_name.to_string(),
            timeout: Duration::from_secs(10),
            restart: Vec::new(),
        }
    }
}

/// Caddy behind its admin API.
pub struct Caddy {
    options: CaddyOptions,
    admin: Admin,
    http: reqwest::Client,
    /// Caddy 2.6 refuses the field that keeps open streams alive over a change; found out by trying.
    refuses_stream_close_delay: AtomicBool,
    /// One change at a time: our own would only make each other stale.
    changing: Mutex<()>,
}

/// What shall be made so, in one change.
enum Want<'a> {
    Tenants(&'a BTreeMap<TenantName, Route>),
    Admin(Option<u16>),
}

impl Want<'_> {
    /// The list as it should be; the present one when that will do.
    fn desired(&self, current: &[Value], style: &Style<'_>) -> Vec<Value> {
        match self {
            Want::Tenants(want) if routes::suffice(current, want, style) => current.to_vec(),
            Want::Tenants(want) => desired_routes(current, want, style),
            Want::Admin(port) => routes::desired_admin(current, *port, style),
        }
    }

    /// Caddy may quote the configuration that it refuses.
    fn without_tokens(&self, message: String) -> String {
        let Want::Tenants(want) = self else { return message };
        want.values().fold(message, |message, route| match route {
            Route::Probe { token, .. } if !token.is_empty() => message.replace(token, "***"),
            _ => message,
        })
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
        let client = || {
            // No pool: the admin listener is replaced at each change, and a kept connection would be a dead one.
            let builder = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy();
            builder
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| unreachable(&options.admin, error))
        };
        Ok(Self {
            admin: Admin::new(client()?, &options),
            http: client()?,
            refuses_stream_close_delay: AtomicBool::new(false),
            changing: Mutex::new(()),
            options,
        })
    }

    fn style(&self) -> Style<'_> {
        Style {
            domain_suffix: &self.options.domain_suffix,
            server_name: &self.options.server_name,
            stream_close_delay: !self.refuses_stream_close_delay.load(Ordering::Relaxed),
        }
    }

    async fn read(&self) -> Result<Routes, Error> {
        self.admin.routes().await.map_err(|failure| self.told(failure, &Want::Admin(None)))
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

    async fn step(&self, want: &Want<'_>) -> Result<Step, Error> {
        let current = self.read_patiently().await?;
        let desired = want.desired(&current.list, &self.style());
        if desired == current.list {
            return Ok(Step::Done(false));
        }
        match self.admin.replace(&current, &desired).await {
            Ok(()) => Ok(Step::Done(true)),
            Err(Failure::Stale) => {
                Ok(Step::Again(Error::Refused("its configuration is being changed by somebody else".to_owned())))
            }
            Err(failure @ Failure::Unreachable(_)) => {
                let error = self.told(failure, want);
                // Applied or not? Only a look tells; our own change must not be taken for somebody else's.
                let found = self.read_patiently().await?;
                Ok(if found.list == desired { Step::Done(true) } else { Step::Again(error) })
            }
            Err(failure @ Failure::Refused(_)) if self.style().stream_close_delay => {
                self.without_stream_close_delay(&current, want, failure).await
            }
            Err(failure) => Err(self.told(failure, want)),
        }
    }

    async fn without_stream_close_delay(
        &self,
        current: &Routes,
        want: &Want<'_>,
        first: Failure,
    ) -> Result<Step, Error> {
        let style = Style { stream_close_delay: false, ..self.style() };
        let desired = want.desired(&current.list, &style);
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
            Err(Failure::Refused(_)) => Err(self.told(first, want)),
            Err(failure) => Ok(Step::Again(self.told(failure, want))),
        }
    }

    async fn change(&self, want: &Want<'_>) -> Result<bool, Error> {
        let _one_at_a_time = self.changing.lock().await;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match self.step(want).await? {
                Step::Done(changed) => return Ok(changed),
                Step::Again(error) if attempt == ATTEMPTS => return Err(error),
                Step::Again(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    fn told(&self, failure: Failure, want: &Want<'_>) -> Error {
        match failure {
            Failure::Unreachable(source) => Error::Unreachable { address: self.options.admin.clone(), source },
            Failure::NoServer => Error::Unsuitable(format!(
                "Caddy's configuration has no HTTP server named {:?}, so there is no place for the routes of tenants; start \
                 Caddy with what `feather-agent caddy-config` prints, or say how the server is called there (--caddy-server, \
                 FEATHER_AGENT_CADDY_SERVER)",
                self.options.server
            )),
            Failure::Stale => Error::Refused("its configuration is being changed by somebody else".to_owned()),
            Failure::Refused(message) => Error::Refused(want.without_tokens(message)),
        }
    }
}

fn unreachable(address: &str, error: reqwest::Error) -> Error {
    Error::Unreachable { address: address.to_owned(), source: error.without_url().into() }
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
    async fn ensure(&self, routes: &BTreeMap<TenantName, Route>) -> Result<bool, Error> {
        refuse_patterns(routes)?;
        self.change(&Want::Tenants(routes)).await
    }

    async fn ensure_admin(&self, port: Option<u16>) -> Result<bool, Error> {
        self.change(&Want::Admin(port)).await
    }

    async fn observe_admin(&self) -> Result<Option<u16>, Error> {
        Ok(routes::parse_admin(&self.read_patiently().await?.list))
    }

    async fn restart(&self) -> Result<(), Error> {
        restart::run(&self.options.restart).await
    }

    async fn observe(&self) -> Result<BTreeMap<TenantName, Route>, Error> {
        Ok(self.read_patiently().await?.list.iter().filter_map(routes::parse).collect())
    }

    async fn in_flight(&self, port: u16) -> Result<u64, Error> {
        let counted = self.admin.in_flight(&routes::loopback(port)).await;
        counted.map_err(|failure| self.told(failure, &Want::Admin(None)))
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
