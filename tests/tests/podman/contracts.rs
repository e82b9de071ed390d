//! The fakes of the other ring keep the promises that Podman and Caddy keep: one contract, held here to the real ones.

use feather_tests::real::Real;

#[tokio::test(flavor = "multi_thread")]
async fn podman_and_caddy_keep_their_contracts() {
    let mut fleet = Real::bare(&[]).await;
    let mount = format!("{}:/usr/local/bin/feather-contracts:ro", env!("CARGO_BIN_EXE_feather-contracts"));
    fleet.lone_birth("contracts", &["--volume", &mount]).await;
    let ran = fleet.inside("contracts", "feather-contracts").await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("contracts are kept\n"), "{ran:?}");
    assert_eq!(fleet.inside("contracts", "podman ps --all --quiet; podman volume ls --quiet").await.ok(), "");
    fleet.finish().await;
}
