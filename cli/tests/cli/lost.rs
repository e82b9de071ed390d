//! `server lost` and `tenant recover`: what is shown first, what has to be typed, and what the end says.

use feather_proto::pb::controller::v1 as pb;
use insta::assert_snapshot;
use prost_types::Timestamp;

use crate::{
    controller::Controller,
    tenants::{ID, says},
};

fn foreseen() -> pb::LoseServerResponse {
    let of = |tenant: &str, target: &str, data: &str, why: &str| pb::LostTenant {
        tenant: tenant.into(),
        target: target.into(),
        data: data.into(),
        why: why.into(),
        removed: false,
    };
    pb::LoseServerResponse {
        operation: None,
        tenants: vec![of("alice", "fra", "the copy on fra", ""), of("carol", "", "", "there is no copy of carol")],
        last_heard: Some(Timestamp { seconds: 1_767_225_600, nanos: 0 }),
    }
}

fn lost(state: pb::OperationState, moves: Vec<pb::TenantMove>) -> pb::Operation {
    pb::Operation {
        id: ID.into(),
        kind: pb::OperationKind::Lost.into(),
        state: state.into(),
        source: "nyc".into(),
        moves,
        ..Default::default()
    }
}

fn of(tenant: &str, end: pb::MoveEnd, target: &str, why: &str) -> pb::TenantMove {
    let (tenant, target, why) = (tenant.into(), target.into(), why.into());
    pb::TenantMove { tenant, end: end.into(), source: "nyc".into(), target, why, ..Default::default() }
}

#[tokio::test]
async fn the_name_has_to_be_given_and_yes_is_not_enough() {
    let controller = Controller::start().await;
    controller.answers("LoseServer", foreseen());
    let run = controller.run("server lost nyc").await;
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.stderr.contains("alice") && run.stderr.contains("there is no copy of carol"), "{run}");
    let run = controller.run("server lost nyc --yes").await;
    assert_eq!(run.code, Some(2), "{run}");
    assert!(!controller.calls().contains("confirm: \"nyc\""), "{}", controller.calls());
}

#[tokio::test]
async fn a_plan_shows_who_would_be_back_with_what() {
    let controller = Controller::start().await;
    controller.answers("LoseServer", foreseen());
    assert_snapshot!(controller.run("server lost nyc --dry-run").await, @r"
    --- stdout
    TENANT  ON   WITH                       BUT
    alice   fra  the copy on fra            -
    carol   -    there is no copy of carol  -
    --- stderr
    nyc was heard of last at 2026-01-01T00:00:00Z; of 2 tenants there, 1 can be brought back as things stand
    --- exit 0
    ");
}

#[tokio::test]
async fn the_end_is_a_table_and_whoever_is_down_makes_it_a_failure() {
    let controller = Controller::start().await;
    controller.answers("LoseServer", foreseen());
    let begun = Some(lost(pb::OperationState::Running, vec![]));
    controller.answers("LoseServer", pb::LoseServerResponse { operation: begun, ..Default::default() });
    let moves = vec![
        of("alice", pb::MoveEnd::Recovered, "fra", "the copy on fra"),
        of("carol", pb::MoveEnd::Lost, "", "there is no copy of carol"),
    ];
    controller.answers("WatchOperation", vec![says(lost(pb::OperationState::Succeeded, moves))]);
    let run = controller.run("server lost nyc --confirm nyc --from copy --parallel 4").await;
    assert_eq!(run.code, Some(1), "{run}");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["TENANT", "ON", "END", "WITH", "OR", "WHY"]);
    assert!(lines[1].contains("recovered") && lines[2].contains("lost"), "{run}");
    assert!(run.stderr.contains("1 of 2 who lived there are down"), "{run}");
    assert!(run.stderr.contains("featherctl tenant recover NAME"), "{run}");
    let calls = controller.calls();
    assert!(calls.contains("confirm: \"nyc\", from: Copy, to: \"\", parallel: 4, dry_run: false"), "{calls}");
}

#[tokio::test]
async fn a_recovery_says_with_what_and_prints_the_new_password() {
    let controller = Controller::start().await;
    let explanation = vec!["nyc is lost; fra takes the copy on fra".to_owned()];
    let plan = pb::RecoverTenantResponse { operation: None, explanation, target: "fra".into() };
    controller.answers("RecoverTenant", plan);
    let run = controller.run("tenant recover alice --dry-run").await;
    assert!(run.stdout.contains("would bring alice back on fra") && run.stdout.contains("the copy on fra"), "{run}");
}
