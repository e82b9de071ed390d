//! What happened here, over restarts of the agent: people look at it when something has crashed, which may have been the agent.
//!
//! Owns one small file with the newest events and the counts of restarts, written beside everything else and waited for by
//! nobody. It is no truth that anything is decided upon: one that cannot be read is begun anew, none can be written on a full
//! disk, and what a kill cut off before it was written is missed by people only.

use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};

use feather_proto::{ids::TenantName, model::EventReport};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    agent::{Agent, Watched},
    ledger::{Directory, Storage},
    watch::Watch,
};

const FILE: &str = "history.json";
/// Version of the file's form.
const VERSION: u32 = 1;
/// Between two writes: a crash loop is no reason to keep a disk busy.
const PAUSE: Duration = Duration::from_secs(1);
/// A disk that took nothing is tried again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The oldest first.
    pub(crate) events: Vec<EventReport>,
    /// How often each had to be started again, and when last.
    pub(crate) restarts: BTreeMap<Watched, (u64, Option<OffsetDateTime>)>,
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u32,
    events: Vec<EventRow>,
    restarts: Vec<RestartsRow>,
}

#[derive(Serialize, Deserialize)]
struct EventRow {
    sequence: u64,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    kind: String,
    tenant: Option<TenantName>,
    message: String,
}

/// Of the admin container without a tenant.
#[derive(Serialize, Deserialize)]
struct RestartsRow {
    tenant: Option<TenantName>,
    count: u64,
    #[serde(with = "time::serde::rfc3339::option")]
    last: Option<OffsetDateTime>,
}

impl From<&EventReport> for EventRow {
    fn from(event: &EventReport) -> Self {
        let EventReport { sequence, at, kind, tenant, message } = event.clone();
        Self { sequence, at, kind, tenant, message }
    }
}

impl From<EventRow> for EventReport {
    fn from(row: EventRow) -> Self {
        let EventRow { sequence, at, kind, tenant, message } = row;
        Self { sequence, at, kind, tenant, message }
    }
}

/// Where it is kept, if it can be, and what the agent before this one has left.
pub(crate) fn open(directory: &Path) -> (Option<Arc<dyn Storage>>, Remembered) {
    match Directory::new(directory) {
        Ok(directory) => {
            let remembered = read(&directory);
            (Some(Arc::new(directory)), remembered)
        }
        // Tenants are better served without it than not at all.
        Err(error) => {
            tracing::warn!(%error, "the history of this server is not kept");
            (None, Remembered::default())
        }
    }
}

fn read(storage: &dyn Storage) -> Remembered {
    let files = storage.read_all().map_err(|error| error.to_string());
    let file = files.map(|files| files.into_iter().find(|(name, _)| name == FILE));
    let read = file.and_then(|file| match file {
        Some((_, content)) => content.map_err(|error| error.to_string()).and_then(|bytes| parse(&bytes)),
        None => Ok(Remembered::default()),
    });
    read.unwrap_or_else(|problem| {
        tracing::warn!(file = FILE, problem, "the history of this server cannot be read; it is begun anew");
        Remembered::default()
    })
}

fn parse(bytes: &[u8]) -> Result<Remembered, String> {
    let kept: Versioned = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("its form has version {}, and this agent reads version {VERSION}", kept.version));
    }
    let subject = |tenant: Option<TenantName>| tenant.map_or(Watched::Admin, Watched::Tenant);
    Ok(Remembered {
        events: kept.events.into_iter().map(Into::into).collect(),
        restarts: kept.restarts.into_iter().map(|row| (subject(row.tenant), (row.count, row.last))).collect(),
    })
}

fn write(storage: &dyn Storage, remembered: &Remembered) -> io::Result<()> {
    let row = |(subject, (count, last)): (&Watched, &(u64, Option<OffsetDateTime>))| RestartsRow {
        tenant: subject.tenant().cloned(),
        count: *count,
        last: *last,
    };
    let kept = Versioned {
        version: VERSION,
        events: remembered.events.iter().map(Into::into).collect(),
        restarts: remembered.restarts.iter().map(row).collect(),
    };
    storage.write(FILE, &serde_json::to_vec_pretty(&kept)?)
}

/// Writes down what is new, soon after it happened, and what is left of it when the agent ends.
pub(crate) async fn keep(agent: Arc<Agent>, storage: Arc<dyn Storage>, mut written: Remembered) {
    let mut changes = agent.changes.subscribe();
    loop {
        let ends = agent.ended.is_cancelled();
        let done = write_down(&agent, &storage, &mut written).await;
        if ends {
            return;
        }
        let next = async {
            if done {
                tokio::time::sleep(PAUSE).await;
                drop(changes.changed().await);
            } else {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        };
        agent.ended.run_until_cancelled(next).await;
    }
}

/// False when the disk does not take it.
async fn write_down(agent: &Agent, storage: &Arc<dyn Storage>, written: &mut Remembered) -> bool {
    let remembered = agent.remembered();
    if remembered == *written {
        return true;
    }
    let (storage, new) = (storage.clone(), remembered.clone());
    let wrote = tokio::task::spawn_blocking(move || write(&*storage, &new)).await;
    match wrote.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
        Ok(()) => {
            *written = remembered;
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the history of this server cannot be written; it is tried again");
            false
        }
    }
}

impl Remembered {
    /// Of the watches that are kept now.
    pub(crate) fn of(events: Vec<EventReport>, watches: &BTreeMap<Watched, Watch>) -> Self {
        let counts = watches.iter().map(|(subject, watch)| (subject.clone(), watch.report()));
        let restarted = counts.filter(|(_, report)| report.restarts > 0);
        let restarts = restarted.map(|(subject, report)| (subject, (report.restarts, report.last_restart)));
        Self { events, restarts: restarts.collect() }
    }

    /// Watches that know of their restarts and of nothing else: after a restart of the agent nobody is guilty.
    pub(crate) fn watches(&self) -> BTreeMap<Watched, Watch> {
        let watch = |(subject, (count, last)): (&Watched, &(u64, Option<OffsetDateTime>))| {
            (subject.clone(), Watch::remembered(*count, *last))
        };
        self.restarts.iter().map(watch).collect()
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::model::EventReport;
    use time::OffsetDateTime;

    use super::{FILE, Remembered, read, write};
    use crate::{agent::Watched, ledger::Directory};

    #[test]
    fn what_is_written_is_read_again_and_what_makes_no_sense_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::new(dir.path()).unwrap();
        assert_eq!(read(&storage), Remembered::default());
        let event = |sequence, tenant: Option<&str>| EventReport {
            sequence,
            at: OffsetDateTime::UNIX_EPOCH,
            kind: "restarted".into(),
            tenant: tenant.map(|name| name.parse().unwrap()),
            message: "it was started again".into(),
        };
        let alice = Watched::Tenant("alice".parse().unwrap());
        let remembered = Remembered {
            events: vec![event(7, Some("alice")), event(8, None)],
            restarts: [(alice, (3, Some(OffsetDateTime::UNIX_EPOCH))), (Watched::Admin, (1, None))].into(),
        };
        write(&storage, &remembered).unwrap();
        assert_eq!(read(&storage), remembered);
        assert_eq!(Remembered::of(remembered.events.clone(), &remembered.watches()), remembered);
        for odd in ["{", r#"{"version":9,"events":[],"restarts":[]}"#] {
            std::fs::write(dir.path().join(FILE), odd).unwrap();
            assert_eq!(read(&storage), Remembered::default());
        }
    }
}
