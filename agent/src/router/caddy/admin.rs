//! Caddy's admin API: one list of routes, read with its entity tag and replaced as a whole.
//!
//! Knows nothing of what the routes mean.

use std::time::Duration;

use http_body_util::BodyExt;
use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::Value;

use super::CaddyOptions;

/// Longest part of Caddy's message that is passed on.
const MESSAGE_MAX: usize = 600;

#[derive(Debug)]
pub(super) enum Failure {
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    /// Somebody else changed the configuration since it was read.
    Stale,
    /// The HTTP server is not in the configuration.
    NoServer,
    Refused(String),
}

/// The routes as they were at one moment.
pub(super) struct Routes {
    pub(super) list: Vec<Value>,
    /// False when the server has no list at all, which is written differently.
    exists: bool,
    entity_tag: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

struct Reply {
    status: u16,
    content: Vec<u8>,
    entity_tag: Option<String>,
}

#[derive(Deserialize)]
struct Upstream {
    address: String,
    num_requests: u64,
}

pub(super) struct Admin {
    http: Client,
    url: String,
    upstreams_url: String,
    certificates_url: String,
    timeout: Duration,
}

impl Admin {
    pub(super) fn new(http: Client, options: &CaddyOptions) -> Self {
        let base = options.admin.url();
        let url = format!("{base}/config/apps/http/servers/{}/routes", options.server);
        let upstreams_url = format!("{base}/reverse_proxy/upstreams");
        let certificates_url = format!("{base}/config/apps/tls/certificates");
        Self { http, url, upstreams_url, certificates_url, timeout: options.timeout }
    }

    /// Requests under way to these upstreams, as far as the configuration names them.
    pub(super) async fn in_flight(&self, addresses: &[String]) -> Result<u64, Failure> {
        let reply = self.send(self.http.get(&self.upstreams_url)).await?;
        if reply.status != 200 {
            return Err(Failure::Refused(reply.message()));
        }
        let upstreams: Option<Vec<Upstream>> = serde_json::from_slice(&reply.content)
            .map_err(|_| Failure::Refused("its list of upstreams has another form".to_owned()))?;
        let all = upstreams.into_iter().flatten();
        Ok(all.filter(|known| addresses.contains(&known.address)).map(|known| known.num_requests).sum())
    }

    /// Certificates that Caddy was given; null when there are none.
    pub(super) async fn certificates(&self) -> Result<Value, Failure> {
        let reply = self.send(self.http.get(&self.certificates_url)).await?;
        match reply.status {
            200 => serde_json::from_slice(&reply.content)
                .map_err(|_| Failure::Refused("its list of certificates has another form".to_owned())),
            _ => Err(Failure::Refused(reply.message())),
        }
    }

    /// POST on an object sets it, whether it was there or not.
    pub(super) async fn set_certificates(&self, desired: &Value) -> Result<(), Failure> {
        let reply = self.send(self.http.post(&self.certificates_url).json(desired)).await?;
        if reply.status == 200 { Ok(()) } else { Err(Failure::Refused(reply.message())) }
    }

    pub(super) async fn routes(&self) -> Result<Routes, Failure> {
        let reply = self.send(self.http.get(&self.url)).await?;
        match reply.status {
            200 => {
                let list: Option<Vec<Value>> = serde_json::from_slice(&reply.content)
                    .map_err(|_| Failure::Refused("its routes are not a list".to_owned()))?;
                Ok(Routes { exists: list.is_some(), list: list.unwrap_or_default(), entity_tag: reply.entity_tag })
            }
            // The path leads nowhere.
            400 | 404 => Err(Failure::NoServer),
            _ => Err(Failure::Refused(reply.message())),
        }
    }

    /// Replaces the routes if they are still what was read.
    pub(super) async fn replace(&self, current: &Routes, desired: &[Value]) -> Result<(), Failure> {
        let method = if current.exists { Method::PATCH } else { Method::PUT };
        let mut request = self.http.request(method, &self.url).json(desired);
        if let Some(tag) = &current.entity_tag {
            request = request.header("if-match", tag);
        }
        let reply = self.send(request).await?;
        match reply.status {
            200 => Ok(()),
            // 409: somebody else made the list that was not there.
            409 | 412 => Err(Failure::Stale),
            _ => Err(Failure::Refused(reply.message())),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Reply, Failure> {
        let unreachable = |error: reqwest::Error| Failure::Unreachable(error.without_url().into());
        let response = request.timeout(self.timeout).send().await.map_err(unreachable)?;
        let response: http::Response<reqwest::Body> = response.into();
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(unreachable)?;
        // A header since 2.7, a trailer before.
        let trailers = body.trailers();
        let entity_tag = head.headers.get("etag").or_else(|| trailers?.get("etag"));
        Ok(Reply {
            status: head.status.as_u16(),
            entity_tag: entity_tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned),
            content: body.to_bytes().to_vec(),
        })
    }
}

impl Reply {
    fn message(&self) -> String {
        let message = serde_json::from_slice::<Problem>(&self.content).map_or_else(
            |_| format!("status {}: {}", self.status, String::from_utf8_lossy(&self.content)),
            |problem| problem.error,
        );
        message.chars().take(MESSAGE_MAX).collect()
    }
}
