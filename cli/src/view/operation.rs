//! Operations as they are shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{
    Moment,
    migration::MigrationView,
    moment,
    moves::{self, TenantMoveView},
    or_empty, set,
};
use crate::{
    output::{pairs, table},
    units,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Running,
    Undoing,
    Stuck,
    Succeeded,
    Failed,
    Cancelled,
    Unknown,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Stuck => "stuck",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct OperationView {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) state: State,
    pub(crate) tenant: String,
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) created: Option<Moment>,
    pub(crate) ended: Option<Moment>,
    pub(crate) step: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) requested_by: Option<String>,
    pub(crate) migration: Option<MigrationView>,
    pub(crate) moves: Vec<TenantMoveView>,
    pub(crate) parent: Option<String>,
    pub(crate) log: Vec<LogEntryView>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct LogEntryView {
    pub(crate) sequence: u32,
    #[serde(rename = "at")]
    pub(crate) time: Option<Moment>,
    pub(crate) step: String,
    pub(crate) event: String,
    pub(crate) message: String,
}

impl From<pb::Operation> for OperationView {
    fn from(pb: pb::Operation) -> Self {
        let kind = match pb.kind() {
            pb::OperationKind::Unspecified => "unknown",
            pb::OperationKind::Add => "add",
            pb::OperationKind::Remove => "remove",
            pb::OperationKind::Migrate => "migrate",
            pb::OperationKind::Start => "start",
            pb::OperationKind::Stop => "stop",
            pb::OperationKind::Restart => "restart",
            pb::OperationKind::Swap => "swap",
            pb::OperationKind::Drain => "drain",
            pb::OperationKind::Return => "return",
            pb::OperationKind::Lost => "lost",
            pb::OperationKind::Recover => "recover",
        };
        let state = match pb.state() {
            pb::OperationState::Unspecified => State::Unknown,
            pb::OperationState::Running => State::Running,
            pb::OperationState::Undoing => State::Undoing,
            pb::OperationState::Stuck => State::Stuck,
            pb::OperationState::Succeeded => State::Succeeded,
            pb::OperationState::Failed => State::Failed,
            pb::OperationState::Cancelled => State::Cancelled,
        };
        Self {
            kind,
            state,
            id: pb.id,
            tenant: pb.tenant,
            source: set(pb.source),
            target: set(pb.target),
            created: moment!(pb.created),
            ended: moment!(pb.ended),
            step: set(pb.step),
            error: set(pb.error),
            reason: set(pb.reason),
            hint: set(pb.hint),
            requested_by: set(pb.requested_by),
            migration: pb.migration.map(MigrationView::from),
            moves: pb.moves.into_iter().map(TenantMoveView::from).collect(),
            parent: set(pb.parent),
            log: pb.log.into_iter().map(LogEntryView::from).collect(),
        }
    }
}

impl From<pb::OperationLogEntry> for LogEntryView {
    fn from(pb: pb::OperationLogEntry) -> Self {
        Self { sequence: pb.sequence, time: moment!(pb.at), step: pb.step, event: pb.event, message: pb.message }
    }
}

/// How the times of a log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Times {
    // Since the operation began.
    Relative,
    // RFC 3339 in UTC.
    Absolute,
}

impl OperationView {
    /// Aligned names and values, then the log.
    pub(crate) fn details(&self, times: Times) -> String {
        let moment = |moment: Option<Moment>| moment.map(|moment| moment.to_string()).unwrap_or_default();
        let took = self.created.zip(self.ended).map(|(created, ended)| units::span(ended - created));
        let of_move = |words: &dyn Fn(&MigrationView) -> String| self.migration.as_ref().map(words).unwrap_or_default();
        let mut text = pairs(&[
            ("operation", self.id.clone()),
            ("kind", self.kind.to_owned()),
            ("state", self.state.word().to_owned()),
            ("tenant", self.tenant.clone()),
            ("from", or_empty(self.source.as_ref())),
            ("to", or_empty(self.target.as_ref())),
            ("step", or_empty(self.step.as_ref())),
            ("part of", or_empty(self.parent.as_ref())),
            ("requested by", or_empty(self.requested_by.as_ref())),
            ("began", moment(self.created)),
            ("ended", moment(self.ended)),
            ("took", took.unwrap_or_default()),
            ("result", of_move(&MigrationView::measured)),
            ("sent", of_move(&MigrationView::sent)),
            ("predicted", of_move(&MigrationView::foretold)),
            ("root digest", of_move(&|migration| migration.root_digest.clone())),
            ("error", or_empty(self.error.as_ref())),
            ("next", or_empty(self.hint.as_ref())),
        ]);
        if !self.moves.is_empty() {
            text.push('\n');
            text.push_str(&moves::list(&self.moves));
        }
        if !self.log.is_empty() {
            text.push('\n');
            text.push_str(&self.log_table(times));
        }
        text
    }

    fn log_table(&self, times: Times) -> String {
        let rows: Vec<_> = self
            .log
            .iter()
            .map(|entry| {
                let time = match times {
                    Times::Absolute => entry.time.map(|time| time.to_string()),
                    Times::Relative => {
                        entry.time.zip(self.created).map(|(time, created)| format!("+{}", units::span(time - created)))
                    }
                };
                [time.unwrap_or_default(), entry.step.clone(), entry.event.clone(), entry.message.clone()]
            })
            .collect();
        table(["TIME", "STEP", "EVENT", "MESSAGE"], &rows)
    }

    fn route(&self) -> String {
        match (&self.source, &self.target) {
            (Some(source), Some(target)) if source != target => format!("{source} -> {target}"),
            (source, target) => target.clone().or_else(|| source.clone()).unwrap_or_default(),
        }
    }
}

pub(crate) fn list(operations: &[OperationView]) -> String {
    let rows: Vec<_> = operations
        .iter()
        .map(|operation| {
            [
                operation.id.clone(),
                operation.kind.to_owned(),
                operation.tenant.clone(),
                operation.route(),
                operation.state.word().to_owned(),
                operation.created.map(Moment::age).unwrap_or_default(),
                operation.step.clone().or_else(|| operation.error.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    table(["ID", "KIND", "USERNAME", "SERVER", "STATE", "AGE", "STEP OR ERROR"], &rows)
}
