//! Swaps of a server's admin container, with every fault between controller and agent.

use std::{collections::BTreeMap, sync::Arc};

use feather_agent::{config::AdminSettings, runtime::fake::Behaviour};
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{Outcome, request_id},
    wait::until,
};

const BLUE: &str = "feather-work-blue";
const GREEN: &str = "feather-work-green";
const NEW: &str = "localhost/feather-work:new";

async fn fleet() -> Fleet {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.servers["nyc"].runtime.add_image(NEW, "new", Behaviour::Healthy);
    fleet.admin = Some(AdminSettings { home: "feather-work".into(), environment: BTreeMap::new() });
    fleet.kill_agent("nyc");
    fleet.start_agent("nyc");
    serves(&fleet, BLUE).await;
    fleet.faults.clear();
    fleet
}

/// Waits until this one serves strangers, and there is no other.
async fn serves(fleet: &Fleet, container: &str) {
    until(&format!("{container} serves alone"), async || {
        let request = pb::GetServerRequest { server: "nyc".into() };
        let reply = fleet.server_service().get_server(request).await.map_err(|status| status.to_string())?;
        let admin = reply.into_inner().server.and_then(|server| server.admin).unwrap_or_default();
        let strangers = fleet.request("nyc", "nobody").status;
        let other = if container == BLUE { GREEN } else { BLUE };
        let alone = fleet.servers["nyc"].runtime.spec(other).is_none();
        let so = admin.container == container && admin.running && admin.candidate.is_empty();
        if so && strangers == 200 && alone { Ok(()) } else { Err(format!("{admin:?} {strangers} {alone}")) }
    })
    .await;
}

async fn begin(fleet: &Fleet, id: &str, image: &str) -> Result<pb::Operation, Error> {
    let request =
        pb::SwapAdminRequest { request_id: id.into(), server: "nyc".into(), image: image.into(), dry_run: false };
    let reply = fleet.server_service().swap_admin(request).await.map_err(Error::from)?;
    Ok(reply.into_inner().operation.unwrap())
}

async fn swap(fleet: &Fleet) -> Outcome {
    let operation = begin(fleet, &request_id(), NEW).await.unwrap();
    fleet.outcome(&operation.id).await
}

/// The old one or the new one serves, as the operation says, and the next swap works.
async fn check(fleet: &Fleet, outcome: &Outcome, what: &str) {
    let succeeded = outcome.state() == pb::OperationState::Succeeded;
    serves(fleet, if succeeded { GREEN } else { BLUE }).await;
    fleet.faults.clear();
    let next = swap(fleet).await;
    assert_eq!(next.state(), pb::OperationState::Succeeded, "the swap after {what}: {:#?}", next.operation);
    serves(fleet, if succeeded { BLUE } else { GREEN }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_is_an_operation_of_its_server() {
    let fleet = fleet().await;
    let id = request_id();
    let operation = begin(&fleet, &id, "feather-work:new").await.unwrap();
    assert_eq!(
        (operation.kind(), operation.source.as_str(), operation.tenant.as_str()),
        (pb::OperationKind::Swap, "nyc", "")
    );
    assert_eq!(begin(&fleet, &id, "feather-work:new").await.unwrap().id, operation.id, "the same request");
    let outcome = fleet.outcome(&operation.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    assert_eq!(outcome.steps("done"), ["start", "commit", "switch"]);
    serves(&fleet, GREEN).await;
    // Tenants are changed as ever, also while one is under way.
    fleet.add("alice", "nyc").await;
    let missing = begin(&fleet, &request_id(), "localhost/absent").await.unwrap_err();
    assert_eq!(missing.reason, reason::IMAGE_MISSING);
    let dry = pb::SwapAdminRequest { server: "nyc".into(), dry_run: true, ..Default::default() };
    let dry = fleet.server_service().swap_admin(dry).await.unwrap().into_inner();
    assert!(dry.operation.is_none() && dry.explanation[0].contains("in place of feather-work-green"), "{dry:?}");
    check_listed(&fleet, &operation.id).await;
}

async fn check_listed(fleet: &Fleet, id: &str) {
    let listed = fleet.operations().list_operations(pb::ListOperationsRequest::default()).await.unwrap().into_inner();
    assert!(listed.operations.iter().any(|one| one.id == id && one.source == "nyc"), "{listed:?}");
    let request = pb::ListOperationsRequest { tenant: "alice".into(), limit: 0 };
    let of_alice = fleet.operations().list_operations(request).await.unwrap().into_inner();
    assert!(of_alice.operations.iter().all(|one| one.tenant == "alice"), "{of_alice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_one_that_is_no_good_fails_the_operation_and_the_old_one_serves() {
    let fleet = fleet().await;
    fleet.servers["nyc"].runtime.add_image(NEW, "bad", Behaviour::NeverHealthy);
    let outcome = swap(&fleet).await;
    assert_eq!(
        (outcome.state(), outcome.operation.reason.as_str()),
        (pb::OperationState::Failed, reason::NEVER_HEALTHY)
    );
    assert!(outcome.operation.error.contains("listening on 8080"), "{:?}", outcome.operation.error);
    fleet.servers["nyc"].runtime.add_image(NEW, "new", Behaviour::Healthy);
    check(&fleet, &outcome, "a bad image").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_swap_may_be_refused_lost_or_repeated() {
    let clean = fleet().await;
    swap(&clean).await;
    let calls = clean.faults.made();
    assert!(calls.len() >= 2, "{calls:?}");
    for (number, made) in calls.iter().enumerate() {
        for fault in Fault::ALL {
            // Past the point of no return a refusal is tried on without end.
            if fault == Fault::Refuse && made.1 == "commit_swap" {
                continue;
            }
            let what = format!("{fault:?} of call {number}, {made:?}");
            let fleet = fleet().await;
            fleet.faults.at(number, fault);
            let outcome = swap(&fleet).await;
            let wanted =
                if fault == Fault::Refuse { pb::OperationState::Failed } else { pb::OperationState::Succeeded };
            assert_eq!(outcome.state(), wanted, "{what}: {:#?}", outcome.operation);
            check(&fleet, &outcome, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_and_agent_may_die_at_every_point_of_a_swap() {
    for writes in 1.. {
        let mut fleet = fleet().await;
        fleet.crash_after_writes(writes);
        let fleet_ref = &fleet;
        if let Some(outcome) = fleet.crash_or(async { swap(fleet_ref).await }).await {
            assert_eq!(outcome.state(), pb::OperationState::Succeeded);
            assert!(writes > 5, "only {writes} writes");
            break;
        }
        fleet.kill_controller();
        fleet.power_off("nyc");
        fleet.start_controller().await;
        fleet.start_agent("nyc");
        fleet.all_ready().await;
        let listed = fleet.operations().list_operations(pb::ListOperationsRequest::default()).await.unwrap();
        let Some(newest) = listed.into_inner().operations.into_iter().find(|one| one.kind() == pb::OperationKind::Swap)
        else {
            continue;
        };
        let outcome = fleet.outcome(&newest.id).await;
        assert_eq!(
            outcome.state(),
            pb::OperationState::Succeeded,
            "crash behind write {writes}: {:#?}",
            outcome.operation
        );
        check(&fleet, &outcome, &format!("crash behind write {writes}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_can_be_cancelled_until_its_commit() {
    let fleet = fleet().await;
    let reached = Arc::new(tokio::sync::Notify::new());
    let hook = reached.clone();
    fleet.servers["nyc"].runtime.add_image(NEW, "bad", Behaviour::NeverHealthy);
    fleet.faults.on_call(Arc::new(move |_, _| hook.notify_one()));
    let operation = begin(&fleet, &request_id(), NEW).await.unwrap();
    reached.notified().await;
    let request = pb::CancelOperationRequest { id: operation.id.clone() };
    fleet.operations().cancel_operation(request).await.unwrap();
    let outcome = fleet.outcome(&operation.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Cancelled, "{:#?}", outcome.operation);
    fleet.servers["nyc"].runtime.add_image(NEW, "new", Behaviour::Healthy);
    check(&fleet, &outcome, "a cancelled swap").await;
}
