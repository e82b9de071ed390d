//! A tenant moves between two servers.

use feather_proto::{error::reason, pb::agent::v1 as pb};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{
    Server, World, abandon, activate, grant, hand_off, pull, pulled, refused, reserve, retire, seal, start, trial,
    wait_until,
};
use crate::{
    router::UnderWay,
    runtime::{
        Capacity, Runtime as _,
        fake::{Behaviour, Verb},
    },
};

/// Two servers, and alice with some data on the first.
async fn two(world: &World) -> (Server, Server) {
    let (nyc, fra) = (world.started("nyc").await, world.started("fra").await);
    nyc.add(1).await.unwrap();
    let home = nyc.volume();
    std::fs::create_dir(home.join("project")).unwrap();
    for number in 0..20 {
        std::fs::write(home.join("project").join(format!("file-{number}")), vec![number; 1000]).unwrap();
    }
    std::fs::write(home.join("large"), vec![7; 3 << 20]).unwrap();
    std::os::unix::fs::symlink("project/file-1", home.join("link")).unwrap();
    (nyc, fra)
}

/// Everything before the commit.
async fn prepare(source: &Server, target: &Server, generation: u64) -> pb::PullDone {
    target.tenants().reserve_tenant(reserve(generation, target)).await.unwrap();
    source.tenants().stop_tenant(seal(generation - 1)).await.unwrap();
    source.volumes().grant_transfer(grant(generation, &target.name)).await.unwrap();
    let done = pulled(target, pull(generation, source)).await.unwrap();
    target.tenants().start_tenant(trial(generation)).await.unwrap();
    done
}

async fn finish(source: &Server, target: &Server, generation: u64) {
    target.tenants().activate_tenant(activate(generation)).await.unwrap();
    source.tenants().hand_off_tenant(hand_off(generation, &format!("{}:80", target.name))).await.unwrap();
}

#[tokio::test]
async fn a_tenant_moves_there_and_back_with_its_data_and_password() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    let password = nyc.add(1).await.unwrap().password;
    let done = prepare(&nyc, &fra, 2).await;
    let (sent, received) = (done.sent.unwrap(), done.received.unwrap());
    assert_eq!(sent.root_digest, received.root_digest);
    assert_eq!(received.files, 22);

    // Until the commit no public request reaches the target.
    assert_eq!(world.recorder.running("feather-user-alice"), ["fra"]);
    assert_eq!((nyc.public().0, fra.public().0), (503, 404));
    finish(&nyc, &fra, 2).await;
    assert_eq!(nyc.public(), (200, Some("fra".into())));
    assert_eq!(fra.public(), (200, Some("fra".into())));
    assert_eq!(fra.engine.spec("feather-user-alice").unwrap().environment["FEATHER_PASSWORD"], password);
    let kept = *world.clock.0.lock().unwrap() + time::Duration::days(7);
    let retired = nyc.tenants().retire_tenant(retire(2, kept)).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((retired.container(), retired.forward_to.as_str()), (pb::ContainerState::Missing, "fra:80"));
    assert!(nyc.volume().exists());

    let back = prepare(&fra, &nyc, 3).await.statistics.unwrap();
    assert!(back.bytes_reused > back.bytes_changed, "the undo copy was of no use: {back:?}");
    // The tenant still lives on fra as far as the public knows.
    assert_eq!(nyc.public().0, 503);
    finish(&fra, &nyc, 3).await;
    assert_eq!(fra.public(), (200, Some("nyc".into())));
    assert_eq!(
        nyc.volumes().list_volumes(pb::ListVolumesRequest {}).await.unwrap().into_inner().volumes[0].keep_until,
        None
    );
    // One line per start, on one server after the other.
    let starts = std::fs::read_to_string(nyc.volume().join("starts.log")).unwrap();
    assert_eq!(starts.lines().count(), 3);
    world.assert_never_two();
}

/// The root digest that a server names.
async fn verified(server: &Server, mode: pb::VerifyMode) -> String {
    let verify = pb::VerifyVolumeRequest { tenant: "alice".into(), mode: mode.into() };
    server.volumes().verify_volume(verify).await.unwrap().into_inner().summary.unwrap().root_digest
}

#[tokio::test]
async fn a_volume_is_looked_at_once_after_the_stop_and_again_where_somebody_can_have_been_in_it() {
    let world = World::new();
    let (mut nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    let moved = pulled(&fra, pull(2, &nyc)).await.unwrap().received.unwrap().root_digest;
    // Behind the agents' backs: whoever names the old digest has not looked.
    for server in [&nyc, &fra] {
        std::fs::write(server.volume().join("stray"), "x").unwrap();
        assert_eq!(verified(server, pb::VerifyMode::Metadata).await, moved);
        assert_ne!(verified(server, pb::VerifyMode::Full).await, moved);
    }
    // A process may have been in there.
    fra.tenants().start_tenant(trial(2)).await.unwrap();
    assert_ne!(verified(&fra, pb::VerifyMode::Metadata).await, moved);
    // An agent that does not remember looks.
    nyc.crash().await;
    nyc.start().await;
    assert_ne!(verified(&nyc, pb::VerifyMode::Metadata).await, moved);
}

#[tokio::test]
async fn what_is_seen_of_a_running_tenant_proves_nothing_later() {
    let world = World::new();
    let (nyc, _fra) = two(&world).await;
    let noted = || std::fs::read_dir(nyc.config.notes_dir()).map_or(0, Iterator::count);
    // Times of what it maps and goes on writing to may not change any more: a look without bringing it to disk must leave nothing.
    verified(&nyc, pb::VerifyMode::Full).await;
    verified(&nyc, pb::VerifyMode::Metadata).await;
    assert_eq!(noted(), 0);
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    verified(&nyc, pb::VerifyMode::Full).await;
    assert_ne!(noted(), 0);
}

#[tokio::test]
async fn a_late_abandon_of_an_older_move_does_not_end_a_newer_transfer() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    fra.tenants().abandon_tenant(abandon(2)).await.unwrap();
    fra.tenants().reserve_tenant(reserve(4, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(4, "fra")).await.unwrap();
    // Slow enough for the late call to come in the middle.
    std::fs::write(nyc.volume().join("large"), vec![7; 64 << 10]).unwrap();
    let pulling = pulled(&fra, pb::PullVolumeRequest { bytes_per_second_max: 64 << 10, ..pull(4, &nyc) });
    let late = async {
        let stale = refused(fra.tenants().abandon_tenant(abandon(2)).await);
        assert_eq!(stale.reason, reason::STALE_GENERATION);
    };
    let (moved, ()) = tokio::join!(pulling, late);
    moved.unwrap();
}

#[tokio::test]
async fn a_volume_that_no_move_left_is_not_overwritten() {
    let world = World::new();
    let (_nyc, fra) = two(&world).await;
    let (path, _) = fra.engine.ensure_volume("feather-user-alice").await.unwrap();
    std::fs::write(path.join("precious"), "x").unwrap();
    let refused = refused(fra.tenants().reserve_tenant(reserve(2, &fra)).await);
    assert!(refused.message.contains("feather-user-alice"), "{refused}");
    assert!(path.join("precious").exists());
}

#[tokio::test]
async fn every_step_of_a_move_may_be_repeated() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    for _ in 0..2 {
        let port = fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap().into_inner().port;
        assert_eq!(port, 9001);
    }
    for _ in 0..2 {
        nyc.tenants().stop_tenant(seal(1)).await.unwrap();
        nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
        pulled(&fra, pull(2, &nyc)).await.unwrap();
    }
    for _ in 0..2 {
        fra.tenants().start_tenant(trial(2)).await.unwrap();
    }
    for _ in 0..2 {
        finish(&nyc, &fra, 2).await;
        nyc.tenants()
            .retire_tenant(retire(2, time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(40_000)))
            .await
            .unwrap();
    }
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 2);
    assert_eq!(nyc.public(), (200, Some("fra".into())));
    world.assert_never_two();
}

#[tokio::test]
async fn a_move_can_be_abandoned_at_every_stage_and_its_source_serves_again() {
    for stage in 0..4 {
        let world = World::new();
        let (nyc, fra) = two(&world).await;
        if stage >= 1 {
            fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
        }
        if stage >= 2 {
            nyc.tenants().stop_tenant(seal(1)).await.unwrap();
            nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
            pulled(&fra, pull(2, &nyc)).await.unwrap();
        }
        if stage >= 3 {
            fra.tenants().start_tenant(trial(2)).await.unwrap();
        }
        for _ in 0..2 {
            fra.tenants().abandon_tenant(abandon(2)).await.unwrap();
        }
        assert!(!fra.volume().exists(), "stage {stage}");
        assert!(fra.engine.spec("feather-user-alice").is_none());
        let left = fra.get().await;
        assert_eq!((left.residence(), left.port, left.incoming), (pb::Residence::Absent, 0, 0));
        // A late copy of the reservation.
        let late = refused(fra.tenants().reserve_tenant(reserve(2, &fra)).await);
        assert_eq!(late.reason, reason::STALE_GENERATION);
        nyc.tenants().start_tenant(start(3)).await.unwrap();
        assert_eq!(nyc.public(), (200, Some("nyc".into())));
        world.assert_never_two();
    }
}

#[tokio::test]
async fn a_trial_that_is_given_up_leaves_data_until_the_source_has_its_own() {
    let world = World::new();
    let (nyc, mut fra) = two(&world).await;
    prepare(&nyc, &fra, 2).await;
    let keeping = || pb::AbandonTenantRequest { keep_data: true, ..abandon(2) };
    for _ in 0..2 {
        fra.tenants().abandon_tenant(keeping()).await.unwrap();
        assert!(fra.engine.spec("feather-user-alice").is_none());
        assert!(fra.volume().exists());
    }
    // Neither its agent nor a late copy of the beginning makes anything of it.
    fra.crash().await;
    fra.engine.reboot();
    fra.start().await;
    assert_eq!(refused(fra.tenants().reserve_tenant(reserve(2, &fra)).await).reason, reason::STALE_GENERATION);
    assert_eq!(refused(fra.tenants().start_tenant(trial(2)).await).reason, reason::WRONG_STATE);
    assert!(fra.volume().exists());
    nyc.tenants().start_tenant(start(3)).await.unwrap();
    for _ in 0..2 {
        fra.tenants().abandon_tenant(abandon(2)).await.unwrap();
        assert!(!fra.volume().exists());
    }
    world.assert_never_two();
}

#[tokio::test]
async fn an_activated_move_cannot_be_abandoned() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    prepare(&nyc, &fra, 2).await;
    finish(&nyc, &fra, 2).await;
    assert_eq!(refused(fra.tenants().abandon_tenant(abandon(2)).await).reason, reason::WRONG_STATE);
    assert_eq!(fra.public().0, 200);
    // On the source there is nothing of that move to abandon.
    nyc.tenants().abandon_tenant(abandon(2)).await.unwrap();
    assert_eq!(nyc.public(), (200, Some("fra".into())));
}

#[tokio::test]
async fn a_trial_that_is_not_healthy_ends_and_may_be_tried_again() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    assert_eq!(refused(fra.tenants().start_tenant(trial(2)).await).reason, reason::DATA_MISSING);
    pulled(&fra, pull(2, &nyc)).await.unwrap();
    fra.engine.fail_next(Verb::Healthy, 10_000);
    assert_eq!(refused(fra.tenants().start_tenant(trial(2)).await).reason, reason::NEVER_HEALTHY);
    assert!(fra.engine.spec("feather-user-alice").is_none());
    assert_eq!(fra.get().await.incoming(), pb::IncomingStage::Received);
    fra.engine.fail_next(Verb::Healthy, 0);
    fra.tenants().start_tenant(trial(2)).await.unwrap();
    assert_eq!(fra.public().0, 404);
}

#[tokio::test]
async fn a_reservation_needs_image_disk_and_port() {
    let world = World::new();
    let (nyc, mut fra) = (world.started("nyc").await, world.server("fra"));
    fra.config.ports = 9001..=9001;
    fra.start().await;
    let image = pb::ReserveTenantRequest { image_digest: "sha256:00".into(), ..reserve(2, &fra) };
    assert_eq!(refused(fra.tenants().reserve_tenant(image).await).reason, reason::IMAGE_MISSING);
    let disk = pb::ReserveTenantRequest { volume_bytes: 80 << 30, ..reserve(2, &fra) };
    assert_eq!(refused(fra.tenants().reserve_tenant(disk).await).reason, reason::NO_DISK);
    let bob = pb::AddTenantRequest { tenant: "bob".into(), ..super::harness::add(1) };
    fra.tenants().add_tenant(bob).await.unwrap();
    assert_eq!(refused(fra.tenants().reserve_tenant(reserve(2, &fra)).await).reason, reason::NO_PORT);
    nyc.add(1).await.unwrap();
    assert_eq!(refused(nyc.tenants().reserve_tenant(reserve(2, &nyc)).await).reason, reason::WRONG_STATE);
}

#[tokio::test]
async fn a_volume_is_sent_only_to_the_peer_of_the_ticket_and_only_while_sealed() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    let ams = world.started("ams").await;
    for target in [&fra, &ams] {
        target.tenants().reserve_tenant(reserve(2, target)).await.unwrap();
    }
    assert_eq!(refused(nyc.volumes().grant_transfer(grant(1, "fra")).await).reason, reason::STALE_GENERATION);
    assert_eq!(pulled(&fra, pull(2, &nyc)).await.unwrap_err().reason, reason::TICKET);
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    assert_eq!(pulled(&fra, pull(2, &nyc)).await.unwrap_err().reason, reason::WRONG_STATE);
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    assert_eq!(pulled(&ams, pull(2, &nyc)).await.unwrap_err().reason, reason::TICKET);
    let wrong = pb::PullVolumeRequest { ticket: "f".repeat(40), ..pull(2, &nyc) };
    assert_eq!(pulled(&fra, wrong).await.unwrap_err().reason, reason::TICKET);
    // Somebody else at the source's address is not believed.
    let liar = pb::PullVolumeRequest { source_address: ams.address(), ..pull(2, &nyc) };
    assert!(pulled(&fra, liar).await.unwrap_err().code.retryable());
    pulled(&fra, pull(2, &nyc)).await.unwrap();
    nyc.tenants().start_tenant(start(3)).await.unwrap();
    assert_eq!(pulled(&fra, pull(2, &nyc)).await.unwrap_err().reason, reason::TICKET);
}

#[tokio::test]
async fn a_pull_ends_when_its_caller_leaves_and_may_be_repeated() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    let cut = fra.volumes().pull_volume(pull(2, &nyc)).await.unwrap();
    drop(cut);
    assert_eq!(pulled(&fra, pull(2, &nyc)).await.unwrap().received.unwrap().files, 22);
    // A newer pull ends an older one, whose caller has evidently given up.
    let mut older = fra.volumes().pull_volume(pull(2, &nyc)).await.unwrap().into_inner();
    pulled(&fra, pull(2, &nyc)).await.unwrap();
    while let Ok(Some(_)) = older.message().await {}
    fra.tenants().start_tenant(trial(2)).await.unwrap();
}

#[tokio::test]
async fn what_fills_the_disk_is_given_up_at_once() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    // Somebody else takes the room that was there when it was reserved.
    let roomy = fra.engine.capacity().await.unwrap();
    fra.engine.set_capacity(Capacity { disk_free_bytes: 1 << 20, ..roomy });
    assert_eq!(pulled(&fra, pull(2, &nyc)).await.unwrap_err().reason, reason::NO_DISK);
    assert_eq!(std::fs::read_dir(fra.volume()).unwrap().count(), 0, "or nothing could be taken back");
    fra.engine.set_capacity(roomy);
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    assert_eq!(pulled(&fra, pull(2, &nyc)).await.unwrap().received.unwrap().files, 22);
}

#[tokio::test]
async fn a_target_that_reboots_during_the_trial_is_activated_all_the_same() {
    let world = World::new();
    let (nyc, mut fra) = two(&world).await;
    prepare(&nyc, &fra, 2).await;
    fra.crash().await;
    fra.engine.reboot();
    fra.proxy.lose_routes();
    fra.start().await;
    assert!(world.recorder.running("feather-user-alice").is_empty());
    finish(&nyc, &fra, 2).await;
    assert_eq!(nyc.public(), (200, Some("fra".into())));
    world.assert_never_two();
}

#[tokio::test]
async fn an_undo_copy_is_collected_when_its_time_has_passed() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    prepare(&nyc, &fra, 2).await;
    finish(&nyc, &fra, 2).await;
    let kept = *world.clock.0.lock().unwrap() + time::Duration::days(7);
    nyc.tenants().retire_tenant(retire(2, kept)).await.unwrap();
    assert_eq!(nyc.snapshot().await.volumes.len(), 1);
    *world.clock.0.lock().unwrap() = kept;
    wait_until("the copy is gone", async || (!nyc.volume().exists(), ())).await;
    wait_until("the ledger knows", async || {
        let volumes = nyc.snapshot().await.volumes;
        (volumes.is_empty(), volumes)
    })
    .await;
    // The floor and the forward stay.
    assert_eq!(nyc.public(), (200, Some("fra".into())));
    assert_eq!(nyc.add(1).await.err().unwrap().reason, reason::STALE_GENERATION);
    assert_eq!(nyc.add(3).await.err().unwrap().reason, reason::WRONG_STATE);
    nyc.tenants().hand_off_tenant(hand_off(3, "")).await.unwrap();
    assert_eq!(nyc.public().0, 404);
    nyc.add(4).await.unwrap();
}

#[tokio::test]
async fn the_undo_copy_is_given_up_only_when_new_data_comes() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    prepare(&nyc, &fra, 2).await;
    finish(&nyc, &fra, 2).await;
    nyc.tenants().reserve_tenant(reserve(3, &nyc)).await.unwrap();
    assert_eq!(pulled(&nyc, pull(3, &fra)).await.unwrap_err().reason, reason::TICKET);
    nyc.tenants().abandon_tenant(abandon(3)).await.unwrap();
    assert!(nyc.volume().join("large").exists());
    assert_eq!(nyc.public(), (200, Some("fra".into())));
}

#[tokio::test]
async fn a_stopped_tenant_moves_without_being_started() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    nyc.tenants().stop_tenant(super::harness::stop(1)).await.unwrap();
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    pulled(&fra, pull(2, &nyc)).await.unwrap();
    let resting = pb::ActivateTenantRequest { stopped: true, ..activate(2) };
    let tenant = fra.tenants().activate_tenant(resting).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.residence(), pb::Residence::Stopped);
    nyc.tenants().hand_off_tenant(hand_off(2, "fra:80")).await.unwrap();
    assert_eq!((nyc.public().0, fra.public().0), (503, 503));
    assert_eq!(world.recorder.starts("feather-user-alice").len(), 1);
    fra.tenants().start_tenant(start(2)).await.unwrap();
    assert_eq!(nyc.public(), (200, Some("fra".into())));
    world.assert_never_two();
}

#[tokio::test]
async fn an_image_that_differs_is_found_out_before_the_data_moves() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    let other = fra.engine.add_image("localhost/feather-work:next", "next", Behaviour::Healthy);
    let request = pb::ReserveTenantRequest { image_digest: other, ..reserve(2, &fra) };
    fra.tenants().reserve_tenant(request).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    assert_eq!(pulled(&fra, pull(2, &nyc)).await.unwrap_err().reason, reason::IMAGE_MISSING);
}

#[tokio::test]
async fn whoever_comes_during_a_move_waits_and_is_handed_to_where_the_tenant_lives_then() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    prepare(&nyc, &fra, 2).await;
    let (mut held, mut second) = (nyc.at_the_gate().await, nyc.at_the_gate().await);
    held.write_all(b"one").await.unwrap();
    second.write_all(b"two").await.unwrap();

    let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = there.local_addr().unwrap().to_string();
    fra.tenants().activate_tenant(activate(2)).await.unwrap();
    nyc.tenants().hand_off_tenant(hand_off(2, &address)).await.unwrap();
    let mut came = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let (mut connection, _) = there.accept().await.unwrap();
        let mut request = [0; 3];
        connection.read_exact(&mut request).await.unwrap();
        came.insert(request);
    }
    assert_eq!(came, [*b"one", *b"two"].into());
}

#[tokio::test]
async fn whoever_waited_for_a_tenant_that_is_reached_by_tls_goes_there_through_the_own_proxy() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    prepare(&nyc, &fra, 2).await;
    let mut held = nyc.at_the_gate().await;
    held.write_all(b"one").await.unwrap();
    let own = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    nyc.proxy.enter_at(&own.local_addr().unwrap().to_string());
    fra.tenants().activate_tenant(activate(2)).await.unwrap();
    nyc.tenants().hand_off_tenant(hand_off(2, "fra@fra:443")).await.unwrap();
    let (mut connection, _) = own.accept().await.unwrap();
    let mut request = [0; 3];
    connection.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"one");
}

#[tokio::test]
async fn a_tenant_that_comes_back_from_a_move_has_no_route_before_it_is_healthy() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    fra.tenants().abandon_tenant(abandon(2)).await.unwrap();
    let starting = async { nyc.tenants().start_tenant(start(3)).await.unwrap() };
    let watching = async {
        // 502 would be a route to a process that does not answer yet.
        while nyc.public().0 != 200 {
            assert_eq!(nyc.public().0, 503);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(starting, watching);
}

fn live(generation: u64, source: &Server) -> pb::PullVolumeRequest {
    pb::PullVolumeRequest { pass: pb::TransferPass::Live.into(), ..pull(generation, source) }
}

#[tokio::test]
async fn what_came_while_the_tenant_ran_is_not_sent_again_and_nothing_starts_on_it() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    let first = pulled(&fra, live(2, &nyc)).await.unwrap();
    assert_eq!(first.sent.unwrap().root_digest, first.received.unwrap().root_digest);
    let early = first.statistics.unwrap();
    assert_eq!((early.files_examined, early.files_changed, early.bytes_reused), (22, 22, 0));
    assert!(early.wire_bytes > early.bytes_changed, "{early:?}");
    assert_eq!(refused(fra.tenants().start_tenant(trial(2)).await).reason, reason::VOLUME_INCOMPLETE);
    assert_eq!(nyc.public(), (200, Some("nyc".into())));

    std::fs::write(nyc.volume().join("late"), b"written while it ran").unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    let last = pulled(&fra, pull(2, &nyc)).await.unwrap().statistics.unwrap();
    assert!(last.files_changed <= 2, "{last:?}");
    assert!(last.wire_bytes < early.wire_bytes / 10, "{last:?}");
    fra.tenants().start_tenant(trial(2)).await.unwrap();
    finish(&nyc, &fra, 2).await;
    assert_eq!(std::fs::read(fra.volume().join("late")).unwrap(), b"written while it ran");
    world.assert_never_two();
}

#[tokio::test]
async fn a_target_that_crashed_amid_a_pass_builds_on_what_it_has() {
    let world = World::new();
    let (nyc, mut fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    pulled(&fra, live(2, &nyc)).await.unwrap();
    let cut = fra.volumes().pull_volume(live(2, &nyc)).await.unwrap();
    fra.crash().await;
    drop(cut);
    fra.start().await;
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    let last = pulled(&fra, pull(2, &nyc)).await.unwrap().statistics.unwrap();
    assert!(last.bytes_reused > last.bytes_changed, "{last:?}");
}

#[tokio::test]
async fn a_pass_keeps_to_its_limit() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    let slow = pb::PullVolumeRequest { bytes_per_second_max: 4 << 20, ..live(2, &nyc) };
    let done = pulled(&fra, slow).await.unwrap().statistics.unwrap();
    let least = done.wire_bytes.saturating_sub(1 << 20) * 1000 / (4 << 20);
    assert!(done.duration_ms >= least, "{done:?}");
    let silly = pb::PullVolumeRequest { bytes_per_second_max: 1, ..live(2, &nyc) };
    assert_eq!(refused(fra.volumes().pull_volume(silly).await).reason, reason::INVALID_FIELD);
}

#[tokio::test]
async fn a_volume_is_measured_against_the_last_pass_over_it() {
    let world = World::new();
    let (nyc, fra) = two(&world).await;
    let look = async |server: &Server| {
        let request = pb::GetVolumeRequest { tenant: "alice".into() };
        server.volumes().get_volume(request).await.unwrap().into_inner()
    };
    let before = look(&nyc).await;
    assert_eq!((before.bytes_changed, before.pass_digest.as_str()), (before.bytes, ""));
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    let done = pulled(&fra, live(2, &nyc)).await.unwrap();
    std::fs::write(nyc.volume().join("late"), b"written later").unwrap();
    let after = look(&nyc).await;
    assert_eq!((after.bytes_changed, &after.pass_digest), (13, &done.sent.unwrap().root_digest));
    assert_eq!((look(&fra).await.pass_digest, look(&fra).await.bytes_changed), (after.pass_digest, 0));
}

#[tokio::test]
async fn a_request_ends_before_the_stop_even_if_streams_end_meanwhile() {
    let world = World::new();
    let (nyc, _fra) = two(&world).await;
    let port = nyc.engine.spec("feather-user-alice").unwrap().host_port;
    let look = |ends: &[u16]| UnderWay {
        count: ends.len() as u64,
        connections: ends.iter().map(|end| ([127, 0, 0, 1], *end).into()).collect(),
    };
    // Two streams, and a request of its own at each look; then one of the streams is gone and one request goes on.
    let before = (0..20).map(|number| look(&[1, 2, 100 + number]));
    nyc.proxy.under_way(port, before.chain([look(&[1, 99])]));
    let mut tenants = nyc.tenants();
    let stopping = tokio::spawn(async move { tenants.stop_tenant(seal(1)).await });
    wait_until("it is waited for", async || (nyc.proxy.looks() > 30, nyc.proxy.looks())).await;
    assert_eq!(world.recorder.running("feather-user-alice"), ["nyc"]);
    nyc.proxy.under_way(port, [look(&[1])]);
    stopping.await.unwrap().unwrap();
    assert!(world.recorder.running("feather-user-alice").is_empty());
}
