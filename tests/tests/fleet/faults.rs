//! Moves and adds that meet faults: at every call, behind every write, and with everyone dying once.
//!
//! The loops count what a clean run does and then break each of those things in turn, so that a new step is covered the moment
//! it exists.

use std::sync::Arc;

use feather_agent::runtime::{Runtime as _, fake::Verb};
use feather_proto::pb::controller::v1 as pb;
use feather_tests::{
    Fleet, Outcome,
    faults::{Fault, Made},
    fleet::request_id,
    wait::until,
};

pub(crate) const DATA: &str = "the data that must not be lost";

pub(crate) async fn fleet_with_alice() -> Fleet {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("data"), DATA).unwrap();
    fleet.faults.clear();
    fleet
}

/// What must hold after any move, however it went: one running copy where the store says, its data whole, nothing left behind.
pub(crate) async fn check_world(fleet: &Fleet, what: &str) -> String {
    let alice = until(&format!("{what}: alice runs"), async || {
        let alice = fleet.show("alice").await;
        if alice.state() == pb::TenantState::Running { Ok(alice) } else { Err(alice) }
    })
    .await;
    let here = alice.server;
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new(), "{what}");
    assert_eq!(fleet.recorder.running("feather-user-alice"), std::slice::from_ref(&here), "{what}");
    let data = std::fs::read_to_string(fleet.volume(&here, "alice").join("data"));
    assert_eq!(data.ok().as_deref(), Some(DATA), "{what}: data on {here}");
    let other = if here == "nyc" { "fra" } else { "nyc" };
    until(&format!("{what}: both servers lead to {here}, nothing is left on {other}"), async || {
        let mut wrong = vec![];
        for server in ["nyc", "fra"] {
            let answer = fleet.request(server, "alice");
            // Before it ever moved, a server that is not the ingress has no route for it: nothing leads there.
            let nothing_there = server == other && answer.status == 404;
            if answer.served_by.as_deref() != Some(here.as_str()) && !nothing_there {
                wrong.push(format!("{server} answers {answer:?}"));
            }
        }
        let request = pb::GetServerRequest { server: other.to_owned() };
        let server = fleet.server_service().get_server(request).await.unwrap().into_inner().server.unwrap();
        if server.slots_free != server.slots_total {
            wrong.push(format!("{other} still holds a port"));
        }
        if fleet.servers[other].runtime.spec("feather-user-alice").is_some() {
            wrong.push(format!("{other} still has a container"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    })
    .await;
    here
}

fn may_end(outcome: &Outcome, what: &str) {
    let state = outcome.state();
    let fine = matches!(state, pb::OperationState::Succeeded | pb::OperationState::Failed);
    assert!(fine, "{what}: {:#?}", outcome.operation);
}

async fn calls_of_a_clean_move() -> Vec<Made> {
    let fleet = fleet_with_alice().await;
    let outcome = fleet.migrate("alice", "fra").await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    assert_eq!(check_world(&fleet, "a clean move").await, "fra");
    fleet.faults.made()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_move_may_be_refused_lost_or_repeated() {
    let calls = calls_of_a_clean_move().await;
    assert!(calls.len() >= 10, "{calls:?}");
    for (number, made) in calls.iter().enumerate() {
        for fault in Fault::ALL {
            let what = format!("{fault:?} of call {number}, {made:?}");
            let fleet = fleet_with_alice().await;
            fleet.faults.at(number, fault);
            let outcome = fleet.migrate("alice", "fra").await;
            may_end(&outcome, &what);
            if fault != Fault::Refuse {
                assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{what}: {:#?}", outcome.operation);
            }
            let here = check_world(&fleet, &what).await;
            assert_eq!(here == "fra", outcome.state() == pb::OperationState::Succeeded, "{what}");
            // Whatever happened, the next move works.
            fleet.faults.clear();
            let next = fleet.migrate("alice", if here == "fra" { "nyc" } else { "fra" }).await;
            assert_eq!(next.state(), pb::OperationState::Succeeded, "the move after {what}: {:#?}", next.operation);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_may_die_behind_every_write_of_a_move() {
    for writes in 1.. {
        let mut fleet = fleet_with_alice().await;
        fleet.crash_after_writes(writes);
        let fleet_ref = &fleet;
        let begun = fleet.crash_or(async { fleet_ref.migrate("alice", "fra").await }).await;
        if let Some(outcome) = begun {
            assert_eq!(outcome.state(), pb::OperationState::Succeeded);
            assert!(writes > 20, "a move writes its log: only {writes} writes seen");
            return;
        }
        fleet.kill_controller();
        fleet.start_controller().await;
        let what = format!("crash behind write {writes}");
        let listed = until("the controller answers", async || {
            fleet.operations().list_operations(pb::ListOperationsRequest::default()).await.map_err(|s| s.to_string())
        })
        .await;
        let newest = &listed.into_inner().operations[0];
        if newest.kind() != pb::OperationKind::Migrate {
            // On a busy machine what is noted of the time before comes late, and is what was written: nobody has heard of a move.
            assert!(writes < 20, "{what}: no move was begun");
            assert_eq!(check_world(&fleet, &what).await, "nyc");
            continue;
        }
        let outcome = fleet.outcome(&newest.id).await;
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{what}: {:#?}", outcome.operation);
        assert_eq!(check_world(&fleet, &what).await, "fra");
    }
}

/// Kills a server right before each call of a move; it comes back a moment later.
async fn server_dies_at_every_call(victim: &str, power: bool) {
    let calls = calls_of_a_clean_move().await;
    for (number, made) in calls.iter().enumerate() {
        let what = format!("{victim} dies (power: {power}) before call {number}, {made:?}");
        let mut fleet = fleet_with_alice().await;
        let reached = Arc::new(tokio::sync::Notify::new());
        let hook = reached.clone();
        fleet.faults.on_call(Arc::new(move |_, at| {
            if at == number {
                hook.notify_one();
            }
        }));
        let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
        reached.notified().await;
        if power {
            fleet.power_off(victim);
        } else {
            fleet.kill_agent(victim);
        }
        fleet.start_agent(victim);
        let outcome = fleet.outcome(&operation.id).await;
        may_end(&outcome, &what);
        fleet.all_ready().await;
        let here = check_world(&fleet, &what).await;
        assert_eq!(here == "fra", outcome.state() == pb::OperationState::Succeeded, "{what}: {:#?}", outcome.operation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_agent_may_die_before_every_call_of_a_move() {
    server_dies_at_every_call("nyc", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_agent_may_die_before_every_call_of_a_move() {
    server_dies_at_every_call("fra", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_may_lose_power_before_every_call_of_a_move() {
    server_dies_at_every_call("nyc", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_may_lose_power_before_every_call_of_a_move() {
    server_dies_at_every_call("fra", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_reached_for_its_restart_leaves_the_move_stuck_until_it_can() {
    let fleet = fleet_with_alice().await;
    fleet.faults.always("fra", "verify_volume", Fault::Refuse);
    fleet.faults.always("nyc", "start_tenant", Fault::LoseRequest);
    let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
    let stuck = until("the move is stuck", async || {
        let request = pb::GetOperationRequest { id: operation.id.clone() };
        let operation = fleet.operations().get_operation(request).await.unwrap().into_inner().operation.unwrap();
        if operation.state() == pb::OperationState::Stuck { Ok(operation) } else { Err(operation.state()) }
    })
    .await;
    assert!(stuck.hint.contains("featherctl server show nyc"), "{:?}", stuck.hint);
    assert!(stuck.hint.contains("featherctl operation retry"), "{:?}", stuck.hint);
    assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new(), "nobody guesses");
    fleet.faults.never("nyc", "start_tenant");
    let outcome = fleet.outcome(&operation.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Failed);
    assert_eq!(check_world(&fleet, "unstuck").await, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_may_have_started_its_copy_keeps_the_source_from_starting() {
    let fleet = fleet_with_alice().await;
    // The trial starts, but nobody hears of it; then the target is gone.
    fleet.faults.always("fra", "start_tenant", Fault::LoseReply);
    fleet.faults.always("fra", "abandon", Fault::LoseRequest);
    let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
    stuck(&fleet, &operation.id).await;
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["fra"], "the trial runs, and nothing else");
    assert_eq!(fleet.request("fra", "alice").status, 404, "no public request reaches a trial");
    fleet.faults.never("fra", "abandon");
    assert_eq!(fleet.outcome(&operation.id).await.state(), pb::OperationState::Failed);
    assert_eq!(check_world(&fleet, "after the target came back").await, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_can_be_cancelled_before_every_call_until_its_commit() {
    let calls = calls_of_a_clean_move().await;
    for (number, made) in calls.iter().enumerate() {
        let what = format!("cancelled at call {number}, {made:?}");
        let fleet = fleet_with_alice().await;
        let reached = Arc::new(tokio::sync::Notify::new());
        let hook = reached.clone();
        fleet.faults.on_call(Arc::new(move |_, at| {
            if at == number {
                hook.notify_one();
            }
        }));
        let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
        reached.notified().await;
        let request = pb::CancelOperationRequest { id: operation.id.clone() };
        let cancelled = fleet.operations().cancel_operation(request).await;
        let outcome = fleet.outcome(&operation.id).await;
        let expected = if cancelled.is_ok() { pb::OperationState::Cancelled } else { pb::OperationState::Succeeded };
        assert_eq!(outcome.state(), expected, "{what}: {cancelled:?} {:#?}", outcome.operation);
        let here = check_world(&fleet, &what).await;
        assert_eq!(here, if cancelled.is_ok() { "nyc" } else { "fra" }, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_an_add_may_be_refused_lost_or_repeated() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("bob", "nyc").await;
    let calls = fleet.faults.made();
    for number in 0..calls.len() {
        for fault in Fault::ALL {
            let what = format!("{fault:?} of call {number}");
            let fleet = Fleet::start(&["nyc", "fra"]).await;
            fleet.faults.clear();
            fleet.faults.at(number, fault);
            let outcome = fleet.try_add("alice", "nyc").await.unwrap();
            may_end(&outcome, &what);
            if outcome.state() == pb::OperationState::Succeeded {
                assert!(!outcome.password.is_empty(), "{what}");
                assert_eq!(fleet.recorder.running("feather-user-alice"), ["nyc"], "{what}");
            } else {
                assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new(), "{what}");
                assert!(!fleet.volume("nyc", "alice").exists(), "{what}: no volume is left");
                assert_eq!(fleet.add("alice", "").await.state(), pb::OperationState::Succeeded, "the add after {what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_reply_never_comes_is_taken_back_with_the_volume_it_made() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.faults.always("nyc", "add_tenant", Fault::LoseReply);
    let outcome = fleet.try_add("alice", "nyc").await.unwrap();
    assert_eq!(outcome.state(), pb::OperationState::Failed, "{:#?}", outcome.operation);
    assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new());
    assert!(!fleet.volume("nyc", "alice").exists(), "no volume is left");
    fleet.faults.clear();
    fleet.add("alice", "nyc").await;
    fleet.remove("alice").await;
    // The same with a kept volume: that one is not the add's to take back.
    fleet.faults.always("nyc", "add_tenant", Fault::LoseReply);
    assert_eq!(fleet.try_add("alice", "nyc").await.unwrap().state(), pb::OperationState::Failed);
    assert!(fleet.volume("nyc", "alice").exists(), "the kept volume stays");
    fleet.faults.clear();
    fleet.add("alice", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_failed_before_it_touched_the_source_leaves_a_tenant_that_can_be_changed() {
    let fleet = fleet_with_alice().await;
    fleet.faults.always("fra", "reserve", Fault::Refuse);
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Failed);
    let request = pb::ResetPasswordRequest { request_id: request_id(), tenant: "alice".into() };
    fleet.tenants().reset_password(request).await.unwrap();
    assert_eq!(check_world(&fleet, "after the new password").await, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_does_not_stop_what_ran_before() {
    let fleet = fleet_with_alice().await;
    fleet.faults.always("nyc", "start_tenant", Fault::Refuse);
    let start = pb::StartTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let start = fleet.tenants().start_tenant(start).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&start.id).await.state(), pb::OperationState::Failed);
    assert_eq!(check_world(&fleet, "after the start").await, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_operation_says_what_to_type_also_to_the_next_controller() {
    let mut fleet = fleet_with_alice().await;
    fleet.faults.always("fra", "verify_volume", Fault::Refuse);
    fleet.faults.always("nyc", "start_tenant", Fault::LoseRequest);
    let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
    let stuck = async |fleet: &Fleet, tries: usize| {
        until("the move is stuck", async || {
            let request = pb::GetOperationRequest { id: operation.id.clone() };
            let reply = fleet.operations().get_operation(request).await.map_err(|status| status.to_string())?;
            let operation = reply.into_inner().operation.unwrap();
            let tried = operation.log.iter().filter(|line| line.event == "undo-begin" && line.step == "stop").count();
            let stuck = operation.state() == pb::OperationState::Stuck && tried >= tries;
            if stuck { Ok(operation.hint) } else { Err(format!("{operation:?}")) }
        })
        .await
    };
    let before = stuck(&fleet, 1).await;
    assert!(before.contains("featherctl server show nyc"), "{before:?}");
    fleet.kill_controller();
    fleet.start_controller().await;
    assert_eq!(stuck(&fleet, 2).await, before);
    fleet.faults.clear();
    assert_eq!(fleet.outcome(&operation.id).await.state(), pb::OperationState::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undone_move_starts_the_same_container_again() {
    let fleet = fleet_with_alice().await;
    // What its user installed outside the volume is in the container, and a move that came to nothing must not cost it.
    let removed = || fleet.servers["nyc"].runtime.calls(Verb::RemoveContainer);
    let before = removed();
    fleet.faults.always("fra", "verify_volume", Fault::Refuse);
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Failed);
    assert_eq!(check_world(&fleet, "the undone move").await, "nyc");
    assert_eq!(removed(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_restored_from_before_a_move_does_not_leave_two_copies() {
    let mut fleet = fleet_with_alice().await;
    let ledger = fleet.servers["nyc"].state_dir.join("tenants/alice.json");
    let backup = std::fs::read(&ledger).unwrap();
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    fleet.power_off("nyc");
    std::fs::write(&ledger, backup).unwrap();
    fleet.start_agent("nyc");
    // Nothing on nyc itself can know better, so for a moment both run: that is what the second look is for.
    until(
        "nyc has started its old copy",
        async || {
            if fleet.recorder.violations().is_empty() { Err("not yet") } else { Ok(()) }
        },
    )
    .await;
    until("the old copy is stopped, and nyc forwards to fra", async || {
        let (running, answer) = (fleet.recorder.running("feather-user-alice"), fleet.request("nyc", "alice"));
        let right = running == ["fra"] && answer.served_by.as_deref() == Some("fra");
        if right { Ok(()) } else { Err((running, answer)) }
    })
    .await;
    for server in ["nyc", "fra"] {
        assert_eq!(std::fs::read_to_string(fleet.volume(server, "alice").join("data")).unwrap(), DATA, "{server}");
    }
    assert_eq!(fleet.show("alice").await.server, "fra");
    // The seal is in the ledger: the next start of the server does not bring it back.
    fleet.power_off("nyc");
    fleet.start_agent("nyc");
    until("nyc forwards again", async || {
        let answer = fleet.request("nyc", "alice");
        if answer.served_by.as_deref() == Some("fra") { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["fra"]);
}

/// A server comes back with nothing: new disks, the old name.
async fn loses_everything(fleet: &mut Fleet, server: &str) {
    fleet.power_off(server);
    let ledger = fleet.servers[server].state_dir.join("tenants/alice.json");
    std::fs::remove_file(ledger).unwrap();
    fleet.servers[server].runtime.remove_container("feather-user-alice").await.unwrap();
    fleet.servers[server].runtime.remove_volume("feather-user-alice").await.unwrap();
    fleet.start_agent(server);
}

async fn stuck(fleet: &Fleet, operation: &str) -> pb::Operation {
    until("the operation is stuck", async || {
        let request = pb::GetOperationRequest { id: operation.to_owned() };
        let operation = fleet.operations().get_operation(request).await.unwrap().into_inner().operation.unwrap();
        if operation.state() == pb::OperationState::Stuck { Ok(operation) } else { Err(operation.state()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_the_source_lost_during_a_move_stays_on_the_target() {
    let mut fleet = fleet_with_alice().await;
    fleet.faults.always("fra", "start_tenant", Fault::LoseReply);
    fleet.faults.always("fra", "abandon", Fault::LoseRequest);
    let operation = fleet.begin_migrate("alice", "fra").await.unwrap();
    stuck(&fleet, &operation.id).await;
    loses_everything(&mut fleet, "nyc").await;
    fleet.faults.never("fra", "abandon");
    until("the undo has come to the source", async || {
        let log = stuck(&fleet, &operation.id).await.log;
        let told = log.iter().find(|line| line.message.contains("nyc no longer knows alice"));
        told.map(|line| line.message.clone()).ok_or(log)
    })
    .await;
    let kept = std::fs::read_to_string(fleet.volume("fra", "alice").join("data"));
    assert_eq!(kept.unwrap(), DATA, "the only copy");
    assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new());
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_on_a_server_that_has_lost_the_tenant() {
    let mut fleet = fleet_with_alice().await;
    fleet.faults.always("nyc", "stop_tenant", Fault::LoseRequest);
    let request = pb::StopTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let operation = fleet.tenants().stop_tenant(request).await.unwrap().into_inner().operation.unwrap();
    stuck(&fleet, &operation.id).await;
    loses_everything(&mut fleet, "nyc").await;
    fleet.faults.never("nyc", "stop_tenant");
    assert_eq!(fleet.outcome(&operation.id).await.state(), pb::OperationState::Succeeded);
}
