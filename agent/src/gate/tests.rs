use std::{path::Path, time::Duration};

use feather_proto::ids::TenantName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
};

use super::{GateLimits, Gates};

fn alice() -> TenantName {
    "alice".parse().unwrap()
}

fn gates(directory: &Path, wait: Duration, waiting_max: usize) -> Gates {
    Gates::new(directory.join("gates"), GateLimits { wait, waiting_max })
}

const LONG: Duration = Duration::from_secs(60);

/// Sends a request, and returns all that is answered.
async fn ask(socket: std::path::PathBuf, request: &'static str) -> String {
    let mut connection = UnixStream::connect(socket).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Answers every connection with its name and what was asked, and closes.
async fn tenant(name: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 64];
            let count = connection.read(&mut request).await.unwrap_or(0);
            let answer = format!("{name}: {}", String::from_utf8_lossy(&request[..count]));
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    address
}

async fn until_waiting(gates: &Gates, count: usize) {
    while gates.waiting(&alice()) != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_waits_is_handed_to_where_the_tenant_lives_then() {
    let directory = tempfile::tempdir().unwrap();
    let gates = gates(directory.path(), LONG, 16);
    let socket = gates.hold(&alice()).unwrap();
    let waiting: Vec<_> = ["one", "two"].map(|request| tokio::spawn(ask(socket.clone(), request))).into();
    until_waiting(&gates, 2).await;
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    let target = tenant("target").await;
    let held = gates.release(&alice(), Some(&target)).unwrap();
    assert_eq!(held.connections, 2);
    let mut answers = Vec::new();
    for answer in waiting {
        answers.push(answer.await.unwrap());
    }
    assert_eq!(answers, ["target: one", "target: two"]);
    // The proxy may still have something for the gate: it passes.
    assert_eq!(ask(socket, "late").await, "target: late");
    assert_eq!(gates.release(&alice(), Some(&target)), None);
}

#[tokio::test]
async fn a_gate_closes_again_for_the_next_move_and_forgets_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let gates = gates(directory.path(), LONG, 16);
    let first = tenant("first").await;
    let socket = gates.hold(&alice()).unwrap();
    gates.release(&alice(), Some(&first)).unwrap();
    assert_eq!(gates.hold(&alice()).unwrap(), socket);
    let waiting = tokio::spawn(ask(socket, "again"));
    until_waiting(&gates, 1).await;
    let second = tenant("second").await;
    assert_eq!(gates.release(&alice(), Some(&second)).unwrap().connections, 1);
    assert_eq!(waiting.await.unwrap(), "second: again");
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_is_one_too_many_is_told_to_try_again() {
    let directory = tempfile::tempdir().unwrap();
    let gates = gates(directory.path(), LONG, 1);
    let socket = gates.hold(&alice()).unwrap();
    let waiting = tokio::spawn(ask(socket.clone(), "GET / HTTP/1.1\r\n\r\n"));
    until_waiting(&gates, 1).await;
    let refused = ask(socket.clone(), "GET / HTTP/1.1\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: 2\r\n"), "{refused}");
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{refused}");
    // Time passes by itself while everybody waits.
    assert_eq!(waiting.await.unwrap(), refused);
    assert_eq!(ask(socket, "GET / HTTP/1.1\r\n\r\n").await, refused);
}

#[tokio::test]
async fn a_request_whose_sender_has_left_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let gates = gates(directory.path(), LONG, 16);
    let socket = gates.hold(&alice()).unwrap();
    let mut gone = UnixStream::connect(&socket).await.unwrap();
    gone.write_all(b"gone").await.unwrap();
    until_waiting(&gates, 1).await;
    drop(gone);
    let stays = tokio::spawn(ask(socket, "stays"));
    until_waiting(&gates, 2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gates.release(&alice(), Some(&listener.local_addr().unwrap().to_string())).unwrap();
    let (mut only, _) = listener.accept().await.unwrap();
    let mut request = [0; 16];
    let count = only.read(&mut request).await.unwrap();
    assert_eq!(&request[..count], b"stays");
    drop(only);
    stays.await.unwrap();
    until_waiting(&gates, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_released_gate_goes_when_nothing_comes_any_more_and_who_passed_stays_connected() {
    let directory = tempfile::tempdir().unwrap();
    let gates = gates(directory.path(), LONG, 16);
    let socket = gates.hold(&alice()).unwrap();
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    gates.release(&alice(), Some(&listener.local_addr().unwrap().to_string())).unwrap();
    let (mut tenant, _) = listener.accept().await.unwrap();
    while !gates.open().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(!socket.exists());
    tenant.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
    // A leftover of a crash is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(gates.hold(&alice()).is_ok());
    drop(gates);
    assert_eq!(stream.read(&mut heard).await.unwrap(), 0);
}
