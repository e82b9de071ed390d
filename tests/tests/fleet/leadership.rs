//! Two controllers on one store: one leads, and the other takes over wherever the first one dies.

use std::time::Duration;

use feather_controller::{agents::Call, leadership::Rhythm};
use feather_proto::{
    error::{Error, reason},
    ids::Generation,
    model::StopReason,
    pb::controller::v1::{
        self as pb, status_service_client::StatusServiceClient, tenant_service_client::TenantServiceClient,
        user_service_client::UserServiceClient,
    },
    tls::Role,
};
use feather_tests::{fleet::tenant, wait::until};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_through_its_end_changes_nothing_at_the_servers() {
    let mut fleet = fleet_with_alice().await;
    let old = fleet.lead();
    fleet.stop_controller().await;
    fleet.start_controller().await;
    fleet.all_ready().await;
    until("the next one was there", async || {
        let alice = fleet.show("alice").await;
        (alice.state() == pb::TenantState::Running).then_some(()).ok_or(alice)
    })
    .await;
    // What it was about to say, with the newest generation there is.
    let generation = Generation(fleet.show("alice").await.generation);
    let nyc = fleet.agent_under(old, "nyc");
    let call = Call { request_id: uuid::Uuid::new_v4(), tenant: tenant("alice"), generation };
    let error = nyc.stop_tenant(&call, StopReason::Operator).await.unwrap_err();
    assert!(error.is(reason::NOT_LEADER) && error.code.retryable(), "{error:?}");
    assert!(nyc.snapshot().await.is_err(), "nor does it see anything to decide by");
    assert_eq!(check_world(&fleet, "after an old call").await, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_waits_shows_the_fleet_and_changes_nothing() {
    let mut fleet = fleet_with_alice().await;
    fleet.stop_controller().await;
    fleet.rhythm = Some(Rhythm { life: Duration::from_secs(600), beat: Duration::from_millis(100) });
    fleet.start_controller().await;
    fleet.all_ready().await;
    let admin = fleet.identity(Role::Admin, "admin");
    let ada = fleet.identity(Role::Viewer, "ada");
    fleet.start_rival();
    let shows = TenantServiceClient::new(fleet.channel_to_waiting(ada.clone()));
    let alice = until("the other one shows what alice's server says", async || {
        let request = pb::GetTenantRequest { tenant: "alice".into() };
        let alice = shows.clone().get_tenant(request).await.map_err(|status| status.to_string())?;
        let alice = alice.into_inner().tenant.unwrap();
        if alice.state() == pb::TenantState::Running { Ok(alice) } else { Err(format!("{alice:?}")) }
    })
    .await;
    assert_eq!(alice.server, "nyc");
    let mut status = StatusServiceClient::new(fleet.channel_to_waiting(ada.clone()));
    let status = status.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, "controller:7400");

    // It says where to go, and whoever knows both addresses gets there by itself.
    let restart = || pb::RestartTenantRequest { request_id: uuid::Uuid::new_v4().to_string(), tenant: "alice".into() };
    let mut waiting = TenantServiceClient::new(fleet.channel_to_waiting(admin.clone()));
    let error = Error::from(waiting.restart_tenant(restart()).await.unwrap_err());
    assert!(error.is(reason::NOT_LEADER) && error.code.retryable(), "{error:?}");
    assert_eq!(error.metadata["leader"], "controller:7400");
    waiting.list_tenants(pb::ListTenantsRequest::default()).await.expect("it looks");
    let mut all = TenantServiceClient::new(fleet.channel_to_all(admin.clone()));
    all.restart_tenant(restart()).await.expect("the one that leads does it");

    // Whoever is taken out by the leader is out here, too.
    let mut users = UserServiceClient::new(fleet.channel(admin.clone()));
    users.revoke_user(pb::RevokeUserRequest { name: "ada".into(), unseen: true }).await.unwrap();
    let request = pb::GetTenantRequest { tenant: "alice".into() };
    let error = Error::from(shows.clone().get_tenant(request).await.unwrap_err());
    assert!(error.is(reason::REVOKED), "{error:?}");
    fleet.stop_controller().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_at_a_controller_that_waits_finds_the_leader_once_it_can_be_reached() {
    let mut fleet = fleet_with_alice().await;
    fleet.stop_controller().await;
    fleet.rhythm = Some(Rhythm { life: Duration::from_secs(600), beat: Duration::from_millis(100) });
    fleet.start_controller().await;
    fleet.all_ready().await;
    fleet.start_rival();
    let admin = fleet.identity(Role::Admin, "admin");
    let waiting = TenantServiceClient::new(fleet.channel_to_waiting(admin.clone()));
    let request = || pb::ListTenantsRequest::default();
    until("the other one waits", async || waiting.clone().list_tenants(request()).await.map_err(|s| s.to_string()))
        .await;

    fleet.network.cut("person", "controller:7400");
    let all = TenantServiceClient::new(fleet.channel_to_all(admin));
    all.clone().list_tenants(request()).await.expect("the one that waits shows the fleet");
    let restart = || pb::RestartTenantRequest { request_id: uuid::Uuid::new_v4().to_string(), tenant: "alice".into() };
    let error = Error::from(all.clone().restart_tenant(restart()).await.unwrap_err());
    assert!(error.is(reason::NOT_LEADER), "{error:?}");

    // The same channel, as a command uses it that tries again.
    fleet.network.heal("person", "controller:7400");
    until("the leader is found", async || all.clone().restart_tenant(restart()).await.map_err(|s| s.to_string())).await;
    fleet.stop_controller().await;
}
