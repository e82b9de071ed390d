use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use feather_proto::ids::TenantName;

use super::{Fake, Peers, Request, Verb};
use crate::{
    router::{
        Error, HOP_HEADER, PROBE_HEADER, Route, Router,
        contract::{self, Answer, World},
    },
    runtime::{self, ContainerSpec, Reach, Runtime, fake::Behaviour},
};

/// Two servers; the second serves everybody and only exists to be forwarded to.
struct Two {
    fake: Arc<Fake>,
    _elsewhere: Arc<Fake>,
}

impl Two {
    async fn start(directory: &std::path::Path) -> Self {
        let runtime = runtime::fake::Fake::new(directory);
        runtime.add_image("work", "one", Behaviour::Healthy);
        runtime.ensure_volume("a").await.unwrap();
        let spec = ContainerSpec {
            name: "a".into(),
            image: "work".into(),
            host_port: 9001,
            reach: Reach::Published,
            volume: "a".into(),
            environment: BTreeMap::new(),
            dns: Vec::new(),
            labels: BTreeMap::new(),
            limits: Default::default(),
        };
        runtime.ensure_container(&spec).await.unwrap();
        runtime.start("a").await.unwrap();
        let peers = Arc::new(Peers::default());
        let fake = Arc::new(Fake::new().in_front_of("nyc", Arc::new(runtime)).among(Arc::clone(&peers)));
        let elsewhere = Arc::new(Fake::new());
        elsewhere.ensure(&only(Route::Serve { port: 9001 })).await.unwrap();
        peers.insert("nyc:80", &fake);
        peers.insert("fra:80", &elsewhere);
        Self { fake, _elsewhere: elsewhere }
    }
}

#[async_trait]
impl World for Two {
    fn router(&self) -> Arc<dyn Router> {
        Arc::<Fake>::clone(&self.fake)
    }
    fn port(&self) -> u16 {
        9001
    }
    fn dead_port(&self) -> u16 {
        9002
    }
    fn elsewhere(&self) -> String {
        "fra:80".into()
    }
    fn gate(&self, tenant: &TenantName) -> std::path::PathBuf {
        std::path::Path::new("/gates").join(tenant.as_str())
    }
    fn itself(&self) -> String {
        "nyc:80".into()
    }
    async fn get(&self, tenant: &TenantName, headers: &[(&str, &str)]) -> Answer {
        let header = |name| headers.iter().find(|header| header.0 == name).map(|header| header.1.to_owned());
        let request = Request { probe: header(PROBE_HEADER), forwarded_by: header(HOP_HEADER) };
        let answer = self.fake.request(tenant, &request);
        Answer { status: answer.status, served: answer.served_by.is_some() }
    }
    async fn revision(&self) -> String {
        self.fake.changes().to_string()
    }
    async fn foreign(&self) -> String {
        String::new()
    }
    async fn lose_routes(&self) {
        self.fake.lose_routes();
    }
    async fn come_back(&self) {
        self.fake.unreachable(false);
    }
    async fn go_away(&self) {
        self.fake.unreachable(true);
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    contract::all(&Two::start(directory.path()).await).await;
}

fn alice() -> TenantName {
    "alice".parse().unwrap()
}

fn only(route: Route) -> BTreeMap<TenantName, Route> {
    [(alice(), route)].into()
}

#[tokio::test]
async fn a_refused_change_does_nothing_and_a_lost_reply_does_everything() {
    let fake = Fake::new();
    let routes = only(Route::Unavailable);
    fake.fail_next(Verb::Ensure, 1);
    assert!(matches!(fake.ensure(&routes).await, Err(Error::Refused(_))));
    assert!(fake.observe().await.unwrap().is_empty());
    fake.lose_reply_next(Verb::Ensure);
    assert!(matches!(fake.ensure(&routes).await, Err(Error::Unreachable { .. })));
    assert_eq!(fake.observe().await.unwrap(), routes);
    assert!(!fake.ensure(&routes).await.unwrap());
    fake.unreachable(true);
    assert!(matches!(fake.observe().await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn forwarding_reaches_the_other_server_and_a_loop_ends() {
    let peers = Arc::new(Peers::default());
    let [nyc, fra] = ["nyc", "fra"].map(|name| {
        let fake = Arc::new(Fake { server: name.to_owned(), ..Fake::new() }.among(Arc::clone(&peers)));
        peers.insert(&format!("{name}:80"), &fake);
        fake
    });
    nyc.ensure(&only(Route::Forward { to: "fra:80".into() })).await.unwrap();
    fra.ensure(&only(Route::Serve { port: 9001 })).await.unwrap();
    let answer = nyc.request(&alice(), &Request::default());
    assert_eq!((answer.status, answer.served_by.as_deref()), (200, Some("fra")));
    fra.ensure(&only(Route::Forward { to: "nyc:80".into() })).await.unwrap();
    assert_eq!(nyc.request(&alice(), &Request::default()).status, 508);
}
