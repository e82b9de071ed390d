//! A change of the zone under way: what to do next, from what the store and the zone say. Pure.
//!
//! A change is written down before its first call and settled after its last read; a crash anywhere between is the same as a
//! reply that was lost. What a call did is judged only by reading the zone: the new marker is there, or it is not.

use serde::{Deserialize, Serialize};

use super::{
    bag::Bag,
    ledger::{Ledger, Sent, confirms},
    names::Names,
    propose::clashing,
    zone::{Zone, ZoneRecord},
};

/// The same call is made so often, each time only after reads found no trace of the one before.
pub const TRIES: u32 = 3;

/// What goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// No name is without a record in between.
    AppendFirst,
    /// Where types exclude each other, or the zone has no free slot.
    RemoveFirst,
    /// The whole zone in one call: an operator restores a snapshot.
    Replace,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of the marker that comes with it.
    pub generation: u64,
    /// What goes first.
    pub order: Order,
    /// The new marker; sent in the same call as `append`.
    pub marker: ZoneRecord,
    /// To add.
    pub append: Vec<ZoneRecord>,
    /// To remove, earlier markers included.
    pub remove: Vec<ZoneRecord>,
    /// The marker in force before.
    pub previous: Option<ZoneRecord>,
    /// Ours before.
    pub owned: Bag,
    /// All markers before that are removed.
    pub markers: Bag,
    /// Becomes ours without being touched.
    pub adopting: Bag,
    /// Ours when it is done.
    pub after: Bag,
    /// Records of others when it began.
    pub foreign: Bag,
    /// TTL as read, and as sent. Seconds.
    pub ttl: u32,
    /// The whole zone, for [`Order::Replace`].
    pub replace: Option<Zone>,
    /// A person made it on a zone that did not confirm the ledger: what is ours there nobody knew when it began.
    #[serde(default)]
    pub unproven: bool,
    /// Calls made.
    pub appends: u32,
    /// Calls made.
    pub removes: u32,
    /// When the last call was about to be made, in milliseconds since 1970.
    pub sent_ms: i64,
}

/// What a read says about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Copies of the new marker: how often the addition was applied.
    pub applied: u32,
    /// Added, and not there.
    pub missing: Vec<ZoneRecord>,
    /// To be removed, and still there.
    pub left: Vec<ZoneRecord>,
    /// Of others.
    pub foreign: Bag,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Make the call that adds (or replaces).
    Append,
    /// Make the call that removes what is left.
    Remove,
    /// A call was made and nothing is seen of it: read again later.
    Wait,
    /// Nothing is left to do.
    Settle,
    /// It cannot be done; what was sent may still arrive.
    GiveUp,
}

/// Compares a read with a change.
pub fn look(change: &Change, zone: &Zone) -> Seen {
    let all = Bag::of(zone);
    let applied = all.count(&change.marker);
    let mut allowed = change.owned.with(&change.markers).with(&change.adopting);
    for record in change.append.iter().chain([&change.marker]) {
        allowed.add(record, applied);
    }
    if change.order == Order::Replace && applied > 0 {
        allowed = change.after.clone();
        allowed.add(&change.marker, applied);
    }
    Seen {
        applied,
        missing: change.append.iter().filter(|record| all.count(record) == 0).cloned().collect(),
        left: change.remove.iter().filter(|record| all.count(record) > 0).cloned().collect(),
        foreign: all.without(&allowed),
    }
}

/// What to do next. `patience_ms`: how long the zone may take to show what a call did.
pub fn next(change: &Change, seen: &Seen, now_ms: i64, patience_ms: i64) -> Next {
    let waits = now_ms < change.sent_ms.saturating_add(patience_ms);
    let append = || match change.appends {
        0 => Next::Append,
        _ if waits => Next::Wait,
        made if made >= TRIES || change.order == Order::Replace => Next::GiveUp,
        // Somebody else put something there meanwhile that excludes ours.
        _ if change.append.iter().any(|record| clashing(record, &seen.foreign).is_some()) => Next::GiveUp,
        _ => Next::Append,
    };
    let remove = |exhausted| match change.removes {
        0 => Next::Remove,
        _ if waits => Next::Wait,
        made if made >= TRIES => exhausted,
        _ => Next::Remove,
    };
    match (change.order, seen.applied, seen.left.is_empty()) {
        (Order::AppendFirst | Order::Replace, 0, _) => append(),
        (Order::AppendFirst, _, false) => remove(Next::Settle),
        (Order::RemoveFirst, 0, false) => remove(Next::GiveUp),
        (Order::RemoveFirst, 0, true) => append(),
        // What came back or never went is the next plan's.
        _ => Next::Settle,
    }
}

/// Must a change that an earlier process began be left as it is? So it is when the zone confirms neither what was before it nor what
/// it makes: somebody else has the suffix now, or this ledger is from earlier than the zone.
pub fn is_overtaken(names: &Names, ledger: &Ledger, change: &Change, zone: &Zone) -> bool {
    // Between removal and addition there is no marker.
    let unmarked = (change.order == Order::RemoveFirst && change.removes > 0).then_some(None);
    let possible = [change.previous.clone(), Some(change.marker.clone())].into_iter().chain(unmarked);
    let generation = ledger.generation.max(change.generation);
    !change.unproven
        && !possible.into_iter().any(|marker| {
            let then = Ledger {
                marker,
                generation,
                owner: ledger.owner.clone(),
                owned: change.owned.clone(),
                ..Ledger::default()
            };
            confirms(names, &then, zone).holds()
        })
}

/// The ledger without a change that is left as it is. What it sent may still arrive, and is known then.
pub fn abandon(ledger: &Ledger, change: &Change) -> Ledger {
    let mut left = ledger.clone();
    left.pending = None;
    if change.appends > 0 && change.order != Order::Replace {
        left.remember(Sent { marker: change.marker.clone(), records: change.append.clone() });
    }
    left
}

/// The ledger when the change has ended, done or given up, by the last read.
pub fn settle(ledger: &Ledger, change: &Change, zone: &Zone, now_ms: i64) -> Ledger {
    let (all, seen) = (Bag::of(zone), look(change, zone));
    let mut settled = ledger.clone();
    settled.pending = None;
    settled.foreign_known = Some(seen.foreign.len());
    if change.appends > 0 && change.order != Order::Replace {
        settled.remember(Sent { marker: change.marker.clone(), records: change.append.clone() });
    }
    if seen.applied == 0 && change.unproven {
        // Nothing came of it, so nobody knows more than before: what the ledger says goes on waiting for a person.
        return abandon(ledger, change);
    }
    if seen.applied == 0 {
        settled.marker = change.previous.clone().filter(|previous| all.count(previous) > 0);
        settled.owned = change.owned.common(&all);
        return settled;
    }
    if change.order == Order::Replace {
        settled.remember(Sent { marker: change.marker.clone(), records: Vec::new() });
    }
    settled.marker = Some(change.marker.clone());
    let leftover: Bag = seen.left.iter().collect();
    settled.owned = change.after.with(&leftover.without(&change.markers)).common(&all);
    for record in change.append.iter().chain(&change.remove).filter(|record| change.markers.count(record) == 0) {
        settled.since.insert(record.host.clone(), now_ms);
    }
    settled
        .since
        .retain(|host, _| change.append.iter().any(|one| one.host == *host) || settled.owned.at(host).next().is_some());
    settled
}

#[cfg(test)]
mod tests {
    use super::{
        Bag, Change, Ledger, Names, Next, Order, TRIES, Zone, ZoneRecord, abandon, is_overtaken, look, next, settle,
    };
    use crate::dns::ledger;

    fn record(host: &str, kind: &str, value: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: String::new() }
    }

    fn change(order: Order) -> Change {
        let (old, new) = (record("alice.users", "a", "192.0.2.1"), record("alice.users", "a", "192.0.2.2"));
        let (before, marker) = (record("_feather.users", "txt", "g1"), record("_feather.users", "txt", "g2"));
        Change {
            generation: 2,
            order,
            marker,
            append: vec![new.clone()],
            remove: vec![old.clone(), before.clone()],
            previous: Some(before.clone()),
            owned: [&old].into_iter().collect(),
            markers: [&before].into_iter().collect(),
            adopting: Bag::default(),
            after: [&new].into_iter().collect(),
            foreign: [&record("www", "a", "192.0.2.9")].into_iter().collect(),
            ttl: 300,
            replace: None,
            unproven: false,
            appends: 0,
            removes: 0,
            sent_ms: 0,
        }
    }

    fn zone(change: &Change, new: usize, old: bool) -> Zone {
        let mut records = vec![record("www", "a", "192.0.2.9")];
        for _ in 0..new {
            records.extend(change.append.iter().cloned().chain([change.marker.clone()]));
        }
        records.extend(old.then(|| change.remove.clone()).into_iter().flatten());
        records.sort();
        Zone { ttl: 300, records }
    }

    /// What comes next for a change that was looked at `at_ms` after its last call, with a patience of a second.
    fn step(change: &Change, zone: &Zone, at_ms: i64) -> Next {
        next(change, &look(change, zone), change.sent_ms + at_ms, 1_000)
    }

    #[test]
    fn additions_come_first_and_are_never_repeated_blindly() {
        let mut change = change(Order::AppendFirst);
        assert_eq!(step(&change, &zone(&change, 0, true), 0), Next::Append);
        change.appends = 1;
        assert_eq!(step(&change, &zone(&change, 0, true), 999), Next::Wait);
        assert_eq!(step(&change, &zone(&change, 0, true), 1_000), Next::Append);
        change.appends = TRIES;
        assert_eq!(step(&change, &zone(&change, 0, true), 1_000), Next::GiveUp);
        assert_eq!(step(&change, &zone(&change, 1, true), 0), Next::Remove);
        change.removes = 1;
        assert_eq!(step(&change, &zone(&change, 1, true), 0), Next::Wait);
        assert_eq!(step(&change, &zone(&change, 2, false), 0), Next::Settle);
    }

    #[test]
    fn what_excludes_each_other_is_removed_first() {
        let mut change = change(Order::RemoveFirst);
        assert_eq!(step(&change, &zone(&change, 0, true), 0), Next::Remove);
        change.removes = 1;
        assert_eq!(step(&change, &zone(&change, 0, false), 0), Next::Append);
        change.appends = 1;
        assert_eq!(step(&change, &zone(&change, 1, false), 0), Next::Settle);
        change.appends = 0;
        change.removes = TRIES;
        assert_eq!(step(&change, &zone(&change, 0, true), 1_000), Next::GiveUp);
    }

    #[test]
    fn it_is_not_sent_again_when_somebody_took_the_name_meanwhile() {
        let mut change = change(Order::AppendFirst);
        change.appends = 1;
        let mut taken = zone(&change, 0, true);
        taken.records.push(record("alice.users", "cname", "elsewhere.example.net"));
        assert_eq!(step(&change, &taken, 1_000), Next::GiveUp);
    }

    #[test]
    fn a_settled_ledger_holds_what_the_zone_shows() {
        let mut change = change(Order::AppendFirst);
        let ledger = Ledger { owner: "us".into(), generation: 2, pending: Some(change.clone()), ..Ledger::default() };
        change.appends = 1;
        let done = settle(&ledger, &change, &zone(&change, 1, false), 7);
        assert_eq!((done.owned.listed(), done.marker.as_ref()), (change.append.clone(), Some(&change.marker)));
        assert_eq!((done.foreign_known, done.since["alice.users"], done.pending.is_none()), (Some(1), 7, true));
        // The old record stayed, whatever was sent: it is still ours, and the next plan's.
        let half = settle(&ledger, &change, &zone(&change, 1, true), 7);
        assert_eq!(half.owned.len(), 2);
        // Never seen: all as before, and known again should it arrive late.
        let lost = settle(&ledger, &change, &zone(&change, 0, true), 7);
        assert_eq!((lost.marker.as_ref(), lost.owned.clone()), (change.previous.as_ref(), change.owned.clone()));
        assert_eq!(lost.sent.len(), 1);
    }

    #[test]
    fn records_of_others_are_told_from_ours_at_every_moment() {
        let change = change(Order::AppendFirst);
        for (new, old) in [(0, true), (1, true), (2, true), (1, false)] {
            assert_eq!(look(&change, &zone(&change, new, old)).foreign, change.foreign, "{new} {old}");
        }
    }

    #[test]
    fn what_came_of_nothing_on_a_zone_that_confirmed_nothing_leaves_the_ledger_as_it_was() {
        let begun = Change { owned: Bag::default(), unproven: true, ..change(Order::AppendFirst) };
        let ledger = Ledger {
            marker: begun.previous.clone(),
            owned: begun.after.clone(),
            foreign_known: Some(12),
            pending: Some(begun.clone()),
            ..Ledger::default()
        };
        let settled = settle(&ledger, &begun, &zone(&begun, 0, false), 5);
        assert_eq!(settled, Ledger { pending: None, ..ledger.clone() });
        // It came about: what it makes is ours.
        let settled = settle(&ledger, &begun, &zone(&begun, 1, false), 5);
        assert_eq!((settled.marker, settled.owned), (Some(begun.marker), begun.after));
    }

    #[test]
    fn a_change_of_earlier_goes_on_only_where_the_zone_is_still_the_one_it_was_made_for() {
        let names = Names::new("example.com", "users.example.com").unwrap();
        let mark = |owner: &str, generation| ledger::marker(&names, owner, generation, &Bag::default());
        let begun = Change {
            marker: mark("us", 5),
            previous: Some(mark("us", 4)),
            generation: 5,
            ..change(Order::AppendFirst)
        };
        let kept = Ledger { owner: "us".into(), generation: 5, marker: Some(mark("us", 4)), ..Ledger::default() };
        let overtaken = |change: &Change, markers: &[ZoneRecord]| {
            let zone = Zone { ttl: 300, records: markers.to_vec() };
            is_overtaken(&names, &kept, change, &zone)
        };
        for there in [&[mark("us", 4)][..], &[mark("us", 5)], &[mark("us", 4), mark("us", 5)]] {
            assert!(!overtaken(&begun, there), "{there:?}");
        }
        for there in [&[][..], &[mark("us", 40)], &[mark("them", 1)], &[mark("us", 4), mark("them", 1)]] {
            assert!(overtaken(&begun, there), "{there:?}");
        }
        let between = Change { order: Order::RemoveFirst, removes: 1, ..begun.clone() };
        assert!(!overtaken(&between, &[]) && overtaken(&between, &[mark("us", 40)]));
        // Whoever takes over has said that the markers give way.
        assert!(!overtaken(&Change { unproven: true, ..begun.clone() }, &[mark("them", 1)]));
        // What it sent is known when it arrives late.
        let left =
            abandon(&Ledger { pending: Some(begun.clone()), ..kept.clone() }, &Change { appends: 1, ..begun.clone() });
        assert_eq!((left.pending, left.marker, left.sent[0].marker.clone()), (None, kept.marker, begun.marker));
    }
}
