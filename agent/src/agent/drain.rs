//! Requests that are under way when their tenant is about to stop for a move.
//!
//! Owns how long one waits for them. The proxy counts requests and streams alike, and a stream never ends by itself: so what
//! stays open while the tenant still serves is taken for a stream, and only what is beyond that is waited for. A stream is
//! known again by its connection: when it ends meanwhile, because its user left or the server that it came through died, no
//! request is taken for it.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::Agent;
use crate::{
    ledger::Record,
    router::{self, UnderWay},
};

/// What is open at so many looks in a row is a stream. The tenant serves meanwhile: this is no part of the outage.
const LOOKS: usize = 7;
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long one goes on looking while something is too old for most requests and too young for a stream.
const LOOKS_LIMIT: Duration = Duration::from_millis(2_500);
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// What stayed open during all looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Streams {
    /// Never was less under way. Connections that the proxy only keeps for later do not count in it.
    least: u64,
    open: BTreeSet<SocketAddr>,
}

impl Streams {
    fn of(looks: &VecDeque<UnderWay>) -> Self {
        let least = looks.iter().map(|look| look.count).min().unwrap_or(0);
        let all = looks.iter().map(|look| look.connections.clone());
        Self { least, open: all.reduce(|open, look| &open & &look).unwrap_or_default() }
    }

    /// Of what is under way now, the requests.
    fn requests(&self, now: &UnderWay) -> u64 {
        let still_open = self.open.intersection(&now.connections).count() as u64;
        now.count.saturating_sub(self.least.min(still_open))
    }
}

/// Nothing that was open at the last two looks was opened after the first one: it would be waited for in vain if it is a stream.
fn settled(looks: &VecDeque<UnderWay>) -> bool {
    let last_two = looks.iter().rev().take(2).map(|look| look.connections.clone());
    last_two.reduce(|open, look| &open & &look).is_none_or(|open| open.is_subset(&Streams::of(looks).open))
}

impl Agent {
    /// What is under way to a tenant and stays open for longer than most requests take.
    pub(super) async fn find_streams(&self, record: &Record) -> Streams {
        let Some(spec) = &record.spec else { return Streams::default() };
        let until = Instant::now() + LOOKS_LIMIT;
        let mut looks = VecDeque::new();
        loop {
            // Without a count there is nothing to wait for, and the move goes on without it.
            let Ok(look) = self.router.in_flight(spec.port).await else { return Streams::default() };
            let idle = look.count == 0;
            looks.push_back(look);
            let full = looks.len() == LOOKS;
            if idle || (full && settled(&looks)) || Instant::now() >= until {
                return Streams::of(&looks);
            }
            if full {
                looks.pop_front();
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Lets requests end that are under way to a tenant whose route leads elsewhere by now; `streams` are not waited for.
    pub(super) async fn drain(&self, record: &Record, streams: &Streams) {
        let Some(spec) = &record.spec else { return };
        let began = Instant::now();
        let left = loop {
            match self.router.in_flight(spec.port).await {
                Ok(now) if streams.requests(&now) == 0 => return,
                Ok(now) if began.elapsed() >= self.config.drain_limit => break now,
                Ok(_) | Err(router::Error::Unreachable { .. }) if began.elapsed() < self.config.drain_limit => {}
                Ok(_) | Err(_) => return,
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        };
        tracing::warn!(
            tenant = %record.tenant,
            requests = streams.requests(&left),
            counted = left.count,
            connections = left.connections.len(),
            streams = streams.open.len(),
            streams_least = streams.least,
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

    fn streams(looks: &[UnderWay]) -> Streams {
        Streams::of(&looks.iter().cloned().collect())
    }

    #[test]
    fn streams_are_what_stays_and_requests_the_rest() {
        let streams = streams(&[look(&[1, 2, 10, 11]), look(&[1, 2, 12]), look(&[1, 2, 13])]);
        assert_eq!(streams.requests(&look(&[1, 2])), 0);
        assert_eq!(streams.requests(&look(&[1, 2, 14, 15])), 2);
    }

    #[test]
    fn one_looks_on_while_something_young_may_be_a_stream() {
        let settled = |looks: &[UnderWay]| super::settled(&looks.iter().cloned().collect());
        assert!(settled(&[look(&[1]), look(&[1, 10]), look(&[1, 11])]), "requests come and go");
        assert!(!settled(&[look(&[1]), look(&[1, 2]), look(&[1, 2, 11])]), "a second stream, or a slow request");
        assert!(settled(&[look(&[1, 2]), look(&[1, 2, 11]), look(&[1, 2])]), "it is as old as the other now");
        assert!(settled(&[look(&[1]), look(&[1, 2]), look(&[1])]), "it was a request");
        assert!(settled(&[]));
    }

    #[test]
    fn a_request_is_not_taken_for_a_stream_that_has_ended() {
        let streams = streams(&[look(&[1, 2]), look(&[1, 2, 10])]);
        assert_eq!(streams.requests(&look(&[1, 11])), 1);
        assert_eq!(streams.requests(&look(&[11, 12])), 2);
        // The process behind it has accepted it, and the proxy has counted it, before it is in the list of connections.
        assert_eq!(streams.requests(&UnderWay { count: 3, ..look(&[1, 2]) }), 1);
    }

    #[test]
    fn connections_that_nothing_is_under_way_on_are_nothing_to_wait_for() {
        // A route by hand keeps connections for later, and whoever passed the gate has one that the proxy does not count here.
        let idle = UnderWay { count: 1, ..look(&[1, 2, 3]) };
        let streams = streams(&[idle.clone(), idle.clone()]);
        assert_eq!(streams.requests(&idle), 0);
        assert_eq!(streams.requests(&UnderWay { count: 2, ..look(&[1, 2, 3, 4]) }), 1);
        assert_eq!(Streams::default().requests(&UnderWay::default()), 0);
    }
}
