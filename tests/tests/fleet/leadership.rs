//! Two controllers on one store: one leads, and the other takes over wherever the first one dies.

use std::time::Duration;

use feather_controller::leadership::Rhythm;
use feather_proto::pb::controller::v1 as pb;
use feather_tests::wait::until;

use crate::faults::{check_world, fleet_with_alice};

/// Long enough for a machine that is busy, short enough to wait for its end.
const RHYTHM: Rhythm = Rhythm { life: Duration::from_secs(2), beat: Duration::from_millis(100) };

/// Every write is visited with one controller already; here the way from one to the other is what counts.
const STRIDE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn another_controller_takes_over_wherever_the_leader_dies_in_a_move() {
    for writes in (1..).step_by(STRIDE) {
        let what = format!("the leader dies behind write {writes}");
        let mut fleet = fleet_with_alice().await;
        fleet.stop_controller().await;
        fleet.rhythm = Some(RHYTHM);
        fleet.start_controller().await;
        until("the first one leads", async || {
            let request = pb::ListOperationsRequest::default();
            fleet.operations().list_operations(request).await.map_err(|status| status.to_string())
        })
        .await;
        fleet.all_ready().await;
        fleet.start_rival();
        fleet.crash_after_writes(writes);
        let fleet_ref = &fleet;
        let ended = fleet.crash_or(async { fleet_ref.migrate("alice", "fra").await }).await;
        if let Some(outcome) = ended {
            assert_eq!(outcome.state(), pb::OperationState::Succeeded);
            assert!(writes > 20, "a move writes its log: only {writes} writes seen");
            return;
        }
        // Nobody starts anything: the other one has been waiting.
        fleet.kill_controller();
        let listed = until("the other controller answers", async || {
            let request = pb::ListOperationsRequest { tenant: "alice".into(), limit: 0 };
            fleet.operations().list_operations(request).await.map_err(|status| status.to_string())
        })
        .await;
        let operations = listed.into_inner().operations;
        let moves: Vec<_> = operations.iter().filter(|one| one.kind() == pb::OperationKind::Migrate).collect();
        assert_eq!(moves.len(), 1, "{what}: {operations:#?}");
        let outcome = fleet.outcome(&moves[0].id).await;
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{what}: {:#?}", outcome.operation);
        assert_eq!(check_world(&fleet, &what).await, "fra");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_at_once() {
    let mut fleet = fleet_with_alice().await;
    fleet.stop_controller().await;
    // Nobody would wait for the end of this lead.
    fleet.rhythm = Some(Rhythm { life: Duration::from_secs(600), beat: Duration::from_millis(100) });
    fleet.start_controller().await;
    until("the first one leads", async || {
        let request = pb::ListOperationsRequest::default();
        fleet.operations().list_operations(request).await.map_err(|status| status.to_string())
    })
    .await;
    fleet.start_rival();
    fleet.stop_controller().await;
    until("the other controller leads", async || {
        let request = pb::ListOperationsRequest::default();
        fleet.operations().list_operations(request).await.map_err(|status| status.to_string())
    })
    .await;
    fleet.all_ready().await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    assert_eq!(check_world(&fleet, "after the hand-over").await, "fra");
}
