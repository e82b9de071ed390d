//! A zone at Dynadot, through version 2 of its REST API.
//!
//! Owns everything that is peculiar to this provider: signed requests, one at a time and slowly; replies that say success and mean
//! the opposite; a zone that is replaced when a flag is missing. It judges no change and repeats none: whoever plans changes
//! (the record engine) reads before and after, and decides.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use serde_json::Value;

use super::zone::{Provider, ProviderError, Removed, Zone, ZoneRecord};
use crate::https::{self, Client, Failed, Limits, Reply, Trust};

pub mod checks;
mod credentials;
mod pace;
mod reading;
mod request;
mod signature;
mod verdict;

#[cfg(test)]
mod tests;

pub use credentials::{Credentials, CredentialsError, KEY, KEY_FILE, SECRET, SECRET_FILE};
pub use pace::Pace;

use pace::{Gate, Turn};
use verdict::{Call, Verdict};

/// Where real domains are.
pub const PRODUCTION: &str = "https://api.dynadot.com";
/// Where domains are play. It has keys of its own.
pub const SANDBOX: &str = "https://api-sandbox.dynadot.com";

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct DynadotOptions {
    /// The registered domain, for instance `inceptel.ai`; never a name below one.
    pub zone: String,
    /// [`PRODUCTION`], [`SANDBOX`], or the address of something that answers like them.
    pub url: String,
    /// Of the account that the domain is in.
    pub credentials: Credentials,
    /// How fast; the provider's limits unless it is not the provider.
    pub pace: Pace,
    /// How long a request may take.
    pub limits: Limits,
    /// For the lengths of pauses: any number.
    pub seed: u64,
}

impl DynadotOptions {
    /// The real provider, at the pace it allows.
    pub fn new(zone: &str, credentials: Credentials) -> Self {
        Self {
            zone: zone.to_owned(),
            url: PRODUCTION.to_owned(),
            credentials,
            pace: Pace::default(),
            limits: Limits::default(),
            seed: 0,
        }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Not a name that Dynadot takes.
    #[error(
        "the zone {0:?} must be a registered domain in small letters without a dot at its end, for instance example.com"
    )]
    Zone(String),
    /// Not an address, or one where the key would be readable on the way.
    #[error(
        "the address {0:?} of Dynadot's API must begin with https:// and be without a path (http:// only to this machine itself)"
    )]
    Url(String),
    /// No HTTPS.
    #[error(transparent)]
    Https(#[from] https::SetupError),
}

/// What carries a request to the provider and its reply back.
#[async_trait]
trait Exchange: Send + Sync {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Reply, Failed>;
}

#[async_trait]
impl Exchange for Client {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Reply, Failed> {
        self.send(request).await
    }
}

/// A zone at Dynadot.
///
/// No method sends a request twice. While the provider is busy or not to be reached, calls are not sent at all and
/// are [`ProviderError::Later`] with the rest of the pause. A call that was begun is brought to its end even when its caller has gone
/// away, so that no second one overtakes it.
pub struct Dynadot {
    zone: String,
    origin: String,
    path: String,
    credentials: Credentials,
    gate: Gate,
    exchange: Arc<dyn Exchange>,
}

impl fmt::Debug for Dynadot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dynadot").field("zone", &self.zone).field("url", &self.origin).finish_non_exhaustive()
    }
}

impl Dynadot {
    /// Checks the options and reads the trusted certificates; calls nobody.
    pub fn new(options: DynadotOptions) -> Result<Self, SetupError> {
        let client = Client::new(Trust::System, options.limits).or_else(|error| {
            // A provider on this machine without TLS needs nobody's trust.
            if options.url.starts_with("https:") { Err(error) } else { Client::new(Trust::Nobody, options.limits) }
        })?;
        Self::with_exchange(options, Arc::new(client))
    }

    fn with_exchange(options: DynadotOptions, exchange: Arc<dyn Exchange>) -> Result<Self, SetupError> {
        let DynadotOptions { zone, url, credentials, pace, seed, .. } = options;
        if !is_zone(&zone) {
            return Err(SetupError::Zone(zone));
        }
        let origin = url.trim_end_matches('/').to_owned();
        let plain = origin.parse::<Uri>().is_ok_and(|uri| {
            https::is_private(&uri) && uri.path() == "/" && uri.query().is_none() && !origin.contains('@')
        });
        if !plain {
            // An address may hold a password.
            return Err(SetupError::Url(if url.contains('@') { "...@...".into() } else { url }));
        }
        let path = format!("/restful/v2/domains/{zone}/records");
        Ok(Self { zone, origin, path, credentials, gate: Gate::new(pace, seed), exchange })
    }

    fn request(&self, method: Method, body: Bytes) -> Request<Bytes> {
        let signature = self.credentials.signature(&self.path, &body);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{}", self.origin, self.path))
            .header(header::AUTHORIZATION, self.credentials.authorization())
            .header("x-signature", signature)
            .header(header::ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.body(body).expect("the address and all headers were checked when the client was made")
    }

    /// One request and what it means.
    async fn call(&self, call: Call, method: Method, body: Bytes) -> Result<Option<Value>, ProviderError> {
        let turn = self.gate.turn().await.map_err(|pause| ProviderError::Later {
            message: format!(
                "Dynadot is left alone for {} s more, after it was busy or not to be reached",
                seconds(pause)
            ),
            pause,
        })?;
        let request = self.request(method.clone(), body);
        let (exchange, credentials) = (self.exchange.clone(), self.credentials.clone());
        let sent = tokio::spawn(async move { finish(call, turn, &credentials, exchange.exchange(request).await) });
        let outcome = sent.await.unwrap_or_else(|_| Err(ProviderError::Unknown("the request was cut off".into())));
        match &outcome {
            Ok(_) => tracing::debug!(zone = %self.zone, %method, "dynadot answered"),
            Err(error) => tracing::warn!(zone = %self.zone, %method, %error, "dynadot did not do it"),
        }
        outcome
    }
}

/// The meaning of what came back; ends the turn.
fn finish(
    call: Call,
    turn: Turn,
    credentials: &Credentials,
    reply: Result<Reply, Failed>,
) -> Result<Option<Value>, ProviderError> {
    let verdict = match reply {
        Ok(reply) => verdict::judge(call, reply.status, &reply.body),
        Err(Failed::NotSent(why)) => Verdict::Busy(format!("Dynadot cannot be reached: {why}")),
        Err(Failed::Lost(why)) => verdict::lost(call, format!("Dynadot's reply is lost: {why}")),
    };
    let pause = if verdict.is_trouble() {
        turn.busy()
    } else {
        turn.answered();
        Duration::ZERO
    };
    verdict.error(pause).map_err(|error| redacted(error, credentials))
}

fn redacted(error: ProviderError, credentials: &Credentials) -> ProviderError {
    match error {
        ProviderError::Later { message, pause } => {
            ProviderError::Later { message: credentials.redact(&message), pause }
        }
        ProviderError::Unknown(message) => ProviderError::Unknown(credentials.redact(&message)),
        ProviderError::Refused(message) => ProviderError::Refused(credentials.redact(&message)),
    }
}

fn seconds(pause: Duration) -> u64 {
    pause.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

fn is_zone(zone: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    zone.len() <= 253 && zone.contains('.') && zone.split('.').all(label)
}

fn impossible(why: String) -> ProviderError {
    ProviderError::Refused(format!("not sent to Dynadot: {why}"))
}

#[async_trait]
impl Provider for Dynadot {
    fn zone(&self) -> &str {
        &self.zone
    }

    async fn read(&self) -> Result<Zone, ProviderError> {
        let data = self.call(Call::Read, Method::GET, Bytes::new()).await?;
        reading::zone(data).map_err(|why| {
            redacted(ProviderError::Refused(format!("Dynadot's answer is not the zone: {why}")), &self.credentials)
        })
    }

    async fn append(&self, records: &[ZoneRecord], ttl: u32) -> Result<(), ProviderError> {
        checks::append(&self.zone, records, ttl).map_err(impossible)?;
        self.call(Call::Change, Method::POST, request::append(records, ttl)).await.map(drop)
    }

    async fn remove(&self, records: &[ZoneRecord]) -> Result<Removed, ProviderError> {
        checks::remove(records).map_err(impossible)?;
        let data = self.call(Call::Change, Method::DELETE, request::remove(records)).await?;
        reading::removed(data).map_err(|why| {
            redacted(ProviderError::Unknown(format!("Dynadot's answer to a removal: {why}")), &self.credentials)
        })
    }

    fn objection(&self, zone: &Zone) -> Option<String> {
        checks::replace(&self.zone, zone).err()
    }

    async fn replace(&self, zone: &Zone) -> Result<(), ProviderError> {
        checks::replace(&self.zone, zone).map_err(impossible)?;
        self.call(Call::Change, Method::POST, request::replace(zone)).await.map(drop)
    }
}
