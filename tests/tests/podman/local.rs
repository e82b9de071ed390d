//! A server by itself: `tenant.sh` as typed in its birth, a power failure, and joining a fleet later.

use feather_tests::{
    real::{Login, Real},
    wait::until,
};

async fn rows(fleet: &Real) -> Vec<String> {
    let table = fleet.inside("lon", "tenant.sh list").await.ok();
    let mut lines = table.lines();
    assert_eq!(lines.next().unwrap().split_whitespace().collect::<Vec<_>>(), ["USERNAME", "PORT", "URL", "CONTAINER"]);
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

async fn add(fleet: &Real, tenant: &str) -> Login {
    let ran = fleet.inside("lon", &format!("tenant.sh add {tenant}")).await;
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    let login = Login::parse(tenant, &ran.ok());
    fleet.remember_secret(&login.password);
    login
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_by_itself_keeps_its_tenants_through_a_power_failure_and_into_a_fleet() {
    const ROW: &str = "alice 9001 https://alice.users.inceptel.ai";
    let mut fleet = Real::start(&["fra"], &[]).await;
    fleet.alone("lon").await;
    // Or the end of this birth would take the bridge's address from under the other one.
    assert_eq!(fleet.bridge_address_kind().await, "3", "it was set, and is not the lowest of those on the bridge");
    let first = add(&fleet, "alice").await;
    let visitor = fleet.visit("lon", &first);
    assert_eq!(visitor.append("one").await.unwrap().status, 200);
    assert_eq!(rows(&fleet).await, [format!("{ROW} running")]);
    let ran = fleet.inside("lon", "tenant.sh add alice").await;
    assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains("`tenant.sh list`"), "{ran:?}");
    let ran = fleet.inside("lon", "tenant.sh add Alice").await;
    assert!(ran.code == 2 && ran.stdout.is_empty(), "{ran:?}");
    // The socket is root's.
    let ran = fleet.inside("lon", "setpriv --reuid 1000 --clear-groups tenant.sh list").await;
    assert!(ran.code == 3 && ran.stderr.contains("Permission denied"), "{ran:?}");

    fleet.inside("lon", "tenant.sh remove alice").await.ok();
    assert_eq!(rows(&fleet).await, Vec::<String>::new());
    let alice = add(&fleet, "alice").await;
    assert_ne!(alice.password, first.password);
    assert_eq!(fleet.answers("lon", &alice).await.text, "1 one\n", "her data was kept");
    fleet.inside("lon", "tenant.sh stop alice").await.ok();
    assert_eq!(rows(&fleet).await, [format!("{ROW} stopped")]);
    fleet.kill_birth("lon").await;
    fleet.start_birth("lon").await;
    until("the agent is back", async || {
        let ran = fleet.inside("lon", "tenant.sh status").await;
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    })
    .await;
    assert_eq!(rows(&fleet).await, [format!("{ROW} stopped")], "over a power failure, too");
    fleet.inside("lon", "tenant.sh start alice").await.ok();
    let id = "podman inspect --format '{{.Id}} {{.State.StartedAt}}' feather-user-alice";
    let running = fleet.inside("lon", id).await.ok();
    fleet.kill_agent("lon").await;
    until("the agent has looked at her", async || {
        let ran = fleet.inside("lon", "tenant.sh list").await;
        if ran.stdout.contains("running") { Ok(()) } else { Err(ran) }
    })
    .await;

    fleet.joins_later("lon").await;
    fleet.becomes("lon", "ready").await;
    until("alice is the fleet's", async || {
        let ran = fleet.featherctl(&["tenant", "list"]).await;
        if ran.stdout.contains("alice") { Ok(()) } else { Err(ran) }
    })
    .await;
    assert_eq!(fleet.inside("lon", id).await.ok(), running, "neither a new agent nor the fleet restarts her");
    assert_eq!(fleet.server_of("alice").await, "lon");
    fleet.inside("lon", "tenant.sh restart alice").await.ok();
    assert_ne!(fleet.inside("lon", id).await.ok(), running);
    assert_eq!(fleet.answers("lon", &alice).await.text, "1 one\n");
    add(&fleet, "bob").await;
    let operations = fleet.featherctl_json(&["operation", "list"]).await;
    let asked: Vec<_> = operations.as_array().unwrap().iter().map(|one| one["requested_by"].clone()).collect();
    assert_eq!(asked, ["agent/lon", "agent/lon"], "{operations}");
    fleet.migrate("alice", "fra").await;
    assert_eq!(fleet.answers("fra", &alice).await.text, "1 one\n");

    fleet.kill_controller().await;
    let ran = fleet.inside("lon", "tenant.sh stop bob").await;
    assert!(ran.code == 3 && ran.stderr.contains("nothing was changed"), "{ran:?}");
    assert_eq!(rows(&fleet).await, ["bob 9002 https://bob.users.inceptel.ai running"]);
    fleet.bring_up().await;
    fleet.finish().await;
}
