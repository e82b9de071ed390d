//! Where several tenants would go together. Pure.
//!
//! Each takes its room before the next one looks. Who can go to the fewest servers chooses first, then who has most data: otherwise the
//! undemanding take the only places of the others. That is no proof that there is no other way to seat them all; it is the order
//! in which they are moved too, so what is said beforehand is what happens if the world stays as it is.

use feather_proto::ids::TenantName;

use super::{Candidate, Decision, Need, Verdict, choose, judge, without};

/// One of several, with what was decided for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub tenant: TenantName,
    /// What it needs.
    pub need: Need,
    /// Where to, and why not elsewhere.
    pub decision: Decision,
}

/// Chooses for all, in the order in which they are to be moved.
pub fn choose_all(candidates: &[Candidate], wanted: Vec<(TenantName, Need)>) -> Vec<Seat> {
    let choices = |need: &Need| candidates.iter().filter(|one| judge(one, need) == Verdict::Fits).count();
    let mut wanted: Vec<_> = wanted.into_iter().map(|(tenant, need)| (choices(&need), tenant, need)).collect();
    wanted.sort_by(|(left_choices, left, left_need), (right_choices, right, right_need)| {
        left_choices.cmp(right_choices).then(right_need.volume_bytes.cmp(&left_need.volume_bytes)).then(left.cmp(right))
    });
    let mut left = candidates.to_vec();
    let mut seats = Vec::with_capacity(wanted.len());
    for (_, tenant, need) in wanted {
        let decision = choose(left.clone(), &need);
        if let Some(target) = decision.chosen.clone() {
            left = without(left, &[need.promise(target)]);
        }
        seats.push(Seat { tenant, need, decision });
    }
    seats
}

#[cfg(test)]
mod tests {
    use feather_proto::{ids::TenantName, labels::Labels};
    use proptest::prelude::*;

    use super::{Candidate, Need, Seat, choose_all};
    use crate::placement::Bounds;

    fn candidate(name: &str, slots: u32, disk: u64, labels: &str) -> Candidate {
        Candidate {
            server: name.parse().unwrap(),
            joined_ms: 0,
            not_ready: None,
            cordoned: false,
            labels: Labels::new(labels.split_whitespace().map(|one| one.parse().unwrap())).unwrap(),
            groups: Default::default(),
            slots_free: slots,
            memory_free_bytes: 1 << 40,
            disk_free_bytes: disk,
            image_digests: vec![],
            work_image_digest: Some("sha256:a".into()),
        }
    }

    fn need(volume_bytes: u64, on: &str) -> Need {
        let on = Labels::new(on.split_whitespace().map(|one| one.parse().unwrap())).unwrap();
        Need {
            tenant: None,
            memory_bytes: 1,
            volume_bytes,
            disk_headroom_bytes: 0,
            image_digest: None,
            only: None,
            except: None,
            bounds: Bounds { on, ..Bounds::default() },
        }
    }

    fn name(text: &str) -> TenantName {
        text.parse().unwrap()
    }

    fn told(seats: &[Seat]) -> Vec<String> {
        let to = |seat: &Seat| seat.decision.chosen.as_ref().map_or("-".to_owned(), ToString::to_string);
        seats.iter().map(|seat| format!("{} {}", seat.tenant, to(seat))).collect()
    }

    #[test]
    fn room_is_given_away_once() {
        let rest = [candidate("fra", 1, 1000, ""), candidate("ams", 1, 1000, "")];
        let wanted = ["a", "b", "c"].map(|one| (name(one), need(10, ""))).to_vec();
        assert_eq!(told(&choose_all(&rest, wanted)), ["a ams", "b fra", "c -"]);
    }

    #[test]
    fn the_demanding_choose_before_the_others_take_their_only_place() {
        let rest = [candidate("fra", 3, 1000, "region=eu"), candidate("nyc", 2, 5000, "")];
        let wanted =
            vec![(name("any"), need(10, "")), (name("big"), need(3000, "")), (name("eu"), need(10, "region=eu"))];
        assert_eq!(told(&choose_all(&rest, wanted)), ["big nyc", "eu fra", "any fra"]);
    }

    proptest! {
        #[test]
        fn no_two_of_a_group_are_seated_together(
            slots in prop::collection::vec(0u32..5, 0..5),
            groups in prop::collection::vec(0u8..4, 0..12),
        ) {
            let rest: Vec<_> =
                slots.iter().enumerate().map(|(at, slots)| candidate(&format!("s{at}"), *slots, 1 << 30, "")).collect();
            // Whoever is in group 0 is in none.
            let group = |number: u8| (number > 0).then(|| format!("g{number}").parse().unwrap());
            let wanted = groups.iter().enumerate().map(|(at, number)| {
                let (tenant, base) = (name(&format!("t{at}")), need(10, ""));
                let bounds = Bounds { spread: group(*number), ..base.bounds.clone() };
                (tenant.clone(), Need { tenant: Some(tenant), bounds, ..base })
            });
            let seats = choose_all(&rest, wanted.collect());
            let mut together = std::collections::BTreeSet::new();
            for seat in &seats {
                if let (Some(server), Some(group)) = (&seat.decision.chosen, &seat.need.bounds.spread) {
                    prop_assert!(together.insert((server.clone(), group.clone())), "{:?}", told(&seats));
                }
            }
        }

        #[test]
        fn nobody_is_seated_where_there_is_no_slot(
            slots in prop::collection::vec(0u32..4, 0..5),
            volumes in prop::collection::vec(0u64..900, 0..12),
        ) {
            let rest: Vec<_> =
                slots.iter().enumerate().map(|(at, slots)| candidate(&format!("s{at}"), *slots, 1 << 30, "")).collect();
            let wanted =
                volumes.iter().enumerate().map(|(at, volume)| (name(&format!("t{at}")), need(*volume, ""))).collect();
            let seats = choose_all(&rest, wanted);
            prop_assert_eq!(seats.len(), volumes.len());
            for server in &rest {
                let here = seats.iter().filter(|seat| seat.decision.chosen.as_ref() == Some(&server.server)).count();
                prop_assert!(here <= server.slots_free as usize);
            }
            // With room enough for all of them, somebody left over would be one for whom there was a slot.
            let seated = seats.iter().filter(|seat| seat.decision.chosen.is_some()).count();
            prop_assert_eq!(seated, volumes.len().min(slots.iter().sum::<u32>() as usize));
        }
    }
}
