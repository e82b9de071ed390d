//! A server by itself: the local socket, its commands as typed, and the moment at which it joins a fleet.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use feather_proto::{
    ids::Generation,
    tls::{Identity, Principal},
};

use super::harness::{IMAGE, Server, World, alice, start, wait_until};
use crate::{
    ledger::Residence,
    local::client::{self, Failure},
    runtime::fake::Behaviour,
};

#[derive(Parser)]
struct Typed {
    #[command(subcommand)]
    command: client::Tenant,
}

/// What a command wrote, or what it said and its exit code.
async fn typed(socket: PathBuf, words: &[&str]) -> Result<String, (String, u8)> {
    let typed = Typed::try_parse_from(std::iter::once(&"tenant.sh").chain(words));
    let typed = typed.map_err(|error| (error.to_string(), u8::try_from(error.exit_code()).unwrap()))?;
    let mut out = Vec::new();
    let said = |failure: Failure| (failure.to_string(), failure.exit_code());
    client::run(&socket, typed.command, &mut out).await.map_err(said)?;
    Ok(String::from_utf8(out).unwrap())
}

pub(super) async fn tenant_sh(server: &Server, words: &[&str]) -> Result<String, (String, u8)> {
    typed(server.socket(), words).await
}

fn generation(server: &Server) -> Generation {
    server.record().generation
}

#[tokio::test]
async fn a_tenants_life_on_a_server_that_belongs_to_no_fleet() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.start_alone().await;
    let line = tenant_sh(&nyc, &["add", "alice"]).await.unwrap();
    let password = nyc.record().spec.unwrap().password;
    assert_eq!(line, format!("https://alice.users.inceptel.ai | password: {}\n", password.expose()));
    assert_eq!(nyc.public().0, 200);
    let list = tenant_sh(&nyc, &["list"]).await.unwrap();
    assert_eq!(
        list,
        "USERNAME  PORT  URL                              CONTAINER\n\
         alice     9001  https://alice.users.inceptel.ai  running\n"
    );
    std::fs::write(nyc.volume().join("notes"), "kept").unwrap();

    assert_eq!(tenant_sh(&nyc, &["stop", "alice"]).await.unwrap(), "");
    assert!(tenant_sh(&nyc, &["list"]).await.unwrap().contains("stopped"));
    assert_eq!(nyc.public().0, 503);
    // As a reboot would find it.
    nyc.crash().await;
    nyc.start_alone().await;
    assert!(tenant_sh(&nyc, &["list"]).await.unwrap().contains("stopped"));
    assert_eq!(tenant_sh(&nyc, &["start", "alice"]).await.unwrap(), "");
    assert_eq!(nyc.public().0, 200);

    assert_eq!(tenant_sh(&nyc, &["remove", "alice"]).await.unwrap(), "");
    assert_eq!(tenant_sh(&nyc, &["list"]).await.unwrap(), "USERNAME  PORT  URL  CONTAINER\n");
    let (said, code) = tenant_sh(&nyc, &["start", "alice"]).await.unwrap_err();
    assert_eq!(code, 1);
    assert!(said.contains("its data is kept: `tenant.sh add alice` brings it back"), "{said}");
    let again = tenant_sh(&nyc, &["add", "alice"]).await.unwrap();
    assert!(!again.contains(password.expose()), "a new password each time");
    assert_eq!(std::fs::read_to_string(nyc.volume().join("notes")).unwrap(), "kept");
    assert_eq!(generation(&nyc), Generation(5), "each change has a number of its own");
    let status = tenant_sh(&nyc, &["status"]).await.unwrap();
    assert!(status.starts_with("fleet       none;"), "{status}");
    assert!(status.contains("slots       1 of 10 taken\n"), "{status}");
    world.assert_never_two();
}

#[tokio::test]
async fn bad_commands_say_what_to_type() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.config.ports = 9001..=9001;
    nyc.start_alone().await;
    for name in ["Alice", "admin", "a_b", ""] {
        let (said, code) = tenant_sh(&nyc, &["add", name]).await.unwrap_err();
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("tenant name") || said.contains("reserved") || said.contains("value is required"),
            "{said}"
        );
    }
    tenant_sh(&nyc, &["add", "alice"]).await.unwrap();
    let cases: [(&[&str], u8, &str); 5] = [
        (&["add", "alice"], 1, "`tenant.sh list` shows it"),
        (&["add", "bob"], 1, "every port for tenants is taken"),
        (&["remove", "bob"], 1, "does not live on this server; `tenant.sh list`"),
        (&["stop", "bob"], 1, "does not live on this server"),
        (&["start", "bob"], 1, "does not live on this server"),
    ];
    for (words, wanted, sentence) in cases {
        let (said, code) = tenant_sh(&nyc, words).await.unwrap_err();
        assert_eq!(code, wanted, "{words:?}: {said}");
        assert!(said.contains(sentence), "{words:?}: {said}");
    }
    let (said, code) = typed("/nonexistent/agent.sock".into(), &["list"]).await.unwrap_err();
    assert_eq!(code, 3);
    assert!(said.starts_with("unreachable: no agent answers at /nonexistent/agent.sock (No such file"), "{said}");
    nyc.engine.remove_image(IMAGE);
    tenant_sh(&nyc, &["remove", "alice"]).await.unwrap();
    let (said, code) = tenant_sh(&nyc, &["add", "alice"]).await.unwrap_err();
    assert_eq!(code, 1);
    assert!(said.contains("is not in this server's storage; load it there"), "{said}");
    assert!(tenant_sh(&nyc, &["status"]).await.unwrap().contains("(not found)"));
}

#[tokio::test]
async fn a_tenant_that_never_gets_healthy_leaves_nothing_but_its_last_words() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.engine.add_image(IMAGE, "bad", Behaviour::NeverHealthy);
    nyc.start_alone().await;
    let (said, code) = tenant_sh(&nyc, &["add", "alice"]).await.unwrap_err();
    assert_eq!(code, 1);
    assert!(said.starts_with("error: alice did not answer its health check within"), "{said}");
    assert!(said.contains("its last lines:") || said.contains("it wrote nothing"), "{said}");
    assert!(nyc.engine.spec("feather-user-alice").is_none());
    assert_eq!(nyc.record().residence, Residence::Absent);
    nyc.engine.add_image(IMAGE, "good", Behaviour::Healthy);
    tenant_sh(&nyc, &["add", "alice"]).await.unwrap();
}

#[tokio::test]
async fn an_add_goes_on_when_its_caller_leaves_and_the_next_one_waits_for_it() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.config.health_timeout = Duration::from_secs(10);
    nyc.engine.add_image(IMAGE, "slow", Behaviour::NeverHealthy);
    nyc.start_alone().await;
    let left = tokio::spawn(typed(nyc.socket(), &["add", "alice"]));
    wait_until("alice's container", async || (nyc.engine.spec("feather-user-alice").is_some(), ())).await;
    left.abort();
    drop(left.await);
    let waiting = tokio::spawn(typed(nyc.socket(), &["add", "alice"]));
    assert!(tenant_sh(&nyc, &["list"]).await.unwrap().contains("starting"));
    nyc.engine.set_behaviour("feather-user-alice", Behaviour::Healthy);
    let line = waiting.await.unwrap().unwrap();
    let password = nyc.record().spec.unwrap().password;
    assert_eq!(line, format!("https://alice.users.inceptel.ai | password: {}\n", password.expose()));
    assert_eq!(generation(&nyc), Generation(1));
    world.assert_never_two();
}

#[tokio::test]
async fn from_the_moment_there_is_an_identity_nothing_is_decided_here() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.config.health_timeout = Duration::from_secs(10);
    nyc.engine.add_image(IMAGE, "slow", Behaviour::NeverHealthy);
    nyc.start_alone().await;
    let adding = tokio::spawn(typed(nyc.socket(), &["add", "alice"]));
    wait_until("alice's container", async || (nyc.engine.spec("feather-user-alice").is_some(), ())).await;
    let identity: Identity = world.ca.issue(&Principal::agent("nyc"));
    identity.save(&nyc.config.identity_file()).unwrap();
    nyc.join_fleet();
    for words in [["add", "bob"], ["remove", "alice"], ["stop", "alice"]] {
        let (said, code) = tenant_sh(&nyc, &words).await.unwrap_err();
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("just joining its fleet; nothing was changed"), "{said}");
    }
    assert!(tenant_sh(&nyc, &["status"]).await.unwrap().starts_with("fleet       joining\n"));

    // What was begun here ends before the controller may say anything.
    let mut controller = nyc.tenants();
    let told = tokio::spawn(async move { controller.start_tenant(start(2)).await });
    assert!(tenant_sh(&nyc, &["list"]).await.unwrap().contains("starting"));
    assert!(!told.is_finished());
    nyc.engine.set_behaviour("feather-user-alice", Behaviour::Healthy);
    assert!(adding.await.unwrap().unwrap().starts_with("https://alice."));
    told.await.unwrap().unwrap();
    assert_eq!(generation(&nyc), Generation(2));

    let (said, code) = tenant_sh(&nyc, &["stop", "alice"]).await.unwrap_err();
    assert_eq!(code, 1, "{said}");
    assert!(tenant_sh(&nyc, &["status"]).await.unwrap().starts_with("fleet       member nyc"));
    assert!(tenant_sh(&nyc, &["list"]).await.unwrap().contains("alice"));
    assert_eq!(nyc.record().tenant, alice());
}
