//! `BackupService`: backups of volumes, and whose are made by themselves.

use std::{sync::Arc, time::Duration};

use feather_proto::{
    error::{Error, reason},
    ids::TenantName,
    model::{invalid_field, to_timestamp},
    pb::controller::v1::{
        self as pb, backup_service_server::BackupService, backup_volume_response, restore_volume_response,
        verify_backup_response,
    },
};
use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{given, operator, reader};
use crate::{
    backups::{self, Named, Place, Progress, Wanted, schedule},
    store::backups::{BackupRow, Schedule},
    world::World,
};

/// How often somebody who waits is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Shortest interval of a schedule.
const EVERY_LEAST_S: u64 = 60;
/// Longest time that anything is kept or waited for: a hundred years.
const LONGEST_S: u64 = 100 * 366 * 86_400;

/// Backs up and restores.
pub struct BackupApi {
    world: Arc<World>,
}

impl BackupApi {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

/// `None` for 0.
fn seconds(field: &str, given: u64) -> Result<Option<Duration>, Error> {
    match given {
        0 => Ok(None),
        given if given <= LONGEST_S => Ok(Some(Duration::from_secs(given))),
        _ => Err(invalid_field(field, "seconds, at most a hundred years of them")),
    }
}

fn named(tenant: &str, repository: &str, backup: String) -> Result<Named, Error> {
    let id = Some(backup).filter(|id| !id.is_empty());
    Ok(Named { tenant: tenant.parse()?, place: given(repository)?, id })
}

fn view(row: BackupRow) -> pb::Backup {
    pb::Backup {
        id: row.id,
        tenant: row.tenant.to_string(),
        repository: row.repository,
        taken: Some(to_timestamp(row.taken)),
        server: row.server.to_string(),
        live: row.live,
        bytes: row.bytes,
        new_bytes: row.new_bytes,
        keep_until: row.keep_until.map(to_timestamp),
        verified: row.verified.map(to_timestamp),
        damage: row.damage,
    }
}

fn schedule_view(row: &Schedule, backups: &[BackupRow]) -> pb::BackupSchedule {
    pb::BackupSchedule {
        tenant: row.tenant.to_string(),
        repository: row.repository.clone(),
        every_seconds: row.every.as_secs(),
        keep_seconds: row.keep.map_or(0, |keep| keep.as_secs()),
        next: Some(to_timestamp(schedule::next(row, backups).max(row.since))),
        problem: row.problem.clone(),
    }
}

fn progress_view(now: Progress) -> pb::BackupProgress {
    pb::BackupProgress { phase: now.phase.word().to_owned(), bytes: now.bytes, total_bytes: now.total_bytes }
}

/// Progress while the work goes on, then its end. Dropping it ends the work.
fn told<D: Send + 'static, R: Send + 'static>(
    work: BoxFuture<'static, Result<D, Error>>,
    seen: watch::Receiver<Progress>,
    progress: impl Fn(pb::BackupProgress) -> R + Send + 'static,
    done: impl Fn(D) -> R + Send + 'static,
) -> BoxStream<'static, Result<R, Status>> {
    futures::stream::unfold(Some((work, seen, progress, done)), |state| async move {
        let (mut work, seen, progress, done) = state?;
        tokio::select! {
            biased;
            ended = &mut work => Some((ended.map(&done).map_err(Status::from), None)),
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                let now = progress_view(*seen.borrow());
                Some((Ok(progress(now)), Some((work, seen, progress, done))))
            }
        }
    })
    .boxed()
}

#[tonic::async_trait]
impl BackupService for BackupApi {
    type BackupVolumeStream = BoxStream<'static, Result<pb::BackupVolumeResponse, Status>>;

    async fn backup_volume(
        &self,
        request: Request<pb::BackupVolumeRequest>,
    ) -> Result<Response<Self::BackupVolumeStream>, Status> {
        use backup_volume_response::Event;
        operator(&request)?;
        let message = request.into_inner();
        let wanted = Wanted {
            tenant: message.tenant.parse()?,
            place: message.repository.parse()?,
            keep: seconds("keep_seconds", message.keep_seconds)?,
            verified: !message.unverified,
        };
        let (world, (progress, seen)) = (self.world.clone(), watch::channel(Progress::default()));
        let work = Box::pin(async move { backups::back_up(&world, &wanted, &progress).await });
        let event = |event| pb::BackupVolumeResponse { event: Some(event) };
        let events = told(work, seen, move |now| event(Event::Progress(now)), move |row| event(Event::Done(view(row))));
        Ok(Response::new(events))
    }

    type RestoreVolumeStream = BoxStream<'static, Result<pb::RestoreVolumeResponse, Status>>;

    async fn restore_volume(
        &self,
        request: Request<pb::RestoreVolumeRequest>,
    ) -> Result<Response<Self::RestoreVolumeStream>, Status> {
        use restore_volume_response::Event;
        operator(&request)?;
        let message = request.into_inner();
        let wanted = named(&message.tenant, &message.repository, message.backup)?;
        let (world, (progress, seen)) = (self.world.clone(), watch::channel(Progress::default()));
        let work = Box::pin(async move { backups::restore(&world, &wanted, message.dry_run, &progress).await });
        let event = |event| pb::RestoreVolumeResponse { event: Some(event) };
        let done = move |(row, server, summary): (BackupRow, feather_proto::ids::ServerName, Option<_>)| {
            let summary = summary.map(Into::into);
            event(Event::Done(pb::RestoreDone { backup: Some(view(row)), server: server.to_string(), summary }))
        };
        Ok(Response::new(told(work, seen, move |now| event(Event::Progress(now)), done)))
    }

    type VerifyBackupStream = BoxStream<'static, Result<pb::VerifyBackupResponse, Status>>;

    async fn verify_backup(
        &self,
        request: Request<pb::VerifyBackupRequest>,
    ) -> Result<Response<Self::VerifyBackupStream>, Status> {
        use verify_backup_response::Event;
        operator(&request)?;
        let message = request.into_inner();
        let wanted = named(&message.tenant, &message.repository, message.backup)?;
        let (world, (progress, seen)) = (self.world.clone(), watch::channel(Progress::default()));
        let work = Box::pin(async move { backups::verify(&world, &wanted, &progress).await });
        let event = |event| pb::VerifyBackupResponse { event: Some(event) };
        let events = told(work, seen, move |now| event(Event::Progress(now)), move |row| event(Event::Done(view(row))));
        Ok(Response::new(events))
    }

    async fn list_backups(
        &self,
        request: Request<pb::ListBackupsRequest>,
    ) -> Result<Response<pb::ListBackupsResponse>, Status> {
        reader(&request)?;
        let message = request.into_inner();
        let (tenant, place) = (given::<TenantName>(&message.tenant)?, given::<Place>(&message.repository)?);
        let rows = backups::list(&self.world, tenant.as_ref(), place.as_ref()).await?;
        Ok(Response::new(pb::ListBackupsResponse { backups: rows.into_iter().map(view).collect() }))
    }

    async fn set_backup_schedule(
        &self,
        request: Request<pb::SetBackupScheduleRequest>,
    ) -> Result<Response<pb::SetBackupScheduleResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let tenant: TenantName = message.tenant.parse()?;
        let Some(every) = seconds("every_seconds", message.every_seconds)? else {
            self.world.store.end_backup_schedule(&tenant).await.map_err(Error::from)?;
            tracing::info!(%tenant, by = %caller, "its backups are made by themselves no more");
            return Ok(Response::new(pb::SetBackupScheduleResponse { schedule: None }));
        };
        let keep = seconds("keep_seconds", message.keep_seconds)?;
        if every.as_secs() < EVERY_LEAST_S {
            return Err(invalid_field("every_seconds", "at least 60, or 0 to end the schedule").into());
        }
        if keep.is_some_and(|keep| keep < every) {
            return Err(Error::invalid(
                reason::INVALID_FIELD,
                "backups that are kept for less than the time until the next one would leave none; keep them longer",
            )
            .into());
        }
        self.world.holder(&tenant).await?;
        let place: Place = message.repository.parse()?;
        let wanted = Schedule {
            tenant,
            repository: place.to_string(),
            every,
            keep,
            since: self.world.clock.now(),
            tried: None,
            failures: 0,
            problem: String::new(),
        };
        self.world.store.set_backup_schedule(&wanted).await.map_err(Error::from)?;
        let known = self.world.store.backups(Some(&wanted.tenant)).await.map_err(Error::from)?;
        Ok(Response::new(pb::SetBackupScheduleResponse { schedule: Some(schedule_view(&wanted, &known)) }))
    }

    async fn list_backup_schedules(
        &self,
        request: Request<pb::ListBackupSchedulesRequest>,
    ) -> Result<Response<pb::ListBackupSchedulesResponse>, Status> {
        reader(&request)?;
        let rows = self.world.store.backup_schedules().await.map_err(Error::from)?;
        let known = self.world.store.backups(None).await.map_err(Error::from)?;
        let schedules = rows.iter().map(|row| schedule_view(row, &known)).collect();
        Ok(Response::new(pb::ListBackupSchedulesResponse { schedules }))
    }
}
