//! What does not answer is restarted, and what is restarted again and again is said so.

use std::{collections::BTreeMap, time::Duration};

use feather_proto::pb::agent::v1 as pb;

use super::harness::{Server, World, request_id, seal, wait_until};
use crate::{config::AdminSettings, runtime::fake::Verb};

const ALICE: &str = "feather-user-alice";

async fn watched(world: &World) -> Server {
    let mut server = world.server("nyc");
    server.config.watchdog_interval = Duration::from_millis(10);
    server.config.watchdog_checks = 3;
    server.start().await;
    server.add(1).await.unwrap();
    server
}

fn kinds(snapshot: &pb::ServerSnapshot) -> Vec<(&str, &str)> {
    snapshot.events.iter().map(|event| (event.kind.as_str(), event.tenant.as_str())).collect()
}

#[tokio::test]
async fn a_tenant_that_does_not_answer_is_restarted_once() {
    let world = World::new();
    let mut nyc = watched(&world).await;
    nyc.engine.hang(ALICE);
    assert_eq!(nyc.public().0, 502);
    wait_until("alice answers again", async || {
        let (status, tenant) = (nyc.public().0, nyc.get().await);
        (status == 200 && tenant.restarts == 1, (status, tenant))
    })
    .await;
    let snapshot = nyc.snapshot().await;
    assert_eq!(kinds(&snapshot), [("restarted", "alice")]);
    assert!(snapshot.events[0].message.contains("did not answer"), "{:?}", snapshot.events);
    assert!(!snapshot.tenants[0].crash_loop && snapshot.tenants[0].last_restart.is_some());
    world.assert_never_two();
    nyc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_ends_again_and_again_is_in_a_crash_loop_until_it_answers() {
    let world = World::new();
    let mut nyc = watched(&world).await;
    let began = tokio::time::Instant::now();
    for number in 1..=5 {
        nyc.engine.crash(ALICE);
        wait_restarts(&nyc, number).await;
    }
    // 1 + 2 + 4 + 8 s between the five: no busy loop.
    assert!(began.elapsed() >= Duration::from_secs(15), "{:?}", began.elapsed());
    let snapshot = nyc.snapshot().await;
    assert_eq!(kinds(&snapshot).iter().filter(|(kind, _)| *kind == "crash-loop").count(), 1);
    wait_recovered(&nyc).await;
    assert_eq!(kinds(&nyc.snapshot().await).last(), Some(&("recovered", "alice")));
    nyc.stop().await;
}

async fn wait_restarts(nyc: &Server, number: u64) {
    comes_to(nyc, "another restart", |alice| alice.restarts >= number).await;
}

async fn wait_recovered(nyc: &Server) {
    comes_to(nyc, "the end of the crash loop", |alice| !alice.crash_loop).await;
}

/// Bounded by the paused clock, whose minutes pass as soon as everybody waits.
async fn comes_to(nyc: &Server, what: &str, so: impl Fn(&pb::Tenant) -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..12_000 {
        if so(&nyc.get().await) {
            return;
        }
        ticks.tick().await;
    }
    panic!("waited ten minutes for {what}; last: {:?}", nyc.get().await);
}

#[tokio::test]
async fn a_tenant_on_the_move_is_left_alone() {
    let world = World::new();
    let mut nyc = watched(&world).await;
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    let starts = nyc.engine.calls(Verb::Start);
    nyc.engine.hang(ALICE);
    let asked = nyc.engine.calls(Verb::Containers);
    wait_until("some passes later", async || {
        let passes = nyc.engine.calls(Verb::Containers) - asked;
        (passes > 20, passes)
    })
    .await;
    assert_eq!(nyc.engine.calls(Verb::Start), starts);
    assert!(kinds(&nyc.snapshot().await).is_empty());
    // A stop and a start by its operator is a new beginning, and no event.
    let start = pb::StartTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation: 3,
        mode: pb::StartMode::Serve.into(),
    };
    nyc.tenants().start_tenant(start).await.unwrap();
    assert_eq!((nyc.get().await.restarts, nyc.public().0), (0, 200));
    nyc.stop().await;
}

#[tokio::test]
async fn an_admin_container_that_does_not_answer_is_restarted() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.config.watchdog_interval = Duration::from_millis(10);
    nyc.config.admin = Some(AdminSettings { home: "feather-work".into(), environment: BTreeMap::new() });
    nyc.start().await;
    let restarts = async |wanted: u64| {
        wait_until("the admin container runs", async || {
            let admin = nyc.snapshot().await.admin.unwrap();
            (admin.running && admin.restarts == wanted && nyc.engine.listening(8080), admin)
        })
        .await;
    };
    restarts(0).await;
    nyc.engine.hang("feather-work-blue");
    restarts(1).await;
    assert_eq!(kinds(&nyc.snapshot().await), [("restarted", "")]);
    nyc.stop().await;
}

#[tokio::test]
async fn a_router_that_does_not_answer_is_restarted_and_gets_its_routes_back() {
    let world = World::new();
    let mut nyc = watched(&world).await;
    nyc.proxy.unreachable(true);
    wait_until("alice is reached again", async || {
        let seen = (nyc.proxy.restarts(), nyc.public().0);
        (seen == (1, 200), seen)
    })
    .await;
    assert_eq!(kinds(&nyc.snapshot().await), [("router-restarted", "")]);
    nyc.stop().await;
}

#[tokio::test]
async fn what_happened_is_known_to_the_next_agent_too_and_no_truth_of_it() {
    let world = World::new();
    let mut nyc = watched(&world).await;
    nyc.engine.crash(ALICE);
    comes_to_restarts(&nyc, 1).await;
    let events = nyc.snapshot().await.events;
    let file = nyc.config.history_dir().join("history.json");
    wait_until("it is on disk", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        (text.contains("was started again") && text.contains("\"count\": 1"), text)
    })
    .await;
    nyc.crash().await;
    nyc.engine.reboot();
    nyc.start().await;
    comes_to_restarts(&nyc, 1).await;
    assert_eq!(nyc.snapshot().await.events, events, "a reboot is no event");
    nyc.engine.crash(ALICE);
    comes_to_restarts(&nyc, 2).await;
    let sequences: Vec<_> = nyc.snapshot().await.events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2], "numbers go on");
    // What happened in the second of the last writing is written at an orderly end.
    nyc.stop().await;
    nyc.start().await;
    comes_to_restarts(&nyc, 2).await;
    nyc.stop().await;

    // It is for people: an agent that cannot keep it serves as well.
    std::fs::write(&file, "damaged").unwrap();
    nyc.start().await;
    comes_to_restarts(&nyc, 0).await;
    nyc.stop().await;
    std::fs::remove_dir_all(nyc.config.history_dir()).unwrap();
    std::fs::write(nyc.config.history_dir(), "somebody's file").unwrap();
    nyc.engine.reboot();
    nyc.start().await;
    comes_to_restarts(&nyc, 0).await;
    nyc.engine.crash(ALICE);
    comes_to_restarts(&nyc, 1).await;
    nyc.stop().await;
}

async fn comes_to_restarts(nyc: &Server, wanted: u64) {
    wait_until("alice runs, with her restarts counted", async || {
        let (status, alice) = (nyc.public().0, nyc.get().await);
        (status == 200 && alice.restarts == wanted, (status, alice))
    })
    .await;
}
