//! The container engine, in our verbs.
//!
//! Owns the seam between the agent and whatever runs containers and keeps volumes. Knows nothing of generations, routes or
//! moves: it does what it is told, and says what it sees. `runtime/podman.rs` is the only file that names bollard;
//! `runtime/fake.rs` keeps the same contract in memory (with real directories as volumes).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use feather_proto::{
    limits::Limits,
    model::{ContainerState, Image},
};
use futures::stream::BoxStream;
use time::OffsetDateTime;

#[doc(hidden)]
pub mod contract;
pub mod fake;
pub mod podman;

/// What can go wrong with the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine does not answer; whether it did what was asked is unknown.
    #[error("Podman does not answer on its socket; is `podman system service` running?")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The image is not in storage.
    #[error("the image {0} is not in this server's storage; load it with `featherctl image load SERVER FILE`")]
    ImageMissing(String),
    /// There is no such container.
    #[error("there is no container {0}")]
    ContainerMissing(String),
    /// A name or port is taken.
    #[error("{0}")]
    Conflict(String),
    /// An archive that is not an image.
    #[error("the archive is not an image that Podman can load: {0}")]
    BadArchive(String),
    /// The disk took no more of an archive.
    #[error("the disk of this server is full; the image was not loaded, and the one that is there was left alone")]
    NoSpace(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine refused, in its own words.
    #[error("Podman refused to {attempt}: {message}")]
    Refused {
        /// What was attempted, for example `start feather-user-alice`.
        attempt: String,
        /// The engine's message.
        message: String,
    },
}

/// A container to create. `Debug` shows the names of environment variables only.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Container name, for example `feather-user-alice`.
    pub name: String,
    /// Image reference or digest.
    pub image: String,
    /// Loopback port at which it is reached.
    pub host_port: u16,
    /// How it comes to be reached there.
    pub reach: Reach,
    /// Volume mounted at `/home/user`, or an absolute path: that directory is mounted there as it is.
    pub volume: String,
    /// Environment; values may be secrets.
    pub environment: BTreeMap<String, String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Labels, readable by anyone on the server.
    pub labels: BTreeMap<String, String>,
    /// What it may use. The revision is of no meaning here.
    pub limits: Limits,
}

/// How a container comes to be reached at its loopback port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It has a network of its own; its 8080 is published at the port.
    Published,
    /// It shares the network of the birth container, resolver included, and listens at the port by itself; the variable `PORT`
    /// tells it which.
    Host,
}

impl ContainerSpec {
    /// The directory that takes the place of a volume.
    pub fn directory(&self) -> Option<&std::path::Path> {
        Some(std::path::Path::new(&self.volume)).filter(|path| path.is_absolute())
    }

    /// Its whole environment.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.environment.clone();
        if self.reach == Reach::Host {
            variables.insert("PORT".to_owned(), self.host_port.to_string());
        }
        variables
    }
}

/// No home is ever made up for a container: it would start without its data.
fn no_home(spec: &ContainerSpec) -> Error {
    let what = if spec.directory().is_some() { "directory" } else { "volume" };
    Error::Refused { attempt: format!("create {}", spec.name), message: format!("there is no {what} {}", spec.volume) }
}

impl std::fmt::Debug for ContainerSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("host_port", &self.host_port)
            .field("reach", &self.reach)
            .field("volume", &self.volume)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("labels", &self.labels)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A container as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Name without a leading slash.
    pub name: String,
    /// The engine's own id: a container that is made anew has another.
    pub id: String,
    /// Never `Missing` or `Unknown`: those are the caller's words for absence and for an error.
    pub state: ContainerState,
    /// Image id, `sha256:...`.
    pub image_digest: String,
    /// Loopback port at which it is, or would be, reached.
    pub host_port: Option<u16>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A container with everything that one must know to take it over, whoever made it. `Debug` shows the names of environment
/// variables only.
#[derive(Clone, PartialEq, Eq)]
pub struct Inspected {
    /// As listed.
    pub container: Container,
    /// Reference of the image that it was made from.
    pub image: String,
    /// When it was made.
    pub created: OffsetDateTime,
    /// What is mounted at `/home/user`.
    pub home: Option<Home>,
    /// Where anything else is mounted.
    pub other_mounts: Vec<String>,
    /// How its web app is reached.
    pub network: Network,
    /// Its environment without what the image and the engine themselves put there. Values may be secrets.
    pub environment: BTreeMap<String, String>,
}

/// Where a container keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// A named volume.
    Volume(String),
    /// A directory of the birth container.
    Directory(String),
}

/// How a container is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It shares the network of the birth container and listens there.
    Host,
    /// Its port 8080 is published.
    Published {
        /// Port of the birth container.
        port: u16,
        /// Only on the loopback address.
        loopback: bool,
    },
    /// Not at all.
    Closed,
}

impl std::fmt::Debug for Inspected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Inspected")
            .field("container", &self.container)
            .field("image", &self.image)
            .field("home", &self.home)
            .field("network", &self.network)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// What a container that runs uses, and what its kernel lets it use: read where the kernel keeps it, because what an engine has noted
/// may never have been applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory in use that cannot be given back, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Most memory in bytes; `None` for no limit.
    pub memory_max_bytes: Option<u64>,
    /// Most processor time in thousandths of a core; `None` for no limit.
    pub cpu_max_millis: Option<u32>,
    /// Most processes and threads; `None` for no limit.
    pub pids_max: Option<u32>,
}

/// Kernels count memory in pages, the largest of which are this long.
const PAGE_MAX_BYTES: u64 = 64 << 10;

impl Resources {
    /// Is that what the limits say?
    pub fn as_limited(&self, limits: &Limits) -> bool {
        let memory = match (limits.memory_bytes, self.memory_max_bytes) {
            (None, None) => true,
            (Some(wanted), Some(found)) => found <= wanted && wanted - found < PAGE_MAX_BYTES,
            _ => false,
        };
        memory && self.cpu_max_millis == limits.cpu_millis && self.pids_max == Some(limits.pids_or_default())
    }
}

/// Sizes of the machine as the engine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Memory limit of the birth container, or the machine's memory.
    pub memory_total_bytes: u64,
    /// What is free of it (page cache counts as free).
    pub memory_free_bytes: u64,
    /// File system that holds the volumes.
    pub disk_total_bytes: u64,
    /// What is free of it for root.
    pub disk_free_bytes: u64,
    /// Processor cores that may be used.
    pub cores: u32,
}

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Without its line end.
    pub text: String,
    /// Written to standard error.
    pub stderr: bool,
}

/// The container engine. Every verb is idempotent: ensuring what is so, and removing what is gone, succeeds.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Memory and disk, measured now.
    async fn capacity(&self) -> Result<Capacity, Error>;

    /// All images, in the order of their references. A reference without a registry appears as `localhost/...`; an image whose
    /// name has moved to another has none.
    async fn images(&self) -> Result<Vec<Image>, Error>;
    /// One image by reference or digest.
    async fn image(&self, reference: &str) -> Result<Option<Image>, Error>;
    /// Loads a `docker save` or OCI archive; returns what it held.
    async fn load_image(&self, archive: BoxStream<'static, Result<Bytes, std::io::Error>>)
    -> Result<Vec<Image>, Error>;
    /// The archive of an image, in pieces of at most 1 MiB.
    async fn export_image(&self, reference: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error>;

    /// One container, or `None` when the engine says that there is none.
    async fn container(&self, name: &str) -> Result<Option<Container>, Error>;
    /// One container with what it was made of, or `None` when the engine says that there is none.
    async fn inspect(&self, name: &str) -> Result<Option<Inspected>, Error>;
    /// All containers whose names begin with the prefix, in the order of their names.
    async fn containers(&self, prefix: &str) -> Result<Vec<Container>, Error>;
    /// Makes sure that a container with exactly this specification exists (created, or running when it already did); one of the
    /// same name but another specification is removed first. The specification is compared by a label with its hash. A volume
    /// that does not exist is refused: an empty one is never made up for it.
    async fn ensure_container(&self, spec: &ContainerSpec) -> Result<(), Error>;
    /// Starts it; a running one is left alone. [`Error::Conflict`] when its port is taken by somebody else.
    async fn start(&self, name: &str) -> Result<(), Error>;
    /// SIGTERM, then SIGKILL after the grace. On return its process has ended (or there was none).
    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error>;
    /// Removes it, killing its process when it still runs. On return it is gone.
    async fn remove_container(&self, name: &str) -> Result<(), Error>;
    /// What it uses and may use, or `None` when it does not run.
    async fn resources(&self, name: &str) -> Result<Option<Resources>, Error>;
    /// Makes sure that a container that runs may use exactly so much, without touching its process. One that does not run is left
    /// alone: it has its limits from its specification when it is next made sure of.
    async fn ensure_limits(&self, name: &str, limits: &Limits) -> Result<(), Error>;
    /// The last lines of its output, then, with `follow`, new ones until it ends.
    async fn logs(
        &self,
        name: &str,
        lines: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error>;
    /// One `GET /health` to the loopback port; true for a 200 within the time limit, false for anything else.
    async fn healthy(&self, port: u16, limit: Duration) -> bool;

    /// Directory of a volume's content, or `None` when the engine says that there is none.
    async fn volume(&self, name: &str) -> Result<Option<PathBuf>, Error>;
    /// Names of all volumes that begin with the prefix, in order.
    async fn volumes(&self, prefix: &str) -> Result<Vec<String>, Error>;
    /// Makes sure that the volume exists; returns its directory and whether it was made now.
    async fn ensure_volume(&self, name: &str) -> Result<(PathBuf, bool), Error>;
    /// Deletes the volume and its data.
    async fn remove_volume(&self, name: &str) -> Result<(), Error>;
}
