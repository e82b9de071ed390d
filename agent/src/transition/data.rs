//! Transitions of a volume outside moves: import, deletion, and who may fetch it.

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
};

use super::{fence, not_found, require_whole, stale, wrong_state};
use crate::ledger::{Desired, Record, Residence, Volume};

/// An import that may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImportTarget {
    /// To be written before the first byte. Whole data stays what it is until other whole data takes its place; what is none is
    /// incomplete from here on.
    pub(crate) marked: Record,
    /// Placement that the imported data will belong to.
    pub(crate) generation: Generation,
}

/// The volume's content shall be replaced. Generation 0 stands for a tenant that is not placed; `exists` says whether the engine
/// has a volume of its name.
pub(crate) fn admit_import(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    exists: bool,
) -> Result<ImportTarget, Error> {
    let current = record.cloned().unwrap_or_else(|| Record::floor(tenant.clone(), generation));
    let absent = current.residence == Residence::Absent;
    if !(absent && generation == Generation(0)) {
        fence(record, tenant, generation)?;
    }
    let stopped = matches!(current.residence, Residence::Active { desired: Desired::Stop, provisioning: None });
    if !(absent || stopped) || current.incoming.is_some() {
        return Err(wrong_state(
            &current,
            &format!(
                "stop it first (`featherctl tenant stop {tenant}`); data is imported only where nothing runs on it"
            ),
        ));
    }
    let generation = generation.max(current.generation);
    let volume = match (&current.volume, exists) {
        (Volume::Complete { .. } | Volume::None, true) => current.volume.clone(),
        (Volume::Incomplete { .. }, _) | (_, false) => Volume::Incomplete { generation },
    };
    Ok(ImportTarget { marked: Record { generation, volume, ..current }, generation })
}

/// The volume shall be deleted for good. `None` when the ledger says that there is none.
pub(crate) fn admit_remove_volume(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
) -> Result<Record, Error> {
    fence(record, tenant, generation)?;
    let current = record.cloned().unwrap_or_else(|| Record::floor(tenant.clone(), generation));
    let unused = matches!(current.residence, Residence::Absent | Residence::Departed { .. });
    if !unused || current.incoming.is_some() {
        return Err(wrong_state(
            &current,
            "a volume is deleted only when no tenant lives on it; remove the tenant first",
        ));
    }
    Ok(Record { generation, volume: Volume::Incomplete { generation }, ..current })
}

/// A peer may fetch the volume of what lives here, for a placement that is newer than the source's own.
pub(crate) fn admit_grant(record: Option<&Record>, tenant: &TenantName, generation: Generation) -> Result<(), Error> {
    fence(record, tenant, generation)?;
    let record = record.ok_or_else(|| not_found(tenant))?;
    if !matches!(record.residence, Residence::Sealed | Residence::Active { provisioning: None, .. }) {
        return Err(wrong_state(record, "only the volume of a tenant that lives here is sent"));
    }
    if generation == record.generation {
        return Err(stale(record, generation));
    }
    require_whole(record)?;
    if record.spec.is_none() {
        return Err(Error::bug("a tenant that lives here has no spec").with("reason", reason::WRONG_STATE));
    }
    Ok(())
}

/// The volume is about to be read for a peer: while the tenant may write to it, or as it will be for good.
pub(crate) fn admit_send(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    for_good: bool,
) -> Result<(), Error> {
    admit_grant(record, tenant, generation)?;
    match record {
        Some(record) if for_good && record.residence != Residence::Sealed => {
            Err(wrong_state(record, "its volume is sent for good only after it was stopped for the move"))
        }
        _ => Ok(()),
    }
}
