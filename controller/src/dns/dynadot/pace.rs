//! When the next request may go: one at a time, a gap between two, and pauses that grow while the provider is busy.
//!
//! The limits of the provider count per account. A gate is therefore shared by all that one controller does there; that there is
//! one controller at a time is seen to by the record engine's lease.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the end of one request to the beginning of the next, at least.
    pub gap: Duration,
    /// The first pause after the provider was busy or not to be reached. It doubles from one failure to the next.
    pub pause_min: Duration,
    /// The longest pause: when it is reached, one request in this time looks whether the provider is back.
    pub pause_max: Duration,
}

impl Default for Pace {
    /// What an account without a turnover may do: one request a second, of which we leave a tenth.
    fn default() -> Self {
        Self {
            gap: Duration::from_millis(1100),
            pause_min: Duration::from_secs(60),
            pause_max: Duration::from_secs(15 * 60),
        }
    }
}

impl Pace {
    /// As fast as it goes, for a provider that is no stranger's.
    pub const UNBOUNDED: Self = Self { gap: Duration::ZERO, pause_min: Duration::ZERO, pause_max: Duration::ZERO };
}

/// The pause after this many failures in a row (from 1). `chance` from 0 to 1 lengthens it by up to a fifth.
fn pause(pace: &Pace, failures: u32, chance: f64) -> Duration {
    let doubled = pace.pause_min.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(pace.pause_max).mul_f64(1.0 + chance / 5.0).min(pace.pause_max.max(pace.pause_min))
}

/// Lets one request through at a time.
#[derive(Debug)]
pub(super) struct Gate {
    pace: Pace,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Of the last request.
    ended: Option<Instant>,
    /// In a row.
    failures: u32,
    closed_until: Option<Instant>,
    random: StdRng,
}

/// The right to send one request.
#[derive(Debug)]
pub(super) struct Turn {
    pace: Pace,
    state: OwnedMutexGuard<State>,
}

impl Gate {
    /// The seed is that of the pauses' lengths.
    pub(super) fn new(pace: Pace, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { pace, state: Arc::new(Mutex::new(State { ended: None, failures: 0, closed_until: None, random })) }
    }

    /// Waits for its turn. While the provider is left alone: the rest of the pause instead.
    pub(super) async fn turn(&self) -> Result<Turn, Duration> {
        let state = self.state.clone().lock_owned().await;
        let now = Instant::now();
        if let Some(rest) = state.closed_until.and_then(|until| until.checked_duration_since(now))
            && !rest.is_zero()
        {
            return Err(rest);
        }
        if let Some(ended) = state.ended {
            tokio::time::sleep_until(ended + self.pace.gap).await;
        }
        Ok(Turn { pace: self.pace, state })
    }
}

impl Turn {
    /// The provider answered, whatever it said.
    pub(super) fn answered(mut self) {
        self.state.ended = Some(Instant::now());
        self.state.failures = 0;
        self.state.closed_until = None;
    }

    /// The provider is busy or not to be reached. Returns the pause that begins.
    pub(super) fn busy(mut self) -> Duration {
        let now = Instant::now();
        let chance = self.state.random.random::<f64>();
        self.state.failures = self.state.failures.saturating_add(1);
        let pause = pause(&self.pace, self.state.failures, chance);
        self.state.ended = Some(now);
        self.state.closed_until = Some(now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Gate, Pace, pause};

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour() {
        let pace = Pace::default();
        let pauses: Vec<_> = (1..=6).map(|failures| pause(&pace, failures, 0.0).as_secs()).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 900, 900]);
        assert_eq!(pause(&pace, 1, 1.0).as_secs(), 72);
        assert_eq!(pause(&pace, u32::MAX, 1.0).as_secs(), 900);
        assert_eq!(pause(&Pace::UNBOUNDED, 9, 1.0), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_distance() {
        let gate = Gate::new(Pace::default(), 1);
        let began = Instant::now();
        for turn in 0..3 {
            let held = gate.turn().await.unwrap();
            assert_eq!(began.elapsed(), Duration::from_millis(1100 * turn));
            held.answered();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_during_a_pause_and_an_answer_ends_it() {
        let gate = Gate::new(Pace::default(), 1);
        let first = gate.turn().await.unwrap().busy();
        assert!((60..=72).contains(&first.as_secs()), "{first:?}");
        assert_eq!(gate.turn().await.unwrap_err(), first);
        tokio::time::advance(first).await;
        let second = gate.turn().await.unwrap().busy();
        assert!((120..=144).contains(&second.as_secs()), "{second:?}");
        tokio::time::advance(second).await;
        gate.turn().await.unwrap().answered();
        assert!(gate.turn().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_request_waits_for_the_end_of_the_first() {
        let gate = Gate::new(Pace::UNBOUNDED, 1);
        let first = gate.turn().await.unwrap();
        let mut second = std::pin::pin!(gate.turn());
        assert!(futures::poll!(&mut second).is_pending());
        first.answered();
        second.await.unwrap().answered();
    }
}
