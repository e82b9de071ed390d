//! `swap.sh`: the admin container swapped by somebody at the server, with nobody who would ask a second time.

use std::{path::PathBuf, sync::Arc, time::Duration};

use feather_proto::{error::reason, tls::Principal};
use uuid::Uuid;

use super::{
    crash::{Crashing, Cut},
    harness::{IMAGE, Server, World, wait_until},
    work::{BLUE, GREEN, NEW, abandon, server, stranger, try_swap},
};
use crate::{
    ledger::Directory,
    local::client::{self, Failure},
    router,
    runtime::{
        Runtime as _,
        fake::{Behaviour, Verb},
    },
};

/// What a command wrote, or what it said and its exit code.
async fn typed(socket: PathBuf, image: Option<&str>) -> Result<String, (String, u8)> {
    let mut out = Vec::new();
    let said = |failure: Failure| (failure.to_string(), failure.exit_code());
    let swap = client::Swap { image: image.map(ToOwned::to_owned) };
    client::swap(&socket, swap, &mut out).await.map_err(said)?;
    Ok(String::from_utf8(out).unwrap())
}

async fn swap_sh(server: &Server, image: Option<&str>) -> Result<String, (String, u8)> {
    typed(server.socket(), image).await
}

async fn status(server: &Server) -> String {
    let mut out = Vec::new();
    client::run(&server.socket(), client::Tenant::Status, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

/// Waits until one serves strangers and there is no other; which one.
async fn alone(server: &Server) -> String {
    let mut serves = String::new();
    wait_until("one admin container serves, alone", async || {
        let found = server.engine.containers("feather-work-").await.unwrap();
        let told = status(server).await;
        serves = found.first().map(|one| one.name.clone()).unwrap_or_default();
        let so =
            found.len() == 1 && stranger(server) == 200 && told.contains(&format!("\nadmin       {serves} on port"));
        (so && !told.contains("is being proved"), (found, told))
    })
    .await;
    serves
}

async fn started(world: &World) -> Server {
    let mut nyc = server(world);
    nyc.start_alone().await;
    assert_eq!(alone(&nyc).await, BLUE);
    nyc
}

#[tokio::test]
async fn a_server_by_itself_swaps_its_admin_container_with_one_command() {
    let world = World::new();
    let mut nyc = started(&world).await;
    let digest = nyc.digest.clone();
    let line = swap_sh(&nyc, None).await.unwrap();
    assert_eq!(line, format!("{GREEN} serves on port 8081 in place of {BLUE}, image {digest}\n"));
    assert_eq!(alone(&nyc).await, GREEN, "when the command returns, the old one is gone");
    let line = swap_sh(&nyc, Some(NEW)).await.unwrap();
    assert!(line.starts_with(&format!("{BLUE} serves on port 8080 in place of {GREEN}, image ")), "{line}");
    let told = status(&nyc).await;
    assert!(told.contains(&format!("admin       {BLUE} on port 8080, running, {NEW} (")), "{told}");

    let (said, code) = swap_sh(&nyc, Some("localhost/feather-absent:latest")).await.unwrap_err();
    assert_eq!(code, 1);
    assert!(
        said.contains("localhost/feather-absent:latest is not in this server's storage; nothing was changed"),
        "{said}"
    );
    assert_eq!(alone(&nyc).await, BLUE);
    nyc.stop().await;

    nyc.config.admin = None;
    nyc.start_alone().await;
    let (said, code) = swap_sh(&nyc, None).await.unwrap_err();
    assert_eq!(code, 1);
    assert!(said.contains("FEATHER_AGENT_ADMIN is off on it; there is nothing to swap"), "{said}");
    assert!(!status(&nyc).await.contains("\nadmin "));
    nyc.stop().await;
}

#[tokio::test]
async fn a_new_one_that_is_no_good_is_removed_and_the_old_one_serves() {
    let world = World::new();
    let mut nyc = started(&world).await;
    for behaviour in [Behaviour::NeverHealthy, Behaviour::Exits] {
        nyc.engine.add_image(IMAGE, "bad", behaviour);
        let (said, code) = swap_sh(&nyc, None).await.unwrap_err();
        assert_eq!(code, 1);
        assert!(said.contains("listening on 8080"), "its last lines: {said}");
        assert!(said.ends_with(&format!("{BLUE} serves as before, {GREEN} was removed")), "{said}");
        assert_eq!(alone(&nyc).await, BLUE);
    }
    nyc.engine.add_image(IMAGE, "good", Behaviour::Healthy);
    swap_sh(&nyc, None).await.unwrap();
    assert_eq!(alone(&nyc).await, GREEN);
    nyc.stop().await;
}

#[tokio::test]
async fn of_two_commands_at_once_one_swaps_and_the_other_is_refused() {
    let world = World::new();
    let mut nyc = started(&world).await;
    let (one, other) = tokio::join!(swap_sh(&nyc, None), swap_sh(&nyc, None));
    let refusals: Vec<_> = [one, other].into_iter().filter_map(Result::err).collect();
    assert!(
        matches!(refusals.as_slice(), [(said, 1)] if said.contains("another swap of the admin container")),
        "{refusals:?}"
    );
    assert_eq!(alone(&nyc).await, GREEN);
    nyc.stop().await;
}

#[tokio::test]
async fn a_swap_of_the_fleet_and_one_by_hand_refuse_each_other() {
    let world = World::new();
    let mut nyc = server(&world);
    nyc.config.health_timeout = Duration::from_secs(60);
    nyc.start_alone().await;
    world.ca.issue(&Principal::agent("nyc")).save(&nyc.config.identity_file()).unwrap();
    nyc.join_fleet();
    assert_eq!(alone(&nyc).await, BLUE);

    let fleets = Uuid::new_v4();
    try_swap(&nyc, fleets, NEW).await.unwrap();
    let (said, code) = swap_sh(&nyc, None).await.unwrap_err();
    assert_eq!(code, 1);
    assert!(said.contains(&format!("under way ({fleets})")), "{said}");
    abandon(&nyc, fleets).await.unwrap();

    nyc.engine.add_image(NEW, "slow", Behaviour::NeverHealthy);
    let by_hand = tokio::spawn(typed(nyc.socket(), Some(NEW)));
    wait_until("the new one runs", async || (nyc.engine.spec(GREEN).is_some(), ())).await;
    assert_eq!(try_swap(&nyc, Uuid::new_v4(), "").await.unwrap_err().reason, reason::OPERATION_RUNNING);
    assert!(status(&nyc).await.contains(&format!("{GREEN} is being proved")));
    nyc.engine.set_behaviour(GREEN, Behaviour::Healthy);
    by_hand.await.unwrap().unwrap();
    assert_eq!(alone(&nyc).await, GREEN, "a member does it by itself");
    try_swap(&nyc, Uuid::new_v4(), "").await.unwrap();
    nyc.stop().await;
}

#[tokio::test]
async fn a_command_whose_agent_dies_in_the_middle_leaves_the_old_one_serving() {
    let world = World::new();
    let mut nyc = server(&world);
    nyc.config.health_timeout = Duration::from_secs(60);
    nyc.start_alone().await;
    assert_eq!(alone(&nyc).await, BLUE);
    nyc.engine.add_image(NEW, "slow", Behaviour::NeverHealthy);
    let by_hand = tokio::spawn(typed(nyc.socket(), Some(NEW)));
    wait_until("the new one runs", async || (nyc.engine.spec(GREEN).is_some(), ())).await;
    nyc.crash().await;
    assert_eq!(stranger(&nyc), 200, "while there is no agent, too");
    let (_, code) = by_hand.await.unwrap().unwrap_err();
    assert_eq!(code, 3);
    nyc.start_alone().await;
    assert_eq!(alone(&nyc).await, BLUE);
    swap_sh(&nyc, None).await.unwrap();
    assert_eq!(alone(&nyc).await, GREEN);
    nyc.stop().await;
}

/// The agent may be at the end of the swap before; whoever types the command in that moment is told so.
async fn swaps_again(server: &Server) {
    wait_until("another swap is done", async || match swap_sh(server, None).await {
        Ok(line) => (true, line),
        Err((said, _)) => {
            assert!(said.contains("another swap of the admin container is under way"), "{said}");
            (false, said)
        }
    })
    .await;
}

#[tokio::test]
async fn whatever_fails_in_the_middle_one_serves_in_the_end() {
    for verb in [
        Verb::Image,
        Verb::EnsureVolume,
        Verb::EnsureContainer,
        Verb::Container,
        Verb::Start,
        Verb::Stop,
        Verb::RemoveContainer,
    ] {
        for lost in [false, true] {
            let world = World::new();
            let mut nyc = started(&world).await;
            match lost {
                true => nyc.engine.lose_reply_next(verb),
                false => nyc.engine.fail_next(verb, 1),
            }
            let done = swap_sh(&nyc, None).await;
            let serves = alone(&nyc).await;
            if done.is_ok() {
                assert_eq!(serves, GREEN, "{verb:?} {lost}");
            }
            swaps_again(&nyc).await;
            assert_ne!(alone(&nyc).await, serves, "{verb:?} {lost}");
            nyc.stop().await;
        }
    }
}

#[tokio::test]
async fn what_is_decided_is_brought_to_its_end_when_the_routes_cannot_be_changed_at_first() {
    let world = World::new();
    let mut nyc = started(&world).await;
    // Until told otherwise: how many passes of the reconciler fall into the swap is nobody's to say.
    nyc.proxy.fail_next(router::fake::Verb::Ensure, u32::MAX);
    let (said, code) = swap_sh(&nyc, None).await.unwrap_err();
    assert_eq!(code, 3);
    assert!(
        said.contains(&format!("it is decided that {GREEN} serves")) && said.contains("goes on by itself"),
        "{said}"
    );
    nyc.proxy.fail_next(router::fake::Verb::Ensure, 0);
    assert_eq!(alone(&nyc).await, GREEN);
    nyc.stop().await;
}

/// Swaps with a crash of everything at a write of the record; true when the crash happened.
async fn crashed_swap(crash_after: usize, cut: Cut) -> bool {
    let world = World::new();
    let mut nyc = started(&world).await;
    nyc.stop().await;
    let work = Crashing::after(crash_after, cut, Directory::new(nyc.config.work_dir()).unwrap());
    nyc.start_alone_with(Arc::new(work)).await;
    let done = swap_sh(&nyc, None).await;
    if done.is_err() {
        nyc.crash().await;
        nyc.engine.reboot();
        nyc.proxy.lose_routes();
        nyc.start_alone().await;
    }
    let serves = alone(&nyc).await;
    if done.is_err() {
        swaps_again(&nyc).await;
        assert_ne!(alone(&nyc).await, serves, "after a crash at write {crash_after} ({cut:?})");
    }
    nyc.stop().await;
    done.is_err()
}

#[tokio::test]
async fn a_crash_at_any_write_leaves_one_that_serves_and_a_server_that_swaps() {
    for cut in [Cut::BeforeTheWrite, Cut::AfterTheWrite] {
        let mut crash_after = 0;
        while crashed_swap(crash_after, cut).await {
            crash_after += 1;
        }
        assert!(crash_after >= 3, "only {crash_after} writes");
    }
}
