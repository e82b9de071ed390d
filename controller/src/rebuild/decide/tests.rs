use std::collections::BTreeMap;

use feather_proto::{
    ids::{Generation, ServerName, TenantName},
    model::{IncomingStage, Residence, ServerSnapshot, TenantReport, VolumeReport, VolumeState},
    tls::{Principal, Revocation},
};
use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

use super::{Answer, Half, Plan, decide};
use crate::{
    agents::Heeded,
    ca::AGENT_LIFE,
    rebuild::{Assigned, Named, Said},
    store::{TenantRow, TenantState},
};

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap()
}

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn alice() -> TenantName {
    "alice".parse().unwrap()
}

/// On a server without any data.
fn report(residence: Residence, generation: u64) -> TenantReport {
    TenantReport::bare(alice(), Generation(generation), residence)
}

fn departed(generation: u64, to: &str) -> TenantReport {
    TenantReport { forward_to: Some(to.into()), ..report(Residence::Departed, generation) }
}

fn incoming(generation: u64, stage: IncomingStage) -> TenantReport {
    TenantReport { incoming: Some(stage), ..report(Residence::Absent, generation) }
}

fn with_data(snapshot: &mut ServerSnapshot, keep_until: Option<OffsetDateTime>) {
    let volume = |report: &TenantReport| VolumeReport {
        tenant: report.tenant.clone(),
        state: VolumeState::Complete,
        generation: report.generation,
        keep_until,
        last_summary: None,
    };
    snapshot.volumes = snapshot.tenants.iter().map(volume).collect();
}

/// A fleet of these, each with what it says of alice.
#[derive(Clone)]
struct World {
    said: Said,
    answers: BTreeMap<ServerName, Answer>,
}

fn world(of: &[(&str, Option<TenantReport>)]) -> World {
    let named = of.iter().map(|(server, _)| format!("{server}={server}:7443").parse::<Named>().unwrap());
    let said = Said::new(named.collect(), [], [], None).unwrap();
    let answer = |(server, report): &(&str, Option<TenantReport>)| {
        let mut snapshot = ServerSnapshot {
            tenants: report.iter().cloned().collect(),
            identity_ends: Some(now() + Duration::hours(20)),
            ..ServerSnapshot::empty(name(server))
        };
        with_data(&mut snapshot, None);
        (name(server), Answer::Heard(Box::new(snapshot), Some(Heeded::default())))
    };
    World { said, answers: of.iter().map(answer).collect() }
}

impl World {
    fn plan(&self) -> Plan {
        decide(&self.said, &self.answers, now())
    }

    fn silent(mut self, server: &str) -> Self {
        self.answers.insert(name(server), Answer::Silent("no route to host".into()));
        self
    }

    fn without(mut self, what: &str) -> Self {
        self.said.without.insert(what.into());
        self
    }

    fn assigned(mut self, server: &str) -> Self {
        let Assigned { tenant, server } = format!("alice={server}").parse().unwrap();
        self.said.assigned.insert(tenant, server);
        self
    }

    fn heard(&mut self, server: &str) -> (&mut ServerSnapshot, &mut Heeded) {
        match self.answers.get_mut(&name(server)).unwrap() {
            Answer::Heard(snapshot, Some(heeded)) => (&mut **snapshot, heeded),
            other => panic!("{other:?}"),
        }
    }
}

fn stops(plan: &Plan) -> Vec<&str> {
    plan.stops().map(|finding| finding.about.as_str()).collect()
}

/// State, server, generation, and whether it should run.
fn brief(row: &TenantRow) -> (TenantState, &str, u64, bool) {
    (row.state, row.server.as_ref().unwrap().as_str(), row.generation.0, row.running)
}

fn only(plan: &Plan) -> (TenantState, &str, u64, bool) {
    assert_eq!((stops(plan), plan.tenants.len()), (vec![], 1), "{plan:#?}");
    brief(&plan.tenants[0])
}

#[test]
fn whoever_serves_alone_has_it_above_all_that_was_seen() {
    let plan =
        world(&[("nyc", Some(departed(9, "fra:80"))), ("fra", Some(report(Residence::Running, 5))), ("ams", None)]);
    let plan = plan.plan();
    assert_eq!(only(&plan), (TenantState::Active, "fra", 9, true));
    assert!(plan.findings.iter().any(|one| one.message.contains("kept without an end")), "{plan:#?}");
    let row = &plan.tenants[0];
    assert!(row.generation_issued.0 > 9 && row.generation <= row.generation_issued);
    assert_eq!((row.previous_server.clone(), plan.halves.len()), (Some(name("nyc")), 0));
    let stopped = world(&[("nyc", Some(report(Residence::Stopped, 3)))]).plan();
    assert_eq!(only(&stopped), (TenantState::Active, "nyc", 3, false));
}

#[test]
fn two_that_hold_it_are_for_a_person_to_choose_from() {
    for (first, second) in [
        (report(Residence::Running, 5), report(Residence::Running, 7)),
        (report(Residence::Running, 7), report(Residence::Stopped, 7)),
        (report(Residence::Sealed, 5), report(Residence::Sealed, 5)),
        // Stands still at a later moment than the one that runs is of.
        (report(Residence::Running, 5), report(Residence::Sealed, 7)),
    ] {
        let both = world(&[("nyc", Some(first.clone())), ("fra", Some(second.clone()))]);
        assert_eq!((stops(&both.plan()), both.plan().tenants.len()), (vec!["alice"], 0), "{first:?} {second:?}");
        for server in ["nyc", "fra"] {
            let plan = both.clone().assigned(server).plan();
            assert_eq!(plan.tenants[0].server, Some(name(server)), "{plan:#?}");
            assert_eq!(
                (stops(&plan), plan.tenants[0].generation.0),
                (vec![], first.generation.0.max(second.generation.0))
            );
        }
    }
    // To whom nothing of it belongs nothing is given.
    let nobody = world(&[("nyc", Some(departed(5, "fra:80"))), ("fra", Some(report(Residence::Running, 5)))]);
    assert_eq!(stops(&nobody.assigned("nyc").plan()), ["alice"]);
    let unknown = world(&[("nyc", None)]).assigned("nyc").plan();
    assert_eq!(stops(&unknown), ["alice"]);
}

#[test]
fn a_copy_from_before_a_move_does_not_pass_for_the_tenant() {
    // Ams knows that she left for fra later than nyc's ledger is of.
    let old =
        world(&[("nyc", Some(report(Residence::Running, 3))), ("fra", None), ("ams", Some(departed(7, "fra:80")))]);
    assert_eq!(stops(&old.plan()), ["alice"]);
    let silent = old.clone().silent("fra").without("fra");
    assert_eq!(stops(&silent.plan()), ["alice"], "also when that one does not answer");
    assert_eq!(stops(&silent.assigned("nyc").plan()), Vec::<&str>::new());
    // What is older than the tenant says nothing.
    let new =
        world(&[("nyc", Some(report(Residence::Running, 7))), ("fra", None), ("ams", Some(departed(7, "fra:80")))]);
    assert_eq!(only(&new.plan()), (TenantState::Active, "nyc", 7, true));
}

#[test]
fn what_was_in_the_middle_of_a_move_is_where_its_data_is_whole() {
    for stage in [IncomingStage::Reserved, IncomingStage::Received, IncomingStage::Trial] {
        let plan = world(&[("nyc", Some(report(Residence::Sealed, 3))), ("fra", Some(incoming(5, stage)))]).plan();
        assert_eq!(only(&plan), (TenantState::Active, "nyc", 5, false), "{stage:?}");
        let half = Half { server: name("fra"), tenant: alice(), generation: Generation(5) };
        assert_eq!(plan.halves, [half], "{stage:?}");
        assert!(plan.findings.iter().any(|one| one.message.contains("featherctl tenant start alice")));
    }
    let running =
        world(&[("nyc", Some(report(Residence::Running, 3))), ("fra", Some(incoming(5, IncomingStage::Reserved)))]);
    assert_eq!(only(&running.plan()), (TenantState::Active, "nyc", 5, true));
    assert_eq!(running.plan().halves.len(), 1);
    // Behind the activation: the source is what is left.
    let done =
        world(&[("nyc", Some(report(Residence::Sealed, 3))), ("fra", Some(report(Residence::Running, 5)))]).plan();
    assert_eq!((only(&done), done.halves.len()), ((TenantState::Active, "fra", 5, true), 0));
    // Nobody has the original: what came may be all there is.
    let alone = world(&[("nyc", None), ("fra", Some(incoming(5, IncomingStage::Received)))]).plan();
    assert_eq!((stops(&alone), alone.tenants.len(), alone.halves.len()), (vec![], 0, 0));
    assert!(alone.findings.iter().any(|one| one.message.contains("nobody who answers has the original")));
}

#[test]
fn removed_tenants_are_known_by_the_data_that_is_kept_of_them() {
    let kept =
        world(&[("nyc", Some(report(Residence::Absent, 4))), ("fra", Some(report(Residence::Absent, 3)))]).plan();
    assert_eq!(only(&kept), (TenantState::Removed, "nyc", 4, true));
    let mut gone = world(&[("nyc", Some(report(Residence::Absent, 4)))]);
    gone.heard("nyc").0.volumes.clear();
    assert_eq!(gone.plan().tenants, []);
    let mut expiring = world(&[("nyc", Some(report(Residence::Absent, 4)))]);
    with_data(expiring.heard("nyc").0, Some(now()));
    assert_eq!(expiring.plan().tenants, [], "an undo copy is not what a removal keeps");
    let only_copies = world(&[("nyc", Some(report(Residence::Departed, 4)))]).plan();
    assert!(only_copies.tenants.is_empty() && only_copies.findings[0].message.contains("a copy of its data is on nyc"));
    // She went on to fra later, which knows nothing of her any more but has a volume.
    let mut later =
        world(&[("nyc", Some(report(Residence::Absent, 4))), ("ams", Some(departed(5, "fra:80"))), ("fra", None)]);
    let volume = later.heard("nyc").0.volumes.clone();
    later.heard("fra").0.volumes = volume;
    let plan = later.plan();
    assert_eq!(plan.tenants, []);
    assert!(plan.findings.iter().any(|one| one.message.contains("fra has a volume of that name")), "{plan:#?}");
    // She lives with somebody who does not answer, and kept data elsewhere is older.
    let away =
        world(&[("nyc", Some(report(Residence::Absent, 2))), ("ams", Some(departed(5, "fra:80"))), ("fra", None)]);
    assert_eq!(only(&away.silent("fra").without("fra").plan()), (TenantState::Active, "fra", 5, true));
}

#[test]
fn who_stands_still_in_a_move_is_no_home_where_somebody_may_have_taken_over() {
    // Fra, of which nothing is heard, may serve her since.
    let fleet = world(&[("nyc", Some(report(Residence::Sealed, 6))), ("fra", None)]).silent("fra").without("fra");
    assert_eq!((stops(&fleet.plan()), fleet.plan().tenants.len()), (vec!["alice"], 0));
    assert!(
        fleet.plan().stops().all(|one| one.message.contains("--assign alice=nyc") && one.message.contains("(fra)"))
    );
    assert_eq!(only(&fleet.clone().assigned("nyc").plan()), (TenantState::Active, "nyc", 6, false));
    let there = fleet.assigned("fra").plan();
    assert_eq!(only(&there), (TenantState::Active, "fra", 6, true));
    assert!(there.findings.iter().any(|one| one.message.contains("nyc still holds its requests")), "{there:#?}");
    // Somebody knows where she went.
    for (forward, permitted) in [("fra:80", None), ("192.0.2.7:80", Some("192.0.2.7:80"))] {
        let mut fleet =
            world(&[("nyc", Some(report(Residence::Sealed, 6))), ("fra", None), ("ams", Some(departed(7, forward)))]);
        if let Some(permitted) = permitted {
            fleet = fleet.without(permitted);
        }
        assert_eq!(stops(&fleet.plan()), ["alice"], "{forward}");
        assert_eq!(only(&fleet.assigned("nyc").plan()), (TenantState::Active, "nyc", 7, false));
    }
    // What is older, or leads to it, casts no doubt.
    for (generation, forward) in [(6, "fra:80"), (7, "nyc:80")] {
        let fleet = world(&[
            ("nyc", Some(report(Residence::Sealed, 6))),
            ("fra", None),
            ("ams", Some(departed(generation, forward))),
        ]);
        assert_eq!(only(&fleet.plan()), (TenantState::Active, "nyc", generation.max(6), false), "{forward}");
    }
}

#[test]
fn a_person_is_heard_where_it_is_not_clear_and_nowhere_else() {
    let clear = world(&[("nyc", Some(report(Residence::Sealed, 6))), ("fra", Some(report(Residence::Running, 7)))]);
    let plan = clear.clone().assigned("nyc").plan();
    assert_eq!((stops(&plan), plan.tenants.len()), (vec!["alice"], 0));
    assert!(plan.stops().all(|one| one.message.contains("nobody disputes that alice is on fra")), "{plan:#?}");
    assert_eq!(only(&clear.assigned("fra").plan()), (TenantState::Active, "fra", 7, true));
    let away = world(&[("nyc", Some(departed(7, "fra:80"))), ("fra", None), ("ams", None)]);
    let away = away.silent("fra").without("fra");
    assert_eq!(stops(&away.clone().assigned("ams").plan()), ["alice"]);
    assert_eq!(only(&away.assigned("fra").plan()), (TenantState::Active, "fra", 7, true));
    // Nobody says that somebody who does not answer has her.
    let kept = world(&[("nyc", Some(report(Residence::Absent, 7))), ("fra", None)]).silent("fra").without("fra");
    assert_eq!(stops(&kept.assigned("fra").plan()), ["alice"]);
}

#[test]
fn whoever_lives_on_a_server_that_does_not_answer_is_written_down_where_the_newest_forward_leads() {
    let mut fleet = world(&[("nyc", Some(departed(7, "fra:80"))), ("fra", None), ("ams", Some(departed(5, "nyc:80")))]);
    with_data(fleet.heard("nyc").0, Some(now() + Duration::days(1)));
    fleet.heard("ams").0.volumes.clear();
    let heard = fleet.plan();
    assert_eq!(heard.tenants, [], "who answers and does not have her has not got her");
    let plan = fleet.clone().silent("fra").without("fra").plan();
    assert_eq!(only(&plan), (TenantState::Active, "fra", 7, true));
    assert_eq!((plan.tenants[0].previous_server.clone(), plan.halves.len()), (Some(name("nyc")), 0));
    assert!(plan.tenants[0].generation_issued.0 > 500, "restarts that only fra heard of have numbers, too");
    let told = "fra does not answer; nyc forwards to it, so it is written down there";
    assert!(plan.findings.iter().any(|one| one.about == "alice" && one.message.contains(told)), "{plan:#?}");
    // Two forwards of one moment contradict each other, data is of a later moment, or is on its way: then it would be a guess.
    for ams in [
        departed(7, "nyc:80"),
        report(Residence::Absent, 8),
        report(Residence::Departed, 8),
        incoming(8, IncomingStage::Received),
    ] {
        let fleet = world(&[("nyc", Some(departed(7, "fra:80"))), ("fra", None), ("ams", Some(ams.clone()))]);
        assert_eq!(fleet.silent("fra").without("fra").plan().tenants, [], "{ams:?}");
    }
    // A later number without any data is what a move that was undone leaves.
    let mut undone =
        world(&[("nyc", Some(departed(7, "fra:80"))), ("fra", None), ("ams", Some(report(Residence::Absent, 9)))]);
    undone.heard("ams").0.volumes.clear();
    assert_eq!(only(&undone.silent("fra").without("fra").plan()), (TenantState::Active, "fra", 9, true));
}

#[test]
fn a_forward_to_nobody_that_was_named_stops_it_until_somebody_says_so() {
    for forward in ["192.0.2.7:80", "lax@192.0.2.7:443"] {
        let fleet = world(&[("nyc", Some(departed(5, forward))), ("fra", None)]);
        assert_eq!(stops(&fleet.plan()), [forward]);
        assert_eq!(stops(&fleet.without(forward).plan()), Vec::<&str>::new());
    }
    let unneeded = world(&[("nyc", None)]).without("fra").plan();
    assert_eq!(stops(&unneeded), ["fra"], "a slip of the pen is no permission");
}

#[test]
fn forwards_tell_where_the_world_reaches_a_server() {
    let public = |plan: &Plan, server: &str| {
        plan.members.iter().find(|one| one.row.name == name(server)).unwrap().row.public_address.clone()
    };
    let by_name =
        world(&[("nyc", Some(departed(5, "fra@203.0.113.9:443"))), ("fra", Some(report(Residence::Running, 5)))]);
    assert_eq!(public(&by_name.plan(), "fra"), "203.0.113.9");
    assert_eq!(public(&by_name.plan(), "nyc"), "nyc", "of nobody who forwards there the agent's own");
    let by_home = world(&[("nyc", Some(departed(5, "203.0.113.9:80"))), ("fra", Some(report(Residence::Running, 5)))]);
    assert_eq!((stops(&by_home.plan()), public(&by_home.plan(), "fra")), (vec![], "203.0.113.9".to_owned()));
    let mut said = by_home.clone();
    said.said.agents[1].public = Some("198.51.100.1".into());
    assert_eq!(public(&said.plan(), "fra"), "198.51.100.1", "what a person says counts");
    let two = world(&[
        ("nyc", Some(departed(5, "fra@203.0.113.9:443"))),
        ("fra", Some(report(Residence::Running, 5))),
        ("ams", Some(departed(5, "fra@203.0.113.10:443"))),
    ]);
    assert_eq!(stops(&two.plan()), ["fra"]);
}

#[test]
fn whoever_does_not_answer_stops_it_and_stays_a_member_if_a_person_goes_on() {
    let fleet = world(&[("nyc", Some(report(Residence::Running, 5))), ("fra", None)]).silent("fra");
    assert_eq!(stops(&fleet.plan()), ["fra"]);
    let plan = fleet.without("fra").plan();
    assert_eq!(stops(&plan), Vec::<&str>::new());
    let fra = plan.members.iter().find(|one| one.row.name == name("fra")).unwrap();
    assert!(plan.findings.iter().all(|one| !one.message.contains("was revoked")), "{plan:#?}");
    assert!(plan.findings.iter().any(|one| one.about == "fra" && one.message.contains("as its certificate does")));
    assert!(!fra.heard && fra.row.joined == now() - AGENT_LIFE, "every certificate that holds is good");
    let nobody = world(&[("fra", None)]).silent("fra").without("fra");
    assert_eq!(stops(&nobody.plan()), ["servers"], "an empty store is no rebuilt one");
    // Somebody else answers at its address.
    let mut other = world(&[("nyc", None), ("ams", None)]);
    other.heard("nyc").0.server = name("fra");
    assert_eq!(stops(&other.plan()), ["nyc"]);
}

#[test]
fn whoever_was_taken_out_counts_for_nothing_but_its_numbers() {
    let mut fleet =
        world(&[("nyc", Some(report(Residence::Running, 5))), ("fra", Some(report(Residence::Running, 8)))]);
    let issued = (now() + Duration::hours(20) - AGENT_LIFE).unix_timestamp();
    let line = |valid_from_last| Revocation { principal: Principal::agent("fra"), valid_from_last };
    fleet.heard("nyc").1.refused = [line(issued)].into_iter().collect();
    assert_eq!(stops(&fleet.plan()), ["fra"]);
    let plan = fleet.clone().without("fra").plan();
    assert_eq!(only(&plan), (TenantState::Active, "nyc", 8, true));
    assert_eq!((plan.members.len(), plan.refused.lines()), (1, vec![line(issued)]));
    // Silent, it cannot show which certificate it has.
    let silent = fleet.clone().silent("fra").plan();
    assert!(stops(&silent) == ["fra"] && silent.findings[0].message.contains("was revoked"), "{silent:#?}");
    assert!(silent.findings[0].message.contains("leave it out of --agent"), "{silent:#?}");
    // It joined anew since.
    fleet.heard("nyc").1.refused = [line(issued - 3_600)].into_iter().collect();
    assert_eq!(stops(&fleet.plan()), ["alice"], "then it is one of two");
}

#[test]
fn the_ingress_is_the_only_server_that_can_be_it() {
    let moved = [("nyc", Some(departed(5, "fra:80"))), ("fra", Some(report(Residence::Running, 5))), ("ams", None)];
    let told = |plan: &Plan| plan.findings.iter().find(|one| one.about == "ingress").map(|one| one.message.clone());
    let led = |plan: &Plan| {
        let former: Vec<_> = plan.former.iter().map(ToString::to_string).collect();
        (plan.ingress.as_ref().map(ToString::to_string), former.join(","))
    };
    let one = |name: &str| Some(name.to_owned());
    // For fra nobody lives elsewhere: nyc may be a former one.
    let fleet = world(&moved);
    let plan = fleet.plan();
    assert_eq!(led(&plan), (None, "nyc".into()));
    assert!(told(&plan).is_some_and(|told| told.contains("it may be fra or nyc")), "{plan:#?}");
    for (server, former) in [("fra", "nyc"), ("nyc", ""), ("ams", "nyc")] {
        let mut said = fleet.clone();
        said.said.ingress = Some(name(server));
        assert_eq!((led(&said.plan()), told(&said.plan())), ((one(server), former.into()), None));
    }
    // Somebody lives away from it whom fra does not forward.
    let mut two = fleet.clone();
    let bob = TenantReport { tenant: "bob".parse().unwrap(), ..report(Residence::Running, 2) };
    two.heard("nyc").0.tenants.push(bob.clone());
    assert_eq!((led(&two.plan()), told(&two.plan())), ((one("nyc"), String::new()), None));
    let silent = two.clone().silent("ams").without("ams").plan();
    assert_eq!(led(&silent), (None, "nyc".into()), "nyc may be a former one, and ams the ingress");
    assert!(told(&silent).is_some_and(|told| told.contains("it may be ams or nyc")), "{silent:#?}");
    // Only who does not answer is left.
    two.heard("nyc").0.tenants.remove(0);
    let silent = two.silent("ams").without("ams").plan();
    assert_eq!(led(&silent), (one("ams"), String::new()));
    assert!(told(&silent).is_some_and(|told| told.contains("only ams, which does not answer")), "{silent:#?}");
    // It holds everybody, and the other one would forward her.
    let all = world(&[("nyc", Some(report(Residence::Running, 5))), ("fra", None)]).plan();
    assert_eq!((led(&all), told(&all)), ((one("nyc"), String::new()), None));
}

#[test]
fn the_lead_is_learned_and_whoever_does_not_tell_whom_it_refuses_is_named() {
    let mut fleet = world(&[("nyc", None), ("fra", None)]);
    fleet.heard("nyc").1.lead = 41;
    fleet.heard("fra").1.lead = 42;
    assert_eq!(fleet.plan().lead, 42);
    let old = Answer::Heard(Box::new(ServerSnapshot::empty(name("nyc"))), None);
    let mut fleet = world(&[("nyc", None)]);
    fleet.answers.insert(name("nyc"), old);
    assert!(
        fleet.plan().findings.iter().any(|one| one.message.contains("does not tell whose certificates it refuses"))
    );
}

fn any_report() -> impl Strategy<Value = Option<TenantReport>> {
    let residence = prop_oneof![
        Just(Residence::Absent),
        Just(Residence::Running),
        Just(Residence::Stopped),
        Just(Residence::Sealed),
        Just(Residence::Departed)
    ];
    let forward = prop_oneof![Just("nyc:80"), Just("fra:80"), Just("ams@ams:443"), Just("192.0.2.7:80")];
    let stage = proptest::option::of(prop_oneof![Just(IncomingStage::Reserved), Just(IncomingStage::Trial)]);
    let one =
        (residence, 1u64..6, proptest::option::of(forward), stage).prop_map(|(residence, generation, to, stage)| {
            let away = residence == Residence::Departed;
            let arrives = matches!(residence, Residence::Departed | Residence::Absent);
            TenantReport {
                forward_to: to.filter(|_| away).map(ToOwned::to_owned),
                incoming: stage.filter(|_| arrives),
                ..report(residence, generation)
            }
        });
    proptest::option::of(one)
}

proptest! {
    #[test]
    fn whatever_servers_say_nobody_is_given_two_homes_or_a_number_that_was_used(
        nyc in any_report(), fra in any_report(), ams in any_report(), silent in any::<bool>(),
    ) {
        let reports = [nyc, fra, ams];
        let of: Vec<_> = ["nyc", "fra", "ams"].into_iter().zip(reports.clone()).collect();
        let fleet = world(&of);
        let fleet = if silent { fleet.silent("ams").without("ams") } else { fleet };
        let plan = fleet.plan();
        let heard: Vec<_> = of.iter().filter(|(server, _)| !silent || *server != "ams").collect();
        let living: Vec<_> = heard.iter().filter(|(_, report)| {
            report.as_ref().is_some_and(|report| matches!(report.residence, Residence::Running | Residence::Stopped))
        }).map(|(server, _)| *server).collect();
        prop_assert!(plan.tenants.len() <= 1);
        if living.len() > 1 {
            prop_assert!(plan.stops().any(|finding| finding.about == "alice"));
        }
        let reports: Vec<&TenantReport> = heard.iter().filter_map(|(_, report)| report.as_ref()).collect();
        let sealed = reports.iter().any(|report| report.residence == Residence::Sealed);
        prop_assert!(!(silent && sealed && living.is_empty()) || plan.tenants.is_empty(), "ams may have taken over");
        for row in &plan.tenants {
            let home = row.server.as_ref().unwrap();
            prop_assert!(reports.iter().all(|seen| seen.generation <= row.generation));
            prop_assert!(row.generation < row.generation_issued);
            let Some((_, report)) = heard.iter().find(|(server, _)| *server == home.as_str()) else {
                let led = reports.iter().any(|report| report.forward_to.as_deref() == Some("ams@ams:443"));
                prop_assert!(silent && led && living.is_empty() && home.as_str() == "ams", "somebody forwards there");
                prop_assert!(row.running && row.state == TenantState::Active);
                continue;
            };
            let report = report.as_ref().expect("a home that knows her");
            prop_assert_eq!(row.running && row.state == TenantState::Active, report.residence == Residence::Running);
            if row.state == TenantState::Active {
                prop_assert!(living.is_empty() || living == [home.as_str()]);
            } else {
                prop_assert!(living.is_empty() && report.residence == Residence::Absent);
            }
        }
        for half in &plan.halves {
            let row = plan.tenants.iter().find(|row| row.state == TenantState::Active).expect("the original is known");
            prop_assert!(row.server.as_ref() != Some(&half.server), "the original is elsewhere");
            let (_, report) = heard.iter().find(|(server, _)| *server == half.server.as_str()).unwrap();
            prop_assert!(report.as_ref().unwrap().incoming.is_some());
        }
        prop_assert_eq!(fleet.plan(), plan, "the same is decided from the same");
    }
}
