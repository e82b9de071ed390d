//! What was found by asking, as it is shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::set;
use crate::units;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    Warn,
    Fail,
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckView {
    pub(crate) verdict: Verdict,
    pub(crate) subject: String,
    pub(crate) check: String,
    pub(crate) message: String,
    pub(crate) next: Option<String>,
}

impl CheckView {
    pub(crate) fn new(verdict: Verdict, subject: &str, check: &str, message: String, next: &str) -> Self {
        Self { verdict, subject: subject.into(), check: check.into(), message, next: set(next.to_owned()) }
    }
}

impl From<pb::Check> for CheckView {
    fn from(pb: pb::Check) -> Self {
        let verdict = match pb.verdict() {
            pb::CheckVerdict::Unspecified => Verdict::Unknown,
            pb::CheckVerdict::Ok => Verdict::Ok,
            pb::CheckVerdict::Warn => Verdict::Warn,
            pb::CheckVerdict::Fail => Verdict::Fail,
        };
        Self { verdict, subject: pb.subject, check: pb.check, message: pb.message, next: set(pb.next) }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct DoctorView {
    pub(crate) failed: usize,
    pub(crate) warned: usize,
    pub(crate) checks: Vec<CheckView>,
}

impl DoctorView {
    pub(crate) fn new(checks: Vec<CheckView>) -> Self {
        let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        Self { failed: count(Verdict::Fail), warned: count(Verdict::Warn), checks }
    }

    /// A line for each, and below it what to type.
    pub(crate) fn text(&self, quiet: bool) -> String {
        let shown: Vec<_> = self.checks.iter().filter(|check| !quiet || check.verdict != Verdict::Ok).collect();
        let widest = shown.iter().map(|check| check.subject.chars().count()).max().unwrap_or_default();
        let line = |check: &&CheckView| {
            let next = check.next.as_ref().map(|next| format!("        next: {next}\n")).unwrap_or_default();
            format!("{:<6}  {:<widest$}  {}\n{next}", check.verdict.word(), check.subject, check.message)
        };
        shown.iter().map(line).collect()
    }

    pub(crate) fn summary(&self) -> String {
        let checks = units::counted(u64::try_from(self.checks.len()).unwrap_or(u64::MAX), "check");
        match (self.failed, self.warned) {
            (0, 0) => format!("{checks}, all well."),
            (failed, warned) => format!("{checks}: {failed} failed, {warned} to look at."),
        }
    }
}
