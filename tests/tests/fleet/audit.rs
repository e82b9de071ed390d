//! The audit log of a whole fleet: every change and every refusal is in it before the caller hears of it, and nothing secret is.

use feather_proto::tls::Channel;
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{
        self as pb, audit_service_client::AuditServiceClient, enrollment_service_client::EnrollmentServiceClient,
        tenant_service_client::TenantServiceClient, user_service_client::UserServiceClient,
    },
    tls::{self, Principal, Role, Trust},
};
use feather_tests::{Fleet, fleet::request_id};

fn audit(fleet: &Fleet) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(fleet.admin())
}

async fn rows(fleet: &Fleet, user: &str) -> Vec<pb::AuditEntry> {
    let request = pb::ListAuditRequest { user: user.into(), ..Default::default() };
    audit(fleet).list_audit(request).await.unwrap().into_inner().entries
}

async fn verify(fleet: &Fleet, expect_head: &str) -> pb::VerifyAuditResponse {
    let request = pb::VerifyAuditRequest { expect_head: expect_head.into() };
    audit(fleet).verify_audit(request).await.unwrap().into_inner()
}

fn call(row: &pb::AuditEntry) -> &str {
    row.rpc.rsplit('/').next().unwrap()
}

fn nobody(fleet: &Fleet) -> Channel {
    let trust = Trust::CaOnly(fleet.ca().ca_pem().to_owned());
    tls::channel(fleet.network.from("stranger"), "controller:7400", &Principal::controller(), &trust).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_refusals_are_put_down_and_looking_is_not() {
    let fleet = Fleet::start(&["nyc"]).await;
    let ada = fleet.channel(fleet.identity(Role::Operator, "ada"));
    let mut tenants = TenantServiceClient::new(ada.clone());
    let add = |dry_run| pb::AddTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        server: "nyc".into(),
        dry_run,
        ..Default::default()
    };
    tenants.add_tenant(add(true)).await.unwrap();
    tenants.list_tenants(pb::ListTenantsRequest::default()).await.unwrap();
    assert!(rows(&fleet, "ada").await.is_empty());

    let added = tenants.add_tenant(add(false)).await.unwrap().into_inner().operation.unwrap();
    fleet.outcome(&added.id).await;
    tenants.add_tenant(add(false)).await.unwrap_err();
    let request = pb::ResetPasswordRequest { request_id: request_id(), tenant: "alice".into() };
    let password = tenants.reset_password(request).await.unwrap().into_inner().password;
    let request = pb::AddUserRequest { name: "eve".into(), role: "admin".into(), ..Default::default() };
    UserServiceClient::new(ada).add_user(request.clone()).await.err().unwrap();

    let told = rows(&fleet, "ada").await;
    let ends: Vec<_> = told.iter().map(|row| (call(row), row.code.as_str(), row.reason.as_str())).collect();
    assert_eq!(
        ends,
        [
            ("AddTenant", "OK", ""),
            ("AddTenant", "AlreadyExists", reason::TENANT_EXISTS),
            ("ResetPassword", "OK", ""),
            ("AddUser", "PermissionDenied", reason::ROLE),
        ]
    );
    assert_eq!((told[0].operation.as_str(), told[0].caller.as_str()), (added.id.as_str(), "operator/ada"));
    assert!(told[0].arguments.contains(r#""tenant":"alice""#), "{}", told[0].arguments);
    assert!(!password.is_empty() && told.iter().all(|row| !format!("{row:?}").contains(&password)));

    // Tokens are hidden, from both sides; a server that joins and a stranger are callers like others.
    let token = UserServiceClient::new(fleet.admin()).add_user(request).await.unwrap().into_inner().token;
    let join = pb::JoinRequest { secret: "not-a-secret".into(), ..Default::default() };
    EnrollmentServiceClient::new(nobody(&fleet)).join(join).await.unwrap_err();
    let all = rows(&fleet, "").await;
    let shown = format!("{all:?}");
    assert!(!shown.contains(&token) && !shown.contains("not-a-secret") && shown.contains("(hidden)"), "{shown}");
    let last = all.last().unwrap();
    assert_eq!((call(last), last.caller.as_str()), ("Join", ""));
    assert!(all.iter().any(|row| call(row) == "Join" && row.code == "OK"), "nyc joined: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_one_over_restarts_and_over_callers_that_leave() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    let first = verify(&fleet, "").await;
    assert!(first.problem.is_empty() && first.rows > 0, "{first:?}");
    fleet.stop_controller().await;
    fleet.start_controller().await;
    fleet.all_ready().await;
    // Many at once, and half of them do not wait for their answers.
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let mut client = EnrollmentServiceClient::new(fleet.admin());
            let invitation = pb::CreateJoinTokenRequest { server: format!("s{number}"), ..Default::default() };
            tokio::spawn(async move { client.create_join_token(invitation).await.map(drop).map_err(Error::from) })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        match number % 2 {
            0 => call.await.unwrap().unwrap(),
            _ => call.abort(),
        }
    }
    let second = verify(&fleet, &first.head).await;
    assert!(second.problem.is_empty() && second.rows >= first.rows + 10, "{second:?}");
    let wrong = verify(&fleet, &"ab".repeat(32)).await;
    assert!(wrong.problem.contains("belongs to no row"), "{wrong:?}");
    let viewer = fleet.channel(fleet.identity(Role::Viewer, "eve"));
    let error =
        Error::from(AuditServiceClient::new(viewer).list_audit(pb::ListAuditRequest::default()).await.unwrap_err());
    assert!(error.is(reason::ROLE), "{error}");
}
