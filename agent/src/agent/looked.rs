//! Volumes that were looked at from end to end after their tenant's last process had ended, and in which nobody has been since.
//!
//! Owns what spares a move a second look at every file while its users wait: the last pass of a transfer *is* a look at
//! everything on disk, on either side (`docs/decisions/0037-one-look-after-the-stop.md`). Kept in memory only: an agent that
//! was restarted looks again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use feather_proto::{
    ids::{Generation, TenantName},
    model::{IncomingStage, VolumeSummary},
};

use super::locked;
use crate::ledger::{Record, Residence};

/// By tenant: what was found, and the generation at which it lay still.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looked(Arc<Mutex<BTreeMap<TenantName, (Generation, VolumeSummary)>>>);

impl Looked {
    /// A pass over everything has ended, of a volume that lies still.
    pub(super) fn note(&self, tenant: &TenantName, generation: Generation, found: VolumeSummary) {
        locked(&self.0).insert(tenant.clone(), (generation, found));
    }

    /// Somebody works in the volume.
    pub(super) fn forget(&self, tenant: &TenantName) {
        locked(&self.0).remove(tenant);
    }

    /// What was found, if the volume still lies as it lay then: every change of where its tenant stands has another generation.
    pub(super) fn found(&self, record: &Record) -> Option<VolumeSummary> {
        let received = |stage| matches!(stage, IncomingStage::Received);
        let lies_still = record.residence == Residence::Sealed
            || record.incoming.as_ref().is_some_and(|incoming| received(incoming.stage));
        let (generation, found) = locked(&self.0).get(&record.tenant).cloned()?;
        (lies_still && generation == record.generation).then_some(found)
    }
}
