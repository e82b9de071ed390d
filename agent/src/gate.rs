//! The gate: where requests wait while their tenant is on its way to another server.
//!
//! Owns one listening socket for each tenant that is held. The proxy connects to it as to the tenant itself; a connection is
//! accepted and not read until it is decided where the tenant lives, and from then on it is a pipe to there. So a request is
//! never handed to a copy that may still be taken back, and one that waited needs no retry. What waited too long is answered
//! 503 with `Retry-After`.
//!
//! Knows no HTTP beyond that answer: WebSockets and uploads wait and pass like everything else. Keeps nothing over a restart;
//! whoever waited then is cut off, and the proxy tries again those whose request it has not sent yet.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use feather_proto::ids::TenantName;
use futures::FutureExt as _;
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::agent::locked;

/// How long after its release a gate still lets pass what the proxy had under way.
const LINGER: Duration = Duration::from_secs(30);
/// How long the released are tried to be connected: a tenant that was taken back may have to start first.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// What is left of a refused request is read for this long, so that its sender reads the answer rather than a reset.
const REFUSE_LIMIT: Duration = Duration::from_secs(1);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nCache-Control: no-store\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 38\r\nConnection: close\r\n\r\n\
    this tenant is moving; try once again\n";

/// How long and how many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// From the opening of a gate until those that wait are refused.
    pub wait: Duration,
    /// Connections that wait at one gate; one more is refused at once.
    pub waiting_max: usize,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self { wait: Duration::from_secs(60), waiting_max: 1024 }
    }
}

/// What is known about a tenant's place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// Nothing yet; after this moment the waiting are refused.
    Hold(Instant),
    /// It lives at this `host:port`.
    To(String),
    /// Nowhere that answers.
    Refuse,
}

struct Gate {
    decision: watch::Sender<Decision>,
    count: Arc<Count>,
    opened: Instant,
}

#[derive(Default)]
struct Count {
    waiting: AtomicUsize,
    /// Since the gate was opened.
    held: AtomicU64,
}

/// What a hold cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Connections that had to wait.
    pub(crate) connections: u64,
    /// From the opening to the release.
    pub(crate) time: Duration,
}

/// The gates of one server.
pub(crate) struct Gates {
    directory: PathBuf,
    limits: GateLimits,
    gates: Arc<Mutex<BTreeMap<TenantName, Gate>>>,
    /// What the last hold of each tenant cost.
    held: Mutex<BTreeMap<TenantName, Held>>,
    /// Ends with this all pipes, as the end of the process would.
    ended: CancellationToken,
    _ends: DropGuard,
}

impl Gates {
    pub(crate) fn new(directory: PathBuf, limits: GateLimits) -> Self {
        let ended = CancellationToken::new();
        Self {
            directory,
            limits,
            gates: Arc::default(),
            held: Mutex::default(),
            _ends: ended.clone().drop_guard(),
            ended,
        }
    }

    fn socket(&self, tenant: &TenantName) -> PathBuf {
        self.directory.join(tenant.as_str())
    }

    /// Opens the tenant's gate, or leaves it open. Returns its socket.
    pub(crate) fn hold(&self, tenant: &TenantName) -> io::Result<PathBuf> {
        let socket = self.socket(tenant);
        let mut gates = locked(&self.gates);
        let until = Instant::now() + self.limits.wait;
        if let Some(gate) = gates.get_mut(tenant) {
            let reopened = gate.decision.send_if_modified(|decision| {
                let released = !matches!(decision, Decision::Hold(_));
                if released {
                    *decision = Decision::Hold(until);
                }
                released
            });
            if reopened {
                gate.opened = Instant::now();
                gate.count.held.store(0, Ordering::Relaxed);
            }
            return Ok(socket);
        }
        let listener = listen(&self.directory, &socket)?;
        let (decision, decided) = watch::channel(Decision::Hold(until));
        let count = Arc::new(Count::default());
        let door = Door {
            listener,
            decided,
            count: count.clone(),
            waiting_max: self.limits.waiting_max,
            gates: self.gates.clone(),
            tenant: tenant.clone(),
            socket: socket.clone(),
        };
        tokio::spawn(self.ended.clone().run_until_cancelled_owned(door.keep()));
        gates.insert(tenant.clone(), Gate { decision, count, opened: Instant::now() });
        Ok(socket)
    }

    /// Hands everybody who waits to `to`, or refuses them. `None` when the gate was not holding anybody back.
    pub(crate) fn release(&self, tenant: &TenantName, to: Option<&str>) -> Option<Held> {
        let gates = locked(&self.gates);
        let gate = gates.get(tenant)?;
        let decision = to.map_or(Decision::Refuse, |to| Decision::To(to.to_owned()));
        let mut held = None;
        gate.decision.send_if_modified(|current| {
            if matches!(current, Decision::Hold(_)) {
                held = Some(Held { connections: gate.count.held.load(Ordering::Relaxed), time: gate.opened.elapsed() });
            }
            let changed = *current != decision;
            *current = decision;
            changed
        });
        if let Some(held) = held {
            locked(&self.held).insert(tenant.clone(), held);
        }
        held
    }

    /// What the tenant's last hold cost, if this process has released one.
    pub(crate) fn last_held(&self, tenant: &TenantName) -> Option<Held> {
        locked(&self.held).get(tenant).copied()
    }

    /// Connections that wait at the tenant's gate now.
    pub(crate) fn waiting(&self, tenant: &TenantName) -> usize {
        locked(&self.gates).get(tenant).map_or(0, |gate| gate.count.waiting.load(Ordering::Relaxed))
    }

    /// Tenants with a gate, held or just released.
    pub(crate) fn open(&self) -> Vec<TenantName> {
        locked(&self.gates).keys().cloned().collect()
    }
}

/// A socket of that name is a leftover: this process holds the lock on the state directory that it lies in.
fn listen(directory: &Path, socket: &Path) -> io::Result<UnixListener> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    match fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(socket)?,
        _ => {}
    }
    UnixListener::bind(socket)
}

/// The task behind one gate.
struct Door {
    listener: UnixListener,
    decided: watch::Receiver<Decision>,
    count: Arc<Count>,
    waiting_max: usize,
    gates: Arc<Mutex<BTreeMap<TenantName, Gate>>>,
    tenant: TenantName,
    socket: PathBuf,
}

impl Door {
    async fn keep(mut self) {
        let mut connections = JoinSet::new();
        loop {
            let released = !matches!(*self.decided.borrow_and_update(), Decision::Hold(_));
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((connection, _)) => drop(connections.spawn(self.admit(connection))),
                    // Out of descriptors: those that wait will give some back.
                    Err(error) => {
                        tracing::warn!(tenant = %self.tenant, %error, "the gate cannot accept a connection");
                        tokio::time::sleep(CONNECT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                changed = self.decided.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LINGER), if released => if self.close() { break },
            }
        }
        drop(self.listener);
        // Those that passed go on as long as they like; the entry in the map is gone, so nothing else ends them.
        while connections.join_next().await.is_some() {}
    }

    /// Takes the gate away unless it was closed to traffic again at this very moment.
    fn close(&self) -> bool {
        let mut gates = locked(&self.gates);
        if matches!(*self.decided.borrow(), Decision::Hold(_)) {
            return false;
        }
        gates.remove(&self.tenant);
        let _ = fs::remove_file(&self.socket);
        true
    }

    fn admit(&self, connection: UnixStream) -> impl Future<Output = ()> + use<> {
        let (decided, count) = (self.decided.clone(), self.count.clone());
        let full = count.waiting.load(Ordering::Relaxed) >= self.waiting_max;
        let holding = matches!(*decided.borrow(), Decision::Hold(_));
        if holding && !full {
            count.held.fetch_add(1, Ordering::Relaxed);
        }
        let waiting = Waiting::of(count);
        async move {
            if full {
                return refuse(connection).await;
            }
            let to = decision(decided).await;
            drop(waiting);
            match to {
                Some(to) if !has_left(&connection) => pass(connection, &to).await,
                Some(_) => {}
                None => refuse(connection).await,
            }
        }
    }
}

/// Counts one connection for as long as it waits.
struct Waiting(Arc<Count>);

impl Waiting {
    fn of(count: Arc<Count>) -> Self {
        count.waiting.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until it is decided where to go; `None` is a refusal.
async fn decision(mut decided: watch::Receiver<Decision>) -> Option<String> {
    loop {
        let current = decided.borrow_and_update().clone();
        match current {
            Decision::To(to) => return Some(to),
            Decision::Refuse => return None,
            Decision::Hold(until) => tokio::select! {
                changed = decided.changed() => if changed.is_err() { return None },
                () = tokio::time::sleep_until(until) => return None,
            },
        }
    }
}

/// The other end has closed: its request has no one to answer to any more, and must not be made.
fn has_left(connection: &UnixStream) -> bool {
    matches!(connection.ready(Interest::READABLE).now_or_never(), Some(Ok(ready)) if ready.is_read_closed())
}

async fn pass(mut connection: UnixStream, to: &str) {
    let deadline = Instant::now() + CONNECT_LIMIT;
    let mut onward = loop {
        match TcpStream::connect(to).await {
            Ok(onward) => break onward,
            Err(_) if Instant::now() < deadline => tokio::time::sleep(CONNECT_PAUSE).await,
            Err(error) => {
                tracing::warn!(to, %error, "a request that waited at the gate finds nobody");
                return refuse(connection).await;
            }
        }
    };
    let _ = onward.set_nodelay(true);
    // Either end may break off at any time; that is theirs to know.
    let _ = tokio::io::copy_bidirectional(&mut connection, &mut onward).await;
}

async fn refuse(mut connection: UnixStream) {
    let refused = async {
        connection.write_all(REFUSAL).await?;
        connection.shutdown().await?;
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(REFUSE_LIMIT, refused).await;
}

#[cfg(test)]
mod tests;
