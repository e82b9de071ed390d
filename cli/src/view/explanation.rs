//! Why something is as it is, as it is shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment};
use crate::output::pairs;

#[derive(Debug, Serialize)]
pub(crate) struct FactView {
    pub(crate) topic: String,
    pub(crate) text: String,
    pub(crate) at: Option<Moment>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ExplanationView {
    pub(crate) subject: String,
    pub(crate) facts: Vec<FactView>,
    pub(crate) next: Vec<String>,
}

impl ExplanationView {
    pub(crate) fn new(subject: String, pb: pb::Explanation) -> Self {
        let fact = |pb: pb::Fact| FactView { topic: pb.topic, text: pb.text, at: moment!(pb.at) };
        Self { subject, facts: pb.facts.into_iter().map(fact).collect(), next: pb.next }
    }

    /// Topics and sentences, then what to type.
    pub(crate) fn text(&self) -> String {
        let mut last = "";
        let mut lines: Vec<(&str, String)> = Vec::new();
        for fact in &self.facts {
            // A topic with several sentences is named once.
            let topic = if fact.topic == last { "" } else { fact.topic.as_str() };
            last = &fact.topic;
            let at = fact.at.map(|at| format!(" ({at})")).unwrap_or_default();
            lines.push((topic, format!("{}{at}", fact.text)));
        }
        let next = self.next.iter().enumerate();
        lines.extend(next.map(|(number, next)| (if number == 0 { "next" } else { "" }, next.clone())));
        // Names stay in their column when they are left out.
        let lines: Vec<_> =
            lines.iter().map(|(topic, text)| (if topic.is_empty() { " " } else { topic }, text.clone())).collect();
        pairs(&lines)
    }
}
