//! A real Caddy to hold to the contract, and the promises that only a real one can break.
//!
//! Owns one Caddy process on loopback ports of its own, and a small server behind it that says what it was sent.
#![allow(clippy::unwrap_used, reason = "these are tests, exported")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use feather_proto::ids::TenantName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{Mutex, Notify},
    task::JoinHandle,
};

use super::{AdminAddress, Caddy, CaddyOptions};
use crate::{
    gate::{GateLimits, Gates},
    router::{
        Error, HOP_HEADER, PROBE_HEADER, Route, Router, UnderWay,
        contract::{Answer, World},
    },
};

pub mod admin;
pub mod bodies;

const SUFFIX: &str = "users.example.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// A Caddy process, killed when dropped.
pub struct Process {
    binary: PathBuf,
    config: PathBuf,
    options: CaddyOptions,
    caddy: Arc<Caddy>,
    child: Mutex<Option<Child>>,
    backend: JoinHandle<()>,
    /// Lets slow answers of the backend end.
    go_on: Arc<Notify>,
    backend_port: u16,
    dead_port: u16,
    http: reqwest::Client,
    admin: reqwest::Client,
}

/// Where a Caddy of the contract is asked and told.
#[derive(Debug, Clone, Copy)]
pub enum AdminBy {
    /// A socket in the directory.
    Socket,
    /// A loopback port.
    Port,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.backend.abort();
    }
}

/// A free loopback port that stays free while nobody listens at it: Linux gives outgoing connections the ports of
/// `ip_local_port_range` (32768 to 60999 unless configured), and each time a server is away one of them may take its port. The
/// numbers are from below that, each at most once per process, begun at a place that differs between processes.
pub fn quiet_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 18_000;
    (0..COUNT)
        .map(|_| FIRST + (std::process::id() * 37 + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of many ports is free")
}

fn base_config(admin: &AdminAddress, public: u16) -> Value {
    // Characters and numbers that a careless re-encoding would change.
    let other = json!({
        "@id": "other",
        "match": [{ "path": ["/<&>/*"] }],
        "handle": [{ "handler": "static_response", "status_code": 200, "body": "\u{2028}<&>" }],
    });
    let catch_all = json!({ "handle": [{ "handler": "static_response", "status_code": 404 }] });
    json!({
        "admin": { "listen": admin.listen(), "config": { "persist": false } },
        "logging": { "logs": { "default": { "level": "ERROR" } } },
        "apps": { "http": { "servers": { "feather": {
            "listen": [format!("127.0.0.1:{public}")],
            // As in a birth.
            "enable_full_duplex": true,
            "automatic_https": { "disable": true },
            "routes": [other, catch_all],
        } } } },
    })
}

impl Process {
    /// Starts the binary with a base configuration in the directory.
    pub async fn start(binary: &Path, directory: &Path, admin: AdminBy) -> Self {
        let [port, public, dead_port] = [(); 3].map(|()| quiet_port());
        let admin = match admin {
            AdminBy::Socket => AdminAddress::Socket(directory.join("admin.sock")),
            AdminBy::Port => AdminAddress::Tcp(format!("127.0.0.1:{port}")),
        };
        let config = directory.join("caddy.json");
        std::fs::write(&config, base_config(&admin, public).to_string()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend_port = listener.local_addr().unwrap().port();
        let client = || reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy();
        let admin_client = admin.client(client()).unwrap();
        let options = CaddyOptions {
            admin,
            public: format!("http://127.0.0.1:{public}"),
            ..CaddyOptions::new(SUFFIX, directory)
        };
        let go_on = Arc::new(Notify::new());
        let process = Self {
            binary: binary.to_owned(),
            config,
            caddy: Arc::new(Caddy::new(options.clone()).unwrap()),
            options,
            child: Mutex::new(None),
            backend: tokio::spawn(serve(listener, Arc::clone(&go_on))),
            go_on,
            backend_port,
            dead_port,
            http: client().build().unwrap(),
            admin: admin_client,
        };
        process.come_back().await;
        process
    }

    fn public_address(&self) -> String {
        self.options.public.trim_start_matches("http://").to_owned()
    }

    async fn config(&self) -> String {
        let url = format!("{}/config/", self.options.admin.url());
        self.admin.get(url).send().await.unwrap().text().await.unwrap()
    }

    async fn fetch(&self, tenant: &TenantName, headers: &[(&str, &str)]) -> reqwest::Response {
        let request = self.http.get(format!("{}/health", self.options.public)).header("host", tenant.host(SUFFIX));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap()
    }
}

#[async_trait]
impl World for Process {
    fn router(&self) -> Arc<dyn Router> {
        Arc::<Caddy>::clone(&self.caddy)
    }

    fn port(&self) -> u16 {
        self.backend_port
    }

    fn dead_port(&self) -> u16 {
        self.dead_port
    }

    fn elsewhere(&self) -> String {
        format!("127.0.0.1:{}", self.backend_port)
    }

    fn gate(&self, tenant: &TenantName) -> PathBuf {
        self.options.gates.join(tenant.as_str())
    }

    fn itself(&self) -> String {
        self.public_address()
    }

    async fn get(&self, tenant: &TenantName, headers: &[(&str, &str)]) -> Answer {
        let response = self.fetch(tenant, headers).await;
        Answer { status: response.status().as_u16(), served: response.headers().contains_key("served-by") }
    }

    async fn revision(&self) -> String {
        let files = self.caddy.files.read().unwrap();
        let admin = self.caddy.files.read_admin().unwrap();
        format!("{} {files:?} {admin:?}", self.config().await)
    }

    async fn foreign(&self) -> String {
        let mut config: Value = serde_json::from_str(&self.config().await).unwrap();
        let routes = config["apps"]["http"]["servers"]["feather"]["routes"].as_array_mut().unwrap();
        let others = |id: &str| !id.starts_with("tenant-") && !["feather_tenants", "work_upstream"].contains(&id);
        routes.retain(|route| route["@id"].as_str().is_none_or(others));
        config.to_string()
    }

    async fn lose_routes(&self) {
        self.go_away().await;
        self.come_back().await;
    }

    async fn come_back(&self) {
        let mut command = Command::new(&self.binary);
        command.args(["run", "--config"]).arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null());
        // In a file: a pipe that nobody empties would stop it.
        let said = self.config.with_extension("log");
        command.stderr(std::fs::File::create(&said).unwrap()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let answers = async {
            while TcpStream::connect(self.public_address()).await.is_err() {
                if let Some(status) = child.try_wait().unwrap() {
                    return Err(format!("it ended at once, {status}"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        let answers = tokio::time::timeout(PATIENCE, answers).await;
        if let Err(why) = answers.unwrap_or_else(|_| Err(format!("it does not listen after {PATIENCE:?}"))) {
            panic!("Caddy at {}: {why}; {}", self.public_address(), std::fs::read_to_string(said).unwrap());
        }
        *self.child.lock().await = Some(child);
    }

    async fn go_away(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.unwrap();
        }
    }
}

/// Answers every request with what it was sent; upgrades a connection to an echo, or keeps an answer waiting, when asked.
async fn serve(listener: TcpListener, go_on: Arc<Notify>) {
    while let Ok((stream, _)) = listener.accept().await {
        let go_on = Arc::clone(&go_on);
        tokio::spawn(async move {
            // A client that goes away is none of the tests' business.
            let _ = answer(stream, &go_on).await;
        });
    }
}

async fn answer(mut stream: TcpStream, go_on: &Notify) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    if head.contains("upgrade: websocket") {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            .await?;
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await?;
        return Ok(());
    }
    if head.contains("x-slow:") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst").await?;
        go_on.notified().await;
        if !head.starts_with("post") {
            return stream.write_all(b"second").await;
        }
        let mut body = [0; 10];
        stream.read_exact(&mut body).await?;
        return stream.write_all(&[b" body: ", &body[..]].concat()).await;
    }
    let length = head.len();
    let reply =
        format!("HTTP/1.1 200 OK\r\nServed-By: backend\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{head}");
    stream.write_all(reply.as_bytes()).await
}

/// Runs the promises that only a real Caddy can break. Caddy 2.6 cuts streams at every change, whatever it is told; from 2.7 on
/// it keeps them.
pub async fn all(world: &Process, keeps_streams: bool) {
    forwarded_requests_carry_host_and_mark(world).await;
    a_host_name_in_capitals_is_the_same(world).await;
    unavailable_says_when_to_ask_again(world).await;
    concurrent_changes_are_all_kept(world).await;
    a_missing_server_is_unsuitable(world).await;
    a_route_by_hand_is_kept_as_it_is(world).await;
    admin::kept_connections_end_with_a_change_and_new_ones_are_answered(world).await;
    admin::a_socket_that_was_left_behind_is_in_nobodys_way(world).await;
    no_request_is_lost_by_changes(world).await;
    bodies::a_refused_request_with_a_body_is_answered(world).await;
    if keeps_streams {
        bodies::an_answer_that_begins_before_its_request_has_ended_is_whole(world).await;
        a_slow_response_outlives_changes(world).await;
        what_is_under_way_is_counted_while_others_wait(world).await;
        open_streams_outlive_changes(world).await;
    }
}

fn alice() -> TenantName {
    "alice".parse().unwrap()
}

fn only(route: Route) -> BTreeMap<TenantName, Route> {
    [(alice(), route)].into()
}

/// The host name stays, the mark is set, and a tenant never sees a probe token.
pub async fn forwarded_requests_carry_host_and_mark(world: &Process) {
    let caddy = &world.caddy;
    caddy.ensure(&only(Route::Forward { to: world.elsewhere() })).await.unwrap();
    let seen = world.fetch(&alice(), &[]).await.text().await.unwrap();
    assert!(seen.contains("host: alice.users.example.com\r\n"), "{seen}");
    assert!(seen.contains(&format!("{}: ", HOP_HEADER.to_lowercase())), "{seen}");
    let probe = Route::Probe { port: world.port(), token: "0123abcd".to_owned(), otherwise: None };
    caddy.ensure(&only(probe)).await.unwrap();
    let seen = world.fetch(&alice(), &[(PROBE_HEADER, "0123abcd")]).await.text().await.unwrap();
    assert!(seen.contains("host: alice.users.example.com\r\n") && !seen.contains("0123abcd"), "{seen}");
    caddy.ensure(&BTreeMap::new()).await.unwrap();
}

/// Whatever a client makes of the letters of a host name, and with a port behind it: routes, probes and forwards follow.
pub async fn a_host_name_in_capitals_is_the_same(world: &Process) {
    let probe = Route::Probe {
        port: world.port(),
        token: "0123abcd".to_owned(),
        otherwise: Some(Box::new(Route::Unavailable)),
    };
    let (serve, forward) = (Route::Serve { port: world.port() }, Route::Forward { to: world.elsewhere() });
    for (route, token, status) in
        [(serve, "", 200), (forward, "", 200), (probe.clone(), "", 503), (probe, "0123abcd", 200)]
    {
        world.caddy.ensure(&only(route)).await.unwrap();
        for host in ["ALICE.users.example.com", "Alice.Users.EXAMPLE.com", "aliCe.users.example.com:8080"] {
            let request = world.http.get(format!("{}/health", world.options.public)).header("host", host);
            let answer = request.header(PROBE_HEADER, token).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{host}");
        }
    }
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

/// Clients are told when to ask again.
pub async fn unavailable_says_when_to_ask_again(world: &Process) {
    world.caddy.ensure(&only(Route::Unavailable)).await.unwrap();
    let response = world.fetch(&alice(), &[]).await;
    assert_eq!(response.headers()["retry-after"], "2");
    assert!(!response.text().await.unwrap().is_empty());
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

/// Two agents' worth of callers and somebody else change the configuration at once; nobody's change is lost.
pub async fn concurrent_changes_are_all_kept(world: &Process) {
    let url = format!("{}/config/apps/http/servers/feather/routes/0", world.options.admin.url());
    let others = async {
        for number in 0..10 {
            let route = json!({ "@id": format!("other-{number}"), "match": [{ "path": ["/other"] }], "handle": [] });
            // The admin listener is replaced at each change, which can cost a caller its connection.
            while world.admin.put(&url).json(&route).send().await.is_err() {}
        }
    };
    let ours = async {
        for number in 0..20 {
            let route = if number % 2 == 0 { Route::Unavailable } else { Route::Serve { port: world.port() } };
            world.caddy.ensure(&only(route)).await.unwrap();
        }
    };
    tokio::join!(others, ours);
    let config = world.config().await;
    for number in 0..10 {
        assert!(config.contains(&format!("\"other-{number}\"")), "{number} was lost");
    }
    assert_eq!(world.caddy.observe().await.unwrap(), only(Route::Serve { port: world.port() }));
    world.lose_routes().await;
}

/// Somebody's own route that does what ours would is not touched, and so its open WebSocket lives; the first change that has to
/// be made puts ours in its place.
pub async fn a_route_by_hand_is_kept_as_it_is(world: &Process) {
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
    world.lose_routes().await;
    let url = format!("{}/config/apps/http/servers/feather/routes/0", world.options.admin.url());
    let upstreams = json!([{ "dial": format!("localhost:{}", world.port()) }]);
    let route = json!({
        "@id": "tenant-alice",
        "match": [{ "host": [alice().host(SUFFIX)] }],
        "handle": [{ "handler": "reverse_proxy", "upstreams": upstreams, "flush_interval": -1 }],
    });
    let write_by_hand = async || world.admin.put(&url).json(&route).send().await.unwrap();
    write_by_hand().await;
    let mut stream = open_stream(world).await;
    let before = world.config().await;
    let mut wanted = only(Route::Serve { port: world.port() });
    for _ in 0..3 {
        assert!(!world.caddy.ensure(&wanted).await.unwrap());
    }
    assert_eq!(world.config().await, before);
    echoes(&mut stream, "alice").await;
    wanted.insert("bob".parse().unwrap(), Route::Unavailable);
    assert!(world.caddy.ensure(&wanted).await.unwrap());
    assert_eq!(world.caddy.observe().await.unwrap(), wanted);
    assert!(!world.config().await.contains("tenant-alice"));
    assert_eq!(
        [world.get(&alice(), &[]).await.status, world.get(&"bob".parse().unwrap(), &[]).await.status],
        [200, 503]
    );

    // Of somebody who is not known it stays, also when the list has to be changed for another.
    world.lose_routes().await;
    write_by_hand().await;
    wanted.remove(&alice());
    let known = wanted.keys().cloned().collect();
    assert!(world.caddy.ensure_among(&wanted, Some(&known)).await.unwrap());
    assert!(world.config().await.contains("tenant-alice") && world.config().await.contains("feather_tenants"));
    assert_eq!(world.get(&alice(), &[]).await.status, 200);
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
    assert!(!world.config().await.contains("tenant-alice"));
}

/// Requests on new connections, not safe to repeat, all the time, while routes come, go and change: every one is answered.
pub async fn no_request_is_lost_by_changes(world: &Process) {
    let bob: TenantName = "bob".parse().unwrap();
    let serve = Route::Serve { port: world.port() };
    let steady = |alice_route: Option<Route>| -> BTreeMap<TenantName, Route> {
        let alice_route = alice_route.map(|route| (alice(), route));
        [(bob.clone(), serve.clone())].into_iter().chain(alice_route).collect()
    };
    world.caddy.ensure(&steady(Some(serve.clone()))).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let ask = async |tenant: &TenantName, whoever: &[u16]| {
        let mut asked = 0;
        while !stop.is_cancelled() {
            let request = world.http.post(format!("{}/health", world.options.public)).body("once");
            let answer = request.header("host", tenant.host(SUFFIX)).send().await.unwrap();
            assert!(whoever.contains(&answer.status().as_u16()), "{tenant}: {}", answer.status());
            asked += 1;
        }
        asked
    };
    let changes = async {
        for _ in 0..100 {
            for route in [Some(Route::Forward { to: world.elsewhere() }), None, Some(serve.clone())] {
                assert!(world.caddy.ensure(&steady(route)).await.unwrap());
            }
        }
        stop.cancel();
    };
    let alice = alice();
    let (alices, bobs, ()) = tokio::join!(ask(&alice, &[200, 404]), ask(&bob, &[200]), changes);
    assert!(alices > 100 && bobs > 100, "{alices} and {bobs} requests are no load");
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

/// An open WebSocket of one tenant lives through changes for others. Caddy 2.7 or later.
pub async fn open_streams_outlive_changes(world: &Process) {
    let mut wanted = only(Route::Serve { port: world.port() });
    world.caddy.ensure(&wanted).await.unwrap();
    let mut stream = open_stream(world).await;
    for name in ["bob", "carol"] {
        wanted.insert(name.parse().unwrap(), Route::Unavailable);
        assert!(world.caddy.ensure(&wanted).await.unwrap());
        echoes(&mut stream, name).await;
    }
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

async fn echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut echo = vec![0; text.len()];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(echo, text.as_bytes());
}

async fn open_stream(world: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(world.public_address()).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        alice().host(SUFFIX)
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A response in progress neither holds up a change nor is cut by it. Caddy 2.7 or later.
pub async fn a_slow_response_outlives_changes(world: &Process) {
    let mut wanted = only(Route::Serve { port: world.port() });
    world.caddy.ensure(&wanted).await.unwrap();
    let mut response = world.fetch(&alice(), &[("x-slow", "1")]).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
    wanted.insert("bob".parse().unwrap(), Route::Unavailable);
    assert!(tokio::time::timeout(PATIENCE, world.caddy.ensure(&wanted)).await.unwrap().unwrap());
    // Also a change of the very route that it came through.
    assert!(tokio::time::timeout(PATIENCE, world.caddy.ensure(&only(Route::Unavailable))).await.unwrap().unwrap());
    world.go_on.notify_one();
    assert_eq!(response.text().await.unwrap(), "second");
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

/// At the gate new requests wait and then go to where the tenant lives, marked as forwarded; what began before them can be
/// counted until it ends.
pub async fn what_is_under_way_is_counted_while_others_wait(world: &Process) {
    let gates = Gates::new(world.options.gates.clone(), GateLimits::default());
    world.caddy.ensure(&only(Route::Serve { port: world.port() })).await.unwrap();
    let mut slow = world.fetch(&alice(), &[("x-slow", "1")]).await;
    assert_eq!(slow.chunk().await.unwrap().unwrap(), "first");
    let begun = world.caddy.in_flight(world.port()).await.unwrap();
    assert_eq!((begun.count, begun.connections.len()), (1, 1));

    let gate = gates.hold(&alice()).unwrap();
    world.caddy.ensure(&only(Route::Hold { gate, port: world.port() })).await.unwrap();
    assert_eq!(world.caddy.in_flight(world.port()).await.unwrap(), begun, "it is known again by its connection");
    let address = world.elsewhere();
    let held = async {
        let seen = world.fetch(&alice(), &[]).await.text().await.unwrap();
        assert!(seen.contains(&format!("{}: ", HOP_HEADER.to_lowercase())), "{seen}");
    };
    let decided = async {
        while gates.waiting(&alice()) == 0 {
            tokio::task::yield_now().await;
        }
        world.go_on.notify_one();
        assert_eq!(slow.text().await.unwrap(), "second");
        while world.caddy.in_flight(world.port()).await.unwrap() != UnderWay::default() {
            tokio::task::yield_now().await;
        }
        world.caddy.ensure(&only(Route::Forward { to: address.clone() })).await.unwrap();
        assert_eq!(gates.release(&alice(), Some(&address)).unwrap().connections, 1);
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(held, decided) }).await.unwrap();
    world.caddy.ensure(&BTreeMap::new()).await.unwrap();
}

/// A configuration without our server is refused with words, not filled in.
pub async fn a_missing_server_is_unsuitable(world: &Process) {
    let options = CaddyOptions { server: "absent".to_owned(), ..world.options.clone() };
    let caddy = Caddy::new(options).unwrap();
    let before = world.config().await;
    assert!(matches!(caddy.observe().await, Err(Error::Unsuitable(_))));
    assert!(matches!(caddy.ensure(&only(Route::Unavailable)).await, Err(Error::Unsuitable(_))));
    assert_eq!(world.config().await, before);
}
