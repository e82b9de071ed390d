//! Whether a plan may be carried out. Pure.

use feather_proto::error::{Error, reason};

use super::{Ask, View};
use crate::dns::{
    ledger::Proof,
    propose::{Proposal, Refusal},
};

/// When it is judged.
pub(super) struct Moment {
    pub(super) now_ms: i64,
    pub(super) plan_life_ms: i64,
}

/// The name of a plan made now: when it was made, and what of.
pub fn token(proposal: &Proposal, now_ms: i64) -> String {
    format!("{now_ms}-{}", proposal.digest())
}

/// Why nothing may be done on what a read shows, if so; ends in what to type next.
pub fn refusal(view: &View) -> Option<Error> {
    match &view.proposal.refusal {
        Some(Refusal::Unproven(proof)) => Some(unproven(proof)),
        Some(Refusal::Shrunk { known, found }) => Some(shrunk(*known, *found)),
        None => None,
    }
}

/// May this be carried out? Ends in what to type next.
pub(super) fn judge(view: &View, ask: &Ask, moment: &Moment) -> Result<(), Error> {
    let proposal = &view.proposal;
    let excused = ask.accept_fewer && matches!(proposal.refusal, Some(Refusal::Shrunk { .. }));
    if let Some(error) = refusal(view).filter(|_| !excused) {
        return Err(error);
    }
    if let Some(plan) = &ask.plan {
        same_plan(plan, proposal, moment)?;
    }
    let (changed, owned) = (proposal.names_changed(), view.standing.ours.len());
    let most = ask.cap.of(owned);
    if changed > most {
        let message = format!(
            "{changed} names would change at once, and {most} may ({owned} records are ours); nothing was changed. \
             `featherctl dns plan` shows them, `featherctl dns apply --max-changes {changed}` allows it this once"
        );
        return Err(Error::refused(reason::DNS_CAP, message).with("changes", changed).with("max_changes", most));
    }
    Ok(())
}

fn same_plan(plan: &str, proposal: &Proposal, moment: &Moment) -> Result<(), Error> {
    let parsed = plan.split_once('-').and_then(|(at, digest)| Some((at.parse::<i64>().ok()?, digest)));
    let Some((at, digest)) = parsed else {
        let message = format!("{plan:?} is no plan; `featherctl dns plan` prints its name");
        return Err(Error::invalid(reason::INVALID_FIELD, message));
    };
    let age = moment.now_ms.saturating_sub(at);
    if !(0..=moment.plan_life_ms).contains(&age) {
        let minutes = moment.plan_life_ms / 60_000;
        let message =
            format!("this plan is older than {minutes} minutes; look at a new one with `featherctl dns plan`");
        return Err(Error::stale(reason::WORLD_CHANGED, message));
    }
    if digest != proposal.digest() {
        let message = "zone or fleet have changed since this plan was made; nothing was changed. Look at the new one with \
                       `featherctl dns plan`";
        return Err(Error::stale(reason::WORLD_CHANGED, message));
    }
    Ok(())
}

pub(super) fn unproven(proof: &Proof) -> Error {
    let message = match proof {
        Proof::Missing => "the marker that says which records are ours is gone from the zone, so none of them is touched. If they are, \
                           `featherctl dns adopt --take-over` marks them anew"
            .to_owned(),
        Proof::Newer(generation) => format!(
            "the zone was changed by this fleet later than its store knows (change {generation}): the store may have been restored. \
             Nothing is touched; `featherctl dns adopt --take-over NAME...` says which records are ours"
        ),
        Proof::Other(owner) => format!(
            "the names under this suffix belong to another fleet (owner {owner}), and nothing is touched. If that fleet is no more, \
             `featherctl dns adopt --take-over NAME...` takes its names over"
        ),
        Proof::Fresh | Proof::Proven | Proof::Unmarked => "the zone confirms what is ours".to_owned(),
    };
    Error::refused(reason::DNS_UNPROVEN, message)
}

pub(super) fn shrunk(known: usize, found: usize) -> Error {
    let message = format!(
        "the zone shows {found} records of others where there were {known}, and nothing is changed on that. If it is right, \
         `featherctl dns apply --accept-fewer` goes on; if not, `featherctl dns snapshots` shows what was there"
    );
    Error::refused(reason::DNS_SHRUNK, message).with("known", known).with("found", found)
}
