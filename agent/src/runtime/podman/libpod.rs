//! Podman's own API, where the Docker-compatible one will not do.
//!
//! Owns lenient reads: container lists whose states a strict decoder refuses, and answers that never contain an environment.
//! Knows nothing of our verbs.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use reqwest::{Body, Client, Method, Response};
use serde::{Deserialize, de::DeserializeOwned};

/// The oldest version that we ask for; newer engines keep it.
const BASE: &str = "http://podman/v4.0.0/libpod";

/// Longest part of an engine's message that is passed on.
const MESSAGE_MAX: usize = 600;

#[derive(Debug)]
pub(super) enum Failure {
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    Status { code: u16, message: String },
}

#[derive(Deserialize)]
struct Problem {
    message: String,
}

/// A container of the list: all that is ever read of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) names: Vec<String>,
    pub(super) state: String,
    #[serde(rename = "ImageID")]
    pub(super) image_id: String,
    #[serde(default)]
    pub(super) labels: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Port {
    #[serde(default)]
    pub(super) host_port: u16,
}

/// What a container was made of. No `Debug`: an environment holds secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Made {
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created: time::OffsetDateTime,
    #[serde(default)]
    pub(super) image_name: String,
    #[serde(default)]
    pub(super) mounts: Vec<Mounted>,
    pub(super) config: MadeConfig,
    pub(super) host_config: MadeHostConfig,
    #[serde(default)]
    state: MadeState,
}

impl Made {
    /// Its first process, if it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        Some(self.state.pid).filter(|pid| *pid > 0)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MadeState {
    #[serde(default)]
    pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Mounted {
    #[serde(rename = "Type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) source: String,
    #[serde(default)]
    pub(super) destination: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MadeConfig {
    #[serde(default)]
    pub(super) env: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MadeHostConfig {
    #[serde(default)]
    pub(super) network_mode: String,
    #[serde(default)]
    pub(super) port_bindings: Option<std::collections::BTreeMap<String, Option<Vec<MadeBinding>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MadeBinding {
    #[serde(default)]
    pub(super) host_ip: String,
    #[serde(default)]
    pub(super) host_port: String,
}

#[derive(Deserialize)]
struct Info {
    store: Store,
}

#[derive(Deserialize)]
struct Store {
    #[serde(rename = "volumePath")]
    volume_path: std::path::PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Loaded {
    #[serde(default)]
    names: Vec<String>,
}

/// A client of one socket.
#[derive(Clone)]
pub(super) struct Libpod {
    http: Client,
    timeout: Duration,
}

impl Libpod {
    pub(super) fn new(socket: &Path, timeout: Duration) -> Result<Self, reqwest::Error> {
        // No pool: the service may be restarted between any two calls, and a kept connection would be a dead one.
        let http = Client::builder().unix_socket(socket).pool_max_idle_per_host(0).build()?;
        Ok(Self { http, timeout })
    }

    /// All containers whose names match the regular expression, whatever their state.
    pub(super) async fn containers(&self, name_pattern: &str) -> Result<Vec<Listed>, Failure> {
        let filters = serde_json::json!({ "name": [name_pattern] }).to_string();
        let query = [("all", "true"), ("filters", &filters)];
        self.json(Method::GET, "containers/json", &query).await
    }

    /// What a container was made of; `None` when there is none.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<Made>, Failure> {
        match self.json(Method::GET, &format!("containers/{name}/json"), &[]).await {
            Ok(made) => Ok(Some(made)),
            Err(Failure::Status { code: 404, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn volume_path(&self) -> Result<std::path::PathBuf, Failure> {
        let info: Info = self.json(Method::GET, "info", &[]).await?;
        Ok(info.store.volume_path)
    }

    /// Mounts, networks and prepares a created container without running it.
    pub(super) async fn init(&self, name: &str) -> Result<(), Failure> {
        let path = format!("containers/{name}/init");
        self.bounded(self.send(Method::POST, &path, &[], Body::default())).await.map(drop)
    }

    /// Gives a container that runs other limits. Several versions note what they could not apply: look what the kernel has.
    pub(super) async fn update(&self, name: &str, resources: &serde_json::Value) -> Result<(), Failure> {
        let (path, body) = (format!("containers/{name}/update"), Body::from(resources.to_string()));
        self.bounded(self.send_as("application/json", Method::POST, &path, &[], body)).await.map(drop)
    }

    /// Returns the names of what was loaded. Not bounded in time as a whole: the archive takes as long as it takes to come.
    pub(super) async fn load(&self, archive: Body) -> Result<Vec<String>, Failure> {
        let response = self.send(Method::POST, "images/load", &[], archive).await?;
        let loaded: Loaded = decode(&self.bounded(body(response)).await?)?;
        Ok(loaded.names)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let answer = async { body(self.send(method, path, query, Body::default()).await?).await };
        decode(&self.bounded(answer).await?)
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(result) => result,
            Err(elapsed) => Err(Failure::Unreachable(elapsed.into())),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        content: Body,
    ) -> Result<Response, Failure> {
        // A form content type makes some versions answer success and do nothing.
        self.send_as("application/x-tar", method, path, query, content).await
    }

    async fn send_as(
        &self,
        kind: &'static str,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        content: Body,
    ) -> Result<Response, Failure> {
        let mut url =
            reqwest::Url::parse(&format!("{BASE}/{path}")).map_err(|error| Failure::Unreachable(error.into()))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url).header("content-type", kind).body(content);
        let response = request.send().await.map_err(unreachable)?;
        let code = response.status().as_u16();
        // 304: it is so already.
        if response.status().is_success() || code == 304 {
            return Ok(response);
        }
        let content = self.bounded(body(response)).await?;
        let message = serde_json::from_slice::<Problem>(&content)
            .map_or_else(|_| String::from_utf8_lossy(&content).into_owned(), |problem| problem.message);
        Err(Failure::Status { code, message: message.chars().take(MESSAGE_MAX).collect() })
    }
}

async fn body(response: Response) -> Result<Bytes, Failure> {
    response.bytes().await.map_err(unreachable)
}

fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(content).map_err(|error| Failure::Status {
        code: 200,
        // Where, never what: an answer may hold what must not be told.
        message: format!("its answer cannot be read at column {}", error.column()),
    })
}

fn unreachable(error: reqwest::Error) -> Failure {
    Failure::Unreachable(error.without_url().into())
}
