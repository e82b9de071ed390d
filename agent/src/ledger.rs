//! The ledger: what this server must run, with generations. Durable before anything is acknowledged.
//!
//! Owns one JSON file per tenant and the copy of all of them in memory. Knows nothing of containers and routes, and decides
//! nothing. It also holds the only copy of a tenant's password, which is why its files are readable by root alone.
//!
//! A file that cannot be understood is never overwritten and never guessed at: its tenant is not started and every call
//! about it is refused with a sentence that names the file; all other tenants go on.

mod record;
pub mod storage;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use feather_proto::ids::TenantName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use record::{Desired, FailedAdd, Hold, Incoming, Provisioning, Record, Residence, Spec, Volume};
pub use storage::{Directory, Storage};

/// What can go wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be read.
    #[error("cannot read the ledger in {path}; check the state directory and its disk")]
    Open {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record cannot be made durable; whether the old or the new one is on disk is unknown.
    #[error("cannot write the ledger's record of {tenant}; check the disk of the state directory, then try again")]
    Write {
        /// Whose record.
        tenant: TenantName,
        /// Why.
        source: io::Error,
    },
    /// A record cannot be understood.
    #[error(
        "the ledger's file {file} is damaged ({problem}); restore it from a backup that was made since the tenant came to this server, or, without one or if the tenant lives elsewhere, move the file away, and restart the agent"
    )]
    Damaged {
        /// File name.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A record with the version of its form.
#[derive(Serialize, Deserialize)]
struct Versioned<R> {
    version: u32,
    record: R,
}

/// All records of this server.
pub struct Ledger {
    storage: Arc<dyn Storage>,
    records: Mutex<BTreeMap<TenantName, Record>>,
    damaged: BTreeMap<String, String>,
    changed: watch::Sender<u64>,
}

impl Ledger {
    /// Reads every record.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Arc<Self>, Error> {
        let mut records = BTreeMap::new();
        let mut damaged = BTreeMap::new();
        for (file, content) in storage.read_all()? {
            match content.map_err(|error| error.to_string()).and_then(|bytes| parse(&file, &bytes)) {
                Ok(record) => drop(records.insert(record.tenant.clone(), record)),
                Err(problem) => {
                    tracing::error!(file, problem, "a ledger file is damaged; its tenant is not started");
                    damaged.insert(file, problem);
                }
            }
        }
        Ok(Arc::new(Self { storage, records: Mutex::new(records), damaged, changed: watch::Sender::new(0) }))
    }

    /// One record; an error when its file is damaged.
    pub fn get(&self, tenant: &TenantName) -> Result<Option<Record>, Error> {
        let file = file_name(tenant);
        if let Some(problem) = self.damaged.get(&file) {
            return Err(Error::Damaged { file, problem: problem.clone() });
        }
        Ok(self.lock().get(tenant).cloned())
    }

    /// Every readable record, in the order of their names.
    pub fn all(&self) -> Vec<Record> {
        self.lock().values().cloned().collect()
    }

    /// Files that could not be understood, with the reason.
    pub fn damaged(&self) -> &BTreeMap<String, String> {
        &self.damaged
    }

    /// Makes a record durable, then visible. The write goes on when the caller is dropped.
    pub async fn put(self: &Arc<Self>, record: Record) -> Result<(), Error> {
        let ledger = self.clone();
        let tenant = record.tenant.clone();
        let written = tokio::task::spawn_blocking(move || ledger.put_blocking(record)).await;
        written.unwrap_or_else(|panic| Err(Error::Write { tenant, source: io::Error::other(panic) }))
    }

    fn put_blocking(&self, record: Record) -> Result<(), Error> {
        let failed = |source| Error::Write { tenant: record.tenant.clone(), source };
        let bytes = serde_json::to_vec_pretty(&Versioned { version: record::VERSION, record: &record })
            .map_err(|error| failed(error.into()))?;
        self.storage.write(&file_name(&record.tenant), &bytes).map_err(failed)?;
        self.lock().insert(record.tenant.clone(), record);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Counts changes; woken by each.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantName, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_name(tenant: &TenantName) -> String {
    format!("{tenant}.json")
}

/// Never shows content: a record holds a password, and a parser's message may quote what it stumbled over.
fn parse(file: &str, bytes: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct VersionOnly {
        version: u32,
    }
    let place = |error: &serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    let VersionOnly { version } =
        serde_json::from_slice(bytes).map_err(|error| format!("not a record at {}", place(&error)))?;
    if version != record::VERSION {
        return Err(format!("its form has version {version}, and this agent reads version {}", record::VERSION));
    }
    let versioned: Versioned<Record> =
        serde_json::from_slice(bytes).map_err(|error| format!("not a record at {}", place(&error)))?;
    if file_name(&versioned.record.tenant) != file {
        return Err(format!("it is about {}", versioned.record.tenant));
    }
    Ok(versioned.record)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

    use feather_proto::ids::{Generation, TenantName};

    use super::{Directory, Error, Ledger, Record, Residence, Spec};
    use crate::password::Password;

    fn record(name: &str) -> Record {
        let mut record = Record::floor(name.parse().unwrap(), Generation(3));
        record.residence = Residence::Departed { forward_to: Some("192.0.2.7:80".into()) };
        record.spec = Some(Spec {
            placed: Generation(3),
            port: 9001,
            password: Password::generate(10).unwrap(),
            image: "localhost/feather-work:latest".into(),
            image_digest: "sha256:00".into(),
            created: time::OffsetDateTime::UNIX_EPOCH,
            found_data: true,
            adopted: None,
            limits: Default::default(),
        });
        record
    }

    #[tokio::test]
    async fn records_survive_a_restart_and_only_root_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tenants");
        let ledger = Ledger::open(Arc::new(Directory::new(&path).unwrap())).unwrap();
        ledger.put(record("alice")).await.unwrap();
        let again = Ledger::open(Arc::new(Directory::new(&path).unwrap())).unwrap();
        assert_eq!(again.all(), ledger.all());
        let mode = std::fs::metadata(path.join("alice.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_damaged_file_stops_its_own_tenant_only() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(Arc::new(Directory::new(dir.path()).unwrap())).unwrap();
        for name in ["alice", "bob", "carol", "dave"] {
            ledger.put(record(name)).await.unwrap();
        }
        let secret = ledger.get(&"dave".parse().unwrap()).unwrap().unwrap().spec.unwrap().password;
        std::fs::write(dir.path().join("alice.json"), "{").unwrap();
        std::fs::copy(dir.path().join("bob.json"), dir.path().join("carol.json")).unwrap();
        let newer =
            std::fs::read_to_string(dir.path().join("dave.json")).unwrap().replace("\"version\": 1", "\"version\": 9");
        std::fs::write(dir.path().join("dave.json"), newer).unwrap();
        std::fs::write(dir.path().join("alice.json.new"), "left by a crash").unwrap();

        let again = Ledger::open(Arc::new(Directory::new(dir.path()).unwrap())).unwrap();
        assert_eq!(again.damaged().len(), 3);
        assert!(again.get(&"bob".parse::<TenantName>().unwrap()).unwrap().is_some());
        for name in ["alice", "carol", "dave"] {
            let error = again.get(&name.parse().unwrap()).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }));
            assert!(!error.to_string().contains(secret.expose()));
        }
    }
}
