//! The waitlist of a whole agent: from the form to the controller's calls, over a restart, and in no log.

use feather_proto::tls::Channel;
use feather_proto::{
    error::{Error, reason},
    pb::agent::v1::{self as pb, waitlist_service_client::WaitlistServiceClient},
    tls::Role,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Server, World, captured_log};

fn client(world: &World, nyc: &Server, role: Role) -> WaitlistServiceClient<Channel> {
    WaitlistServiceClient::new(nyc.as_role(world, role, "somebody"))
}

async fn post(nyc: &Server, form: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(nyc.waitlist).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{form}", form.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn emails(client: &mut WaitlistServiceClient<Channel>) -> Vec<String> {
    let mut pages = client.list_entries(pb::ListEntriesRequest {}).await.unwrap().into_inner();
    let mut emails = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        assert_eq!(page.problem, "");
        emails.extend(page.entries.into_iter().map(|entry| entry.email));
    }
    emails
}

#[tokio::test]
async fn addresses_outlive_the_agent_and_are_told_to_the_controller_alone() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    assert!(post(&nyc, "email=wanda%40example.org").await.ends_with(r#"{"ok":true}"#));
    assert!(post(&nyc, "email=wanda.example.org").await.contains(r#""ok":false"#));
    nyc.crash().await;
    nyc.start().await;
    let mut admin = client(&world, &nyc, Role::Controller);
    assert_eq!(emails(&mut admin).await, ["wanda@example.org"]);
    let look = |email: &str| pb::GetEntryRequest { email: email.into() };
    let found = admin.get_entry(look("WANDA@example.org")).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(found.email, "wanda@example.org");
    assert!(admin.get_entry(look("xenia@example.org")).await.unwrap().into_inner().entry.is_none());
    assert_eq!(Error::from(admin.get_entry(look("wanda")).await.err().unwrap()).reason, reason::INVALID_EMAIL);

    for role in [Role::Viewer, Role::Operator, Role::Agent] {
        let mut stranger = client(&world, &nyc, role);
        let refused = stranger.list_entries(pb::ListEntriesRequest {}).await.err().unwrap();
        assert_eq!(Error::from(refused).reason, reason::ROLE, "{role:?}");
    }
    for removed in [true, false] {
        let request = pb::RemoveEntryRequest { email: "wanda@example.org".into() };
        assert_eq!(admin.remove_entry(request).await.unwrap().into_inner().removed, removed);
    }
    assert!(emails(&mut admin).await.is_empty());

    let log = captured_log();
    assert!(log.contains("taken off the waitlist"), "nothing was captured");
    assert!(!log.contains("wanda") && !log.contains("xenia"), "an address is in the log");
}
