//! Who asks for too much is told so, and keeps nobody else from anything.

use feather_proto::tls::Channel;
use feather_proto::{
    error::{Code, Error, reason},
    pb::{
        agent::v1::{self as agent, server_service_client::ServerServiceClient as AgentServerClient},
        controller::v1::{
            self as pb, enrollment_service_client::EnrollmentServiceClient, server_service_client::ServerServiceClient,
            tenant_service_client::TenantServiceClient,
        },
    },
    tls::{self, Principal, Role, Trust},
};
use feather_tests::{Fleet, wait::until};

async fn look(channel: Channel) -> Result<(), Error> {
    Ok(ServerServiceClient::new(channel).list_servers(pb::ListServersRequest {}).await.map(drop)?)
}

fn stranger(fleet: &Fleet) -> Channel {
    let trust = Trust::CaOnly(fleet.ca().ca_pem().to_owned());
    tls::channel(fleet.network.from("stranger"), "controller:7400", &Principal::controller(), &trust).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_long_are_refused_with_a_sentence() {
    let fleet = Fleet::start(&["nyc"]).await;
    let long = "x".repeat(5 << 20);
    let viewer = fleet.channel(fleet.identity(Role::Viewer, "eve"));
    let request = pb::ListTenantsRequest { server: long.clone(), ..Default::default() };
    let looked = Error::from(TenantServiceClient::new(viewer.clone()).list_tenants(request).await.unwrap_err());
    let request = pb::AddTenantRequest { tenant: long.clone(), ..Default::default() };
    let changed = Error::from(TenantServiceClient::new(fleet.admin()).add_tenant(request).await.unwrap_err());
    // Somebody without a certificate has less to say.
    let join = pb::JoinRequest { csr_pem: "x".repeat(100 << 10), ..Default::default() };
    let joined = Error::from(EnrollmentServiceClient::new(stranger(&fleet)).join(join).await.unwrap_err());
    let controller = fleet.agent_channel("nyc", fleet.identity(Role::Controller, "controller"));
    let mut tenants = agent::tenant_service_client::TenantServiceClient::new(controller);
    let request = agent::AddTenantRequest { tenant: long, ..Default::default() };
    let at_agent = Error::from(tenants.add_tenant(request).await.err().unwrap());
    for (error, what) in [(looked, "looking"), (changed, "changing"), (joined, "joining"), (at_agent, "at an agent")] {
        assert_eq!((error.code, error.reason.as_str()), (Code::Full, reason::LIMIT), "{what}: {error:?}");
        assert!(error.message.contains("too long"), "{what}: {error}");
    }
    look(viewer).await.expect("the connection is as good as before");
}

/// Streams that an identity keeps open, until it is told that they are too many.
async fn fill(fleet: &Fleet) -> (usize, Vec<tonic::Streaming<agent::WatchResponse>>, Error) {
    let mut held = Vec::new();
    for number in 0..2000_usize {
        // Fewer streams on each connection than a connection may have.
        let channel = fleet.agent_channel("nyc", fleet.identity(Role::Controller, "other"));
        let mut client = AgentServerClient::new(channel);
        for _ in 0..100 {
            match client.watch(agent::WatchRequest { heartbeat_ms: 60_000 }).await {
                Ok(stream) => held.push(stream.into_inner()),
                Err(status) => return (number, held, status.into()),
            }
        }
    }
    panic!("{} streams were taken", held.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_counted_by_identity_and_given_back() {
    let fleet = Fleet::start(&["nyc"]).await;
    let (_, held, error) = fill(&fleet).await;
    assert_eq!((error.code, error.reason.as_str(), held.len()), (Code::Full, reason::LIMIT, 1024), "{error}");
    assert!(error.message.contains("1024 calls are under way already"), "{error}");
    fleet.add("alice", "nyc").await;
    drop(held);
    until("there is room again", async || {
        let channel = fleet.agent_channel("nyc", fleet.identity(Role::Controller, "other"));
        AgentServerClient::new(channel).get_info(agent::GetInfoRequest {}).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_by_identity_and_strangers_are_few() {
    let fleet = Fleet::start(&["nyc"]).await;
    let eve = fleet.identity(Role::Viewer, "eve");
    let (mut held, mut told, mut cut) = (Vec::new(), 0, 0);
    for _ in 0..300 {
        let channel = fleet.channel(eve.clone());
        match look(channel.clone()).await {
            Ok(()) => held.push(channel),
            Err(error) if error.is(reason::LIMIT) => {
                assert!(error.message.contains("too many connections"), "{error}");
                (told, held) = (told + 1, [held, vec![channel]].concat());
            }
            Err(_) => cut += 1,
        }
    }
    assert_eq!((held.len() - told, told, cut), (256, 32, 12));
    look(fleet.channel(fleet.identity(Role::Viewer, "ada"))).await.expect("others are served");
    drop(held);
    until("there is room again", async || look(fleet.channel(eve.clone())).await).await;

    let mut strangers = Vec::new();
    for _ in 0..96 {
        let channel = stranger(&fleet);
        let join = pb::JoinRequest::default();
        drop(EnrollmentServiceClient::new(channel.clone()).join(join).await);
        strangers.push(channel);
    }
    look(fleet.admin()).await.expect("members are not kept out by strangers");
    let one_more =
        Error::from(EnrollmentServiceClient::new(stranger(&fleet)).join(pb::JoinRequest::default()).await.unwrap_err());
    assert!(one_more.is(reason::LIMIT) || one_more.code.retryable(), "{one_more:?}");
    drop(strangers);
    until("strangers have room again", async || {
        match EnrollmentServiceClient::new(stranger(&fleet)).join(pb::JoinRequest::default()).await {
            Err(status) if Error::from(status.clone()).is(reason::LIMIT) => Err(status),
            Err(status) if Error::from(status.clone()).code.retryable() => Err(status),
            _ => Ok(()),
        }
    })
    .await;
}
