//! How long to wait before a container that keeps ending is started again.
//!
//! Owns the doubling and the reset. Knows nothing of containers; the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Waiting for one container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    next: Duration,
    allowed_from: Instant,
}

impl Backoff {
    /// The first start is allowed at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: FIRST, allowed_from: now }
    }

    /// May it be started now? If so, the next time is further away.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        if now < self.allowed_from {
            return false;
        }
        // Whatever ran for as long as the longest wait has earned a fresh beginning.
        if now > self.allowed_from + LONGEST {
            self.next = FIRST;
        }
        self.allowed_from = now + self.next;
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Backoff;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_long_run() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(backoff.admit(now));
            let wait = Duration::from_secs(wait);
            assert!(!backoff.admit(now + wait - Duration::from_millis(1)));
            now += wait;
        }
        now += Duration::from_secs(200);
        assert!(backoff.admit(now));
        assert!(backoff.admit(now + Duration::from_secs(1)));
    }
}
