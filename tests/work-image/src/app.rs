//! The routes. Decodes requests, asks the journal, the home and the sessions, and encodes answers; keeps nothing itself.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Redirect, Response,
        sse::{Event, Sse},
    },
    routing::{any, get, post},
};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::MissedTickBehavior};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use crate::{
    config::Config,
    home::Home,
    journal::Journal,
    session::{COOKIE, Sessions},
};

const SSE_PERIOD: Duration = Duration::from_millis(200);
/// Which process answered, on every answer: a test sees when a request reached the wrong copy.
const BOOT_HEADER: &str = "x-work-boot";

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

struct Shared {
    home: Home,
    journal: Arc<Journal>,
    sessions: Sessions,
    stopping: CancellationToken,
    healthy_answers: Option<u64>,
    health_asked: AtomicU64,
    feather_variables: Vec<String>,
}

impl App {
    pub(crate) fn new(
        config: &Config,
        home: Home,
        journal: Arc<Journal>,
        sessions: Sessions,
        stopping: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared {
            home,
            journal,
            sessions,
            stopping,
            healthy_answers: config.healthy_answers,
            health_asked: AtomicU64::new(0),
            feather_variables: config.feather_variables.clone(),
        }))
    }
}

/// Every route; all but health and login need a session or the password.
pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/append", post(append))
        .route("/journal", get(journal))
        .route("/sse", get(events))
        .route("/ws", any(echo))
        .route("/files/{*path}", get(read_file).put(write_file).layer(DefaultBodyLimit::disable()))
        .route("/env", get(variables))
        .route_layer(middleware::from_fn_with_state(app.clone(), require_login))
        .route("/health", get(health))
        .route("/login", post(log_in))
        .layer(middleware::from_fn_with_state(app.clone(), name_the_process))
        .with_state(app)
}

async fn name_the_process(State(App(app)): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Ok(boot_id) = HeaderValue::from_str(app.journal.boot_id()) {
        response.headers_mut().insert(BOOT_HEADER, boot_id);
    }
    response
}

async fn require_login(State(App(app)): State<App>, request: Request, next: Next) -> Response {
    if app.sessions.admits(request.headers()) {
        return next.run(request).await;
    }
    if request.uri().path() == "/" {
        return (StatusCode::UNAUTHORIZED, Html(LOGIN_PAGE)).into_response();
    }
    (StatusCode::UNAUTHORIZED, "log in first: POST /login, or send the password as a bearer token\n").into_response()
}

async fn health(State(App(app)): State<App>) -> (StatusCode, &'static str) {
    let asked = app.health_asked.fetch_add(1, Ordering::Relaxed);
    if app.healthy_answers.is_some_and(|limit| asked >= limit) {
        return (StatusCode::SERVICE_UNAVAILABLE, "unhealthy, as it was told to be\n");
    }
    (StatusCode::OK, "ok")
}

#[derive(Deserialize)]
struct Login {
    password: String,
}

async fn log_in(State(App(app)): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let is = |name, kind: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(kind))
    };
    let login: Option<Login> = if is(header::CONTENT_TYPE, "json") {
        serde_json::from_slice(&body).ok()
    } else {
        serde_urlencoded::from_bytes(&body).ok()
    };
    let Some(login) = login else {
        return (StatusCode::BAD_REQUEST, "send password=... as a form or as JSON\n").into_response();
    };
    let Some(token) = app.sessions.log_in(&login.password) else {
        println!("login refused");
        return (StatusCode::UNAUTHORIZED, "wrong password\n").into_response();
    };
    println!("login accepted");
    let cookie = [(header::SET_COOKIE, format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax"))];
    if is(header::ACCEPT, "text/html") {
        return (cookie, Redirect::to("/")).into_response();
    }
    (cookie, Json(json!({ "token": token }))).into_response()
}

async fn page(State(App(app)): State<App>) -> Html<String> {
    let lines = app.journal.count();
    Html(format!("<!doctype html><title>Feather</title><h1>Your workspace</h1><p>{lines} lines in your journal.</p>\n"))
}

async fn append(State(App(app)): State<App>, body: Bytes) -> Response {
    let text = match std::str::from_utf8(&body) {
        Ok(text) => text.strip_suffix('\n').unwrap_or(text).to_owned(),
        Err(_) => return (StatusCode::BAD_REQUEST, "the line must be UTF-8\n").into_response(),
    };
    if text.contains('\n') {
        return (StatusCode::BAD_REQUEST, "one line per request\n").into_response();
    }
    match tokio::task::spawn_blocking(move || app.journal.append(&text)).await {
        Ok(Ok(line)) => {
            println!("append line={line}");
            Json(json!({ "line": line })).into_response()
        }
        Ok(Err(error)) => failure(&error),
        Err(error) => failure(&io::Error::other(error)),
    }
}

async fn journal(State(App(app)): State<App>) -> Response {
    match tokio::task::spawn_blocking(move || app.journal.read()).await {
        Ok(Ok(lines)) => lines.into_response(),
        Ok(Err(error)) => failure(&error),
        Err(error) => failure(&io::Error::other(error)),
    }
}

#[derive(Deserialize)]
struct Events {
    /// Ends after this many events; without it the stream ends with the process.
    limit: Option<usize>,
}

async fn events(
    State(App(app)): State<App>,
    Query(Events { limit }): Query<Events>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut ticks = tokio::time::interval(SSE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let counter = stream::unfold((ticks, 0_u64), |(mut ticks, count)| async move {
        ticks.tick().await;
        Some((Ok(Event::default().id(count.to_string()).data(count.to_string())), (ticks, count + 1)))
    });
    let stopping = app.stopping.clone();
    Sse::new(counter.take(limit.unwrap_or(usize::MAX)).take_until(async move { stopping.cancelled_owned().await }))
}

async fn echo(State(App(app)): State<App>, upgrade: WebSocketUpgrade) -> Response {
    let stopping = app.stopping.clone();
    upgrade.on_upgrade(|socket| echo_until(socket, stopping))
}

async fn echo_until(mut socket: WebSocket, stopping: CancellationToken) {
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            () = stopping.cancelled() => break,
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // Pings are answered below us.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
        }
    }
    // Best effort: the peer may be gone already.
    let _ = socket.send(Message::Close(None)).await;
}

async fn read_file(State(App(app)): State<App>, Path(path): Path<String>) -> Response {
    let opened = async { tokio::fs::File::open(app.home.resolve(&path)?).await };
    match opened.await {
        Ok(file) => Body::from_stream(ReaderStream::new(file)).into_response(),
        Err(error) => failure(&error),
    }
}

async fn write_file(State(App(app)): State<App>, Path(path): Path<String>, body: Body) -> Response {
    match store_file(&app.home, &path, body).await {
        Ok(bytes) => {
            println!("file written bytes={bytes}");
            (StatusCode::CREATED, Json(json!({ "bytes": bytes }))).into_response()
        }
        Err(error) => failure(&error),
    }
}

/// In place and durable before it is answered; the parents are made as needed.
async fn store_file(home: &Home, requested: &str, body: Body) -> io::Result<u64> {
    let path = home.resolve(requested)?;
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    let mut file = tokio::fs::File::create(&path).await?;
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(io::Error::other)?;
        file.write_all(&chunk).await?;
        bytes += chunk.len() as u64;
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok(bytes)
}

async fn variables(State(App(app)): State<App>) -> Json<Vec<String>> {
    Json(app.feather_variables.clone())
}

fn failure(error: &io::Error) -> Response {
    let status = match error.kind() {
        io::ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
        io::ErrorKind::BrokenPipe => StatusCode::SERVICE_UNAVAILABLE,
        io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    println!("failed status={} error={error}", status.as_u16());
    (status, format!("{error}\n")).into_response()
}

const LOGIN_PAGE: &str = "<!doctype html><title>Feather</title><h1>Log in</h1>\
    <form method=post action=/login><input type=password name=password autofocus><button>Log in</button></form>\n";

#[cfg(test)]
mod tests;
