//! A server that was silent when the store was learned again, and that comes back in the middle of a move that nobody remembers: whoever stands
//! still there is not forgotten, nobody runs twice, and what came over is given back.

use std::{sync::Arc, time::Duration};

use feather_controller::{agents::Call, dns::memory::Memory, rebuild::Said, warnings::Patience, world::Settings};
use feather_proto::{
    error::{Error, reason},
    ids::Generation,
    model::{IncomingStage, Residence, StopReason, TenantReport},
    pb::controller::v1::{
        self as pb, event_service_client::EventServiceClient, status_service_client::StatusServiceClient,
        warning_service_client::WarningServiceClient,
    },
};
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{ZONE, request_id, settings, tenant},
    wait::until,
};
use futures::StreamExt as _;

use crate::faults::DATA;

const SERVERS: [(&str, &str); 3] = [("nyc", "192.0.2.1"), ("fra", "192.0.2.2"), ("ams", "192.0.2.3")];
const CONTAINER: &str = "feather-user-alice";

/// Alice lives on nyc, which is the ingress, so that nobody else knows of her. The controller tells at once what is wrong.
async fn alice_at_the_ingress() -> Fleet {
    let patience = Patience { moment: Duration::ZERO, look: Duration::from_millis(20), ..Patience::default() };
    let settings = Settings { patience, ..settings() };
    let fleet = Fleet::start_in((Arc::new(Memory::new(ZONE)), None), &SERVERS, settings).await;
    fleet.zone().set_ingress(pb::SetIngressRequest { server: "nyc".into(), ..Default::default() }).await.unwrap();
    fleet.add("alice", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("data"), DATA).unwrap();
    fleet
}

/// The store goes while these are silent, and is learned again without them.
async fn rebuilt_without(fleet: &mut Fleet, silent: &[&str]) {
    fleet.lose_store().await;
    silent.iter().for_each(|server| fleet.kill_agent(server));
    fleet.faults.clear();
    // Nobody forwards to most of them, so a person says where the world reaches them.
    let named = SERVERS.map(|(name, address)| format!("{name}={name}:7443,{address}").parse().unwrap());
    let said = Said::new(named.to_vec(), [], [], None).unwrap();
    let said = Said { without: silent.iter().map(ToString::to_string).collect(), ..said };
    fleet.rebuild(&said).await.unwrap();
    fleet.start_controller().await;
}

/// A move to fra that cannot get past a call.
async fn stuck_move(fleet: &Fleet, faults: &[(&str, &'static str)]) {
    for (server, verb) in faults {
        fleet.faults.always(server, verb, Fault::LoseRequest);
    }
    let begun = fleet.begin_migrate("alice", "fra").await.unwrap();
    until("the move is stuck", async || {
        let request = pb::GetOperationRequest { id: begun.id.clone() };
        let operation = fleet.operations().get_operation(request).await.unwrap().into_inner().operation.unwrap();
        if operation.state() == pb::OperationState::Stuck { Ok(()) } else { Err(operation.state()) }
    })
    .await;
}

async fn reported(fleet: &Fleet, server: &str) -> Option<TenantReport> {
    let snapshot = fleet.agent_under(fleet.lead(), server).snapshot().await.unwrap();
    snapshot.tenant(&tenant("alice")).cloned()
}

async fn known(fleet: &Fleet) -> Vec<pb::Tenant> {
    fleet.tenants().list_tenants(pb::ListTenantsRequest::default()).await.unwrap().into_inner().tenants
}

/// Waits for the one tenant that there is.
async fn until_known(fleet: &Fleet, server: &str, state: pb::TenantState) -> pb::Tenant {
    until(&format!("alice is known on {server} as {state:?}"), async || match known(fleet).await.as_slice() {
        [alice] if alice.server == server && alice.state() == state => Ok(alice.clone()),
        other => Err(format!("{other:?}")),
    })
    .await
}

async fn until_warned(fleet: &Fleet, subject: &str, parts: &[&str]) {
    until(&format!("somebody is told of {subject}: {parts:?}"), async || {
        let client = WarningServiceClient::new(fleet.admin());
        let shown = { client }.list_warnings(pb::ListWarningsRequest::default()).await;
        let shown = shown.map_err(|status| status.to_string())?.into_inner().warnings;
        let told = |one: &pb::Warning| one.subject == subject && parts.iter().all(|part| one.message.contains(part));
        if shown.iter().any(told) { Ok(()) } else { Err(format!("{shown:#?}")) }
    })
    .await;
}

async fn events(fleet: &Fleet, kind: &str) -> Vec<String> {
    let request = pb::WatchEventsRequest { subject: "alice".into(), ..Default::default() };
    let told = { EventServiceClient::new(fleet.admin()) }.watch_events(request).await.unwrap().into_inner();
    let told = told.filter_map(async |one| one.unwrap().event).filter(|one| std::future::ready(one.kind == kind));
    told.map(|one| one.message).collect().await
}

async fn start(fleet: &Fleet) {
    let request = pb::StartTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let begun = fleet.tenants().start_tenant(request).await.unwrap().into_inner().operation.unwrap();
    let outcome = fleet.outcome(&begun.id).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
}

/// She runs there alone, with her data, and can be moved.
async fn lives_and_moves(fleet: &Fleet, here: &str, there: &str) {
    until_known(fleet, here, pb::TenantState::Running).await;
    until(&format!("the ingress leads to {here}"), async || {
        let answer = fleet.request("nyc", "alice");
        if answer.served_by.as_deref() == Some(here) { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!(fleet.recorder.running(CONTAINER), [here]);
    let outcome = fleet.migrate("alice", there).await;
    assert_eq!(outcome.state(), pb::OperationState::Succeeded, "{:#?}", outcome.operation);
    assert_eq!(fleet.recorder.running(CONTAINER), [there]);
    assert_eq!(std::fs::read_to_string(fleet.volume(there, "alice").join("data")).unwrap(), DATA);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

/// What a person is told of her who stands still, before she is started.
async fn stands_still_on_nyc(fleet: &Fleet) {
    let alice = until_known(fleet, "nyc", pb::TenantState::Broken).await;
    assert!(alice.problem.contains("`featherctl tenant start alice`"), "{alice:?}");
    until_warned(fleet, "alice", &["stands still", "`featherctl tenant start alice` starts it"]).await;
    let request = pb::ExplainTenantRequest { tenant: "alice".into() };
    let told = StatusServiceClient::new(fleet.admin()).explain_tenant(request).await.unwrap().into_inner();
    let next = told.explanation.unwrap().next;
    assert!(next.iter().any(|line| line.starts_with("`featherctl tenant start alice`")), "{next:?}");
    let told = events(fleet, "tenant-taken-in").await;
    assert!(told.len() == 1 && told[0].contains("alice was taken in on nyc, where it stands still"), "{told:?}");
    assert_eq!(fleet.recorder.running(CONTAINER), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_still_on_a_server_that_was_silent_is_taken_in_and_can_be_started() {
    let mut fleet = alice_at_the_ingress().await;
    let generation = Generation(fleet.show("alice").await.generation);
    let call = Call { request_id: uuid::Uuid::new_v4(), tenant: tenant("alice"), generation };
    fleet.agent_under(fleet.lead(), "nyc").stop_tenant(&call, StopReason::Move).await.unwrap();
    rebuilt_without(&mut fleet, &["nyc"]).await;
    assert_eq!(known(&fleet).await, []);
    fleet.start_agent("nyc");
    stands_still_on_nyc(&fleet).await;
    start(&fleet).await;
    until_known(&fleet, "nyc", pb::TenantState::Running).await;
    assert_eq!(fleet.recorder.running(CONTAINER), ["nyc"]);
    lives_and_moves(&fleet, "nyc", "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_somebody_else_may_serve_it_it_is_left_alone_and_never_runs_twice() {
    let mut fleet = alice_at_the_ingress().await;
    // Fra has taken over, and nyc has not heard of it.
    stuck_move(&fleet, &[("nyc", "hand_off")]).await;
    assert_eq!(reported(&fleet, "nyc").await.unwrap().residence, Residence::Sealed);
    assert_eq!(fleet.recorder.running(CONTAINER), ["fra"]);
    let started = fleet.starts("fra", "alice").len();
    rebuilt_without(&mut fleet, &["nyc", "fra"]).await;
    fleet.start_agent("nyc");
    until_warned(&fleet, "server/nyc", &["alice: it stands still on nyc", "do not answer (fra)", "server lost fra"])
        .await;
    assert_eq!(known(&fleet).await, []);
    // Nor does a person take it in by mistake.
    let request = pb::AdoptServerRequest { server: "nyc".into(), dry_run: false, tenants: vec!["alice".into()] };
    let adopted = fleet.server_service().adopt_server(request).await.unwrap().into_inner().findings;
    assert!(adopted.len() == 1 && adopted[0].why.contains("do not answer (fra)"), "{adopted:?}");
    assert_eq!(known(&fleet).await, []);
    fleet.start_agent("fra");
    until_known(&fleet, "fra", pb::TenantState::Running).await;
    until("nyc leads to fra", async || {
        let there = reported(&fleet, "nyc").await.unwrap();
        if there.residence == Residence::Departed && there.forward_to.is_some() { Ok(()) } else { Err(there) }
    })
    .await;
    assert_eq!(fleet.starts("fra", "alice").len(), started, "she ran all the time");
    lives_and_moves(&fleet, "fra", "ams").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_come_to_a_server_that_was_silent_is_given_back() {
    let mut fleet = alice_at_the_ingress().await;
    stuck_move(&fleet, &[("fra", "pull_volume"), ("fra", "abandon")]).await;
    assert_eq!(reported(&fleet, "fra").await.unwrap().incoming, Some(IncomingStage::Reserved));
    let started = fleet.starts("nyc", "alice").len();
    rebuilt_without(&mut fleet, &["fra"]).await;
    until_known(&fleet, "nyc", pb::TenantState::Running).await;
    fleet.faults.always("fra", "abandon", Fault::LoseRequest);
    fleet.start_agent("fra");
    fleet.all_ready().await;
    // Nothing is begun that could not be undone there.
    let refused = fleet.begin_migrate("alice", "fra").await.unwrap_err();
    assert!(refused.is(reason::WRONG_STATE) && refused.message.contains("what came of alice"), "{refused:?}");
    fleet.faults.never("fra", "abandon");
    until("fra holds nothing of her", async || {
        let there = reported(&fleet, "fra").await.unwrap();
        if there.incoming.is_none() && there.port.is_none() { Ok(()) } else { Err(there) }
    })
    .await;
    let told = until("that is told", async || {
        let told = events(&fleet, "move-given-back").await;
        if told.is_empty() { Err(told) } else { Ok(told) }
    })
    .await;
    assert_eq!(told, ["a move of alice to fra had begun, and no operation goes on with it: it was given back"]);
    assert_eq!(fleet.starts("nyc", "alice").len(), started, "she ran all the time");
    lives_and_moves(&fleet, "nyc", "fra").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_nobody_remembers_ends_before_who_stands_still_is_taken_in() {
    let mut fleet = alice_at_the_ingress().await;
    // Committed in the store that is lost, and heard of by no server.
    stuck_move(&fleet, &[("fra", "activate")]).await;
    assert_eq!(reported(&fleet, "fra").await.unwrap().incoming, Some(IncomingStage::Trial));
    rebuilt_without(&mut fleet, &["nyc"]).await;
    until_warned(&fleet, "server/fra", &["alice: a move to fra had begun", "when a server says"]).await;
    assert_eq!(fleet.recorder.running(CONTAINER), ["fra"], "it may be the only copy");
    fleet.start_agent("nyc");
    stands_still_on_nyc(&fleet).await;
    assert_eq!(reported(&fleet, "fra").await.unwrap().incoming, None);
    start(&fleet).await;
    lives_and_moves(&fleet, "nyc", "fra").await;
}

async fn start_refused(fleet: &Fleet, why: &str) {
    until(&format!("a start is refused: {why}"), async || {
        let request = pb::StartTenantRequest { request_id: request_id(), tenant: "alice".into() };
        let error = Error::from(fleet.tenants().start_tenant(request).await.unwrap_err());
        if error.is(reason::WRONG_STATE) && error.message.contains(why) { Ok(()) } else { Err(error) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_given_a_server_by_a_person_is_not_started_there_while_another_may_serve_it() {
    let mut fleet = alice_at_the_ingress().await;
    stuck_move(&fleet, &[("nyc", "hand_off")]).await;
    fleet.lose_store().await;
    fleet.kill_agent("fra");
    fleet.faults.clear();
    let named = SERVERS.map(|(name, address)| format!("{name}={name}:7443,{address}").parse().unwrap());
    let assigned = ["alice=nyc".parse().unwrap()];
    let said = Said::new(named.to_vec(), ["fra".to_owned()], assigned, None).unwrap();
    fleet.rebuild(&said).await.unwrap();
    fleet.start_controller().await;
    until_known(&fleet, "nyc", pb::TenantState::Broken).await;
    start_refused(&fleet, "do not answer (fra)").await;
    fleet.start_agent("fra");
    start_refused(&fleet, "fra serves it").await;
    assert_eq!(fleet.recorder.running(CONTAINER), ["fra"]);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}
