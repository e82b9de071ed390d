//! Transitions of a tenant that lives here, or shall.

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    limits::Limits,
    model::{Image, StopReason, VolumeExpectation},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Next, data_missing, fence, incomplete, not_found, require_whole, stale, wrong_state};
use crate::{
    ledger::{Desired, FailedAdd, Hold, Provisioning, Record, Residence, Spec, Volume},
    password::Password,
};

/// What `AddTenant` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddRequest {
    pub(crate) tenant: TenantName,
    pub(crate) generation: Generation,
    /// Image reference.
    pub(crate) image: String,
    pub(crate) volume: VolumeExpectation,
    /// What it may use.
    pub(crate) limits: Limits,
}

/// What an add needs to know of the world, gathered before the decision.
#[derive(Debug, Clone)]
pub(crate) struct AddFacts {
    /// The image, if it is in storage.
    pub(crate) image: Option<Image>,
    /// Lowest free port, if there is one.
    pub(crate) port: Option<u16>,
    /// The engine has a volume of the tenant's name.
    pub(crate) volume_exists: bool,
    /// A fresh password.
    pub(crate) password: Password,
    pub(crate) now: OffsetDateTime,
}

/// A tenant shall live here.
pub(crate) fn admit_add(record: Option<&Record>, add: &AddRequest, facts: &AddFacts) -> Result<Next, Error> {
    let tenant = &add.tenant;
    fence(record, tenant, add.generation)?;
    if let Some(record) = record {
        if let Some(failed) = record.failed_add.as_ref().filter(|failed| failed.generation == add.generation) {
            return Err(Error::refused(&failed.reason, failed.message.clone()).with("tenant", tenant));
        }
        match &record.residence {
            Residence::Active { .. } if record.generation == add.generation => {
                return Ok(Next::Unchanged(record.clone()));
            }
            Residence::Active { .. } | Residence::Sealed => return Err(exists(record)),
            Residence::Departed { forward_to: Some(_) } => return Err(departed(record)),
            // Forgotten by the fleet, but an old copy of its data is still here and must not pass for the newest one.
            Residence::Departed { forward_to: None } if record.volume != Volume::None => return Err(departed(record)),
            Residence::Absent | Residence::Departed { .. } => {}
        }
        if record.incoming.is_some() {
            return Err(wrong_state(record, "abandon the move before adding it"));
        }
        if add.generation == record.generation {
            return Err(stale(record, add.generation));
        }
    }
    let known = record.map_or(Volume::None, |record| record.volume.clone());
    let kept = kept_volume(tenant, &known, add.volume, facts.volume_exists)?;
    let image = facts.image.as_ref().ok_or_else(|| image_missing(&add.image))?;
    let port = facts.port.ok_or_else(no_port)?;
    Ok(Next::Write(Record {
        tenant: tenant.clone(),
        generation: add.generation,
        residence: Residence::Active {
            desired: Desired::Run,
            provisioning: Some(Provisioning { volume_is_new: kept.is_none() }),
        },
        incoming: None,
        spec: Some(Spec {
            placed: add.generation,
            port,
            password: facts.password.clone(),
            image: add.image.clone(),
            image_digest: image.digest.clone(),
            created: facts.now,
            found_data: kept.is_some(),
            adopted: None,
            limits: add.limits,
        }),
        volume: kept.unwrap_or(Volume::None),
        failed_add: None,
        last_reset: None,
        hold: None,
    }))
}

/// The volume to use again, or none when a new one is to be made.
fn kept_volume(
    tenant: &TenantName,
    known: &Volume,
    expectation: VolumeExpectation,
    exists: bool,
) -> Result<Option<Volume>, Error> {
    match (known, exists) {
        (Volume::Incomplete { .. }, _) => Err(incomplete(tenant)),
        (Volume::Complete { .. }, true) => Ok(Some(known.clone())),
        (Volume::Complete { .. }, false) => Err(data_missing(tenant)),
        (Volume::None, _) if expectation == VolumeExpectation::Kept => Err(data_missing(tenant)),
        // A volume from the time before this ledger: nobody ever wrote that it is incomplete.
        (Volume::None, true) => Ok(Some(Volume::whole(Generation(0), None))),
        (Volume::None, false) => Ok(None),
    }
}

/// The add was tried and will not succeed: back to what was, except for the floor.
pub(crate) fn failed_add(record: &Record, error: &Error) -> Record {
    let new = record.provisioning().is_some_and(|provisioning| provisioning.volume_is_new);
    Record {
        residence: Residence::Absent,
        spec: None,
        volume: if new { Volume::None } else { record.volume.clone() },
        failed_add: Some(FailedAdd {
            generation: record.generation,
            reason: error.reason.clone(),
            message: error.message.clone(),
        }),
        ..record.clone()
    }
}

/// A tenant shall no longer live here; its data stays, unless this takes back the add that made it.
///
/// A volume that goes with the tenant is marked incomplete at the removal's own generation first, so that a removal that was cut
/// off is finished by its repetition.
pub(crate) fn admit_remove(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    discard_new: bool,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let Some(current) = record else {
        // The floor keeps a late add of the same placement out.
        return Ok(Next::Write(Record::floor(tenant.clone(), generation)));
    };
    if current.incoming.is_some() {
        return Err(wrong_state(current, "abandon the move before removing it"));
    }
    let never_healthy = current.provisioning().is_some_and(|provisioning| provisioning.volume_is_new);
    let only_added = current.spec.as_ref().is_some_and(|spec| !spec.found_data && spec.placed == current.generation);
    let discard = never_healthy || (discard_new && only_added);
    let next = Record {
        generation,
        residence: Residence::Absent,
        spec: None,
        volume: if discard { Volume::Incomplete { generation } } else { current.volume.clone() },
        ..current.clone()
    };
    Ok(Next::of(record, next))
}

/// A stopped or sealed tenant shall serve its users.
pub(crate) fn admit_start(record: Option<&Record>, tenant: &TenantName, generation: Generation) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let current = record.ok_or_else(|| not_found(tenant))?;
    let next = match current.residence {
        Residence::Active { provisioning, .. } => Record {
            generation,
            residence: Residence::Active { desired: Desired::Run, provisioning },
            ..current.clone()
        },
        Residence::Sealed if generation > current.generation => Record {
            generation,
            residence: Residence::Active { desired: Desired::Run, provisioning: None },
            hold: None,
            ..current.clone()
        },
        Residence::Sealed => return Err(stale_seal(current, generation)),
        Residence::Absent | Residence::Departed { .. } => {
            return Err(wrong_state(current, "only a tenant that lives here can be started"));
        }
    };
    if next.provisioning().is_none() {
        require_whole(&next)?;
    }
    Ok(Next::of(record, next))
}

/// A tenant's container shall be made anew, and serve. The generation in its specification makes another one of it, exactly
/// once, whatever is cut off and repeated.
pub(crate) fn admit_restart(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let current = record.ok_or_else(|| not_found(tenant))?;
    let (Residence::Active { provisioning: None, .. }, Some(spec)) = (&current.residence, &current.spec) else {
        return Err(wrong_state(current, "only a tenant that lives here can be restarted"));
    };
    require_whole(current)?;
    // By now the tenant has written: no undo of its add may take its volume any more.
    let spec = Spec { placed: generation, found_data: true, adopted: None, ..spec.clone() };
    let residence = Residence::Active { desired: Desired::Run, provisioning: None };
    let next = Record { generation, residence, spec: Some(spec), ..current.clone() };
    Ok(Next::of(record, next))
}

fn stale_seal(record: &Record, generation: Generation) -> Error {
    Error::stale(
        reason::STALE_GENERATION,
        format!(
            "{} is sealed for a move at generation {}; only a higher generation than that may start it, and this call has {generation}",
            record.tenant, record.generation
        ),
    )
    .with("tenant", &record.tenant)
    .with("generation", record.generation)
}

/// A tenant shall stop: for its operator, or sealed for a move.
pub(crate) fn admit_stop(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    why: StopReason,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let current = record.ok_or_else(|| not_found(tenant))?;
    let residence = match (&current.residence, why) {
        (Residence::Active { provisioning, .. }, StopReason::Operator) => {
            Residence::Active { desired: Desired::Stop, provisioning: *provisioning }
        }
        (Residence::Active { provisioning: None, .. } | Residence::Sealed, StopReason::Move) => {
            require_whole(current)?;
            Residence::Sealed
        }
        (Residence::Active { .. }, StopReason::Move) => return Err(wrong_state(current, "wait for the add to end")),
        // The undo of a move of a tenant that its operator had stopped.
        (Residence::Sealed, StopReason::Operator) if generation > current.generation => {
            Residence::Active { desired: Desired::Stop, provisioning: None }
        }
        (Residence::Sealed, StopReason::Operator) => return Err(stale_seal(current, generation)),
        (Residence::Absent | Residence::Departed { .. }, _) => {
            return Err(wrong_state(current, "only a tenant that lives here can be stopped"));
        }
    };
    let hold = current.hold.clone().filter(|_| residence == Residence::Sealed);
    Ok(Next::of(record, Record { generation, residence, hold, ..current.clone() }))
}

/// The same with the beginning of the hold, if it is this decision that seals the tenant.
pub(crate) fn holding(before: Option<&Record>, next: Next, hold: Hold) -> Next {
    let sealed = |record: &Record| record.residence == Residence::Sealed;
    match next {
        Next::Write(record) if sealed(&record) && !before.is_some_and(sealed) => {
            Next::Write(Record { hold: Some(hold), ..record })
        }
        next => next,
    }
}

/// A tenant shall have another password.
pub(crate) fn admit_reset(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    request: Uuid,
    password: &Password,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let current = record.ok_or_else(|| not_found(tenant))?;
    let lives_here = matches!(current.residence, Residence::Active { .. });
    let (true, Some(spec)) = (lives_here, &current.spec) else {
        return Err(wrong_state(current, "its password can be set on the server where it lives"));
    };
    if current.last_reset == Some(request) {
        return Ok(Next::Unchanged(current.clone()));
    }
    Ok(Next::Write(Record {
        generation,
        // A container that was taken over as it ran has the old password: it is made anew, also when it still runs.
        spec: Some(Spec { password: password.clone(), adopted: None, ..spec.clone() }),
        last_reset: Some(request),
        ..current.clone()
    }))
}

fn exists(record: &Record) -> Error {
    Error::exists(
        reason::TENANT_EXISTS,
        format!(
            "{} lives on this server already, at generation {}; remove it before adding it anew",
            record.tenant, record.generation
        ),
    )
    .with("tenant", &record.tenant)
    .with("generation", record.generation)
}

fn departed(record: &Record) -> Error {
    wrong_state(
        record,
        "its newest data is elsewhere and an older copy may be here: move it back with `featherctl tenant migrate`, or remove it here first",
    )
}

/// The error for an image that is not in storage.
pub(super) fn image_missing(image: &str) -> Error {
    Error::refused(
        reason::IMAGE_MISSING,
        format!("the image {image} is not in this server's storage; load it there first (`featherctl image load`)"),
    )
    .with("image", image)
}

/// The error for a server without a free port.
pub(super) fn no_port() -> Error {
    Error::full(
        reason::NO_PORT,
        "every port for tenants is taken on this server; choose another server, or widen --ports (FEATHER_AGENT_PORTS)",
    )
}
