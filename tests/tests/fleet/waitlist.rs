//! From a form on a page to a tenant: sign-up, list, invitation, and what may break in between.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{Outcome, WORK_IMAGE, request_id},
    wait::until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn sign_up(fleet: &Fleet, server: &str, email: &str) {
    let form = format!("email={}", email.replace('@', "%40"));
    let mut stream = tokio::net::TcpStream::connect(fleet.servers[server].waitlist).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", form.len());
    stream.write_all((head + &form).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with(r#"{"ok":true}"#), "{answer}");
}

struct List {
    entries: Vec<pb::WaitlistEntry>,
    unreachable: Vec<String>,
}

impl List {
    fn emails(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.email.as_str()).collect()
    }
}

async fn list(fleet: &Fleet) -> List {
    let request = pb::ListEntriesRequest { server: String::new() };
    let mut pages = fleet.waitlist().list_entries(request).await.unwrap().into_inner();
    let mut list = List { entries: Vec::new(), unreachable: Vec::new() };
    while let Some(page) = pages.message().await.unwrap() {
        list.entries.extend(page.entries);
        list.unreachable.extend(page.unreachable_servers);
    }
    list
}

fn invitation(email: &str) -> pb::InviteRequest {
    pb::InviteRequest { request_id: request_id(), email: email.into(), ..Default::default() }
}

async fn try_invite(fleet: &Fleet, request: pb::InviteRequest) -> Result<pb::InviteResponse, Error> {
    fleet.waitlist().invite(request).await.map(tonic::Response::into_inner).map_err(Error::from)
}

async fn invite(fleet: &Fleet, email: &str) -> (String, Outcome) {
    let response = try_invite(fleet, invitation(email)).await.unwrap();
    (response.tenant, fleet.outcome(&response.operation.unwrap().id).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signed_up_anywhere_is_listed_once_and_still_after_a_restart() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    sign_up(&fleet, "nyc", "ada@example.org").await;
    sign_up(&fleet, "fra", "zoe@example.org").await;
    sign_up(&fleet, "fra", "ADA@example.org").await;
    fleet.kill_agent("nyc");
    fleet.start_agent("nyc");
    fleet.all_ready().await;
    let all = list(&fleet).await;
    assert_eq!(all.emails(), ["ada@example.org", "zoe@example.org"]);
    assert_eq!(all.entries[0].server, "nyc");
    let only = pb::ListEntriesRequest { server: "fra".into() };
    let mut pages = fleet.waitlist().list_entries(only).await.unwrap().into_inner();
    assert!(pages.message().await.unwrap().unwrap().entries.is_empty(), "the first message says what is missing");
    assert_eq!(pages.message().await.unwrap().unwrap().entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_makes_one_tenant_and_no_second() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    sign_up(&fleet, "fra", "Ada.Lovelace@example.org").await;
    let (tenant, outcome) = invite(&fleet, "ada.lovelace@EXAMPLE.org").await;
    assert_eq!((tenant.as_str(), outcome.state()), ("ada-lovelace", pb::OperationState::Succeeded));
    assert!(outcome.password.len() >= 10);
    assert_eq!(fleet.request(&outcome.operation.target, &tenant).status, 200);
    let entry = list(&fleet).await.entries.remove(0);
    assert_eq!((entry.tenant.as_str(), entry.invited.is_some()), ("ada-lovelace", true));

    let again = try_invite(&fleet, invitation("ada.lovelace@example.org")).await.unwrap_err();
    assert_eq!((again.reason.as_str(), again.metadata["tenant"].as_str()), (reason::ALREADY_INVITED, "ada-lovelace"));
    assert!(!again.message.contains('@') && again.message.contains("ada-lovelace"), "{again}");
    // Also when the tenant is gone: somebody else's invitation must not find its data.
    fleet.remove("ada-lovelace").await;
    assert_eq!(
        try_invite(&fleet, invitation("ada.lovelace@example.org")).await.unwrap_err().reason,
        reason::ALREADY_INVITED
    );
    sign_up(&fleet, "nyc", "ada.lovelace@example.net").await;
    assert_eq!(invite(&fleet, "ada.lovelace@example.net").await.0, "ada-lovelace2");
    let named = pb::InviteRequest { tenant: "ada-lovelace".into(), ..invitation("zoe@example.org") };
    sign_up(&fleet, "nyc", "zoe@example.org").await;
    assert_eq!(try_invite(&fleet, named).await.unwrap_err().reason, reason::TENANT_EXISTS);
    assert_eq!(invite(&fleet, "zoe@example.org").await.0, "zoe");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_on_the_list_is_not_invited_and_a_plan_invites_nobody() {
    let fleet = Fleet::start(&["nyc"]).await;
    assert_eq!(try_invite(&fleet, invitation("ada@example.org")).await.unwrap_err().reason, reason::NOT_ON_WAITLIST);
    assert_eq!(try_invite(&fleet, invitation("ada")).await.unwrap_err().reason, reason::INVALID_EMAIL);
    sign_up(&fleet, "nyc", "ada@example.org").await;
    let plan = pb::InviteRequest { dry_run: true, ..invitation("ada@example.org") };
    let plan = try_invite(&fleet, plan).await.unwrap();
    assert_eq!((plan.tenant.as_str(), plan.server.as_str(), plan.operation), ("ada", "nyc", None));
    assert!(list(&fleet).await.entries[0].invited.is_none());
    assert_eq!(invite(&fleet, "ada@example.org").await.1.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_failed_does_not_count() {
    use feather_agent::runtime::fake::Behaviour;
    let fleet = Fleet::start(&["nyc"]).await;
    sign_up(&fleet, "nyc", "ada@example.org").await;
    fleet.servers["nyc"].runtime.add_image(WORK_IMAGE, "sick", Behaviour::NeverHealthy);
    assert_eq!(invite(&fleet, "ada@example.org").await.1.state(), pb::OperationState::Failed);
    assert!(list(&fleet).await.entries[0].invited.is_none());
    fleet.servers["nyc"].runtime.add_image(WORK_IMAGE, "work", Behaviour::Healthy);
    let (tenant, outcome) = invite(&fleet, "ada@example.org").await;
    assert_eq!((tenant.as_str(), outcome.state()), ("ada", pb::OperationState::Succeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_controller_crashes_an_address_gets_one_tenant() {
    // The note, the beginning of its addition, and every line of that.
    for writes in 1..10 {
        let mut fleet = Fleet::start(&["nyc"]).await;
        sign_up(&fleet, "nyc", "ada@example.org").await;
        let request = invitation("ada@example.org");
        fleet.crash_after_writes(writes);
        let first = async {
            if let Ok(response) = try_invite(&fleet, request.clone()).await {
                fleet.outcome(&response.operation.unwrap().id).await;
            }
        };
        let ended = fleet.crash_or(first).await.is_some();
        fleet.kill_controller();
        fleet.start_controller().await;
        fleet.all_ready().await;
        // As featherctl does when the answer is lost: the same request again.
        let response = try_invite(&fleet, request).await.unwrap();
        assert_eq!(response.tenant, "ada", "after {writes} writes");
        let outcome = fleet.outcome(&response.operation.unwrap().id).await;
        assert_eq!(outcome.state(), pb::OperationState::Succeeded, "after {writes} writes");
        assert_eq!(
            try_invite(&fleet, invitation("ada@example.org")).await.unwrap_err().reason,
            reason::ALREADY_INVITED
        );
        let all = pb::ListTenantsRequest { include_removed: true, ..Default::default() };
        assert_eq!(fleet.tenants().list_tenants(all).await.unwrap().into_inner().tenants.len(), 1);
        if ended {
            assert!(writes > 3, "a crash in the middle was never tried");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_try_after_a_crash_before_the_addition_finds_the_address_free() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    sign_up(&fleet, "nyc", "ada@example.org").await;
    fleet.crash_after_writes(1);
    assert!(fleet.crash_or(try_invite(&fleet, invitation("ada@example.org"))).await.is_none());
    fleet.kill_controller();
    fleet.start_controller().await;
    fleet.all_ready().await;
    assert!(list(&fleet).await.entries[0].invited.is_none(), "nothing began");
    assert_eq!(invite(&fleet, "ada@example.org").await.1.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_at_servers_sees_no_addresses() {
    use feather_proto::{pb::controller::v1::waitlist_service_client::WaitlistServiceClient, tls::Role};
    let fleet = Fleet::start(&["nyc"]).await;
    sign_up(&fleet, "nyc", "ada@example.org").await;
    let mut viewer = WaitlistServiceClient::new(fleet.channel(fleet.identity(Role::Viewer, "victor")));
    let refused = viewer.list_entries(pb::ListEntriesRequest::default()).await.err().unwrap();
    assert_eq!(Error::from(refused).reason, reason::ROLE);
    assert_eq!(Error::from(viewer.invite(invitation("ada@example.org")).await.err().unwrap()).reason, reason::ROLE);
    let mut operator = WaitlistServiceClient::new(fleet.channel(fleet.identity(Role::Operator, "olga")));
    assert!(operator.invite(invitation("ada@example.org")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_address_is_forgotten_everywhere_and_its_tenant_stays() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    for server in ["nyc", "fra"] {
        sign_up(&fleet, server, "ada@example.org").await;
    }
    invite(&fleet, "ada@example.org").await;
    let request = pb::RemoveEntryRequest { email: "ADA@example.org".into() };
    fleet.faults.always("fra", "remove_sign_up", Fault::LoseRequest);
    let error = Error::from(fleet.waitlist().remove_entry(request.clone()).await.unwrap_err());
    assert_eq!(error.reason, reason::SERVER_UNREACHABLE);
    assert!(error.message.contains("fra") && !error.message.contains('@'), "{error}");
    fleet.faults.never("fra", "remove_sign_up");
    let removed = fleet.waitlist().remove_entry(request.clone()).await.unwrap().into_inner();
    assert_eq!((removed.servers, removed.tenant.as_str()), (vec!["fra".to_owned()], "ada"));
    assert!(list(&fleet).await.entries.is_empty());
    for server in ["nyc", "fra"] {
        let kept = std::fs::read_to_string(fleet.servers[server].state_dir.join("waitlist.jsonl")).unwrap();
        assert!(!kept.contains("example.org"), "{kept}");
    }
    let again = Error::from(fleet.waitlist().remove_entry(request).await.unwrap_err());
    assert_eq!(again.reason, reason::NOT_ON_WAITLIST);
    assert_eq!(fleet.show("ada").await.state(), pb::TenantState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_named_and_the_others_are_listed() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    sign_up(&fleet, "nyc", "ada@example.org").await;
    fleet.kill_agent("fra");
    until("fra is found silent", async || {
        let all = list(&fleet).await;
        if all.unreachable == ["fra"] { Ok(()) } else { Err(all.unreachable) }
    })
    .await;
    assert_eq!(list(&fleet).await.emails(), ["ada@example.org"]);
    assert_eq!(try_invite(&fleet, invitation("zoe@example.org")).await.unwrap_err().reason, reason::SERVER_UNREACHABLE);
    assert_eq!(invite(&fleet, "ada@example.org").await.1.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_retired_with_people_whom_nobody_else_has() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    for email in ["ada@example.org", "bea@example.org", "zoe@example.org"] {
        sign_up(&fleet, "nyc", email).await;
    }
    sign_up(&fleet, "fra", "zoe@example.org").await;
    let named = pb::InviteRequest { server: "fra".into(), ..invitation("bea@example.org") };
    let invited = try_invite(&fleet, named).await.unwrap();
    assert_eq!(fleet.outcome(&invited.operation.unwrap().id).await.state(), pb::OperationState::Succeeded);
    let request = pb::CordonServerRequest { server: "nyc".into(), cordoned: true, dry_run: false };
    fleet.server_service().cordon_server(request).await.unwrap();
    // She was put on fra, so names may lead to nyc by default: that is not what this is about.
    let retire = pb::RetireServerRequest { server: "nyc".into(), dns_elsewhere: true, ..Default::default() };
    let refused = Error::from(fleet.server_service().retire_server(retire.clone()).await.unwrap_err());
    assert!(refused.message.starts_with("1 signed up on nyc") && !refused.message.contains('@'), "{refused:?}");
    assert!(refused.message.contains("--discard-waitlist"), "{refused:?}");
    let sure = pb::RetireServerRequest { discard_waitlist: true, ..retire };
    fleet.server_service().retire_server(sure).await.unwrap();
    assert_eq!(list(&fleet).await.emails(), ["zoe@example.org"]);
}
