//! The audit log: shown to people and programs, and checked.

use feather_proto::pb::controller::v1 as pb;
use insta::assert_snapshot;
use time::macros::datetime;

use crate::controller::Controller;

fn entry(sequence: u64, arguments: &str) -> pb::AuditEntry {
    let at = datetime!(2026-11-28 12:00:00 UTC);
    pb::AuditEntry {
        sequence,
        at: Some(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 }),
        caller: "operator/ada".into(),
        address: "192.0.2.1:5000".into(),
        rpc: "feather.controller.v1.TenantService/AddTenant".into(),
        arguments: arguments.into(),
        code: "OK".into(),
        operation: "op-1".into(),
        hash: "ab".repeat(32),
        ..Default::default()
    }
}

#[tokio::test]
async fn rows_are_shown_with_who_and_what() {
    let controller = Controller::start().await;
    let refused = pb::AuditEntry {
        caller: String::new(),
        address: String::new(),
        rpc: "feather.controller.v1.UserService/Login".into(),
        code: "PermissionDenied".into(),
        reason: "JOIN_TOKEN".into(),
        operation: String::new(),
        ..entry(2, r#"{"secret":"(hidden)"}"#)
    };
    let first = entry(1, r#"{"request_id":"x","tenant":"alice"}"#);
    controller.answers("ListAudit", pb::ListAuditResponse { entries: vec![first.clone(), refused] });
    assert_snapshot!(controller.run("audit list --user ada --limit 2").await, @r"
    --- stdout
    ROW  AT                    WHO           FROM            CALL       END                          OPERATION  WITH
    1    2026-11-28T12:00:00Z  operator/ada  192.0.2.1:5000  AddTenant  OK                           op-1       tenant=alice
    2    2026-11-28T12:00:00Z  -             -               Login      PermissionDenied JOIN_TOKEN  -          secret=(hidden)
    --- exit 0
    ");
    controller.answers("ListAudit", pb::ListAuditResponse { entries: vec![first] });
    let json = controller.run("audit list --since 24h --output json").await;
    let shown: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&shown[0]["arguments"]["tenant"], &shown[0]["reason"]), (&"alice".into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn a_log_that_was_touched_ends_in_an_error() {
    let controller = Controller::start().await;
    let head = "ab".repeat(32);
    let fine = pb::VerifyAuditResponse { rows: 7, head: head.clone(), ..Default::default() };
    controller.answers("VerifyAudit", fine.clone());
    assert_snapshot!(controller.run("audit verify").await, @r"
    --- stdout
    abababababababababababababababababababababababababababababababab
    --- stderr
    7 rows, none changed; above is the head
    --- exit 0
    ");
    let problem = "row 8, or the one before it, is not what was written".to_owned();
    controller.answers("VerifyAudit", pb::VerifyAuditResponse { problem, broken_sequence: 8, ..fine });
    assert_snapshot!(controller.run(&format!("audit verify --expect-head {head}")).await, @r"
    --- stdout
    abababababababababababababababababababababababababababababababab
    --- stderr
    error: the audit log is not what was written: row 8, or the one before it, is not what was written
    next: compare with a backup of the store; until then trust only rows before that one
    --- exit 1
    ");
}
