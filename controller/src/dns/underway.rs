//! Whether a zone that is not as wanted is only on its way there. Pure.
//!
//! Each change has a time within which it is expected: until a provider has shown what a call did, and until the reconciler has made the
//! call at all. Within that nobody has anything to do.

use std::collections::{BTreeMap, BTreeSet};

/// How far the reconciler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconciler {
    /// A person changes the zone.
    Absent,
    /// It looks at the zone, since that moment, in milliseconds since 1970; the look before ended well, or there was none.
    Looking(i64),
    /// It has nothing to do, or could not do it.
    Resting,
}

/// What is under way at the provider, as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing.
    Nothing,
    /// A call that was made once, at that moment, in milliseconds since 1970.
    Once(i64),
    /// One that had to be made again.
    Again,
}

/// Is everything that is not as wanted expected to be so by itself, and soon? `late`: hosts that are not as wanted; `since`: when the fleet
/// changed each last.
pub fn is_on_its_way(
    late: &BTreeSet<String>,
    since: &BTreeMap<String, i64>,
    sent: Sent,
    reconciler: Reconciler,
    (now_ms, patience_ms): (i64, i64),
) -> bool {
    // A clock that was set back makes nothing fresh.
    let fresh = |at_ms: i64| (0..patience_ms).contains(&now_ms.saturating_sub(at_ms));
    match (reconciler, sent) {
        (Reconciler::Absent, _) | (_, Sent::Again) => false,
        (_, Sent::Once(at_ms)) => fresh(at_ms),
        (Reconciler::Looking(at_ms), Sent::Nothing) if fresh(at_ms) => true,
        (_, Sent::Nothing) => !late.is_empty() && late.iter().all(|host| since.get(host).is_some_and(|at| fresh(*at))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Reconciler, Sent, is_on_its_way};

    #[test]
    fn a_change_is_expected_for_so_long_and_then_needs_a_look() {
        let late = |hosts: &[&str]| hosts.iter().map(ToString::to_string).collect();
        let since = [("alice.users".to_owned(), 1_000), ("bob.users".to_owned(), 90)].into();
        let judged = |hosts: &[&str], sent, reconciler, now_ms| {
            is_on_its_way(&late(hosts), &since, sent, reconciler, (now_ms, 200))
        };
        let (looking, resting, absent) = (Reconciler::Looking, Reconciler::Resting, Reconciler::Absent);
        let cases = [
            // The move has just been made: the reconciler is at it.
            (&["carol.users"][..], Sent::Nothing, looking(1_000), 1_001, true),
            (&["carol.users"], Sent::Nothing, looking(1_000), 1_200, false),
            // The provider took it and does not show it yet.
            (&["alice.users"], Sent::Once(1_000), resting, 1_199, true),
            (&["alice.users"], Sent::Once(1_000), resting, 1_200, false),
            (&["alice.users"], Sent::Again, looking(1_100), 1_101, false),
            // It showed it, and shows what was there before once more.
            (&["alice.users"], Sent::Nothing, resting, 1_100, true),
            (&["alice.users", "bob.users"], Sent::Nothing, resting, 1_100, false),
            (&["carol.users"], Sent::Nothing, resting, 1_100, false),
            (&[], Sent::Nothing, resting, 1_100, false),
            // Whoever changes a zone by hand is told at once; and what is said to come was never changed.
            (&["alice.users"], Sent::Nothing, absent, 1_001, false),
            (&["alice.users"], Sent::Once(2_000), resting, 1_100, false),
        ];
        for (hosts, sent, reconciler, now_ms, wanted) in cases {
            assert_eq!(judged(hosts, sent, reconciler, now_ms), wanted, "{hosts:?} {sent:?} {reconciler:?} {now_ms}");
        }
    }
}
