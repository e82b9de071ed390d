//! The waitlist as people, browsers and attackers reach it: over real sockets.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::{Door, Limits, Origins, Rate, Waitlist};
use crate::clock::SystemClock;

struct Served {
    waitlist: Arc<Waitlist>,
    address: SocketAddr,
    dir: tempfile::TempDir,
    ended: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

fn limits() -> Limits {
    Limits { rate: Rate { burst: 1000, ..Limits::default().rate }, ..Limits::default() }
}

fn door(listen: SocketAddr, limits: Limits) -> Door {
    Door { listen, origins: Origins::Any, limits }
}

async fn served(limits: Limits) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let waitlist = Arc::new(Waitlist::new(file(dir.path())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, ended) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(waitlist.clone().serve(listener, door(address, limits), Arc::new(SystemClock), ended.clone()));
    Served { waitlist, address, dir, ended }
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("waitlist.jsonl")
}

impl Served {
    /// Sends these bytes, and returns everything that comes back.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // What is refused early may be refused before all of it is sent.
        drop(stream.write_all(bytes).await);
        let mut answer = Vec::new();
        drop(tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap());
        String::from_utf8(answer).unwrap()
    }

    async fn post(&self, body: &str, headers: &str) -> String {
        self.raw(
            format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).as_bytes(),
        )
        .await
    }

    async fn addresses(&self) -> Vec<String> {
        self.waitlist.entries().await.unwrap().iter().map(|entry| entry.email.as_str().to_owned()).collect()
    }
}

fn is(answer: &str, status: u16) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status} "))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn an_address_that_was_answered_ok_is_on_disk_once() {
    let served = served(limits()).await;
    for form in ["email=ada%40example.org", "email=ADA%40Example.org", "email=zoe%40example.org"] {
        let answer = served.post(form, "origin: https://example.org\r\n").await;
        assert!(is(&answer, 200), "{answer}");
        assert_eq!(body(&answer), r#"{"ok":true}"#);
        assert!(
            answer.contains("access-control-allow-origin: *\r\n") && answer.contains("application/json"),
            "{answer}"
        );
    }
    assert_eq!(served.addresses().await, ["ada@example.org", "zoe@example.org"]);
    let again = Waitlist::new(file(served.dir.path()));
    assert_eq!(again.entries().await.unwrap(), served.waitlist.entries().await.unwrap());
}

#[tokio::test]
async fn a_get_says_that_somebody_is_here_and_a_preflight_what_may_be_sent() {
    let served = served(limits()).await;
    let get = served.raw(b"GET /whatever HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(is(&get, 200) && get.contains("access-control-allow-origin: *"), "{get}");
    assert_eq!(body(&get), "waitlist ok");
    let preflight =
        b"OPTIONS / HTTP/1.1\r\nhost: x\r\norigin: https://example.org\r\naccess-control-request-method: POST\r\n\r\n";
    let preflight = served.raw(preflight).await;
    assert!(
        is(&preflight, 204) && preflight.contains("access-control-allow-methods: GET, POST, OPTIONS"),
        "{preflight}"
    );
    assert!(preflight.contains("access-control-allow-headers: Content-Type"), "{preflight}");
    let delete = served.raw(b"DELETE / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(is(&delete, 405) && delete.contains("allow: GET, POST, OPTIONS"), "{delete}");
}

#[tokio::test]
async fn what_is_no_address_is_refused_in_json_and_not_kept() {
    let served = served(limits()).await;
    for form in ["", "email=", "email=ada", "name=ada%40example.org", "email=%3D1%2B1%40example.org"] {
        let answer = served.post(form, "").await;
        assert!(is(&answer, 400) && answer.contains("access-control-allow-origin"), "{form:?}: {answer}");
        assert!(body(&answer).starts_with(r#"{"ok":false,"error":""#), "{answer}");
    }
    assert!(served.addresses().await.is_empty());
}

#[tokio::test]
async fn long_forms_are_refused_with_an_answer_and_endless_ones_cut_off() {
    let served = served(limits()).await;
    let long = format!("email=ada%40example.org&x={}", "y".repeat(100_000));
    assert!(is(&served.post(&long, "").await, 413));
    let endless = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n{}", "y".repeat(3 << 20));
    let answer = served.raw(endless.as_bytes()).await;
    assert!(answer.is_empty() || is(&answer, 413), "{answer}");
    assert!(served.addresses().await.is_empty());
}

#[tokio::test]
async fn slow_heads_and_bodies_give_their_place_back() {
    let patience = Duration::from_millis(200);
    let served = served(Limits { patience, connections_max: 2, ..limits() }).await;
    let (mut silent, mut slow) =
        (TcpStream::connect(served.address).await.unwrap(), TcpStream::connect(served.address).await.unwrap());
    silent.write_all(b"POST / HT").await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 24\r\n\r\nemail=").await.unwrap();
    // Both places are taken; whoever comes now waits for one, and gets it.
    assert!(is(&served.post("email=ada%40example.org", "").await, 200));
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(is(&answer, 408), "{answer}");
    let mut answer = String::new();
    drop(silent.read_to_string(&mut answer).await);
    assert!(!is(&answer, 200), "{answer}");
    assert_eq!(served.addresses().await, ["ada@example.org"]);
}

#[tokio::test]
async fn who_comes_too_often_is_told_when_to_come_again_and_others_are_let_in() {
    let rate = Rate { burst: 2, interval: Duration::from_secs(60), clients_max: 10 };
    let served = served(Limits { rate, ..limits() }).await;
    let ada = "x-forwarded-for: 203.0.113.9\r\n";
    for number in 0..2 {
        assert!(is(&served.post(&format!("email=ada{number}%40example.org"), ada).await, 200));
    }
    let refused = served.post("email=ada2%40example.org", ada).await;
    assert!(is(&refused, 429) && refused.contains("access-control-allow-origin"), "{refused}");
    let wait: u64 = refused.split_once("retry-after: ").unwrap().1.split_once('\r').unwrap().0.parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Who claims to be somebody else is still the one that the proxy saw last.
    let disguised = "x-forwarded-for: 198.51.100.1, 203.0.113.9\r\n";
    assert!(is(&served.post("email=ada3%40example.org", disguised).await, 429));
    assert!(is(&served.post("email=zoe%40example.org", "x-forwarded-for: 203.0.113.10\r\n").await, 200));
    assert_eq!(served.addresses().await.len(), 3);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_closes_the_list_and_is_reported_until_it_can() {
    let served = served(limits()).await;
    assert!(is(&served.post("email=ada%40example.org", "").await, 200));
    let path = file(served.dir.path());
    let kept = std::fs::read(&path).unwrap();
    let again = Arc::new(Waitlist::new(path.clone()));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = again.sign_up("zoe@example.org".parse().unwrap(), time::OffsetDateTime::UNIX_EPOCH).await.unwrap_err();
    assert!(!error.to_string().contains("zoe"), "{error}");
    assert!(again.problem().unwrap().contains("cannot be read or written"));
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, kept).unwrap();
    again.sign_up("zoe@example.org".parse().unwrap(), time::OffsetDateTime::UNIX_EPOCH).await.unwrap();
    assert_eq!((again.entries().await.unwrap().len(), again.problem()), (2, None));
}

#[tokio::test]
async fn a_taken_port_is_reported_and_taken_once_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let waitlist = Arc::new(Waitlist::new(file(dir.path())));
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, ended) = (taken.local_addr().unwrap(), CancellationToken::new());
    let open = waitlist.clone().keep_open(door(address, limits()), Arc::new(SystemClock), ended.clone());
    let open = tokio::spawn(open);
    tokio::time::timeout(Duration::from_secs(10), async {
        while waitlist.problem().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(waitlist.problem().unwrap().contains("in use"), "{:?}", waitlist.problem());
    drop(taken);
    tokio::time::timeout(Duration::from_secs(20), async {
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(waitlist.problem(), None);
    ended.cancel();
    open.await.unwrap();
}
