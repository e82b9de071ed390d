//! What a move offers beside moving: what it measured, what it foretells, how it is held down, and another way for its data.

use std::time::Duration;

use feather_proto::{
    error::{Error, reason},
    pb::{agent::v1 as agent_pb, controller::v1 as pb},
    tls::Role,
};
use feather_tests::{Fleet, Outcome, faults::Fault, fleet::request_id};

fn wanted(name: &str, to: &str) -> pb::MigrateTenantRequest {
    pb::MigrateTenantRequest { request_id: request_id(), tenant: name.into(), server: to.into(), ..Default::default() }
}

async fn moved(fleet: &Fleet, request: pb::MigrateTenantRequest) -> Outcome {
    let begun = fleet.tenants().migrate_tenant(request).await.expect("the move begins").into_inner();
    fleet.outcome(&begun.operation.expect("an operation").id).await
}

fn result(outcome: &Outcome) -> pb::MigrationResult {
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    outcome.operation.migration.clone().expect("a result")
}

/// Bytes that do not shrink, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_says_what_it_sent_and_how_long_requests_waited() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("noise"), noise(300_000)).unwrap();
    let outcome = fleet.migrate("alice", "fra").await;
    let result = result(&outcome);
    assert!(result.wire_bytes > 300_000, "{result:?}");
    assert!(!result.rounds.is_empty() && !result.rounds_ended.is_empty(), "{result:?}");
    assert!(result.rounds[0].wire_bytes > 300_000 && result.rounds[0].files >= 1, "{result:?}");
    assert!(result.outage_ms > 0 && !result.outage_by_controller, "{result:?}");
    assert!(result.duration_ms >= result.outage_ms, "{result:?}");
    assert_eq!(result.predicted, None, "nothing was measured before");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_measured_outage_is_the_same_however_often_it_is_asked_for() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.faults.always("nyc", "hand_off", Fault::LoseReply);
    let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
    feather_tests::wait::until("the hand-off was made more than once", async || {
        let made = fleet.faults.made().into_iter().filter(|made| made.1 == "hand_off").count();
        if made > 2 { Ok(()) } else { Err(made) }
    })
    .await;
    // What the gate knew is gone with the agent; its ledger is not.
    fleet.kill_agent("nyc");
    fleet.start_agent("nyc");
    fleet.faults.clear();
    let outcome = fleet.outcome(&operation.id).await;
    let shown = result(&outcome);
    assert!(shown.outage_ms > 0 && !shown.outage_by_controller, "{shown:?}");
    let identity = fleet.identity(Role::Controller, "controller");
    let mut agent = agent_pb::tenant_service_client::TenantServiceClient::new(fleet.agent_channel("nyc", identity));
    let again = agent_pb::HandOffTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation: fleet.show("alice").await.generation,
        forward_to: "fra:80".into(),
    };
    assert_eq!(agent.hand_off_tenant(again).await.unwrap().into_inner().held_ms, shown.outage_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_restarts_while_it_holds_requests_still_measures_the_whole_of_it() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.faults.always("fra", "start_tenant", Fault::LoseRequest);
    let begun = tokio::time::Instant::now();
    fleet.settings.attempts = 1000;
    fleet.stop_controller().await;
    fleet.start_controller().await;
    fleet.all_ready().await;
    let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
    feather_tests::wait::until("the start is tried", async || {
        if fleet.faults.made().iter().any(|made| made.1 == "start_tenant") { Ok(()) } else { Err("not yet") }
    })
    .await;
    let sealed = tokio::time::Instant::now();
    fleet.kill_agent("nyc");
    fleet.start_agent("nyc");
    fleet.all_ready().await;
    let down = sealed.elapsed();
    fleet.faults.clear();
    let shown = result(&fleet.outcome(&operation.id).await);
    assert!(!shown.outage_by_controller, "{shown:?}");
    let outage = Duration::from_millis(shown.outage_ms);
    assert!(outage + Duration::from_millis(2) >= down && outage <= begun.elapsed(), "{shown:?} {down:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_foretells_from_what_was_measured_and_the_result_says_both() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    for name in ["alice", "bob"] {
        fleet.add(name, "nyc").await;
        std::fs::write(fleet.volume("nyc", name).join("noise"), noise(200_000)).unwrap();
    }
    let dry = async |name: &str| {
        let request = pb::MigrateTenantRequest { dry_run: true, ..wanted(name, "fra") };
        fleet.tenants().migrate_tenant(request).await.unwrap().into_inner()
    };
    let first = dry("alice").await;
    assert!(first.prediction.is_none() && first.not_predicted.contains("no move was measured yet"), "{first:?}");
    assert!(result(&fleet.migrate("alice", "fra").await).predicted.is_none());
    let second = dry("bob").await;
    let foretold = second.prediction.clone().expect("a prediction");
    assert_eq!(foretold.basis, "1 move nyc -> fra");
    assert!((200_000..500_000).contains(&foretold.wire_bytes) && foretold.outage_ms > 0, "{foretold:?}");
    assert!(foretold.duration_ms >= foretold.outage_ms, "{foretold:?}");
    let predicted = result(&fleet.migrate("bob", "fra").await).predicted;
    assert_eq!(predicted.map(|one| one.basis), Some(foretold.basis));
    // The way back: the old server still has nearly all of it.
    let back = pb::MigrateTenantRequest { dry_run: true, undo: true, ..wanted("bob", "") };
    let back = fleet.tenants().migrate_tenant(back).await.unwrap().into_inner().prediction.expect("a prediction");
    assert!(back.wire_bytes < 100_000 && back.basis.contains("between other servers"), "{back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_do_not_give_the_same_room_away_twice() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let dry = |before: Vec<pb::PlannedMove>| pb::MigrateTenantRequest {
        dry_run: true,
        planned_before: before,
        ..wanted("alice", "fra")
    };
    let tenants = fleet.tenants();
    let alone = tenants.clone().migrate_tenant(dry(vec![])).await.unwrap().into_inner().target_after.unwrap();
    let bob = pb::PlannedMove { tenant: "bob".into(), target: "fra".into(), volume_bytes: 1 << 20 };
    let behind = tenants.clone().migrate_tenant(dry(vec![bob.clone()])).await.unwrap().into_inner();
    let behind = behind.target_after.unwrap();
    assert_eq!(behind.slots_free, alone.slots_free - 1);
    assert!(behind.disk_free_bytes <= alone.disk_free_bytes - (1 << 20), "{behind:?} {alone:?}");
    let many = vec![bob.clone(); usize::try_from(alone.slots_free).unwrap() + 1];
    let full = Error::from(tenants.clone().migrate_tenant(dry(many)).await.unwrap_err());
    assert!(full.is(reason::NO_ROOM), "{full:?}");
    let real = pb::MigrateTenantRequest { planned_before: vec![bob], ..wanted("alice", "fra") };
    assert!(Error::from(tenants.clone().migrate_tenant(real).await.unwrap_err()).is(reason::INVALID_FIELD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_for_passes_before_and_behind_the_stop() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("noise"), noise(6 << 20)).unwrap();
    let silly = pb::MigrateTenantRequest { bytes_per_second_max: 1000, ..wanted("alice", "fra") };
    assert!(Error::from(fleet.tenants().migrate_tenant(silly).await.unwrap_err()).is(reason::INVALID_FIELD));
    let slow = pb::MigrateTenantRequest { bytes_per_second_max: 8 << 20, ..wanted("alice", "fra") };
    let live = result(&moved(&fleet, slow).await);
    assert!(live.rounds[0].duration_ms >= 400, "6 MiB at 8 MiB/s in {:?}", live.rounds);
    // A stopped tenant has no pass but the last one.
    let stop = pb::StopTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let stopped = fleet.tenants().stop_tenant(stop).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&stopped.id).await.state(), pb::OperationState::Succeeded);
    std::fs::write(fleet.volume("fra", "alice").join("more"), noise(6 << 20)).unwrap();
    let slow = pb::MigrateTenantRequest { bytes_per_second_max: 8 << 20, ..wanted("alice", "nyc") };
    let last = result(&moved(&fleet, slow).await);
    assert!(last.rounds.is_empty() && last.transfer_ms >= 400, "{last:?}");
    assert_eq!(last.outage_ms, 0, "nobody waited for a tenant that was stopped anyway");
}

fn cut_off_from_each_other(fleet: &Fleet, one: &str, other: &str) {
    fleet.network.cut(one, &format!("{other}:7443"));
    fleet.network.cut(other, &format!("{one}:7443"));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_not_reach_each_other_move_tenants_by_way_of_the_controller() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    let password = fleet.add("alice", "nyc").await.password;
    std::fs::write(fleet.volume("nyc", "alice").join("noise"), noise(9 << 20)).unwrap();
    cut_off_from_each_other(&fleet, "nyc", "fra");
    let direct = fleet.migrate("alice", "fra").await;
    assert_eq!(direct.state(), pb::OperationState::Failed);
    let error = &direct.operation.error;
    assert!(error.contains("--via controller") && error.contains("cannot be fetched from nyc"), "{error}");
    assert_eq!(direct.operation.reason, reason::PEER_UNREACHABLE);
    assert!(!direct.steps("begin").contains(&"stop"), "it was not stopped for nothing: {:#?}", direct.operation);
    let relayed = pb::MigrateTenantRequest { route: pb::TransferRoute::Controller.into(), ..wanted("alice", "fra") };
    let shown = result(&moved(&fleet, relayed).await);
    assert!(shown.relayed && shown.wire_bytes > 9 << 20, "{shown:?}");
    let arrived = std::fs::read(fleet.volume("fra", "alice").join("noise")).unwrap();
    assert!(arrived == noise(9 << 20), "{} bytes arrived", arrived.len());
    let spec = fleet.servers["fra"].runtime.spec("feather-user-alice").unwrap();
    assert_eq!(spec.environment["FEATHER_PASSWORD"], password);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
    let back =
        pb::MigrateTenantRequest { undo: true, route: pb::TransferRoute::Controller.into(), ..wanted("alice", "") };
    let back = result(&moved(&fleet, back).await);
    assert!(back.wire_bytes < 1 << 20, "the undo copy is the base: {back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_restarts_goes_on_relaying() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("noise"), noise(4 << 20)).unwrap();
    cut_off_from_each_other(&fleet, "nyc", "fra");
    let relayed = pb::MigrateTenantRequest {
        route: pb::TransferRoute::Controller.into(),
        bytes_per_second_max: 2 << 20,
        ..wanted("alice", "fra")
    };
    let begun = fleet.tenants().migrate_tenant(relayed).await.unwrap().into_inner().operation.unwrap();
    feather_tests::wait::until("data is on its way", async || {
        let volume = fleet.volume("fra", "alice");
        if volume.exists() { Ok(()) } else { Err("no volume yet") }
    })
    .await;
    fleet.kill_controller();
    fleet.start_controller().await;
    let outcome = fleet.outcome(&begun.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    assert!(std::fs::read(fleet.volume("fra", "alice").join("noise")).unwrap() == noise(4 << 20));
}
