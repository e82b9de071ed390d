//! What happened, as it is shown and followed.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use insta::assert_snapshot;

use crate::controller::{Act, Controller};

fn event(id: i64, subject: &str, message: &str) -> pb::FleetEvent {
    pb::FleetEvent {
        id,
        at: Some(prost_types::Timestamp { seconds: 1_795_880_000 + id, nanos: 0 }),
        kind: "operation-begun".into(),
        subject: subject.into(),
        message: message.into(),
        who: "admin/ann".into(),
        ..Default::default()
    }
}

fn sends(events: Vec<pb::FleetEvent>, cursor: i64) -> Vec<Act<pb::WatchEventsResponse>> {
    let begin = pb::WatchEventsResponse { event: None, cursor };
    let each = events.into_iter().map(|event| pb::WatchEventsResponse { cursor: event.id, event: Some(event) });
    std::iter::once(begin).chain(each).map(Act::Send).collect()
}

#[tokio::test]
async fn events_are_lines_with_their_numbers() {
    let controller = Controller::start().await;
    let restarted = pb::FleetEvent {
        kind: "restarted".into(),
        server: "nyc".into(),
        who: String::new(),
        ..event(42, "alice", "its process had ended (exit code 1)")
    };
    let silent = pb::FleetEvent { who: String::new(), ..event(43, "server/fra", "fra does not answer: timed out") };
    let first = event(41, "alice", "add of alice on nyc begins");
    controller.answers("WatchEvents", sends(vec![first, restarted, silent], 40));
    assert_snapshot!(controller.run("events --subject alice -n 2").await, @r"
    --- stdout
       41  2026-11-28T15:34:01Z  alice         add of alice on nyc begins [admin/ann]
       42  2026-11-28T15:34:02Z  alice (nyc)   its process had ended (exit code 1)
       43  2026-11-28T15:34:03Z  fra           fra does not answer: timed out
    --- exit 0
    ");
    controller.answers("WatchEvents", sends(vec![event(41, "alice", "x")], 40));
    let ran = controller.run("events --since 40 --output json").await;
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((line["id"].as_i64(), line["server"].is_null()), (Some(41), true), "{ran}");
    assert_snapshot!(controller.calls(), @r#"
    WatchEvents: WatchEventsRequest { after: 0, since: None, subject: "alice", newest: 2, follow: false }
    WatchEvents: WatchEventsRequest { after: 40, since: None, subject: "", newest: 0, follow: false }
    "#);
}

#[tokio::test]
async fn following_goes_on_behind_what_has_arrived_when_the_connection_breaks() {
    let controller = Controller::start().await;
    let mut broken = sends(vec![event(5, "alice", "one")], 0);
    broken.push(Act::Break);
    controller.answers("WatchEvents", broken);
    // The controller stops, and ends the stream.
    controller.answers("WatchEvents", sends(vec![event(6, "alice", "two")], 5));
    controller.refuses("WatchEvents", Error::refused(reason::EVENTS_GONE, "events up to 9 are not kept any more"));
    let ran = controller.run("events --follow").await;
    assert_snapshot!(ran, @r"
    --- stdout
        5  2026-11-28T15:33:25Z  alice         one [admin/ann]
        6  2026-11-28T15:33:26Z  alice         two [admin/ann]
    --- stderr
    lost the connection to the controller; connecting again
    lost the connection to the controller; connecting again
    error: events up to 9 are not kept any more
    next: `featherctl events --since 0` begins with the oldest that there is
    --- exit 1
    ");
    assert_snapshot!(controller.calls(), @r#"
    WatchEvents: WatchEventsRequest { after: 0, since: None, subject: "", newest: 50, follow: true }
    WatchEvents: WatchEventsRequest { after: 5, since: None, subject: "", newest: 0, follow: true }
    WatchEvents: WatchEventsRequest { after: 6, since: None, subject: "", newest: 0, follow: true }
    "#);
}
