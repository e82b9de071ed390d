//! The promise, in one test: whatever fails on the way, no request is refused, nothing is lost, and never do two copies run.
//! More of it: `make soak MOVES=... SEED=...`.

use feather_tests::real::soak;

const MOVES: usize = 30;
const SEED: u64 = 20_261_125;

#[tokio::test(flavor = "multi_thread")]
async fn thirty_moves_under_load_twenty_with_a_fault_keep_every_promise() {
    let report = soak::run(MOVES, SEED, |line| println!("{line}")).await;
    println!("{report:#?}");
    assert!(report.is_clean(), "seed {SEED}: {report:#?}");
    assert_eq!((report.moves, report.faults), (MOVES, 20));
    assert!(report.requests > 1000, "there was no load: {report:?}");
}
