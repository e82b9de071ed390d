//! Moves as they are shown: what they did, and what they would take.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use crate::units;

/// What a move did, as measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MigrationView {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    /// On the target.
    pub(crate) root_digest: String,
    /// Are both sides' root digests there, and the same?
    pub(crate) equal: bool,
    pub(crate) outage_ms: u64,
    /// By the controller's clock, because the source's gate did not say.
    pub(crate) outage_by_controller: bool,
    pub(crate) transfer_ms: u64,
    /// From the beginning to the release; 0 before that.
    pub(crate) duration_ms: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) rounds: Vec<RoundView>,
    pub(crate) rounds_ended: String,
    pub(crate) relayed: bool,
    pub(crate) predicted: Option<PredictionView>,
}

/// One pass while the tenant ran.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RoundView {
    pub(crate) files: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) duration_ms: u64,
}

/// What a move will take.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PredictionView {
    pub(crate) wire_bytes: u64,
    pub(crate) duration_ms: u64,
    pub(crate) outage_ms: u64,
    pub(crate) basis: String,
}

/// What a server has left.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RoomView {
    pub(crate) slots_free: u32,
    pub(crate) memory_free_bytes: u64,
    pub(crate) disk_free_bytes: u64,
}

impl From<pb::MigrationResult> for MigrationView {
    fn from(pb: pb::MigrationResult) -> Self {
        let source = pb.source.unwrap_or_default();
        let target = pb.target.unwrap_or_default();
        let round = |round: pb::MigrationRound| RoundView {
            files: round.files,
            wire_bytes: round.wire_bytes,
            duration_ms: round.duration_ms,
        };
        Self {
            bytes: target.bytes,
            files: target.files,
            equal: !target.root_digest.is_empty() && source.root_digest == target.root_digest,
            root_digest: target.root_digest,
            outage_ms: pb.outage_ms,
            outage_by_controller: pb.outage_by_controller,
            transfer_ms: pb.transfer_ms,
            duration_ms: pb.duration_ms,
            wire_bytes: pb.wire_bytes,
            rounds: pb.rounds.into_iter().map(round).collect(),
            rounds_ended: pb.rounds_ended,
            relayed: pb.relayed,
            predicted: pb.predicted.map(PredictionView::from),
        }
    }
}

impl From<pb::MigrationPrediction> for PredictionView {
    fn from(pb: pb::MigrationPrediction) -> Self {
        Self { wire_bytes: pb.wire_bytes, duration_ms: pb.duration_ms, outage_ms: pb.outage_ms, basis: pb.basis }
    }
}

impl From<pb::RoomLeft> for RoomView {
    fn from(pb: pb::RoomLeft) -> Self {
        Self { slots_free: pb.slots_free, memory_free_bytes: pb.memory_free_bytes, disk_free_bytes: pb.disk_free_bytes }
    }
}

impl MigrationView {
    /// What came of it, below one another: the data, what was sent for it, what was foretold.
    pub(crate) fn told(&self, ends: &str) -> String {
        let mut text = format!("{ends}: {}", self.measured());
        for (name, words) in [("sent", self.sent()), ("predicted", self.foretold())] {
            if !words.is_empty() {
                text.push_str(&format!("\n  {name} {words}"));
            }
        }
        text
    }

    /// `1.2 MiB in 34 files, root digest 5f3a... equal on both sides, outage 812 ms`; empty until both sides were compared.
    pub(crate) fn measured(&self) -> String {
        if self.root_digest.is_empty() {
            return String::new();
        }
        format!(
            "{} in {}, root digest {}… {}, outage {}",
            units::bytes(self.bytes),
            units::counted(self.files, "file"),
            self.root_digest.get(..16).unwrap_or(&self.root_digest),
            if self.equal { "equal on both sides" } else { "NOT equal on both sides" },
            self.outage(),
        )
    }

    /// `812 ms`
    pub(crate) fn outage(&self) -> String {
        let clock = if self.outage_by_controller { " by the controller's clock" } else { "" };
        format!("{} ms{clock}", self.outage_ms)
    }

    /// `900.0 KiB in 2 rounds and a last pass of 95 ms; the last round was short; 3.200 s in all`; empty when nothing was.
    pub(crate) fn sent(&self) -> String {
        let rounds = match u64::try_from(self.rounds.len()).unwrap_or(u64::MAX) {
            0 if self.wire_bytes == 0 => return String::new(),
            0 => String::new(),
            count => units::counted(count, "round"),
        };
        let last = match self.transfer_ms {
            0 => String::new(),
            took => format!("a last pass of {}", units::brief(took)),
        };
        let passes = [rounds, last].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" and ");
        let mut text = format!("{} in {passes}", units::bytes(self.wire_bytes));
        if self.relayed {
            text.push_str(" via the controller");
        }
        if !self.rounds_ended.is_empty() {
            text.push_str(&format!("; {}", self.rounds_ended));
        }
        if self.duration_ms > 0 {
            text.push_str(&format!("; {} in all", units::brief(self.duration_ms)));
        }
        text
    }

    /// What was predicted; empty when nothing was.
    pub(crate) fn foretold(&self) -> String {
        self.predicted.as_ref().map(PredictionView::told).unwrap_or_default()
    }
}

impl PredictionView {
    /// `900.0 KiB to send, 3.200 s, outage 700 ms (by 3 moves nyc -> fra)`
    pub(crate) fn told(&self) -> String {
        format!(
            "{} to send, {}, outage {} (by {})",
            units::bytes(self.wire_bytes),
            units::brief(self.duration_ms),
            units::brief(self.outage_ms),
            self.basis
        )
    }
}

impl RoomView {
    /// `9 slots, 1.2 GiB of memory and 38.0 GiB of disk`
    pub(crate) fn told(&self) -> String {
        format!(
            "{}, {} of memory and {} of disk",
            units::counted(self.slots_free.into(), "slot"),
            units::bytes(self.memory_free_bytes),
            units::bytes(self.disk_free_bytes)
        )
    }
}
