//! Who stands still in a move that nobody remembers, and what such moves have left: every way in which somebody else may be about it.

use std::collections::BTreeMap;

use feather_proto::{
    adoption::Action,
    ids::{Generation, ServerName, TenantName},
    model::{IncomingStage, Residence, ServerSnapshot, TenantReport, VolumeReport, VolumeState},
};
use time::OffsetDateTime;

use super::{Doubt, Half, doubt, half};
use crate::{
    adoption::{Names, conflicts, judge, unknown, unwanted},
    fleet::{Observed, Reachability},
    store::{ServerRow, TenantRow, TenantState},
};

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn alice() -> TenantName {
    "alice".parse().unwrap()
}

/// A member; its certificate says another name.
fn member(name: &str) -> ServerRow {
    ServerRow {
        name: server(name),
        identity: server(&format!("{name}-then")),
        address: format!("{name}:7443"),
        public_address: format!("{name}.example.com"),
        key_fingerprint: String::new(),
        joined: OffsetDateTime::UNIX_EPOCH,
        upkeep: Default::default(),
    }
}

fn row(state: TenantState, home: Option<&str>) -> TenantRow {
    TenantRow {
        name: alice(),
        state,
        server: home.map(server),
        previous_server: None,
        generation: Generation(7),
        generation_issued: Generation(9),
        running: true,
        created: OffsetDateTime::UNIX_EPOCH,
        version: 1,
        bounds: Default::default(),
        limits: Default::default(),
    }
}

fn report(residence: Residence, generation: u64) -> TenantReport {
    TenantReport::bare(alice(), Generation(generation), residence)
}

fn sealed() -> TenantReport {
    report(Residence::Sealed, 7)
}

fn arriving(stage: IncomingStage) -> TenantReport {
    TenantReport { incoming: Some(stage), ..report(Residence::Absent, 8) }
}

fn forwarding(to: &str, generation: u64) -> TenantReport {
    TenantReport { forward_to: Some(to.to_owned()), ..report(Residence::Departed, generation) }
}

type World = BTreeMap<ServerName, Observed>;

/// A server that answers, with whole data of whoever lives or stands there.
fn answers(name: &str, report: Option<TenantReport>) -> (ServerName, Observed) {
    let volume = |one: &TenantReport| VolumeReport {
        tenant: one.tenant.clone(),
        state: if one.incoming.is_some() { VolumeState::Incomplete } else { VolumeState::Complete },
        generation: one.generation,
        keep_until: None,
        last_summary: None,
    };
    let volumes = report.iter().map(volume).collect();
    let tenants = report.into_iter().collect();
    let snapshot = ServerSnapshot { tenants, volumes, ..ServerSnapshot::empty(server(name)) };
    let snapshot = Some(snapshot.into());
    (server(name), Observed { snapshot, last_seen: None, reachability: Reachability::Alive })
}

fn silent(name: &str) -> (ServerName, Observed) {
    let (name, seen) = answers(name, None);
    (name, Observed { reachability: Reachability::Silent("gone".into()), ..seen })
}

fn names(row: Option<TenantRow>, held: bool) -> Names {
    Names::new(row.into_iter().collect(), held.then(alice), &["ams", "fra", "nyc"].map(member))
}

/// Alice stands still on nyc; ams and fra are these.
fn still(others: [(ServerName, Observed); 2]) -> World {
    others.into_iter().chain([answers("nyc", Some(sealed()))]).collect()
}

fn told(world: &World, names: &Names) -> String {
    conflicts(&server("nyc"), world, names).join("; ")
}

#[test]
fn whoever_stands_still_and_is_served_by_nobody_is_taken_in() {
    let before = [
        answers("fra", None),
        answers("fra", Some(report(Residence::Absent, 9))),
        answers("fra", Some(forwarding("nyc.example.com:80", 9))),
        answers("fra", Some(forwarding("nyc-then@192.0.2.1:443", 9))),
        // Where it was before.
        answers("fra", Some(forwarding("ams.example.com:80", 7))),
    ];
    for fra in before {
        let world = still([answers("ams", None), fra]);
        for row in [None, Some(row(TenantState::Removed, None))] {
            let names = names(row, false);
            let taken = unknown(&world, &names);
            assert_eq!(taken.iter().map(|(server, _)| server.as_str()).collect::<Vec<_>>(), ["nyc"], "{world:?}");
            assert_eq!(told(&world, &names), "");
        }
        let elsewhere = [
            (Some(row(TenantState::Active, Some("fra"))), false),
            (Some(row(TenantState::Active, Some("nyc"))), false),
            (Some(row(TenantState::Removed, None)), true),
        ];
        for (row, held) in elsewhere {
            let names = names(row, held);
            assert!(unknown(&world, &names).is_empty());
            assert_eq!(told(&world, &names), "");
        }
    }
}

#[test]
fn whoever_may_be_served_by_another_is_left_alone_and_a_person_is_told() {
    type Told = (&'static str, bool, [(ServerName, Observed); 2]);
    let cases: [Told; 8] = [
        ("do not answer (fra)", true, [answers("ams", None), silent("fra")]),
        ("`featherctl server lost ams`", true, [silent("ams"), silent("fra")]),
        // It was not heard since this controller began.
        ("do not answer (fra)", true, [answers("ams", None), answers("lhr", None)]),
        (
            "fra serves it (generation 8)",
            true,
            [answers("ams", None), answers("fra", Some(report(Residence::Stopped, 8)))],
        ),
        ("fra is given back first", true, [answers("ams", None), answers("fra", Some(arriving(IncomingStage::Trial)))]),
        (
            "on fra, too (generation 7); `featherctl server adopt nyc --tenant alice`",
            false,
            [answers("ams", None), answers("fra", Some(sealed()))],
        ),
        (
            "fra forwards to ams.example.com:80 since then",
            false,
            [answers("ams", None), answers("fra", Some(forwarding("ams.example.com:80", 8)))],
        ),
        (
            "ams forwards to 192.0.2.9:80",
            false,
            [answers("ams", Some(forwarding("192.0.2.9:80", 8))), answers("fra", None)],
        ),
    ];
    for (wanted, served, others) in cases {
        let (world, names) = (still(others), names(None, false));
        assert!(!unknown(&world, &names).iter().any(|(server, _)| server.as_str() == "nyc"), "{wanted}");
        let told = told(&world, &names);
        assert!(told.starts_with("alice: it stands still on nyc") && told.contains(wanted), "{wanted}: {told}");
        let doubt = doubt(&server("nyc"), &sealed(), &world, &names);
        assert_eq!(matches!(doubt, Some(Doubt::Served(_))), served, "{wanted}");
        // Who adopts the server and names her chooses, where that makes no second copy.
        let snapshot = world[&server("nyc")].alive().unwrap();
        for (chosen, taken) in [(None, false), (Some(alice()), !served)] {
            let chosen = chosen.into_iter().collect();
            let judged = judge(&server("nyc"), vec![], snapshot, &world, &names, &chosen);
            assert_eq!(judged[0].action, if taken { Action::Adopt } else { Action::Misfit }, "{wanted}");
            assert_eq!(judged[0].why.as_deref().is_some_and(|why| why.contains(wanted)), !taken, "{judged:?}");
            assert_eq!(judged[0].notes.iter().any(|note| note.contains("featherctl tenant start alice")), taken);
        }
    }
}

#[test]
fn what_came_in_a_forgotten_move_is_given_back_once_the_original_is_in_sight() {
    let lives = || answers("nyc", Some(report(Residence::Running, 7)));
    let stands = || answers("nyc", Some(sealed()));
    let kept = || answers("nyc", Some(report(Residence::Absent, 7)));
    let at = |state, home| Some(row(state, Some(home)));
    let (active, removed) = (TenantState::Active, TenantState::Removed);
    let cases = [
        (at(active, "nyc"), false, lives(), "back"),
        (at(active, "nyc"), false, stands(), "back"),
        (at(removed, "nyc"), false, kept(), "back"),
        (None, false, lives(), "back"),
        (None, false, stands(), "back"),
        (at(active, "nyc"), true, lives(), ""),
        (None, true, stands(), ""),
        (at(active, "fra"), false, stands(), ""),
        (at(active, "nyc"), false, silent("nyc"), "when nyc says"),
        (at(active, "nyc"), false, kept(), "when nyc says"),
        (at(active, "ams"), false, lives(), "when ams says"),
        (None, false, silent("nyc"), "when a server says"),
        (None, false, kept(), "when a server says"),
    ];
    for stage in [IncomingStage::Reserved, IncomingStage::Received, IncomingStage::Trial] {
        for (row, held, nyc, wanted) in cases.clone() {
            let names = names(row.clone(), held);
            let world: World = [nyc, answers("ams", None), answers("fra", Some(arriving(stage)))].into();
            let what = format!("{row:?} {held} {world:?}");
            let found = half(&server("fra"), &arriving(stage), &world, &names);
            let told = conflicts(&server("fra"), &world, &names);
            match (wanted, found) {
                ("", None) => assert!(told.is_empty(), "{told:?}"),
                ("back", Some(Half::Unwanted)) => assert!(told.is_empty(), "{told:?}"),
                (part, Some(Half::Waits(why))) if !part.is_empty() => {
                    assert!(why.contains(part) && told == [format!("alice: {why}")], "{told:?}");
                }
                (_, found) => panic!("{wanted}: {found:?} of {what}"),
            }
            assert_eq!(unwanted(&world, &names).len(), usize::from(wanted == "back"), "{what}");
        }
    }
    // Without all of its data it is no original.
    let (nyc, mut seen) = lives();
    let whole = seen.snapshot.take().unwrap();
    seen.snapshot = Some(ServerSnapshot { volumes: vec![], ..(*whole).clone() }.into());
    let world: World = [(nyc, seen), answers("fra", Some(arriving(IncomingStage::Received)))].into();
    assert!(unwanted(&world, &names(at(active, "nyc"), false)).is_empty());
}
