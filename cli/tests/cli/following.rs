//! Following operations through broken connections, and letting go of them.

use std::sync::Arc;

use feather_proto::pb::controller::v1 as pb;
use insta::assert_snapshot;
use tokio::{process::Command, sync::Notify};

use crate::{
    controller::{Act, Controller},
    tenants::{ID, add_is_taken, added, entry, operation, says},
};

fn running(log: Vec<pb::OperationLogEntry>) -> Act<pb::WatchOperationResponse> {
    says(pb::Operation { log, ..operation(pb::OperationKind::Add, pb::OperationState::Running) })
}

#[tokio::test]
async fn a_broken_stream_is_followed_again_and_nothing_is_told_twice() {
    let controller = Controller::start().await;
    let first = entry(1, 5, "place", "done", "on nyc");
    add_is_taken(&controller, vec![running(vec![first.clone()]), Act::Break]);
    let again = vec![running(vec![first, entry(2, 9, "provision", "done", "")])];
    controller.answers("WatchOperation", again.into_iter().chain(added("x7k9m2")).collect::<Vec<_>>());
    assert_snapshot!(controller.run("tenant add alice").await, @r"
    --- stdout
    https://alice.users.inceptel.ai | password: x7k9m2
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
      place      done: on nyc
      lost the connection to the controller; the operation goes on, connecting again
      provision  done
    --- exit 0
    ");
}

#[tokio::test]
async fn a_stream_that_ends_too_early_is_followed_again() {
    let controller = Controller::start().await;
    add_is_taken(&controller, vec![running(vec![])]);
    controller.answers("WatchOperation", added("x7k9m2"));
    assert_eq!(controller.run("tenant add alice").await.code, Some(0));
}

#[tokio::test]
async fn a_cut_connection_is_opened_again() {
    let controller = Controller::start().await;
    add_is_taken(&controller, vec![Act::Cut]);
    controller.answers("WatchOperation", added("x7k9m2"));
    let ran = controller.run("tenant add alice").await;
    assert_eq!(ran.stdout, "https://alice.users.inceptel.ai | password: x7k9m2\n", "{ran}");
}

#[tokio::test]
async fn patience_ends_and_the_operation_goes_on() {
    let controller = Controller::start().await;
    add_is_taken(&controller, vec![running(vec![]), Act::Break]);
    for _ in 0..20 {
        controller.breaks("WatchOperation");
    }
    assert_snapshot!(controller.run("tenant add alice --timeout 1s").await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
      lost the connection to the controller; the operation goes on, connecting again
    unreachable: the connection to the controller at CONTROLLER broke (gone)
    next: the operation goes on without featherctl; `featherctl operation watch op-00000000-0000-0000-0000-000000000001` follows it again
    --- exit 3
    ");
}

#[tokio::test]
async fn a_change_whose_reply_was_lost_is_repeated_with_the_same_id() {
    let controller = Controller::start().await;
    controller.breaks("AddTenant").breaks("AddTenant");
    add_is_taken(&controller, added("x7k9m2"));
    let ran = controller.run("tenant add alice").await;
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_snapshot!(controller.calls(), @r#"
    AddTenant: AddTenantRequest { request_id: "id-0", tenant: "alice", server: "", dry_run: false, on: [], pin: "", limits: None, spread: "" }
    AddTenant: AddTenantRequest { request_id: "id-0", tenant: "alice", server: "", dry_run: false, on: [], pin: "", limits: None, spread: "" }
    AddTenant: AddTenantRequest { request_id: "id-0", tenant: "alice", server: "", dry_run: false, on: [], pin: "", limits: None, spread: "" }
    WatchOperation: WatchOperationRequest { id: "op-00000000-0000-0000-0000-000000000001" }
    "#);
}

#[tokio::test]
async fn a_change_that_never_gets_an_answer_is_reported_as_unknown() {
    let controller = Controller::start().await;
    for _ in 0..5 {
        controller.breaks("AddTenant");
    }
    assert_snapshot!(controller.run("tenant add alice").await, @r"
    --- stderr
    unreachable: the connection to the controller at CONTROLLER broke (gone)
    next: whether the change began is unknown: `featherctl operation list` shows it once the controller answers
    --- exit 3
    ");
}

#[tokio::test]
async fn ctrl_c_stops_watching_and_not_the_operation() {
    let controller = Controller::start().await;
    let reached = Arc::new(Notify::new());
    add_is_taken(&controller, vec![running(vec![]), Act::Hang(reached.clone())]);
    let child = controller.command("tenant add alice").spawn().unwrap();
    reached.notified().await;
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    assert_snapshot!(controller.finish(child).await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    interrupted: stopped watching; the operation op-00000000-0000-0000-0000-000000000001 goes on
    next: `featherctl operation watch op-00000000-0000-0000-0000-000000000001` follows it again, `featherctl operation cancel op-00000000-0000-0000-0000-000000000001` undoes it
    --- exit 130
    ");
    assert!(!controller.calls().contains("Cancel"));
}

#[tokio::test]
async fn watch_stays_with_a_stuck_operation() {
    let controller = Controller::start().await;
    let stuck = pb::Operation {
        error: "nyc cannot be reached".into(),
        hint: "bring nyc back".into(),
        ..operation(pb::OperationKind::Stop, pb::OperationState::Stuck)
    };
    let done = operation(pb::OperationKind::Stop, pb::OperationState::Succeeded);
    controller.answers("WatchOperation", vec![says(stuck.clone()), says(stuck), says(done)]);
    assert_snapshot!(controller.run(&format!("operation watch {ID}")).await, @r"
    --- stderr
      stuck: nyc cannot be reached. It is tried again at intervals; next: bring nyc back
    alice is stopped; `featherctl tenant start alice` starts it again
    --- exit 0
    ");
}

#[tokio::test]
async fn cancel_follows_the_undo() {
    let controller = Controller::start().await;
    let undoing = operation(pb::OperationKind::Add, pb::OperationState::Undoing);
    let response = pb::CancelOperationResponse { operation: Some(undoing.clone()) };
    controller.answers("CancelOperation", response.clone()).answers("CancelOperation", response);
    let log = vec![entry(1, 10, "provision", "undo-begin", ""), entry(2, 40, "provision", "undone", "")];
    let cancelled = pb::Operation { log, ..operation(pb::OperationKind::Add, pb::OperationState::Cancelled) };
    controller.answers("WatchOperation", vec![says(undoing), says(cancelled)]);
    assert_snapshot!(controller.run(&format!("operation cancel {ID}")).await, @r"
    --- stderr
      provision  undone in 0.030 s
    op-00000000-0000-0000-0000-000000000001 is cancelled; everything is as before it
    --- exit 0
    ");

    controller.answers("WatchOperation", added("x7k9m2"));
    assert_snapshot!(controller.run(&format!("operation cancel {ID}")).await, @r"
    --- stderr
    error: op-00000000-0000-0000-0000-000000000001 could not be cancelled any more: it has succeeded
    next: `featherctl operation show op-00000000-0000-0000-0000-000000000001` shows what it did
    --- exit 1
    ");
}

#[tokio::test]
async fn retry_stays_with_an_operation_that_was_stuck() {
    let controller = Controller::start().await;
    let old = entry(4, 10, "start", "struggling", "nyc cannot be reached");
    let stuck =
        pb::Operation { log: vec![old.clone()], ..operation(pb::OperationKind::Start, pb::OperationState::Stuck) };
    let done = pb::Operation {
        log: vec![old, entry(5, 20, "start", "done", "")],
        ..operation(pb::OperationKind::Start, pb::OperationState::Succeeded)
    };
    controller
        .answers("RetryOperation", pb::RetryOperationResponse { operation: Some(stuck.clone()) })
        .answers("WatchOperation", vec![says(stuck), says(done)]);
    assert_snapshot!(controller.run(&format!("operation retry {ID}")).await, @r"
    --- stderr
      start      not done yet, trying again: nyc cannot be reached
      start      done
    alice is running
    --- exit 0
    ");
}
