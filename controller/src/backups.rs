//! Backups of tenants' volumes, outside of the fleet's servers.
//!
//! A backup is the archive that its server's agent sends, cut into pieces by content ([`cut`]) and kept in a [`repository`] once each. It
//! exists when its description is there, which is written last: whatever fails on the way leaves pieces that nobody names, and no half
//! backup. What the store knows of backups is an index; the repository itself is enough to restore from. What is due and what may go is
//! decided in [`schedule`], pure. This file acts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
    model::{Residence, VolumeSummary},
};
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use time::OffsetDateTime;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use crate::{store::backups::BackupRow, world::World};

pub mod cut;
pub mod place;
pub mod repository;
pub mod schedule;

pub use place::Place;
use repository::{Description, Repository};

/// Longest silence of a server that sends a volume.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often what has expired is deleted, in each repository.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of the archive so far.
    pub bytes: u64,
    /// Of so many; 0 when unknown.
    pub total_bytes: u64,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The volume is read, and what the repository lacks is written.
    #[default]
    Reading,
    /// The backup is read back.
    Checking,
    /// The backup is read and sent to the server.
    Restoring,
}

impl Phase {
    /// Its word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Reading => "reading",
            Phase::Checking => "checking",
            Phase::Restoring => "restoring",
        }
    }
}

/// Who uses which repository now: what is being written must not be swept away.
#[derive(Debug, Default)]
pub struct Users(Mutex<BTreeMap<String, Arc<RwLock<()>>>>);

impl Users {
    fn of(&self, place: &Place) -> Arc<RwLock<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(place.to_string()).or_default().clone()
    }
}

/// A backup that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose volume.
    pub tenant: TenantName,
    /// Where to.
    pub place: Place,
    /// It may go after so long; `None`: when somebody deletes it.
    pub keep: Option<Duration>,
    /// Read it back.
    pub verified: bool,
}

/// A backup that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Whose.
    pub tenant: TenantName,
    /// Where it is; `None`: where the newest is that is known of.
    pub place: Option<Place>,
    /// Which; `None`: the newest.
    pub id: Option<String>,
}

/// Makes a backup. Again makes another one, of which only what has changed is written.
pub async fn back_up(world: &World, wanted: &Wanted, progress: &watch::Sender<Progress>) -> Result<BackupRow, Error> {
    let users = world.backups.of(&wanted.place);
    let _used = users.read().await;
    let name = wanted.place.to_string();
    // Whoever mistypes a name shall not have a repository made.
    let (row, server) = world.holder(&wanted.tenant).await?;
    let agent = world.agent(&server).await?;
    let known = world.store.backups(Some(&wanted.tenant)).await?;
    let elsewhere = world.store.repositories().await?;
    let repository = Repository::open(&wanted.place, elsewhere.contains(&name)).await?;
    let taken = world.clock.now();
    // Asked now: what was reported last may be older than the tenant.
    let live = agent.snapshot().await?.tenant(&wanted.tenant).is_some_and(|one| one.residence == Residence::Running);
    let total_bytes = agent.volume(&wanted.tenant).await.map_or(0, |volume| volume.bytes);
    let archive = tokio::time::timeout(SILENCE_MAX, agent.export_volume(&wanted.tenant)).await;
    let archive = archive.map_err(|_| silent(&server))??;
    let archive =
        counted(in_time(archive, &server), progress, Progress { phase: Phase::Reading, bytes: 0, total_bytes });
    // After damage was found, nothing that is there already is relied on: everything is written again.
    let newest = known.iter().filter(|one| one.repository == name).max_by_key(|one| one.taken);
    let trusted = newest.is_none_or(|one| one.damage.is_empty());
    let held = if trusted { repository.pieces_of(&wanted.tenant).await? } else { Default::default() };
    let written = repository.write(archive, held).await?;
    let description = Description {
        id: new_id(taken),
        tenant: wanted.tenant.to_string(),
        generation: row.generation.0,
        server: server.to_string(),
        taken,
        live,
        bytes: written.bytes,
        new_bytes: written.new_bytes,
        digest: written.digest,
        list_digest: String::new(),
        keep_until: wanted.keep.map(|keep| taken + keep),
    };
    let description = repository.publish(description, &written.pieces).await?;
    let mut done = BackupRow::of(&description, &name)?;
    world.store.put_backup(&done).await?;
    tracing::info!(
        tenant = %wanted.tenant, repository = name, backup = done.id, bytes = done.bytes, new_bytes = done.new_bytes,
        "volume backed up"
    );
    if wanted.verified {
        done = check(world, &repository, &description, done, progress).await?;
    }
    Ok(done)
}

/// Reads a backup back.
pub async fn verify(world: &World, named: &Named, progress: &watch::Sender<Progress>) -> Result<BackupRow, Error> {
    let found = find(world, named).await?;
    let users = world.backups.of(&found.place);
    let _used = users.read().await;
    check(world, &found.repository, &found.description, found.row, progress).await
}

async fn check(
    world: &World,
    repository: &Repository,
    description: &Description,
    row: BackupRow,
    progress: &watch::Sender<Progress>,
) -> Result<BackupRow, Error> {
    let start = Progress { phase: Phase::Checking, bytes: 0, total_bytes: row.bytes };
    let pieces = counted(repository.read(description).await, progress, start);
    let outcome = pieces.try_for_each(|_| async { Ok(()) }).await;
    let row = match &outcome {
        Ok(()) => BackupRow { verified: Some(world.clock.now()), damage: String::new(), ..row },
        Err(error) if error.is(reason::BACKUP_DAMAGED) => {
            BackupRow { verified: None, damage: error.message.clone(), ..row }
        }
        // Nothing was found out.
        Err(_) => row,
    };
    world.store.put_backup(&row).await?;
    outcome.map(|()| row)
}

/// Replaces a tenant's data by a backup's, or (`dry_run`) only says which.
pub async fn restore(
    world: &World,
    named: &Named,
    dry_run: bool,
    progress: &watch::Sender<Progress>,
) -> Result<(BackupRow, ServerName, Option<VolumeSummary>), Error> {
    let found = find(world, named).await?;
    let users = world.backups.of(&found.place);
    let _used = users.read().await;
    let (row, server) = world.holder(&named.tenant).await?;
    world.not_held(&named.tenant).await?;
    if dry_run {
        return Ok((found.row, server, None));
    }
    let summary = put(world, &found, (&server, row.generation), progress).await?;
    Ok((found.row, server, Some(summary)))
}

/// Puts a backup's data on a server where its tenant does not live, before it is added there. Again does it again.
pub async fn restore_on(
    world: &World,
    named: &Named,
    server: &ServerName,
    progress: &watch::Sender<Progress>,
) -> Result<VolumeSummary, Error> {
    let found = find(world, named).await?;
    let users = world.backups.of(&found.place);
    let _used = users.read().await;
    // Of a tenant that is not placed there.
    put(world, &found, (server, Generation(0)), progress).await
}

async fn put(
    world: &World,
    found: &Found,
    (server, generation): (&ServerName, Generation),
    progress: &watch::Sender<Progress>,
) -> Result<VolumeSummary, Error> {
    let tenant = &found.row.tenant;
    let start = Progress { phase: Phase::Restoring, bytes: 0, total_bytes: found.row.bytes };
    let archive = counted(found.repository.read(&found.description).await, progress, start);
    let broken = Arc::new(Mutex::new(None));
    let archive = remembered(archive, broken.clone());
    let restored = world.agent(server).await?.import_volume(tenant, generation, archive).await;
    world.look_again(server).await;
    // Why the archive ended early explains what the server says of it.
    if let Some(error) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    let summary = restored?;
    tracing::info!(%tenant, %server, backup = found.row.id, "volume restored from a backup");
    Ok(summary)
}

/// The same archive, given up when nothing more of it comes: a server that hangs must not keep others from being backed up.
fn in_time(
    archive: BoxStream<'static, Result<Bytes, Error>>,
    server: &ServerName,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let server = server.clone();
    futures::stream::unfold(Some(archive), move |archive| {
        let server = server.clone();
        async move {
            let mut archive = archive?;
            match tokio::time::timeout(SILENCE_MAX, archive.next()).await {
                Ok(piece) => Some((piece?, Some(archive))),
                Err(_) => Some((Err(silent(&server)), None)),
            }
        }
    })
    .boxed()
}

fn silent(server: &ServerName) -> Error {
    let seconds = SILENCE_MAX.as_secs();
    let message =
        format!("{server} sent nothing more of the volume for {seconds} s; look at the server, then back up again");
    Error::unavailable(reason::SERVER_UNREACHABLE, message).with("server", server)
}

/// The same archive; tells how much of it has passed.
fn counted(
    archive: BoxStream<'static, Result<Bytes, Error>>,
    progress: &watch::Sender<Progress>,
    start: Progress,
) -> BoxStream<'static, Result<Bytes, Error>> {
    progress.send_replace(start);
    let progress = progress.clone();
    let count = move |piece: &Result<Bytes, Error>| {
        let bytes = piece.as_ref().map_or(0, |data| data.len() as u64);
        progress.send_modify(|now| now.bytes += bytes);
    };
    archive.inspect(count).boxed()
}

/// The same archive; remembers why it broke off.
fn remembered(
    archive: BoxStream<'static, Result<Bytes, Error>>,
    broken: Arc<Mutex<Option<Error>>>,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let remember = move |piece: &Result<Bytes, Error>| {
        if let Err(error) = piece {
            *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    };
    archive.inspect(remember).boxed()
}

struct Found {
    place: Place,
    repository: Repository,
    description: Description,
    row: BackupRow,
}

/// What somebody means by a name of a backup.
async fn find(world: &World, named: &Named) -> Result<Found, Error> {
    let known = world.store.backups(Some(&named.tenant)).await?;
    let place = match &named.place {
        Some(place) => place.clone(),
        None => {
            let is_it = |row: &&BackupRow| named.id.as_ref().is_none_or(|id| row.id == *id);
            let newest = known.iter().filter(is_it).max_by_key(|row| row.taken);
            newest.ok_or_else(|| not_found(&named.tenant, named.id.as_deref(), None))?.repository.parse()?
        }
    };
    let repository = Repository::open_existing(&place).await?;
    let described = repository.descriptions(Some(&named.tenant)).await?;
    let is_it = |one: &Description| named.id.as_ref().is_none_or(|id| one.id == *id);
    let description = described.into_iter().filter(is_it).max_by_key(|one| one.taken);
    let description = description.ok_or_else(|| not_found(&named.tenant, named.id.as_deref(), Some(&place)))?;
    let name = place.to_string();
    let kept = known.into_iter().find(|row| row.repository == name && row.id == description.id);
    let row = kept.map_or_else(|| BackupRow::of(&description, &name), Ok)?;
    Ok(Found { place, repository, description, row })
}

fn not_found(tenant: &TenantName, id: Option<&str>, place: Option<&Place>) -> Error {
    let which = id.map_or_else(|| "no backup".to_owned(), |id| format!("no backup {id}"));
    let place = place.map_or_else(String::new, |place| format!(" in {place}"));
    let message = format!(
        "there is {which} of {tenant}{place}; `featherctl volume backups` shows what is known, and with --from REPOSITORY what is there"
    );
    Error::not_found(reason::BACKUP_NOT_FOUND, message).with("tenant", tenant)
}

/// What is known of, or what is in a repository.
pub async fn list(world: &World, tenant: Option<&TenantName>, place: Option<&Place>) -> Result<Vec<BackupRow>, Error> {
    let known = world.store.backups(tenant).await?;
    let mut rows = match place {
        None => known,
        Some(place) => {
            let name = place.to_string();
            let found = Repository::open_existing(place).await?.descriptions(tenant).await?;
            let row = |one: &Description| match known.iter().find(|row| row.repository == name && row.id == one.id) {
                Some(row) => Ok(row.clone()),
                None => BackupRow::of(one, &name),
            };
            found.iter().map(row).collect::<Result<_, _>>()?
        }
    };
    rows.sort_by(|one, other| (other.taken, &other.id).cmp(&(one.taken, &one.id)));
    Ok(rows)
}

fn new_id(taken: OffsetDateTime) -> String {
    let moment = taken.to_offset(time::UtcOffset::UTC);
    let (date, clock) = (moment.date(), moment.time());
    format!(
        "{:04}{:02}{:02}t{:02}{:02}{:02}z-{:08x}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        uuid::Uuid::new_v4().as_fields().0
    )
}

/// Makes the backups that are due, one after the other, and deletes those whose time has passed, until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let mut swept: BTreeMap<String, tokio::time::Instant> = BTreeMap::new();
    loop {
        let pass = async {
            if let Err(error) = make_due(&world).await {
                tracing::warn!(%error, "nobody looked for backups that are due; trying again");
            }
            if let Err(error) = delete_expired(&world, &mut swept).await {
                tracing::warn!(%error, "backups whose time has passed are still there; trying again");
            }
        };
        tokio::select! {
            () = pass => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(world.settings.backup_look) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn make_due(world: &World) -> Result<(), Error> {
    loop {
        let (schedules, backups) = (world.store.backup_schedules().await?, world.store.backups(None).await?);
        let Some(due) = schedule::due(&schedules, &backups, world.clock.now()).cloned() else { return Ok(()) };
        let made = async {
            let wanted =
                Wanted { tenant: due.tenant.clone(), place: due.repository.parse()?, keep: due.keep, verified: true };
            back_up(world, &wanted, &watch::Sender::default()).await
        };
        let problem = match made.await {
            Ok(_) => String::new(),
            Err(error) => {
                tracing::warn!(tenant = %due.tenant, repository = due.repository, %error, "a backup was not made; trying again later");
                error.message
            }
        };
        world.store.tried_backup(&due.tenant, world.clock.now(), &problem).await?;
    }
}

async fn delete_expired(world: &World, swept: &mut BTreeMap<String, tokio::time::Instant>) -> Result<(), Error> {
    for name in world.store.repositories().await? {
        if swept.get(&name).is_some_and(|last| last.elapsed() < SWEEP) {
            continue;
        }
        swept.insert(name.clone(), tokio::time::Instant::now());
        let place: Place = name.parse()?;
        if let Err(error) = expire(world, &place).await {
            tracing::warn!(repository = name, %error, "what has expired is still there");
        }
    }
    Ok(())
}

/// Deletes what has expired in one repository, and pieces that no backup names any more.
pub async fn expire(world: &World, place: &Place) -> Result<u64, Error> {
    let users = world.backups.of(place);
    let _alone = users.write().await;
    let name = place.to_string();
    let backups = world.store.backups(None).await?;
    let here: Vec<_> = backups.into_iter().filter(|row| row.repository == name).collect();
    let repository = Repository::open_existing(place).await?;
    let mut deleted = 0;
    for row in schedule::expired(&here, world.clock.now()) {
        repository.remove(&row.tenant, &row.id).await?;
        world.store.forget_backup(&name, &row.id).await?;
        tracing::info!(tenant = %row.tenant, repository = name, backup = row.id, "deleted a backup whose time has passed");
        deleted += 1;
    }
    if deleted > 0 {
        repository.sweep(world.clock.now()).await?;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use feather_proto::error::reason;
    use futures::{StreamExt as _, stream};

    use super::{SILENCE_MAX, in_time};

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stops_in_the_middle_is_given_up() {
        let slow = stream::unfold(0, |count| async move {
            tokio::time::sleep(if count < 3 { SILENCE_MAX / 2 } else { Duration::MAX }).await;
            Some((Ok(Bytes::from_static(b"x")), count + 1))
        });
        let taken: Vec<_> = in_time(slow.boxed(), &"nyc".parse().unwrap()).collect().await;
        assert_eq!(taken.len(), 4);
        assert!(taken[..3].iter().all(Result::is_ok));
        assert!(taken[3].as_ref().unwrap_err().is(reason::SERVER_UNREACHABLE));
        let whole = stream::iter([Ok(Bytes::new()), Ok(Bytes::new())]).boxed();
        assert_eq!(in_time(whole, &"nyc".parse().unwrap()).count().await, 2);
    }
}
