//! One zone in memory, one store, and everything that a keeper must not do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use feather_proto::error::{Error, reason};
use time::OffsetDateTime;

use super::{Ask, Cap, Keeper, Names, Rules, Store, Zone, ZoneRecord, token};
use crate::{
    dns::{bag::Bag, memory::Memory},
    world::Clock,
};

/// A clock that a test sets, in milliseconds.
#[derive(Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> OffsetDateTime {
        let ms = self.0.load(Ordering::SeqCst);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap()
    }
}

struct Bench {
    store: Store,
    zone: Arc<Memory>,
    clock: Arc<Hands>,
    keeper: Keeper,
    _folder: tempfile::TempDir,
}

fn record(host: &str, kind: &str, value: &str) -> ZoneRecord {
    ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: String::new() }
}

fn a(host: &str, last: u8) -> ZoneRecord {
    record(host, "a", &format!("192.0.2.{last}"))
}

/// A domain with mail and a site.
fn lived_in() -> Vec<ZoneRecord> {
    let mail = ZoneRecord { extra: "10".into(), ..record("", "mx", "mx.example.net") };
    vec![
        record("", "a", "198.51.100.1"),
        mail,
        record("", "txt", "v=spf1 -all"),
        record("www", "cname", "example.com"),
        ZoneRecord { extra: "301".into(), ..record("old", "forward", "https://example.net/") },
    ]
}

async fn bench(records: Vec<ZoneRecord>) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}", folder.path().join("store.db").display())).await.unwrap();
    let zone = Arc::new(Memory::holding("example.com", Zone { ttl: 1800, records }));
    let clock = Arc::new(Hands::default());
    let keeper = keeper(&store, &zone, &clock, "one");
    Bench { store, zone, clock, keeper, _folder: folder }
}

fn keeper(store: &Store, zone: &Arc<Memory>, clock: &Arc<Hands>, holder: &str) -> Keeper {
    let names = Names::new("example.com", "users.example.com").unwrap();
    let rules = Rules { look_again: Duration::from_millis(1), sight: Duration::from_millis(5), ..Rules::default() };
    Keeper::new(store.clone(), zone.clone(), clock.clone(), names, rules, "memory/example.com", holder)
}

impl Bench {
    async fn apply(&self, wanted: &[ZoneRecord]) -> Result<super::Done, Error> {
        self.keeper.apply(wanted, &Ask::default()).await
    }

    /// What is in the zone beyond these, markers left aside.
    fn beyond(&self, known: &[ZoneRecord]) -> Vec<ZoneRecord> {
        let all = Bag::of(&self.zone.edit(|_| {}));
        all.without(&known.iter().collect()).listed().into_iter().filter(|one| one.host != "_feather.users").collect()
    }

    fn markers(&self) -> usize {
        self.zone.edit(|_| {}).records.iter().filter(|one| one.host == "_feather.users").count()
    }
}

fn why<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().reason
}

#[tokio::test]
async fn a_zone_becomes_what_is_wanted_and_keeps_all_else() {
    let theirs = lived_in();
    let bench = bench(theirs.clone()).await;
    let first = [a("*.users", 1), a("alice.users", 2)];
    let done = bench.apply(&first).await.unwrap();
    assert_eq!((done.created, done.removed, done.owned, done.snapshot), (2, 0, 2, Some(1)));
    assert_eq!((bench.beyond(&theirs), bench.markers()), (first.to_vec(), 1));
    let second = [a("*.users", 1), a("alice.users", 3), a("bob.users", 3)];
    let done = bench.apply(&second).await.unwrap();
    assert_eq!((done.created, done.removed), (2, 1));
    assert_eq!((bench.beyond(&theirs), bench.markers()), (second.to_vec(), 1));
    let done = bench.apply(&second).await.unwrap();
    assert_eq!((done.created, done.removed, done.owned, done.snapshot), (0, 0, 3, None));
    bench.apply(&[]).await.unwrap();
    assert_eq!(bench.beyond(&theirs), []);
    assert_eq!(bench.zone.edit(|_| {}).ttl, 1800);
}

#[tokio::test]
async fn a_plan_holds_for_its_zone_and_for_minutes() {
    let bench = bench(lived_in()).await;
    let wanted = [a("*.users", 1)];
    let ask = |plan: String| Ask { plan: Some(plan), ..Ask::default() };
    let shown =
        || async { token(&bench.keeper.view(&wanted).await.unwrap().proposal, bench.clock.0.load(Ordering::SeqCst)) };
    let plan = shown().await;
    bench.zone.edit(|zone| zone.records.push(record("ftp", "a", "192.0.2.77")));
    assert_eq!(why(bench.keeper.apply(&wanted, &ask(plan)).await), reason::WORLD_CHANGED);
    let plan = shown().await;
    bench.clock.0.fetch_add(600_001, Ordering::SeqCst);
    assert_eq!(why(bench.keeper.apply(&wanted, &ask(plan)).await), reason::WORLD_CHANGED);
    assert_eq!(why(bench.keeper.apply(&wanted, &ask("yes".into())).await), reason::INVALID_FIELD);
    assert_eq!(bench.markers(), 0);
    bench.keeper.apply(&wanted, &ask(shown().await)).await.unwrap();
    assert_eq!(bench.markers(), 1);
}

#[tokio::test]
async fn many_names_at_once_have_to_be_allowed() {
    let bench = bench(vec![]).await;
    let many: Vec<_> = (0..20).map(|number| a(&format!("t{number}.users"), 1)).collect();
    let refused = bench.apply(&many).await.unwrap_err();
    assert_eq!((refused.reason.as_str(), bench.markers()), (reason::DNS_CAP, 0));
    assert!(refused.message.contains("--max-changes 20"), "{refused}");
    bench.keeper.apply(&many, &Ask { cap: Cap::Count(20), ..Ask::default() }).await.unwrap();
    assert_eq!(why(bench.apply(&many[..13]).await), reason::DNS_CAP);
    assert_eq!(bench.apply(&many[..14]).await.unwrap().removed, 6);
}

#[tokio::test]
async fn a_zone_that_has_lost_what_others_had_is_left_alone() {
    let bench = bench(lived_in()).await;
    bench.apply(&[a("*.users", 1)]).await.unwrap();
    bench.zone.edit(|zone| zone.records.retain(|one| one.host.ends_with("users") || one.kind == "mx"));
    let wanted = [a("*.users", 2)];
    assert_eq!(why(bench.apply(&wanted).await), reason::DNS_SHRUNK);
    let accepting = Ask { accept_fewer: true, ..Ask::default() };
    assert_eq!(bench.keeper.apply(&wanted, &accepting).await.unwrap().created, 1);
    bench.apply(&[a("*.users", 3)]).await.unwrap();
}

#[tokio::test]
async fn without_the_marker_nothing_is_ours_until_somebody_says_so() {
    let bench = bench(lived_in()).await;
    let (wanted, next) = ([a("*.users", 1), a("alice.users", 1)], [a("*.users", 2)]);
    bench.apply(&wanted).await.unwrap();
    bench.zone.edit(|zone| zone.records.retain(|one| one.host != "_feather.users"));
    let before = bench.zone.edit(|_| {});
    assert_eq!(why(bench.apply(&next).await), reason::DNS_UNPROVEN);
    assert_eq!(why(bench.keeper.adopt(&["*.users".into()], false, false).await), reason::DNS_UNPROVEN);
    assert_eq!(bench.keeper.adopt(&[], true, true).await.unwrap().records, wanted);
    assert_eq!(bench.zone.edit(|_| {}), before);
    bench.keeper.adopt(&[], true, false).await.unwrap();
    bench.apply(&next).await.unwrap();
    assert_eq!(bench.beyond(&lived_in()), next);
}

#[tokio::test]
async fn a_lost_ledger_leaves_the_zone_alone() {
    let bench = bench(lived_in()).await;
    bench.apply(&[a("*.users", 1), a("alice.users", 1)]).await.unwrap();
    bench.store.forget_dns("memory/example.com").await.unwrap();
    let before = bench.zone.edit(|_| {});
    assert_eq!(why(bench.apply(&[a("*.users", 2)]).await), reason::DNS_UNPROVEN);
    assert_eq!(bench.zone.edit(|_| {}), before);
    bench.keeper.adopt(&["*.users".into()], true, false).await.unwrap();
    bench.apply(&[a("*.users", 2)]).await.unwrap();
    let mut expected = lived_in();
    expected.push(a("alice.users", 1));
    assert_eq!((bench.beyond(&expected), bench.markers()), (vec![a("*.users", 2)], 1));
}

#[tokio::test]
async fn what_others_made_at_a_name_stands_until_it_is_adopted() {
    let mut theirs = lived_in();
    theirs.extend([record("*.users", "cname", "old.example.net"), a("alice.users", 2), a("bob.users", 9)]);
    let bench = bench(theirs.clone()).await;
    let wanted = [a("*.users", 1), a("alice.users", 2), a("bob.users", 3), a("carol.users", 3)];
    bench.apply(&wanted).await.unwrap();
    assert_eq!(bench.beyond(&theirs), [a("carol.users", 3)]);
    let conflicts = bench.keeper.view(&wanted).await.unwrap().proposal.conflicts;
    assert_eq!(conflicts.len(), 3, "{conflicts:?}");
    assert_eq!(why(bench.keeper.adopt(&["www".into()], false, false).await), reason::INVALID_FIELD);
    assert_eq!(why(bench.keeper.adopt(&["zoe.users".into()], false, false).await), reason::DNS_NOT_FOUND);
    let all: Vec<String> = ["*.users", "alice.users", "bob.users"].map(Into::into).into();
    bench.keeper.adopt(&all, false, false).await.unwrap();
    assert_eq!(bench.beyond(&theirs), [a("carol.users", 3)], "adopting touched a record");
    bench.apply(&wanted).await.unwrap();
    assert_eq!((bench.beyond(&lived_in()), bench.markers()), (wanted.to_vec(), 1));
}

#[tokio::test]
async fn a_record_that_somebody_made_twice_is_not_removed() {
    let bench = bench(lived_in()).await;
    bench.apply(&[a("*.users", 1), a("alice.users", 2)]).await.unwrap();
    bench.zone.edit(|zone| zone.records.push(a("alice.users", 2)));
    let done = bench.apply(&[a("*.users", 1)]).await.unwrap();
    assert_eq!((done.removed, bench.beyond(&lived_in()).len()), (0, 3));
}

#[tokio::test]
async fn a_full_zone_is_changed_in_small_steps_and_says_what_does_not_fit() {
    let theirs: Vec<_> = (0..94).map(|number| a(&format!("h{number}"), 1)).collect();
    let bench = bench(theirs.clone()).await;
    let allow = Ask { cap: Cap::Count(100), ..Ask::default() };
    let tenants = |last| ["*", "a", "b", "c", "d", "e"].map(|name| a(&format!("{name}.users"), last));
    let done = bench.keeper.apply(&tenants(1), &allow).await.unwrap();
    assert_eq!((done.created, bench.zone.edit(|_| {}).records.len()), (5, 100));
    assert_eq!(bench.keeper.view(&tenants(1)).await.unwrap().proposal.no_slot, [a("e.users", 1)]);
    // No slot is free, and all of them change.
    let done = bench.keeper.apply(&tenants(2)[..5], &allow).await.unwrap();
    assert_eq!((done.created, done.removed, bench.markers()), (5, 5, 1));
    assert_eq!(bench.beyond(&theirs), tenants(2)[..5]);
}

#[tokio::test]
async fn a_challenge_comes_into_a_full_zone_and_the_last_tenants_give_way_for_its_time() {
    let theirs: Vec<_> = (0..94).map(|number| a(&format!("h{number}"), 1)).collect();
    let bench = bench(theirs.clone()).await;
    let allow = Ask { cap: Cap::Count(100), ..Ask::default() };
    let tenants: Vec<_> = ["*", "a", "b", "c", "d"].map(|name| a(&format!("{name}.users"), 1)).into();
    bench.keeper.apply(&tenants, &allow).await.unwrap();
    assert_eq!(bench.zone.edit(|_| {}).records.len(), 100, "and its marker");
    let challenge = ["one", "two"].map(|value| record("_acme-challenge.users", "txt", value));
    let wanted: Vec<_> = tenants[..1].iter().chain(&challenge).chain(&tenants[1..]).cloned().collect();
    let done = bench.keeper.apply(&wanted, &allow).await.unwrap();
    assert_eq!((done.created, done.removed), (2, 2));
    assert_eq!(
        done.found.no_slot,
        [a("c.users", 1), a("d.users", 1)],
        "said, so that the ingress is known to forward them"
    );
    let mut there: Vec<_> = tenants[..3].iter().chain(&challenge).cloned().collect();
    there.sort();
    assert_eq!((bench.beyond(&theirs), bench.markers()), (there, 1));
    // It is as it should be, and nobody else gives way.
    assert_eq!(bench.keeper.apply(&wanted, &allow).await.unwrap().removed, 0);
    bench.keeper.apply(&tenants, &allow).await.unwrap();
    assert_eq!(bench.beyond(&theirs), tenants);
    // Whom the wildcard would not lead to keeps his: others have a record below his name, or the wildcard itself.
    let below = record("_x.d.users", "txt", "hello");
    bench.zone.edit(|zone| zone.records.retain(|one| one.host != "h0"));
    bench.zone.edit(|zone| zone.records.push(below.clone()));
    let done = bench.keeper.apply(&wanted, &allow).await.unwrap();
    assert_eq!(done.found.no_slot, [a("b.users", 1), a("c.users", 1)]);
    bench.keeper.apply(&tenants, &allow).await.unwrap();
    let done = bench.keeper.apply(&wanted[1..], &allow).await.unwrap();
    assert_eq!(
        (done.found.no_slot.len(), bench.beyond(&theirs).len()),
        (1, 6),
        "one for the wildcard that goes, and no other"
    );
    bench.zone.edit(|zone| {
        zone.records.retain(|one| *one != below);
        zone.records.push(a("h0", 1));
    });
    // Nobody's record of others gives way.
    bench.keeper.apply(&[], &allow).await.unwrap();
    bench.zone.edit(|zone| zone.records.extend((94..99).map(|number| a(&format!("h{number}"), 1))));
    assert_eq!(bench.keeper.apply(&challenge, &allow).await.unwrap().found.no_slot, challenge);
    assert_eq!(bench.zone.edit(|_| {}).records.len(), 100);
}

#[tokio::test]
async fn a_removal_that_is_refused_again_and_again_pushes_out_no_snapshot() {
    let bench = bench(lived_in()).await;
    bench.apply(&[a("*.users", 1), a("alice.users", 2)]).await.unwrap();
    bench.zone.set_keeping(true);
    for _ in 0..5 {
        assert_eq!(why(bench.apply(&[a("*.users", 1)]).await), reason::DNS);
    }
    assert_eq!(bench.keeper.snapshots().await.unwrap().len(), 2);
    assert_eq!(bench.beyond(&lived_in()), [a("*.users", 1), a("alice.users", 2)]);
    bench.zone.set_keeping(false);
    bench.apply(&[a("*.users", 1)]).await.unwrap();
    assert_eq!((bench.beyond(&lived_in()), bench.markers()), (vec![a("*.users", 1)], 1));
}

#[tokio::test]
async fn a_zone_that_the_provider_would_not_take_is_said_before_it_is_confirmed() {
    let bench = bench(lived_in()).await;
    bench.zone.edit(|zone| zone.records.extend((0..90).map(|number| a(&format!("h{number}"), 1))));
    bench.apply(&[a("*.users", 1)]).await.unwrap();
    bench.zone.edit(|zone| zone.records.retain(|one| !one.host.starts_with('h')));
    let many: Vec<_> = (0..12).map(|number| a(&format!("t{number}.users"), 1)).collect();
    bench.keeper.apply(&many, &Ask { cap: Cap::Count(100), accept_fewer: true, ..Ask::default() }).await.unwrap();
    let refused = bench.keeper.restore(1, None).await.unwrap_err();
    assert!(refused.reason == reason::DNS && refused.message.contains("100 is the most"), "{refused}");
}

#[tokio::test]
async fn a_snapshot_brings_back_what_others_had_and_keeps_what_is_ours() {
    let bench = bench(lived_in()).await;
    bench.apply(&[a("*.users", 1)]).await.unwrap();
    bench.apply(&[a("*.users", 1), a("alice.users", 2)]).await.unwrap();
    bench.zone.edit(|zone| *zone = Zone { ttl: 60, records: vec![a("shop", 5)] });
    let shown = bench.keeper.restore(2, None).await.unwrap();
    assert_eq!((shown.create.len(), shown.remove.clone(), shown.ttl), (7, vec![a("shop", 5)], (60, 1800)));
    assert_eq!(why(bench.keeper.restore(2, Some("another")).await), reason::WORLD_CHANGED);
    bench.keeper.restore(2, Some(&shown.zone_hash)).await.unwrap();
    assert_eq!((bench.beyond(&lived_in()), bench.markers()), (vec![a("*.users", 1), a("alice.users", 2)], 1));
    // And the fleet goes on with it.
    bench.apply(&[a("*.users", 3)]).await.unwrap();
    assert_eq!(bench.beyond(&lived_in()), [a("*.users", 3)]);
    assert_eq!(why(bench.keeper.restore(99, None).await), reason::DNS_NOT_FOUND);
}

#[tokio::test]
async fn only_one_controller_writes() {
    let bench = bench(vec![]).await;
    let now = bench.clock.now();
    let lease = bench.store.lease_dns("memory/example.com", "two", now, time::Duration::MINUTE).await.unwrap();
    assert_eq!(why(bench.apply(&[a("*.users", 1)]).await), reason::DNS_LEASE);
    assert_eq!(bench.beyond(&[]), []);
    bench.clock.0.fetch_add(60_000, Ordering::SeqCst);
    bench.apply(&[a("*.users", 1)]).await.unwrap();
    // Whoever was slow finds that the zone is not his any more, before anything is sent.
    let late = bench.store.renew_dns_lease(&lease, bench.clock.now(), time::Duration::MINUTE).await;
    assert_eq!(why(late.map_err(Error::from)), reason::DNS_LEASE);
}

#[tokio::test]
async fn a_provider_that_is_away_changes_nothing_and_is_asked_again() {
    let bench = bench(lived_in()).await;
    bench.zone.set_broken(true);
    assert_eq!(why(bench.apply(&[a("*.users", 1)]).await), reason::DNS);
    bench.zone.set_broken(false);
    bench.apply(&[a("*.users", 1)]).await.unwrap();
    assert_eq!(bench.beyond(&lived_in()), [a("*.users", 1)]);
}
