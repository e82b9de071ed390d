//! How often one client may sign up: a token bucket each, for a bounded number of clients. Pure: the time is handed in.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::time::Instant;

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// As many at once.
    pub burst: u32,
    /// Then one more after each of these.
    pub interval: Duration,
    /// Clients that are remembered.
    pub clients_max: usize,
}

/// When each client's bucket will be full again; who is not listed has a full one.
#[derive(Debug)]
pub(super) struct Rates {
    rate: Rate,
    full_at: BTreeMap<IpAddr, Instant>,
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, full_at: BTreeMap::new() }
    }

    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&mut self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = network(client);
        if !self.full_at.contains_key(&client) {
            self.make_room(now);
        }
        let capacity = self.rate.interval * self.rate.burst;
        let full_at = self.full_at.get(&client).copied().unwrap_or(now).max(now) + self.rate.interval;
        let wait = full_at.saturating_duration_since(now + capacity);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_at.insert(client, full_at);
        Ok(())
    }

    /// Who has a full bucket need not be remembered; if that is not enough, whoever would have one first is forgotten.
    fn make_room(&mut self, now: Instant) {
        if self.full_at.len() < self.rate.clients_max {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= self.rate.clients_max {
            let first = self.full_at.iter().min_by_key(|(_, full_at)| **full_at).map(|(client, _)| *client);
            first.map(|client| self.full_at.remove(&client));
        }
    }
}

/// What one client is: an IPv4 address, or the /64 in which an IPv6 host takes as many addresses as it likes.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [first, second, third, fourth, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(first, second, third, fourth, 0, 0, 0, 0))
        }
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::{Rate, Rates};

    const RATE: Rate = Rate { burst: 3, interval: Duration::from_secs(10), clients_max: 4 };

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_one_after_each_interval() {
        let (mut rates, start) = (Rates::new(RATE), Instant::now());
        let ada = client("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(rates.take(ada, start), Ok(()));
        }
        assert_eq!(rates.take(ada, start), Err(Duration::from_secs(10)));
        assert_eq!(
            rates.take(ada, start + Duration::from_secs(4)),
            Err(Duration::from_secs(6)),
            "asking costs nothing"
        );
        assert_eq!(rates.take(client("192.0.2.2"), start), Ok(()), "others are not concerned");
        assert_eq!(rates.take(ada, start + Duration::from_secs(10)), Ok(()));
        assert!(rates.take(ada, start + Duration::from_secs(10)).is_err());
        let rested = start + Duration::from_secs(1000);
        assert!((0..3).all(|_| rates.take(ada, rested).is_ok()) && rates.take(ada, rested).is_err());
    }

    #[test]
    fn one_host_cannot_pretend_to_be_many() {
        let (mut rates, now) = (Rates::new(RATE), Instant::now());
        for host in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"] {
            assert_eq!(rates.take(client(host), now), Ok(()));
        }
        assert!(rates.take(client("2001:db8::3"), now).is_err());
        for host in ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"] {
            assert_eq!(rates.take(client(host), now), Ok(()));
        }
        assert!(rates.take(client("::ffff:192.0.2.1"), now).is_err());
    }

    proptest! {
        #[test]
        fn no_more_clients_are_remembered_and_no_more_tokens_given_than_allowed(
            calls in proptest::collection::vec((0_u8..12, 0_u64..15), 1..200),
        ) {
            let (mut rates, start) = (Rates::new(RATE), Instant::now());
            let mut seconds = 0;
            for (host, pause) in calls {
                seconds += pause;
                let _ = rates.take(IpAddr::from([192, 0, 2, host]), start + Duration::from_secs(seconds));
                prop_assert!(rates.full_at.len() <= RATE.clients_max);
                let latest = start + Duration::from_secs(seconds) + RATE.interval * RATE.burst;
                prop_assert!(rates.full_at.values().all(|full_at| *full_at <= latest));
            }
        }
    }
}
