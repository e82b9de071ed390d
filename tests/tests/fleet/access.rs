//! People and servers that are let in, and those that are not any more: at once, on open connections, on both sides.

#![allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]

use feather_proto::tls::Channel;
use feather_proto::{
    error::{Code, Error, reason},
    login_token::LoginToken,
    pb::{
        agent::v1::{self as agent, transfer_service_client::TransferServiceClient},
        controller::v1::{
            self as pb, operation_service_client::OperationServiceClient, server_service_client::ServerServiceClient,
            tenant_service_client::TenantServiceClient, user_service_client::UserServiceClient,
        },
    },
    tls::{self, Identity, Principal, Role, Rotating, Trust, csr},
};
use feather_tests::{Fleet, faults::Fault, fleet::request_id, wait::until};
use futures::StreamExt as _;

fn users(fleet: &Fleet) -> UserServiceClient<Channel> {
    UserServiceClient::new(fleet.admin())
}

async fn add(fleet: &Fleet, name: &str, role: &str, again: bool) -> Result<LoginToken, Error> {
    let request = pb::AddUserRequest { name: name.into(), role: role.into(), again, ..Default::default() };
    users(fleet).add_user(request).await?.into_inner().token.parse()
}

async fn log_in(fleet: &Fleet, token: &LoginToken, key: &(String, String)) -> Result<Identity, Error> {
    let (key_pem, csr_pem) = key;
    let trust = Trust::CaOnly(fleet.ca().ca_pem().to_owned());
    let channel =
        tls::channel(fleet.network.from("person"), &token.controller, &Principal::controller(), &trust).unwrap();
    let request = pb::LoginRequest { secret: token.secret.clone(), csr_pem: csr_pem.clone() };
    let answer = UserServiceClient::new(channel).login(request).await?.into_inner();
    Ok(Identity { certificate_pem: answer.certificate_pem, key_pem: key_pem.clone(), ca_pem: answer.ca_pem })
}

async fn person(fleet: &Fleet, name: &str, role: &str) -> Identity {
    let token = add(fleet, name, role, false).await.unwrap();
    log_in(fleet, &token, &csr(name).unwrap()).await.unwrap()
}

async fn revoke(fleet: &Fleet, name: &str) -> Result<(), Error> {
    let request = pb::RevokeUserRequest { name: name.into(), unseen: false };
    Ok(users(fleet).revoke_user(request).await.map(drop)?)
}

async fn list(channel: Channel) -> Result<(), Error> {
    Ok(TenantServiceClient::new(channel).list_tenants(pb::ListTenantsRequest::default()).await.map(drop)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_once_with_a_key_of_its_own_and_may_what_its_role_says() {
    let fleet = Fleet::start(&["nyc"]).await;
    let token = add(&fleet, "ada", "operator", false).await.unwrap();
    let (key, other) = (csr("ada").unwrap(), csr("ada").unwrap());
    let identity = log_in(&fleet, &token, &key).await.unwrap();
    assert_eq!(identity.principal().unwrap(), Principal { role: Role::Operator, name: "ada".into() });
    log_in(&fleet, &token, &key).await.expect("the first reply may have been lost");
    assert_eq!(log_in(&fleet, &token, &other).await.unwrap_err().reason, reason::JOIN_TOKEN);
    let wrong = LoginToken { secret: "x".into(), ..token.clone() };
    assert_eq!(log_in(&fleet, &wrong, &other).await.unwrap_err().reason, reason::JOIN_TOKEN);

    let channel = fleet.channel(identity.clone());
    list(channel.clone()).await.unwrap();
    let invite = pb::CreateJoinTokenRequest { server: "fra".into(), ..Default::default() };
    let mut enrollment = pb::enrollment_service_client::EnrollmentServiceClient::new(channel.clone());
    assert_eq!(Error::from(enrollment.create_join_token(invite).await.err().unwrap()).reason, reason::ROLE);
    let request = pb::AddUserRequest { name: "eve".into(), role: "admin".into(), ..Default::default() };
    let error = Error::from(UserServiceClient::new(channel.clone()).add_user(request).await.err().unwrap());
    assert_eq!(error.reason, reason::ROLE, "an operator makes no admins");

    let (_, csr_pem) = csr("ada").unwrap();
    let renewed =
        UserServiceClient::new(channel).renew_login(pb::RenewLoginRequest { csr_pem }).await.unwrap().into_inner();
    let renewed = Identity { certificate_pem: renewed.certificate_pem, ..identity };
    assert_eq!(renewed.principal().unwrap(), Principal { role: Role::Operator, name: "ada".into() });

    let shown = users(&fleet).list_users(pb::ListUsersRequest {}).await.unwrap().into_inner().users;
    let shown: Vec<_> =
        shown.iter().map(|user| (user.name.as_str(), user.role.as_str(), user.added_by.as_str())).collect();
    assert_eq!(shown, [("ada", "operator", "admin/admin"), ("admin", "admin", "")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_is_out_at_once_on_open_connections_and_in_the_middle_of_calls() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    let ada = person(&fleet, "ada", "operator").await;
    let channel = fleet.channel(ada.clone());
    // An operation that goes on for as long as its agent does not answer.
    fleet.faults.at(0, Fault::Late);
    let add_alice = pb::AddTenantRequest { request_id: request_id(), tenant: "alice".into(), ..Default::default() };
    let begun = TenantServiceClient::new(channel.clone()).add_tenant(add_alice).await.unwrap().into_inner();
    fleet.kill_agent("nyc");
    let watch = pb::WatchOperationRequest { id: begun.operation.unwrap().id };
    let mut stream = OperationServiceClient::new(channel.clone()).watch_operation(watch).await.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();

    revoke(&fleet, "ada").await.unwrap();
    let rest = async { stream.filter_map(|message| std::future::ready(message.err())).next().await };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), rest).await.expect("the stream ends");
    assert!(Error::from(ended.expect("it says why")).is(reason::REVOKED));
    let error = list(channel).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Denied, reason::REVOKED), "{error}");
    let error = list(fleet.channel(ada.clone())).await.unwrap_err();
    assert!(error.is(reason::REVOKED), "a new connection: {error}");

    // Also by the next controller.
    fleet.stop_controller().await;
    fleet.start_controller().await;
    assert!(list(fleet.channel(ada.clone())).await.unwrap_err().is(reason::REVOKED));
    revoke(&fleet, "ada").await.expect("it may be repeated");
    let back = person(&fleet, "ada", "viewer").await;
    list(fleet.channel(back)).await.expect("a new certificate is a new beginning");
    assert!(list(fleet.channel(ada)).await.unwrap_err().is(reason::REVOKED), "and the old one stays out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_cannot_be_revoked_and_a_lost_certificate_is_void_when_its_owner_logs_in_again() {
    let fleet = Fleet::start(&[]).await;
    let error = revoke(&fleet, "admin").await.unwrap_err();
    assert!(error.is(reason::LAST_ADMIN), "{error}");
    assert_eq!(revoke(&fleet, "mallory").await.unwrap_err().reason, reason::USER_NOT_FOUND);
    assert_eq!(add(&fleet, "admin", "admin", false).await.unwrap_err().reason, reason::USER_EXISTS);
    assert_eq!(add(&fleet, "ada", "king", false).await.unwrap_err().reason, reason::INVALID_FIELD);

    let first = person(&fleet, "ada", "admin").await;
    let void = add(&fleet, "ada", "admin", true).await.unwrap();
    let token = add(&fleet, "ada", "admin", true).await.unwrap();
    list(fleet.channel(first.clone())).await.expect("until the new one is used");
    let key = csr("ada").unwrap();
    assert_eq!(log_in(&fleet, &void, &key).await.unwrap_err().reason, reason::JOIN_TOKEN);
    let second = log_in(&fleet, &token, &key).await.unwrap();
    assert!(list(fleet.channel(first)).await.unwrap_err().is(reason::REVOKED));
    list(fleet.channel(second.clone())).await.unwrap();
    // With another admin there, the first one may go, and may take itself out.
    revoke(&fleet, "admin").await.expect("it hears that it was done");
    let mut ada = UserServiceClient::new(fleet.channel(second));
    let request = pb::RevokeUserRequest { name: "ada".into(), unseen: false };
    assert!(Error::from(ada.revoke_user(request).await.unwrap_err()).is(reason::LAST_ADMIN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_server_is_refused_by_controller_and_agents_at_once_and_over_their_restarts() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    let gone = Identity::load(&fleet.servers["fra"].state_dir.join("agent.identity")).unwrap();
    let trust = || Trust::Mutual(Rotating::new(gone.clone()).unwrap());
    let member =
        tls::channel(fleet.network.from("fra"), "controller:7400", &Principal::controller(), &trust()).unwrap();
    let renew = async || {
        let (_, csr_pem) = csr("fra").unwrap();
        let mut client = pb::enrollment_service_client::EnrollmentServiceClient::new(member.clone());
        client.renew_certificate(pb::RenewCertificateRequest { csr_pem }).await.map(drop).map_err(Error::from)
    };
    renew().await.unwrap();
    let peer = tls::channel(fleet.network.from("fra"), "nyc:7443", &Principal::agent("nyc"), &trust()).unwrap();
    let fetch = async || {
        let begin = agent::SendVolumeBegin { tenant: "alice".into(), generation: 1, ..Default::default() };
        let event = Some(agent::send_volume_request::Event::Begin(begin));
        let asked = futures::stream::iter([agent::SendVolumeRequest { event }]);
        TransferServiceClient::new(peer.clone()).send_volume(asked).await.map(drop).map_err(Error::from)
    };
    assert!(fetch().await.unwrap_err().is(reason::TICKET), "it is heard, and has no ticket");

    let remove = pb::RemoveServerRequest { server: "fra".into(), dry_run: false };
    ServerServiceClient::new(fleet.admin()).remove_server(remove).await.unwrap();
    assert!(renew().await.unwrap_err().is(reason::REVOKED));
    let refused = async || match fetch().await {
        Err(error) if error.is(reason::REVOKED) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("nyc knows, on a connection that is open", &refused).await;
    fleet.kill_agent("nyc");
    fleet.stop_controller().await;
    fleet.start_agent("nyc");
    until("nyc knows it still, without a controller", &refused).await;

    // By another invitation the same machine is in again, with another certificate.
    fleet.start_controller().await;
    fleet.kill_agent("fra");
    std::fs::remove_file(fleet.servers["fra"].state_dir.join("agent.identity")).unwrap();
    fleet.enter("fra").await;
    fleet.start_agent("fra");
    fleet.all_ready().await;
    assert!(renew().await.unwrap_err().is(reason::REVOKED), "the old one is refused for good");
    fleet.add("alice", "fra").await;
    assert_eq!(fleet.migrate("alice", "nyc").await.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_in_the_place_of_a_removed_server_is_not_dialled() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    let stale = fleet.servers["fra"].state_dir.join("stale");
    let own = fleet.servers["fra"].state_dir.join("agent.identity");
    std::fs::copy(&own, &stale).unwrap();
    fleet.kill_agent("fra");
    fleet.rejoin("fra").await;
    fleet.all_ready().await;
    // The machine from before comes back at the same address.
    fleet.kill_agent("fra");
    std::fs::copy(&stale, &own).unwrap();
    fleet.start_agent("fra");
    until("the controller does not take it for fra", async || {
        let request = pb::GetServerRequest { server: "fra".into() };
        let server = fleet.server_service().get_server(request).await.unwrap().into_inner().server.unwrap();
        match server.state() {
            pb::ServerState::Unreachable if server.problems.iter().any(|one| one.contains("no member")) => Ok(()),
            other => Err(format!("{other:?} {:?}", server.problems)),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_out_while_its_owner_is_revoked_is_revoked_with_it() {
    let fleet = Fleet::start(&[]).await;
    let ada = person(&fleet, "ada", "operator").await;
    let asked = (0..16).map(|_| {
        let (channel, (key_pem, csr_pem), ada) = (fleet.channel(ada.clone()), csr("ada").unwrap(), ada.clone());
        async move {
            let mut client = UserServiceClient::new(channel);
            let renewed = client.renew_login(pb::RenewLoginRequest { csr_pem }).await.ok()?.into_inner();
            Some(Identity { certificate_pem: renewed.certificate_pem, key_pem, ..ada })
        }
    });
    let (renewed, revoked) = tokio::join!(futures::future::join_all(asked), revoke(&fleet, "ada"));
    revoked.unwrap();
    for identity in renewed.into_iter().flatten() {
        assert!(list(fleet.channel(identity)).await.unwrap_err().is(reason::REVOKED));
    }
    // In the same second as well: who is let in again begins behind what is refused, and is refused like everybody.
    for _ in 0..3 {
        let back = person(&fleet, "ada", "operator").await;
        list(fleet.channel(back.clone())).await.expect("it was let in");
        revoke(&fleet, "ada").await.unwrap();
        assert!(list(fleet.channel(back)).await.unwrap_err().is(reason::REVOKED));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_admins_who_revoke_each_other_at_once_are_not_both_out() {
    let fleet = Fleet::start(&[]).await;
    let (ada, bob) = (person(&fleet, "ada", "admin").await, person(&fleet, "bob", "admin").await);
    let out = async |by: &Identity, name: &str| {
        let request = pb::RevokeUserRequest { name: name.into(), unseen: false };
        let mut client = UserServiceClient::new(fleet.channel(by.clone()));
        client.revoke_user(request).await.map(drop).map_err(Error::from)
    };
    out(&ada, "admin").await.unwrap();
    let (of_bob, of_ada) = tokio::join!(out(&ada, "bob"), out(&bob, "ada"));
    assert!(of_bob.is_ok() != of_ada.is_ok(), "{of_bob:?} {of_ada:?}");
    let (left, error) = if of_bob.is_ok() { (ada, of_ada) } else { (bob, of_bob) };
    list(fleet.channel(left)).await.expect("somebody is left");
    let error = error.unwrap_err();
    assert!(error.is(reason::REVOKED) || error.is(reason::LAST_ADMIN), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_ends_with_the_certificate_that_it_was_opened_with() {
    let fleet = Fleet::start(&[]).await;
    let ada = Principal { role: Role::Viewer, name: "ada".into() };
    let short = fleet.ca().issue(&ada, time::Duration::seconds(5), time::OffsetDateTime::now_utc()).unwrap();
    let channel = fleet.channel(short);
    list(channel.clone()).await.expect("it holds yet");
    until("it has ended, on the connection that is open", async || match list(channel.clone()).await {
        Err(error) => Ok(error),
        Ok(()) => Err("it is heard"),
    })
    .await;
}
