//! What may happen to a move while its tenant still runs: in a round, and between two of them.
//!
//! A limit on the data rate makes rounds long enough to happen in.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use feather_tests::{Fleet, Outcome, fleet::request_id, wait::until};
use tokio::sync::Notify;

const DATA: &str = "the data that must not be lost";

/// Content that compression makes nothing of.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[5]
        })
        .collect()
}

/// alice on nyc with data whose first round takes more than a second, so that there is a second one.
async fn fleet_with_alice() -> Fleet {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let home = fleet.volume("nyc", "alice");
    std::fs::write(home.join("data"), DATA).unwrap();
    for number in 0..12_u8 {
        let mut content = noise(1 << 20);
        content[0] = number;
        std::fs::write(home.join(format!("noise-{number}")), content).unwrap();
    }
    // Agents that are killed here come back; the move shall wait for them.
    fleet.settings.attempts = 2000;
    fleet.stop_controller().await;
    fleet.start_controller().await;
    fleet.all_ready().await;
    fleet.faults.clear();
    fleet
}

async fn begin(fleet: &Fleet) -> String {
    begin_at(fleet, 8 << 20).await
}

async fn begin_at(fleet: &Fleet, bytes_per_second_max: u64) -> String {
    let request = pb::MigrateTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        server: "fra".into(),
        bytes_per_second_max,
        ..Default::default()
    };
    fleet.tenants().migrate_tenant(request).await.unwrap().into_inner().operation.unwrap().id
}

/// Waits until data of the first round has come.
async fn in_the_first_round(fleet: &Fleet, id: &str) {
    let request = pb::WatchOperationRequest { id: id.to_owned() };
    let mut stream = fleet.operations().watch_operation(request).await.unwrap().into_inner();
    while let Some(message) = stream.message().await.unwrap() {
        let progress = message.progress.unwrap_or_default();
        if progress.round == 1 && progress.wire_bytes > 1 << 20 {
            assert_eq!(progress.phase(), pb::TransferPhase::Receiving);
            assert!(progress.total_bytes >= 12 << 20 && progress.total_files >= 13, "{progress:?}");
            return;
        }
        assert_eq!(message.operation.unwrap().ended, None, "it ended before its first round was seen");
    }
    panic!("the stream ended before the first round");
}

/// Tells when the second round is about to be asked for.
fn before_the_second_round(fleet: &Fleet) -> Arc<Notify> {
    let (reached, grants) = (Arc::new(Notify::new()), AtomicUsize::new(0));
    let tell = reached.clone();
    fleet.faults.on_call(Arc::new(move |made, _| {
        if made.1 == "grant_transfer" && grants.fetch_add(1, Ordering::SeqCst) == 1 {
            tell.notify_one();
        }
    }));
    reached
}

/// One running copy, all data, and only one start: whatever happened, alice was not stopped for it.
async fn check(fleet: &Fleet, here: &str) {
    let alice = until("alice runs", async || {
        let alice = fleet.show("alice").await;
        if alice.state() == pb::TenantState::Running { Ok(alice) } else { Err(alice) }
    })
    .await;
    assert_eq!(alice.server, here);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
    assert_eq!(fleet.recorder.running("feather-user-alice"), [here]);
    let home = fleet.volume(here, "alice");
    assert_eq!(std::fs::read_to_string(home.join("data")).unwrap(), DATA);
    assert_eq!(std::fs::read(home.join("noise-11")).unwrap().len(), 1 << 20);
}

fn succeeded(outcome: &Outcome) {
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_cancelled_in_a_round_and_at_once() {
    let fleet = fleet_with_alice().await;
    // The round would take twelve seconds.
    let id = begin_at(&fleet, 1 << 20).await;
    in_the_first_round(&fleet, &id).await;
    let asked = tokio::time::Instant::now();
    fleet.operations().cancel_operation(pb::CancelOperationRequest { id: id.clone() }).await.unwrap();
    let outcome = fleet.outcome(&id).await;
    assert_eq!(outcome.state(), pb::OperationState::Cancelled, "{:#?}", outcome.operation);
    assert!(asked.elapsed().as_secs() < 6, "it waited for the end of the round: {:?}", asked.elapsed());
    assert!(!outcome.steps("begin").contains(&"stop"));
    assert!(!fleet.volume("fra", "alice").exists(), "what had come is given back");
    assert_eq!(fleet.starts("nyc", "alice").len(), 1, "alice never noticed");
    check(&fleet, "nyc").await;
    succeeded(&fleet.migrate("alice", "fra").await);
    check(&fleet, "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_cancelled_between_two_rounds() {
    let fleet = fleet_with_alice().await;
    let reached = before_the_second_round(&fleet);
    let id = begin(&fleet).await;
    reached.notified().await;
    fleet.operations().cancel_operation(pb::CancelOperationRequest { id: id.clone() }).await.unwrap();
    let outcome = fleet.outcome(&id).await;
    assert_eq!(outcome.state(), pb::OperationState::Cancelled, "{:#?}", outcome.operation);
    assert_eq!(fleet.starts("nyc", "alice").len(), 1, "alice never noticed");
    check(&fleet, "nyc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_agent_may_restart_in_a_round_or_between_two() {
    for (server, between) in [("nyc", false), ("fra", false), ("nyc", true), ("fra", true)] {
        let mut fleet = fleet_with_alice().await;
        let reached = before_the_second_round(&fleet);
        let id = begin(&fleet).await;
        match between {
            true => reached.notified().await,
            false => in_the_first_round(&fleet, &id).await,
        }
        fleet.kill_agent(server);
        fleet.start_agent(server);
        let outcome = fleet.outcome(&id).await;
        succeeded(&outcome);
        let result = outcome.operation.migration.clone().unwrap();
        // What had come before the restart is not sent again, but for what was under way.
        assert!(result.wire_bytes < 14 << 20, "{server} {between}: {result:?}");
        check(&fleet, "fra").await;
        assert_eq!(fleet.starts("fra", "alice").len(), 2, "one start here and one there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_may_die_in_a_round() {
    let mut fleet = fleet_with_alice().await;
    let id = begin(&fleet).await;
    in_the_first_round(&fleet, &id).await;
    fleet.kill_controller();
    fleet.start_controller().await;
    succeeded(&fleet.outcome(&id).await);
    check(&fleet, "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_may_lose_each_other_for_a_while_in_a_round() {
    let fleet = fleet_with_alice().await;
    let id = begin(&fleet).await;
    in_the_first_round(&fleet, &id).await;
    fleet.network.cut("fra", "nyc:7443");
    until("the round is tried again", async || {
        let pulls = fleet.faults.made().iter().filter(|made| made.1 == "pull_volume").count();
        if pulls > 3 { Ok(()) } else { Err(pulls) }
    })
    .await;
    fleet.network.heal("fra", "nyc:7443");
    let outcome = fleet.outcome(&id).await;
    succeeded(&outcome);
    assert!(outcome.operation.migration.unwrap().wire_bytes < 14 << 20, "what had come is not sent again");
    check(&fleet, "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_moves_is_not_stopped_restarted_or_removed_meanwhile() {
    let fleet = fleet_with_alice().await;
    let id = begin(&fleet).await;
    in_the_first_round(&fleet, &id).await;
    let (request_id, tenant) = (request_id(), "alice".to_owned());
    let mut tenants = fleet.tenants();
    let stop = pb::StopTenantRequest { request_id: request_id.clone(), tenant: tenant.clone() };
    let restart = pb::RestartTenantRequest { request_id: request_id.clone(), tenant: tenant.clone() };
    let remove = pb::RemoveTenantRequest { request_id: request_id.clone(), tenant: tenant.clone(), dry_run: false };
    let password = pb::ResetPasswordRequest { request_id, tenant };
    let refused = [
        Error::from(tenants.stop_tenant(stop).await.unwrap_err()),
        Error::from(tenants.restart_tenant(restart).await.unwrap_err()),
        Error::from(tenants.remove_tenant(remove).await.unwrap_err()),
        Error::from(tenants.reset_password(password).await.map(drop).unwrap_err()),
    ];
    for error in refused {
        assert!(error.is(reason::OPERATION_RUNNING) && error.message.contains(&id), "{error:?}");
    }
    succeeded(&fleet.outcome(&id).await);
    check(&fleet, "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_process_ends_in_a_round_is_restarted_and_moves() {
    let fleet = fleet_with_alice().await;
    let id = begin(&fleet).await;
    in_the_first_round(&fleet, &id).await;
    fleet.servers["nyc"].runtime.crash("feather-user-alice");
    succeeded(&fleet.outcome(&id).await);
    check(&fleet, "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_tenant_writes_in_and_behind_the_rounds_moves_with_it() {
    let fleet = fleet_with_alice().await;
    let home = fleet.volume("nyc", "alice");
    let written = Arc::new(AtomicUsize::new(0));
    let (count, at) = (written.clone(), home.clone());
    fleet.faults.on_call(Arc::new(move |made, _| {
        // Until its stop a tenant writes as it likes.
        if ["grant_transfer", "pull_volume", "stop_tenant"].contains(&made.1) && at.join("data").exists() {
            let number = count.load(Ordering::SeqCst);
            let running = made.1 != "grant_transfer" || number < 100;
            if running && !at.join("sealed").exists() {
                std::fs::write(at.join(format!("late-{number}")), number.to_string()).unwrap();
                std::fs::remove_file(at.join("noise-3")).ok();
                count.store(number + 1, Ordering::SeqCst);
            }
            if made.1 == "stop_tenant" {
                std::fs::write(at.join("sealed"), "").unwrap();
            }
        }
    }));
    let id = begin(&fleet).await;
    succeeded(&fleet.outcome(&id).await);
    let there = fleet.volume("fra", "alice");
    let count = written.load(Ordering::SeqCst);
    assert!(count >= 4, "{count} writes");
    for number in 0..count {
        let text = std::fs::read_to_string(there.join(format!("late-{number}"))).unwrap();
        assert_eq!(text, number.to_string());
    }
    assert!(!there.join("noise-3").exists());
    check(&fleet, "fra").await;
}
