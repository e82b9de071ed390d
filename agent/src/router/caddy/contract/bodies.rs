//! What a real Caddy does with an answer that begins while its request is still being sent.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{PATIENCE, Process, Route, Router as _, SUFFIX, World as _, alice, only};

/// An answer that begins before its request has ended goes out at once and arrives whole. A Caddy that may keep the client's
/// connection reads and closes the request's body first when the answer begins, unless told otherwise. The tenant's
/// connection ends with that, and the client gets half an answer: seldom where only the last bytes of the request cross the
/// first ones of the answer, always here.
pub async fn an_answer_that_begins_before_its_request_has_ended_is_whole(world: &Process) {
    for route in [Route::Serve { port: world.port() }, Route::Forward { to: world.elsewhere() }] {
        world.caddy.ensure(&only(route)).await.unwrap();
        let mut stream = TcpStream::connect(world.public_address()).await.unwrap();
        stream.write_all(post("X-Slow: 1\r\n").as_bytes()).await.unwrap();
        let mut seen = String::new();
        let whole = async {
            read_until(&mut stream, &mut seen, "first").await;
            stream.write_all(b"56789").await.unwrap();
            world.go_on.notify_one();
            // The end of an answer in chunks.
            read_until(&mut stream, &mut seen, "\r\n0\r\n\r\n").await;
        };
        let whole = tokio::time::timeout(PATIENCE, whole).await;
        assert!(whole.is_ok(), "the answer waits for its request: {seen}");
        assert!(seen.contains("body: 0123456789"), "{seen}");
    }
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

async fn read_until(stream: &mut TcpStream, seen: &mut String, what: &str) {
    while !seen.contains(what) {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "half an answer: {seen}");
        seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
}

/// A request whose body nobody reads gets its whole answer.
pub async fn a_refused_request_with_a_body_is_answered(world: &Process) {
    for (route, status) in [(Route::Unavailable, "503"), (Route::Serve { port: world.dead_port() }, "502")] {
        world.caddy.ensure(&only(route)).await.unwrap();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(world.public_address()).await.unwrap();
            stream.write_all(format!("{}56789", post("Connection: close\r\n")).as_bytes()).await.unwrap();
            let mut seen = String::new();
            tokio::time::timeout(PATIENCE, stream.read_to_string(&mut seen)).await.unwrap().unwrap();
            assert!(seen.starts_with(&format!("HTTP/1.1 {status}")), "{seen}");
        }
    }
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

/// A request and the first half of its body.
fn post(headers: &str) -> String {
    format!("POST /append HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: 10\r\n\r\n01234", alice().host(SUFFIX))
}
