//! What hangs is restarted, and Caddy has its routes again, whatever happened to them.

use feather_tests::real::{CADDY, Login, Real};

async fn event(fleet: &Real, kind: &str, part: &str) {
    feather_tests::wait::until(&format!("there is an event {kind} about {part}"), async || {
        let server = fleet.featherctl_json(&["server", "show", "nyc"]).await;
        let events = server["events"].as_array().cloned().unwrap_or_default();
        let is = |event: &serde_json::Value| event["kind"] == kind && event["message"].as_str().unwrap().contains(part);
        if events.iter().any(is) { Ok(()) } else { Err(events) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_restarted_and_routes_come_back() {
    let settings = [
        ("FEATHER_AGENT_ADMIN", "on"),
        ("FEATHER_AGENT_WATCHDOG_INTERVAL_SECONDS", "1"),
        ("FEATHER_AGENT_WATCHDOG_FAILURES", "2"),
        ("FEATHER_AGENT_STOP_GRACE_SECONDS", "1"),
    ];
    let fleet = Real::start(&["nyc"], &settings).await;
    let login = fleet.add("alice", &[]).await;
    let visitor = fleet.visit("nyc", &login);
    assert_eq!(visitor.append("one").await.unwrap().status, 200);

    for (container, kind) in
        [("feather-user-alice", "its process had ended"), ("feather-work-blue", "its process had ended")]
    {
        fleet.inside("nyc", &format!("podman kill --signal KILL {container}")).await.ok();
        event(&fleet, "restarted", &format!("{container} was started again: {kind}")).await;
    }
    assert_eq!(fleet.answers("nyc", &login).await.text, "1 one\n");
    for container in ["feather-user-alice", "feather-work-blue"] {
        fleet.inside("nyc", &format!("podman kill --signal STOP {container}")).await.ok();
        event(&fleet, "restarted", &format!("{container} was started again: it did not answer")).await;
    }
    assert_eq!(fleet.answers("nyc", &login).await.text, "1 one\n");
    let shown = fleet.featherctl_json(&["tenant", "show", "alice"]).await;
    assert_eq!(shown["restarts"], 2, "{shown}");

    routes_come_back(&fleet, &login).await;
    fleet.finish().await;
}

async fn routes_come_back(fleet: &Real, login: &Login) {
    let by_hand = async |request: &str| {
        let answer = fleet.inside("nyc", &format!("{CADDY}caddy {request}")).await.ok();
        assert!(answer.contains(" 200 "), "{request}: {answer}");
    };
    let foreign = r#"{"@id":"by-hand","match":[{"path":["/by-hand"]}],"handle":[{"handler":"static_response","status_code":204}]}"#;
    by_hand(&format!("PUT /config/apps/http/servers/feather/routes/0 '{foreign}'")).await;
    by_hand("DELETE /id/feather_tenants").await;
    by_hand("DELETE /id/work_upstream").await;
    fleet.answers("nyc", login).await;
    let visitor = fleet.visit("nyc", login);
    // Each change by hand, and each that puts ours back, may cost a connection (decision 23).
    feather_tests::wait::until("a route by hand stays", async || match visitor.get("/by-hand").await {
        Ok(answer) if answer.status == 204 => Ok(()),
        other => Err(other),
    })
    .await;

    fleet.inside("nyc", "pkill -KILL -x caddy").await.ok();
    fleet.answers("nyc", login).await;
    fleet.inside("nyc", "pkill -STOP -x caddy").await.ok();
    event(fleet, "router-restarted", "Caddy was restarted").await;
    fleet.answers("nyc", login).await;
    let stranger = Login { tenant: "nobody".into(), host: "nobody.users.inceptel.ai".into(), password: String::new() };
    feather_tests::wait::until("strangers reach the admin container", async || {
        match fleet.visit("nyc", &stranger).get("/health").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
