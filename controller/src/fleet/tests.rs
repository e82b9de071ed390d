//! What is observed of a server goes with it to another name, whoever was looking meanwhile.

use feather_proto::model::ServerSnapshot;
use time::{Duration, OffsetDateTime};

use super::{Fleet, Reachability};
use crate::{store::ServerRow, upkeep::Upkeep};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn row(called: &str, identity: &str, version: i64) -> ServerRow {
    ServerRow {
        name: called.parse().unwrap(),
        identity: identity.parse().unwrap(),
        address: format!("{identity}:7443"),
        public_address: identity.into(),
        key_fingerprint: String::new(),
        joined: NOW,
        upkeep: Upkeep { version, ..Upkeep::default() },
    }
}

fn snapshot(of: &str) -> ServerSnapshot {
    ServerSnapshot { version: format!("of {of}"), ..ServerSnapshot::empty(of.parse().unwrap()) }
}

/// What is known by which name, and of whom it is.
fn known(fleet: &Fleet) -> Vec<(String, String)> {
    let all = fleet.all().into_iter();
    all.map(|(name, one)| (name.to_string(), one.snapshot.map(|one| one.version.clone()).unwrap_or_default())).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, whose)| ((*name).to_owned(), format!("of {whose}"))).collect()
}

#[test]
fn what_was_observed_goes_with_the_name_and_a_row_from_before_takes_nothing_back() {
    let fleet = Fleet::default();
    let (nyc, fra) = (row("nyc", "nyc", 1), row("fra", "fra", 1));
    fleet.called(&[nyc.clone(), fra.clone()]);
    for (row, of) in [(&nyc, "nyc"), (&fra, "fra")] {
        fleet.saw(row, snapshot(of), NOW);
    }
    let mut changed = fleet.subscribe();
    changed.mark_unchanged();
    let renamed = row("ewr", "nyc", 2);
    fleet.called(&[renamed.clone(), fra.clone()]);
    assert!(changed.has_changed().unwrap(), "whoever compares looks again");
    assert_eq!(known(&fleet), pairs(&[("ewr", "nyc"), ("fra", "fra")]));
    let snapshot_of = |name: &str| fleet.observed(&name.parse().unwrap()).snapshot.unwrap();
    assert_eq!(snapshot_of("ewr").server.as_str(), "ewr", "it calls itself what is in its certificate");
    // A watcher that began before, and one who read the rows before.
    fleet.saw(&nyc, snapshot("nyc"), NOW);
    fleet.called(&[nyc.clone(), fra.clone()]);
    assert_eq!(known(&fleet), pairs(&[("ewr", "nyc"), ("fra", "fra")]));
    fleet.lost(&nyc, "gone".into());
    assert_eq!(fleet.observed(&renamed.name).reachability, Reachability::Silent("gone".into()));
    assert_eq!((fleet.name(&nyc), fleet.name(&fra)), (renamed.name.clone(), fra.name.clone()));

    // Two that give their names on, seen at once.
    fleet.called(&[row("fra", "nyc", 3), row("muc", "fra", 2)]);
    assert_eq!(known(&fleet), pairs(&[("fra", "nyc"), ("muc", "fra")]));
    // Another machine by a name that was somebody else's certificate.
    let anew = ServerRow { joined: NOW + Duration::hours(1), ..row("nyc", "nyc", 1) };
    fleet.called(&[row("fra", "nyc", 3), row("muc", "fra", 2), anew.clone()]);
    fleet.saw(&anew, snapshot("another"), NOW);
    assert_eq!(known(&fleet), pairs(&[("fra", "nyc"), ("muc", "fra"), ("nyc", "another")]));
    fleet.forget(&nyc, false);
    assert_eq!(known(&fleet), pairs(&[("muc", "fra"), ("nyc", "another")]), "a membership ends under its last name");
}

#[tokio::test]
async fn nobody_decides_on_names_while_one_changes() {
    let fleet = Fleet::default();
    let before = fleet.settled().await;
    assert!(fleet.holds(before) && before == fleet.settled().await, "looking changes nothing");
    let naming = fleet.renaming().await;
    assert!(!fleet.holds(before), "what was read before and behind this moment is of two worlds");
    let mut waiting = std::pin::pin!(fleet.settled());
    let mut second = std::pin::pin!(fleet.renaming());
    assert!(futures::poll!(waiting.as_mut()).is_pending() && futures::poll!(second.as_mut()).is_pending());
    drop(naming);
    let naming = second.await;
    drop(naming);
    let now = waiting.await;
    assert!(fleet.holds(now) && !fleet.holds(before));
}

#[test]
fn a_snapshot_that_was_overtaken_takes_nothing_back() {
    let fleet = Fleet::default();
    let nyc = row("nyc", "nyc", 1);
    fleet.called(std::slice::from_ref(&nyc));
    let numbered = |boot: &str, sequence: u64| ServerSnapshot {
        boot_id: boot.into(),
        sequence,
        version: format!("{boot} {sequence}"),
        ..snapshot("nyc")
    };
    let later = |seconds| NOW + Duration::seconds(seconds);
    let held = || {
        let observed = fleet.observed(&nyc.name);
        (observed.snapshot.unwrap().version.clone(), observed.last_seen.unwrap())
    };
    for (second, boot, sequence, holds) in [
        (1, "a", 2, "a 2"),
        // Its making began earlier.
        (2, "a", 1, "a 2"),
        (3, "a", 3, "a 3"),
        // The same one, and an agent that was started again.
        (4, "a", 3, "a 3"),
        (5, "b", 1, "b 1"),
        // One that does not count: what comes last is believed.
        (6, "c", 0, "c 0"),
        (7, "c", 0, "c 0"),
    ] {
        fleet.saw(&nyc, numbered(boot, sequence), later(second));
        assert_eq!(held(), (holds.to_owned(), later(second)), "after {boot} {sequence}");
        assert_eq!(fleet.observed(&nyc.name).reachability, Reachability::Alive);
    }
}
