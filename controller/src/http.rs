//! What the controller says over plain HTTP, when it was told to: `GET /metrics` for Prometheus, and the web page of `web.rs`. Nothing
//! of the fleet can be changed here.
//!
//! Off unless `--http` names an address. Owns the bounds of connections: how many there are, how slow and how long each may be. Whoever
//! reaches the address may read the metrics; the page asks for a token.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::world::World;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at once; further ones are closed as they come.
const CONNECTIONS_MAX: usize = 64;
/// The head of a request must be whole within this time, also of one that comes on a connection that was idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Heads of requests are small.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// After this time a connection ends with the answer that is under way; whoever wants more dials again.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// That answer must be taken within this time.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A pause when no connection can be accepted, most likely for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub SocketAddr);

/// The metrics, to be put beside the page.
pub fn metrics(world: Arc<World>) -> Router {
    Router::new().route("/metrics", get(read_metrics)).with_state(world)
}

/// Serves until shutdown, if there is an address to serve at.
pub async fn serve(listener: Option<TcpListener>, router: Router, shutdown: CancellationToken) {
    let Some(listener) = listener else { return };
    let (room, tasks) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection over HTTP was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Whoever finds no room is cut off, and does not make others wait.
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        tasks.spawn(async move {
            connection(stream, peer, router, shutdown).await;
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// One connection, from its first request to its last answer.
async fn connection<I>(stream: I, peer: SocketAddr, router: Router, shutdown: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(Caller(peer))));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // A peer that breaks off or says nothing is nobody's business but its own.
        _ = &mut serving => return,
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
        // Whoever keeps a connection open is not waited for.
        () = shutdown.cancelled() => return,
    }
    serving.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(LAST_ANSWER_WITHIN, serving).await);
}

async fn read_metrics(State(world): State<Arc<World>>) -> Response {
    match world.metrics.text(&world).await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "metrics cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_util::sync::CancellationToken;

    use super::{CONNECTION_LIFE, HEAD_MAX_BYTES, HEAD_WITHIN, LAST_ANSWER_WITHIN, connection};

    /// A connection to a page of a megabyte; what crosses it is held up at 64 KiB.
    fn dial() -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let router = Router::new().route("/", get(async || "x".repeat(1 << 20)));
        let (near, far) = tokio::io::duplex(64 << 10);
        let peer = "192.0.2.7:1".parse().unwrap();
        (near, tokio::spawn(connection(far, peer, router, CancellationToken::new())))
    }

    async fn how_long(serving: tokio::task::JoinHandle<()>) -> Duration {
        let begun = tokio::time::Instant::now();
        serving.await.unwrap();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_or_half_a_request_is_cut_off() {
        let (_idle, serving) = dial();
        assert!(how_long(serving).await <= HEAD_WITHIN + Duration::from_secs(1));
        let (mut slow, serving) = dial();
        slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        assert!(how_long(serving).await <= HEAD_WITHIN + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_take_its_answer_is_cut_off() {
        let (mut stuck, serving) = dial();
        stuck.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(how_long(serving).await, CONNECTION_LIFE + LAST_ANSWER_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_without_end_is_refused() {
        let (mut long, serving) = dial();
        let name = "a".repeat(HEAD_MAX_BYTES);
        long.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\nx-{name}: 1\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        long.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        serving.await.unwrap();
    }
}
