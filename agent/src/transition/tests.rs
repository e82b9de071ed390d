//! The tables: every call in every state, and what becomes of the record.

use feather_proto::{
    error::{Code, Error, reason},
    ids::{Generation, TenantName},
    model::{Image, IncomingStage, RootDigest, StopReason, VolumeExpectation, VolumeSummary},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Abandon, AddFacts, AddRequest, Next, ReserveFacts, ReserveRequest, admit_abandon, admit_activate, admit_add,
    admit_grant, admit_hand_off, admit_import, admit_pull, admit_remove, admit_remove_volume, admit_reserve,
    admit_reset, admit_restart, admit_retire, admit_send, admit_start, admit_stop, admit_trial, received,
};
use crate::{
    ledger::{Desired, Incoming, Provisioning, Record, Residence, Spec, Volume},
    password::Password,
};

const G: Generation = Generation(5);
const NEXT: Generation = Generation(6);
const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn alice() -> TenantName {
    "alice".parse().unwrap()
}

fn spec() -> Spec {
    Spec {
        placed: G,
        port: 9001,
        password: Password::received("secret".into()).unwrap(),
        image: "work".into(),
        image_digest: "sha256:aa".into(),
        created: NOW,
        found_data: false,
        adopted: None,
        limits: Default::default(),
    }
}

fn record(residence: Residence) -> Record {
    let mut record = Record::floor(alice(), G);
    let here = matches!(residence, Residence::Active { .. } | Residence::Sealed);
    record.residence = residence;
    record.spec = here.then(spec);
    record.volume = Volume::whole(G, None);
    record
}

fn coming(stage: IncomingStage) -> Record {
    let mut record = record(Residence::Absent);
    record.volume = match stage {
        IncomingStage::Reserved => Volume::None,
        _ => Volume::whole(G, None),
    };
    let spec = (stage != IncomingStage::Reserved).then(spec);
    record.incoming = Some(Incoming { generation: G, port: 9002, image_digest: "sha256:aa".into(), stage, spec });
    record
}

/// Every state with its name.
fn states() -> Vec<(&'static str, Record)> {
    let active = |desired| record(Residence::Active { desired, provisioning: None });
    let provisioning = Some(Provisioning { volume_is_new: true });
    vec![
        ("absent", record(Residence::Absent)),
        ("adding", record(Residence::Active { desired: Desired::Run, provisioning })),
        ("running", active(Desired::Run)),
        ("stopped", active(Desired::Stop)),
        ("sealed", record(Residence::Sealed)),
        ("departed", record(Residence::Departed { forward_to: Some("fra:80".into()) })),
        ("reserved", coming(IncomingStage::Reserved)),
        ("received", coming(IncomingStage::Received)),
        ("trial", coming(IncomingStage::Trial)),
    ]
}

fn add_at(generation: Generation) -> AddRequest {
    let limits = Default::default();
    AddRequest { tenant: alice(), generation, image: "work".into(), volume: VolumeExpectation::Any, limits }
}

fn add_facts() -> AddFacts {
    AddFacts {
        image: Some(Image { reference: "work".into(), digest: "sha256:aa".into(), size_bytes: 1 }),
        port: Some(9003),
        volume_exists: true,
        password: Password::generate(10).unwrap(),
        now: NOW,
    }
}

fn reserve_at(generation: Generation) -> ReserveRequest {
    ReserveRequest { tenant: alice(), generation, image_digest: "sha256:aa".into(), volume_bytes: 100 }
}

const RESERVE_FACTS: ReserveFacts =
    ReserveFacts { image_exists: true, port: Some(9003), disk_free_bytes: 110, volume_exists: false };

/// What a decision comes to, in a word.
fn word<T>(decision: Result<T, Error>, name: impl FnOnce(T) -> &'static str) -> String {
    match decision {
        Ok(decided) => name(decided).to_owned(),
        Err(error) => error.reason,
    }
}

fn next(next: Next) -> &'static str {
    match next {
        Next::Unchanged(_) => "unchanged",
        Next::Write(_) => "write",
    }
}

type Call = fn(&Record, Generation) -> String;

const WRONG: &str = reason::WRONG_STATE;
const STALE: &str = reason::STALE_GENERATION;
const EXISTS: &str = reason::TENANT_EXISTS;
const MISSING: &str = reason::DATA_MISSING;

/// A call, how it is decided, and what is wanted: columns as in [`states`], first at the record's own generation, then at
/// the next.
type Row = (&'static str, Call, [[&'static str; 9]; 2]);

fn table() -> Vec<Row> {
    [living(), moving(), data()].concat()
}

fn living() -> Vec<Row> {
    vec![
        (
            "add",
            |record, at| word(admit_add(Some(record), &add_at(at), &add_facts()), next),
            [
                [STALE, "unchanged", "unchanged", "unchanged", EXISTS, WRONG, WRONG, WRONG, WRONG],
                ["write", EXISTS, EXISTS, EXISTS, EXISTS, WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "remove",
            |record, at| word(admit_remove(Some(record), &alice(), at, false), next),
            [
                ["unchanged", "write", "write", "write", "write", "write", WRONG, WRONG, WRONG],
                ["write", "write", "write", "write", "write", "write", WRONG, WRONG, WRONG],
            ],
        ),
        (
            "start",
            |record, at| word(admit_start(Some(record), &alice(), at), next),
            [
                [WRONG, "unchanged", "unchanged", "write", STALE, WRONG, WRONG, WRONG, WRONG],
                [WRONG, "write", "write", "write", "write", WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "stop",
            |record, at| word(admit_stop(Some(record), &alice(), at, StopReason::Operator), next),
            [
                [WRONG, "write", "write", "unchanged", STALE, WRONG, WRONG, WRONG, WRONG],
                [WRONG, "write", "write", "write", "write", WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "seal",
            |record, at| word(admit_stop(Some(record), &alice(), at, StopReason::Move), next),
            [
                [WRONG, WRONG, "write", "write", "unchanged", WRONG, WRONG, WRONG, WRONG],
                [WRONG, WRONG, "write", "write", "write", WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "restart",
            |record, at| word(admit_restart(Some(record), &alice(), at), next),
            [[WRONG, WRONG, "write", "write", WRONG, WRONG, WRONG, WRONG, WRONG]; 2],
        ),
        (
            "reset",
            |record, at| {
                word(admit_reset(Some(record), &alice(), at, Uuid::nil(), &Password::generate(10).unwrap()), next)
            },
            [[WRONG, "write", "write", "write", WRONG, WRONG, WRONG, WRONG, WRONG]; 2],
        ),
    ]
}

fn moving() -> Vec<Row> {
    vec![
        (
            "reserve",
            |record, at| word(admit_reserve(Some(record), &reserve_at(at), &RESERVE_FACTS), next),
            [
                [STALE, WRONG, WRONG, WRONG, WRONG, STALE, "unchanged", "unchanged", "unchanged"],
                ["write", WRONG, WRONG, WRONG, WRONG, "write", WRONG, WRONG, WRONG],
            ],
        ),
        (
            "pull",
            |record, at| word(admit_pull(Some(record), &alice(), at), |_| "write"),
            [[WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, "write", "write", WRONG], [WRONG; 9]],
        ),
        (
            "trial",
            |record, at| word(admit_trial(Some(record), &alice(), at), next),
            [[WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, MISSING, "write", "unchanged"], [WRONG; 9]],
        ),
        (
            "abandon",
            |record, at| {
                word(admit_abandon(Some(record), &alice(), at), |abandon| match abandon {
                    Abandon::Nothing => "nothing",
                    Abandon::Floor(_) => "floor",
                    Abandon::GiveBack { .. } => "give back",
                })
            },
            [
                ["nothing", WRONG, WRONG, WRONG, WRONG, "nothing", "give back", "give back", "give back"],
                ["floor", "nothing", "nothing", "nothing", "nothing", "floor", WRONG, WRONG, WRONG],
            ],
        ),
        (
            "activate",
            |record, at| word(admit_activate(Some(record), &alice(), at, Desired::Run), next),
            [[WRONG, "unchanged", "unchanged", "unchanged", WRONG, WRONG, WRONG, "write", "write"], [WRONG; 9]],
        ),
        (
            "hand off",
            |record, at| word(admit_hand_off(Some(record), &alice(), at, Some("fra:80".into())), next),
            [
                ["unchanged", WRONG, WRONG, WRONG, WRONG, "unchanged", WRONG, WRONG, WRONG],
                ["write", WRONG, WRONG, WRONG, "write", "write", WRONG, WRONG, WRONG],
            ],
        ),
        (
            "retire",
            |record, at| word(admit_retire(Some(record), &alice(), at, NOW), next),
            [
                ["write", WRONG, WRONG, WRONG, WRONG, "write", WRONG, WRONG, WRONG],
                ["write", WRONG, WRONG, WRONG, WRONG, "write", WRONG, WRONG, WRONG],
            ],
        ),
    ]
}

fn data() -> Vec<Row> {
    vec![
        (
            "grant",
            |record, at| word(admit_grant(Some(record), &alice(), at), |()| "granted"),
            [
                [WRONG, WRONG, STALE, STALE, STALE, WRONG, WRONG, WRONG, WRONG],
                [WRONG, WRONG, "granted", "granted", "granted", WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "send a live pass",
            |record, at| word(admit_send(Some(record), &alice(), at, false), |()| "sent"),
            [
                [WRONG, WRONG, STALE, STALE, STALE, WRONG, WRONG, WRONG, WRONG],
                [WRONG, WRONG, "sent", "sent", "sent", WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "send for good",
            |record, at| word(admit_send(Some(record), &alice(), at, true), |()| "sent"),
            [
                [WRONG, WRONG, STALE, STALE, STALE, WRONG, WRONG, WRONG, WRONG],
                [WRONG, WRONG, WRONG, WRONG, "sent", WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "import",
            |record, at| word(admit_import(Some(record), &alice(), at, true), |_| "write"),
            [
                ["write", WRONG, WRONG, "write", WRONG, WRONG, WRONG, WRONG, WRONG],
                ["write", WRONG, WRONG, "write", WRONG, WRONG, WRONG, WRONG, WRONG],
            ],
        ),
        (
            "remove volume",
            |record, at| word(admit_remove_volume(Some(record), &alice(), at), |_| "write"),
            [
                ["write", WRONG, WRONG, WRONG, WRONG, "write", WRONG, WRONG, WRONG],
                ["write", WRONG, WRONG, WRONG, WRONG, "write", WRONG, WRONG, WRONG],
            ],
        ),
    ]
}

#[test]
fn every_call_in_every_state() {
    for (call, decide, wanted) in table() {
        for (row, generation) in [G, NEXT].into_iter().enumerate() {
            for (column, (state, record)) in states().iter().enumerate() {
                let decided = decide(record, generation);
                assert_eq!(decided, wanted[row][column], "{call} at {generation} when {state}");
            }
        }
        for (state, record) in states() {
            assert_eq!(decide(&record, Generation(4)), STALE, "{call} of an older generation when {state}");
            let zero = decide(&record, Generation(0));
            let unplaced = call == "import" && record.residence == Residence::Absent;
            assert!(unplaced || zero == reason::INVALID_FIELD, "{call} at 0 when {state}: {zero}");
        }
    }
}

#[test]
fn no_decision_lowers_the_floor_or_loses_a_password() {
    for (state, record) in states() {
        let decisions = [
            admit_add(Some(&record), &add_at(NEXT), &add_facts()),
            admit_remove(Some(&record), &alice(), NEXT, false),
            admit_start(Some(&record), &alice(), NEXT),
            admit_stop(Some(&record), &alice(), NEXT, StopReason::Move),
            admit_stop(Some(&record), &alice(), NEXT, StopReason::Operator),
            admit_activate(Some(&record), &alice(), G, Desired::Run),
            admit_hand_off(Some(&record), &alice(), NEXT, None),
            admit_retire(Some(&record), &alice(), NEXT, NOW),
        ];
        for decision in decisions.into_iter().flatten() {
            let (Next::Unchanged(after) | Next::Write(after)) = decision;
            assert!(after.generation >= record.generation, "{state}");
            let here = matches!(after.residence, Residence::Active { .. } | Residence::Sealed);
            assert_eq!(after.spec.is_some(), here, "{state}: a spec exactly while it lives here");
        }
    }
}

#[test]
fn an_add_needs_image_port_and_the_data_that_it_expects() {
    let refused =
        |record: Option<&Record>, add: &AddRequest, facts: &AddFacts| word(admit_add(record, add, facts), next);
    let gone = record(Residence::Absent);
    let fresh = AddFacts { volume_exists: false, ..add_facts() };
    let kept = AddRequest { volume: VolumeExpectation::Kept, ..add_at(NEXT) };
    assert_eq!(refused(None, &add_at(NEXT), &AddFacts { image: None, ..fresh.clone() }), reason::IMAGE_MISSING);
    assert_eq!(refused(None, &add_at(NEXT), &AddFacts { port: None, ..fresh.clone() }), reason::NO_PORT);
    assert_eq!(refused(None, &kept, &fresh), MISSING);
    assert_eq!(refused(None, &kept, &add_facts()), MISSING);
    assert_eq!(refused(Some(&gone), &add_at(NEXT), &fresh), MISSING);
    assert_eq!(refused(Some(&gone), &kept, &add_facts()), "write");
    let broken = Record { volume: Volume::Incomplete { generation: G }, ..gone };
    assert_eq!(refused(Some(&broken), &add_at(NEXT), &add_facts()), reason::VOLUME_INCOMPLETE);
    assert_eq!(refused(None, &add_at(NEXT), &fresh), "write");
}

#[test]
fn a_reservation_wants_a_tenth_more_than_the_volume() {
    let tight = ReserveFacts { disk_free_bytes: 109, ..RESERVE_FACTS };
    let error = admit_reserve(None, &reserve_at(G), &tight).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Full, reason::NO_DISK));
    assert!(admit_reserve(None, &reserve_at(G), &RESERVE_FACTS).is_ok());
    let strange = ReserveFacts { volume_exists: true, ..RESERVE_FACTS };
    assert_eq!(admit_reserve(None, &reserve_at(G), &strange).unwrap_err().reason, reason::WRONG_STATE);
    let huge = ReserveRequest { volume_bytes: u64::MAX, ..reserve_at(G) };
    assert!(admit_reserve(None, &huge, &RESERVE_FACTS).is_err());
}

#[test]
fn what_is_received_takes_the_port_and_generation_of_its_reservation() {
    let reserved = coming(IncomingStage::Reserved);
    let marked = admit_pull(Some(&reserved), &alice(), G).unwrap();
    assert_eq!(marked.volume, Volume::Incomplete { generation: G });
    let summary = VolumeSummary {
        files: 1,
        directories: 1,
        entries: 2,
        bytes: 3,
        data_bytes: 3,
        skipped_sockets: 0,
        root_digest: RootDigest([7; 32]),
    };
    let done = received(&marked, Spec { placed: Generation(1), port: 0, ..spec() }, summary.clone()).unwrap();
    let incoming = done.incoming.clone().unwrap();
    let spec = incoming.spec.unwrap();
    assert_eq!((incoming.stage, spec.port, spec.placed), (IncomingStage::Received, 9002, G));
    assert_eq!(done.volume, Volume::whole(G, Some(summary.clone())));
    assert!(received(&reserved, spec, summary).is_err());
}

#[test]
fn a_tenant_that_nobody_heard_of_has_only_floors() {
    let floors = [admit_remove(None, &alice(), G, false), admit_hand_off(None, &alice(), G, None)];
    for decision in floors {
        assert_eq!(decision.unwrap(), Next::Write(Record::floor(alice(), G)));
    }
    assert_eq!(admit_abandon(None, &alice(), G).unwrap(), Abandon::Floor(Record::floor(alice(), G)));
    assert!(admit_start(None, &alice(), G).unwrap_err().is(reason::TENANT_NOT_FOUND));
    assert!(admit_retire(None, &alice(), G, NOW).unwrap_err().is(reason::TENANT_NOT_FOUND));
}
