//! Moves that go well.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use feather_proto::pb::controller::v1 as pb;
use feather_tests::{Fleet, fleet::request_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tenant_has_the_same_data_and_ran_once_at_a_time() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let home = fleet.volume("nyc", "alice");
    std::fs::create_dir_all(home.join("a/b")).unwrap();
    std::fs::write(home.join("a/b/notes"), "hello").unwrap();
    std::fs::set_permissions(home.join("a/b/notes"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("../notes", home.join("a/link")).unwrap();
    let outcome = fleet.migrate("alice", "fra").await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    let result = outcome.operation.migration.clone().unwrap();
    let (source, target) = (result.source.unwrap(), result.target.unwrap());
    assert_eq!(source.root_digest, target.root_digest);
    assert_eq!((target.files, target.directories), (2, 3));
    let moved = fleet.volume("fra", "alice").join("a/b/notes");
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), "hello");
    assert_eq!(std::fs::metadata(&moved).unwrap().permissions().mode() & 0o7777, 0o4751);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["fra"]);
    for server in ["nyc", "fra"] {
        assert_eq!(fleet.request(server, "alice").served_by.as_deref(), Some("fra"), "through {server}");
    }
    assert_eq!(
        outcome.steps("done"),
        ["plan", "reserve", "pre-copy", "stop", "transfer", "verify", "start", "commit", "release", "dns", "retire"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_there_and_back_and_on_with_one_forward_each() {
    let fleet = Fleet::start(&["nyc", "fra", "ams"]).await;
    fleet.add("alice", "nyc").await;
    for (to, from) in [("fra", "nyc"), ("nyc", "fra"), ("ams", "nyc")] {
        let outcome = fleet.migrate("alice", to).await;
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
        assert_eq!(fleet.request(from, "alice").served_by.as_deref(), Some(to));
    }
    // fra was told to forward to nyc; a forwarded request is not forwarded twice, so it must be told about ams.
    feather_tests::wait::until("fra forwards to ams", async || {
        let answer = fleet.request("fra", "alice");
        if answer.served_by.as_deref() == Some("ams") { Ok(()) } else { Err(answer) }
    })
    .await;
    let back =
        pb::MigrateTenantRequest { request_id: request_id(), tenant: "alice".into(), undo: true, ..Default::default() };
    let back = fleet.tenants().migrate_tenant(back).await.unwrap().into_inner();
    assert_eq!(back.target, "nyc");
    assert_eq!(fleet.outcome(&back.operation.unwrap().id).await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.starts("nyc", "alice").len(), 5, "every start left its line, and none was lost on the way");
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_where_to_and_changes_nothing() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let request = pb::MigrateTenantRequest { tenant: "alice".into(), dry_run: true, ..Default::default() };
    let reply = fleet.tenants().migrate_tenant(request).await.unwrap().into_inner();
    assert_eq!((reply.source.as_str(), reply.target.as_str()), ("nyc", "fra"));
    assert!(reply.operation.is_none() && !reply.explanation.is_empty());
    assert_eq!(fleet.show("alice").await.server, "nyc");
    assert_eq!(
        fleet
            .operations()
            .list_operations(pb::ListOperationsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .operations
            .len(),
        1
    );
}
