//! Of several controllers only the newest leader is heard.

use feather_proto::{
    epoch::HEADER,
    error::{Error, reason},
    pb::agent::v1::{self as pb, tenant_service_client::TenantServiceClient},
    tls::Role,
};
use tonic::Request;

use super::harness::{World, request_id, stop};

fn under<T>(epoch: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(HEADER, epoch.parse().unwrap());
    request
}

#[tokio::test]
async fn a_leader_of_before_changes_nothing_and_sees_nothing_also_after_a_restart() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(5).await.unwrap();
    let look = |epoch| under(epoch, pb::GetTenantRequest { tenant: "alice".into() });
    nyc.tenants().get_tenant(look("7")).await.unwrap();
    nyc.tenants().get_tenant(look("9")).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            nyc.crash().await;
            nyc.start().await;
        }
        // It has the newest generation, and would be right in everything else.
        let refused = Error::from(nyc.tenants().stop_tenant(under("7", stop(5))).await.unwrap_err());
        assert!(
            refused.is(reason::NOT_LEADER) && refused.code.retryable(),
            "it knows nothing of the outcome: {refused:?}"
        );
        assert_eq!(refused.metadata["lead"], "9");
        let refused = Error::from(nyc.tenants().get_tenant(look("8")).await.unwrap_err());
        assert!(refused.is(reason::NOT_LEADER), "{refused:?}");
        let wrong = Error::from(nyc.tenants().get_tenant(look("-9")).await.unwrap_err());
        assert!(wrong.is(reason::INVALID_FIELD), "{wrong:?}");
        let fresh = nyc.tenants().get_tenant(look("9")).await.unwrap().into_inner().tenant.unwrap();
        assert_eq!(fresh.container(), pb::ContainerState::Running);
        assert_eq!(nyc.get().await.generation, 5, "who names no lead is of a release that knew none");
    }
    nyc.tenants().stop_tenant(under("9", stop(5))).await.unwrap();
}

#[tokio::test]
async fn only_controllers_lead() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    let mut peer = TenantServiceClient::new(nyc.as_role(&world, Role::Agent, "fra"));
    let request = pb::GetTenantRequest { tenant: "alice".into() };
    assert!(peer.get_tenant(under("99", request)).await.is_err());
    let add = pb::AddTenantRequest { request_id: request_id(), ..super::harness::add(5) };
    nyc.tenants().add_tenant(under("1", add)).await.expect("nobody else's number counts");
}
