//! What happens inside the containers of fake engines: somebody is told of every start and end.
//!
//! Owns the observer's contract and the observer that a fleet shares to prove that nothing ran twice at once. Knows nothing
//! of how containers come to be started.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::Write,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Where it runs.
    pub server: String,
    /// Its container.
    pub container: String,
    /// Its data.
    pub volume: PathBuf,
    /// Its loopback port.
    pub port: u16,
    /// Labels of its container.
    pub labels: BTreeMap<String, String>,
}

/// Is told of every start and end of a container's process, before the call that causes it returns. It is called under the
/// engine's lock and must not call the engine.
pub trait Processes: Send + Sync {
    /// The process runs from now on.
    fn started(&self, process: &Process);
    /// The process has ended, by whatever cause.
    fn ended(&self, process: &Process);
}

#[derive(Default)]
struct Seen {
    running: BTreeMap<String, BTreeSet<String>>,
    starts: Vec<Process>,
    violations: Vec<String>,
}

/// Remembers all starts of a fleet, and every moment at which a container ran on two servers. Each start leaves a line in the
/// volume, as a process would leave data there.
#[derive(Default)]
pub struct Recorder {
    seen: Mutex<Seen>,
}

/// Name of the file in the volume that gets a line at each start.
pub const STARTS_FILE: &str = "starts.log";

impl Recorder {
    /// What should never have happened, in sentences.
    pub fn violations(&self) -> Vec<String> {
        self.seen().violations.clone()
    }

    /// Servers on which the container runs now.
    pub fn running(&self, container: &str) -> Vec<String> {
        self.seen().running.get(container).into_iter().flatten().cloned().collect()
    }

    /// All starts of the container, oldest first.
    pub fn starts(&self, container: &str) -> Vec<Process> {
        self.seen().starts.iter().filter(|process| process.container == container).cloned().collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Processes for Recorder {
    fn started(&self, process: &Process) {
        let mut seen = self.seen();
        let servers = seen.running.entry(process.container.clone()).or_default();
        servers.insert(process.server.clone());
        // Each server has an admin container of its own.
        if servers.len() > 1 && !process.container.starts_with("feather-work-") {
            let violation = format!("{} runs on {servers:?} at the same time", process.container);
            seen.violations.push(violation);
        }
        seen.starts.push(process.clone());
        let line = format!("started on {} with {:?}\n", process.server, process.labels);
        let file = OpenOptions::new().create(true).append(true).open(process.volume.join(STARTS_FILE));
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            let violation = format!("{} was started without its volume: {error}", process.container);
            seen.violations.push(violation);
        }
    }

    fn ended(&self, process: &Process) {
        if let Some(servers) = self.seen().running.get_mut(&process.container) {
            servers.remove(&process.server);
        }
    }
}
