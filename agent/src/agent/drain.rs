//! Requests that are under way when their tenant is about to stop for a move.
//!
//! Owns how long one waits for them. The proxy counts requests and streams alike, and a stream never ends by itself: so what
//! stays open while the tenant still serves is taken for a stream, and only what is beyond that is waited for. A stream is
//! known again by its connection: when it ends meanwhile, because its user left or the server that it came through died, no
//! request is taken for it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::Agent;
use crate::{
    ledger::Record,
    router::{self, UnderWay},
};

/// How long one looks for streams before the stop. The tenant serves meanwhile: this is no part of the outage.
const WATCH: Duration = Duration::from_millis(600);
const WATCH_PAUSE: Duration = Duration::from_millis(100);
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// What stayed open during all looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Streams {
    /// Never was less under way. Connections that the proxy only keeps for later do not count in it.
    least: u64,
    open: BTreeSet<SocketAddr>,
}

impl Streams {
    fn first(look: UnderWay) -> Self {
        Self { least: look.count, open: look.connections }
    }

    fn also(self, look: &UnderWay) -> Self {
        let open = self.open.intersection(&look.connections).copied().collect();
        Self { least: self.least.min(look.count), open }
    }

    /// Of what is under way now, the requests.
    fn requests(&self, now: &UnderWay) -> u64 {
        let still_open = self.open.intersection(&now.connections).count() as u64;
        now.count.saturating_sub(self.least.min(still_open))
    }
}

impl Agent {
    /// What is under way to a tenant and stays open for longer than most requests take.
    pub(super) async fn find_streams(&self, record: &Record) -> Streams {
        let Some(spec) = &record.spec else { return Streams::default() };
        let until = Instant::now() + WATCH;
        let mut streams = None;
        loop {
            // Without a count there is nothing to wait for, and the move goes on without it.
            let Ok(look) = self.router.in_flight(spec.port).await else { return Streams::default() };
            let found = match streams.take() {
                None => Streams::first(look),
                Some(before) => Streams::also(before, &look),
            };
            if found.least == 0 || Instant::now() >= until {
                return found;
            }
            streams = Some(found);
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    /// Lets requests end that are under way to a tenant whose route leads elsewhere by now; `streams` are not waited for.
    pub(super) async fn drain(&self, record: &Record, streams: &Streams) {
        let Some(spec) = &record.spec else { return };
        let began = Instant::now();
        let left = loop {
            match self.router.in_flight(spec.port).await.map(|now| streams.requests(&now)) {
                Ok(0) => return,
                Ok(requests) if began.elapsed() >= self.config.drain_limit => break requests,
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

#[cfg(test)]
mod tests {
    use super::{Streams, UnderWay};

    /// One connection for each port of this list.
    fn look(ports: &[u16]) -> UnderWay {
        let connections = ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
        UnderWay { count: ports.len() as u64, connections }
    }

    #[test]
    fn streams_are_what_stays_and_requests_the_rest() {
        let streams = Streams::first(look(&[1, 2, 10, 11])).also(&look(&[1, 2, 12])).also(&look(&[1, 2, 13]));
        assert_eq!(streams.requests(&look(&[1, 2])), 0);
        assert_eq!(streams.requests(&look(&[1, 2, 14, 15])), 2);
    }

    #[test]
    fn a_request_is_not_taken_for_a_stream_that_has_ended() {
        let streams = Streams::first(look(&[1, 2])).also(&look(&[1, 2, 10]));
        assert_eq!(streams.requests(&look(&[1, 11])), 1);
        assert_eq!(streams.requests(&look(&[11, 12])), 2);
        // The process behind it has accepted it, and the proxy has counted it, before it is in the list of connections.
        assert_eq!(streams.requests(&UnderWay { count: 3, ..look(&[1, 2]) }), 1);
    }

    #[test]
    fn connections_that_nothing_is_under_way_on_are_nothing_to_wait_for() {
        // A route by hand keeps connections for later, and whoever passed the gate has one that the proxy does not count here.
        let idle = UnderWay { count: 1, ..look(&[1, 2, 3]) };
        let streams = Streams::first(idle.clone()).also(&idle);
        assert_eq!(streams.requests(&idle), 0);
        assert_eq!(streams.requests(&UnderWay { count: 2, ..look(&[1, 2, 3, 4]) }), 1);
        assert_eq!(Streams::default().requests(&UnderWay::default()), 0);
    }
}
