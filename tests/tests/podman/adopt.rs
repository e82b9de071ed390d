//! A server that the old script ran: its tenants become the fleet's where they are, under load, and move like any other.

use feather_tests::real::{CADDY, Holdings, Login, Real, Writer, journal_is_whole, one_at_a_time};

const ALICE: &str = "x7k9m2alice";
const BOB: &str = "q4w8e1bobby";

/// What `tenant.sh add` did: volume, container, route before the catch-all, and a line in its file.
fn old_script() -> String {
    let route = |name: &str, port: u16| {
        let proxy =
            format!(r#"{{"handler":"reverse_proxy","upstreams":[{{"dial":"localhost:{port}"}}],"flush_interval":-1}}"#);
        let host = format!("{name}.users.inceptel.ai");
        format!(r#"route '{{"@id":"tenant-{name}","match":[{{"host":["{host}"]}}],"handle":[{proxy}]}}'"#)
    };
    format!(
        r#"set -e
        {CADDY}
        route() {{ caddy PUT /config/apps/http/servers/feather/routes/0 "$1" | grep -q ' 200 '; }}
        export FEATHER_PASSWORD={ALICE}
        podman run --detach --name feather-user-alice --publish 127.0.0.1:9001:8080 --volume feather-user-alice:/home/user \
          --dns 8.8.8.8 --dns 1.1.1.1 --env FEATHER_PASSWORD localhost/feather-work:latest
        export FEATHER_PASSWORD={BOB}
        podman run --detach --name feather-user-bob --network host --volume feather-user-bob:/home/user \
          --env PORT=9002 --env FEATHER_PASSWORD localhost/feather-work:latest
        printf '%s' '{{"alice":{{"port":9001,"password":"{ALICE}"}},"bob":{{"port":9002,"password":"{BOB}"}}}}' >/tmp/tenants.json
        {}
        {}
        "#,
        route("alice", 9001),
        route("bob", 9002),
    )
}

async fn containers(fleet: &Real) -> String {
    let format = "{{.Id}} {{.State.StartedAt}} {{.State.Pid}}";
    let script = format!("podman inspect --format '{format}' feather-user-alice feather-user-bob");
    fleet.inside("nyc", &script).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_script_ran_is_adopted_without_a_restart_and_moves() {
    let fleet = Real::start(&["nyc", "fra"], &[]).await;
    let login = |tenant: &str, password: &str| {
        fleet.remember_secret(password);
        Login::parse(tenant, &format!("https://{tenant}.users.inceptel.ai | password: {password}\n"))
    };
    let (alice, bob) = (login("alice", ALICE), login("bob", BOB));
    let script = fleet.directory().join("old.sh");
    std::fs::write(&script, old_script()).unwrap();
    // From a file, because it holds passwords and nobody's arguments may.
    fleet.inside_with("nyc", "bash -s", &script).await.ok();
    std::fs::remove_file(&script).unwrap();
    let before = containers(&fleet).await;
    let writer = Writer::start("writer", fleet.visit("nyc", &alice));
    writer.goes_on(20).await;

    let plan = fleet.featherctl_json(&["server", "adopt", "nyc", "--dry-run"]).await;
    let actions = |adoption: &serde_json::Value| -> Vec<String> {
        let all = adoption["findings"].as_array().unwrap();
        all.iter().map(|one| format!("{} {}", one["name"].as_str().unwrap(), one["action"].as_str().unwrap())).collect()
    };
    assert_eq!(actions(&plan), ["alice adopt", "bob adopt"], "{plan}");
    assert_eq!(fleet.featherctl_json(&["tenant", "list"]).await.as_array().map(Vec::len), Some(0));
    let done = fleet.featherctl_json(&["server", "adopt", "nyc"]).await;
    assert_eq!(actions(&done), ["alice adopted", "bob adopted"], "{done}");
    fleet.becomes("nyc", "ready").await;
    writer.goes_on(20).await;
    assert_eq!(containers(&fleet).await, before, "nothing was restarted");
    fleet.visit("nyc", &bob).append("on the host's network").await.unwrap();

    let written = writer.stop().await;
    assert!(written.refused.is_empty(), "{:?}", written.refused);
    // The one on the host's network becomes an ordinary one with its move. That is also the first change of routes, and the only
    // one of Caddy's configuration: routes by hand end with it.
    fleet.migrate("bob", "fra").await;
    assert_eq!(fleet.answers("fra", &bob).await.text, "1 on the host's network\n");
    let later = Writer::start("later", fleet.visit("nyc", &alice));
    later.goes_on(20).await;
    fleet.migrate("alice", "fra").await;
    later.goes_on(20).await;
    let more = later.stop().await;
    assert!(more.refused.is_empty(), "{:?}", more.refused);
    let answer = fleet.answers("fra", &alice).await;
    journal_is_whole(&answer.text, &[written.acknowledged, more.acknowledged].concat());
    let starts = fleet.visit("fra", &alice).get("/files/starts.log").await.unwrap().text;
    one_at_a_time(&starts, 0);
    assert_eq!(fleet.holdings().await["fra"], Holdings::of(&["alice", "bob"], &[]));
    fleet.finish().await;
}

/// As an operator replaces the hand-made birth container: its storage is all that is kept, and `tenant.sh` all that is typed.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_birth_on_the_storage_of_the_old_one_starts_its_tenants_again() {
    let mut fleet = Real::bare(&[]).await;
    let login = |tenant: &str, password: &str| {
        fleet.remember_secret(password);
        Login::parse(tenant, &format!("https://{tenant}.users.inceptel.ai | password: {password}\n"))
    };
    let (alice, bob) = (login("alice", ALICE), login("bob", BOB));
    fleet.lone_birth("nyc", &[]).await;
    let script = fleet.directory().join("old.sh");
    std::fs::write(&script, old_script()).unwrap();
    fleet.inside_with("nyc", "bash -s", &script).await.ok();
    std::fs::remove_file(&script).unwrap();
    fleet.answers("nyc", &alice).await;
    fleet.visit("nyc", &alice).append("one").await.unwrap();
    fleet.visit("nyc", &bob).append("two").await.unwrap();

    fleet.alone("nyc").await;
    let list = fleet.inside("nyc", "tenant.sh list").await.ok();
    assert_eq!(list.lines().count(), 1, "nothing is guessed: {list}");
    let status = fleet.inside("nyc", "tenant.sh status").await.ok();
    assert!(status.contains("feather-user-alice") && status.contains("`tenant.sh adopt`"), "{status}");
    let would = fleet.inside("nyc", "tenant.sh adopt --start --dry-run").await.ok();
    assert!(would.ends_with("`tenant.sh adopt --start` would adopt 2 in place\n"), "{would}");
    let done = fleet.inside("nyc", "tenant.sh adopt --start").await.ok();
    assert!(done.ends_with("2 adopted, stopped until now and being started: 2 (`tenant.sh list`)\n"), "{done}");
    assert_eq!(fleet.answers("nyc", &alice).await.text, "1 one\n", "her password, her data");
    assert_eq!(fleet.answers("nyc", &bob).await.text, "1 two\n");
    let list = fleet.inside("nyc", "tenant.sh list").await.ok();
    let rows: Vec<_> = list.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let row = |name: &str, port: u16| format!("{name} {port} https://{name}.users.inceptel.ai running");
    assert_eq!(rows, [row("alice", 9001), row("bob", 9002)], "and their ports");
    let status = fleet.inside("nyc", "tenant.sh status").await.ok();
    assert!(status.ends_with("\nno problems\n"), "{status}");
    fleet.finish().await;
}
