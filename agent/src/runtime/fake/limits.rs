//! What containers of the fake engine use and may use. It forgets at each start what it was told since the container was made, as the
//! oldest engines do.

use feather_proto::limits::{Limits, PIDS_DEFAULT};

use super::Fake;
use crate::runtime::Resources;

/// What a container uses of which nothing else was said.
pub(super) fn idle() -> Resources {
    Resources { memory_bytes: 20 << 20, pids: 5, pids_max: Some(PIDS_DEFAULT), ..Resources::default() }
}

/// The same with these limits.
pub(super) fn limited(limits: &Limits, now: Resources) -> Resources {
    Resources {
        memory_max_bytes: limits.memory_bytes,
        cpu_max_millis: limits.cpu_millis,
        pids_max: Some(limits.pids_or_default()),
        ..now
    }
}

impl Fake {
    /// The container uses so much from now on, whether it runs or not.
    pub fn set_use(&self, name: &str, memory_bytes: u64, pids: u32) {
        if let Some(entry) = self.state().containers.get_mut(name) {
            entry.resources = Resources { memory_bytes, pids, ..entry.resources };
        }
    }

    /// What a container uses and may use, by the engine's own books: asking is no call.
    pub fn used(&self, name: &str) -> Option<Resources> {
        self.state().containers.get(name).map(|entry| entry.resources)
    }
}
