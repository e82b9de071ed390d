//! The steps that carry data: passes while the tenant runs, the one behind the stop, and the proof.

use feather_proto::{
    error::{Error, reason},
    model::VolumeSummary,
};

use super::{
    Facts, Plan, Round,
    rounds::{self, Next},
};
use crate::{
    agents::{OnProgress, Pass, PullFrom, Pulled, Reading, TransferProgress},
    operations::{Context, Outcome, engine::new_ticket},
    relay::Terms,
};

/// Rounds of what has changed since the one before, until the last pass will be short or will not get shorter.
pub(super) async fn precopy(context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
    if !context.plan.running {
        return Ok(Outcome::note("it is stopped anyway"));
    }
    // Rounds of a driver before this one count for nothing: what they brought is found by the first round of this one.
    facts.rounds.clear();
    let reason = loop {
        if let Next::Enough(reason) = rounds::next(&facts.rounds) {
            break reason;
        }
        let number = u32::try_from(facts.rounds.len() + 1).unwrap_or(u32::MAX);
        match pass(context, Pass::Live, "pre-copy", number).await {
            Ok((round, _)) => facts.rounds.push(round),
            // The volume changed in a way that this pass could not follow: what has come is still of use.
            Err(error) if error.is(reason::WRONG_STATE) && !facts.rounds.is_empty() => {
                break "the volume is too lively";
            }
            Err(error) => return Err(unreached(error, context.plan)),
        }
    };
    facts.rounds_ended = Some(reason.to_owned());
    let sent: u64 = facts.rounds.iter().map(|round| round.wire_bytes).sum();
    let last = facts.rounds.last().map_or(0, |round| round.duration_ms);
    let count = facts.rounds.len();
    let rounds = if count == 1 { "round" } else { "rounds" };
    Ok(Outcome::note(format!("{sent} bytes in {count} {rounds}, the last of {last} ms; {reason}")))
}

/// One pass over the volume, by a ticket of its own. Round 0 is the one behind the stop.
async fn pass(context: &Context<'_, Plan>, pass: Pass, name: &str, round: u32) -> Result<(Round, Pulled), Error> {
    let (world, plan) = (context.world, context.plan);
    let began = tokio::time::Instant::now();
    let ticket = new_ticket();
    let (from, to) = (world.store.member(&plan.source).await?, world.store.member(&plan.target).await?);
    let source = world.agent(&plan.source).await?;
    source.grant_transfer(&context.call("grant"), &to.principal(), &ticket, plan.relayed).await?;
    let terms = Terms {
        tenant: context.tenant().clone(),
        generation: context.fence.generation,
        source: plan.source.clone(),
        target: plan.target.clone(),
    };
    // Until this pass has ended, however it does.
    let _open = plan.relayed.then(|| world.relays.open(terms, &ticket));
    let from = PullFrom {
        server: from.principal(),
        address: if plan.relayed { world.advertise.clone() } else { from.address },
        relayed: plan.relayed,
        ticket,
        bytes_per_second_max: plan.bytes_per_second_max,
    };
    let target = world.agent(&plan.target).await?;
    let pulled = target.pull_volume(&context.call(name), &from, pass, on_progress(context, round)).await?;
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let round =
        Round { files: pulled.files_changed, bytes: pulled.bytes_changed, wire_bytes: pulled.wire_bytes, duration_ms };
    Ok((round, pulled))
}

fn on_progress(context: &Context<'_, Plan>, round: u32) -> OnProgress {
    let (volatile, id) = (context.world.volatile.clone(), context.id.clone());
    std::sync::Arc::new(move |now: TransferProgress| volatile.note_progress(&id, TransferProgress { round, ..now }))
}

/// Two agents that do not reach each other need the controller between them; nothing of the tenant was touched yet.
fn unreached(error: Error, plan: &Plan) -> Error {
    if plan.relayed || !error.is(reason::PEER_UNREACHABLE) {
        return error;
    }
    let advice = format!(
        "{}; if {} and {} cannot reach each other but the controller reaches both, move it with `--via controller`",
        error.message, plan.target, plan.source
    );
    Error { message: advice, ..error }
}

pub(super) async fn transfer(context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
    let (round, pulled) = pass(context, Pass::Final, "transfer", 0).await.map_err(|error| {
        // Otherwise the passes before the stop have shown that there is a way.
        if context.plan.running { error } else { unreached(error, context.plan) }
    })?;
    facts.last_pass = Some(round);
    if pulled.sent.root_digest != pulled.received.root_digest {
        return Err(differs(context, &pulled.sent, &pulled.received));
    }
    Ok(Outcome::note(format!(
        "{} bytes in {} files with root digest {}, of which {} bytes were sent now",
        pulled.received.bytes, pulled.received.files, pulled.received.root_digest, pulled.wire_bytes
    )))
}

pub(super) async fn verify(context: &Context<'_, Plan>, facts: &mut Facts) -> Result<Outcome, Error> {
    let (world, plan) = (context.world, context.plan);
    let (source, target) = (world.agent(&plan.source).await?, world.agent(&plan.target).await?);
    let reading = Reading::WhatMayHaveChanged;
    let (source, target) = tokio::try_join!(
        source.verify_volume(context.tenant(), reading),
        target.verify_volume(context.tenant(), reading)
    )?;
    if source.root_digest != target.root_digest {
        return Err(differs(context, &source, &target));
    }
    let message = format!("root digest {} on both sides", source.root_digest);
    (facts.source, facts.target) = (Some(source), Some(target));
    Ok(Outcome::note(message))
}

fn differs(context: &Context<'_, Plan>, source: &VolumeSummary, target: &VolumeSummary) -> Error {
    Error::refused(
        reason::DATA_DIFFERS,
        format!(
            "the volume of {} is not the same on both sides ({} on {}, {} on {}); nothing was switched",
            context.tenant(),
            source.root_digest,
            context.plan.source,
            target.root_digest,
            context.plan.target
        ),
    )
}
