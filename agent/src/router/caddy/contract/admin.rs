//! What a real Caddy does at its admin address, and what the agent relies on there: the same for a socket and for a port.

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::{AdminAddress, PATIENCE, Process, World};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<Any: AsyncRead + AsyncWrite + Send + Unpin> Stream for Any {}

async fn connect(address: &AdminAddress) -> Box<dyn Stream> {
    match address {
        AdminAddress::Socket(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        AdminAddress::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
    }
}

fn host(address: &AdminAddress) -> &str {
    match address {
        AdminAddress::Socket(_) => "",
        AdminAddress::Tcp(address) => address,
    }
}

/// A connection that was kept ends with the change of the configuration, and a new one is answered at once, any number of times.
pub async fn kept_connections_end_with_a_change_and_new_ones_are_answered(world: &Process) {
    let address = &world.options.admin;
    for number in 0..20 {
        let mut kept = connect(address).await;
        let request =
            format!("GET /config/apps/http/servers/feather/listen HTTP/1.1\r\nHost: {}\r\n\r\n", host(address));
        kept.write_all(request.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("127.0.0.1") {
            assert!(kept.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
        }
        let route = json!({ "@id": format!("kept-{number}"), "match": [{ "path": ["/kept"] }], "handle": [] });
        let url = format!("{}/config/apps/http/servers/feather/routes/0", address.url());
        let answer = world.admin.put(url).json(&route).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let end = tokio::time::timeout(PATIENCE, kept.read_to_end(&mut seen)).await;
        // An end, or a reset: either way nobody answers there any more.
        assert!(end.is_ok(), "a connection outlived a change of the configuration");
        assert!(world.config().await.contains(&format!("\"kept-{number}\"")));
    }
    world.lose_routes().await;
}

/// The socket file of a Caddy that was killed is still there, and the next Caddy listens in its place.
pub async fn a_socket_that_was_left_behind_is_in_nobodys_way(world: &Process) {
    let AdminAddress::Socket(path) = &world.options.admin else { return };
    world.go_away().await;
    assert!(path.exists(), "a Caddy that is killed tidies nothing away");
    assert!(UnixStream::connect(path).await.is_err());
    world.come_back().await;
    assert!(world.config().await.contains("\"feather\""));
}
