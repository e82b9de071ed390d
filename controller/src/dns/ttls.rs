//! For how long somebody may go by an older address: the TTLs that the zone was seen with. Pure.
//!
//! What was answered with a TTL is forgotten when that has passed, whatever the TTL is by then. So a TTL counts until twice its time after
//! the look that first showed another one. The store keeps this: a controller that starts knows what the one before it saw.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Once the TTL is over nobody who keeps to the rules knows the old address; the second time is for those who stretch them.
const TIMES: u32 = 2;

/// TTLs in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ttls {
    /// At the last look; none before the first.
    now: Option<u32>,
    /// Those before it, and when another one was first seen, in milliseconds since 1970.
    before: BTreeMap<u32, i64>,
}

impl Ttls {
    /// With this look. The same, as long as the zone has the same TTL: then there is nothing to keep.
    #[must_use]
    pub fn with(&self, ttl: u32, now_ms: i64) -> Self {
        if self.now == Some(ttl) {
            return self.clone();
        }
        let mut before = self.before.clone();
        before.extend(self.now.map(|last| (last, now_ms)));
        before.retain(|before, until| counts(*before, *until, now_ms));
        Self { now: Some(ttl), before }
    }

    /// How long a name must have been as wanted, and nobody have come by an older address, in milliseconds.
    pub fn quiet_ms(&self, now_ms: i64) -> i64 {
        let before = self.before.iter().filter(|(ttl, until)| counts(**ttl, **until, now_ms)).map(|(ttl, _)| *ttl);
        before.chain(self.now).max().map_or(0, span_ms)
    }
}

fn span_ms(ttl: u32) -> i64 {
    i64::from(ttl) * i64::from(TIMES) * 1_000
}

/// May anybody still have an answer with this TTL, which was seen until then?
fn counts(ttl: u32, until_ms: i64, now_ms: i64) -> bool {
    now_ms < until_ms.saturating_add(span_ms(ttl))
}

#[cfg(test)]
mod tests {
    use super::Ttls;

    #[test]
    fn a_longer_ttl_of_before_counts_until_its_answers_are_forgotten() {
        let none = Ttls::default();
        assert_eq!(none.quiet_ms(0), 0);
        let first = none.with(3_600, 1_000);
        assert_eq!((first.quiet_ms(1_000), first.quiet_ms(i64::MAX)), (7_200_000, 7_200_000));
        assert_eq!(first.with(3_600, 9_000), first, "nothing new");
        let lowered = first.with(60, 10_000);
        assert_eq!(lowered.quiet_ms(10_000), 7_200_000);
        assert_eq!((lowered.quiet_ms(7_209_999), lowered.quiet_ms(7_210_000)), (7_200_000, 120_000));
        let raised = lowered.with(86_400, 20_000);
        assert_eq!(raised.quiet_ms(20_000), 172_800_000);
        // Seen again in between: it counts from its last time.
        let again = lowered.with(3_600, 20_000).with(60, 30_000);
        assert_eq!((again.quiet_ms(7_229_999), again.quiet_ms(7_230_000)), (7_200_000, 120_000));
    }

    #[test]
    fn what_nobody_can_know_any_more_is_dropped() {
        let many = (1..1_000_u32).fold(Ttls::default(), |ttls, ttl| ttls.with(ttl, i64::from(ttl) * 10_000_000));
        assert_eq!(many, Ttls::default().with(998, 0).with(999, 9_990_000_000).with(999, 0), "{many:?}");
        let kept: Ttls = serde_json::from_str(&serde_json::to_string(&many).unwrap()).unwrap();
        assert_eq!(kept, many);
    }
}
