use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::{ApiError, Podman, PodmanOptions, refused};
use crate::runtime::{Error, Runtime};

/// What a scripted engine answers to a request line; nothing means that it hangs up.
type Script = Arc<dyn Fn(&str) -> Option<(u16, String)> + Send + Sync>;

struct Scripted {
    podman: Podman,
    asked: Arc<Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
}

fn scripted(script: Script) -> Scripted {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("podman.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
            tokio::spawn(async move { answer(stream, &script, &seen).await });
        }
    });
    Scripted { podman: podman(&socket), asked, _directory: directory }
}

async fn answer(mut stream: UnixStream, script: &Script, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(line.clone());
    if let Some((status, body)) = script(&line) {
        let length = body.len();
        let reply = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(reply.as_bytes()).await.unwrap();
    }
}

fn podman(socket: &std::path::Path) -> Podman {
    Podman::connect(socket, PodmanOptions { ending_limit: Duration::from_millis(1), ..PodmanOptions::new([1; 32]) })
        .unwrap()
}

fn listed(state: &str) -> Option<(u16, String)> {
    Some((200, serde_json::json!([{ "Names": ["a"], "State": state, "ImageID": "ab" }]).to_string()))
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unreachable_and_not_empty() {
    let podman = podman(&PathBuf::from("/nonexistent/podman.sock"));
    assert!(matches!(podman.container("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.containers("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.image("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.images().await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.volume("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.volumes("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.ensure_volume("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.remove_volume("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.start("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.stop("a", Duration::ZERO).await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.remove_container("a").await, Err(Error::Unreachable(_))));
    assert!(matches!(podman.capacity().await, Err(Error::Unreachable(_))));
}

#[tokio::test]
async fn a_stop_whose_reply_is_lost_is_judged_by_what_is_seen() {
    let stopped = Arc::new(Mutex::new(false));
    let engine = scripted(Arc::new(move |line| {
        let mut stopped = stopped.lock().unwrap();
        match line {
            line if line.contains("/stop") => {
                *stopped = true;
                None
            }
            line if line.contains("/kill") => Some((409, r#"{"message":"it does not run"}"#.to_owned())),
            _ => listed(if *stopped { "exited" } else { "running" }),
        }
    }));
    engine.podman.stop("a", Duration::from_secs(1)).await.unwrap();
    assert!(engine.asked.lock().unwrap().iter().any(|line| line.contains("/stop?") && line.contains("t=1")));
}

#[tokio::test]
async fn a_stop_that_was_confirmed_but_is_not_seen_is_an_error() {
    let engine = scripted(Arc::new(|line| match line {
        line if line.contains("/stop") => Some((204, String::new())),
        _ => listed("running"),
    }));
    let outcome = engine.podman.stop("a", Duration::from_secs(1)).await;
    assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
}

#[tokio::test]
async fn the_short_lived_state_stopped_is_read_like_any_other() {
    let engine = scripted(Arc::new(|_| listed("stopped")));
    let container = engine.podman.container("a").await.unwrap().unwrap();
    assert_eq!(container.state, feather_proto::model::ContainerState::Exited);
}

#[test]
fn what_cannot_be_decoded_is_not_quoted() {
    let error = ApiError::JsonDataError { message: "invalid type: string \"x7k9m2\"".to_owned(), column: 7 };
    let error = refused("look", error);
    assert!(!format!("{error} {error:?}").contains("x7k9m2"));
    assert!(!format!("{:?}", PodmanOptions::new([42; 32])).contains("42"));
}

#[test]
fn the_client_cannot_log_bodies() {
    // It logs requests and answers below this level, environments included; only compiling that out is certain.
    assert!(log::STATIC_MAX_LEVEL <= log::LevelFilter::Info);
}
