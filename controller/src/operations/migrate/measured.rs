//! What a move did, from its facts: the numbers that are shown and that later moves are judged by. Pure.

use feather_proto::model::VolumeSummary;
use time::OffsetDateTime;

use super::{Facts, Past, Plan, Prediction, Round};
use crate::store::OperationRow;

/// A move as measured so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The source's volume, tenant stopped.
    pub source: Option<VolumeSummary>,
    /// The target's.
    pub target: Option<VolumeSummary>,
    /// How long requests had to wait; `None` before that, and for a tenant that was stopped anyway.
    pub outage_ms: Option<u64>,
    /// The source's gate did not measure it, the controller's clock did.
    pub outage_by_controller: bool,
    /// Passes while the tenant ran.
    pub rounds: Vec<Round>,
    /// Why there were no more.
    pub rounds_ended: Option<String>,
    /// The pass behind the stop.
    pub last_pass: Option<Round>,
    /// From the beginning to the release.
    pub duration_ms: Option<u64>,
    /// What was predicted.
    pub predicted: Option<Prediction>,
    /// The controller stood between both agents.
    pub relayed: bool,
}

impl Measured {
    /// From the row of a move; `None` before it has carried anything.
    pub fn of(row: &OperationRow) -> Option<Self> {
        let facts: Facts = serde_json::from_value(row.facts.clone()).ok()?;
        let plan: Plan = serde_json::from_value(row.plan.clone()).ok()?;
        if facts.rounds.is_empty() && facts.last_pass.is_none() && facts.source.is_none() {
            return None;
        }
        let back = facts.released_ms.or(facts.restarted_ms);
        let by_controller = back.zip(facts.stopped_ms).and_then(|(end, begin)| u64::try_from(end - begin).ok());
        let outage_ms = facts.held_ms.or(by_controller).filter(|_| plan.running);
        let created_ms = milliseconds(row.created);
        Some(Self {
            outage_by_controller: facts.held_ms.is_none() && outage_ms.is_some(),
            outage_ms,
            duration_ms: facts.released_ms.and_then(|released| u64::try_from(released - created_ms).ok()),
            source: facts.source,
            target: facts.target,
            rounds: facts.rounds,
            rounds_ended: facts.rounds_ended,
            last_pass: facts.last_pass,
            predicted: plan.predicted,
            relayed: plan.relayed,
        })
    }

    /// Bytes between both servers, in all passes.
    pub fn wire_bytes(&self) -> u64 {
        self.rounds.iter().chain(&self.last_pass).map(|pass| pass.wire_bytes).sum()
    }

    /// The same as experience. A move whose data rate was held down tells nothing of rates.
    pub fn past(row: &OperationRow) -> Option<Past> {
        let plan: Plan = serde_json::from_value(row.plan.clone()).ok()?;
        let measured = Self::of(row)?;
        let last = measured.last_pass?;
        Some(Past {
            source: plan.source,
            target: plan.target,
            relayed: plan.relayed,
            first: measured.rounds.first().copied().unwrap_or(last),
            last,
            files: measured.target?.files,
            outage_ms: measured.outage_ms,
            duration_ms: measured.duration_ms?,
        })
        .filter(|_| plan.bytes_per_second_max.is_none())
    }
}

fn milliseconds(moment: OffsetDateTime) -> i64 {
    i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
