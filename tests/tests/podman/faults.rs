//! Power failures and killed processes in the middle of changes: one copy runs, no line is lost, nothing is left behind.

use feather_tests::real::{Holdings, Login, Real, Writer, journal_is_whole, one_at_a_time};

/// What is killed while data goes from one server to the other.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Controller,
    SourceAgent,
    TargetAgent,
    SourceBirth,
    TargetBirth,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_during_a_move_one_copy_runs_and_no_line_is_lost() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    let login = fleet.add("alice", &["--server", "nyc"]).await;
    let writer = Writer::start("writer", fleet.visit("fra", &login));
    writer.goes_on(20).await;

    use Victim::{Controller, SourceAgent, SourceBirth, TargetAgent, TargetBirth};
    for victim in [Controller, SourceAgent, TargetAgent, SourceBirth, TargetBirth] {
        kill_during_a_move(&fleet, victim).await;
        writer.goes_on(20).await;
    }

    reboot_without_a_controller(&fleet, &login).await;
    writer.goes_on(20).await;
    let acknowledged = writer.stop().await.acknowledged;
    let answer = fleet.answers("fra", &login).await;
    journal_is_whole(&answer.text, &acknowledged);
    let starts = fleet.visit("fra", &login).get("/files/starts.log").await.unwrap().text;
    // By the power failure of the source, and by the one without a controller.
    one_at_a_time(&starts, 2);
    fleet.finish().await;
}

async fn kill_during_a_move(fleet: &Real, victim: Victim) {
    let source = fleet.server_of("alice").await;
    let target = if source == "nyc" { "fra" } else { "nyc" };
    let before = fleet.holdings().await;
    // Three seconds' worth of what the target does not have, whatever it has kept of earlier moves.
    let home = fleet.volume(&source, "alice").await;
    let ballast = format!("head -c 3000000 /dev/urandom > {}/ballast", home.display());
    fleet.run("bash", &["-c", &ballast]).await.ok();
    fleet.slow_down(&source, true).await;
    let operation = fleet.begin(&["tenant", "migrate", "alice", "--to", target]).await;
    fleet.comes_to(&operation, "pre-copy").await;
    match victim {
        Victim::Controller => fleet.kill_controller().await,
        Victim::SourceAgent => fleet.kill_agent(&source).await,
        Victim::TargetAgent => fleet.kill_agent(target).await,
        Victim::SourceBirth => fleet.kill_birth(&source).await,
        Victim::TargetBirth => fleet.kill_birth(target).await,
    }
    match victim {
        Victim::SourceBirth => fleet.start_birth(&source).await,
        Victim::TargetBirth => fleet.start_birth(target).await,
        _ => {}
    }
    fleet.slow_down(&source, false).await;
    fleet.bring_up().await;
    let succeeded = fleet.ends(&operation).await;

    if succeeded {
        fleet.comes_to_hold(&[(target, Holdings::of(&["alice"], &[])), (&source, Holdings::of(&[], &["alice"]))]).await;
    } else {
        // The target's older copy gives way when data comes.
        let held = Holdings { volumes: Vec::new(), ..before[target].clone() };
        fleet.comes_to_hold(&[(target, held), (&source, before[&source].clone())]).await;
    }
    let lives = fleet.server_of("alice").await;
    assert_eq!(lives, if succeeded { target } else { &source }, "{victim:?}");
    for server in fleet.featherctl_json(&["server", "list"]).await.as_array().unwrap() {
        let taken = u64::from(server["name"] == lives.as_str());
        assert_eq!(server["slots_free"], 10 - taken, "a port is leaked after {victim:?}: {server}");
    }
}

async fn reboot_without_a_controller(fleet: &Real, login: &Login) {
    let server = fleet.server_of("alice").await;
    fleet.kill_controller().await;
    fleet.kill_birth(&server).await;
    fleet.start_birth(&server).await;
    fleet.answers(&server, login).await;
    fleet.answers("fra", login).await;
    fleet.bring_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_during_an_add_the_tenant_is_there_or_nothing_of_it() {
    let fleet = Real::start(&["nyc"], &[]).await;
    let before = fleet.holdings().await;
    fleet.use_image("nyc", "slow").await;
    for reboots in [false, true] {
        let operation = fleet.begin(&["tenant", "add", "bob"]).await;
        feather_tests::wait::until("the container runs", async || {
            let held = fleet.holdings().await;
            if held["nyc"].containers == ["feather-user-bob running"] { Ok(()) } else { Err(held) }
        })
        .await;
        if reboots {
            fleet.kill_birth("nyc").await;
            fleet.start_birth("nyc").await;
        } else {
            fleet.kill_agent("nyc").await;
        }
        if fleet.ends(&operation).await {
            fleet.comes_to_hold(&[("nyc", Holdings::of(&["bob"], &[]))]).await;
            let line = fleet.featherctl(&["tenant", "password", "bob"]).await.ok();
            let login = Login::parse("bob", &line);
            fleet.remember_secret(&login.password);
            assert_eq!(fleet.answers("nyc", &login).await.text, "");
            fleet.featherctl(&["tenant", "remove", "bob", "--yes"]).await.ok();
            fleet.inside("nyc", "podman volume ls -q").await.ok();
        }
        let left = Holdings { volumes: Vec::new(), ..fleet.holdings().await["nyc"].clone() };
        assert_eq!(left, before["nyc"]);
        fleet.becomes("nyc", "ready").await;
        assert_eq!(fleet.featherctl_json(&["server", "show", "nyc"]).await["slots_free"], 10);
    }
    fleet.finish().await;
}
