//! What a birth makes of what it meets at its start: a host's own network, a work image that will not do, a full disk.

use std::process::Command;

use feather_tests::{
    real::{Login, Real},
    wait::until,
};

use super::images::variant;

/// A network namespace that plays the host.
pub(crate) struct Host(String);

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        let host = Self(format!("feather-{name}-{}", std::process::id()));
        host.ip(&["netns", "add", &host.0]);
        host.ip(&["-n", &host.0, "link", "set", "lo", "up"]);
        host
    }

    /// What a birth is told to be on it.
    pub(crate) fn namespace(&self) -> String {
        format!("/run/netns/{}", self.0)
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
    let host = Host::new("start");
    let mut fleet = Real::bare(&[("FEATHER_BIRTH_NETNS", &host.namespace())]).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_work_image_that_will_not_do_is_told_of_and_never_used() {
    let mut fleet = Real::bare(&[("FEATHER_AGENT_ADMIN", "on")]).await;
    let foreign = variant(&fleet, "foreign", r#"s/"architecture":"[^"]*"/"architecture":"s390x"/"#).await;
    let bytes = std::fs::read(&foreign).unwrap();
    let [cut, empty, absent] = ["cut.tar", "empty.tar", "absent.tar"].map(|name| fleet.directory().join(name));
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(&empty, "").unwrap();
    for (server, archive, words) in [
        ("one", &foreign, "s390x"),
        ("two", &cut, "cut off"),
        ("three", &empty, "is not loaded"),
        ("four", &absent, "there is no /opt/feather-work.tar"),
    ] {
        fleet.unready(server, &[("FEATHER_WORK_TAR", archive.to_str().unwrap())]).await;
        let birth = fleet.birth(server);
        let said = fleet.podman(&["logs", &birth]).await.ok();
        let told = said.lines().find(|line| line.contains("no tenant can be added yet"));
        assert!(told.is_some_and(|line| line.contains(words)), "{words}: {said}");
        let tried = said.matches("cannot reconcile the admin container").count();
        assert!(tried <= 2, "it is said once, not {tried} times: {said}");
        let refused = fleet.inside(server, "tenant.sh add alice").await;
        assert!(refused.code == 1 && refused.stderr.contains("storage"), "{refused:?}");
        assert_eq!(fleet.inside(server, "podman images --quiet; podman ps --all --quiet").await.ok(), "", "{words}");
        fleet.podman(&["stop", &birth]).await.ok();
    }
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_killed_caddy_nor_a_full_disk_makes_a_tenant_unknown_or_keeps_it_away() {
    let mut fleet = Real::bare(&[("FEATHER_BIRTH_DISK_MIB", "1100")]).await;
    fleet.alone("lon").await;
    let login = Login::parse("alice", &fleet.inside("lon", "tenant.sh add alice").await.ok());
    fleet.remember_secret(&login.password);
    alice_answers(&fleet).await;

    let visitor = fleet.visit("lon", &login);
    fleet.inside("lon", "s6-svc -k /run/service/caddy").await.ok();
    until("alice answers through another Caddy", async || match visitor.get("/health").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => panic!("a tenant that is there was answered {}: {}", answer.status, answer.text),
        Err(error) => Err(error),
    })
    .await;

    until("room is held back", async || {
        let ran = fleet.inside("lon", "test -e /var/lib/containers/feather-reserve").await;
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    })
    .await;
    fleet.inside("lon", "dd if=/dev/zero of=/var/lib/containers/fill bs=1M 2>/dev/null; sync").await;
    fleet.kill_birth("lon").await;
    fleet.start_birth("lon").await;
    alice_answers(&fleet).await;
    let said = fleet.podman(&["logs", &fleet.birth("lon")]).await.ok();
    assert!(said.contains("64 MiB that were held back for this are given up"), "{said}");
    fleet.finish().await;
}
