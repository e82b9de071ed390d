//! Releases beside each other: what the one before sent is understood, and fleets of several releases work.

use std::{collections::BTreeSet, path::Path, time::Duration};

use feather_proto::{
    error::{Code, Error, reason},
    pb::{
        agent::v1 as agent,
        controller::v1::{
            self as pb, status_service_client::StatusServiceClient, tenant_service_client::TenantServiceClient,
            warning_service_client::WarningServiceClient,
        },
    },
    tls::Role,
    version::{self, Range},
};
use feather_tests::{
    Fleet,
    fleet::{Release, request_id, settings, tenant},
    recorded::{Schema, compatible, load, player::Player, script},
    wait::until,
};

/// Calls that are not recorded: nobody of another release makes them, they come over a socket from the agent's own binary.
const LOCAL: &str = "feather.agent.v1.LocalService/";

fn recorded() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

#[test]
fn the_schema_keeps_what_the_release_before_relies_on() {
    let (before, _) = load(&recorded().join("v1")).unwrap();
    let breaks = compatible::breaks(&before, &Schema::current());
    assert!(breaks.is_empty(), "the release before would not be understood:\n  {}", breaks.join("\n  "));
}

#[test]
fn every_call_of_the_release_before_was_recorded_and_the_script_makes_every_call_of_this_one() {
    let (before, recordings) = load(&recorded().join("v1")).unwrap();
    let missing = |all: BTreeSet<String>, made: BTreeSet<String>| -> Vec<String> {
        all.difference(&made).filter(|rpc| !rpc.starts_with(LOCAL)).cloned().collect()
    };
    let made = recordings.iter().map(|one| one.call.rpc.clone()).collect();
    assert_eq!(missing(before.rpcs(), made), [""; 0], "no recording");
    let script = script(&std::fs::read_to_string(recorded().join("script.jsonl")).unwrap()).unwrap();
    let made = script.into_iter().map(|call| call.rpc).collect();
    let hint = "tests/recorded/script.jsonl lacks a call: the next release is recorded with it";
    assert_eq!(missing(Schema::current().rpcs(), made), [""; 0], "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_release_before_sent_gets_the_answers_that_it_got_then() {
    let (before, recordings) = load(&recorded().join("v1")).unwrap();
    // It says nothing of versions, and reads the answers by its own schema.
    let mut player = Player::new(before, None).unwrap();
    player.make_certificate().unwrap();
    let mut wrong = Vec::new();
    for recording in &recordings {
        let (rpc, then) = (&recording.call.rpc, &recording.answer);
        match player.replay(recording).await {
            Ok(now) if (&now.code, &now.reason) != (&then.code, &then.reason) => {
                wrong.push(format!("{rpc} got {} {} and gets {} {}", then.code, then.reason, now.code, now.reason));
            }
            Ok(now) => {
                let lost: Vec<_> = then.fields.difference(&now.fields).cloned().collect();
                if !lost.is_empty() {
                    wrong.push(format!("the answer of {rpc} lacks {}", lost.join(", ")));
                }
            }
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} calls:\n  {}", wrong.len(), recordings.len(), wrong.join("\n  "));
}

async fn protocol(fleet: &Fleet, server: &str) -> (u32, u32) {
    let request = pb::GetServerRequest { server: server.into() };
    let server = fleet.server_service().get_server(request).await.unwrap().into_inner().server.unwrap();
    (server.protocol_oldest, server.protocol_newest)
}

/// Waits until the controller has met the agent that a server has now.
async fn meets(fleet: &Fleet, server: &str, speaks: Range) {
    until("the controller has met the agent", async || {
        let spoken = protocol(fleet, server).await;
        if spoken == (speaks.oldest(), speaks.newest()) { Ok(()) } else { Err(spoken) }
    })
    .await;
    fleet.all_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_this_release_and_of_the_one_before_are_one_fleet() {
    let mut settings = settings();
    settings.patience.versions = Duration::ZERO;
    settings.patience.look = Duration::from_millis(50);
    let memory = std::sync::Arc::new(feather_controller::dns::memory::Memory::new(feather_tests::fleet::ZONE));
    let mut fleet = Fleet::start_in((memory, None), &[("fra", "fra"), ("nyc", "nyc")], settings).await;
    assert_eq!(protocol(&fleet, "nyc").await, (version::OLDEST, version::CURRENT));
    fleet.seems("nyc", Release::default());
    meets(&fleet, "nyc", version::SILENT).await;

    fleet.add("alice", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("letter"), "dear bob").unwrap();
    for to in ["fra", "nyc"] {
        let moved = fleet.migrate("alice", to).await;
        assert_eq!(moved.state(), pb::OperationState::Succeeded, "to {to}: {:#?}", moved.operation);
        assert_eq!(std::fs::read_to_string(fleet.volume(to, "alice").join("letter")).unwrap(), "dear bob");
    }
    let list = pb::ListTenantsRequest::default();
    let tenants = fleet.tenants().list_tenants(list).await.unwrap().into_inner().tenants;
    assert_eq!(tenants.iter().map(|one| (&*one.name, &*one.server)).collect::<Vec<_>>(), [("alice", "nyc")]);

    let request = pb::ListWarningsRequest::default();
    let warning = until("the older one is warned of", async || {
        let warnings =
            WarningServiceClient::new(fleet.admin()).list_warnings(request).await.unwrap().into_inner().warnings;
        warnings.iter().find(|one| one.kind == "protocol").cloned().ok_or(warnings)
    })
    .await;
    assert_eq!(warning.subject, "server/nyc");
    assert!(warning.message.starts_with("nyc speaks protocol 1 and the controller 1-2: "), "{}", warning.message);
    let checks =
        StatusServiceClient::new(fleet.admin()).diagnose(pb::DiagnoseRequest {}).await.unwrap().into_inner().checks;
    let found: Vec<_> =
        checks.iter().filter(|one| one.check == "protocol").map(|one| (&*one.subject, &*one.next)).collect();
    assert_eq!(found, [("nyc", "upgrade the agent of nyc next")]);

    assert_eq!(fleet.remove("alice").await.state(), pb::OperationState::Succeeded);
    assert!(fleet.servers["nyc"].runtime.spec(&tenant("alice").container()).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_agent_cannot_do_is_said_in_words_and_changes_nothing() {
    let mut fleet = Fleet::start(&["fra", "nyc"]).await;
    fleet.add("alice", "nyc").await;
    let lacks = ["TenantService/RestartTenant", "TenantService/LimitTenant", "AccessService/SetRevocations"];
    fleet.seems("nyc", Release { lacks: lacks.into(), ..Release::default() });
    meets(&fleet, "nyc", version::SILENT).await;
    let starts = fleet.starts("nyc", "alice").len();
    let request = pb::RestartTenantRequest { request_id: request_id(), tenant: "alice".into() };
    let begun = fleet.tenants().restart_tenant(request).await.unwrap().into_inner().operation.unwrap();
    let ended = fleet.outcome(&begun.id).await;
    assert_eq!((ended.state(), &*ended.operation.reason), (pb::OperationState::Failed, reason::PROTOCOL));
    let wanted = "the agent of nyc speaks protocol 1 and cannot do TenantService/RestartTenant";
    assert!(ended.operation.error.contains(wanted), "{}", ended.operation.error);
    assert_eq!(fleet.starts("nyc", "alice").len(), starts, "it runs on");

    let change = Some(pb::LimitsChange { pids: Some(700), ..Default::default() });
    let request = pb::LimitTenantRequest { tenant: "alice".into(), change, dry_run: false };
    let refused = Error::from(fleet.tenants().limit_tenant(request).await.unwrap_err());
    assert_eq!((refused.code, &*refused.reason), (Code::Refused, reason::PROTOCOL), "{refused}");
    assert!(refused.message.contains("cannot do TenantService/LimitTenant"), "{refused}");
    assert_eq!(fleet.show("alice").await.limits.unwrap_or_default().pids, 0, "no limit was noted");

    // The rest of the fleet works as ever, and so does the older agent as far as it can.
    let moved = fleet.migrate("alice", "fra").await;
    assert_eq!(moved.state(), pb::OperationState::Succeeded, "{:#?}", moved.operation);
    assert_eq!(fleet.show("alice").await.state(), pb::TenantState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_common_version_is_told_apart_from_one_that_is_gone_and_does_nothing() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    let later = Range::new(version::CURRENT + 1, version::CURRENT + 2).unwrap();
    fleet.seems("nyc", Release { speaks: Some(later), ..Release::default() });
    let why = until("the controller says why", async || {
        let request = pb::GetServerRequest { server: "nyc".into() };
        let server = fleet.server_service().get_server(request).await.unwrap().into_inner().server.unwrap();
        let why = server.problems.iter().find(|problem| problem.contains("speaks protocol")).cloned();
        why.filter(|_| server.state() == pb::ServerState::Unreachable).ok_or(server)
    })
    .await;
    let wanted = "the controller speaks protocol 1-2 and the agent of nyc speaks 3-4: they have no version in common";
    assert!(why.starts_with(wanted) && why.contains("upgrade the controller"), "{why}");

    let channel = fleet.agent_channel("nyc", fleet.identity(Role::Controller, "controller"));
    let add = agent::AddTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation: 1,
        ..Default::default()
    };
    let refused = agent::tenant_service_client::TenantServiceClient::new(channel).add_tenant(add).await;
    let refused = Error::from(refused.err().unwrap());
    assert_eq!((refused.code, &*refused.reason), (Code::Refused, reason::PROTOCOL), "{refused}");
    assert!(fleet.servers["nyc"].runtime.spec(&tenant("alice").container()).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_a_common_version_are_refused_before_anything_is_done() {
    let fleet = Fleet::start(&["nyc"]).await;
    let later = Range::new(version::CURRENT + 1, version::CURRENT + 1);
    let add = pb::AddTenantRequest { request_id: request_id(), tenant: "alice".into(), ..Default::default() };
    let refused = TenantServiceClient::new(fleet.admin().saying(later)).add_tenant(add.clone()).await.unwrap_err();
    let refused = Error::from(refused);
    assert_eq!((refused.code, &*refused.reason), (Code::Refused, reason::PROTOCOL), "{refused}");
    let wanted = "admin's featherctl speaks protocol 3 and the controller speaks 1-2";
    assert!(refused.message.starts_with(wanted) && refused.message.contains("upgrade the controller"), "{refused}");
    let all = pb::ListTenantsRequest { include_removed: true, ..Default::default() };
    assert!(fleet.tenants().list_tenants(all).await.unwrap().into_inner().tenants.is_empty());
    let operations = fleet.operations().list_operations(pb::ListOperationsRequest::default()).await.unwrap();
    assert!(operations.into_inner().operations.is_empty(), "nothing was begun");
    // The release behind this one still speaks our newest version, and the one before says nothing.
    let next = Range::new(version::CURRENT, version::CURRENT + 1);
    let begun =
        TenantServiceClient::new(fleet.admin().saying(next)).add_tenant(add.clone()).await.unwrap().into_inner();
    let again = TenantServiceClient::new(fleet.admin().saying(None)).add_tenant(add).await.unwrap().into_inner();
    assert_eq!(begun.operation.unwrap().id, again.operation.unwrap().id, "the same request from another release");
}
