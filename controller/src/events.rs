//! Events: what happened, in the words that people read.
//!
//! What the controller does is written in the transaction that does it; here are the sentences, pure. What servers tell of themselves,
//! and whether they answer, is taken in by a reconciler that compares with what was taken in before.

use std::{sync::Arc, time::Duration};

use feather_proto::{
    error::Error,
    ids::ServerName,
    model::{EventReport, ServerSnapshot},
};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::{Observed, Reachability},
    operations::{Kind, State, Subject},
    store::{
        NewOperation, OperationRow,
        events::{NewEvent, Source},
        warnings::WarningRow,
    },
    world::World,
};

/// Old events are looked for this often.
const SWEEP: Duration = Duration::from_secs(3600);

/// What the controller tells of a server.
pub fn of_server(server: &ServerName, kind: &str, message: String, at: OffsetDateTime) -> NewEvent {
    let subject = format!("server/{server}");
    NewEvent { at, kind: kind.to_owned(), subject, server: None, message, operation: None, who: None }
}

/// Of the zone (`dns`) or the certificate (`certificate`).
pub fn of(subject: &str, kind: &str, message: String, at: OffsetDateTime) -> NewEvent {
    let (kind, subject) = (kind.to_owned(), subject.to_owned());
    NewEvent { at, kind, subject, server: None, message, operation: None, who: None }
}

/// ` from nyc to fra`; nothing where the subject says it already.
fn route(subject: &Subject, source: Option<&ServerName>, target: Option<&ServerName>) -> String {
    match (source, target) {
        _ if matches!(subject, Subject::Residents(_)) => String::new(),
        (Some(source), Some(target)) => format!(" from {source} to {target}"),
        (Some(one), None) | (None, Some(one)) => format!(" on {one}"),
        (None, None) => String::new(),
    }
}

/// An operation begins.
pub fn begun(new: &NewOperation) -> NewEvent {
    let route = route(&new.subject, new.source.as_ref(), new.target.as_ref());
    NewEvent {
        at: new.now,
        kind: "operation-begun".to_owned(),
        subject: new.subject.to_string(),
        server: None,
        message: format!("{} of {}{route} begins", new.kind.name(), new.subject.spoken()),
        operation: Some(new.id.clone()),
        who: Some(new.requested_by.clone()),
    }
}

/// An operation has come to where it stands: its end, or being stuck. None while it runs.
pub fn stands(row: &OperationRow, now: OffsetDateTime) -> Option<NewEvent> {
    let what = format!("{} of {}", row.kind.name(), row.subject.spoken());
    let route = route(&row.subject, row.source.as_ref(), row.target.as_ref());
    let why = row.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
    let next = row.hint.as_ref().map(|hint| format!("; next: {hint}")).unwrap_or_default();
    // What a drain has moved stays moved.
    let parts = matches!(row.kind, Kind::Drain | Kind::Return | Kind::Lost);
    let as_before = if parts { "" } else { ", and all is as before" };
    let (kind, message) = match row.state {
        State::Succeeded => ("operation-succeeded", format!("{what}{route} succeeded")),
        State::Failed => ("operation-failed", format!("{what}{route} failed{as_before}{why}")),
        State::Cancelled => ("operation-cancelled", format!("{what}{route} was cancelled{as_before}")),
        State::Stuck => ("operation-stuck", format!("{what}{route} is stuck{why}{next}")),
        State::Running | State::Undoing => return None,
    };
    Some(NewEvent {
        at: now,
        kind: kind.to_owned(),
        subject: row.subject.to_string(),
        server: None,
        message,
        operation: Some(row.id.clone()),
        who: Some(row.requested_by.clone()),
    })
}

/// A warning is shown, or cured.
pub fn of_warning(row: &WarningRow, kind: &str, who: Option<&str>, now: OffsetDateTime) -> NewEvent {
    let (note, by) = row.acknowledged.as_ref().map_or(("", ""), |one| (one.note.as_str(), one.by.as_str()));
    let message = match kind {
        "warning-cured" => format!("cured: {}", row.id),
        "warning-acknowledged" if note.is_empty() => format!("{by} knows of {}", row.id),
        "warning-acknowledged" => format!("{by} knows of {}: {note}", row.id),
        _ => format!("{}: {}", row.id, row.message),
    };
    let who = who.map(ToOwned::to_owned);
    NewEvent {
        at: now,
        kind: kind.to_owned(),
        subject: row.subject.clone(),
        server: None,
        message,
        operation: None,
        who,
    }
}

/// What is new of a server's own events, and how many it had forgotten before anybody came for them. Those that were taken in before are
/// known by number and time: a server whose history was lost counts from 1 again.
pub fn fresh<'a>(taken: &[(u64, i64)], told: &'a [EventReport]) -> (Vec<&'a EventReport>, u64) {
    let new: Vec<_> = told.iter().filter(|event| !taken.contains(&mark(event))).collect();
    let known = told.len() - new.len();
    let newest = taken.iter().map(|(sequence, _)| *sequence).max();
    let missed = match (newest, told.first()) {
        (Some(newest), Some(first)) if known == 0 && first.sequence > newest => first.sequence - newest - 1,
        _ => 0,
    };
    (new, missed)
}

fn mark(event: &EventReport) -> (u64, i64) {
    (event.sequence, i64::try_from(event.at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX))
}

/// What one look at a server says: what is seen of it from now on, and what happened. None when that is nothing.
pub fn look(
    server: &ServerName,
    before: Option<&Source>,
    observed: &Observed,
    now: OffsetDateTime,
) -> Option<(Source, Vec<NewEvent>)> {
    let snapshot = observed.alive();
    let mut events = Vec::new();
    let reachable = match (&observed.reachability, before.is_none_or(|source| source.reachable)) {
        (Reachability::Silent(why), true) => {
            let message = format!("{server} does not answer: {why}");
            events.push(of_server(server, "server-unreachable", message, now));
            false
        }
        (Reachability::Alive, false) => {
            events.push(of_server(server, "server-back", format!("{server} answers again"), now));
            true
        }
        // Not known yet is no news.
        (_, reachable) => reachable,
    };
    let mut taken = before.map(|source| source.taken.clone()).unwrap_or_default();
    if let Some(snapshot) = snapshot {
        take(server, snapshot, &mut taken, &mut events, now);
    }
    let source = Source { reachable, taken };
    (!events.is_empty() || before.is_none_or(|before| *before != source)).then_some((source, events))
}

fn take(
    server: &ServerName,
    snapshot: &ServerSnapshot,
    taken: &mut Vec<(u64, i64)>,
    events: &mut Vec<NewEvent>,
    now: OffsetDateTime,
) {
    let (new, missed) = fresh(taken, &snapshot.events);
    if missed > 0 {
        let message = format!("{missed} older events of {server} were not seen: it keeps the newest 64 only");
        events.push(NewEvent { server: Some(server.clone()), ..of_server(server, "events-missed", message, now) });
    }
    events.extend(new.iter().map(|event| NewEvent {
        at: event.at,
        kind: event.kind.clone(),
        subject: event.tenant.as_ref().map_or_else(|| format!("server/{server}"), ToString::to_string),
        server: Some(server.clone()),
        message: event.message.clone(),
        operation: None,
        who: None,
    }));
    if !new.is_empty() {
        *taken = snapshot.events.iter().map(mark).collect();
    }
}

/// One look at all servers.
pub async fn reconcile(world: &World) -> Result<(), Error> {
    let names = world.fleet.settled().await;
    let (members, sources) = (world.store.servers().await?, world.store.event_sources().await?);
    let now = world.clock.now();
    let looked: Vec<_> = world.fleet.with(|observed| {
        let of = |row: &crate::store::ServerRow| {
            let (source, events) = look(&row.name, sources.get(&row.name), observed.get(&row.name)?, now)?;
            Some((row.name.clone(), source, events))
        };
        members.iter().filter_map(of).collect()
    });
    for (server, source, events) in looked {
        if !world.fleet.holds(names) {
            // By the old name everything would be news.
            break;
        }
        world.store.take_in_events(&server, sources.get(&server), &source, &events).await?;
    }
    Ok(())
}

/// Takes in what servers tell, and drops what is old, until shutdown.
pub async fn keep(world: Arc<World>, shutdown: CancellationToken) {
    let mut swept: Option<Instant> = None;
    loop {
        if let Err(error) = reconcile(&world).await {
            tracing::warn!(%error, "events of servers were not taken in; trying again");
        }
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            match world.store.sweep_events(world.clock.now()).await {
                Ok(_) => swept = Some(Instant::now()),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old events stay for now");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(world.settings.heartbeat) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::model::{EventReport, ServerSnapshot};
    use time::{Duration, OffsetDateTime};

    use super::{fresh, look, route};
    use crate::{
        fleet::{Observed, Reachability},
        operations::Subject,
        store::events::Source,
    };

    #[test]
    fn a_server_is_named_once() {
        let (nyc, fra) = ("nyc".parse().unwrap(), "fra".parse().unwrap());
        let said = |subject: &str, target| {
            let subject: Subject = subject.parse().unwrap();
            format!("{}{}", subject.spoken(), route(&subject, Some(&nyc), target))
        };
        assert_eq!(said("alice", Some(&fra)), "alice from nyc to fra");
        assert_eq!(said("alice", None), "alice on nyc");
        assert_eq!(said("residents/nyc", None), "who lives on nyc");
    }

    fn report(sequence: u64, minute: i64) -> EventReport {
        EventReport {
            sequence,
            at: OffsetDateTime::UNIX_EPOCH + Duration::minutes(minute),
            kind: "restarted".into(),
            tenant: None,
            message: format!("event {sequence}"),
        }
    }

    fn taken(of: &[(u64, i64)]) -> Vec<(u64, i64)> {
        of.iter().map(|(sequence, minute)| (*sequence, minute * 60_000)).collect()
    }

    #[test]
    fn what_was_taken_in_is_not_taken_in_again_whatever_became_of_the_history() {
        type Marks = &'static [(u64, i64)];
        let cases: &[(Marks, Marks, &[u64], u64)] = &[
            (&[], &[(1, 1), (2, 2)], &[1, 2], 0),
            (&[(1, 1), (2, 2)], &[(1, 1), (2, 2), (3, 3)], &[3], 0),
            (&[(1, 1), (2, 2)], &[(2, 2), (3, 3)], &[3], 0),
            // A crash of the agent lost the last one, and its number was given again.
            (&[(1, 1), (2, 2)], &[(1, 1), (2, 5)], &[2], 0),
            // The history began anew.
            (&[(7, 1), (8, 2)], &[(1, 9)], &[1], 0),
            // More happened than is kept.
            (&[(1, 1), (2, 2)], &[(6, 6), (7, 7)], &[6, 7], 3),
            (&[(1, 1), (2, 2)], &[(1, 1), (2, 2)], &[], 0),
        ];
        for (before, told, wanted, missed) in cases {
            let told: Vec<_> = told.iter().map(|(sequence, minute)| report(*sequence, *minute)).collect();
            let (new, gap) = fresh(&taken(before), &told);
            let new: Vec<_> = new.iter().map(|event| event.sequence).collect();
            assert_eq!((new.as_slice(), gap), (*wanted, *missed), "{before:?}");
        }
    }

    #[test]
    fn silence_and_return_are_told_once_and_a_start_of_the_controller_is_neither() {
        let nyc = "nyc".parse().unwrap();
        let now = OffsetDateTime::UNIX_EPOCH;
        let seen = |reachability| Observed {
            snapshot: Some(ServerSnapshot::empty("nyc".parse().unwrap()).into()),
            last_seen: None,
            reachability,
        };
        let kinds = |before: Option<bool>, reachability| {
            let before = before.map(|reachable| Source { reachable, taken: vec![] });
            let looked = look(&nyc, before.as_ref(), &seen(reachability), now);
            looked
                .map(|(source, events)| (source.reachable, events.into_iter().map(|one| one.kind).collect::<Vec<_>>()))
        };
        let silent = || Reachability::Silent("timed out".into());
        assert_eq!(kinds(None, Reachability::Alive), Some((true, vec![])));
        assert_eq!(kinds(Some(true), Reachability::Alive), None);
        assert_eq!(kinds(Some(true), Reachability::Connecting), None);
        assert_eq!(kinds(Some(false), Reachability::Connecting), None);
        assert_eq!(kinds(Some(true), silent()), Some((false, vec!["server-unreachable".into()])));
        assert_eq!(kinds(Some(false), silent()), None);
        assert_eq!(kinds(Some(false), Reachability::Alive), Some((true, vec!["server-back".into()])));
    }
}
