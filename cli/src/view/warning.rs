//! Warnings as they are shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, set};
use crate::output::pairs;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct AcknowledgementView {
    pub(crate) by: String,
    pub(crate) at: Option<Moment>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct WarningView {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) message: String,
    pub(crate) since: Option<Moment>,
    pub(crate) acknowledged: Option<AcknowledgementView>,
}

impl From<pb::Warning> for WarningView {
    fn from(pb: pb::Warning) -> Self {
        let acknowledged =
            |pb: pb::Acknowledgement| AcknowledgementView { by: pb.by, at: moment!(pb.at), note: set(pb.note) };
        Self {
            id: pb.id,
            kind: pb.kind,
            subject: pb.subject,
            message: pb.message,
            since: moment!(pb.since),
            acknowledged: pb.acknowledged.map(acknowledged),
        }
    }
}

impl AcknowledgementView {
    fn line(&self) -> String {
        let note = self.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        let at = self.at.map(|at| format!(", {} ago", at.age())).unwrap_or_default();
        format!("{}{at}{note}", self.by)
    }
}

impl WarningView {
    /// Aligned names and values.
    pub(crate) fn details(&self) -> String {
        pairs(&[
            ("warning", self.id.clone()),
            ("about", self.subject.clone()),
            ("since", self.since.map(|since| since.to_string()).unwrap_or_default()),
            ("known by", self.acknowledged.as_ref().map(AcknowledgementView::line).unwrap_or_default()),
            ("", self.message.clone()),
        ])
    }

    /// Its name and age, and below it what is so.
    fn block(&self) -> String {
        let age = self.since.map(|since| format!("  for {}", since.age())).unwrap_or_default();
        let known = self.acknowledged.as_ref().map(|one| format!("  known by {}", one.line())).unwrap_or_default();
        format!("{}{age}{known}\n  {}\n", self.id, self.message)
    }
}

pub(crate) fn list(warnings: &[WarningView]) -> String {
    warnings.iter().map(WarningView::block).collect()
}

/// What is not shown.
pub(crate) fn known(count: u32) -> String {
    format!("{}; `featherctl warning list --all` shows them too", counted(count, "that somebody has taken note of"))
}

/// The footer of lists that are not about warnings.
pub(crate) fn footer(count: u32) -> Option<String> {
    (count > 0).then(|| format!("{}: `featherctl warning list`", crate::units::counted(count.into(), "warning")))
}

fn counted(count: u32, what: &str) -> String {
    if count == 1 { format!("one more {what}") } else { format!("{count} more {what}") }
}
