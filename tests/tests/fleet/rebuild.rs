//! A store that is gone: it is learned again from the servers, and nobody notices but who runs the fleet.

use std::collections::BTreeMap;

use feather_agent::router::fake::Answer;
use feather_controller::rebuild::{Error, Plan, Said, text};
use feather_proto::{
    error::{Error as CallError, reason},
    limits::Limits,
    pb::controller::v1::{
        self as pb, audit_service_client::AuditServiceClient, tenant_service_client::TenantServiceClient,
        user_service_client::UserServiceClient,
    },
    tls::{Identity, Role},
};
use feather_tests::{Fleet, faults::Fault, fleet::request_id, wait::until};

use crate::{
    faults::{DATA, check_world, fleet_with_alice},
    fenced::until_out,
};

/// What people see of a tenant, and what must be the same afterwards.
type Shown = (pb::TenantState, String, String, Option<Limits>, u32, String);

async fn list(fleet: &Fleet) -> BTreeMap<String, Shown> {
    let request = pb::ListTenantsRequest { include_removed: true, server: String::new() };
    let tenants = fleet.tenants().list_tenants(request).await.unwrap().into_inner().tenants;
    let shown = |one: pb::Tenant| {
        let state = one.state();
        let shown = (state, one.server, one.previous_server, one.limits.map(Limits::from), one.port, one.url);
        (one.name, shown)
    };
    tenants.into_iter().map(shown).collect()
}

async fn stop(fleet: &Fleet, name: &str) {
    let request = pb::StopTenantRequest { request_id: request_id(), tenant: name.into() };
    let begun = fleet.tenants().stop_tenant(request).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&begun.id).await.state(), pb::OperationState::Succeeded);
}

async fn start(fleet: &Fleet, name: &str) {
    let request = pb::StartTenantRequest { request_id: request_id(), tenant: name.into() };
    let begun = fleet.tenants().start_tenant(request).await.unwrap().into_inner().operation.unwrap();
    let outcome = fleet.outcome(&begun.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
}

fn stops(plan: &Plan) -> Vec<(String, String)> {
    plan.stops().map(|finding| (finding.about.clone(), finding.message.clone())).collect()
}

fn unsettled(done: Result<Plan, Error>) -> Plan {
    match done {
        Err(Error::Unsettled(plan)) => *plan,
        other => panic!("it was not refused: {other:?}"),
    }
}

/// Alice moved and left a copy, bob is stopped, carol has limits, dora was removed, and eve's certificate is revoked.
async fn a_fleet_with_a_past() -> (Fleet, Identity) {
    let fleet = Fleet::start(&["nyc", "fra", "ams"]).await;
    let eve = fleet.identity(Role::Admin, "eve");
    for (name, server) in [("alice", "nyc"), ("bob", "nyc"), ("carol", "ams"), ("dora", "fra")] {
        fleet.add(name, server).await;
    }
    std::fs::write(fleet.volume("fra", "dora").join("diary"), "mine").unwrap();
    fleet.remove("dora").await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    stop(&fleet, "bob").await;
    let change = pb::LimitsChange { memory_bytes: Some(512 << 20), ..Default::default() };
    let request = pb::LimitTenantRequest { tenant: "carol".into(), change: Some(change), dry_run: false };
    fleet.tenants().limit_tenant(request).await.unwrap();
    let request = pb::RevokeUserRequest { name: "eve".into(), unseen: true };
    UserServiceClient::new(fleet.admin()).revoke_user(request).await.unwrap();
    (fleet, eve)
}

/// Servers that have the list of revoked certificates.
async fn until_all_refuse_eve(fleet: &Fleet) {
    until("every server refuses eve", async || {
        for server in fleet.servers.keys() {
            let heeded = fleet.agent_under(fleet.lead(), server).heeded().await.map_err(|error| error.to_string())?;
            if heeded.refused.lines().is_empty() {
                return Err(format!("{server} does not"));
            }
        }
        Ok(())
    })
    .await;
}

fn starts(fleet: &Fleet) -> Vec<usize> {
    let all = [("nyc", "alice"), ("fra", "alice"), ("nyc", "bob"), ("ams", "carol")];
    all.map(|(server, name)| fleet.starts(server, name).len()).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_is_again_and_nobody_was_touched() {
    let (mut fleet, eve) = a_fleet_with_a_past().await;
    until_all_refuse_eve(&fleet).await;
    let before = list(&fleet).await;
    assert_eq!(before["alice"].2, "nyc", "{before:?}");
    let (started, lead) = (starts(&fleet), fleet.lead());
    fleet.lose_store().await;

    let plan = fleet.plan_rebuild(&fleet.said()).await;
    assert!(!fleet.has_store(), "a look writes nothing");
    assert_eq!(stops(&plan), []);
    assert_eq!((plan.tenants.len(), plan.members.len(), plan.lead), (4, 3, lead));
    let shown = text(&plan, false);
    for told in ["+  alice   running", "+ revoked: admin/eve", "--apply", "Not known any more", "+  bob     stopped"] {
        assert!(shown.contains(told), "{told}: {shown}");
    }

    let done = fleet.rebuild(&fleet.said()).await.unwrap();
    assert_eq!(
        done.tenants.iter().map(|row| row.generation).collect::<Vec<_>>(),
        plan.tenants.iter().map(|row| row.generation).collect::<Vec<_>>()
    );
    // Who served before, and hangs somewhere, is not heard any more.
    let before_it = fleet.agent_under(lead, "nyc").snapshot().await.unwrap_err();
    assert!(before_it.is(reason::NOT_LEADER), "{before_it}");
    fleet.start_controller().await;
    fleet.all_ready().await;
    assert!(fleet.lead() > lead);
    until("everything is as it was", async || {
        let now = list(&fleet).await;
        if now == before { Ok(()) } else { Err((now, before.clone())) }
    })
    .await;
    assert_eq!(starts(&fleet), started, "nobody was started anew");
    for server in ["nyc", "fra"] {
        assert_eq!(fleet.request(server, "alice").served_by.as_deref(), Some("fra"), "through {server}");
    }
    // Whoever was refused is refused.
    let mut eve = TenantServiceClient::new(fleet.channel(eve));
    let error = eve.list_tenants(pb::ListTenantsRequest::default()).await.unwrap_err();
    assert!(CallError::from(error).is(reason::REVOKED));
    let rows = AuditServiceClient::new(fleet.admin()).list_audit(pb::ListAuditRequest::default()).await;
    let rows = rows.unwrap().into_inner().entries;
    assert!(rows.iter().any(|row| row.rpc == "feather-controller rebuild" && row.code == "OK"), "{rows:?}");

    // Generations are high enough for whatever comes next, and kept data is found.
    assert_eq!(fleet.migrate("alice", "ams").await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.remove("carol").await.state(), pb::OperationState::Succeeded);
    start(&fleet, "bob").await;
    fleet.add("dora", "").await;
    assert_eq!(std::fs::read_to_string(fleet.volume("fra", "dora").join("diary")).unwrap(), "mine");
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_holds_a_fleet_is_never_overwritten() {
    let mut fleet = fleet_with_alice().await;
    fleet.stop_controller().await;
    let before = std::fs::read(fleet.store_url().trim_start_matches("sqlite://")).unwrap();
    let refused = fleet.rebuild(&fleet.said()).await.unwrap_err();
    assert!(
        matches!(refused, Error::NotBlank) && refused.to_string().contains("feather-controller restore"),
        "{refused}"
    );
    assert_eq!(std::fs::read(fleet.store_url().trim_start_matches("sqlite://")).unwrap(), before);
    fleet.start_controller().await;
    assert_eq!(check_world(&fleet, "after a rebuild that was refused").await, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_waited_for_or_left_out_by_a_person() {
    let mut fleet = Fleet::start(&["nyc", "fra", "ams"]).await;
    // Nobody forwards to the ingress those who never moved, so nobody else knows who lives there.
    let away: String = until("there is an ingress", async || {
        let servers = fleet.server_service().list_servers(pb::ListServersRequest::default()).await;
        let servers = servers.map_err(|status| status.to_string())?.into_inner().servers;
        let ingress = servers.iter().find(|server| server.ingress).map(|server| server.name.clone());
        ingress.ok_or_else(|| "none is settled".to_owned())
    })
    .await;
    let here = if away == "nyc" { "fra" } else { "nyc" };
    for (name, server) in [("alice", here), ("bob", &away)] {
        fleet.add(name, server).await;
    }
    fleet.lose_store().await;
    fleet.kill_agent(&away);
    let plan = unsettled(fleet.rebuild(&fleet.said()).await);
    assert_eq!(stops(&plan).len(), 1, "{:?}", plan.findings);
    let (about, message) = stops(&plan).remove(0);
    assert!(about == away && message.contains(&format!("--without {away}")), "{message}");
    let unneeded = Said { without: [here.to_owned(), away.clone()].into(), ..fleet.said() };
    let plan = unsettled(fleet.rebuild(&unneeded).await);
    assert!(stops(&plan)[0].1.contains("nothing is missing"), "{:?}", plan.findings);

    let said = Said { without: [away.clone()].into(), ..fleet.said() };
    fleet.rebuild(&said).await.unwrap();
    fleet.start_controller().await;
    until("alice is known, and bob is not", async || {
        let names: Vec<_> = list(&fleet).await.into_keys().collect();
        if names == ["alice"] { Ok(()) } else { Err(names) }
    })
    .await;
    // It comes back as what it was, and brings whom it has.
    fleet.start_agent(&away);
    fleet.all_ready().await;
    until("bob is known, too", async || {
        let now = list(&fleet).await;
        let bob = now.get("bob").map(|bob| (bob.0, bob.1.clone()));
        if bob == Some((pb::TenantState::Running, away.clone())) { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(fleet.starts(&away, "bob").len(), 1, "he ran all the time");
    assert_eq!(fleet.migrate("bob", here).await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_ended_meanwhile_joins_again_with_all_that_it_has() {
    let mut fleet = fleet_with_alice().await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    let started = fleet.starts("fra", "alice").len();
    fleet.lose_store().await;
    // As long as it shows a certificate that has ended nobody reaches it.
    fleet.network.cut("controller", "fra:7443");
    let said = Said { without: ["fra".to_owned()].into(), ..fleet.said() };
    let plan = fleet.rebuild(&said).await.unwrap();
    let home = plan.tenants[0].server.as_ref().map(ToString::to_string);
    assert_eq!(home.as_deref(), Some("fra"), "nyc tells where she went: {:?}", plan.findings);
    fleet.start_controller().await;
    fleet.kill_agent("fra");
    fleet.network.heal("controller", "fra:7443");
    // It takes the place that was kept for it: its agent is not told that it is another fleet's.
    fleet.rejoin("fra").await;
    fleet.all_ready().await;
    assert_eq!(settled_at(&fleet, "one joined again").await, "fra");
    assert_eq!(fleet.starts("fra", "alice").len(), started, "she ran all the time");
    assert_eq!(fleet.migrate("alice", "nyc").await.state(), pb::OperationState::Succeeded);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_taken_out_is_no_member_again_and_hears_of_it_from_the_new_store() {
    let mut fleet = fleet_with_alice().await;
    fleet.add("bob", "fra").await;
    fleet.kill_agent("fra");
    until("fra is declared lost", async || {
        let (request_id, server, confirm) = (request_id(), "fra".to_owned(), "fra".to_owned());
        let request = pb::LoseServerRequest { request_id, server, confirm, ..Default::default() };
        fleet.server_service().lose_server(request).await.map(drop).map_err(|status| status.to_string())
    })
    .await;
    until("nyc refuses fra", async || {
        let heeded = fleet.agent_under(fleet.lead(), "nyc").heeded().await.map_err(|error| error.to_string())?;
        if heeded.refused.lines().is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    fleet.lose_store().await;
    // Nobody has told it, so it serves bob still.
    fleet.start_agent("fra");
    let plan = until("fra answers", async || {
        let plan = unsettled(fleet.rebuild(&fleet.said()).await);
        let told = stops(&plan).remove(0);
        if told.1.contains("its certificate is revoked") { Ok(plan) } else { Err(told) }
    })
    .await;
    assert_eq!(stops(&plan).len(), 1, "{:?}", plan.findings);
    let said = Said { without: ["fra".to_owned()].into(), ..fleet.said() };
    let plan = fleet.rebuild(&said).await.unwrap();
    assert_eq!((plan.members.len(), plan.tenants.len()), (1, 1), "nyc and alice");
    fleet.start_controller().await;
    until_out(&fleet, "fra").await;
    until("its copy of bob has ended", async || {
        let running = fleet.recorder.running("feather-user-bob");
        if running.is_empty() { Ok(()) } else { Err(running) }
    })
    .await;
    assert_eq!(fleet.recorder.running("feather-user-alice"), ["nyc"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lived_on_a_server_that_died_with_the_store_is_brought_back_from_the_copy_that_a_move_left() {
    let mut fleet = fleet_with_alice().await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    fleet.lose_store().await;
    fleet.power_off("fra");
    let said = Said { without: ["fra".to_owned()].into(), ..fleet.said() };
    let plan = fleet.rebuild(&said).await.unwrap();
    let alice = &plan.tenants[0];
    assert_eq!(alice.server.as_ref().map(ToString::to_string).as_deref(), Some("fra"), "{:?}", plan.findings);
    fleet.start_controller().await;
    let begun = until("fra is declared lost", async || {
        let (request_id, server, confirm) = (request_id(), "fra".to_owned(), "fra".to_owned());
        let request = pb::LoseServerRequest { request_id, server, confirm, ..Default::default() };
        fleet.server_service().lose_server(request).await.map_err(|status| status.to_string())
    })
    .await;
    let begun = begun.into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&begun.id).await.state(), pb::OperationState::Succeeded);
    let alice = fleet.show("alice").await;
    assert_eq!((alice.state(), alice.server.as_str()), (pb::TenantState::Running, "nyc"));
    let data = std::fs::read_to_string(fleet.volume("nyc", "alice").join("data"));
    assert_eq!(data.ok().as_deref(), Some(DATA), "what the move left is what she has");
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_lead_is_above_one_that_a_wrong_clock_made() {
    let mut fleet = fleet_with_alice().await;
    let ahead = fleet.lead() + 1_000_000;
    fleet.lose_store().await;
    fleet.agent_under(ahead, "fra").snapshot().await.unwrap();
    let plan = fleet.rebuild(&fleet.said()).await.unwrap();
    assert!(plan.lead >= ahead, "{}", plan.lead);
    fleet.start_controller().await;
    fleet.all_ready().await;
    assert!(fleet.lead() > ahead);
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    assert_eq!(check_world(&fleet, "under the new lead").await, "fra");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_tells_of_a_server_that_was_not_named() {
    let mut fleet = fleet_with_alice().await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    fleet.lose_store().await;
    let said = fleet.said_of(&["nyc"]);
    let plan = unsettled(fleet.rebuild(&said).await);
    let told = stops(&plan);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == "fra:80" && told[0].1.contains("alice is said to live there"), "{told:?}");
    // A person may know that there is nothing any more.
    let without = Said { without: ["fra:80".to_owned()].into(), ..said };
    let plan = fleet.plan_rebuild(&without).await;
    assert_eq!((stops(&plan), plan.tenants.len()), (vec![], 0));
    fleet.rebuild(&fleet.said()).await.unwrap();
    fleet.start_controller().await;
    fleet.all_ready().await;
    assert_eq!(check_world(&fleet, "with all servers").await, "fra");
}

/// Alice lives on fra, and nyc has started its copy from before the move, because its ledger was put back.
async fn fleet_with_two_alices() -> Fleet {
    let mut fleet = fleet_with_alice().await;
    let ledger = fleet.servers["nyc"].state_dir.join("tenants/alice.json");
    let backup = std::fs::read(&ledger).unwrap();
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    fleet.lose_store().await;
    fleet.power_off("nyc");
    std::fs::write(&ledger, backup).unwrap();
    fleet.start_agent("nyc");
    until("both run", async || {
        let running = fleet.recorder.running("feather-user-alice");
        if running == ["fra", "nyc"] { Ok(()) } else { Err(running) }
    })
    .await;
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_hold_a_tenant_a_person_chooses_and_the_older_copy_ends() {
    let mut fleet = fleet_with_two_alices().await;
    let plan = unsettled(fleet.rebuild(&fleet.said()).await);
    let told = stops(&plan);
    assert!(told.len() == 1 && told[0].1.contains("--assign alice=SERVER"), "{told:?}");
    let said = Said { assigned: [("alice".parse().unwrap(), "fra".parse().unwrap())].into(), ..fleet.said() };
    fleet.rebuild(&said).await.unwrap();
    fleet.start_controller().await;
    fleet.all_ready().await;
    until("the older copy has ended", async || {
        let running = fleet.recorder.running("feather-user-alice");
        if running == ["fra"] { Ok(()) } else { Err(running) }
    })
    .await;
    assert_eq!(settled_at(&fleet, "the newer one was chosen").await, "fra");
    assert!(both_have_data(&fleet));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_copy_that_a_person_gives_up_ends_once_the_other_one_is_above_it() {
    let mut fleet = fleet_with_two_alices().await;
    let said = Said { assigned: [("alice".parse().unwrap(), "nyc".parse().unwrap())].into(), ..fleet.said() };
    let done = fleet.rebuild(&said).await.unwrap();
    let told = done.findings.iter().find(|finding| finding.about == "alice").map(|finding| finding.message.clone());
    assert!(told.is_some_and(|told| told.contains("featherctl tenant restart alice")), "{:?}", done.findings);
    fleet.start_controller().await;
    let conflict = until("fra says that it has one too many", async || {
        let request = pb::GetServerRequest { server: "fra".into() };
        let server = fleet.server_service().get_server(request).await.map_err(|status| status.to_string())?;
        let problems = server.into_inner().server.unwrap().problems;
        problems.first().cloned().ok_or_else(|| "nothing yet".to_owned())
    })
    .await;
    assert!(conflict.contains("the fleet knows only that one"), "{conflict}");
    let request = || pb::RestartTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let begun = until("nyc answers", async || {
        fleet.tenants().restart_tenant(request()).await.map_err(|status| status.to_string())
    });
    let begun = begun.await.into_inner().operation.unwrap();
    assert_eq!(fleet.outcome(&begun.id).await.state(), pb::OperationState::Succeeded);
    until("the one that was given up has ended", async || {
        let running = fleet.recorder.running("feather-user-alice");
        if running == ["nyc"] { Ok(()) } else { Err(running) }
    })
    .await;
    assert_eq!(settled_at(&fleet, "the older one was chosen").await, "nyc");
    assert!(both_have_data(&fleet));
}

/// Where alice runs, alone and with her data, once both servers lead there. What a move left behind that nobody remembers may be there
/// still, and that two ran before is not to be held against anybody.
async fn settled_at(fleet: &Fleet, what: &str) -> String {
    let here = until(&format!("{what}: alice runs, and all servers lead to her"), async || {
        let alice = fleet.show("alice").await;
        let here = alice.server.clone();
        let answers = ["nyc", "fra"].map(|server| (server, fleet.request(server, "alice")));
        // Before she ever moved, a server that is not the ingress has no route to her.
        let right = |(server, answer): &(&str, Answer)| {
            answer.served_by.as_deref() == Some(here.as_str()) || (*server != here && answer.status == 404)
        };
        let running = fleet.recorder.running("feather-user-alice");
        let right = alice.state() == pb::TenantState::Running && running == [here.clone()] && answers.iter().all(right);
        if right { Ok(here) } else { Err((alice.state(), here, running, answers)) }
    })
    .await;
    let data = std::fs::read_to_string(fleet.volume(&here, "alice").join("data"));
    assert_eq!(data.ok().as_deref(), Some(DATA), "{what}: data on {here}");
    here
}

/// No copy of her data was deleted.
fn both_have_data(fleet: &Fleet) -> bool {
    ["nyc", "fra"].iter().all(|server| fleet.volume(server, "alice").join("data").exists())
}

/// Every write is visited where the controller comes back with its store; here it is how agents were left that counts.
const STRIDE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn the_store_may_be_lost_wherever_a_move_was() {
    let mut met = BTreeMap::new();
    for writes in (1..).step_by(STRIDE) {
        let what = format!("the store is lost behind write {writes}");
        let mut fleet = fleet_with_alice().await;
        fleet.crash_after_writes(writes);
        let fleet_ref = &fleet;
        let ended = fleet.crash_or(async { fleet_ref.migrate("alice", "fra").await }).await;
        if ended.is_some() {
            assert!(writes > 20, "a move writes its log: only {writes} writes seen");
            break;
        }
        fleet.kill_controller();
        fleet.lose_store().await;
        let done = fleet.rebuild(&fleet.said()).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let alice = done.tenants.first().unwrap_or_else(|| panic!("{what}: {:?}", done.findings));
        *met.entry((alice.server.clone().unwrap().to_string(), alice.running, done.halves.len())).or_insert(0) += 1;
        assert_eq!(fleet.recorder.violations(), Vec::<String>::new(), "{what}");
        fleet.start_controller().await;
        fleet.all_ready().await;
        if !alice.running {
            assert_eq!(fleet.recorder.running("feather-user-alice"), Vec::<String>::new(), "{what}");
            start(&fleet, "alice").await;
        }
        let here = settled_at(&fleet, &what).await;
        let there = if here == "nyc" { "fra" } else { "nyc" };
        let next = fleet.migrate("alice", there).await;
        assert_eq!(next.state(), pb::OperationState::Succeeded, "the move after {what}: {:#?}", next.operation);
        assert_eq!(settled_at(&fleet, &format!("the move after {what}")).await, there);
        assert_eq!(fleet.recorder.violations(), Vec::<String>::new(), "{what}");
    }
    for wanted in [("nyc", true), ("nyc", false), ("fra", true)] {
        assert!(met.keys().any(|(server, running, _)| (server.as_str(), *running) == wanted), "{wanted:?}: {met:?}");
    }
    assert!(met.keys().any(|(_, _, halves)| *halves == 1), "{met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_given_back_leaves_the_store_empty_and_may_be_done_again() {
    let mut fleet = fleet_with_alice().await;
    fleet.faults.always("fra", "pull_volume", Fault::LoseReply);
    fleet.faults.always("fra", "abandon", Fault::LoseRequest);
    let begun = fleet.begin_migrate("alice", "fra").await.unwrap();
    until("the move is stuck", async || {
        let request = pb::GetOperationRequest { id: begun.id.clone() };
        let operation = fleet.operations().get_operation(request).await.unwrap().into_inner().operation.unwrap();
        if operation.state() == pb::OperationState::Stuck { Ok(()) } else { Err(operation.state()) }
    })
    .await;
    fleet.lose_store().await;
    let refused = fleet.rebuild(&fleet.said()).await.unwrap_err();
    assert!(matches!(&refused, Error::Half { server, .. } if server.as_str() == "fra"), "{refused}");
    fleet.faults.clear();
    fleet.rebuild(&fleet.said()).await.expect("the store is empty still");
    fleet.start_controller().await;
    fleet.all_ready().await;
    assert_eq!(check_world(&fleet, "after the second attempt").await, "nyc");
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
}
