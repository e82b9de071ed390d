use std::{collections::BTreeMap, path::Path};

use super::{Caddy, CaddyOptions};
use crate::router::{Error, Route, Router};

fn probe(token: &str) -> BTreeMap<feather_proto::ids::TenantName, Route> {
    let route = Route::Probe { port: 9001, token: token.to_owned(), otherwise: None };
    [("alice".parse().unwrap(), route)].into()
}

#[tokio::test]
async fn a_token_that_is_a_pattern_never_reaches_caddy() {
    let caddy = Caddy::new(CaddyOptions::new("users.example.com", Path::new("/nowhere"))).unwrap();
    for token in ["", "*", "a*", "{http.request.host}", "a b"] {
        assert!(matches!(caddy.ensure(&probe(token)).await, Err(Error::Unsuitable(_))), "{token:?}");
    }
}

#[tokio::test]
async fn caddy_is_restarted_by_the_command_that_was_given() {
    let with = |restart: &[&str]| {
        let restart = restart.iter().map(|word| (*word).to_owned()).collect();
        Caddy::new(CaddyOptions { restart, ..CaddyOptions::new("users.example.com", Path::new("/nowhere")) }).unwrap()
    };
    with(&["true"]).restart().await.unwrap();
    for (restart, part) in
        [(&[][..], "FEATHER_AGENT_CADDY_RESTART"), (&["false"], "ended"), (&["/nonexistent"], "cannot be run")]
    {
        let error = with(restart).restart().await.unwrap_err();
        assert!(matches!(&error, Error::Unsuitable(message) if message.contains(part)), "{error}");
    }
}
