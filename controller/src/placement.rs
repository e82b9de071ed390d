//! Which server a tenant goes to: filter, score, choose. Pure.
//!
//! Knows nothing of agents or the store: candidates and needs are plain numbers. Filters: what the tenant is bound to, ready, not
//! cordoned, a free port, memory, disk headroom, the image. Score: most free slots, then most free memory (in steps of 256 MiB: less is noise, and would make
//! the choice flap), then the longest membership, then the name, so that equal worlds give equal answers.

use std::collections::{BTreeMap, BTreeSet};

use feather_proto::{
    ids::{ServerName, TenantName},
    labels::{LabelName, Labels},
    limits::Limits,
};
use serde::{Deserialize, Serialize};

pub mod several;

/// Servers that an explanation names.
const NAMED_MAX: usize = 20;

/// A server that could take a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub server: ServerName,
    /// When it joined, in milliseconds since 1970.
    pub joined_ms: i64,
    /// Why it cannot take anything now ("unreachable"), if so.
    pub not_ready: Option<String>,
    /// No new tenants wanted.
    pub cordoned: bool,
    /// What it is.
    pub labels: Labels,
    /// Who is there, or about to be, of those that are in a group.
    pub groups: Groups,
    /// Ports neither used, reserved, nor promised to a running operation.
    pub slots_free: u32,
    /// Free memory in bytes, that is neither in use nor within the limit of another tenant.
    pub memory_free_bytes: u64,
    /// Free disk in bytes.
    pub disk_free_bytes: u64,
    /// Digests of its images.
    pub image_digests: Vec<String>,
    /// Digest of what tenants get there, if that image is loaded.
    pub work_image_digest: Option<String>,
}

/// Where placement may put a tenant. Kept with it; a person who names a server is not bound by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// Labels that its server must have, all of them.
    pub on: Labels,
    /// The only server it may be on.
    pub pin: Option<ServerName>,
    /// Its group, of which no two may be on one server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<LabelName>,
}

/// Tenants on one server that are in a group.
pub type Groups = BTreeMap<LabelName, BTreeSet<TenantName>>;

impl Bounds {
    /// May it be anywhere?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What does not hold for a tenant on a server with such labels and such tenants, in sentences without an end mark.
    pub fn unmet(
        &self,
        tenant: Option<&TenantName>,
        server: &ServerName,
        labels: &Labels,
        there: &Groups,
    ) -> Vec<String> {
        let pinned = self.pin.as_ref().filter(|pin| *pin != server).map(|pin| format!("it is pinned to {pin}"));
        let others = self.spread.iter().flat_map(|group| {
            let others = there.get(group).into_iter().flatten().filter(|other| Some(*other) != tenant);
            others.take(1).map(move |other| format!("{other} of the group {group} is there"))
        });
        pinned.into_iter().chain(self.on.lacking(labels)).chain(others).collect()
    }
}

/// What a tenant needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Who; nobody in particular for what one more tenant would need.
    pub tenant: Option<TenantName>,
    /// Memory that must be free, in bytes.
    pub memory_bytes: u64,
    /// Bytes that its volume has now; 110 % of it must be free.
    pub volume_bytes: u64,
    /// Disk that must stay free after that, in bytes.
    pub disk_headroom_bytes: u64,
    /// Image by digest; `None`: the server's own work image.
    pub image_digest: Option<String>,
    /// Only this server.
    pub only: Option<ServerName>,
    /// Not this server.
    pub except: Option<ServerName>,
    /// What it is bound to.
    pub bounds: Bounds,
}

/// Why a server was not chosen, or that it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Could take it.
    Fits,
    /// Not the one that was asked for.
    NotWanted,
    /// The one it leaves.
    Left,
    /// Not within what the tenant is bound to.
    OutOfBounds,
    /// Not reachable or not well.
    NotReady,
    /// Takes no new tenants.
    Cordoned,
    /// All ports taken.
    NoPort,
    /// Too little memory.
    NoMemory,
    /// Too little disk.
    NoDisk,
    /// Image missing.
    NoImage,
}

/// The choice with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// For whom.
    pub tenant: Option<TenantName>,
    /// Where to, if anywhere.
    pub chosen: Option<ServerName>,
    /// One verdict for each candidate, best first.
    pub verdicts: Vec<(Candidate, Verdict)>,
    /// What the tenant is bound to.
    pub bounds: Bounds,
}

/// Differences of free memory below this are noise.
const MEMORY_STEP_BYTES: u64 = 256 << 20;

/// Bytes that must be free for a volume of this size: 10 % more.
pub fn with_headroom(volume_bytes: u64) -> u64 {
    volume_bytes.saturating_add(volume_bytes / 10)
}

/// A move that was planned and has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// To where.
    pub target: ServerName,
    /// Bytes of its volume.
    pub volume_bytes: u64,
    /// Memory that it needs there, in bytes.
    pub memory_bytes: u64,
    /// Who comes, and its group.
    pub grouped: Option<(LabelName, TenantName)>,
}

impl Need {
    /// The same for this tenant with its limits: as much memory as it may use must be there.
    #[must_use]
    pub fn of(self, tenant: &TenantName, limits: &Limits) -> Self {
        let memory_bytes = limits.memory_bytes.unwrap_or_default().max(self.memory_bytes);
        Self { tenant: Some(tenant.clone()), memory_bytes, ..self }
    }

    /// That this room is taken on a server.
    pub fn promise(&self, target: ServerName) -> Promise {
        let grouped = self.bounds.spread.clone().zip(self.tenant.clone());
        Promise { target, volume_bytes: self.volume_bytes, memory_bytes: self.memory_bytes, grouped }
    }
}

/// The same candidates without the room that is promised already.
pub fn without(mut candidates: Vec<Candidate>, promised: &[Promise]) -> Vec<Candidate> {
    for candidate in &mut candidates {
        for promise in promised.iter().filter(|promise| promise.target == candidate.server) {
            candidate.slots_free = candidate.slots_free.saturating_sub(1);
            candidate.memory_free_bytes = candidate.memory_free_bytes.saturating_sub(promise.memory_bytes);
            candidate.disk_free_bytes = candidate.disk_free_bytes.saturating_sub(promise.volume_bytes);
            if let Some((group, tenant)) = &promise.grouped {
                candidate.groups.entry(group.clone()).or_default().insert(tenant.clone());
            }
        }
    }
    candidates
}

/// Judges one candidate; filters in the order in which a person would ask.
pub fn judge(candidate: &Candidate, need: &Need) -> Verdict {
    let wanted = need.only.as_ref().is_none_or(|only| *only == candidate.server);
    if need.except.as_ref() == Some(&candidate.server) {
        return Verdict::Left;
    }
    if !wanted {
        return Verdict::NotWanted;
    }
    if !need.bounds.unmet(need.tenant.as_ref(), &candidate.server, &candidate.labels, &candidate.groups).is_empty() {
        return Verdict::OutOfBounds;
    }
    if candidate.not_ready.is_some() {
        return Verdict::NotReady;
    }
    if candidate.cordoned {
        return Verdict::Cordoned;
    }
    let has_image = match &need.image_digest {
        Some(digest) => candidate.image_digests.contains(digest),
        None => candidate.work_image_digest.is_some(),
    };
    let disk_needed = with_headroom(need.volume_bytes).saturating_add(need.disk_headroom_bytes);
    match () {
        () if candidate.slots_free == 0 => Verdict::NoPort,
        () if candidate.memory_free_bytes < need.memory_bytes => Verdict::NoMemory,
        () if candidate.disk_free_bytes < disk_needed => Verdict::NoDisk,
        () if !has_image => Verdict::NoImage,
        () => Verdict::Fits,
    }
}

/// Chooses.
pub fn choose(candidates: Vec<Candidate>, need: &Need) -> Decision {
    let mut verdicts: Vec<(Candidate, Verdict)> = candidates
        .into_iter()
        .map(|candidate| {
            let verdict = judge(&candidate, need);
            (candidate, verdict)
        })
        .collect();
    verdicts.sort_by(|(left, left_verdict), (right, right_verdict)| {
        let fits = |verdict: &Verdict| *verdict == Verdict::Fits;
        fits(right_verdict)
            .cmp(&fits(left_verdict))
            .then(right.slots_free.cmp(&left.slots_free))
            .then((right.memory_free_bytes / MEMORY_STEP_BYTES).cmp(&(left.memory_free_bytes / MEMORY_STEP_BYTES)))
            .then(left.joined_ms.cmp(&right.joined_ms))
            .then(left.server.cmp(&right.server))
    });
    let chosen = verdicts.first().filter(|(_, verdict)| *verdict == Verdict::Fits).map(|(best, _)| best.server.clone());
    Decision { tenant: need.tenant.clone(), chosen, verdicts, bounds: need.bounds.clone() }
}

impl Decision {
    /// One line for each of the best servers: what spoke for or against it. Of a large fleet the others are counted.
    pub fn explanation(&self) -> Vec<String> {
        let (named, others) = self.verdicts.split_at(self.verdicts.len().min(NAMED_MAX));
        let mut lines: Vec<_> = named.iter().map(|(candidate, verdict)| self.line(candidate, *verdict)).collect();
        if !others.is_empty() {
            let fit = others.iter().filter(|(_, verdict)| *verdict == Verdict::Fits).count();
            lines.push(format!("{} more servers: {fit} fit too, {} do not", others.len(), others.len() - fit));
        }
        lines
    }

    fn line(&self, candidate: &Candidate, verdict: Verdict) -> String {
        let name = &candidate.server;
        match verdict {
            Verdict::Fits => {
                let chosen = if self.chosen.as_ref() == Some(name) { "chosen" } else { "fits" };
                format!(
                    "{name}: {chosen} ({} free slots, {} MiB memory and {} MiB disk free)",
                    candidate.slots_free,
                    candidate.memory_free_bytes >> 20,
                    candidate.disk_free_bytes >> 20
                )
            }
            Verdict::NotWanted => format!("{name}: not asked for"),
            Verdict::Left => format!("{name}: where it lives now"),
            Verdict::OutOfBounds => {
                let unmet = self.bounds.unmet(self.tenant.as_ref(), name, &candidate.labels, &candidate.groups);
                format!("{name}: {}", unmet.join(", "))
            }
            Verdict::NotReady => {
                format!("{name}: not ready ({})", candidate.not_ready.as_deref().unwrap_or("no reason known"))
            }
            Verdict::Cordoned => format!("{name}: cordoned (`featherctl server uncordon {name}` lifts that)"),
            Verdict::NoPort => format!("{name}: no free port"),
            Verdict::NoMemory => format!("{name}: only {} MiB memory free", candidate.memory_free_bytes >> 20),
            Verdict::NoDisk => format!("{name}: only {} MiB disk free", candidate.disk_free_bytes >> 20),
            Verdict::NoImage => format!("{name}: the image is not loaded there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Bounds, Candidate, Groups, Need, Verdict, choose, judge, without};

    fn candidate(name: &str, slots: u32, memory: u64) -> Candidate {
        Candidate {
            server: name.parse().unwrap(),
            joined_ms: 0,
            not_ready: None,
            cordoned: false,
            labels: Default::default(),
            groups: Default::default(),
            slots_free: slots,
            memory_free_bytes: memory,
            disk_free_bytes: 1 << 30,
            image_digests: vec!["sha256:a".into()],
            work_image_digest: Some("sha256:a".into()),
        }
    }

    fn need() -> Need {
        Need {
            tenant: None,
            memory_bytes: 10,
            volume_bytes: 0,
            disk_headroom_bytes: 0,
            image_digest: None,
            only: None,
            except: None,
            bounds: Bounds::default(),
        }
    }

    #[test]
    fn most_free_slots_win_then_memory_then_membership_then_the_name() {
        let chosen = |candidates| choose(candidates, &need()).chosen.unwrap().to_string();
        assert_eq!(chosen(vec![candidate("a", 1, 1 << 40), candidate("b", 2, 11)]), "b");
        assert_eq!(chosen(vec![candidate("a", 2, 1 << 30), candidate("b", 2, 2 << 30)]), "b");
        assert_eq!(chosen(vec![candidate("a", 2, 11), candidate("b", 2, 12)]), "a");
        let later = Candidate { joined_ms: 5, ..candidate("a", 2, 12) };
        assert_eq!(chosen(vec![later, candidate("b", 2, 12)]), "b");
        assert_eq!(chosen(vec![candidate("b", 2, 12), candidate("a", 2, 12)]), "a");
    }

    #[test]
    fn what_is_promised_is_not_there_for_the_next() {
        let promise = |target: &str| Need { volume_bytes: 1 << 29, ..need() }.promise(target.parse().unwrap());
        let left = without(vec![candidate("a", 2, 25), candidate("b", 1, 99)], &[promise("a"), promise("a")]);
        assert_eq!((left[0].slots_free, left[0].memory_free_bytes, left[0].disk_free_bytes), (0, 5, 0));
        assert_eq!(left[1], candidate("b", 1, 99));
        assert_eq!(choose(left, &need()).chosen.unwrap().as_str(), "b");
    }

    #[test]
    fn every_filter_has_its_verdict() {
        let base = candidate("a", 1, 99);
        let need = Need { volume_bytes: 1000, ..need() };
        assert_eq!(judge(&base, &need), Verdict::Fits);
        let cases = [
            (Candidate { not_ready: Some("unreachable".into()), ..base.clone() }, Verdict::NotReady),
            (Candidate { cordoned: true, ..base.clone() }, Verdict::Cordoned),
            (Candidate { slots_free: 0, ..base.clone() }, Verdict::NoPort),
            (Candidate { memory_free_bytes: 9, ..base.clone() }, Verdict::NoMemory),
            (Candidate { disk_free_bytes: 1099, ..base.clone() }, Verdict::NoDisk),
            (Candidate { work_image_digest: None, ..base.clone() }, Verdict::NoImage),
        ];
        for (candidate, verdict) in cases {
            assert_eq!(judge(&candidate, &need), verdict, "{candidate:?}");
            let decision = choose(vec![candidate], &need);
            assert_eq!(decision.chosen, None);
            assert!(decision.explanation()[0].starts_with("a: "));
        }
        let elsewhere = Need { except: Some("a".parse().unwrap()), ..need };
        assert_eq!(judge(&base, &elsewhere), Verdict::Left);
        let other = Need { only: Some("b".parse().unwrap()), except: None, ..elsewhere };
        assert_eq!(judge(&base, &other), Verdict::NotWanted);
    }

    fn labels(text: &str) -> feather_proto::labels::Labels {
        feather_proto::labels::Labels::new(text.split_whitespace().map(|one| one.parse().unwrap())).unwrap()
    }

    #[test]
    fn bounds_come_before_room_and_say_what_does_not_hold() {
        let eu = Candidate { labels: labels("region=eu disk=ssd"), ..candidate("a", 1, 99) };
        let us = Candidate { labels: labels("region=us"), ..candidate("b", 9, 99) };
        let none = candidate("c", 9, 99);
        let bound = |on: &str, pin: Option<&str>| Need {
            bounds: Bounds { on: labels(on), pin: pin.map(|pin| pin.parse().unwrap()), spread: None },
            ..need()
        };
        let decision = choose(vec![us.clone(), none.clone(), eu.clone()], &bound("region=eu disk=ssd", None));
        assert_eq!(decision.chosen.as_ref().unwrap().as_str(), "a");
        let told = decision.explanation();
        assert!(told.contains(&"b: it has no label disk=ssd, region is us, not eu".to_owned()), "{told:?}");
        assert!(told.contains(&"c: it has no label disk=ssd, it has no label region=eu".to_owned()), "{told:?}");
        let pinned = choose(vec![us.clone(), eu.clone()], &bound("", Some("b")));
        assert_eq!(pinned.chosen.as_ref().unwrap().as_str(), "b");
        assert!(pinned.explanation().contains(&"a: it is pinned to b".to_owned()), "{pinned:?}");
        let nowhere = choose(vec![us, eu], &bound("region=eu", Some("b")));
        assert_eq!(nowhere.chosen, None);
        assert!(nowhere.verdicts.iter().all(|(_, verdict)| *verdict == Verdict::OutOfBounds));
    }

    #[test]
    fn two_of_a_group_are_never_together_and_nobody_is_in_its_own_way() {
        let group: Groups = [("db".parse().unwrap(), ["bob".parse().unwrap()].into())].into();
        let taken = Candidate { groups: group, ..candidate("a", 9, 99) };
        let in_group = |tenant: &str, group: &str| Need {
            tenant: Some(tenant.parse().unwrap()),
            bounds: Bounds { spread: Some(group.parse().unwrap()), ..Bounds::default() },
            ..need()
        };
        let decision = choose(vec![taken.clone(), candidate("b", 1, 99)], &in_group("alice", "db"));
        assert_eq!(decision.chosen.as_ref().unwrap().as_str(), "b");
        assert!(decision.explanation().contains(&"a: bob of the group db is there".to_owned()), "{decision:?}");
        assert_eq!(judge(&taken, &in_group("alice", "web")), Verdict::Fits, "other groups do not matter");
        assert_eq!(judge(&taken, &in_group("bob", "db")), Verdict::Fits, "it is bob himself");
        assert_eq!(judge(&taken, &need()), Verdict::Fits, "who is in no group goes anywhere");
        let later = without(vec![candidate("b", 2, 99)], &[in_group("carol", "db").promise("b".parse().unwrap())]);
        assert_eq!(judge(&later[0], &in_group("alice", "db")), Verdict::OutOfBounds, "carol is about to be there");
    }

    fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0u32..4, 0u64..40, any::<bool>(), any::<bool>(), 0u64..4000);
        prop::collection::vec(one, 0..8).prop_map(|all| {
            all.into_iter()
                .enumerate()
                .map(|(index, (slots, memory, cordoned, image, disk))| Candidate {
                    cordoned,
                    disk_free_bytes: disk,
                    work_image_digest: image.then(|| "sha256:a".into()),
                    ..candidate(&format!("s{index}"), slots, memory)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn the_choice_fits_and_none_that_fits_has_more_slots(candidates in any_candidates(), volume in 0u64..3000) {
            let need = Need { volume_bytes: volume, ..need() };
            let decision = choose(candidates.clone(), &need);
            let fitting: Vec<_> = candidates.iter().filter(|one| judge(one, &need) == Verdict::Fits).collect();
            match &decision.chosen {
                None => prop_assert!(fitting.is_empty()),
                Some(name) => {
                    let chosen = fitting.iter().find(|one| one.server == *name).expect("the choice must fit");
                    prop_assert!(fitting.iter().all(|one| one.slots_free <= chosen.slots_free));
                }
            }
            prop_assert_eq!(decision.verdicts.len(), candidates.len());
        }

        #[test]
        fn the_order_of_the_candidates_does_not_matter(candidates in any_candidates()) {
            let mut reversed = candidates.clone();
            reversed.reverse();
            prop_assert_eq!(choose(candidates, &need()).chosen, choose(reversed, &need()).chosen);
        }
    }
}
