//! How often a login may fail. Each address has some tries that come back with time; nobody's failures keep others out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;

/// Failures in a row.
const BURST: f64 = 8.0;
/// One comes back in this time.
const SECONDS_EACH: f64 = 10.0;
/// Addresses that are remembered; beyond that those whose tries have come back are forgotten, and then the one that has most of them.
const ADDRESSES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Left {
    tries: f64,
    as_of: OffsetDateTime,
}

impl Left {
    fn at(self, now: OffsetDateTime) -> f64 {
        let passed = (now - self.as_of).as_seconds_f64().max(0.0);
        (self.tries + passed / SECONDS_EACH).min(BURST)
    }
}

/// The tries of all addresses.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<BTreeMap<IpAddr, Left>>);

/// Whoever has an address of IPv6 has more of them.
fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Tries {
    /// May this address try now?
    ///
    /// # Errors
    /// How long it has to wait.
    pub(super) fn may(&self, address: IpAddr, now: OffsetDateTime) -> Result<(), Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = all.get(&group(address)).map_or(BURST, |left| left.at(now));
        if left >= 1.0 { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) * SECONDS_EACH)) }
    }

    /// It tried, and failed.
    pub(super) fn failed(&self, address: IpAddr, now: OffsetDateTime) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = group(address);
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&address) {
            all.retain(|_, left| left.at(now) < BURST);
            let most = all.iter().max_by(|one, other| one.1.at(now).total_cmp(&other.1.at(now)));
            if let Some(most) = most.map(|(address, _)| *address).filter(|_| all.len() >= ADDRESSES_MAX) {
                all.remove(&most);
            }
        }
        let tries = all.get(&address).map_or(BURST, |left| left.at(now)) - 1.0;
        all.insert(address, Left { tries: tries.max(0.0), as_of: now });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use time::{Duration, OffsetDateTime};

    use super::{ADDRESSES_MAX, Tries};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn failures_are_limited_for_each_address_and_come_back() {
        let (tries, guesser, other) = (Tries::default(), [192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let failures = |at| {
            let mut count = 0;
            while count < 100 && tries.may(guesser, at).is_ok() {
                tries.failed(guesser, at);
                count += 1;
            }
            count
        };
        assert_eq!(failures(NOW), 8);
        assert!(tries.may(guesser, NOW).unwrap_err().as_secs() <= 10);
        assert!(tries.may(other, NOW).is_ok(), "somebody else is not kept out");
        assert_eq!(failures(NOW + Duration::seconds(25)), 2);
        assert_eq!(failures(NOW), 0, "a clock that was set back gives nothing");
        assert_eq!(failures(NOW + Duration::hours(1)), 8);
    }

    #[test]
    fn one_network_is_one_guesser_and_memory_is_bounded() {
        let tries = Tries::default();
        let address = |network: u128, host: u128| IpAddr::V6(Ipv6Addr::from_bits((network << 64) | host));
        (0..8).for_each(|host| tries.failed(address(7, host), NOW));
        assert!(tries.may(address(7, 99), NOW).is_err() && tries.may(address(8, 0), NOW).is_ok());
        assert!(tries.may("::ffff:192.0.2.1".parse().unwrap(), NOW).is_ok());
        for network in 100..100 + 2 * ADDRESSES_MAX as u128 {
            tries.failed(address(network, 0), NOW);
        }
        assert_eq!(tries.0.lock().unwrap().len(), ADDRESSES_MAX);
        assert!(tries.may(address(7, 1), NOW).is_err(), "whoever has failed most is not forgotten first");
    }
}
