//! Transitions of a move: on the target from the reservation to the activation or its undo, on the source from the hand-off
//! to retirement. (Sealing the source is a stop: see `living.rs`.)

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    model::{IncomingStage, VolumeSummary},
};
use time::OffsetDateTime;

use super::{
    Next, data_missing, fence, incomplete,
    living::{image_missing, no_port},
    not_found, stale, wrong_state,
};
use crate::ledger::{Desired, Incoming, Record, Residence, Spec, Volume};

/// What `ReserveTenant` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReserveRequest {
    pub(crate) tenant: TenantName,
    pub(crate) generation: Generation,
    pub(crate) image_digest: String,
    pub(crate) volume_bytes: u64,
}

/// What a reservation needs to know of the world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReserveFacts {
    pub(crate) image_exists: bool,
    /// Lowest free port, if there is one.
    pub(crate) port: Option<u16>,
    pub(crate) disk_free_bytes: u64,
    /// A volume of the tenant's name is there, whoever put it there.
    pub(crate) volume_exists: bool,
}

/// A tenant may come here: a port is held for it.
pub(crate) fn admit_reserve(
    record: Option<&Record>,
    reserve: &ReserveRequest,
    facts: &ReserveFacts,
) -> Result<Next, Error> {
    let tenant = &reserve.tenant;
    fence(record, tenant, reserve.generation)?;
    if let Some(record) = record {
        match &record.incoming {
            Some(incoming) if incoming.generation == reserve.generation => return Ok(Next::Unchanged(record.clone())),
            Some(_) => return Err(wrong_state(record, "abandon that move first")),
            None => {}
        }
        if matches!(record.residence, Residence::Active { .. } | Residence::Sealed) {
            return Err(wrong_state(record, "it cannot move to where it is"));
        }
        // Equal is stale, too: that move was abandoned, and this call is a late copy of its beginning.
        if reserve.generation == record.generation {
            return Err(stale(record, reserve.generation));
        }
    }
    if facts.volume_exists && record.is_none_or(|record| record.volume == Volume::None) {
        return Err(strange_volume(tenant));
    }
    if !facts.image_exists {
        return Err(image_missing(&reserve.image_digest));
    }
    let needed = u128::from(reserve.volume_bytes) * 11 / 10;
    if u128::from(facts.disk_free_bytes) < needed {
        return Err(no_disk(tenant, needed, facts.disk_free_bytes));
    }
    let port = facts.port.ok_or_else(no_port)?;
    let current = record.cloned().unwrap_or_else(|| Record::floor(tenant.clone(), reserve.generation));
    Ok(Next::Write(Record {
        generation: reserve.generation,
        incoming: Some(Incoming {
            generation: reserve.generation,
            port,
            image_digest: reserve.image_digest.clone(),
            stage: IncomingStage::Reserved,
            spec: None,
        }),
        ..current
    }))
}

/// It would be overwritten, and deleted if the move is given up.
fn strange_volume(tenant: &TenantName) -> Error {
    let volume = tenant.container();
    Error::refused(
        reason::WRONG_STATE,
        format!(
            "a volume {volume} is on this server that neither a move nor {tenant} left there; nothing was touched. Export it with \
             `podman volume export {volume}` in the birth if it is of use, remove it with `podman volume rm {volume}`, and move \
             again; or choose another server"
        ),
    )
    .with("tenant", tenant)
}

fn no_disk(tenant: &TenantName, needed: u128, free: u64) -> Error {
    Error::full(
        reason::NO_DISK,
        format!(
            "the volume of {tenant} needs {needed} bytes with headroom and this server has {free} free; free some space or choose another \
             server"
        ),
    )
    .with("tenant", tenant)
    .with("needed_bytes", needed)
    .with("free_bytes", free)
}

/// The move at exactly this generation.
fn incoming<'a>(
    record: Option<&'a Record>,
    tenant: &TenantName,
    generation: Generation,
) -> Result<(&'a Record, &'a Incoming), Error> {
    fence(record, tenant, generation)?;
    let record = record.ok_or_else(|| not_found(tenant))?;
    match &record.incoming {
        Some(incoming) if incoming.generation == generation => Ok((record, incoming)),
        _ => Err(wrong_state(record, "no move to this server is reserved at the generation of this call")),
    }
}

/// The volume is about to be received: from here on what lies there is incomplete.
pub(crate) fn admit_pull(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
) -> Result<Record, Error> {
    let (record, coming) = incoming(record, tenant, generation)?;
    if coming.stage == IncomingStage::Trial {
        return Err(wrong_state(record, "its trial has begun; abandon the move to receive the volume again"));
    }
    Ok(Record {
        incoming: Some(Incoming { stage: IncomingStage::Reserved, spec: None, ..coming.clone() }),
        volume: Volume::Incomplete { generation },
        ..record.clone()
    })
}

/// The volume was received whole, together with what its source said of the tenant.
pub(crate) fn received(record: &Record, spec: Spec, summary: VolumeSummary) -> Result<Record, Error> {
    let (Some(coming), Volume::Incomplete { generation }) = (&record.incoming, &record.volume) else {
        return Err(wrong_state(record, "the volume arrived for a move that is no longer reserved"));
    };
    fits(record, &spec.image_digest)?;
    let spec = Spec { placed: coming.generation, port: coming.port, ..spec };
    Ok(Record {
        incoming: Some(Incoming { stage: IncomingStage::Received, spec: Some(spec), ..coming.clone() }),
        volume: Volume::whole(*generation, Some(summary)),
        ..record.clone()
    })
}

/// What comes must run on the image that the reservation was made for.
pub(crate) fn fits(record: &Record, image_digest: &str) -> Result<(), Error> {
    match &record.incoming {
        Some(coming) if coming.image_digest != image_digest => Err(Error::refused(
            reason::IMAGE_MISSING,
            format!(
                "{} runs on the image {image_digest} and the reservation was made for {}; plan the move again",
                record.tenant, coming.image_digest
            ),
        )),
        _ => Ok(()),
    }
}

/// A received tenant may start without a public route.
pub(crate) fn admit_trial(record: Option<&Record>, tenant: &TenantName, generation: Generation) -> Result<Next, Error> {
    let (current, coming) = incoming(record, tenant, generation)?;
    if !current.volume.complete_at(generation) {
        let missing = current.volume == Volume::None;
        return Err(if missing { data_missing(tenant) } else { incomplete(tenant) });
    }
    if coming.stage == IncomingStage::Reserved || coming.spec.is_none() {
        return Err(wrong_state(current, "its volume has not been received"));
    }
    let next = Record { incoming: Some(Incoming { stage: IncomingStage::Trial, ..coming.clone() }), ..current.clone() };
    Ok(Next::of(record, next))
}

/// The trial did not succeed; it may be tried again.
pub(crate) fn trial_failed(record: &Record) -> Record {
    let incoming = record.incoming.clone();
    Record { incoming: incoming.map(|coming| Incoming { stage: IncomingStage::Received, ..coming }), ..record.clone() }
}

/// What an abandoned move leaves to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Abandon {
    /// Nothing is held here for this generation.
    Nothing,
    /// Only the floor is to be written, so that a late reservation is refused.
    Floor(Record),
    /// Give back container and, if true, the volume; then [`abandoned`].
    GiveBack {
        /// To be written first: whatever is cut off from here on can only be abandoned again.
        marked: Record,
        /// The volume was written by this move.
        volume: bool,
    },
}

/// A move towards this server shall be as if it had never begun.
pub(crate) fn admit_abandon(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
) -> Result<Abandon, Error> {
    fence(record, tenant, generation)?;
    let Some(record) = record else {
        return Ok(Abandon::Floor(Record::floor(tenant.clone(), generation)));
    };
    match (&record.incoming, &record.residence) {
        (Some(coming), _) if coming.generation == generation => {
            let volume = matches!(
                record.volume,
                Volume::Incomplete { generation: by } | Volume::Complete { generation: by, .. } if by == generation
            );
            let marked = Record {
                incoming: Some(Incoming { stage: IncomingStage::Reserved, spec: None, ..coming.clone() }),
                volume: if volume { Volume::Incomplete { generation } } else { record.volume.clone() },
                ..record.clone()
            };
            Ok(Abandon::GiveBack { marked, volume })
        }
        (Some(_), _) => Err(wrong_state(record, "no move to this server is reserved at the generation of this call")),
        (None, Residence::Active { .. } | Residence::Sealed) if record.generation == generation => {
            Err(wrong_state(record, "the move was committed and cannot be abandoned; move it back instead"))
        }
        // It lives here under an older placement: there is nothing to abandon, and its placement stays valid.
        (None, Residence::Active { .. } | Residence::Sealed) => Ok(Abandon::Nothing),
        (None, Residence::Absent | Residence::Departed { .. }) if record.generation == generation => {
            // The first call kept the data until this one.
            if record.volume == (Volume::Incomplete { generation }) {
                return Ok(Abandon::GiveBack { marked: record.clone(), volume: true });
            }
            Ok(Abandon::Nothing)
        }
        (None, Residence::Absent | Residence::Departed { .. }) => {
            Ok(Abandon::Floor(Record { generation, ..record.clone() }))
        }
    }
}

/// Everything was given back.
pub(crate) fn abandoned(record: &Record, volume_removed: bool) -> Record {
    Record {
        incoming: None,
        volume: if volume_removed { Volume::None } else { record.volume.clone() },
        ..record.clone()
    }
}

/// After the commit: the trial becomes the tenant. One that its operator stopped had no trial and stays stopped.
pub(crate) fn admit_activate(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    desired: Desired,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    if let Some(record) = record
        && record.generation == generation
        && record.incoming.is_none()
        && matches!(record.residence, Residence::Active { .. })
    {
        return Ok(Next::Unchanged(record.clone()));
    }
    let (current, coming) = incoming(record, tenant, generation)?;
    let ready = match desired {
        // Past the commit there is no way back: a trial that ended meanwhile is started again rather than refused.
        Desired::Run => coming.stage != IncomingStage::Reserved && current.volume.complete_at(generation),
        Desired::Stop => coming.stage == IncomingStage::Received && current.volume.complete_at(generation),
    };
    let (true, Some(spec)) = (ready, &coming.spec) else {
        return Err(wrong_state(current, "its volume was not received, or its trial has not succeeded"));
    };
    Ok(Next::Write(Record {
        residence: Residence::Active { desired, provisioning: None },
        incoming: None,
        spec: Some(spec.clone()),
        volume: current.volume.clone().kept_until(None),
        failed_add: None,
        last_reset: None,
        hold: None,
        ..current.clone()
    }))
}

/// The tenant lives elsewhere: told to the source after the commit, and to any server that still gets requests for it. Without a
/// target the fleet has no such tenant any more, and a server that holds nothing of it forgets all but the generation.
pub(crate) fn admit_hand_off(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    forward_to: Option<String>,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let floor = Record::floor(tenant.clone(), generation);
    let current = record.unwrap_or(&floor);
    if current.incoming.is_some() {
        return Err(wrong_state(current, "abandon the move to this server first"));
    }
    let residence = match forward_to {
        None if current.volume == Volume::None => Residence::Absent,
        forward_to => Residence::Departed { forward_to },
    };
    let departed = Record { generation, residence, spec: None, last_reset: None, ..current.clone() };
    match current.residence {
        Residence::Departed { .. } => Ok(Next::of(record, departed)),
        // Data that is kept here for a removed tenant stays what it is; only a server without any is a mere signpost.
        Residence::Absent if current.volume == Volume::None => Ok(Next::of(record, departed)),
        Residence::Sealed if generation > current.generation => Ok(Next::Write(departed)),
        Residence::Sealed => Err(wrong_state(current, "a hand-off needs the target's generation, which is higher")),
        Residence::Absent => Ok(Next::of(record, Record { generation, ..current.clone() })),
        Residence::Active { .. } => Err(wrong_state(current, "stop it for the move first")),
    }
}

/// Last step on the source: only the volume stays, as the undo copy.
pub(crate) fn admit_retire(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    keep_until: OffsetDateTime,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let current = record.ok_or_else(|| not_found(tenant))?;
    let gone = matches!(current.residence, Residence::Departed { .. } | Residence::Absent);
    if !gone || current.incoming.is_some() {
        return Err(wrong_state(current, "only a tenant that has moved away can be retired"));
    }
    let volume = current.volume.clone().kept_until(Some(keep_until));
    Ok(Next::of(record, Record { generation, volume, ..current.clone() }))
}
