//! Tenants that live on one server.

use feather_proto::{error::reason, pb::agent::v1 as pb};

use super::harness::{Server, World, add, refused, remove, request_id, reset, restart, seal, start, stop, wait_until};
use crate::runtime::fake::{Behaviour, Verb};

#[tokio::test]
async fn an_added_tenant_is_served_and_a_repeated_call_changes_nothing() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    let added = nyc.add(1).await.unwrap();
    assert_eq!(added.password.len(), 10);
    assert!(!added.found_data);
    let tenant = added.tenant.unwrap();
    assert_eq!((tenant.port, tenant.generation), (9001, 1));
    assert_eq!(tenant.container(), pb::ContainerState::Running);
    assert_eq!(nyc.public(), (200, Some("nyc".into())));
    let spec = nyc.engine.spec("feather-user-alice").unwrap();
    assert_eq!(spec.environment["FEATHER_PASSWORD"], added.password);
    assert_eq!(spec.environment["OPENAI_API_KEY"], "key-of-the-birth");
    assert_eq!(spec.dns, ["8.8.8.8", "1.1.1.1"]);

    let again = nyc.add(1).await.unwrap();
    assert_eq!(again.password, added.password);
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 1);
    assert_eq!(nyc.proxy.changes(), 1);
    assert_eq!(nyc.add(2).await.err().unwrap().reason, reason::TENANT_EXISTS);
}

#[tokio::test]
async fn a_removed_tenant_leaves_its_data_and_finds_it_again() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    std::fs::write(nyc.volume().join("note"), "kept").unwrap();
    for _ in 0..2 {
        let removed = nyc.tenants().remove_tenant(remove(2)).await.unwrap().into_inner().tenant.unwrap();
        assert_eq!(removed.residence(), pb::Residence::Absent);
        assert_eq!((removed.container(), removed.port), (pb::ContainerState::Missing, 0));
    }
    assert_eq!(nyc.public().0, 404);
    let again = nyc.add(3).await.unwrap();
    assert!(again.found_data);
    assert_eq!(std::fs::read_to_string(nyc.volume().join("note")).unwrap(), "kept");
}

#[tokio::test]
async fn an_add_that_never_becomes_healthy_leaves_nothing_but_its_floor() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    for (behaviour, words) in
        [(Behaviour::NeverHealthy, "did not answer its health check"), (Behaviour::Exits, "ended before it answered")]
    {
        nyc.engine.add_image("localhost/feather-work:bad", words, behaviour);
        let generation = if behaviour == Behaviour::Exits { 2 } else { 1 };
        let mut request = add(generation);
        request.image = "localhost/feather-work:bad".into();
        let error = refused(nyc.tenants().add_tenant(request.clone()).await);
        assert_eq!(error.reason, reason::NEVER_HEALTHY);
        assert!(behaviour == Behaviour::Exits || error.message.contains(words), "{error}");
        assert!(error.message.contains("listening on 8080"), "{error}");
        assert!(nyc.engine.spec("feather-user-alice").is_none());
        assert!(!nyc.volume().exists());
        assert_eq!(nyc.public().0, 404);
        let repeated = refused(nyc.tenants().add_tenant(request).await);
        assert_eq!((repeated.reason, repeated.message), (error.reason, error.message));
    }
    assert!(!nyc.add(3).await.unwrap().found_data);
}

#[tokio::test]
async fn a_failed_add_keeps_data_that_was_there_before() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.tenants().remove_tenant(remove(1)).await.unwrap();
    std::fs::write(nyc.volume().join("note"), "kept").unwrap();
    nyc.engine.add_image("localhost/feather-work:bad", "bad", Behaviour::NeverHealthy);
    let mut request = add(2);
    request.image = "localhost/feather-work:bad".into();
    refused(nyc.tenants().add_tenant(request).await);
    assert!(nyc.volume().join("note").exists());
    assert!(nyc.add(3).await.unwrap().found_data);
}

#[tokio::test]
async fn a_tenant_never_starts_empty_in_place_of_its_data() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    let mut expecting = add(1);
    expecting.volume = pb::VolumeExpectation::Kept.into();
    assert_eq!(refused(nyc.tenants().add_tenant(expecting).await).reason, reason::DATA_MISSING);

    nyc.add(1).await.unwrap();
    nyc.stop().await;
    nyc.engine.reboot();
    std::fs::remove_dir_all(nyc.volume()).unwrap();
    nyc.start().await;
    wait_until("the problem", async || {
        let problem = nyc.get().await.problem;
        (problem.contains("data expected but missing"), problem)
    })
    .await;
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 1);
    assert_eq!(refused(nyc.tenants().start_tenant(start(1)).await).reason, reason::DATA_MISSING);
    nyc.tenants().remove_tenant(remove(1)).await.unwrap();
    assert_eq!(nyc.add(2).await.err().unwrap().reason, reason::DATA_MISSING);
}

#[tokio::test]
async fn after_a_reboot_exactly_what_should_run_runs_with_no_controller_in_sight() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    let mut bob = add(1);
    bob.tenant = "bob".into();
    nyc.tenants().add_tenant(bob).await.unwrap();
    nyc.tenants().stop_tenant(pb::StopTenantRequest { tenant: "bob".into(), ..stop(1) }).await.unwrap();
    nyc.crash().await;
    nyc.engine.reboot();
    nyc.proxy.lose_routes();
    nyc.start().await;
    wait_until("alice is served", async || (nyc.public().0 == 200, nyc.public())).await;
    assert_eq!(world.recorder.running("feather-user-alice"), ["nyc"]);
    assert!(world.recorder.running("feather-user-bob").is_empty());
    let bob = nyc.proxy.request(&"bob".parse().unwrap(), &crate::router::fake::Request::default());
    assert_eq!(bob.status, 503);
}

#[tokio::test]
async fn a_tenant_whose_process_ends_is_started_again() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.engine.crash("feather-user-alice");
    wait_until("it runs again", async || (nyc.public().0 == 200, nyc.public())).await;
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 2);
}

#[tokio::test]
async fn stop_and_start_do_what_they_say_and_only_once() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    for _ in 0..2 {
        let stopped = nyc.tenants().stop_tenant(stop(1)).await.unwrap().into_inner().tenant.unwrap();
        assert_eq!(stopped.residence(), pb::Residence::Stopped);
        assert_eq!(stopped.container(), pb::ContainerState::Exited);
        assert_eq!(nyc.public().0, 503);
    }
    assert!(nyc.tenants().start_tenant(start(1)).await.unwrap().into_inner().healthy_after_ms > 0);
    assert_eq!(nyc.tenants().start_tenant(start(1)).await.unwrap().into_inner().healthy_after_ms, 0);
    assert_eq!(nyc.public().0, 200);
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 2);
}

#[tokio::test]
async fn a_sealed_tenant_starts_only_at_a_higher_generation() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.crash().await;
    nyc.engine.reboot();
    nyc.start().await;
    assert_eq!(refused(nyc.tenants().start_tenant(start(1)).await).reason, reason::STALE_GENERATION);
    assert!(world.recorder.running("feather-user-alice").is_empty());
    nyc.tenants().start_tenant(start(2)).await.unwrap();
    assert_eq!(nyc.public().0, 200);
    // A late copy of the stop must not seal it again.
    assert_eq!(refused(nyc.tenants().stop_tenant(seal(1)).await).reason, reason::STALE_GENERATION);
    assert_eq!(nyc.public().0, 200);
}

#[tokio::test]
async fn a_new_password_reaches_the_container_and_a_repeated_call_gets_the_same() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    let old = nyc.add(1).await.unwrap().password;
    let request = reset(1);
    let new = nyc.tenants().reset_password(request.clone()).await.unwrap().into_inner().password;
    assert_ne!(new, old);
    assert_eq!(nyc.engine.spec("feather-user-alice").unwrap().environment["FEATHER_PASSWORD"], new);
    assert_eq!(nyc.tenants().reset_password(request).await.unwrap().into_inner().password, new);
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 2);
    let other = nyc.tenants().reset_password(reset(1)).await.unwrap().into_inner().password;
    assert_ne!(other, new);
    assert_eq!(nyc.public().0, 200);
}

#[tokio::test]
async fn a_lost_reply_of_the_engine_is_not_taken_for_a_failure() {
    for verb in [Verb::EnsureVolume, Verb::EnsureContainer, Verb::Start] {
        let world = World::new();
        let nyc = world.started("nyc").await;
        nyc.engine.lose_reply_next(verb);
        if let Err(error) = nyc.add(1).await {
            assert!(error.code.retryable(), "{verb:?}: {error:?}");
            nyc.add(1).await.unwrap();
        }
        assert_eq!(nyc.public().0, 200, "{verb:?}");
        assert_eq!(world.recorder.starts("feather-user-alice").len(), 1, "{verb:?}");
    }
}

#[tokio::test]
async fn tenants_get_different_ports_until_none_is_left() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.config.ports = 9001..=9003;
    nyc.start().await;
    let names = ["alice", "bob", "carol", "dave"];
    let adds = names.map(|name| {
        let mut client = nyc.tenants();
        async move { client.add_tenant(pb::AddTenantRequest { tenant: name.into(), ..add(1) }).await }
    });
    let answers = futures::future::join_all(adds).await;
    let full = answers.iter().filter_map(|answer| answer.as_ref().err()).count();
    assert_eq!(full, 1);
    assert_eq!(nyc.snapshot().await.ports_used, [9001, 9002, 9003]);
}

#[tokio::test]
async fn a_container_from_before_the_ledger_is_reported_and_not_touched() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.stop().await;
    std::fs::remove_file(nyc.config.ledger_dir().join("alice.json")).unwrap();
    nyc.start().await;
    wait_until("it is reported", async || {
        let problems = nyc.snapshot().await.problems;
        (problems.iter().any(|problem| problem.contains("feather-user-alice")), problems)
    })
    .await;
    assert_eq!(refused(nyc.tenants().remove_tenant(remove(2)).await).reason, reason::TENANT_EXISTS);
    assert_eq!(nyc.add(2).await.err().unwrap().reason, reason::TENANT_EXISTS);
    assert_eq!(nyc.public(), (200, Some("nyc".into())));
}

#[tokio::test]
async fn a_damaged_record_stops_its_own_tenant_only() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.tenants().add_tenant(pb::AddTenantRequest { tenant: "bob".into(), ..add(1) }).await.unwrap();
    nyc.stop().await;
    nyc.engine.reboot();
    std::fs::write(nyc.config.ledger_dir().join("bob.json"), "{").unwrap();
    nyc.start().await;
    wait_until("alice is served", async || (nyc.public().0 == 200, nyc.public())).await;
    assert!(world.recorder.running("feather-user-bob").is_empty());
    assert!(nyc.snapshot().await.problems.iter().any(|problem| problem.contains("bob.json")));
    let bob = pb::StartTenantRequest { tenant: "bob".into(), ..start(1) };
    assert_eq!(refused(nyc.tenants().start_tenant(bob).await).reason, reason::STORAGE);
}

#[tokio::test]
async fn the_watch_shows_the_world_at_once_and_after_every_change() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    let mut watch = nyc.info().watch(pb::WatchRequest { heartbeat_ms: 60_000 }).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap().snapshot.unwrap();
    assert_eq!((first.server.as_str(), first.tenants.len()), ("nyc", 0));
    nyc.add(1).await.unwrap();
    loop {
        let seen = watch.message().await.unwrap().unwrap().snapshot.unwrap();
        feather_proto::model::ServerSnapshot::try_from(seen.clone()).unwrap();
        if seen.tenants.first().is_some_and(|tenant| tenant.container() == pb::ContainerState::Running) {
            break;
        }
    }
    let mut quick = nyc.info().watch(pb::WatchRequest { heartbeat_ms: 100 }).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(quick.message().await.unwrap().is_some());
    }
    assert!(nyc.info().watch(pb::WatchRequest { heartbeat_ms: 5 }).await.is_err());
}

#[tokio::test]
async fn a_silent_engine_leaves_states_unknown_and_says_so() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.engine.unreachable(true);
    assert_eq!(nyc.get().await.container(), pb::ContainerState::Unknown);
    let snapshot = nyc.snapshot().await;
    assert_eq!(snapshot.tenants[0].container(), pb::ContainerState::Unknown);
    assert!(snapshot.problems.iter().any(|problem| problem.contains("Podman does not answer")));
    assert_eq!(nyc.public().0, 200);
}

#[tokio::test]
async fn a_remove_does_not_wait_for_an_add_that_will_not_become_healthy() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.config.health_timeout = std::time::Duration::from_secs(3600);
    nyc.start().await;
    nyc.engine.add_image("localhost/feather-work:bad", "bad", Behaviour::NeverHealthy);
    let mut client = nyc.tenants();
    let request = pb::AddTenantRequest { image: "localhost/feather-work:bad".into(), ..add(2) };
    let adding = tokio::spawn(async move { refused(client.add_tenant(request).await) });
    wait_until("it waits", async || (nyc.engine.calls(Verb::Healthy) > 0, ())).await;
    // A late call of an older decision changes nothing.
    let mut late = nyc.tenants();
    let stale = tokio::spawn(async move { refused(late.remove_tenant(remove(1)).await) });
    nyc.tenants().remove_tenant(remove(2)).await.unwrap();
    assert_eq!(adding.await.unwrap().reason, reason::CANCELLED);
    assert_eq!(stale.await.unwrap().reason, reason::STALE_GENERATION);
    assert!(nyc.engine.spec("feather-user-alice").is_none());
    assert!(!nyc.volume().exists());
}

#[tokio::test]
async fn services_say_that_they_serve() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let world = World::new();
    let nyc = world.started("nyc").await;
    let channel = nyc.as_role(&world, feather_proto::tls::Role::Viewer, "probe");
    let mut health = HealthClient::new(channel);
    for service in ["TenantService", "VolumeService", "ImageService", "ServerService", "WaitlistService"] {
        let service = format!("feather.agent.v1.{service}");
        let answer = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
        assert_eq!(answer.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
    }
}

#[tokio::test]
async fn an_open_watch_does_not_keep_an_agent_from_stopping() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    let mut watch = nyc.info().watch(pb::WatchRequest { heartbeat_ms: 0 }).await.unwrap().into_inner();
    watch.message().await.unwrap();
    nyc.stop().await;
    while let Ok(Some(_)) = watch.message().await {}
    assert_eq!(nyc.public().0, 200);
}

#[tokio::test]
async fn the_work_of_a_call_goes_on_when_its_caller_leaves() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.engine.add_image("localhost/feather-work:slow", "slow", Behaviour::HealthyAfterPolls(3));
    let mut client = nyc.tenants();
    let request =
        pb::AddTenantRequest { image: "localhost/feather-work:slow".into(), request_id: request_id(), ..add(1) };
    let call = tokio::spawn(async move { drop(client.add_tenant(request).await) });
    wait_until("it started", async || (nyc.engine.calls(Verb::Start) > 0, ())).await;
    call.abort();
    wait_until("alice is served", async || (nyc.public().0 == 200, nyc.public())).await;
}

#[tokio::test]
async fn a_changed_key_waits_for_the_next_start() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    let key = |nyc: &Server| nyc.engine.spec("feather-user-alice").unwrap().environment["OPENAI_API_KEY"].clone();
    let starts = |nyc: &Server| nyc.engine.calls(Verb::Start);
    let reborn_with = async |nyc: &mut Server, key: &str| {
        nyc.crash().await;
        nyc.config.tenant_environment.insert("OPENAI_API_KEY".into(), key.into());
        nyc.start().await;
        wait_until("the agent has looked at alice", async || {
            let settled = nyc.snapshot().await.tenants[0].container();
            (settled == pb::ContainerState::Running, settled)
        })
        .await;
    };
    let before = starts(&nyc);
    let calls = nyc.engine.calls(Verb::Inspect);
    reborn_with(&mut nyc, "second").await;
    wait_until("alice was compared", async || (nyc.engine.calls(Verb::Inspect) > calls, ())).await;
    assert_eq!((key(&nyc).as_str(), starts(&nyc)), ("key-of-the-birth", before), "a new agent restarts nobody");

    nyc.tenants().stop_tenant(stop(2)).await.unwrap();
    nyc.tenants().start_tenant(start(3)).await.unwrap();
    assert_eq!((key(&nyc).as_str(), starts(&nyc)), ("second", before + 1));

    reborn_with(&mut nyc, "third").await;
    let restarted = nyc.tenants().restart_tenant(restart(4)).await.unwrap().into_inner();
    assert!(restarted.healthy_after_ms > 0);
    assert_eq!((key(&nyc).as_str(), starts(&nyc)), ("third", before + 2));
    assert_eq!(nyc.public().0, 200);
    // A repetition restarts nothing twice, also behind a crash.
    nyc.crash().await;
    nyc.start().await;
    nyc.tenants().restart_tenant(restart(4)).await.unwrap();
    assert_eq!(starts(&nyc), before + 2);
    assert_eq!(refused(nyc.tenants().restart_tenant(restart(3)).await).reason, reason::STALE_GENERATION);
    // What a restart leaves is no more an add that may be taken back with its data.
    let undo = pb::RemoveTenantRequest { discard_new_volume: true, ..remove(5) };
    nyc.tenants().remove_tenant(undo).await.unwrap();
    assert!(nyc.volume().exists());
    world.assert_never_two();
}

#[tokio::test]
async fn a_running_container_that_is_not_what_its_record_says_is_made_anew() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.crash().await;
    // The crash came between the record of a new password and the end of the old container.
    let mut record = nyc.record();
    record.spec.as_mut().unwrap().password = crate::password::Password::generate(10).unwrap();
    let storage = std::sync::Arc::new(crate::ledger::Directory::new(nyc.config.ledger_dir()).unwrap());
    crate::ledger::Ledger::open(storage).unwrap().put(record.clone()).await.unwrap();
    nyc.start().await;
    let wanted = record.spec.unwrap().password;
    wait_until("the new password", async || {
        let spec = nyc.engine.spec("feather-user-alice");
        (spec.is_some_and(|spec| spec.environment["FEATHER_PASSWORD"] == wanted.expose()), ())
    })
    .await;
    world.assert_never_two();
}

#[tokio::test]
async fn requests_wait_while_their_tenant_is_restarted() {
    let world = World::new();
    let mut nyc = world.server("nyc");
    nyc.config.health_timeout = std::time::Duration::from_secs(30);
    nyc.start().await;
    nyc.add(1).await.unwrap();
    nyc.engine.set_behaviour("feather-user-alice", Behaviour::NeverHealthy);
    let mut client = nyc.tenants();
    let restarting = tokio::spawn(async move { client.restart_tenant(restart(2)).await });
    wait_until("the gate is open", async || (nyc.config.gate_dir().join("alice").exists(), ())).await;
    let mut waiting = nyc.at_the_gate().await;
    tokio::io::AsyncWriteExt::write_all(&mut waiting, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(!restarting.is_finished());
    nyc.engine.set_behaviour("feather-user-alice", Behaviour::Healthy);
    restarting.await.unwrap().unwrap();
    assert_eq!(nyc.public().0, 200);
    // Who waited was let through; behind the fake's port nobody listens, so that the connection ends.
    tokio::io::AsyncReadExt::read_to_end(&mut waiting, &mut Vec::new()).await.unwrap();
}
