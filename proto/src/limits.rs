//! What a tenant may use of its server: memory, processor time, processes.
//!
//! All limits of a tenant have one revision, which counts changes: a server that has seen a change refuses an older one that comes
//! late. Revision 0 means that nobody has ever said anything, and then the engine's own limits hold.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, reason},
    pb::types::v1 as types_pb,
};

/// Least memory in bytes: below it hardly any work container starts.
pub const MEMORY_MIN: u64 = 64 << 20;
/// Most memory in bytes.
pub const MEMORY_MAX: u64 = 16 << 40;
/// Least processor time in thousandths of a core.
pub const CPU_MIN: u32 = 100;
/// Most processor time in thousandths of a core.
pub const CPU_MAX: u32 = 1_024_000;
/// Fewest processes and threads.
pub const PIDS_MIN: u32 = 32;
/// Most processes and threads.
pub const PIDS_MAX: u32 = 4_194_304;
/// Processes and threads of a container for which nothing is said, as the engine has it.
pub const PIDS_DEFAULT: u32 = 2048;

/// Limits of one tenant, all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Most memory in bytes; no swap beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Most processor time in thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Most processes and threads; [`PIDS_DEFAULT`] without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Counts changes; 0 for none ever.
    #[serde(skip_serializing_if = "never")]
    pub revision: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn never(revision: &u64) -> bool {
    *revision == 0
}

/// A change of limits: what is `None` stays, `Some(None)` takes a limit away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Memory in bytes.
    pub memory_bytes: Option<Option<u64>>,
    /// Processor time in thousandths of a core.
    pub cpu_millis: Option<Option<u32>>,
    /// Processes and threads.
    pub pids: Option<Option<u32>>,
}

impl Change {
    /// Does it say nothing at all?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Limits {
    /// Has anybody ever said anything?
    pub fn is_said(&self) -> bool {
        self.revision > 0
    }

    /// Do both allow the same?
    pub fn allows_as(&self, other: &Self) -> bool {
        Self { revision: other.revision, ..*self } == *other
    }

    /// Processes and threads that its container may have.
    pub fn pids_or_default(&self) -> u32 {
        self.pids.unwrap_or(PIDS_DEFAULT)
    }

    /// What they are after a change; the same when it says nothing new. A new revision is higher than this one and than `seen`, the
    /// highest that any server has.
    pub fn changed(&self, change: &Change, seen: u64) -> Self {
        let new = Self {
            memory_bytes: change.memory_bytes.unwrap_or(self.memory_bytes),
            cpu_millis: change.cpu_millis.unwrap_or(self.cpu_millis),
            pids: change.pids.unwrap_or(self.pids),
            revision: self.revision,
        };
        // To take away what never was is news only where nobody has said anything.
        if change.is_empty() || (new == *self && self.is_said()) {
            return *self;
        }
        Self { revision: self.revision.max(seen).saturating_add(1), ..new }
    }

    /// Within what can be asked for.
    ///
    /// # Errors
    /// A value is below its floor or above its ceiling.
    pub fn check(self) -> Result<Self, Error> {
        if let Some(memory) = self.memory_bytes.filter(|memory| !(MEMORY_MIN..=MEMORY_MAX).contains(memory)) {
            return Err(out_of_range("memory", format!("from 64 MiB to 16 TiB, and {memory} bytes is not")));
        }
        if let Some(cpu) = self.cpu_millis.filter(|cpu| !(CPU_MIN..=CPU_MAX).contains(cpu)) {
            return Err(out_of_range("cpus", format!("from 0.1 to 1024 cores, and {cpu} thousandths of one is not")));
        }
        if let Some(pids) = self.pids.filter(|pids| !(PIDS_MIN..=PIDS_MAX).contains(pids)) {
            return Err(out_of_range("pids", format!("from 32 to 4194304 processes, and {pids} is not")));
        }
        Ok(self)
    }
}

fn out_of_range(field: &str, wanted: String) -> Error {
    Error::invalid(reason::INVALID_FIELD, format!("the limit of {field} must be {wanted}")).with("field", field)
}

fn value<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// As they are told, unchecked: what a server of another version reports is shown, not judged.
impl From<types_pb::TenantLimits> for Limits {
    fn from(pb: types_pb::TenantLimits) -> Self {
        Self {
            memory_bytes: value(pb.memory_bytes),
            cpu_millis: value(pb.cpu_millis),
            pids: value(pb.pids),
            revision: pb.revision,
        }
    }
}

impl From<Limits> for types_pb::TenantLimits {
    fn from(limits: Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes.unwrap_or_default(),
            cpu_millis: limits.cpu_millis.unwrap_or_default(),
            pids: limits.pids.unwrap_or_default(),
            revision: limits.revision,
        }
    }
}

impl Limits {
    /// For the wire: nothing when nobody has said anything.
    pub fn encode(self) -> Option<types_pb::TenantLimits> {
        self.is_said().then(|| self.into())
    }

    /// From a request, where nothing means that nobody has said anything.
    ///
    /// # Errors
    /// As [`Limits::check`].
    pub fn decode(pb: Option<types_pb::TenantLimits>) -> Result<Self, Error> {
        pb.map_or(Ok(Self::default()), |pb| Self::from(pb).check())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Change, Limits};
    use crate::pb::types::v1 as types_pb;

    const SET: Limits = Limits { memory_bytes: Some(1 << 30), cpu_millis: Some(1500), pids: Some(500), revision: 3 };

    #[test]
    fn a_change_counts_and_what_is_so_already_is_none() {
        let more = Change { memory_bytes: Some(Some(2 << 30)), ..Change::default() };
        let changed = SET.changed(&more, 0);
        assert_eq!(changed, Limits { memory_bytes: Some(2 << 30), revision: 4, ..SET });
        assert_eq!(changed.changed(&more, 9), changed, "the same again is no change");
        let lifted = SET.changed(&Change { pids: Some(None), ..Change::default() }, 7);
        assert_eq!(lifted, Limits { pids: None, revision: 8, ..SET }, "higher than what a server has seen");
        assert_eq!(SET.changed(&Change::default(), 7), SET);
        let first = Limits::default().changed(&Change { pids: Some(None), ..Change::default() }, 0);
        assert!(first.is_said() && first.allows_as(&Limits::default()), "{first:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_range() {
        for (limits, told) in [
            (Limits { memory_bytes: Some((64 << 20) - 1), ..SET }, "from 64 MiB"),
            (Limits { memory_bytes: Some((16 << 40) + 1), ..SET }, "to 16 TiB"),
            (Limits { cpu_millis: Some(99), ..SET }, "from 0.1"),
            (Limits { pids: Some(31), ..SET }, "from 32"),
            (Limits { pids: Some(u32::MAX), ..SET }, "to 4194304"),
        ] {
            let refused = limits.check().unwrap_err();
            assert!(refused.message.contains(told), "{refused}");
        }
        assert_eq!(SET.check().unwrap(), SET);
    }

    proptest! {
        #[test]
        fn they_survive_wire_and_disk(
            memory in prop::option::of(super::MEMORY_MIN..=super::MEMORY_MAX),
            cpu in prop::option::of(super::CPU_MIN..=super::CPU_MAX),
            pids in prop::option::of(super::PIDS_MIN..=super::PIDS_MAX),
            revision in 0u64..1000,
        ) {
            let limits = Limits { memory_bytes: memory, cpu_millis: cpu, pids, revision };
            prop_assert_eq!(Limits::decode(Some(types_pb::TenantLimits::from(limits))).unwrap(), limits);
            let text = serde_json::to_string(&limits).unwrap();
            prop_assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
        }

        #[test]
        fn no_change_goes_back_in_revision(seen in 0u64..10, memory in prop::option::of(super::MEMORY_MIN..1 << 40)) {
            let changed = SET.changed(&Change { memory_bytes: Some(memory), ..Change::default() }, seen);
            let same = changed == SET;
            prop_assert!(same || changed.revision > SET.revision.max(seen));
        }
    }
}
