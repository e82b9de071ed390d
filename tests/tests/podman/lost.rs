//! A server loses its power, is declared lost, and comes back: what it ran runs elsewhere by then, and nowhere twice.

use feather_tests::{real::Real, wait::until};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_declared_lost_its_tenant_comes_back_elsewhere_and_it_starts_nobody_when_it_returns() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    fleet.add("alice", &["--server", "fra"]).await;
    fleet.migrate("alice", "nyc").await;
    fleet.add("carol", &["--server", "nyc"]).await;
    let answers = fleet.featherctl(&["server", "lost", "nyc", "--confirm", "nyc"]).await;
    assert!(answers.code == 1 && answers.stderr.contains("nyc answers"), "{answers:?}");
    fleet.kill_birth("nyc").await;
    fleet.becomes("nyc", "unreachable").await;

    let plan = fleet.featherctl(&["server", "lost", "nyc", "--dry-run"]).await;
    assert!(plan.code == 0 && plan.stdout.contains("the copy on fra of"), "{plan:?}");
    let lost = fleet.featherctl(&["server", "lost", "nyc", "--confirm", "nyc"]).await;
    assert_eq!(lost.code, 1, "carol has nothing left: {lost:?}");
    let row = |name: &str| lost.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("alice").contains("recovered") && row("carol").contains("lost"), "{lost:?}");
    assert_eq!(fleet.server_of("alice").await, "fra");
    let shown = fleet.featherctl_json(&["tenant", "show", "alice"]).await;
    assert_eq!(shown["state"], "running", "{shown}");
    let starts = std::fs::read_to_string(fleet.volume("fra", "alice").await.join("starts.log")).unwrap();
    assert!(starts.lines().count() > 1, "she has the data of her first stay there:\n{starts}");

    fleet.start_birth("nyc").await;
    until("it knows that it is out", async || {
        let ran = fleet.inside("nyc", "tenant.sh status").await;
        if ran.stdout.contains("out of it; this server runs no tenant") { Ok(()) } else { Err(ran) }
    })
    .await;
    let running = fleet.inside("nyc", "podman ps --format '{{.Names}}' --filter name=feather-user").await.ok();
    assert_eq!(running.trim(), "", "nobody runs there");
    let refused = fleet.inside("nyc", "tenant.sh start carol").await;
    assert!(refused.code != 0 && refused.stderr.contains("nothing was changed"), "{refused:?}");
    let again = fleet.featherctl_json(&["tenant", "show", "carol"]).await;
    assert_eq!(again["state"], "lost", "{again}");
    fleet.finish().await;
}
