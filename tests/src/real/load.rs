//! Users of one tenant who never stop: requests on connections of their own and on kept ones, uploads, a WebSocket and a stream of
//! events through each server.
//!
//! Each request that fails is kept with the time it took, so that whoever knows what was down can judge it afterwards. A stream
//! may end, because its process does; the one that follows it must be taken at the first try.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Login, Real, http::Visitor, streams};

/// Between two requests of one user.
const PACE: Duration = Duration::from_millis(25);
/// Between two uploads.
const UPLOAD_PACE: Duration = Duration::from_millis(150);
const UPLOAD_BYTES: usize = 128 << 10;
/// Files that are written over and over.
const UPLOADS: u64 = 8;
/// Longer than a gate makes anybody wait, so that its refusal is seen as one.
const PATIENCE: Duration = Duration::from_secs(90);

/// A request that was not served.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The server that was asked.
    pub(super) through: String,
    /// Who asked.
    pub(super) who: &'static str,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// What came instead.
    pub(super) what: String,
    /// The tenant's own process answered so, because its disk was full.
    pub(super) by_tenant: bool,
}

/// What all users together met.
#[derive(Default)]
pub(super) struct Seen {
    requests: AtomicU64,
    served: AtomicU64,
    failures: Mutex<Vec<Failure>>,
    /// Acknowledged lines of each writer, in order.
    lines: Mutex<BTreeMap<String, Vec<String>>>,
    /// Of each file the last content that was acknowledged, while no later one was tried.
    uploads: Mutex<BTreeMap<u64, Option<u64>>>,
}

impl Seen {
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> Vec<Failure> {
        open(&self.failures).clone()
    }

    pub(super) fn lines(&self) -> BTreeMap<String, Vec<String>> {
        open(&self.lines).clone()
    }

    /// Files whose content is certain, and what it is.
    pub(super) fn uploads(&self) -> Vec<(String, Vec<u8>)> {
        let certain = open(&self.uploads).clone().into_iter();
        certain.filter_map(|(file, attempt)| Some((upload_name(file), content(attempt?)))).collect()
    }
}

fn open<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All users, until [`Load::stop`].
pub(super) struct Load {
    pub(super) seen: Arc<Seen>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    /// They come through every one of these servers.
    pub(super) fn start(fleet: &Real, servers: &[&str], login: &Login) -> Self {
        let mut load = Self { seen: Arc::default(), stop: CancellationToken::new(), tasks: JoinSet::new() };
        for server in servers {
            let user = |who| User {
                who,
                through: (*server).to_owned(),
                visitor: Visitor::new(one_shot(), fleet.address(server), login.clone()),
                seen: load.seen.clone(),
                stop: load.stop.clone(),
            };
            load.tasks.spawn(user("writer").write());
            load.tasks.spawn(user("uploader").upload(servers.iter().position(|other| other == server).unwrap_or(0)));
            let kept = Visitor::new(kept(), fleet.address(server), login.clone());
            load.tasks.spawn(User { visitor: kept, ..user("reader") }.read());
            let address = fleet.address(server);
            for (who, path) in [("WebSocket", streams::Kind::Socket), ("events", streams::Kind::Events)] {
                load.tasks.spawn(user(who).stream(address, login.clone(), path));
            }
        }
        load
    }

    pub(super) async fn stop(mut self) -> Arc<Seen> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a user does not panic");
        }
        self.seen
    }
}

fn one_shot() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(PATIENCE);
    builder.build().expect("a client can be made")
}

fn kept() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client can be made")
}

fn upload_name(file: u64) -> String {
    format!("/files/uploads/{file}")
}

/// Different for each attempt, in all of it.
fn content(attempt: u64) -> Vec<u8> {
    let words = (0..UPLOAD_BYTES as u64 / 8).map(|word| (attempt << 32 | word).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}

struct User {
    who: &'static str,
    through: String,
    visitor: Visitor,
    seen: Arc<Seen>,
    stop: CancellationToken,
}

impl User {
    /// One line after the other, each on a connection of its own.
    async fn write(self) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for attempt in 0_u64.. {
            pace.tick().await;
            if self.stop.is_cancelled() {
                return;
            }
            let line = format!("{}-{attempt}", self.through);
            let began = self.begin();
            if self.judge(began, self.visitor.append(&line).await) {
                open(&self.seen.lines).entry(self.through.clone()).or_default().push(line);
            }
        }
    }

    /// Reads the page over and over, on a connection that is kept.
    async fn read(self) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stop.is_cancelled() {
            pace.tick().await;
            let began = self.begin();
            self.judge(began, self.visitor.get("/").await);
        }
    }

    /// Replaces files, each user its own.
    async fn upload(self, number: usize) {
        let mut pace = tokio::time::interval(UPLOAD_PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for attempt in 0_u64.. {
            pace.tick().await;
            if self.stop.is_cancelled() {
                return;
            }
            let file = number as u64 * UPLOADS + attempt % UPLOADS;
            open(&self.seen.uploads).insert(file, None);
            let began = self.begin();
            if self.judge(began, self.visitor.put(&upload_name(file), content(attempt)).await) {
                open(&self.seen.uploads).insert(file, Some(attempt));
            }
        }
    }

    /// Opens a stream, and the next one when it has ended.
    async fn stream(self, address: std::net::Ipv4Addr, login: Login, kind: streams::Kind) {
        while !self.stop.is_cancelled() {
            let began = self.begin();
            let opened = tokio::time::timeout(PATIENCE, kind.open(address, &login));
            let opened = opened.await.unwrap_or_else(|_| Err("no answer".to_owned()));
            match opened {
                Ok(stream) => {
                    self.served();
                    // How it ends is no matter: its process was stopped, or its server died.
                    let _ = self.stop.run_until_cancelled(kind.follow(stream)).await;
                }
                Err(what) => {
                    self.failed(began, what, false);
                    // Whoever is refused comes back, but not in the same moment.
                    let _ = self.stop.run_until_cancelled(tokio::time::sleep(PACE)).await;
                }
            }
        }
    }

    fn begin(&self) -> Instant {
        self.seen.requests.fetch_add(1, Ordering::Relaxed);
        Instant::now()
    }

    fn served(&self) {
        self.seen.served.fetch_add(1, Ordering::Relaxed);
    }

    fn judge(&self, began: Instant, answer: Result<super::Answer, String>) -> bool {
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                self.served();
                return true;
            }
            Ok(answer) => {
                // Its disk is full. Whatever else its own process says, "I am stopping" among it, it should not have been asked.
                let by_tenant = answer.boot.is_some() && answer.text.contains("No space left on device");
                self.failed(began, format!("{} {}", answer.status, answer.text.trim()), by_tenant);
            }
            Err(error) => self.failed(began, error, false),
        }
        false
    }

    fn failed(&self, began: Instant, what: String, by_tenant: bool) {
        let (through, who) = (self.through.clone(), self.who);
        let failure = Failure { through, who, began, ended: Instant::now(), what, by_tenant };
        open(&self.seen.failures).push(failure);
    }
}
