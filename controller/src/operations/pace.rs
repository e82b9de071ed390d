//! How fast a transfer goes, from what its agent tells of it. Pure: moments are given.

use std::time::Duration;

use tokio::time::Instant;

use crate::agents::TransferProgress;

/// Reports that come closer are put together: their distance says more about the network than about the transfer.
const APART: Duration = Duration::from_millis(250);
/// What is older than this counts for little.
const MEMORY_SECONDS: f64 = 4.0;

/// A transfer with its rate.
#[derive(Debug, Default)]
pub struct Pace {
    newest: TransferProgress,
    /// Where the rate was measured last.
    mark: Option<(Instant, u64)>,
    rate: Option<f64>,
}

impl Pace {
    /// Takes in a report. Another pass or another phase counts something else, and begins anew.
    pub fn note(&mut self, report: TransferProgress, at: Instant) {
        let goes_on = (report.phase, report.round) == (self.newest.phase, self.newest.round);
        let mark = self.mark.filter(|(_, bytes)| goes_on && report.bytes >= *bytes);
        self.newest = report;
        let Some((since, bytes)) = mark else {
            (self.mark, self.rate) = (Some((at, report.bytes)), None);
            return;
        };
        let passed = at.saturating_duration_since(since);
        if passed < APART {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // a rate is shown with two digits
        let sample = (report.bytes - bytes) as f64 / passed.as_secs_f64();
        let weight = 1.0 - (-passed.as_secs_f64() / MEMORY_SECONDS).exp();
        self.rate = Some(self.rate.map_or(sample, |rate| rate + (sample - rate) * weight));
        self.mark = Some((at, report.bytes));
    }

    /// The newest report, with the rate.
    pub fn progress(&self) -> TransferProgress {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // never negative, and far from the limit
        let bytes_per_second = self.rate.unwrap_or_default() as u64;
        TransferProgress { bytes_per_second, ..self.newest }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Pace;
    use crate::agents::{Phase, TransferProgress};

    fn report(round: u32, bytes: u64) -> TransferProgress {
        TransferProgress { bytes, round, phase: Phase::Receiving, total_bytes: 10_000, ..Default::default() }
    }

    #[test]
    fn a_steady_transfer_has_its_rate_and_a_change_is_followed() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        pace.note(report(1, 0), at(0));
        assert_eq!(pace.progress().bytes_per_second, 0, "one report says nothing");
        pace.note(report(1, 90), at(90));
        assert_eq!((pace.progress().bytes, pace.progress().bytes_per_second), (90, 0), "too close to tell");
        for step in 1..=8 {
            pace.note(report(1, step * 500), at(step * 500));
        }
        assert_eq!(pace.progress().bytes_per_second, 1000);
        pace.note(report(1, 4000), at(8000));
        let slower = pace.progress().bytes_per_second;
        assert!((300..500).contains(&slower), "it stands still: {slower}");
    }

    #[test]
    fn another_pass_begins_anew() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.note(report(1, 0), start);
        pace.note(report(1, 1000), start + Duration::from_secs(1));
        assert_eq!(pace.progress().bytes_per_second, 1000);
        pace.note(report(2, 50), start + Duration::from_secs(2));
        assert_eq!((pace.progress().bytes, pace.progress().bytes_per_second), (50, 0));
        pace.note(report(2, 10), start + Duration::from_secs(3));
        assert_eq!(pace.progress().bytes_per_second, 0, "fewer than before is another count");
    }
}
