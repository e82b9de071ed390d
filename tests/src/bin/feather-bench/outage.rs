//! A client that notices: it asks every few milliseconds, each time by a new connection, and never gives up early.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

const ASK_EVERY: Duration = Duration::from_millis(10);
const WRITE_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom to ask, and through which server.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) through: Ipv4Addr,
    pub(crate) host: String,
    pub(crate) password: String,
}

/// What was seen meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// The longest that anybody waited for an answer.
    pub(crate) longest: Duration,
    /// Answers.
    pub(crate) answered: u64,
    /// Lines that the tenant acknowledged.
    pub(crate) written: u64,
    /// Whatever was no success.
    pub(crate) failed: u64,
}

/// Asks and writes for as long as `work` takes, and until everything asked has been answered.
pub(crate) async fn during<T>(door: Door, work: impl Future<Output = T>) -> anyhow::Result<(T, Seen)> {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(PATIENCE).build()?;
    let over = CancellationToken::new();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let asking = tokio::spawn(ask(client.clone(), door.clone(), seen.clone(), over.clone()));
    let writing = tokio::spawn(write(client, door, seen.clone(), over.clone()));
    let done = work.await;
    over.cancel();
    asking.await.context("the asking task")?;
    writing.await.context("the writing task")?;
    let seen = *seen.lock().await;
    Ok((done, seen))
}

async fn ask(client: reqwest::Client, door: Door, seen: Arc<Mutex<Seen>>, over: CancellationToken) {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = JoinSet::new();
    while over.run_until_cancelled(ticks.tick()).await.is_some() {
        let request = client.get(format!("http://{}/health", door.through)).header("host", &door.host);
        let seen = seen.clone();
        requests.spawn(async move {
            let began = Instant::now();
            let answer = request.send().await;
            let took = began.elapsed();
            let mut seen = seen.lock().await;
            match answer {
                Ok(answer) if answer.status().is_success() => {
                    seen.answered += 1;
                    seen.longest = seen.longest.max(took);
                }
                _ => seen.failed += 1,
            }
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

async fn write(client: reqwest::Client, door: Door, seen: Arc<Mutex<Seen>>, over: CancellationToken) {
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = 0_u64;
    while over.run_until_cancelled(ticks.tick()).await.is_some() {
        line += 1;
        let request = client.post(format!("http://{}/append", door.through)).header("host", &door.host);
        let answer = request.bearer_auth(&door.password).body(format!("bench line {line}")).send().await;
        let mut seen = seen.lock().await;
        match answer {
            Ok(answer) if answer.status().is_success() => seen.written += 1,
            _ => seen.failed += 1,
        }
    }
}
