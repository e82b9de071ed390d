//! What is left of a tenant whose server is lost: copies on other servers, and backups. Pure.
//!
//! Owns which of them is the newest, and what is said of it. Data that is older than what is known to exist is never chosen silently:
//! where the newest cannot be had now, or is not known, that is said instead. Places nobody and changes nothing.

use std::collections::BTreeMap;

use feather_proto::{
    ids::{ServerName, TenantName},
    model::{Residence, VolumeState},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    fleet::Observed,
    operations::{Kind, State},
    store::{OperationRow, backups::BackupRow},
};

/// Which data somebody wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Whatever is newest.
    #[default]
    Newest,
    /// The newest copy on another server.
    Copy,
    /// The newest backup.
    Backup,
}

/// Data that a tenant can be brought back with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// A whole volume on a server.
    Copy {
        /// Where.
        server: ServerName,
        /// It is of the placement that was lost: nothing is missing.
        whole: bool,
        /// As it was then, in milliseconds since 1970; `None` when nobody knows.
        as_of_ms: Option<i64>,
    },
    /// A backup.
    Backup {
        /// Where it is.
        repository: String,
        /// Which.
        id: String,
        /// As it was then, in milliseconds since 1970.
        as_of_ms: i64,
        /// It was read back since.
        verified: bool,
        /// Of the archive.
        bytes: u64,
    },
}

/// A copy that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where, and of when.
    pub data: Data,
    /// Its server answers.
    pub reachable: bool,
}

/// Why there is nothing to bring a tenant back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Without {
    /// There is none.
    None,
    /// There is some, and it cannot be had now: a sentence.
    NotNow(String),
}

fn ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// What the operations of a tenant, the newest first, say about the age of its copies.
struct History<'a> {
    operations: Vec<&'a OperationRow>,
}

fn generation(row: &OperationRow) -> Option<u64> {
    row.plan["generation"].as_u64()
}

impl<'a> History<'a> {
    fn new(operations: &'a [OperationRow]) -> Self {
        Self { operations: operations.iter().filter(|row| row.state == State::Succeeded).collect() }
    }

    /// Generation of the placement that was lost, if an operation made it.
    fn placed(&self) -> Option<u64> {
        let places = |row: &&&OperationRow| matches!(row.kind, Kind::Add | Kind::Migrate | Kind::Recover);
        self.operations.iter().find(places).and_then(|row| generation(row))
    }

    /// When the tenant left this server for the last time with a volume of this generation there. A volume that something later wrote, a
    /// move that was given up or a recovery that failed, is not the one that it left.
    fn left(&self, server: &ServerName, volume: u64) -> Option<i64> {
        let moved = |row: &&&OperationRow| row.kind == Kind::Migrate && row.source.as_ref() == Some(server);
        let row = self.operations.iter().find(moved)?;
        generation(row)
            .is_some_and(|later| volume < later)
            .then(|| row.facts["stopped_ms"].as_i64().unwrap_or_else(|| ms(row.created)))
    }

    /// The add with which the present tenant of that name began, with nothing: what is older was somebody else's.
    fn began(&self) -> Option<&OperationRow> {
        let newest = self.operations.iter().find(|row| row.kind == Kind::Add)?;
        (newest.facts["found_data"].as_bool() == Some(false)).then_some(*newest)
    }
}

/// Copies of a tenant's volume on members. Of servers that do not answer as they told last. `operations` are the tenant's, the newest first.
pub fn copies(
    tenant: &TenantName,
    observed: &BTreeMap<ServerName, Observed>,
    operations: &[OperationRow],
    now: OffsetDateTime,
) -> Vec<Found> {
    let history = History::new(operations);
    let (placed, first) = (history.placed(), history.began().and_then(generation));
    let found = observed.iter().filter_map(|(server, one)| {
        let snapshot = one.snapshot.as_ref()?;
        let volume = snapshot.volume(tenant)?;
        let report = snapshot.tenant(tenant);
        let lives = report.is_some_and(|report| matches!(report.residence, Residence::Running | Residence::Stopped));
        let coming = report.is_some_and(|report| report.incoming.is_some());
        let is_copy = volume.state == VolumeState::Complete && volume.keep_until.is_none_or(|until| until > now);
        let is_its_own = first.is_none_or(|first| volume.generation.0 >= first);
        (is_copy && is_its_own && !lives && !coming).then(|| {
            let whole = placed == Some(volume.generation.0);
            let as_of_ms = if whole { None } else { history.left(server, volume.generation.0) };
            let data = Data::Copy { server: server.clone(), whole, as_of_ms };
            Found { data, reachable: one.alive().is_some() }
        })
    });
    found.collect()
}

/// Backups of the present tenant of that name, without those of somebody who was called so before.
pub fn own(backups: Vec<BackupRow>, operations: &[OperationRow]) -> Vec<BackupRow> {
    let began = History::new(operations).began().map(|row| row.created);
    backups.into_iter().filter(|row| began.is_none_or(|began| row.taken >= began)).collect()
}

/// The newest of it, if that is certain: where nobody knows which of several is newer, a person is asked. A damaged backup is none; one that
/// was never read back counts like others, and its pieces are checked when it is restored. With the wish for a copy `on` says which.
pub fn choose(wish: Wish, on: Option<&ServerName>, copies: &[Found], backups: &[BackupRow]) -> Result<Data, Without> {
    let wanted = |one: &&Found| match &one.data {
        Data::Copy { server, .. } => wish != Wish::Backup && (wish != Wish::Copy || on.is_none_or(|on| on == server)),
        Data::Backup { .. } => false,
    };
    let copies: Vec<_> = copies.iter().filter(wanted).collect();
    let sound = backups.iter().filter(|row| wish != Wish::Copy && row.damage.is_empty());
    let backup = sound.max_by_key(|row| row.taken).map(|row| Data::Backup {
        repository: row.repository.clone(),
        id: row.id.clone(),
        as_of_ms: ms(row.taken),
        verified: row.verified.is_some(),
        bytes: row.bytes,
    });
    let all = || copies.iter().map(|one| &one.data).chain(&backup);
    let whole = copies.iter().filter(|one| one.data.age() == Some(i64::MAX)).max_by_key(|one| one.reachable);
    if whole.is_none() && all().count() > 1 && all().any(|data| data.age().is_none()) {
        let told: Vec<_> = all().map(|data| data.told(None)).collect();
        return Err(Without::NotNow(format!(
            "nobody knows which is the newest: {}. Say which one: --from copy --to SERVER, or --from backup",
            told.join("; ")
        )));
    }
    let copy = whole.or_else(|| copies.iter().max_by_key(|one| one.data.age()));
    match (copy, backup) {
        (None, None) => Err(Without::None),
        (None, Some(backup)) => Ok(backup),
        (Some(copy), Some(backup)) if copy.data.age() < backup.age() => Ok(backup),
        (Some(copy), _) if copy.reachable => Ok(copy.data.clone()),
        (Some(copy), backup) => {
            let instead = if backup.is_some() { "; --from backup takes the newest backup instead" } else { "" };
            Err(Without::NotNow(format!(
                "the newest is {}, which does not answer now: wait until it does{instead}",
                copy.data.told(None)
            )))
        }
    }
}

/// Why a choice that was made of these is not certain: a member that this controller never heard of may have a newer copy. What is all there
/// was cannot be older, and a person may have said which it shall be.
pub fn unheard(
    wish: Wish,
    on: Option<&ServerName>,
    chosen: &Result<Data, Without>,
    silent: &[ServerName],
) -> Option<String> {
    let certain = wish == Wish::Backup
        || (wish == Wish::Copy && on.is_some())
        || matches!(chosen, Ok(Data::Copy { whole: true, .. }));
    let names: Vec<_> = silent.iter().map(ServerName::as_str).collect();
    (!certain && !names.is_empty()).then(|| {
        format!(
            "{} was not heard of since this controller began, and may have a newer copy: wait until it answers, declare it lost as well, or say \
             which data it shall be (--from backup, or --from copy --to SERVER)",
            names.join(", ")
        )
    })
}

impl Data {
    /// The later, the newer; `None` when nobody knows. What is of the lost placement itself is newer than anything.
    fn age(&self) -> Option<i64> {
        match self {
            Data::Copy { whole: true, .. } => Some(i64::MAX),
            Data::Copy { as_of_ms, .. } => *as_of_ms,
            Data::Backup { as_of_ms, .. } => Some(*as_of_ms),
        }
    }

    /// A phrase for people: what it is, of when, and what is lost with it.
    pub fn told(&self, now: Option<OffsetDateTime>) -> String {
        let of = |as_of_ms: i64| {
            let at = OffsetDateTime::from_unix_timestamp(as_of_ms / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let ago = now.map(|now| format!(", {} ago: what was written since is lost", rough(ms(now) - as_of_ms)));
            format!("of {} {:02}:{:02} UTC{}", at.date(), at.hour(), at.minute(), ago.unwrap_or_default())
        };
        match self {
            Data::Copy { server, whole: true, .. } => format!("all of it, in the copy on {server}"),
            Data::Copy { server, as_of_ms: Some(as_of_ms), .. } => format!("the copy on {server} {}", of(*as_of_ms)),
            Data::Copy { server, as_of_ms: None, .. } => {
                format!("the copy on {server}, of which nobody knows how old it is")
            }
            Data::Backup { repository, id, as_of_ms, verified, .. } => {
                let checked = if *verified { "" } else { " (never read back)" };
                format!("the backup {id} in {repository}{checked} {}", of(*as_of_ms))
            }
        }
    }
}

/// An age as people say it.
pub fn rough(age_ms: i64) -> String {
    let minutes = age_ms.max(0) / 60_000;
    match minutes {
        0 => "less than a minute".to_owned(),
        1..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

#[cfg(test)]
mod tests;
