//! A tenant's ordinary life.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use feather_tests::{Fleet, faults::Fault, fleet::request_id, wait::until};

#[tokio::test(flavor = "multi_thread")]
async fn an_added_tenant_runs_and_is_found_by_its_name() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    let outcome = fleet.add("alice", "").await;
    assert!(outcome.password.len() >= 10, "{:?}", outcome.password);
    let alice = fleet.show("alice").await;
    assert_eq!((alice.server.as_str(), alice.url.as_str()), ("nyc", "https://alice.users.inceptel.ai"));
    assert_eq!(fleet.request("nyc", "alice").served_by.as_deref(), Some("nyc"));
    // The password is nowhere in the operation.
    let again = fleet.outcome(&outcome.operation.id).await;
    assert_eq!(again.password, "", "handed out once");
    assert!(!format!("{:?}", again.operation).contains(&outcome.password));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_tenant_finds_its_data_again_where_it_was() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "fra").await;
    assert_eq!(fleet.remove("alice").await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.request("fra", "alice").status, 404);
    assert_eq!(fleet.show("alice").await.state(), pb::TenantState::Removed);
    // nyc has more free slots or as many; the data decides.
    fleet.add("bob", "fra").await;
    let outcome = fleet.add("alice", "").await;
    assert_eq!(outcome.operation.target, "fra");
    assert_eq!(fleet.starts("fra", "alice").len(), 2, "both starts are in the same volume");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_tenant_stays_stopped_through_a_reboot_and_a_move() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let stop = pb::StopTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let stop = fleet.tenants().stop_tenant(stop).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&stop.id).await.state(), pb::OperationState::Succeeded);
    fleet.power_off("nyc");
    fleet.start_agent("nyc");
    fleet.all_ready().await;
    assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new());
    let moved = fleet.migrate("alice", "fra").await;
    assert_eq!(moved.state(), pb::OperationState::Succeeded, "{:#?}", moved.operation);
    assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new());
    assert_eq!(fleet.request("fra", "alice").status, 503);
    let start = pb::StartTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let start = fleet.tenants().start_tenant(start).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&start.id).await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["fra"]);
    assert_eq!(fleet.request("nyc", "alice").served_by.as_deref(), Some("fra"), "forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_routes_come_back_after_a_reboot_without_a_controller() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    fleet.add("bob", "nyc").await;
    fleet.kill_controller();
    fleet.power_off("nyc");
    assert_eq!(fleet.request("nyc", "alice").status, 404);
    fleet.start_agent("nyc");
    for name in ["alice", "bob"] {
        until("the tenant serves again", async || {
            let answer = fleet.request("nyc", name);
            if answer.served_by.as_deref() == Some("nyc") { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    assert_eq!(fleet.starts("nyc", "alice").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_in_the_container_and_in_no_record() {
    let fleet = Fleet::start(&["nyc"]).await;
    let old = fleet.add("alice", "nyc").await.password;
    let request = pb::ResetPasswordRequest { request_id: request_id(), tenant: "alice".into() };
    let first = fleet.tenants().reset_password(request.clone()).await.unwrap().into_inner().password;
    let second = fleet.tenants().reset_password(request).await.unwrap().into_inner().password;
    assert_eq!(first, second, "the same request gives the same password");
    assert_ne!(first, old);
    let spec = fleet.servers["nyc"].runtime.spec("feather-user-alice").unwrap();
    assert_eq!(spec.environment.get("FEATHER_PASSWORD"), Some(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_stopped_parks_its_operations_and_the_next_one_goes_on() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.faults.always("nyc", "retire", Fault::LoseRequest);
    let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
    let request = pb::WatchOperationRequest { id: operation.id.clone() };
    let mut watcher = fleet.operations().watch_operation(request).await.unwrap().into_inner();
    while watcher.message().await.unwrap().unwrap().operation.unwrap().step != "retire" {}
    // The watcher stays connected, and must not keep the controller from ending.
    fleet.stop_controller().await;
    fleet.faults.clear();
    fleet.start_controller().await;
    assert_eq!(fleet.outcome(&operation.id).await.state(), pb::OperationState::Succeeded);
}

async fn stop(fleet: &Fleet, name: &str) {
    let request = pb::StopTenantRequest { request_id: request_id(), tenant: name.into() };
    let operation = fleet.tenants().stop_tenant(request).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&operation.id).await.state(), pb::OperationState::Succeeded);
}

async fn import(fleet: &Fleet, name: &str, archive: Vec<u8>) -> Result<(), Error> {
    let first = pb::ImportVolumeRequest { tenant: name.into(), ..Default::default() };
    let data = pb::ImportVolumeRequest { data: archive.into(), ..Default::default() };
    let end = pb::ImportVolumeRequest { end: true, ..Default::default() };
    let messages = tokio_stream::iter([first, data, end]);
    fleet.volumes().import_volume(messages).await.map(drop).map_err(Error::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_archive_or_not_all_of_one_costs_nothing() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    stop(&fleet, "alice").await;
    let data = fleet.volume("nyc", "alice").join("data");
    std::fs::write(&data, "kept").unwrap();
    for nothing in [vec![], b"root:x:0:0".to_vec(), vec![b'x'; 4096], [&[0x1f, 0x8b][..], &[0; 1024]].concat()] {
        let error = import(&fleet, "alice", nothing).await.unwrap_err();
        assert_eq!(error.reason, reason::BAD_STREAM, "{error}");
        assert_eq!(std::fs::read_to_string(&data).unwrap(), "kept");
    }
    assert_eq!(fleet.show("alice").await.state(), pb::TenantState::Stopped);
    let export = pb::ExportVolumeRequest { tenant: "alice".into() };
    let mut stream = fleet.volumes().export_volume(export).await.unwrap().into_inner();
    let mut archive = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        archive.extend_from_slice(&piece.data);
    }
    let cut = archive[..archive.len() - 1024].to_vec();
    let error = import(&fleet, "alice", cut).await.unwrap_err();
    assert!(error.message.contains("Nothing was imported: the volume of alice is as it was"), "{error}");
    assert_eq!(fleet.show("alice").await.state(), pb::TenantState::Stopped);
    std::fs::write(&data, "changed since").unwrap();
    import(&fleet, "alice", archive).await.unwrap();
    assert_eq!(std::fs::read_to_string(&data).unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_as_there_are_places_are_added_at_once() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    let names: Vec<_> = (0..20).map(|number| format!("t{number}")).collect();
    let added = futures::future::join_all(names.iter().map(|name| fleet.try_add(name, ""))).await;
    for outcome in added {
        let outcome = outcome.unwrap();
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    }
    assert_eq!(fleet.try_add("one-more", "").await.unwrap_err().reason, reason::NO_ROOM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_says_nothing_delays_nobody_who_goes_elsewhere() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.faults.silence("fra", true);
    let moving = fleet.begin_migrate("alice", "fra");
    let others = async {
        until("fra was asked", async || match fleet.faults.unanswered() {
            1 => Ok(()),
            other => Err(other),
        })
        .await;
        fleet.add("bob", "nyc").await;
        assert_eq!(fleet.faults.unanswered(), 1, "the move waits still");
        fleet.faults.silence("fra", false);
    };
    let (begun, ()) = tokio::join!(moving, others);
    assert_eq!(fleet.outcome(&begun.unwrap().id).await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}
