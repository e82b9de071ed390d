//! What does not work, and what to type next.

use feather_proto::pb::controller::v1 as pb;
use insta::assert_snapshot;
use time::OffsetDateTime;

use crate::controller::{Controller, Ran};

fn check(verdict: pb::CheckVerdict, subject: &str, message: &str, next: &str) -> pb::Check {
    pb::Check {
        verdict: verdict.into(),
        subject: subject.into(),
        check: "x".into(),
        message: message.into(),
        next: next.into(),
    }
}

#[allow(clippy::disallowed_methods, reason = "the controller's clock is compared with this machine's")]
async fn doctor(controller: &Controller, ahead_s: i64, checks: Vec<pb::Check>, arguments: &str) -> Ran {
    let seconds = OffsetDateTime::now_utc().unix_timestamp() + ahead_s;
    let now = Some(prost_types::Timestamp { seconds, nanos: 0 });
    controller.answers("GetStatus", pb::GetStatusResponse { now, version: "1.2.3".into(), ..Default::default() });
    controller.answers("Diagnose", pb::DiagnoseResponse { checks });
    controller.run(arguments).await
}

#[tokio::test]
async fn a_fleet_that_is_well_exits_with_0_and_says_so() {
    let controller = Controller::start().await;
    let well = vec![check(pb::CheckVerdict::Ok, "nyc", "its agent answers in 3 ms", "")];
    let ran = doctor(&controller, 0, well.clone(), "doctor").await;
    assert_eq!(ran.code, Some(0), "{ran}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("ok      controller  version 1.2.3 answers in "), "{ran}");
    assert!(lines[1].starts_with("ok      controller  its clock is "), "{ran}");
    assert!(lines[2].starts_with("ok      you         your certificate ends at "), "{ran}");
    assert_eq!(lines[3], "ok      nyc         its agent answers in 3 ms");
    assert_eq!(ran.stderr, "4 checks, all well.\n");
    assert_eq!(doctor(&controller, 0, well, "doctor --quiet").await.stdout, "");
}

#[tokio::test]
async fn what_fails_is_said_with_what_to_do_and_exits_with_1() {
    let controller = Controller::start().await;
    let checks = || {
        vec![
            check(pb::CheckVerdict::Fail, "fra", "its agent does not answer", "`featherctl server show fra`"),
            check(pb::CheckVerdict::Warn, "dns", "not as wanted", "`featherctl dns plan` shows it"),
        ]
    };
    assert_snapshot!(doctor(&controller, 0, checks(), "doctor --quiet").await, @r"
    --- stdout
    fail    fra  its agent does not answer
            next: `featherctl server show fra`
    warn    dns  not as wanted
            next: `featherctl dns plan` shows it
    --- stderr
    5 checks: 1 failed, 1 to look at.
    error: 1 of 5 checks failed
    next: each line above that begins with `fail` says what to do
    --- exit 1
    ");
    let ran = doctor(&controller, 3600, vec![], "doctor --output json").await;
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, json["failed"].as_u64()), (Some(1), Some(1)), "{ran}");
    assert_eq!(
        (json["checks"][1]["check"].as_str(), json["checks"][1]["verdict"].as_str()),
        (Some("clock"), Some("fail"))
    );
}
