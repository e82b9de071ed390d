//! Changes one zone, and nothing in it that is not ours.
//!
//! Acts on what [`propose`](super::propose) and [`change`] decide: reads the zone, takes the lease, writes the change
//! down, makes a call, reads again. What a call did is never taken from its reply. One change at a time in this process, one
//! process at a time by the lease.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use feather_proto::error::{Error, reason};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Rules,
    bag::Bag,
    change::{self, Change, Next, Order, Seen},
    ledger::{Ledger, Standing, attribute},
    names::Names,
    propose::{Cap, Proposal, first_change, has_shrunk, propose},
    remarks::Found,
    underway::Sent,
    zone::{Provider, ProviderError, Removed, Zone, ZoneRecord},
};
use crate::{
    store::{
        Store,
        dns::{Lease, LedgerText},
    },
    world::Clock,
};

mod by_hand;
mod judge;
#[cfg(test)]
mod tests;

pub use by_hand::{Adoption, Restoration};
pub use judge::{refusal, token};

/// A plan is carried out in at most so many changes, each as large as the zone's free slots allow.
const CHANGES_MAX: usize = 64;

/// Keeps one zone.
pub struct Keeper {
    store: Store,
    provider: Arc<dyn Provider>,
    clock: Arc<dyn Clock>,
    names: Names,
    rules: Rules,
    /// Provider and zone, as the store calls them.
    key: String,
    /// This process, among all that may want to change the zone.
    holder: String,
    turn: tokio::sync::Mutex<()>,
}

/// What may be done.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Only this plan, as [`token`] named it.
    pub plan: Option<String>,
    /// At most so many names at once.
    pub cap: Cap,
    /// Somebody says that it is right that records of others are gone.
    pub accept_fewer: bool,
}

/// Everything that one read shows.
#[derive(Debug, Clone)]
pub struct View {
    /// What the store says; as if settled, when a change is under way.
    pub ledger: Ledger,
    /// A change is under way.
    pub pending: bool,
    /// How often it was sent.
    pub sent: Sent,
    /// As read.
    pub zone: Zone,
    /// Whose is what.
    pub standing: Standing,
    /// What would be done.
    pub proposal: Proposal,
}

impl View {
    /// What a person should know of it.
    pub fn found(&self, names: &Names) -> Found {
        Found {
            noticed: self.ledger.noticed.clone(),
            conflicts: self.proposal.conflicts.clone(),
            no_slot: self.proposal.no_slot.clone(),
            among_ours: self.standing.foreign.records().filter(|record| names.covers(&record.host)).cloned().collect(),
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Records that were added.
    pub created: usize,
    /// Records that went.
    pub removed: usize,
    /// Records of ours now.
    pub owned: usize,
    /// Of the zone before the first change.
    pub snapshot: Option<i64>,
    /// Something of others that changed meanwhile, in a sentence.
    pub noticed: Option<String>,
    /// What a person should know of the zone as it is now.
    pub found: Found,
    /// Hosts at which the zone is not as wanted all the same.
    pub unsettled: BTreeSet<String>,
    /// Of the zone, in seconds.
    pub ttl: u32,
}

/// A zone as it was, with what was ours in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// All of it.
    pub zone: Zone,
    /// Ours, markers included.
    pub ours: Bag,
}

impl Kept {
    fn is_but_for_markers(&self, other: &Self, names: &Names) -> bool {
        // Of somebody else's record at the marker's name there must be a copy, too.
        let bare = |kept: &Self| {
            let markers: Bag = kept.ours.records().filter(|record| record.host == names.marker_host()).collect();
            let rest = |bag: &Bag| bag.without(&markers).listed();
            (kept.zone.ttl, rest(&Bag::of(&kept.zone)), rest(&kept.ours))
        };
        bare(self) == bare(other)
    }
}

/// The right to write, and what is written on.
struct Writer {
    lease: Lease,
    ledger: Ledger,
    version: i64,
}

impl Keeper {
    /// `key` names provider and zone in the store, `holder` this process.
    pub fn new(
        store: Store,
        provider: Arc<dyn Provider>,
        clock: Arc<dyn Clock>,
        names: Names,
        rules: Rules,
        key: &str,
        holder: &str,
    ) -> Self {
        let (key, holder) = (key.to_owned(), holder.to_owned());
        Self { store, provider, clock, names, rules, key, holder, turn: tokio::sync::Mutex::default() }
    }

    /// Where the fleet's names are.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Provider and zone, as the store calls them.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Reads the zone and plans. Changes nothing.
    pub async fn view(&self, wanted: &[ZoneRecord]) -> Result<View, Error> {
        let (ledger, _) = self.ledger().await?;
        let zone = self.read().await?;
        Ok(self.plan_on(&ledger, zone, wanted))
    }

    fn plan_on(&self, ledger: &Ledger, zone: Zone, wanted: &[ZoneRecord]) -> View {
        // A change under way is looked at as if it had ended with what is there now.
        let sent = ledger.pending.as_ref();
        let settled = sent.map(|change| change::settle(ledger, change, &zone, self.now_ms()));
        let (pending, ledger) = (settled.is_some(), settled.unwrap_or_else(|| ledger.clone()));
        let standing = attribute(&self.names, &ledger, &zone);
        let sent = sent.map_or(Sent::Nothing, |change| match change.appends.max(change.removes) {
            0 | 1 => Sent::Once(change.sent_ms),
            _ => Sent::Again,
        });
        let proposal = propose(&ledger, &standing, &zone, wanted);
        View { ledger, pending, sent, zone, standing, proposal }
    }

    /// Makes the zone what is wanted, within what is asked. Idempotent; ends first what did not end.
    pub async fn apply(&self, wanted: &[ZoneRecord], ask: &Ask) -> Result<Done, Error> {
        let _turn = self.turn.lock().await;
        self.end_pending(ask.accept_fewer).await?;
        let (ledger, version) = self.ledger().await?;
        let zone = self.read().await?;
        let view = self.plan_on(&ledger, zone, wanted);
        judge::judge(&view, ask, &self.judgement())?;
        let news = ledger.foreign_known.is_some_and(|known| known != view.proposal.foreign);
        if view.proposal.is_empty() && !news {
            let (unsettled, ttl) = (view.proposal.unsettled(), view.zone.ttl);
            let owned = view.standing.ours.len();
            let found = view.found(&self.names);
            return Ok(Done { owned, noticed: ledger.noticed, found, unsettled, ttl, ..Done::default() });
        }
        // Whoever wrote the ledger since it was read makes the first write on it fail, before anything is sent.
        let mut writer = self.write_on(ledger, version).await?;
        let done = self.carry_out(&mut writer, view, wanted, ask).await;
        self.hand_back(writer).await;
        done
    }

    /// Ends a change that did not end, whatever is wanted now.
    pub async fn resume(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.end_pending(false).await
    }

    async fn end_pending(&self, accept_fewer: bool) -> Result<(), Error> {
        let (ledger, version) = self.ledger().await?;
        if ledger.pending.is_none() {
            return Ok(());
        }
        let mut writer = self.write_on(ledger, version).await?;
        let ended = self.drive(&mut writer, None, accept_fewer).await;
        self.hand_back(writer).await;
        ended.map(drop)
    }

    /// Change after change, until the plan is carried out. Never more than the plan: what a later read adds to it is the next one's.
    async fn carry_out(
        &self,
        writer: &mut Writer,
        first: View,
        wanted: &[ZoneRecord],
        ask: &Ask,
    ) -> Result<Done, Error> {
        let mut done = Done::default();
        let (may_create, may_remove) = (first.proposal.create.clone(), first.proposal.remove.clone());
        let mut view = first;
        for _ in 0..CHANGES_MAX {
            view.proposal.create.retain(|record| may_create.contains(record));
            view.proposal.remove.retain(|record| may_remove.contains(record));
            let change = first_change(&self.names, &writer.ledger, &view.standing, &view.proposal, &view.zone);
            let Some(change) = change else { break };
            let taken = self.keep_snapshot(&view.zone, &view.standing, &told(&change)).await?;
            done.snapshot.get_or_insert(taken);
            let (created, removed) = (change.append.len(), change.remove.len() - change.markers.records().count());
            self.begin(writer, change);
            let zone = self.drive(writer, Some(view.zone), ask.accept_fewer).await?;
            done.created += created;
            done.removed += removed;
            view = self.plan_on(&writer.ledger, zone, wanted);
            if view.proposal.refusal.is_some() {
                break;
            }
        }
        writer.ledger.foreign_known = Some(view.proposal.foreign);
        self.save(writer).await?;
        done.owned = writer.ledger.owned.len();
        done.noticed = writer.ledger.noticed.clone();
        done.found = Found { noticed: done.noticed.clone(), ..view.found(&self.names) };
        (done.unsettled, done.ttl) = (view.proposal.unsettled(), view.zone.ttl);
        Ok(done)
    }

    /// From now on it is under way; written down with its first call.
    fn begin(&self, writer: &mut Writer, change: Change) {
        writer.ledger.generation = change.generation;
        writer.ledger.noticed = None;
        writer.ledger.pending = Some(change);
    }

    /// Drives what is under way to its end; the zone as it was read last. `first`: the zone as it was just read, for a change that begins now.
    async fn drive(&self, writer: &mut Writer, first: Option<Zone>, accept_fewer: bool) -> Result<Zone, Error> {
        let until = Instant::now() + self.rules.sight;
        let patience_ms = i64::try_from(self.rules.patience.as_millis()).unwrap_or(i64::MAX);
        let begins = first.is_some();
        let mut zone = match first {
            Some(zone) => zone,
            None => self.read().await?,
        };
        let mut pause = self.rules.look_again;
        let mut refused = None;
        loop {
            let Some(change) = writer.ledger.pending.clone() else { return Err(Error::bug("no change is under way")) };
            if !begins && change::is_overtaken(&self.names, &writer.ledger, &change, &zone) {
                tracing::warn!("a change that was under way is given up: the zone is not what it was made for");
                writer.ledger = change::abandon(&writer.ledger, &change);
                self.save(writer).await?;
                return Ok(zone);
            }
            let seen = change::look(&change, &zone);
            self.notice(writer, &change, &seen, &zone, accept_fewer).await?;
            let next = match change::next(&change, &seen, self.now_ms(), patience_ms) {
                // Planned on a read that is old by now, and nothing was sent.
                Next::Append | Next::Remove if !begins && change.appends + change.removes == 0 => Next::Settle,
                // Nobody knows that better than the provider.
                Next::Append | Next::Remove | Next::Wait if refused.is_some() => Next::GiveUp,
                next => next,
            };
            match next {
                Next::Append | Next::Remove => refused = self.call(writer, next == Next::Append).await?,
                Next::Wait if Instant::now() < until => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.rules.look_again * 8);
                }
                Next::Wait => {
                    let message =
                        "the provider took a change and does not show it yet; it is looked at again by and by";
                    return Err(Error::timeout(reason::DNS, message));
                }
                Next::Settle | Next::GiveUp => {
                    writer.ledger = change::settle(&writer.ledger, &change, &zone, self.now_ms());
                    self.save(writer).await?;
                    return match (refused, next) {
                        (Some(why), _) => {
                            Err(Error::refused(reason::DNS, format!("the provider refused the change: {why}")))
                        }
                        (None, Next::GiveUp) => Err(Error::unavailable(
                            reason::DNS,
                            "the provider took a change several times and never showed it; it is planned anew",
                        )),
                        _ => Ok(zone),
                    };
                }
            }
            zone = self.read().await?;
        }
    }

    /// Makes one call. It is written down before it is made. Some: the provider refused it; an error: it was not made.
    async fn call(&self, writer: &mut Writer, append: bool) -> Result<Option<String>, Error> {
        writer.lease = self.store.renew_dns_lease(&writer.lease, self.clock.now(), self.rules.lease()).await?;
        let sent_ms = self.now_ms();
        let Some(change) = writer.ledger.pending.as_mut() else { return Err(Error::bug("no change is under way")) };
        let earlier = change.sent_ms;
        change.sent_ms = sent_ms;
        *(if append { &mut change.appends } else { &mut change.removes }) += 1;
        let change = change.clone();
        self.save(writer).await?;
        let answered = if append { self.send(&change).await } else { self.take_away(&change).await };
        match answered {
            Ok(()) => Ok(None),
            // Judged by the next read, like an answer.
            Err(ProviderError::Unknown(why)) => {
                tracing::warn!(why, "nobody knows what became of a change of the zone; reading it");
                Ok(None)
            }
            Err(ProviderError::Refused(why)) => Ok(Some(why)),
            Err(ProviderError::Later { message, pause }) => {
                if let Some(change) = writer.ledger.pending.as_mut() {
                    change.sent_ms = earlier;
                    *(if append { &mut change.appends } else { &mut change.removes }) -= 1;
                }
                self.save(writer).await?;
                Err(later(message, pause))
            }
        }
    }

    async fn send(&self, change: &Change) -> Result<(), ProviderError> {
        if let (Order::Replace, Some(zone)) = (change.order, &change.replace) {
            return self.provider.replace(zone).await;
        }
        let records: Vec<_> = change.append.iter().chain([&change.marker]).cloned().collect();
        self.provider.append(&records, change.ttl).await
    }

    async fn take_away(&self, change: &Change) -> Result<(), ProviderError> {
        let Removed { apex, sub } = self.provider.remove(&change.remove).await?;
        if (apex, sub) != (0, change.remove.len()) {
            tracing::warn!(
                asked = change.remove.len(),
                apex,
                sub,
                "the provider counts other removals than were asked for"
            );
        }
        Ok(())
    }

    /// Says what of others changed meanwhile. Stops when so much is gone that a person has to look.
    async fn notice(
        &self,
        writer: &mut Writer,
        change: &Change,
        seen: &Seen,
        zone: &Zone,
        accept_fewer: bool,
    ) -> Result<(), Error> {
        if change.order == Order::Replace && seen.applied == 0 {
            return Ok(());
        }
        if zone.ttl != change.ttl {
            tracing::warn!(was = change.ttl, is = zone.ttl, "the zone's TTL was changed by somebody else");
            // Every call that adds says a TTL, and the provider takes it for the zone's.
            if let Some(pending) = writer.ledger.pending.as_mut().filter(|pending| pending.order != Order::Replace) {
                pending.ttl = zone.ttl;
            }
        }
        let (gone, came) = (change.foreign.without(&seen.foreign), seen.foreign.without(&change.foreign));
        if gone.is_empty() && came.is_empty() {
            return Ok(());
        }
        if !accept_fewer && has_shrunk(Some(change.foreign.len()), seen.foreign.len()) {
            return Err(judge::shrunk(change.foreign.len(), seen.foreign.len()));
        }
        let list = |bag: &Bag| bag.listed().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut sentence = "while a change of ours was under way, somebody else changed the zone".to_owned();
        if !gone.is_empty() {
            sentence.push_str(&format!("; gone: {}", list(&gone)));
        }
        if !came.is_empty() {
            sentence.push_str(&format!("; new: {}", list(&came)));
        }
        tracing::warn!(
            gone = gone.len(),
            new = came.len(),
            "records of others changed while the zone was being changed"
        );
        writer.ledger.noticed = Some(sentence);
        if let Some(change) = writer.ledger.pending.as_mut() {
            change.foreign = seen.foreign.clone();
        }
        self.save(writer).await
    }

    async fn keep_snapshot(&self, zone: &Zone, standing: &Standing, why: &str) -> Result<i64, Error> {
        let kept = Kept { zone: zone.clone(), ours: standing.ours.with(&standing.markers) };
        // A change that is refused again and again must not push out what was kept of better days.
        let newest = self.store.newest_dns_snapshot(&self.key).await?;
        if let Some(row) = newest
            && by_hand::read_kept(&row)?.is_but_for_markers(&kept, &self.names)
        {
            return Ok(row.id);
        }
        let content = serde_json::to_string(&kept).map_err(|error| Error::bug(error.to_string()))?;
        Ok(self.store.add_dns_snapshot(&self.key, self.clock.now(), why, &content, self.rules.snapshots).await?)
    }

    async fn ledger(&self) -> Result<(Ledger, i64), Error> {
        let LedgerText { text, version } = self.store.dns_ledger(&self.key).await?;
        if version == 0 {
            // Sixteen digits tell fleets apart and leave room in the marker.
            let owner = crate::enroll::new_secret()[..16].to_owned();
            return Ok((Ledger { owner, ..Ledger::default() }, 0));
        }
        let ledger =
            serde_json::from_str(&text).map_err(|error| Error::bug(format!("the ledger of {}: {error}", self.key)))?;
        Ok((ledger, version))
    }

    async fn write_on(&self, ledger: Ledger, version: i64) -> Result<Writer, Error> {
        let lease = self.store.lease_dns(&self.key, &self.holder, self.clock.now(), self.rules.lease()).await?;
        Ok(Writer { lease, ledger, version })
    }

    async fn save(&self, writer: &mut Writer) -> Result<(), Error> {
        let text = serde_json::to_string(&writer.ledger).map_err(|error| Error::bug(error.to_string()))?;
        let written = LedgerText { text, version: writer.version };
        writer.version = self.store.write_dns_ledger(&writer.lease, &written, self.clock.now()).await?;
        Ok(())
    }

    /// Not being able to give it back is no failure: it ends by itself.
    async fn hand_back(&self, writer: Writer) {
        if let Err(error) = self.store.return_dns_lease(&writer.lease).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease of the zone was not given back; it ends by itself"
            );
        }
    }

    async fn read(&self) -> Result<Zone, Error> {
        let mut zone = self.provider.read().await.map_err(|error| match error {
            ProviderError::Later { message, pause } => later(message, pause),
            // Nothing hangs on a read.
            ProviderError::Unknown(why) => later(why, Duration::ZERO),
            ProviderError::Refused(why) => Error::refused(reason::DNS, format!("the zone cannot be read: {why}")),
        })?;
        zone.records.sort();
        Ok(zone)
    }

    fn judgement(&self) -> judge::Moment {
        judge::Moment {
            now_ms: self.now_ms(),
            plan_life_ms: i64::try_from(self.rules.plan_life.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// Metadata of an error: not before so many milliseconds.
pub const PAUSE: &str = "pause_ms";

fn later(message: String, pause: Duration) -> Error {
    Error::unavailable(reason::DNS, format!("the DNS provider cannot be asked now: {message}"))
        .with(PAUSE, pause.as_millis())
}

fn told(change: &Change) -> String {
    match change.order {
        Order::Replace => "restore".to_owned(),
        _ if !change.adopting.is_empty() => format!("adoption of {} records", change.adopting.len()),
        _ => format!(
            "{} to create, {} to remove",
            change.append.len(),
            change.remove.len() - change.markers.records().count()
        ),
    }
}
