//! A birth on a host's own network, which outlives it: what one leaves there meets the next.

use std::process::Command;

use feather_tests::{
    real::{Login, Real},
    wait::until,
};

/// A network namespace that plays the host.
struct Host(String);

impl Host {
    fn new() -> Self {
        let host = Self(format!("feather-test-{}", std::process::id()));
        host.ip(&["netns", "add", &host.0]);
        host.ip(&["-n", &host.0, "link", "set", "lo", "up"]);
        host
    }

    fn ip(&self, arguments: &[&str]) {
        let done = Command::new("ip").args(arguments).status().unwrap();
        assert!(done.success(), "ip {arguments:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A test that failed has said so already.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

const ASK: &str = "exec 3<>/dev/tcp/127.0.0.1/80 && \
     printf 'GET /health HTTP/1.0\\r\\nHost: alice.users.inceptel.ai\\r\\n\\r\\n' >&3 && head -n 1 <&3";

async fn alice_answers(fleet: &Real) {
    until("alice answers by her name", async || {
        let ran = fleet.inside("lon", ASK).await;
        if ran.stdout.contains(" 200 ") { Ok(()) } else { Err(ran) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_hosts_network_a_power_failure_leaves_nothing_in_the_way_and_a_second_birth_disturbs_nobody() {
    let host = Host::new();
    let netns = format!("/run/netns/{}", host.0);
    let mut fleet = Real::bare(&[("FEATHER_BIRTH_NETNS", &netns)]).await;
    fleet.alone("lon").await;
    let login = Login::parse("alice", &fleet.inside("lon", "tenant.sh add alice").await.ok());
    fleet.remember_secret(&login.password);
    alice_answers(&fleet).await;
    let id = "podman inspect --format '{{.Id}} {{.State.StartedAt}}' feather-user-alice";
    let running = fleet.inside("lon", id).await.ok();

    let said = fleet.refused_birth("par").await;
    assert!(said.contains("birth: not started: port 80") && said.contains("another birth container"), "{said}");
    assert_eq!(fleet.inside("lon", id).await.ok(), running);
    alice_answers(&fleet).await;

    for _ in 0..2 {
        fleet.kill_birth("lon").await;
        fleet.start_birth("lon").await;
        alice_answers(&fleet).await;
    }
    let birth = fleet.birth("lon");
    fleet.podman(&["stop", &birth]).await.ok();
    let code = fleet.podman(&["inspect", "--format", "{{.State.ExitCode}}", &birth]).await.ok();
    assert_eq!(code.trim(), "0", "it ended by itself, within its time");
    assert!(fleet.podman(&["logs", &birth]).await.ok().contains("birth: stopped"));
    fleet.finish().await;
    drop(host);
}
