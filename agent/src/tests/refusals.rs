//! Who may not, and what is too late.

use feather_proto::{
    error::{Code, Error, reason},
    pb::agent::v1::{
        self as pb, tenant_service_client::TenantServiceClient, transfer_service_client::TransferServiceClient,
        volume_service_client::VolumeServiceClient,
    },
    tls::Role,
};
use tonic::Status;

use super::harness::{
    Server, World, abandon, activate, add, grant, hand_off, pull, pulled, refused, remove, remove_volume, reserve,
    reset, retire, seal, start, stop, trial,
};

/// Every mutating call at a generation, with its name.
async fn every_mutating_call(server: &Server, generation: u64) -> Vec<(&'static str, Result<(), Error>)> {
    fn done<T>(answer: Result<tonic::Response<T>, Status>) -> Result<(), Error> {
        answer.map(drop).map_err(Error::from)
    }
    let (mut tenants, mut volumes) = (server.tenants(), server.volumes());
    let keep = time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(40_000);
    let archive = futures::stream::iter([pb::ImportVolumeRequest {
        tenant: "alice".into(),
        generation,
        end: true,
        ..Default::default()
    }]);
    vec![
        ("add", done(tenants.add_tenant(add(generation)).await)),
        ("remove", done(tenants.remove_tenant(remove(generation)).await)),
        ("start", done(tenants.start_tenant(start(generation)).await)),
        ("trial", done(tenants.start_tenant(trial(generation)).await)),
        ("stop", done(tenants.stop_tenant(stop(generation)).await)),
        ("seal", done(tenants.stop_tenant(seal(generation)).await)),
        ("reset", done(tenants.reset_password(reset(generation)).await)),
        ("reserve", done(tenants.reserve_tenant(reserve(generation, server)).await)),
        ("abandon", done(tenants.abandon_tenant(abandon(generation)).await)),
        ("activate", done(tenants.activate_tenant(activate(generation)).await)),
        ("hand off", done(tenants.hand_off_tenant(hand_off(generation, "fra:80")).await)),
        ("retire", done(tenants.retire_tenant(retire(generation, keep)).await)),
        ("grant", done(volumes.grant_transfer(grant(generation, "fra")).await)),
        ("remove volume", done(volumes.remove_volume(remove_volume(generation)).await)),
        ("import", done(volumes.import_volume(archive).await)),
        ("pull", pulled(server, pull(generation, server)).await.map(drop)),
    ]
}

#[tokio::test]
async fn every_call_of_an_older_generation_is_refused_and_changes_nothing() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(5).await.unwrap();
    let before = std::fs::read(nyc.config.ledger_dir().join("alice.json")).unwrap();
    for (name, answer) in every_mutating_call(&nyc, 4).await {
        let error = answer.expect_err(name);
        assert_eq!((error.code, error.reason.as_str()), (Code::Stale, reason::STALE_GENERATION), "{name}: {error}");
    }
    for (name, answer) in every_mutating_call(&nyc, 0).await {
        let error = answer.expect_err(name);
        assert_eq!(error.code, Code::Invalid, "{name}: {error}");
    }
    assert_eq!(std::fs::read(nyc.config.ledger_dir().join("alice.json")).unwrap(), before);
    assert_eq!(nyc.public().0, 200);
}

#[tokio::test]
async fn the_floor_outlives_the_tenant_and_a_restart() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(5).await.unwrap();
    nyc.tenants().remove_tenant(remove(6)).await.unwrap();
    nyc.crash().await;
    nyc.start().await;
    for generation in 1..=6 {
        assert_eq!(nyc.add(generation).await.err().unwrap().reason, reason::STALE_GENERATION);
    }
    nyc.add(7).await.unwrap();
}

#[tokio::test]
async fn a_remove_that_overtakes_its_add_keeps_it_out() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.tenants().remove_tenant(remove(1)).await.unwrap();
    assert_eq!(nyc.add(1).await.err().unwrap().reason, reason::STALE_GENERATION);
}

#[tokio::test]
async fn only_controller_and_admin_may_call_and_only_agents_fetch() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    for role in [Role::Admin, Role::Operator, Role::Viewer, Role::Agent] {
        let channel = nyc.as_role(&world, role, "mallory");
        let error = refused(TenantServiceClient::new(channel.clone()).add_tenant(add(1)).await);
        assert_eq!((error.code, error.reason.as_str()), (Code::Denied, reason::ROLE));
        let error = refused(VolumeServiceClient::new(channel).list_volumes(pb::ListVolumesRequest {}).await);
        assert_eq!(error.reason, reason::ROLE);
    }
    let admin = nyc.as_role(&world, Role::Admin, "root");
    let controller = nyc.as_role(&world, Role::Controller, "controller");
    TenantServiceClient::new(controller).add_tenant(add(1)).await.unwrap();
    let fetch = || {
        let begin =
            pb::SendVolumeBegin { tenant: "alice".into(), generation: 2, ticket: "x".repeat(40), ..Default::default() };
        let event = Some(pb::send_volume_request::Event::Begin(begin));
        futures::stream::iter([pb::SendVolumeRequest { event }])
    };
    let error = refused(TransferServiceClient::new(admin).send_volume(fetch()).await);
    assert_eq!(error.reason, reason::ROLE);
    for (role, name) in [(Role::Agent, "fra"), (Role::Controller, "controller")] {
        let channel = nyc.as_role(&world, role, name);
        assert_eq!(refused(TransferServiceClient::new(channel).send_volume(fetch()).await).reason, reason::TICKET);
    }
    let agent = nyc.as_role(&world, Role::Agent, "fra");
    let nothing = futures::stream::iter([pb::SendVolumeRequest { event: None }]);
    let error = refused(TransferServiceClient::new(agent).send_volume(nothing).await);
    assert_eq!(error.reason, reason::INVALID_FIELD);
}

#[tokio::test]
async fn somebody_of_another_fleet_is_not_heard_at_all() {
    let (world, other) = (World::new(), World::new());
    let nyc = world.started("nyc").await;
    let channel = nyc.as_role(&other, Role::Controller, "controller");
    let error = refused(TenantServiceClient::new(channel).list_tenants(pb::ListTenantsRequest {}).await);
    assert!(error.code.retryable());
}

#[tokio::test]
async fn what_does_not_parse_is_refused() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    let mut bad = vec![
        pb::AddTenantRequest { tenant: "Alice".into(), ..add(1) },
        pb::AddTenantRequest { tenant: "admin".into(), ..add(1) },
        pb::AddTenantRequest { request_id: "7".into(), ..add(1) },
        pb::AddTenantRequest { volume: 0, ..add(1) },
        pb::AddTenantRequest { volume: 9, ..add(1) },
    ];
    while let Some(request) = bad.pop() {
        assert_eq!(refused(nyc.tenants().add_tenant(request).await).code, Code::Invalid);
    }
    let missing = pb::AddTenantRequest { image: "localhost/none:latest".into(), ..add(1) };
    assert_eq!(refused(nyc.tenants().add_tenant(missing).await).reason, reason::IMAGE_MISSING);
    let unknown = pb::GetTenantRequest { tenant: "alice".into() };
    assert_eq!(refused(nyc.tenants().get_tenant(unknown).await).reason, reason::TENANT_NOT_FOUND);
    assert_eq!(refused(nyc.tenants().start_tenant(start(1)).await).reason, reason::TENANT_NOT_FOUND);
}
