//! What is remembered of one container's health and of its restarts. Pure: answers and times are passed in.
//!
//! Owns when a container counts as unhealthy, as caught in a crash loop, and as recovered. Asks nobody and restarts nothing:
//! `watchdog.rs` asks, and the reconciler acts.

use std::{collections::VecDeque, time::Duration};

use feather_proto::model::WatchReport;
use time::OffsetDateTime;
use tokio::time::Instant;

/// So many restarts within the window are a crash loop. The window is long enough for a container that takes its whole time to
/// become healthy and never does.
const LOOP_RESTARTS: usize = 5;
const LOOP_WINDOW: Duration = Duration::from_secs(30 * 60);

/// When patience ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// So many failed checks in a row make a container unhealthy, and so many good ones in a row end a crash loop.
    pub(crate) checks: u32,
    /// Until its first good answer, a container has this long after its start.
    pub(crate) first_answer: Duration,
}

/// What is remembered of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    /// Checks of the same outcome in a row, since the last start.
    failed: u32,
    good: u32,
    /// A good answer since the last start.
    answered: bool,
    started: Option<Instant>,
    restarts: u64,
    last_restart: Option<OffsetDateTime>,
    recent: VecDeque<Instant>,
    looping: bool,
}

impl Watch {
    /// Of a container about which an agent before this one knew so much.
    pub(crate) fn remembered(restarts: u64, last_restart: Option<OffsetDateTime>) -> Self {
        Self { restarts, last_restart, ..Self::default() }
    }

    /// Its process begins a new life, whoever started it and why.
    pub(crate) fn started(&mut self, now: Instant) {
        (self.failed, self.good, self.answered, self.started) = (0, 0, false, Some(now));
    }

    /// It had to be started again. True when this makes it a crash loop.
    pub(crate) fn restarted(&mut self, now: Instant, at: OffsetDateTime) -> bool {
        self.started(now);
        self.restarts += 1;
        self.last_restart = Some(at);
        self.recent.push_back(now);
        self.recent.retain(|restart| now.duration_since(*restart) <= LOOP_WINDOW);
        let begins = !self.looping && self.recent.len() >= LOOP_RESTARTS;
        self.looping |= begins;
        begins
    }

    /// The outcome of a check. True when it has recovered from a crash loop by this.
    pub(crate) fn checked(&mut self, healthy: bool, patience: Patience) -> bool {
        if !healthy {
            self.good = 0;
            self.failed = self.failed.saturating_add(1);
            return false;
        }
        self.failed = 0;
        self.good = self.good.saturating_add(1);
        self.answered = true;
        let recovers = self.looping && self.good >= patience.checks;
        if recovers {
            self.looping = false;
            self.recent.clear();
        }
        recovers
    }

    /// It runs, and should be started again.
    pub(crate) fn is_unhealthy(&self, now: Instant, patience: Patience) -> bool {
        let had_its_time = self.started.is_none_or(|started| now.duration_since(started) >= patience.first_answer);
        self.failed >= patience.checks && (self.answered || had_its_time)
    }

    /// For people.
    pub(crate) fn report(&self) -> WatchReport {
        WatchReport { restarts: self.restarts, last_restart: self.last_restart, crash_loop: self.looping }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;
    use tokio::time::Instant;

    use super::{Patience, Watch};

    const PATIENCE: Patience = Patience { checks: 3, first_answer: Duration::from_secs(120) };
    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn failed(watch: &mut Watch, times: u32) {
        (0..times).for_each(|_| assert!(!watch.checked(false, PATIENCE)));
    }

    #[test]
    fn only_failures_in_a_row_make_it_unhealthy() {
        let now = Instant::now();
        let mut watch = Watch::default();
        watch.started(now);
        watch.checked(true, PATIENCE);
        failed(&mut watch, 2);
        assert!(!watch.is_unhealthy(now, PATIENCE));
        watch.checked(true, PATIENCE);
        failed(&mut watch, 2);
        assert!(!watch.is_unhealthy(now, PATIENCE));
        failed(&mut watch, 1);
        assert!(watch.is_unhealthy(now, PATIENCE));
        watch.started(now);
        assert!(!watch.is_unhealthy(now, PATIENCE), "a new life");
    }

    #[test]
    fn a_container_has_its_time_to_the_first_answer() {
        let now = Instant::now();
        let mut watch = Watch::default();
        watch.started(now);
        failed(&mut watch, 9);
        assert!(!watch.is_unhealthy(now + Duration::from_secs(119), PATIENCE));
        assert!(watch.is_unhealthy(now + Duration::from_secs(120), PATIENCE));
        // Found running by an agent that was started later: nobody knows since when.
        let mut found = Watch::default();
        failed(&mut found, 3);
        assert!(found.is_unhealthy(now, PATIENCE));
    }

    #[test]
    fn five_restarts_within_the_window_are_a_crash_loop_until_it_answers_for_a_while() {
        let mut now = Instant::now();
        let mut watch = Watch::default();
        for number in 1..=6 {
            now += Duration::from_secs(200);
            assert_eq!(watch.restarted(now, AT), number == 5, "restart {number}");
            assert_eq!(watch.report().crash_loop, number >= 5);
        }
        assert!(!watch.checked(true, PATIENCE) && !watch.checked(true, PATIENCE));
        assert!(!watch.checked(false, PATIENCE));
        assert!(!watch.checked(true, PATIENCE) && !watch.checked(true, PATIENCE));
        assert!(watch.checked(true, PATIENCE));
        let report = watch.report();
        assert_eq!((report.restarts, report.last_restart, report.crash_loop), (6, Some(AT), false));
        assert!(!watch.restarted(now, AT), "the old restarts are forgiven");
    }

    #[test]
    fn restarts_far_apart_are_no_crash_loop() {
        let mut now = Instant::now();
        let mut watch = Watch::default();
        for _ in 0..20 {
            now += Duration::from_secs(10 * 60);
            assert!(!watch.restarted(now, AT));
        }
        assert_eq!(watch.report().restarts, 20);
    }
}
