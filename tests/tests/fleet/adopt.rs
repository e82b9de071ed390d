//! Servers that were run by hand, or by themselves, before they joined.

use std::collections::BTreeMap;

use feather_agent::{
    router::Route,
    runtime::{ContainerSpec, Network, Reach, fake::ByHand},
};
use feather_proto::{
    error::{Error, reason},
    pb::{agent::v1 as agent, controller::v1 as pb, types::v1 as types},
    tls::Role,
};
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{WORK_IMAGE, old_tenants_file, request_id, tenant},
    wait::until,
};
use types::AdoptionAction::{self, Adopt, Adopted, Known, Misfit};

const PASSWORD: &str = "x7k9m2-by-hand";

/// As the old script did it, with its route.
fn by_hand(fleet: &Fleet, server: &str, name: &str, port: u16, network: Network) {
    let spec = ContainerSpec {
        name: tenant(name).container(),
        image: WORK_IMAGE.into(),
        host_port: port,
        reach: Reach::Published,
        volume: tenant(name).container(),
        environment: BTreeMap::from([("FEATHER_PASSWORD".into(), PASSWORD.into())]),
        dns: vec![],
        labels: BTreeMap::new(),
        limits: Default::default(),
    };
    let server = &fleet.servers[server];
    server.runtime.run_by_hand(&spec, ByHand { network, ..ByHand::as_the_script(&spec) });
    server.router.write_by_hand(&tenant(name), Route::Serve { port });
}

fn published(port: u16) -> Network {
    Network::Published { port, loopback: true }
}

async fn adopt(fleet: &Fleet, server: &str, dry_run: bool) -> Result<Vec<(String, AdoptionAction)>, Error> {
    let request = pb::AdoptServerRequest { server: server.into(), dry_run, ..Default::default() };
    let found = fleet.server_service().adopt_server(request).await.map_err(Error::from)?.into_inner().findings;
    Ok(found.iter().map(|finding| (finding.name.clone(), finding.action())).collect())
}

async fn names(fleet: &Fleet) -> Vec<String> {
    let all = fleet.tenants().list_tenants(pb::ListTenantsRequest::default()).await.unwrap().into_inner().tenants;
    all.into_iter().map(|one| format!("{} on {} {:?}", one.name, one.server, one.state())).collect()
}

async fn problems(fleet: &Fleet, server: &str) -> Vec<String> {
    let request = pb::GetServerRequest { server: server.into() };
    fleet.server_service().get_server(request).await.unwrap().into_inner().server.unwrap().problems
}

fn pairs(wanted: &[(&str, AdoptionAction)]) -> Vec<(String, AdoptionAction)> {
    wanted.iter().map(|(name, action)| ((*name).to_owned(), *action)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_old_script_is_adopted_in_place_and_its_tenants_move() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    by_hand(&fleet, "nyc", "alice", 9001, published(9001));
    by_hand(&fleet, "nyc", "bob", 9500, Network::Host);
    let file = r#"{"alice": {"port": 9001, "password": "x"}, "bob": {"port": 9500}}"#;
    std::fs::write(old_tenants_file(&fleet.servers["nyc"].state_dir), file).unwrap();
    until("the stranger is told of", async || {
        let told = problems(&fleet, "nyc").await;
        if told.iter().any(|problem| problem.contains("server adopt")) { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(adopt(&fleet, "nyc", true).await.unwrap(), pairs(&[("alice", Adopt), ("bob", Adopt)]));
    assert_eq!(names(&fleet).await, Vec::<String>::new());
    assert_eq!(adopt(&fleet, "nyc", false).await.unwrap(), pairs(&[("alice", Adopted), ("bob", Adopted)]));
    assert_eq!(adopt(&fleet, "nyc", false).await.unwrap(), pairs(&[("alice", Known), ("bob", Known)]));
    fleet.all_ready().await;
    assert_eq!(names(&fleet).await, ["alice on nyc Running", "bob on nyc Running"]);
    assert_eq!(fleet.servers["nyc"].router.changes(), 0);
    for name in ["alice", "bob"] {
        assert_eq!(fleet.starts("nyc", name).len(), 1, "{name} runs as it ran");
        assert_eq!(fleet.request("nyc", name).served_by.as_deref(), Some("nyc"));
    }
    std::fs::write(fleet.volume("nyc", "bob").join("note"), "kept").unwrap();
    let moved = fleet.migrate("bob", "fra").await;
    assert_eq!(moved.state(), pb::OperationState::Succeeded, "{:#?}", moved.operation);
    assert_eq!(std::fs::read_to_string(fleet.volume("fra", "bob").join("note")).unwrap(), "kept");
    let spec = fleet.servers["fra"].runtime.spec("feather-user-bob").unwrap();
    assert_eq!(spec.environment["FEATHER_PASSWORD"], PASSWORD);
    assert_eq!(fleet.request("nyc", "bob").served_by.as_deref(), Some("fra"));
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

/// What a server by itself did before it joined: its ledger knows tenants that no store does.
async fn added_by_itself(fleet: &Fleet, server: &str, name: &str, generation: u64) {
    let channel = fleet.agent_channel(server, fleet.identity(Role::Controller, "controller"));
    let mut agent = agent::tenant_service_client::TenantServiceClient::new(channel);
    let request = agent::AddTenantRequest {
        request_id: request_id(),
        tenant: name.into(),
        generation,
        image: String::new(),
        volume: agent::VolumeExpectation::Any.into(),
        limits: None,
    };
    agent.add_tenant(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_a_servers_own_ledger_become_the_fleets_by_themselves() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.stop_controller().await;
    added_by_itself(&fleet, "nyc", "alice", 5).await;
    fleet.start_controller().await;
    let alice = until("alice is taken in", async || {
        let shown = fleet.tenants().get_tenant(pb::GetTenantRequest { tenant: "alice".into() }).await;
        let alice = shown.map_err(|status| status.to_string())?.into_inner().tenant.unwrap();
        if alice.state() == pb::TenantState::Running { Ok(alice) } else { Err(format!("{alice:?}")) }
    })
    .await;
    assert_eq!((alice.server.as_str(), alice.generation), ("nyc", 5));
    assert_eq!(fleet.starts("nyc", "alice").len(), 1);
    assert_eq!(fleet.remove("alice").await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.show("alice").await.generation, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_has_is_left_running_and_told_of() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "fra").await;
    by_hand(&fleet, "nyc", "alice", 9001, published(9001));
    by_hand(&fleet, "nyc", "bob", 9002, published(9002));
    assert_eq!(adopt(&fleet, "nyc", true).await.unwrap(), pairs(&[("alice", Misfit), ("bob", Adopt)]));
    assert_eq!(adopt(&fleet, "nyc", false).await.unwrap(), pairs(&[("alice", Misfit), ("bob", Adopted)]));
    until("both are seen", async || {
        let seen = names(&fleet).await;
        if seen == ["alice on fra Running", "bob on nyc Running"] { Ok(()) } else { Err(seen) }
    })
    .await;
    assert_eq!(fleet.starts("nyc", "alice").len(), 1, "it runs on");
    assert_eq!(fleet.starts("fra", "alice").len(), 1, "and so does the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_fleet_removed_or_moved_never_comes_back_from_a_ledger() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("bob", "nyc").await;
    // nyc has an alice from before anybody told it of the fleet's.
    fleet.kill_agent("nyc");
    fleet.add("alice", "fra").await;
    fleet.stop_controller().await;
    fleet.start_agent("nyc");
    added_by_itself(&fleet, "nyc", "alice", 1).await;
    fleet.start_controller().await;
    until("nyc is told of", async || {
        let told = problems(&fleet, "nyc").await;
        if told.is_empty() { Err(told) } else { Ok(()) }
    })
    .await;
    fleet.remove("bob").await;
    added_by_itself(&fleet, "nyc", "bob", 9).await;
    let told = until("both are told of", async || {
        let told = problems(&fleet, "nyc").await;
        if told.len() == 2 { Ok(told) } else { Err(told) }
    })
    .await;
    assert!(told[0].contains("alice: the name belongs to a tenant on fra"), "{told:?}");
    assert!(told[1].contains("bob: it was removed from the fleet"), "{told:?}");
    assert_eq!(adopt(&fleet, "nyc", false).await.unwrap(), pairs(&[("alice", Misfit), ("bob", Misfit)]));
    let (alice, bob) = (fleet.show("alice").await, fleet.show("bob").await);
    assert_eq!((alice.server.as_str(), alice.state()), ("fra", pb::TenantState::Running));
    assert_eq!((bob.server.as_str(), bob.state()), ("nyc", pb::TenantState::Removed));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_may_die_behind_every_write_of_an_adoption_and_replies_may_get_lost() {
    for writes in 1.. {
        let mut fleet = Fleet::start(&["nyc"]).await;
        for (name, port) in [("alice", 9001), ("bob", 9002)] {
            by_hand(&fleet, "nyc", name, port, published(port));
        }
        if writes > 2 {
            fleet.faults.at(0, Fault::ALL[usize::try_from(writes).unwrap() % Fault::ALL.len()]);
        } else {
            fleet.crash_after_writes(writes);
        }
        let fleet_ref = &fleet;
        if fleet.crash_or(async { adopt(fleet_ref, "nyc", false).await }).await.is_none() {
            fleet.kill_controller();
            fleet.start_controller().await;
        }
        // What the ledger has is taken in without anybody's help; what it has not, by the same command again.
        until("the adoption is whole", async || {
            let done = adopt(&fleet, "nyc", false).await.map_err(|error| error.to_string())?;
            if done == pairs(&[("alice", Known), ("bob", Known)]) { Ok(()) } else { Err(format!("{done:?}")) }
        })
        .await;
        fleet.all_ready().await;
        assert_eq!(names(&fleet).await, ["alice on nyc Running", "bob on nyc Running"]);
        for name in ["alice", "bob"] {
            assert_eq!(fleet.starts("nyc", name).len(), 1, "write {writes}: {name}");
        }
        assert_eq!(fleet.servers["nyc"].router.changes(), 0);
        if writes == 2 + i64::try_from(Fault::ALL.len()).unwrap() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_adopts_and_only_members_are_adopted() {
    let fleet = Fleet::start(&["nyc"]).await;
    let error = adopt(&fleet, "ber", true).await.unwrap_err();
    assert_eq!(error.reason, reason::SERVER_NOT_FOUND);
    for (tenant, why) in [("zoe", reason::TENANT_NOT_FOUND), ("Zoe!", reason::INVALID_NAME)] {
        let request = pb::AdoptServerRequest { server: "nyc".into(), dry_run: true, tenants: vec![tenant.into()] };
        assert_eq!(Error::from(fleet.server_service().adopt_server(request).await.unwrap_err()).reason, why);
    }
    for (dry_run, allowed) in [(true, true), (false, false)] {
        let channel = fleet.channel(fleet.identity(Role::Operator, "olga"));
        let mut client = pb::server_service_client::ServerServiceClient::new(channel);
        let answer =
            client.adopt_server(pb::AdoptServerRequest { server: "nyc".into(), dry_run, ..Default::default() }).await;
        assert_eq!(answer.is_ok(), allowed);
    }
}
