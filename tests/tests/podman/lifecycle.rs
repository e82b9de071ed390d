//! Servers join, tenants come, go and come back.

use feather_tests::real::{Holdings, Login, Real};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_added_used_removed_and_found_again_with_its_data() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    let servers = fleet.featherctl_json(&["server", "list"]).await;
    let servers: Vec<_> = servers.as_array().unwrap().iter().collect();
    assert_eq!(servers.len(), 2);
    for server in servers {
        assert_eq!((&server["state"], &server["slots_free"]), (&"ready".into(), &10.into()), "{server}");
    }

    let login = fleet.add("alice", &["--server", "nyc"]).await;
    let visitor = fleet.visit("nyc", &login);
    let wrong = Login { password: "wrong".to_owned(), ..login.clone() };
    assert_eq!(fleet.visit("nyc", &wrong).append("no").await.unwrap().status, 401);
    for line in ["one", "two"] {
        assert_eq!(visitor.append(line).await.unwrap().status, 200);
    }
    // Addresses lead to the ingress unless they have a record of their own.
    assert_eq!(fleet.answers("fra", &login).await.text, "1 one\n2 two\n");
    fleet.comes_to_hold(&[("fra", Holdings::routes(&["alice"])), ("nyc", Holdings::of(&["alice"], &[]))]).await;
    let table = fleet.featherctl(&["tenant", "list"]).await.ok();
    let heading: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["USERNAME", "SERVER", "PORT", "STATE", "AGE", "URL"]);
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["alice", "nyc", "9001", "running"]);
    assert_eq!(row[5], "https://alice.users.inceptel.ai");

    fleet.featherctl(&["tenant", "remove", "alice", "--yes"]).await.ok();
    fleet.comes_to_hold(&[("fra", Holdings::default()), ("nyc", Holdings::volumes(&["alice"]))]).await;
    assert_eq!(visitor.get("/journal").await.unwrap().status, 404);

    let again = fleet.add("alice", &[]).await;
    assert_ne!(again.password, login.password);
    assert_eq!(fleet.server_of("alice").await, "nyc", "her data is there");
    let answer = fleet.answers("nyc", &again).await;
    assert_eq!(answer.text, "1 one\n2 two\n");
    assert_eq!(visitor.get("/journal").await.unwrap().status, 401, "the old password is void");
    fleet.finish().await;
}
