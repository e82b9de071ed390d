//! Volumes leave the fleet and come back, by hand and by schedule; what is damaged is told and changes nothing.

use std::path::Path;

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{
        self as pb, backup_service_client::BackupServiceClient, backup_volume_response, restore_volume_response,
        verify_backup_response,
    },
    tls::{Channel, Role},
};
use feather_tests::{Fleet, fleet::request_id, wait::until};

fn service(fleet: &Fleet) -> BackupServiceClient<Channel> {
    BackupServiceClient::new(fleet.admin())
}

async fn back_up(fleet: &Fleet, name: &str, to: &Path) -> Result<pb::Backup, Error> {
    let request =
        pb::BackupVolumeRequest { tenant: name.into(), repository: to.display().to_string(), ..Default::default() };
    let mut events = service(fleet).backup_volume(request).await?.into_inner();
    while let Some(message) = events.message().await? {
        if let Some(backup_volume_response::Event::Done(done)) = message.event {
            return Ok(done);
        }
    }
    panic!("it ended without saying how");
}

async fn restore(fleet: &Fleet, name: &str, backup: &str, dry_run: bool) -> Result<pb::RestoreDone, Error> {
    let request =
        pb::RestoreVolumeRequest { tenant: name.into(), backup: backup.into(), dry_run, ..Default::default() };
    let mut events = service(fleet).restore_volume(request).await?.into_inner();
    while let Some(message) = events.message().await? {
        if let Some(restore_volume_response::Event::Done(done)) = message.event {
            return Ok(done);
        }
    }
    panic!("it ended without saying how");
}

async fn verify(fleet: &Fleet, name: &str) -> Result<pb::Backup, Error> {
    let request = pb::VerifyBackupRequest { tenant: name.into(), ..Default::default() };
    let mut events = service(fleet).verify_backup(request).await?.into_inner();
    while let Some(message) = events.message().await? {
        if let Some(verify_backup_response::Event::Done(done)) = message.event {
            return Ok(done);
        }
    }
    panic!("it ended without saying how");
}

async fn list(fleet: &Fleet, repository: &str) -> Vec<pb::Backup> {
    let request = pb::ListBackupsRequest { repository: repository.into(), ..Default::default() };
    service(fleet).list_backups(request).await.unwrap().into_inner().backups
}

async fn stop(fleet: &Fleet, name: &str) {
    let request = pb::StopTenantRequest { request_id: request_id(), tenant: name.into() };
    let begun = fleet.tenants().stop_tenant(request).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&begun.id).await.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_backed_up_while_its_tenant_runs_and_restored_where_it_lives_then() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    let place = tempfile::tempdir().unwrap();
    let repository = place.path().join("backups");
    fleet.add("alice", "nyc").await;
    let diary = |server: &str, fleet: &Fleet| fleet.volume(server, "alice").join("diary");
    std::fs::write(diary("nyc", &fleet), "monday").unwrap();
    let monday = back_up(&fleet, "alice", &repository).await.unwrap();
    assert!(monday.live && monday.verified.is_some() && monday.damage.is_empty(), "{monday:?}");
    assert!(fleet.show("alice").await.last_verified_backup.is_some());

    std::fs::write(diary("nyc", &fleet), "tuesday").unwrap();
    let tuesday = back_up(&fleet, "alice", &repository).await.unwrap();
    assert_ne!(tuesday.id, monday.id);
    std::fs::write(diary("nyc", &fleet), "spoiled").unwrap();
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);

    let refused = restore(&fleet, "alice", "", false).await.unwrap_err();
    assert!(refused.is(reason::WRONG_STATE), "she runs: {refused:?}");
    assert_eq!(std::fs::read_to_string(diary("fra", &fleet)).unwrap(), "spoiled");
    stop(&fleet, "alice").await;
    let planned = restore(&fleet, "alice", "", true).await.unwrap();
    assert_eq!((planned.server.as_str(), planned.backup.unwrap().id), ("fra", tuesday.id.clone()));
    assert_eq!(std::fs::read_to_string(diary("fra", &fleet)).unwrap(), "spoiled", "a plan changes nothing");
    let done = restore(&fleet, "alice", "", false).await.unwrap();
    assert!(done.summary.is_some());
    assert_eq!(std::fs::read_to_string(diary("fra", &fleet)).unwrap(), "tuesday");
    restore(&fleet, "alice", &monday.id, false).await.unwrap();
    assert_eq!(std::fs::read_to_string(diary("fra", &fleet)).unwrap(), "monday");
    let unknown = restore(&fleet, "alice", "20200101t000000z-00000000", false).await.unwrap_err();
    assert!(unknown.is(reason::BACKUP_NOT_FOUND), "{unknown:?}");

    // A controller that has lost its store, or another one, finds them in the repository.
    let ids = |rows: &[pb::Backup]| rows.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&list(&fleet, "").await), [tuesday.id.clone(), monday.id.clone()]);
    fleet.stop_controller().await;
    fleet.start_controller().await;
    assert_eq!(ids(&list(&fleet, &repository.display().to_string()).await), [tuesday.id, monday.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_told_changes_nothing_and_is_followed_by_a_whole_one() {
    let fleet = Fleet::start(&["nyc"]).await;
    let place = tempfile::tempdir().unwrap();
    fleet.add("alice", "nyc").await;
    let diary = fleet.volume("nyc", "alice").join("diary");
    std::fs::write(&diary, "mine").unwrap();
    back_up(&fleet, "alice", place.path()).await.unwrap();
    let pieces = place.path().join("pieces");
    let piece = walk(&pieces).pop().expect("there is a piece");
    std::fs::write(&piece, "rot").unwrap();

    assert!(verify(&fleet, "alice").await.unwrap_err().is(reason::BACKUP_DAMAGED));
    assert!(!list(&fleet, "").await[0].damage.is_empty());
    assert!(fleet.show("alice").await.last_verified_backup.is_none());
    let warnings = pb::warning_service_client::WarningServiceClient::new(fleet.admin());
    let told = warnings.clone().list_warnings(pb::ListWarningsRequest::default()).await.unwrap().into_inner().warnings;
    assert!(told.iter().any(|one| one.id == "backup-damaged/alice"), "{told:?}");
    stop(&fleet, "alice").await;
    std::fs::write(&diary, "newer").unwrap();
    assert!(restore(&fleet, "alice", "", false).await.unwrap_err().is(reason::BACKUP_DAMAGED));
    assert_eq!(std::fs::read_to_string(&diary).unwrap(), "newer", "nothing was changed");

    let whole = back_up(&fleet, "alice", place.path()).await.unwrap();
    assert_eq!(whole.new_bytes, whole.bytes, "nothing that was there is relied on");
    assert!(verify(&fleet, "alice").await.unwrap().verified.is_some());
    let told = warnings.clone().list_warnings(pb::ListWarningsRequest::default()).await.unwrap().into_inner().warnings;
    assert!(!told.iter().any(|one| one.id == "backup-damaged/alice"), "{told:?}");
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|entry| if entry.is_dir() { walk(&entry) } else { vec![entry] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_backups_are_made_and_one_that_cannot_be_made_is_told() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    let place = tempfile::tempdir().unwrap();
    fleet.add("alice", "nyc").await;
    let set = |to: &Path, every_seconds, keep_seconds| pb::SetBackupScheduleRequest {
        tenant: "alice".into(),
        repository: to.display().to_string(),
        every_seconds,
        keep_seconds,
    };
    for (every, keep) in [(59, 0), (3600, 60), (u64::MAX, 0)] {
        let wrong = service(&fleet).set_backup_schedule(set(place.path(), every, keep)).await.unwrap_err();
        assert!(Error::from(wrong).is(reason::INVALID_FIELD), "{every} {keep}");
    }
    let nobody = pb::SetBackupScheduleRequest { tenant: "bob".into(), ..set(place.path(), 3600, 0) };
    assert!(Error::from(service(&fleet).set_backup_schedule(nobody).await.unwrap_err()).is(reason::TENANT_NOT_FOUND));

    service(&fleet).set_backup_schedule(set(place.path(), 3600, 7200)).await.unwrap();
    let made = until("the first one is made", async || {
        let rows = list(&fleet, "").await;
        if rows.len() == 1 && rows[0].verified.is_some() { Ok(rows) } else { Err(rows) }
    })
    .await;
    assert!(made[0].keep_until.is_some());
    let schedules = async |fleet: &Fleet| {
        let request = pb::ListBackupSchedulesRequest {};
        service(fleet).list_backup_schedules(request).await.unwrap().into_inner().schedules
    };
    let next = schedules(&fleet).await[0].next.unwrap();
    assert_eq!(next.seconds - made[0].taken.unwrap().seconds, 3600);

    // What it lies on is gone: nothing is made in its place.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("somebody's"), "data").unwrap();
    service(&fleet).set_backup_schedule(set(elsewhere.path(), 3600, 0)).await.unwrap();
    let told = until("it is told", async || {
        let rows = schedules(&fleet).await;
        if rows[0].problem.is_empty() { Err(rows) } else { Ok(rows) }
    })
    .await;
    assert!(told[0].problem.contains("holds something else"), "{told:?}");
    assert_eq!(list(&fleet, "").await.len(), 1);
    // Schedules outlive the controller, and end when somebody says so.
    fleet.stop_controller().await;
    fleet.start_controller().await;
    assert_eq!(schedules(&fleet).await.len(), 1);
    service(&fleet).set_backup_schedule(set(elsewhere.path(), 0, 0)).await.unwrap();
    assert_eq!(schedules(&fleet).await.len(), 0);
    assert_eq!(list(&fleet, "").await.len(), 1, "what was made stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_neither_backs_up_nor_restores() {
    let fleet = Fleet::start(&["nyc"]).await;
    let place = tempfile::tempdir().unwrap();
    fleet.add("alice", "nyc").await;
    let mut viewer = BackupServiceClient::new(fleet.channel(fleet.identity(Role::Viewer, "ada")));
    let repository = place.path().display().to_string();
    let backup = pb::BackupVolumeRequest { tenant: "alice".into(), repository, ..Default::default() };
    assert!(Error::from(viewer.backup_volume(backup).await.err().unwrap()).is(reason::ROLE));
    let restore = pb::RestoreVolumeRequest { tenant: "alice".into(), dry_run: true, ..Default::default() };
    assert!(Error::from(viewer.restore_volume(restore).await.err().unwrap()).is(reason::ROLE));
    assert!(viewer.list_backups(pb::ListBackupsRequest::default()).await.is_ok());
    for bad in ["backups", "/srv/../x", "s3://", "ftp://x/y"] {
        let request = pb::BackupVolumeRequest { tenant: "alice".into(), repository: bad.into(), ..Default::default() };
        let refused = Error::from(service(&fleet).backup_volume(request).await.err().unwrap());
        assert!(refused.is(reason::REPOSITORY), "{bad}: {refused:?}");
    }
}
