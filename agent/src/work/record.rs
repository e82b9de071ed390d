//! What is written down about the admin container, and the one file that it is in.
//!
//! Owns form and durability. A file that cannot be understood is never overwritten: the admin container is then left alone, and
//! every call about it is refused with a sentence that names the file.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use feather_proto::error::{Error, reason};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::By;
use crate::ledger::Storage;

const FILE: &str = "admin.json";
/// Version of the record's form.
const VERSION: u32 = 1;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Colour {
    Blue,
    Green,
}

impl Colour {
    pub(crate) const ALL: [Colour; 2] = [Colour::Blue, Colour::Green];

    pub(crate) fn container(self) -> &'static str {
        match self {
            Colour::Blue => "feather-work-blue",
            Colour::Green => "feather-work-green",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Colour::Blue => 8080,
            Colour::Green => 8081,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Colour::Blue => Colour::Green,
            Colour::Green => Colour::Blue,
        }
    }
}

/// An admin container and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) colour: Colour,
    /// Image by name, for people.
    pub(crate) image: String,
    /// Image by content; this is what runs.
    pub(crate) image_digest: String,
}

/// How far a swap is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// The new one is being proved; no request reaches it.
    Trying { candidate: Instance },
    /// The new one serves; the old one, if there was one, ends.
    Draining { old: Option<Instance> },
}

/// A swap under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swap {
    pub(crate) request: Uuid,
    /// What was asked for; empty for the server's work image.
    pub(crate) asked: String,
    pub(crate) by: By,
    pub(crate) stage: Stage,
}

/// Why a swap came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The last swap that ended, so that a repeated call gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) request: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    /// None: the new one serves.
    pub(crate) failure: Option<Failure>,
}

/// All that is known for sure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Where requests go. None before the first one, and where there shall be none.
    pub(crate) serving: Option<Instance>,
    pub(crate) swap: Option<Swap>,
    pub(crate) last: Option<Ended>,
}

impl Record {
    /// The new one of a swap that has not been committed.
    pub(crate) fn candidate(&self) -> Option<&Instance> {
        match self.swap.as_ref().map(|swap| &swap.stage) {
            Some(Stage::Trying { candidate }) => Some(candidate),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u32,
    record: Record,
}

/// The record, on disk and in memory.
pub(crate) struct Book {
    storage: Arc<dyn Storage>,
    record: Mutex<Record>,
    damaged: Option<String>,
}

impl Book {
    pub(crate) fn open(storage: Arc<dyn Storage>) -> Result<Arc<Self>, crate::ledger::Error> {
        let file = storage.read_all()?.into_iter().find(|(name, _)| name == FILE);
        let read = file.map_or_else(
            || Ok(Record::default()),
            |(_, content)| content.map_err(|error| error.to_string()).and_then(|bytes| parse(&bytes)),
        );
        let damaged = read.as_ref().err().cloned();
        if let Some(problem) = &damaged {
            tracing::error!(file = FILE, problem, "the record of the admin container is damaged; it is left alone");
        }
        Ok(Arc::new(Self { storage, record: Mutex::new(read.unwrap_or_default()), damaged }))
    }

    /// The record; an error when its file is damaged.
    pub(crate) fn read(&self) -> Result<Record, Error> {
        if let Some(problem) = &self.damaged {
            return Err(Error::refused(
                reason::STORAGE,
                format!(
                    "the record of the admin container, {FILE} in the agent's state directory under work/, is damaged ({problem}); \
                     move it away and restart the agent: a container that runs is taken over as it is"
                ),
            ));
        }
        Ok(self.record.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Makes a record durable, then visible. The write goes on when the caller is dropped.
    pub(crate) async fn write(self: &Arc<Self>, record: Record) -> Result<Record, Error> {
        let book = self.clone();
        let written = tokio::task::spawn_blocking(move || book.write_blocking(record)).await;
        written.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|error| {
            Error::unavailable(
                reason::STORAGE,
                "the record of the admin container cannot be written; check the disk of the state directory, then try again",
            )
            .with("cause", error)
        })
    }

    fn write_blocking(&self, record: Record) -> io::Result<Record> {
        let versioned = Versioned { version: VERSION, record };
        self.storage.write(FILE, &serde_json::to_vec_pretty(&versioned)?)?;
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = versioned.record.clone();
        Ok(versioned.record)
    }
}

fn parse(bytes: &[u8]) -> Result<Record, String> {
    let versioned: Versioned = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if versioned.version != VERSION {
        return Err(format!("its form has version {}, and this agent reads version {VERSION}", versioned.version));
    }
    Ok(versioned.record)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Book, Colour, Instance, Record};
    use crate::ledger::Directory;

    #[tokio::test]
    async fn the_record_survives_a_restart_and_a_damaged_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Book::open(Arc::new(Directory::new(dir.path()).unwrap())).unwrap();
        assert_eq!(open().read().unwrap(), Record::default());
        let instance = Instance { colour: Colour::Green, image: "work".into(), image_digest: "sha256:00".into() };
        let record = Record { serving: Some(instance), ..Record::default() };
        open().write(record.clone()).await.unwrap();
        assert_eq!(open().read().unwrap(), record);
        for damaged in ["{", r#"{"version":9,"record":{}}"#] {
            std::fs::write(dir.path().join("admin.json"), damaged).unwrap();
            assert!(open().read().unwrap_err().message.contains("admin.json"));
            assert_eq!(std::fs::read_to_string(dir.path().join("admin.json")).unwrap(), damaged);
        }
    }
}
