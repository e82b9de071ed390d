//! What is typed on a server itself: by itself, while it joins a fleet, and as a member.

use feather_agent::{
    local::client::{self, Failure, Tenant},
    runtime::fake::Behaviour,
};
use feather_proto::pb::controller::v1 as pb;
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{WORK_IMAGE, request_id},
    wait::until,
};

async fn tenant_sh(fleet: &Fleet, server: &str, command: Tenant) -> Result<String, (String, u8)> {
    let mut out = Vec::new();
    let said = |failure: Failure| (failure.to_string(), failure.exit_code());
    client::run(&fleet.local_socket(server), command, &mut out).await.map_err(said)?;
    Ok(String::from_utf8(out).unwrap())
}

fn typed(verb: fn(client::Name) -> Tenant, name: &str) -> Tenant {
    verb(client::Name::new(name).unwrap())
}

async fn kinds(fleet: &Fleet) -> Vec<(String, String)> {
    let request = pb::ListOperationsRequest { tenant: "alice".into(), limit: 0 };
    let operations = fleet.operations().list_operations(request).await.unwrap().into_inner().operations;
    operations.iter().rev().map(|one| (format!("{:?}", one.kind()), one.requested_by.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_by_itself_joins_with_its_tenants_and_is_then_changed_through_the_controller() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.provide("lon");
    fleet.start_agent("lon");
    until("lon's agent answers", async || {
        tenant_sh(&fleet, "lon", Tenant::List).await.map(drop).map_err(|(said, _)| said)
    })
    .await;
    let line = tenant_sh(&fleet, "lon", typed(Tenant::Add, "alice")).await.unwrap();
    // One that is gone by then, with data, and a floor that the store has never heard of.
    tenant_sh(&fleet, "lon", typed(Tenant::Add, "bob")).await.unwrap();
    tenant_sh(&fleet, "lon", typed(Tenant::Remove, "bob")).await.unwrap();
    let starts = fleet.starts("lon", "alice");

    fleet.enter("lon").await;
    fleet.all_ready().await;
    until("alice is a tenant of the fleet", async || {
        let request = pb::GetTenantRequest { tenant: "alice".into() };
        let alice = fleet.tenants().get_tenant(request).await.map_err(|status| status.to_string())?;
        let alice = alice.into_inner().tenant.unwrap();
        if alice.state() == pb::TenantState::Running { Ok(()) } else { Err(format!("{alice:?}")) }
    })
    .await;
    assert_eq!(fleet.starts("lon", "alice"), starts, "nothing was restarted");

    assert_eq!(tenant_sh(&fleet, "lon", typed(Tenant::Stop, "alice")).await.unwrap(), "");
    assert!(tenant_sh(&fleet, "lon", Tenant::List).await.unwrap().contains("stopped"));
    assert_eq!(tenant_sh(&fleet, "lon", typed(Tenant::Start, "alice")).await.unwrap(), "");
    assert_eq!(tenant_sh(&fleet, "lon", typed(Tenant::Restart, "alice")).await.unwrap(), "");
    assert_eq!(tenant_sh(&fleet, "lon", typed(Tenant::Remove, "alice")).await.unwrap(), "");
    let again = tenant_sh(&fleet, "lon", typed(Tenant::Add, "alice")).await.unwrap();
    assert!(again.starts_with("https://alice.users.inceptel.ai | password: "), "{again}");
    assert_ne!(again, line);
    assert_eq!(fleet.starts("lon", "alice").len(), 4, "with its data");
    let by_lon = |kind: &str| (kind.to_owned(), "agent/lon".to_owned());
    assert_eq!(kinds(&fleet).await, ["Stop", "Start", "Restart", "Remove", "Add"].map(by_lon));

    // The store issues above what lon has seen of bob, wherever he goes.
    let bob = fleet.add("bob", "").await;
    assert_eq!((bob.state(), bob.operation.target.as_str()), (pb::OperationState::Succeeded, "lon"));
    assert_eq!(fleet.starts("lon", "bob").len(), 2, "with his data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_changes_only_its_own_tenants_and_nothing_without_its_controller() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    for verb in [Tenant::Remove, Tenant::Start, Tenant::Stop, Tenant::Restart] {
        let (said, code) = tenant_sh(&fleet, "fra", typed(verb, "alice")).await.unwrap_err();
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("alice lives on nyc; type the command there"), "{said}");
    }
    let (said, code) = tenant_sh(&fleet, "fra", typed(Tenant::Add, "alice")).await.unwrap_err();
    assert!(code == 1 && said.contains("exists already on nyc"), "{said}");
    let (said, code) = tenant_sh(&fleet, "fra", typed(Tenant::Stop, "carol")).await.unwrap_err();
    assert!(code == 1 && said.contains("carol"), "{said}");

    // A reply that got lost is asked for again: one wish, one operation.
    fleet.faults.clear();
    fleet.faults.at(0, Fault::LoseReply);
    tenant_sh(&fleet, "nyc", typed(Tenant::Stop, "alice")).await.unwrap();
    assert_eq!(kinds(&fleet).await.len(), 2);

    fleet.kill_controller();
    let (said, code) = tenant_sh(&fleet, "nyc", typed(Tenant::Start, "alice")).await.unwrap_err();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("the controller at controller:7400 cannot be reached"), "{said}");
    assert!(said.contains("nothing was changed") && said.contains("`tenant.sh list`"), "{said}");
    assert!(tenant_sh(&fleet, "nyc", Tenant::List).await.unwrap().contains("stopped"));
    assert!(tenant_sh(&fleet, "nyc", Tenant::Status).await.unwrap().contains("member nyc, controller controller:7400"));

    fleet.start_controller().await;
    fleet.all_ready().await;
    tenant_sh(&fleet, "nyc", typed(Tenant::Start, "alice")).await.unwrap();
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["nyc"]);

    // Taken out of the fleet, it may not go on changing it.
    fleet.migrate("alice", "fra").await;
    let request = pb::RemoveServerRequest { server: "nyc".into(), ..pb::RemoveServerRequest::default() };
    fleet.server_service().remove_server(request).await.unwrap();
    let (said, code) = tenant_sh(&fleet, "nyc", typed(Tenant::Add, "dave")).await.unwrap_err();
    assert_eq!(code, 1, "{said}");
    // By the controller's word on this call, or by an earlier one.
    assert!(said.contains("no member of the fleet by this certificate") || said.contains("taken nyc out"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_fails_on_a_member_says_why_there() {
    let fleet = Fleet::start(&["nyc"]).await;
    let engine = &fleet.servers["nyc"].runtime;
    engine.add_image(WORK_IMAGE, "bad", Behaviour::NeverHealthy);
    let (said, code) = tenant_sh(&fleet, "nyc", typed(Tenant::Add, "alice")).await.unwrap_err();
    assert_eq!(code, 1);
    assert!(said.starts_with("error: alice was not added: alice did not answer its health check"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_restarted_once_whatever_gets_lost_and_stays_stopped_when_it_does_not_get_healthy() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    let restart = async || {
        let request = pb::RestartTenantRequest { request_id: request_id(), tenant: "alice".into() };
        let begun = fleet.tenants().restart_tenant(request).await.unwrap().into_inner().operation.unwrap();
        fleet.outcome(&begun.id).await
    };
    for fault in Fault::ALL {
        let before = fleet.starts("nyc", "alice").len();
        fleet.faults.clear();
        fleet.faults.at(0, fault);
        let (state, times) = match fault {
            Fault::Refuse => (pb::OperationState::Failed, 0),
            _ => (pb::OperationState::Succeeded, 1),
        };
        assert_eq!(restart().await.state(), state, "{fault:?}");
        assert_eq!(fleet.starts("nyc", "alice").len(), before + times, "{fault:?}");
        assert_eq!(fleet.recorder.running("feather-user-alice"), ["nyc"], "{fault:?}");
    }
    let stop = pb::StopTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let stop = fleet.tenants().stop_tenant(stop).await.unwrap().into_inner().operation.unwrap();
    fleet.outcome(&stop.id).await;
    fleet.servers["nyc"].runtime.set_behaviour("feather-user-alice", Behaviour::NeverHealthy);
    let failed = restart().await;
    assert_eq!(failed.state(), pb::OperationState::Failed);
    assert_eq!(failed.operation.reason, "NEVER_HEALTHY");
    assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new());
    until("the controller has seen it", async || match fleet.show("alice").await.state() {
        pb::TenantState::Stopped => Ok(()),
        other => Err(other),
    })
    .await;
}
