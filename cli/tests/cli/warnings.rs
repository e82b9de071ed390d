//! The inbox of warnings.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use insta::assert_snapshot;
use time::OffsetDateTime;

use crate::controller::Controller;

#[allow(clippy::disallowed_methods, reason = "ages are told by the clock of whoever reads them")]
fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: OffsetDateTime::now_utc().unix_timestamp() - seconds, nanos: 0 })
}

fn silent() -> pb::Warning {
    pb::Warning {
        id: "unreachable/nyc".into(),
        kind: "unreachable".into(),
        subject: "server/nyc".into(),
        message: "nyc does not answer (its stream went silent); its tenants may well be running".into(),
        since: ago(200),
        acknowledged: None,
    }
}

fn known() -> pb::Warning {
    let acknowledged = pb::Acknowledgement { by: "admin/ann".into(), at: ago(7300), note: "disk ordered".into() };
    pb::Warning {
        id: "disk/fra".into(),
        kind: "disk".into(),
        subject: "server/fra".into(),
        message: "fra has 300 MiB of 100000 MiB disk left".into(),
        since: ago(90_000),
        acknowledged: Some(acknowledged),
    }
}

#[tokio::test]
async fn what_needs_a_person_is_listed_and_what_somebody_knows_is_counted() {
    let controller = Controller::start().await;
    controller.answers("ListWarnings", pb::ListWarningsResponse { warnings: vec![silent()], acknowledged: 1 });
    assert_snapshot!(controller.run("warning list").await, @r"
    --- stdout
    unreachable/nyc  for 3m
      nyc does not answer (its stream went silent); its tenants may well be running
    --- stderr
    one more that somebody has taken note of; `featherctl warning list --all` shows them too
    --- exit 0
    ");
    controller.answers("ListWarnings", pb::ListWarningsResponse { warnings: vec![silent(), known()], acknowledged: 0 });
    assert_snapshot!(controller.run("warning list --all").await, @r"
    --- stdout
    unreachable/nyc  for 3m
      nyc does not answer (its stream went silent); its tenants may well be running
    disk/fra  for 1d  known by admin/ann, 2h ago: disk ordered
      fra has 300 MiB of 100000 MiB disk left
    --- exit 0
    ");
    controller.answers("ListWarnings", pb::ListWarningsResponse::default());
    assert_snapshot!(controller.run("warning list").await, @r"
    --- stderr
    Nothing needs a person.
    --- exit 0
    ");
    controller.answers("ListWarnings", pb::ListWarningsResponse { warnings: vec![silent()], acknowledged: 0 });
    let json: serde_json::Value =
        serde_json::from_str(&controller.run("warning list --output json").await.stdout).unwrap();
    assert_eq!((json[0]["id"].as_str(), json[0]["acknowledged"].is_null()), (Some("unreachable/nyc"), true));
}

#[tokio::test]
async fn a_warning_is_noted_and_one_that_is_not_there_is_not() {
    let controller = Controller::start().await;
    controller.answers("AcknowledgeWarning", pb::AcknowledgeWarningResponse { warning: Some(known()) });
    let mut command = controller.command("warning ack disk/fra --note");
    let ran = controller.finish(command.arg("disk ordered").spawn().unwrap()).await;
    assert_snapshot!(ran, @r"
    --- stdout
    disk/fra: noted
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"AcknowledgeWarning: AcknowledgeWarningRequest { id: "disk/fra", note: "disk ordered" }"#);
    let message = "there is no warning disk/lax; it may be cured";
    controller.refuses("AcknowledgeWarning", Error::not_found(reason::WARNING_NOT_FOUND, message));
    assert_snapshot!(controller.run("warning ack disk/lax").await, @r"
    --- stderr
    error: there is no warning disk/lax; it may be cured
    next: `featherctl warning list --all` shows those that hold
    --- exit 1
    ");
    controller.answers("ListWarnings", pb::ListWarningsResponse { warnings: vec![known()], acknowledged: 0 });
    assert_eq!(controller.run("warning show disk/lax").await.code, Some(1));
}

#[tokio::test]
async fn lists_of_servers_say_that_there_are_warnings() {
    let controller = Controller::start().await;
    controller.answers("ListServers", pb::ListServersResponse { servers: vec![], warnings: 2 });
    let ran = controller.run("server list").await;
    assert!(ran.stderr.ends_with("2 warnings: `featherctl warning list`\n"), "{ran}");
}
