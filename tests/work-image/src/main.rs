//! A stand-in for Feather's work image: what a tenant runs, as far as the control plane can tell.
//!
//! It keeps the contract of the real image (port 8080, `/health`, login with `FEATHER_PASSWORD`, data under `/home/user`)
//! and adds what a test needs to prove that nothing was lost and nothing ran twice: numbered lines that are on disk before
//! they are acknowledged, and a log of its own starts and stops. It knows nothing of servers, routes or moves.

mod app;
mod config;
mod home;
mod journal;
mod session;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{app::App, config::Config, home::Home, journal::Journal, session::Sessions};

/// Requests in flight get this long after SIGTERM; the whole end stays within a second.
const GRACE: Duration = Duration::from_millis(800);

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Config::from_environment()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> std::io::Result<()> {
    // The handler stands before the start is written: a stop that was asked for is always written too.
    let mut terminate = signal(SignalKind::terminate())?;
    let stopping = CancellationToken::new();

    let home = Home::open(&config.home_dir)?;
    let journal = Arc::new(Journal::open(&home)?);
    let sessions = Sessions::open(&home, config.password.clone())?;
    println!("start boot={} lines={}", journal.boot_id(), journal.count());
    if config.password.is_none() {
        println!("warning: FEATHER_PASSWORD is not set, nobody can log in");
    }

    let app = App::new(&config, home, journal.clone(), sessions, stopping.clone());
    let served = serve(config, app, stopping.clone());
    tokio::pin!(served);
    let result = tokio::select! {
        result = &mut served => result,
        _ = terminate.recv() => {
            stopping.cancel();
            tokio::time::timeout(GRACE, &mut served).await.unwrap_or(Ok(()))
        }
    };
    // After this no line is acknowledged any more, so the last line is older than the stop.
    journal.close()?;
    println!("stop boot={} lines={}", journal.boot_id(), journal.count());
    result
}

async fn serve(config: Config, app: App, stopping: CancellationToken) -> std::io::Result<()> {
    tokio::select! {
        () = tokio::time::sleep(config.slow_start) => {}
        () = stopping.cancelled() => return Ok(()),
    }
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", config.port)).await?;
    println!("listening port={}", listener.local_addr()?.port());
    axum::serve(listener, app::routes(app)).with_graceful_shutdown(stopping.cancelled_owned()).await
}
