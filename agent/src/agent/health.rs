//! Health of containers: awaited by calls after a start, watched at intervals ever after.
//!
//! Owns how long one waits for a first answer, what is quoted of a container that never gave one, and the notes on each
//! container's health. Restarts nothing.

use std::time::Duration;

use feather_proto::{
    error::{Error, reason},
    ids::TenantName,
    model::{ContainerState, WatchReport},
};
use futures::StreamExt as _;
use tokio::time::Instant;

use super::{Agent, locked};
use crate::{
    events::Kind,
    history::Remembered,
    watch::{Patience, Watch},
};

/// One health request may take this long.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);
/// How often a container that is not healthy yet is looked at, whether its process still lives.
const STATE_INTERVAL: Duration = Duration::from_millis(500);
/// What is quoted from the output of a container that failed.
const LOG_LINES: u32 = 10;
const LOG_BYTES: usize = 2048;

/// A container whose first healthy answer is awaited.
pub(crate) struct Awaited<'a> {
    pub(crate) container: &'a str,
    /// What people call it.
    pub(crate) what: &'a str,
    /// Loopback port.
    pub(crate) port: u16,
    /// What it was given and nobody may read.
    pub(crate) secrets: Vec<String>,
}

/// Whose health is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watched {
    Tenant(TenantName),
    /// The admin container that serves.
    Admin,
}

impl Watched {
    pub(crate) fn tenant(&self) -> Option<&TenantName> {
        match self {
            Watched::Tenant(tenant) => Some(tenant),
            Watched::Admin => None,
        }
    }

    fn name(&self) -> String {
        self.tenant().map_or_else(|| "the admin container".to_owned(), ToString::to_string)
    }
}

/// Pauses between health requests: short at first, when most containers answer, because they are part of every outage.
fn health_pause(waited: Duration) -> Duration {
    Duration::from_millis(match waited.as_millis() {
        0..250 => 10,
        250..2_000 => 50,
        2_000..10_000 => 100,
        _ => 500,
    })
}

impl Agent {
    /// Waits for the first healthy answer. The error quotes the container's last lines.
    pub(crate) async fn await_health(&self, awaited: &Awaited<'_>) -> Result<Duration, Error> {
        let what = awaited.what;
        let began = Instant::now();
        let mut looked = began;
        let why = loop {
            if self.runtime.healthy(awaited.port, HEALTH_LIMIT).await {
                return Ok(began.elapsed());
            }
            if began.elapsed() >= self.config.health_timeout {
                let seconds = self.config.health_timeout.as_secs();
                break format!("{what} did not answer its health check within {seconds} s");
            }
            if looked.elapsed() >= STATE_INTERVAL {
                looked = Instant::now();
                // An engine that does not answer says nothing about the container: go on asking it for its health.
                let seen = self.runtime.container(awaited.container).await;
                let state = seen.map(|seen| seen.map_or(ContainerState::Missing, |container| container.state));
                if let Ok(ContainerState::Exited | ContainerState::Missing) = state {
                    break format!("the process of {what} ended before it answered its health check");
                }
            }
            tokio::time::sleep(health_pause(began.elapsed())).await;
        };
        let lines = self.last_lines(awaited).await;
        let output = if lines.is_empty() { "; it wrote nothing".into() } else { format!("; its last lines:\n{lines}") };
        Err(Error::refused(reason::NEVER_HEALTHY, format!("{why}{output}")))
    }

    /// The end of a container's output, for a person. Secrets that it was given are blotted out.
    async fn last_lines(&self, awaited: &Awaited<'_>) -> String {
        let collect = async {
            let stream = self.runtime.logs(awaited.container, LOG_LINES, false).await.ok()?;
            Some(stream.take(LOG_LINES as usize).filter_map(|line| async { line.ok() }).collect::<Vec<_>>().await)
        };
        let lines = tokio::time::timeout(Duration::from_secs(5), collect).await.ok().flatten().unwrap_or_default();
        let mut text = lines.iter().map(|line| format!("  {}", line.text)).collect::<Vec<_>>().join("\n");
        for secret in awaited.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "***");
        }
        while text.len() > LOG_BYTES {
            // Whole lines go first, the oldest before the newer; a single endless one is cut.
            match text.split_once('\n') {
                Some((_, rest)) => text = rest.to_owned(),
                None => text = text.chars().take(LOG_BYTES / 4).collect(),
            }
        }
        text
    }

    fn patience(&self) -> Patience {
        Patience { checks: self.config.watchdog_checks, first_answer: self.config.health_timeout }
    }

    fn on_watch<T>(&self, subject: &Watched, look: impl FnOnce(&mut Watch) -> T) -> T {
        look(locked(&self.watches).entry(subject.clone()).or_default())
    }

    /// A process begins: what was known of the health of the one before is void.
    pub(crate) fn note_start(&self, subject: &Watched) {
        self.on_watch(subject, |watch| watch.started(Instant::now()));
    }

    /// The watchdog has asked.
    pub(crate) fn note_check(&self, subject: &Watched, healthy: bool) {
        let patience = self.patience();
        let recovers = self.on_watch(subject, |watch| watch.checked(healthy, patience));
        if recovers {
            self.note_event(Kind::Recovered, subject.tenant(), format!("{} answers again", subject.name()));
        }
        if self.is_unhealthy(subject) {
            self.wake.notify_one();
        }
    }

    /// A container was started again because it had to be.
    pub(crate) fn note_restart(&self, subject: &Watched, container: &str, why: &str) {
        let begins = self.on_watch(subject, |watch| watch.restarted(Instant::now(), self.clock.now()));
        self.note_event(Kind::Restarted, subject.tenant(), format!("{container} was started again: {why}"));
        if begins {
            let message = format!(
                "{container} had to be started again and again; this goes on, with pauses of up to a minute, until it answers \
                 for a while"
            );
            self.note_event(Kind::CrashLoop, subject.tenant(), message);
        }
    }

    /// It runs and has not answered for too long.
    pub(crate) fn is_unhealthy(&self, subject: &Watched) -> bool {
        let watches = locked(&self.watches);
        watches.get(subject).is_some_and(|watch| watch.is_unhealthy(Instant::now(), self.patience()))
    }

    /// What people are told of its restarts.
    pub(crate) fn watch_report(&self, subject: &Watched) -> WatchReport {
        locked(&self.watches).get(subject).map(Watch::report).unwrap_or_default()
    }

    /// Whoever does not live here, or shall not run, begins anew when it does.
    pub(crate) fn forget_watches(&self, stays: impl Fn(&TenantName) -> bool) {
        locked(&self.watches).retain(|subject, _| subject.tenant().is_none_or(&stays));
    }

    /// What the agent after this one shall know of.
    pub(crate) fn remembered(&self) -> Remembered {
        Remembered::of(self.events.all(), &locked(&self.watches))
    }

    /// Notes an event, and tells whoever watches.
    pub(crate) fn note_event(&self, kind: Kind, tenant: Option<&TenantName>, message: String) {
        self.events.note(self.clock.now(), kind, tenant, message);
        self.changed();
    }
}
