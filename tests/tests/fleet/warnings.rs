//! What needs a person: warnings that come, are noted, and go by themselves.

use std::{sync::Arc, time::Duration};

use feather_controller::{dns::memory::Memory, warnings::Patience, world::Settings};
use feather_proto::tls::Channel;
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{
        self as pb, status_service_client::StatusServiceClient, warning_service_client::WarningServiceClient,
    },
    tls::Role,
};
use feather_tests::{
    Fleet,
    fleet::{ZONE, settings},
    wait::until,
};

/// A fleet whose controller tells at once what is wrong.
async fn impatient(servers: &[&str]) -> Fleet {
    let patience = Patience {
        moment: Duration::ZERO,
        unreachable: Duration::ZERO,
        look: Duration::from_millis(20),
        ..Patience::default()
    };
    let servers: Vec<_> = servers.iter().map(|name| (*name, *name)).collect();
    let settings = Settings { patience, ..settings() };
    Fleet::start_in((Arc::new(Memory::new(ZONE)), None), &servers, settings).await
}

fn client(fleet: &Fleet) -> WarningServiceClient<Channel> {
    WarningServiceClient::new(fleet.admin())
}

async fn list(fleet: &Fleet, all: bool) -> Result<pb::ListWarningsResponse, String> {
    let request = pb::ListWarningsRequest { acknowledged: all };
    let reply = client(fleet).list_warnings(request).await.map_err(|status| status.to_string())?;
    Ok(reply.into_inner())
}

/// Waits until these are shown as new, and so many more are known.
async fn shows(fleet: &Fleet, wanted: &[&str], known: u32) -> Vec<pb::Warning> {
    until(&format!("warnings: {wanted:?}"), async || {
        let shown = list(fleet, false).await?;
        // Names of servers are no addresses, in a fleet without a network.
        let rest: Vec<_> = shown.warnings.into_iter().filter(|one| one.kind != "dns-address").collect();
        let ids: Vec<_> = rest.iter().map(|one| one.id.as_str()).collect();
        if ids == wanted && shown.acknowledged == known { Ok(rest) } else { Err(format!("{rest:?}")) }
    })
    .await
}

async fn acknowledge(fleet: &Fleet, id: &str, note: &str) -> Result<pb::Warning, Error> {
    let request = pb::AcknowledgeWarningRequest { id: id.into(), note: note.into() };
    Ok(client(fleet).acknowledge_warning(request).await?.into_inner().warning.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_told_noted_remembered_over_a_restart_and_new_when_it_falls_silent_again() {
    let mut fleet = impatient(&["fra", "nyc"]).await;
    shows(&fleet, &[], 0).await;
    fleet.kill_agent("nyc");
    let shown = shows(&fleet, &["unreachable/nyc"], 0).await;
    assert_eq!(shown[0].subject, "server/nyc");
    let count = fleet.server_service().list_servers(pb::ListServersRequest {}).await.unwrap().into_inner().warnings;
    assert_eq!(usize::try_from(count).unwrap(), list(&fleet, false).await.unwrap().warnings.len());

    let noted = acknowledge(&fleet, "unreachable/nyc", "on my way").await.unwrap();
    let by = noted.acknowledged.unwrap();
    assert_eq!((by.by.as_str(), by.note.as_str()), ("admin/admin", "on my way"));
    shows(&fleet, &[], 1).await;

    // A controller that has just started does not know of the silence, and forgets nothing for that.
    fleet.kill_controller();
    fleet.start_controller().await;
    shows(&fleet, &[], 1).await;
    let all = list(&fleet, true).await.unwrap().warnings;
    let kept = all.iter().find(|one| one.id == "unreachable/nyc").unwrap();
    assert_eq!((kept.since, kept.acknowledged.clone().unwrap().note.as_str()), (shown[0].since, "on my way"));

    fleet.start_agent("nyc");
    shows(&fleet, &[], 0).await;
    fleet.kill_agent("nyc");
    let again = shows(&fleet, &["unreachable/nyc"], 0).await;
    assert!(again[0].since.unwrap().seconds >= shown[0].since.unwrap().seconds);
    // It leaves the fleet, and its warnings with it.
    fleet
        .server_service()
        .remove_server(pb::RemoveServerRequest { server: "nyc".into(), dry_run: false })
        .await
        .unwrap();
    shows(&fleet, &[], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_change_tenants_takes_note_and_only_of_what_is_shown() {
    let mut fleet = impatient(&["nyc"]).await;
    fleet.kill_agent("nyc");
    shows(&fleet, &["unreachable/nyc"], 0).await;
    let viewer = WarningServiceClient::new(fleet.channel(fleet.identity(Role::Viewer, "vera")));
    viewer.clone().list_warnings(pb::ListWarningsRequest::default()).await.unwrap();
    let request = pb::AcknowledgeWarningRequest { id: "unreachable/nyc".into(), note: String::new() };
    let denied = Error::from(viewer.clone().acknowledge_warning(request).await.unwrap_err());
    assert_eq!(denied.reason, reason::ROLE);
    let unknown = acknowledge(&fleet, "unreachable/lax", "").await.unwrap_err();
    assert_eq!(unknown.reason, reason::WARNING_NOT_FOUND);
    for bad in ["x".repeat(501), "two\nlines".into()] {
        assert_eq!(acknowledge(&fleet, "unreachable/nyc", &bad).await.unwrap_err().reason, reason::INVALID_FIELD);
    }
    shows(&fleet, &["unreachable/nyc"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_work_image_is_told_until_it_has_it() {
    let fleet = impatient(&["nyc"]).await;
    fleet.servers["nyc"].runtime.remove_image(feather_tests::fleet::WORK_IMAGE);
    until("nyc's missing image is told", async || {
        let shown = list(&fleet, false).await?;
        let told =
            shown.warnings.iter().any(|one| one.kind == "problem" && one.message.contains("featherctl image load nyc"));
        if told { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    fleet.servers["nyc"].runtime.add_image(
        feather_tests::fleet::WORK_IMAGE,
        "work",
        feather_agent::runtime::fake::Behaviour::Healthy,
    );
    shows(&fleet, &[], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_calls_its_tenants_otherwise_is_told_and_an_invitation_says_what_is_right() {
    let servers = [("nyc", "nyc")];
    let settings = Settings { domain_suffix: "users.example.org".into(), ..settings() };
    let zone = Arc::new(Memory::new("example.org"));
    let fleet = Fleet::start_in((zone, None), &servers, settings).await;
    let shown = shows(&fleet, &["domain-suffix/nyc"], 0).await;
    for suffix in ["users.inceptel.ai", "users.example.org"] {
        assert!(shown[0].message.contains(suffix), "{shown:?}");
    }
    let diagnosed =
        StatusServiceClient::new(fleet.admin()).diagnose(pb::DiagnoseRequest {}).await.unwrap().into_inner();
    let found = diagnosed.checks.iter().find(|one| one.message == shown[0].message);
    assert_eq!(found.map(|one| one.subject.as_str()), Some("nyc"), "{diagnosed:#?}");
    let invitation = pb::CreateJoinTokenRequest { server: "fra".into(), ..Default::default() };
    let answer = fleet.enrollment().create_join_token(invitation).await.unwrap().into_inner();
    assert_eq!(answer.domain_suffix, "users.example.org");
}
