//! Bad input: each is refused with its code and its reason, and nothing is half done.

#![allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]

use std::time::Duration;

use feather_agent::runtime::{Capacity, fake::Behaviour};
use feather_proto::{
    error::{Code, Error, reason},
    pb::{agent::v1 as agent, controller::v1 as pb},
    tls::{Identity, Principal, Role, Trust, channel, csr},
};
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{WORK_IMAGE, request_id},
    wait::{until, within},
};

async fn add(fleet: &Fleet, name: &str, server: &str) -> Error {
    match fleet.try_add(name, server).await {
        Err(error) => error,
        Ok(outcome) => panic!("{name} on {server:?} was accepted: {outcome:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_and_servers_are_refused_with_their_reasons() {
    let fleet = Fleet::start(&["nyc"]).await;
    for (name, server, code, why) in [
        ("Alice", "", Code::Invalid, reason::INVALID_NAME),
        ("alice-", "", Code::Invalid, reason::INVALID_NAME),
        ("../etc", "", Code::Invalid, reason::INVALID_NAME),
        ("www", "", Code::Invalid, reason::RESERVED_NAME),
        ("alice", "ams", Code::NotFound, reason::SERVER_NOT_FOUND),
        ("alice", "NYC", Code::Invalid, reason::INVALID_NAME),
    ] {
        let error = add(&fleet, name, server).await;
        assert_eq!((error.code, error.reason.as_str()), (code, why), "{name:?} on {server:?}: {error}");
    }
    fleet.add("alice", "").await;
    assert_eq!(add(&fleet, "alice", "").await.reason, reason::TENANT_EXISTS);
    assert_eq!(fleet.show("alice").await.server, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_to_nowhere_or_to_where_it_is_are_refused() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    for (name, to, code, why) in [
        ("bob", "fra", Code::NotFound, reason::TENANT_NOT_FOUND),
        ("alice", "ams", Code::NotFound, reason::SERVER_NOT_FOUND),
        ("alice", "nyc", Code::Refused, reason::WRONG_STATE),
    ] {
        let error = fleet.begin_migrate(name, to).await.unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (code, why), "{name} to {to}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_fleet_says_which_filter_emptied_the_list() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    const MIB: u64 = 1 << 20;
    let roomy = Capacity {
        memory_total_bytes: 4096 * MIB,
        memory_free_bytes: 2048 * MIB,
        disk_total_bytes: 9999 * MIB,
        disk_free_bytes: 9000 * MIB,
        cores: 2,
    };
    fleet.servers["nyc"].runtime.set_capacity(Capacity { memory_free_bytes: MIB, ..roomy });
    fleet.servers["fra"].runtime.set_capacity(Capacity { disk_free_bytes: MIB, ..roomy });
    let error = until("the sizes are known", async || {
        let request = pb::AddTenantRequest { tenant: "alice".into(), dry_run: true, ..Default::default() };
        match fleet.tenants().add_tenant(request).await {
            Ok(reply) => Err(reply.into_inner().explanation),
            Err(status) => Ok(Error::from(status)),
        }
    })
    .await;
    assert_eq!((error.code, error.reason.as_str()), (Code::Full, reason::NO_ROOM));
    assert!(error.message.contains("nyc: only 1 MiB memory free"), "{error}");
    assert!(error.message.contains("fra: only 1 MiB disk free"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_tenants_fill_a_server() {
    let fleet = Fleet::start(&["nyc"]).await;
    for number in 0..10 {
        fleet.add(&format!("t{number}"), "").await;
    }
    let error = add(&fleet, "alice", "").await;
    assert_eq!(error.reason, reason::NO_ROOM);
    assert!(error.message.contains("nyc: no free port"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_named() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.servers["nyc"].runtime.remove_image(WORK_IMAGE);
    let error = until("the image is missed", async || {
        let request = pb::AddTenantRequest { tenant: "alice".into(), dry_run: true, ..Default::default() };
        match fleet.tenants().add_tenant(request).await {
            Ok(_) => Err("accepted"),
            Err(status) => Ok(Error::from(status)),
        }
    })
    .await;
    assert_eq!(error.reason, reason::IMAGE_MISSING, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_never_gets_healthy_leaves_its_last_lines_and_nothing_else() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.servers["nyc"].runtime.add_image(WORK_IMAGE, "sick", Behaviour::NeverHealthy);
    let outcome = fleet.try_add("alice", "nyc").await.unwrap();
    assert_eq!(outcome.state(), pb::OperationState::Failed, "{:#?}", outcome.operation);
    assert_eq!(outcome.operation.reason, reason::NEVER_HEALTHY);
    assert!(fleet.servers["nyc"].runtime.spec("feather-user-alice").is_none());
    assert!(!fleet.volume("nyc", "alice").exists());
    assert_eq!(
        fleet.tenants().list_tenants(pb::ListTenantsRequest::default()).await.unwrap().into_inner().tenants.len(),
        0
    );
    // The name is free again.
    fleet.servers["nyc"].runtime.add_image(WORK_IMAGE, "work", Behaviour::Healthy);
    fleet.add("alice", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_at_a_time_and_one_operation_for_each_request() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.faults.always("fra", "reserve", Fault::LoseRequest);
    let request = pb::MigrateTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        server: "fra".into(),
        ..Default::default()
    };
    let first = fleet.tenants().migrate_tenant(request.clone()).await.unwrap().into_inner().operation.unwrap();
    let again = fleet.tenants().migrate_tenant(request.clone()).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(first.id, again.id, "the same request is the same operation");
    let other = pb::MigrateTenantRequest { server: String::new(), ..request };
    let error = Error::from(fleet.tenants().migrate_tenant(other).await.unwrap_err());
    assert_eq!((error.code, error.reason.as_str()), (Code::Invalid, reason::REQUEST_ID_REUSED));
    assert_eq!(fleet.outcome(&first.id).await.state(), pb::OperationState::Failed, "the target was never reached");
    assert_eq!(fleet.show("alice").await.server, "nyc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_change_is_refused_and_names_the_first() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.servers["fra"].runtime.add_image(WORK_IMAGE, "work", Behaviour::Healthy);
    fleet.faults.always("fra", "retire", Fault::LoseRequest);
    fleet.faults.always("nyc", "retire", Fault::LoseRequest);
    let first = fleet.begin_migrate("alice", "fra").await.unwrap();
    let error = fleet.begin_migrate("alice", "fra").await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Refused, reason::OPERATION_RUNNING));
    assert_eq!(error.metadata.get("operation"), Some(&first.id));
    fleet.faults.clear();
    assert_eq!(fleet.outcome(&first.id).await.state(), pb::OperationState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_data_is_on_a_dead_server_is_not_started_empty_elsewhere() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.remove("alice").await;
    fleet.kill_agent("nyc");
    let error = until("nyc is unreachable", async || match fleet.try_add("alice", "fra").await {
        Err(error) if error.is(reason::SERVER_UNREACHABLE) => Ok(error),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(error.message.contains("never starts empty"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_holds_data_is_not_removed() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let remove = |server: &str| pb::RemoveServerRequest { server: server.into(), dry_run: false };
    let error = Error::from(fleet.server_service().remove_server(remove("nyc")).await.unwrap_err());
    assert!(error.message.contains("alice"), "{error}");
    fleet.server_service().remove_server(remove("fra")).await.unwrap();
    let error = Error::from(fleet.server_service().remove_server(remove("fra")).await.unwrap_err());
    assert_eq!(error.reason, reason::SERVER_NOT_FOUND);
    let elsewhere = pb::ListTenantsRequest { server: "lon".into(), ..pb::ListTenantsRequest::default() };
    let error: Error = fleet.tenants().list_tenants(elsewhere).await.unwrap_err().into();
    assert_eq!(error.reason, reason::SERVER_NOT_FOUND, "which is not the same as a server without tenants");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_decide_who_may_do_what() {
    let fleet = Fleet::start(&["nyc"]).await;
    let tenants = |role| {
        let channel = fleet.channel(fleet.identity(role, "somebody"));
        pb::tenant_service_client::TenantServiceClient::new(channel)
    };
    let list = pb::ListTenantsRequest::default();
    let add = pb::AddTenantRequest { request_id: request_id(), tenant: "alice".into(), ..Default::default() };
    tenants(Role::Viewer).list_tenants(list.clone()).await.unwrap();
    for role in [Role::Viewer, Role::Agent, Role::Controller] {
        let error = Error::from(tenants(role).add_tenant(add.clone()).await.unwrap_err());
        assert_eq!((error.code, error.reason.as_str()), (Code::Denied, reason::ROLE), "{role}");
    }
    // Nobody at all: no certificate.
    let trust = Trust::CaOnly(fleet.ca().ca_pem().to_owned());
    let nobody = channel(fleet.network.from("person"), "controller:7400", &Principal::controller(), &trust).unwrap();
    let error = Error::from(
        pb::tenant_service_client::TenantServiceClient::new(nobody).list_tenants(list.clone()).await.unwrap_err(),
    );
    assert_eq!(error.code, Code::Unauthenticated);
    // Somebody of another fleet, and somebody whose time is over.
    let other = Fleet::start(&[]).await;
    let mut foreign = other.identity(Role::Admin, "admin");
    foreign.ca_pem = fleet.ca().ca_pem().to_owned();
    let long_ago = time::OffsetDateTime::now_utc() - time::Duration::days(9);
    let admin = Principal { role: Role::Admin, name: "admin".into() };
    let expired = fleet.ca().issue(&admin, time::Duration::days(1), long_ago).unwrap();
    for identity in [foreign, expired] {
        let mut client = pb::tenant_service_client::TenantServiceClient::new(fleet.channel(identity));
        assert!(client.list_tenants(list.clone()).await.is_err());
    }
    assert_eq!(fleet.tenants().list_tenants(list).await.unwrap().into_inner().tenants, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn join_tokens_are_good_once_and_for_their_time() {
    let fleet = Fleet::start(&[]).await;
    let invitation =
        |server: &str, ttl_seconds| pb::CreateJoinTokenRequest { server: server.into(), ttl_seconds, rejoin: false };
    let token = fleet.enrollment().create_join_token(invitation("nyc", 60)).await.unwrap().into_inner().token;
    let token: feather_proto::join_token::JoinToken = token.parse().unwrap();
    let join = |secret: &str, csr_pem: &str| pb::JoinRequest {
        secret: secret.into(),
        csr_pem: csr_pem.into(),
        address: "nyc:7443".into(),
        public_address: "nyc".into(),
        agent_version: "test".into(),
    };
    let (_, first) = feather_proto::tls::csr("nyc").unwrap();
    let (_, second) = feather_proto::tls::csr("nyc").unwrap();
    let forged = Error::from(fleet.enrollment().join(join("forged", &first)).await.unwrap_err());
    assert_eq!((forged.code, forged.reason.as_str()), (Code::Denied, reason::JOIN_TOKEN));
    fleet.enrollment().join(join(&token.secret, &first)).await.unwrap();
    fleet.enrollment().join(join(&token.secret, &first)).await.expect("the same key may repeat its call");
    let reused = Error::from(fleet.enrollment().join(join(&token.secret, &second)).await.unwrap_err());
    assert_eq!(reused.reason, reason::JOIN_TOKEN);
    let too_long = fleet.enrollment().create_join_token(invitation("fra", 10_000_000)).await.err().unwrap();
    assert_eq!(Error::from(too_long).code, Code::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_identity_rejoins_with_its_tenants() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    let invitation = |rejoin| pb::CreateJoinTokenRequest { server: "nyc".into(), ttl_seconds: 60, rejoin };
    let refused = Error::from(fleet.enrollment().create_join_token(invitation(false)).await.err().unwrap());
    assert_eq!(refused.reason, reason::SERVER_EXISTS);
    fleet.kill_agent("nyc");
    fleet.rejoin("nyc").await;
    fleet.all_ready().await;
    assert_eq!(fleet.show("alice").await.server, "nyc");
    assert_eq!(fleet.request("nyc", "alice").served_by.as_deref(), Some("nyc"));
    let stranger = pb::CreateJoinTokenRequest { server: "fra".into(), ttl_seconds: 60, rejoin: true };
    let refused = Error::from(fleet.enrollment().create_join_token(stranger).await.err().unwrap());
    assert_eq!(refused.reason, reason::SERVER_NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_change_names_the_first_also_when_a_server_cannot_be_reached() {
    let mut fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    fleet.faults.always("nyc", "retire", Fault::LoseRequest);
    let first = fleet.begin_migrate("alice", "fra").await.unwrap();
    // Earlier it could still fail and be undone, and would hold nobody any more.
    until("the move is at its last call", async || {
        let made = fleet.faults.made();
        if made.iter().any(|(_, verb)| *verb == "retire") { Ok(()) } else { Err(made) }
    })
    .await;
    fleet.kill_agent("nyc");
    fleet.kill_agent("fra");
    let error = fleet.begin_migrate("alice", "nyc").await.unwrap_err();
    assert_eq!((error.reason.as_str(), error.metadata.get("operation")), (reason::OPERATION_RUNNING, Some(&first.id)));
}

/// Joins by a token, and returns the identity that came of it.
async fn join(fleet: &Fleet, token: &str, (key_pem, csr_pem): &(String, String)) -> Result<Identity, Error> {
    let token: feather_proto::join_token::JoinToken = token.parse().unwrap();
    let request = pb::JoinRequest {
        secret: token.secret,
        csr_pem: csr_pem.clone(),
        address: "nyc:7443".into(),
        public_address: "nyc".into(),
        agent_version: "test".into(),
    };
    let joined = fleet.enrollment().join(request).await?.into_inner();
    Ok(Identity { certificate_pem: joined.certificate_pem, key_pem: key_pem.clone(), ca_pem: joined.ca_pem })
}

async fn renew(fleet: &Fleet, identity: Identity) -> Result<(), Error> {
    let mut client = pb::enrollment_service_client::EnrollmentServiceClient::new(fleet.channel(identity));
    let (_, csr_pem) = feather_proto::tls::csr("nyc").unwrap();
    Ok(client.renew_certificate(pb::RenewCertificateRequest { csr_pem }).await.map(drop)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_taken_out_or_replaced_comes_back_neither_by_token_nor_by_certificate() {
    let fleet = Fleet::start(&[]).await;
    let token = async |rejoin| {
        let invitation = pb::CreateJoinTokenRequest { server: "nyc".into(), ttl_seconds: 600, rejoin };
        fleet.enrollment().create_join_token(invitation).await.unwrap().into_inner().token
    };
    let (old, new) = (csr("nyc").unwrap(), csr("nyc").unwrap());
    let (first, unused) = (token(false).await, token(false).await);
    join(&fleet, &first, &old).await.unwrap();
    assert_eq!(join(&fleet, &unused, &new).await.unwrap_err().reason, reason::JOIN_TOKEN);
    fleet
        .server_service()
        .remove_server(pb::RemoveServerRequest { server: "nyc".into(), dry_run: false })
        .await
        .unwrap();
    assert_eq!(join(&fleet, &first, &old).await.unwrap_err().reason, reason::JOIN_TOKEN);
    // It comes again by an invitation, and is replaced by another machine.
    let (second, third) = (token(false).await, async || token(true).await);
    join(&fleet, &second, &old).await.unwrap();
    let rejoin = third().await;
    join(&fleet, &rejoin, &old).await.unwrap();
    let newest = third().await;
    let replacement = join(&fleet, &newest, &new).await.unwrap();
    assert_eq!(join(&fleet, &rejoin, &old).await.unwrap_err().reason, reason::JOIN_TOKEN);
    renew(&fleet, replacement).await.unwrap();
    // A certificate of an hour ago is from before.
    let before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    let stale = fleet.ca().issue(&Principal::agent("nyc"), time::Duration::hours(24), before).unwrap();
    assert_eq!(renew(&fleet, stale).await.unwrap_err().reason, reason::REVOKED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_copy_is_kept_for_no_longer_than_a_calendar_can_hold() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    let request = pb::MigrateTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        keep_source_seconds: u64::MAX,
        ..Default::default()
    };
    let error = Error::from(fleet.tenants().migrate_tenant(request).await.unwrap_err());
    assert_eq!((error.code, error.reason.as_str()), (Code::Invalid, reason::INVALID_FIELD));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_out() {
    let fleet = Fleet::start(&["nyc"]).await;
    let stranger = fleet.network.from("stranger");
    for address in ["controller:7400", "nyc:7443"] {
        let mut silent = vec![];
        for _ in 0..1000 {
            silent.push(stranger.dial(address).await.unwrap());
        }
        within(Duration::from_secs(5), "a call is answered", async || match address {
            "nyc:7443" => {
                let channel = fleet.agent_channel("nyc", fleet.identity(Role::Controller, "controller"));
                let mut client = agent::server_service_client::ServerServiceClient::new(channel);
                client.get_info(agent::GetInfoRequest {}).await.map(drop)
            }
            _ => fleet.server_service().list_servers(pb::ListServersRequest {}).await.map(drop),
        })
        .await;
    }
}
