//! How to talk to Podman: limits, and the one key that must not be shown.

use std::{fmt, time::Duration};

/// How to talk to Podman.
#[derive(Clone)]
pub struct PodmanOptions {
    /// Key of the label that says what a container was created from. Only root may read it. A lost one is no harm: containers
    /// are created again, once.
    pub label_key: [u8; 32],
    /// Longest wait for one answer; stopping has its grace on top.
    pub timeout: Duration,
    /// How long a stopped or removed container may take to be seen as such.
    pub ending_limit: Duration,
}

impl PodmanOptions {
    /// With limits that a busy machine does not reach.
    pub fn new(label_key: [u8; 32]) -> Self {
        Self { label_key, timeout: Duration::from_secs(60), ending_limit: Duration::from_secs(15) }
    }
}

impl fmt::Debug for PodmanOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PodmanOptions").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
