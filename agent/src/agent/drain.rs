//! Requests that are under way when their tenant is about to stop for a move.
//!
//! Owns how long one waits for them. The proxy counts requests and streams alike, and a stream never ends by itself: so what
//! stays open while the tenant still serves is taken for streams, and only what is beyond that is waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::Agent;
use crate::{ledger::Record, router};

/// How long one looks for streams before the stop. The tenant serves meanwhile: this is no part of the outage.
const WATCH: Duration = Duration::from_millis(600);
const WATCH_PAUSE: Duration = Duration::from_millis(100);
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

impl Agent {
    /// How much that is under way to a tenant stays open for longer than most requests take.
    pub(super) async fn count_streams(&self, record: &Record) -> u64 {
        let Some(spec) = &record.spec else { return 0 };
        let until = Instant::now() + WATCH;
        let mut least = u64::MAX;
        loop {
            match self.router.in_flight(spec.port).await {
                Ok(count) => least = least.min(count),
                // Without a count there is nothing to wait for, and the move goes on without it.
                Err(_) => return 0,
            }
            if least == 0 || Instant::now() >= until {
                return least;
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    /// Lets requests end that are under way to a tenant whose route leads elsewhere by now; `streams` are not waited for.
    pub(super) async fn drain(&self, record: &Record, streams: u64) {
        let Some(spec) = &record.spec else { return };
        let began = Instant::now();
        let left = loop {
            match self.router.in_flight(spec.port).await {
                Ok(count) if count <= streams => return,
                Ok(count) if began.elapsed() >= self.config.drain_limit => break count - streams,
                Ok(_) | Err(router::Error::Unreachable { .. }) if began.elapsed() < self.config.drain_limit => {}
                Ok(_) | Err(_) => return,
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        };
        tracing::warn!(
            tenant = %record.tenant,
            requests = left,
            limit_seconds = self.config.drain_limit.as_secs(),
            "requests that did not end in time are cut off by the move"
        );
    }
}
