//! The web page: the fleet on one screen, for whoever has a token. It only shows.
//!
//! Owns addresses, answers and their headers. What is known comes from `look.rs`, how it looks from `page.rs` and `plot.rs`, who may see
//! it from `entry.rs`. Pages are whole without scripts; `live.js` only fetches the same again.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use feather_proto::{error::Error, tls::sha256_hex};

pub mod entry;
mod look;
mod page;
mod plot;
mod tries;
pub mod view;

use crate::{enroll::new_secret, http::Caller, store::Viewer, world::World};
use entry::Asked;
use look::Look;
use tries::Tries;

pub use look::Eyes;

/// The form of a login is a line.
const FORM_MAX_BYTES: usize = 4096;
const CSS: &str = include_str!("web/page.css");
const SCRIPT: &str = include_str!("web/live.js");

/// Nothing but what this controller serves itself, no scripts and styles inside of pages, in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

struct Web {
    world: Arc<World>,
    look: Look,
    tries: Tries,
}

/// Everything that is served for people.
pub fn router(world: Arc<World>, eyes: Eyes) -> Router {
    let web = Web { look: Look::new(world.clone(), eyes), tries: Tries::default(), world };
    Router::new()
        .route("/", get(fleet))
        .route("/live", get(live))
        .route("/login", get(ask).post(log_in))
        .route("/logout", post(log_out))
        .route("/page.css", get(async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], CSS)))
        .route("/live.js", get(async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)))
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .layer(middleware::map_response(guarded))
        .with_state(Arc::new(web))
}

/// The same headers on every answer.
async fn guarded(mut answer: Response) -> Response {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn html(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
}

fn to(place: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

/// What is said when the store does not answer; the log says more.
fn broken(error: &Error) -> Response {
    html(StatusCode::SERVICE_UNAVAILABLE, page::notice("Not now", &error.message))
}

/// Whose session a request belongs to.
async fn viewer(web: &Web, headers: &HeaderMap) -> Result<Option<Viewer>, Error> {
    let Some(secret) = entry::session(headers) else { return Ok(None) };
    Ok(web.world.store.web_session(&sha256_hex(secret.as_bytes()), web.world.clock.now()).await?)
}

async fn fleet(State(web): State<Arc<Web>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let shown = async {
        let Some(viewer) = viewer(&web, &headers).await? else { return Ok(to("/login")) };
        let view = web.look.newest().await?;
        let asked = Asked::read(query.as_deref().unwrap_or_default());
        Ok(html(StatusCode::OK, page::document(&view, &viewer, &asked)))
    };
    shown.await.unwrap_or_else(|error| broken(&error))
}

/// The part of the page that changes.
async fn live(State(web): State<Arc<Web>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let shown = async {
        let Some(_) = viewer(&web, &headers).await? else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
        let view = web.look.newest().await?;
        let asked = Asked::read(query.as_deref().unwrap_or_default());
        Ok(html(StatusCode::OK, page::live(&view, &asked).into_string()))
    };
    shown.await.unwrap_or_else(|error| broken(&error))
}

async fn ask(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    match viewer(&web, &headers).await {
        Ok(Some(_)) => to("/"),
        Ok(None) => html(StatusCode::OK, page::login(None)),
        Err(error) => broken(&error),
    }
}

async fn log_in(
    State(web): State<Arc<Web>>,
    Extension(Caller(peer)): Extension<Caller>,
    headers: HeaderMap,
    form: Bytes,
) -> Response {
    if entry::is_from_elsewhere(&headers) {
        return html(StatusCode::FORBIDDEN, page::notice("Not from there", "Log in on the page itself."));
    }
    let now = web.world.clock.now();
    if let Err(wait) = web.tries.may(peer.ip(), now) {
        return too_many(wait);
    }
    let secret = entry::token_in(&form);
    let (session, token) = (new_secret(), sha256_hex(secret.as_deref().unwrap_or_default().as_bytes()));
    match web.world.store.begin_web_session(&token, &sha256_hex(session.as_bytes()), now).await {
        Ok(Some(viewer)) if secret.is_some() => {
            tracing::info!(name = viewer.name, %peer, "logged in on the web page");
            let mut answer = to("/");
            let cookie = entry::cookie(&session, viewer.expires - now, entry::is_private(&headers));
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                answer.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            answer
        }
        Ok(_) => {
            web.tries.failed(peer.ip(), now);
            tracing::warn!(%peer, "a login on the web page was refused");
            html(StatusCode::UNAUTHORIZED, page::login(Some(page::REFUSED)))
        }
        Err(error) => broken(&error.into()),
    }
}

fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs().max(1);
    let mut answer = html(StatusCode::TOO_MANY_REQUESTS, page::login(Some(page::TOO_MANY)));
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

async fn log_out(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let ended = async {
        let Some(secret) = entry::session(&headers) else { return Ok(()) };
        web.world.store.end_web_session(&sha256_hex(secret.as_bytes())).await
    };
    if let Err(error) = ended.await {
        return broken(&error.into());
    }
    let mut answer = to("/login");
    let gone = entry::cookie("", time::Duration::ZERO, entry::is_private(&headers));
    if let Ok(gone) = HeaderValue::from_str(&gone) {
        answer.headers_mut().insert(header::SET_COOKIE, gone);
    }
    answer
}
