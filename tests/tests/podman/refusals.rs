//! What must be refused, and leaves the world as it was: sick images, full disks, strangers.

use std::path::Path;

use feather_controller::ca::Ca;
use feather_proto::tls::{Principal, Role};
use feather_tests::real::{Holdings, Real, Writer, journal_is_whole, one_at_a_time};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_never_gets_healthy_is_shown_with_its_log_and_leaves_nothing() {
    let fleet = Real::start(&["nyc"], &[("FEATHER_AGENT_HEALTH_TIMEOUT_SECONDS", "4")]).await;
    fleet.use_image("nyc", "unhealthy").await;
    let failed = fleet.featherctl(&["tenant", "add", "dora"]).await;
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""), "{failed:?}");
    assert!(failed.stderr.contains("listening port=8080"), "the container's last lines are shown: {failed:?}");
    assert_eq!(fleet.holdings().await["nyc"], Holdings::default());
    assert_eq!(fleet.featherctl_json(&["server", "show", "nyc"]).await["slots_free"], 10);
    assert_eq!(fleet.featherctl_json(&["tenant", "list"]).await, serde_json::json!([]));

    fleet.use_image("nyc", "latest").await;
    let login = fleet.add("dora", &[]).await;
    assert_eq!(fleet.answers("nyc", &login).await.text, "");
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_on_the_target_costs_nothing() {
    let mut fleet = Real::start(&["nyc"], &[]).await;
    fleet.join("fra", &[("FEATHER_BIRTH_DISK_MIB", "420")]).await;
    let login = fleet.add("eve", &["--server", "nyc"]).await;
    let writer = Writer::start("writer", fleet.visit("nyc", &login));
    let ballast = fleet.volume("nyc", "eve").await.join("ballast");
    let fill = |mib: u32| format!("head -c {mib}M /dev/zero > {}", ballast.display());
    let before = fleet.holdings().await;

    // Too much for the plan.
    fleet.run("bash", &["-c", &fill(300)]).await.ok();
    let refused = fleet.featherctl(&["tenant", "migrate", "eve", "--to", "fra"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("disk") && !refused.stderr.contains("operation op-"), "{refused:?}");
    writer.goes_on(20).await;

    // Enough room when it was planned, and then somebody else takes it.
    fleet.run("bash", &["-c", &fill(40)]).await.ok();
    fleet.slow_down("nyc", true).await;
    let operation = fleet.begin(&["tenant", "migrate", "eve", "--to", "fra"]).await;
    fleet.comes_to(&operation, "pre-copy").await;
    let others = "head -c 1000M /dev/zero > /var/lib/containers/others || true; sync";
    fleet.inside("fra", others).await;
    fleet.slow_down("nyc", false).await;
    // Her users do not wait for a target that may be too full to take anything back.
    writer.goes_on(20).await;
    fleet.inside("fra", "rm /var/lib/containers/others").await.ok();
    assert!(!fleet.ends(&operation).await, "there was no room");
    let shown = fleet.featherctl_json(&["operation", "show", &operation]).await;
    assert_eq!((&shown["state"], &shown["reason"]), (&"failed".into(), &"NO_DISK".into()), "{shown:#}");
    writer.goes_on(20).await;
    let after: Vec<_> = before.iter().map(|(server, held)| (server.as_str(), held.clone())).collect();
    fleet.comes_to_hold(&after).await;
    assert_eq!(fleet.server_of("eve").await, "nyc");

    // With the room back it goes well.
    feather_tests::wait::until("the controller hears of the room", async || {
        let shown = fleet.featherctl_json(&["server", "show", "fra"]).await;
        if shown["disk_free_bytes"].as_u64() > Some(300 << 20) { Ok(()) } else { Err(shown) }
    })
    .await;
    fleet.migrate("eve", "fra").await;
    writer.goes_on(20).await;
    let acknowledged = writer.stop().await.acknowledged;
    journal_is_whole(&fleet.answers("fra", &login).await.text, &acknowledged);
    let starts = fleet.visit("fra", &login).get("/files/starts.log").await.unwrap().text;
    one_at_a_time(&starts, 0);
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_what_is_wrong_and_get_nothing() {
    let fleet = Real::start(&["nyc"], &[]).await;
    let state = fleet.directory().join("controller");
    let own = |name: &str| fleet.directory().join(name).to_str().unwrap().to_owned();

    let absent = fleet.featherctl_with(&[("FEATHERCTL_IDENTITY", &own("absent"))], &["tenant", "list"]).await;
    assert_eq!(absent.code, 2, "{absent:?}");
    assert!(absent.stderr.contains("absent") && absent.stderr.contains("next: "), "{absent:?}");

    let other = own("other");
    let init = ["init", "--state-dir", &other, "--advertise", "127.0.0.1:1"];
    fleet.binary("feather-controller", &[], &init).await.ok();
    stranger(&fleet, &format!("{other}/admin.identity")).await;

    let long_ago = time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(365 * 54);
    let admin = Principal { role: Role::Admin, name: "admin".into() };
    let expired = Ca::load(&state).unwrap().issue(&admin, time::Duration::days(1), long_ago).unwrap();
    expired.save(Path::new(&own("expired.identity"))).unwrap();
    stranger(&fleet, &own("expired.identity")).await;

    let settings = [("FEATHERCTL_CONTROLLER", "127.0.0.1:1")];
    let nobody = fleet.featherctl_with(&settings, &["tenant", "list", "--timeout", "1s"]).await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
    tokens(&fleet).await;
    fleet.finish().await;
}

/// Somebody with a certificate that is not good here.
async fn stranger(fleet: &Real, identity: &str) {
    let ran = fleet.featherctl_with(&[("FEATHERCTL_IDENTITY", identity)], &["tenant", "add", "mallory"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("next: "), "{ran:?}");
    assert_eq!(fleet.featherctl_json(&["tenant", "list", "--all"]).await, serde_json::json!([]));
}

/// Tokens that are forged, and one that is used twice.
async fn tokens(fleet: &Real) {
    let token = fleet.invite("fra").await;
    let forged: String = {
        let (last, rest) = (&token[token.len() - 8..], &token[..token.len() - 8]);
        let turned: String = last.chars().rev().collect();
        format!("{rest}{turned}")
    };
    let join = async |token: &str, folder: &str| {
        let state = fleet.directory().join(folder);
        let settings = [
            ("FEATHER_AGENT_JOIN_TOKEN", token),
            ("FEATHER_AGENT_STATE_DIR", state.to_str().unwrap()),
            ("FEATHER_AGENT_ADVERTISE", "127.0.0.1:9"),
        ];
        fleet.binary("feather-agent", &settings, &["join"]).await
    };
    for (token, folder) in [(forged.as_str(), "forged"), ("nonsense", "nonsense")] {
        let ran = join(token, folder).await;
        assert_ne!(ran.code, 0, "{folder}");
        assert!(ran.stderr.contains("token"), "{ran:?}");
    }
    join(&token, "first").await.ok();
    let reused = join(&token, "second").await;
    assert!(reused.code != 0 && reused.stderr.contains("token"), "{reused:?}");
    let servers = fleet.featherctl_json(&["server", "list"]).await;
    assert_eq!(servers.as_array().unwrap().len(), 2, "the first use was good: {servers}");
}
