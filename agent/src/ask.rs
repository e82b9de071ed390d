//! Answers Caddy's question whether it may get a certificate for a name.
//!
//! Owns one small listener on a loopback address: `GET /ask?domain=NAME` is answered 200 or 404 from memory, so that strangers
//! who point names at this server cannot make it ask a certificate authority for them. Tells nothing else.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::agent::Agent;

/// Connections at a time; more wait in the listener's queue. Caddy keeps a few.
const CONNECTIONS_MAX: usize = 64;
/// A connection that asks nothing for so long is closed.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often an address that is taken is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(2);

/// Answers until the agent ends. An address that is taken is a problem of the server, not the end of its agent.
pub(crate) async fn run(agent: Arc<Agent>, address: SocketAddr) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !told {
                    tracing::error!(%address, %error, "cannot answer Caddy's questions about certificates");
                    told = true;
                }
                agent.set_ask_problem(Some(format!(
                    "the agent cannot listen on {address} ({error}), so Caddy gets no new certificates: free that port, or set \
                     FEATHER_AGENT_ASK_LISTEN"
                )));
            }
        }
        tokio::time::sleep(BIND_PAUSE).await;
    };
    agent.set_ask_problem(None);
    answer(agent, listener).await;
}

pub(crate) async fn answer(agent: Arc<Agent>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((connection, _)) => {
                let serving = serve(agent.clone(), connection);
                let ended = agent.ended.clone();
                agent.tasks.spawn(async move {
                    ended.run_until_cancelled(serving).await;
                    drop(place);
                });
            }
            // Out of descriptors: a pause gives others the time to give some back.
            Err(error) => {
                tracing::warn!(%error, "cannot take a question about certificates");
                tokio::time::sleep(BIND_PAUSE).await;
            }
        }
    }
}

async fn serve(agent: Arc<Agent>, connection: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let status = verdict(&agent, &request);
        async move {
            let mut response = Response::new(Empty::<bytes::Bytes>::new());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SILENCE_MAX);
    // Whoever breaks off gets no answer; that is all.
    let _ = server.serve_connection(TokioIo::new(connection), service).await;
}

fn verdict<B>(agent: &Agent, request: &Request<B>) -> StatusCode {
    if request.uri().path() != "/ask" {
        return StatusCode::NOT_FOUND;
    }
    if request.method() != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED;
    }
    let query = request.uri().query().unwrap_or_default();
    // Host names need no escapes; what has some is none.
    match query.split('&').find_map(|pair| pair.strip_prefix("domain=")) {
        Some(host) if agent.may_have_certificate(host) => StatusCode::OK,
        Some(_) => StatusCode::NOT_FOUND,
        None => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests;
