//! The promise, in one test: whatever fails on the way, no request is refused, nothing is lost, and never do two copies run.
//! More of it: `make soak MOVES=... SEED=...`.

use feather_tests::real::{damage::Damage, soak};

const MOVES: usize = 30;
const LED_MOVES: usize = 9;
const SEED: u64 = 20_261_125;

#[tokio::test(flavor = "multi_thread")]
async fn thirty_moves_under_load_twenty_with_a_fault_keep_every_promise() {
    let course = soak::Course { moves: MOVES, seed: SEED, faults: &Damage::ALL, two_controllers: false };
    let report = soak::run(course, |line| println!("{line}")).await;
    println!("{report:#?}");
    assert!(report.is_clean(), "seed {SEED}: {report:#?}");
    assert_eq!((report.moves, report.faults), (MOVES, 20));
    assert!(report.requests > 1000, "there was no load: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_two_controllers_is_killed_during_moves_and_every_promise_is_kept() {
    let faults = &[Damage::ControllerKilled];
    let course = soak::Course { moves: LED_MOVES, seed: SEED, faults, two_controllers: true };
    let report = soak::run(course, |line| println!("{line}")).await;
    println!("{report:#?}");
    assert!(report.is_clean(), "seed {SEED}: {report:#?}");
    assert_eq!((report.moves, report.faults), (LED_MOVES, 6));
    assert!(report.requests > 1000, "there was no load: {report:?}");
}
