//! What every proxy must do, as tests that run on the fake and on Caddy.
//!
//! Each function asserts one promise of [`Router`](super::Router) and leaves no routes behind. They panic like any test; they
//! are public only because the tests of the real proxy live in another package.
#![allow(clippy::unwrap_used, reason = "these are tests, exported")]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use feather_proto::ids::TenantName;

use super::{Error, HOP_HEADER, HOP_MARK, HOPS_MAX, Route, Router};

/// What the public gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Was a container asked?
    pub served: bool,
}

/// A proxy to test, and a look at it from outside.
#[async_trait]
pub trait World: Send + Sync {
    /// The proxy.
    fn router(&self) -> Arc<dyn Router>;
    /// A loopback port behind which something answers 200.
    fn port(&self) -> u16;
    /// A loopback port behind which nobody answers.
    fn dead_port(&self) -> u16;
    /// `host:port` of another server that serves every tenant.
    fn elsewhere(&self) -> String;
    /// Where a tenant's gate would be.
    fn gate(&self, tenant: &TenantName) -> PathBuf;
    /// `host:port` of the proxy itself.
    fn itself(&self) -> String;
    /// One `GET /health` under the tenant's host name.
    async fn get(&self, tenant: &TenantName, headers: &[(&str, &str)]) -> Answer;
    /// Changes with every change of the configuration.
    async fn revision(&self) -> String;
    /// Everything in the configuration that is not a tenant's.
    async fn foreign(&self) -> String;
    /// The proxy is restarted with its base configuration.
    async fn lose_routes(&self);
    /// The proxy answers again after [`World::go_away`].
    async fn come_back(&self);
    /// The proxy answers nobody.
    async fn go_away(&self);
}

const LIMIT: Duration = Duration::from_secs(5);

fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

fn routes<const N: usize>(routes: [(&str, Route); N]) -> BTreeMap<TenantName, Route> {
    routes.map(|(name, route)| (tenant(name), route)).into()
}

async fn status(world: &dyn World, name: &str) -> u16 {
    world.get(&tenant(name), &[]).await.status
}

/// Runs all of them, one after the other.
pub async fn all(world: &dyn World) {
    routes_are_made_exactly_so(world).await;
    what_is_so_is_not_touched(world).await;
    routes_of_others_are_left_alone(world).await;
    a_foreign_route_of_a_tenant_stays(world).await;
    routes_of_the_unknown_stay(world).await;
    what_is_no_tenants_goes_to_the_admin_container(world).await;
    a_lost_configuration_is_made_again(world).await;
    a_tenant_that_does_not_run_is_unavailable(world).await;
    a_forward_reaches_the_other_server(world).await;
    whoever_is_still_forwarded_is_noticed(world).await;
    a_request_is_sent_on_by_several_servers(world).await;
    a_forwarding_loop_ends(world).await;
    a_probe_opens_to_its_token_only(world).await;
    a_proxy_that_does_not_answer_is_unreachable(world).await;
}

/// Several at once, some replaced, some removed.
pub async fn routes_are_made_exactly_so(world: &dyn World) {
    let router = world.router();
    let serve = Route::Serve { port: world.port() };
    let first = routes([("alice", serve.clone()), ("bob", serve.clone()), ("carol", Route::Unavailable)]);
    assert!(router.ensure(&first).await.unwrap());
    assert_eq!(router.observe().await.unwrap(), first);
    assert!(world.get(&tenant("alice"), &[]).await.served);
    let unknown = status(world, "dave").await;
    let second = routes([("bob", Route::Unavailable), ("dave", serve)]);
    assert!(router.ensure(&second).await.unwrap());
    assert_eq!(router.observe().await.unwrap(), second);
    assert_eq!([status(world, "bob").await, status(world, "dave").await], [503, 200]);
    assert_eq!(status(world, "alice").await, unknown);
    assert!(router.ensure(&BTreeMap::new()).await.unwrap());
    assert!(router.observe().await.unwrap().is_empty());
}

/// Whoever looks often must not disturb.
pub async fn what_is_so_is_not_touched(world: &dyn World) {
    let router = world.router();
    let otherwise = Some(Box::new(Route::Forward { to: world.elsewhere() }));
    let probe = Route::Probe { port: world.port(), token: "0123abcd".to_owned(), otherwise };
    let wanted = routes([
        ("alice", Route::Serve { port: world.port() }),
        ("bob", Route::Unavailable),
        ("carol", Route::Forward { to: world.elsewhere() }),
        ("dave", probe),
        ("erin", Route::Hold { gate: world.gate(&tenant("erin")), port: world.port() }),
    ]);
    assert!(router.ensure(&wanted).await.unwrap());
    assert_eq!(router.in_flight(world.port()).await.unwrap().count, 0);
    assert_eq!(router.in_flight(world.dead_port()).await.unwrap().count, 0);
    let before = world.revision().await;
    for _ in 0..3 {
        assert!(!router.ensure(&wanted).await.unwrap());
        assert_eq!(router.observe().await.unwrap(), wanted);
    }
    assert_eq!(world.revision().await, before);
    assert!(router.ensure(&BTreeMap::new()).await.unwrap());
    assert_ne!(world.revision().await, before);
    assert!(!router.ensure(&BTreeMap::new()).await.unwrap());
}

/// Byte for byte, before, during and after.
pub async fn routes_of_others_are_left_alone(world: &dyn World) {
    let router = world.router();
    let before = world.foreign().await;
    for wanted in [routes([("alice", Route::Serve { port: world.port() }), ("bob", Route::Unavailable)]), routes([])] {
        router.ensure(&wanted).await.unwrap();
        assert_eq!(world.foreign().await, before);
    }
}

/// Beside ours, which come and go.
pub async fn a_foreign_route_of_a_tenant_stays(world: &dyn World) {
    let router = world.router();
    let serve = Route::Serve { port: world.port() };
    router.ensure(&routes([("alice", serve.clone())])).await.unwrap();
    let before = world.revision().await;
    let left_alone = [("alice", Route::Foreign), ("carol", Route::Foreign)];
    assert!(!router.ensure(&routes(left_alone.clone())).await.unwrap());
    assert_eq!(world.revision().await, before);
    let [alice, carol] = left_alone;
    assert!(router.ensure(&routes([alice, ("bob", Route::Unavailable), carol])).await.unwrap());
    assert_eq!(router.observe().await.unwrap(), routes([("alice", serve), ("bob", Route::Unavailable)]));
    assert_eq!(status(world, "alice").await, 200);
    assert!(router.ensure(&BTreeMap::new()).await.unwrap());
}

/// Of tenants that are not among the known ones; those of known ones end when nobody wants them.
pub async fn routes_of_the_unknown_stay(world: &dyn World) {
    let router = world.router();
    let serve = Route::Serve { port: world.port() };
    let before = routes([("alice", serve.clone()), ("bob", serve.clone()), ("carol", Route::Unavailable)]);
    router.ensure(&before).await.unwrap();
    let known = ["bob", "dave"].map(tenant).into();
    let after = routes([("alice", serve.clone()), ("carol", Route::Unavailable), ("dave", serve.clone())]);
    let wanted = routes([("dave", serve)]);
    assert!(router.ensure_among(&wanted, Some(&known)).await.unwrap());
    assert_eq!(router.observe().await.unwrap(), after);
    assert_eq!(status(world, "alice").await, 200);
    let revision = world.revision().await;
    assert!(!router.ensure_among(&wanted, Some(&known)).await.unwrap());
    assert_eq!(world.revision().await, revision);
    assert!(router.ensure(&BTreeMap::new()).await.unwrap());
}

/// Behind the tenants' routes, at one port or another or none.
pub async fn what_is_no_tenants_goes_to_the_admin_container(world: &dyn World) {
    let router = world.router();
    let (unknown, foreign) = (world.get(&tenant("zoe"), &[]).await, world.foreign().await);
    let wanted = routes([("alice", Route::Unavailable)]);
    for (admin, answer) in [
        (Some(world.dead_port()), Answer { status: 502, served: false }),
        (Some(world.port()), Answer { status: 200, served: true }),
        (None, unknown),
    ] {
        assert!(router.ensure_admin(admin).await.unwrap());
        assert!(!router.ensure_admin(admin).await.unwrap());
        assert!(router.ensure(&wanted).await.unwrap());
        assert!(!router.ensure_admin(admin).await.unwrap());
        assert_eq!(router.observe_admin().await.unwrap(), admin);
        assert_eq!(router.observe().await.unwrap(), wanted);
        assert_eq!(world.get(&tenant("zoe"), &[]).await, answer);
        assert_eq!(status(world, "alice").await, 503, "a tenant is not the admin container's");
        assert_eq!(world.foreign().await, foreign);
        assert!(router.ensure(&BTreeMap::new()).await.unwrap());
    }
}

/// A proxy that forgot everything gets it again.
pub async fn a_lost_configuration_is_made_again(world: &dyn World) {
    let router = world.router();
    let wanted = routes([("alice", Route::Serve { port: world.port() })]);
    router.ensure(&wanted).await.unwrap();
    world.lose_routes().await;
    assert!(router.observe().await.unwrap().is_empty());
    assert!(router.ensure(&wanted).await.unwrap());
    assert_eq!(status(world, "alice").await, 200);
    router.ensure(&BTreeMap::new()).await.unwrap();
}

/// Said at once when it is known, and a bad gateway when it is not.
pub async fn a_tenant_that_does_not_run_is_unavailable(world: &dyn World) {
    let router = world.router();
    let dead = Route::Serve { port: world.dead_port() };
    router.ensure(&routes([("alice", Route::Unavailable), ("bob", dead)])).await.unwrap();
    assert_eq!(world.get(&tenant("alice"), &[]).await, Answer { status: 503, served: false });
    assert_eq!(world.get(&tenant("bob"), &[]).await, Answer { status: 502, served: false });
    assert_eq!(router.probe(&tenant("alice"), None, LIMIT).await.unwrap(), 503);
    router.ensure(&BTreeMap::new()).await.unwrap();
}

/// And what the agent does itself is not taken for it.
pub async fn whoever_is_still_forwarded_is_noticed(world: &dyn World) {
    let router = world.router();
    let (alice, bob) = (tenant("alice"), tenant("bob"));
    let forward = Route::Forward { to: world.elsewhere() };
    let wanted = routes([("alice", forward.clone()), ("bob", forward), ("carol", Route::Unavailable)]);
    router.ensure(&wanted).await.unwrap();
    let begin = (router.last_asked(&alice).unwrap(), router.last_asked(&bob).unwrap());
    for name in ["carol", "dave"] {
        status(world, name).await;
        assert_eq!(router.last_asked(&tenant(name)), None, "{name}");
    }
    for _ in 0..3 {
        router.ensure(&wanted).await.unwrap();
        router.observe().await.unwrap();
        assert_eq!((router.last_asked(&alice).unwrap(), router.last_asked(&bob).unwrap()), begin);
    }
    let mut before = begin.0;
    for _ in 0..3 {
        assert_eq!(status(world, "alice").await, 200);
        let asked = router.last_asked(&alice).unwrap();
        assert!(asked > before, "a request for alice was not noticed");
        before = asked;
    }
    assert_eq!(router.last_asked(&bob), Some(begin.1));
    router.ensure(&BTreeMap::new()).await.unwrap();
    assert_eq!(router.last_asked(&alice), None);
}

/// With the host name kept, or the other server would not know whose it is.
pub async fn a_forward_reaches_the_other_server(world: &dyn World) {
    let router = world.router();
    router.ensure(&routes([("alice", Route::Forward { to: world.elsewhere() })])).await.unwrap();
    assert_eq!(world.get(&tenant("alice"), &[]).await, Answer { status: 200, served: true });
    router.ensure(&BTreeMap::new()).await.unwrap();
}

/// Who sends it on may have been told of a move, while who sent it there has not.
pub async fn a_request_is_sent_on_by_several_servers(world: &dyn World) {
    let router = world.router();
    router.ensure(&routes([("alice", Route::Forward { to: world.elsewhere() })])).await.unwrap();
    for hops in 0..HOPS_MAX {
        let marks = format!("fra{HOP_MARK}").repeat(hops);
        let answer = world.get(&tenant("alice"), &[(HOP_HEADER, &marks)]).await;
        assert_eq!(answer, Answer { status: 200, served: true }, "after {hops} hops");
    }
    let marks = format!("fra{HOP_MARK}").repeat(HOPS_MAX);
    let answer = world.get(&tenant("alice"), &[(HOP_HEADER, &marks)]).await;
    assert_eq!(answer, Answer { status: 508, served: false });
    router.ensure(&BTreeMap::new()).await.unwrap();
}

/// After a few hops, not after a timeout.
pub async fn a_forwarding_loop_ends(world: &dyn World) {
    let router = world.router();
    router.ensure(&routes([("alice", Route::Forward { to: world.itself() })])).await.unwrap();
    assert_eq!(world.get(&tenant("alice"), &[]).await, Answer { status: 508, served: false });
    router.ensure(&BTreeMap::new()).await.unwrap();
}

/// The public sees what it would see without the probe; so does a wrong token.
pub async fn a_probe_opens_to_its_token_only(world: &dyn World) {
    let router = world.router();
    let unknown = world.get(&tenant("alice"), &[]).await;
    let probe = |otherwise: Option<Route>| Route::Probe {
        port: world.port(),
        token: "0123abcd".to_owned(),
        otherwise: otherwise.map(Box::new),
    };
    for (otherwise, public) in [
        (None, unknown),
        (Some(Route::Unavailable), Answer { status: 503, served: false }),
        (Some(Route::Forward { to: world.itself() }), Answer { status: 508, served: false }),
    ] {
        router.ensure(&routes([("alice", probe(otherwise))])).await.unwrap();
        let alice = tenant("alice");
        assert_eq!(world.get(&alice, &[]).await, public);
        assert_eq!(world.get(&alice, &[(super::PROBE_HEADER, "0123abcx")]).await, public);
        assert_eq!(world.get(&alice, &[(super::PROBE_HEADER, "0123abcd")]).await.status, 200);
        assert_eq!(router.probe(&alice, Some("0123abcd"), LIMIT).await.unwrap(), 200);
        assert_eq!(router.probe(&alice, None, LIMIT).await.unwrap(), public.status);
    }
    router.ensure(&BTreeMap::new()).await.unwrap();
}

/// Which is not the same as having no routes.
pub async fn a_proxy_that_does_not_answer_is_unreachable(world: &dyn World) {
    let router = world.router();
    world.go_away().await;
    assert!(matches!(router.in_flight(world.port()).await, Err(Error::Unreachable { .. })));
    assert!(matches!(router.observe().await, Err(Error::Unreachable { .. })));
    let wanted = routes([("alice", Route::Unavailable)]);
    assert!(matches!(router.ensure(&wanted).await, Err(Error::Unreachable { .. })));
    assert!(matches!(router.probe(&tenant("alice"), None, LIMIT).await, Err(Error::Unreachable { .. })));
    world.come_back().await;
    assert!(router.ensure(&wanted).await.unwrap());
    router.ensure(&BTreeMap::new()).await.unwrap();
}
