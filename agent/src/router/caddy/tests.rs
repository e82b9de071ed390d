use std::collections::BTreeMap;

use super::{Caddy, CaddyOptions, without_tokens};
use crate::router::{Error, Route, Router};

fn probe(token: &str) -> BTreeMap<feather_proto::ids::TenantName, Route> {
    let route = Route::Probe { port: 9001, token: token.to_owned(), otherwise: None };
    [("alice".parse().unwrap(), route)].into()
}

#[tokio::test]
async fn a_token_that_is_a_pattern_never_reaches_caddy() {
    let caddy = Caddy::new(CaddyOptions::new("nyc", "users.example.com")).unwrap();
    for token in ["", "*", "a*", "{http.request.host}", "a b"] {
        assert!(matches!(caddy.ensure(&probe(token)).await, Err(Error::Unsuitable(_))), "{token:?}");
    }
}

#[test]
fn a_quoted_token_is_struck_out() {
    let message = without_tokens("bad route: {\"header\": [\"0123abcd\"]}".to_owned(), &probe("0123abcd"));
    assert_eq!(message, "bad route: {\"header\": [\"***\"]}");
}
