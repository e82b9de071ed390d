//! Cordons, labels, and tenants that are bound to servers.

use feather_proto::{
    error::{Error, reason},
    pb::{controller::v1 as pb, types::v1::Label},
};
use feather_tests::{Fleet, fleet::request_id};

fn label(text: &str) -> Label {
    let (name, value) = text.split_once('=').unwrap();
    Label { name: name.into(), value: value.into() }
}

async fn set_label(fleet: &Fleet, server: &str, text: &str) -> pb::LabelServerResponse {
    let request = pb::LabelServerRequest { server: server.into(), set: vec![label(text)], ..Default::default() };
    fleet.server_service().label_server(request).await.unwrap().into_inner()
}

async fn cordon(fleet: &Fleet, server: &str, cordoned: bool) -> pb::CordonServerResponse {
    let request = pb::CordonServerRequest { server: server.into(), cordoned, dry_run: false };
    fleet.server_service().cordon_server(request).await.unwrap().into_inner()
}

fn add(name: &str, on: &[&str], pin: &str) -> pb::AddTenantRequest {
    pb::AddTenantRequest {
        request_id: request_id(),
        tenant: name.into(),
        on: on.iter().map(|text| label(text)).collect(),
        pin: pin.into(),
        ..Default::default()
    }
}

async fn added(fleet: &Fleet, request: pb::AddTenantRequest) -> Result<pb::Tenant, Error> {
    let name = request.tenant.clone();
    let operation = fleet.tenants().add_tenant(request).await.map_err(Error::from)?.into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&operation.id).await.state(), pb::OperationState::Succeeded);
    Ok(fleet.show(&name).await)
}

fn anywhere(name: &str) -> pb::MigrateTenantRequest {
    pb::MigrateTenantRequest { request_id: request_id(), tenant: name.into(), ..Default::default() }
}

async fn refused(fleet: &Fleet, request: pb::MigrateTenantRequest) -> Error {
    Error::from(fleet.tenants().migrate_tenant(request).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_server_takes_nobody_and_keeps_who_is_there() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let dry = pb::CordonServerRequest { server: "nyc".into(), cordoned: true, dry_run: true };
    assert!(fleet.server_service().cordon_server(dry).await.unwrap().into_inner().changed);
    let first = cordon(&fleet, "nyc", true).await;
    assert_eq!((first.changed, first.version), (true, 2), "the dry run changed nothing");
    assert!(!cordon(&fleet, "nyc", true).await.changed);
    // It is kept, not only remembered.
    fleet.kill_controller();
    fleet.start_controller().await;
    fleet.all_ready().await;
    assert_eq!(added(&fleet, add("bob", &[], "")).await.unwrap().server, "fra");
    let named = fleet.try_add("carol", "nyc").await.unwrap_err();
    assert!(named.is(reason::NO_ROOM) && named.message.contains("featherctl server uncordon nyc"), "{named:?}");
    let there = refused(&fleet, pb::MigrateTenantRequest { server: "nyc".into(), ..anywhere("bob") }).await;
    assert!(there.message.contains("nyc: cordoned"), "{there:?}");
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["nyc"]);
    let listed = fleet.server_service().list_servers(pb::ListServersRequest {}).await.unwrap().into_inner().servers;
    assert!(listed.iter().all(|one| one.cordoned == (one.name == "nyc")), "{listed:?}");
    cordon(&fleet, "nyc", false).await;
    fleet.add("carol", "nyc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_was_added_with_holds_for_placement_later_on() {
    let fleet = Fleet::start(&["nyc", "fra", "ams"]).await;
    set_label(&fleet, "nyc", "region=us").await;
    set_label(&fleet, "fra", "region=eu").await;
    set_label(&fleet, "ams", "region=eu").await;
    set_label(&fleet, "ams", "disk=ssd").await;
    let alice = added(&fleet, add("alice", &["region=eu", "disk=ssd"], "")).await.unwrap();
    assert_eq!((alice.server.as_str(), alice.on.len()), ("ams", 2), "{alice:?}");
    let nowhere = added(&fleet, add("bob", &["region=asia"], "")).await.unwrap_err();
    for told in ["ams: region is eu, not asia", "nyc: region is us, not asia"] {
        assert!(nowhere.message.contains(told), "{nowhere:?}");
    }
    // Nobody but ams has both labels, so placement leaves it there; by name it goes anywhere, and is told so.
    let stays = refused(&fleet, anywhere("alice")).await;
    assert!(stays.message.contains("fra: it has no label disk=ssd"), "{stays:?}");
    let named = pb::MigrateTenantRequest { server: "nyc".into(), dry_run: true, ..anywhere("alice") };
    let named = fleet.tenants().migrate_tenant(named).await.unwrap().into_inner();
    assert!(named.explanation.iter().any(|line| line.contains("outside of what alice is bound to")), "{named:?}");
    // A label for one move is beside those that are kept, and none of the two gives way.
    let both = refused(&fleet, pb::MigrateTenantRequest { on: vec![label("region=us")], ..anywhere("alice") }).await;
    assert!(both.message.contains("cannot both hold"), "{both:?}");
    let place = pb::PlaceTenantRequest { tenant: "alice".into(), on: vec![label("region=eu")], ..Default::default() };
    assert!(fleet.tenants().place_tenant(place.clone()).await.unwrap().into_inner().changed);
    assert!(!fleet.tenants().place_tenant(place).await.unwrap().into_inner().changed);
    let moved = fleet.tenants().migrate_tenant(anywhere("alice")).await.unwrap().into_inner();
    assert_eq!(moved.target, "fra");
    assert_eq!(fleet.outcome(&moved.operation.unwrap().id).await.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_tenant_is_moved_only_by_name_and_comes_back_to_its_data_with_its_pin() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    let alice = added(&fleet, add("alice", &[], "fra")).await.unwrap();
    assert_eq!((alice.server.as_str(), alice.pin.as_str()), ("fra", "fra"));
    let stays = refused(&fleet, anywhere("alice")).await;
    assert!(stays.message.contains("nyc: it is pinned to fra"), "{stays:?}");
    fleet.remove("alice").await;
    let back = added(&fleet, add("alice", &[], "")).await.unwrap();
    assert_eq!((back.server.as_str(), back.pin.as_str()), ("fra", "fra"));
    assert_eq!(fleet.migrate("alice", "nyc").await.state(), pb::OperationState::Succeeded);
    // Home is where placement takes it now.
    let home = pb::MigrateTenantRequest { dry_run: true, ..anywhere("alice") };
    assert_eq!(fleet.tenants().migrate_tenant(home).await.unwrap().into_inner().target, "fra");
    let nobody = Error::from(fleet.tenants().add_tenant(add("bob", &[], "ams")).await.unwrap_err());
    assert!(nobody.is(reason::SERVER_NOT_FOUND), "{nobody:?}");
    let unlike = pb::AddTenantRequest { server: "nyc".into(), ..add("bob", &[], "fra") };
    assert!(Error::from(fleet.tenants().add_tenant(unlike).await.unwrap_err()).is(reason::INVALID_FIELD));
}

fn spread(name: &str, group: &str) -> pb::AddTenantRequest {
    pb::AddTenantRequest { spread: group.into(), ..add(name, &[], "") }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_a_group_are_kept_apart_also_when_a_server_is_emptied() {
    let fleet = Fleet::start(&["nyc", "fra", "ams"]).await;
    let mut homes = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let added = added(&fleet, spread(name, "db")).await.unwrap();
        assert_eq!(added.spread, "db");
        homes.push(added.server);
    }
    homes.sort();
    assert_eq!(homes, ["ams", "fra", "nyc"]);
    // A condition and no wish: the fourth is refused, and told who is in the way.
    let fourth = added(&fleet, spread("dave", "db")).await.unwrap_err();
    assert!(fourth.is(reason::NO_ROOM), "{fourth:?}");
    for name in ["alice", "bob", "carol"] {
        assert!(fourth.message.contains(&format!("{name} of the group db is there")), "{fourth:?}");
    }
    added(&fleet, spread("dave", "web")).await.unwrap();
    // Nobody can leave nyc without coming to another of the group, and whoever says so by name is told.
    let there = ["alice", "bob", "carol"];
    let mut at = std::collections::BTreeMap::new();
    for name in there {
        at.insert(fleet.show(name).await.server, name);
    }
    let drain =
        pb::DrainServerRequest { request_id: request_id(), server: "nyc".into(), dry_run: true, ..Default::default() };
    let plan = fleet.server_service().drain_server(drain.clone()).await.unwrap().into_inner();
    let mover = plan.moves.iter().find(|one| one.tenant == at["nyc"]).unwrap();
    assert!(mover.target.is_empty() && mover.why.contains("of the group db is there"), "{plan:?}");
    let named = pb::MigrateTenantRequest { server: "fra".into(), dry_run: true, ..anywhere(at["nyc"]) };
    let named = fleet.tenants().migrate_tenant(named).await.unwrap().into_inner();
    let told = format!("{} of the group db is there", at["fra"]);
    assert!(named.explanation.iter().any(|line| line.contains("outside of") && line.contains(&told)), "{named:?}");
    // As soon as there is a place without one of them, it goes there.
    fleet.remove(at["fra"]).await;
    let plan = fleet.server_service().drain_server(drain).await.unwrap().into_inner();
    assert_eq!(plan.moves.iter().find(|one| one.tenant == at["nyc"]).unwrap().target, "fra", "{plan:?}");
    // Who is bound late stays where it is, and it is said what does not hold.
    let beside = at["ams"];
    fleet.add("erin", "ams").await;
    let place = pb::PlaceTenantRequest { tenant: "erin".into(), spread: "db".into(), ..Default::default() };
    let placed = fleet.tenants().place_tenant(place).await.unwrap().into_inner();
    assert_eq!(placed.unmet, [format!("{beside} of the group db is there")]);
    let moved = fleet.tenants().migrate_tenant(anywhere("erin")).await.unwrap().into_inner();
    assert_eq!(moved.target, "fra");
    assert_eq!(fleet.outcome(&moved.operation.unwrap().id).await.state(), pb::OperationState::Succeeded);
}
