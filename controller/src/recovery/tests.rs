use std::collections::BTreeMap;

use feather_proto::{
    ids::{Generation, ServerName},
    model::{Residence, ServerSnapshot, TenantReport, VolumeReport, VolumeState},
};
use time::{Duration, OffsetDateTime};

use super::{Data, Found, Wish, Without, choose, copies, own, rough, unheard};
use crate::{
    fleet::{Observed, Reachability},
    operations::{Kind, State, Subject},
    store::{OperationRow, backups::BackupRow},
};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn at(hours: i64) -> OffsetDateTime {
    NOW + Duration::hours(hours)
}

fn moved(source: &str, target: &str, generation: u64, hours: i64) -> OperationRow {
    OperationRow {
        id: feather_proto::ids::OperationId::from_uuid(uuid::Uuid::now_v7()),
        kind: Kind::Migrate,
        subject: Subject::Tenant("alice".parse().unwrap()),
        source: Some(source.parse().unwrap()),
        target: Some(target.parse().unwrap()),
        state: State::Succeeded,
        plan: serde_json::json!({ "generation": generation }),
        facts: serde_json::json!({}),
        requested_by: "operator/ada".into(),
        trace: None,
        error: None,
        hint: None,
        created: at(hours),
        ended: Some(at(hours)),
        parent: None,
    }
}

fn server(state: VolumeState, generation: u64, residence: Residence, alive: bool) -> Observed {
    let alice = || "alice".parse().unwrap();
    let volume = VolumeReport {
        tenant: alice(),
        state,
        generation: Generation(generation),
        keep_until: Some(at(200)),
        last_summary: None,
    };
    let report = TenantReport::bare(alice(), Generation(generation), residence);
    let name: ServerName = "any".parse().unwrap();
    let snapshot = ServerSnapshot { volumes: vec![volume], tenants: vec![report], ..ServerSnapshot::empty(name) };
    let reachability = if alive { Reachability::Alive } else { Reachability::Silent("no answer".into()) };
    Observed { snapshot: Some(snapshot.into()), last_seen: Some(NOW), reachability }
}

fn backup(id: &str, hours: i64, verified: bool) -> BackupRow {
    BackupRow {
        id: id.into(),
        tenant: "alice".parse().unwrap(),
        repository: "/backups".into(),
        server: "nyc".parse().unwrap(),
        taken: at(hours),
        live: true,
        bytes: 7,
        new_bytes: 7,
        keep_until: None,
        verified: verified.then_some(at(hours)),
        damage: String::new(),
    }
}

fn seen(servers: Vec<(&str, Observed)>) -> BTreeMap<ServerName, Observed> {
    servers.into_iter().map(|(name, one)| (name.parse().unwrap(), one)).collect()
}

/// Alice went from fra to lon, and from lon to nyc, which is lost.
fn history() -> Vec<OperationRow> {
    vec![moved("lon", "nyc", 7, 20), moved("fra", "lon", 5, 10)]
}

fn left(state: VolumeState, generation: u64) -> Observed {
    server(state, generation, Residence::Departed, true)
}

fn found(servers: Vec<(&str, Observed)>) -> Vec<Found> {
    copies(&"alice".parse().unwrap(), &seen(servers), &history(), at(30))
}

fn place(data: &Data) -> String {
    match data {
        Data::Copy { server, whole, .. } => format!("{server}{}", if *whole { "!" } else { "" }),
        Data::Backup { id, .. } => id.clone(),
    }
}

fn chosen(wish: Wish, copies: &[Found], backups: &[BackupRow]) -> Result<String, Without> {
    choose(wish, None, copies, backups).map(|data| place(&data))
}

#[test]
fn only_whole_volumes_that_nobody_lives_on_and_that_have_not_expired_are_copies() {
    let complete = VolumeState::Complete;
    assert_eq!(found(vec![("fra", left(complete, 3))]).len(), 1);
    assert_eq!(found(vec![("fra", left(VolumeState::Incomplete, 3))]), []);
    for residence in [Residence::Running, Residence::Stopped] {
        assert_eq!(found(vec![("fra", server(complete, 3, residence, true))]), [], "{residence:?}");
    }
    // Sealed for a move whose target was lost behind the commit.
    assert_eq!(found(vec![("fra", server(complete, 3, Residence::Sealed, true))]).len(), 1);
    let later = copies(&"alice".parse().unwrap(), &seen(vec![("fra", left(complete, 3))]), &history(), at(201));
    assert_eq!(later, [], "its time is over: it may be gone at the next look");
}

#[test]
fn the_newest_wins_whatever_it_is() {
    let complete = VolumeState::Complete;
    let both = found(vec![("fra", left(complete, 3)), ("lon", left(complete, 5))]);
    assert_eq!(chosen(Wish::Newest, &both, &[]).unwrap(), "lon");
    // The copy on lon is of hour 20.
    assert_eq!(chosen(Wish::Newest, &both, &[backup("b19", 19, true)]).unwrap(), "lon");
    assert_eq!(chosen(Wish::Newest, &both, &[backup("b19", 19, true), backup("b21", 21, true)]).unwrap(), "b21");
    assert_eq!(chosen(Wish::Copy, &both, &[backup("b21", 21, true)]).unwrap(), "lon");
    assert_eq!(chosen(Wish::Backup, &both, &[backup("b19", 19, true)]).unwrap(), "b19");
    // The lost machine's own disk, under another name.
    let returned = found(vec![("lon", left(complete, 5)), ("nyc2", left(complete, 7))]);
    assert_eq!(chosen(Wish::Newest, &returned, &[backup("b21", 21, true)]).unwrap(), "nyc2!");
    // Of a copy that no move left behind nobody knows how old it is.
    let unknown = found(vec![("ams", left(complete, 2))]);
    assert_eq!(chosen(Wish::Newest, &unknown, &[]).unwrap(), "ams");
    assert_eq!(chosen(Wish::Backup, &unknown, &[backup("b1", 1, true)]).unwrap(), "b1");
}

#[test]
fn damaged_backups_are_none_and_the_newest_of_the_others_counts_also_when_it_was_never_read_back() {
    let damaged = BackupRow { damage: "a piece is missing".into(), ..backup("b9", 9, true) };
    assert_eq!(chosen(Wish::Newest, &[], std::slice::from_ref(&damaged)), Err(Without::None));
    let some = [damaged, backup("b7", 7, false), backup("b5", 5, true)];
    assert_eq!(chosen(Wish::Newest, &[], &some).unwrap(), "b7");
    assert_eq!(chosen(Wish::Newest, &[], &[backup("b7", 7, false)]).unwrap(), "b7");
    assert_eq!(chosen(Wish::Copy, &[], &some), Err(Without::None));
}

#[test]
fn what_is_newest_and_cannot_be_had_is_waited_for_and_not_replaced_in_silence() {
    let silent = found(vec![("lon", server(VolumeState::Complete, 5, Residence::Departed, false))]);
    let Err(Without::NotNow(why)) = choose(Wish::Newest, None, &silent, &[backup("b19", 19, true)]) else { panic!() };
    assert!(why.contains("the copy on lon of 1970-01-01 20:00 UTC") && why.contains("--from backup"), "{why}");
    assert_eq!(chosen(Wish::Backup, &silent, &[backup("b19", 19, true)]).unwrap(), "b19");
    assert_eq!(chosen(Wish::Newest, &silent, &[backup("b21", 21, true)]).unwrap(), "b21", "a newer one can be had");
}

#[test]
fn where_nobody_knows_which_is_newer_a_person_is_asked() {
    let complete = VolumeState::Complete;
    // On fra: what a move or a recovery wrote that came to no end, above the placement that was lost. On ams: of before this store.
    for (server, generation) in [("fra", 9), ("ams", 2)] {
        let copy = found(vec![(server, left(complete, generation))]);
        let Err(Without::NotNow(why)) = choose(Wish::Newest, None, &copy, &[backup("b1", 1, true)]) else { panic!() };
        assert!(why.contains(server) && why.contains("b1") && why.contains("--from copy --to SERVER"), "{why}");
        assert_eq!(chosen(Wish::Copy, &copy, &[backup("b1", 1, true)]).unwrap(), server);
        // What is all of it needs nobody.
        let both = found(vec![(server, left(complete, generation)), ("nyc2", left(complete, 7))]);
        assert_eq!(chosen(Wish::Newest, &both, &[backup("b1", 1, true)]).unwrap(), "nyc2!");
    }
    let two = found(vec![("fra", left(complete, 9)), ("lon", left(complete, 5))]);
    assert!(matches!(chosen(Wish::Copy, &two, &[]), Err(Without::NotNow(_))));
    let on = "lon".parse().unwrap();
    assert_eq!(choose(Wish::Copy, Some(&on), &two, &[]).map(|data| place(&data)).unwrap(), "lon");
}

#[test]
fn a_copy_is_of_when_its_tenant_stopped_there_and_not_of_when_the_move_began() {
    let mut history = history();
    history[0].facts = serde_json::json!({ "stopped_ms": 21 * 3_600_000 });
    let copy =
        copies(&"alice".parse().unwrap(), &seen(vec![("lon", left(VolumeState::Complete, 5))]), &history, at(30));
    let during = [backup("b20", 20, true)];
    assert_eq!(chosen(Wish::Newest, &copy, &during).unwrap(), "lon", "the backup was taken while the move ran");
}

#[test]
fn what_was_somebody_elses_of_that_name_is_not_looked_at() {
    let mut began = moved("nyc", "nyc", 8, 25);
    (began.kind, began.source) = (Kind::Add, None);
    began.facts = serde_json::json!({ "found_data": false });
    let history: Vec<_> = std::iter::once(began.clone()).chain(history()).collect();
    let old = seen(vec![("lon", left(VolumeState::Complete, 5))]);
    assert_eq!(copies(&"alice".parse().unwrap(), &old, &history, at(30)), []);
    let backups = || vec![backup("b24", 24, true), backup("b26", 26, true)];
    assert_eq!(own(backups(), &history), [backup("b26", 26, true)]);
    // Her own data, found again.
    began.facts = serde_json::json!({ "found_data": true });
    assert_eq!(own(backups(), &[began]), backups());
}

#[test]
fn a_member_that_nobody_has_heard_of_may_have_the_newest() {
    let silent = ["lon".parse().unwrap()];
    let (backup, whole) = (
        choose(Wish::Newest, None, &[], &[backup("b1", 1, true)]),
        choose(Wish::Newest, None, &found(vec![("nyc2", left(VolumeState::Complete, 7))]), &[]),
    );
    assert!(unheard(Wish::Newest, None, &backup, &silent).unwrap().contains("lon"));
    assert!(unheard(Wish::Newest, None, &Err(Without::None), &silent).is_some());
    assert_eq!(unheard(Wish::Newest, None, &whole, &silent), None, "nothing can be newer");
    assert_eq!(unheard(Wish::Backup, None, &backup, &silent), None, "a person has said so");
    assert_eq!(unheard(Wish::Newest, None, &backup, &[]), None);
}

#[test]
fn it_is_said_what_is_missing() {
    let data = choose(Wish::Newest, None, &[], &[backup("b19", 19, false)]).unwrap();
    let said = data.told(Some(at(22)));
    assert_eq!(
        said,
        "the backup b19 in /backups (never read back) of 1970-01-01 19:00 UTC, 3 h ago: what was written since is lost"
    );
    let ages = [0, 59_999, 60_000, 119 * 60_000, 120 * 60_000, 47 * 3_600_000, 48 * 3_600_000].map(rough);
    assert_eq!(ages, ["less than a minute", "less than a minute", "1 min", "119 min", "2 h", "47 h", "2 days"]);
}
