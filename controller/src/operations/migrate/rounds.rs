//! When copying a tenant that runs has done what it can.
//!
//! A pure function of the rounds so far. Each round carries what has changed since the one before, so a round is about as long as
//! the last pass would be, behind the stop: that is the outage to expect.

use serde::{Deserialize, Serialize};

/// Rounds at most. Who writes faster than that is copied has to be stopped some time.
const ROUNDS_MAX: usize = 8;
/// A last pass of this length is no longer worth a round of its own.
const SHORT_MS: u64 = 1000;

/// One pass while the tenant ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Files that were sent or got other metadata.
    pub files: u64,
    /// Bytes in them.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// One more round.
    Again,
    /// Stop the tenant, for this reason.
    Enough(&'static str),
}

/// What to do after these rounds.
pub(super) fn next(rounds: &[Round]) -> Next {
    match rounds {
        [.., last] if last.duration_ms < SHORT_MS => Next::Enough("the last round was short"),
        _ if rounds.len() >= ROUNDS_MAX => Next::Enough("that is the limit"),
        // Less than a fifth shorter than the one before.
        [.., before, last] if last.duration_ms.saturating_mul(5) > before.duration_ms.saturating_mul(4) => {
            Next::Enough("rounds no longer get shorter")
        }
        _ => Next::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::{Next, ROUNDS_MAX, Round, next};

    fn after(durations_ms: &[u64]) -> Next {
        let rounds: Vec<_> =
            durations_ms.iter().map(|ms| Round { files: 1, bytes: 1, wire_bytes: 1, duration_ms: *ms }).collect();
        next(&rounds)
    }

    #[test]
    fn rounds_go_on_while_they_get_shorter_and_are_not_short() {
        for durations in [&[][..], &[60_000], &[60_000, 8000], &[60_000, 8000, 4000], &[1000]] {
            assert_eq!(after(durations), Next::Again, "{durations:?}");
        }
    }

    #[test]
    fn rounds_end_for_a_reason() {
        let cases: [(&[u64], &str); 5] = [
            (&[999], "the last round was short"),
            (&[60_000, 300], "the last round was short"),
            (&[60_000, 55_000], "rounds no longer get shorter"),
            (&[8000, 9000], "rounds no longer get shorter"),
            (&[60_000, 8000, 8000], "rounds no longer get shorter"),
        ];
        for (durations, reason) in cases {
            assert_eq!(after(durations), Next::Enough(reason), "{durations:?}");
        }
        let halving: Vec<_> = (0..ROUNDS_MAX as u32).map(|round| 1_000_000 >> round).collect();
        assert_eq!(after(&halving), Next::Enough("that is the limit"));
    }
}
