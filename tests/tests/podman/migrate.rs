//! Moves that go well, under load: nothing is lost, nothing refused, and never do two copies run.

use feather_tests::real::{Holdings, Real, Writer, journal_is_whole, one_at_a_time};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_under_load_loses_nothing_and_never_runs_twice() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    let login = fleet.add("alice", &["--server", "nyc"]).await;
    let writer = Writer::start("writer", fleet.visit("nyc", &login));
    writer.goes_on(50).await;

    let moved = fleet.migrate("alice", "fra").await;
    writer.goes_on(50).await;
    let across = Writer::start("across", fleet.visit("fra", &login));
    let lines: Vec<_> = moved.stdout.lines().collect();
    let [line, sent] = lines[..] else { panic!("not two lines: {}", moved.stdout) };
    assert!(line.starts_with("alice moved nyc -> fra: "), "{line}");
    assert!(line.contains(", root digest ") && line.contains("equal on both sides, outage "), "{line}");
    assert!(sent.starts_with("  sent ") && sent.contains("round"), "{sent}");
    assert!(moved.stderr.starts_with("operation op-"), "{}", moved.stderr);

    let back = fleet.featherctl_json(&["tenant", "migrate", "alice", "--undo"]).await;
    assert_eq!((&back["source"], &back["target"], &back["state"]), (&"fra".into(), &"nyc".into(), &"succeeded".into()));
    assert_eq!(back["migration"]["equal"], true);
    assert!(back["migration"]["outage_ms"].as_u64().unwrap() > 0);
    writer.goes_on(50).await;
    fleet.migrate("alice", "fra").await;
    writer.goes_on(50).await;

    let written = writer.stop().await;
    let across = across.stop().await;
    assert!(written.refused.is_empty() && across.refused.is_empty(), "{:?}\n{:?}", written.refused, across.refused);
    let (nyc, fra) = (fleet.answers("nyc", &login).await, fleet.answers("fra", &login).await);
    assert_eq!(nyc.boot, fra.boot, "both lead to the same process");
    assert_eq!(nyc.text, fra.text);
    journal_is_whole(&fra.text, &written.acknowledged);
    assert!(across.acknowledged.iter().all(|line| fra.text.contains(&format!(" {line}\n"))));
    let starts = fleet.visit("fra", &login).get("/files/starts.log").await.unwrap().text;
    assert_eq!(starts.lines().count(), 7, "four processes, three ends:\n{starts}");
    one_at_a_time(&starts, 0);
    let holdings = fleet.holdings().await;
    assert_eq!(holdings["fra"], Holdings::of(&["alice"], &[]));
    assert_eq!(holdings["nyc"], Holdings::of(&[], &["alice"]));
    fleet.finish().await;
}
