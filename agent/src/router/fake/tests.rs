use std::{collections::BTreeMap, sync::Arc};

use feather_proto::ids::TenantName;

use super::{Fake, Peers, Request, Verb};
use crate::router::{Error, Route, Router};

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
