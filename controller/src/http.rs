//! What the controller says over plain HTTP, when it was told to: `GET /metrics` for Prometheus. Nothing can be changed here.
//!
//! Off unless `--http` names an address. Whoever reaches that address may read: it belongs on a private one.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::world::World;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until shutdown, if there is an address to serve at.
pub async fn serve(listener: Option<TcpListener>, world: Arc<World>, shutdown: CancellationToken) {
    let Some(listener) = listener else { return };
    let router = Router::new().route("/metrics", get(metrics)).with_state(world);
    let stopping = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stopping.cancelled().await });
    tokio::select! {
        ended = serving.into_future() => {
            if let Err(error) = ended {
                tracing::error!(%error, "nothing is served over HTTP any more");
            }
        }
        // Whoever keeps a connection open is not waited for.
        () = shutdown.cancelled() => {}
    }
}

async fn metrics(State(world): State<Arc<World>>) -> Response {
    match world.metrics.text(&world).await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "metrics cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
        }
    }
}
