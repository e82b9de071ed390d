//! The engine in memory: containers as records, volumes as real directories, faults on demand.
//!
//! Owns what a test needs to stand in for Podman, and the ways in which it fails. Knows nothing of tenants or generations;
//! whoever wants to act as the process inside a container observes it through [`Processes`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Capacity, Container, ContainerSpec, Error, Home, Inspected, LogLine, Network, Resources, Runtime, no_home,
};
use async_trait::async_trait;
use bytes::Bytes;
use feather_proto::{
    limits::Limits,
    model::{ContainerState, Image},
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use time::OffsetDateTime;

mod faults;
mod image;
mod limits;
mod output;
mod processes;

pub use faults::Verb;
use faults::{Faults, Reply};
use image::{Archive, canonical};
pub use image::{Behaviour, archive};
use output::Output;
pub use processes::{Process, Processes, Recorder, STARTS_FILE};

/// Size of the pieces of an exported image: small, so that a stream has several.
const PIECE_BYTES: usize = 64;

struct Entry {
    id: u64,
    spec: ContainerSpec,
    /// Set when it was not made by a call of [`Runtime`].
    by_hand: Option<ByHand>,
    image: Archive,
    state: ContainerState,
    /// How often its health was asked since it was started.
    polls: u32,
    output: Output,
    /// How it behaves, when it is not as its image says.
    changed: Option<Behaviour>,
    /// Runs and answers nobody, until its next start.
    hangs: bool,
    /// What it uses and may use while it runs.
    resources: Resources,
}

impl Entry {
    fn behaviour(&self) -> Behaviour {
        self.changed.unwrap_or_else(|| self.image.behaviour())
    }

    fn answers(&self) -> bool {
        !self.hangs && self.behaviour().healthy_after(self.polls)
    }
}

/// What somebody does differently who makes a container by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// What is mounted at `/home/user`.
    pub home: Option<Home>,
    /// Where anything else is mounted.
    pub other_mounts: Vec<String>,
    /// How it is reached.
    pub network: Network,
}

impl ByHand {
    /// As the old script does it.
    pub fn as_the_script(spec: &ContainerSpec) -> Self {
        Self {
            home: Some(Home::Volume(spec.volume.clone())),
            other_mounts: Vec::new(),
            network: Network::Published { port: spec.host_port, loopback: true },
        }
    }
}

struct State {
    capacity: Capacity,
    /// Ports that some process outside of all containers listens at.
    occupied: BTreeSet<u16>,
    made: u64,
    images: BTreeMap<String, Archive>,
    containers: BTreeMap<String, Entry>,
    faults: Faults,
    /// By container.
    changed: BTreeMap<String, Behaviour>,
}

/// The fake engine of one server. It outlives the agent of a test, as Podman outlives an agent.
pub struct Fake {
    server: String,
    directory: PathBuf,
    processes: Arc<dyn Processes>,
    state: Mutex<State>,
}

impl Fake {
    /// An engine without images or containers whose volumes live under the directory; those that are there already are kept.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        const GIB: u64 = 1 << 30;
        let capacity = Capacity {
            memory_total_bytes: 8 * GIB,
            memory_free_bytes: 6 * GIB,
            disk_total_bytes: 100 * GIB,
            disk_free_bytes: 80 * GIB,
            cores: 4,
        };
        let state = State {
            capacity,
            occupied: BTreeSet::new(),
            made: 0,
            images: BTreeMap::new(),
            containers: BTreeMap::new(),
            faults: Faults::default(),
            changed: BTreeMap::new(),
        };
        Self {
            server: "local".to_owned(),
            directory: directory.into(),
            processes: Arc::new(Recorder::default()),
            state: Mutex::new(state),
        }
    }

    /// The server's name and the observer of its processes, which the fakes of a whole fleet may share.
    #[must_use]
    pub fn observed_by(mut self, server: &str, processes: Arc<dyn Processes>) -> Self {
        server.clone_into(&mut self.server);
        self.processes = processes;
        self
    }

    /// Puts an image into storage; the same content has the same digest everywhere. Returns the digest.
    pub fn add_image(&self, reference: &str, content: &str, behaviour: Behaviour) -> String {
        let archive = Archive::new(reference, content, behaviour);
        let digest = archive.digest();
        self.state().images.insert(archive.reference.clone(), archive);
        digest
    }

    /// Somebody makes and starts a container without us. Its volume is made, too.
    pub fn run_by_hand(&self, spec: &ContainerSpec, by_hand: ByHand) {
        drop(std::fs::create_dir_all(self.volume_path(&spec.volume)));
        let mut state = self.state();
        let Some(image) = state.find_image(&spec.image).cloned() else { return };
        let mut entry = state.entry(spec, image);
        entry.by_hand = Some(by_hand);
        self.begin(&mut entry);
        state.containers.insert(spec.name.clone(), entry);
    }

    /// Takes an image out of storage.
    pub fn remove_image(&self, reference: &str) {
        self.state().images.remove(&canonical(reference));
    }

    /// What [`Runtime::capacity`] answers from now on.
    pub fn set_capacity(&self, capacity: Capacity) {
        self.state().capacity = capacity;
    }

    /// The next `times` calls of the verb are refused and do nothing.
    pub fn fail_next(&self, verb: Verb, times: u32) {
        self.state().faults.refuse(verb, times);
    }

    /// The next call of the verb does its work, and its caller is told that the engine does not answer.
    pub fn lose_reply_next(&self, verb: Verb) {
        self.state().faults.lose_reply(verb);
    }

    /// While so, every call fails and does nothing; containers run on.
    pub fn unreachable(&self, unreachable: bool) {
        self.state().faults.unreachable = unreachable;
    }

    /// How often a verb was called, failed calls included.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.state().faults.calls(verb)
    }

    /// What a container was created from: the only place where a test sees its environment.
    pub fn spec(&self, name: &str) -> Option<ContainerSpec> {
        self.state().containers.get(name).map(|entry| entry.spec.clone())
    }

    /// Is there a running container behind the loopback port that would answer requests? Asking does not count as a poll.
    pub fn listening(&self, port: u16) -> bool {
        let state = self.state();
        state.running_on(port).is_some_and(Entry::answers)
    }

    /// A container of this name behaves otherwise from now on, as if that was in its data.
    pub fn set_behaviour(&self, name: &str, behaviour: Behaviour) {
        let mut state = self.state();
        state.changed.insert(name.to_owned(), behaviour);
        if let Some(entry) = state.containers.get_mut(name) {
            entry.changed = Some(behaviour);
        }
    }

    /// Adds a line to a container's output.
    pub fn write_log(&self, name: &str, text: &str, stderr: bool) {
        if let Some(entry) = self.state().containers.get(name) {
            entry.output.write(text, stderr);
        }
    }

    /// The container's process ends by itself.
    pub fn crash(&self, name: &str) {
        if let Some(entry) = self.state().containers.get_mut(name) {
            self.end(entry);
        }
    }

    /// The container's process runs on and answers nobody, until it is started again.
    pub fn hang(&self, name: &str) {
        if let Some(entry) = self.state().containers.get_mut(name) {
            entry.hangs = true;
        }
    }

    /// Some process outside of all containers listens at the port, and answers everybody with 200; or no longer.
    pub fn occupy(&self, port: u16, occupied: bool) {
        let mut state = self.state();
        if occupied {
            state.occupied.insert(port)
        } else {
            state.occupied.remove(&port)
        };
    }

    /// Power off and on: every process is gone and nothing is started again; images, volumes and exited containers stay.
    pub fn reboot(&self) {
        for entry in self.state().containers.values_mut() {
            self.end(entry);
        }
    }

    /// The directory that a volume of this name has or would have.
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("_data")
    }

    fn home(&self, spec: &ContainerSpec) -> PathBuf {
        spec.directory().map_or_else(|| self.volume_path(&spec.volume), Path::to_owned)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a failed test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, verb: Verb) -> Result<(MutexGuard<'_, State>, Reply), Error> {
        let mut state = self.state();
        let reply = state.faults.enter(verb)?;
        Ok((state, reply))
    }

    fn process(&self, entry: &Entry) -> Process {
        Process {
            server: self.server.clone(),
            container: entry.spec.name.clone(),
            volume: self.home(&entry.spec),
            port: entry.spec.host_port,
            labels: entry.spec.labels.clone(),
        }
    }

    fn begin(&self, entry: &mut Entry) {
        entry.state = ContainerState::Running;
        entry.polls = 0;
        entry.hangs = false;
        entry.resources = limits::limited(&entry.spec.limits, entry.resources);
        entry.output.open();
        entry.output.write("listening on 8080", false);
        self.processes.started(&self.process(entry));
        if entry.behaviour() == Behaviour::Exits {
            entry.output.write("cannot go on", true);
            self.end(entry);
        }
    }

    fn end(&self, entry: &mut Entry) {
        if entry.state == ContainerState::Running {
            entry.state = ContainerState::Exited;
            entry.output.close();
            self.processes.ended(&self.process(entry));
        }
    }
}

impl State {
    fn entry(&mut self, spec: &ContainerSpec, image: Archive) -> Entry {
        self.made += 1;
        let (state, output) = (ContainerState::Created, Output::default());
        let (spec, changed) = (spec.clone(), self.changed.get(&spec.name).copied());
        let resources = limits::idle();
        Entry { id: self.made, spec, by_hand: None, image, state, polls: 0, output, changed, hangs: false, resources }
    }

    fn running_on(&self, port: u16) -> Option<&Entry> {
        self.containers.values().find(|entry| entry.state == ContainerState::Running && entry.spec.host_port == port)
    }

    fn find_image(&self, reference: &str) -> Option<&Archive> {
        self.images.get(&canonical(reference)).or_else(|| self.images.values().find(|image| image.is_called(reference)))
    }
}

fn report(entry: &Entry) -> Container {
    Container {
        name: entry.spec.name.clone(),
        id: entry.id.to_string(),
        state: entry.state,
        image_digest: entry.image.digest(),
        host_port: match entry.by_hand.as_ref().map(|by_hand| by_hand.network) {
            Some(Network::Host | Network::Closed) => None,
            Some(Network::Published { port, .. }) => Some(port),
            None => Some(entry.spec.host_port),
        },
        labels: entry.spec.labels.clone(),
    }
}

fn refused(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let attempt = attempt.into();
    move |error| Error::Refused { attempt, message: error.to_string() }
}

fn is_volume(path: &Path) -> bool {
    path.join("_data").is_dir()
}

#[async_trait]
impl Runtime for Fake {
    async fn capacity(&self) -> Result<Capacity, Error> {
        let (state, reply) = self.enter(Verb::Capacity)?;
        reply.deliver(state.capacity)
    }

    async fn images(&self) -> Result<Vec<Image>, Error> {
        let (state, reply) = self.enter(Verb::Images)?;
        reply.deliver(state.images.values().map(Archive::image).collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        let (state, reply) = self.enter(Verb::Image)?;
        reply.deliver(state.find_image(reference).map(Archive::image))
    }

    async fn load_image(&self, archive: BoxStream<'static, Result<Bytes, io::Error>>) -> Result<Vec<Image>, Error> {
        let reply = self.enter(Verb::LoadImage)?.1;
        let content: Vec<Bytes> = archive.try_collect().await.map_err(|error| Error::BadArchive(error.to_string()))?;
        let archive = Archive::decode(&content.concat())?;
        let image = archive.image();
        self.state().images.insert(archive.reference.clone(), archive);
        reply.deliver(vec![image])
    }

    async fn export_image(&self, reference: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let (state, reply) = self.enter(Verb::ExportImage)?;
        let archive = state.find_image(reference).ok_or_else(|| Error::ImageMissing(reference.to_owned()))?.encode();
        let pieces: Vec<_> = archive.chunks(PIECE_BYTES).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        reply.deliver(stream::iter(pieces).boxed())
    }

    async fn container(&self, name: &str) -> Result<Option<Container>, Error> {
        let (state, reply) = self.enter(Verb::Container)?;
        reply.deliver(state.containers.get(name).map(report))
    }

    async fn inspect(&self, name: &str) -> Result<Option<Inspected>, Error> {
        let (state, reply) = self.enter(Verb::Inspect)?;
        let inspected = state.containers.get(name).map(|entry| {
            let made = entry.by_hand.clone().unwrap_or_else(|| ByHand::as_the_script(&entry.spec));
            Inspected {
                container: report(entry),
                image: entry.image.image().reference,
                created: OffsetDateTime::UNIX_EPOCH,
                home: made.home,
                other_mounts: made.other_mounts,
                network: made.network,
                environment: entry.spec.environment.clone(),
            }
        });
        reply.deliver(inspected)
    }

    async fn containers(&self, prefix: &str) -> Result<Vec<Container>, Error> {
        let (state, reply) = self.enter(Verb::Containers)?;
        let matching = state.containers.values().filter(|entry| entry.spec.name.starts_with(prefix));
        reply.deliver(matching.map(report).collect())
    }

    async fn ensure_container(&self, spec: &ContainerSpec) -> Result<(), Error> {
        let (mut state, reply) = self.enter(Verb::EnsureContainer)?;
        if state.containers.get(&spec.name).is_some_and(|entry| entry.spec == *spec && entry.by_hand.is_none()) {
            return reply.deliver(());
        }
        let image = state.find_image(&spec.image).ok_or_else(|| Error::ImageMissing(spec.image.clone()))?.clone();
        if !self.home(spec).is_dir() {
            return Err(no_home(spec));
        }
        if let Some(mut old) = state.containers.remove(&spec.name) {
            self.end(&mut old);
        }
        let entry = state.entry(spec, image);
        state.containers.insert(spec.name.clone(), entry);
        reply.deliver(())
    }

    async fn start(&self, name: &str) -> Result<(), Error> {
        let (mut state, reply) = self.enter(Verb::Start)?;
        let entry = state.containers.get(name).ok_or_else(|| Error::ContainerMissing(name.to_owned()))?;
        if entry.state == ContainerState::Running {
            return reply.deliver(());
        }
        let port = entry.spec.host_port;
        let other = state.running_on(port).map(|other| format!("the container {}", other.spec.name));
        if let Some(owner) = other.or_else(|| state.occupied.contains(&port).then(|| "another process".to_owned())) {
            return Err(Error::Conflict(format!("port {port} is taken by {owner}")));
        }
        if let Some(entry) = state.containers.get_mut(name) {
            self.begin(entry);
        }
        reply.deliver(())
    }

    async fn resources(&self, name: &str) -> Result<Option<Resources>, Error> {
        let (state, reply) = self.enter(Verb::Resources)?;
        let running = state.containers.get(name).filter(|entry| entry.state == ContainerState::Running);
        reply.deliver(running.map(|entry| entry.resources))
    }

    async fn ensure_limits(&self, name: &str, limits: &Limits) -> Result<(), Error> {
        let (mut state, reply) = self.enter(Verb::EnsureLimits)?;
        let entry = state.containers.get_mut(name).filter(|entry| entry.state == ContainerState::Running);
        if let Some(entry) = entry {
            entry.resources = limits::limited(limits, entry.resources);
        }
        reply.deliver(())
    }

    async fn stop(&self, name: &str, _grace: Duration) -> Result<(), Error> {
        let (mut state, reply) = self.enter(Verb::Stop)?;
        if let Some(entry) = state.containers.get_mut(name) {
            self.end(entry);
        }
        reply.deliver(())
    }

    async fn remove_container(&self, name: &str) -> Result<(), Error> {
        let (mut state, reply) = self.enter(Verb::RemoveContainer)?;
        if let Some(mut entry) = state.containers.remove(name) {
            self.end(&mut entry);
        }
        reply.deliver(())
    }

    async fn logs(
        &self,
        name: &str,
        lines: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        let (state, reply) = self.enter(Verb::Logs)?;
        let entry = state.containers.get(name).ok_or_else(|| Error::ContainerMissing(name.to_owned()))?;
        reply.deliver(entry.output.read(lines, follow))
    }

    async fn healthy(&self, port: u16, _limit: Duration) -> bool {
        let mut state = self.state();
        // Health is asked of the container, not of the engine: an unreachable engine does not make it unhealthy.
        if state.faults.take_refusal(Verb::Healthy) {
            return false;
        }
        if state.occupied.contains(&port) {
            return true;
        }
        let entry = state
            .containers
            .values_mut()
            .find(|entry| entry.state == ContainerState::Running && entry.spec.host_port == port);
        entry.is_some_and(|entry| {
            let healthy = entry.answers();
            entry.polls = entry.polls.saturating_add(1);
            healthy
        })
    }

    async fn volume(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        let (_state, reply) = self.enter(Verb::Volume)?;
        let path = self.volume_path(name);
        reply.deliver(path.is_dir().then_some(path))
    }

    async fn volumes(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let (_state, reply) = self.enter(Verb::Volumes)?;
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return reply.deliver(Vec::new()),
            Err(error) => return Err(refused("list volumes")(error)),
        };
        let names: BTreeSet<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| is_volume(&entry.path()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        reply.deliver(names.into_iter().collect())
    }

    async fn ensure_volume(&self, name: &str) -> Result<(PathBuf, bool), Error> {
        let (_state, reply) = self.enter(Verb::EnsureVolume)?;
        let path = self.volume_path(name);
        let made = !path.is_dir();
        std::fs::create_dir_all(&path).map_err(refused(format!("create the volume {name}")))?;
        reply.deliver((path, made))
    }

    async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let (state, reply) = self.enter(Verb::RemoveVolume)?;
        if let Some(user) = state.containers.values().find(|entry| entry.spec.volume == name) {
            return Err(Error::Conflict(format!("the volume {name} is used by the container {}", user.spec.name)));
        }
        match std::fs::remove_dir_all(self.directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(refused(format!("remove the volume {name}"))(error))
            }
            _ => reply.deliver(()),
        }
    }
}

#[cfg(test)]
mod tests;
