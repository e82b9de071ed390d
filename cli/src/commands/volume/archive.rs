//! What backing up, restoring and verifying tell while they go on.

use feather_proto::pb::controller::v1 as pb;

use crate::output::Progress;

/// Shows how far it is; a new phase begins a new line.
pub(super) fn told(progress: &mut Progress, phase: &mut String, now: &pb::BackupProgress) {
    if *phase != now.phase {
        phase.clone_from(&now.phase);
        progress.step(match phase.as_str() {
            "checking" => "reading it back",
            "restoring" => "sending it to its server",
            other => other,
        });
    }
    progress.transfer(now.bytes, now.total_bytes);
}
