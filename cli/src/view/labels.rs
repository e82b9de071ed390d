//! Labels as they are shown: an object in JSON, `name=value` for people.

use std::collections::BTreeMap;

use feather_proto::pb::types::v1 as pb;
use serde::Serialize;

/// In the order of names.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct LabelsView(BTreeMap<String, String>);

impl From<Vec<pb::Label>> for LabelsView {
    fn from(labels: Vec<pb::Label>) -> Self {
        Self(labels.into_iter().map(|label| (label.name, label.value)).collect())
    }
}

impl LabelsView {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn words(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}"))
    }

    /// In one line.
    pub(crate) fn told(&self) -> String {
        self.words().collect::<Vec<_>>().join(", ")
    }

    /// One on each line.
    pub(crate) fn lines(&self) -> String {
        self.words().map(|word| word + "\n").collect()
    }
}
