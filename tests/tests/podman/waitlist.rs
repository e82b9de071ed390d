//! From a form to a tenant, on a real server.

use feather_tests::real::{Ran, Real};

/// One HTTP request to a loopback port of a birth, with what bash has.
async fn request(fleet: &Real, server: &str, port: u16, head: &str, body: &str) -> Ran {
    let text = format!("{head}\\r\\ncontent-length: {}\\r\\nconnection: close\\r\\n\\r\\n", body.len());
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{port} && printf '{text}' >&3 && printf %s '{body}' >&3 && cat <&3");
    fleet.inside(server, &script).await
}

async fn sign_up(fleet: &Real, server: &str, email: &str) -> String {
    let head = "POST / HTTP/1.1\\r\\nhost: example.org\\r\\norigin: https://example.org";
    request(fleet, server, 9099, head, &format!("email={}", email.replace('@', "%40"))).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_up_is_invited_and_logs_in() {
    let fleet = Real::start(&["nyc"], &[]).await;
    let answer = sign_up(&fleet, "nyc", "ada.lovelace@example.org").await;
    assert!(answer.contains("{\"ok\":true}") && answer.contains("access-control-allow-origin: *"), "{answer}");
    assert!(request(&fleet, "nyc", 9099, "GET / HTTP/1.1\\r\\nhost: x", "").await.ok().ends_with("waitlist ok"));

    // A power failure right after the answer costs nothing.
    sign_up(&fleet, "nyc", "zoe@example.org").await;
    fleet.kill_birth("nyc").await;
    fleet.start_birth("nyc").await;
    fleet.becomes("nyc", "ready").await;
    let csv = fleet.featherctl(&["waitlist", "export"]).await.ok();
    let emails: Vec<_> = csv.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(emails, ["ada.lovelace@example.org", "zoe@example.org"]);

    let line = fleet.featherctl(&["waitlist", "invite", "ada.lovelace@example.org"]).await.ok();
    let login = feather_tests::real::Login::parse("ada-lovelace", &line);
    fleet.remember_secret(&login.password);
    assert_eq!(fleet.answers("nyc", &login).await.text, "");
    let again = fleet.featherctl(&["waitlist", "invite", "ada.lovelace@example.org"]).await;
    assert!(again.code == 1 && again.stderr.contains("ada-lovelace"), "{again:?}");
    fleet.featherctl(&["waitlist", "remove", "zoe@example.org", "--yes"]).await.ok();
    assert!(!fleet.featherctl(&["waitlist", "list"]).await.ok().contains("zoe"));
    // Addresses are personal data.
    let controller = std::fs::read_to_string(fleet.directory().join("controller.log")).unwrap();
    for log in [fleet.keep_log("nyc").await, controller] {
        assert!(!log.is_empty() && !log.contains("@example.org"), "{log}");
    }
    fleet.finish().await;
}
