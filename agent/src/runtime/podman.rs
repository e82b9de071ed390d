//! The engine for real: Podman on its socket.
//!
//! Owns the translation of our verbs to Podman's Docker-compatible API, and the traps in it: states that a strict decoder
//! refuses, replies that get lost, and volumes whose root Podman changes at their first mount. Environments go in and are
//! read back only to take over somebody else's container; nothing here logs. Works with Podman 4.3 and later.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    Docker,
    errors::Error as ApiError,
    models::{
        ContainerCreateBody, HostConfig, ImageInspect, PortBinding, RestartPolicy, RestartPolicyNameEnum,
        VolumeCreateRequest,
    },
    query_parameters as query,
};
use bytes::Bytes;
use feather_proto::{
    limits::Limits,
    model::{ContainerState, Image},
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use tokio::{sync::OnceCell, time::Instant};

use self::{
    libpod::{Failure, Libpod},
    root::RootMetadata,
};
use super::{Capacity, Container, ContainerSpec, Error, Inspected, LogLine, Reach, Resources, Runtime, no_home};

mod cgroup;
mod health;
mod label;
mod libpod;
mod lines;
mod machine;
mod observed;
mod options;
mod pieces;
mod root;

pub use options::PodmanOptions;

/// The port on which a work container listens inside.
const CONTAINER_PORT: &str = "8080/tcp";
/// Where a work container finds its data.
const HOME: &str = "/home/user";
/// How often that is looked at.
const ENDING_POLL: Duration = Duration::from_millis(50);

/// Podman behind one socket.
pub struct Podman {
    socket: PathBuf,
    options: PodmanOptions,
    libpod: Libpod,
    health: health::Client,
    volume_path: OnceCell<PathBuf>,
}

impl Podman {
    /// Prepares to talk to the socket; it need not exist yet, and may come and go.
    pub fn connect(socket: &Path, options: PodmanOptions) -> Result<Self, Error> {
        let client = |error: reqwest::Error| Error::Unreachable(error.into());
        Ok(Self {
            socket: socket.to_owned(),
            libpod: Libpod::new(socket, options.timeout).map_err(client)?,
            health: health::Client::new().map_err(client)?,
            options,
            volume_path: OnceCell::new(),
        })
    }

    /// A client for one call. Cheap, because nothing is kept between calls; Podman may be restarted at any time.
    fn docker(&self, extra: Duration) -> Result<Docker, Error> {
        let socket = self.socket.to_string_lossy();
        let timeout = self.options.timeout.saturating_add(extra).as_secs().max(1);
        let docker = Docker::connect_with_unix(&socket, timeout, bollard::API_DEFAULT_VERSION);
        docker.map_err(|error| Error::Unreachable(error.into()))
    }

    async fn list(&self, name_pattern: &str) -> Result<Vec<Container>, Error> {
        // A container that goes away during the listing can fail all of it.
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match self.libpod.containers(name_pattern).await {
                Ok(listed) => return listed.into_iter().map(observed::container).collect(),
                Err(Failure::Status { code: 500, .. }) if attempts > 0 => {}
                Err(failure) => return Err(told("list containers", failure)),
            }
        }
    }

    async fn find(&self, name: &str) -> Result<Option<(Container, Option<String>)>, Error> {
        let listed = self.list(&format!("^{name}$")).await?;
        Ok(listed.into_iter().find(|container| container.name == name).map(|mut container| {
            let hash = container.labels.remove(label::SPEC_LABEL);
            (container, hash)
        }))
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInspect>, Error> {
        match self.docker(Duration::ZERO)?.inspect_image(reference).await {
            Ok(image) => Ok(Some(image)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(refused(format!("look at the image {reference}"), error)),
        }
    }

    async fn create(&self, spec: &ContainerSpec, hash: &str) -> Result<(), Error> {
        let attempt = format!("create {}", spec.name);
        let home = match spec.directory() {
            Some(directory) => Some(directory.to_owned()).filter(|directory| directory.is_dir()),
            // Podman would make an empty one, and the tenant would start without its data.
            None => self.volume(&spec.volume).await?,
        };
        let home = home.ok_or_else(|| no_home(spec))?;
        let image = self.inspect_image(&spec.image).await?.and_then(|image| image.id);
        let image = image.ok_or_else(|| Error::ImageMissing(spec.image.clone()))?;
        let fresh = root::is_fresh(&home);
        let options = query::CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let body = create_body(spec, image, hash, fresh);
        let Err(error) = self.docker(Duration::ZERO)?.create_container(Some(options), body).await else {
            return Ok(());
        };
        // A name that is taken is answered 500, 409 or nothing at all, depending on who asks whom; what counts is what is there.
        match self.find(&spec.name).await? {
            Some((_, Some(found))) if found == hash => Ok(()),
            Some(_) => Err(Error::Conflict(format!("the container {} was created by somebody else", spec.name))),
            None => Err(refused(attempt, error)),
        }
    }

    /// Waits until the container's process has ended; an error when it does not.
    async fn ended(&self, name: &str) -> Result<(), Error> {
        let deadline = Instant::now() + self.options.ending_limit;
        loop {
            match self.find(name).await? {
                Some((container, _)) if container.state == ContainerState::Running => {}
                _ => return Ok(()),
            }
            if Instant::now() >= deadline {
                let message = "its process has not ended".to_owned();
                return Err(Error::Refused { attempt: format!("stop {name}"), message });
            }
            tokio::time::sleep(ENDING_POLL).await;
        }
    }

    async fn kill(&self, name: &str) -> Result<(), Error> {
        let options = query::KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        match self.docker(Duration::ZERO)?.kill_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            // Nothing to kill is answered 409 or 500; whether it was so is seen afterwards.
            Err(error) if status(&error).is_some() => Ok(()),
            Err(error) => Err(refused(format!("kill {name}"), error)),
        }
    }

    /// Mounts the volume before anything runs, and puts back what Podman does to the root of a volume at its first mount:
    /// it takes owner, mode and time from the image, which would undo what a transfer just proved.
    async fn mount(&self, name: &str, volume: &str) -> Result<(), Error> {
        let directory = self.volume(volume).await?.ok_or_else(|| Error::Refused {
            attempt: format!("start {name}"),
            message: format!("there is no volume {volume}"),
        })?;
        if root::is_fresh(&directory) {
            return Ok(());
        }
        let failed = |error: std::io::Error| Error::Refused {
            attempt: format!("start {name}"),
            message: format!("the root of the volume {volume} cannot be kept as it is: {error}"),
        };
        let before = RootMetadata::read(&directory).map_err(failed)?;
        let prepared = self.libpod.init(name).await;
        before.restore(&directory).map_err(failed)?;
        match prepared {
            // A refusal means mostly that it was prepared already, by a start that went no further. The start will tell.
            Ok(()) | Err(Failure::Status { .. }) => Ok(()),
            Err(failure) => Err(told(&format!("start {name}"), failure)),
        }
    }

    async fn volumes_directory(&self) -> Result<&PathBuf, Error> {
        self.volume_path
            .get_or_try_init(|| async {
                self.libpod.volume_path().await.map_err(|failure| told("say where volumes are", failure))
            })
            .await
    }
}

fn create_body(spec: &ContainerSpec, image: String, hash: &str, fresh: bool) -> ContainerCreateBody {
    let binding =
        PortBinding { host_ip: Some(Ipv4Addr::LOCALHOST.to_string()), host_port: Some(spec.host_port.to_string()) };
    // What an image holds below the mount point goes into a fresh volume only: an empty volume that came from another server
    // is one whose tenant deleted everything.
    let copy = if fresh || spec.directory().is_some() { "" } else { ":nocopy" };
    let published = spec.reach == Reach::Published;
    let limits = &spec.limits;
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let host_config = HostConfig {
        binds: Some(vec![format!("{}:{HOME}{copy}", spec.volume)]),
        port_bindings: published.then(|| HashMap::from([(CONTAINER_PORT.to_owned(), Some(vec![binding]))])),
        network_mode: (!published).then(|| "host".to_owned()),
        dns: published.then(|| spec.dns.clone()),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        // Without any of them the engine's own hold.
        memory: limits.memory_bytes.map(signed),
        // Memory and swap together: no swap.
        memory_swap: limits.memory_bytes.map(signed),
        nano_cpus: limits.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
        pids_limit: limits.pids.map(i64::from),
        ..HostConfig::default()
    };
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.insert(label::SPEC_LABEL.to_owned(), hash.to_owned());
    if spec.directory().is_none() {
        // So that a start finds the volume without reading what else the container was created with.
        labels.insert(observed::VOLUME_LABEL.to_owned(), spec.volume.clone());
    }
    if !published {
        // Podman knows nothing of the ports of a container in the network of the birth.
        labels.insert(observed::PORT_LABEL.to_owned(), spec.host_port.to_string());
    }
    ContainerCreateBody {
        image: Some(image),
        env: Some(spec.variables().iter().map(|(name, value)| format!("{name}={value}")).collect()),
        exposed_ports: published.then(|| vec![CONTAINER_PORT.to_owned()]),
        labels: Some(labels),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

/// The status with which the engine answered, if it did.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn refused(attempt: impl Into<String>, error: ApiError) -> Error {
    let attempt = attempt.into();
    match error {
        ApiError::DockerResponseServerError { message, .. } | ApiError::DockerStreamError { error: message } => {
            Error::Refused { attempt, message }
        }
        // Never with the decoder's words: they may quote an environment.
        ApiError::JsonDataError { column, .. } => {
            Error::Refused { attempt, message: format!("its answer cannot be read at column {column}") }
        }
        other => Error::Unreachable(other.into()),
    }
}

fn told(attempt: &str, failure: Failure) -> Error {
    match failure {
        Failure::Unreachable(source) => Error::Unreachable(source),
        Failure::Status { message, .. } => Error::Refused { attempt: attempt.to_owned(), message },
    }
}

fn unreadable(name: &str) -> Error {
    let message =
        "its control groups cannot be read; is the birth container run with --privileged and --cgroupns=private?";
    Error::Refused { attempt: format!("say what {name} may use"), message: message.to_owned() }
}

fn taken(port: u16, name: &str) -> Error {
    Error::Conflict(format!(
        "port {port} is taken, so that {name} cannot be started; `podman ps` or `ss -ltnp 'sport = :{port}'` in the birth \
         says by whom"
    ))
}

fn port_is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

impl Podman {
    /// Does a container that runs publish the port?
    async fn somebody_has(&self, port: u16) -> Result<bool, Error> {
        let all = self.list("").await?;
        let has = |one: &Container| one.state == ContainerState::Running && one.host_port == Some(port);
        Ok(all.iter().any(has))
    }
}

#[async_trait]
impl Runtime for Podman {
    async fn capacity(&self) -> Result<Capacity, Error> {
        let unmeasured = |what: &str, message: String| Error::Refused { attempt: format!("measure {what}"), message };
        let memory = machine::memory(|path| std::fs::read_to_string(path).ok())
            .ok_or_else(|| unmeasured("memory", "/proc/meminfo cannot be read".to_owned()))?;
        let directory = self.volumes_directory().await?;
        let disk = machine::disk(directory).map_err(|error| unmeasured("disk", error.to_string()))?;
        Ok(Capacity {
            memory_total_bytes: memory.total_bytes,
            memory_free_bytes: memory.free_bytes,
            disk_total_bytes: disk.total_bytes,
            disk_free_bytes: disk.free_bytes,
            cores: machine::cores(),
        })
    }

    async fn images(&self) -> Result<Vec<Image>, Error> {
        let listed = self.docker(Duration::ZERO)?.list_images(None::<query::ListImagesOptions>).await;
        let listed = listed.map_err(|error| refused("list images", error))?;
        let mut images: Vec<_> = listed
            .into_iter()
            .flat_map(|summary| {
                let (digest, size_bytes) = (observed::digest(&summary.id), observed::size(Some(summary.size)));
                let mut tags = summary.repo_tags;
                tags.retain(|tag| !tag.starts_with("<none>"));
                // Tenants may run it still, and others may move here with it.
                if tags.is_empty() {
                    tags.push(String::new());
                }
                tags.into_iter().map(move |reference| Image { reference, digest: digest.clone(), size_bytes })
            })
            .collect();
        images.sort();
        Ok(images)
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        Ok(self.inspect_image(reference).await?.map(|image| Image {
            reference: observed::reference(image.repo_tags.unwrap_or_default(), reference),
            digest: observed::digest(&image.id.unwrap_or_default()),
            size_bytes: observed::size(image.size),
        }))
    }

    async fn load_image(
        &self,
        archive: BoxStream<'static, Result<Bytes, std::io::Error>>,
    ) -> Result<Vec<Image>, Error> {
        // A sender that breaks off looks like an engine that does not answer, unless it is remembered.
        let broken = Arc::new(Mutex::new(None));
        let remember = Arc::clone(&broken);
        let archive = archive.inspect_err(move |error| {
            *remember.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        });
        let loaded = self.libpod.load(reqwest::Body::wrap_stream(archive)).await;
        if let Some(reason) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Error::BadArchive(format!("it broke off: {reason}")));
        }
        let names = match loaded {
            Ok(names) => names,
            // The engine has no other word for it.
            Err(Failure::Status { message, .. }) if message.contains("no space left on device") => {
                return Err(Error::NoSpace(message.into()));
            }
            Err(Failure::Status { message, .. }) => return Err(Error::BadArchive(message)),
            Err(failure) => return Err(told("load an image", failure)),
        };
        let mut images = Vec::new();
        for name in names {
            images.extend(self.image(&name).await?.map(|image| Image { reference: name, ..image }));
        }
        Ok(images)
    }

    async fn export_image(&self, reference: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let found = self.image(reference).await?.ok_or_else(|| Error::ImageMissing(reference.to_owned()))?;
        // By name, because an archive made by digest forgets what the image is called.
        let docker = self.docker(Duration::ZERO)?;
        let limit = self.options.timeout;
        let attempt = format!("export the image {reference}");
        let content = docker.export_image(&found.reference);
        let content = content.map_err(move |error| refused(attempt.clone(), error));
        Ok(pieces::bounded(content.boxed(), limit))
    }

    async fn container(&self, name: &str) -> Result<Option<Container>, Error> {
        Ok(self.find(name).await?.map(|(container, _)| observed::without_own_labels(container)))
    }

    async fn inspect(&self, name: &str) -> Result<Option<Inspected>, Error> {
        let Some((container, _)) = self.find(name).await? else { return Ok(None) };
        let made = self.libpod.inspect(name).await.map_err(|failure| told(&format!("look at {name}"), failure))?;
        let Some(made) = made else { return Ok(None) };
        let image = self.inspect_image(&container.image_digest).await?.unwrap_or_default();
        let environment = image.config.and_then(|config| config.env).unwrap_or_default();
        let reference = observed::reference(image.repo_tags.unwrap_or_default(), &made.image_name);
        Ok(Some(Inspected { image: reference, ..observed::inspected(container, made, &environment) }))
    }

    async fn containers(&self, prefix: &str) -> Result<Vec<Container>, Error> {
        let mut listed = self.list(&format!("^{prefix}")).await?;
        listed.retain(|container| container.name.starts_with(prefix));
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed.into_iter().map(observed::without_own_labels).collect())
    }

    async fn ensure_container(&self, spec: &ContainerSpec) -> Result<(), Error> {
        let hash = label::spec_hash(spec, &self.options.label_key);
        match self.find(&spec.name).await? {
            Some((_, Some(found))) if found == hash => return Ok(()),
            Some(_) => {
                // Looked up first: without its image the old container must not go.
                if self.inspect_image(&spec.image).await?.is_none() {
                    return Err(Error::ImageMissing(spec.image.clone()));
                }
                self.remove_container(&spec.name).await?;
            }
            None => {}
        }
        self.create(spec, &hash).await
    }

    async fn start(&self, name: &str) -> Result<(), Error> {
        let (container, _) = self.find(name).await?.ok_or_else(|| Error::ContainerMissing(name.to_owned()))?;
        if container.state == ContainerState::Running {
            return Ok(());
        }
        // Podman would let both run, and whoever has the port would be taken for this one: it reserves no ports in a birth, where
        // nothing would answer at a reserved one while its container starts.
        let port = observed::own_port(&container).or(container.host_port);
        if let Some(port) = port
            && (port_is_taken(port) || self.somebody_has(port).await?)
        {
            return Err(taken(port, name));
        }
        if let Some(volume) = container.labels.get(observed::VOLUME_LABEL) {
            self.mount(name, volume).await?;
        }
        let options = None::<query::StartContainerOptions>;
        let Err(error) = self.docker(Duration::ZERO)?.start_container(name, options).await else { return Ok(()) };
        match (status(&error), container.host_port) {
            (Some(404), _) => Err(Error::ContainerMissing(name.to_owned())),
            (Some(_), Some(port)) if port_is_taken(port) => Err(taken(port, name)),
            _ => Err(refused(format!("start {name}"), error)),
        }
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error> {
        match self.find(name).await? {
            Some((container, _)) if container.state == ContainerState::Running => {}
            _ => return Ok(()),
        }
        let whole_seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let seconds = i32::try_from(whole_seconds).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
        let stopped = self.docker(grace)?.stop_container(name, Some(options)).await;
        match stopped {
            // Whatever the engine says, only what is seen counts: a reply may be lost and a container may be gone.
            Ok(()) => self.ended(name).await,
            Err(error) => {
                tracing::debug!(container = name, "a stop was not confirmed; killing");
                self.kill(name).await?;
                self.ended(name).await.map_err(|unseen| match status(&error) {
                    Some(_) => refused(format!("stop {name}"), error),
                    None => unseen,
                })
            }
        }
    }

    async fn remove_container(&self, name: &str) -> Result<(), Error> {
        let Some((container, _)) = self.find(name).await? else { return Ok(()) };
        if container.state == ContainerState::Running {
            // Removal by force alone would wait for the container's own stop timeout first.
            self.kill(name).await?;
        }
        let options = query::RemoveContainerOptionsBuilder::default().force(true).build();
        let removed = self.docker(Duration::ZERO)?.remove_container(name, Some(options)).await;
        let deadline = Instant::now() + self.options.ending_limit;
        while self.find(name).await?.is_some() {
            // A removal that somebody else has begun is answered with a refusal and then happens.
            if Instant::now() >= deadline {
                let attempt = format!("remove {name}");
                let message = "it is still there".to_owned();
                return Err(removed.map_or_else(
                    |error| refused(&attempt, error),
                    |()| Error::Refused { attempt: attempt.clone(), message },
                ));
            }
            tokio::time::sleep(ENDING_POLL).await;
        }
        Ok(())
    }

    async fn resources(&self, name: &str) -> Result<Option<Resources>, Error> {
        let made = self.libpod.inspect(name).await.map_err(|failure| told(&format!("look at {name}"), failure))?;
        let Some(pid) = made.and_then(|made| made.pid()) else { return Ok(None) };
        match cgroup::read(pid, |path| std::fs::read_to_string(path).ok()) {
            Some(found) => Ok(Some(found)),
            // Its process may have ended since.
            None if self.find(name).await?.is_none_or(|(one, _)| one.state != ContainerState::Running) => Ok(None),
            None => Err(unreadable(name)),
        }
    }

    async fn ensure_limits(&self, name: &str, limits: &Limits) -> Result<(), Error> {
        let attempt = format!("limit {name}");
        let Some(before) = self.resources(name).await? else { return Ok(()) };
        if before.as_limited(limits) {
            return Ok(());
        }
        let updated = self.libpod.update(name, &cgroup::update(limits, cgroup::counts_swap(cgroup::exists))).await;
        // Whatever the engine says, and whether it says anything: what counts is what the kernel has now.
        match self.resources(name).await? {
            None => Ok(()),
            Some(after) if after.as_limited(limits) => Ok(()),
            Some(_) => Err(updated.map_or_else(
                |failure| told(&attempt, failure),
                |()| Error::Refused {
                    attempt: attempt.clone(),
                    message: "the kernel has other limits than it was told".to_owned(),
                },
            )),
        }
    }

    async fn logs(
        &self,
        name: &str,
        lines: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        if self.find(name).await?.is_none() {
            return Err(Error::ContainerMissing(name.to_owned()));
        }
        let options = query::LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&lines.to_string())
            .follow(follow)
            .build();
        let attempt = format!("read the logs of {name}");
        let output = self.docker(Duration::ZERO)?.logs(name, Some(options));
        let pieces = output.map(move |piece| {
            let piece = piece.map_err(|error| refused(attempt.clone(), error))?;
            let stderr = matches!(piece, bollard::container::LogOutput::StdErr { .. });
            Ok((piece.into_bytes(), stderr))
        });
        Ok(lines::split(pieces.boxed()))
    }

    async fn healthy(&self, port: u16, limit: Duration) -> bool {
        self.health.healthy(port, limit).await
    }

    async fn volume(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        match self.docker(Duration::ZERO)?.inspect_volume(name).await {
            Ok(volume) => Ok(Some(PathBuf::from(volume.mountpoint))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(refused(format!("look at the volume {name}"), error)),
        }
    }

    async fn volumes(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let listed = self.docker(Duration::ZERO)?.list_volumes(None::<query::ListVolumesOptions>).await;
        let listed = listed.map_err(|error| refused("list volumes", error))?.volumes.unwrap_or_default();
        let mut names: Vec<_> =
            listed.into_iter().map(|volume| volume.name).filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        Ok(names)
    }

    async fn ensure_volume(&self, name: &str) -> Result<(PathBuf, bool), Error> {
        if let Some(path) = self.volume(name).await? {
            return Ok((path, false));
        }
        let request = VolumeCreateRequest { name: Some(name.to_owned()), ..VolumeCreateRequest::default() };
        let created = self.docker(Duration::ZERO)?.create_volume(request).await;
        let volume = created.map_err(|error| refused(format!("create the volume {name}"), error))?;
        Ok((PathBuf::from(volume.mountpoint), true))
    }

    async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let options = None::<query::RemoveVolumeOptions>;
        match self.docker(Duration::ZERO)?.remove_volume(name, options).await {
            Ok(()) => Ok(()),
            Err(error) => match status(&error) {
                Some(404) => Ok(()),
                Some(409) => Err(Error::Conflict(format!("the volume {name} is used by a container"))),
                _ => Err(refused(format!("remove the volume {name}"), error)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
