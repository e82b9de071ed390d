use std::{collections::BTreeMap, path::Path};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{AdminAddress, Caddy, CaddyOptions};
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

/// Answers one request at a socket with a list of no routes, and tells what it was asked.
async fn asked_once(listener: tokio::net::UnixListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nEtag: \"1\"\r\nContent-Length: 2\r\n\r\n[]").await.unwrap();
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn by_a_socket_no_host_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let options = CaddyOptions {
        admin: AdminAddress::Socket(socket.clone()),
        ..CaddyOptions::new("users.example.com", folder.path())
    };
    let caddy = Caddy::new(options).unwrap();
    let absent = caddy.in_flight(9001).await.unwrap_err();
    assert!(absent.to_string().contains(&format!("at unix/{}", socket.display())), "{absent}");
    let asked = tokio::spawn(asked_once(tokio::net::UnixListener::bind(&socket).unwrap()));
    assert_eq!(caddy.observe().await.unwrap(), BTreeMap::new());
    let asked = asked.await.unwrap().to_lowercase();
    assert!(asked.starts_with("get /config/apps/http/servers/feather/routes http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost:\r\n") || asked.contains("\r\nhost: \r\n"), "{asked}");
}
