//! What may become of a tenant's record: pure functions from what is and what is asked to what shall be.
//!
//! Owns every refusal that follows from generations and states. Knows no effects: whoever calls writes the new record first
//! and acts afterwards. An answer of [`Next::Unchanged`] means that the request was applied before; the caller then makes
//! sure that the effects hold, too, because the first attempt may have been cut off after its write.

mod adopting;
mod data;
mod fencing;
mod limiting;
mod living;
mod moving;
mod reclaiming;

#[cfg(test)]
mod tests;

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
};

use crate::ledger::{Record, Residence, Volume};

pub(crate) use adopting::admit_adopt;
pub(crate) use data::{admit_grant, admit_import, admit_remove_volume, admit_send};
pub(crate) use fencing::fenced;
pub(crate) use limiting::{LimitFacts, admit_limits};
pub(crate) use living::{
    AddFacts, AddRequest, admit_add, admit_remove, admit_reset, admit_restart, admit_start, admit_stop, failed_add,
    holding,
};
pub(crate) use moving::{
    Abandon, ReserveFacts, ReserveRequest, abandoned, admit_abandon, admit_activate, admit_hand_off, admit_pull,
    admit_reserve, admit_retire, admit_trial, fits, received, trial_failed,
};

pub(crate) use reclaiming::admit_reclaim;

/// What shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// The record says so already.
    Unchanged(Record),
    /// This record is to be written before anything else happens.
    Write(Record),
}

impl Next {
    /// The same record is not written twice.
    fn of(current: Option<&Record>, next: Record) -> Self {
        if current == Some(&next) { Next::Unchanged(next) } else { Next::Write(next) }
    }
}

/// Refuses what an older decision asks for.
fn fence(record: Option<&Record>, tenant: &TenantName, generation: Generation) -> Result<(), Error> {
    if generation == Generation(0) {
        return Err(Error::invalid(reason::INVALID_FIELD, "the field `generation` must be at least 1")
            .with("field", "generation"));
    }
    match record {
        Some(record) if generation < record.generation => Err(stale(record, generation)),
        _ => Ok(()),
    }
    .map_err(|error| error.with("tenant", tenant))
}

fn stale(record: &Record, generation: Generation) -> Error {
    Error::stale(
        reason::STALE_GENERATION,
        format!(
            "a newer decision about {} was seen here (generation {}, this call has {generation}); ask the controller where it lives now",
            record.tenant, record.generation
        ),
    )
    .with("tenant", &record.tenant)
    .with("generation", record.generation)
}

fn wrong_state(record: &Record, wanted: &str) -> Error {
    let moving = match &record.incoming {
        Some(incoming) => format!(" and a move to this server is under way at generation {}", incoming.generation),
        None => String::new(),
    };
    Error::refused(reason::WRONG_STATE, format!("{} {}{moving}; {wanted}", record.tenant, describe(&record.residence)))
        .with("tenant", &record.tenant)
        .with("generation", record.generation)
}

fn describe(residence: &Residence) -> String {
    match residence {
        Residence::Absent => "does not live on this server".into(),
        Residence::Active { provisioning: Some(_), .. } => "is still being added here".into(),
        Residence::Active { .. } => "lives on this server".into(),
        Residence::Sealed => "is sealed for a move".into(),
        Residence::Departed { forward_to: Some(to) } => format!("has moved away (to {to})"),
        Residence::Departed { forward_to: None } => "has moved away".into(),
    }
}

fn not_found(tenant: &TenantName) -> Error {
    Error::not_found(
        reason::TENANT_NOT_FOUND,
        format!("this server has never heard of {tenant}; `featherctl tenant list` shows where tenants live"),
    )
    .with("tenant", tenant)
}

/// Data must be here and whole before anything starts on it.
fn require_whole(record: &Record) -> Result<(), Error> {
    match record.volume {
        Volume::Complete { .. } => Ok(()),
        Volume::Incomplete { .. } => Err(incomplete(&record.tenant)),
        Volume::None => Err(data_missing(&record.tenant)),
    }
}

fn incomplete(tenant: &TenantName) -> Error {
    Error::refused(
        reason::VOLUME_INCOMPLETE,
        format!(
            "the volume of {tenant} is incomplete: a transfer or import into it did not finish; import it again with \
             `featherctl volume import {tenant} FILE`"
        ),
    )
    .with("tenant", tenant)
}

/// The error for data that should be here and is not.
pub(crate) fn data_missing(tenant: &TenantName) -> Error {
    Error::refused(
        reason::DATA_MISSING,
        format!(
            "the data of {tenant} is expected on this server and is not there; it is not started empty: restore the volume {}, or import \
             a backup with `featherctl volume import`",
            tenant.container()
        ),
    )
    .with("tenant", tenant)
}
