//! What happened, told once each, over restarts of everybody.

use std::{sync::Arc, time::Duration};

use feather_controller::{
    dns::memory::Memory,
    store::Store,
    world::{Clock as _, SystemClock},
};
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{self as pb, event_service_client::EventServiceClient},
};
use feather_tests::{
    Fleet,
    fleet::{ZONE, settings},
    wait::until,
};
use futures::StreamExt as _;
use tonic::Status;

async fn watch(
    fleet: &Fleet,
    request: pb::WatchEventsRequest,
) -> Result<tonic::Streaming<pb::WatchEventsResponse>, Status> {
    Ok(EventServiceClient::new(fleet.admin()).watch_events(request).await?.into_inner())
}

/// Everything that there is.
async fn all(fleet: &Fleet, request: pb::WatchEventsRequest) -> Vec<pb::FleetEvent> {
    let stream = watch(fleet, request).await.unwrap();
    stream.filter_map(async |message| message.unwrap().event).collect().await
}

/// Waits until an event of this kind is there.
async fn happens(fleet: &Fleet, subject: &str, kind: &str, times: usize) -> Vec<pb::FleetEvent> {
    until(&format!("{kind} of {subject}, {times} times"), async || {
        let request = pb::WatchEventsRequest { subject: subject.into(), ..Default::default() };
        let events = all(fleet, request).await;
        let found: Vec<_> = events.iter().filter(|one| one.kind == kind).cloned().collect();
        if found.len() == times { Ok(found) } else { Err(format!("{events:#?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_and_servers_leave_events_with_who_asked_and_what_came_of_it() {
    let servers = [("fra", "192.0.2.2"), ("nyc", "192.0.2.3")];
    let mut fleet = Fleet::start_in((Arc::new(Memory::new(ZONE)), None), &servers, settings()).await;
    let added = fleet.add("alice", "nyc").await;
    fleet.migrate("alice", "fra").await;
    let request = pb::WatchEventsRequest { subject: "alice".into(), ..Default::default() };
    let told: Vec<_> = all(&fleet, request).await.into_iter().map(|one| (one.kind, one.message, one.who)).collect();
    let line = |kind: &str, message: &str| (kind.to_owned(), message.to_owned(), "admin/admin".to_owned());
    assert_eq!(
        told,
        [
            line("operation-begun", "add of alice on nyc begins"),
            line("operation-succeeded", "add of alice on nyc succeeded"),
            line("operation-begun", "migrate of alice from nyc to fra begins"),
            line("operation-succeeded", "migrate of alice from nyc to fra succeeded"),
        ]
    );
    let request = pb::WatchEventsRequest { subject: "alice".into(), newest: 3, ..Default::default() };
    assert_eq!(all(&fleet, request).await.len(), 3);
    let everything = all(&fleet, pb::WatchEventsRequest::default()).await;
    assert_eq!(everything.iter().find(|one| one.kind == "operation-begun").unwrap().operation, added.operation.id);
    assert_eq!(everything.iter().filter(|one| one.kind == "server-joined").count(), 2);
    assert!(everything.iter().any(|one| one.kind == "dns-changed"), "{everything:#?}");
    let ids: Vec<_> = everything.iter().map(|one| one.id).collect();
    assert_eq!(ids, (1..=i64::try_from(ids.len()).unwrap()).collect::<Vec<_>>());

    // A server falls silent while the controller is up, and is back while it is down.
    fleet.kill_agent("nyc");
    happens(&fleet, "nyc", "server-unreachable", 1).await;
    fleet.kill_controller();
    fleet.start_agent("nyc");
    fleet.start_controller().await;
    happens(&fleet, "nyc", "server-back", 1).await;
    happens(&fleet, "nyc", "server-unreachable", 1).await;
    happens(&fleet, "fra", "server-unreachable", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_with_a_cursor_misses_nothing_and_hears_nothing_twice() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    let (mut heard, mut cursor) = (Vec::new(), 0);
    let names = ["alice", "bob", "carol", "dave"];
    for (round, name) in names.into_iter().enumerate() {
        let request = pb::WatchEventsRequest { after: cursor, follow: true, ..Default::default() };
        let mut stream = watch(&fleet, request).await.unwrap();
        // What happens while the stream is open, and something that happens when nobody listens any more.
        fleet.add(name, "nyc").await;
        let done = format!("add of {name} on nyc succeeded");
        loop {
            let message = stream.next().await.unwrap().unwrap();
            cursor = message.cursor;
            let Some(event) = message.event else { continue };
            let last = event.message == done;
            heard.push(event);
            if last {
                break;
            }
        }
        drop(stream);
        fleet.remove(name).await;
        if round % 2 == 0 {
            fleet.kill_controller();
        } else {
            fleet.stop_controller().await;
        }
        fleet.start_controller().await;
        fleet.all_ready().await;
    }
    heard.extend(all(&fleet, pb::WatchEventsRequest { after: cursor, ..Default::default() }).await);
    let everything = all(&fleet, pb::WatchEventsRequest::default()).await;
    assert_eq!(heard, everything[..heard.len()]);
    assert_eq!(heard.iter().filter(|one| one.kind == "operation-begun").count(), 2 * names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_tells_is_taken_in_once_over_restarts_of_both() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    fleet.servers["nyc"].runtime.crash("feather-user-alice");
    let told = happens(&fleet, "alice", "restarted", 1).await;
    assert_eq!(told[0].server, "nyc");
    // The agent keeps its history by and by.
    let history = fleet.servers["nyc"].state_dir.join("history/history.json");
    until("the agent has written it down", async || {
        let text = std::fs::read_to_string(&history).map_err(|error| error.to_string())?;
        if text.contains("restarted") { Ok(()) } else { Err(text) }
    })
    .await;
    fleet.kill_agent("nyc");
    fleet.kill_controller();
    fleet.start_controller().await;
    fleet.start_agent("nyc");
    fleet.all_ready().await;
    fleet.servers["nyc"].runtime.crash("feather-user-alice");
    let again = happens(&fleet, "alice", "restarted", 2).await;
    assert_eq!(again[0], told[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_means_nothing_any_more_is_refused_with_what_there_is() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    let request = pb::WatchEventsRequest { after: 4711, ..Default::default() };
    let error = Error::from(watch(&fleet, request).await.unwrap_err());
    assert_eq!(error.reason, reason::EVENTS_GONE);
    assert!(error.metadata["newest"].parse::<i64>().unwrap() < 4711, "{error:?}");
    fleet.add("alice", "nyc").await;
    fleet.stop_controller().await;
    // Nobody looked for a hundred days.
    let store = Store::open(&fleet.store_url()).await.unwrap();
    let later = SystemClock.now() + Duration::from_secs(100 * 86_400);
    assert!(store.sweep_events(later).await.unwrap() > 0);
    store.close().await;
    fleet.start_controller().await;
    fleet.all_ready().await;
    let error =
        Error::from(watch(&fleet, pb::WatchEventsRequest { after: 1, ..Default::default() }).await.unwrap_err());
    assert_eq!(error.reason, reason::EVENTS_GONE);
    assert!(error.message.contains("90 days"), "{error}");
}
