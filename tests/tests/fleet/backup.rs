//! A store that is put back: what was decided since is not undone by it.

use feather_controller::backup::restore;
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{self as pb, store_service_client::StoreServiceClient},
    tls::{Role, sha256_hex},
};
use feather_tests::{Fleet, wait::until};

async fn backup(fleet: &Fleet) -> Vec<u8> {
    let mut client = StoreServiceClient::new(fleet.admin());
    let mut pieces = client.backup_store(pb::BackupStoreRequest {}).await.unwrap().into_inner();
    let (mut all, mut whole) = (Vec::new(), false);
    while let Some(piece) = pieces.message().await.unwrap() {
        all.extend_from_slice(&piece.data);
        whole = piece.digest == sha256_hex(&all);
    }
    assert!(whole, "the backup has no end");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_from_before_a_move_brings_no_second_copy_to_life() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.add("bob", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("diary"), "mine").unwrap();
    let copy = backup(&fleet).await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);

    fleet.stop_controller().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.db");
    std::fs::write(&file, copy).unwrap();
    restore(&file, &fleet.store_url(), true).await.unwrap();
    fleet.start_controller().await;
    // The servers were members before the backup, and are still.
    let shown = until("the controller says that alice is not where it thought", async || {
        let alice = fleet.show("alice").await;
        if alice.state() == pb::TenantState::Broken { Ok(alice) } else { Err(format!("{alice:?}")) }
    })
    .await;
    assert_eq!(shown.server, "nyc", "the store of that day");
    // Whatever is asked of the old copy is refused by the agents, which know better.
    for _ in 0..3 {
        let moved = fleet.begin_migrate("alice", "fra").await;
        if let Ok(begun) = moved {
            assert_ne!(fleet.outcome(&begun.id).await.state(), pb::OperationState::Succeeded);
        }
    }
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["fra"], "one copy, where it lives");
    assert_eq!(std::fs::read_to_string(fleet.volume("fra", "alice").join("diary")).unwrap(), "mine");
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
    // Whoever did not move is as before.
    assert_eq!(fleet.migrate("bob", "fra").await.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_for_admins_and_is_put_down() {
    let fleet = Fleet::start(&[]).await;
    for role in [Role::Viewer, Role::Operator] {
        let mut client = StoreServiceClient::new(fleet.channel(fleet.identity(role, "ada")));
        let error = Error::from(client.backup_store(pb::BackupStoreRequest {}).await.err().unwrap());
        assert!(error.is(reason::ROLE), "{role}: {error}");
    }
    backup(&fleet).await;
    let audit = pb::audit_service_client::AuditServiceClient::new(fleet.admin());
    let ends = until("it is put down", async || {
        let rows = audit.clone().list_audit(pb::ListAuditRequest::default()).await.unwrap().into_inner().entries;
        let of_backups = rows.iter().filter(|row| row.rpc.ends_with("/BackupStore"));
        let ends: Vec<_> = of_backups.map(|row| (row.caller.clone(), row.code.clone())).collect();
        if ends.len() == 3 { Ok(ends) } else { Err(ends) }
    })
    .await;
    let refused = |who: &str| (who.to_owned(), "PermissionDenied".to_owned());
    assert_eq!(ends, [refused("viewer/ada"), refused("operator/ada"), ("admin/admin".to_owned(), "OK".to_owned())]);
}
