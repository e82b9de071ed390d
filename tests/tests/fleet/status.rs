//! What one look at the whole fleet shows, and why tenants are where they are.

use feather_proto::tls::Channel;
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{self as pb, status_service_client::StatusServiceClient},
    tls::Role,
};
use feather_tests::{Fleet, wait::until};

fn client(fleet: &Fleet) -> StatusServiceClient<Channel> {
    StatusServiceClient::new(fleet.channel(fleet.identity(Role::Viewer, "vera")))
}

async fn explain(fleet: &Fleet, tenant: &str) -> Result<pb::Explanation, Error> {
    let request = pb::ExplainTenantRequest { tenant: tenant.into() };
    Ok(client(fleet).explain_tenant(request).await?.into_inner().explanation.unwrap())
}

fn said(explanation: &pb::Explanation, topic: &str) -> Vec<String> {
    explanation.facts.iter().filter(|fact| fact.topic == topic).map(|fact| fact.text.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_counts_what_there_is_and_shows_what_is_under_way() {
    let mut fleet = Fleet::start(&["fra", "nyc"]).await;
    fleet.add("alice", "nyc").await;
    fleet.add("bob", "nyc").await;
    let status = until("both run", async || {
        let status = client(&fleet).get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
        let running = status.tenants.iter().find(|one| one.state() == pb::TenantState::Running).map(|one| one.count);
        if running == Some(2) { Ok(status) } else { Err(format!("{:?}", status.tenants)) }
    })
    .await;
    assert_eq!(status.servers.iter().map(|one| one.tenants).collect::<Vec<_>>(), [0, 2]);
    assert!(status.operations.is_empty() && status.certificate.is_none(), "{status:?}");
    assert_eq!(status.dns.unwrap().zone, "test/inceptel.ai");
    // A move whose target is gone is tried on, and seen.
    fleet.kill_agent("fra");
    let begun = fleet.begin_migrate("alice", "fra").await;
    if let Ok(operation) = begun {
        let shown = client(&fleet).get_status(pb::GetStatusRequest {}).await.unwrap().into_inner().operations;
        assert!(shown.iter().all(|one| one.operation.as_ref().unwrap().id == operation.id), "{shown:?}");
        fleet.outcome(&operation.id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_was_moved_is_explained_by_the_move() {
    let fleet = Fleet::start(&["ams", "fra", "nyc"]).await;
    fleet.add("alice", "nyc").await;
    let moved = fleet.migrate("alice", "fra").await;
    let explanation = until("nyc tells what it keeps", async || {
        let explanation = explain(&fleet, "alice").await?;
        let kept = explanation.facts.iter().any(|fact| fact.topic == "copy" && fact.at.is_some());
        if kept { Ok(explanation) } else { Err(Error::bug(format!("{explanation:#?}"))) }
    })
    .await;
    assert!(said(&explanation, "now")[0].starts_with("alice lives on fra"), "{explanation:#?}");
    let placed = format!("admin/admin moved it from nyc to fra ({})", moved.operation.id);
    assert_eq!(said(&explanation, "placed"), [placed]);
    assert!(said(&explanation, "why").iter().any(|line| line.starts_with("fra: chosen")), "{explanation:#?}");
    assert!(said(&explanation, "copy")[0].starts_with("nyc keeps a copy"), "{explanation:#?}");
    assert!(explanation.next.iter().any(|next| next.contains("`featherctl tenant migrate alice --undo`")));
    assert_eq!(explain(&fleet, "nobody").await.unwrap_err().reason, reason::TENANT_NOT_FOUND);
    let request = pb::ExplainServerRequest { server: "fra".into() };
    let server = client(&fleet).explain_server(request).await.unwrap().into_inner().explanation.unwrap();
    assert_eq!(said(&server, "tenants"), ["alice lives here"]);
    let request = pb::ExplainServerRequest { server: "lax".into() };
    let unknown = Error::from(client(&fleet).explain_server(request).await.unwrap_err());
    assert_eq!(unknown.reason, reason::SERVER_NOT_FOUND);
}
