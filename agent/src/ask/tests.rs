use std::sync::Arc;

use feather_proto::{ids::Generation, tls::Tcp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::answer;
use crate::{
    agent::{Agent, Seams},
    clock::SystemClock,
    config::Config,
    edge::{Domain, Edge, Https, Mode},
    ledger::{Desired, Directory, Ledger, Provisioning, Record, Residence},
    router, runtime,
    work::{Book, Work},
};

fn residences() -> Vec<(&'static str, Residence, bool)> {
    let active = |desired, provisioning| Residence::Active { desired, provisioning };
    let departed = |to: Option<&str>| Residence::Departed { forward_to: to.map(str::to_owned) };
    vec![
        ("runs", active(Desired::Run, None), true),
        ("begins", active(Desired::Run, Some(Provisioning { volume_is_new: true })), true),
        ("stopped", active(Desired::Stop, None), true),
        ("moves", Residence::Sealed, true),
        ("forwarded", departed(Some("192.0.2.7:80")), true),
        ("gone", departed(None), false),
        ("removed", Residence::Absent, false),
    ]
}

async fn agent(folder: &std::path::Path) -> Arc<Agent> {
    let https = Https {
        domain: Domain::parse("example.com").unwrap(),
        email: None,
        ca: None,
        ca_root: None,
        ask: "127.0.0.1:0".parse().unwrap(),
    };
    let config = Config {
        domain_suffix: "users.example.com".into(),
        edge: Edge { mode: Mode::Https(https), problems: Vec::new() },
        ..Config::new(folder)
    };
    let seams = Seams {
        runtime: Arc::new(runtime::fake::Fake::new(folder.join("volumes"))),
        router: Arc::new(router::fake::Fake::new()),
        dial: Arc::new(Tcp),
        clock: Arc::new(SystemClock),
    };
    let ledger = Ledger::open(Arc::new(Directory::new(config.ledger_dir()).unwrap())).unwrap();
    let book = Book::open(Arc::new(Directory::new(config.work_dir()).unwrap())).unwrap();
    let agent = Agent::new(config, seams, ledger, Work::new(book), &Default::default());
    for (name, residence, _) in residences() {
        let mut record = Record::floor(name.parse().unwrap(), Generation(3));
        record.residence = residence;
        agent.ledger.put(record).await.unwrap();
    }
    agent
}

/// The status code of one request on a connection of its own.
async fn ask(address: std::net::SocketAddr, line: &str) -> u16 {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "", "it tells no more than yes or no");
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn caddy_may_get_certificates_for_what_is_served_or_forwarded_here_and_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(folder.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(answer(agent.clone(), listener));
    for (name, _, allowed) in residences() {
        let status = ask(address, &format!("GET /ask?domain={name}.users.example.com")).await;
        assert_eq!(status, if allowed { 200 } else { 404 }, "{name}");
    }
    for (host, wanted) in [
        ("example.com", 200),
        ("RUNS.users.Example.com", 200),
        ("www.example.com", 404),
        ("users.example.com", 404),
        ("nobody.users.example.com", 404),
        ("a.runs.users.example.com", 404),
        ("runs.users.example.org", 404),
        ("192.0.2.7", 404),
        ("%72uns.users.example.com", 404),
        ("", 404),
    ] {
        assert_eq!(ask(address, &format!("GET /ask?domain={host}")).await, wanted, "{host:?}");
    }
    for (line, wanted) in
        [("GET /ask", 400), ("GET /ask?other=example.com", 400), ("GET /", 404), ("POST /ask?domain=example.com", 405)]
    {
        assert_eq!(ask(address, line).await, wanted, "{line}");
    }
    agent.ended.cancel();
}
